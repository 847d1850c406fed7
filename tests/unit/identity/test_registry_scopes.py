"""The registry's second version: older files are brought to it, children are narrower, tokens are rotated."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from callerid.errors import ConfigError, StoreError
from callerid.identity.evidence import lineage_of
from callerid.identity.lookup import MAX_LINEAGE
from callerid.identity.narrowing import MAX_ACTORS, Scope, actors_below
from callerid.identity.registry import Registry
from callerid.identity.rows import APPLICATION_ID, SCHEMA, SCHEMA_VERSION, TokenRow
from callerid.identity.tokens import digest
from callerid.model import Reason, Rejected
from tests.unit.identity.made import ALICE, BOB, DAY_US, NOW, NOW_US, enter, token

HOUR_US = DAY_US // 24


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


@pytest.fixture
def registry(path: Path) -> Iterator[Registry]:
    made = Registry.open(path)
    yield made
    made.close()


def child(registry: Registry, seed: int, parent: str, **changes: Any) -> TokenRow:
    scope = {name: changes.pop(name) for name in ("agent", "servers", "tools", "networks") if name in changes}
    values: dict[str, Any] = {
        "token_digest": digest(token(seed)),
        "created_us": NOW_US,
        "expires_us": NOW_US + HOUR_US,
        "created_by": "test",
    }
    return registry.derive(parent, Scope(**scope), **{**values, **changes})


# -- versions --------------------------------------------------------------------------------------


def first_version(path: Path) -> None:
    """A registry as version 1 left it, with a token that is good and a block."""
    old = sqlite3.connect(path)
    old.execute("PRAGMA journal_mode = WAL")
    old.executescript(SCHEMA)
    old.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    old.execute("PRAGMA user_version = 1")
    old.execute(
        "INSERT INTO tokens (id, sha256, principal, created_us, created_by, expires_us, servers) VALUES"
        f" ('t_old', '{digest(token(1))}', '{ALICE}', {NOW_US}, 'ops', {NOW_US + DAY_US}, '[\"github\"]')"
    )
    old.execute(f"INSERT INTO blocked VALUES ('{BOB}', 1, NULL, 'ops')")
    old.commit()
    old.close()


def test_a_registry_of_version_1_is_brought_to_ours_and_keeps_what_is_in_it(path: Path) -> None:
    first_version(path)
    registry = Registry.open(path)
    row = registry.find(digest(token(1)))
    assert row is not None
    assert (row.id, row.servers, row.networks, row.actors) == ("t_old", ("github",), None, ())
    assert registry.first_blocked((BOB,)) == BOB
    assert registry._connection.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION == 2
    before = registry.generation()
    registry._connection.execute("UPDATE tokens SET networks = '[\"10.0.0.0/8\"]'")
    registry._forget()
    assert registry.generation() == before + 1
    registry.close()
    Registry.open(path).close()


def test_a_fresh_registry_has_the_same_columns_as_one_that_was_upgraded(path: Path, tmp_path: Path) -> None:
    first_version(path)
    shapes = []
    for place in (path, tmp_path / "fresh.db"):
        registry = Registry.open(place)
        shapes.append(
            registry._connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY 1").fetchall()
        )
        registry.close()
    assert shapes[0] == shapes[1]


def test_two_processes_that_upgrade_at_once_do_it_once(path: Path) -> None:
    first_version(path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: Registry.open(path).close(), range(8)))
    registry = Registry.open(path)
    assert registry.find(digest(token(1))) is not None
    registry.close()


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    first_version(path)
    tool = sqlite3.connect(path)
    tool.execute("ALTER TABLE tokens ADD COLUMN chain TEXT")  # ours will stumble over it half way
    tool.commit()
    tool.close()
    with pytest.raises(StoreError):
        Registry.open(path)
    tool = sqlite3.connect(path)
    names = [row[1] for row in tool.execute("PRAGMA table_info(tokens)")]
    assert "networks" not in names
    assert tool.execute("PRAGMA user_version").fetchone()[0] == 1
    tool.close()


def test_a_second_connection_in_this_process_does_not_blind_the_first(path: Path, registry: Registry) -> None:
    """POSIX locks go when any descriptor of the file is closed; SQLite's shared memory would be made anew."""
    registry.first_blocked((ALICE,))
    Registry.open(path).close()
    script = (
        "import sys; from pathlib import Path; from callerid.identity.registry import Registry\n"
        "r = Registry.open(Path(sys.argv[1])); r.block(sys.argv[2], now_us=1, by='x'); r.close()"
    )
    root = Path(__file__).resolve().parents[3]
    for subject in (BOB, ALICE):  # the first one to close may take the files away, the next makes them anew
        subprocess.run(
            [sys.executable, "-c", script, str(path), subject],
            check=True,
            env={"PYTHONPATH": str(root / "addon")},
        )
        assert registry.first_blocked((subject,)) == subject


