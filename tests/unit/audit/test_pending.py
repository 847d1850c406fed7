from __future__ import annotations

import threading

import pytest

from callerid.audit import pending
from callerid.audit.pending import Item, Losses, Table, WriterQueue

from .samples import PATIENCE


def item(table: Table, number: int = 0) -> Item:
    return Item(table=table, row=(number,), time_us=number, keep=False)


def test_everything_queued_is_taken_at_once_and_in_order() -> None:
    queue = WriterQueue(10)
    for number in range(3):
        assert queue.put(item(Table.DECISION, number))
    assert [entry.row for entry in queue.take(None) or []] == [(0,), (1,), (2,)]
    assert queue.take(0) == []


def test_a_full_queue_takes_nothing_that_callers_cause_but_system_records() -> None:
    queue = WriterQueue(1)
    assert queue.put(item(Table.DECISION))
    assert not queue.put(item(Table.DECISION))
    assert not queue.put(item(Table.OUTCOME))
    assert not queue.put(item(Table.FINDING))
    assert queue.put(item(Table.POLICY))
    assert queue.put(item(Table.EVENT))


def test_a_closed_queue_hands_out_what_it_has_and_then_ends() -> None:
    queue = WriterQueue(10)
    queue.put(item(Table.DECISION))
    queue.close()
    assert not queue.put(item(Table.EVENT))
    assert len(queue.take(None) or []) == 1
    assert queue.take(None) is None


def test_losses_settle_what_was_reported_and_keep_what_came_since() -> None:
    losses = Losses()
    assert not losses
    losses.add(Table.DECISION, "disk full")
    losses.add(Table.DECISION, "disk full")
    reported = losses.summary()
    assert reported == {"decision": 2, "cause": "disk full"}
    losses.add(Table.OUTCOME, "locked")
    losses.settle(reported)
    assert losses.summary() == {"outcome": 1, "cause": "locked"}


def test_policies_and_events_are_inserted_before_the_decisions_that_name_them() -> None:
    assert list(Table) == [Table.POLICY, Table.EVENT, Table.DECISION, Table.OUTCOME, Table.FINDING]


def taken_by(queue: WriterQueue) -> tuple[threading.Thread, list[int]]:
    """A reader in its own thread, and how many rows each of its batches has."""
    sizes: list[int] = []
    reader = threading.Thread(target=lambda: sizes.append(len(queue.take(None) or [])), daemon=True)
    reader.start()
    return reader, sizes


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> WriterQueue:
    """A queue whose last batch held two decisions, and that then gathers for as long as the test likes."""
    monkeypatch.setattr(pending, "GATHER_SECONDS", PATIENCE)
    monkeypatch.setattr(pending, "GATHER_MOST", PATIENCE)
    queue = WriterQueue(1000)
    queue.put(item(Table.DECISION))
    queue.put(item(Table.DECISION))
    assert len(queue.take(None) or []) == 2
    return queue


def test_a_lone_decision_never_waits_for_company(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "GATHER_SECONDS", PATIENCE)
    monkeypatch.setattr(pending, "GATHER_MOST", PATIENCE)
    queue = WriterQueue(10)
    for _ in range(2):
        queue.put(item(Table.DECISION))
        reader, sizes = taken_by(queue)
        reader.join(PATIENCE / 2)
        assert sizes == [1]


def test_after_a_crowd_decisions_gather_until_they_are_enough(crowded: WriterQueue) -> None:
    crowded.put(item(Table.DECISION))
    reader, sizes = taken_by(crowded)
    reader.join(0.05)
    assert sizes == []
    for _ in range(pending.GATHER_FULL - 1):
        crowded.put(item(Table.DECISION))
    reader.join(PATIENCE / 2)
    assert sizes == [pending.GATHER_FULL]


def test_a_queue_that_closes_gathers_no_more(crowded: WriterQueue) -> None:
    crowded.put(item(Table.DECISION))
    reader, sizes = taken_by(crowded)
    crowded.close()
    reader.join(PATIENCE / 2)
    assert sizes == [1]


def test_a_crowd_that_has_gone_leaves_nobody_waiting_long() -> None:
    queue = WriterQueue(10)
    queue.put(item(Table.DECISION))
    queue.put(item(Table.DECISION))
    queue.take(None)
    queue.put(item(Table.DECISION))
    assert len(queue.take(None) or []) == 1, "company never came, and the row goes all the same"


def test_a_finding_wakes_nobody_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "RIDE_SECONDS", PATIENCE)
    queue = WriterQueue(10)
    queue.put(item(Table.FINDING))
    reader, batches = taken_by(queue)
    queue.put(item(Table.DECISION))
    queue.close()
    reader.join(PATIENCE)
    assert batches == [2]


def test_an_outcome_alone_goes_after_its_ride(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "RIDE_SECONDS", 0.001)
    queue = WriterQueue(10)
    reader, sizes = taken_by(queue)
    queue.put(item(Table.OUTCOME))
    reader.join(PATIENCE)
    assert sizes == [1]


def test_an_outcome_rides_with_the_next_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "RIDE_SECONDS", PATIENCE)
    queue = WriterQueue(10)
    queue.put(item(Table.OUTCOME))
    reader, sizes = taken_by(queue)
    queue.put(item(Table.DECISION))
    reader.join(PATIENCE / 2)
    assert sizes == [2]
