"""The decision on one message: whose handles it uses, then what the rules say of it and of its parts.

Pure. The rules decide on what a message does: a task is the tool that made it, a subscription is the
resources that it names, an answer to a server's question is that question with the answer in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from callerid.config import Server
from callerid.mcp.answers import DENIED_CODE
from callerid.mcp.asks import answered_as
from callerid.mcp.methods import METHODS
from callerid.model import (
    EMPTY,
    NO_REFS,
    Caller,
    Decision,
    Kind,
    Message,
    MessageType,
    Reason,
    RpcId,
    Verdict,
)
from callerid.proxy.conversations import Conversation, key_of
from callerid.proxy.handles import Owner, Sort, handle, state_handle
from callerid.proxy.rooms import Rooms
from callerid.proxy.rows import Finding

_GUARDED = frozenset({Reason.RULE_DENIED, Reason.REQUIREMENT_FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Who says it, where, and when."""

    rooms: Rooms
    caller: Caller
    server: Server
    conversation: Conversation
    now: datetime

    def rules(self, kind: Kind, method: str, name: str | None, arguments: Mapping[str, Any]) -> Decision:
        """What the rules say."""
        return self.rooms.rules.engine.decide(
            caller=self.caller,
            server=self.server,
            kind=kind,
            method=method,
            name=name,
            arguments=arguments,
            now=self.now,
        )

    def refuse(self, message: Message, reason: Reason, detail: str) -> Finding:
        """A refusal that no rule made."""
        decision = Decision(verdict=Verdict.DENY, reason=reason, policy=self.rooms.rules.hash)
        return Finding(message, decision, detail)


def decide(message: Message, place: Place) -> list[Finding]:
    """What is found about a message: first of itself, then of its parts. One refusal refuses all."""
    if message.type is MessageType.RESPONSE:
        return _response(message, place)
    foreign = _foreign(message, place)
    if foreign is not None:
        return [foreign]
    own = _own(message, place)
    parts = [_part(message, key, value, place) for key, value in message.refs.input_responses.items()]
    for part in parts:
        if own.decision.verdict is Verdict.ALLOW and part.decision.verdict is not Verdict.ALLOW:
            own = replace(own, decision=part.decision, detail="an answer in it is refused")
    return [own, *parts]


def still(message: Message, place: Place) -> Finding:
    """What would be found about a message that was let go before."""
    return _own(message, place)


def _foreign(message: Message, place: Place) -> Finding | None:
    """The refusal of a message that uses a handle of somebody else, or of nobody."""
    refs, conversation = message.refs, place.conversation
    if message.type is MessageType.REQUEST and conversation.live() is not None:
        if message.rpc_id in conversation.waiting:
            return place.refuse(message, Reason.MALFORMED_MESSAGE, "its id is in use in this session")
        if len(conversation.waiting) >= place.rooms.limits.in_flight:
            return place.refuse(message, Reason.TOO_MANY_IN_FLIGHT, "too many calls wait in this session")
    subject = place.caller.principal.subject
    for task_id in refs.task_ids:
        if _owner_of(place, task_id) is None:
            return place.refuse(message, Reason.TASK_NOT_YOURS, "the task was not made for this principal")
    if refs.request_state is not None:
        state = state_handle(subject, message, refs.request_state)
        if place.rooms.handles.owner(place.server.id, state) is None:
            return place.refuse(
                message,
                Reason.STATE_NOT_YOURS,
                "this requestState was not given for this call",
            )
    if refs.cancels is not None and key_of(refs.cancels) not in place.conversation.used:
        return place.refuse(message, Reason.REQUEST_NOT_YOURS, "no such request was made in this session")
    return None


def _owner_of(place: Place, task_id: str) -> Owner | None:
    owner = place.rooms.handles.owner(place.server.id, handle(Sort.TASK, task_id))
    return owner if owner is not None and owner.subject == place.caller.principal.subject else None


def _own(message: Message, place: Place) -> Finding:
    """What the rules say of the message, apart from answers in it."""
    if message.method.startswith("tasks/") and message.refs.task_ids:
        return _of_task(message, place)
    first = place.rules(message.kind, message.method, message.name, message.arguments)
    for uri in message.refs.resources:
        if first.verdict is Verdict.ALLOW:
            first = place.rules(Kind.RESOURCE, "resources/subscribe", uri, EMPTY)
    for task_id in message.refs.task_ids:
        if first.verdict is Verdict.ALLOW:
            first = _origin(place, task_id)[0]
    return Finding(message, first)


