"""Is it MCP? Everything that some server would execute is seen; neighbours are not taken for it."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from callerid.mcp.methods import METHODS
from callerid.mcp.recognise import (
    looks_like_mcp_request,
    looks_like_mcp_response,
    may_be_message,
    may_get_rpc_answer,
)
from callerid.mcp.recognise_answer import LOOK, has_mcp_head, is_event_stream

CALL = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file","arguments":{"a":1}}}'
BOTH = ("Accept", "application/json, text/event-stream")
INIT = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}

Headers = list[tuple[str, str]]


def rpc(method: str, params: Any = None) -> bytes:
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": method}
    if params is not None:
        message["params"] = params
    return json.dumps(message).encode()


def deflate(raw: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(raw) + stream.flush()


def asked(body: bytes, headers: Headers | None = None, method: str = "POST") -> bool:
    return looks_like_mcp_request(method, headers or [], body)


SEEN: dict[str, tuple[bytes, Headers]] = {
    "a call": (CALL.encode(), []),
    "a call as text/plain": (CALL.encode(), [("Content-Type", "text/plain")]),
    "a call as a form": (CALL.encode(), [("Content-Type", "application/x-www-form-urlencoded")]),
    "a mark": (b"\xef\xbb\xbf" + CALL.encode(), []),
    "UTF-16 with a mark": (CALL.encode("utf-16"), []),
    "UTF-16 LE": (CALL.encode("utf-16-le"), []),
    "UTF-16 BE": (CALL.encode("utf-16-be"), []),
    "UTF-16 BE with a mark": (b"\xfe\xff" + CALL.encode("utf-16-be"), []),
    "UTF-32 with a mark": (CALL.encode("utf-32"), []),
    "UTF-32 LE": (CALL.encode("utf-32-le"), []),
    "UTF-32 BE": (CALL.encode("utf-32-be"), []),
    "UTF-32 BE with a mark": (b"\x00\x00\xfe\xff" + CALL.encode("utf-32-be"), []),
    "UTF-16 LE behind spaces": (f"  {CALL}".encode("utf-16-le"), []),
    "UTF-7 by charset": (b"+AHs-" + CALL[1:].encode(), [("Content-Type", "application/json; charset=utf-7")]),
    "UTF-16 by charset": (
        CALL.encode("utf-16-le"),
        [("Content-Type", 'application/json;charset="UTF-16LE"')],
    ),
    "gzip": (gzip.compress(CALL.encode()), [("Content-Encoding", "gzip")]),
    "gzip in capitals": (gzip.compress(CALL.encode()), [("content-encoding", "X-GZIP")]),
    "deflate": (zlib.compress(CALL.encode()), [("Content-Encoding", "deflate")]),
    "raw deflate": (deflate(CALL.encode()), [("Content-Encoding", "deflate")]),
    "gzip twice": (gzip.compress(gzip.compress(CALL.encode())), [("Content-Encoding", "gzip, gzip")]),
    "gzip of UTF-16": (gzip.compress(CALL.encode("utf-16")), [("Content-Encoding", "gzip")]),
    "gzip and identity": (
        gzip.compress(CALL.encode()),
        [("Content-Encoding", "identity"), ("Content-Encoding", "gzip")],
    ),
    "brotli with both accepted": (b"\x0b\x02\x80abc", [("Content-Encoding", "br"), BOTH]),
    "gzip in name only": (CALL.encode(), [("Content-Encoding", "gzip")]),
    "raw deflate in name only": (CALL.encode(), [("Content-Encoding", "deflate")]),
    "raw deflate in name only, that can be undone": (
        b'[{"ad":1,' + CALL.encode()[1:] + b"]", [("Content-Encoding", "deflate")],
    ),
    "an encoding that nobody knows": (CALL.encode(), [("Content-Encoding", "foo")]),
    "brotli in name only": (CALL.encode(), [("Content-Encoding", "br")]),
    "two encodings in name only": (CALL.encode(), [("Content-Encoding", "gzip, br")]),
    "an encoding in name only, in a batch": (f"[{CALL}]".encode(), [("Content-Encoding", "zstd")]),
    "an encoding in name only, long": (
        CALL.replace("read_file", "x" * 2_000_000).encode(), [("Content-Encoding", "br")],
    ),
    "a charset in name only": (CALL.encode(), [("Content-Type", "application/json; charset=utf-16le")]),
    "UTF-16 that says it is UTF-32": (
        CALL.encode("utf-16-le"), [("Content-Type", "application/json; charset=utf-32")],
    ),
    "a charset and an encoding in name only": (
        CALL.encode(), [("Content-Type", "application/json; charset=utf-32"), ("Content-Encoding", "foo")],
    ),
    "leading space": (b" \r\n\t" + CALL.encode(), []),
    "much leading space": (b" " * 5000 + CALL.encode(), []),
    "a batch": (f"[{CALL}]".encode(), []),
    "a batch with junk first": (f"[1,null,[],{CALL}]".encode(), []),
    "method twice, harmless last": (CALL.replace('"params"', '"method":"x","params"').encode(), []),
    "method twice, harmless first": (CALL.replace('"method"', '"method":"x","method"').encode(), []),
    "METHOD": (CALL.replace('"method"', '"METHOD"').encode(), []),
    "JsonRpc": (CALL.replace('"jsonrpc"', '"JsonRpc"').encode(), []),
    "escaped words": (
        CALL.replace("tools/call", "\\u0074ools\\/call").replace("method", "\\u006dethod").encode(),
        [],
    ),
    "a method with space": (CALL.replace("tools/call", " Tools/Call\\n").encode(), []),
    "no jsonrpc": (CALL.replace('"jsonrpc":"2.0",', "").encode(), []),
    "NaN": (CALL.replace("1}}", "NaN}}").encode(), []),
    "text after it": (CALL.encode() + b"\n{}", []),
    "a raw newline in a string": (CALL.replace("read_file", "read\nfile").encode(), []),
    "Latin-1 inside": (CALL.replace("read_file", "caf\u00e9").encode("latin-1"), []),
    "an endless number": (CALL.replace(":1}}", ":" + "1" * 9999 + "}}").encode(), []),
    "broken at the end": (CALL.encode()[:-1], []),
    "a trailing comma": (CALL.replace("}}}", "},}}").encode(), []),
    "very deep": (CALL.replace(":1}}", ":" + "[" * 200_000 + "]" * 200_000 + "}}").encode(), []),
    "long": (CALL.replace("read_file", "x" * 2_000_000).encode(), []),
    "long, the method in the middle": (
        b'{"a":"%s","jsonrpc":"2.0","method":"tools\\/call","b":"%s"}' % (b"x" * 2_000_000, b"y" * 2_000_000),
        [],
    ),
    "initialize": (rpc("initialize", INIT), []),
    "initialize from a bare client": (rpc("initialize", {}), [BOTH]),
    "a ping with both accepted": (rpc("ping"), [BOTH]),
    "a task with meta": (rpc("tasks/get", {"taskId": "t", "_meta": {"io.modelcontextprotocol/x": 1}}), []),
    "a vendor's method with meta": (
        rpc("acme/run", {"_meta": {"io.modelcontextprotocol/clientInfo": {}}}),
        [],
    ),
    "a session": (b"", [("mcp-session-id", "x")]),
    "a version": (b"", [("Mcp-Protocol-Version", "2025-06-18")]),
    "a version to come": (b"x", [("MCP-Protocol-Version", "2099-01-01")]),
    "a method header": (b"", [("Mcp-Method", "tools/call")]),
    "a WebSocket of MCP's": (b"", [("Sec-WebSocket-Protocol", "chat, MCP")]),
    "a task by its id": (rpc("tasks/get", {"taskId": "t"}), []),
    "long, and compressed": (
        gzip.compress(CALL.replace("read_file", "x" * 2_000_000).encode()), [("Content-Encoding", "gzip")],
    ),
    "long, compressed, and its params first": (
        gzip.compress(
            b'{"params":{"x":"tools/call","name":"%s"},' % (b"x" * 999_000)
            + b'"jsonrpc":"2.0","method":"tools/call"}'
        ),
        [("Content-Encoding", "gzip")],
    ),
    "a foreign member and then the message": (
        b'{"model":"%s",%s' % (b"x" * 2_000_000, CALL.encode()[1:]), [],
    ),
}  # fmt: skip

UNSEEN: dict[str, tuple[bytes, Headers]] = {
    "nothing": (b"", []),
    "nothing with both accepted": (b"", [BOTH]),
    "space": (b" \n", []),
    "LSP initialize": (
        rpc(
            "initialize", {"processId": 1, "rootUri": None, "capabilities": {}, "clientInfo": {"name": "vim"}}
        ),
        [],
    ),
    "LSP completion": (rpc("textDocument/completion", {"position": {}}), []),
    "LSP initialize with both accepted": (
        rpc("initialize", {"processId": 1, "capabilities": {}, "clientInfo": {"name": "vim"}}), [BOTH],
    ),
    "another protocol's initialize": (
        rpc("initialize", {"protocolVersion": 1, "clientInfo": {"name": "z"}}), [],
    ),
    "an A2A task with both accepted": (rpc("tasks/get", {"id": "t", "historyLength": 1}), [BOTH]),
    "a WebSocket of another": (b"", [("Sec-WebSocket-Protocol", "graphql-ws, mcpx")]),
    "a long context of a model": (
        json.dumps({"model": "x", "messages": [CALL, "io.modelcontextprotocol/"] * 20_000}).encode(), [],
    ),
    "the same, compressed": (
        gzip.compress(
            json.dumps({"model": "x", "messages": [CALL, "io.modelcontextprotocol/"] * 20_000}).encode()
        ),
        [("Content-Encoding", "gzip")],
    ),
    "a long schema": (
        json.dumps({"x": "y" * 2_000_000, "jsonrpc": {}, "method": {"const": "tools/call"}}).encode(), [],
    ),
    "A2A": (rpc("message/send", {"message": {"role": "user", "parts": []}}), [BOTH]),
    "A2A task": (rpc("tasks/get", {"id": "t"}), [("Accept", "application/json")]),
    "A2A cancel": (rpc("tasks/cancel", {"id": "t"}), []),
    "Ethereum": (rpc("eth_call", [{"to": "0x0"}, "latest"]), []),
    "a bare ping": (rpc("ping"), []),
    "OpenAI": (
        b'{"model":"x","stream":true,"messages":[{"role":"user","content":"tools/call via jsonrpc method"}],'
        b'"tools":[{"type":"function","function":{"name":"tools/call","parameters":{}}}]}',
        [BOTH],
    ),
    "Anthropic": (
        b'{"model":"x","mcp_servers":[{"type":"url","url":"https://docs.corp.example/mcp"}],"messages":[]}',
        [BOTH],
    ),
    "a message about MCP": (json.dumps({"text": CALL}).encode(), []),
    "a list of texts about MCP": (json.dumps([CALL, {"jsonrpc": CALL}]).encode(), []),
    "GraphQL": (b'{"query":"{ method }"}', [BOTH]),
    "a REST body with a method": (b'{"method":"card","params":{"name":"x"}}', []),
    "a client response without a session": (b'{"jsonrpc":"2.0","id":1,"result":{}}', []),
    "a form": (b"method=tools/call&jsonrpc=2.0", []),
    "a form with x": (b"x=1", []),
    "an image": (b"\x89PNG\r\n\x1a\n" + bytes(1000), []),
    "gzip of a picture": (gzip.compress(b"\x89PNG" + bytes(100)), [("Content-Encoding", "gzip")]),
    "gzip that is not": (b"hello", [("Content-Encoding", "gzip")]),
    "brotli": (b"\x0b\x02\x80abc", [("Content-Encoding", "br")]),
    "a model's request that says it is compressed": (
        b'{"model":"x","messages":[{"role":"user","content":"tools/call"}],"tools":[]}',
        [("Content-Encoding", "gzip")],
    ),
    "LSP in an encoding in name only": (
        rpc("initialize", {"processId": 1, "capabilities": {}, "clientInfo": {"name": "vim"}}),
        [("Content-Encoding", "br"), ("Content-Type", "application/json; charset=utf-16")],
    ),
    "brotli that begins like JSON": (b"{" + bytes(range(256)) * 40, [("Content-Encoding", "br")]),
    "a version that is no date": (b"", [("MCP-Protocol-Version", "1.0")]),
    "a version that looks like one": (b"", [("MCP-Protocol-Version", "2025-0-618")]),
    "deep and broken": (b"[" * 100_000, []),
    "long": (b'{"jsonrpc":"2.0","method":"eth_call","params":"' + b"x" * 2_000_000 + b'"}', []),
    "numbers": (b"[1,2,3]", []),
}  # fmt: skip


@pytest.mark.parametrize(("body", "headers"), SEEN.values(), ids=SEEN)
def test_seen(body: bytes, headers: Headers) -> None:
    assert asked(body, headers)


@pytest.mark.parametrize(("body", "headers"), UNSEEN.values(), ids=UNSEEN)
def test_not_taken_for_mcp(body: bytes, headers: Headers) -> None:
    assert not asked(body, headers)


SHARED = {"initialize", "ping", "tasks/list", "tasks/get", "tasks/result", "tasks/cancel", "tasks/update"}


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"notifications/tasks/status"}))
def test_methods_that_are_mcp_alone_and_methods_that_are_not(method: str) -> None:
    assert asked(rpc(method)) is (method not in SHARED)
    assert asked(rpc(method), [BOTH])
    assert asked(rpc(method, INIT))


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "GET"])
def test_the_body_counts_under_every_http_method(method: str) -> None:
    assert asked(CALL.encode(), method=method)


def test_a_get_with_only_a_version_may_be_oauth_discovery() -> None:
    version = ("MCP-Protocol-Version", "2025-06-18")
    assert not asked(b"", [version, ("Accept", "application/json")], "GET")
    assert not asked(b"", [version], "OPTIONS")
    assert asked(b"", [version, ("Accept", "text/event-stream")], "GET")
    assert asked(b"", [version, ("Mcp-Session-Id", "x")], "GET")
    assert asked(b"", [version], "DELETE")


def test_a_bomb_is_decoded_to_its_limit_only() -> None:
    bomb = gzip.compress(b"[" + b" " * 50_000_000 + CALL.encode() + b"]")
    assert not asked(bomb, [("Content-Encoding", "gzip")])


def result(value: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": value}).encode()


def error(code: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "x"}}).encode()


def event(data: bytes, name: str = "message", end: str = "\n") -> bytes:
    return f"event: {name}{end}data: ".encode() + data + (end * 2).encode()


INITIALIZED = result({"protocolVersion": "2025-06-18", "serverInfo": {"name": "x"}, "capabilities": {}})
STREAM = ("Content-Type", "text/event-stream; charset=utf-8")
TOOLS = result({"tools": [{"name": "read_file", "inputSchema": {"type": "object"}}]})

ANSWERS: dict[str, tuple[int, Headers, bytes]] = {
    "a session header": (202, [("MCP-Session-Id", "x")], b""),
    "initialize": (200, [], INITIALIZED),
    "a list of tools": (200, [], TOOLS),
    "a list of resources": (200, [], result({"resources": [{"uri": "x:1", "name": "x"}]})),
    "templates": (200, [], result({"resourceTemplates": [{"uriTemplate": "x:{a}"}]})),
    "contents": (200, [], result({"contents": [{"uri": "x:1", "text": "x"}]})),
    "a result of a tool": (200, [], result({"content": [{"type": "text", "text": "x"}]})),
    "a modern result": (200, [], result({"resultType": "complete"})),
    "server info in meta": (200, [], result({"_meta": {"io.modelcontextprotocol/serverInfo": {}}})),
    "a header mismatch": (400, [], error(-32020)),
    "in an array": (200, [], b"[" + TOOLS + b"]"),
    "behind a mark": (200, [], b"\xef\xbb\xbf" + TOOLS),
    "cut off in the schema": (200, [], TOOLS[:-20]),
    "cut off in initialize": (200, [], INITIALIZED[:-5]),
    "an old endpoint": (200, [], event(b"/message?sessionId=1", "endpoint")),
    "an old endpoint of Python": (200, [], event(b"/messages/?session_id=1", "endpoint")),
    "an old endpoint, CRLF": (200, [], event(b"https://docs.corp.example/m?sessionId=1", "endpoint", "\r\n")),
    "an old endpoint, CR": (200, [], event(b"/messages/1", "endpoint", "\r")),
    "an old endpoint, cut off": (200, [], b"event: endpoint\ndata: /message?sessionId=1"),
    "a list in an event": (200, [("Content-Type", "text/event-stream")], event(TOOLS)),
    "a list after a comment": (200, [], b": hello\n\n" + event(TOOLS)),
    "a list after a prime event": (200, [], b"id: 1\ndata:\n\n" + event(TOOLS)),
    "a request of the server": (200, [], event(rpc("sampling/createMessage", {}))),
    "a notification": (200, [], event(b'{"jsonrpc":"2.0","method":"notifications/progress"}')),
    "data in two lines": (200, [], b"data: " + TOOLS[:15] + b"\ndata: " + TOOLS[15:] + b"\n\n"),
    "the result first, cut off": (200, [], b'{"result":{"tools":[{"name":"x","inputSchema":{}}]},'),
    "the result first, cut off in a later tool": (
        200, [], b'{"result":{"tools":[{"name":"x","inputSchema":{}},{"name":"' + b"y" * LOOK,
    ),
    "an odd endpoint of a stream that says what it is": (200, [STREAM], event(b"/x/y?z=1", "endpoint")),
    "a long list": (200, [], TOOLS[:-3] + b',{"name":"' + b"y" * LOOK),
}  # fmt: skip

NO_ANSWERS: dict[str, tuple[int, Headers, bytes]] = {
    "nothing": (200, [], b""),
    "HTML": (200, [("Content-Type", "text/html")], b"<html>"),
    "tools outside JSON-RPC": (200, [], b'{"tools":[{"name":"x","inputSchema":{}}]}'),
    "an Ethereum result": (200, [], result("0x1")),
    "an LSP result": (200, [], result({"capabilities": {}, "serverInfo": {"name": "x"}})),
    "an LSP hover": (200, [], result({"contents": {"kind": "markdown", "value": "x"}})),
    "an A2A result": (200, [], result({"kind": "message", "parts": [{"kind": "text", "text": "x"}]})),
    "an A2A event": (200, [], event(result({"kind": "status-update", "taskId": "t"}))),
    "an error of anyone": (200, [], error(-32601)),
    "a header mismatch that is no 400": (200, [], error(-32020)),
    "an error with an odd code": (400, [], error([1])),
    "a content of odd types": (200, [], result({"content": [{"type": ["text"]}, 1]})),
    "OpenAI's stream": (200, [], b'data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: [DONE]\n\n'),
    "another endpoint": (200, [], event(b"/stream", "endpoint")),
    "an endless number": (200, [], result({"a": 1}).replace(b"1}", b"1" * 9999 + b"}")),
    "very deep": (200, [], b'{"jsonrpc":' + b"[" * 200_000),
    "bytes": (200, [], bytes(range(256))),
    "an answer quoted in a text": (200, [], json.dumps({"body": TOOLS.decode()}).encode()),
    "an answer quoted in a result": (200, [], result({"text": TOOLS.decode()})),
    "a quoted answer, cut off": (200, [], json.dumps({"jsonrpc": TOOLS.decode() * 9}).encode()[:900]),
    "MCP's schema": (
        200, [], b'{"$defs":{"x":{"jsonrpc":"2.0","inputSchema":{},"serverInfo":{},"protocolVersion":{',
    ),
    "a model's answer in JSON-RPC": (
        200, [], result({"role": "assistant", "content": [{"type": "text", "text": "x"}]}),
    ),
    "Prometheus": (200, [], result({"resultType": "matrix", "result": []})),
    "resources without names": (200, [], result({"resources": [{"uri": "x:1"}]})),
    "an endpoint after other events": (
        200, [STREAM], event(b"1", "tick") + event(b"/x", "endpoint"),
    ),
    "an endpoint that is no URL": (200, [STREAM], event(b"hello world", "endpoint")),
    "a notification of another's": (200, [], event(b'{"jsonrpc":"2.0","method":"notifications/new"}')),
    "A2A's push": (200, [], event(b'{"jsonrpc":"2.0","method":"notifications/tasks/status"}')),
    "an A2A task": (
        200, [],
        result({"id": "t", "kind": "task", "artifacts": [{"parts": [{"kind": "text", "text": "x"}]}]}),
    ),
    "the result first of somebody's": (
        200, [], b'{"result":{"content":[{"type":"text","text":"' + b"x" * LOOK,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("status", "headers", "body"), ANSWERS.values(), ids=ANSWERS)
def test_answers_seen(status: int, headers: Headers, body: bytes) -> None:
    assert looks_like_mcp_response(status, headers, body)


@pytest.mark.parametrize(("status", "headers", "body"), NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_answers_not_taken_for_mcp(status: int, headers: Headers, body: bytes) -> None:
    assert not looks_like_mcp_response(status, headers, body)


def test_a_get_is_answered_in_events_only_and_says_so() -> None:
    assert not looks_like_mcp_response(200, [], TOOLS, http_method="GET")
    assert not looks_like_mcp_response(200, [], event(TOOLS), http_method="GET")
    assert looks_like_mcp_response(200, [STREAM], event(TOOLS), http_method="GET")
    assert looks_like_mcp_response(200, [("mcp-session-id", "x")], b"", http_method="GET")
    assert looks_like_mcp_response(200, [], TOOLS, http_method="PUT")


def test_no_more_than_the_first_bytes_are_looked_at() -> None:
    assert looks_like_mcp_response(200, [], b" " * (LOOK - len(TOOLS)) + TOOLS)
    assert not looks_like_mcp_response(200, [], b" " * LOOK + TOOLS)


@pytest.mark.parametrize("at", range(0, len(TOOLS) + 1, 7))
def test_an_answer_that_is_cut_anywhere_is_seen_once_its_shape_is_there(at: int) -> None:
    seen = looks_like_mcp_response(200, [], TOOLS[:at])
    assert seen is (b'"inputSchema": {' in TOOLS[:at])


def test_heads() -> None:
    assert has_mcp_head([("MCP-SESSION-ID", "")])
    assert not has_mcp_head([("X-Mcp-Session-Id", "x")])
    assert is_event_stream([STREAM])
    assert not is_event_stream([("Content-Type", "application/json"), ("Accept", "text/event-stream")])


WORTH: dict[str, tuple[str, Headers, bytes, bool]] = {
    "JSON-RPC of a vendor": ("POST", [], rpc("acme/run"), True),
    "escaped words": ("POST", [], b'{"json\\u0072pc":1}', True),
    "UTF-16": ("POST", [], CALL.encode("utf-16"), True),
    "UTF-7": ("POST", [], b"+AHs-", True),
    "brotli": ("POST", [("Content-Encoding", "br")], b"x", True),
    "gzip": ("POST", [("Content-Encoding", "gzip")], gzip.compress(rpc("acme/run")), True),
    "JSON-RPC in raw deflate in name only": (
        "POST",
        [("Content-Encoding", "deflate")],
        b'[{"ad":1,' + CALL.replace("tools/call", "acme/run").encode()[1:] + b"]",
        True,
    ),
    "gzip of another thing": ("POST", [("Content-Encoding", "gzip")], gzip.compress(b'{"a":1}'), False),
    "other JSON with an accent": ("POST", [], b'{"model":"caf\\u00e9 \\u2019"}', False),
    "other JSON": ("POST", [], b'{"model":"x","messages":[]}', False),
    "a form": ("POST", [], b"method=x&jsonrpc=2.0", False),
    "nothing": ("POST", [], b"", False),
    "a GET": ("GET", [], rpc("acme/run"), False),
}


@pytest.mark.parametrize(("method", "headers", "body", "worth"), WORTH.values(), ids=WORTH)
def test_whose_answer_is_worth_a_look(method: str, headers: Headers, body: bytes, worth: bool) -> None:
    assert may_get_rpc_answer(method, headers, body) is worth


BEGINS: dict[str, tuple[Headers, bytes, bool]] = {
    "JSON": ([], b' {"a', True),
    "a picture": ([], b"\x89PNG", False),
    "an archive": ([], b"\x1f\x8b\x08", False),
    "gzip of JSON": ([("Content-Encoding", "gzip")], gzip.compress(b'{"a":1}' * 99)[:60], True),
    "gzip of a picture": ([("Content-Encoding", "gzip")], gzip.compress(b"\x89PNG" + bytes(999)), False),
    "gzip in name only": ([("Content-Encoding", "gzip")], b'{"a', True),
    "an encoding that nobody knows": ([("Content-Encoding", "foo")], b'[{"a', True),
    "zstd": ([("Content-Encoding", "zstd")], b"\x28\xb5\x2f\xfd", False),
}


@pytest.mark.parametrize(("headers", "start", "may"), BEGINS.values(), ids=BEGINS)
def test_what_a_body_may_turn_out_to_be_by_its_beginning(headers: Headers, start: bytes, may: bool) -> None:
    assert may_be_message(headers, start) is may
