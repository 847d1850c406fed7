"""Law 9: what a server made for one caller is for nobody else, though all of them share its key.

Sessions, event ids, tasks and request ids, over a server that knows one principal only; also after the
proxy was started anew, from its audit.
"""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e import harness as h
from tests.e2e.conversation import (
    EVENTS,
    LATEST,
    MODERN,
    POLICY,
    Agent,
    Scene,
    event,
    notification,
    open_scene,
    request,
    result,
)
from tests.e2e.warm import Warm

UNKNOWN = -32602
PROGRESS = notification("notifications/progress", progressToken=1, progress=1)
TASKS = {
    LATEST: ("tasks/get", "tasks/result", "tasks/cancel"),
    MODERN: ("tasks/get", "tasks/update", "tasks/cancel"),
}
EVERY_TASK_METHOD = pytest.mark.parametrize(
    ("revision", "method"), [(revision, method) for revision, methods in TASKS.items() for method in methods]
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Scene]:
    with open_scene(tmp_path_factory.mktemp("handles"), pki, warm) as scene:
        yield scene


@pytest.fixture
def scene(made: Scene) -> Iterator[Scene]:
    made.begin()
    yield made
    made.clear()


def refused(scene: Scene, reason: str, before: int, **expected: Any) -> dict[str, Any]:
    """The last row is this refusal, and nothing arrived."""
    row = scene.rows()[-1]
    assert (row["verdict"], row["reason"], row["outcome"], row["injected"]) == (
        "deny",
        reason,
        "not_sent",
        None,
    )
    assert {name: row[name] for name in expected} == expected
    assert len(scene.seen) == before
    return row


# -- sessions ------------------------------------------------------------------------------------------


def call(agent: Agent) -> h.Answer:
    return agent.send(agent.call(rpc_id="c"))


USES: dict[str, Callable[[Agent], h.Answer]] = {
    "tools/call": call,
    "http/GET": lambda agent: agent.send(None, verb="GET"),
    "http/DELETE": lambda agent: agent.send(None, verb="DELETE"),
    "notifications/initialized": lambda agent: agent.send(notification("notifications/initialized")),
}


@pytest.mark.parametrize("method", USES)
@pytest.mark.parametrize(
    ("who", "whose", "reason"),
    [("bob", "alice", "session_not_yours"), ("alice", None, "session_unknown")],
    ids=["of another principal", "of nobody"],
)
def test_a_session_of_another_or_of_nobody_is_an_unknown_session(
    scene: Scene, method: str, who: str, whose: str | None, reason: str
) -> None:
    agent, before = scene.agent(who), len(scene.seen)
    agent.session = uuid.uuid4().hex
    if whose is not None:
        agent.session = scene.opened(whose).session
        before = len(scene.seen)
    answer = USES[method](agent)
    assert answer.status == 404
    assert answer.json["error"]["data"]["reason"] == "session_unknown"  # the same words for both
    assert answer.json["id"] == ("c" if method == "tools/call" else None)
    row = refused(scene, reason, before, principal=f"user:{who}@corp.example", method=method)
    assert row["event_id"] in answer.json["error"]["message"]


def test_without_evidence_nothing_is_told_about_a_session(scene: Scene) -> None:
    nobody = scene.agent(None)
    nobody.session = scene.opened().session
    assert "no_evidence" in call(nobody).text
    refused(scene, "no_evidence", 0, principal="anonymous")


def test_a_session_that_the_server_gives_to_two_callers_is_the_lasts(scene: Scene) -> None:
    shared = uuid.uuid4().hex
    for _ in range(2):
        made = h._result(request("initialize", {}, 0))
        scene.play.plan("initialize", h.json_reply(made, headers={"Mcp-Session-Id": shared}))
    alice, bob = scene.agent("alice").initialize(), scene.agent("bob").initialize()
    assert alice.session == bob.session == shared
    before = len(scene.seen)
    assert call(alice).status == 404
    refused(scene, "session_not_yours", before)
    assert call(bob).text == "ran read_thing"


