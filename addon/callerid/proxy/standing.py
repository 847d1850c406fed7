"""Whether a call that was allowed would still be: the judgement of open streams (law 10)."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

from callerid.model import MessageType, Reason, Rejected, Verdict
from callerid.proxy.calls import Call
from callerid.proxy.conversations import Conversation
from callerid.proxy.deciding import Place, still
from callerid.proxy.rooms import Rooms

logger = logging.getLogger(__name__)


def expired(call: Call, now: datetime) -> Reason | None:
    """The reason if the caller's evidence has run out since."""
    caller = call.caller
    if caller is None or caller.expires_us is None or caller.expires_us > now.timestamp() * 1e6:
        return None
    return Reason.TOKEN_EXPIRED


def standing(call: Call, rooms: Rooms, now: datetime) -> Reason | None:
    """The reason why this call would be refused now, or None if it would not.

    The evidence is verified again and every message decided again, by the rules now in force. What
    cannot be judged is refused.
    """
    try:
        return _judge(call, rooms, now)
    except Exception:
        logger.exception("callerid: an open stream could not be judged again")
        return Reason.INTERNAL_ERROR


def _judge(call: Call, rooms: Rooms, now: datetime) -> Reason | None:
    uncertified = rooms.authority.uncertified(call.presented, now=now)
    if uncertified is not None:
        return uncertified.reason
    caller = rooms.authority.identify(call.presented, now=now)
    if isinstance(caller, Rejected):
        return caller.reason
    before = call.caller
    if before is None or (caller.principal, caller.agent) != (before.principal, before.agent):
        return Reason.IDENTITY_CONFLICT
    if caller.expires_us != before.expires_us:
        call.caller = replace(before, expires_us=caller.expires_us)  # the token was rotated
    server = rooms.servers.by_id.get(call.server.id) if call.server is not None else None
    if server is None:
        return Reason.UNKNOWN_SERVER
    place = Place(
        rooms=rooms,
        caller=caller,
        server=server,
        conversation=call.conversation or Conversation(),
        now=now,
    )
    for message in call.messages:
        if message.type is MessageType.RESPONSE:
            continue  # judged when it was given; it opens no stream of its own
        decision = still(message, place).decision
        if decision.verdict is not Verdict.ALLOW:
            return decision.reason
    return None
