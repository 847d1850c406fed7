"""HTTP+SSE of 2024-11-05: calls and their answers travel on two connections, and a refusal on the second."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import harness as h
from tests.e2e.conversation import (
    MODERN,
    OLD,
    Scene,
    announced,
    error,
    event,
    notification,
    open_scene,
    request,
    result,
    small_stage,
    tool_result,
)
from tests.e2e.warm import Warm

DENIED = -40300
CALL = ("tools/call", "allow", "granted")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Scene]:
    with open_scene(tmp_path_factory.mktemp("legacy"), pki, warm) as scene:
        yield scene


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[h.Stage]:
    with small_stage(tmp_path_factory.mktemp("sdk"), pki, warm) as made:
        yield made


@pytest.fixture
def scene(made: Scene) -> Iterator[Scene]:
    made.begin()
    yield made
    made.clear()


# -- 2024-11-05: HTTP+SSE with the official SDK ----------------------------------------------------------


def test_the_sdk_works_over_http_and_sse_and_a_refusal_is_heard_at_once(stage: h.Stage) -> None:
    proxy, client = stage.proxies["run"], stage.client
    since, before = h.newest(proxy), len(stage.server.lines())
    opened = client(
        "open", url=stage.server.url("old"), environ=stage.forward("alice"), mode="sse", offer=OLD
    )
    assert opened["protocol"] == OLD
    assert "drop_thing" not in client("list")
    assert client("call", tool="read_thing", arguments={"name": "x"})["text"] == "thing x"
    denied = client("call", tool="drop_thing", arguments={"name": "x"}, timeout=10)
    assert denied["isError"] is True
    refused = client.ask("read", uri="thing://secret/plan")
    assert refused["error"]["code"] == DENIED
    assert client("call", tool="break_thing", arguments={"name": "y"})["isError"] is True
    assert "read_thing" in client("list")
    client("close")
    h.wait_for(lambda: not proxy.rows("seq > ? and outcome = 'unknown'", since), "every outcome")
    rows = proxy.rows("seq > ?", since)
    assert [(r["method"], r["tool"], r["verdict"], r["reason"], r["outcome"]) for r in rows] == [
        ("http/GET", None, "allow", "protocol", "client_gone"),
        ("initialize", None, "allow", "protocol", "ok"),
        ("notifications/initialized", None, "allow", "protocol", "accepted"),
        ("tools/list", None, "allow", "protocol", "ok"),
        ("tools/call", "read_thing", "allow", "granted", "ok"),
        ("tools/call", "drop_thing", "deny", "rule_denied", "not_sent"),
        ("resources/read", None, "deny", "rule_denied", "not_sent"),
        ("tools/call", "break_thing", "allow", "granted", "tool_error"),
        ("tools/list", None, "allow", "protocol", "ok"),
    ]
    assert rows[5]["event_id"] in denied["text"]
    assert rows[6]["event_id"] in refused["error"]["message"]
    assert {(r["principal"], r["server"]) for r in rows} == {("user:alice@corp.example", "old")}
    seen = stage.server.lines()[before:]
    assert all(line["known"] for line in seen if "http" in line)
    assert not [
        line for line in seen if "drop_thing" in line.get("body", "") or "secret" in line.get("body", "")
    ]
    assert {line["path"] for line in seen if line.get("http") == "POST"} == {"/old/messages/"}
    assert stage.tokens["run", "alice"] not in json.dumps(seen)


def test_two_clients_of_the_sdk_side_by_side_see_only_what_is_theirs(stage: h.Stage) -> None:
    proxy, client = stage.proxies["run"], stage.client
    since = h.newest(proxy)
    for who in ("alice", "ivy"):
        client("open", on=who, url=stage.server.url("old"), environ=stage.forward(who), mode="sse", offer=OLD)
    try:
        assert {"query", "wait_for"} <= set(client("list", on="alice"))
        assert client("list", on="ivy") == ["read_thing"]
        for turn in range(2):
            for who in ("alice", "ivy"):
                got = client("call", on=who, tool="read_thing", arguments={"name": f"{who}-{turn}"})
                assert got["text"] == f"thing {who}-{turn}"
        assert client("call", on="ivy", tool="query", arguments={"limit": 1}, timeout=10)["isError"] is True
        heard = client("call_gated", on="alice", gate="old-gate")
        assert heard == ["progress 1/2 waiting", "gate old-gate opened"]
        assert client("list", on="ivy") == ["read_thing"]
    finally:
        for who in ("alice", "ivy"):
            client("close", on=who)
    h.wait_for(lambda: not proxy.rows("seq > ? and outcome = 'unknown'", since), "every outcome")
    rows = proxy.rows("seq > ? and method = 'tools/call'", since)
    told = [(r["principal"], json.loads(r["arguments"]).get("name"), r["outcome"]) for r in rows[:4]]
    assert told == [
        (f"user:{who}@corp.example", f"{who}-{turn}", "ok") for turn in range(2) for who in ("alice", "ivy")
    ]
    assert [(r["principal"], r["verdict"], r["reason"]) for r in rows if r["verdict"] == "deny"] == [
        ("user:ivy@corp.example", "deny", "no_grant")
    ]
    sessions = {(r["principal"], r["session"]) for r in rows}
    assert len(sessions) == 2
    assert len({session for _, session in sessions}) == 2


# -- calls and answers over two connections ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "outcome", "code"),
    [
        (result(0), "ok", None),
        (result(0, **tool_result("no", isError=True)), "tool_error", None),
        (error(0, -32005), "rpc_error", -32005),
        (result(0, task={"taskId": "old-task", "status": "working"}), "task", None),
    ],
    ids=["a result", "a tool's error", "an error", "a task"],
)
def test_a_call_ends_when_its_answer_comes_on_the_stream(
    scene: Scene, answer: dict[str, Any], outcome: str, code: int | None
) -> None:
    alice, script, events = announced(scene)
    accepted = alice.send(alice.call(rpc_id=0))
    assert (accepted.status, accepted.body) == (202, b"")
    assert scene.seen[-1].path == alice.path
    assert scene.seen[-1].header("authorization") == f"Bearer {h.SECRET}"
    assert scene.told("tool is not null") == [(*CALL, "unknown")]
    # Answers to nothing, and to an id of another type where only that one waits.
    strays = script.push(
        event(result(77)), event(notification("notifications/message", level="info", data="x"))
    )
    assert events.next() + events.next() == strays
    assert scene.told("tool is not null") == [(*CALL, "unknown")]
    pushed = script.push(event(answer))
    assert events.next() == pushed
    [row] = scene.settled(1, "tool is not null")
    assert (row["outcome"], row["rpc_code"], row["http_status"], row["session"] is not None) == (
        outcome, code, 202, True,
    )  # fmt: skip


def test_an_answer_may_overtake_the_acceptance_of_its_call(scene: Scene) -> None:
    alice, script, events = announced(scene)
    heard = threading.Event()

    def late(seen: h.Seen) -> h.Reply:
        script.push(event(result(1)))
        heard.wait(h.DEADLINE)
        return h.Reply(202)

    scene.play.plan("tools/call", late)
    accepted: list[h.Answer] = []
    sender = threading.Thread(target=lambda: accepted.append(alice.send(alice.call(rpc_id=1))), daemon=True)
    sender.start()
    assert events.message() == result(1)
    scene.settled(1, "tool is not null")
    heard.set()
    sender.join(h.DEADLINE)
    assert accepted[0].status == 202
    assert scene.told("tool is not null") == [(*CALL, "ok")]
    [(count,)] = scene.query(
        f"select count(*) from outcome o join decision d using (event_id) where d.seq > {scene.since}"
    )
    assert count == 1


def test_the_same_id_in_two_sessions_is_two_calls(scene: Scene) -> None:
    alice, alices, hers = announced(scene, "alice")
    bob, bobs, his = announced(scene, "bob")
    for agent in (alice, bob):
        assert agent.send(agent.call(rpc_id=1)).status == 202
    pushed = alices.push(event(result(1)))
    assert hers.next() == pushed
    [row] = scene.settled(1, "tool is not null and principal like '%alice%'")
    assert row["outcome"] == "ok"
    assert scene.told("tool is not null and principal like '%bob%'") == [(*CALL, "unknown")]
    pushed = bobs.push(event(result(1, **tool_result("no", isError=True))))
    assert his.next() == pushed
    [row] = scene.settled(1, "tool is not null and principal like '%bob%'")
    assert row["outcome"] == "tool_error"


@pytest.mark.parametrize(
    ("how", "stream", "outcome"),
    [("end", "ok", "upstream_gone"), ("reset", "upstream_gone", "upstream_gone"),
     ("leave", "client_gone", "client_gone")],
    ids=["the server ends the stream", "the server resets", "the client leaves"],
)  # fmt: skip
def test_a_call_whose_answer_can_come_no_more_has_an_honest_end(
    scene: Scene, how: str, stream: str, outcome: str
) -> None:
    alice, script, events = announced(scene)
    assert alice.send(alice.call()).status == 202
    if how == "leave":
        events.client.close()
    else:
        getattr(script, how)()
    rows = scene.settled(2)
    assert [(row["method"], row["outcome"]) for row in rows] == [
        ("http/GET", stream),
        ("tools/call", outcome),
    ]


def test_a_server_that_refuses_the_post_ends_the_call_there(scene: Scene) -> None:
    alice, _, _ = announced(scene)
    scene.play.plan("tools/call", h.Reply(400))
    assert alice.send(alice.call()).status == 400
    [row] = scene.settled(1, "tool is not null")
    assert (row["outcome"], row["http_status"]) == ("http_error", 400)
    assert alice.send(alice.call()).status == 202  # its id is free again


# -- refusals over two connections -------------------------------------------------------------------------


@pytest.mark.parametrize("rpc_id", [0, "0", 7], ids=repr)
def test_a_refused_call_is_told_on_the_stream_and_nothing_of_it_leaves(scene: Scene, rpc_id: Any) -> None:
    alice, script, events = announced(scene)
    before = len(scene.seen)
    answer = alice.send(alice.call("drop_thing", rpc_id))
    assert (answer.status, answer.body) == (202, b"")
    said = events.message()
    assert (type(said["id"]), said["id"], said["result"]["isError"]) == (type(rpc_id), rpc_id, True)
    text = said["result"]["content"][0]["text"]
    [row] = scene.rows("tool = 'drop_thing'")
    assert (row["verdict"], row["reason"], row["rule"], row["outcome"]) == (
        "deny", "rule_denied", "no-drops", "not_sent",
    )  # fmt: skip
    assert row["event_id"] in text
    assert len(scene.seen) == before
    # Session and stream live on, and its id is free.
    assert alice.send(alice.call(rpc_id=rpc_id)).status == 202
    pushed = script.push(event(result(rpc_id)))
    assert events.next() == pushed
    assert scene.settled(1, "tool = 'read_thing'")[0]["outcome"] == "ok"


@pytest.mark.parametrize(
    ("said", "reason", "code"),
    [
        (request("resources/read", {"uri": "thing://secret/x"}, "r"), "rule_denied", DENIED),
        (request("x-corp/anything", {}, "r"), "no_grant", DENIED),
        (request("tools/call", [], "r"), "malformed_message", -32600),
        (request("tasks/get", {"taskId": "of nobody"}, "r"), "task_not_yours", -32602),
    ],
    ids=["a resource", "an unknown method", "a malformed message", "a task of nobody"],
)
def test_other_refusals_are_errors_on_the_stream(scene: Scene, said: Any, reason: str, code: int) -> None:
    alice, _, events = announced(scene)
    before = len(scene.seen)
    assert alice.send(said).status == 202
    heard = events.message()
    assert (heard["id"], heard["error"]["code"]) == ("r", code)
    [row] = scene.rows("method <> 'http/GET'")
    assert (row["method"], row["verdict"], row["reason"], row["principal"]) == (
        said["method"], "deny", reason, "user:alice@corp.example",
    )  # fmt: skip
    assert len(scene.seen) == before


def test_refused_notifications_and_what_cannot_be_read_are_only_rows(scene: Scene) -> None:
    alice, script, events = announced(scene)
    before = len(scene.seen)
    assert alice.send(notification("notifications/x-corp")).status == 202
    assert alice.send(notification("notifications/cancelled", requestId=5)).status == 202
    alice.send(b'{"jsonrpc": "2.0", "id": 1, "id": 2, "method": "ping"}')
    pushed = script.push(b": still here\n\n")
    assert events.next() == pushed
    assert len(scene.seen) == before
    assert [row["reason"] for row in scene.rows("verdict = 'deny'")] == [
        "no_grant", "request_not_yours", "duplicate_key",
    ]  # fmt: skip


def test_an_id_that_is_in_flight_cannot_be_used_again(scene: Scene) -> None:
    alice, script, _ = announced(scene)
    assert alice.send(alice.call(rpc_id=1)).status == 202
    before = len(scene.seen)
    refused = alice.send(alice.call("query", 1))  # under that id the stream has the answer to the first
    assert (refused.status, refused.json["result"]["isError"]) == (200, True)
    assert len(scene.seen) == before
    [row] = scene.rows("verdict = 'deny'")
    assert (row["tool"], row["reason"]) == ("query", "malformed_message")
    assert alice.send(alice.call(rpc_id="1")).status == 202  # another type, another id
    script.push(event(result("1", **tool_result("no", isError=True))), event(result(1)))
    rows = scene.settled(2, "tool = 'read_thing'")
    assert [row["outcome"] for row in rows] == ["ok", "tool_error"]


@pytest.mark.parametrize(
    ("who", "reason", "status"),
    [("bob", "session_not_yours", 404), ("ivy", "session_not_yours", 404), (None, "no_evidence", 200)],
    ids=["another engineer", "an intern who may read things", "without evidence"],
)
def test_nobody_posts_into_the_stream_of_another(
    scene: Scene, who: str | None, reason: str, status: int
) -> None:
    alice, script, events = announced(scene)
    other = scene.agent(who, OLD)
    other.path = alice.path
    before = len(scene.seen)
    answer = other.send(other.call())
    assert (answer.status, answer.json["id"]) == (status, 5)
    row = scene.rows()[-1]
    assert (row["method"], row["verdict"], row["reason"]) == ("tools/call", "deny", reason)
    assert len(scene.seen) == before
    pushed = script.push(b": nothing was said here\n\n")
    assert events.next() == pushed


@pytest.mark.parametrize("how", ["in a revision without sessions", "with a session of one's own"])
def test_no_other_evidence_opens_the_stream_of_another(scene: Scene, how: str) -> None:
    """A server of 2024-11-05 reads neither header nor ``_meta``: it would run the call in Alice's session."""
    alice, _, _ = announced(scene)
    bob = scene.agent("bob", MODERN) if "revision" in how else scene.agent("bob").initialize()
    bob.path = alice.path
    before = len(scene.seen)
    assert bob.send(bob.call()).status == 404
    assert len(scene.seen) == before
    assert scene.rows()[-1]["reason"] in ("session_not_yours", "session_unknown")