def test_in_2026_07_28_the_session_header_means_nothing_and_does_not_go_on(scene: Scene) -> None:
    alices = scene.opened().session
    bob = scene.agent("bob", MODERN)
    bob.session = alices
    assert call(bob).text == "ran read_thing"
    [seen] = scene.seen
    assert seen.header("mcp-session-id") is None
    assert seen.header("authorization") == f"Bearer {h.SECRET}"
    [row] = scene.settled(1)
    assert (row["principal"], row["verdict"], row["outcome"]) == ("user:bob@corp.example", "allow", "ok")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_after_a_new_start_what_was_somebodys_still_is(scene: Scene, how: int) -> None:
    alice, bob = scene.opened("alice"), scene.agent("bob")
    bob.session = alice.session
    task = f"task-{how}"
    scene.play.result("tools/call", {"task": {"taskId": task, "status": "working"}})
    alice.send(alice.call(task={"ttl": 1000}))
    modern = scene.agent(revision=MODERN)
    state = f"state-{how}"
    scene.play.result("tools/call", {"resultType": "input_required", "requestState": state})
    modern.send(modern.call(rpc_id=1))
    # What is asked of the audit are the outcomes: a session is known again once its row has one.
    made = scene.settled(2)
    assert [row["outcome"] for row in made] == ["task", "input_required"]
    assert all(row["handle"] for row in made)
    assert scene.query(
        f"select count(*) from calls where handle like '%{task}%' or handle like '%{state}%'"
    ) == [(0,)]
    scene.stop(how)
    scene.proxy.start()
    scene.begin()
    before = len(scene.seen)
    assert call(bob).status == 404
    refused(scene, "session_not_yours", before)
    bob = scene.opened("bob")
    asked = bob.send(bob.ask("tasks/get", {"taskId": task}))
    assert asked.json["error"]["code"] == UNKNOWN
    refused(scene, "task_not_yours", 0)
    other = scene.agent("bob", MODERN)
    assert other.send(other.call(requestState=state)).json["error"]["code"] == UNKNOWN
    refused(scene, "state_not_yours", 0)
    assert call(alice).text == "ran read_thing"
    assert "result" in alice.send(alice.ask("tasks/get", {"taskId": task})).json
    assert modern.send(modern.call(rpc_id=2, requestState=state)).text == "ran read_thing"
    assert [seen.message["method"] for seen in scene.seen] == ["tools/call", "tasks/get", "tools/call"]
    row = scene.settled(3, "principal = 'user:alice@corp.example'")[1]
    assert (row["method"], row["tool"], row["verdict"], row["outcome"]) == (
        "tasks/get", "read_thing", "allow", "ok",
    )  # fmt: skip


# -- events --------------------------------------------------------------------------------------------


def stream_with(scene: Scene, agent: Agent, *event_ids: str) -> None:
    """A stream of this agent's session on which these events arrived, and which is over."""
    script = scene.play.stream("http/GET")
    events = agent.open()
    pushed = script.push(*(event(PROGRESS, event_id) for event_id in event_ids))
    script.end()
    assert events.rest() == pushed


def resume(agent: Agent, event_id: str) -> h.Answer:
    return agent.send(None, {"Last-Event-ID": event_id}, verb="GET")


def test_a_stream_is_resumed_by_whom_the_event_was_sent_to(scene: Scene) -> None:
    """The server counts from 1 for everybody: the same id is Alice's in her session and Bob's in his."""
    alice, bob = scene.opened("alice"), scene.opened("bob")
    stream_with(scene, alice, "1", "2")
    stream_with(scene, bob, "1")
    scene.look()
    for agent, event_id in ((alice, "2"), (bob, "1")):
        scene.play.plan("http/GET", h.Reply(200, EVENTS, event(PROGRESS, "9")))
        answer = resume(agent, event_id)
        assert (answer.status, answer.body) == (200, event(PROGRESS, "9"))
        assert scene.seen[-1].header("last-event-id") == event_id
        assert scene.seen[-1].header("mcp-session-id") == agent.session
    rows = scene.settled(2)
    assert [(r["method"], r["verdict"], r["outcome"]) for r in rows] == [("http/GET", "allow", "ok")] * 2
    second = scene.agent("alice").initialize()
    scene.look()
    for agent, event_id in ((bob, "2"), (alice, "3"), (second, "1")):
        answer = resume(agent, event_id)
        assert (answer.status, answer.json["error"]["data"]["reason"]) == (400, "event_not_yours")
        refused(scene, "event_not_yours", 0, method="http/GET")
    assert len(scene.rows()) == 3


