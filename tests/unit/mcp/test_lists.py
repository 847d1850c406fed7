from __future__ import annotations

import copy
from typing import Any

import pytest

from callerid.mcp import lists
from callerid.mcp.lists import LIST_METHODS, MAX_TTL_MS, hide
from callerid.model import Kind, Message
from tests.unit.mcp.pipeline_bench import asked

# Method, where its entries are, what names an entry, and the kind that policy is asked about.
LISTS = [
    pytest.param("tools/list", "tools", "name", Kind.TOOL, id="tools"),
    pytest.param("prompts/list", "prompts", "name", Kind.PROMPT, id="prompts"),
    pytest.param("resources/list", "resources", "uri", Kind.RESOURCE, id="resources"),
    pytest.param(
        "resources/templates/list", "resourceTemplates", "uriTemplate", Kind.RESOURCE, id="templates"
    ),
    pytest.param("tasks/list", "tasks", "taskId", None, id="tasks"),
]


class Only:
    """A view of what begins with ``prefix``, and what it was asked."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.asked: list[tuple[Kind | None, str]] = []

    def visible(self, kind: Kind, name: str) -> bool:
        self.asked.append((kind, name))
        return name.startswith(self.prefix)

    def owns_task(self, task_id: str) -> bool:
        self.asked.append((None, task_id))
        return task_id.startswith(self.prefix)


only_open, everything = Only("open"), Only("")


def filter_result(method: str | None, result: dict[str, Any], view: Only) -> dict[str, Any] | None:
    request: Message | None = None if method is None else asked(method)
    return lists.filter_result(request, result, view)


has_list = lists.has_list


def tools(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "inputSchema": {"type": "object"}} for name in names]


def test_the_lists_are_known() -> None:
    assert {param.values[0] for param in LISTS} == LIST_METHODS


@pytest.mark.parametrize(("method", "member", "name", "kind"), LISTS)
@pytest.mark.parametrize("known", [True, False])
def test_entries_that_are_not_visible_go(
    method: str, member: str, name: str, kind: Kind | None, known: bool
) -> None:
    view = Only("open")
    result = {member: [{name: "open-a"}, {name: "secret", "title": "t"}, {name: "open-b"}], "nextCursor": ""}
    before = copy.deepcopy(result)
    assert filter_result(method if known else None, result, view) == {
        member: [{name: "open-a"}, {name: "open-b"}],
        "nextCursor": "",
    }
    assert view.asked == [(kind, "open-a"), (kind, "secret"), (kind, "open-b")]
    assert result == before


@pytest.mark.parametrize(("method", "member", "name", "kind"), LISTS)
def test_a_list_of_visible_entries_stays_as_it_is(
    method: str, member: str, name: str, kind: Kind | None
) -> None:
    assert filter_result(method, {member: [{name: "a"}], "nextCursor": "c"}, everything) is None


@pytest.mark.parametrize(("method", "member", "name", "kind"), LISTS)
@pytest.mark.parametrize(
    "entry",
    [
        None,
        "open",
        7,
        [],
        {},
        {"name": 7, "uri": 7, "uriTemplate": 7, "taskId": 7},
        {"Name": "open"},
        {"title": "open"},
    ],
)
def test_entries_without_a_name_go(
    method: str, member: str, name: str, kind: Kind | None, entry: Any
) -> None:
    result = {member: [entry, {name: "open"}]}
    assert filter_result(method, result, everything) == {member: [{name: "open"}]}


@pytest.mark.parametrize("value", [None, {}, {"name": "secret"}, "secret", 7])
def test_what_should_be_a_list_and_is_not_becomes_an_empty_one(value: Any) -> None:
    assert filter_result("tools/list", {"tools": value}, everything) == {"tools": []}


def test_a_page_may_become_empty_and_keeps_its_cursor() -> None:
    result = {"tools": tools("secret"), "nextCursor": "next"}
    assert filter_result("tools/list", result, only_open) == {"tools": [], "nextCursor": "next"}


def test_a_result_without_the_list_stays_as_it_is() -> None:
    assert filter_result("tools/list", {"_meta": {}}, only_open) is None


@pytest.mark.parametrize("method", [None, "tools/call", "prompts/list", "vendor/tools"])
def test_a_list_is_known_by_its_shape_whatever_was_asked(method: str | None) -> None:
    result = {"tools": tools("open", "secret")}
    assert filter_result(method, result, only_open) == {"tools": tools("open")}
    assert has_list(method, result)


@pytest.mark.parametrize(
    "result",
    [
        {"content": [{"type": "text", "text": "secret"}], "structuredContent": {"tools": tools("secret")}},
        {"tools": ["secret"]},
        {"tools": {"name": "secret"}},
        {"contents": [{"uri": "secret"}]},
        {},
    ],
)
def test_other_results_are_no_lists(result: dict[str, Any]) -> None:
    assert filter_result("tools/call", result, only_open) is None
    assert not has_list("tools/call", result)


@pytest.mark.parametrize(("method", "member", "name", "kind"), LISTS)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("scope", ["public", "PRIVATE", "", None, 7])
def test_the_cache_scope_of_a_list_becomes_private(
    method: str, member: str, name: str, kind: Kind | None, known: bool, scope: Any
) -> None:
    result = {member: [{name: "open"}], "cacheScope": scope}
    assert filter_result(method if known else None, result, everything) == {
        member: [{name: "open"}],
        "cacheScope": "private",
    }


@pytest.mark.parametrize(
    ("ttl", "capped"),
    [
        (86_400_000, MAX_TTL_MS),
        (MAX_TTL_MS + 1, MAX_TTL_MS),
        (1e300, MAX_TTL_MS),
        (float("inf"), MAX_TTL_MS),
        (-1, 0),
        ("86400000", 0),
        (True, 0),
        (None, 0),
        (float("nan"), 0),
    ],
)
def test_a_list_may_be_kept_for_a_minute_at_most(ttl: Any, capped: int) -> None:
    assert filter_result("tools/list", {"tools": [], "ttlMs": ttl}, everything) == {
        "tools": [],
        "ttlMs": capped,
    }


@pytest.mark.parametrize("ttl", [0, 1, 60_000, 0.5])
def test_short_hints_and_private_ones_stay(ttl: Any) -> None:
    result = {"tools": [], "ttlMs": ttl, "cacheScope": "private"}
    assert filter_result("tools/list", result, everything) is None


def test_hints_are_not_added() -> None:
    assert filter_result("tools/list", {"tools": []}, everything) is None


@pytest.mark.parametrize("method", ["resources/read", "server/discover", None])
def test_what_was_got_with_a_shared_credential_is_neither_public_nor_kept_for_long(
    method: str | None,
) -> None:
    result = {"ttlMs": 86_400_000, "cacheScope": "public"}
    assert filter_result(method, result, everything) == {"ttlMs": MAX_TTL_MS, "cacheScope": "private"}


def test_hints_of_other_results_are_left_alone() -> None:
    assert filter_result("tools/call", {"cacheScope": "public", "ttlMs": 10**9}, everything) is None


def updated(params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params}


def news(params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/tasks", "params": params}


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        pytest.param(updated({"uri": "open"}), True, id="news of a visible resource"),
        pytest.param(updated({"uri": "secret"}), False, id="news of a hidden resource"),
        pytest.param(updated({"uri": 7}), False, id="news of no resource"),
        pytest.param(updated({}), False, id="news without a URI"),
        pytest.param(updated(None), False, id="news without params"),
        pytest.param({"method": "notifications/tools/list_changed"}, True, id="a change without names"),
        pytest.param({"method": "notifications/message", "params": {"uri": "secret"}}, True, id="free text"),
        pytest.param({"method": ["notifications/tasks"]}, True, id="a method that is no string"),
        pytest.param({"id": 1, "result": {}}, True, id="a response"),
        pytest.param(news({"taskId": "open", "status": "working"}), True, id="news of an own task"),
        pytest.param(news({"taskId": "secret", "status": "working"}), False, id="news of another's task"),
        pytest.param(news({"task": {"taskId": "secret"}}), False, id="another's task inside params"),
        pytest.param(news({"taskId": "open", "task": {"taskId": "secret"}}), False, id="two tasks"),
        pytest.param(news({"task": {"taskId": "open"}}), True, id="an own task inside params"),
        pytest.param(news({"taskId": 7}), False, id="a task id that is none"),
        pytest.param(news({}), False, id="news of no task"),
        pytest.param(news(None), False, id="news of a task without params"),
        pytest.param(
            {**news({"taskId": "secret"}), "method": "notifications/tasks/status"}, False, id="2025-11-25"
        ),
    ],
)
def test_news_are_shown_only_of_what_is_the_callers(message: dict[str, Any], shown: bool) -> None:
    assert hide(message, only_open) is (message if shown else None)


def acknowledged(**params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params}


@pytest.mark.parametrize(
    ("params", "left"),
    [
        pytest.param(
            {"resourceSubscriptions": ["open", "secret"], "toolsListChanged": True},
            {"resourceSubscriptions": ["open"], "toolsListChanged": True},
            id="a hidden resource",
        ),
        pytest.param(
            {"taskIds": ["secret", "open-1", 7]}, {"taskIds": ["open-1"]}, id="another's task and no task"
        ),
        pytest.param({"taskIds": {"secret": 1}}, {"taskIds": []}, id="what should be a list and is none"),
        pytest.param({"resourceSubscriptions": None}, {"resourceSubscriptions": None}, id="a null list"),
    ],
)
def test_an_acknowledgement_names_only_what_the_caller_may_listen_to(params: Any, left: Any) -> None:
    meta = {"io.modelcontextprotocol/subscriptionId": 0}
    nested = acknowledged(notifications=params, _meta=meta)
    assert hide(nested, only_open) == acknowledged(notifications=left, _meta=meta)
    flat = acknowledged(**params, notifications=7)
    assert hide(flat, only_open) == acknowledged(**left, notifications=7)


@pytest.mark.parametrize("params", [{}, {"resourceSubscriptions": ["open"], "taskIds": ["open"]}])
def test_an_acknowledgement_of_what_is_visible_stays_the_same_object(params: dict[str, Any]) -> None:
    message = acknowledged(notifications=params)
    assert hide(message, only_open) is message


def test_a_completion_is_filtered_with_its_request() -> None:
    request = asked("completion/complete", kind=Kind.RESOURCE, name="open://{x}", arguments={"x": "secret"})
    result = {"completion": {"values": ["secret://a", "b"], "total": 2, "hasMore": False}}
    expected = {"completion": {"values": ["b"], "hasMore": False}}
    assert lists.filter_result(request, result, only_open) == expected
    assert lists.filter_result(None, result, only_open) == expected
    assert has_list("completion/complete", result)
    assert has_list(None, result)
    assert lists.filter_result(request, {"completion": {"values": ["b"]}}, only_open) is None


def test_links_in_a_tools_result_are_text_of_an_allowed_call() -> None:
    result = {"content": [{"type": "resource_link", "uri": "secret"}]}
    assert filter_result("tools/call", result, only_open) is None
