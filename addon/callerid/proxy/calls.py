"""What the addon remembers: per client connection the evidence seen there, per flow the call under way."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from mitmproxy import connection, http

from callerid.config import Server
from callerid.credentials.inject import Injection
from callerid.identity.presented import Presented
from callerid.model import Caller, DecisionRecord, Message, MessageType, Outcome, RpcId
from callerid.proxy.conversations import Asked, Conversation, Key, Settled, Waiting

type Stamp = tuple[int, int, int, int]
"""What a call was judged under: the turn of the rules, the registry's generation, the issuers' keys, and
which of these keys and of the revocation lists were too old by then."""


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


class Passing(Protocol):
    """What an answer passes through: a ``mcp.pipeline.AnswerPipeline``, or what an HTTP API's needs."""

    @property
    def hits(self) -> int:
        """Secrets that were taken out of it."""

    @property
    def unfinished(self) -> bool:
        """Whether it ended inside of something."""

    def body(self, raw: bytes) -> bytes:
        """A whole body."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """What goes out of a stream by now; nothing is no chunk at all."""

    def end(self) -> list[bytes]:
        """What is left of it."""


@dataclass(slots=True, weakref_slot=True, kw_only=True)
class Call:
    """An exchange that was recorded. ``allowed`` only after its rows were durable.

    ``touched``: when the server was last heard on its stream, by the monotonic clock.
    ``due``: rows about the answer that must be durable before the answer goes on; ``handed``: questions in
    it that are the client's then. ``legacy``: the event
    stream of 2024-11-05, on which the answers to other exchanges come. ``events``: ids were seen on its
    stream, so it can be resumed and its answers may come later. ``opened``: the session that its answer
    opened. ``awaits``: requests whose answers come on another stream; ``answers``: questions that it answers.
    """

    records: tuple[DecisionRecord, ...]
    messages: tuple[Message, ...]
    server: Server | None
    caller: Caller | None
    presented: Presented
    session: str = ""
    conversation: Conversation | None = None
    allowed: bool = False
    observed: bool = False
    injection: Injection | None = None
    pipeline: Passing | None = None
    streaming: bool = False
    touched: float = 0.0
    legacy: bool = False
    events: bool = False
    finished: bool = False
    judged: Stamp | None = None
    response_bytes: int = 0
    first_rpc_id: RpcId | None = None
    opened: str | None = None
    refusal: Outcome | None = None
    detail: str | None = None
    due: list[DecisionRecord] = field(default_factory=list)
    handed: list[Waiting] = field(default_factory=list)
    answers: list[tuple[Asked, Outcome]] = field(default_factory=list)
    settled: dict[Key, Settled] = field(default_factory=dict)
    awaits: dict[Key, Waiting] = field(default_factory=dict)

    @property
    def is_api(self) -> bool:
        """Whether its server is an HTTP API, and not MCP."""
        return self.server is not None and self.server.kind == "http"

    def requests(self) -> Iterator[tuple[DecisionRecord, Message, RpcId]]:
        """Its requests with their rows and ids."""
        for record, message in zip(self.records, self.messages, strict=True):
            if message.type is MessageType.REQUEST and message.rpc_id is not None:
                yield record, message, message.rpc_id


class Streams:
    """The open streams, held weakly, and which of them are to be looked at: on most turns none."""

    def __init__(self) -> None:
        self._open: weakref.WeakKeyDictionary[http.HTTPFlow, Call] = weakref.WeakKeyDictionary()
        self._fresh: weakref.WeakKeyDictionary[http.HTTPFlow, Call] = weakref.WeakKeyDictionary()
        self._stamp: Stamp | None = None
        self._first_expiry = self._first_touched = math.inf

    def add(self, flow: http.HTTPFlow, call: Call) -> None:
        """One that is open now, or whose judgement failed: due at the next turn, whatever else is."""
        self._open[flow] = self._fresh[flow] = call

    def expects(self, call: Call) -> None:
        """Its caller may have to be looked at earlier than was known: its evidence was cut short."""
        if call.caller is not None:
            self._first_expiry = min(self._first_expiry, call.caller.expires_us or math.inf)

    def remove(self, flow: http.HTTPFlow) -> None:
        """It is over."""
        self._open.pop(flow, None)
        self._fresh.pop(flow, None)

    def __contains__(self, flow: http.HTTPFlow) -> bool:
        return flow in self._open

    def all(self) -> list[tuple[http.HTTPFlow, Call]]:
        """Every open stream."""
        return list(self._open.items())

    def due(
        self, stamp: Stamp | None, now_us: float, silent_since: float
    ) -> list[tuple[http.HTTPFlow, Call]]:
        """The streams to look at in this turn: all if anything can have happened to any, else the new ones.

        Args:
            stamp: what they are judged under; None if that is not known, and then all are due.
            now_us: microseconds since the epoch; all are due once the first of them has expired.
            silent_since: on the monotonic clock; all are due once one was silent from before.
        """
        past = now_us >= self._first_expiry or self._first_touched < silent_since
        everyone = stamp is None or stamp != self._stamp or past
        found = list((self._open if everyone else self._fresh).items())
        if everyone:
            self._first_expiry = self._first_touched = math.inf
        for _, call in found:
            if call.caller is not None and not call.finished:
                self._first_touched = min(self._first_touched, call.touched)
                self._first_expiry = min(self._first_expiry, call.caller.expires_us or math.inf)
        self._stamp = stamp
        self._fresh.clear()
        return found


class Memory:
    """Both maps, held weakly: nothing outlives its connection or flow."""

    def __init__(self) -> None:
        self._clients: weakref.WeakKeyDictionary[connection.Client, ClientState] = weakref.WeakKeyDictionary()
        self._calls: weakref.WeakKeyDictionary[http.HTTPFlow, Call] = weakref.WeakKeyDictionary()
        self.streams = Streams()

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
        self.streams.remove(flow)
        return self._calls.pop(flow, None)
