"""What the addon remembers: per client connection the evidence seen there, per flow the call under way."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field

from mitmproxy import connection, http

from callerid.config import Server
from callerid.credentials.inject import Injection
from callerid.identity.authority import Presented
from callerid.mcp.pipeline import AnswerPipeline
from callerid.model import Caller, DecisionRecord, Message, Outcome, RpcId


@dataclass(slots=True, weakref_slot=True)
class ClientState:
    """One client connection. ``broken``: a hook failed on it, so nothing on it may pass.

    ``connect_authorization`` holds for this tunnel only: an HTTP/1 connection carries one CONNECT.
    """

    connect_authorization: tuple[str, ...] = ()
    connect_token: tuple[str, ...] = ()
    tunnel: bool = False
    proxy_chain: tuple[bytes, ...] = ()
    inner_chain: tuple[bytes, ...] = ()
    inner_tls: bool = False
    broken: bool = False


@dataclass(slots=True, weakref_slot=True, kw_only=True)
class Call:
    """An exchange that was recorded. ``allowed`` only after its rows were durable."""

    records: tuple[DecisionRecord, ...]
    messages: tuple[Message, ...]
    server: Server | None
    caller: Caller | None
    presented: Presented
    handles: tuple[str, ...] = ()
    allowed: bool = False
    observed: bool = False
    injection: Injection | None = None
    pipeline: AnswerPipeline | None = None
    streaming: bool = False
    finished: bool = False
    judged: tuple[int, int] | None = None
    response_bytes: int = 0
    first_rpc_id: RpcId | None = None
    refusal: Outcome | None = None
    detail: str | None = None
    settled: dict[tuple[type, RpcId], tuple[Outcome, int | None]] = field(default_factory=dict)


class Memory:
    """Both maps, held weakly: nothing outlives its connection or flow."""

    def __init__(self) -> None:
        self._clients: weakref.WeakKeyDictionary[connection.Client, ClientState] = weakref.WeakKeyDictionary()
        self._calls: weakref.WeakKeyDictionary[http.HTTPFlow, Call] = weakref.WeakKeyDictionary()
        self.streams: weakref.WeakKeyDictionary[http.HTTPFlow, Call] = weakref.WeakKeyDictionary()

    def client(self, client: connection.Client) -> ClientState:
        """The state of a connection, made on first sight."""
        state = self._clients.get(client)
        if state is None:
            state = self._clients[client] = ClientState()
        return state

    def call(self, flow: http.HTTPFlow) -> Call | None:
        """The call under way on this flow."""
        return self._calls.get(flow)

    def begin(self, flow: http.HTTPFlow, call: Call) -> None:
        """Remember the call. It must hold no reference to its flow, or neither would ever be freed."""
        self._calls[flow] = call

    def end(self, flow: http.HTTPFlow) -> Call | None:
        """Forget the call of a flow that is over, and give it back."""
        self.streams.pop(flow, None)
        return self._calls.pop(flow, None)
