"""What we change inside mitmproxy's HTTP engine, and why: there is no public place for any of it.

- Its error page repeats what it could not read (a header's name, a length, a status line): a server that
  echoes its secret there would have it delivered (law 5). It also carries no JSON-RPC id.
- It raises on HTTP trailers inside a generator: the exchange hangs, without a hook and so without a row.
- It reads a request head of any size, folded lines in quadratic time, and says nothing of one it refuses.
- It refuses a large response before our hook can let it stream, also from servers that nobody lists.

``install`` names everything that is touched, and fails loudly when a new mitmproxy has renamed it.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import Any

from mitmproxy import connection, http
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, context, events
from mitmproxy.proxy.layers import http as http_layer
from mitmproxy.proxy.layers.http import _http1, _http2
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ResponseProtocolError

from callerid.errors import ConfigError

logger = logging.getLogger(__name__)

FOREIGN = "callerid.foreign"
"""Set in ``flow.metadata`` of traffic with servers that nobody lists: its answers are not held back."""

MAX_HEAD = 65_536
"""Bytes of a request's head, from the request line to the empty line."""

MAX_FOLDED = 8_192
"""Beyond this a head with folded lines is not read at all: joining them costs the square of its length."""

_listeners: list[Callable[[context.Context, str], None]] = []


def on_unread(listener: Callable[[context.Context, str], None]) -> None:
    """Have ``listener`` told of every request head that was refused before there was a flow."""
    _listeners[:] = [listener]


def unread(where: context.Context, flaw: str) -> None:
    """Tell it; a fault in the telling changes nothing about the refusal."""
    for listener in _listeners:
        try:
            listener(where, flaw)
        except Exception:
            logger.exception("callerid: a refusal could not be recorded")


_WORDS: weakref.WeakKeyDictionary[connection.Connection, http.Response] = weakref.WeakKeyDictionary()
_FAILED = b'{"jsonrpc":"2.0","id":null,"error":{"code":-50200,"message":"callerid: the exchange failed"}}'


def leave(client: connection.Client, response: http.Response) -> None:
    """The answer of the exchange that is ending; an HTTP/1 connection has one exchange at a time."""
    response.headers["connection"] = "close"
    _WORDS[client] = response


def _page(status_code: int, message: str) -> bytes:
    return _FAILED


def _plain(status_code: int, message: str = "") -> bytes:
    headers = http.Headers(content_type="application/json", cache_control="no-store", connection="close")
    raw: bytes = http1.assemble_response(http.Response.make(status_code, _FAILED, headers))
    return raw


class _WithoutTrailers(_http1.Http1Connection):
    """HTTP/1 that ends the exchange where mitmproxy raises: at trailers."""

    def read_body(self, event: Any) -> Any:
        try:
            yield from super().read_body(event)
        except NotImplementedError:
            yield commands.CloseConnection(self.conn)
            error = self.ReceiveProtocolError(
                self.stream_id or 0, "HTTP trailers are not accepted", code=self.ReceiveProtocolError.code
            )
            yield ReceiveHttp(error)


class _Server(_WithoutTrailers, _http1.Http1Server):
    """The client's side of HTTP/1: heads are bounded and unfolded, and the error page is ours."""

    def read_headers(self, event: Any) -> Any:
        """As mitmproxy's, which joins folded lines in quadratic time and takes heads of any size.

        A head that nobody can read has no flow, and so no hook: ``unread`` is told of it instead.
        """
        if len(self.buf) > MAX_FOLDED:
            raw = bytes(self.buf)
            end = raw.find(b"\r\n\r\n")
            head = raw if end < 0 else raw[:end]
            flaw = None
            if len(head) > MAX_HEAD:
                flaw = f"the request head is longer than {MAX_HEAD} bytes"
            elif len(head) > MAX_FOLDED and (b"\n " in head or b"\n\t" in head):
                flaw = f"the request head has folded lines and is longer than {MAX_FOLDED} bytes"
            if flaw is not None:
                yield commands.SendData(self.conn, _plain(431))
                yield commands.CloseConnection(self.conn)
                self.state = self.done
                unread(self.context, flaw)
                return
        yield from super().read_headers(event)
        if self.state == self.done and self.request is None and isinstance(event, events.DataReceived):
            unread(self.context, "the request head cannot be read")

    def send(self, event: Any) -> Any:
        words = _WORDS.pop(self.conn, None)
        if isinstance(event, ResponseProtocolError) and words is not None and not self.response:
            if self.conn.state & connection.ConnectionState.CAN_WRITE:
                if event.code.http_status_code() is not None:
                    yield commands.SendData(self.conn, http1.assemble_response(words))
                yield commands.CloseConnection(self.conn)
            return
        yield from super().send(event)


class _Client(_WithoutTrailers, _http1.Http1Client):
    """The server's side of HTTP/1."""


class _Stream(http_layer.HttpStream):
    """An exchange whose answer is limited in size only where it is held back to be judged."""

    def check_body_size(self, request: bool) -> Any:
        if not request and self.flow.metadata.get(FOREIGN):
            return False
        return (yield from super().check_body_size(request))


_PLACES: tuple[tuple[Any, str, Any], ...] = (
    (http_layer, "Http1Server", _Server),
    (http_layer, "Http1Client", _Client),
    (http_layer, "HttpStream", _Stream),
    (_http1, "make_error_response", _plain),
    (_http2, "format_error", _page),
)


def install() -> None:
    """Put ours in the place of mitmproxy's, for every connection from now on. Idempotent.

    Raises:
        ConfigError: this mitmproxy has no such place; it is not one that callerid knows.
    """
    for module, name, ours in _PLACES:
        if not hasattr(module, name):
            raise ConfigError(
                f"this mitmproxy has no {module.__name__}.{name}",
                hint="Install the mitmproxy that requirements/runtime.txt names.",
            )
        setattr(module, name, ours)
