"""What is open between one caller and one server beyond a single exchange.

A server's question and the caller's answer travel on two connections, as do a request and its answer in
HTTP+SSE of 2024-11-05 and after a resumption. What belongs together is found here: by server, session
and principal, so that nobody can answer, cancel or await in another one's name.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mitmproxy import http

from callerid.mcp.asks import Ask
from callerid.model import DecisionRecord, Message, Outcome, OutcomeRecord, Reason, RpcId

LIMIT = 20_000
"""Conversations at once; the one that was used longest ago is forgotten first."""

EACH = 1_024
"""Of each sort, in one conversation: questions, ids, awaited answers."""

AWAIT_US = 900_000_000
"""How long an answer is awaited on another stream before its call reads ``unanswered``."""

type Key = tuple[type, RpcId]
"""A JSON-RPC id with its JSON type: 1 and "1" are two."""


def key_of(rpc_id: RpcId) -> Key:
    """The key of an id."""
    return (type(rpc_id), rpc_id)


@dataclass(slots=True)
class Waiting:
    """A recorded request, or question, whose answer will come in another exchange.

    ``done``: its outcome is written.
    """

    record: DecisionRecord
    message: Message | None = None
    http_status: int | None = None
    done: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of the server that waits for the client's answer. ``refused``: the client never saw it.

    ``waiting`` is its row; pings have none.
    """

    ask: Ask
    waiting: Waiting | None
    refused: Reason | None


@dataclass(frozen=True, slots=True)
class Settled:
    """How one request ended, as its response says. ``handle`` is what the server made in it."""

    outcome: Outcome
    rpc_code: int | None
    handle: str | None = None


@dataclass(slots=True)
class Conversation:
    """See the module. ``stream`` is the open event stream on which a 2024-11-05 caller gets its answers."""

    asked: OrderedDict[Key, Asked] = field(default_factory=OrderedDict)
    used: OrderedDict[Key, None] = field(default_factory=OrderedDict)
    waiting: OrderedDict[RpcId, Waiting] = field(default_factory=OrderedDict)
    inputs: OrderedDict[tuple[str, ...], Ask] = field(default_factory=OrderedDict)
    stream: weakref.ref[http.HTTPFlow] | None = None

    def ask(self, asked: Asked) -> None:
        """Remember a question until it is answered."""
        _put(self.asked, key_of(asked.ask.key), asked)

    def use(self, rpc_id: RpcId) -> None:
        """A request with this id was made."""
        _put(self.used, key_of(rpc_id), None)

    def expect(self, ask: Ask, *scope: str) -> None:
        """Remember a question inside of a result until the call is repeated with its answer."""
        _put(self.inputs, (*scope, str(ask.key)), ask)

    def live(self) -> http.HTTPFlow | None:
        """The open 2024-11-05 stream, if there is one."""
        flow = self.stream() if self.stream is not None else None
        return flow if flow is not None and flow.live else None

    def full(self) -> bool:
        """Whether no more answers can be awaited."""
        return len(self.waiting) >= EACH


class Conversations:
    """All conversations, by (server id, session handle or "", subject)."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._all: OrderedDict[tuple[str, str, str], Conversation] = OrderedDict()
        self._lost: list[Waiting] = []

    def of(self, server: str, session: str, subject: str) -> Conversation:
        """The conversation, made on first sight."""
        key = (server, session, subject)
        found = self._all.get(key)
        if found is None:
            found = self._all[key] = Conversation()
            while len(self._all) > self._limit:
                self._lost += self._all.popitem(last=False)[1].waiting.values()
        else:
            self._all.move_to_end(key)
        return found

    def find(self, server: str, session: str, subject: str) -> Conversation | None:
        """The conversation if there is one."""
        return self._all.get((server, session, subject))

    def overdue(self, now_us: int) -> Iterator[Waiting]:
        """Take out what was awaited too long, and what was forgotten with its conversation."""
        lost, self._lost = self._lost, []
        yield from lost
        for conversation in self._all.values():
            while conversation.waiting:
                first = next(iter(conversation.waiting))
                if conversation.waiting[first].record.time_us + AWAIT_US > now_us:
                    break
                yield conversation.waiting.pop(first)
            while conversation.asked:
                key, asked = next(iter(conversation.asked.items()))
                if asked.waiting is not None and asked.waiting.record.time_us + AWAIT_US > now_us:
                    break
                del conversation.asked[key]
                if asked.waiting is not None and asked.refused is None:
                    yield asked.waiting


def settle(
    waiting: Waiting,
    how: Settled,
    now_us: int,
    sink: Callable[[OutcomeRecord], None],
    detail: str | None = None,
) -> None:
    """Write, once, the outcome of a request whose answer was awaited on another stream."""
    if waiting.done:
        return
    waiting.done = True
    sink(
        OutcomeRecord(
            event_id=waiting.record.event_id,
            time_us=now_us,
            outcome=how.outcome,
            http_status=waiting.http_status,
            rpc_code=how.rpc_code,
            duration_us=now_us - waiting.record.time_us,
            detail=detail,
            handle=how.handle,
        )
    )


def _put[K, V](held: OrderedDict[K, V], key: K, value: V) -> None:
    held[key] = value
    held.move_to_end(key)
    while len(held) > EACH:
        held.popitem(last=False)
