"""The handles that a client's message refers to, and the answers that it carries (reference §5.4).

A server that sees one shared key cannot tell whose they are: so they are read here, and bound to the
identity by the proxy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from callerid.mcp.methods import LEGACY, MAX_URI, METHODS, name_flaw
from callerid.model import EMPTY, NO_REFS, Refs

MAX_TASK_ID = 1024
MAX_REQUEST_STATE = 1_048_576
MAX_REFS = 256
"""The most resources and tasks that one ``subscriptions/listen`` may name: each of them is decided."""

MAX_INPUT_RESPONSES = 64
MAX_ID_LENGTH = 256

_TASKS = frozenset({"tasks/get", "tasks/result", "tasks/cancel", "tasks/update"})
_REPEATED = frozenset({"tools/call", "prompts/get", "resources/read", "tasks/update"})
_SAFE_INTEGER = 2**53


def refs_of(method: str, params: Mapping[str, Any], revision: str | None) -> Refs | str:
    """What a client's request or notification refers to, or the sentence that says what is wrong with it.

    Args:
        method: the method, exactly as sent.
        params: its params; empty if it has none.
        revision: the revision in force, or None before it is known.

    The method counts, whatever revision is named: the server may be one that does not look at that.
    ``requestState`` and ``inputResponses`` are of 2026-07-28, and refused under another revision's name.
    """
    if method not in METHODS:
        return NO_REFS
    if method == "notifications/cancelled":
        return _cancelled(params)
    if method == "subscriptions/listen":
        return _listened(params)
    task_ids: tuple[str, ...] = ()
    if method in _TASKS:
        flaw = name_flaw(params.get("taskId"), MAX_TASK_ID)
        if flaw is not None:
            return f"params.taskId {flaw}"
        task_ids = (params["taskId"],)
    if method not in _REPEATED:
        return Refs(task_ids=task_ids) if task_ids else NO_REFS
    if revision in LEGACY and (params.get("requestState") or params.get("inputResponses")):
        return f"requestState and inputResponses do not exist in {revision}"
    return _repeated(params, task_ids)


def _repeated(params: Mapping[str, Any], task_ids: tuple[str, ...]) -> Refs | str:
    """A call that goes on where an ``input_required`` answer left it (basic/patterns/mrtr)."""
    state = params.get("requestState")
    if state is not None and not isinstance(state, str):
        return "params.requestState must be a string"
    if state is not None and len(state) > MAX_REQUEST_STATE:
        return f"params.requestState is longer than {MAX_REQUEST_STATE} characters"
    responses = params.get("inputResponses")
    if responses is None:
        responses = EMPTY
    if not isinstance(responses, Mapping):
        return "params.inputResponses must be an object"
    if len(responses) > MAX_INPUT_RESPONSES:
        return f"params.inputResponses has more than {MAX_INPUT_RESPONSES} members"
    if not task_ids and state is None and not responses:
        return NO_REFS
    return Refs(task_ids=task_ids, request_state=state, input_responses=responses)


def _cancelled(params: Mapping[str, Any]) -> Refs | str:
    """2025-11-25 has cancellations without an id, and cancels tasks in another way."""
    if "requestId" not in params:
        return NO_REFS
    wanted = params["requestId"]
    if not _is_id(wanted):
        return f"params.requestId must be a string of at most {MAX_ID_LENGTH} characters or an integer"
    return Refs(cancels=wanted)


def _listened(params: Mapping[str, Any]) -> Refs | str:
    """The filter stands in ``notifications``; servers of drafts look for it in ``params`` itself as well."""
    wanted = params.get("notifications", EMPTY)
    if not isinstance(wanted, Mapping):
        return "params.notifications must be an object"
    resources = _names(wanted, params, "resourceSubscriptions", MAX_URI)
    if isinstance(resources, str):
        return resources
    task_ids = _names(wanted, params, "taskIds", MAX_TASK_ID)
    if isinstance(task_ids, str):
        return task_ids
    return Refs(resources=resources, task_ids=task_ids)


def _names(
    wanted: Mapping[str, Any], params: Mapping[str, Any], member: str, limit: int
) -> tuple[str, ...] | str:
    """The names of a list that stands in one or both places, each once."""
    found: list[str] = []
    for holder in (wanted, params):
        names = holder.get(member)
        if names is None:
            continue
        if not isinstance(names, Sequence) or isinstance(names, str):
            return f"{member} must be a list"
        if len(names) > MAX_REFS:
            return f"{member} has more than {MAX_REFS} entries"
        for name in names:
            flaw = name_flaw(name, limit)
            if flaw is not None:
                return f"an entry of {member} {flaw}"
            found.append(name)
    return tuple(dict.fromkeys(found))


def _is_id(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_ID_LENGTH
    return type(value) is int and abs(value) < _SAFE_INTEGER


def answer_of(envelope: Mapping[str, Any]) -> Refs:
    """A client's response: its result, or None if it is an error."""
    result = envelope.get("result")
    return Refs(answer=result) if isinstance(result, Mapping) else NO_REFS
