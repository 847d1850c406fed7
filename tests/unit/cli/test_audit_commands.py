from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from callerid.audit.columns import CALLS_NAMES
from callerid.audit.inert import inert_paragraph
from callerid.cli import audit as module
from callerid.cli.main import main
from callerid.home import Home
from callerid.model import FindingKind, Outcome, Reason
from tests.unit.audit.samples import T0, decision, event_id, finding, outcome, plant, refusal


@pytest.fixture
def home(tmp_path: Path) -> Path:
    plant(
        Home(tmp_path).audit,
        decision(1),
        outcome(1),
        refusal(2),
        decision(3, principal="user:bob@corp.example", method="ping", tool=None, target=None),
    )
    return tmp_path


def run(home: Path, *arguments: str) -> Result:
    return CliRunner(env={"CALLERID_HOME": str(home)}).invoke(main, ["audit", *arguments])


def json_lines(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_tail_shows_who_called_what_and_what_became_of_it(home: Path) -> None:
    result = run(home, "tail")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    allowed = next(line for line in lines if "alice" in line)
    for part in (
        "09-21 14:13:20",
        "via claude-code",
        "files read_file /srv/reports/q3.md",
        "granted readers",
        "ok 42 ms",
    ):
        assert part in allowed
    refused = next(line for line in lines if "ivy" in line)
    assert "deny" in refused
    assert "no_grant" in refused
    assert "not_sent" not in refused
    assert event_id(2)[:18] in refused
    assert "files ping" in next(line for line in lines if "bob" in line)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo terminals on this system")
def test_names_stay_whole_in_a_terminal_of_100_columns(home: Path) -> None:
    master, slave = os.openpty()
    environment = {
        "PYTHONPATH": ":".join(sys.path),
        "COLUMNS": "100",
        "TERM": "xterm",
        "CALLERID_HOME": str(home),
    }
    code = "from callerid.cli.main import main; main()"
    subprocess.run(
        [sys.executable, "-c", code, "audit", "tail"], stdout=slave, env=environment, check=True, timeout=60
    )
    os.close(slave)
    shown = os.read(master, 100_000).decode()
    os.close(master)
    for whole in (
        "user:alice@corp.example",
        "via claude-code",
        "files read_file",
        "/srv/reports/q3.md",
        "no_grant",
    ):
        assert whole in shown
    assert event_id(1)[:18] in shown
    assert "\x1b[31mdeny" in shown, "a refusal is red"
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert max(map(len, plain.splitlines())) <= 100


def test_tail_as_json_lines_has_all_columns_and_opens_the_json_ones(home: Path) -> None:
    first, *_ = json_lines(run(home, "tail", "--json"))
    assert tuple(first) == CALLS_NAMES
    assert first["arguments"] == {"path": "/srv/reports/q3.md"}
    assert first["actors"] == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-n", "1"], [3]),
        (["-n", "0"], []),
        (["--principal", "user:ivy@corp.example"], [2]),
        (["--server", "files"], [1, 3]),
        (["--tool", "read_file"], [1]),
        (["--verdict", "deny"], [2]),
        (["--reason", "no_grant"], [2]),
        (["--reason", "no_grant", "--server", "files"], []),
    ],
)
def test_tail_filters(home: Path, options: list[str], expected: list[int]) -> None:
    assert [line["seq"] for line in json_lines(run(home, "tail", "--json", *options))] == expected


def test_since_counts_back_from_now(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: (T0 + 3_000 + 3_600_000_000) * 1000)
    assert [line["seq"] for line in json_lines(run(home, "tail", "--json", "--since", "1h"))] == [3]
    assert len(json_lines(run(home, "tail", "--json", "--since", "2h"))) == 3


@pytest.mark.parametrize("value", ["1", "h", "1.5h", "-1h", "1y", "", "\u0661h", "9999999d"])
def test_a_duration_that_means_nothing_is_wrong_usage(home: Path, value: str) -> None:
    result = run(home, "tail", "--since", value)
    assert result.exit_code == 2
    assert "90s, 15m, 1h" in result.output


@pytest.mark.parametrize("options", [["--verdict", "maybe"], ["--reason", "mood"], ["-n", "-1"]])
def test_a_filter_that_cannot_match_is_wrong_usage(home: Path, options: list[str]) -> None:
    assert run(home, "tail", *options).exit_code == 2


@pytest.mark.parametrize("command", [["tail"], ["show", "0199"]])
def test_no_audit_is_an_error_with_a_hint(tmp_path: Path, command: list[str]) -> None:
    result = run(tmp_path, *command)
    assert result.exit_code == 2
    assert "there is no audit" in result.stderr
    assert "--home" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("as_json", [False, True])
