"""The ladder: what is read, what is refused, why, and how it is answered."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from callerid.mcp.classify import ANSWERS, classify
from callerid.model import EMPTY, Exchange, Kind, Malformed, Message, MessageType, Reason, Refs

JSON = ("Content-Type", "application/json")
V = "MCP-Protocol-Version"
MODERN = "2026-07-28"
META_V = "io.modelcontextprotocol/protocolVersion"
META_CLIENT = "io.modelcontextprotocol/clientInfo"

Headers = list[tuple[str, str]]


def rpc(method: str, params: Any = None, *, id: Any = 1, **more: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": id, "method": method}
    if id is ...:
        del message["id"]
    if params is not None:
        message["params"] = params
    return {**message, **more}


def call(name: str = "read_file", *, id: Any = 1, **arguments: Any) -> dict[str, Any]:
    return rpc("tools/call", {"name": name, "arguments": arguments}, id=id)


def modern(method: str, params: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return rpc(method, {**(params or {}), "_meta": {META_V: MODERN}}, **more)


def at(version: str | None, *more: tuple[str, str]) -> Headers:
    return [JSON, *([] if version is None else [(V, version)]), *more]


def post(body: Any, headers: Headers | None = None, **limits: int) -> Exchange | Malformed:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify("POST", at(None) if headers is None else headers, raw, **limits)


def read(body: Any, headers: Headers | None = None, **limits: int) -> Exchange:
    answer = post(body, headers, **limits)
    assert isinstance(answer, Exchange), answer
    return answer


def refused(body: Any, headers: Headers | None = None, **limits: int) -> Malformed:
    answer = post(body, headers, **limits)
    assert isinstance(answer, Malformed), answer
    return answer


# What is read


def test_a_call_is_read_and_forwarded_canonical() -> None:
    params = b'"params" : {"name":"r","arguments":{"n":1.10}}'
    body = b' { "jsonrpc":"2.0", "id":0, "method":"tools\\u002fcall",\n' + params + b"} "
    assert post(body, at("2025-06-18")) == Exchange(
        messages=(
            Message(
                type=MessageType.REQUEST,
                method="tools/call",
                kind=Kind.TOOL,
                rpc_id=0,
                name="r",
                arguments={"n": 1.1},
                protocol="2025-06-18",
            ),
        ),
        batch=False,
        body=b'{"jsonrpc":"2.0","id":0,"method":"tools/call","params":{"name":"r","arguments":{"n":1.1}}}',
        protocol="2025-06-18",
    )


def test_a_call_without_session_handshake_or_version_is_read() -> None:
    (message,) = read(call()).messages
    assert (message.kind, message.name, message.protocol) == (Kind.TOOL, "read_file", None)


KINDS: dict[str, tuple[dict[str, Any], str | None, MessageType, Kind, str | None]] = {
    "a resource": (
        rpc("resources/read", {"uri": "x:1"}),
        "2025-06-18",
        MessageType.REQUEST,
        Kind.RESOURCE,
        "x:1",
    ),
    "a prompt": (rpc("prompts/get", {"name": "p"}), None, MessageType.REQUEST, Kind.PROMPT, "p"),
    "a list": (rpc("tools/list"), "2025-11-25", MessageType.REQUEST, Kind.PROTOCOL, None),
    "a ping": (rpc("ping"), "2025-03-26", MessageType.REQUEST, Kind.PROTOCOL, None),
    "a vendor's request": (rpc("acme/run", {"name": "x"}), None, MessageType.REQUEST, Kind.METHOD, None),
    "a vendor's notification": (
        rpc("notifications/acme", id=...),
        None,
        MessageType.NOTIFICATION,
        Kind.METHOD,
        None,
    ),
    "initialized": (
        rpc("notifications/initialized", id=...),
        "2025-06-18",
        MessageType.NOTIFICATION,
        Kind.PROTOCOL,
        None,
    ),
    "a task": (
        rpc("tasks/get", {"taskId": "t"}),
        "2025-11-25",
        MessageType.REQUEST,
        Kind.METHOD,
        None,
    ),
}


@pytest.mark.parametrize(("body", "version", "type", "kind", "name"), KINDS.values(), ids=KINDS)
def test_kinds(
    body: dict[str, Any], version: str | None, type: MessageType, kind: Kind, name: str | None
) -> None:
    (message,) = read(body, at(version)).messages
    assert (message.type, message.method, message.kind, message.name) == (type, body["method"], kind, name)
    assert message.rpc_id == body.get("id")
    assert message.protocol == version


@pytest.mark.parametrize("id", [0, "0", 1, -1, "", "x" * 256, 2**53 - 1, -(2**53) + 1], ids=repr)
def test_ids_keep_their_json_type(id: str | int) -> None:
    (message,) = read(call(id=id)).messages
    assert message.rpc_id == id
    assert type(message.rpc_id) is type(id)


@pytest.mark.parametrize(
    "id",
    [None, True, False, 5.0, 1.5, [], {}, "x" * 257, 2**53, -(2**53), 10**30],
    ids=lambda id: repr(id)[:20],
)
def test_ids_that_readers_mix_up_are_refused(id: Any) -> None:
    answer = refused(call(id=id))
    assert answer.reason is Reason.MALFORMED_MESSAGE
    assert answer.rpc_id is None
    assert answer.method == "tools/call"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("version", [None, "2025-06-18", MODERN])
def test_get_and_delete_are_one_message(method: str, version: str | None) -> None:
    headers = [] if version is None else [(V, version)]
    expected = Message(type=MessageType.HTTP, method=f"http/{method}", kind=Kind.PROTOCOL, protocol=version)
    assert classify(method, headers, b"") == Exchange(
        messages=(expected,), batch=False, body=b"", protocol=version
    )


RESPONSES = {
    "a result": {"jsonrpc": "2.0", "id": 0, "result": {}},
    "an error": {"jsonrpc": "2.0", "id": "a", "error": {"code": -1, "message": "no", "data": [1]}},
}


@pytest.mark.parametrize("body", RESPONSES.values(), ids=RESPONSES)
def test_client_responses(body: dict[str, Any]) -> None:
    (message,) = read(body, at("2025-06-18")).messages
    assert message == Message(
        type=MessageType.RESPONSE,
        method="response",
        kind=Kind.PROTOCOL,
        rpc_id=body["id"],
        protocol="2025-06-18",
        refs=Refs(answer=body.get("result")),
    )


def test_claims_are_read_as_claims() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    meta = {
        META_V: MODERN,
        META_CLIENT: {"name": "claude-\x1bcode", "version": "2.1"},
        "traceparent": f"00-{trace}-b7ad6b7169203331-01",
    }
    (message,) = read(
        rpc("server/discover", {"_meta": meta}), at(MODERN, ("Mcp-Method", "server/discover"))
    ).messages
    assert (message.client_name, message.trace_id) == ("claude-code/2.1", trace)
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "x" * 5000, "version": 1},
    }
    exchange = read(rpc("initialize", params))
    assert exchange.messages[0].client_name == "x" * 1024
    assert exchange.protocol == "2025-11-25"


@pytest.mark.parametrize(
    "info", [None, [], "x", {}, {"name": None}, {"name": ["x"]}, {"name": "\x00"}, {"name": ""}], ids=repr
)
def test_no_client_name_is_none(info: Any) -> None:
    (message,) = read(rpc("initialize", {"clientInfo": info, "protocolVersion": 7})).messages
    assert (message.client_name, message.protocol) == (None, None)


PARENTS = {
    "future version with more parts": (f"01-{'a' * 32}-{'b' * 16}-01-more", True),
    "version 00 with more parts": (f"00-{'a' * 32}-{'b' * 16}-01-more", False),
    "version ff": (f"ff-{'a' * 32}-{'b' * 16}-01", False),
    "capitals": (f"00-{'A' * 32}-{'b' * 16}-01", False),
    "an all-zero trace": (f"00-{'0' * 32}-{'b' * 16}-01", False),
    "an all-zero parent": (f"00-{'a' * 32}-{'0' * 16}-01", False),
    "a short trace": (f"00-{'a' * 31}-{'b' * 16}-01", False),
    "too few parts": (f"00-{'a' * 32}", False),
    "no hexadecimal": (f"00-{'g' * 32}-{'b' * 16}-01", False),
    "no version": ("", False),
    "a number": (7, False),
    "endless": ("00-" * 1000, False),
}


@pytest.mark.parametrize(("parent", "good"), PARENTS.values(), ids=PARENTS)
def test_traceparent(parent: Any, good: bool) -> None:
    (message,) = read(rpc("tools/list", {"_meta": {"traceparent": parent}})).messages
    assert message.trace_id == ("a" * 32 if good else None)


# HTTP


@pytest.mark.parametrize(
    "method", ["PUT", "PATCH", "OPTIONS", "HEAD", "TRACE", "CONNECT", "post", "", "PROPFIND"]
)
def test_other_http_methods(method: str) -> None:
    answer = classify(method, [JSON], json.dumps(call()).encode())
    assert isinstance(answer, Malformed)
    assert (answer.reason, answer.http_status, answer.rpc_code) == (Reason.NOT_MCP, 405, -32600)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_get_and_delete_have_no_body_and_no_call(method: str) -> None:
    answers = [
        classify(method, [JSON], json.dumps(call()).encode()),
        classify(method, [(V, "2099-01-01")], b""),
        classify(method, [("Mcp-Method", "tools/call")], b""),
        classify(method, [("Mcp-Name", "read_file")], b""),
        classify(method, [("Mcp-Session-Id", "a"), ("mcp-session-id", "b")], b""),
    ]
    assert [answer.reason for answer in answers if isinstance(answer, Malformed)] == [
        Reason.MALFORMED_HTTP,
        Reason.UNSUPPORTED_VERSION,
        Reason.HEADER_MISMATCH,
        Reason.HEADER_MISMATCH,
        Reason.MALFORMED_HTTP,
    ]


HTTP: dict[str, tuple[Any, Headers, Reason, int]] = {
    "an empty body": (b"", [JSON], Reason.NOT_MCP, 400),
    "no content type": (call(), [], Reason.NOT_MCP, 415),
    "text/plain": (call(), [("Content-Type", "text/plain")], Reason.NOT_MCP, 415),
    "application/json-rpc": (call(), [("Content-Type", "application/json-rpc")], Reason.NOT_MCP, 415),
    "a +json type": (call(), [("Content-Type", "application/acme+json")], Reason.NOT_MCP, 415),
    "charset utf-16": (call(), [("Content-Type", "application/json; charset=utf-16")], Reason.NOT_MCP, 415),
    "two content types": (call(), [JSON, ("content-type", "application/json")], Reason.MALFORMED_HTTP, 400),
    "two hosts": (
        call(),
        [JSON, ("Host", "docs.corp.example"), ("host", "crm.corp.example")],
        Reason.MALFORMED_HTTP,
        400,
    ),
    "two lengths": (
        call(),
        [JSON, ("Content-Length", "1"), ("Content-Length", "1")],
        Reason.MALFORMED_HTTP,
        400,
    ),
    "two versions": (call(), [*at("2025-06-18"), (V.lower(), "2025-06-18")], Reason.MALFORMED_HTTP, 400),
    "two methods": (
        call(),
        at(None, ("Mcp-Method", "tools/call"), ("mcp-method", "tools/call")),
        Reason.MALFORMED_HTTP,
        400,
    ),
    "two names": (call(), at(None, ("Mcp-Name", "read_file"), ("MCP-NAME", "x")), Reason.MALFORMED_HTTP, 400),
    "two sessions": (
        call(),
        at(None, ("Mcp-Session-Id", "a"), ("Mcp-Session-Id", "b")),
        Reason.MALFORMED_HTTP,
        400,
    ),
    "a folded name": (call(), at(None, ("Mcp_Name", "other")), Reason.MALFORMED_HTTP, 400),
    "gzip": (
        gzip.compress(json.dumps(call()).encode()),
        at(None, ("Content-Encoding", "gzip")),
        Reason.ENCODING_REFUSED,
        415,
    ),
    "deflate": (
        zlib.compress(json.dumps(call()).encode()),
        at(None, ("Content-Encoding", "deflate")),
        Reason.ENCODING_REFUSED,
        415,
    ),
    "gzip that is not": (call(), at(None, ("Content-Encoding", "gzip")), Reason.ENCODING_REFUSED, 415),
    "gzip without a word": (gzip.compress(json.dumps(call()).encode()), [JSON], Reason.NOT_UTF8, 400),
}


@pytest.mark.parametrize(("body", "headers", "reason", "status"), HTTP.values(), ids=HTTP)
def test_http(body: Any, headers: Headers, reason: Reason, status: int) -> None:
    answer = refused(body, headers)
    assert (answer.reason, answer.http_status) == (reason, status)
    assert (answer.rpc_id, answer.method) == (None, None)


@pytest.mark.parametrize(
    "type", ["APPLICATION/JSON", "application/json; charset=utf-8", "Application/Json;Charset=UTF-8"]
)
def test_content_types_that_are_json(type: str) -> None:
    assert read(call(), [("content-TYPE", type)])


def test_accept_may_repeat_and_identity_is_plain() -> None:
    accept = [
        ("Accept", "application/json"),
        ("Accept", "text/event-stream"),
        ("Content-Encoding", "identity"),
    ]
    assert read(call(), [JSON, *accept])


# Bodies that servers were measured to read differently


def raw(text: str) -> bytes:
    return text.encode()


BASE = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file","arguments":{}}}'

BODIES: dict[str, tuple[bytes, Reason]] = {
    "name twice": (raw(BASE.replace('"name"', '"name":"x","name"')), Reason.DUPLICATE_KEY),
    "method twice": (raw(BASE.replace('"method"', '"method":"ping","method"')), Reason.DUPLICATE_KEY),
    "params twice": (raw(BASE.replace('"params"', '"params":{},"params"')), Reason.DUPLICATE_KEY),
    "id twice": (raw(BASE.replace('"id"', '"id":2,"id"')), Reason.DUPLICATE_KEY),
    "params twice, once escaped": (
        raw(BASE.replace('"params"', '"\\u0070arams":{},"params"')),
        Reason.DUPLICATE_KEY,
    ),
    "method and Method": (raw(BASE.replace('"id"', '"Method":"ping","id"')), Reason.DUPLICATE_KEY),
    "name and Name": (raw(BASE.replace('"name"', '"Name":"x","name"')), Reason.DUPLICATE_KEY),
    "params and its long s": (raw(BASE.replace('"id"', '"param\u017f":{},"id"')), Reason.DUPLICATE_KEY),
    "arguments twice inside": (
        raw(BASE.replace('"arguments":{}', '"arguments":{"a":{"b":1,"b":2}}')),
        Reason.DUPLICATE_KEY,
    ),
    "only Arguments": (raw(BASE.replace('"arguments"', '"Arguments"')), Reason.MALFORMED_MESSAGE),
    "only Params": (raw(BASE.replace('"params"', '"Params"')), Reason.MALFORMED_MESSAGE),
    "only a METHOD": (raw(BASE.replace('"method"', '"METHOD"')), Reason.MALFORMED_MESSAGE),
    "a mark": (b"\xef\xbb\xbf" + raw(BASE), Reason.NOT_UTF8),
    "UTF-16 with a mark": (BASE.encode("utf-16"), Reason.NOT_UTF8),
    "UTF-16 without": (BASE.encode("utf-16-le"), Reason.NOT_UTF8),
    "UTF-32 without": (BASE.encode("utf-32-le"), Reason.NOT_UTF8),
    "Latin-1": (BASE.replace("read_file", "caf\u00e9").encode("latin-1"), Reason.NOT_UTF8),
    "NaN in arguments": (raw(BASE.replace('"arguments":{}', '"arguments":{"n":NaN}')), Reason.MALFORMED_JSON),
    "1e400 in arguments": (
        raw(BASE.replace('"arguments":{}', '"arguments":{"n":1e400}')),
        Reason.MALFORMED_JSON,
    ),
    "a name with half a pair": (raw(BASE.replace("read_file", "\\ud800")), Reason.NOT_UTF8),
    "a name with a zero": (raw(BASE.replace("read_file", "read_file\\u0000")), Reason.MALFORMED_MESSAGE),
    "text after it": (raw(BASE + "{}"), Reason.MALFORMED_JSON),
    "65 deep": (raw(BASE.replace("{}", '{"a":' * 62 + "{}" + "}" * 62)), Reason.TOO_DEEP),
    "nothing but text": (b"hello", Reason.MALFORMED_JSON),
    "a string": (b'"tools/call"', Reason.MALFORMED_MESSAGE),
    "null": (b"null", Reason.MALFORMED_MESSAGE),
    "a number": (b"1", Reason.MALFORMED_MESSAGE),
    "form fields": (b"method=tools/call&name=x", Reason.MALFORMED_JSON),
}


@pytest.mark.parametrize(("body", "reason"), BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("version", [None, "2025-06-18"])
def test_bodies(body: bytes, reason: Reason, version: str | None) -> None:
    assert refused(body, at(version)).reason is reason


def test_64_deep_is_read() -> None:
    assert read(raw(BASE.replace("{}", '{"a":' * 61 + "{}" + "}" * 61)))


MESSAGES: dict[str, Any] = {
    "no jsonrpc": {"id": 1, "method": "ping"},
    "jsonrpc 1.0": rpc("ping", jsonrpc="1.0"),
    "jsonrpc as a number": rpc("ping", jsonrpc=2.0),
    "method and result": rpc("tools/call", {"name": "x"}, result={}),
    "method and error": rpc("tools/call", {"name": "x"}, error={"code": 1, "message": "x"}),
    "result and error": {"jsonrpc": "2.0", "id": 1, "result": {}, "error": {"code": 1, "message": "x"}},
    "a result without id": {"jsonrpc": "2.0", "result": {}},
    "a result with params": {"jsonrpc": "2.0", "id": 1, "result": {}, "params": {}},
    "a result with id null": {"jsonrpc": "2.0", "id": None, "result": {}},
    "a result that is text": {"jsonrpc": "2.0", "id": 1, "result": "x"},
    "a result that is null": {"jsonrpc": "2.0", "id": 1, "result": None},
    "an error that is text": {"jsonrpc": "2.0", "id": 1, "error": "x"},
    "an error without code": {"jsonrpc": "2.0", "id": 1, "error": {"message": "x"}},
    "an error with code true": {"jsonrpc": "2.0", "id": 1, "error": {"code": True, "message": "x"}},
    "only an id": {"jsonrpc": "2.0", "id": 1},
    "nothing": {},
    "an unknown member": rpc("ping", extra=1),
    "an unknown member with a mark": rpc("ping", **{"\ufeffid": 1}),
    "method null": rpc("ping") | {"method": None},
    "method empty": rpc(""),
    "method a number": rpc("ping") | {"method": 5},
    "method of 257 characters": rpc("x" * 257),
    "method with a newline": rpc("tools/call\n", {"name": "x"}),
    "params an array": rpc("tools/call", ["x"]),
    "params null": rpc("ping") | {"params": None},
    "params text": rpc("tools/call", "x"),
    "_meta an array": rpc("ping", {"_meta": []}),
    "_meta null": rpc("ping", {"_meta": None}),
    "_meta in capitals": rpc("ping", {"_Meta": {}}),
    "a version in _meta in another case": rpc("ping", {"_meta": {META_V.lower(): MODERN}}),
    "a version in _meta that is a number": rpc("ping", {"_meta": {META_V: 2026}}),
    "a version in _meta that is null": rpc("ping", {"_meta": {META_V: None}}),
    "a call without id": call(id=...),
    "a list without id": rpc("tools/list", id=...),
    "initialize without id": rpc("initialize", {}, id=...),
    "a task method without id": rpc("tasks/cancel", {"taskId": "t"}, id=...),
    "initialized with id": rpc("notifications/initialized"),
    "an unknown notification with id": rpc("notifications/acme"),
    "a call of nothing": rpc("tools/call", {"arguments": {}}),
    "a call with arguments null": rpc("tools/call", {"name": "x", "arguments": None}),
}


@pytest.mark.parametrize("body", MESSAGES.values(), ids=MESSAGES)
def test_messages(body: Any) -> None:
    answer = refused(body)
    assert (answer.reason, answer.http_status, answer.rpc_code) == (Reason.MALFORMED_MESSAGE, 400, -32600)


def test_a_refusal_names_the_request_it_answers() -> None:
    answer = refused(rpc("tools/call", {"arguments": {}}, id="7"))
    assert (answer.rpc_id, answer.method) == ("7", "tools/call")
    assert refused(rpc("ping", extra=1, id=0)).rpc_id == 0


def test_a_refusal_never_answers_under_the_id_of_a_response() -> None:
    answer = refused({"jsonrpc": "2.0", "id": 1, "result": "x"})
    assert (answer.rpc_id, answer.method) == (None, None)


def test_sizes() -> None:
    body = json.dumps(call()).encode()
    assert read(body, max_body=len(body))
    answer = refused(body, max_body=len(body) - 1)
    assert (answer.reason, answer.http_status) == (Reason.TOO_LARGE, 413)
    grows = json.dumps(call(n=[])).replace("[]", "[" + ",".join(["1e9"] * 500) + "]").encode()
    assert refused(grows, max_body=len(grows)).reason is Reason.TOO_LARGE


# Batches


@pytest.mark.parametrize("version", [None, "2025-03-26", "2024-11-05"])
def test_a_batch_where_batches_exist(version: str | None) -> None:
    exchange = read([call(id=1), rpc("notifications/initialized", id=...), call("b", id="1")], at(version))
    assert exchange.batch
    assert [message.rpc_id for message in exchange.messages] == [1, None, "1"]
    assert [message.name for message in exchange.messages] == ["read_file", None, "b"]
    assert exchange.protocol == version


def test_a_batch_of_responses() -> None:
    assert read([RESPONSES["a result"], RESPONSES["an error"]]).batch


BATCHES: dict[str, tuple[Any, str | None, Reason]] = {
    "in 2025-06-18": ([call()], "2025-06-18", Reason.BATCH_REFUSED),
    "in 2025-11-25": ([call()], "2025-11-25", Reason.BATCH_REFUSED),
    "in 2026-07-28": ([modern("ping")], MODERN, Reason.BATCH_REFUSED),
    "in a revision to come": ([call()], "2099-01-01", Reason.UNSUPPORTED_VERSION),
    "empty": ([], None, Reason.BATCH_REFUSED),
    "of 51": ([call(id=n) for n in range(51)], None, Reason.BATCH_REFUSED),
    "with initialize": ([rpc("initialize", {})], None, Reason.BATCH_REFUSED),
    "with one id twice": ([call(id=1), rpc("ping", id=1)], None, Reason.BATCH_REFUSED),
    "mixed": ([call(id=1), RESPONSES["a result"]], None, Reason.BATCH_REFUSED),
    "mixed with a notification": (
        [rpc("notifications/initialized", id=...), RESPONSES["a result"]],
        None,
        Reason.BATCH_REFUSED,
    ),
    "in a batch": ([[call()]], None, Reason.MALFORMED_MESSAGE),
    "with a broken message": ([call(id=1), {"jsonrpc": "2.0"}], None, Reason.MALFORMED_MESSAGE),
    "with a modern message": ([modern("tools/list")], None, Reason.HEADER_MISMATCH),
}


@pytest.mark.parametrize(("body", "version", "reason"), BATCHES.values(), ids=BATCHES)
def test_batches(body: Any, version: str | None, reason: Reason) -> None:
    answer = refused(body, at(version))
    assert (answer.reason, answer.http_status, answer.rpc_id) == (reason, 400, None)


def test_a_batch_limit_is_counted_to_the_message() -> None:
    assert read([call(id=n) for n in range(3)], max_batch=3)
    assert refused([call(id=n) for n in range(4)], max_batch=3).reason is Reason.BATCH_REFUSED


@pytest.mark.parametrize("header", ["Mcp-Method", "Mcp-Name", "Mcp-Param-Region"])
def test_a_batch_has_no_mirrors(header: str) -> None:
    assert refused([call()], at(None, (header, "tools/call"))).reason is Reason.HEADER_MISMATCH


def test_the_broken_message_of_a_batch_is_named() -> None:
    assert "message 2 " in refused([call(), 5]).detail


# Eras and mirrors

CALL = modern("tools/call", {"name": "read_file", "arguments": {}})
M_CALL = ("Mcp-Method", "tools/call")
M_NAME = ("Mcp-Name", "read_file")

AGREE: dict[str, tuple[Any, Headers]] = {
    "a modern call": (CALL, at(MODERN, M_CALL, M_NAME)),
    "headers in another case": (
        CALL,
        [JSON, (V.upper(), MODERN), ("MCP-METHOD", "tools/call"), ("mcp-name", "read_file")],
    ),
    "space around a value": (CALL, at(f" {MODERN}\t", ("Mcp-Method", " tools/call "), M_NAME)),
    "an encoded name": (CALL, at(MODERN, M_CALL, ("Mcp-Name", "=?base64?cmVhZF9maWxl?="))),
    "unknown parameter mirrors": (
        CALL,
        at(MODERN, M_CALL, M_NAME, ("Mcp-Param-A", "1"), ("Mcp-Param-B", "1")),
    ),
    "a modern list needs no name": (modern("tools/list"), at(MODERN, ("Mcp-Method", "tools/list"))),
    "a modern task may have its name": (
        modern("tasks/get", {"taskId": "t"}),
        at(MODERN, ("Mcp-Method", "tasks/get"), ("Mcp-Name", "t")),
    ),
    "a modern notification": (rpc("notifications/cancelled", {"requestId": 1}, id=...), at(MODERN)),
    "a removed method": (modern("initialize"), at(MODERN, ("Mcp-Method", "initialize"))),
    "a legacy call with mirrors": (call(), at("2025-06-18", M_CALL, M_NAME)),
    "a legacy call without": (call(), at("2025-06-18")),
    "no version and mirrors": (call(), at(None, M_CALL, M_NAME)),
}


@pytest.mark.parametrize(("body", "headers"), AGREE.values(), ids=AGREE)
def test_header_and_body_agree(body: Any, headers: Headers) -> None:
    assert read(body, headers)


DISAGREE: dict[str, tuple[Any, Headers, Reason, int]] = {
    "a modern body under a legacy header": (
        CALL,
        at("2025-06-18", M_CALL, M_NAME),
        Reason.HEADER_MISMATCH,
        -32020,
    ),
    "a modern body without a header": (CALL, at(None, M_CALL, M_NAME), Reason.HEADER_MISMATCH, -32020),
    "a modern header on a legacy body": (call(), at(MODERN, M_CALL, M_NAME), Reason.HEADER_MISMATCH, -32602),
    "a legacy version in _meta under another": (
        rpc("ping", {"_meta": {META_V: "2025-11-25"}}),
        at("2025-06-18"),
        Reason.HEADER_MISMATCH,
        -32020,
    ),
    "no Mcp-Method": (CALL, at(MODERN, M_NAME), Reason.HEADER_MISMATCH, -32020),
    "no Mcp-Name": (CALL, at(MODERN, M_CALL), Reason.HEADER_MISMATCH, -32020),
    "no Mcp-Name for a resource": (
        modern("resources/read", {"uri": "x:1"}),
        at(MODERN, ("Mcp-Method", "resources/read")),
        Reason.HEADER_MISMATCH,
        -32020,
    ),
    "no Mcp-Name for a prompt": (
        modern("prompts/get", {"name": "p"}),
        at(MODERN, ("Mcp-Method", "prompts/get")),
        Reason.HEADER_MISMATCH,
        -32020,
    ),
    "another method": (
        CALL,
        at(MODERN, ("Mcp-Method", "tools/list"), M_NAME),
        Reason.HEADER_MISMATCH,
        -32020,
    ),
    "the method in capitals": (
        CALL,
        at(MODERN, ("Mcp-Method", "TOOLS/CALL"), M_NAME),
        Reason.HEADER_MISMATCH,
        -32020,
    ),
    "another name": (CALL, at(MODERN, M_CALL, ("Mcp-Name", "delete_file")), Reason.HEADER_MISMATCH, -32020),
    "a name encoded wrongly": (
        CALL,
        at(MODERN, M_CALL, ("Mcp-Name", "=?base64?cmVhZF9maWxl=?=")),
        Reason.HEADER_MISMATCH,
        -32020,
    ),
    "another name in a legacy call": (
        call(),
        at("2025-06-18", ("Mcp-Name", "x")),
        Reason.HEADER_MISMATCH,
        -32020,
    ),
    "another method without a version": (
        call(),
        at(None, ("Mcp-Method", "tools/list")),
        Reason.HEADER_MISMATCH,
        -32020,
    ),
    "a name on a list": (
        rpc("tools/list"),
        at("2025-06-18", ("Mcp-Name", "x")),
        Reason.HEADER_MISMATCH,
        -32020,
    ),
    "a method on a response": (RESPONSES["a result"], at(None, M_CALL), Reason.HEADER_MISMATCH, -32020),
    "a parameter mirror twice": (
        CALL,
        at(MODERN, M_CALL, M_NAME, ("Mcp-Param-Region", "eu"), ("mcp-param-region", "us")),
        Reason.HEADER_MISMATCH,
        -32020,
    ),
    "a modern response": (RESPONSES["a result"], at(MODERN), Reason.MALFORMED_MESSAGE, -32600),
    "a revision to come": (call(), at("2099-01-01"), Reason.UNSUPPORTED_VERSION, -32022),
    "a revision to come on both sides": (
        rpc("server/discover", {"_meta": {META_V: "2099-01-01"}}),
        at("2099-01-01"),
        Reason.UNSUPPORTED_VERSION,
        -32022,
    ),
    "an empty revision": (call(), at(""), Reason.UNSUPPORTED_VERSION, -32022),
    "two revisions in one header": (call(), at(f"2025-06-18, {MODERN}"), Reason.UNSUPPORTED_VERSION, -32022),
    "a response in a revision to come": (
        RESPONSES["a result"],
        at("2099-01-01"),
        Reason.UNSUPPORTED_VERSION,
        -32022,
    ),
}


@pytest.mark.parametrize(("body", "headers", "reason", "code"), DISAGREE.values(), ids=DISAGREE)
def test_header_and_body_disagree(body: Any, headers: Headers, reason: Reason, code: int) -> None:
    answer = refused(body, headers)
    assert (answer.reason, answer.http_status, answer.rpc_code) == (reason, 400, code)
    if "method" in body:
        assert (answer.rpc_id, answer.method) == (body.get("id"), body["method"])


@pytest.mark.parametrize(
    "name", ["Mcp-Param-\x1b", "Mcp-Param-\u202e", "Mcp-Param-\udcff" * 9, "Mcp-Param-" + "\U000e0001" * 60]
)
def test_the_detail_of_an_odd_header_that_comes_twice_can_be_printed(name: str) -> None:
    answer = refused(call(), at(None, (name, "1"), (name.upper(), "2")))
    assert answer.reason is Reason.HEADER_MISMATCH
    assert answer.detail.isprintable()
    assert answer.detail.startswith("the header 'mcp-param-")
    assert len(answer.detail) < 150


@pytest.mark.parametrize(
    "asked", ["2099-01-01", "", "v999.0.0", "9" * 1000], ids=["later", "empty", "odd", "long"]
)
@pytest.mark.parametrize("http_method", ["POST", "GET", "DELETE"])
def test_an_unknown_revision_is_told_which_ones_it_may_be(http_method: str, asked: str) -> None:
    headers = [*at(asked)] if http_method == "POST" else [("MCP-Protocol-Version", asked)]
    body = json.dumps(call()).encode() if http_method == "POST" else b""
    answer = classify(http_method, headers, body)
    assert isinstance(answer, Malformed)
    assert (answer.reason, answer.http_status) == (Reason.UNSUPPORTED_VERSION, 400)
    assert answer.data == {"supported": [MODERN], "requested": asked[:64]}


def test_only_an_unknown_revision_is_told_more() -> None:
    assert refused(CALL, at(MODERN)).data is None
    assert refused([call()], at("2099-01-01")).data is not None


def test_a_removed_method_is_unknown_in_the_new_revision() -> None:
    (message,) = read(
        modern("resources/subscribe"), at(MODERN, ("Mcp-Method", "resources/subscribe"))
    ).messages
    assert (message.kind, message.name, message.arguments) == (Kind.METHOD, None, {})


# The ladder and its table


def test_the_first_rung_that_fails_is_the_answer() -> None:
    two_hosts = [("Host", "a"), ("Host", "b"), ("Content-Encoding", "gzip"), ("Content-Type", "text/plain")]
    assert classify("PUT", two_hosts, b"x" * 9, max_body=8).reason is Reason.NOT_MCP  # type: ignore[union-attr]
    ladder = [
        refused(b"x" * 9, two_hosts, max_body=8),
        refused(b"x" * 9, two_hosts[1:], max_body=8),
        refused(b"x" * 9, two_hosts[1:]),
        refused(b"x" * 9, two_hosts[3:]),
        refused(b"x" * 9, [JSON]),
        refused([call(), {"jsonrpc": "1"}], at("2025-06-18")),
        refused(CALL | {"jsonrpc": "1"}, at(None)),
        refused(CALL | {"params": {"_meta": {META_V: MODERN}}}, at("2099-01-01")),
        refused(CALL | {"params": {"_meta": {META_V: MODERN}}}, at(MODERN)),
        refused(CALL, at(MODERN)),
    ]
    assert [answer.reason for answer in ladder] == [
        Reason.MALFORMED_HTTP,
        Reason.TOO_LARGE,
        Reason.ENCODING_REFUSED,
        Reason.NOT_MCP,
        Reason.MALFORMED_JSON,
        Reason.BATCH_REFUSED,
        Reason.MALFORMED_MESSAGE,
        Reason.HEADER_MISMATCH,
        Reason.MALFORMED_MESSAGE,
        Reason.HEADER_MISMATCH,
    ]


def test_every_answer_is_an_error_and_no_code_is_borrowed() -> None:
    assert all(400 <= status < 500 for status, _ in ANSWERS.values())
    assert {code for _, code in ANSWERS.values()} == {-32700, -32600, -32020, -32022}


def test_a_message_without_arguments_has_an_empty_mapping() -> None:
    (message,) = read(rpc("tools/call", {"name": "x"})).messages
    assert message.arguments == EMPTY
