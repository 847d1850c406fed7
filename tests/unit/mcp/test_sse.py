from __future__ import annotations

import pytest

from callerid.mcp.sse import Event, EventParser, EventTooLarge, read_event, with_data

MESSAGE = '{"jsonrpc":"2.0","id":0,"result":{}}'


def parse(stream: bytes, size: int) -> tuple[list[Event], bytes]:
    """Feed the stream in pieces of ``size`` bytes; the events without the bare line ends between them."""
    parser = EventParser()
    events = [event for i in range(0, len(stream), size) for event in parser.feed(stream[i : i + size])]
    assert b"".join(event.raw for event in events) + parser.rest() == stream
    return [event for event in events if event.raw.strip(b"\r\n")], parser.rest()


# The framing table of the field guide, section 6.2, and the rest of the grammar.
FRAMINGS = [
    pytest.param(b"data: x\n\n", ["x"], id="line feeds"),
    pytest.param(b"data: x\r\n\r\n", ["x"], id="carriage return and line feed"),
    pytest.param(b"data: x\r\r", ["x"], id="carriage returns alone"),
    pytest.param(b"data: x\r\n\n", ["x"], id="mixed line ends, CRLF then LF"),
    pytest.param(b"data: x\n\r\n", ["x"], id="mixed line ends, LF then CRLF"),
    pytest.param(b"data: x\r\r\n", ["x"], id="mixed line ends, CR then CRLF"),
    pytest.param(b"data:x\n\n", ["x"], id="no space after the colon"),
    pytest.param(b"data:  x\n\n", [" x"], id="only one space is taken off"),
    pytest.param(b"\xef\xbb\xbfdata: x\n\n", ["x"], id="byte order mark at the start"),
    pytest.param(b"\xef\xbb\xbf\ndata: x\n\n", [None, "x"], id="byte order mark alone on the first line"),
    pytest.param(
        b"data: x\n\n\xef\xbb\xbfdata: y\n\n", ["x", None], id="byte order mark further on is no mark"
    ),
    pytest.param(b": hi\ndata: x\nfoo: bar\n\n", ["x"], id="comments and unknown fields"),
    pytest.param(b'data: {"a":\ndata: 1}\n\n', ['{"a":\n1}'], id="data over two lines"),
    pytest.param(b"data\n\n", [""], id="data without a colon is an empty line"),
    pytest.param(b"data\ndata\n\n", ["\n"], id="two data lines without colons"),
    pytest.param(b"DATA: x\n\n", [None], id="field names have their case"),
    pytest.param(b" data: x\n\n", [None], id="a space before the name makes another field"),
    pytest.param(b": keep-alive\n\n", [None], id="comment only"),
    pytest.param(b"id: 7\n\n", [None], id="id only"),
    pytest.param(b"retry: 10\n\n", [None], id="retry only"),
    pytest.param(b"id: 7\ndata: \n\n", [""], id="prime event: id and empty data"),
    pytest.param(
        "data: a\u2028b\u0085c\x0b\n\n".encode(), ["a\u2028b\u0085c\x0b"], id="Unicode line ends are text"
    ),
    pytest.param(b"data: \xff\n\n", ["\ufffd"], id="not UTF-8"),
    pytest.param(b"data: x\n\ndata: y\n\n", ["x", "y"], id="two events"),
    pytest.param(b"\n\n\ndata: x\n\n\n", ["x"], id="blank lines between events"),
    pytest.param(b"data: x\n\ndata: y", ["x"], id="unterminated tail"),
    pytest.param(b"data: x\n", [], id="missing final blank line"),
    pytest.param(b"", [], id="nothing"),
]


@pytest.mark.parametrize(("stream", "data"), FRAMINGS)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_framings_give_the_same_data_however_they_are_cut(stream: bytes, data: list[str], size: int) -> None:
    events, _ = parse(stream, size)
    assert [event.data for event in events] == data


def test_an_event_knows_its_type_and_its_id() -> None:
    events, rest = parse(b"event: endpoint\nid: 5\ndata: /m\n\ndata: y\n\nevent:\nid:\ndata: z\n\ntail", 1000)
    assert [(e.event, e.id, e.data) for e in events] == [
        ("endpoint", "5", "/m"),
        ("message", None, "y"),
        ("message", "", "z"),
    ]
    assert rest == b"tail"


def test_the_last_type_and_id_of_an_event_count_and_an_id_with_nul_does_not() -> None:
    event = read_event(b"event: a\nevent: b\nid: 1\nid: 2\nid: 3\0\ndata: x\n\n")
    assert (event.event, event.id) == ("b", "2")


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_an_event_comes_with_the_byte_that_ends_it_and_no_later(end: bytes) -> None:
    parser = EventParser()
    last = b"\r" if end == b"\r\n\r\n" else end[-1:]  # a CR ends the blank line, LF or not
    stream = (b"data: x" + end).removesuffix(b"\n" if last == b"\r" and end.endswith(b"\n") else b"")
    assert parser.feed(stream[:-1]) == []
    assert [event.data for event in parser.feed(stream[-1:])] == ["x"]