@pytest.mark.parametrize("spelling", ["/mcp/Messages", "/mcp/messages/", "/mcp/messages/x", "/mcp/messages."])
def test_no_other_spelling_opens_the_stream_of_another(scene: Scene, spelling: str) -> None:
    """Routers ignore case, slashes or what follows, and find the session in the query."""
    alice, _, _ = announced(scene)
    assert alice.path.startswith("/mcp/messages?")
    bob = scene.agent("bob", OLD)
    bob.path = alice.path.replace("/mcp/messages", spelling)
    before = len(scene.seen)
    assert bob.send(bob.call()).status == 404
    assert len(scene.seen) == before
    assert scene.rows()[-1]["reason"] == "session_unknown"


def test_a_message_url_whose_session_is_in_its_path_is_ones_own_too(scene: Scene) -> None:
    path = f"/mcp/messages/{uuid.uuid4().hex}"
    alice, script, events = announced(scene, path=path)
    bob = scene.agent("bob", OLD)
    bob.path = path
    before = len(scene.seen)
    assert bob.send(bob.call()).status == 404
    assert scene.rows()[-1]["reason"] in ("session_not_yours", "session_unknown")
    assert alice.send(alice.call("drop_thing")).status == 202
    assert events.message()["result"]["isError"] is True
    assert len(scene.seen) == before
    scene.play.plan("tools/call", h.Reply(202))
    assert alice.send(alice.call()).status == 202
    pushed = script.push(event(result(5)))
    assert events.next() == pushed
    assert scene.settled(1, "tool = 'read_thing' and principal like '%alice%'")[0]["outcome"] == "ok"


