"""The method table: kinds, objects, revisions."""

from __future__ import annotations

from typing import Any

import pytest
from mcp_types.methods import CLIENT_NOTIFICATIONS, CLIENT_REQUESTS

from callerid.mcp.methods import LEGACY, METHODS, MODERN, REVISIONS, Target, locate, mirrored, shape_flaw
from callerid.model import Kind, MessageType

REQUEST, NOTIFICATION = MessageType.REQUEST, MessageType.NOTIFICATION

FOUND: dict[str, tuple[str, dict[str, Any], str | None, Kind, str | None, dict[str, Any]]] = {
    "a call": (
        "tools/call",
        {"name": "read_file", "arguments": {"path": "/a"}, "_meta": {}},
        "2026-07-28",
        Kind.TOOL,
        "read_file",
        {"path": "/a"},
    ),
    "a call without arguments": ("tools/call", {"name": "now"}, None, Kind.TOOL, "now", {}),
    "a prompt": (
        "prompts/get",
        {"name": "greet", "arguments": {"who": "Bob"}},
        "2025-06-18",
        Kind.PROMPT,
        "greet",
        {"who": "Bob"},
    ),
    "a resource, verbatim": (
        "resources/read",
        {"uri": "file:///A/../b%20c"},
        "2026-07-28",
        Kind.RESOURCE,
        "file:///A/../b%20c",
        {},
    ),
    "a subscription": ("resources/subscribe", {"uri": "x:1"}, "2025-06-18", Kind.RESOURCE, "x:1", {}),
    "its end": ("resources/unsubscribe", {"uri": "x:1"}, None, Kind.RESOURCE, "x:1", {}),
    "completion of a prompt": (
        "completion/complete",
        {
            "ref": {"type": "ref/prompt", "name": "greet"},
            "argument": {"name": "who", "value": "Al"},
            "context": {"arguments": {"lang": "en"}},
        },
        "2025-11-25",
        Kind.PROMPT,
        "greet",
        {"lang": "en", "who": "Al"},
    ),
    "completion of a resource": (
        "completion/complete",
        {
            "ref": {"type": "ref/resource", "uri": "repo://{owner}"},
            "argument": {"name": "owner", "value": "a"},
        },
        "2026-07-28",
        Kind.RESOURCE,
        "repo://{owner}",
        {"owner": "a"},
    ),
    "a subscription to list changes": (
        "subscriptions/listen",
        {
            "notifications": {"toolsListChanged": True, "resourceSubscriptions": [], "taskIds": None},
            "_meta": {},
        },
        "2026-07-28",
        Kind.PROTOCOL,
        None,
        {"notifications": {"toolsListChanged": True, "resourceSubscriptions": [], "taskIds": None}},
    ),
    "a subscription to resources": (
        "subscriptions/listen",
        {"notifications": {"resourceSubscriptions": ["x:1"]}},
        "2026-07-28",
        Kind.PROTOCOL,
        None,
        {"notifications": {"resourceSubscriptions": ["x:1"]}},
    ),
    "a subscription to tasks": (
        "subscriptions/listen",
        {"notifications": {"taskIds": ["t1"]}},
        "2026-07-28",
        Kind.PROTOCOL,
        None,
        {"notifications": {"taskIds": ["t1"]}},
    ),
    "a subscription to tasks in the wrong place": (
        "subscriptions/listen",
        {"taskIds": ["t1"]},
        "2026-07-28",
        Kind.PROTOCOL,
        None,
        {"taskIds": ["t1"]},
    ),
    "a subscription to something in another case": (
        "subscriptions/listen",
        {"notifications": {"ResourceSubscriptions": ["x:1"]}},
        "2026-07-28",
        Kind.METHOD,
        None,
        {"notifications": {"ResourceSubscriptions": ["x:1"]}},
    ),
    "a vendor's method": ("acme/run", {"name": "x", "_meta": {}}, None, Kind.METHOD, None, {"name": "x"}),
    "a method in another case": ("Tools/Call", {"name": "x"}, None, Kind.METHOD, None, {"name": "x"}),
    "a method with a space": ("tools/call ", {"name": "x"}, None, Kind.METHOD, None, {"name": "x"}),
    "a method that the revision removed": (
        "resources/subscribe",
        {"_meta": {}},
        "2026-07-28",
        Kind.METHOD,
        None,
        {},
    ),
    "a method that the revision does not have yet": (
        "server/discover",
        {},
        "2025-11-25",
        Kind.METHOD,
        None,
        {},
    ),
    "cancelled keeps its request id": (
        "notifications/cancelled",
        {"requestId": 0},
        "2025-06-18",
        Kind.PROTOCOL,
        None,
        {"requestId": 0},
    ),
}