def test_events_of_a_call_are_its_callers_and_two_ids_are_none(scene: Scene) -> None:
    alice = scene.opened()
    script = scene.play.stream("tools/call")
    events = alice.open(alice.call())
    pushed = script.push(event(PROGRESS, "p-1"), event(result(5), "p-2"))
    script.end()
    assert events.rest() == pushed
    scene.look()
    client = alice.connect()
    raw = alice.raw(None, {"Last-Event-ID": "p-1", "last-event-id": "p-2"}, "GET")
    client.send(raw)
    answer = client.read()
    assert answer is not None
    assert answer.status == 400
    refused(scene, "event_not_yours", 0)
    scene.play.plan("http/GET", h.Reply(200, EVENTS, pushed))
    assert resume(alice, "p-1").body == pushed


def test_an_answer_that_is_polled_is_filtered_as_on_its_own_stream(scene: Scene) -> None:
    """2025-11-25: the server closes the stream of a call after a priming event; the client comes again."""
    alice = scene.opened()
    prime = b"id: prime-1\nretry: 10\ndata:\n\n"
    for method in ("tools/list", "tools/call"):
        scene.play.plan(method, h.Reply(200, EVENTS, chunks=iter([prime])))
    assert alice.open(alice.ask("tools/list", rpc_id="l")).rest() == prime
    assert alice.open(alice.call(rpc_id="c")).rest() == prime
    tools = [{"name": name, "inputSchema": {}} for name in ("drop_thing", "read_thing")]
    both = event(result("l", tools=tools), "2") + event(result("c", isError=True, content=[]), "3")
    assert {row["outcome"] for row in scene.rows()} == {"unknown"}
    scene.play.plan("http/GET", h.Reply(200, EVENTS, chunks=iter([both])))
    events = alice.open(extra={"Last-Event-ID": "prime-1"})
    listed = events.message()
    assert (listed["id"], [tool["name"] for tool in listed["result"]["tools"]]) == ("l", ["read_thing"])
    assert events.rest() == event(result("c", isError=True, content=[]), "3")
    rows = scene.settled(3)
    assert [(r["method"], r["verdict"], r["outcome"], r["http_status"]) for r in rows] == [
        ("tools/list", "allow", "ok", 200),
        ("tools/call", "allow", "tool_error", 200),
        ("http/GET", "allow", "ok", 200),
    ]


def test_a_task_that_is_made_in_a_polled_answer_is_its_callers(scene: Scene) -> None:
    alice, bob = scene.opened("alice"), scene.opened("bob")
    scene.play.plan("tools/call", h.Reply(200, EVENTS, chunks=iter([b"id: t-1\ndata:\n\n"])))
    assert alice.open(alice.call(task={})).rest()
    made = event(result(5, task={"taskId": "polled", "status": "working"}), "t-2")
    scene.play.plan("http/GET", h.Reply(200, EVENTS, chunks=iter([made])))
    assert alice.open(extra={"Last-Event-ID": "t-1"}).rest() == made
    [row] = scene.settled(1, "method = 'tools/call'")
    assert row["outcome"] == "task"
    before = len(scene.seen)
    assert bob.send(bob.ask("tasks/get", {"taskId": "polled"})).json["error"]["code"] == UNKNOWN
    refused(scene, "task_not_yours", before)
    assert "result" in alice.send(alice.ask("tasks/get", {"taskId": "polled"})).json


# -- tasks ---------------------------------------------------------------------------------------------


def with_task(scene: Scene, who: str, revision: str, task: str, tool: str = "read_thing") -> Agent:
    """An agent of ``who`` for whom the server made a task."""
    agent = scene.agent(who, revision)
    if revision != MODERN:
        agent.initialize()
        given: dict[str, Any] = {"task": {"taskId": task, "status": "working"}}
    else:
        given = {"resultType": "task", "taskId": task, "status": "working"}
    scene.play.result("tools/call", given)
    agent.send(agent.call(tool))
    scene.look()
    return agent


