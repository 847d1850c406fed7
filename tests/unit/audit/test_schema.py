from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlite_utils

from callerid.audit import schema
from callerid.audit.columns import CALLS_NAMES
from callerid.audit.schema import APPLICATION_ID, VERSION, open_database
from callerid.errors import StoreError

from .samples import decision, event_id, finding, outcome, plant, refusal, rows, writing

DESIGN_ORDER = (
    "time_utc",
    "principal",
    "agent",
    "actors",
    "evidence",
    "assurance",
    "credential_id",
    "client_ip",
    "server",
    "upstream",
    "method",
    "tool",
    "target",
    "arguments",
    "verdict",
    "reason",
    "rule",
    "would_rule",
    "policy",
    "injected",
    "outcome",
    "http_status",
    "rpc_code",
    "duration_ms",
    "request_bytes",
    "response_bytes",
    "protocol",
    "session",
    "rpc_id",
    "trace_id",
    "event_id",
)
OURS = (
    *("issuer", "claimed_subject", "client_name", "user_agent", "detail", "batch_index", "time_us", "seq"),
    *("kind", "direction", "caused_by", "path", "handle", "via"),
)
OLD = Path(__file__).with_name("audit-0001.sql")
SECOND = Path(__file__).with_name("audit-0002.sql")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.db"


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def make_old(path: Path) -> None:
    """A file as the first schema made it, with four rows in it."""
    with sqlite3.connect(path) as connection:
        connection.executescript(OLD.read_text())
    connection.close()


def make_second(path: Path) -> None:
    """A file as the second schema made it, with four rows in it."""
    with sqlite3.connect(path) as connection:
        connection.executescript(SECOND.read_text())
    connection.close()


def make_foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE guests(name)")
    connection.close()


def make_newer(path: Path) -> None:
    plant(path)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()


def make_damaged(path: Path) -> None:
    plant(path, decision())
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 8000)


def test_a_new_audit_has_our_magic_and_version_and_survives_a_power_cut(path: Path) -> None:
    connection = open_database(path)
    pragma = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version", "journal_mode", "synchronous")
    }
    connection.close()
    assert pragma == {
        "application_id": APPLICATION_ID,
        "user_version": VERSION,
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
    }
    assert [file.name for file in path.parent.iterdir()] == ["audit.db"]


def test_opening_again_changes_nothing(path: Path) -> None:
    plant(path, decision())
    before = path.read_bytes()
    open_database(path).close()
    assert path.read_bytes() == before


def test_an_empty_file_becomes_an_audit(path: Path) -> None:
    path.touch()
    open_database(path).close()
    assert rows(path, "SELECT count(*) AS n FROM calls") == [{"n": 0}]


@pytest.mark.usefixtures("open_umask")
def test_all_files_are_private_under_an_open_umask(path: Path) -> None:
    with writing(path) as writer:
        writer.event("started", 1, {})
        names = ["audit.db", "audit.db-wal", "audit.db-shm", "audit.lock"]
        modes = {name: stat.S_IMODE(path.with_name(name).stat().st_mode) for name in names}
    assert modes == dict.fromkeys(names, 0o600)