def test_follow_goes_on_with_new_rows_until_interrupted(
    home: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    steps = iter([decision(4, tool="list_files"), refusal(5, tool="list_files"), None])

    def pause(seconds: float) -> None:
        record = next(steps)
        if record is None:
            raise KeyboardInterrupt
        plant(Home(home).audit, record)

    monkeypatch.setattr(module, "_pause", pause)
    options = ["--json"] if as_json else []
    result = run(home, "tail", "--follow", "-n", "0", "--server", "files", *options)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1
    assert "list_files" in result.stdout
    assert "bob" not in result.stdout


def test_follow_asks_again_at_once_while_there_are_full_pages(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "PAGE", 1)
    monkeypatch.setattr(module, "_pause", stop)
    monkeypatch.setattr(module, "tail", lambda *_: ())
    assert [line["seq"] for line in json_lines(run(home, "tail", "-f", "-n", "0", "--json"))] == [1, 2, 3]


def test_show_tells_all_about_one_call(home: Path) -> None:
    result = run(home, "show", event_id(2))
    assert result.exit_code == 0
    facts = dict(line.split(None, 1) for line in result.stdout.splitlines())
    assert facts["principal"] == "user:ivy@corp.example"
    assert facts["arguments"] == '{"table": "payroll"}'
    assert facts["reason_means"].startswith("No rule grants the call")
    assert facts["what_to_do"].startswith("Add a rule")
    assert facts["policy_files"] == '["policy.yaml", "servers.yaml"]'
    assert facts["policy_loaded_utc"] == "2026-09-21T14:13:20.000Z"
    assert "session" not in facts, "what is not there is not shown"


def test_show_as_json(home: Path) -> None:
    result = run(home, "show", event_id(1)[:18], "--json")
    facts = json.loads(result.stdout)
    assert tuple(facts)[: len(CALLS_NAMES)] == CALLS_NAMES
    assert facts["policy_files"] == ["policy.yaml", "servers.yaml"]
    assert facts["ended_utc"] == "2026-09-21T14:13:20.043Z"
    assert facts["outcome_means"] == "The server answered with a result."


def test_show_says_when_there_is_none_or_more_than_one(home: Path) -> None:
    none = run(home, "show", "ffffffff")
    assert none.exit_code == 1
    assert none.stdout == ""
    several = run(home, "show", event_id(1)[:8])
    assert several.exit_code == 1
    for number in (1, 2, 3):
        assert event_id(number) in several.stderr


def test_show_knows_calls_that_are_still_open(home: Path) -> None:
    facts = json.loads(run(home, "show", event_id(3), "--json").stdout)
    assert facts["outcome"] == "unknown"
    assert "it still runs" in facts["outcome_means"]


HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202e\u2066[bold red]x[/]\r\nforged\x9b1m\x00"


@pytest.mark.parametrize(
    "command",
    [
        ["tail"],
        ["tail", "--json"],
        ["show", event_id(8)],
        ["show", event_id(8), "--json"],
        ["show", event_id(8)[:8]],
    ],
    ids=" ".join,
)
def test_nothing_that_callers_sent_acts_on_the_terminal(tmp_path: Path, command: list[str]) -> None:
    names = (
        "tool",
        "target",
        "user_agent",
        "client_name",
        "detail",
        "method",
        "server",
        "session",
        "rpc_id",
        "agent",
    )
    fields = dict.fromkeys(names, HOSTILE)
    plant(
        Home(tmp_path).audit,
        decision(8, **fields, arguments={HOSTILE: HOSTILE}),
        outcome(8, detail=HOSTILE),
        decision(9),
    )
    result = run(tmp_path, *command)
    assert inert_paragraph(result.output) == result.output
    if command[0] == "tail" and "--json" not in command:
        assert "[bold red]x[/]" in result.output, "markup is shown, not obeyed"
    assert not any(line.startswith("forged") for line in result.output.splitlines())


def test_rows_of_a_hand_that_is_not_ours_are_shown_safely_too(home: Path) -> None:
    """The file's owner can insert anything; the escapes at the door do not protect the reader then."""
    connection = sqlite3.connect(Home(home).audit)
    connection.execute(
        "INSERT INTO decision(event_id, time_us, verdict, reason, method, server, upstream, principal, "
        "actors, evidence, redactions, tool) "
        "VALUES (?, ?, 'deny', 'brand_new', 'm', 's', 'u', 'p', '[]', '[]', 0, ?)",
        (event_id(8), T0, HOSTILE),
    )
    connection.commit()
    connection.close()
    for command in (["tail"], ["show", event_id(8)], ["tail", "--json"]):
        result = run(home, *command)
        assert result.exit_code == 0
        assert inert_paragraph(result.output) == result.output
    assert "A code that this version does not know." in run(home, "show", event_id(8)).output


def test_every_code_can_be_shown() -> None:
    for reason in Reason:
        assert module._described(module.REASONS, Reason, reason.value).means
    for code in Outcome:
        assert module._described(module.OUTCOMES, Outcome, code.value).means


def test_findings_say_what_who_where_and_which_key(home: Path) -> None:
    plant(
        Home(home).audit,
        finding(5),
        finding(6, kind=FindingKind.OWN_KEY, credential=None, event_id=None, detail="\x1b[2J"),
    )
    result = run(home, "findings")
    assert result.exit_code == 0
    raw, own = (
        next(line for line in result.stdout.splitlines() if kind in line) for kind in ("raw_", "own_")
    )
    for part in (
        "09-21 14:13:20",
        "user:bob@corp.example",
        "files-shared@v1",
        "in Authorization",
        event_id(5)[:18],
    ):
        assert part in raw
    assert "key 5f0c5f0c5f0c" in own
    assert "\x1b" not in result.stdout
    (line,) = json_lines(run(home, "findings", "--kind", "own_key", "--json"))
    assert line["fingerprint"] == "5f0c" * 8
    assert json_lines(run(home, "findings", "--since", "1s", "--json")) == []
    assert run(home, "findings", "--kind", "nonsense").exit_code == 2
