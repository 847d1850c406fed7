"""Paths that are read in one way: what a binding takes for one and what a rule does is the same.

The two may not import each other; whatever one of them let pass alone would be judged as one path and get a
secret, or no secret, as another.
"""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from callerid.credentials.binding import is_canonical
from callerid.policy.httpnames import is_plain_path

PIECES = (
    "/", "a", "charges", ".", "..", "~", "*", "+", "=", "@", ":", "&", "(", "-", "_", "|", "[", "^", '"',
    "{", "//", "\\", "?", "#", ";", "%", "%2", "%2f", "%2F", "%5C", "%41", "%7E", "%25", "%3F", "%23", "%3b",
    "%20", "%00", "%0a", "%7F", "%C2%A0", "%C3%A4", "%E2%84%AB", "%EF%BC%8F", "%FF", "%C3", "%ED%A0%80",
    "%2A", "%2B", "ä", " ", "\t", "\n", "\x7f", "\ud800", "%zz", "%+1", "%１2",
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join) | st.text(max_size=12))
@example("")
@example("/")
def test_a_binding_and_a_rule_agree_on_which_paths_are_plain(path: str) -> None:
    for said in (path, f"/{path}"):
        assert is_canonical(said) is is_plain_path(said)


@pytest.mark.parametrize("number", range(256))
def test_they_agree_on_every_byte_and_every_escape(number: int) -> None:
    for said in (f"/a{chr(number)}b", f"/a%{number:02X}b", f"/a%{number:02x}", f"/%C3%{number:02X}"):
        assert is_canonical(said) is is_plain_path(said)
