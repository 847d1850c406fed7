"""How each hook shuts the door when it fails: what is left behind is always a refusal (law 3)."""

from __future__ import annotations

import time
from typing import Any

from mitmproxy import connection, http
from mitmproxy.proxy import server_hooks

from callerid.model import Outcome, Reason
from callerid.proxy import reply
from callerid.proxy import tls as edge
from callerid.proxy.exchange import HELD

SEAL_BODY = b'{"jsonrpc":"2.0","id":null,"error":{"code":-40300,"message":"callerid: not decided"}}'


def seal() -> http.Response:
    """The answer that stands on every request until it is decided: forgetting means refusing.

    One object for all requests: making it anew costs more than the whole decision. It is only ever
    replaced, never changed.
    """
    return _SEAL


def _make_seal() -> http.Response:
    headers = http.Headers(((b"content-type", b"application/json"), (b"cache-control", b"no-store")))
    headers["content-length"] = str(len(SEAL_BODY))
    now = time.time()
    return http.Response(b"HTTP/1.1", 503, b"Service Unavailable", headers, SEAL_BODY, None, now, now)


_SEAL = _make_seal()


def is_sealed(flow: http.HTTPFlow) -> bool:
    """True if the seal itself is what would be answered."""
    return flow.response is _SEAL


def client(addon: Any, client: connection.Client, error: BaseException) -> None:
    client.error = "callerid: internal error"


def tls(addon: Any, data: Any, error: BaseException) -> None:
    """A TLS event failed: evidence may be missing, so nothing on this connection may pass."""
    addon.memory.client(data.context.client).broken = True


def upstream(addon: Any, data: Any, error: BaseException) -> None:
    tls(addon, data, error)
    edge.drop(data)
    data.ssl_conn = None
    data.conn.error = "callerid: internal error"


def dial(addon: Any, data: server_hooks.ServerConnectionHookData, error: BaseException) -> None:
    data.server.error = "callerid: internal error"


def dialled(addon: Any, data: server_hooks.ServerConnectionHookData, error: BaseException) -> None:
    edge.abort(data.client, data.server)
    data.server.error = "callerid: internal error"


def connect(addon: Any, flow: http.HTTPFlow, error: BaseException) -> None:
    addon.memory.client(flow.client_conn).broken = True
    flow.response = seal()


def head(addon: Any, flow: http.HTTPFlow, error: BaseException) -> None:
    addon.memory.client(flow.client_conn).broken = True
    flow.request.stream = False
    flow.response = seal()


async def request(addon: Any, flow: http.HTTPFlow, error: BaseException) -> None:
    flow.request.stream = False
    flow.response = seal()
    await addon.refuse_fault(flow, Reason.INTERNAL_ERROR, type(error).__name__)


def answer(addon: Any, flow: http.HTTPFlow, error: BaseException) -> None:
    call = addon.memory.call(flow)
    if call is not None and call.allowed and not call.observed:
        reply.take_back(flow, call)
        reply.abort(flow)  # its body may never end
        call.refusal, call.detail = Outcome.RESPONSE_REFUSED, f"internal error: {type(error).__name__}"
        call.streaming = False
        flow.response = reply.unusable(call, "internal error")
        reply.finish(flow, call, addon.runtime)


def rows(addon: Any, flow: http.HTTPFlow, error: BaseException) -> None:
    """Events that wait for rows that never came are not given out, and the stream ends."""
    flow.metadata[HELD] = ()
    call = addon.memory.call(flow)
    if call is not None:
        call.refusal, call.detail = Outcome.RESPONSE_REFUSED, f"internal error: {type(error).__name__}"
        reply.forget_due(call, call.due)
    reply.abort(flow)


def quietly(addon: Any, data: Any, error: BaseException) -> None:
    """Nothing can pass any more when this hook runs; the fault has been reported."""