def test_who_is_revoked_loses_the_stream_and_the_calls_that_wait_on_it(scene: Scene) -> None:
    token = scene.tokens["bob"]
    scene.tokens["bob"] = h.mint(scene.proxy, "user:bob@corp.example")
    bob, _, events = announced(scene, "bob")
    assert bob.send(bob.call()).status == 202
    h.revoke(scene.proxy, scene.tokens["bob"])
    scene.tokens["bob"] = token
    with pytest.raises(ConnectionError):
        events.rest()
    rows = scene.settled(2)
    assert [(r["method"], r["outcome"]) for r in rows] == [("http/GET", "cut"), ("tools/call", "cut")]


def test_a_session_that_no_stream_announced_is_nobodys(scene: Scene) -> None:
    alice, _, _ = announced(scene)
    alice.path = alice.path[:-1] + ("x" if alice.path[-1] != "x" else "y")
    before = len(scene.seen)
    assert alice.send(alice.call()).status == 404
    assert scene.rows()[-1]["reason"] == "session_unknown"
    alice.path = "/never-announced"
    assert alice.send(alice.call()).json["result"]["isError"] is True
    assert scene.rows()[-1]["reason"] == "unknown_server"
    assert len(scene.seen) == before


def test_without_a_grant_there_is_no_stream(stage: h.Stage) -> None:
    proxy, port = stage.proxies["run"], stage.server.port
    since, before = h.newest(proxy), len(stage.server.lines())
    client = proxy.tunnel(
        f"localhost:{port}", headers={"Proxy-Authorization": h.basic("x", stage.tokens["run", "ci"])}
    )
    client.send(
        f"GET /old/sse HTTP/1.1\r\nHost: localhost:{port}\r\nAccept: text/event-stream\r\n\r\n".encode()
    )
    answer = client.read()
    client.close()
    assert answer is not None
    assert (answer.status, answer.json["error"]["data"]["reason"]) == (405, "no_grant")
    [row] = proxy.rows("seq > ?", since)
    assert (row["method"], row["principal"], row["reason"]) == ("http/GET", "workload:ci-docs", "no_grant")
    assert len(stage.server.lines()) == before


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("https://evil.corp.example/messages?session_id=1", None),
        ("//evil.corp.example/messages?session_id=1", None),
        ("http://localhost:{port}/messages", None),
        ("/mcp/%2e%2e/admin", None),
        ("/mcp/messages?session_id=1", "/mcp/messages?session_id=1"),
        ("https://localhost:{port}/elsewhere?session_id=1", "/elsewhere?session_id=1"),
    ],
    ids=["another origin", "another host", "another scheme", "two readings", "a path", "its own origin"],
)
def test_an_endpoint_is_announced_only_at_the_servers_own_origin(
    scene: Scene, said: str, heard: str | None
) -> None:
    url = said.format(port=scene.upstream.port)
    alice = scene.agent(revision=OLD)
    script = scene.play.stream("http/GET")
    events = alice.open()
    script.push(f"event: endpoint\ndata: {url}\n\n".encode())
    script.push(b": no more\n\n")
    if heard is not None:
        assert events.next() == f"event: endpoint\ndata: {heard}\n\n".encode()
    assert events.next() == b": no more\n\n"
    if heard is None:
        return
    alice.path = heard
    scene.play.plan("tools/call", h.Reply(202))
    assert alice.send(alice.call()).status == 202
    assert (scene.seen[-1].path, scene.seen[-1].header("authorization")) == (heard, f"Bearer {h.SECRET}")
    script.push(event(result(5)))
    [row] = scene.settled(1, "tool is not null")
    assert (row["server"], row["verdict"], row["outcome"]) == ("things", "allow", "ok")