# -- children ----------------------------------------------------------------------------------------


def test_a_child_acts_for_the_same_principal_and_says_through_whom(registry: Registry) -> None:
    parent = enter(registry, 1, agent="claude-code", servers=("github", "wiki"))
    made = child(registry, 2, parent.id, agent="researcher", servers=("wiki",), networks=("10.0.0.0/8",))
    assert (made.principal, made.parent, made.agent) == (ALICE, parent.id, "researcher")
    assert made.actors == ("researcher", "claude-code")
    assert registry.find(digest(token(2))) == made
    last = child(registry, 3, made.id, agent="reader")
    assert last.actors == ("reader", "researcher", "claude-code")
    same = child(registry, 4, made.id, tools=("get_*",))
    assert (same.agent, same.actors) == ("researcher", made.actors)


@pytest.mark.parametrize(
    ("parent", "asked"),
    [
        pytest.param({"servers": ("wiki",)}, {"servers": ("github",)}, id="another server"),
        pytest.param({"servers": ()}, {"servers": ("github",)}, id="a server where there is none"),
        pytest.param({"tools": ("get_*",)}, {"tools": ("drop_table",)}, id="a tool that no glob covers"),
        pytest.param({"networks": ("10.0.0.0/8",)}, {"networks": ("10.0.0.0/7",)}, id="a wider network"),
        pytest.param({}, {"expires_us": NOW_US + 2 * DAY_US}, id="a longer life"),
        pytest.param({}, {"expires_us": NOW_US}, id="no life"),
        pytest.param({"expires_us": NOW_US}, {"expires_us": NOW_US + 1}, id="a parent that has expired"),
    ],
)
def test_a_child_is_refused_what_its_parent_has_not(
    registry: Registry, parent: dict[str, Any], asked: dict[str, Any]
) -> None:
    above = enter(registry, 1, **parent)
    with pytest.raises(ConfigError) as caught:
        child(registry, 2, above.id, **asked)
    assert caught.value.hint
    assert registry.find(digest(token(2))) is None


@pytest.mark.parametrize(
    "asked", [{"tools": ("get_issue",)}, {"tools": ("*",)}, {"tools": ("class:read", "get_x")}, {}]
)
def test_what_globs_leave_open_is_decided_at_each_call(registry: Registry, asked: dict[str, Any]) -> None:
    above = enter(registry, 1, tools=("get_*",))
    assert [row.tools for row in registry.lineage(child(registry, 2, above.id, **asked))][1] == ("get_*",)


def test_a_grandchild_is_held_against_all_above_it(registry: Registry) -> None:
    root = enter(registry, 1, servers=("wiki",))
    middle = child(registry, 2, root.id)
    with pytest.raises(ConfigError, match="not within"):
        child(registry, 3, middle.id, servers=("github",))
    registry.revoke(root.id, now_us=NOW_US, by="ops")
    with pytest.raises(ConfigError, match="revoked"):
        child(registry, 4, middle.id)


