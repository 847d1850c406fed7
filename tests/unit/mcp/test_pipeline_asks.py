from __future__ import annotations

import json
from typing import Any

import pytest
from mcp_types.jsonrpc import JSONRPCError, JSONRPCRequest, jsonrpc_message_adapter
from mcp_types.methods import parse_server_result

from callerid.mcp.asks import Ask, AskRefusal
from callerid.mcp.outcomes import Signal
from callerid.mcp.pipeline import AnswerPipeline
from callerid.mcp.sse import EventParser
from callerid.model import Message, Outcome, Reason, RpcId
from tests.unit.mcp.pipeline_bench import REFUSAL, RESULT, SECRET, Bench, asked, dump, event, tools

EVIL = "evil.example"
FORM = {"message": f"Password of {EVIL}?", "requestedSchema": {"type": "object"}}
LINK = {"mode": "url", "url": f"https://{EVIL}/", "message": "m", "elicitationId": "1"}
INPUT = {"e": {"method": "elicitation/create", "params": FORM}}
MODERN = "2026-07-28"


def request(rpc_id: Any = 7) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": rpc_id, "method": "elicitation/create", "params": FORM}


def response(rpc_id: Any = 1, **result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": rpc_id, "result": result}


WAITS = response(resultType="input_required", inputRequests=INPUT, requestState="s")
REQUIRED = {
    "jsonrpc": "2.0",
    "id": 1,
    "error": {"code": -32042, "message": EVIL, "data": {"elicitations": [LINK]}},
}
NEWS = {
    "jsonrpc": "2.0",
    "method": "notifications/tasks",
    "params": {"taskId": "t", "status": "input_required", "inputRequests": INPUT},
}

# ---- allowed


@pytest.mark.parametrize("message", [request(), WAITS, REQUIRED, NEWS, [request(), WAITS]])
def test_what_a_server_may_ask_keeps_its_bytes(message: Any) -> None:
    bench = Bench({1: "tools/call"})
    assert bench.body(message) == dump(message)
    assert bench.pipeline.feed(event(message)) == [event(message)]
    assert bench.pipeline.dropped == 0
    assert bench.asks


def test_the_judge_is_asked_once_for_each_message_with_the_request_that_it_answers() -> None:
    bench = Bench({1: "tools/call"})
    two = response(inputRequests={**INPUT, "r": {"method": "roots/list"}})
    bench.body([request(), two, RESULT, {"jsonrpc": "2.0", "method": "notifications/progress"}])
    assert [[ask.method for ask in asks] for asks, _ in bench.asks] == [
        ["elicitation/create"],
        ["elicitation/create", "roots/list"],
    ]
    assert [known for _, known in bench.asks] == [None, bench.pending[1]]


def test_a_request_with_the_id_of_a_pending_one_does_not_answer_it() -> None:
    bench = Bench({7: "tools/call"})
    bench.body(request(7))
    assert [known for _, known in bench.asks] == [None]


def test_what_an_answer_made_is_told() -> None:
    bench = Bench({1: "tools/call", 2: "tasks/get"})
    bench.body(WAITS)
    bench.body(response(task={"taskId": "t"}))
    bench.body(response(2, resultType="task", taskId="t"))
    assert bench.signals == [
        Signal(1, Outcome.INPUT_REQUIRED, None, None, "s"),
        Signal(1, Outcome.TASK, None, "t"),
        Signal(2, Outcome.OK, None),
    ]


def test_the_id_is_told_as_it_waits() -> None:
    bench = Bench({"1": "tools/call"})
    assert bench.body(RESULT) == dump(RESULT)
    assert bench.signals == [Signal("1", Outcome.OK, None)]


# ---- refused


@pytest.mark.parametrize("rpc_id", [0, 7, "7", "", -1, 5.0])
def test_a_refused_request_becomes_a_ping_with_its_id(rpc_id: Any) -> None:
    bench = Bench(refuse=REFUSAL)
    expected = {"jsonrpc": "2.0", "id": rpc_id, "method": "ping"}
    out = bench.body(request(rpc_id))
    assert json.loads(out) == expected
    assert type(json.loads(out)["id"]) is type(rpc_id)
    if type(rpc_id) is not float:
        assert isinstance(jsonrpc_message_adapter.validate_python(expected), JSONRPCRequest)
    [given] = bench.events(event(request(rpc_id)))
    assert (json.loads(given.data or ""), given.id) == (expected, "7")
    assert bench.signals == []


@pytest.mark.parametrize("rpc_id", [None, True, {}, 5.5, float("nan")])
def test_a_refused_request_that_nobody_could_answer_is_dropped(rpc_id: Any) -> None:
    bench = Bench(refuse=REFUSAL)
    assert bench.body(request(rpc_id)) == b""
    assert bench.pipeline.feed(event(request(rpc_id))) == []
    assert (bench.pipeline.dropped, bench.ids) == (2, [])


@pytest.mark.parametrize("message", [WAITS, REQUIRED, response(task={"taskId": "t", "inputRequests": INPUT})])
@pytest.mark.parametrize("protocol", [None, "2025-11-25", MODERN])
def test_a_refused_answer_to_a_tool_call_is_a_tool_result_that_the_model_reads(
    message: Any, protocol: str | None
) -> None:
    bench = Bench({1: asked("tools/call", protocol=protocol)}, refuse=REFUSAL)
    made = json.loads(bench.body(message))
    assert made["id"] == 1
    text = made["result"]["content"][0]["text"]
    assert made["result"]["isError"] is True
    assert made["result"].get("resultType") == ("complete" if protocol == MODERN else None)
    assert "no-questions" in text
    assert "Ask Alice." in text
    assert "01a0-row" in text
    parse_server_result("tools/call", protocol or "2025-06-18", made["result"])
    [given] = bench.events(event(message))
    assert json.loads(given.data or "") == made
    assert bench.signals == [Signal(1, Outcome.RESPONSE_REFUSED, None)] * 2


@pytest.mark.parametrize("pending", [{}, {1: "prompts/get"}, {1: "tasks/get"}, {1: "resources/read"}])
@pytest.mark.parametrize("message", [WAITS, REQUIRED])
def test_any_other_refused_answer_is_an_error(message: Any, pending: dict[RpcId, str | Message]) -> None:
    bench = Bench(pending, refuse=REFUSAL)
    made = json.loads(bench.body(message))
    assert isinstance(jsonrpc_message_adapter.validate_python(made), JSONRPCError)
    assert made["id"] == 1
    assert made["error"]["data"]["reason"] == "rule_denied"
    assert bench.signals == [Signal(1, Outcome.RESPONSE_REFUSED, None)]


def test_a_refused_answer_keeps_the_id_that_the_server_gave_it() -> None:
    bench = Bench({1: "tools/call"}, refuse=REFUSAL)
    made = json.loads(bench.body({**WAITS, "id": "1"}))
    assert (made["id"], made["result"]["isError"]) == ("1", True)
    assert bench.signals == [Signal(1, Outcome.RESPONSE_REFUSED, None)]
    assert json.loads(bench.body({**WAITS, "id": 1.0}))["id"] == 1.0
    assert bench.body({**REQUIRED, "id": None}) == b""


def test_a_refused_notification_is_dropped_with_its_event_id() -> None:
    bench = Bench(refuse=REFUSAL)
    assert bench.pipeline.feed(event(NEWS) + event(RESULT, "id: 8\n")) == [event(RESULT, "id: 8\n")]
    assert bench.ids == ["8"]
    assert bench.body(NEWS) == b""


def test_only_the_refused_elements_of_an_array_change() -> None:
    bench = Bench({1: "tools/call", 2: "tools/call"}, refuse=REFUSAL)
    other = response(2, content=[])
    ping, refused, kept = json.loads(bench.body([request(), NEWS, WAITS, other]))
    assert ping == {"jsonrpc": "2.0", "id": 7, "method": "ping"}
    assert refused["result"]["isError"] is True
    assert kept == other
    assert [signal.outcome for signal in bench.signals] == [Outcome.RESPONSE_REFUSED, Outcome.OK]


def test_what_is_hidden_reads_like_what_no_rule_allows() -> None:
    def told(reason: Reason, *, hidden: bool, rule: str | None) -> Any:
        refusal = AskRefusal(reason=reason, event_id="e", rule=rule, say="s", hidden=hidden)
        return json.loads(Bench({1: "tools/call"}, refuse=refusal).body(WAITS))

    hidden = told(Reason.RULE_DENIED, hidden=True, rule="no-questions")
    assert hidden == told(Reason.NO_GRANT, hidden=False, rule=None)
    assert "no-questions" not in json.dumps(hidden)


def test_a_refusal_of_ours_is_told_as_a_fault() -> None:
    refusal = AskRefusal(reason=Reason.AUDIT_UNAVAILABLE, event_id="e", rule=None, say=None, hidden=False)
    made = json.loads(Bench({1: "tools/call"}, refuse=refusal).body(WAITS))
    assert made["id"] == 1
    assert made["error"]["data"]["reason"] == "audit_unavailable"


def test_a_fault_of_the_judge_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Bench, asks: tuple[Ask, ...], known: Message | None) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(Bench, "judge", broken)
    bench = Bench()
    with pytest.raises(ValueError, match="a bug"):
        bench.body(request())
    with pytest.raises(ValueError, match="a bug"):
        bench.pipeline.feed(event(request()))


