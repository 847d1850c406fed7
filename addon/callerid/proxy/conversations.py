"""What is open between one caller and one server beyond a single exchange.

A server's question and the caller's answer travel on two connections, as do a request and its answer in
HTTP+SSE of 2024-11-05 and after a resumption. What belongs together is found here: by server, session
and principal, so that nobody can answer, cancel or await in another one's name.

Everything is bounded, per principal first: nobody's use makes another's be forgotten before its time.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mitmproxy import http

from callerid.mcp.asks import Ask
from callerid.model import EMPTY, DecisionRecord, Message, Outcome, OutcomeRecord, Reason, RpcId

LIMIT = 20_000
"""Conversations at once; the one that was used longest ago is forgotten first."""

EACH_SUBJECT = 2_000
"""Of these, those of one principal."""

EACH = 1_024
"""Of each sort, in one conversation: ids, questions in results, awaited answers."""

QUESTIONS = 256
"""Questions of a server that may be open in one conversation; a stream with more is broken off."""

AWAIT_US = 86_400_000_000
"""How long an answer is awaited in another exchange before its row reads ``unanswered``."""

SMALL = 16_384
"""Bytes: larger arguments are not kept for later. Conditions on them are in doubt then, and do not help."""

type Key = tuple[type, RpcId]
"""A JSON-RPC id with its JSON type: 1 and "1" are two."""


def key_of(rpc_id: RpcId) -> Key:
    """The key of an id."""
    return (type(rpc_id), rpc_id)


def kept(message: Message, size: int | None) -> Message:
    """The message as it is kept after its exchange: one of more than SMALL bytes without its arguments."""
    small = size is not None and size <= SMALL
    return message if small else replace(message, arguments=EMPTY)


@dataclass(slots=True)
class Waiting:
    """A recorded request, or question, whose answer will come in another exchange.

    ``done``: its outcome is written.
    """

    record: DecisionRecord
    message: Message | None = None
    http_status: int | None = None
    done: bool = False


def await_answer(record: DecisionRecord, message: Message, *, done: bool = False) -> Waiting:
    """What is kept of a request until its answer comes."""
    slim = kept(message, record.request_bytes)
    return Waiting(record if slim is message else replace(record, arguments=None), slim, done=done)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of the server that waits for the client's answer. ``refused``: the client never saw it.

    ``waiting`` is its row; pings have none. ``mark`` tells a question from another one, whatever of its
    arguments is kept.
    """

    ask: Ask
    mark: bytes
    waiting: Waiting | None
    refused: Reason | None
    since_us: int


def mark_of(ask: Ask) -> bytes:
    """The digest of a question."""
    text = json.dumps([ask.method, dict(ask.arguments)], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def slim_ask(ask: Ask) -> Ask:
    """The question with those of its arguments that are small."""
    arguments = {name: value for name, value in ask.arguments.items() if _weight(value) <= SMALL}
    return ask if len(arguments) == len(ask.arguments) else replace(ask, arguments=arguments)


def _weight(value: Any) -> int:
    return len(json.dumps(value, default=str)) if isinstance(value, list | Mapping) else len(str(value))


@dataclass(frozen=True, slots=True)
class Posed:
    """A question inside of a result, with its row: the call is repeated with the answer."""

    ask: Ask
    event_id: str | None


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
    inputs: OrderedDict[tuple[str, ...], Posed] = field(default_factory=OrderedDict)
    stream: weakref.ref[http.HTTPFlow] | None = None

    def ask(self, asked: Asked) -> None:
        """Remember a question until it is answered. Raises ValueError if too many are open."""
        key = key_of(asked.ask.key)
        if key not in self.asked and len(self.asked) >= QUESTIONS:
            raise ValueError("the server asks too much at once")
        self.asked[key] = asked

    def use(self, rpc_id: RpcId) -> None:
        """A request with this id was made."""
        _put(self.used, key_of(rpc_id), None)

    def expect(self, posed: Posed, *scope: str) -> None:
        """Remember a question inside of a result until the call is repeated with its answer."""
        _put(self.inputs, (*scope, str(posed.ask.key)), posed)

    def unask(self, event_ids: frozenset[str]) -> None:
        """Forget the questions with these rows: they were not shown."""
        for key, asked in list(self.asked.items()):
            if asked.waiting is not None and asked.waiting.record.event_id in event_ids:
                del self.asked[key]
        for scope, posed in list(self.inputs.items()):
            if posed.event_id in event_ids:
                del self.inputs[scope]

    def live(self) -> http.HTTPFlow | None:
        """The open 2024-11-05 stream, if there is one."""
        flow = self.stream() if self.stream is not None else None
        return flow if flow is not None and flow.live else None

    def overdue(self, now_us: int) -> Iterator[Waiting]:
        """Take out what was awaited too long. What a live stream will answer is never late."""
        for rpc_id, waiting in list(self.waiting.items()):
            if self.live() is None and waiting.record.time_us + AWAIT_US <= now_us:
                yield self.waiting.pop(rpc_id)
        for key, asked in list(self.asked.items()):
            if asked.since_us + AWAIT_US <= now_us:
                del self.asked[key]
                if asked.waiting is not None and asked.refused is None:
                    yield asked.waiting

    def everything(self) -> Iterator[Waiting]:
        """All that is awaited, for nobody will tell any more."""
        yield from self.waiting.values()
        yield from (a.waiting for a in self.asked.values() if a.waiting is not None and a.refused is None)


class Conversations:
    """All conversations, by (server id, session handle or "", subject)."""

    def __init__(self, limit: int = LIMIT, each_subject: int = EACH_SUBJECT) -> None:
        self._limit = limit
        self._each_subject = each_subject
        self._all: OrderedDict[tuple[str, str, str], Conversation] = OrderedDict()
        self._of_subject: dict[str, OrderedDict[tuple[str, str, str], None]] = {}
        self._lost: list[Waiting] = []

    def of(self, server: str, session: str, subject: str) -> Conversation:
        """The conversation, made on first sight."""
        key = (server, session, subject)
        own = self._of_subject.setdefault(subject, OrderedDict())
        found = self._all.get(key)
        if found is None:
            found = self._all[key] = Conversation()
            own[key] = None
            if len(own) > self._each_subject:
                self._forget(next(iter(own)))
            if len(self._all) > self._limit:
                self._forget(next(iter(self._all)))
        else:
            self._all.move_to_end(key)
            own.move_to_end(key)
        return found

    def _forget(self, key: tuple[str, str, str]) -> None:
        self._lost += self._all.pop(key).everything()
        own = self._of_subject[key[2]]
        del own[key]
        if not own:
            del self._of_subject[key[2]]

    def overdue(self, now_us: int) -> Iterator[Waiting]:
        """Take out what was awaited too long, and what was forgotten with its conversation."""
        lost, self._lost = self._lost, []
        yield from lost
        for conversation in self._all.values():
            if conversation.waiting or conversation.asked:
                yield from conversation.overdue(now_us)


def settle(
    waiting: Waiting,
    how: Settled,
    now_us: int,
    sink: Callable[[OutcomeRecord], None],
    detail: str | None = None,
) -> None:
    """Write, once, the outcome of a request whose answer was awaited in another exchange."""
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
