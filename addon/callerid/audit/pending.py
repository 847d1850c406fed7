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


class Table(StrEnum):
    """Where a row goes. The order here is the order of the inserts within one commit."""

    POLICY = "policy_version"
    EVENT = "event"
    DECISION = "decision"
    OUTCOME = "outcome"


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

    A decision, of which somebody waits for the commit, is handed out at once. Outcomes, for which nobody
    waits, ride along with the next decision, or go after ``RIDE_SECONDS``: half the commits for one call.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._urgent = False
        self._items: deque[Item] = deque()
        self._condition = threading.Condition()
        self._closed = False

    def put(self, item: Item) -> bool:
        """Queue the item; False when the queue is full or closed. System records always find room."""
        with self._condition:
            full = len(self._items) >= self._limit and item.table in (Table.DECISION, Table.OUTCOME)
            if self._closed or full:
                return False
            first = not self._items
            self._items.append(item)
            if item.table is not Table.OUTCOME:
                self._urgent = True
            if first or self._urgent:
                self._condition.notify()
            return True

    def take(self, timeout: float | None) -> list[Item] | None:
        """Everything queued, in order; [] after ``timeout`` seconds; None once closed and empty."""
        with self._condition:
            self._condition.wait_for(lambda: self._items or self._closed, timeout)
            if self._items and not self._urgent:
                self._condition.wait_for(lambda: self._urgent or self._closed, RIDE_SECONDS)
            if self._closed and not self._items:
                return None
            items = list(self._items)
            self._items.clear()
            self._urgent = False
            return items

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