def test_the_line_feed_of_a_cut_crlf_passes_at_once_and_starts_no_event() -> None:
    parser = EventParser()
    assert [event.raw for event in parser.feed(b"data: x\r\n\r")] == [b"data: x\r\n\r"]
    assert parser.feed(b"") == []
    assert parser.feed(b"\n") == [Event(b"\n", None, "message", None)]
    assert parser.rest() == b""
    assert [event.data for event in parser.feed(b"data: y\r\n\r\n")] == ["y"]


def test_the_line_feed_of_a_crlf_cut_inside_an_event_does_not_end_it() -> None:
    parser = EventParser()
    assert parser.feed(b"data: x\r") == []
    assert parser.feed(b"\n") == []
    assert parser.feed(b"data: y\r") == []
    assert [event.data for event in parser.feed(b"\n\r\n")] == ["x\ny"]


def test_a_large_event_is_refused_from_then_on() -> None:
    parser = EventParser(max_event=10)
    assert parser.feed(b"data: xx") == []
    with pytest.raises(EventTooLarge) as caught:
        parser.feed(b"xxx")
    assert caught.value.hint
    with pytest.raises(EventTooLarge):
        parser.feed(b"\n\n")


def test_a_large_event_is_refused_even_if_it_ends_in_the_same_chunk() -> None:
    with pytest.raises(EventTooLarge):
        EventParser(max_event=10).feed(b"data: xxxxxxxx\n\n")


def test_an_event_of_just_the_limit_passes() -> None:
    assert len(EventParser(max_event=10).feed(b"data: xx\n\n")) == 1


@pytest.mark.parametrize("large", [b"data: xxxxxxxx", b"data: xxxxxxxx\n\n"])
def test_events_before_a_large_one_are_not_lost(large: bytes) -> None:
    parser = EventParser(max_event=10)
    assert [event.data for event in parser.feed(b"data: a\n\n" + large)] == ["a"]
    with pytest.raises(EventTooLarge):
        parser.feed(b"")


def test_the_limit_is_of_one_event_not_of_the_stream() -> None:
    parser = EventParser(max_event=10)
    assert sum(len(parser.feed(b"data: a\n\n" * 3)) for _ in range(10)) == 30


def test_other_data_keeps_the_rest_of_the_event_in_its_order() -> None:
    raw = b": hi\r\nid: 7\r\nevent: message\r\ndata: a\r\ndata: b\r\nretry: 5\r\nx: \xff\r\n\r\n"
    assert with_data(read_event(raw), MESSAGE) == (
        b": hi\nid: 7\nevent: message\ndata: " + MESSAGE.encode() + b"\nretry: 5\nx: \xff\n\n"
    )


@pytest.mark.parametrize(
    ("data", "read"),
    [
        ("", ""),
        ("a", "a"),
        (" a", " a"),
        ("a\nb", "a\nb"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\n", "a\n"),
        ("\n", "\n"),
        ("a\n\nid: 9", "a\n\nid: 9"),
        ("a\u2028b", "a\u2028b"),
    ],
)
@pytest.mark.parametrize("raw", [b"id: 1\ndata: old\n\n", b"\xef\xbb\xbfdata: old\n\n", b"id: 1\n\n"])
def test_other_data_is_read_back_as_it_was_given(data: str, read: str, raw: bytes) -> None:
    events, rest = parse(with_data(read_event(raw, first=True), data), 1000)
    assert [event.data for event in events] == [read]
    assert events[0].id == ("1" if b"id" in raw else None)
    assert rest == b""


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("raw", "first", "event_id"),
    [
        pytest.param(BOM + b"id: 1\ndata: x\n\n", True, "1", id="a mark at the start"),
        pytest.param(BOM + BOM + b"id: 1\ndata: x\n\n", True, None, id="two marks at the start"),
        pytest.param(BOM + b"id: 1\ndata: x\n\n", False, None, id="a mark in mid-stream"),
        pytest.param(BOM + b"event: endpoint\rid: 2\rdata: x\r\r", False, "2", id="a type behind a mark"),
        pytest.param(BOM + BOM + b"\n" + BOM + b"id: 4\ndata: x\n\n", True, None, id="marks in a row"),
        pytest.param(BOM + BOM + b"a\n" + BOM + BOM + b"id: 4\ndata: x\n\n", True, None, id="two in a row"),
        pytest.param(b"id: 5\n" + BOM + b"id: 6\ndata: x\n\n", True, "5", id="a mark before a later line"),
        pytest.param(BOM + b"data: x\ndata: y\nid: 3\n\n", False, "3", id="data behind a mark"),
    ],
)
def test_a_line_behind_a_mark_is_read_after_a_change_as_before_it(
    raw: bytes, first: bool, event_id: str | None
) -> None:
    event = read_event(raw, first=first)
    assert (event.event, event.id) == ("message", event_id)
    written = with_data(event, "y")
    assert BOM not in written
    for again in (read_event(written, first=True), read_event(written)):
        assert (again.data, again.event, again.id) == ("y", "message", event_id)
