"""Which headers of an API call go on, which are arguments, and what is said of the others."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.mcp.httpheads import PASSES, arguments_of, left_behind, shown

LISTED = ("stripe-account", "destination")
NAMES = [
    *("Destination", "x-amz-copy-source", "Sudo", "Stripe-Account", "X-Forwarded-Path"),
    "X-Envoy-Original-Path",
    *("Private-Token", "X-Vault-Token", "X-Goog-Api-Key", "X-Amz-Target", "Depth", "From", "X-Made-Up"),
    *("Content-Disposition", "Content-Location", "Last-Event-Id", "Stripe_Account", " Accept", "Accept "),
]  # fmt: skip


def test_the_names_that_pass_are_written_as_they_are_compared() -> None:
    assert all(name == name.lower().strip() and "_" not in name for name in PASSES)


@pytest.mark.parametrize("name", NAMES)
def test_what_could_name_something_else_stays_behind(name: str) -> None:
    assert left_behind([(name, "x"), ("Accept", "*/*")], ()) == (name,)


@pytest.mark.parametrize(
    "name",
    ["Accept", "CONTENT-TYPE", "If-None-Match", "Range", "Idempotency-Key", "traceparent", "Prefer", "Host"],
)  # fmt: skip
def test_what_says_nothing_about_that_goes_on(name: str) -> None:
    assert left_behind([(name, "x")], ()) == ()


def test_a_listed_header_goes_on_by_its_own_spelling_only() -> None:
    headers = [("STRIPE-Account", "acct_1"), ("Stripe_Account", "acct_2"), ("Sudo", "root")]
    assert left_behind(headers, LISTED) == ("Stripe_Account", "Sudo")
    assert arguments_of(headers, LISTED) == {"stripe-account": "acct_1"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param(["acct_1"], "acct_1", id="once"),
        pytest.param([" acct_1\t"], "acct_1", id="with blanks around it"),
        pytest.param(["acct_1", "acct_2"], ["acct_1", "acct_2"], id="twice"),
        pytest.param(["acct_1, acct_2"], ["acct_1", "acct_2"], id="twice, in one line"),
        pytest.param([""], "", id="empty"),
    ],
)
def test_a_listed_header_is_an_argument(values: list[str], said: str | list[str]) -> None:
    headers = [("Stripe-Account", value) for value in values]
    assert arguments_of([*headers, ("Accept", "a, b")], LISTED) == {"stripe-account": said}


@pytest.mark.parametrize("value", ["acct_\xe9", "acct_\udce9", "a\x00b", "a\x7fb", "a\r\nb"])
def test_a_listed_header_that_servers_read_differently_has_no_reading(value: str) -> None:
    assert isinstance(arguments_of([("Destination", value)], LISTED), str)
    assert arguments_of([("X-Other", value)], LISTED) == {}


def test_the_row_names_what_stayed_behind_and_is_bounded() -> None:
    assert (
        shown(["X-B", "x-a", "X-A", "Proxy-Connection", "X-Callerid-Token"])
        == "headers left behind: x-a, x-b"
    )
    assert shown(["DPoP"], passes=("dpop",)) is None
    assert shown(()) is None
    many = shown([f"x-{n:02}" for n in range(30)])
    assert many == "headers left behind: " + ", ".join(f"x-{n:02}" for n in range(8)) + ", 22 more"
    assert shown(["x" * 500]) == f"headers left behind: {'x' * 40}..."
    assert shown(["x\r\nInjected: y"]) == "headers left behind: x??injected??y"


@given(
    st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=6), st.sets(st.text(max_size=5))
)
@settings(max_examples=100, deadline=None)
def test_anything_has_an_answer(headers: list[tuple[str, str]], listed: set[str]) -> None:
    arguments_of(headers, listed)
    said = shown(left_behind(headers, listed))
    assert said is None or (said.isascii() and said.isprintable() and len(said) < 500)