@EVERY_TASK_METHOD
def test_a_task_is_its_callers_and_decided_as_the_tool_that_made_it(
    scene: Scene, revision: str, method: str
) -> None:
    """No rule names ``method:tasks/get``: what allowed the tool allows to ask for what it does."""
    task = uuid.uuid4().hex
    alice = with_task(scene, "alice", revision, task)
    [row] = scene.query(f"select tool, outcome, handle from calls where seq = {scene.since}")
    assert row[:2] == ("read_thing", "task")
    assert row[2]
    bob = scene.agent("bob", revision) if revision == MODERN else scene.opened("bob")
    before = len(scene.seen)
    answer = bob.send(bob.ask(method, {"taskId": task}, 0))
    assert (answer.status, answer.json["id"], answer.json["error"]["code"]) == (200, 0, UNKNOWN)
    refused(scene, "task_not_yours", before, principal="user:bob@corp.example", method=method)
    answer = alice.send(alice.ask(method, {"taskId": "of nobody"}, 0))
    assert answer.json["error"]["code"] == UNKNOWN
    refused(scene, "task_not_yours", before)
    assert "result" in alice.send(alice.ask(method, {"taskId": task}, 0)).json
    assert scene.seen[-1].message["params"]["taskId"] == task
    [row] = scene.settled(1, "verdict = 'allow'")
    assert (row["method"], row["tool"], row["reason"], row["rule"], row["outcome"]) == (
        method, "read_thing", "granted", "eng-things", "ok",
    )  # fmt: skip


def test_a_task_that_the_server_names_like_an_older_one_is_the_newer_ones(scene: Scene) -> None:
    alice = with_task(scene, "alice", LATEST, "task-1")
    bob = with_task(scene, "bob", LATEST, "task-1")
    before = len(scene.seen)
    assert alice.send(alice.ask("tasks/result", {"taskId": "task-1"})).json["error"]["code"] == UNKNOWN
    refused(scene, "task_not_yours", before)
    assert "result" in bob.send(bob.ask("tasks/result", {"taskId": "task-1"})).json


def test_a_list_of_tasks_holds_only_ones_own(scene: Scene) -> None:
    alice, bob = with_task(scene, "alice", LATEST, "t-alice"), with_task(scene, "bob", LATEST, "t-bob")
    tasks = [{"taskId": name, "status": "working"} for name in ("t-bob", "t-nobody", "t-alice")]
    for agent, own in ((alice, "t-alice"), (bob, "t-bob")):
        scene.play.result("tasks/list", {"tasks": tasks, "nextCursor": "more"})
        listed = agent.send(agent.ask("tasks/list")).json["result"]
        assert listed == {"tasks": [{"taskId": own, "status": "working"}], "nextCursor": "more"}
    rows = scene.settled(2, "method = 'tasks/list'")
    assert [(row["verdict"], row["reason"], row["outcome"]) for row in rows] == [
        ("allow", "granted", "ok")
    ] * 2


def test_a_task_is_refused_once_its_tool_is(scene: Scene) -> None:
    """The rules of now decide, on the arguments of then."""
    watching = with_task(scene, "alice", MODERN, "watched")
    scene.play.stream("subscriptions/listen")
    events = watching.open(watching.ask("subscriptions/listen", {"notifications": {"taskIds": ["watched"]}}))
    assert events.head.status == 200
    alice = scene.agent().initialize()
    scene.play.result("tools/call", {"task": {"taskId": "outlived", "status": "working"}})
    alice.send(alice.call())
    ask = alice.ask("tasks/result", {"taskId": "outlived"})
    assert "result" in alice.send(ask).json
    denied = "  - id: no-reads\n    effect: deny\n    tools: [read_thing]\n    args: {name: {eq: x}}\n"
    try:
        scene.reload(POLICY + denied)
        before = len(scene.seen)
        answer = alice.send(ask)
        assert answer.json["error"]["data"]["reason"] == "rule_denied"
        refused(scene, "rule_denied", before, rule="no-reads", tool="read_thing")
        # Who listened for such a task listens no more (law 10).
        with pytest.raises(ConnectionError):
            events.rest()
        [row] = scene.settled(1, "method = 'subscriptions/listen'")
        assert (row["outcome"], row["detail"]) == ("cut", "rule_denied")
        named = "  - id: no-results\n    effect: deny\n    tools: ['method:tasks/result']\n"
        scene.reload(POLICY + named)
        assert alice.send(ask).json["error"]["code"] == -40300
        refused(scene, "rule_denied", before, rule="no-results")
        assert "result" in alice.send(alice.ask("tasks/get", {"taskId": "outlived"})).json
    finally:
        scene.reload(POLICY)


