"""What we change inside mitmproxy's HTTP engine, and why: there is no public place for any of it.

- Its error page repeats what it could not read (a header's name, a length, a status line): a server that
  echoes its secret there would have it delivered (law 5). It also carries no JSON-RPC id.
- It raises on HTTP trailers inside a generator: the exchange hangs, without a hook and so without a row.
- It reads a head of any size, folded lines in quadratic time, and says nothing of one it refuses, nor of what
  it refuses over HTTP/2. Where a head begins with an empty line it waits for more than there is.
- It waits for the rest of a head or a body without end, and keeps what a client sends in the meantime.
- It pays a walk through all its layers for each chunk of a body, be it of one byte.
- It has one limit for all bodies (``bodies``).

``install`` names everything that is touched, and fails loudly when a new mitmproxy has renamed it.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from typing import Any

from h2.errors import ErrorCodes
from mitmproxy import connection, http
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, context, events
from mitmproxy.proxy.layers import http as http_layer
from mitmproxy.proxy.layers import tls as tls_layer
from mitmproxy.proxy.layers.http import _http1, _http2
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode, ResponseProtocolError

from callerid.errors import ConfigError
from callerid.model import Reason
from callerid.proxy import alerts, bodies, framing, lighter
from callerid.proxy import tls as edge
from callerid.proxy.framing import MAX_FOLDED, Chunks, Head
from callerid.proxy.limits import ANSWER_HEAD, MIN_RATE

logger = logging.getLogger(__name__)

LINGER_SECONDS = 2.0
"""How long a refused client may go on to send: closed at once, it would lose our answer to a reset."""

type Unread = Callable[[context.Context, Reason, str, bytes], http.Response | None]

_listeners: list[Unread] = []


def on_unread(listener: Unread) -> None:
    """Have ``listener`` told of every request head that was refused before there was a flow.

    It gets the start of what came, and may give back the answer.
    """
    _listeners[:] = [listener]


def unread(where: context.Context, reason: Reason, flaw: str, start: bytes = b"") -> http.Response | None:
    """Tell it; a fault in the telling changes nothing about the refusal."""
    for listener in _listeners:
        try:
            return listener(where, reason, flaw, start[:4096])
        except Exception:
            logger.exception("callerid: a refusal could not be recorded")
    return None


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


class _Bounded(_http1.Http1Connection):
    """HTTP/1 that ends the exchange where mitmproxy raises (at trailers) or hoards (lines of chunks)."""

    def _handle_event(self, event: Any) -> Any:
        """mitmproxy leaves a connection hanging when its reader raises; here it is closed (law 3)."""
        try:
            yield from self._pass(event)
        except Exception:
            logger.exception("callerid: a connection could not be read and is closed")
            yield commands.CloseConnection(self.conn)

    def _pass(self, event: Any) -> Any:
        yield from super()._handle_event(event)

    def read_body(self, event: Any) -> Any:
        try:
            yield from super().read_body(event)
            # Bodies are taken off at once: what is left is the line before a chunk, or after the last one.
            flaw = "the lines between its chunks are too long" if self.state == self.read_body else None
            if flaw is None or len(self.buf) <= bodies.settings.limits.head:
                return
        except NotImplementedError:
            flaw = "HTTP trailers are not accepted"
        yield from self.give_up(flaw)

    def give_up(self, flaw: str) -> Any:
        """End the exchange: what this side sends cannot be read."""
        yield commands.CloseConnection(self.conn)
        self.state = self.done
        yield ReceiveHttp(
            self.ReceiveProtocolError(self.stream_id or 0, flaw, code=self.ReceiveProtocolError.code)
        )


class _Phase(Enum):
    """What is waited for from a client, for a bounded time. Nothing, while it waits for us."""

    HEAD = auto()
    BODY = auto()
    IDLE = auto()
    LINGER = auto()


class _Server(_Bounded, _http1.Http1Server):
    """The client's side of HTTP/1: bounded in size and time, and the error page is ours."""

    buf: Head
    conn: connection.Client

    def __init__(self, where: context.Context) -> None:
        super().__init__(where)
        self.buf = Head()
        self._phase: tuple[_Phase, int] | None = None
        self._since = 0.0
        self._received = 0
        self._alarms: list[float] = []
        self._spoke = self._lingers = False

    def _pass(self, event: Any) -> Any:
        if isinstance(event, events.Wakeup):
            yield from self._wake()
            return
        if isinstance(event, events.Start):
            yield from super()._pass(event)
            return
        if isinstance(event, events.DataReceived):
            self._received += len(event.data)
            if not self._spoke:
                self._spoke = True
                with suppress(Exception):  # it would be closed as silent: a fault lets nobody stay
                    edge.heard(self.conn)
        if self._lingers:
            if isinstance(event, events.ConnectionClosed):
                yield commands.CloseConnection(self.conn)
            return
        yield from super()._pass(event)
        reader = self.body_reader if self.state == self.read_body else None
        if isinstance(reader, Chunks) and reader.is_dust():
            yield from self.give_up("its chunks are too many and too small")
        if self.state == self.wait and len(self.buf) > _most_ahead():
            yield commands.CloseConnection(self.conn)
        yield from self._keep_time()

    def give_up(self, flaw: str) -> Any:
        """As above, and the client is told."""
        self.state = self.done
        yield ReceiveHttp(bodies.Unreadable(self.stream_id, flaw, ErrorCode.REQUEST_TOO_LARGE))

    # -- time ----------------------------------------------------------------------------------

    def _now_waits_for(self) -> tuple[_Phase, int] | None:
        if self._lingers:
            return (_Phase.LINGER, 0)
        if self.state == self.read_headers:
            phase = _Phase.HEAD if self.buf else _Phase.IDLE
        elif self.state == self.read_body and self.conn not in bodies.unhurried:
            phase = _Phase.BODY
        else:
            return None
        return (phase, self.stream_id) if self.conn.state & connection.ConnectionState.CAN_READ else None

    def _keep_time(self) -> Any:
        """One wake-up at a time, and none for a request that arrives in one piece."""
        phase = self._now_waits_for()
        if phase == self._phase:
            return
        self._phase = phase
        if phase is None:
            return
        self._since, self._received = time.monotonic(), 0
        yield from self._arm(self._due())

    def _due(self) -> float:
        limits = bodies.settings.limits
        match self._phase:
            case (_Phase.HEAD, _):
                seconds = limits.head_seconds
            case (_Phase.BODY, _):
                seconds = limits.body_seconds + self._received / MIN_RATE
            case (_Phase.LINGER, _):
                seconds = LINGER_SECONDS
            case _:
                seconds = limits.idle_seconds
        return self._since + seconds if seconds else float("inf")

    def _arm(self, due: float) -> Any:
        if due == float("inf") or any(alarm <= due for alarm in self._alarms):
            return
        self._alarms.append(due)
        yield commands.RequestWakeup(max(due - time.monotonic(), 0.0))

    def _wake(self) -> Any:
        now = time.monotonic()
        self._alarms.remove(min(self._alarms))
        if self._phase is None or self._phase != self._now_waits_for():
            return
        due = self._due()
        if now < due:
            yield from self._arm(due)
            return
        kind, self._phase = self._phase[0], None
        if kind is _Phase.BODY:
            detail = "the body did not arrive in time"
            yield ReceiveHttp(bodies.TooSlow(self.stream_id, detail, ErrorCode.REQUEST_TOO_LARGE))
        elif kind is _Phase.HEAD:
            yield from self._turn_away(Reason.TOO_SLOW, 408, "the request head did not arrive in time")
        else:
            yield commands.CloseConnection(self.conn)
            self.state = self.done

    # -- heads ---------------------------------------------------------------------------------

    def read_headers(self, event: Any) -> Any:
        """As mitmproxy's, which joins folded lines in quadratic time and takes heads of any size.

        A head that nobody can read has no flow, and so no hook: ``unread`` is told of it instead.
        """
        limits, head = bodies.settings.limits, self.buf
        bodies.unhurried.discard(self.conn)
        if isinstance(event, events.DataReceived) and not head.skip_empty_lines():
            yield from self._turn_away(Reason.MALFORMED_HTTP, 400, "too many empty lines before the request")
            return
        request = super().read_headers(event)
        first = next(request, None)
        flaw = None
        if not isinstance(event, events.DataReceived):
            pass
        elif (head.size if head.lines else len(head)) > limits.head:
            flaw = f"the request head is longer than {limits.head} bytes"
        elif head.lines > limits.header_lines:
            flaw = f"the request has more than {limits.header_lines} header lines"
        elif head.folded:
            flaw = f"the request head has folded lines and is longer than {MAX_FOLDED} bytes"
        if flaw is not None:
            yield from self._turn_away(Reason.HEADERS_TOO_LARGE, 431, flaw)
            return
        if first is not None:
            yield first
            yield from request
        if self.state == self.done and self.request is None and isinstance(event, events.DataReceived):
            unread(self.context, Reason.MALFORMED_HTTP, "the request head cannot be read", head.first)

    def _turn_away(self, reason: Reason, status: int, flaw: str) -> Any:
        """Refuse what never became a request."""
        answer = unread(self.context, reason, flaw, self.buf.first or bytes(self.buf))
        raw = _plain(status)
        if answer is not None:
            answer.headers["connection"] = "close"
            raw = http1.assemble_response(answer)
        yield commands.SendData(self.conn, raw)
        yield from self._close(linger=reason is not Reason.TOO_SLOW)

    def _close(self, *, linger: bool) -> Any:
        """Close, at once or after what the client is still sending was thrown away."""
        self.state = self.done
        self.buf = Head()
        if not linger:
            yield commands.CloseConnection(self.conn)
            return
        self._lingers = True
        yield from self._keep_time()

    def send(self, event: Any) -> Any:
        words = _WORDS.pop(self.conn, None)
        if isinstance(event, ResponseProtocolError) and words is not None and not self.response:
            if self.conn.state & connection.ConnectionState.CAN_WRITE:
                if event.code.http_status_code() is not None:
                    yield commands.SendData(self.conn, http1.assemble_response(words))
                yield from self._close(linger=not self.request_done)
            return
        yield from super().send(event)


