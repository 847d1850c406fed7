from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mitmproxy.test import tutils

from callerid.credentials.scrub import Scrubber
from callerid.proxy.http_answers import HELD_BYTES, PlainBody, is_held, is_json

SECRET = b"up-secret-4f9c2a7d81e6b350"
OTHER = b"another-secret-77aa0b1c"


def body(*secrets: bytes) -> PlainBody:
    scrubber = Scrubber(secrets or (SECRET,))
    return PlainBody(lambda: scrubber)


PIECES = st.lists(st.sampled_from([b"a", b"\n", SECRET, SECRET[:7], SECRET[7:], b"xy" * 9]), max_size=12)


@given(PIECES, st.lists(st.integers(0, 200), max_size=8))
@settings(max_examples=150, deadline=None)
def test_however_it_is_cut_what_goes_out_holds_no_secret(pieces: list[bytes], cuts: list[int]) -> None:
    raw, made, out, at = b"".join(pieces), body(), [], 0
    for cut in [*sorted(c for c in cuts if c < len(raw)), len(raw)]:
        out += made.feed(raw[at:cut])
        at = cut
    out += made.end()
    assert b"" not in out  # an empty chunk would end the answer
    clean, hits = Scrubber((SECRET,)).scrub(raw)
    assert (b"".join(out), made.hits) == (clean, hits)


def test_a_secret_that_is_rotated_on_the_way_is_looked_for_from_then_on() -> None:
    live = [Scrubber((SECRET,))]
    made = PlainBody(lambda: live[0])
    out = made.feed(b"one " + SECRET[:9])
    live[0] = Scrubber((SECRET, OTHER))
    out += made.feed(SECRET[9:] + b" two " + OTHER[:5])
    out += made.feed(OTHER[5:] + b" three") + made.end()
    assert b"".join(out) == b"one [callerid:removed] two [callerid:removed] three"
    assert made.hits == 2


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (b"plain " + SECRET, b"plain [callerid:removed]"),
        (b'{"a": "\\u0075' + SECRET[1:] + b'", "b": 1.50}', b'{"a":"[callerid:removed]","b":1.5}'),
        (b'{"a": "\\u00e9", "b": 1.50}', b'{"a": "\\u00e9", "b": 1.50}'),
        (b"\\u no JSON", b"\\u no JSON"),
        (b"\xff\x00", b"\xff\x00"),
    ],
)
def test_a_whole_body_is_only_changed_where_a_secret_is(raw: bytes, clean: bytes) -> None:
    made = body().body(raw)
    assert made == clean or (SECRET[1:] in raw and json.loads(made) == json.loads(clean))


@pytest.mark.parametrize(
    ("method", "status", "length", "held"),
    [
        ("HEAD", 200, None, True),
        ("GET", 204, None, True),
        ("GET", 304, "99999999", True),
        ("GET", 200, "0", True),
        ("GET", 200, str(HELD_BYTES), True),
        ("GET", 200, str(HELD_BYTES + 1), False),
        ("GET", 200, None, False),
        ("GET", 200, "9" * 20, False),
        ("GET", 200, "-1", False),
        ("GET", 200, "1, 1", False),
    ],
)
def test_only_a_short_body_of_known_length_is_held(
    method: str, status: int, length: str | None, held: bool
) -> None:
    response = tutils.tresp(status_code=status)
    response.headers.clear()
    if length is not None:
        response.headers["content-length"] = length
    assert is_held(tutils.treq(method=method.encode()), response) is held


HIDDEN = b'{"k":"\\u0075' + SECRET[1:] + b'"}'
FOUND = b'{"k":"[callerid:removed]"}'


def json_body() -> PlainBody:
    return PlainBody(lambda: Scrubber((SECRET,)), is_json=True)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_json_in_pieces_is_held_until_escapes_can_be_read(size: int) -> None:
    made = json_body()
    raw = b'{\n "a": [1,\n  ' + HIDDEN + b"]\n}"
    out = [part for at in range(0, len(raw), size) for part in made.feed(raw[at : at + size])]
    assert out == []
    assert json.loads(b"".join(made.end())) == {"a": [1, json.loads(FOUND)]}
    assert made.hits == 1


def test_json_without_a_secret_is_as_it_was() -> None:
    made = json_body()
    raw = b'{\n "a": "\\u00e9"}\n'
    assert b"".join([*made.feed(raw), *made.end()]) == raw


def test_lines_of_json_pass_one_by_one() -> None:
    """As a watch of Kubernetes has them: the first is to go on at once (DESIGN section 1, law 8)."""
    made = json_body()
    assert made.feed(b'{"type": "ADDED"}\n' + HIDDEN[:9]) == [b'{"type": "ADDED"}\n']
    assert made.feed(HIDDEN[9:]) == []
    assert made.feed(b"\n\n") == [FOUND + b"\n\n"]
    assert made.feed(HIDDEN) == []
    assert made.end() == [FOUND]
    assert made.hits == 2


def test_lines_in_a_short_body_are_read_too() -> None:
    assert body().body(b'{"a":1}\n' + HIDDEN + b"\n") == b'{"a":1}\n' + FOUND + b"\n"


def test_json_that_is_longer_than_what_is_held_passes_and_is_searched_for_bytes() -> None:
    made = json_body()
    start = b'{"a": "' + b"x" * HELD_BYTES
    assert len(b"".join(made.feed(start))) > HELD_BYTES - 200
    out = [*made.feed(SECRET + b'", "b": "'), *made.feed(b'"}'), *made.end()]
    assert b"[callerid:removed]" in b"".join(out)
    assert made.hits == 1


@pytest.mark.parametrize(
    ("media", "held"),
    [("application/json", True), ("Application/JSON ; charset=utf-8", True), ("application/hal+json", True),
     ("application/x-ndjson", True), ("application/jsonl", True), ("text/event-stream", False),
     ("application/json-seq", False), ("text/plain", False), (None, False)],
)  # fmt: skip
def test_what_calls_itself_json(media: str | None, held: bool) -> None:
    response = tutils.tresp()
    response.headers.clear()
    if media is not None:
        response.headers["content-type"] = media
    assert is_json(response) is held
