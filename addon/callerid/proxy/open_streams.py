"""Answers under way, judged again: streams are cut where that must be, late answers withheld (law 10)."""

from __future__ import annotations

import asyncio
import logging
import math
from datetime import datetime
from time import monotonic

from mitmproxy import http

from callerid.errors import StoreError
from callerid.model import Outcome
from callerid.proxy import reply
from callerid.proxy.calls import Call, Memory, Stamp
from callerid.proxy.rooms import Rooms
from callerid.proxy.runtime import Runtime
from callerid.proxy.standing import expired, standing

logger = logging.getLogger(__name__)

AT_ONCE = 32
"""Open streams that are judged again before the events of the others get their turn: about a millisecond."""


async def judge_again(memory: Memory, runtime: Runtime, now: datetime) -> None:
    """Cut the open streams of whoever may no longer be served. To be called twice a second.

    Everything is judged again, but only when something changed: the rules, a CA, an issuer's keys, a
    revocation or a block; or when keys or a revocation list became too old. Otherwise a stream can only have
    expired or fallen silent, and until the first of them has, a turn looks at the new ones only:
    silent streams cost nothing.
    """
    rooms, stamp = runtime.rooms, stamp_of(runtime, now)
    patience = runtime.limits.stream_idle_seconds
    silent_since = monotonic() - patience if patience else -math.inf
    due = memory.streams.due(stamp, now.timestamp() * 1e6, silent_since)
    for number, (flow, call) in enumerate(due, 1):
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
        if flow not in memory.streams:
            continue  # it ended meanwhile
        try:
            _judge_again(memory, runtime, (flow, call), rooms, stamp, now)
        except Exception:
            logger.exception("callerid: an open stream could not be cut; tried again at the next turn")
            call.judged = None
            memory.streams.add(flow, call)


def stamp_of(runtime: Runtime, now: datetime) -> Stamp | None:
    """What a call is judged under now; None where the registry cannot be read."""
    try:
        generation = runtime.registry.generation()
    except StoreError:
        return None
    return runtime.turn, generation, runtime.rooms.jwks.version, runtime.rooms.authority.lapsed(now)


def withdrawn(call: Call, runtime: Runtime, now: datetime) -> bool:
    """Whether a call that was let go may no longer have its answer; if so, its refusal says why (law 10).

    For what has not begun to go out. While nothing changed since the call was judged, it costs a comparison.
    """
    if call.caller is None or call.observed or call.refusal is not None:
        return False
    stamp = stamp_of(runtime, now)
    if stamp is not None and call.judged == stamp:
        return False
    reason = standing(call, runtime.rooms, now)
    call.judged = stamp
    if reason is not None:
        call.refusal, call.detail = Outcome.CUT, reason.value
    return reason is not None


def _judge_again(
    memory: Memory,
    runtime: Runtime,
    stream: tuple[http.HTTPFlow, Call],
    rooms: Rooms,
    stamp: Stamp | None,
    now: datetime,
) -> None:
    """The stamp is kept per call: one that was let go while the rules changed is judged as well."""
    flow, call = stream
    if call.caller is None or call.finished:
        return
    if stamp is None or call.judged != stamp:
        reason = standing(call, rooms, now)
        call.judged = stamp
        memory.streams.expects(call)
    else:
        reason = expired(call, now)
    patience = runtime.limits.stream_idle_seconds
    if reason is not None:
        logger.warning("callerid: an open stream is cut: %s", reason.value)
        reply.cut(flow)
        reply.finish(flow, call, runtime, ended=Outcome.CUT, detail=reason.value)
    elif patience and monotonic() - call.touched > patience:
        reply.cut(flow)
        detail = f"the server was silent for {patience:g} s"
        reply.finish(flow, call, runtime, ended=Outcome.IDLE, detail=detail)
