from __future__ import annotations

import json
from typing import Any

import pytest
from mcp_types.jsonrpc import JSONRPCError, jsonrpc_message_adapter
from mcp_types.methods import parse_server_result

from callerid.mcp.outcomes import Signal
from callerid.model import Outcome, RpcId
from tests.unit.mcp.pipeline_bench import (
    Bench,
    asked,
    dump,
    event,
    names,
    tools,
)

DEEP = "[" * 100_000 + "]" * 100_000
LONG = "9" * 5000


@pytest.mark.parametrize("pending", [{1: "tools/list"}, {}, {1: "tools/call"}, {1: "prompts/list"}])
def test_a_list_is_filtered_in_json_and_in_events_with_and_without_its_method(pending: Any) -> None:
    message = tools("a", "hidden", "b", nextCursor="", ttlMs=10**9, cacheScope="public")
    expected = tools("a", "b", nextCursor="", ttlMs=60_000, cacheScope="private")
    bench = Bench(pending)
    assert json.loads(bench.body(message)) == expected
    [out] = bench.events(event(message))
    assert json.loads(out.data or "") == expected
    parse_server_result("tools/list", "2025-06-18", expected["result"])
    assert bench.signals == [Signal(1, Outcome.OK, None)] * 2


def test_a_changed_event_keeps_id_type_retry_and_comments() -> None:
    [out] = Bench({1: "tools/list"}).pipeline.feed(event(tools("hidden")))
    data = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}'
    assert out == b": note\nid: 7\nevent: message\ndata: " + data + b"\nretry: 3\n\n"


def test_only_the_changed_event_of_a_stream_is_written_anew() -> None:
    odd = b'data:{ "jsonrpc" : "2.0", "method":"notifications/message" }\r\n\r\n'
    out = Bench({1: "tools/list"}).pipeline.feed(odd + event(tools("a", "hidden")) + odd)
    assert (out[0], out[2]) == (odd, odd)
    assert b"hidden" not in out[1]


def test_every_element_of_an_array_is_judged_by_its_own_id() -> None:
    batch = [
        {"jsonrpc": "2.0", "id": "1", "result": {"content": [], "isError": True}},
        tools("a", "hidden"),
        {"jsonrpc": "2.0", "id": 2, "result": {"prompts": [{"name": "hidden"}, {"name": "p"}]}},
        {"jsonrpc": "2.0", "id": 3, "error": {"code": -32601, "message": "m"}},
    ]
    bench = Bench({1: "tools/list", "1": "tools/call", 2: "prompts/list", 3: "vendor/x"})
    call, listed, prompts, error = json.loads(bench.body(batch))
    assert (call, error) == (batch[0], batch[3])
    assert names(listed) == ["a"]
    assert prompts["result"]["prompts"] == [{"name": "p"}]
    assert bench.signals == [
        Signal("1", Outcome.TOOL_ERROR, None),
        Signal(1, Outcome.OK, None),
        Signal(2, Outcome.OK, None),
        Signal(3, Outcome.RPC_ERROR, -32601),
    ]
    assert [json.loads(out.data or "") for out in bench.events(event(batch))] == [
        [call, listed, prompts, error]
    ]


@pytest.mark.parametrize("rpc_id", [True, 1.0, "2", "1a", None, [1]])
def test_an_id_of_another_request_does_not_get_the_method_of_the_pending_one(rpc_id: Any) -> None:
    """No shape gives this one away, so only the method would have it emptied."""
    message = {"jsonrpc": "2.0", "id": rpc_id, "result": {"tools": {"odd": 1}}}
    assert json.loads(Bench({1: "tools/list"}).body(message)) == message
    assert json.loads(Bench({1: "tools/list"}).body({**message, "id": 1}))["result"] == {"tools": []}


def test_a_pending_map_that_changes_is_looked_at_anew() -> None:
    bench = Bench()
    message = {"jsonrpc": "2.0", "id": 0, "result": {"tools": {"odd": 1}}}
    assert json.loads(bench.body(message)) == message
    bench.pending[0] = asked("tools/list")
    assert json.loads(bench.body(message))["result"] == {"tools": []}


def test_a_result_beside_a_method_or_an_error_is_filtered_too() -> None:
    for more in ({"method": "x"}, {"error": {"code": 1, "message": "m"}}):
        assert names(json.loads(Bench().body({**tools("hidden", "a"), **more}))) == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        '{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"hidden"}],"tools":[{"name":"a"}]}}',
        '{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"hidden"}]},"result":{"tools":[{"name":"a"}]}}',
        '{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"hidden","name":"a"}]}}',
    ],
)
@pytest.mark.parametrize("pending", [{1: "tools/list"}, {}])
def test_a_list_with_equal_members_is_written_as_it_was_read(text: str, pending: Any) -> None:
    expected = {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "a"}]}}
    out = Bench(pending).body(text.encode())
    assert json.loads(out) == expected
    assert b"hidden" not in out
    [made] = Bench(pending).pipeline.feed(event(text))
    assert b"hidden" not in made