FLAWED: dict[str, tuple[str, dict[str, Any]]] = {
    "a call without a name": ("tools/call", {}),
    "a call of nothing": ("tools/call", {"name": ""}),
    "a call of a number": ("tools/call", {"name": 5}),
    "a call of null": ("tools/call", {"name": None}),
    "a name of 257 characters": ("tools/call", {"name": "x" * 257}),
    "a name with a zero character": ("tools/call", {"name": "read_file\0x"}),
    "a name with a newline": ("tools/call", {"name": "read_file\n"}),
    "a name with a C1 control": ("tools/call", {"name": "read\u0085"}),
    "arguments that are an array": ("tools/call", {"name": "x", "arguments": []}),
    "arguments that are null": ("tools/call", {"name": "x", "arguments": None}),
    "arguments that are text": ("tools/call", {"name": "x", "arguments": "{}"}),
    "a prompt without a name": ("prompts/get", {"arguments": {}}),
    "a resource without a URI": ("resources/read", {"name": "x"}),
    "a URI that is an object": ("resources/subscribe", {"uri": {}}),
    "a URI of 8193 characters": ("resources/read", {"uri": "x:" + "y" * 8191}),
    "completion without a ref": ("completion/complete", {"argument": {"name": "a", "value": "b"}}),
    "completion of another ref": ("completion/complete", {"ref": {"type": "ref/tool", "name": "x"}}),
    "completion of a nameless prompt": ("completion/complete", {"ref": {"type": "ref/prompt", "uri": "x"}}),
    "completion with a twin in ref": ("completion/complete", {"ref": {"type": "ref/prompt", "Name": "x"}}),
    "completion with context null": (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "x"}, "context": None},
    ),
    "completion with context arguments an array": (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "x"}, "context": {"arguments": []}},
    ),
    "completion with a numeric argument name": (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "x"}, "argument": {"name": 1}},
    ),
    "completion with a twin in argument": (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "x"}, "argument": {"Name": "env"}},
    ),
    "completion that says one argument twice": (
        "completion/complete",
        {
            "ref": {"type": "ref/prompt", "name": "x"},
            "argument": {"name": "env", "value": "dev"},
            "context": {"arguments": {"env": "prod"}},
        },
    ),
    "tasks in the wrong place and another case": ("subscriptions/listen", {"TaskIds": ["t1"]}),
    "resources in the wrong place and another case": (
        "subscriptions/listen",
        {"resourcesubscriptions": ["x:1"]},
    ),
    "a filter that is an array": ("subscriptions/listen", {"notifications": []}),
    "Arguments beside nothing": ("tools/call", {"name": "x", "Arguments": {"path": "/"}}),
    "a name by the long s in a known method": ("tasks/get", {"ta\u017fkId": "t"}),
    "URI in capitals": ("resources/read", {"uri": "x:1", "URI ": 1, "Name": "y"}),
}


@pytest.mark.parametrize(
    ("method", "params", "revision", "kind", "name", "arguments"), FOUND.values(), ids=FOUND
)
def test_found(
    method: str,
    params: dict[str, Any],
    revision: str | None,
    kind: Kind,
    name: str | None,
    arguments: dict[str, Any],
) -> None:
    assert locate(method, params, revision) == Target(kind=kind, name=name, arguments=arguments)


