"""Reading beside the way: the same messages however the bytes are cut, bounded, and never an exception."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.mcp import peek
from callerid.mcp.peek import AnswerReader, messages_in
from callerid.mcp.recognise_answer import LOOK

ONE = {"jsonrpc": "2.0", "id": 1, "result": {"content": []}}
TWO = {"jsonrpc": "2.0", "id": "1", "error": {"code": -1}}


def deflate(raw: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(raw) + stream.flush()


def dump(value: Any) -> bytes:
    return json.dumps(value).encode()


EVENTS = b": hi\n\nevent: message\r\ndata: " + dump(ONE) + b"\r\n\r\nid: 3\ndata: " + dump(TWO) + b"\n\n"

BODIES: dict[str, tuple[str, bool, bytes, list[Any]]] = {
    "JSON": ("", False, dump(ONE), [ONE]),
    "JSON behind a mark": ("identity", False, b"\xef\xbb\xbf \n" + dump(ONE), [ONE]),
    "a batch": ("", False, dump([ONE, 1, TWO]), [ONE, TWO]),
    "gzip": ("gzip", False, gzip.compress(dump(ONE)), [ONE]),
    "gzip in two members": (
        "x-gzip",
        False,
        gzip.compress(dump(ONE)[:9]) + gzip.compress(dump(ONE)[9:]),
        [ONE],
    ),
    "deflate": ("deflate", False, zlib.compress(dump(ONE)), [ONE]),
    "raw deflate": ("deflate", False, deflate(dump(ONE)), [ONE]),
    "events": ("", True, EVENTS, [ONE, TWO]),
    "events under another type": ("", False, EVENTS, [ONE, TWO]),
    "events in gzip": ("gzip", True, gzip.compress(EVENTS), [ONE, TWO]),
    "text": ("", False, b"hello", []),
    "half of a JSON": ("", False, dump(ONE)[:-1], []),
    "nothing": ("", False, b"", []),
    "space": ("", False, b" \n" * 20, []),
}


def read(reader: AnswerReader, chunks: Sequence[bytes]) -> list[Any]:
    return [message for chunk in chunks for message in reader.feed(chunk)] + reader.end()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize(("encodings", "streams", "body", "expected"), BODIES.values(), ids=BODIES)
def test_the_same_messages_however_the_bytes_are_cut(
    encodings: str, streams: bool, body: bytes, expected: list[Any], size: int
) -> None:
    reader = AnswerReader(encodings=encodings, event_stream=streams)
    assert read(reader, [body[at : at + size] for at in range(0, len(body), size)]) == expected
    assert reader.unread is None


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from(["", "gzip", "deflate", "br", "gzip, br"]),
    st.booleans(),
    st.data(),
)
def test_it_takes_any_bytes(raw: bytes, encodings: str, streams: bool, data: Any) -> None:
    at = data.draw(st.integers(0, len(raw)))
    reader = AnswerReader(encodings=encodings, event_stream=streams)
    read(reader, [raw[:at], raw[at:]])
    assert len(reader.start) <= LOOK


def test_the_start_is_decoded_and_bounded() -> None:
    reader = AnswerReader(encodings="gzip")
    reader.feed(gzip.compress(b"{" + b"x" * 2 * LOOK))
    assert reader.start == b"{" + b"x" * (LOOK - 1)


@pytest.mark.parametrize(
    ("encodings", "streams", "body", "why"),
    [
        pytest.param("br", False, b"x", "an encoding", id="an encoding that is not ours"),
        pytest.param("gzip, gzip", False, b"x", "an encoding", id="two encodings"),
        pytest.param("gzip", False, b"no gzip", "does not decode", id="what is no gzip"),
        pytest.param("", False, b"{" + b"x" * peek.MAX_MESSAGE, "longer than", id="a long body"),
        pytest.param("", True, b"data: " + b"x" * peek.MAX_MESSAGE + b"\n", "an event", id="a long event"),
    ],
)
def test_where_it_stops_it_says_why_and_holds_nothing(
    encodings: str, streams: bool, body: bytes, why: str
) -> None:
    reader = AnswerReader(encodings=encodings, event_stream=streams)
    assert read(reader, [body, dump(ONE)]) == []
    assert why in (reader.unread or "")
    assert reader._body is None
    assert reader._events is None


def test_a_bomb_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peek, "MAX_DECODED", 1_000_000)
    reader = AnswerReader(encodings="gzip", event_stream=True)
    reader.feed(gzip.compress(b"data: x\n\n" * 1_000_000))
    assert "decodes to more" in (reader.unread or "")


def test_a_stream_is_read_on_after_more_than_one_message_would_hold() -> None:
    reader = AnswerReader(event_stream=True)
    for _ in range(40):
        assert reader.feed(b": " + b"x" * 100_000 + b"\n\n") == []
    assert reader.feed(b"data: " + dump(ONE) + b"\n\n") == [ONE]


def test_the_endpoint_of_an_old_stream_is_kept() -> None:
    reader = AnswerReader(event_stream=True)
    assert reader.feed(b"event: endpoint\ndata: /m?sessionId=1\n\n") == []
    assert reader.endpoint == "/m?sessionId=1"


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' + b"9" * 9999 + b"}", b"\xff{", b"[1", b"nul"])
def test_messages_in_anything(raw: bytes) -> None:
    assert all(isinstance(message, dict) for message in messages_in(raw))