def _of_task(message: Message, place: Place) -> Finding:
    """A task is decided as the tool that made it; a rule that names the method itself can forbid it."""
    named = place.rules(Kind.METHOD, message.method, None, message.arguments)
    if named.reason in _GUARDED and _names_tools(place, named.rule):
        return Finding(message, named)
    known = METHODS[message.method].revisions
    if message.protocol is not None and message.protocol not in known and named.verdict is not Verdict.ALLOW:
        return Finding(message, named)  # an unknown method there, which needs a rule of its own
    decision, origin = _origin(place, message.refs.task_ids[0])
    return Finding(message, decision, tool=origin.name if origin is not None else None)


def _origin(place: Place, task_id: str) -> tuple[Decision, Message | None]:
    owner = _owner_of(place, task_id)
    origin = owner.message if owner is not None else None
    if origin is None:
        return _no(place), None
    return place.rules(origin.kind, origin.method, origin.name, origin.arguments), origin


def _no(place: Place) -> Decision:
    return Decision(verdict=Verdict.DENY, reason=Reason.NO_GRANT, policy=place.rooms.rules.hash, hidden=True)


def _names_tools(place: Place, rule_id: str | None) -> bool:
    """Whether this rule says what it is about; one that does not was not written with tasks in mind."""
    rules = place.rooms.rules.engine.rules
    return any(rule.id == rule_id and rule.tools is not None for rule in rules)


def _part(message: Message, key: str, value: Any, place: Place) -> Finding:
    """An answer inside of a repeated call (2026-07-28): the question that it answers, with the answer."""
    scope = scope_of(message)
    posed = place.conversation.inputs.get((*scope, key))
    ask = posed.ask if posed is not None else None
    # The question that is known under this key may be that of another call: the shape counts as well.
    known = (ask.method,) if ask is not None else ()
    methods = tuple(dict.fromkeys((*known, *answered_as(value))))
    said = Message(
        type=MessageType.RESPONSE,
        method=methods[0] if methods else "response",
        kind=Kind.METHOD,
        rpc_id=key,
        arguments={"answer": value},
        protocol=message.protocol,
    )
    if not methods:
        return place.refuse(said, Reason.RESPONSE_UNEXPECTED, "the answer fits no question of a server")
    decision = None
    for method in methods:
        if decision is None or decision.verdict is Verdict.ALLOW:
            asked = ask.arguments if ask is not None and ask.method == method else EMPTY
            decision = place.rules(Kind.METHOD, method, None, {**asked, "answer": value})
    return Finding(said, decision or _no(place), caused_by=posed.event_id if posed is not None else None)


def scope_of(message: Message) -> tuple[str, ...]:
    """Under which name the questions of a result are kept until the call is repeated with its answers."""
    if message.refs.task_ids:
        return ("task", message.refs.task_ids[0])
    return (message.method, message.name or "")


def _response(message: Message, place: Place) -> list[Finding]:
    """A client's answer to a server's question. One that is refused is replaced by an error of ours."""
    rpc_id = message.rpc_id
    asked = place.conversation.asked.get(key_of(rpc_id)) if rpc_id is not None else None
    if asked is None or rpc_id is None:
        return [place.refuse(message, Reason.RESPONSE_UNEXPECTED, "the server asked nothing with this id")]
    cause = asked.waiting.record.event_id if asked.waiting is not None else None
    ours = _error_of_ours(message, rpc_id, place, cause)
    if asked.refused is not None:
        return [ours]
    ask, answer = asked.ask, message.refs.answer
    if ask.method == "ping":
        return [Finding(message, place.rules(Kind.PROTOCOL, "ping", None, EMPTY), caused_by=cause)]
    said = replace(
        message,
        method=ask.method,
        kind=Kind.METHOD,
        arguments=EMPTY if answer is None else {"answer": answer},
    )
    arguments = ask.arguments if answer is None else {**ask.arguments, "answer": answer}
    found = Finding(said, place.rules(Kind.METHOD, ask.method, None, arguments), caused_by=cause)
    return [found] if found.decision.verdict is Verdict.ALLOW else [found, ours]


def _error_of_ours(message: Message, rpc_id: RpcId, place: Place, cause: str | None) -> Finding:
    """What the server gets in the place of an answer: it must not wait, and learns of no rule."""
    decision = Decision(verdict=Verdict.ALLOW, reason=Reason.PROTOCOL, policy=place.rooms.rules.hash)
    error = {"code": DENIED_CODE, "message": "The client's side refused this request."}
    return Finding(
        replace(message, arguments=EMPTY, refs=NO_REFS),
        decision,
        "an error of ours goes to the server in the place of an answer",
        substitute={"jsonrpc": "2.0", "id": rpc_id, "error": error},
        caused_by=cause,
    )