def test_a_list_behind_a_byte_order_mark_or_in_bad_utf8_is_filtered() -> None:
    raw = json.dumps(tools("hidden", "a"), separators=(",", ":")).encode()
    assert names(json.loads(Bench().body(b"\xef\xbb\xbf" + raw))) == ["a"]
    [out] = Bench().events(b"data: \xef\xbb\xbf" + raw + b"\n\n")
    assert names(json.loads(out.data or "")) == ["a"]
    assert names(json.loads(Bench().body(raw.replace(b'"2.0"', b'"\xff"')))) == ["a"]


def test_a_list_split_over_data_lines_is_filtered() -> None:
    lines = json.dumps(tools("hidden", "a"), indent=1).splitlines()
    stream = "".join(f"data: {line}\r" for line in lines).encode() + b"\r"
    [out] = Bench().events(stream)
    assert names(json.loads(out.data or "")) == ["a"]


def test_a_lone_surrogate_survives_a_rewrite() -> None:
    out = Bench().body(b'{"id":1,"result":{"tools":[{"name":"hidden"},{"name":"\\ud800\xc3\xa9"}]}}')
    assert names(json.loads(out)) == ["\ud800é"]


UNREADABLE = [
    pytest.param(b"{broken " + dump(tools("hidden")), id="broken JSON"),
    pytest.param(dump(tools("hidden")) * 2, id="two documents"),
    pytest.param(b'{"x":' + DEEP.encode() + b',"hidden":1}', id="deep nesting"),
    pytest.param(b'{"x":' + LONG.encode() + b',"hidden":1}', id="a number of 5000 digits"),
    pytest.param(json.dumps(tools("hidden")).encode("utf-16"), id="UTF-16 with a mark"),
    pytest.param(json.dumps(tools("hidden")).encode("utf-16-le"), id="UTF-16 little end first"),
    pytest.param(json.dumps(tools("hidden")).encode("utf-16-be"), id="UTF-16 big end first"),
    pytest.param(json.dumps(tools("hidden")).encode("utf-32"), id="UTF-32"),
]


@pytest.mark.parametrize("raw", UNREADABLE)
def test_an_unreadable_list_is_an_error_and_not_a_list(raw: bytes) -> None:
    bench = Bench({0: "tools/list"})
    out = json.loads(bench.body(raw))
    assert isinstance(jsonrpc_message_adapter.validate_python(out), JSONRPCError)
    assert out["id"] == 0
    assert bench.signals == [Signal(0, Outcome.RESPONSE_REFUSED, None)]


@pytest.mark.parametrize("raw", UNREADABLE)
def test_an_unreadable_answer_of_another_method_passes(raw: bytes) -> None:
    bench = Bench({0: "tools/call"})
    assert bench.body(raw) == raw
    assert bench.signals == []


def test_an_unreadable_event_is_an_error_with_the_event_id_kept() -> None:
    bench = Bench({0: "tools/list"})
    [out] = bench.events(event("{hidden"))
    assert (out.id, json.loads(out.data or "")["id"]) == ("7", 0)
    assert "hidden" not in (out.data or "")
    assert Bench({0: "tools/call"}).pipeline.feed(event("{x")) == [event("{x")]


def test_every_list_that_waits_for_an_unreadable_answer_is_told() -> None:
    pending: dict[RpcId, str] = {0: "tools/list", "0": "prompts/list", 2: "tools/call"}
    bench = Bench(pending)
    assert [error["id"] for error in json.loads(bench.body(b"{"))] == [0, "0"]
    assert [json.loads(out.data or "")["id"] for out in bench.events(event("{"))] == [0, "0"]


def test_a_value_too_deep_to_write_again_is_unreadable() -> None:
    depth = 1
    while True:  # the deepest array that the reader takes
        try:
            json.loads("[" * depth * 2 + "]" * depth * 2)
        except RecursionError:
            break
        depth *= 2
        if depth > 100_000:
            pytest.skip("this reader takes any depth")
    entry = '{"name":"a","x":' + "[" * depth + "]" * depth + "}"
    raw = f'{{"id":1,"result":{{"tools":[{entry},{{"name":"hidden\\u0041"}}]}}}}'.encode()
    out = Bench({1: "tools/list"}).body(raw)
    assert b"hidden" not in out
    assert json.loads(out)["id"] == 1
