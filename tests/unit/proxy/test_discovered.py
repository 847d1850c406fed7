"""Places where MCP was found: one place by all its spellings, bound to who said so, bounded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.proxy.discovered import MAX_TOOLS, SENDERS, Discovered, spot

HERE = spot("docs.corp.example", 443, "/mcp")


@pytest.mark.parametrize(
    "target",
    ["/mcp", "/mcp/", "//mcp", "/MCP", "/mcp?a=b", "/mcp#x", "/%6dcp", "/%256dcp", "/./mcp", "/x/../mcp",
     "/mcp;v=1", "\\mcp", "/mcp%3Fx", "/mcp/%2e", "mcp"],
)  # fmt: skip
def test_spellings_that_some_server_takes_for_one_are_one(target: str) -> None:
    assert spot("DOCS.corp.example.", 443, target) == HERE


@pytest.mark.parametrize(
    ("host", "port", "target"),
    [("docs.corp.example", 443, "/mcp/x"), ("docs.corp.example", 443, "/"),
     ("docs.corp.example", 8443, "/mcp"), ("other.corp.example", 443, "/mcp")],
)  # fmt: skip
def test_other_places_are_others(host: str, port: int, target: str) -> None:
    found = Discovered()
    found.prove(HERE)
    assert not found.is_proved(spot(host, port, target))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80))
def test_a_spot_is_made_of_any_text_and_is_one_with_itself(text: str) -> None:
    place = spot("h", 1, text)
    assert spot("h", 1, text + "?x=1") == place or "?" in text or "#" in text
    assert place.path.startswith("/")


def test_the_servers_word_binds_all_and_a_senders_only_itself() -> None:
    found = Discovered()
    found.claim(HERE, ("user:ivy@corp.example", "192.0.2.7"))
    assert found.is_claimed(HERE)
    assert found.is_claimed(HERE, ("x", "192.0.2.7"))
    assert not found.is_claimed(HERE, ("user:bob@corp.example", "192.0.2.8"))
    assert not found.is_proved(HERE)
    found.prove(HERE)
    assert found.is_proved(HERE)


def test_no_table_grows_without_bound_and_claims_push_out_no_proof() -> None:
    found = Discovered(limit=10)
    found.prove(HERE)
    for number in range(100):
        found.claim(spot("h", number, "/"), ("x",))
        found.new_tools("h", "h:1", str(number), ["t"])
    assert found.is_proved(HERE)
    assert not found.is_claimed(spot("h", 0, "/"))
    assert found.is_claimed(spot("h", 99, "/"), ("x",))
    found.claim(HERE, map(str, range(3 * SENDERS)))
    assert not found.is_claimed(HERE, ("0",))
    assert len(found._tools) == 10


def test_the_place_used_last_is_forgotten_last() -> None:
    found = Discovered(limit=2)
    first, second, third = (spot("h", port, "/") for port in (1, 2, 3))
    found.prove(first)
    found.prove(second)
    assert found.is_proved(first)
    found.prove(third)
    assert (found.is_proved(first), found.is_proved(second)) == (True, False)


def test_tools_are_told_once_and_not_without_end() -> None:
    found = Discovered()
    assert found.new_tools("s", "u", "/", ["b", "a", "a"]) == ("a", "b")
    assert found.new_tools("s", "u", "/", ["a", "c" * 500]) == ("c" * 128,)
    assert found.new_tools("s", "u", "/other", ["a"]) == ("a",)
    assert len(found.new_tools("s", "u", "/", map(str, range(999)))) == MAX_TOOLS - 3
    assert found.new_tools("s", "u", "/", ["one more"]) == ()
