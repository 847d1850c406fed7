"""What waits for the writer: a bounded queue that is emptied whole, and the tally of what was lost."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from callerid.audit.records import Row

type Done = Callable[[BaseException | None], None]


RIDE_SECONDS = 0.05
"""The longest that an outcome waits for a decision to be committed with."""
GATHER_SECONDS = 0.002
"""For each decision of the last commit, if there were several, the next one waits this long for more."""
GATHER_MOST = 0.010
GATHER_FULL = 32
"""Enough decisions not to wait for more."""


class Table(StrEnum):
    """Where a row goes. The order here is the order of the inserts within one commit."""

    POLICY = "policy_version"
    EVENT = "event"
    DECISION = "decision"
    OUTCOME = "outcome"
    FINDING = "finding"


_BOUNDED = frozenset((Table.DECISION, Table.OUTCOME, Table.FINDING))
"""What callers cause: only so much of it may wait."""
_RIDING = frozenset((Table.OUTCOME, Table.FINDING))
"""What nobody waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One row on its way. ``keep``: try it again with a later commit when this one fails.

    An allow is never kept: its call was refused meanwhile, and a row that says otherwise would lie.
    """

    table: Table
    row: Row
    time_us: int
    keep: bool
    done: Done | None = None

    def told(self) -> Item:
        """The same row, with nobody waiting for it any more."""
        return replace(self, done=None)


class WriterQueue:
    """A queue for one reader. ``put`` never waits; ``take`` waits and then takes everything.

    A lone decision, of which somebody waits for the commit, is handed out at once. Where the last batch
    held several, a little time is left after it for more to come, since a sync costs as much as ten rows
    or more: 2 ms for each of them, 10 ms at most. That is about what the proxy needs to let those calls
    go and to read as many new ones, so a crowd hardly waits for it, and a single caller never. Outcomes
    and findings, for which nobody waits, ride along with the next decision, or go after
    ``RIDE_SECONDS``: half the commits for one call.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[Item] = deque()
        self._condition = threading.Condition()
        self._closed = False
        self._urgent = 0
        self._wanted = 1  # urgent items that wake the reader
        self._crowd = 0  # urgent items in the last batch
        self._asleep = False  # the reader waits for anything at all

    def put(self, item: Item) -> bool:
        """Queue the item; False when the queue is full or closed. System records always find room."""
        with self._condition:
            full = len(self._items) >= self._limit and item.table in _BOUNDED
            if self._closed or full:
                return False
            self._items.append(item)
            if item.table not in _RIDING:
                self._urgent += 1
                if self._urgent == self._wanted or self._asleep:
                    self._condition.notify()
            elif self._asleep:
                self._condition.notify()
            return True

    def take(self, timeout: float | None) -> list[Item] | None:
        """Everything queued, in order; [] after ``timeout`` seconds; None once closed and empty."""
        with self._condition:
            if self._crowd > 1:
                self._await(GATHER_FULL, min(self._crowd * GATHER_SECONDS, GATHER_MOST))
            if self._crowd or self._items:
                self._await(1, RIDE_SECONDS)  # outcomes of what was just decided need not wake us
            if not self._items:
                self._asleep = True
                self._condition.wait_for(lambda: self._items or self._closed, timeout)
                self._asleep = False
                if self._items:
                    self._await(1, RIDE_SECONDS)
            if self._closed and not self._items:
                return None
            items = list(self._items)
            self._items.clear()
            self._crowd, self._urgent = self._urgent, 0
            return items

    def _await(self, wanted: int, timeout: float) -> None:
        """Wait for that many urgent items. The caller holds the lock."""
        self._wanted = wanted
        self._condition.wait_for(lambda: self._urgent >= wanted or self._closed, timeout)
        self._wanted = 1

    def close(self) -> None:
        """Take nothing more; what is queued is still handed out."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()


class Losses:
    """Rows that could not be stored, counted by table, until one row can say so."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._cause = ""

    def add(self, table: Table, cause: str) -> None:
        """Count one more row that was lost, and remember the last cause."""
        with self._mutex:
            self._counts[str(table)] += 1
            self._cause = cause

    def __bool__(self) -> bool:
        return bool(self._counts)

    def summary(self) -> dict[str, int | str]:
        """The counts since the last ``settle``, for the detail of an ``unrecorded`` event."""
        with self._mutex:
            return {**self._counts, "cause": self._cause}

    def settle(self, stored: dict[str, int | str]) -> None:
        """A summary was committed: forget what it counted, keep what was added since."""
        with self._mutex:
            self._counts -= Counter({table: n for table, n in stored.items() if isinstance(n, int)})
