"""What a client is told when an exchange ends without an answer: our words, never mitmproxy's.

mitmproxy's error page repeats what it could not read (a header's name, a length, a status line), and a
server that echoes its secret there would have it delivered (law 5). It also has no JSON-RPC id in it.
"""

from __future__ import annotations

import weakref
from typing import Any

from mitmproxy import connection, http
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands
from mitmproxy.proxy.layers import http as http_layer
from mitmproxy.proxy.layers.http import _http1, _http2
from mitmproxy.proxy.layers.http._events import ResponseProtocolError

_WORDS: weakref.WeakKeyDictionary[connection.Connection, http.Response] = weakref.WeakKeyDictionary()


def leave(client: connection.Client, response: http.Response) -> None:
    """The answer of the exchange that is ending; an HTTP/1 connection has one exchange at a time."""
    response.headers["connection"] = "close"
    _WORDS[client] = response


_FAILED = b'{"jsonrpc":"2.0","id":null,"error":{"code":-50200,"message":"callerid: the exchange failed"}}'


def _page(status_code: int, message: str) -> bytes:
    return _FAILED


def _plain(status_code: int, message: str = "") -> bytes:
    headers = http.Headers(content_type="application/json", cache_control="no-store", connection="close")
    raw: bytes = http1.assemble_response(http.Response.make(status_code, _FAILED, headers))
    return raw


class _Server(_http1.Http1Server):
    """The client's side of HTTP/1, with our words in the place of the error page."""

    def send(self, event: Any) -> Any:
        words = _WORDS.pop(self.conn, None)
        if isinstance(event, ResponseProtocolError) and words is not None and not self.response:
            if self.conn.state & connection.ConnectionState.CAN_WRITE:
                if event.code.http_status_code() is not None:
                    yield commands.SendData(self.conn, http1.assemble_response(words))
                yield commands.CloseConnection(self.conn)
            return
        yield from super().send(event)


def install() -> None:
    """Put them in the place of mitmproxy's, for every connection from now on."""
    http_layer.Http1Server = _Server  # type: ignore[attr-defined]
    _http1.make_error_response = _plain
    _http2.format_error = _page  # type: ignore[attr-defined]
