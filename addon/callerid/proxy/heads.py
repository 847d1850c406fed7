"""The head of an answer that may have to be replaced waits for its first bytes, for a moment.

Where unlisted MCP servers are refused, some can be told by their answer only. Once its head went on, a
client can be cut off, but not told; some wait for minutes then. Such a head, of an event stream or of the
answer to something like JSON-RPC, is let go together with the first bytes of its body, which never wait, or
after ``HEAD_SECONDS`` if there are none.
"""

from __future__ import annotations

from typing import Any, Protocol

from mitmproxy import http
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import SendHttp
from mitmproxy.proxy.layers.http._events import ResponseData, ResponseEndOfMessage, ResponseHeaders

from callerid.proxy.exchange import HELD, CalleridRowsHook, Exchange

HEAD_WAITS = "callerid.head_waits"
"""In ``flow.metadata``: the ``Look`` that its first bytes are for."""

HEAD_SECONDS = 0.25


class Look(Protocol):
    """Who judges an answer by its first bytes; the stream callable of the same answer."""

    def first(self, data: bytes | None) -> http.Response | None:
        """What the client gets instead of the answer, if it is refused; its row is due then.

        ``data``: the first bytes of the body; None if the head goes on before there are any.
        """


class PatientExchange(Exchange):
    """An exchange in which the head of the answer can wait."""

    _alarm: commands.RequestWakeup | None = None
    _waits = False

    def start_response_stream(self) -> Any:
        """As mitmproxy's, without the head if that is to wait."""
        if HEAD_WAITS not in self.flow.metadata:
            yield from super().start_response_stream()
            return
        self._waits, self._alarm = True, commands.RequestWakeup(HEAD_SECONDS)
        self.server_state = self.state_stream_response_body
        yield self._alarm

    def _pass(self, event: Any) -> Any:
        if isinstance(event, events.Wakeup) and event.command is self._alarm:
            yield from self._let_go(None)
            return
        yield from super()._pass(event)

    def state_stream_response_body(self, event: Any) -> Any:
        """As ``Exchange``, with the head before the first bytes."""
        if self._waits and isinstance(event, ResponseData):
            yield from self._let_go(event.data)
        elif self._waits and isinstance(event, ResponseEndOfMessage):
            yield from self._let_go(None)
        yield from super().state_stream_response_body(event)

    def _let_go(self, data: bytes | None) -> Any:
        """The head, or, if the first bytes of the body show that it has to be, a whole answer of ours."""
        look: Look | None = self.flow.metadata.pop(HEAD_WAITS, None)
        waited, self._waits = self._waits, False
        if not waited or not self.flow.live or self.server_state != self.state_stream_response_body:
            return  # the exchange failed while the head waited, and the client was told so
        refusal = look.first(data) if look is not None else None
        if refusal is not None and self.flow.response is not None:
            yield CalleridRowsHook(self.flow)
            self.flow.metadata.pop(HELD, None)
            refusal.stream = self.flow.response.stream
            self.flow.response = refusal
        if self.flow.response is not None:
            yield SendHttp(ResponseHeaders(self.stream_id, self.flow.response), self.context.client)
        if refusal is not None and refusal.raw_content:
            yield SendHttp(ResponseData(self.stream_id, refusal.raw_content), self.context.client)
