"""The commands over the registry: what they print, where, and with which exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from callerid.cli.main import main
from callerid.identity.registry import Registry
from callerid.identity.tokens import digest, is_well_formed

ALICE = "user:alice@corp.example"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    Registry.open(tmp_path / "home" / "registry.db").close()
    return tmp_path / "home"


def call(home: Path, command: str, *arguments: str) -> Result:
    rules = ["--rules", str(home / "rules")] if command in ("issue", "rotate", "block") else []
    return CliRunner().invoke(main, [command, "--home", str(home), *rules, *arguments])


def issue(home: Path, *arguments: str, principal: str = ALICE) -> str:
    result = call(home, "issue", "--principal", principal, "--ttl", "1d", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def listed(home: Path, *arguments: str) -> list[dict[str, object]]:
    found = json.loads(call(home, "tokens", "--json", *arguments).stdout)
    assert isinstance(found, list)
    return found


def test_the_token_is_the_only_thing_on_stdout_and_nowhere_else(home: Path) -> None:
    result = call(home, "issue", "--principal", ALICE, "--ttl", "30d", "--agent", "claude-code")
    assert result.exit_code == 0
    token = result.stdout.removesuffix("\n")
    assert is_well_formed(token)
    assert token not in result.stderr
    assert "HTTPS_PROXY=http://alice:TOKEN@" in result.stderr
    for file in home.iterdir():
        assert token.encode() not in file.read_bytes()


def test_a_token_is_entered_as_it_was_asked_for(home: Path) -> None:
    token = issue(
        home, "--agent", "claude-code", "--server", "github", "--server", "wiki", "--tool", "get_*",
        principal="user:Alice@Corp.example",
    )  # fmt: skip
    registry = Registry.open(home / "registry.db")
    row = registry.find(digest(token))
    registry.close()
    assert row is not None
    assert (row.principal, row.agent) == (ALICE, "claude-code")
    assert (row.servers, row.tools) == (("github", "wiki"), ("get_*",))
    assert row.expires_us - row.created_us == 86_400 * 1_000_000


def test_json_holds_the_token_and_what_it_is(home: Path) -> None:
    result = call(home, "issue", "--principal", ALICE, "--ttl", "1h", "--json")
    made = json.loads(result.stdout)
    assert is_well_formed(made["token"])
    assert (made["principal"], made["servers"], made["state"]) == (ALICE, None, "good")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--principal", "alice", "--ttl", "1d"], id="no kind"),
        pytest.param(["--principal", "agent:claude-code", "--ttl", "1d"], id="an agent for a principal"),
        pytest.param(["--principal", "user:", "--ttl", "1d"], id="no name"),
        pytest.param(["--principal", "user:a b", "--ttl", "1d"], id="a space in the name"),
        pytest.param(["--principal", ALICE], id="no ttl"),
        pytest.param(["--principal", ALICE, "--ttl", "0d"], id="no time at all"),
        pytest.param(["--principal", ALICE, "--ttl", "31d"], id="longer than allowed"),
        pytest.param(["--principal", ALICE, "--ttl", "2592001s"], id="a second longer than allowed"),
        pytest.param(["--principal", ALICE, "--ttl", "-1d"], id="negative"),
        pytest.param(["--principal", ALICE, "--ttl", "1w"], id="an unknown unit"),
        pytest.param(["--principal", ALICE, "--ttl", "d"], id="no number"),
        pytest.param(["--principal", ALICE, "--ttl", ""], id="empty"),
        pytest.param(["--principal", ALICE, "--ttl", "٣d"], id="digits of another script"),
        pytest.param(["--principal", ALICE, "--ttl", "9" * 5000 + "d"], id="a number without end"),
        pytest.param(["--principal", ALICE, "--ttl", "1d", "--agent", "a b"], id="an agent that is no name"),
        pytest.param(["--principal", ALICE, "--ttl", "1d", "--server", ""], id="a server that is no name"),
    ],
)
def test_wrong_usage_is_exit_2_and_issues_nothing(home: Path, arguments: list[str]) -> None:
    result = call(home, "issue", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr
    assert listed(home, "--all") == []


def test_identities_yaml_says_how_long_a_token_may_live(home: Path) -> None:
    rules = home / "rules"
    rules.mkdir()
    (rules / "identities.yaml").write_text(
        "version: 1\nissuers:\n  - {id: local, type: opaque, max_ttl: 2h}\n", encoding="utf-8"
    )
    (rules / "servers.yaml").write_text("version: 1\nservers: []\n", encoding="utf-8")
    (rules / "credentials.yaml").write_text("version: 1\ncredentials: []\n", encoding="utf-8")
    (rules / "policy.yaml").write_text(
        "version: 1\nunknown_server: deny\nrules:\n"
        "  - {id: r, effect: allow, who: [anyone], tools: [get_x]}\n",
        encoding="utf-8",
    )
    refused = call(home, "issue", "--principal", ALICE, "--ttl", "3h")
    assert refused.exit_code == 2
    assert "between 1s and 2h" in refused.stderr
    assert call(home, "issue", "--principal", ALICE, "--ttl", "2h").exit_code == 0
    (rules / "identities.yaml").write_text("version: 7\n", encoding="utf-8")
    assert call(home, "issue", "--principal", ALICE, "--ttl", "1h").exit_code == 2


@pytest.mark.parametrize("command", ["issue", "derive", "tokens", "rotate", "revoke", "block", "unblock"])
def test_a_home_that_is_not_there_is_an_error_and_is_not_made(tmp_path: Path, command: str) -> None:
    arguments = {
        "issue": ["--principal", ALICE, "--ttl", "1d"],
        "derive": ["--from", "t_000000000000"],
        "tokens": [],
        "rotate": ["t_000000000000"],
        "revoke": ["--principal", ALICE],
        "block": [ALICE],
        "unblock": [ALICE],
    }[command]
    result = call(tmp_path / "misspelt", command, *arguments)
    assert result.exit_code == 2
    assert "callerid init" in result.stderr
    assert not (tmp_path / "misspelt").exists()


def test_the_table_says_who_what_and_how_it_stands(home: Path) -> None:
    issue(home, "--agent", "claude-code", "--server", "github")
    text = call(home, "tokens").stdout
    for part in ("t_", ALICE, "claude-code", "servers github", "good"):
        assert part in text


def test_only_live_tokens_are_listed_unless_all_are_asked_for(home: Path) -> None:
    issue(home)
    issue(home, principal="user:bob@corp.example")
    registry = Registry.open(home / "registry.db")
    registry.issue(
        token_digest="e" * 64, principal=ALICE, agent=None, servers=None, tools=None,
        created_us=1, expires_us=2, created_by="test",
    )  # fmt: skip
    registry.close()
    call(home, "revoke", "--principal", "user:bob@corp.example")
    assert [row["state"] for row in listed(home)] == ["good"]
    assert sorted(str(row["state"]) for row in listed(home, "--all")) == ["expired", "good", "revoked"]


def test_revoking_says_how_many_and_counts_the_tree(home: Path) -> None:
    issue(home)
    [parent] = listed(home)
    registry = Registry.open(home / "registry.db")
    row = registry.get(str(parent["id"]))
    assert row is not None
    registry.issue(
        token_digest="f" * 64, principal=ALICE, agent="sub", servers=None, tools=None,
        created_us=row.created_us, expires_us=row.expires_us, created_by="test", parent=row.id,
    )  # fmt: skip
    registry.close()
    result = call(home, "revoke", row.id, "--why", "lost laptop")
    assert (result.exit_code, result.stdout) == (0, "2 tokens revoked\n")
    assert {entry["revoked_why"] for entry in listed(home, "--all")} == {"lost laptop"}
    again = call(home, "revoke", row.id)
    assert (again.exit_code, again.stdout) == (0, "0 tokens revoked: all were revoked before\n")


def test_revoking_a_principal_takes_any_spelling(home: Path) -> None:
    issue(home)
    result = call(home, "revoke", "--principal", "user:ALICE@corp.example")
    assert (result.exit_code, result.stdout) == (0, "1 token revoked\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["t_000000000000"],
        ["--principal", ALICE],
        ["--principal", "alice"],
        ["t_000000000000", "--principal", ALICE],
    ],
    ids=["nothing", "unknown id", "without tokens", "no principal", "both"],
)
def test_revoking_nothing_is_never_silent(home: Path, arguments: list[str]) -> None:
    result = call(home, "revoke", *arguments)
    assert result.exit_code == 2
    assert "error:" in result.stderr


def test_blocking_says_what_the_principal_still_holds(home: Path) -> None:
    issue(home, "--agent", "claude-code")
    result = call(home, "block", "user:Alice@corp.example", "--why", "left")
    assert result.exit_code == 0
    assert f"{ALICE} is blocked\n" in result.stdout
    assert "1 token" in result.stdout
    assert "t_" in result.stdout
    assert [row["state"] for row in listed(home)] == ["blocked"]
    assert "and was before" in call(home, "block", ALICE).stdout
    registry = Registry.open(home / "registry.db")
    assert [(row.subject, row.why) for row in registry.blocked()] == [(ALICE, "left")]
    registry.close()


def test_an_agent_is_blocked_by_its_name(home: Path) -> None:
    issue(home, "--agent", "claude-code")
    issue(home)
    found = json.loads(call(home, "block", "agent:claude-code", "--json").stdout)
    assert (found["subject"], found["new"], len(found["tokens"])) == ("agent:claude-code", True, 1)
    assert sorted(str(row["state"]) for row in listed(home)) == ["blocked", "good"]


@pytest.mark.parametrize("subject", ["cert:0123456789abcdef", "jwt:corp-idp:j-1", "workload:ci-docs"])
def test_a_credential_or_workload_can_be_blocked_too(home: Path, subject: str) -> None:
    result = call(home, "block", subject)
    assert result.exit_code == 0
    assert "0 tokens." in result.stdout


@pytest.mark.parametrize("subject", ["alice", "group:interns", "t_000000000000", "user:", "user:a\nb"])
def test_what_cannot_be_blocked_is_an_error(home: Path, subject: str) -> None:
    for command in ("block", "unblock"):
        assert call(home, command, subject).exit_code == 2


def test_a_block_is_taken_back_once(home: Path) -> None:
    call(home, "block", ALICE)
    first = call(home, "unblock", "user:ALICE@corp.example")
    assert (first.exit_code, first.stdout) == (0, f"{ALICE} is no longer blocked\n")
    second = call(home, "unblock", ALICE)
    assert (second.exit_code, second.stdout) == (1, f"{ALICE} was not blocked here\n")
