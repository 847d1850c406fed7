"""How a call ended and what its answer made, read off the JSON-RPC response that answers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from callerid.model import Message, Outcome, RpcId

_LARGEST_CODE = 2**63 - 1  # the largest integer that the audit's column can hold
_LONGEST_NUMBER = 32
_POLL = "tasks/"


@dataclass(frozen=True, slots=True)
class Signal:
    """The outcome of the request ``rpc_id``. ``rpc_code`` is the error's code, for RPC_ERROR only.

    ``task_id`` and ``request_state`` are what this response made for the caller: a task that did not
    exist before, the opaque state that a repeated call will carry.
    """

    rpc_id: RpcId
    outcome: Outcome
    rpc_code: int | None
    task_id: str | None = None
    request_state: str | None = None


def rpc_id_of(message: Any) -> RpcId | None:
    """The id of a JSON-RPC message with its JSON type, None if it has none that a request may have.

    ``true`` and ``1.0`` are not the id 1, though Python finds them equal.
    """
    if not isinstance(message, dict):
        return None
    value = message.get("id")
    return value if type(value) is str or type(value) is int else None


def pending_of(rpc_id: RpcId | None, pending: Mapping[RpcId, Message]) -> tuple[RpcId, Message] | None:
    """The request that a response with this id answers for a client, with the id under which it waits.

    Clients take "1" for 1: the Python SDK by ``int()``, those in TypeScript by ``Number()``, which also
    reads "0x1", "1e0" and blanks. So the id as it stands comes first, then every other reading of it.
    """
    if rpc_id is None:
        return None
    for reading in (rpc_id, *_readings(rpc_id)):
        request = pending.get(reading)
        if request is not None:
            return reading, request
    return None


def _readings(rpc_id: RpcId) -> tuple[RpcId, ...]:
    if isinstance(rpc_id, int):
        return (str(rpc_id),) if abs(rpc_id) < 2**64 else ()
    if len(rpc_id) > _LONGEST_NUMBER:
        return ()
    found = {number for number in (_python(rpc_id), _javascript(rpc_id)) if number is not None}
    return (*found, *map(str, found))


def _python(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _javascript(text: str) -> int | None:
    """``Number(text)`` where that is a whole number (ECMA-262, StringToNumber)."""
    text = text.strip()
    if not text:
        return 0
    try:
        if text[:2].lower() in ("0x", "0o", "0b"):
            return int(text, 0)
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def read_signal(message: Any, request: Message | None = None) -> Signal | None:
    """What a JSON-RPC response says; None for a request, a notification and all else. Total.

    Args:
        message: one JSON-RPC message of a server.
        request: what it answers, None if that is not known.

    Sources: JSON-RPC 2.0 section 5; ``isError`` of a tool result; ``resultType`` of 2026-07-28
    (``input_required``, ``task``); ``result.task`` of the tasks of 2025-11-25.

    A task is made by ``result.task.taskId``, or by ``taskId`` beside ``resultType: "task"``. The answers
    to ``tasks/*`` have neither: they are tasks themselves, flat and "complete". One that nevertheless looks
    like a new task makes none if it is known to answer ``tasks/*``.
    """
    rpc_id = rpc_id_of(message)
    if rpc_id is None or "method" in message:
        return None
    if message.get("error") is not None:
        return Signal(rpc_id, Outcome.RPC_ERROR, _code(message["error"]))
    if "result" not in message:
        return None
    result = message["result"]
    if not isinstance(result, dict):
        return Signal(rpc_id, Outcome.OK, None)
    task_id = None if request is not None and request.method.startswith(_POLL) else _new_task(result)
    return Signal(rpc_id, _of_result(result, task_id), None, task_id, _request_state(result))


def _of_result(result: dict[str, Any], task_id: str | None) -> Outcome:
    if result.get("isError") is True:
        return Outcome.TOOL_ERROR
    if result.get("resultType") == "input_required":
        return Outcome.INPUT_REQUIRED
    return Outcome.OK if task_id is None else Outcome.TASK


def _new_task(result: dict[str, Any]) -> str | None:
    task = result.get("task")
    found = task.get("taskId") if isinstance(task, dict) else None
    if found is None and result.get("resultType") == "task":
        found = result.get("taskId")
    return found if isinstance(found, str) else None


def _request_state(result: dict[str, Any]) -> str | None:
    """That of an ``input_required`` result, and of a task that waits for input (tasks extension)."""
    if result.get("resultType") != "input_required" and "inputRequests" not in result:
        return None
    state = result.get("requestState")
    return state if isinstance(state, str) else None


def _code(error: Any) -> int | None:
    code = error.get("code") if isinstance(error, dict) else None
    return code if type(code) is int and -_LARGEST_CODE <= code <= _LARGEST_CODE else None
