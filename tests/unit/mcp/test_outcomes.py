from __future__ import annotations

from typing import Any

import pytest

from callerid.mcp.outcomes import Signal, pending_of, read_signal, rpc_id_of
from callerid.model import Outcome, RpcId
from tests.unit.mcp.pipeline_bench import asked


def response(result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "result": result}


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        pytest.param({}, Outcome.OK, id="an empty result is a success"),
        pytest.param({"content": [], "isError": False}, Outcome.OK, id="isError false"),
        pytest.param({"content": [], "isError": True}, Outcome.TOOL_ERROR, id="isError true"),
        pytest.param({"isError": 1}, Outcome.OK, id="isError must be the boolean"),
        pytest.param({"resultType": "complete"}, Outcome.OK, id="complete"),
        pytest.param({"resultType": "input_required"}, Outcome.INPUT_REQUIRED, id="input required"),
        pytest.param({"resultType": "task"}, Outcome.OK, id="a task without an id"),
        pytest.param({"task": "t"}, Outcome.OK, id="some other member named task"),
        pytest.param({"resultType": "complete", "isError": True}, Outcome.TOOL_ERROR, id="modern tool error"),
        pytest.param(None, Outcome.OK, id="a null result"),
        pytest.param([1], Outcome.OK, id="a result that is no object"),
        pytest.param({"resultType": ["input_required"]}, Outcome.OK, id="resultType of another type"),
    ],
)
def test_a_result_tells_how_the_call_ended(result: Any, outcome: Outcome) -> None:
    assert read_signal(response(result)) == Signal(1, outcome, None)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param({"code": -32601, "message": "m"}, -32601, id="a code"),
        pytest.param({"message": "m"}, None, id="no code"),
        pytest.param({"code": True}, None, id="a boolean is no code"),
        pytest.param({"code": "7"}, None, id="a string is no code"),
        pytest.param({"code": 7.0}, None, id="a fraction is no code"),
        pytest.param({"code": 2**63}, None, id="a code too large to store"),
        pytest.param("broken", None, id="an error that is no object"),
    ],
)
def test_an_error_keeps_its_code(error: Any, code: int | None) -> None:
    assert read_signal({"jsonrpc": "2.0", "id": "a", "error": error}) == Signal("a", Outcome.RPC_ERROR, code)


def test_an_error_counts_before_a_result() -> None:
    signal = read_signal({"id": 1, "result": {}, "error": {"code": 5}})
    assert signal == Signal(1, Outcome.RPC_ERROR, 5)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"jsonrpc": "2.0", "id": 1, "method": "ping"}, id="a request"),
        pytest.param({"jsonrpc": "2.0", "method": "notifications/progress"}, id="a notification"),
        pytest.param({"id": 1, "method": "x", "result": {}}, id="a request that is also a response"),
        pytest.param({"id": None, "error": {"code": 1}}, id="an error about no request"),
        pytest.param({"id": 1}, id="neither result nor error"),
        pytest.param({"id": 1, "error": None}, id="a null error"),
        pytest.param({"id": True, "result": {}}, id="true is not the id 1"),
        pytest.param({"id": 1.0, "result": {}}, id="1.0 is not the id 1"),
        pytest.param({"id": [], "result": {}}, id="an id that is no id"),
        pytest.param([], id="an array"),
        pytest.param("x", id="a string"),
        pytest.param(None, id="null"),
        pytest.param(7, id="a number"),
    ],
)
def test_all_else_says_nothing(message: Any) -> None:
    assert read_signal(message) is None


@pytest.mark.parametrize("rpc_id", [0, -1, 1, "", "0", "a", 2**60])
def test_ids_keep_value_and_type(rpc_id: int | str) -> None:
    found = rpc_id_of({"id": rpc_id})
    assert found == rpc_id
    assert type(found) is type(rpc_id)


@pytest.mark.parametrize(
    ("result", "task_id", "state"),
    [
        pytest.param({"task": {"taskId": "t"}}, "t", None, id="a task of 2025-11-25"),
        pytest.param({"resultType": "task", "taskId": "t"}, "t", None, id="a task of 2026-07-28"),
        pytest.param({"resultType": "task", "task": {"taskId": "t"}}, "t", None, id="a task of a draft"),
        pytest.param({"resultType": "complete", "taskId": "t"}, None, None, id="a poll of 2026-07-28"),
        pytest.param({"taskId": "t", "status": "working"}, None, None, id="a poll of 2025-11-25"),
        pytest.param({"task": {"taskId": 7}}, None, None, id="a task id that is none"),
        pytest.param({"resultType": "input_required", "requestState": "s"}, None, "s", id="input required"),
        pytest.param({"resultType": "input_required", "requestState": ""}, None, "", id="an empty state"),
        pytest.param({"resultType": "input_required", "requestState": 7}, None, None, id="no state"),
        pytest.param(
            {"taskId": "t", "inputRequests": {}, "requestState": "s"}, None, "s", id="a task that waits"
        ),
        pytest.param({"resultType": "complete", "requestState": "s"}, None, None, id="a state of no ask"),
    ],
)
def test_a_result_tells_what_it_made(result: Any, task_id: str | None, state: str | None) -> None:
    signal = read_signal(response(result))
    assert signal is not None
    assert (signal.task_id, signal.request_state) == (task_id, state)
    assert (signal.outcome is Outcome.TASK) is (task_id is not None)


@pytest.mark.parametrize("method", ["tasks/get", "tasks/result", "tasks/cancel", "tasks/update"])
@pytest.mark.parametrize("result", [{"task": {"taskId": "t"}}, {"resultType": "task", "taskId": "t"}])
def test_a_poll_makes_no_task(method: str, result: Any) -> None:
    assert read_signal(response(result), asked(method)) == Signal(1, Outcome.OK, None)
    assert read_signal(response(result), asked("tools/call")) == Signal(1, Outcome.TASK, None, "t")


@pytest.mark.parametrize(
    ("waits", "came"),
    [
        pytest.param(1, 1, id="the id"),
        pytest.param("a", "a", id="a string"),
        pytest.param(1, "1", id="a string for a number"),
        pytest.param("1", 1, id="a number for a string"),
        pytest.param(0, "", id="Number of an empty string is 0"),
        pytest.param(1, " 1\n", id="blanks around a number"),
        pytest.param(16, "0x10", id="hexadecimal, as JavaScript has it"),
        pytest.param(10, "1e1", id="an exponent, as JavaScript has it"),
        pytest.param(10, "1_0", id="an underscore, as Python has it"),
        pytest.param(-7, "-7", id="a negative number"),
    ],
)
def test_a_response_answers_what_a_client_takes_it_for(waits: RpcId, came: RpcId) -> None:
    request = asked("tools/call", rpc_id=waits)
    found = pending_of(came, {waits: request, 99: asked("ping")})
    assert found == (waits, request)
    assert found is not None
    assert type(found[0]) is type(waits)


def test_the_id_as_it_stands_comes_first() -> None:
    number, text = asked("ping", rpc_id=1), asked("tools/call", rpc_id="1")
    assert pending_of(1, {1: number, "1": text}) == (1, number)
    assert pending_of("1", {1: number, "1": text}) == ("1", text)


@pytest.mark.parametrize("came", [None, "x", "1.5", "Infinity", "NaN", "0b12", "9" * 5000, 10**400, "2"])
def test_a_response_to_nothing_answers_nothing(came: RpcId | None) -> None:
    assert pending_of(came, {1: asked("ping")}) is None
