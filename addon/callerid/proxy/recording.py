"""Rows before calls: law 1 waits here until they are durable, for a bounded time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from callerid.errors import StoreError
from callerid.model import DecisionRecord

RECORD_TIMEOUT = 2.0
"""Law 1: a row that is not durable within this time refuses the call."""


class Decides(Protocol):
    """What of the writer is needed here."""

    def decide(self, record: DecisionRecord, done: Callable[[BaseException | None], None]) -> None:
        """Write a row; ``done`` is called on the loop once it is durable or has failed."""


class Recording:
    """Who waits for rows, and until when. For one event loop."""

    def __init__(self) -> None:
        self._unsettled: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    async def record(self, writer: Decides, records: tuple[DecisionRecord, ...]) -> None:
        """Return once all rows are durable.

        Raises:
            StoreError: they are not, or not within ``RECORD_TIMEOUT`` seconds.
        """
        if not records:
            return
        waiting = len(records)
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: BaseException | None) -> None:
            nonlocal waiting
            waiting -= 1
            if settled.done():
                return
            if error is not None:
                settled.set_exception(StoreError(f"the audit row could not be written: {error}"))
            elif waiting == 0:
                settled.set_result(None)

        for record in records:
            writer.decide(record, done)
        self._bound(settled)
        await settled

    def _bound(self, settled: asyncio.Future[None]) -> None:
        """Fail ``settled`` after RECORD_TIMEOUT. One timer serves all: nearly none of them ever fails."""
        loop = settled.get_loop()
        now = loop.time()
        self._unsettled.append((now + RECORD_TIMEOUT, settled))
        if self._alarm is None or self._alarm.when() < now:
            self._alarm = loop.call_later(RECORD_TIMEOUT, self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._alarm = None
        while self._unsettled:
            deadline, settled = self._unsettled[0]
            if not settled.done():
                if deadline > loop.time():
                    self._alarm = loop.call_at(deadline, self._expire, loop)
                    return
                settled.set_exception(
                    StoreError(f"the audit row was not durable within {RECORD_TIMEOUT:g} s")
                )
            self._unsettled.popleft()
