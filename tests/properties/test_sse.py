"""However a stream is cut, the same events come out of it, and no byte is lost or added."""

from __future__ import annotations

import itertools

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from callerid.mcp.documents import may_be_message
from callerid.mcp.sse import EventParser, read_event, with_data
from tests.unit.mcp.pipeline_bench import Bench

PIECES = [
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"data", b"data:", b"data: x", b":"),
    *(b"id: 1", b"event: message", b"retry: 3", b" ", b"\xff", b"\0", "data: \u2028é".encode()),
    b'data: {"jsonrpc":"2.0"}',
]
STREAMS = st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=30).map(b"".join)
CUTS = st.lists(st.integers(min_value=0, max_value=200), max_size=12)


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(place, len(stream)) for place in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(places)]


def read(chunks: list[bytes]) -> tuple[list[tuple[str | None, str, str | None]], bytes, bytes]:
    parser = EventParser()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    said = [(event.data, event.event, event.id) for event in events if event.raw.strip(b"\r\n")]
    return said, b"".join(event.raw for event in events), parser.rest()


@settings(max_examples=300, deadline=None)
@given(STREAMS, CUTS)
def test_any_cut_gives_the_same_events_and_all_the_bytes(stream: bytes, cuts: list[int]) -> None:
    said, raw, rest = read([stream])
    assert raw + rest == stream
    pieces = read(cut(stream, cuts))
    assert pieces[0] == said
    assert pieces[1] + pieces[2] == stream
    assert pieces[2].lstrip(b"\n") == rest.lstrip(b"\n")


@settings(max_examples=100, deadline=None)
@given(STREAMS)
def test_byte_by_byte_gives_the_same_events(stream: bytes) -> None:
    assert read([bytes([byte]) for byte in stream])[0] == read([stream])[0]


@settings(max_examples=100, deadline=None)
@given(STREAMS)
def test_the_reader_agrees_with_one_that_knows_the_whole_stream(stream: bytes) -> None:
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]
    expected: list[str] = []
    data: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        if not line and data:
            expected.append("\n".join(data))
        if not line:
            data = []
        if name == "data":
            data.append(value.removeprefix(" "))
    assert [said[0] for said in read([stream])[0] if said[0] is not None] == expected


@settings(max_examples=100, deadline=None)
@given(
    st.text(max_size=40),
    st.sampled_from([b"data: a\n\n", b"id: 1\r\ndata: a\r\ndata: b\r\nretry: 3\r\n\r\n"]),
)
def test_data_put_into_an_event_is_read_back(data: str, raw: bytes) -> None:
    written = with_data(read_event(raw), data)
    [event] = EventParser().feed(written)
    assert event.data == data.replace("\r\n", "\n").replace("\r", "\n")
    assert event.id == read_event(raw).id


@settings(max_examples=100, deadline=None)
@given(STREAMS, CUTS)
def test_a_pipeline_with_nothing_to_do_gives_out_every_byte_of_every_event(
    stream: bytes, cuts: list[int]
) -> None:
    assume(not may_be_message(stream))  # what could be one for another reader does not pass
    pipeline = Bench(on_endpoint=lambda data: data, max_event=1_000_000).pipeline
    out = [piece for chunk in cut(stream, cuts) for piece in pipeline.feed(chunk)]
    tail = read(cut(stream, cuts))[2]
    assert b"".join(out) + tail == stream
    assert pipeline.end() == []
    assert pipeline.dropped == (1 if tail else 0)