def test_a_secret_is_taken_out_before_the_judge_sees_what_is_asked() -> None:
    bench = Bench()
    bench.body(json.dumps({**request(), "params": {**FORM, "message": SECRET}}).encode())
    [(asks, _)] = bench.asks
    assert asks[0].arguments["message"] == "[redacted]"


# ---- other readers than ours


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            '{"id":1,"result":{"inputRequests":{"e":{"method":"evil.example"}},"inputRequests":{}}}',
            id="the first of equal maps asks",
        ),
        pytest.param(
            '{"id":1,"result":{"inputRequests":{"e":{"method":"evil.example"}}},"result":{}}',
            id="the first of equal results asks",
        ),
        pytest.param(
            '{"id":1,"method":"evil.example","method":"ping"}', id="the first of equal methods asks"
        ),
        pytest.param('{"id":7,"method":"ping","params":{"a":"evil.example"},"params":{}}', id="equal params"),
        pytest.param(
            '{"method":"notifications/tasks","params":{"taskId":"other-evil","taskId":"t"}}',
            id="the first of equal task ids is another",
        ),
        pytest.param(
            '{"id":1,"result":{"tools":[{"name":"evil.example"}],"tools":{}}}', id="the first is a list"
        ),
        pytest.param(
            '{"id":1,"result":{"x":"evil.exampl\\u0065","x":"b"}}', id="what is not read holds an escape"
        ),
    ],
)
def test_equal_members_are_written_as_we_read_them_where_it_matters(text: str) -> None:
    out = Bench().body(text.encode())
    assert json.loads(out) == json.loads(text)
    assert b"evil" not in out
    [given] = Bench().pipeline.feed(event(text))
    assert b"evil" not in given


