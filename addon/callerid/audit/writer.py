"""The one hand that writes the audit: a thread that commits everything queued, then tells who waited.

Law 1: a decision is durable before its call leaves; ``done`` is called after COMMIT returned, never
before. Law 2: a refusal that could not be written now is written with a later commit, and what is lost
for good is counted in an ``unrecorded`` event. While one commit syncs, the next batch gathers by itself;
``WriterQueue`` says how long it may gather more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from callerid.audit.lock import WriterLock
from callerid.audit.pending import Done, Item, Losses, Table, WriterQueue
from callerid.audit.records import AuditError, decision_row, event_row, finding_row, outcome_row, policy_row
from callerid.audit.redact import Scrub
from callerid.audit.schema import store_error
from callerid.audit.store import Store
from callerid.errors import StoreError
from callerid.model import DecisionRecord, FindingRecord, OutcomeRecord, Verdict

logger = logging.getLogger(__name__)

type Results = list[tuple[Done, BaseException | None]]
type Notify = Callable[[Results], None]

RETRY_SECONDS = 1.0
"""How long the writer rests before it tries kept rows again when nothing new arrives."""

_RUN_EVENTS = ("started", "recovered")
"""Events that stand for the beginning of this run, whatever was decided before they are written."""


class AuditWriter:
    """Writes decisions, outcomes, findings, policies and system events to one SQLite file.

    All methods but ``start`` and ``close`` may be called from any thread and never wait. ``scrub`` may
    be replaced at any time; it takes live secrets out of everything that is stored.

    Args:
        path: the database; its lock file lies beside it.
        notify: called from the writer's thread, once per commit, with every ``done`` of the batch and
            its error or None; the proxy hops back to its event loop there.
        queue_limit: rows that may wait; beyond it a decision is refused at once.
    """

    def __init__(self, path: Path, *, notify: Notify, queue_limit: int = 5000) -> None:
        self.path = path
        self.scrub: Scrub = _unchanged
        self._notify = notify
        self._limit = queue_limit
        self._queue = WriterQueue(queue_limit)
        self._losses = Losses()
        self._lock = WriterLock(path)
        self._thread = threading.Thread(target=self._run, name="callerid-audit", daemon=True)
        self._store: Store | None = None
        self._start_seq = 0
        self._recovered: Mapping[str, int] | None = None
        self._kept: list[Item] = []
        self._newest_us = 0
        self._good = False

    @property
    def healthy(self) -> bool:
        """True while the writer runs and its last commit succeeded."""
        return self._good and self._thread.is_alive()

    def start(self) -> None:
        """Take the lock, open and migrate the database, start the thread.

        Raises:
            StoreError: the database cannot be used, or another writer has it.
        """
        self._lock.acquire()
        try:
            self._store = Store(self.path)
        except BaseException:
            self._lock.release()
            raise
        self._start_seq = self._store.start_seq
        self._recovered = self._store.unknown
        self._good = True
        self._thread.start()

    def decide(self, record: DecisionRecord, done: Done) -> None:
        """Queue a decision; ``done(None)`` follows its commit, ``done(error)`` its failure.

        The arguments are redacted and serialised here, in the caller's thread.

        Raises:
            AuditError: the record cannot be made into a row; ``done`` will not be called.
            StoreError: the queue is full or the writer does not run; ``done`` will not be called.
        """
        try:
            row = decision_row(record, self.scrub)
        except AuditError as error:
            self._losses.add(Table.DECISION, error.message)
            raise
        keep = record.verdict is not Verdict.ALLOW
        item = Item(table=Table.DECISION, row=row, time_us=record.time_us, keep=keep, done=done)
        if not self._thread.is_alive() or not self._queue.put(item):
            self._losses.add(Table.DECISION, "the queue was full or closed")
            raise StoreError(
                "the audit takes no more rows: its queue is full, or it does not run",
                hint="Look at the disk of HOME; calls are refused until rows can be written again.",
            )

    def outcome(self, record: OutcomeRecord) -> None:
        """Queue an outcome. Fire and forget: what cannot be queued is counted, nothing is raised."""
        try:
            row = outcome_row(record, self.scrub)
        except AuditError as error:
            self._losses.add(Table.OUTCOME, error.message)
            return
        if not self._queue.put(Item(table=Table.OUTCOME, row=row, time_us=record.time_us, keep=True)):
            self._losses.add(Table.OUTCOME, "the queue was full or closed")

    def finding(self, record: FindingRecord) -> None:
        """Queue a finding. Fire and forget, as for an outcome: nothing waits for it, nothing is raised."""
        try:
            row = finding_row(record, self.scrub)
        except AuditError as error:
            self._losses.add(Table.FINDING, error.message)
            return
        if not self._queue.put(Item(table=Table.FINDING, row=row, time_us=record.time_us, keep=True)):
            self._losses.add(Table.FINDING, "the queue was full or closed")

    def policy(self, hash: str, loaded_us: int, sources: Mapping[str, str]) -> None:
        """Keep the text of each rule file of a policy, once per hash.

        Raises:
            AuditError: the texts cannot be serialised.
        """
        row = policy_row(hash, loaded_us, sources, self.scrub)
        self._queue.put(Item(table=Table.POLICY, row=row, time_us=loaded_us, keep=True))

    def event(self, kind: str, time_us: int, detail: Mapping[str, Any]) -> None:
        """Record something about callerid itself: started, stopped, reload, reload_failed.

        Raises:
            AuditError: the detail cannot be serialised.
        """
        self._queue.put(self._event(kind, time_us, detail, keep=True))

    def close(self, timeout: float) -> None:
        """Write what is queued, fold the WAL into the database, stop. Waits at most ``timeout`` seconds."""
        self._queue.close()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _event(self, kind: str, time_us: int, detail: Mapping[str, Any], *, keep: bool) -> Item:
        after_seq = self._start_seq if kind in _RUN_EVENTS else None
        row = event_row(kind, time_us, detail, after_seq, self.scrub)
        return Item(table=Table.EVENT, row=row, time_us=time_us, keep=keep)

    def _run(self) -> None:
        """The thread. Nothing may end it early: without it every call is refused until a restart."""
        while True:
            taken: list[Item] | None = []
            try:
                taken = self._queue.take(RETRY_SECONDS if self._kept or self._losses else None)
                self._write(taken or [])
            except BaseException:
                self._good = False
                logger.exception("the audit writer met a fault of its own and goes on")
            if taken is None:
                break
        if self._store is not None:
            self._store.close()
        self._lock.release()

    def _write(self, taken: list[Item]) -> None:
        """One batch: what was kept, what arrived, what we have to say ourselves; then one ``notify``."""
        if self._store is None:
            return
        batch, self._kept = self._kept + taken, []
        lost = self._losses.summary() if self._losses else None
        errors: Sequence[BaseException | None] = []
        try:
            own = self._own_events(batch, lost)
            if batch or own:
                errors = self._store.commit([*batch, *own])
                self._good = True
            if own:
                self._recovered = None
            if own and lost is not None and errors[-1] is None:
                self._losses.settle(lost)
        except BaseException as error:
            self._good = False
            failure = error if isinstance(error, StoreError) else store_error(self.path, error)
            logger.error("%s", failure.message)
            errors = [failure] * len(batch)
        self._settle(batch, errors)
        self._tell([(item.done, error) for item, error in zip(batch, errors, strict=False) if item.done])

    def _settle(self, batch: list[Item], errors: Sequence[BaseException | None]) -> None:
        """What failed with the file is kept for the next commit; what is bad in itself is counted."""
        for item, error in zip(batch, errors, strict=False):
            if error is None:
                continue
            if item.keep and not self._good and len(self._kept) < self._limit:
                self._kept.append(item.told())
            else:
                self._losses.add(item.table, str(error))

    def _tell(self, results: Results) -> None:
        if not results:
            return
        try:
            self._notify(results)
        except BaseException:
            # The event loop may be gone at shutdown. The rows are stored; nobody waits for them any more.
            logger.exception("nobody could be told that %d audit rows are settled", len(results))

    def _own_events(self, batch: list[Item], lost: Mapping[str, int | str] | None) -> list[Item]:
        """``recovered`` and ``unrecorded``, at the time of the newest record: this thread reads no clock."""
        self._newest_us = max((self._newest_us, *(item.time_us for item in batch)))
        events: list[tuple[str, Mapping[str, Any]]] = []
        if self._recovered is not None:
            events.append(("recovered", self._recovered))
        if lost is not None:
            events.append(("unrecorded", lost))
        if not self._newest_us:
            return []
        return [self._event(kind, self._newest_us, detail, keep=False) for kind, detail in events]


def _unchanged(text: str) -> str:
    return text