def _most_ahead() -> int:
    """Bytes that a client may send ahead while it waits for an answer: the largest request."""
    return bodies.settings.limits.head + bodies.settings.limits.body


class _Client(_Bounded, _http1.Http1Client):
    """The server's side of HTTP/1: its heads are bounded as well, and interim answers are passed over."""

    _interim = 0

    def read_headers(self, event: Any) -> Any:
        """As mitmproxy's, for which an interim answer (RFC 9110 section 15.2) is the answer itself."""
        if self.request is not None and isinstance(event, events.DataReceived):
            self._interim += framing.skip_interim(self.buf)
            if self._interim > framing.MAX_INTERIM:
                yield from self.give_up("too many interim answers")
                return
        yield from super().read_headers(event)
        self._interim = self._interim if self.response is None else 0
        if self.response is None and len(self.buf) > ANSWER_HEAD * bodies.settings.limits.head:
            yield from self.give_up(bodies.LONG_HEAD)


class _Server2(_http2.Http2Server):
    """The client's side of HTTP/2. What it refuses has no flow, and so no hook: ``unread`` is told of it."""

    def _handle_event(self, event: Any) -> Any:
        """As with HTTP/1: closed where the reader raises."""
        try:
            yield from super()._handle_event(event)
        except Exception:
            logger.exception("callerid: a connection could not be read and is closed")
            self._tell()
            yield from self.close_connection("it could not be read")

    def protocol_error(self, message: str, error_code: int = ErrorCodes.PROTOCOL_ERROR) -> Any:
        self._tell()
        yield from super().protocol_error(message, error_code)

    def _tell(self) -> None:
        """A row for each request that is lost with what came: begun, and never made a flow. One at least."""
        begun = self.h2_conn.streams.items()
        lost = [key for key, stream in begun if key not in self.streams and not stream.closed]
        for _ in lost or [0]:
            unread(self.context, Reason.MALFORMED_HTTP, "what came over HTTP/2 cannot be read")


