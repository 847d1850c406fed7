from __future__ import annotations

from typing import Any

import pytest

from callerid.mcp.outcomes import Signal, read_signal, rpc_id_of
from callerid.model import Outcome


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
        pytest.param({"resultType": "task", "taskId": "t"}, Outcome.TASK, id="task of 2026-07-28"),
        pytest.param({"task": {"taskId": "t"}}, Outcome.TASK, id="task of 2025-11-25"),
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
