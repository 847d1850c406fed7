"""How a call ended, read off the JSON-RPC response that answers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from callerid.model import Outcome, RpcId

_LARGEST_CODE = 2**63 - 1  # the largest integer that the audit's column can hold


@dataclass(frozen=True, slots=True)
class Signal:
    """The outcome of the request ``rpc_id``. ``rpc_code`` is the error's code, for RPC_ERROR only."""

    rpc_id: RpcId
    outcome: Outcome
    rpc_code: int | None


def rpc_id_of(message: Any) -> RpcId | None:
    """The id of a JSON-RPC message with its JSON type, None if it has none that a request may have.

    ``true`` and ``1.0`` are not the id 1, though Python finds them equal.
    """
    if not isinstance(message, dict):
        return None
    value = message.get("id")
    return value if type(value) is str or type(value) is int else None


def read_signal(message: Any) -> Signal | None:
    """What a JSON-RPC response says; None for a request, a notification and all else. Total.

    Sources: JSON-RPC 2.0 section 5; ``isError`` of a tool result; ``resultType`` of 2026-07-28
    (``input_required``, ``task``); ``result.task`` of the tasks of 2025-11-25.
    """
    rpc_id = rpc_id_of(message)
    if rpc_id is None or "method" in message:
        return None
    if message.get("error") is not None:
        return Signal(rpc_id, Outcome.RPC_ERROR, _code(message["error"]))
    if "result" not in message:
        return None
    return Signal(rpc_id, _of_result(message["result"]), None)


def _of_result(result: Any) -> Outcome:
    if not isinstance(result, dict):
        return Outcome.OK
    if result.get("isError") is True:
        return Outcome.TOOL_ERROR
    kind, task = result.get("resultType"), result.get("task")
    if kind == "input_required":
        return Outcome.INPUT_REQUIRED
    if kind == "task" or (isinstance(task, dict) and isinstance(task.get("taskId"), str)):
        return Outcome.TASK
    return Outcome.OK


def _code(error: Any) -> int | None:
    code = error.get("code") if isinstance(error, dict) else None
    return code if type(code) is int and -_LARGEST_CODE <= code <= _LARGEST_CODE else None
