"""What a server asks: found wherever it stands, refused without a trace, and else not touched."""

from __future__ import annotations

import itertools
import json
from typing import Any
from urllib.parse import urlsplit

from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.mcp.asks import MALFORMED, Ask, answered_as, asks_of
from callerid.mcp.classify import classify
from callerid.mcp.methods import METHODS, REVISIONS
from callerid.mcp.outcomes import Signal, read_signal
from callerid.mcp.refs import refs_of
from callerid.mcp.urls import url_host
from callerid.model import Exchange, Malformed, Outcome, Refs, RpcId
from tests.unit.mcp.pipeline_bench import REFUSAL, Bench

MARK = "evil"
NAMES = [
    *(
        "jsonrpc",
        "id",
        "method",
        "params",
        "result",
        "error",
        "code",
        "data",
        "elicitations",
        "inputRequests",
    ),
    *("task", "taskId", "resultType", "requestState", "mode", "url", "url_host", "Method", "InputRequests"),
    *(
        "inputResponses",
        "notifications",
        "taskIds",
        "resourceSubscriptions",
        "requestId",
        "completion",
        "values",
    ),
]
LEAVES: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.sampled_from([-32042, -32042.0, 1.0, float("nan"), 2**60])
    | st.sampled_from(["elicitation/create", "roots/list", "notifications/tasks", "url", "form", "task", "t"])
    | st.text(max_size=3)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=20,
)
MESSAGES = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)
IDS: st.SearchStrategy[Any] = st.integers(0, 3) | st.sampled_from(["1", "a", ""])


@settings(max_examples=200, deadline=None)
@given(MESSAGES)
def test_any_message_has_asks_that_can_be_judged(message: dict[str, Any]) -> None:
    for ask in asks_of(message):
        assert isinstance(ask, Ask)
        assert type(ask.key) in (str, int)
        assert ask.arguments == {} or ask.method != MALFORMED
        assert "_meta" not in ask.arguments
        if ask.method == "elicitation/create":
            assert isinstance(ask.arguments["mode"], str)
            assert ("url_host" not in ask.arguments) or url_host(ask.arguments["url"]) is not None
    read_signal(message)
    answered_as(message)


@settings(max_examples=200, deadline=None)
@given(MESSAGES, IDS, st.sampled_from([None, REFUSAL]))
def test_any_message_goes_through_the_pipeline(message: dict[str, Any], rpc_id: RpcId, refuse: Any) -> None:
    bench = Bench({rpc_id: "tools/call"}, refuse=refuse)
    bench.body(json.dumps(message).encode())
    bench.events(b"data: " + json.dumps([message]).encode() + b"\n\n")
    assert len(bench.asks) in (0, 2)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([*METHODS, "acme/x"]), MESSAGES, st.sampled_from([None, *sorted(REVISIONS)]))
def test_any_params_have_references_or_a_flaw(method: str, params: dict[str, Any], revision: Any) -> None:
    refs = refs_of(method, params, revision)
    assert isinstance(refs, Refs | str)
    if isinstance(refs, Refs):
        assert all(type(name) is str and name for name in refs.task_ids + refs.resources)
        assert refs.request_state is None or type(refs.request_state) is str
        assert refs.cancels is None or type(refs.cancels) in (str, int)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([*METHODS]), MESSAGES)
def test_any_params_are_classified(method: str, params: dict[str, Any]) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    assert isinstance(classify("POST", [("Content-Type", "application/json")], body), Exchange | Malformed)


# ---- messages that ask, with a mark in all that they say

FORM = {"message": MARK, "requestedSchema": {"type": "object", "properties": {MARK: {"type": "string"}}}}
REQUESTS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"method": "elicitation/create", "params": FORM},
        {
            "method": "elicitation/create",
            "params": {"mode": "url", "url": f"https://{MARK}/", "message": "m"},
        },
        {
            "method": "sampling/createMessage",
            "params": {"systemPrompt": MARK, "messages": [], "maxTokens": 1},
        },
        {"method": "roots/list", "params": {"_meta": {MARK: 1}}},
        {"method": f"acme/{MARK}"},
        {"method": 7, "params": MARK},
    ]
)
MAPS = st.dictionaries(st.sampled_from(["a", MARK]), REQUESTS, min_size=1)