_receive_handshake_data: Any = getattr(tls_layer.ClientTLSLayer, "receive_handshake_data", None)


def _receive_hello(layer: Any, data: bytes) -> Any:
    """As mitmproxy's, which reads a ClientHello anew with each byte of up to 16 MiB of it."""
    if layer.client_hello_parsed or layer.is_dtls:
        return (yield from _receive_handshake_data(layer, data))
    try:
        ready = framing.hello_is_ready(bytes(layer.recv_buffer) + data)
    except Exception:
        logger.exception("callerid: a ClientHello could not be looked at; its connection is closed")
        ready = None
    if ready is None:
        # Not the way of failed handshakes: mitmproxy raises on data that comes after one.
        if layer.conn.connected:
            unread(layer.context, Reason.MALFORMED_HTTP, "the TLS ClientHello is too long")
            yield commands.CloseConnection(layer.conn)
        return False, None
    if not ready:
        layer.recv_buffer.extend(data)
        return False, None
    return (yield from _receive_handshake_data(layer, data))


_PLACES: tuple[tuple[Any, str, Any], ...] = (
    (http_layer, "Http1Server", _Server),
    (http_layer, "Http1Client", _Client),
    (http_layer, "Http2Server", _Server2),
    (http_layer, "HttpStream", bodies.Stream),
    (_http1, "make_error_response", _plain),
    (_http1, "make_body_reader", framing.reader),
    (_http2, "format_error", _page),
    (tls_layer.ClientTLSLayer, "receive_handshake_data", _receive_hello),
    (tls_layer.TLSLayer, "receive_close", alerts.receive_close),
    *lighter.PLACES,
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