@pytest.mark.parametrize("blocked", [ALICE, "agent:claude-code", "agent:researcher"])
def test_nothing_is_derived_for_who_is_blocked(registry: Registry, blocked: str) -> None:
    parent = enter(registry, 1, agent="claude-code")
    registry.block(blocked, now_us=NOW_US, by="ops")
    with pytest.raises(ConfigError, match="blocked"):
        child(registry, 2, parent.id, agent="researcher")


def test_a_chain_of_agents_ends_after_five(registry: Registry) -> None:
    row = enter(registry, 1, agent="a1")
    for number in range(2, MAX_ACTORS + 1):
        row = child(registry, number, row.id, agent=f"a{number}")
    assert len(row.actors) == MAX_ACTORS
    with pytest.raises(ConfigError, match="longer than 5"):
        child(registry, 90, row.id, agent="one-more")
    assert child(registry, 91, row.id).actors == row.actors


def test_a_tree_of_tokens_ends_as_well(registry: Registry) -> None:
    row = enter(registry, 1)
    for number in range(2, MAX_LINEAGE + 1):
        row = child(registry, number, row.id)
    assert len(registry.lineage(row)) == MAX_LINEAGE
    with pytest.raises(ConfigError, match="too many parents"):
        child(registry, 90, row.id)


def test_a_child_and_the_revocation_of_its_parent_come_one_after_the_other(path: Path) -> None:
    """Whoever is first: in the end no child is good."""
    with closing(Registry.open(path)) as setup:
        parents = [enter(setup, number) for number in range(1, 13)]

    def derive(number: int) -> None:
        mine = Registry.open(path)
        try:
            child(mine, 100 + number, parents[number].id)
        except (ConfigError, StoreError):
            pass
        finally:
            mine.close()

    def revoke(number: int) -> None:
        mine = Registry.open(path)
        try:
            mine.revoke(parents[number].id, now_us=NOW_US, by="ops")
        finally:
            mine.close()

    with ThreadPoolExecutor(2) as pool:
        for number in range(len(parents)):
            both = [pool.submit(derive, number), pool.submit(revoke, number)]
            for one in both:
                one.result()
    with closing(Registry.open(path)) as after:
        assert all(row.revoked_us is not None for row in after.tokens())


def test_the_parent_is_judged_anew_and_not_by_what_is_remembered(path: Path, registry: Registry) -> None:
    parent = enter(registry, 1)
    registry.get(parent.id)
    with closing(Registry.open(path)) as other:
        other.revoke(parent.id, now_us=NOW_US, by="ops")
    with pytest.raises(ConfigError, match="revoked"):
        child(registry, 2, parent.id)


# -- bound to other evidence -----------------------------------------------------------------------


def bound(registry: Registry, seed: int, **changes: Any) -> TokenRow:
    values: dict[str, Any] = {
        "id": "", "principal": ALICE, "agent": "claude-code", "parent": None, "servers": None, "tools": None,
        "created_us": NOW_US, "created_by": ALICE, "expires_us": NOW_US + HOUR_US,
        "origin": ("jwt:corp-idp:j-1",), "in_groups": ("interns",),
    }  # fmt: skip
    return registry.derive_from_evidence(TokenRow(**{**values, **changes}), token_digest=digest(token(seed)))


def test_a_bound_token_keeps_what_it_was_made_from(registry: Registry) -> None:
    made = bound(registry, 1, chain=("MIIB",), actors=("claude-code",))
    assert registry.find(digest(token(1))) == made
    assert [row.id for row in registry.held("jwt:corp-idp:j-1")] == [made.id]
    registry.block("jwt:corp-idp:j-1", now_us=NOW_US, by="ops")
    with pytest.raises(ConfigError, match="blocked"):
        bound(registry, 2)
    with pytest.raises(ConfigError, match="blocked"):
        child(registry, 3, made.id)


def test_what_a_block_would_refuse_is_found_with_all_below_it(registry: Registry) -> None:
    root = enter(registry, 1, agent="claude-code")
    sub = child(registry, 2, root.id, agent="researcher")
    other = enter(registry, 3, principal=BOB, agent="researcher")
    assert {row.id for row in registry.held(ALICE)} == {root.id, sub.id}
    assert {row.id for row in registry.held("agent:claude-code")} == {root.id, sub.id}
    assert {row.id for row in registry.held("agent:researcher")} == {sub.id, other.id}
    assert registry.held("cert:0123456789abcdef") == ()


