"""The request side for any input: total, a fixed point, and one reading for every reader."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp_types.jsonrpc import JSONRPCNotification, JSONRPCRequest, jsonrpc_message_adapter

from callerid.mcp.classify import ANSWERS, classify
from callerid.mcp.headers import decode_value
from callerid.mcp.recognise import looks_like_mcp_request, looks_like_mcp_response
from callerid.mcp.strictjson import JsonError, dumps, fold, loads
from callerid.model import Exchange, Kind, Malformed, MessageType, Reason

quick = settings(max_examples=100, deadline=None)

V = "io.modelcontextprotocol/protocolVersion"
JSON = ("Content-Type", "application/json")

TEXTS = [
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file","arguments":{"path":"/a","n":1.5}}}',
    '{"jsonrpc":"2.0","id":"a","method":"resources/read","params":{"uri":"file:///a"}}',
    '{"jsonrpc":"2.0","id":0,"method":"prompts/get","params":{"name":"p","arguments":{"who":"Bob"}}}',
    '{"jsonrpc":"2.0","method":"notifications/initialized"}',
    '{"jsonrpc":"2.0","id":7,"result":{"content":{"type":"text","text":"x"}}}',
    '[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}},{"jsonrpc":"2.0","id":2,"method":"ping"}]',
    '{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"a","_meta":{"' + V + '":"2026-07-28"}}}',
]
PIECES = [
    *(
        '"',
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\\",
        "null",
        "true",
        "NaN",
        "1e400",
        "-0",
        "1.10",
        " ",
        "\n",
        "\0",
        "\ufeff",
    ),
    *('"name":"delete_file",', '"Name":"delete_file",', '"method":"tools/list",', '"METHOD":"tools/call",'),
    *(
        '"params":{},',
        '"param\u017f":{"name":"x"},',
        '"arguments":{"path":"/etc"},',
        '"Arguments":{},',
        '"id":2,',
    ),
    *(
        '"\\u006eame":"x",',
        '"\\u0130d":9,',
        '"result":{},',
        '"error":{},',
        '"_meta":{},',
        '"_Meta":{},',
        "\\ud800",
    ),
    *(
        '"URI":"x:2",',
        '"uri":"x:2",',
        "\\u0000",
        "\u0131",
        "\u212a",
        "/",
        "tools/list",
        "\x7f",
        "\u2028",
        "9" * 30,
    ),
]
EXTRAS: list[Any] = [
    *(("name", "delete_file"), ("Name", "delete_file"), ("arguments", {"path": "/etc"}), ("Arguments", {})),
    *(("method", "tools/list"), ("METHOD", "tools/call"), ("params", {}), ("param\u017f", {"name": "x"})),
    *(
        ("id", 2),
        ("\u0130d", 3),
        ("uri", "x:2"),
        ("URI", "x:2"),
        ("_meta", {}),
        ("_Meta", {}),
        ("result", {}),
    ),
    *(
        ("cursor", None),
        ("other", {"name": 1, "b": [1.10, -0.0, 10**30]}),
        ("caf\u00e9", "\u2028"),
        ("n\0", 1),
    ),
]
SPACE = st.sampled_from(["", "", "", " ", "\n\t", "\r "])
HEADERS = st.lists(
    st.sampled_from(
        [
            ("MCP-Protocol-Version", "2025-06-18"),
            ("mcp-protocol-version", "2025-03-26"),
            ("MCP-Protocol-Version", "2026-07-28"),
            ("Mcp-Method", "tools/call"),
            ("Mcp-Name", "a"),
            ("Mcp-Name", "=?base64?YQ==?="),
            ("Mcp-Param-A", "1"),
            ("Content-Encoding", "identity"),
        ]
    ),
    max_size=2,
)


@st.composite
def spelled(draw: st.DrawFn, value: Any) -> str:
    """One of the ways to write a JSON value: members in any order, escapes, space, now and then a twin."""
    if isinstance(value, dict):
        members = draw(st.permutations(list(value.items())))
        extra = draw(st.sampled_from([None] * 40 + EXTRAS))
        if extra is not None:
            members.insert(draw(st.integers(0, len(members))), extra)
        inner = [f"{draw(spelled(name))}{draw(SPACE)}:{draw(spelled(member))}" for name, member in members]
        return f"{draw(SPACE)}{{{','.join(inner)}}}{draw(SPACE)}"
    if isinstance(value, list):
        return f"[{','.join(draw(spelled(member)) for member in value)}]"
    if isinstance(value, str) and value and draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(value) - 1))
        return (
            json.dumps(value[:place])[:-1]
            + f"\\u{ord(value[place]):04x}"
            + json.dumps(value[place + 1 :])[1:]
        )
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid message in another spelling, or with a few pieces put in, taken out or doubled."""
    text = draw(st.sampled_from(TEXTS))
    if draw(st.integers(0, 2)):
        return draw(spelled(json.loads(text))).encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 6)))
        text = text[:start] + draw(st.sampled_from([*PIECES, text[start:end] * 2, ""])) + text[end:]
    return text.encode("utf-8", "surrogatepass")


