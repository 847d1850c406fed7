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