@pytest.mark.usefixtures("open_umask")
def test_a_looser_mode_is_tightened(path: Path) -> None:
    plant(path)
    path.chmod(0o644)
    open_database(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(make_foreign, "something else", id="a database of something else"),
        pytest.param(make_newer, "newer callerid", id="an audit of a newer callerid"),
        pytest.param(make_damaged, "SQLITE_", id="an audit that is damaged"),
        pytest.param(lambda path: path.write_bytes(b"once upon a time" * 20), "not an SQLite", id="a text"),
        pytest.param(lambda path: path.write_bytes(b"SQLite format 3\0"), "not an SQLite", id="a stump"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_and_not_touched(path: Path, make: object, says: str) -> None:
    make(path)  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(StoreError, match=says) as caught:
        open_database(path)
    assert caught.value.hint
    assert path.read_bytes() == before


def test_a_newer_version_that_only_the_wal_knows_is_refused(path: Path) -> None:
    plant(path)
    other = sqlite3.connect(path)
    other.execute("PRAGMA wal_autocheckpoint = 0")
    other.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(StoreError, match="newer callerid"):
        open_database(path)
    other.close()


def test_a_directory_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match="is a directory"):
        open_database(path)


def test_a_missing_folder_is_refused(path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        open_database(path.parent / "nowhere" / "audit.db")
    assert caught.value.hint


def test_a_wal_without_its_database_is_not_replayed_into_a_new_one(path: Path) -> None:
    path.with_name("audit.db-wal").write_bytes(b"rows of the old audit")
    with pytest.raises(StoreError, match="is gone but"):
        open_database(path)
    assert not path.exists()


@pytest.fixture
def powerless(tmp_path: Path) -> Iterator[None]:
    """Modes mean nothing to root, so root steps down for the length of the test."""
    if os.geteuid() != 0:
        yield
        return
    folders = (tmp_path, *tmp_path.parents[:2])
    modes = [stat.S_IMODE(folder.stat().st_mode) for folder in folders]
    for folder in folders:
        folder.chmod(0o711)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for folder, mode in zip(folders, modes, strict=True):
            folder.chmod(mode)


@pytest.mark.parametrize("mode", [0o400, 0o000])
def test_a_file_that_cannot_be_written_is_refused(
    path: Path, mode: int, request: pytest.FixtureRequest
) -> None:
    plant(path)
    before = path.read_bytes()
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    request.getfixturevalue("powerless")
    with pytest.raises(StoreError) as caught:
        open_database(path)
    assert caught.value.hint
    if os.geteuid() == 65534:
        os.seteuid(0)
    path.chmod(0o600)
    assert path.read_bytes() == before


@pytest.mark.parametrize("table", ["decision", "outcome", "policy_version", "event", "finding"])
@pytest.mark.parametrize("sql", ["UPDATE {} SET {} = 'x'", "DELETE FROM {}"])
def test_rows_are_append_only(path: Path, table: str, sql: str) -> None:
    plant(path, decision(), outcome(), finding())
    columns = {"decision": "reason", "outcome": "outcome", "policy_version": "hash"}
    column = columns.get(table, "kind")
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(sql.format(table, column))
    connection.close()


def test_the_calls_view_has_exactly_the_columns_of_the_design_then_ours(path: Path) -> None:
    plant(path)
    connection = sqlite3.connect(path)
    for view in ("calls", "refusals"):
        found = tuple(row[1] for row in connection.execute(f"PRAGMA table_info({view})"))
        assert found == DESIGN_ORDER + OURS == CALLS_NAMES
    connection.close()


def test_outcomes_read_as_what_is_known(path: Path) -> None:
    plant(path, decision(1), outcome(1), decision(2), refusal(3))
    found = rows(path, "SELECT outcome, http_status, duration_ms FROM calls ORDER BY seq")
    assert [row["outcome"] for row in found] == ["ok", "unknown", "not_sent"]
    assert found[0] == {"outcome": "ok", "http_status": 200, "duration_ms": 42.0}


def test_times_are_iso_8601_in_utc_with_milliseconds(path: Path) -> None:
    plant(path, decision(7))
    assert rows(path, "SELECT time_utc FROM calls") == [{"time_utc": "2026-09-21T14:13:20.007Z"}]


def test_refusals_are_the_calls_that_were_not_allowed(path: Path) -> None:
    plant(path, decision(1), refusal(2), refusal(3, verdict="error", reason="internal_error"))
    assert [row["verdict"] for row in rows(path, "SELECT verdict FROM refusals ORDER BY seq")] == [
        "deny",
        "error",
    ]


def test_servers_seen_and_credential_use(path: Path) -> None:
    plant(
        path,
        decision(1),
        decision(2, principal="user:bob@corp.example"),
        refusal(3, server="files", upstream="https://files.corp.example:443/mcp", principal=None),
    )
    (seen,) = rows(path, "SELECT * FROM servers_seen")
    assert tuple(seen.items())[:7] == (
        ("server", "files"),
        ("upstream", "https://files.corp.example:443/mcp"),
        ("first_seen", "2026-09-21T14:13:20.001Z"),
        ("last_seen", "2026-09-21T14:13:20.003Z"),
        ("callers", 2),
        ("calls", 3),
        ("refused", 1),
    )
    used = rows(path, "SELECT injected, server, principal, calls FROM credential_use ORDER BY principal")
    assert used == [
        {"injected": "files-shared@v1", "server": "files", "principal": f"user:{name}", "calls": 1}
        for name in ("alice@corp.example", "bob@corp.example")
    ]
    assert set(rows(path, "SELECT * FROM credential_use")[0]) == {
        "injected",
        "server",
        "principal",
        "calls",
        "first",
        "last",
    }


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        ("SELECT * FROM refusals WHERE reason = 'no_grant'", "decision_refused"),
        ("SELECT * FROM calls WHERE principal = 'x' AND time_us > 5", "decision_principal"),
        ("SELECT * FROM calls WHERE server = 'x' AND tool = 'y' AND time_us > 5", "decision_tool"),
        ("SELECT * FROM calls WHERE session = 'x'", "decision_session"),
        ("SELECT * FROM calls WHERE time_us > 5", "decision_time"),
        ("SELECT * FROM calls WHERE event_id = 'x'", "decision_event"),
    ],
)
def test_the_usual_questions_use_an_index_through_the_view(path: Path, sql: str, index: str) -> None:
    plant(path)
    plan = " ".join(row["detail"] for row in rows(path, f"EXPLAIN QUERY PLAN {sql}"))
    assert f"USING INDEX {index}" in plan
    assert "outcome_event" in plan
    assert "SCAN" not in plan