def check_answer(answer: Exchange | Malformed) -> None:
    if isinstance(answer, Malformed):
        assert answer.reason in ANSWERS
        assert 400 <= answer.http_status < 500
        assert answer.detail
        assert len(answer.detail) < 400
        assert answer.detail.isprintable()
    else:
        assert answer.messages
        assert answer.body == b"" or loads(answer.body) is not None


@quick
@given(
    st.sampled_from(["POST", "GET", "DELETE", "PUT", ""]),
    st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=5),
    st.binary(max_size=200),
)
def test_any_bytes_give_a_value(method: str, headers: list[tuple[str, str]], body: bytes) -> None:
    check_answer(classify(method, headers, body))
    check_answer(classify("POST", [JSON], body))
    looks_like_mcp_request(method, headers, body)
    looks_like_mcp_response(200, headers, body)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)
protocol_objects = st.dictionaries(
    st.sampled_from(
        ["jsonrpc", "id", "method", "params", "result", "error", "name", "arguments", "_meta", "uri"]
    ),
    json_values
    | st.sampled_from(["2.0", "tools/call", "completion/complete", "subscriptions/listen", "initialize"]),
    max_size=5,
)


@quick
@given(protocol_objects, protocol_objects, st.sampled_from(TEXTS[:3]), HEADERS)
def test_any_json_gives_a_value(
    envelope: dict[str, Any], params: dict[str, Any], text: str, headers: list[tuple[str, str]]
) -> None:
    for message in (envelope, json.loads(text) | envelope, json.loads(text) | {"params": params}, [envelope]):
        body = json.dumps(message).encode()
        check_answer(classify("POST", [JSON, *headers], body))
        looks_like_mcp_request("POST", headers, body)
        looks_like_mcp_response(400, headers, body)


def judged(body: bytes, headers: list[tuple[str, str]]) -> Exchange | None:
    answer = classify("POST", [JSON, *headers], body)
    check_answer(answer)
    return answer if isinstance(answer, Exchange) else None


@pytest.mark.parametrize("text", TEXTS)
def test_the_messages_that_are_mutated_are_valid(text: str) -> None:
    modern = [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/call"), ("Mcp-Name", "a")]
    assert judged(text.encode(), modern if V in text else [])


@settings(max_examples=200, deadline=None)
@given(mutated(), HEADERS)
def test_the_canonical_body_is_a_fixed_point(body: bytes, headers: list[tuple[str, str]]) -> None:
    exchange = judged(body, headers)
    if exchange is None:
        return
    assert classify("POST", [JSON, *headers], exchange.body) == exchange


@settings(max_examples=200, deadline=None)
@given(mutated(), HEADERS)
def test_the_sdk_reads_what_we_read(body: bytes, headers: list[tuple[str, str]]) -> None:
    exchange = judged(body, headers)
    if exchange is None:
        return
    for raw in (body, exchange.body):
        decoded = json.loads(raw)
        members = decoded if exchange.batch else [decoded]
        assert len(members) == len(exchange.messages)
        for member, ours in zip(members, exchange.messages, strict=True):
            theirs = jsonrpc_message_adapter.validate_python(member)
            if ours.type is MessageType.RESPONSE:
                assert not isinstance(theirs, JSONRPCRequest | JSONRPCNotification)
                assert theirs.id == ours.rpc_id
                continue
            assert isinstance(theirs, JSONRPCRequest | JSONRPCNotification)
            assert theirs.method == ours.method
            if isinstance(theirs, JSONRPCRequest):
                assert (type(theirs.id), theirs.id) == (type(ours.rpc_id), ours.rpc_id)
            else:
                assert ours.rpc_id is None
            params = theirs.params or {}
            if ours.kind in (Kind.TOOL, Kind.PROMPT):
                assert params["name"] == ours.name
                assert params.get("arguments", {}) == ours.arguments
            if ours.kind is Kind.RESOURCE:
                assert params["uri"] == ours.name


type Pairs = list[tuple[str, Any]]
type Pick = Callable[[Pairs, str], Any]


def first(pairs: Pairs, name: str) -> Any:
    return next((value for member, value in pairs if member == name), None)


def last(pairs: Pairs, name: str) -> Any:
    return first(pairs[::-1], name)


def folding_first(pairs: Pairs, name: str) -> Any:
    return next((value for member, value in pairs if fold(member.split("\0")[0]) == name), None)


def folding_last(pairs: Pairs, name: str) -> Any:
    return folding_first(pairs[::-1], name)


class Object(list[tuple[str, Any]]):
    pass


def reading(raw: bytes, pick: Pick) -> Any:
    """What one sort of reader takes a body for: id, method, object and arguments of each message."""
    decoded = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=Object, strict=False)
    members = [decoded] if isinstance(decoded, Object) else decoded
    out = []
    for member in members:
        params = pick(member, "params") or Object()
        parts = [pick(member, name) for name in ("id", "method", "result", "error")]
        parts += [pick(params, name) for name in ("name", "uri", "arguments", "_meta")]
        out.append(parts)
    return out


