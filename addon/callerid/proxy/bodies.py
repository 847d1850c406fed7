"""How much of a body is taken in: counted while it comes, and judged before more of it is held.

mitmproxy has one size for all bodies, either way, of anybody. Here a request may be as large as its sender
and its destination make it, an answer is limited only where it is held back to be judged, and a large body
for a server that nobody lists is passed on as it comes, with tokens of ours looked for on its way.

``Stream`` is put in the place of mitmproxy's exchange by ``engine.install``.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from mitmproxy import connection, ctx, flow, http
from mitmproxy.net.http.http1 import expected_http_body_size
from mitmproxy.proxy.layers import http as http_layer
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestProtocolError,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._hooks import HttpErrorHook

from callerid.identity.tokens import LENGTH, contains_token
from callerid.model import Reason
from callerid.proxy.heads import PatientExchange
from callerid.proxy.limits import DEFAULTS, Limits

logger = logging.getLogger(__name__)

FOREIGN = "callerid.foreign"
"""Set in ``flow.metadata`` of traffic with servers that nobody lists: its answers are not held back."""
PASSES = "callerid.passes"
"""Set for calls to HTTP APIs: a large answer is not held back, but scrubbed as it passes."""
SCRUBBED = "callerid.scrubbed"
"""Set to what an answer that is not held passes through: it takes secrets out."""
STREAMED = "callerid.streamed"
"""Set where the body of a request goes on as it comes: judged by its head and its beginning."""
REFUSED = "callerid.refused"
"""A reason and a detail: the request was refused before all of it was there."""
OVERSIZE = "callerid.oversize"
"""A detail: the answer was larger than it may be."""


LONG_HEAD = "the head of the answer is too large"


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much of a request may be held, and why not more. ``foreign``: its server is not listed."""

    room: int
    reason: Reason
    detail: str
    foreign: bool = False


class Way(Enum):
    """How a large body for a server that nobody lists goes on."""

    HOLD = auto()
    STREAM = auto()


class Judge(Protocol):
    """Who knows the limits, the callers and the servers: the addon."""

    def allowance(self, flow: http.HTTPFlow) -> Allowance:
        """How much of this request may be held. Asked once its body is larger than any stranger's."""

    def upload(self, flow: http.HTTPFlow, start: bytes) -> Way | tuple[Reason, str]:
        """How a body that begins with ``start`` goes on, or why it does not."""


class _Settings:
    """What ``engine.watch`` has set."""

    limits: Limits = DEFAULTS
    judge: Judge | None = None


settings = _Settings()

unhurried: weakref.WeakSet[connection.Client] = weakref.WeakSet()
"""Clients whose upload goes on as fast as the server takes it: no deadline for them."""


class TooSlow(ResponseProtocolError):
    """The body of a request did not arrive in time; answered as if the exchange itself had failed."""


class Unreadable(ResponseProtocolError):
    """The body of a request comes in a form that is not read on."""


_BY_KIND = {TooSlow: Reason.TOO_SLOW, Unreadable: Reason.MALFORMED_HTTP}


