"""Our reader of chunks reads what h11's reads, in fewer and larger pieces; tokens are found across chunks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import h11
import pytest
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from hypothesis import given, settings
from hypothesis import strategies as st
from mitmproxy import http

from callerid.identity import tokens
from callerid.proxy.bodies import TokenScan, is_framed
from callerid.proxy.framing import (
    MAX_EMPTY,
    MAX_FOLDED,
    MAX_HELLO,
    MAX_SMALL,
    Chunks,
    Head,
    hello_is_ready,
    reader,
    skip_interim,
)

TOKEN = tokens.mint(bytes(range(32))).encode()


def read(with_reader: Any, parts: list[bytes]) -> tuple[bytes, str]:
    """All data, and how it ended: ``end``, ``more`` or the name of the error."""
    buffer, data = ReceiveBuffer(), b""
    try:
        for part in parts:
            buffer += part
            while (found := with_reader(buffer)) is not None:
                if isinstance(found, h11.EndOfMessage):
                    return data, "end"
                data += bytes(found.data)
    except h11.ProtocolError as error:
        return b"", type(error).__name__
    return data, "more"


def split(raw: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(raw) + 1) for cut in cuts} | {0, len(raw)})
    return [raw[a:b] for a, b in pairwise(places)]


BODIES = st.lists(st.binary(min_size=1, max_size=40), max_size=12)
CUTS = st.lists(st.integers(0, 10_000), max_size=12)


@settings(max_examples=200, deadline=None)
@given(BODIES, CUTS, st.sampled_from([b"", b"x", b"0\r\n", b"\r\n", b"zz\r\n", b";a=b"]))
def test_chunks_read_as_h11_reads_them_however_they_are_cut(
    chunks: list[bytes], cuts: list[int], stray: bytes
) -> None:
    raw = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + stray + b"0\r\n\r\n"
    parts = split(raw, cuts)
    assert read(Chunks(), parts) == read(ChunkedReader(), parts)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), CUTS)
def test_any_bytes_read_as_h11_reads_them(raw: bytes, cuts: list[int]) -> None:
    parts = split(raw, cuts)
    assert read(Chunks(), parts) == read(ChunkedReader(), parts)


def test_what_is_there_comes_in_one_piece() -> None:
    buffer = ReceiveBuffer()
    buffer += b"1\r\na\r\n" * 1000 + b"0\r\n\r\n"
    made = reader(None)
    assert made(buffer).data == b"a" * 1000
    assert isinstance(made(buffer), h11.EndOfMessage)


@pytest.mark.parametrize(
    ("size", "count", "dust"), [(1, MAX_SMALL + 1, True), (1, MAX_SMALL, False), (16, MAX_SMALL * 2, False)]
)
def test_dust_is_many_small_chunks(size: int, count: int, dust: bool) -> None:
    made, buffer = Chunks(), ReceiveBuffer()
    buffer += (b"%x\r\n" % size + b"a" * size + b"\r\n") * count
    made(buffer)
    assert made.is_dust() is dust


def test_a_head_is_measured() -> None:
    head = Head()
    head += b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\nrest"
    assert head.maybe_extract_lines() == [b"GET / HTTP/1.1", b"A: b", b" c"]
    assert (head.size, head.lines, head.folded, bytes(head)) == (28, 3, False, b"rest")


def test_empty_lines_are_counted_from_head_to_head() -> None:
    head = Head()
    for _ in range(3):
        head += b"\r\n\n" * (MAX_EMPTY // 2) + b"GET / HTTP/1.1\r\n\r\n"
        assert head.skip_empty_lines()
        assert head.maybe_extract_lines() == [b"GET / HTTP/1.1"]
    for _ in range(MAX_EMPTY):
        head += b"\n"
        assert head.skip_empty_lines()
    head += b"\n"
    assert not head.skip_empty_lines()


def test_a_return_alone_is_no_empty_line() -> None:
    head = Head()
    head += b"\r"
    assert head.skip_empty_lines()
    assert bytes(head) == b"\r"
    head += b"\nGET"
    assert head.skip_empty_lines()
    assert bytes(head) == b"GET"


def test_a_long_head_with_folds_is_never_joined() -> None:
    head = Head()
    head += b"GET / HTTP/1.1\r\nA: b\r\n" + b" c\r\n" * MAX_FOLDED + b"\r\n"
    found = head.maybe_extract_lines()
    assert found == [b"GET / HTTP/1.1"]
    assert head.folded


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=300), CUTS)
def test_a_token_in_a_passing_body_is_found_and_none_of_it_has_gone_on(
    before: bytes, after: bytes, cuts: list[int]
) -> None:
    scan, gone = TokenScan(), b""
    found = False
    for part in split(before + TOKEN + after, cuts):
        clean = scan.feed(part)
        if clean is None:
            found = True
            break
        gone += clean
    assert found
    assert b"cid_" not in gone.removeprefix(before[: len(gone)])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=500), CUTS)
def test_a_body_without_a_token_goes_on_whole(raw: bytes, cuts: list[int]) -> None:
    scan = TokenScan()
    gone = [scan.feed(part) for part in split(raw, cuts)]
    assert b"".join(part or b"" for part in gone) + scan.end() == raw


@pytest.mark.parametrize(
    ("sentence", "version", "headers", "framed"),
    [
        ("a length", "HTTP/1.1", {"content-length": "5"}, True),
        ("chunks", "HTTP/1.1", {"transfer-encoding": "chunked"}, True),
        ("a length over HTTP/2", "HTTP/2.0", {"content-length": "5"}, True),
        ("nothing over HTTP/2", "HTTP/2.0", {}, False),
        ("a lie over HTTP/2", "HTTP/2.0", {"transfer-encoding": "chunked"}, False),
        ("nothing at all", "HTTP/1.1", {}, False),
    ],
)
def test_only_a_body_whose_end_is_told_may_pass_on(
    sentence: str, version: str, headers: dict[str, str], framed: bool
) -> None:
    request = http.Request.make("POST", "https://a.example/up", b"", headers)
    request.headers.pop("content-length", None)
    request.headers.update(headers)
    request.http_version = version
    assert is_framed(request) is framed, sentence


HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + b"a" * 508


@pytest.mark.parametrize(
    ("sentence", "data", "ready"),
    [
        ("no TLS at all", b"GET / HTTP/1.1\r\n", True),
        ("nothing", b"", True),
        ("its first byte", b"\x16", False),
        ("half of it", HELLO[:300], False),
        ("all of it", HELLO, True),
        ("all of it and early data", HELLO + b"b" * MAX_HELLO, True),
        ("one that says it has 16 MiB", b"\x16\x03\x01\x40\x00\x01\xff\xff\xff", None),
        ("one in parts of a byte", b"\x16\x03\x01\x00\x01\x01" * 100, True),
        ("endless parts of a byte", b"\x16\x03\x01\x00\x01\x01" * MAX_HELLO, None),
    ],
)
def test_a_hello_is_read_when_it_is_whole(sentence: str, data: bytes, ready: bool | None) -> None:
    assert hello_is_ready(data) is ready, sentence


@pytest.mark.parametrize(
    ("raw", "count", "rest"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", 0, b"HTTP/1.1 200 OK\r\n\r\n", id="an answer"),
        pytest.param(
            b"HTTP/1.1 100 X\r\n\r\nHTTP/1.0 103 Y\r\nL: x\r\n\r\nHTTP", 2, b"HTTP", id="two before it"
        ),
        pytest.param(b"HTTP/1.1 103 X\r\nL: x\r\n", 0, b"HTTP/1.1 103 X\r\nL: x\r\n", id="half of one"),
        pytest.param(b"HTTP/1.1 101 X\r\n\r\n", 0, b"HTTP/1.1 101 X\r\n\r\n", id="one that leaves HTTP"),
        pytest.param(b"HTTP/1.1 1x3 X\r\n\r\n", 0, b"HTTP/1.1 1x3 X\r\n\r\n", id="no number"),
        pytest.param(b"", 0, b"", id="nothing"),
    ],
)
def test_interim_answers_are_taken_off(raw: bytes, count: int, rest: bytes) -> None:
    buffer = ReceiveBuffer()
    buffer += raw
    assert (skip_interim(buffer), bytes(buffer)) == (count, rest)