@settings(max_examples=200, deadline=None)
@given(mutated(), HEADERS)
def test_no_accepted_message_has_two_readings(body: bytes, headers: list[tuple[str, str]]) -> None:
    exchange = judged(body, headers)
    if exchange is None:
        return
    expected = reading(exchange.body, last)
    for raw in (body, exchange.body):
        for pick in (first, last, folding_first, folding_last):
            assert reading(raw, pick) == expected


def loaded(raw: bytes, **limits: int) -> Any:
    """What ``loads`` returns, or its refusal as a value."""
    try:
        return loads(raw, **limits)
    except JsonError as refusal:
        return refusal


@quick
@given(json_values)
def test_what_is_written_is_read_back(value: Any) -> None:
    read = loaded(json.dumps(value, ensure_ascii=False).encode())
    if isinstance(read, JsonError):
        assert read.reason in (Reason.DUPLICATE_KEY, Reason.MALFORMED_JSON)
        return
    assert read == value
    assert loads(dumps(read)) == value
    assert dumps(loads(dumps(read))) == dumps(read)


@quick
@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 25))
def test_a_number_stays_the_same_double_however_it_is_spelled(number: float, digits: int) -> None:
    for spelling in (repr(number), f"{number:.17e}", f"{number:.17g}", f"{number:.{digits}e}"):
        if abs(float(spelling)) != float("inf"):
            assert float(dumps(loads(spelling.encode()))) == float(spelling)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["[", "]", "{", "}", '"', '\\"', '"\\\\"', '"a":', "1", ","]), max_size=40))
def test_only_what_is_deep_or_no_json_is_refused(tokens: list[str]) -> None:
    def depth(value: Any) -> int:
        inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    for text in ("".join(tokens), "[" * 6 + "".join(tokens) + "]" * 6):
        read = loaded(text.encode(), max_depth=7)
        if not isinstance(read, JsonError):
            assert depth(read) <= 7
        elif read.reason is Reason.TOO_DEEP:
            assert text.count("[") + text.count("{") > 7


nested = st.recursive(
    st.sampled_from(["1", '"]"', '"\\\\"', '"\\"["']),
    lambda inner: st.lists(inner, max_size=9).map(lambda items: f"[{','.join(items)}]"),
)


@quick
@given(nested, st.integers(0, 12))
def test_depth_is_refused_exactly_where_it_is_exceeded(text: str, more: int) -> None:
    text = "[" * more + text + "]" * more
    deepest = depth = 0
    for char in text.replace("\\\\", "").replace('\\"', "").replace('"]"', "").replace('"["', ""):
        depth += (char == "[") - (char == "]")
        deepest = max(deepest, depth)
    assert not isinstance(loaded(text.encode(), max_depth=max(deepest, 1)), JsonError)
    if deepest > 1:
        refusal = loaded(text.encode(), max_depth=deepest - 1)
        assert isinstance(refusal, JsonError)
        assert refusal.reason is Reason.TOO_DEEP


ENCODERS: dict[str, tuple[Callable[[str], bytes], list[tuple[str, str]]]] = {
    "UTF-8": (str.encode, []),
    "a mark": (lambda text: text.encode("utf-8-sig"), []),
    "UTF-16": (lambda text: text.encode("utf-16"), []),
    "UTF-16 LE": (lambda text: text.encode("utf-16-le"), []),
    "UTF-32 BE": (lambda text: text.encode("utf-32-be"), []),
    "gzip": (lambda text: gzip.compress(text.encode(), 1), [("Content-Encoding", "gzip")]),
    "deflate": (lambda text: zlib.compress(text.encode(), 1), [("Content-Encoding", "deflate")]),
}


@pytest.mark.parametrize(("encode", "headers"), ENCODERS.values(), ids=ENCODERS)
@quick
@given(data=st.data(), space=st.text(alphabet=" \t\r\n", max_size=9))
def test_what_a_server_may_execute_is_seen(
    encode: Callable[[str], bytes], headers: list[tuple[str, str]], data: st.DataObject, space: str
) -> None:
    """Any call that a lenient parser reads, in any encoding that some server takes."""
    text = data.draw(mutated()).decode("utf-8", "surrogatepass")
    try:
        decoded = json.loads(text.lstrip("\ufeff"), strict=False)
    except ValueError:
        return
    members = decoded if isinstance(decoded, list) else [decoded]
    calls = [
        member for member in members if isinstance(member, dict) and member.get("method") == "tools/call"
    ]
    if any("jsonrpc" in call for call in calls):
        try:
            raw = encode(space + text.lstrip("\ufeff"))
        except UnicodeEncodeError:
            return
        assert looks_like_mcp_request("POST", headers, raw)


@quick
@given(st.text(max_size=30))
def test_a_header_value_has_one_decoding(value: str) -> None:
    decoded = decode_value(value)
    assert decoded is None or isinstance(decoded, str)
    if decoded is not None and not value.startswith("=?base64?"):
        assert decoded == value
