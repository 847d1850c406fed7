"""Requests whose answers come in another exchange than their own, and answers to what servers asked (law 9).

``reserve`` before the rows are written, so that of two with one id only one can pass; ``release`` if they
are not; ``comes_later`` and ``answered`` when the exchange ends.
"""

from __future__ import annotations

from collections.abc import Callable

from callerid.mcp.methods import MODERN
from callerid.model import DecisionRecord, Message, MessageType, Outcome, OutcomeRecord, Verdict
from callerid.proxy.calls import Call
from callerid.proxy.conversations import EACH, Settled, await_answer, key_of, settle


def reserve(call: Call) -> None:
    """The call is about to be recorded, and then to leave: its ids are its own from here on.

    An answer to a question is used up with this: a second one finds nothing that was asked.
    """
    conversation = call.conversation
    if conversation is None or not call.messages:
        return
    legacy = conversation.live() is not None
    for record, message, rpc_id in call.requests():
        conversation.use(rpc_id)
        if legacy:
            waiting = await_answer(record, message)
            call.awaits[key_of(rpc_id)] = conversation.waiting[rpc_id] = waiting
    if call.messages[0].type is not MessageType.RESPONSE:
        return  # an answer inside of a repeated call has no id of the server's
    for record, message in zip(call.records, call.messages, strict=True):
        if record.verdict is Verdict.ALLOW and message.rpc_id is not None:
            asked = conversation.asked.pop(key_of(message.rpc_id), None)
            if asked is not None:
                ended = Outcome.RPC_ERROR if message.refs.answer is None else Outcome.OK
                call.answers.append((asked, ended))


def release(call: Call) -> None:
    """The call did not leave: what it reserved is free again."""
    conversation = call.conversation
    if conversation is None:
        return
    for (_, rpc_id), waiting in call.awaits.items():
        if conversation.waiting.get(rpc_id) is waiting:
            del conversation.waiting[rpc_id]
    call.awaits.clear()
    for asked, _ in call.answers:
        conversation.asked.setdefault(key_of(asked.ask.key), asked)
    call.answers.clear()


def answered(call: Call, now_us: int, sink: Callable[[OutcomeRecord], None]) -> None:
    """The call is over: the questions that it answered are, too."""
    for asked, ended in call.answers:
        if asked.waiting is not None and asked.refused is None:
            settle(asked.waiting, Settled(ended, None), now_us, sink)
    call.answers.clear()


def comes_later(
    call: Call, record: DecisionRecord, message: Message, status: int | None, ended: Outcome | None
) -> bool:
    """Whether the answer to this request is awaited on another stream.

    That of a 2024-11-05 call is, once its POST was accepted; and that of a call whose stream can be resumed
    and ended well without it, as servers do that let their clients poll (2025-11-25, SSE polling).
    """
    rpc_id, conversation = message.rpc_id, call.conversation
    if message.type is not MessageType.REQUEST or rpc_id is None or conversation is None:
        return False
    waiting = call.awaits.get(key_of(rpc_id))
    if waiting is not None and waiting.done:
        return True
    settled = key_of(rpc_id) in call.settled
    resumable = call.streaming and call.events and message.protocol not in MODERN and not settled
    fine = ended is None and call.refusal is None and status is not None and status < 400
    if fine and not settled and waiting is not None:
        waiting.http_status = status
        return True
    if waiting is not None:
        conversation.waiting.pop(rpc_id, None)
    if not resumable or rpc_id in conversation.waiting or len(conversation.waiting) >= EACH:
        return False
    # What a client resumes after it left, or its server did, is told by a row already; its handles are not.
    later = await_answer(record, message, done=not fine)
    later.http_status = status
    conversation.waiting[rpc_id] = later
    return fine
