"""The batches of 2025-03-26: judged message by message, forwarded or refused as one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import harness as h
from tests.e2e.conversation import (
    EVENTS,
    OLD,
    Scene,
    announced,
    error,
    event,
    notification,
    open_scene,
    request,
    result,
    tool_result,
)
from tests.e2e.warm import Warm

INITIALIZED = notification("notifications/initialized")


def tool(name: str, rpc_id: Any, arguments: Any = None) -> dict[str, Any]:
    return request("tools/call", {"name": name, "arguments": arguments or {}}, rpc_id)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Scene]:
    with open_scene(tmp_path_factory.mktemp("legacy"), pki, warm) as scene:
        yield scene


@pytest.fixture
def scene(made: Scene) -> Iterator[Scene]:
    made.begin()
    yield made
    made.clear()


def test_a_batch_over_two_connections_ends_one_by_one(scene: Scene) -> None:
    alice, script, events = announced(scene)
    batch = [tool("read_thing", 1), INITIALIZED, tool("read_thing", "1")]
    assert alice.send(batch).status == 202
    assert scene.posted == [batch]
    both = [result("1", **tool_result("no", isError=True)), result(1)]
    pushed = script.push(event(both))
    assert events.next() == pushed
    rows = scene.settled(3, "method <> 'http/GET'")
    assert [(r["batch_index"], r["rpc_id"], r["outcome"]) for r in rows] == [
        (0, "1", "ok"), (1, None, "accepted"), (2, '"1"', "tool_error"),
    ]  # fmt: skip
    refused = [tool("read_thing", 2), tool("drop_thing", 3), INITIALIZED]
    assert alice.send(refused).status == 202
    assert [events.message()["id"], events.message()["id"]] == [2, 3]
    assert scene.posted == [batch]
    assert [r["reason"] for r in scene.rows("verdict = 'deny'")] == [
        "batch_partner_denied", "rule_denied", "batch_partner_denied",
    ]  # fmt: skip


@pytest.mark.parametrize("revision", ["2025-03-26", OLD], ids=["with the version header", "without it"])
def test_a_batch_that_is_allowed_is_forwarded_as_one_and_has_a_row_per_message(
    scene: Scene, revision: str
) -> None:
    alice = scene.agent(revision=revision)
    batch = [
        tool("read_thing", 0),
        INITIALIZED,
        tool("query", "0", {"limit": 5}),
        request("tools/list", None, 7),
    ]
    answer = alice.send(batch)
    assert answer.status == 200
    assert [(type(m["id"]), m["id"]) for m in answer.json] == [(int, 0), (str, "0"), (int, 7)]
    assert answer.json[0]["result"]["content"][0]["text"] == "ran read_thing"
    assert [entry["name"] for entry in answer.json[2]["result"]["tools"]] == ["read_thing", "query"]
    [seen] = scene.seen
    assert seen.message == batch
    assert seen.header("authorization") == f"Bearer {h.SECRET}"
    rows = scene.settled(4)
    assert [(r["batch_index"], r["rpc_id"], r["tool"], r["reason"], r["outcome"]) for r in rows] == [
        (0, "0", "read_thing", "granted", "ok"),
        (1, None, None, "protocol", "ok"),
        (2, '"0"', "query", "granted", "ok"),
        (3, "7", None, "protocol", "ok"),
    ]
    assert {r["injected"] for r in rows} == {"things-key@v1"}


def test_a_batch_that_is_denied_in_part_is_refused_whole(scene: Scene) -> None:
    alice = scene.agent(revision="2025-03-26")
    batch = [
        tool("read_thing", 1),
        INITIALIZED,
        tool("drop_thing", "1", {"name": "orders"}),
        tool("query", 0, {"limit": 101}),
        request("tools/list", None, "list"),
    ]
    answer = alice.send(batch)
    assert answer.status == 200
    assert [(type(m["id"]), m["id"]) for m in answer.json] == [(int, 1), (str, "1"), (int, 0), (str, "list")]
    assert [m["result"]["isError"] for m in answer.json[:3]] == [True, True, True]
    assert answer.json[3]["error"]["data"]["reason"] == "batch_partner_denied"
    assert scene.seen == []
    rows = scene.rows()
    assert [
        (r["batch_index"], r["rpc_id"], r["tool"], r["verdict"], r["reason"], r["rule"]) for r in rows
    ] == [
        (0, "1", "read_thing", "deny", "batch_partner_denied", None),
        (1, None, None, "deny", "batch_partner_denied", None),
        (2, '"1"', "drop_thing", "deny", "rule_denied", "no-drops"),
        (3, "0", "query", "deny", "requirement_failed", "query-ceiling"),
        (4, '"list"', None, "deny", "batch_partner_denied", None),
    ]
    assert {(r["principal"], r["outcome"], r["injected"]) for r in rows} == {
        ("user:alice@corp.example", "not_sent", None)
    }


def test_a_batch_answered_by_events_has_its_outcomes_one_by_one(scene: Scene) -> None:
    results = [result("b", **tool_result("no", isError=True)), error(1, -32005)]
    events = [event(message) for message in results]
    scene.play.plan("tools/call", h.Reply(200, EVENTS, chunks=iter(events)))
    alice = scene.agent(revision="2025-03-26")
    answer = alice.send([tool("read_thing", rpc_id) for rpc_id in (1, "b", 2)])
    assert answer.body == b"".join(events)
    rows = scene.settled(3)
    assert [(r["rpc_id"], r["outcome"], r["rpc_code"]) for r in rows] == [
        ("1", "rpc_error", -32005),
        ('"b"', "tool_error", None),
        ("2", "unanswered", None),
    ]


@pytest.mark.parametrize("revision", ["2025-06-18", "2025-11-25", "2026-07-28"])
def test_later_revisions_have_no_batches(scene: Scene, revision: str) -> None:
    alice = scene.agent(revision=revision)
    answer = alice.send([tool("read_thing", 1), tool("drop_thing", "2")])
    assert (answer.status, answer.json["error"]["data"]["reason"]) == (400, "batch_refused")
    assert scene.seen == []
    rows = scene.rows()
    assert [(r["batch_index"], r["rpc_id"], r["method"], r["verdict"], r["reason"]) for r in rows] == [
        (0, "1", "tools/call", "deny", "batch_refused"),
        (1, '"2"', "tools/call", "deny", "batch_refused"),
    ]
    assert {r["principal"] for r in rows} == {"user:alice@corp.example"}
