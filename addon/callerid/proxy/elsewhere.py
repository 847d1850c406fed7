"""Requests whose answers come in another exchange than their own: remembered when they leave (law 9)."""

from __future__ import annotations

from callerid.mcp.methods import MODERN
from callerid.model import DecisionRecord, Message, MessageType, Outcome, Verdict
from callerid.proxy.calls import Call
from callerid.proxy.conversations import Settled, Waiting, key_of, settle
from callerid.proxy.runtime import Runtime, now_us


def await_elsewhere(call: Call, runtime: Runtime) -> None:
    """The call is about to leave: remember its ids, and that a 2024-11-05 answer comes on the stream.

    An answer to a question is used up with this: a second one finds nothing that was asked.
    """
    conversation = call.conversation
    if conversation is None:
        return
    legacy = conversation.live() is not None
    for record, message, rpc_id in call.requests():
        conversation.use(rpc_id)
        if legacy:
            waiting = Waiting(record, message)
            call.awaits[key_of(rpc_id)] = conversation.waiting[rpc_id] = waiting
    for record, message in zip(call.records, call.messages, strict=True):
        allowed = record.verdict is Verdict.ALLOW
        if allowed and message.type is MessageType.RESPONSE and message.rpc_id is not None:
            asked = conversation.asked.pop(key_of(message.rpc_id), None)
            if asked is not None and asked.waiting is not None and asked.refused is None:
                ended = Outcome.RPC_ERROR if message.refs.answer is None else Outcome.OK
                settle(asked.waiting, Settled(ended, None), now_us(), runtime.outcome)


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
    fine = ended is None and call.refusal is None and status is not None and status < 400
    resumable = call.streaming and call.events and message.protocol not in MODERN
    if fine and key_of(rpc_id) not in call.settled and (waiting is not None or resumable):
        waiting = waiting or Waiting(record, message)
        waiting.http_status = status
        conversation.waiting[rpc_id] = waiting
        return True
    if waiting is not None:
        conversation.waiting.pop(rpc_id, None)
    return False
