"""``callerid check`` and ``callerid explain``, as a person and as a script use them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from callerid.cli.rules import check, explain
from tests.unit.policy.house import SERVERS, rules, write

POLICY = rules("""\
  - {id: eng-files, effect: allow, who: ["group:engineering"], servers: [files], tools: ["*_file", "resource:file:///pub/*", "prompt:sum*"]}
  - {id: refunds, effect: allow, who: ["group:support"], servers: [payments, github, sandbox]}
  - id: team
    effect: require
    servers: [files]
    tools: ["*_file"]
    args: {path: {under: /srv/team}}
    reason: Only the team's files.
  - {id: office, effect: require, servers: [payments], hours: {from: "08:00", to: "18:00"}}
""")  # noqa: E501
ALICE = ("--as", "user:alice@corp.example", "--server", "files", "--tool", "read_file")
SAM = ("--as", "user:sam@corp.example", "--server", "payments", "--tool", "get_charge")
GOOD = '{"path": "/srv/team/a"}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "rules", policy=POLICY)


def run_check(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(check, ["--rules", str(folder), *options])


def run(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(explain, ["--rules", str(folder), *options])


def test_good_rules_are_counted(folder: Path) -> None:
    result = run_check(folder)
    assert result.exit_code == 0
    assert result.stdout.startswith("rules are good: 4 servers, 4 rules, policy ")
    assert result.stderr == ""


def test_warnings_do_not_make_them_bad(folder: Path) -> None:
    write(folder, policy="version: 1\nrules: []\n")
    result = run_check(folder)
    assert result.exit_code == 0
    assert "warning: servers.yaml:3:10: no rule allows anything on server 'github'" in result.stderr
    assert "rules are good: 4 servers, 0 rules, policy " in result.stdout


def test_bad_rules_are_told_with_their_places(folder: Path) -> None:
    write(folder, policy=rules("  - {id: a, effect: alow}\n"))
    result = run_check(folder)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"error: 1 problem in the rules in {folder}\n"
        "policy.yaml:3:21: rule 'a': unknown effect 'alow'\n"
        "      - {id: a, effect: alow}\n"
        "                        ^\n"
        "    Did you mean 'allow'?\n"
    )


def test_check_speaks_json(folder: Path) -> None:
    good = json.loads(run_check(folder, "--json").stdout)
    assert (good["good"], good["servers"], good["rules"], good["problems"]) == (True, 4, 4, [])
    assert len(good["policy"]) == 16
    write(folder, policy=rules("  - {id: a, effect: alow}\n"))
    result = run_check(folder, "--json")
    assert result.exit_code == 2
    bad = json.loads(result.stdout)
    assert bad["good"] is False
    assert bad["problems"] == [
        {
            "file": "policy.yaml",
            "line": 3,
            "column": 21,
            "message": "rule 'a': unknown effect 'alow'",
            "source": "  - {id: a, effect: alow}",
            "hint": "Did you mean 'allow'?",
        }
    ]


def test_the_folder_can_come_from_the_environment(folder: Path) -> None:
    result = CliRunner(env={"CALLERID_RULES": str(folder)}).invoke(check, [])
    assert result.exit_code == 0


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    result = run_check(tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "there is no file policy.yaml in the rules directory" in result.stderr


def test_an_allowed_call_names_its_grant(folder: Path) -> None:
    result = run(folder, *ALICE, "--args", GOOD)
    assert result.exit_code == 0
    assert "allow: granted, by eng-files (policy.yaml:3)\n" in result.stdout
    assert "args path: true (string)" in result.stdout


def test_a_refused_call_names_the_rule_and_its_line(folder: Path) -> None:
    result = run(folder, *ALICE, "--args", '{"path": "/etc/passwd"}')
    assert result.exit_code == 1
    assert (
        "deny: requirement_failed, by team (policy.yaml:5)\nthe caller is told: Only the team's files.\n"
        in (result.stdout)
    )
    assert "/etc/passwd" not in result.stdout


def test_explain_speaks_json(folder: Path) -> None:
    result = run(folder, *ALICE, "--json")
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert said["decision"]["verdict"] == "deny"
    assert said["decision"]["reason"] == "requirement_failed"
    assert said["decider"] == {"rule": "team", "file": "policy.yaml", "line": 5}
    assert [say["rule"] for say in said["rules"]] == ["eng-files", "refunds", "team", "office"]
    assert said["rules"][2]["predicates"] == [{"name": "args path", "answer": "unknown", "seen": "absent"}]


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        pytest.param(("--resource", "file:///pub/a"), 0, "allow: granted, by eng-files", id="a resource"),
        pytest.param(("--resource", "file:///pub/../a"), 1, "deny: no_grant", id="a resource outside"),
        pytest.param(("--prompt", "summary"), 0, "allow: granted, by eng-files", id="a prompt"),
        pytest.param(("--http", "GET /a"), 1, "deny: no_grant", id="a call of an HTTP API"),
        pytest.param(
            ("--tool", "other"), 1, "the same as for a name that does not exist", id="a hidden tool"
        ),
    ],
)
def test_tools_resources_and_prompts(folder: Path, options: tuple[str, ...], code: int, line: str) -> None:
    result = run(folder, "--as", "user:Alice@corp.example", "--server", "files", *options)
    assert result.exit_code == code
    assert line in result.stdout


@pytest.mark.parametrize(
    ("at", "code"),
    [("2026-11-23T10:00:00+01:00", 0), ("2026-11-23T07:59:00Z", 1), ("2026-11-23T18:00:00Z", 1)],
)
def test_the_time_can_be_given(folder: Path, at: str, code: int) -> None:
    assert run(folder, *SAM, "--at", at).exit_code == code


def test_a_group_can_be_added(folder: Path) -> None:
    ivy = ("--as", "user:ivy@corp.example", "--server", "files", "--tool", "read_file", "--args", GOOD)
    assert run(folder, *ivy).exit_code == 1
    assert run(folder, *ivy, "--group", "engineering").exit_code == 0


def test_an_agent_brings_its_ceiling(folder: Path) -> None:
    at = ("--at", "2026-11-23T10:00:00Z")
    assert run(folder, *SAM, "--agent", "refund-bot", *at).exit_code == 0
    other = run(folder, *SAM[:5], "create_refund", "--agent", "refund-bot", *at)
    assert other.exit_code == 1
    assert "ceiling agent:refund-bot: OUTSIDE\ndeny: outside_scope\n" in other.stdout


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--agent", "refund-bot"), "agent_not_permitted"),
        (("--as", "user:mallory@corp.example"), "principal_blocked"),
    ],
)
def test_whom_identity_refuses_no_rule_is_asked_about(
    folder: Path, options: tuple[str, ...], reason: str
) -> None:
    path = folder / "identities.yaml"
    path.write_text(path.read_text() + 'blocked: ["user:Mallory@corp.example"]\n')
    result = run(folder, *ALICE, *options)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"deny: {reason}, before any rule is asked: ")
    said = json.loads(run(folder, *ALICE, *options, "--json").stdout)
    assert (said["decision"]["reason"], said["rules"]) == (reason, [])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--as", "alice", *ALICE[2:]), "error: 'alice' is not a principal\nhint: Write user:NAME"),
        (("--as", "group:engineering", *ALICE[2:]), "error: 'group:engineering' is not a principal"),
        (
            (*ALICE[:2], "--server", "fils", *ALICE[4:]),
            "error: there is no server 'fils'\nhint: Did you mean 'files'?",
        ),
        (ALICE[:4], "error: exactly one of --tool, --resource, --prompt and --http is needed"),
        (
            (*ALICE, "--prompt", "x"),
            "error: exactly one of --tool, --resource, --prompt and --http is needed",
        ),
        ((*ALICE, "--group", "enginering"), "error: there is no group 'enginering'\nhint: Did you mean"),
        ((*ALICE, "--agent", "clade-code"), "error: there is no agent 'clade-code'\nhint: Did you mean"),
        ((*ALICE, "--args", "{"), "error: --args is not JSON"),
        ((*ALICE, "--args", "[1]"), "error: --args must be a JSON object"),
        ((*ALICE, "--args", "[" * 100_000), "error: --args is not JSON"),
        ((*ALICE, "--at", "noon"), "error: --at is not an ISO 8601 time"),
        ((*ALICE, "--at", "2026-11-23T10:00:00"), "error: --at has no offset from UTC"),
    ],
)
def test_wrong_usage_says_what_to_do(folder: Path, options: tuple[str, ...], error: str) -> None:
    result = run(folder, *options)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(error)


@pytest.mark.parametrize("options", [(), ("--server", "files"), (*ALICE, "--assurance", "high")])
def test_click_says_the_rest(folder: Path, options: tuple[str, ...]) -> None:
    assert run(folder, *options).exit_code == 2


API = "  - {id: api, kind: http, url: 'https://api.corp.example/'}\n"


def test_explain_wants_http_for_an_api(folder: Path) -> None:
    write(folder, policy=POLICY, servers=SERVERS + API)
    result = run(folder, "--as", "user:alice@corp.example", "--server", "api", "--tool", "GET /v1/x")
    assert result.exit_code == 2
    assert "is an HTTP API" in result.stderr
    assert '--http "GET /v1/x"' in result.stderr


def test_explain_says_what_the_caller_of_an_api_is_told(folder: Path) -> None:
    refusing = "  - {id: no, effect: deny, servers: [api], tools: ['http:DELETE /**'], reason: Ask first.}\n"
    write(folder, policy=POLICY + refusing, servers=SERVERS + API)
    asked = ("--as", "user:alice@corp.example", "--server", "api", "--http")
    said = run(folder, *asked, "DELETE /v1/x").stdout
    assert "the caller is told: Ask first." in said
    assert "does not exist" not in said
    assert "does not exist" in run(folder, *asked, "GET /v1/x").stdout


def test_explain_needs_good_rules(folder: Path) -> None:
    write(folder, policy="version: 1\nrules: nope\n")
    result = run(folder, *ALICE)
    assert result.exit_code == 2
    assert "policy.yaml:2:8: rules: should be a list, not text" in result.stderr
