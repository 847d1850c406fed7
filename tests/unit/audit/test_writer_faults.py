"""What the writer does when the disk, the file, a row or its own code fails."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callerid.audit import writer as writer_module
from callerid.audit.store import Store
from callerid.audit.writer import AuditWriter
from callerid.errors import StoreError

from .samples import PATIENCE, T0, Gate, Waiting, decision, event_id, outcome, refusal, rows, writing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.db"


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.01)


def connection_of(writer: AuditWriter) -> sqlite3.Connection:
    assert writer._store is not None
    assert writer._store._connection is not None
    return writer._store._connection


def fill_the_disk(writer: AuditWriter) -> None:
    """``max_page_count`` gives the error of a full disk, SQLITE_FULL, without one."""
    pages = connection_of(writer).execute("PRAGMA page_count").fetchone()[0]
    connection_of(writer).execute(f"PRAGMA max_page_count = {pages}")


def free_the_disk(writer: AuditWriter) -> None:
    connection_of(writer).execute("PRAGMA max_page_count = 1000000")


BULK = {"arguments": {f"k{n}": "v" * 4000 for n in range(12)}}
"""Rows that need pages of their own."""


@pytest.mark.parametrize(
    "poison",
    [
        pytest.param({"event_id": event_id(1)}, id="an id that exists already"),
        pytest.param({"request_bytes": "many"}, id="a text where a number belongs"),
        pytest.param({"verdict": "perhaps"}, id="a verdict that does not exist"),
        pytest.param({"server": None}, id="a missing server"),
    ],
)
def test_one_poisoned_record_does_not_fail_its_neighbours(
    path: Path, waiting: Waiting, poison: dict[str, Any]
) -> None:
    gate = Gate()

    def notify(results: list[Any]) -> None:
        waiting.notify(results)
        if not gate.reached.is_set():
            gate.hold()

    writer = AuditWriter(path, notify=notify)
    writer.start()
    writer.decide(decision(1), waiting.done(1))
    assert gate.reached.wait(PATIENCE)
    writer.decide(decision(2), waiting.done(2))
    writer.decide(decision(3, **poison), waiting.done(3))
    writer.decide(decision(4), waiting.done(4))
    gate.opened.set()
    answers = waiting.wait(4)
    assert waiting.batches == [1, 3]
    assert writer.healthy
    writer.close(PATIENCE)
    assert [number for number, error in answers.items() if error is not None] == [3]
    assert isinstance(answers[3], StoreError)
    assert answers[3].hint
    stored = rows(path, "SELECT event_id FROM decision ORDER BY seq")
    assert [row["event_id"] for row in stored] == [event_id(1), event_id(2), event_id(4)]


def test_lone_surrogates_are_stored_and_poison_nothing(path: Path, waiting: Waiting) -> None:
    with writing(path, waiting) as writer:
        writer.decide(decision(1, tool="\udcff", arguments={"\ud800": "\udfff"}), waiting.done(1))
        assert waiting.wait(1) == {1: None}


def test_a_full_disk_fails_the_call_and_passes(path: Path, waiting: Waiting) -> None:
    with writing(path, waiting) as writer:
        writer.decide(decision(1), waiting.done(1))
        waiting.wait(1)
        fill_the_disk(writer)
        writer.decide(decision(2, **BULK), waiting.done(2))
        error = waiting.wait(2)[2]
        assert isinstance(error, StoreError)
        assert "SQLITE_FULL" in error.message
        assert "space" in error.hint
        assert not writer.healthy
        free_the_disk(writer)
        writer.decide(decision(3), waiting.done(3))
        assert waiting.wait(3)[3] is None
        assert writer.healthy
    stored = rows(path, "SELECT event_id FROM decision ORDER BY seq")
    assert [row["event_id"] for row in stored] == [event_id(1), event_id(3)]
    (event,) = rows(path, "SELECT detail FROM event WHERE kind = 'unrecorded'")
    assert json.loads(event["detail"])["decision"] == 1


def test_a_refusal_that_did_not_fit_is_written_later_but_no_allow(path: Path, waiting: Waiting) -> None:
    """Law 2 wants the refusal's row. The allow's call was refused meanwhile: its row would lie."""
    with writing(path, waiting) as writer:
        fill_the_disk(writer)
        writer.decide(refusal(1, **BULK), waiting.done(1))
        writer.decide(decision(2, **BULK), waiting.done(2))
        writer.outcome(outcome(7))
        writer.policy("p9", T0, {"policy.yaml": "x" * 20_000})
        assert all(isinstance(error, StoreError) for error in waiting.wait(2).values())
        free_the_disk(writer)
    assert rows(path, "SELECT event_id, verdict FROM decision") == [
        {"event_id": event_id(1), "verdict": "deny"}
    ]
    assert rows(path, "SELECT hash FROM policy_version") == [{"hash": "p9"}]
    assert rows(path, "SELECT event_id FROM outcome") == [{"event_id": event_id(7)}]
    assert [number for number, _ in waiting.told].count(1) == 1, "done is called once"


def test_a_locked_database_gives_a_bounded_error_and_goes_on(path: Path, waiting: Waiting) -> None:
    with writing(path, waiting) as writer:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        writer.decide(decision(1), waiting.done(1))
        error = waiting.wait(1)[1]
        assert isinstance(error, StoreError)
        assert "SQLITE_BUSY" in error.message
        other.execute("ROLLBACK")
        other.close()
        writer.decide(decision(2), waiting.done(2))
        assert waiting.wait(2)[2] is None


def test_a_connection_that_broke_is_opened_again(path: Path, waiting: Waiting) -> None:
    with writing(path, waiting) as writer:
        writer.decide(decision(1), waiting.done(1))
        waiting.wait(1)
        connection_of(writer).close()
        writer.decide(decision(2), waiting.done(2))
        assert isinstance(waiting.wait(2)[2], StoreError)
        writer.decide(decision(3), waiting.done(3))
        assert waiting.wait(3)[3] is None


@pytest.mark.parametrize("replaced", [False, True], ids=["moved away", "replaced by a copy"])
def test_rows_never_go_to_a_file_that_nobody_will_find(path: Path, waiting: Waiting, replaced: bool) -> None:
    with writing(path, waiting) as writer:
        writer.decide(decision(1), waiting.done(1))
        waiting.wait(1)
        moved = path.rename(path.with_name("moved.db"))
        if replaced:
            path.write_bytes(moved.read_bytes())
        writer.decide(decision(2), waiting.done(2))
        error = waiting.wait(2)[2]
        assert isinstance(error, StoreError)
        assert "moved, deleted or replaced" in error.message
        path.unlink(missing_ok=True)
        moved.rename(path)
        writer.decide(decision(3), waiting.done(3))
        assert waiting.wait(3)[3] is None


def test_the_thread_survives_a_notify_that_raises(path: Path, waiting: Waiting) -> None:
    calls: list[int] = []

    def notify(results: list[Any]) -> None:
        calls.append(len(results))
        if len(calls) == 1:
            raise SystemExit("the event loop is gone")
        waiting.notify(results)

    writer = AuditWriter(path, notify=notify)
    writer.start()
    writer.decide(decision(1), waiting.done(1))
    writer.decide(decision(2), waiting.done(2))
    writer.close(PATIENCE)
    assert len(rows(path, "SELECT seq FROM decision")) == 2


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """Exceptions that the next commits meet, one each."""
    faults: list[BaseException] = []
    real = Store.commit

    def commit(self: Store, batch: Any) -> Any:
        if faults:
            raise faults.pop(0)
        return real(self, batch)

    monkeypatch.setattr(Store, "commit", commit)
    return faults


@pytest.mark.parametrize("fault", [MemoryError(), KeyboardInterrupt(), RuntimeError("canary")], ids=repr)
def test_the_thread_survives_any_fault_and_tells_who_waits(
    path: Path, waiting: Waiting, faulty: list[BaseException], fault: BaseException
) -> None:
    with writing(path, waiting) as writer:
        faulty.append(fault)
        writer.decide(decision(1), waiting.done(1))
        error = waiting.wait(1)[1]
        assert isinstance(error, StoreError)
        assert "canary" not in str(error)
        writer.decide(decision(2), waiting.done(2))
        assert waiting.wait(2)[2] is None