# -- rotation --------------------------------------------------------------------------------------


def rotate(registry: Registry, identifier: str, seed: int = 50, **changes: Any) -> tuple[TokenRow, TokenRow]:
    values: dict[str, Any] = {
        "token_digest": digest(token(seed)), "now_us": NOW_US, "overlap_us": HOUR_US,
        "longest_us": 30 * DAY_US, "by": "ops",
    }  # fmt: skip
    return registry.rotate(identifier, **{**values, **changes})


def test_a_rotated_token_has_a_successor_of_the_same_scope_and_ends_after_the_overlap(
    registry: Registry,
) -> None:
    old = enter(registry, 1, agent="a", servers=("wiki",), tools=("get_*",), networks=("10.0.0.0/8",))
    before = registry.generation()
    made, ending = rotate(registry, old.id)
    assert (made.agent, made.servers, made.tools, made.networks) == (
        "a",
        ("wiki",),
        ("get_*",),
        ("10.0.0.0/8",),
    )
    assert (made.created_us, made.expires_us) == (NOW_US, NOW_US + 2 * DAY_US)
    assert (ending.expires_us, ending.rotated_to) == (NOW_US + HOUR_US, made.id)
    assert registry.get(old.id) == ending
    assert registry.generation() != before
    with pytest.raises(ConfigError, match="rotated before"):
        rotate(registry, old.id, 51)


@pytest.mark.parametrize(
    ("changes", "overlap", "ends"),
    [
        pytest.param({"expires_us": NOW_US + 60}, HOUR_US, NOW_US + 60, id="never later than it would have"),
        pytest.param({}, 0, NOW_US, id="at once without an overlap"),
    ],
)
def test_the_old_token_ends(registry: Registry, changes: dict[str, Any], overlap: int, ends: int) -> None:
    old = enter(registry, 1, **changes)
    assert rotate(registry, old.id, overlap_us=overlap)[1].expires_us == ends


def test_children_stay_below_the_old_token_and_end_with_it(registry: Registry) -> None:
    old = enter(registry, 1)
    sub = child(registry, 2, old.id)
    rotate(registry, old.id, overlap_us=60)
    assert registry.lineage(sub) == (sub, registry.get(old.id))
    with pytest.raises(ConfigError, match="outlive"):
        child(registry, 3, old.id)


def test_a_token_that_ended_by_a_rotation_says_so_and_so_do_those_below_it(registry: Registry) -> None:
    old = enter(registry, 1)
    sub = child(registry, 2, old.id)
    made, ended = rotate(registry, old.id, overlap_us=0)
    for row, says in (
        (ended, f"the token has expired: it was rotated to {made.id}, use that"),
        (sub, f"its parent {old.id} has expired: it was rotated to {made.id}, derive anew from that"),
    ):
        answer = lineage_of(row, registry, NOW)
        assert isinstance(answer, Rejected)
        assert (answer.reason, answer.detail) == (Reason.TOKEN_EXPIRED, says)


def test_a_successor_outlives_neither_its_parent_nor_its_origin_nor_the_longest_life(
    registry: Registry,
) -> None:
    old = enter(registry, 1)
    sub = child(registry, 2, old.id, created_us=NOW_US - DAY_US, expires_us=NOW_US + DAY_US)
    assert rotate(registry, sub.id)[0].expires_us == old.expires_us
    tied = bound(registry, 3, created_us=NOW_US - HOUR_US)
    assert rotate(registry, tied.id, 51)[0].expires_us == tied.expires_us
    long = enter(registry, 4, expires_us=NOW_US + 300 * DAY_US)
    assert rotate(registry, long.id, 52)[0].expires_us == NOW_US + 30 * DAY_US


