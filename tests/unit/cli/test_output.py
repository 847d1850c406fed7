"""Output: what a terminal gets is text, whatever the wire put into it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from callerid.cli.output import handle_errors, print_json, printable, printable_lines, table
from callerid.errors import ConfigError, Problem, StoreError
from callerid.model import Reason


def run(body: Any) -> Result:
    return CliRunner().invoke(click.command()(handle_errors(body)))


@dataclass(frozen=True)
class Pair:
    left: int
    right: object


class Colour(Enum):
    RED = "red"


def test_our_errors_become_a_message_and_a_hint() -> None:
    def body() -> None:
        raise StoreError("the audit is gone", hint="Look for it.")

    result = run(body)
    assert result.exit_code == 2
    assert (result.stdout, result.stderr) == ("", "error: the audit is gone\nhint: Look for it.\n")


def test_problems_are_printed_and_escapes_in_them_are_not_obeyed() -> None:
    def body() -> None:
        problem = Problem(file="policy.yaml", line=1, column=1, message="bad \x1b[2J", source="\x9bline")
        raise ConfigError("1 problem", problems=(problem,))

    assert run(body).stderr == ("error: 1 problem\npolicy.yaml:1:1: bad \\u001b[2J\n    \\u009bline\n    ^\n")


def test_other_exceptions_are_not_swallowed() -> None:
    def body() -> None:
        raise KeyError("x")

    assert isinstance(run(body).exception, KeyError)


def test_json_understands_our_nouns() -> None:
    value = {
        "pair": Pair(1, Reason.GRANTED),
        "set": frozenset({"b", "a"}),
        "map": MappingProxyType({"k": (1, 2.5, None, True)}),
        "path": Path("/srv"),
        "time": datetime(2026, 11, 23, tzinfo=UTC),
        "colour": Colour.RED,
        "text": "grün \x9b \u202e \ud800",
    }
    result = run(lambda: print_json(value))
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "pair": {"left": 1, "right": "granted"},
        "set": ["a", "b"],
        "map": {"k": [1, 2.5, None, True]},
        "path": "/srv",
        "time": "2026-11-23T00:00:00+00:00",
        "colour": "red",
        "text": "grün \x9b \u202e \ud800",
    }
    assert "grün" in result.stdout
    assert "\x9b" not in result.stdout
    assert "\u202e" not in result.stdout


@pytest.mark.parametrize("value", [object(), b"bytes", Pair, {"a": [object()]}])
def test_json_prints_nothing_that_it_does_not_know(value: object) -> None:
    result = run(lambda: print_json(value))
    assert isinstance(result.exception, TypeError)
    assert result.stdout == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_stays_json(value: float) -> None:
    assert isinstance(run(lambda: print_json(value)).exception, ValueError)


def test_a_table_shows_markup_and_escapes_as_text() -> None:
    rows = [("[red]x[/red]", None, Reason.GRANTED), ("a\x1b[2J\nb", 5, "")]
    result = run(lambda: table(("one", "two", "three"), rows, title="calls"))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "calls"
    assert "[red]x[/red]" in result.stdout
    assert "granted" in result.stdout
    assert "a\\u001b[2J\\u000ab" in result.stdout
    assert "\x1b" not in result.stdout


def test_a_table_into_a_pipe_is_not_wrapped_or_padded() -> None:
    result = run(lambda: table(("a", "b"), [("long " * 60, "x")]))
    (row,) = [line for line in result.stdout.splitlines() if "long" in line]
    assert row.rstrip().endswith("x")
    assert all(line == line.rstrip() for line in result.stdout.splitlines())


def test_printable() -> None:
    assert printable("a\r\n\x00\u200b\ud800é") == "a\\u000d\\u000a\\u0000\\u200b\\ud800é"
    assert printable(5) == "5"
    assert printable_lines("a\nb\x07") == "a\nb\\u0007"
