"""The judgement of an answer while it passes: what of it is seen, what the server asks in it, how it ends.

It must not hold the flow, for the flow's call holds it. Rules and secrets are looked up anew for each
event: an open stream lives under the rules of now.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urljoin, urlsplit

from mitmproxy import http

from callerid.config import Server
from callerid.credentials.binding import is_canonical
from callerid.mcp.asks import MALFORMED, Ask, AskRefusal, Place
from callerid.mcp.outcomes import Signal
from callerid.mcp.pipeline import AnswerPipeline
from callerid.model import (
    EMPTY,
    Caller,
    Decision,
    DecisionRecord,
    Direction,
    Kind,
    Message,
    Reason,
    RpcId,
    Verdict,
)
from callerid.proxy.calls import Call
from callerid.proxy.conversations import (
    Asked,
    Posed,
    Settled,
    Waiting,
    kept,
    key_of,
    mark_of,
    settle,
    slim_ask,
)
from callerid.proxy.deciding import scope_of
from callerid.proxy.destination import split_authority
from callerid.proxy.handles import Owner, Sort, endpoint_handle, handle, state_handle
from callerid.proxy.rows import repr_id
from callerid.proxy.runtime import Runtime, new_id, now_us

logger = logging.getLogger(__name__)


def pipeline_for(flow: http.HTTPFlow, call: Call, runtime: Runtime) -> AnswerPipeline:
    """The pipeline of one governed answer."""
    watch = _Watch(call, runtime, flow.request.url, weakref.ref(flow))
    return AnswerPipeline(
        pending=_Pending(call),
        view=watch,
        scrub_bytes=lambda raw: runtime.rooms.store.scrubber.scrub(raw),
        scrub_json=lambda value: runtime.rooms.store.scrubber.scrub_json(value),
        on_signal=watch.signal,
        judge=watch.judge,
        on_endpoint=watch.endpoint,
        on_event_id=watch.event_id,
        max_event=runtime.limits.event,
    )


class _Pending(Mapping[RpcId, Message]):
    """The requests that an answer may answer: its own, and those whose answers come on this stream."""

    def __init__(self, call: Call) -> None:
        self._own = {rpc_id: message for _, message, rpc_id in call.requests()}
        self._call = weakref.ref(call)

    def __getitem__(self, rpc_id: RpcId) -> Message:
        own = self._own.get(rpc_id)
        if own is not None:
            return own
        call = self._call()
        if call is None or call.conversation is None:
            raise KeyError(rpc_id)
        message = call.conversation.waiting[rpc_id].message
        if message is None:
            raise KeyError(rpc_id)
        return message

    def __iter__(self) -> Iterator[RpcId]:
        yield from self._own
        call = self._call()
        if call is not None and call.conversation is not None:
            yield from (rpc_id for rpc_id in tuple(call.conversation.waiting) if rpc_id not in self._own)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Watch:
    """What the pipeline asks and tells. Everything in here is total or fails the answer, never passes it."""

    def __init__(self, call: Call, runtime: Runtime, url: str, flow: weakref.ref[http.HTTPFlow]) -> None:
        self._call = call
        self._runtime = runtime
        self._url = url
        self._flow = flow

    def _known(self) -> tuple[Caller, Server]:
        caller, server = self._call.caller, self._call.server
        if caller is None or server is None:
            raise LookupError("an answer without a caller")
        return caller, server

    # -- what may be seen ----------------------------------------------------------------------

    def visible(self, kind: Kind, name: str) -> bool:
        """Whether the caller may know of it."""
        caller, server = self._known()
        engine = self._runtime.rooms.rules.engine
        return engine.visible(caller=caller, server=server, kind=kind, name=name, now=datetime.now(UTC))

    def owns_task(self, task_id: str) -> bool:
        """Whether the task is the caller's."""
        caller, server = self._known()
        owner = self._runtime.rooms.handles.owner(server.id, handle(Sort.TASK, task_id))
        return owner is not None and owner.subject == caller.principal.subject

    # -- what the server asks ------------------------------------------------------------------

    def judge(self, asks: tuple[Ask, ...], request: Message | None) -> AskRefusal | None:
        """Decide each question by the rules, and keep the rows that are due. The first refusal is told."""
        if any(self._clashes(ask) for ask in asks):
            return self._drop(asks, request)
        decisions = [self._decide(ask) for ask in asks]
        refused = next((d for d in decisions if d.verdict is not Verdict.ALLOW), None)
        told: AskRefusal | None = None
        for ask, own in zip(asks, decisions, strict=True):
            # One refusal withholds the whole message: what is in order in it is not given out either.
            withheld = refused is not None and own.verdict is Verdict.ALLOW
            decision = replace(refused, reason=Reason.BATCH_PARTNER_DENIED) if refused and withheld else own
            record = self._record(ask, decision, request)
            why = None if refused is None else decision.reason
            counts = (ask.method != "ping" or refused is not None) and not self._is_again(ask, why)
            if counts:
                self._call.due.append(record)
                self._remember(ask, Waiting(record), request, why)
            elif ask.method == "ping":
                self._remember(ask, None, request, None)
            if own is refused:
                told = AskRefusal(
                    reason=own.reason,
                    event_id=record.event_id,
                    rule=own.rule,
                    say=own.say,
                    hidden=own.hidden,
                )
        return told

    def _pending(self, ask: Ask) -> Asked | None:
        conversation = self._call.conversation
        if conversation is None or ask.place is not Place.REQUEST:
            return None
        return conversation.asked.get(key_of(ask.key))

    def _clashes(self, ask: Ask) -> bool:
        """Whether another question waits under this id: its answer would be taken for the answer to this."""
        pending = self._pending(ask)
        return pending is not None and pending.mark != mark_of(ask)

    def _is_again(self, ask: Ask, refused: Reason | None) -> bool:
        """Whether it is a question that waits already, told once more when its stream was resumed."""
        pending = self._pending(ask)
        return pending is not None and pending.refused is refused

    def _drop(self, asks: tuple[Ask, ...], request: Message | None) -> AskRefusal:
        """Refuse a message that nobody could answer without answering another one: it is not given out."""
        policy = self._runtime.rooms.rules.hash
        decision = Decision(verdict=Verdict.DENY, reason=Reason.MALFORMED_MESSAGE, policy=policy)
        records = [self._record(ask, decision, request) for ask in asks]
        self._call.due += [replace(r, detail="another question waits under the same id") for r in records]
        return AskRefusal(
            reason=decision.reason, event_id=records[0].event_id, rule=None, say=None, hidden=False, drop=True
        )

    def _decide(self, ask: Ask) -> Decision:
        caller, server = self._known()
        rules = self._runtime.rooms.rules
        if ask.method == MALFORMED:
            return Decision(verdict=Verdict.DENY, reason=Reason.MALFORMED_MESSAGE, policy=rules.hash)
        ping = ask.method == "ping"
        return rules.engine.decide(
            caller=caller,
            server=server,
            kind=Kind.PROTOCOL if ping else Kind.METHOD,
            method=ask.method,
            name=None,
            arguments=EMPTY if ping else ask.arguments,
            now=datetime.now(UTC),
        )

    def _record(self, ask: Ask, decision: Decision, request: Message | None) -> DecisionRecord:
        base, url = self._cause(request), ask.arguments.get("url")
        return replace(
            base,
            event_id=new_id(),
            time_us=now_us(),
            verdict=decision.verdict,
            reason=decision.reason,
            method=ask.method,
            kind=Kind.METHOD.value,
            direction=Direction.SERVER,
            tool=None,
            caused_by=base.event_id,
            target=url if isinstance(url, str) else None,
            arguments=ask.arguments or None,
            rule=decision.rule,
            would_rule=decision.would_rule,
            policy=decision.policy,
            injected=None,
            detail=None,
            request_bytes=None,
            rpc_id=repr_id(ask.key),
            batch_index=None,
        )

    def _cause(self, request: Message | None) -> DecisionRecord:
        """The row of the request in whose answer the server asks; that of the stream if it is none."""
        call = self._call
        for record, message in zip(call.records, call.messages, strict=True):
            if message is request:
                return record
        if call.conversation is not None:
            for waiting in call.conversation.waiting.values():
                if waiting.message is request:
                    return waiting.record
        return call.records[0]

    def _remember(
        self, ask: Ask, waiting: Waiting | None, request: Message | None, refused: Reason | None
    ) -> None:
        conversation = self._call.conversation
        if conversation is None or (ask.method == MALFORMED and ask.key == ""):
            return
        if ask.place is Place.REQUEST:
            conversation.ask(Asked(slim_ask(ask), mark_of(ask), waiting, refused, now_us()))
        elif refused is None:
            if request is not None:
                event_id = waiting.record.event_id if waiting is not None else None
                conversation.expect(Posed(slim_ask(ask), event_id), *scope_of(request))
            if waiting is not None:  # its answer comes in a call of its own, or never
                self._call.handed.append(waiting)

    # -- how it goes on ------------------------------------------------------------------------

    def signal(self, signal: Signal) -> None:
        """A request is answered: keep how, and to whom what the server made belongs."""
        call, rpc_id = self._call, signal.rpc_id
        waiting = call.conversation.waiting.get(rpc_id) if call.conversation is not None else None
        message = next((m for _, m, known in call.requests() if key_of(known) == key_of(rpc_id)), None)
        made = self._claim(signal, message, waiting)
        if message is not None:
            call.settled[key_of(rpc_id)] = Settled(signal.outcome, signal.rpc_code, made)
        elif waiting is not None and call.conversation is not None:
            del call.conversation.waiting[rpc_id]
            how = Settled(signal.outcome, signal.rpc_code, made)
            settle(waiting, how, now_us(), self._runtime.outcome)

    def _claim(self, signal: Signal, message: Message | None, waiting: Waiting | None) -> str | None:
        """Whose the task or the state is that an answer made. The digest of the one that was made last."""
        caller, server = self._known()
        if message is not None:
            size = next(
                r.request_bytes
                for r, m in zip(self._call.records, self._call.messages, strict=True)
                if m is message
            )
            message = kept(message, size)
        elif waiting is not None:
            message = waiting.message
        if message is None:
            return None
        made, subject = None, caller.principal.subject
        if signal.request_state is not None:
            made = state_handle(subject, message, signal.request_state)
            self._runtime.rooms.handles.claim(server.id, made, Owner(subject))
        if signal.task_id is not None:
            made = handle(Sort.TASK, signal.task_id)
            self._runtime.rooms.handles.claim(server.id, made, Owner(subject, message))
        return made

    def event_id(self, event: str) -> None:
        """An event id goes to the caller: with it, and nobody else, the stream can be resumed."""
        caller, server = self._known()
        call, subject = self._call, caller.principal.subject
        call.events = True
        session = "" if call.legacy else call.opened or call.session
        self._runtime.rooms.handles.saw_event(server.id, session, subject, event)

    def endpoint(self, data: str) -> str | None:
        """The message URL of a 2024-11-05 stream: same origin, canonical path, then governed and owned."""
        caller, server = self._known()
        target = urlsplit(urljoin(self._url, data))
        authority = split_authority(target.netloc, target.scheme)
        if target.scheme != server.scheme or authority != (server.host, server.port):
            logger.error("callerid: server %s announced a message URL on another origin; dropped", server.id)
            return None
        if not is_canonical(target.path):
            return None
        rooms = self._runtime.rooms
        rooms.servers.learn_endpoint(server, target.path)
        path = target.path + (f"?{target.query}" if target.query else "")
        if target.query or target.path != server.path:
            subject = caller.principal.subject
            session = endpoint_handle(subject, path)
            rooms.handles.claim(server.id, session, Owner(subject))
            rooms.handles.claim(server.id, handle(Sort.SESSION, path), Owner(subject))
            conversation = rooms.conversations.of(server.id, session, subject)
            conversation.stream = self._flow
            self._call.session, self._call.conversation, self._call.legacy = session, conversation, True
        return path if urlsplit(data).netloc else data
