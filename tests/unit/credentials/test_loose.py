from __future__ import annotations

import pytest

from callerid.credentials.loose import plain
from callerid.credentials.needles import Needles
from callerid.credentials.scrub import MARKER, Scrubber
from callerid.credentials.secret import Secret
from callerid.credentials.tripwire import Tripwire
from tests.unit.credentials.helpers import credential

VALUE = "sk-Upstream/Se+cret_4f9c2a7d81e6b350=Q"
KEY = bytes(range(32))


def over(*values: str) -> Scrubber:
    return Scrubber(needle for value in values for needle in Secret(value, label="s@v1").renderings())


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(VALUE.replace("+", "&#43;"), id="Go html/template"),
        pytest.param(VALUE.replace("=", "&#x3D;"), id="Handlebars"),
        pytest.param(VALUE.replace("=", "&#x3d;").replace("/", "&#X2F;"), id="Mustache"),
        pytest.param(VALUE.replace("+", "&amp;#0043;"), id="HTML in HTML"),
        pytest.param(VALUE.replace("+", "&plus;").replace("/", "&sol;"), id="names of HTML"),
        pytest.param(
            VALUE.replace("/", "%252F").replace("+", "%252b").replace("=", "%25253D"), id="URL in URL"
        ),
        pytest.param(VALUE.replace("+", "\\u002b").replace("=", "\\u003D"), id="script, \\u"),
        pytest.param(VALUE.replace("/", "\\x2f").replace("=", "\\x3D"), id="script, \\x"),
        pytest.param(VALUE.replace("/", "\\/").replace("=", "\\="), id="backslashes"),
        pytest.param(VALUE.replace("c", "%63"), id="letters that need no escape"),
        pytest.param("".join(f"&#{ord(c)};" for c in VALUE), id="every character"),
        pytest.param(VALUE[:20] + "\n" + VALUE[20:], id="two lines"),
        pytest.param(VALUE[:1] + "\r\n" + VALUE[1:], id="two lines, the first of one character"),
        pytest.param("\0".join(VALUE), id="UTF-16"),
    ],
)
def test_an_echo_in_any_common_escaping_is_taken_out(shown: str) -> None:
    found, hits = over(VALUE).scrub(f'<a href="{shown}">'.encode())
    assert hits == 1
    assert MARKER in found
    assert b"4f9c2a7d" not in found.replace(b"\0", b"")
    secret = Secret(VALUE, label="s@v1")
    wire = Tripwire(KEY, [(credential(), secret, secret.renderings())], over(VALUE))
    if shown.isprintable():
        assert wire.look([("X-Foo", shown)], "/").refused
    assert wire.in_body(shown.encode()) is not None


@pytest.mark.parametrize(
    "honest",
    [
        VALUE[:20] + "\n\n" + VALUE[20:],
        VALUE[:20] + " " * 41 + VALUE[20:],
        VALUE.replace("/", "|"),
        VALUE.upper(),
        VALUE.replace("/", "%2E"),
        VALUE[:20] + '","' + VALUE[20:],
    ],
)
def test_what_only_resembles_it_passes(honest: str) -> None:
    assert over(VALUE).scrub(honest.encode()) == (honest.encode(), 0)


def test_a_secret_made_of_escapes_is_the_same_on_both_sides() -> None:
    assert plain(b"100%25-&amp;-\\n-%41b%zz") == b"100%-&--Ab%zz"
    odd = "Zr%41&lt;\\q%2541%&amp;x-and-more"
    assert over(odd).holds(odd.replace("%", "%25").encode())
    assert over(odd).holds(odd.replace("&", "&amp;").encode())


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b" .\n", b'"}\n'])
def test_the_end_of_an_event_is_not_held_back(end: bytes) -> None:
    stream = over(VALUE).stream()
    assert stream.feed(b"data: " + VALUE[:9].encode() + end) == b"data: " + VALUE[:9].encode() + end


def test_a_line_that_ends_as_a_secret_begins_is_not_held_back() -> None:
    assert over(VALUE).stream().feed(b"it rains\n") == b"it rains\n"


@pytest.mark.parametrize(
    "cut", [b"%", b"%2", b"%25", b"\\", b"\\u00", b"\\x2", b"&", b"&am", b"&#4", b"&amp;"]
)
def test_an_escape_that_is_cut_waits(cut: bytes) -> None:
    stream = over(VALUE).stream()
    assert stream.feed(b". sk-Upstream" + cut) == b". "
    assert stream.feed(b" !") == b"sk-Upstream" + cut + b" !"


@pytest.mark.parametrize(
    "piece", [b"\\", b"sk-U", b"s \n", b"%25", b"&amp;", b"sk-Upstream/Se+cret", b"s\\u00"]
)
def test_hostile_data_does_not_have_it_look_again_and_again(piece: bytes) -> None:
    """What is read is in proportion to the data; if it were its square, this would not end."""
    data = piece * (300_000 // len(piece)) + b"/"
    assert over(VALUE, "/" + VALUE).scrub(data) == (data, 0)


def test_with_very_many_secrets_marks_are_still_read_in_any_escape() -> None:
    many = [f"{number:04d}-token/of+somebody={number}" for number in range(300)]
    subject = over(*many)
    for value in many[::50]:
        assert subject.holds(value.replace("/", "&#x2F;").replace("+", "\\u002b").encode())


def test_a_needle_taken_out_is_not_read_loosely_either() -> None:
    one, two = (
        Secret(VALUE, label="a@v1").renderings(),
        Secret("another-of/them=all", label="b@v1").renderings(),
    )
    less = Needles({*one, *two}).without(one)
    assert less.find(VALUE.replace("/", "&#47;").encode(), 0) is None
    assert less.find(b"another-of&#47;them=all", 0) == (0, 23)