@pytest.mark.parametrize(
    ("wanted", "reason", "code"),
    [
        ({"taskIds": ["w-alice"]}, None, None),
        ({"resourceSubscriptions": ["thing://public/x"], "toolsListChanged": True}, None, None),
        ({"taskIds": ["w-alice", "w-bob"]}, "task_not_yours", UNKNOWN),
        ({"resourceSubscriptions": ["thing://public/x", "thing://secret/x"]}, "rule_denied", -40300),
        ({"resourceSubscriptions": ["other://x"]}, "no_grant", -40300),
        ({"somethingNew": True}, "no_grant", -40300),
    ],
    ids=["her task", "a resource", "Bob's task", "a secret resource", "a resource of no rule", "news"],
)
def test_who_listens_is_decided_for_all_that_is_listened_to(
    scene: Scene, wanted: dict[str, Any], reason: str | None, code: int | None
) -> None:
    alice = with_task(scene, "alice", MODERN, "w-alice")
    with_task(scene, "bob", MODERN, "w-bob")
    said = alice.ask("subscriptions/listen", {"notifications": wanted}, "s")
    if reason is not None:
        answer = alice.send(said)
        assert (answer.json["id"], answer.json["error"]["code"]) == ("s", code)
        refused(scene, reason, 0, method="subscriptions/listen")
        return
    script = scene.play.stream("subscriptions/listen")
    events = alice.open(said)
    more = {**wanted, "taskIds": [*wanted.get("taskIds", []), "w-bob"]}
    script.push(event(notification("notifications/subscriptions/acknowledged", notifications=more)))
    heard = events.message()["params"]["notifications"]
    assert heard == {**wanted, "taskIds": wanted.get("taskIds", [])}
    script.push(event(notification("notifications/resources/updated", uri="thing://secret/x")))
    script.push(event(notification("notifications/tasks", taskId="w-bob", status="completed")))
    pushed = script.push(event(notification("notifications/resources/updated", uri="thing://public/x")))
    assert events.next() == pushed
    [row] = scene.rows()
    assert (row["method"], row["verdict"]) == ("subscriptions/listen", "allow")


# -- requests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "rpc_id", "mine"),
    [("alice", 5, True), ("alice", "5", False), ("alice", 6, False), ("bob", 5, False)],
    ids=["one's own", "of another type", "of nobody", "of another principal"],
)
def test_only_ones_own_request_can_be_cancelled(scene: Scene, who: str, rpc_id: Any, mine: bool) -> None:
    alice = scene.opened("alice")
    script = scene.play.stream("tools/call")
    events = alice.open(alice.call(rpc_id=5))
    agent = alice if who == "alice" else scene.agent(who).initialize()
    before = len(scene.seen)
    said = notification("notifications/cancelled", requestId=rpc_id, reason="enough")
    answer = agent.send(said)
    assert (answer.status, answer.body) == (202, b"")
    if mine:
        assert [json.loads(seen.body) for seen in scene.seen[before:]] == [said]
        [row] = scene.settled(1, "method = 'notifications/cancelled'")
        assert (row["verdict"], row["reason"], row["outcome"]) == ("allow", "protocol", "accepted")
    else:
        refused(scene, "request_not_yours", before, method="notifications/cancelled")
    script.push(event(result(5)))
    script.end()
    assert events.rest() == event(result(5))
