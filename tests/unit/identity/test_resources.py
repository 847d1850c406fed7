"""URLs as names of resources: one spelling each, and no way from one to another."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.identity.resources import MAX_URL, at_origin, canonical_url, same_resource

MCP = "https://mcp.corp.example/mcp"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MCP, MCP),
        ("HTTPS://MCP.Corp.Example:443/mcp", MCP),
        ("https://mcp.corp.example/mcp?x=1#y", MCP),
        ("https://mcp.corp.example", "https://mcp.corp.example/"),
        ("https://mcp.corp.example?x", "https://mcp.corp.example/"),
        ("http://mcp.corp.example:0080/%7eme/%c3%a9", "http://mcp.corp.example/~me/%C3%A9"),
        ("https://[2001:DB8::1]:8443/mcp", "https://[2001:db8::1]:8443/mcp"),
        ("https://mcp.corp.example/a%2Fb", "https://mcp.corp.example/a%2Fb"),
    ],
)
def test_a_url_has_one_spelling(text: str, expected: str) -> None:
    assert canonical_url(text) == expected
    assert canonical_url(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        None, 7, "", "/mcp", "mcp.corp.example", "ftp://mcp.corp.example/", "https://", "https:///mcp",
        "https://alice@mcp.corp.example/", "https://mcp.corp.example:x/", "https://mcp.corp.example:70000/",
        "https://[::1/mcp", "https://[::1]x/mcp", "https://a:b:c/", "https://mcp.corp.example/../x",
        "https://mcp.corp.example/a/./b", "https://mcp.corp.example/%2e%2e/x", "https://mcp.corp.example/%zz",
        "https://mcp.corp.example/%2", "https://mcp.corp.example/a b", "https://mcp.corp.example/\x00",
        "https://mcp.corp.example\\@evil.example/", "https://mcp.corp.exämple/", "*",
        "https://h/" + "x" * MAX_URL,
    ],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_is_no_url(text: object) -> None:
    assert canonical_url(text) is None


@pytest.mark.parametrize(
    ("audience", "same"),
    [
        (MCP, True),
        (MCP + "/", True),
        ("https://MCP.corp.example:443/mcp", True),
        ("https://mcp.corp.example", False),
        ("https://mcp.corp.example/", False),
        ("https://mcp.corp.example/mc", False),
        ("https://mcp.corp.example/mcp/tools", False),
        ("https://mcp.corp.example/mcp//", False),
        ("https://mcp.corp.example/MCP", False),
        ("https://mcp.corp.example/mcp?x=1", False),
        ("https://mcp.corp.example/mcp#x", False),
        ("http://mcp.corp.example/mcp", False),
        ("https://mcp.corp.example:8443/mcp", False),
        ("https://mcp.corp.example.evil.example/mcp", False),
        (["https://mcp.corp.example/mcp"], False),
        (None, False),
    ],
)
def test_a_resource_is_compared_whole(audience: object, same: bool) -> None:
    assert same_resource(audience, MCP) is same
    assert same_resource(audience, None) is False


def test_a_path_can_be_named_at_another_origin() -> None:
    assert at_origin("https://up.corp.example:8443/a/b?c", "https://MCP.corp.example/x") == (
        "https://mcp.corp.example/a/b"
    )
    assert at_origin("https://up.corp.example/", "http://mcp.corp.example:8080") == (
        "http://mcp.corp.example:8080/"
    )
    assert at_origin(None, MCP) is None
    assert at_origin(MCP, "mcp-egress") is None


@given(text=st.text(st.characters(codec=None), max_size=40) | st.from_regex(r"https?://[a-z:/?#@%.\[\]]*"))
@settings(max_examples=100, deadline=None)
def test_any_text_has_a_spelling_that_stays_or_none(text: str) -> None:
    found = canonical_url(text)
    assert found is None or canonical_url(found) == found
    assert same_resource(text, text) in (True, False)
