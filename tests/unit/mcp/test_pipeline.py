from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from callerid.mcp.outcomes import Signal
from callerid.mcp.sse import EventTooLarge
from callerid.model import Kind, Outcome
from tests.unit.mcp.pipeline_bench import (
    RESULT,
    SECRET,
    Bench,
    dump,
    event,
    tools,
)

ESCAPED = json.dumps(SECRET)[1:-1].replace("/", "\\/")
DEEP = "[" * 100_000 + "]" * 100_000

# ---- bytes that no rule changes


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="an empty body"),
        pytest.param(b" \r\n", id="blanks"),
        pytest.param(dump(RESULT), id="a tool result, indented"),
        pytest.param(json.dumps(RESULT, ensure_ascii=False).encode(), id="a tool result in UTF-8"),
        pytest.param(b'{"id":1,"result":{"a":1.10,"a":1E2}}', id="numbers and equal members of no list"),
        pytest.param(b"\xef\xbb\xbf" + dump(RESULT), id="a byte order mark"),
        pytest.param(b"<html>no { at the start</html>", id="HTML"),
        pytest.param(b"\x89PNG\r\n\x00", id="binary"),
        pytest.param(b'"x"', id="a string"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="an empty array"),
        pytest.param(b'[[],1,{"id":[]}]', id="an array of no messages"),
        pytest.param(b'{"id":1,"result":[]}', id="a result that is no object"),
        pytest.param(b"{broken", id="broken JSON, no list waited for"),
        pytest.param(DEEP.encode(), id="deep nesting, no list waited for"),
        pytest.param(dump(tools("a", "b")), id="a list all of which is visible"),
    ],
)
def test_a_body_that_no_rule_changes_keeps_its_bytes(raw: bytes) -> None:
    bench = Bench({1: "tools/call"})
    assert bench.body(raw) == raw
    assert (bench.pipeline.hits, bench.pipeline.dropped) == (0, 0)


def test_html_in_place_of_a_list_passes_for_no_client_reads_a_list_in_it() -> None:
    bench = Bench({1: "tools/list"})
    assert bench.body(b"<html>502</html>") == b"<html>502</html>"
    assert bench.signals == []


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_stream_that_no_rule_changes_keeps_its_bytes(size: int, end: bytes) -> None:
    stream = (
        b"\xef\xbb\xbf: keep-alive\n\nid: 0\nretry: 5\ndata: \n\n"
        + event(RESULT)
        + event({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}})
        + event({"jsonrpc": "2.0", "id": 9, "method": "sampling/createMessage", "params": {}})
        + event("not json")
        + event(tools("a", rpc_id=2))
        + b'event: other\ndata: {"a":\ndata: 1}\n\n:\n\n'
    ).replace(b"\n", end)
    bench = Bench({1: "tools/call", 2: "tools/list"})
    out = [piece for i in range(0, len(stream), size) for piece in bench.pipeline.feed(stream[i : i + size])]
    assert b"".join(out) == stream
    assert bench.pipeline.end() == []
    assert (bench.pipeline.events, bench.pipeline.hits, bench.pipeline.dropped) == (7, 0, 0)
    assert bench.signals == [Signal(1, Outcome.OK, None), Signal(2, Outcome.OK, None)]


def test_an_event_passes_with_the_chunk_that_ends_it() -> None:
    bench = Bench()
    first, second = event(RESULT), event("x")
    assert bench.pipeline.feed(first[:-1]) == []
    assert bench.pipeline.feed(first[-1:] + second[:5]) == [first]
    assert bench.pipeline.feed(second[5:]) == [second]


def test_an_unterminated_tail_is_dropped_and_counted() -> None:
    bench = Bench({1: "tools/list"})
    assert bench.pipeline.feed(event(tools("hidden"))[:-1]) == []
    assert bench.pipeline.end() == []
    assert bench.pipeline.dropped == 1
    assert bench.signals == []


def test_too_large_an_event_is_an_exception() -> None:
    bench = Bench(max_event=100)
    with pytest.raises(EventTooLarge):
        bench.pipeline.feed(b"data: " + b"x" * 200)


# ---- secrets


def test_a_secret_is_scrubbed_from_a_body_of_any_kind() -> None:
    for text in (f"<p>{SECRET}</p>", f'{{"id":1,"result":{{"t":"{SECRET}"}}}}', f"{{broken {SECRET}"):
        bench = Bench({1: "tools/call"})
        assert bench.body(text.encode()) == text.replace(SECRET, "[redacted]").encode()
        assert bench.pipeline.hits == 1