def test_sqlite_utils_reads_it_while_it_grows(path: Path) -> None:
    with writing(path) as writer:
        writer.policy("p1", 1, {})
        database = sqlite_utils.Database(path)
        views = {"calls", "refusals", "servers_seen", "credential_use", "findings", "raw_keys"}
        assert views <= set(database.view_names())
        assert {"decision", "outcome", "policy_version", "event", "finding"} <= set(database.table_names())
        database.close()


def test_the_plain_sqlite3_command_reads_it(path: Path) -> None:
    if (command := shutil.which("sqlite3")) is None:
        pytest.skip("no sqlite3 command on this machine")
    plant(path, decision(1), refusal(2))
    with writing(path):
        done = subprocess.run(
            [command, "-readonly", str(path), "SELECT principal, verdict, reason FROM calls ORDER BY seq"],
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.splitlines() == [
        "user:alice@corp.example|allow|granted",
        "user:ivy@corp.example|deny|no_grant",
    ]


# -- an audit of an older callerid ---------------------------------------------------------------


def test_an_audit_of_the_first_schema_is_brought_up_to_date_with_its_rows(path: Path) -> None:
    make_old(path)
    before = rows(path, "SELECT * FROM calls ORDER BY seq")
    open_database(path).close()
    after = rows(path, "SELECT * FROM calls ORDER BY seq")
    fresh = {
        "kind": None,
        "direction": "client",
        "caused_by": None,
        "path": None,
        "handle": None,
        "via": None,
    }
    assert after == [{**row, **fresh} for row in before]
    assert tuple(after[0]) == CALLS_NAMES
    assert rows(path, "PRAGMA user_version") == [{"user_version": VERSION}]


def test_an_audit_of_the_second_schema_is_brought_up_to_date_with_its_rows(path: Path) -> None:
    make_second(path)
    before = rows(path, "SELECT * FROM calls ORDER BY seq")
    open_database(path).close()
    after = rows(path, "SELECT * FROM calls ORDER BY seq")
    assert after == [{**row, "via": None} for row in before]
    assert [row["path"] for row in after] == ["/mcp", None, None]
    plant(path, decision(9, via="envoy-branch"), finding(9))
    assert rows(path, "SELECT via FROM calls WHERE seq = 4") == [{"via": "envoy-branch"}]
    assert rows(path, "SELECT kind, event_id FROM findings") == [{"kind": "raw_key", "event_id": event_id(9)}]
    assert rows(path, "PRAGMA user_version") == [{"user_version": VERSION}]


@pytest.mark.parametrize("make", [make_old, make_second], ids=["the first", "the second"])
def test_an_old_audit_and_a_new_one_have_one_schema(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    open_database(path).close()
    new = path.with_name("new.db")
    open_database(new).close()
    asked = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE '%sqlite_%' ORDER BY type, name"

    def squeezed(file: Path) -> list[tuple[str, ...]]:
        return [tuple("".join(str(cell).split()) for cell in row.values()) for row in rows(file, asked)]

    assert squeezed(path) == squeezed(new)


def test_an_old_audit_goes_on_being_written_and_append_only(path: Path) -> None:
    make_old(path)
    plant(path, decision(9, path="/mcp", kind="tool"), outcome(9, handle="h1"))
    found = rows(path, "SELECT seq, path, kind, direction, handle FROM calls WHERE seq > 3")
    assert found == [{"seq": 4, "path": "/mcp", "kind": "tool", "direction": "client", "handle": "h1"}]
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute("UPDATE decision SET path = 'x'")
    connection.close()


@pytest.mark.parametrize("make", [make_old, make_second], ids=["the first", "the second"])
def test_a_migration_that_fails_leaves_the_old_audit_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    make(path)
    before = rows(path, "SELECT type, name, sql FROM sqlite_master")
    monkeypatch.setattr(schema, "VIEWS", {"calls": "SELECT FROM nothing"})
    with pytest.raises(StoreError):
        open_database(path)
    assert rows(path, "SELECT type, name, sql FROM sqlite_master") == before
    monkeypatch.undo()
    open_database(path).close()
    assert rows(path, "SELECT count(*) AS n FROM calls") == [{"n": 3}]


def test_a_direction_is_one_of_two(path: Path) -> None:
    plant(path)
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(
            "INSERT INTO decision(event_id, time_us, verdict, reason, method, server, upstream, principal, "
            "actors, evidence, redactions, direction) "
            "VALUES ('x', 1, 'deny', '', '', '', '', '', '', '', 0, 'up')"
        )
    connection.close()
