from __future__ import annotations

import json
from typing import Any

import pytest

from callerid.mcp.classify import classify
from callerid.mcp.methods import LEGACY, METHODS, REVISIONS
from callerid.mcp.refs import MAX_INPUT_RESPONSES, MAX_REFS, MAX_REQUEST_STATE, MAX_TASK_ID, refs_of
from callerid.model import NO_REFS, Exchange, Malformed, Reason, Refs

MODERN = "2026-07-28"
ANSWERS = {"name": {"action": "accept", "content": {"name": "Alice"}}}

FOUND = [
    pytest.param("tools/call", {"name": "x"}, MODERN, NO_REFS, id="a first call"),
    pytest.param(
        "tools/call",
        {"name": "x", "requestState": "s", "inputResponses": ANSWERS},
        MODERN,
        Refs(request_state="s", input_responses=ANSWERS),
        id="a call that is repeated",
    ),
    pytest.param("prompts/get", {"requestState": ""}, None, Refs(request_state=""), id="an empty state"),
    pytest.param(
        "resources/read", {"inputResponses": ANSWERS}, MODERN, Refs(input_responses=ANSWERS), id="no state"
    ),
    pytest.param(
        "tools/call", {"requestState": None, "inputResponses": None}, MODERN, NO_REFS, id="null is absent"
    ),
    pytest.param("tools/call", {"inputResponses": {}}, MODERN, NO_REFS, id="no answers"),
    pytest.param("tools/call", {"requestState": None}, "2025-11-25", NO_REFS, id="none, in 2025"),
    pytest.param("tools/list", {"requestState": "s"}, MODERN, NO_REFS, id="a method that is not repeated"),
    pytest.param("tasks/get", {"taskId": "t"}, "2025-11-25", Refs(task_ids=("t",)), id="a poll of 2025"),
    pytest.param("tasks/get", {"taskId": "t"}, MODERN, Refs(task_ids=("t",)), id="a poll of 2026"),
    pytest.param("tasks/result", {"taskId": "t"}, None, Refs(task_ids=("t",)), id="a task's result"),
    pytest.param("tasks/cancel", {"taskId": "t"}, MODERN, Refs(task_ids=("t",)), id="a task's end"),
    pytest.param("tasks/list", {}, "2025-11-25", NO_REFS, id="all tasks"),
    pytest.param(
        "tasks/update",
        {"taskId": "t", "requestState": "s", "inputResponses": ANSWERS},
        MODERN,
        Refs(task_ids=("t",), request_state="s", input_responses=ANSWERS),
        id="answers to a task",
    ),
    pytest.param(
        "tasks/result",
        {"taskId": "t"},
        MODERN,
        Refs(task_ids=("t",)),
        id="a method that 2026 does not define",
    ),
    pytest.param("acme/run", {"taskId": 7}, None, NO_REFS, id="a vendor's method"),
    pytest.param(
        "subscriptions/listen", {"notifications": {"toolsListChanged": True}}, MODERN, NO_REFS, id="changes"
    ),
    pytest.param(
        "subscriptions/listen",
        {"notifications": {"resourceSubscriptions": ["a:1", "b:1", "a:1"], "taskIds": ["t"]}},
        MODERN,
        Refs(resources=("a:1", "b:1"), task_ids=("t",)),
        id="a filter that names things",
    ),
    pytest.param(
        "subscriptions/listen",
        {"notifications": {"taskIds": ["t"]}, "taskIds": ["u"], "resourceSubscriptions": ["a:1"]},
        MODERN,
        Refs(resources=("a:1",), task_ids=("t", "u")),
        id="a filter in both places",
    ),
    pytest.param(
        "subscriptions/listen", {"notifications": {"taskIds": None}}, MODERN, NO_REFS, id="a null filter"
    ),
    pytest.param(
        "notifications/cancelled", {"requestId": 0}, None, Refs(cancels=0), id="cancelled by number"
    ),
    pytest.param(
        "notifications/cancelled", {"requestId": "a"}, MODERN, Refs(cancels="a"), id="cancelled by name"
    ),
    pytest.param("notifications/cancelled", {}, "2025-11-25", NO_REFS, id="cancelled without an id"),
]

