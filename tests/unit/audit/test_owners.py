from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from callerid.audit.owners import Owned, Owners

from .samples import T0, Waiting, decision, event_id, outcome, plant, refusal, rows, writing
from .test_schema import make_damaged, make_old

BOB = "user:bob@corp.example"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.db"


@pytest.fixture
def owners(path: Path) -> Iterator[Owners]:
    made = Owners(path)
    yield made
    made.close()


def test_the_caller_who_was_given_the_handle_owns_it(path: Path, owners: Owners) -> None:
    plant(
        path,
        decision(1, method="initialize", tool=None),
        outcome(1, handle="session-a"),
        decision(2, principal=BOB, issuer="corp-idp"),
        outcome(2, handle="task-b"),
    )
    assert owners.find("files", "session-a") == Owned(
        principal="user:alice@corp.example",
        issuer="local",
        method="initialize",
        tool=None,
        event_id=event_id(1),
        time_us=T0 + 1000,
    )
    found = owners.find("files", "task-b")
    assert found is not None
    assert (found.principal, found.issuer, found.tool) == (BOB, "corp-idp", "read_file")


def test_the_last_to_whom_it_was_given_owns_it(path: Path, owners: Owners) -> None:
    plant(
        path,
        decision(1),
        outcome(1, handle="h"),
        decision(2, principal=BOB),
        outcome(2, handle="h"),
    )
    found = owners.find("files", "h")
    assert found is not None
    assert found.event_id == event_id(2)


@pytest.mark.parametrize(
    ("server", "handle"),
    [
        pytest.param("files", "other", id="a handle that nobody was given"),
        pytest.param("warehouse", "h", id="the same handle at another server"),
        pytest.param("files", "", id="no handle"),
        pytest.param("files", "h'--", id="SQL"),
        pytest.param("files", "\ud800", id="text that no database holds"),
        pytest.param("files", "h" * 100_000, id="a long one"),
    ],
)
def test_all_else_belongs_to_nobody(path: Path, owners: Owners, server: str, handle: str) -> None:
    plant(path, decision(1), outcome(1, handle="h"), decision(2), outcome(2))
    assert owners.find(server, handle) is None


def test_a_refused_call_owns_nothing(path: Path, owners: Owners) -> None:
    plant(path, refusal(1, server="files"), outcome(1, handle="h"))
    assert owners.find("files", "h") is None


def test_it_sees_what_the_writer_commits_while_it_writes(path: Path, owners: Owners) -> None:
    waiting = Waiting()
    with writing(path, waiting) as writer:
        for number in range(1, 40):
            writer.outcome(outcome(number, handle=f"h{number}"))
            writer.decide(decision(number), waiting.done(number))
            waiting.wait(number)
            found = owners.find("files", f"h{number}")
            assert found is not None
            assert found.event_id == event_id(number)
            assert owners.find("files", f"h{number + 1}") is None
    assert owners.find("files", "h1") is not None


def test_a_file_that_is_made_later_is_found_later(path: Path, owners: Owners) -> None:
    assert owners.find("files", "h") is None
    assert not path.exists(), "a question makes no file"
    plant(path, decision(1), outcome(1, handle="h"))
    assert owners.find("files", "h") is not None


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(make_old, id="an audit of the first schema, not migrated yet"),
        pytest.param(Path.mkdir, id="a directory"),
        pytest.param(Path.touch, id="an empty file"),
        pytest.param(lambda path: path.write_bytes(b"x" * 9000), id="something else"),
        pytest.param(make_damaged, id="a damaged one"),
    ],
)
def test_what_cannot_be_asked_knows_nothing_and_raises_nothing(
    path: Path, owners: Owners, prepare: object
) -> None:
    prepare(path)  # type: ignore[operator]
    assert owners.find("files", "h") is None
    assert owners.find("files", "h") is None


def test_an_old_audit_is_asked_again_once_it_is_migrated(path: Path, owners: Owners) -> None:
    make_old(path)
    assert owners.find("files", "h") is None
    plant(path, decision(7), outcome(7, handle="h"))
    assert owners.find("files", "h") is not None


def test_a_locked_file_is_not_waited_for(path: Path, owners: Owners) -> None:
    plant(path, decision(1), outcome(1, handle="h"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    other.execute("BEGIN EXCLUSIVE")
    assert owners.find("files", "h") is None
    other.execute("ROLLBACK")
    other.close()
    assert owners.find("files", "h") is not None


def test_it_may_be_asked_from_any_thread(path: Path, owners: Owners) -> None:
    plant(path, decision(1), outcome(1, handle="h"))
    found: list[Owned | None] = []
    owners.find("files", "h")
    threads = [threading.Thread(target=lambda: found.append(owners.find("files", "h"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [owned is not None for owned in found] == [True] * 4
    owners.close()
    assert owners.find("files", "h") is not None, "closed, it opens again"


def test_many_questions_do_not_use_up_what_one_may_take(path: Path, owners: Owners) -> None:
    plant(path, decision(1), outcome(1, handle="h"))
    assert all(owners.find("files", "h") is not None for _ in range(20_000))


def test_a_handle_that_thousands_of_other_rows_have_is_given_up(path: Path, owners: Owners) -> None:
    plant(path)
    connection = sqlite3.connect(path)
    connection.execute(
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) "
        "INSERT INTO outcome(event_id, time_us, outcome, handle) SELECT 'e' || i, i, 'ok', 'h' FROM n"
    )
    connection.commit()
    connection.close()
    assert owners.find("files", "h") is None
    plant(path, decision(1), outcome(1, handle="mine"))
    assert owners.find("files", "mine") is not None


def test_the_question_goes_by_the_index_of_handles(path: Path) -> None:
    plant(path)
    plan = " ".join(
        row["detail"]
        for row in rows(
            path,
            "EXPLAIN QUERY PLAN SELECT 1 FROM outcome o JOIN decision d ON d.event_id = o.event_id "
            "WHERE o.handle = ? AND d.server = ? AND d.verdict = 'allow' ORDER BY o.rid LIMIT 1",
            "h",
            "s",
        )
    )
    assert "outcome_handle" in plan
    assert "SCAN" not in plan
    assert "TEMP B-TREE" not in plan
