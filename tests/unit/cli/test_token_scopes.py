"""The commands of scoped tokens beyond issuing one: networks, derive, rotate, the list, and who leaves."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from callerid.cli.registered import now_us
from callerid.identity.registry import Registry
from callerid.identity.tokens import digest, is_well_formed, token_id
from tests.unit.cli.test_token_commands import ALICE, call, home, issue, listed

__all__ = ["home"]

DAY = 86_400_000_000
START = now_us()
RULES = {
    "identities.yaml": """version: 1
issuers:
  - {id: local, type: opaque, max_ttl: 30d}
  - {id: ci, type: oidc, issuer: "https://ci.corp.example", jwks_url: "https://ci.corp.example/k",
     audiences: [callerid], algorithms: [RS256], claims: {workload: sub}, assurance: workload}
groups:
  engineering: {members: ["user:Alice@corp.example"]}
  interns: {members: ["user:ivy@corp.example"]}
agents:
  claude-code: {kind: assistant, owners: ["group:engineering"]}
  ivys-helper: {kind: assistant, owners: ["user:ivy@corp.example"]}
  deploy-bot: {kind: autonomous, owners: ["workload:ci-docs"]}
workloads:
  - {id: ci-docs, issuer: ci, match: {workload: "repo:corp/docs:*"}}
