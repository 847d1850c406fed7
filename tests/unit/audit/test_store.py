from __future__ import annotations

from pathlib import Path

import pytest

from callerid.audit.pending import Item, Table
from callerid.audit.records import decision_row
from callerid.audit.store import Store
from callerid.errors import StoreError

from .samples import decision, plant, rows


def item(number: int) -> Item:
    row = decision_row(decision(number), str)
    return Item(table=Table.DECISION, row=row, time_us=0, keep=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "audit.db")


def test_a_good_batch_has_no_errors(store: Store) -> None:
    assert store.commit([item(1), item(2)]) == [None, None]
    store.close()
    assert len(rows(store.path, "SELECT seq FROM decision")) == 2


def test_a_bad_row_alone_is_refused_and_named(store: Store) -> None:
    store.commit([item(1)])
    (error,) = store.commit([item(1)])
    assert isinstance(error, StoreError)
    assert "SQLITE_CONSTRAINT_UNIQUE" in error.message
    assert store.commit([item(2)]) == [None]
    store.close()
    seqs = [row["seq"] for row in rows(store.path, "SELECT seq FROM decision")]
    assert seqs == [1, 2], "a refused row leaves no gap"


def test_the_wal_is_folded_in_at_the_end(store: Store) -> None:
    store.commit([item(1)])
    store.close()
    store.close()
    assert [file.name for file in store.path.parent.iterdir()] == ["audit.db"]


def test_the_store_knows_where_the_run_before_ended(tmp_path: Path) -> None:
    plant(tmp_path / "audit.db", decision(1), decision(2))
    store = Store(tmp_path / "audit.db")
    assert store.start_seq == 2
    assert store.unknown == {"calls": 2, "first_seq": 1, "last_seq": 2}
    store.close()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 33])
def test_a_batch_of_any_size_is_stored_whole_and_in_order(
    store: Store, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Store, "_row_by_row")  # the good case needs no second try
    batch = [item(number) for number in range(count)]
    assert store.commit(batch) == [None] * count
    store.close()
    stored = rows(store.path, "SELECT event_id FROM decision ORDER BY seq")
    assert [row["event_id"] for row in stored] == [entry.row[0] for entry in batch]


def test_a_bad_row_in_a_large_batch_takes_nobody_along(store: Store) -> None:
    store.commit([item(5)])
    errors = store.commit([item(number) for number in range(20)])
    assert [number for number, error in enumerate(errors) if error is not None] == [5]
    store.close()
    assert len(rows(store.path, "SELECT seq FROM decision")) == 20


def test_a_fault_of_ours_in_the_transaction_leaves_no_transaction_open(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, *_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("callerid.audit.store._Transaction.__exit__", broken)
        with pytest.raises(RuntimeError):
            store.commit([item(1)])
    assert store.commit([item(2)]) == [None]
    store.close()