UNREADABLE = [
    pytest.param(json.dumps(request()).encode("utf-16"), id="UTF-16 with a mark"),
    pytest.param(json.dumps(request()).encode("utf-16-be"), id="UTF-16"),
    pytest.param(json.dumps(WAITS).encode("utf-32"), id="UTF-32"),
    pytest.param(dump(WAITS) + dump(request()), id="two documents"),
    pytest.param(dump({**WAITS, "x": 0}).replace(b'"x": 0', b'"x": ' + b"9" * 5000), id="a long number"),
    pytest.param(dump(REQUIRED).replace(b'"m"', b'"a\nb"'), id="a control character in a string"),
    pytest.param(b'{"id":1,"\\u006dethod":"evil.example",}', id="an escaped name and a comma too many"),
    pytest.param(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"," + dump(request())[1:], id="deep nesting"),
]


@pytest.mark.parametrize("raw", UNREADABLE)
def test_what_cannot_be_read_and_may_ask_is_an_error_to_all_who_wait(raw: bytes) -> None:
    bench = Bench({0: "tools/call", "a": "ping"})
    made = json.loads(bench.body(raw))
    assert [error["id"] for error in made] == [0, "a"]
    assert bench.signals == [
        Signal(0, Outcome.RESPONSE_REFUSED, None),
        Signal("a", Outcome.RESPONSE_REFUSED, None),
    ]
    assert Bench().body(raw) == b""


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b'data: {"jsonrpc":"2.0",\rfoo: "id":1,"method":"x"}\n\n', id="half of it behind a CR"),
        pytest.param(b'data: {"jsonrpc":"2.0",\r\r"id":1,"method":"x"}\n\n', id="a CR ends the event"),
        pytest.param(b'data: {"id":1,\r\r"m\\u0065thod":"x",\r\r"params":{}}\n\n', id="two CRs end two"),
        pytest.param(
            b'data: {"id":1,\r"result":{"tools":[{"name":"hidden thod"}]}}\n\n', id="a list behind a CR"
        ),
        pytest.param(
            b'data: \r\r{"id":1,"result":{"tools":[{"name":"hidden thod"}]}}\n\n', id="a list in a next event"
        ),
        pytest.param(b'data: \r{"jsonrpc":"2.0","id":1,"method":"x"}\n\n', id="all of it behind a CR"),
        pytest.param(b'data: \r\r{"jsonrpc":"2.0","id":1,"method":"x"}\n\n', id="all of it in a next event"),
        pytest.param('data: \u2028data: {"id":1,"method":"x"}\n\n'.encode(), id="behind a line separator"),
        pytest.param(b': \x0cdata: {"id":1,"method":"x"}\n\n', id="in a comment, behind a form feed"),
        pytest.param(
            b'data: x\x0bdata: {"id":1,"m\\u0065thod":"x"}\n\n', id="behind a vertical tab, escaped"
        ),
    ],
)
def test_clients_that_end_lines_elsewhere_find_nothing_in_an_event(stream: bytes) -> None:
    """Lone CRs are line ends for us and not for some; some end lines at what only Unicode calls an end."""
    bench = Bench()
    out = b"".join(bench.pipeline.feed(stream + event(RESULT)))
    assert b"thod" not in out
    assert out.endswith(event(RESULT))


