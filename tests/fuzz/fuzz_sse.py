"""Event streams: however they are cut, and by whichever reader, the same events."""

from __future__ import annotations

import itertools
import random
import zlib

from hypothesis import strategies as st

from callerid.mcp.sse import BOM, EventParser, EventTooLarge, read_event, with_data
from tests.fuzz.mutations import damaged
from tests.fuzz.readers import sdk_events

ENDS = [b"\n", b"\r\n", b"\r"]
LINES = [
    b"data: x", b"data:x", b"data", b"data:", b"data: ", b"data:  x", b"Data: x", b" data: x", b"data : x",
    b"data: a: b", b"id: 1", b"id", b"id:", b"id: a\0b", b"id: \xff", b"event: message", b"event: endpoint",
    b"event", b"event:", b"retry: 3", b"retry: x", b"retry:", b": a comment", b":", b"::", b"", b"", b"",
    b"other: x", b"\xff", b"\0", b"{", "data: \u2028é\x85".encode(), b"data: \xe2\x80",
    b"data: \x0b\x0c\x1c\x1d\x1e", b"\x0bdata: x", BOM + b"data: x", BOM, BOM + b"id: 7",
    BOM + b"event: endpoint", b'data: {"jsonrpc":"2.0","id":1,', b'data: "result":{}}',
]  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> bytes:
    """A stream of lines with line ends of one or of all kinds; sometimes damaged."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    ends = rng.choice([[end] for end in ENDS] + [ENDS])
    lines = draw(st.lists(st.sampled_from(LINES), max_size=14))
    raw = b"".join(
        line + rng.choice(ends) + (rng.choice(ends) if rng.random() < 0.3 else b"") for line in lines
    )
    raw = (BOM if rng.random() < 0.1 else b"") + raw
    return damaged(rng, raw, [*LINES, *ENDS]) if rng.random() < 0.3 else raw


def cuttings(stream: bytes) -> list[list[bytes]]:
    """Ways to cut a stream: whole, by the byte, between CR and LF, anywhere; the same for the same stream."""
    rng = random.Random(zlib.crc32(stream))
    made = [[stream], [stream[at : at + 1] for at in range(len(stream))]]
    made.append([part for piece in stream.split(b"\r") for part in (piece, b"\r")][:-1])
    for _ in range(3):
        places = sorted(rng.randint(0, len(stream)) for _ in range(rng.randint(1, 6)))
        made.append([stream[a:b] for a, b in itertools.pairwise([0, *places, len(stream)])])
    return made


def check(stream: bytes) -> None:
    """Any cutting gives the same events, the SDK's reader sees them too, and a rewritten event stays."""
    whole = EventParser()
    events = whole.feed(stream)
    said = [event for event in events if event.raw.strip(b"\r\n")]
    for chunks in cuttings(stream):
        parser = EventParser()
        pieces = [event for chunk in chunks for event in parser.feed(chunk)]
        assert b"".join(event.raw for event in pieces) + parser.rest() == stream
        pieces = [event for event in pieces if event.raw.strip(b"\r\n")]
        # Of a CRLF that two chunks share, the LF comes alone: the event that it ended has one byte less.
        assert [(e.data, e.event, e.id) for e in pieces] == [(e.data, e.event, e.id) for e in said]
    # The SDK's reader knows no byte order mark (ours does, as browsers do), and takes a lone CR at the very
    # end for the blank line that it waits for; the unterminated tail never leaves callerid.
    ended = stream[: len(stream) - len(whole.rest())]
    assert [(event.event, event.data) for event in said if event.data] == sdk_events(ended.removeprefix(BOM))
    for number, event in enumerate(events):
        assert read_event(event.raw, first=number == 0) == event
        for data in ("x", "", "a\r\nb\n"):
            check_rewritten(event.raw, data, first=number == 0)
    bounded(stream)


def check_rewritten(raw: bytes, data: str, *, first: bool) -> None:
    """Another event's data, and nothing else of it."""
    event = read_event(raw, first=first)
    before = b"" if first else b":\n\n"
    *_, made = EventParser().feed(before + with_data(event, data))
    assert made.data == data.replace("\r\n", "\n").replace("\r", "\n")
    assert (made.event, made.id) == (event.event, event.id)


def bounded(stream: bytes) -> None:
    """A small limit is kept, and what came before the large event is given out."""
    parser, given = EventParser(max_event=20), b""
    try:
        for chunk in cuttings(stream)[-1]:
            for event in parser.feed(chunk):
                assert len(event.raw) <= 20
                given += event.raw
    except EventTooLarge:
        pass
    assert stream.startswith(given)