@pytest.mark.parametrize("flaw", ["unknown", "revoked", "expired"])
def test_a_dead_token_has_no_successor(registry: Registry, flaw: str) -> None:
    old = enter(registry, 1, expires_us=NOW_US if flaw == "expired" else NOW_US + DAY_US)
    if flaw == "revoked":
        registry.revoke(old.id, now_us=NOW_US, by="ops")
    with pytest.raises(ConfigError):
        rotate(registry, "t_nothing" if flaw == "unknown" else old.id)
    assert registry.find(digest(token(50))) is None


# -- the pure part -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "actors", "asked", "chain"),
    [
        (None, (), None, ()),
        (None, (), "a", ("a",)),
        ("a", (), None, ()),
        ("a", (), "a", ()),
        ("a", (), "b", ("b", "a")),
        ("b", ("b", "a"), None, ("b", "a")),
        ("b", ("b", "a"), "c", ("c", "b", "a")),
    ],
)
def test_the_chain_begins_with_who_acts_now(
    agent: str | None, actors: tuple[str, ...], asked: str | None, chain: tuple[str, ...]
) -> None:
    assert actors_below(agent, actors, asked) == chain


@pytest.mark.parametrize("networks", ['["10.0.0.1/8"]', '["x"]', "{}", "[1]", "x"])
def test_networks_that_cannot_be_read_are_an_error_and_not_everywhere(
    registry: Registry, path: Path, networks: str
) -> None:
    enter(registry, 1)
    tool = sqlite3.connect(path)
    tool.execute("UPDATE tokens SET networks = ?", (networks,))
    tool.commit()
    tool.close()
    with pytest.raises(StoreError):
        registry.find(digest(token(1)))


# -- what is forgotten -----------------------------------------------------------------------------


def test_derived_tokens_are_forgotten_once_they_were_dead_for_long_and_no_others(registry: Registry) -> None:
    root = enter(registry, 1, expires_us=NOW_US + 90 * DAY_US)
    brief = child(registry, 2, root.id)
    below = child(registry, 3, brief.id)
    revoked = child(registry, 4, root.id, expires_us=NOW_US + 80 * DAY_US)
    alive = child(registry, 5, root.id, expires_us=NOW_US + 80 * DAY_US)
    from_jwt = bound(registry, 6)
    issued = enter(registry, 7, expires_us=NOW_US + HOUR_US)
    registry.revoke(revoked.id, now_us=NOW_US + HOUR_US, by="ops")

    def left() -> set[str]:
        return {row.id for row in registry.tokens()}

    assert registry.forget_derived(before_us=NOW_US + HOUR_US, at_most=10) == 0
    later = NOW_US + HOUR_US + 1
    assert registry.forget_derived(before_us=later, at_most=10) == 3
    assert left() == {root.id, brief.id, alive.id, issued.id}
    assert registry.forget_derived(before_us=later, at_most=10) == 1
    assert left() == {root.id, alive.id, issued.id}
    assert registry.forget_derived(before_us=later, at_most=10) == 0
    assert registry.find(digest(token(3))) is None
    assert from_jwt.id not in left()
    assert below.id not in left()


def test_only_so_many_are_forgotten_at_once(registry: Registry) -> None:
    root = enter(registry, 1)
    for seed in range(2, 7):
        child(registry, seed, root.id)
    assert registry.forget_derived(before_us=NOW_US + DAY_US, at_most=2) == 2
    assert len(registry.tokens()) == 4


def test_a_parent_stays_as_long_as_something_lives_below_it(registry: Registry) -> None:
    """A rotated parent may end before the child of its successor: without it nobody could judge the child."""
    root = enter(registry, 1)
    middle = child(registry, 2, root.id)
    child(registry, 3, middle.id)
    with sqlite3.connect(registry._storage.path) as tool:
        tool.execute("UPDATE tokens SET expires_us = ? WHERE id = ?", (NOW_US + 5, middle.id))
    tool.close()
    assert registry.forget_derived(before_us=NOW_US + 6, at_most=10) == 0
