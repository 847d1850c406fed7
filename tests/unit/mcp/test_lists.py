from __future__ import annotations

import copy
from typing import Any

import pytest

from callerid.mcp.lists import LIST_METHODS, MAX_TTL_MS, filter_result, has_list, tells_hidden
from callerid.model import Kind

# Method, where its entries are, what names an entry, and the kind that policy is asked about.
LISTS = [
    pytest.param("tools/list", "tools", "name", Kind.TOOL, id="tools"),
    pytest.param("prompts/list", "prompts", "name", Kind.PROMPT, id="prompts"),
    pytest.param("resources/list", "resources", "uri", Kind.RESOURCE, id="resources"),
    pytest.param(
        "resources/templates/list", "resourceTemplates", "uriTemplate", Kind.RESOURCE, id="templates"
    ),
]


def only_open(kind: Kind, name: str) -> bool:
    return name.startswith("open")


def everything(kind: Kind, name: str) -> bool:
    return True


def tools(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "inputSchema": {"type": "object"}} for name in names]


def test_the_four_lists_are_known() -> None:
    assert {param.values[0] for param in LISTS} == LIST_METHODS


@pytest.mark.parametrize(("method", "member", "name", "kind"), LISTS)
@pytest.mark.parametrize("known", [True, False])
def test_entries_that_are_not_visible_go(
    method: str, member: str, name: str, kind: Kind, known: bool
) -> None:
    asked: list[tuple[Kind, str]] = []

    def visible(kind: Kind, name: str) -> bool:
        asked.append((kind, name))
        return only_open(kind, name)

    result = {member: [{name: "open-a"}, {name: "secret", "title": "t"}, {name: "open-b"}], "nextCursor": ""}
    before = copy.deepcopy(result)
    assert filter_result(method if known else None, result, visible) == {
        member: [{name: "open-a"}, {name: "open-b"}],
        "nextCursor": "",
    }
    assert asked == [(kind, "open-a"), (kind, "secret"), (kind, "open-b")]
    assert result == before


@pytest.mark.parametrize(("method", "member", "name", "kind"), LISTS)
def test_a_list_of_visible_entries_stays_as_it_is(method: str, member: str, name: str, kind: Kind) -> None:
    assert filter_result(method, {member: [{name: "a"}], "nextCursor": "c"}, everything) is None


@pytest.mark.parametrize(("method", "member", "name", "kind"), LISTS)
@pytest.mark.parametrize(
    "entry",
    [None, "open", 7, [], {}, {"name": 7, "uri": 7, "uriTemplate": 7}, {"Name": "open"}, {"title": "open"}],
)
def test_entries_without_a_name_go(method: str, member: str, name: str, kind: Kind, entry: Any) -> None:
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
    method: str, member: str, name: str, kind: Kind, known: bool, scope: Any
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


@pytest.mark.parametrize("method", ["resources/read", "server/discover"])
def test_what_was_got_with_a_shared_credential_is_not_public(method: str) -> None:
    result = {"ttlMs": 86_400_000, "cacheScope": "public"}
    assert filter_result(method, result, everything) == {"ttlMs": 86_400_000, "cacheScope": "private"}


def test_hints_of_other_results_are_left_alone() -> None:
    assert filter_result("tools/call", {"cacheScope": "public", "ttlMs": 10**9}, everything) is None


def updated(params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params}


@pytest.mark.parametrize(
    ("message", "hidden"),
    [
        (updated({"uri": "open"}), False),
        (updated({"uri": "secret"}), True),
        (updated({"uri": 7}), True),
        (updated({}), True),
        (updated(None), True),
        ({"method": "notifications/tools/list_changed"}, False),
        ({"method": "notifications/message", "params": {"uri": "secret"}}, False),
        ({"id": 1, "result": {}}, False),
    ],
)
def test_news_of_a_hidden_resource_is_hidden(message: dict[str, Any], hidden: bool) -> None:
    assert tells_hidden(message, only_open) is hidden