class TokenScan:
    """Looks for a token of ours in a body that is passed on. What could be the start of one is held back."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes | None:
        """What may go on by now; None once there is a token in it."""
        joined = self._held + data
        if contains_token(joined):
            return None
        keep = len(joined) - (LENGTH - 1)
        if keep <= 0:
            self._held = joined
            return b""
        self._held = joined[keep:]
        return joined[:keep]

    def end(self) -> bytes:
        """What was held back: the body is over, so no token can begin in it."""
        held, self._held = self._held, b""
        return held


class Cleans(Protocol):
    """What takes secrets out of a body that passes."""

    def feed(self, data: bytes) -> bytes:
        """What may go on by now; perhaps nothing."""

    def end(self) -> bytes:
        """The rest."""


class Stream(PatientExchange):
    """An exchange whose bodies are measured by our limits."""

    _room = 0
    _looked_at = False
    _scan: TokenScan | None = None

    def check_body_size(self, request: bool) -> Any:
        """Called with the head of a message, and again with each part of its body that is held."""
        return (yield from self._check_request() if request else self._check_answer())

    # -- requests ------------------------------------------------------------------------------

    def _check_request(self) -> Any:
        size = len(self.request_body_buf) or _declared(self.flow.request, None)
        if size <= (self._room or settings.limits.anonymous):
            return False
        try:
            found = self._allowance(size)
        except Exception:
            logger.exception("callerid: how much of a request may be held is not known; refused")
            found = (Reason.INTERNAL_ERROR, "a fault while the request arrived")
        if isinstance(found, tuple):
            return (yield from self._refuse(*found))
        if found is Way.STREAM:
            yield from self._pass_on()
        return False

    def _allowance(self, size: int) -> Way | tuple[Reason, str]:
        """Whether a request of ``size`` bytes so far goes on to be held; sets how far."""
        if settings.judge is None:
            return (Reason.INTERNAL_ERROR, "nobody judges requests")
        limits, held = settings.limits, len(self.request_body_buf)
        allowance = settings.judge.allowance(self.flow)
        if not allowance.foreign:
            self._room = allowance.room
            return Way.HOLD if size <= allowance.room else (allowance.reason, allowance.detail)
        if held <= limits.body:  # nothing, or too little, is there to be looked at
            self._room = limits.body
            return Way.HOLD
        if not self._looked_at:
            self._looked_at, self._room = True, limits.upload
            framed = is_framed(self.flow.request)
            way = settings.judge.upload(self.flow, bytes(self.request_body_buf)) if framed else Way.HOLD
            declared = _declared(self.flow.request, None)
            if way is not Way.HOLD or max(declared, held) <= limits.upload:
                return way
        return (allowance.reason, f"the body may be JSON, and is longer than {limits.upload} bytes")

    def _refuse(self, reason: Reason, detail: str) -> Any:
        """The request is not read to its end: an error hook, and the answer that it leaves."""
        self.request_body_buf.clear()
        self.flow.metadata[REFUSED] = (reason, detail)
        self.flow.error = flow.Error(detail)
        yield HttpErrorHook(self.flow)
        over = ResponseProtocolError(self.stream_id, detail, ErrorCode.REQUEST_TOO_LARGE)
        yield http_layer.SendHttp(over, self.context.client)
        self.client_state = self.state_errored
        self.flow.live = False
        return True

    def handle_protocol_error(self, event: Any) -> Any:
        """As mitmproxy's; what we end ourselves has its own reason."""
        if isinstance(event, ResponseProtocolError) and event.message == LONG_HEAD:
            self.flow.metadata[OVERSIZE] = LONG_HEAD
        reason = _BY_KIND.get(type(event))
        if reason is not None:
            self.request_body_buf.clear()
            self.flow.metadata[REFUSED] = (reason, event.message)
        yield from super().handle_protocol_error(event)

    def _pass_on(self) -> Any:
        """From now on the body goes to the server as it comes; the server is dialled here."""
        start = bytes(self.request_body_buf)
        self.request_body_buf.clear()
        self._scan = TokenScan()
        self.flow.request.stream = True
        self.flow.metadata[STREAMED] = True
        unhurried.add(self.context.client)
        with _not_reading(self.context.client):
            yield from self.start_request_stream()
        if self.client_state == self.state_stream_request_body:
            yield from self.state_stream_request_body(RequestData(self.stream_id, start))

    def state_consume_request_body(self, event: Any) -> Any:
        """As mitmproxy's, without trailers: HTTP/2 has them after all that is judged and cleaned.

        No rule looks at them, and no recipient may need them (RFC 9110 section 6.5.1); HTTP/1 refuses them.
        """
        if not isinstance(event, RequestTrailers):
            yield from super().state_consume_request_body(event)

    def state_stream_request_body(self, event: Any) -> Any:
        """As mitmproxy's, without trailers and without what holds a token of ours."""
        if isinstance(event, RequestTrailers):
            return
        scan = self._scan
        if scan is not None and isinstance(event, RequestData):
            clean = scan.feed(event.data)
            if clean is None:
                yield from self._break_off()
                return
            event = RequestData(self.stream_id, clean)
            if not clean:
                return
        elif scan is not None and isinstance(event, RequestEndOfMessage):
            rest = scan.end()
            if rest:
                yield from super().state_stream_request_body(RequestData(self.stream_id, rest))
        yield from super().state_stream_request_body(event)

    def _break_off(self) -> Any:
        """The server is left with half of a body, and the client is told why."""
        detail = "a token of ours would have left in the body"
        yield from self._refuse(Reason.TOKEN_IN_REQUEST, detail)
        over = RequestProtocolError(self.stream_id, detail, ErrorCode.REQUEST_TOO_LARGE)
        yield http_layer.SendHttp(over, self.context.server)
        self.server_state = self.state_errored

    # -- answers -------------------------------------------------------------------------------

    def state_stream_response_body(self, event: Any) -> Any:
        """As ``heads`` has it, without the secrets that are looked for in this answer."""
        cleans: Cleans | None = self.flow.metadata.get(SCRUBBED)
        if cleans is not None and isinstance(event, ResponseData):
            clean = cleans.feed(event.data)
            if not clean:
                return
            event = ResponseData(self.stream_id, clean)
        elif cleans is not None and isinstance(event, ResponseEndOfMessage):
            rest = cleans.end()
            if rest:
                yield from super().state_stream_response_body(ResponseData(self.stream_id, rest))
        yield from super().state_stream_response_body(event)

    def _check_answer(self) -> Any:
        if self.flow.metadata.get(FOREIGN) or self.flow.metadata.get(PASSES):
            return False
        limit = settings.limits.answer
        size = len(self.response_body_buf)
        if not size:
            response = self.flow.response
            if response is None or "text/event-stream" in response.headers.get("content-type", "").lower():
                return False  # it is passed on event by event
            size = _declared(self.flow.request, response)
        if size <= limit:
            return False
        detail = f"the answer is larger than {limit} bytes"
        self.response_body_buf.clear()
        self.flow.metadata[OVERSIZE] = detail
        self.flow.error = flow.Error(detail)
        yield HttpErrorHook(self.flow)
        code = ErrorCode.RESPONSE_TOO_LARGE
        client, server = self.context.client, self.context.server
        yield http_layer.SendHttp(ResponseProtocolError(self.stream_id, detail, code), client)
        yield http_layer.SendHttp(RequestProtocolError(self.stream_id, detail, code), server)
        self.client_state = self.server_state = self.state_errored
        self.flow.live = False
        return True


def is_framed(request: http.Request) -> bool:
    """Whether its head says where the body ends. Over HTTP/2 it need not, and then mitmproxy would pass the
    body on over HTTP/1 as if it were the next request.
    """
    if "content-length" in request.headers:
        return True
    return not request.is_http2 and "chunked" in request.headers.get("transfer-encoding", "").lower()


def _declared(request: http.Request, response: http.Response | None) -> int:
    """The length that the head names; 0 if it names none."""
    try:
        return max(expected_http_body_size(request, response) or 0, 0)
    except ValueError:
        return 0


@contextmanager
def _not_reading(client: connection.Client) -> Iterator[None]:
    """Leave what the client sends in its socket, while there is nowhere to put it."""
    handler = ctx.master.addons.get("proxyserver").connections.get(client.id)
    io = handler.transports.get(client) if handler is not None else None
    transport = io.writer.transport if io is not None and io.writer is not None else None
    if transport is None:
        yield
        return
    transport.pause_reading()
    try:
        yield
    finally:
        if not transport.is_closing():
            transport.resume_reading()
