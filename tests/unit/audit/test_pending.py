from __future__ import annotations

from callerid.audit.pending import Item, Losses, Table, WriterQueue


def item(table: Table, number: int = 0) -> Item:
    return Item(table=table, row=(number,), time_us=number, keep=False)


def test_everything_queued_is_taken_at_once_and_in_order() -> None:
    queue = WriterQueue(10)
    for number in range(3):
        assert queue.put(item(Table.DECISION, number))
    assert [entry.row for entry in queue.take(None) or []] == [(0,), (1,), (2,)]
    assert queue.take(0) == []


def test_a_full_queue_takes_no_decision_and_no_outcome_but_system_records() -> None:
    queue = WriterQueue(1)
    assert queue.put(item(Table.DECISION))
    assert not queue.put(item(Table.DECISION))
    assert not queue.put(item(Table.OUTCOME))
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
    assert list(Table) == [Table.POLICY, Table.EVENT, Table.DECISION, Table.OUTCOME]
