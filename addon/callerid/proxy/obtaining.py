"""Waiting for what a call needs from the network before it can be let go: a person's own token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from mitmproxy import connection

from callerid.model import Reason, Verdict
from callerid.proxy.facts import Ruling

_GONE = "the client left while a token of its person was asked for"


async def settled(ruling: Ruling, client: connection.Client, clock: Callable[[], int]) -> Ruling:
    """The ruling once its pending token is there, or is not to be had: then it stays the refusal that it is.

    One fetch serves all who wait for the same token; the store bounds the wait. Asked for once: a second
    ``pending`` is no reason to wait again.

    Args:
        ruling: with ``pending``.
        client: its connection; one that has left meanwhile is not called for.
        clock: gives the time, in microseconds since the epoch.
    """
    pending = ruling.pending
    if pending is None:
        return ruling
    await pending.store.obtain(pending.wanted)
    if not client.state & connection.ConnectionState.CAN_READ:
        gone = tuple(
            replace(record, verdict=Verdict.DENY, reason=Reason.CLIENT_GONE, detail=_GONE)
            for record in ruling.records
        )
        return replace(ruling, records=gone, pending=None)
    again = pending.again(datetime.fromtimestamp(clock() / 1e6, UTC))
    return replace(
        again,
        conversation=ruling.conversation,
        session=ruling.session,
        target=again.target if again.target is not None else ruling.target,
        judged=ruling.judged,
    )
