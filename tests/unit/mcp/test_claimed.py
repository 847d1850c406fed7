"""What a request says of itself, for the row: named however it is dressed, and never an exception."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.mcp.claimed import MAX_MESSAGES, claimed_messages
from callerid.model import Kind, MessageType

CALL = b'{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"read_file","arguments":{}}}'


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([], CALL),
        ([("content-encoding", "gzip")], gzip.compress(CALL, mtime=0)),
        ([("content-encoding", "gzip")], CALL),
        ([("content-encoding", "foo")], CALL),
        ([("content-type", "application/json; charset=utf-16le")], CALL),
        ([], b"\xef\xbb\xbf" + CALL),
        ([], CALL.decode().encode("utf-16")),
        ([], CALL + b" trailing"),
        ([], CALL.replace(b'"method"', b'"METHOD"')),
        ([], CALL.replace(b'"id"', b'"method":"ping","id"')),
        ([], b"[" + CALL + b"]"),
    ],
)
def test_a_call_is_named_however_it_is_dressed(headers: list[tuple[str, str]], body: bytes) -> None:
    (message,) = claimed_messages(headers, body)
    assert (message.method, message.name, message.kind) == ("tools/call", "read_file", Kind.TOOL)
    assert (message.type, message.rpc_id) == (MessageType.REQUEST, 3)


def test_every_message_of_a_batch_and_its_id() -> None:
    body = b'[{"method":"prompts/get","id":"a","params":{"name":"p"}},{"method":"acme/x"},{"id":1},7]'
    found = claimed_messages([("MCP-Protocol-Version", "2025-06-18")], body)
    assert [(m.method, m.rpc_id, m.name, m.type.value) for m in found] == [
        ("prompts/get", "a", "p", "request"),
        ("acme/x", None, None, "notification"),
    ]
    assert {message.protocol for message in found} == {"2025-06-18"}


def test_it_is_bounded() -> None:
    assert len(claimed_messages([], b"[" + b",".join([CALL] * 200) + b"]")) == MAX_MESSAGES
    (long,) = claimed_messages([], CALL.replace(b"read_file", b"x" * 90_000))
    assert len(long.name or "") < 10_000


@pytest.mark.parametrize("body", [b"", b"x", b"{", b"[]", b'{"id":1}', b'{"method":1}', b"[" * 90_000])
def test_what_says_nothing_is_nothing(body: bytes) -> None:
    assert claimed_messages([], body) == ()


@pytest.mark.parametrize("rpc_id", [b"true", b"1.5", b"null", b"[]", b"9" * 30])
def test_an_id_that_no_request_has_is_none(rpc_id: bytes) -> None:
    (message,) = claimed_messages([], CALL.replace(b'"id":3', b'"id":' + rpc_id))
    assert message.rpc_id in (None, 0)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["", "gzip", "deflate", "br"]))
def test_it_takes_any_bytes(body: bytes, encoding: str) -> None:
    claimed_messages([("Content-Encoding", encoding)] if encoding else [], body)