""",
    "servers.yaml": "version: 1\nservers: []\n",
    "credentials.yaml": "version: 1\ncredentials: []\n",
    "policy.yaml": "version: 1\nunknown_server: deny\nrules:\n"
    "  - {id: r, effect: allow, who: [anyone], tools: [get_x]}\n",
}


@pytest.fixture
def rules(home: Path) -> Path:
    folder = home / "rules"
    folder.mkdir()
    for name, text in RULES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def made(home: Path, **changes: Any) -> str:
    """A token as it stands after some time; its id."""
    values: dict[str, Any] = {
        "token_digest": digest(json.dumps(sorted(changes.items()), default=str)), "principal": ALICE,
        "agent": None, "servers": None, "tools": None, "created_us": START - DAY,
        "expires_us": START + DAY, "created_by": "test",
    }  # fmt: skip
    registry = Registry.open(home / "registry.db")
    row = registry.issue(**{**values, **changes})
    registry.close()
    return row.id


# -- networks and derive ---------------------------------------------------------------------------


def test_networks_are_repeatable_and_kept_in_one_spelling(home: Path) -> None:
    issue(
        home, "--network", "10.20.0.0/16", "--network", "::ffff:192.0.2.0/120", "--network", "2001:DB8::/32"
    )
    assert listed(home)[0]["networks"] == ["10.20.0.0/16", "192.0.2.0/24", "2001:db8::/32"]
    assert "from 10.20.0.0/16" in call(home, "tokens").stdout


@pytest.mark.parametrize("network", ["10.20.0.1/16", "here", "", "10.0.0.0/33"])
def test_what_is_no_network_issues_nothing(home: Path, network: str) -> None:
    result = call(home, "issue", "--principal", ALICE, "--ttl", "1d", "--network", network)
    assert result.exit_code == 2
    assert "--network" in result.stderr
    assert listed(home, "--all") == []


def test_an_administrator_derives_a_narrower_token(home: Path) -> None:
    parent = token_id(digest(issue(home, "--server", "wiki", "--agent", "claude-code")))
    result = call(home, "derive", "--from", parent, "--agent", "sub", "--server", "wiki", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert is_well_formed(told["token"])
    assert (told["parent"], told["actors"]) == (parent, ["sub", "claude-code"])
    refused = call(home, "derive", "--from", parent, "--server", "github")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "not within" in refused.stderr
    assert call(home, "derive", "--from", parent, "--ttl", "2d").exit_code == 2
    assert "sub < claude-code" in call(home, "tokens").stdout


# -- rotate ----------------------------------------------------------------------------------------


def test_a_rotated_token_has_a_successor_and_an_end(home: Path) -> None:
    old = token_id(digest(issue(home, "--agent", "claude-code", "--tool", "get_*")))
    result = call(home, "rotate", old, "--overlap", "2h")
    assert result.exit_code == 0
    assert is_well_formed(result.stdout.removesuffix("\n"))
    assert f"{old} and all derived from it end at" in result.stderr
    rows = {row["id"]: row for row in listed(home)}
    fresh = token_id(digest(result.stdout.strip()))
    assert rows[old]["rotated_to"] == fresh
    assert (rows[fresh]["agent"], rows[fresh]["tools"]) == ("claude-code", ["get_*"])
    again = call(home, "rotate", old)
    assert again.exit_code == 2
    assert fresh in again.stderr
    assert call(home, "rotate", fresh, "--overlap", "0s").exit_code == 0
    assert fresh not in {row["id"] for row in listed(home)}
    assert call(home, "rotate", "t_nothing").exit_code == 2
    assert call(home, "rotate", old, "--overlap", "soon").exit_code == 2


# -- the list --------------------------------------------------------------------------------------


def test_the_list_is_narrowed_by_whom_what_and_when(home: Path) -> None:
    bob = made(home, principal="user:bob@corp.example")
    wiki = made(home, servers=("wiki",), agent="claude-code")
    below = made(home, parent=wiki, agent="sub")
    idle = made(home, created_us=now_us() - 40 * DAY)
    soon = made(home, expires_us=now_us() + DAY // 24)
    registry = Registry.open(home / "registry.db")
    registry.touch(soon, now_us(), "192.0.2.9")
    registry.close()
    found = {
        " ".join(arguments): {row["id"] for row in listed(home, *arguments)}
        for arguments in (
            ("--principal", "user:BOB@corp.example"), ("--agent", "claude-code"), ("--server", "github"),
            ("--server", "wiki"), ("--unused", "30d"), ("--unused", "12h"), ("--expiring", "2h"),
        )
    }  # fmt: skip
    assert found == {
        "--principal user:BOB@corp.example": {bob},
        "--agent claude-code": {wiki},
        "--server github": {bob, idle, soon},
        "--server wiki": {bob, wiki, below, idle, soon},
        "--unused 30d": {idle},
        "--unused 12h": {bob, wiki, below, idle},
        "--expiring 2h": {soon},
    }
    assert "192.0.2.9" in call(home, "tokens").stdout
    for wrong in (["--unused", "long"], ["--principal", "bob"]):
        assert call(home, "tokens", *wrong).exit_code == 2


def test_the_tree_puts_children_below_their_parents(home: Path) -> None:
    root = made(home)
    other = made(home, agent="other")
    child = made(home, parent=root, agent="a")
    deep = made(home, parent=child, agent="b")
    order = [str(row["id"]) for row in listed(home, "--tree")]
    assert order.index(root) + 1 == order.index(child) == order.index(deep) - 1
    assert set(order) == {root, other, child, deep}
    lines = call(home, "tokens", "--tree").stdout.splitlines()
    starts = {line.split()[0]: len(line) - len(line.lstrip()) for line in lines if "t_" in line}
    assert (starts[child] - starts[root], starts[deep] - starts[root]) == (2, 4)


@pytest.mark.parametrize("how", ["revoked", "expired", "blocked"])
def test_what_a_dead_parent_left_below_it_is_dead(home: Path, rules: Path, how: str) -> None:
    start = now_us()
    registry = Registry.open(home / "registry.db")
    parent = made(home, expires_us=start + DAY, agent="claude-code")
    child = made(home, parent=parent, agent="sub", expires_us=start + DAY)
    deep = made(home, parent=child, agent="subsub", expires_us=start + DAY)
    if how == "revoked":
        registry.revoke(parent, now_us=start, by="test", why=None)
    elif how == "blocked":
        registry.block("agent:claude-code", now_us=start, by="test", why=None)
    else:
        with contextlib.closing(sqlite3.connect(home / "registry.db")) as db, db:
            db.execute("update tokens set expires_us = ? where id = ?", (start - 1, parent))
    registry.close()
    ids = (parent, child, deep)
    assert {row["id"]: row["state"] for row in listed(home, "--all")} == dict.fromkeys(ids, how)
    assert "good" not in call(home, "tokens", "--tree", "--all").stdout
    assert {row["id"] for row in listed(home)} == ({parent, child, deep} if how == "blocked" else set())
    told = json.loads(call(home, "block", ALICE, "--json").stdout)
    assert len(told["tokens"]) == (3 if how == "blocked" else 0)


def test_a_name_that_the_rules_do_not_have_is_warned_of(home: Path, rules: Path) -> None:
    (rules / "servers.yaml").write_text(
        "version: 1\nservers: [{id: things, url: 'https://things.corp.example/mcp'}]\n", encoding="utf-8"
    )
    base = ("issue", "--principal", ALICE, "--ttl", "1h")
    result = call(home, *base, "--agent", "claude-cod", "--server", "thinks", "--server", "things")
    assert result.exit_code == 0
    assert is_well_formed(result.stdout.strip())
    assert "warning: identities.yaml has no agent claude-cod. Did you mean 'claude-code'?" in result.stderr
    assert "warning: servers.yaml has no server thinks. Did you mean 'things'?" in result.stderr
    assert "warning" not in call(home, *base, "--agent", "claude-code", "--server", "things").stderr


# -- who leaves ------------------------------------------------------------------------------------


def test_a_block_says_all_that_she_had(home: Path, rules: Path) -> None:
    parent = made(home, agent="claude-code")
    child = made(home, parent=parent, agent="sub")
    told = json.loads(call(home, "block", ALICE, "--json").stdout)
    assert {row["id"] for row in told["tokens"]} == {parent, child}
    assert (told["agents"], told["groups"], told["workloads"]) == (["claude-code"], ["engineering"], [])
    text = call(home, "block", ALICE).stdout
    assert "agents (identities.yaml): claude-code" in text
    assert "groups (identities.yaml): engineering" in text
    assert {row["state"] for row in listed(home)} == {"blocked"}


@pytest.mark.parametrize(
    ("subject", "agents", "workloads"),
    [("workload:ci-docs", ["deploy-bot"], ["ci"]), ("user:bob@corp.example", [], []),
     ("agent:ivys-helper", ["ivys-helper"], []), ("cert:0123456789abcdef", [], [])],
)  # fmt: skip
def test_a_block_knows_agents_and_workloads(
    home: Path, rules: Path, subject: str, agents: list[str], workloads: list[str]
) -> None:
    told = json.loads(call(home, "block", subject, "--json").stdout)
    assert (told["agents"], told["workloads"]) == (agents, workloads)


def test_rules_that_do_not_load_keep_nobody_from_being_blocked(home: Path, rules: Path) -> None:
    (rules / "identities.yaml").write_text("version: 7\n", encoding="utf-8")
    result = call(home, "block", ALICE)
    assert result.exit_code == 0
    assert f"{ALICE} is blocked" in result.stdout
    assert "do not load" in result.stderr
    registry = Registry.open(home / "registry.db")
    assert registry.first_blocked((ALICE,)) == ALICE
    registry.close()


def test_blocking_a_credential_lists_what_was_derived_from_it(home: Path) -> None:
    token = issue(home)
    registry = Registry.open(home / "registry.db")
    row = registry.find(digest(token))
    assert row is not None
    registry._connection.execute(
        "UPDATE tokens SET origin = '[\"cert:0123456789abcdef\"]' WHERE id = ?", (row.id,)
    )
    registry.close()
    told = json.loads(call(home, "block", "cert:0123456789abcdef", "--json").stdout)
    assert [entry["id"] for entry in told["tokens"]] == [row.id]
    assert [entry["state"] for entry in listed(home)] == ["blocked"]
