"""The registry: what is entered is found, what is revoked is found out, by every process, at once."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from callerid.errors import ConfigError, StoreError
from callerid.identity.registry import Registry
from callerid.identity.tokens import digest
from tests.unit.identity.made import ALICE, BOB, DAY_US, NOW_US, enter, token


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


@pytest.fixture
def registry(path: Path) -> Iterator[Registry]:
    made = Registry.open(path)
    yield made
    made.close()


@pytest.fixture
def other(path: Path, registry: Registry) -> Iterator[Registry]:
    """The same registry, opened by somebody else."""
    made = Registry.open(path)
    yield made
    made.close()


def test_a_token_is_found_by_its_digest_with_all_it_is(registry: Registry) -> None:
    row = enter(registry, 1, agent="claude-code", servers=("github",), tools=())
    assert registry.find(digest(token(1))) == row == registry.get(row.id)
    assert (row.principal, row.agent, row.servers, row.tools) == (ALICE, "claude-code", ("github",), ())
    assert registry.find(digest(token(2))) is None
    assert registry.get("t_nothing") is None


def test_the_token_itself_is_nowhere_in_the_files(registry: Registry, path: Path) -> None:
    enter(registry, 1)
    for file in path.parent.iterdir():
        assert token(1).encode() not in file.read_bytes()


def test_a_revocation_by_another_process_counts_on_the_next_find(registry: Registry, other: Registry) -> None:
    row = enter(registry, 1)
    found = registry.find(digest(token(1)))
    assert found is not None
    assert found.revoked_us is None
    assert other.revoke(row.id, now_us=NOW_US, by="ops", why="lost laptop") == 1
    found = registry.find(digest(token(1)))
    assert found is not None
    assert (found.revoked_us, found.revoked_by, found.revoked_why) == (NOW_US, "ops", "lost laptop")


def test_our_own_revocation_counts_on_the_next_find(registry: Registry) -> None:
    row = enter(registry, 1)
    registry.find(digest(token(1)))
    registry.get(row.id)
    registry.revoke(row.id, now_us=NOW_US, by="ops")
    for found in (registry.find(digest(token(1))), registry.get(row.id)):
        assert found is not None
        assert found.revoked_us == NOW_US


def test_revoking_a_parent_revokes_the_tree_and_nothing_else(registry: Registry) -> None:
    root = enter(registry, 1)
    child = enter(registry, 2, parent=root.id)
    grandchild = enter(registry, 3, parent=child.id)
    sibling = enter(registry, 4)
    assert [row.id for row in registry.lineage(grandchild)] == [grandchild.id, child.id, root.id]
    assert registry.revoke(root.id, now_us=NOW_US, by="ops") == 3
    assert registry.revoke(root.id, now_us=NOW_US + 5, by="ops") == 0
    dead = {row.id for row in registry.tokens() if row.revoked_us == NOW_US}
    assert dead == {root.id, child.id, grandchild.id}
    assert sibling.id not in dead


def test_revoking_a_principal_takes_all_its_tokens(registry: Registry) -> None:
    enter(registry, 1)
    enter(registry, 2)
    enter(registry, 3, principal=BOB)
    assert registry.revoke_principal(ALICE, now_us=NOW_US, by="ops") == 2
    assert [row.revoked_us for row in registry.tokens(principal=BOB)] == [None]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"expires_us": NOW_US - DAY_US}, id="it expires as it begins"),
        pytest.param({"parent": "t_000000000000"}, id="no such parent"),
        pytest.param({"principal": BOB, "parent": "PARENT"}, id="for somebody else than its parent's"),
        pytest.param({"expires_us": NOW_US + 2 * DAY_US, "parent": "PARENT"}, id="outlives its parent"),
        pytest.param(
            {"created_us": NOW_US + DAY_US, "expires_us": NOW_US + DAY_US + 1, "parent": "PARENT"},
            id="its parent is dead",
        ),
    ],
)
def test_a_child_is_never_more_than_its_parent(registry: Registry, changes: dict[str, object]) -> None:
    parent = enter(registry, 1)
    if changes.get("parent") == "PARENT":
        changes = {**changes, "parent": parent.id}
    with pytest.raises(ConfigError) as caught:
        enter(registry, 2, **changes)
    assert caught.value.hint


def test_the_same_token_is_not_entered_twice(registry: Registry) -> None:
    enter(registry, 1)
    with pytest.raises(StoreError):
        enter(registry, 1)


def test_a_block_by_another_process_counts_on_the_next_question(registry: Registry, other: Registry) -> None:
    assert registry.first_blocked((ALICE,)) is None
    assert other.block(ALICE, now_us=NOW_US, by="ops", why="left the company")
    assert not other.block(ALICE, now_us=NOW_US, by="ops")
    assert registry.first_blocked((ALICE,)) == ALICE
    assert registry.first_blocked((BOB, ALICE)) == ALICE
    assert [row.why for row in registry.blocked()] == ["left the company"]
    assert other.unblock(ALICE)
    assert not other.unblock(ALICE)
    assert registry.first_blocked((ALICE,)) is None


def test_the_generation_changes_with_what_can_end_a_stream_and_with_nothing_else(
    registry: Registry, other: Registry
) -> None:
    row = enter(registry, 1)
    seen = [registry.generation()]
    other.touch(row.id, NOW_US, "192.0.2.1")
    assert other.flush_touches()
    assert registry.generation() == seen[0]
    for change in (
        lambda: other.block(ALICE, now_us=NOW_US, by="ops"),
        lambda: other.unblock(ALICE),
        lambda: registry.block(BOB, now_us=NOW_US, by="ops"),
        lambda: other.revoke(row.id, now_us=NOW_US, by="ops"),
    ):
        change()
        seen.append(registry.generation())
        assert other.generation() == seen[-1]
    assert len(set(seen)) == len(seen)


def test_a_change_made_with_another_tool_counts_too(registry: Registry, path: Path) -> None:
    row = enter(registry, 1)
    registry.find(digest(token(1)))
    before = registry.generation()
    tool = sqlite3.connect(path)
    tool.execute("UPDATE tokens SET revoked_us = 1 WHERE id = ?", (row.id,))
    tool.commit()
    tool.close()
    found = registry.find(digest(token(1)))
    assert found is not None
    assert found.revoked_us == 1
    assert registry.generation() != before


@pytest.mark.parametrize(
    ("expires_in", "revoked", "counts"),
    [(3600, False, True), (3600, True, False), (-3600, False, False)],
    ids=["good", "revoked", "expired"],
)
def test_only_a_row_that_was_good_is_missed(
    registry: Registry, path: Path, expires_in: int, revoked: bool, counts: bool
) -> None:
    """By the clock of the machine, for the file has no other."""
    now_us = time.time_ns() // 1000
    row = enter(registry, 1)
    tool = sqlite3.connect(path)
    tool.execute(
        "UPDATE tokens SET expires_us = ?, revoked_us = ?",
        (now_us + expires_in * 10**6, 1 if revoked else None),
    )
    tool.commit()
    before = registry.generation()
    tool.execute("DELETE FROM tokens WHERE id = ?", (row.id,))
    tool.commit()
    tool.close()
    assert registry.find(digest(token(1))) is None
    assert (registry.generation() != before) is counts


def test_uses_are_noted_later_and_never_hold_anybody_up(
    registry: Registry, other: Registry, path: Path
) -> None:
    row = enter(registry, 1)
    registry.touch(row.id, NOW_US, "192.0.2.1")
    registry.touch("t_unknown", NOW_US, None)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    assert not registry.flush_touches()
    writer.execute("ROLLBACK")
    writer.close()
    assert registry.flush_touches()
    assert registry.flush_touches()
    found = other.get(row.id)
    assert found is not None
    assert (found.last_used_us, found.last_ip) == (NOW_US, "192.0.2.1")


def test_noting_uses_never_raises_even_without_a_registry(registry: Registry, path: Path) -> None:
    row = enter(registry, 1)
    registry._connection.close()
    registry.touch(row.id, NOW_US, None)
    assert not registry.flush_touches()


def test_a_closed_or_locked_store_is_an_error_and_not_an_answer(registry: Registry) -> None:
    enter(registry, 1)
    registry.find(digest(token(1)))
    registry._connection.close()
    with pytest.raises(StoreError):
        registry.find(digest(token(1)))
    with pytest.raises(StoreError):
        registry.first_blocked((ALICE,))
    with pytest.raises(StoreError):
        registry.generation()


def test_a_registry_that_vanishes_is_an_error_although_it_is_still_open(
    registry: Registry, path: Path
) -> None:
    enter(registry, 1)
    registry.find(digest(token(1)))
    path.unlink()
    with pytest.raises(StoreError, match="gone"):
        registry.find(digest(token(1)))


def test_a_registry_that_is_replaced_is_read_anew(registry: Registry, path: Path, tmp_path: Path) -> None:
    row = enter(registry, 1)
    registry.find(digest(token(1)))
    before = registry.generation()
    made = Registry.open(tmp_path / "new.db")
    enter(made, 1)
    made.revoke(row.id, now_us=NOW_US, by="ops")
    made.close()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()
    os.replace(tmp_path / "new.db", path)
    found = registry.find(digest(token(1)))
    assert found is not None
    assert found.revoked_us == NOW_US
    assert registry.generation() != before


def test_a_registry_that_is_replaced_by_an_empty_file_is_an_error(registry: Registry, path: Path) -> None:
    enter(registry, 1)
    path.unlink()
    path.touch()
    with pytest.raises(StoreError, match="empty"):
        registry.first_blocked((ALICE,))


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("UPDATE tokens SET servers = '{\"a\":1}'", id="an object"),
        pytest.param("UPDATE tokens SET tools = '[1]'", id="a list of numbers"),
        pytest.param("UPDATE tokens SET tools = 'x'", id="no JSON"),
        pytest.param("UPDATE tokens SET parent = 't_missing'", id="a parent that is not there"),
        pytest.param("UPDATE tokens SET parent = id", id="a ring of parents"),
    ],
)
def test_a_scope_that_cannot_be_read_is_an_error_and_not_no_scope(
    registry: Registry, path: Path, statement: str
) -> None:
    enter(registry, 1)
    tool = sqlite3.connect(path)
    tool.execute(statement)
    tool.commit()
    tool.close()
    with pytest.raises(StoreError):
        _ask(registry)


def _ask(registry: Registry) -> None:
    row = registry.find(digest(token(1)))
    assert row is not None
    registry.lineage(row)


@pytest.mark.parametrize(
    "setup",
    [
        pytest.param("PRAGMA application_id = 7", id="of another kind"),
        pytest.param("CREATE TABLE notes (a)", id="of no kind, with tables"),
        pytest.param("PRAGMA user_version = 1", id="of no kind, with a version"),
    ],
)
def test_a_database_of_another_kind_is_left_alone(path: Path, setup: str) -> None:
    tool = sqlite3.connect(path)
    tool.execute(setup)
    tool.commit()
    tool.close()
    with pytest.raises(StoreError, match="another kind or a newer version") as caught:
        Registry.open(path)
    assert caught.value.hint


def test_a_newer_registry_is_left_alone(registry: Registry, path: Path) -> None:
    tool = sqlite3.connect(path)
    tool.execute("PRAGMA user_version = 99")
    tool.close()
    with pytest.raises(StoreError, match="newer version"):
        Registry.open(path)


def test_a_file_that_is_no_database_is_an_error(path: Path) -> None:
    path.write_bytes(b"not a database, " * 100)
    with pytest.raises(StoreError):
        Registry.open(path)


def test_the_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    before = os.umask(0)
    try:
        made = Registry.open(path)
        enter(made, 1)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
        made.close()
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["registry.db", "registry.db-wal", "registry.db-shm"], 0o600)


def test_the_question_on_every_call_uses_an_index(registry: Registry) -> None:
    plans = [
        registry._connection.execute(f"EXPLAIN QUERY PLAN SELECT * FROM {where}").fetchall()[0][3]
        for where in (
            "tokens WHERE sha256 = 'x'",
            "tokens WHERE id = 'x'",
            "blocked WHERE subject = 'x'",
        )
    ]
    assert all(plan.startswith("SEARCH") for plan in plans), plans


def test_what_is_remembered_is_bounded(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callerid.identity.lookup._CACHE", 8)
    monkeypatch.setattr("callerid.identity.lookup._TOUCHES", 8)
    for number in range(50):
        registry.first_blocked((f"user:{number}",))
        registry.touch(f"t_{number}", NOW_US, None)
    assert len(registry._blocked) <= 8
    assert len(registry._touches) <= 8
