"""What a server asks inside of a result, a task or an error: judged as if it were a request of its own.

``inputRequests`` of 2026-07-28 and its tasks, error -32042 of 2025-11-25; and the calls that are repeated
with the answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import harness as h
from tests.e2e.asking import ACCEPT, DENIED, EVIL, FORM, SECRETIVE, URL, needs, wish
from tests.e2e.conversation import MODERN, Scene, data_of, event, notification, open_scene, result
from tests.e2e.warm import Warm


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Scene]:
    with open_scene(tmp_path_factory.mktemp("inside"), pki, warm) as scene:
        yield scene


@pytest.fixture
def scene(made: Scene) -> Iterator[Scene]:
    made.begin()
    yield made
    made.clear()


@pytest.mark.parametrize("events", [False, True], ids=["JSON", "an event"])
def test_inputs_that_rules_allow_are_asked_and_the_call_is_repeated_with_them(
    scene: Scene, events: bool
) -> None:
    alice = scene.agent(revision=MODERN)
    asked = {**needs(k1=wish(), k2={"method": "roots/list"}), "requestState": f"state-{events}"}
    scene.play.result("tools/call", asked, events=events)
    got = alice.send(alice.call(rpc_id=1))
    assert got.body == (event(result(1, **asked)) if events else json.dumps(result(1, **asked)).encode())
    said = {"k1": ACCEPT, "k2": {"roots": []}}
    more = {"inputResponses": said, "requestState": f"state-{events}"}
    answer = alice.send(alice.call(rpc_id=2, **more))
    assert answer.text == "ran read_thing"
    assert scene.seen[1].message == alice.call(rpc_id=2, **more)
    assert scene.seen[1].header("authorization") == f"Bearer {h.SECRET}"
    rows = scene.settled(6)
    told = [(r["direction"], r["method"], r["rpc_id"], r["verdict"], r["rule"], r["outcome"]) for r in rows]
    assert told == [
        ("client", "tools/call", "1", "allow", "eng-things", "input_required"),
        ("server", "elicitation/create", '"k1"', "allow", "ask-forms", "input_required"),
        ("server", "roots/list", '"k2"', "allow", "ask-roots", "input_required"),
        ("client", "tools/call", "2", "allow", "eng-things", "ok"),
        ("client", "elicitation/create", '"k1"', "allow", "ask-forms", "ok"),
        ("client", "roots/list", '"k2"', "allow", "ask-roots", "ok"),
    ]  # fmt: skip
    assert [r["caused_by"] for r in rows[1:3]] == [rows[0]["event_id"]] * 2
    assert [json.loads(r["arguments"]) for r in rows[4:]] == [{"answer": ACCEPT}, {"answer": {"roots": []}}]


@pytest.mark.parametrize("events", [False, True], ids=["JSON", "an event"])
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"name": "read_thing", "arguments": {}}),
        ("prompts/get", {"name": "greet"}),
        ("resources/read", {"uri": "thing://public/x"}),
    ],
    ids=["tool", "prompt", "resource"],
)
def test_one_input_that_no_rule_allows_refuses_the_whole_result(
    scene: Scene, events: bool, method: str, params: Any
) -> None:
    alice = scene.agent(revision=MODERN)
    asked = {**needs(k1=wish(), k2=wish("sampling/createMessage", maxTokens=9999)), "requestState": "lost"}
    scene.play.result(method, asked, events=events)
    answer = alice.send(alice.ask(method, params, "r"))
    assert answer.status == 200
    message = data_of(answer.body) if events else answer.json
    assert message["id"] == "r"
    if method == "tools/call":
        assert message["result"]["isError"] is True
        assert message["result"]["resultType"] == "complete"
        told = message["result"]["content"][0]["text"]
    else:
        assert message["error"]["code"] == DENIED
        told = message["error"]["message"]
    assert "no_grant" in told
    assert b"lost" not in answer.body
    assert b"Which one?" not in answer.body
    [row] = scene.settled(1, "direction = 'client'")
    assert (row["method"], row["verdict"], row["outcome"]) == (method, "allow", "response_refused")
    asked_for = scene.rows("direction = 'server'")
    assert [(r["method"], r["verdict"], r["reason"]) for r in asked_for] == [
        ("elicitation/create", "deny", "batch_partner_denied"),  # it was not given out either
        ("sampling/createMessage", "deny", "no_grant"),
    ]
    assert {r["caused_by"] for r in asked_for} == {row["event_id"]}
    assert asked_for[1]["event_id"] in told
    # A state that she never got is none of hers.
    before = len(scene.seen)
    again = alice.send(alice.ask(method, {**params, "requestState": "lost"}, "r2"))
    assert again.json["error"]["code"] == -32602
    assert len(scene.seen) == before
    assert scene.rows()[-1]["reason"] == "state_not_yours"


@pytest.mark.parametrize(
    ("name", "said", "part", "whys"),
    [
        ("read_thing", {"k1": SECRETIVE}, "elicitation/create", [("rule_denied", "no-passwords-out")] * 2),
        ("read_thing", {"k1": "anything"}, "elicitation/create", [("rule_denied", "no-passwords-out")] * 2),
        ("read_thing", {"k9": "anything"}, "response", [("response_unexpected", None)] * 2),
        (
            "drop_thing",
            {"k1": ACCEPT},
            "elicitation/create",
            [("rule_denied", "no-drops"), ("no_grant", None)],
        ),
    ],
    ids=["a password", "what may hide one", "to no question", "a call that is forbidden"],
)
def test_a_repeated_call_is_decided_whole_and_each_answer_in_it(
    scene: Scene, name: str, said: Any, part: str, whys: list[tuple[str, str | None]]
) -> None:
    alice = scene.agent(revision=MODERN)
    scene.play.result("tools/call", needs(k1=wish()))
    alice.send(alice.call(rpc_id=1))
    before = len(scene.seen)
    answer = alice.send(alice.call(name, rpc_id=2, inputResponses=said))
    assert answer.json["result"]["isError"] is True
    assert (answer.json["id"], answer.json["result"]["resultType"]) == (2, "complete")
    assert len(scene.seen) == before
    rows = scene.rows()[2:]
    assert [(r["method"], r["verdict"]) for r in rows] == [("tools/call", "deny"), (part, "deny")]
    assert [(r["reason"], r["rule"]) for r in rows] == whys
    assert b"hunter2" not in answer.body


@pytest.mark.parametrize(
    ("who", "name", "state"),
    [("bob", "read_thing", "given"), ("alice", "query", "given"), ("alice", "read_thing", "made up")],
    ids=["of another principal", "of another call", "of nobody"],
)
def test_a_request_state_is_whose_call_it_was_given_for(
    scene: Scene, who: str, name: str, state: str
) -> None:
    alice, agent = scene.agent(revision=MODERN), scene.agent(who, MODERN)
    given = f"{who}-{name}-given"
    scene.play.result("tools/call", {**needs(k1=wish()), "requestState": given})
    alice.send(alice.call(rpc_id=1))
    before = len(scene.seen)
    wanted = given if state == "given" else state
    answer = agent.send(agent.call(name, rpc_id=2, requestState=wanted, inputResponses={"k1": ACCEPT}))
    assert (answer.status, answer.json["id"], answer.json["error"]["code"]) == (200, 2, -32602)
    assert len(scene.seen) == before
    [row] = scene.rows("verdict <> 'allow'")
    assert (row["principal"], row["tool"], row["reason"], row["outcome"]) == (
        f"user:{who}@corp.example", name, "state_not_yours", "not_sent",
    )  # fmt: skip
    assert alice.send(alice.call(rpc_id=3, requestState=given)).text == "ran read_thing"


def test_a_request_state_that_two_callers_are_given_is_both_of_theirs(scene: Scene) -> None:
    """It is opaque, and need not be unique: a server may say the same to all who stand at the same point."""
    alice, bob = scene.agent("alice", MODERN), scene.agent("bob", MODERN)
    for agent in (alice, bob):
        scene.play.result("tools/call", {**needs(k1=wish()), "requestState": "second step"})
        agent.send(agent.call(rpc_id=1))
    for agent in (alice, bob):
        more = {"requestState": "second step", "inputResponses": {"k1": ACCEPT}}
        assert agent.send(agent.call(rpc_id=2, **more)).text == "ran read_thing"


def test_a_key_that_is_asked_twice_does_not_change_what_an_answer_is(scene: Scene) -> None:
    """The server asks two calls for different things under one key, to have one answer judged as another."""
    alice = scene.agent(revision=MODERN)
    page = wish("elicitation/create", **FORM)
    scene.play.result("tools/call", needs(k1=page), needs(k1={"method": "roots/list"}))
    alice.send(alice.call(rpc_id=1))
    alice.send(alice.call(rpc_id=2))
    before = len(scene.seen)
    alice.send(alice.call(rpc_id=3, inputResponses={"k1": SECRETIVE}))
    assert len(scene.seen) == before


@pytest.mark.parametrize("events", [False, True], ids=["JSON", "an event"])
def test_a_page_that_an_error_asks_for_is_judged_alike(scene: Scene, events: bool) -> None:
    alice = scene.opened()
    page = {name: value for name, value in URL.items() if name != "mode"}
    for url in (URL["url"], EVIL["url"]):
        scene.play.error("tools/call", -32042, events=events, data={"elicitations": [{**page, "url": url}]})
    good, bad = (alice.send(alice.call(rpc_id=rpc_id)) for rpc_id in (1, 2))
    first, second = (data_of(a.body) if events else a.json for a in (good, bad))
    assert first["error"]["data"]["elicitations"][0]["url"] == URL["url"]
    assert (second["id"], second["result"]["isError"]) == (2, True)
    assert b"evil" not in bad.body
    rows = scene.await_told(
        [
            ("tools/call", "allow", "granted", "rpc_error"),
            ("elicitation/create", "allow", "granted", "input_required"),
            ("tools/call", "allow", "granted", "response_refused"),
            ("elicitation/create", "deny", "no_grant", "not_sent"),
        ]
    )
    assert [r["rpc_code"] for r in rows[::2]] == [-32042, None]
    assert [r["target"] for r in rows[1::2]] == [URL["url"], EVIL["url"]]
    assert [r["caused_by"] for r in rows[1::2]] == [r["event_id"] for r in rows[::2]]


def test_a_task_that_waits_for_input_is_judged_alike(scene: Scene) -> None:
    alice = scene.agent(revision=MODERN)
    task = {"resultType": "task", "taskId": "asking", "status": "working"}
    waits = {"resultType": "complete", "taskId": "asking", "status": "input_required"}
    scene.play.result("tools/call", task)
    alice.send(alice.call(rpc_id=1))
    allowed = {**waits, "inputRequests": {"k1": wish()}}
    denied = {**waits, "inputRequests": {"k1": wish("sampling/createMessage")}}
    scene.play.result("tasks/get", allowed, denied)
    assert alice.send(alice.ask("tasks/get", {"taskId": "asking"}, 2)).json == result(2, **allowed)
    refused = alice.send(alice.ask("tasks/get", {"taskId": "asking"}, 3))
    assert (refused.json["id"], refused.json["error"]["code"]) == (3, DENIED)
    update = {"taskId": "asking", "inputResponses": {"k1": ACCEPT}}
    scene.play.result("tasks/update", {"resultType": "complete"})
    assert "result" in alice.send(alice.ask("tasks/update", update, 4)).json
    secretive = alice.send(alice.ask("tasks/update", {**update, "inputResponses": {"k1": SECRETIVE}}, 5))
    assert secretive.json["error"]["code"] == DENIED
    assert [seen.message["method"] for seen in scene.seen] == [
        "tools/call", "tasks/get", "tasks/get", "tasks/update",
    ]  # fmt: skip
    scene.await_told(
        [
            ("tools/call", "allow", "granted", "task"),
            ("tasks/get", "allow", "granted", "ok"),
            ("elicitation/create", "allow", "granted", "input_required"),
            ("tasks/get", "allow", "granted", "response_refused"),
            ("sampling/createMessage", "deny", "no_grant", "not_sent"),
            ("tasks/update", "allow", "granted", "ok"),
            ("elicitation/create", "allow", "granted", "ok"),
            ("tasks/update", "deny", "rule_denied", "not_sent"),
            ("elicitation/create", "deny", "rule_denied", "not_sent"),
        ]
    )


def test_news_of_a_task_that_asks_what_no_rule_allows_does_not_arrive(scene: Scene) -> None:
    alice = scene.agent(revision=MODERN)
    scene.play.result("tools/call", {"resultType": "task", "taskId": "newsy", "status": "working"})
    alice.send(alice.call(rpc_id=1))
    script = scene.play.stream("subscriptions/listen")
    events = alice.open(alice.ask("subscriptions/listen", {"notifications": {"taskIds": ["newsy"]}}, "s"))
    news = [
        notification("notifications/tasks", taskId="newsy", status="input_required", inputRequests=inputs)
        for inputs in ({"k1": wish("sampling/createMessage")}, {"k1": wish()})
    ]
    script.push(event(news[0]))
    pushed = script.push(event(news[1]))
    assert events.next() == pushed
    rows = scene.await_told(
        [
            ("tools/call", "allow", "granted", "task"),
            ("subscriptions/listen", "allow", "granted", "unknown"),
            ("sampling/createMessage", "deny", "no_grant", "not_sent"),
            ("elicitation/create", "allow", "granted", "input_required"),
        ]
    )
    assert {r["caused_by"] for r in rows[2:]} == {rows[1]["event_id"]}