def _request(request: dict[str, Any], rpc_id: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": rpc_id, **request}


def _result(wanted: Any, rpc_id: Any, wrap: int) -> dict[str, Any]:
    holder = {"resultType": "input_required", "inputRequests": wanted, "requestState": MARK}
    result = [holder, {"task": holder}, {"taskId": "t", "result": holder}, {"task": {"result": holder}}][wrap]
    return {"jsonrpc": "2.0", "id": rpc_id, "result": result}


def _error(request: dict[str, Any], rpc_id: Any) -> dict[str, Any]:
    data = {"elicitations": [{"url": f"https://{MARK}/", "message": MARK}, request]}
    return {"jsonrpc": "2.0", "id": rpc_id, "error": {"code": -32042, "message": MARK, "data": data}}


def _news(wanted: Any, wrap: int) -> dict[str, Any]:
    holder = {"inputRequests": wanted}
    params = [{"taskId": "t", **holder}, {"taskId": "t", "task": {"taskId": "t", **holder}}][wrap]
    return {"jsonrpc": "2.0", "method": "notifications/tasks", "params": params}


ASKING = (
    st.builds(_request, REQUESTS, IDS)
    | st.builds(_result, MAPS | st.lists(REQUESTS, min_size=1), IDS, st.integers(0, 3))
    | st.builds(_error, REQUESTS, IDS)
    | st.builds(_news, MAPS, st.integers(0, 1))
)
PLAIN: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "é \u2028 \\u"}]}},
        {"jsonrpc": "2.0", "id": 2, "result": {"tools": [{"name": "a"}], "nextCursor": ""}},
        {"jsonrpc": "2.0", "id": "a", "error": {"code": -32601, "message": "m"}},
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 0.5}},
        {"jsonrpc": "2.0", "method": "notifications/tasks", "params": {"taskId": "t", "status": "working"}},
    ]
)
DOCUMENTS = st.lists(ASKING | PLAIN, min_size=1, max_size=4) | ASKING | PLAIN
PENDING: dict[RpcId, str] = {0: "prompts/get", 1: "tools/call", 2: "tools/list", "a": "tasks/get"}


def stream_of(documents: list[Any], end: bytes) -> bytes:
    lines = [[f"id: {n}", f"data: {json.dumps(document)}", ""] for n, document in enumerate(documents)]
    return b"".join(line.encode() + end for event in lines for line in event)


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(place, len(stream)) for place in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(places)]


ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
CUTS = st.lists(st.integers(0, 3000), max_size=8)


@settings(max_examples=150, deadline=None)
@given(DOCUMENTS)
def test_nothing_of_a_refused_ask_is_in_a_body(document: Any) -> None:
    bench = Bench(PENDING, refuse=REFUSAL)
    out = bench.body(json.dumps(document, indent=2).encode())
    assert MARK.encode() not in out
    for message in document if isinstance(document, list) else [document]:
        if not asks_of(message) and "id" in message:
            assert message in (json.loads(out) if isinstance(document, list) else [json.loads(out)])


def plain(stream: bytes) -> bytes:
    """A stream without the difference between one empty line and two."""
    return stream.replace(b"\r\n", b"\n").replace(b"\n\n\n", b"\n\n").lstrip(b"\n")


@settings(max_examples=150, deadline=None)
@given(st.lists(DOCUMENTS, max_size=4), ENDS, CUTS)
def test_nothing_of_a_refused_ask_is_in_a_stream_however_it_is_cut(
    documents: list[Any], end: bytes, cuts: list[int]
) -> None:
    stream = stream_of(documents, end)
    whole, pieces = (Bench(PENDING, refuse=REFUSAL, max_event=1_000_000) for _ in range(2))
    out = b"".join(whole.pipeline.feed(stream))
    parts = b"".join(piece for chunk in cut(stream, cuts) for piece in pieces.pipeline.feed(chunk))
    assert MARK.encode() not in out
    # A CRLF that is cut is given out as two ends of a line where an event was written anew, or dropped.
    assert plain(parts) == plain(out)
    assert (whole.signals, whole.asks, whole.ids) == (pieces.signals, pieces.asks, pieces.ids)
    refused = [signal for signal in whole.signals if signal.outcome is Outcome.RESPONSE_REFUSED]
    assert all(signal == Signal(signal.rpc_id, Outcome.RESPONSE_REFUSED, None) for signal in refused)


@settings(max_examples=150, deadline=None)
@given(st.lists(DOCUMENTS, max_size=4), ENDS, CUTS)
def test_what_may_be_asked_passes_byte_for_byte(documents: list[Any], end: bytes, cuts: list[int]) -> None:
    stream = stream_of(documents, end)
    bench = Bench(PENDING, max_event=1_000_000)
    out = b"".join(piece for chunk in cut(stream, cuts) for piece in bench.pipeline.feed(chunk))
    assert out == stream
    for document in documents:
        raw = json.dumps(document, indent=1).encode()
        assert bench.body(raw) == raw
    assert bench.pipeline.dropped == 0


# ---- URLs

PARTS = [
    *(
        "https://",
        "http://",
        "HTTPS://",
        "https:/",
        "//",
        "/",
        "\\",
        "@",
        ":",
        "443",
        "?",
        "#",
        ".",
        "..",
        "%2e",
    ),
    *(
        "a",
        "EVIL",
        "example",
        "1",
        "127",
        "0x7f",
        "0",
        "[::1]",
        "[",
        "]",
        "é",
        "ß",
        "\u3002",
        "\uff0e",
        "\u00ad",
    ),
    *("-", "_", "xn--", " ", "\t", "\u200d", "\u0661", "*", ";", ","),
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=8).map("".join).map(lambda rest: f"https://{rest}"))
def test_a_host_is_the_one_that_rfc_3986_finds(url: str) -> None:
    host = url_host(url)
    if host is not None:
        assert host.isascii()
        assert host == host.lower()
        found = urlsplit(url).hostname
        assert found is not None
        assert host == (found if found.isascii() else found.encode("idna").decode())
