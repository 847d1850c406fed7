"""What a row shows of a request."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.proxy.rows import shown_path

TOKEN = "cid_" + "Ab3" * 14


def encoded(text: str) -> str:
    return "".join(f"%{ord(char):02x}" for char in text)


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/mcp", "/mcp"),
        ("/mcp?key=1", "/mcp"),
        ("/a%20b", "/a%20b"),
        ("*", "*"),
        ("", ""),
        (f"/{TOKEN}/x?y", f"/{TOKEN}/x"),
        (f"/{encoded(TOKEN)}/x", f"/{TOKEN}/x"),
        (f"/{quote(encoded(TOKEN))}/x", f"/{TOKEN}/x"),
    ],
)
def test_a_path_is_shown_without_its_query_and_so_that_a_secret_in_it_can_be_seen(
    target: str, shown: str
) -> None:
    """The audit hides secrets by their shape; in disguise they have none."""
    assert shown_path(target) == shown


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_it_takes_any_text(target: str) -> None:
    assert "?" not in shown_path(target) or "%3" in target.lower()
