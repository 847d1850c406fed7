from __future__ import annotations

from urllib.parse import parse_qsl, quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.credentials.query import hides, values, with_parameter, without


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/mcp", "/mcp?api_key=s"),
        ("/mcp?", "/mcp?api_key=s"),
        ("/mcp?q=1", "/mcp?q=1&api_key=s"),
        ("/mcp?api_key=mine", "/mcp?api_key=s"),
        ("/mcp?api_key", "/mcp?api_key=s"),
        ("/mcp?api_key=mine&q=1&api_key=again", "/mcp?q=1&api_key=s"),
        ("/mcp?%61pi_key=mine", "/mcp?api_key=s"),
        ("/mcp?api%5Fkey=mine", "/mcp?api_key=s"),
        ("/mcp?API_KEY=mine", "/mcp?api_key=s"),
        ("/mcp?api_key[]=mine", "/mcp?api_key=s"),
        ("/mcp?api_key%5B0%5D=mine", "/mcp?api_key=s"),
        ("/mcp?api.key=mine&api+key=mine&+api_key=mine", "/mcp?api_key=s"),
        ("/mcp?q=a%2Bb%20c&x=y", "/mcp?q=a%2Bb%20c&x=y&api_key=s"),
        ("/mcp?my_api_key=1&api_key2=2", "/mcp?my_api_key=1&api_key2=2&api_key=s"),
    ],
)
def test_the_parameter_is_the_only_one_of_its_name_and_the_others_stay(target: str, expected: str) -> None:
    assert with_parameter(target, "api_key", "s") == expected


def test_the_value_is_percent_encoded() -> None:
    assert with_parameter("/", "k", "a&b=c#d e+f/%") == "/?k=a%26b%3Dc%23d%20e%2Bf%2F%25"


def test_what_is_left_without_it() -> None:
    assert without("/mcp?api%5Fkey=x&q=1", "api_key") == "/mcp?q=1"
    assert without("/mcp", "api_key") == "/mcp"


def test_values_are_decoded_and_all_there() -> None:
    assert values("/mcp?api_key=a%2Bb&API_KEY=c+d&q=1", "api_key") == ("a+b", "c d")
    assert values("/mcp", "api_key") == ()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/mcp?q=1;api_key=x", True),
        ("/mcp?q=1;API%5FKEY=x", True),
        ("/mcp?api_key=x;q=1", False),
        ("/mcp", False),
    ],
)
def test_a_parameter_behind_a_semicolon_is_seen(target: str, expected: bool) -> None:
    assert hides(target, "api_key") is expected


@settings(max_examples=100, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.sampled_from(["q", "api_key", "API_key", "x[]"]), st.text(max_size=6))),
    value=st.text(min_size=1),
)
def test_any_reader_of_forms_finds_our_value_alone(pairs: list[tuple[str, str]], value: str) -> None:
    query = "&".join(f"{quote(name)}={quote(text, safe='')}" for name, text in pairs)
    found = parse_qsl(
        with_parameter(f"/p?{query}", "api_key", value).partition("?")[2], keep_blank_values=True
    )
    assert [text for name, text in found if name.lower() == "api_key"] == [value]
    assert [pair for pair in found if pair[0].lower() != "api_key"] == [
        pair for pair in pairs if pair[0].lower() != "api_key"
    ]
