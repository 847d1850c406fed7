from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest

from callerid.audit.redact import DEPTH_LIMIT, JSON_LIMIT, STRING_LIMIT, redact, redact_text

CANARY = "canary-7f3a"


def unchanged(text: str) -> str:
    return text


def parsed(arguments: dict[str, Any]) -> Any:
    return json.loads(redact(arguments, scrub=unchanged)[0])


@pytest.mark.parametrize("value", [CANARY, {"a": [CANARY]}, [CANARY], 731, True, None, 1.5])
def test_a_secret_member_loses_its_value_of_any_type(value: Any) -> None:
    text, hits = redact({"deep": [{"user-PASSWORD": value}]}, scrub=unchanged)
    assert json.loads(text) == {"deep": [{"user-PASSWORD": "[redacted]"}]}
    assert hits == 1


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"env": [{"name": "API_KEY", "value": CANARY}]}, id="an environment as a list"),
        pytest.param({"headers": [["Authorization", CANARY]]}, id="headers as pairs"),
        pytest.param({"args": ["mysql", "--password", CANARY, "-h"]}, id="an option of a command line"),
        pytest.param({"cmd": f"curl -H 'Authorization: Bearer {CANARY}'"}, id="a header in a command"),
        pytest.param({f"ghp_{'a1' * 10}{CANARY[:0]}": 1}, id="a token as a member's name"),
    ],
)
def test_secrets_in_the_usual_disguises_leave(arguments: dict[str, Any]) -> None:
    text, hits = redact(arguments, scrub=unchanged)
    assert CANARY not in text
    assert "ghp_a1" not in text
    assert hits == 1


def test_live_secrets_leave_values_and_names() -> None:
    text, hits = redact(
        {"note": f"say {CANARY}!", CANARY: 1}, scrub=lambda text: text.replace(CANARY, "[shared]")
    )
    assert json.loads(text) == {"note": "say [shared]!", "[shared]": 1}
    assert hits == 2


def test_json_values_survive_unchanged() -> None:
    arguments = {"a": None, "b": [True, False, 0, -7, 1.5, 10**30], "c": {"d": "é\n\x1b"}, "": "", "e": {}}
    assert parsed(arguments) == arguments


def test_mappings_and_tuples_of_the_models_are_understood() -> None:
    assert redact(MappingProxyType({"a": (1, MappingProxyType({}))}), scrub=unchanged)[0] == '{"a":[1,{}]}'


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        pytest.param(float("nan"), "NaN", id="not a number"),
        pytest.param(10**400, "[number of 1329 bits]", id="a number that no reader parses"),
        pytest.param(b"bytes", "[bytes]", id="bytes"),
        pytest.param(object(), "[object]", id="an object, whose repr is not trusted"),
        pytest.param("\ud800", "\\ud800", id="a lone surrogate"),
    ],
)
def test_what_json_cannot_carry_becomes_a_note(value: Any, stored: str) -> None:
    assert parsed({"x": value}) == {"x": stored}


def test_a_long_string_is_cut_with_its_length() -> None:
    (value,) = parsed({"x": "é" * 20_000}).values()
    assert value == "é" * (STRING_LIMIT // 2) + "... [cut: 20000 characters in all]"


@pytest.mark.parametrize("before", [STRING_LIMIT - 9, STRING_LIMIT - 1, STRING_LIMIT + 1])
def test_a_secret_across_the_cut_leaves_no_half(before: int) -> None:
    secret = "ghp_" + "Zq" * 40
    stored = redact({"x": "a" * (before - 1) + " " + secret + "b" * 9000}, scrub=unchanged)[0]
    assert "Zq" not in stored


def test_two_names_that_redaction_made_equal_are_both_kept() -> None:
    stored = parsed({"cid_aaaaaaaaaaaa": 1, "cid_bbbbbbbbbbbb": 2})
    assert stored == {"[redacted]": 1, "[redacted] (2)": 2}


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({f"k{i}": "v" * 50 for i in range(50_000)}, id="many members"),
        pytest.param({"x": ["v"] * 200_000}, id="many items"),
        pytest.param({"x": ["\x00" * 9000] * 50}, id="strings that escaping makes six times longer"),
        pytest.param({"\U000e0041" * 300 + str(i): "y" * 8000 for i in range(50)}, id="names that grow"),
        pytest.param({"x": [[[["v" * 8000] * 5] * 5] * 5] * 5}, id="a tree"),
    ],
)
def test_the_whole_stays_json_within_its_limit(arguments: dict[str, Any]) -> None:
    text = redact(arguments, scrub=unchanged)[0]
    assert len(text.encode()) <= JSON_LIMIT
    assert "[cut" in text
    assert isinstance(json.loads(text), dict)


def test_nesting_ends_before_the_stack_does() -> None:
    nested: Any = CANARY
    for _ in range(100_000):
        nested = [nested]
    text = redact({"x": nested}, scrub=unchanged)[0]
    assert f"[cut: deeper than {DEPTH_LIMIT} levels]" in text
    json.loads(text)
    while isinstance(nested, list):  # taken apart by hand: its destructor would recurse
        nested = nested.pop()


def test_text_for_a_column_is_redacted_inert_and_short() -> None:
    made = redact_text(f"\x1b[1m Bearer {'a1' * 9} " + "x" * 500, scrub=unchanged, limit=40)
    assert made == "\\x1b[1m Bearer [redacted] xxxxxxxxxxxxxx... [cut: 531 characters in all]"


def test_text_that_fits_is_left_alone() -> None:
    assert redact_text("read_file", scrub=unchanged, limit=9) == "read_file"


@pytest.mark.parametrize(
    "text",
    [
        "Bearer\nmF_9.B5f-4.1JqM-hunter2",
        "run --password\thunter2-and-more",
        'say "hello"\nBearer\r\nmF_9.B5f-4.1JqM-hunter2',
    ],
    ids=["line feed", "tab", "quotes and CRLF"],
)
def test_an_escape_in_the_json_text_hides_no_shape(text: str) -> None:
    stored, hits = redact({"note": text}, scrub=str)
    assert "hunter2" not in stored
    assert hits == 1


def test_a_live_secret_that_json_escapes_is_found() -> None:
    stored, hits = redact(
        {"note": 'x pa"ss\\7f3a y'}, scrub=lambda text: text.replace('pa"ss\\7f3a', "[shared]")
    )
    assert json.loads(stored) == {"note": "x [shared] y"}
    assert hits == 1