def test_a_secret_behind_escapes_is_scrubbed() -> None:
    text = json.dumps({"id": 1, "result": {"t": "T"}}).replace('"T"', f'"{ESCAPED}"')
    assert SECRET not in text
    bench = Bench({1: "tools/call"})
    assert json.loads(bench.body(text.encode())) == {"id": 1, "result": {"t": "[redacted]"}}
    [out] = bench.events(event(text))
    assert json.loads(out.data or "")["result"] == {"t": "[redacted]"}
    assert (out.id, bench.pipeline.hits) == ("7", 2)


def test_escapes_without_a_secret_change_nothing() -> None:
    raw = b'{"id":1, "result":{"t":"\\u0041\\n"}}'
    assert Bench().body(raw) == raw


def test_a_secret_is_scrubbed_from_every_line_of_an_event() -> None:
    stream = f": {SECRET}\n\nid: {SECRET}\nevent: x{SECRET}\ndata: {SECRET}\nretry: {SECRET}\n\n".encode()
    bench = Bench()
    assert b"".join(bench.pipeline.feed(stream)) == stream.replace(SECRET.encode(), b"[redacted]")
    assert bench.pipeline.hits == 5


def test_a_secret_in_a_list_is_scrubbed_before_the_list_is_filtered() -> None:
    message = json.dumps(tools("hidden", "a", note=SECRET), ensure_ascii=False)
    [out] = Bench().events(b"\xef\xbb\xbf" + f"data: {message}\n\n".encode())
    assert json.loads(out.data or "") == tools("a", note="[redacted]")


def test_a_secret_cut_by_chunks_is_scrubbed() -> None:
    stream = event({"t": "T"}).replace(b"T", SECRET.encode())
    bench = Bench()
    out = b"".join(piece for byte in stream for piece in bench.pipeline.feed(bytes([byte])))
    assert out == stream.replace(SECRET.encode(), b"[redacted]")


# ---- endpoint events of HTTP+SSE, 2024-11-05

ENDPOINT = b"event: endpoint\nid: 3\ndata: /message?sessionId=1\n\n"


def test_an_endpoint_that_is_taken_keeps_its_bytes() -> None:
    seen: list[str] = []

    def take(data: str) -> str:
        seen.append(data)
        return data

    assert Bench(on_endpoint=take).pipeline.feed(ENDPOINT) == [ENDPOINT]
    assert seen == ["/message?sessionId=1"]


def test_an_endpoint_may_be_rewritten() -> None:
    bench = Bench(on_endpoint=lambda data: f"/proxied{data}")
    assert bench.pipeline.feed(ENDPOINT) == [
        b"event: endpoint\nid: 3\ndata: /proxied/message?sessionId=1\n\n"
    ]


@pytest.mark.parametrize("judge", [None, lambda data: None])
def test_an_endpoint_that_nobody_takes_is_dropped(judge: Callable[[str], str | None] | None) -> None:
    bench = Bench(on_endpoint=judge)
    assert bench.pipeline.feed(ENDPOINT + event("x")) == [event("x")]
    assert bench.pipeline.dropped == 1


# ---- news of hidden resources


def test_news_of_a_hidden_resource_is_dropped() -> None:
    def news(uri: str) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}}

    bench = Bench()
    assert bench.pipeline.feed(event(news("hidden:x")) + event(news("file:///a"))) == [
        event(news("file:///a"))
    ]
    assert bench.pipeline.dropped == 1
    assert json.loads(bench.body([news("hidden:x"), news("file:///a")])) == [news("file:///a")]
    assert bench.body(news("hidden:x")) == b""


# ---- what the pipeline tells


def test_outcomes_are_told_for_events_and_bodies_and_not_for_requests() -> None:
    bench = Bench({1: "tools/call"})
    bench.body(RESULT)
    bench.events(
        event({"jsonrpc": "2.0", "id": 2, "result": {"resultType": "input_required"}})
        + event({"jsonrpc": "2.0", "id": 1, "method": "ping"})
        + event({"jsonrpc": "2.0", "id": "x", "error": {"code": 7, "message": ""}})
    )
    assert bench.signals == [
        Signal(1, Outcome.OK, None),
        Signal(2, Outcome.INPUT_REQUIRED, None),
        Signal("x", Outcome.RPC_ERROR, 7),
    ]


def test_policy_is_asked_by_kind_and_name() -> None:
    bench = Bench({1: "tools/list"})
    bench.body(tools("a"))
    assert bench.view.seen == [(Kind.TOOL, "a")]


def test_a_fault_of_policy_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(kind: Kind, name: str) -> bool:
        raise ValueError("a bug")

    bench = Bench()
    monkeypatch.setattr(bench.view, "visible", broken)
    with pytest.raises(ValueError, match="a bug"):
        bench.body(tools("a"))
