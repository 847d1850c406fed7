"""An exchange of mitmproxy's engine with two more abilities, which it has no public place for.

- Part of a stream can wait until the rows about it are durable: mitmproxy's own way to pause one exchange,
  a hook, is used for it, so that order, end and departure of either side stay right.
- A message of ours can be said on an open stream: the answer to a 2024-11-05 call that was refused.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from mitmproxy import ctx, http
from mitmproxy.flow import Error
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers import http as http_layer
from mitmproxy.proxy.layers.http._events import ResponseData
from mitmproxy.proxy.layers.http._hooks import HttpErrorHook

from callerid.proxy.called import HOST

logger = logging.getLogger(__name__)

HELD = "callerid.held"
"""In ``flow.metadata`` while events wait: set by the stream's callable, then the events themselves."""


MAX_UNREAD = 1_048_576
"""Bytes that may wait for a client to read them before no more is said to it."""


@dataclass
class CalleridRowsHook(commands.StartHook):
    """Events of this flow wait for their rows. Whoever handles it may replace them in ``metadata[HELD]``."""

    flow: http.HTTPFlow


@dataclass
class Said:
    """What is to be said on a stream."""

    data: bytes
    taken: bool = False


class Exchange(http_layer.HttpStream):
    """mitmproxy's exchange, with a stream that can wait and be spoken on."""

    def check_invalid(self, request: bool) -> Any:
        """As mitmproxy's; asked before it writes the server's name over the client's, in reverse mode."""
        if request:
            self.flow.metadata[HOST] = self.flow.request.host_header
        return (yield from super().check_invalid(request))

    def state_wait_for_request_headers(self, event: Any) -> Any:
        """Where a request names no place, mitmproxy answers without a hook, and so without a row (law 2)."""
        yield from super().state_wait_for_request_headers(event)
        if self.client_state == self.state_errored and self.flow.error is None and not self.flow.request.host:
            self.flow.error = Error("the request does not say which host it is for")
            yield HttpErrorHook(self.flow)

    def _handle_event(self, event: Any) -> Any:
        """mitmproxy leaves an exchange hanging when it raises; here its connection is closed (law 3).

        The end of the connection is an event of its own: it has its hook, and so its row.
        """
        try:
            yield from self._pass(event)
        except Exception:
            logger.exception("callerid: an exchange failed and is closed")
            yield commands.CloseConnection(self.context.client)

    def _pass(self, event: Any) -> Any:
        if isinstance(event, events.MessageInjected):
            if self.server_state == self.state_stream_response_body and isinstance(event.message, Said):
                event.message.taken = True
                yield http_layer.SendHttp(
                    ResponseData(self.stream_id, event.message.data), self.context.client
                )
            return
        yield from super()._handle_event(event)

    def state_stream_response_body(self, event: Any) -> Any:
        response = self.flow.response
        if not (isinstance(event, ResponseData) and response is not None and callable(response.stream)):
            yield from super().state_stream_response_body(event)
            return
        chunks: Any = response.stream(event.data)
        if HELD in self.flow.metadata:
            self.flow.metadata[HELD] = chunks
            yield CalleridRowsHook(self.flow)
            chunks = self.flow.metadata.pop(HELD, ())
        for chunk in [chunks] if isinstance(chunks, bytes) else chunks:
            yield http_layer.SendHttp(ResponseData(self.stream_id, chunk), self.context.client)


async def say(flow: http.HTTPFlow, data: bytes) -> bool:
    """Say whole events on the open stream of ``flow``, between its own. False if it is not open any more."""
    proxyserver = ctx.master.addons.get("proxyserver")
    handler = proxyserver.connections.get(flow.client_conn.id) if proxyserver is not None else None
    if handler is None:
        return False
    transport = handler.transports.get(flow.client_conn)
    if transport is None or transport.writer is None:
        return False
    if transport.writer.transport.get_write_buffer_size() > MAX_UNREAD:
        return False  # a client that does not read its stream does not make it grow
    said = Said(data)
    await handler.server_event(events.MessageInjected(flow, said))
    return said.taken or HELD in flow.metadata
