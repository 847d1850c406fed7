"""What is put in the place of mitmproxy's own gives what that gave."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mitmproxy import http
from mitmproxy.coretypes.multidict import MultiDict

from callerid.proxy import engine, lighter

NAMES = st.sampled_from(
    [b"Host", b"host", b"HOST", b"hos", b"X-\xff", b"x-\xff", b"X-\xc3\xa9", b"", b"K", b"k"]
)
VALUES = st.sampled_from([b"", b"a", b"b, c", b"\xff", "\u00e9".encode()])


def mitmproxys(fields: list[tuple[bytes, bytes]], name: str) -> list[str]:
    """As mitmproxy 12 has it: the multidict's, with names and values as text."""
    raw = name.encode("utf-8", "surrogateescape")
    found: list[bytes] = MultiDict.get_all(http.Headers(fields), raw)
    return [value.decode("utf-8", "surrogateescape") for value in found]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), NAMES)
def test_headers_are_found_as_before(fields: list[tuple[bytes, bytes]], raw: bytes) -> None:
    engine.install()
    headers, name = http.Headers(fields), raw.decode("utf-8", "surrogateescape")
    before = mitmproxys(fields, name)
    assert headers.get_all(name) == headers.get_all(raw) == before
    assert headers.get(name) == headers.get(raw) == (", ".join(before) if before else None)
    assert headers.get(name, "else") == (", ".join(before) if before else "else")
    assert (name in headers) is (raw in headers) is bool(before)
    if before:
        assert headers[name] == ", ".join(before)


@pytest.mark.parametrize("name", [None, 1, ("host",)])
def test_a_name_that_is_no_text_is_a_fault(name: object) -> None:
    engine.install()
    with pytest.raises((TypeError, AttributeError)):
        http.Headers(host="a").get(name)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        assert name in http.Headers(host="a")


def test_each_place_is_there() -> None:
    engine.install()
    assert all(getattr(where, name) is ours for where, name, ours in lighter.PLACES)