FLAWED = [
    pytest.param("tasks/get", {}, id="no task id"),
    pytest.param("tasks/get", {"taskId": ""}, id="an empty task id"),
    pytest.param("tasks/cancel", {"taskId": 7}, id="a number as task id"),
    pytest.param("tasks/result", {"taskId": ["t"]}, id="a list as task id"),
    pytest.param("tasks/update", {"taskId": None}, id="null as task id"),
    pytest.param("tasks/get", {"taskId": "t" * (MAX_TASK_ID + 1)}, id="a task id that is too long"),
    pytest.param("tasks/get", {"taskId": "t\n"}, id="a control character in a task id"),
    pytest.param("tools/call", {"requestState": {}}, id="an object as state"),
    pytest.param("tools/call", {"requestState": "s" * (MAX_REQUEST_STATE + 1)}, id="a state too long"),
    pytest.param("resources/read", {"inputResponses": []}, id="a list of answers"),
    pytest.param("prompts/get", {"inputResponses": "x"}, id="a string of answers"),
    pytest.param(
        "tools/call",
        {"inputResponses": {str(n): {} for n in range(MAX_INPUT_RESPONSES + 1)}},
        id="too many answers",
    ),
    pytest.param("subscriptions/listen", {"notifications": []}, id="a filter that is a list"),
    pytest.param("subscriptions/listen", {"notifications": {"taskIds": "t"}}, id="a string of tasks"),
    pytest.param("subscriptions/listen", {"taskIds": {"t": 1}}, id="an object of tasks"),
    pytest.param("subscriptions/listen", {"notifications": {"taskIds": ["t", 7]}}, id="a task that is none"),
    pytest.param(
        "subscriptions/listen", {"notifications": {"resourceSubscriptions": [""]}}, id="an empty resource"
    ),
    pytest.param(
        "subscriptions/listen",
        {"resourceSubscriptions": [f"a:{n}" for n in range(MAX_REFS + 1)]},
        id="too many resources",
    ),
    pytest.param("notifications/cancelled", {"requestId": None}, id="cancelled null"),
    pytest.param("notifications/cancelled", {"requestId": True}, id="cancelled true"),
    pytest.param("notifications/cancelled", {"requestId": 1.0}, id="cancelled a fraction"),
    pytest.param("notifications/cancelled", {"requestId": 2**53}, id="cancelled a number too large"),
    pytest.param("notifications/cancelled", {"requestId": "x" * 257}, id="cancelled an id too long"),
]


@pytest.mark.parametrize(("method", "params", "revision", "refs"), FOUND)
def test_what_a_message_refers_to(
    method: str, params: dict[str, Any], revision: str | None, refs: Refs
) -> None:
    assert refs_of(method, params, revision) == refs


@pytest.mark.parametrize(("method", "params"), FLAWED)
def test_malformed_references_are_told(method: str, params: dict[str, Any]) -> None:
    flaw = refs_of(method, params, None)
    assert isinstance(flaw, str)
    assert len(flaw) < 200


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("revision", sorted(REVISIONS))
def test_a_handle_counts_whatever_revision_is_named(method: str, revision: str) -> None:
    """The server may be one that does not look at the header."""
    params = {"taskId": "t", "requestId": 1, "taskIds": ["t"]}
    assert refs_of(method, params, revision) == refs_of(method, params, None)


@pytest.mark.parametrize("params", [{"requestState": "s"}, {"inputResponses": {"a": {}}}])
@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read"])
@pytest.mark.parametrize("revision", LEGACY)
def test_what_goes_on_a_call_is_refused_where_it_does_not_exist(
    method: str, params: dict[str, Any], revision: str
) -> None:
    assert refs_of(method, params, revision) == f"requestState and inputResponses do not exist in {revision}"


def post(message: dict[str, Any], *headers: tuple[str, str]) -> Exchange | Malformed:
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    return classify("POST", [("Content-Type", "application/json"), *headers], body)


def test_classify_fills_them_in() -> None:
    call = post({"id": 1, "method": "tools/call", "params": {"name": "x", "requestState": "s"}})
    assert isinstance(call, Exchange)
    assert call.messages[0].refs == Refs(request_state="s")
    answer = post({"id": 7, "result": {"action": "decline"}})
    assert isinstance(answer, Exchange)
    assert answer.messages[0].refs == Refs(answer={"action": "decline"})
    error = post({"id": 7, "error": {"code": 1, "message": "no"}})
    assert isinstance(error, Exchange)
    assert error.messages[0].refs == NO_REFS


def test_classify_refuses_what_is_malformed() -> None:
    refused = post({"id": 1, "method": "tasks/get", "params": {"taskId": 7}})
    assert isinstance(refused, Malformed)
    assert refused.reason is Reason.MALFORMED_MESSAGE
    assert refused.detail == "params.taskId must be a non-empty string"