@pytest.mark.parametrize(("method", "params"), FLAWED.values(), ids=FLAWED)
def test_flawed(method: str, params: dict[str, Any]) -> None:
    assert isinstance(locate(method, params, None), str)


PROTOCOL = [
    "initialize",
    "server/discover",
    "ping",
    "logging/setLevel",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "subscriptions/listen",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/roots/list_changed",
    "notifications/tasks/status",
]
OTHERS = ["tasks/list", "tasks/get", "tasks/result", "tasks/cancel", "tasks/update"]
ACTING = ["tools/call", "prompts/get", "resources/read", "resources/subscribe", "resources/unsubscribe"]


@pytest.mark.parametrize("method", PROTOCOL)
def test_protocol_methods_act_on_nothing(method: str) -> None:
    assert locate(method, {}, None) == Target(kind=Kind.PROTOCOL)


@pytest.mark.parametrize("method", OTHERS)
def test_task_methods_need_a_rule(method: str) -> None:
    assert locate(method, {"taskId": "t", "_meta": {}}, None) == Target(
        kind=Kind.METHOD, arguments={"taskId": "t"}
    )


def test_these_are_all_the_methods() -> None:
    assert set(METHODS) == {*PROTOCOL, *OTHERS, *ACTING, "completion/complete"}


@pytest.mark.parametrize("revision", sorted(REVISIONS))
def test_the_table_agrees_with_the_sdk_on_every_revision(revision: str) -> None:
    sdk = {method for method, at in (*CLIENT_REQUESTS, *CLIENT_NOTIFICATIONS) if at == revision}
    ours = {method for method, row in METHODS.items() if revision in row.revisions}
    assert {method for method in ours if "tasks/" not in method} == sdk


@pytest.mark.parametrize("revision", sorted(REVISIONS))
@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_method_outside_its_revisions_needs_a_rule(method: str, revision: str) -> None:
    if revision not in METHODS[method].revisions:
        assert locate(method, {}, revision) == Target(kind=Kind.METHOD)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_has_one_shape(method: str) -> None:
    expected = NOTIFICATION if method.startswith("notifications/") else REQUEST
    other = REQUEST if expected is NOTIFICATION else NOTIFICATION
    assert shape_flaw(method, expected) is None
    assert shape_flaw(method, other)


def test_unknown_notifications_have_no_id_and_vendors_may_do_as_they_like() -> None:
    assert shape_flaw("notifications/acme", REQUEST)
    assert shape_flaw("notifications/acme", NOTIFICATION) is None
    assert shape_flaw("acme/run", REQUEST) is None
    assert shape_flaw("acme/run", NOTIFICATION) is None


def test_what_mcp_name_may_repeat() -> None:
    assert mirrored("tools/call", {"name": "x", "uri": "y"}) == ("x",)
    assert mirrored("resources/read", {"name": "x", "uri": "y"}) == ("y",)
    assert mirrored("tasks/get", {"taskId": "t"}) == ("t",)
    assert mirrored("tools/list", {}) == ()
    assert mirrored("tools/call", {"name": 5}) == ()


def test_the_revisions_are_those_of_the_design() -> None:
    assert LEGACY == ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
    assert MODERN == ("2026-07-28",)


@pytest.mark.parametrize(
    ("known", "typed", "agree"),
    [
        ("dev", "dev", True),
        (1, 1, True),
        ([1, {"a": True}], [1, {"a": True}], True),
        (1, 1.0, False),
        (1, True, False),
        (0, False, False),
        ([1, {"a": True}], [1, {"a": 1}], False),
        (None, "", False),
    ],
)
def test_a_completion_that_says_an_argument_twice_says_the_same_to_every_reader(
    known: Any, typed: Any, agree: bool
) -> None:
    params = {
        "ref": {"type": "ref/prompt", "name": "x"},
        "argument": {"name": "env", "value": typed},
        "context": {"arguments": {"env": known}},
    }
    assert isinstance(locate("completion/complete", params, "2025-11-25"), Target) is agree