def test_a_body_that_only_some_clients_take_for_a_stream_is_judged_as_one() -> None:
    bench = Bench(refuse=REFUSAL)
    out = bench.body(b"\n" + event(RESULT) + event(request()) + b"data: tail")
    assert EVIL.encode() not in out
    assert out.startswith(b"\n" + event(RESULT))
    assert out.endswith(b"data: tail")
    for tail in (b"", b"\r", b"\n"):
        assert EVIL.encode() not in bench.body(b"data: " + json.dumps(request()).encode() + tail)
    page = b'<html>\n\ndata-x \\u0041 {} "method"\n\n</html>'
    assert Bench().body(page) == page


def test_a_value_too_deep_to_be_written_anew_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def deep(value: Any) -> str:
        raise RecursionError

    bench = Bench({1: "tools/call"})
    monkeypatch.setattr(
        "callerid.mcp.pipeline.write", lambda value: deep(value) if "tools" in str(value) else "E"
    )
    assert bench.body(tools("hidden")) == b"E"
    assert bench.signals == [Signal(1, Outcome.RESPONSE_REFUSED, None)]
    assert Bench().body(tools("hidden")) == b""


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_mark_does_not_come_to_the_start_because_what_was_before_it_is_dropped(end: bytes) -> None:
    hidden = event({"method": "notifications/resources/updated", "params": {"uri": "hidden:x"}})
    endpoint = b"\xef\xbb\xbfevent: endpoint\ndata: https://evil.example/\n\n"
    bench = Bench()
    out = b"".join(bench.pipeline.feed((hidden + endpoint + event(RESULT)).replace(b"\n", end)))
    assert not out.startswith(b"\xef\xbb\xbf")
    assert b"".join(Bench().pipeline.feed(event(RESULT) + endpoint)) == event(RESULT) + endpoint


# ---- event ids, and what we say ourselves


def test_every_event_id_that_is_given_out_is_told_before_it_is() -> None:
    bench = Bench({1: "tools/list"})
    prime = b"id: p\ndata: \n\n"
    bare = b"id: q\n\n"
    none = b"id\ndata: x\n\nid: a\0b\ndata: x\n\n: id: z\n\n"
    out = bench.pipeline.feed(prime + bare + none + event(tools("hidden"), "id: r\n"))
    assert bench.ids == ["p", "q", "r"]
    assert b"".join(out).startswith(prime + bare + none)


def test_the_id_of_an_event_that_is_dropped_is_not_told() -> None:
    bench = Bench()
    hidden = {"method": "notifications/resources/updated", "params": {"uri": "hidden:x"}}
    other = {"method": "notifications/tasks", "params": {"taskId": "other"}}
    endpoint = b"event: endpoint\nid: e\ndata: /m\n\n"
    assert bench.pipeline.feed(event(hidden) + event(other) + endpoint) == []
    assert (bench.ids, bench.pipeline.dropped) == ([], 3)


@pytest.mark.parametrize("text", ["Zoë\u2028\n\r\n", "\ud800"])
def test_what_we_say_is_one_event(text: str) -> None:
    message = {"jsonrpc": "2.0", "id": "\n", "error": {"code": -1, "message": text}}
    parser = EventParser()
    [given] = parser.feed(AnswerPipeline.say(message))
    assert parser.rest() == b""
    assert (given.event, given.id, json.loads(given.data or "")) == ("message", None, message)
