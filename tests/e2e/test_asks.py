"""What a server asks of its client as a request: decided by rules, recorded, and nobody left waiting.

In the revisions up to 2025-11-25, on every kind of stream; and the client's answers, which leave the company.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e import harness as h
from tests.e2e.asking import (
    ACCEPT,
    ASKED_FORM,
    CARRIERS,
    DENIED,
    EVIL,
    FORM,
    PROGRESS,
    SAMPLE,
    SECRETIVE,
    URL,
    Talk,
    answer_to,
    asked_row,
    question,
    refusal_of,
    talk,
)
from tests.e2e.conversation import POLICY, Scene, data_of, error, event, open_scene, request, result
from tests.e2e.warm import Warm


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Scene]:
    with open_scene(tmp_path_factory.mktemp("asks"), pki, warm) as scene:
        yield scene


@pytest.fixture
def scene(made: Scene) -> Iterator[Scene]:
    made.begin()
    yield made
    made.clear()


# -- requests on streams -------------------------------------------------------------------------------


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_question_that_a_rule_allows_passes_untouched_and_so_does_its_answer(
    scene: Scene, carrier: str
) -> None:
    on = talk(scene, carrier)
    pushed = on.push(question(params={**FORM, "_meta": {"progressToken": 3}}, rpc_id=0))
    assert on.events.next() == pushed
    row = asked_row(scene, on.cause)  # durable before the client had it
    assert (row["method"], row["verdict"], row["reason"], row["rule"], row["rpc_id"], row["outcome"]) == (
        "elicitation/create", "allow", "granted", "ask-forms", "0", "unknown",
    )  # fmt: skip
    assert json.loads(row["arguments"]) == ASKED_FORM
    before = len(scene.seen)
    reply = on.agent.send(answer_to(0))
    assert (reply.status, reply.body) == (202, b"")
    [seen] = scene.seen[before:]
    assert seen.message == answer_to(0)
    assert seen.header("authorization") == f"Bearer {h.SECRET}"
    assert seen.header("mcp-session-id") == on.agent.session
    [said] = scene.settled(1, f"caused_by = '{row['event_id']}'")
    assert (said["direction"], said["method"], said["verdict"], said["rule"], said["outcome"]) == (
        "client", "elicitation/create", "allow", "ask-forms", "accepted",
    )  # fmt: skip
    assert json.loads(said["arguments"]) == {"answer": ACCEPT}
    assert said["injected"] == "things-key@v1"
    h.wait_for(lambda: asked_row(scene, on.cause)["outcome"] == "ok", "the question's outcome")


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize(
    ("method", "params", "rpc_id", "reason"),
    [
        ("elicitation/create", EVIL, 0, "no_grant"),
        ("sampling/createMessage", {**SAMPLE, "maxTokens": 5000}, "0", "no_grant"),
    ],
    ids=["a URL in disguise", "more than a rule allows"],
)
def test_a_question_that_no_rule_allows_becomes_a_ping_and_the_server_gets_an_error(
    scene: Scene, carrier: str, method: str, params: Any, rpc_id: Any, reason: str
) -> None:
    on = talk(scene, carrier)
    on.push(question(method, params, rpc_id))
    heard = on.heard()
    assert heard == {"jsonrpc": "2.0", "id": rpc_id, "method": "ping"}
    assert type(heard["id"]) is type(rpc_id)
    row = asked_row(scene, on.cause)
    assert (row["method"], row["verdict"], row["reason"], row["outcome"]) == (
        method, "deny", reason, "not_sent",
    )  # fmt: skip
    before = len(scene.seen)
    reply = on.agent.send(answer_to(rpc_id, {}))
    assert (reply.status, reply.body) == (202, b"")
    [seen] = scene.seen[before:]
    refusal_of(rpc_id, seen)
    assert seen.header("mcp-session-id") == on.agent.session
    [said] = scene.settled(1, f"caused_by = '{row['event_id']}'")
    assert (said["direction"], said["verdict"], said["reason"], said["outcome"]) == (
        "client", "allow", "protocol", "accepted",
    )  # fmt: skip
    # The stream lives on, and the call that it belongs to ends as if nothing had been.
    on.push(result(5))
    assert on.heard() == result(5)


@pytest.mark.parametrize(
    ("method", "params", "verdict", "reason", "arguments"),
    [
        ("elicitation/create", FORM, "allow", "granted", ASKED_FORM),
        ("elicitation/create", URL, "allow", "granted", {**URL, "url_host": "login.corp.example"}),
        ("elicitation/create", {**URL, "url": "https://x.corp.example"}, "deny", "no_grant",
         {**URL, "url": "https://x.corp.example", "url_host": "x.corp.example"}),
        ("elicitation/create", {**URL, "url_host": "login.corp.example", "url": "javascript:0"}, "deny",
         "no_grant", {**URL, "url": "javascript:0"}),
        ("elicitation/create", {**FORM, "url": "https://evil.corp.example"}, "deny", "malformed_message",
         None),
        ("elicitation/create", {**FORM, "Mode": "url"}, "deny", "malformed_message", None),
        ("roots/list", None, "allow", "granted", None),
        ("sampling/createMessage", SAMPLE, "allow", "granted", SAMPLE),
        ("sampling/createMessage", {"messages": []}, "deny", "no_grant", {"messages": []}),
        ("x-corp/anything", {"a": 1}, "deny", "no_grant", {"a": 1}),
        ("tools/call", {"name": "read_thing"}, "deny", "no_grant", {"name": "read_thing"}),
    ],
    ids=[
        "a form", "a page of a host that is named", "a page of another host", "a page that is no address",
        "both at once", "a mode that some readers see", "roots", "a small sample", "a sample without a bound",
        "an unknown method", "a client's method",
    ],
)  # fmt: skip
def test_what_a_server_asks_is_decided_by_rules_that_name_the_method(
    scene: Scene, method: str, params: Any, verdict: str, reason: str, arguments: Any
) -> None:
    on = talk(scene, "post")
    pushed = on.push(question(method, params))
    heard = on.events.next()
    row = asked_row(scene, on.cause)
    assert (row["verdict"], row["reason"]) == (verdict, reason)
    assert row["method"] == ("malformed" if reason == "malformed_message" else method)
    assert (json.loads(row["arguments"]) if row["arguments"] else None) == arguments
    if verdict == "allow":
        assert heard == pushed
    else:
        assert data_of(heard) == {"jsonrpc": "2.0", "id": "q1", "method": "ping"}
        assert b"evil" not in heard


def test_events_around_a_question_keep_their_order_while_its_row_is_written(scene: Scene) -> None:
    on = talk(scene, "post")
    parts = [event(PROGRESS, "1"), event(question(rpc_id=1), "2"), b": still here\n\n",
             event(question(rpc_id=2), "3"), event(PROGRESS, "4"), event(result(5), "5")]  # fmt: skip
    on.script.push(b"".join(parts[:3]))
    on.script.push(*parts[3:])
    on.script.end()
    assert on.events.rest() == b"".join(parts)
    told = scene.await_told(
        [
            ("tools/call", "allow", "granted", "ok"),
            ("elicitation/create", "allow", "granted", "unknown"),
            ("elicitation/create", "allow", "granted", "unknown"),
        ]
    )
    assert [row["rpc_id"] for row in told] == ["5", "1", "2"]


def test_a_question_in_a_json_array_body_is_judged_as_in_an_event(scene: Scene) -> None:
    agent = scene.opened()
    answer = [question(rpc_id=1), question("sampling/createMessage", {}, 2), result(5)]
    scene.play.plan("tools/call", h.json_reply(answer))
    got = agent.send(agent.call(rpc_id=5))
    assert got.json == [answer[0], {"jsonrpc": "2.0", "id": 2, "method": "ping"}, answer[2]]
    assert (agent.send(answer_to(1)).status, agent.send(answer_to(2, {})).status) == (202, 202)
    assert scene.seen[1].message == answer_to(1)
    refusal_of(2, scene.seen[2])
    rows = scene.settled(5)
    assert [(r["direction"], r["method"], r["verdict"], r["reason"], r["outcome"]) for r in rows] == [
        ("client", "tools/call", "allow", "granted", "ok"),
        ("server", "elicitation/create", "allow", "granted", "ok"),
        ("server", "sampling/createMessage", "deny", "no_grant", "not_sent"),
        ("client", "elicitation/create", "allow", "granted", "accepted"),
        ("client", "response", "allow", "protocol", "accepted"),
    ]
    assert [r["caused_by"] for r in rows[1:]] == [rows[n]["event_id"] for n in (0, 0, 1, 2)]


def test_a_ping_of_the_server_passes_without_a_row_and_its_answer_passes(scene: Scene) -> None:
    on = talk(scene, "post")
    pushed = on.push(request("ping", rpc_id="p"))
    assert on.events.next() == pushed
    assert scene.rows("direction = 'server'") == []
    assert on.agent.send(answer_to("p", {})).status == 202
    assert scene.seen[-1].message == answer_to("p", {})
    [row] = scene.settled(1, "method <> 'tools/call'")
    assert (row["verdict"], row["reason"], row["outcome"]) == ("allow", "protocol", "accepted")


# -- the client's answers ------------------------------------------------------------------------------


def test_a_client_that_says_no_is_heard_and_the_question_ends_in_an_error(scene: Scene) -> None:
    on = talk(scene, "post")
    on.push(question(rpc_id="q1"))
    on.events.next()
    said = error("q1", -1, data={"why": "no"})
    assert on.agent.send(said).status == 202
    assert scene.seen[-1].message == said
    h.wait_for(lambda: asked_row(scene, on.cause)["outcome"] == "rpc_error", "the question's outcome")
    [row] = scene.settled(1, "direction = 'client' and caused_by is not null")
    assert (row["method"], row["verdict"], row["arguments"]) == ("elicitation/create", "allow", None)


@pytest.mark.parametrize("carrier", ["post", "old"])
def test_an_answer_that_a_rule_forbids_stays_here_and_the_server_gets_an_error(
    scene: Scene, carrier: str
) -> None:
    on = talk(scene, carrier)
    on.push(question(rpc_id=7))
    on.events.next()
    before = len(scene.seen)
    reply = on.agent.send(answer_to(7, SECRETIVE))
    assert (reply.status, reply.body) == (202, b"")
    [seen] = scene.seen[before:]
    refusal_of(7, seen)
    assert b"hunter2" not in seen.raw
    asked = asked_row(scene, on.cause)
    rows = scene.settled(2, f"caused_by = '{asked['event_id']}'")
    assert [(r["direction"], r["method"], r["verdict"], r["reason"], r["rule"], r["outcome"])
            for r in rows] == [
        ("client", "elicitation/create", "deny", "rule_denied", "no-passwords-out", "not_sent"),
        ("client", "response", "allow", "protocol", None, "accepted"),
    ]  # fmt: skip
    assert [r["injected"] for r in rows] == [None, "things-key@v1"]
    assert scene.query("select count(*) from decision where arguments like '%hunter2%'") == [(0,)]


@pytest.mark.parametrize("carrier", ["post", "old"])
@pytest.mark.parametrize(
    "stray",
    [
        lambda on: on.agent.send(answer_to("q2")),
        lambda on: on.agent.send(answer_to(1)),
        lambda on: [on.agent.send(answer_to("1")), on.agent.send(answer_to("1"))][1],
    ],
    ids=["an id that was never used", "an id of another type", "a second answer"],
)
def test_an_answer_to_what_nobody_asked_goes_nowhere(
    scene: Scene, carrier: str, stray: Callable[[Talk], h.Answer]
) -> None:
    on = talk(scene, carrier)
    on.push(question(rpc_id="1"))
    on.events.next()
    before = [seen.message for seen in scene.seen if seen.body]
    reply = stray(on)
    assert (reply.status, reply.body) == (202, b"")
    after = [seen.message for seen in scene.seen if seen.body]
    assert after in (before, [*before, answer_to("1")])
    [row] = scene.rows("reason = 'response_unexpected'")
    assert (row["direction"], row["verdict"], row["outcome"]) == ("client", "deny", "not_sent")
    assert len(scene.rows("verdict = 'deny'")) == 1


def test_nobody_answers_in_the_name_of_another(scene: Scene) -> None:
    on = talk(scene, "post")
    on.push(question(rpc_id=3))
    on.events.next()
    bob = scene.agent("bob").initialize()
    before = len(scene.seen)
    assert bob.send(answer_to(3)).status == 202
    bob.session = on.agent.session
    assert bob.send(answer_to(3)).status == 404
    assert len(scene.seen) == before
    rows = scene.rows("principal = 'user:bob@corp.example' and method <> 'initialize'")
    assert [r["reason"] for r in rows] == ["response_unexpected", "session_not_yours"]
    assert on.agent.send(answer_to(3)).status == 202
    assert scene.seen[-1].message == answer_to(3)


def test_answers_in_a_batch_are_decided_one_by_one_and_go_on_together(scene: Scene) -> None:
    agent = scene.opened(revision="2025-03-26")
    script = scene.play.stream("http/GET")
    events = agent.open()
    for rpc_id in (1, 2):
        script.push(event(question(rpc_id=rpc_id)))
        events.next()
    script.push(event(question("x-corp/anything", {}, 3)))
    assert events.message()["method"] == "ping"
    before = len(scene.seen)
    batch = [answer_to(1), answer_to(2, SECRETIVE), answer_to(3, {}), answer_to(4)]
    assert agent.send(batch).status == 202
    [seen] = scene.seen[before:]
    assert [message["id"] for message in seen.message] == [1, 2, 3]
    assert seen.message[0] == answer_to(1)
    assert [message["error"]["code"] for message in seen.message[1:]] == [DENIED, DENIED]
    rows = scene.settled(5, "batch_index is not null")
    assert [(r["batch_index"], r["verdict"], r["reason"]) for r in rows] == [
        (0, "allow", "granted"),
        (1, "deny", "rule_denied"),
        (1, "allow", "protocol"),
        (2, "allow", "protocol"),
        (3, "deny", "response_unexpected"),
    ]


def test_an_open_stream_asks_under_the_rules_of_now(scene: Scene) -> None:
    on = talk(scene, "get")
    pushed = on.push(question("roots/list", None, 1))
    assert on.events.next() == pushed
    denied = "  - id: no-roots\n    effect: deny\n    tools: ['method:roots/list']\n"
    try:
        scene.reload(POLICY + denied)
        on.push(question("roots/list", None, 2))
        assert on.heard() == {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        # And so is the answer to what was asked before.
        before = len(scene.seen)
        assert on.agent.send(answer_to(1, {"roots": []})).status == 202
        refusal_of(1, scene.seen[before])
    finally:
        scene.reload(POLICY)
    assert [(r["direction"], r["verdict"], r["rule"]) for r in scene.rows("method = 'roots/list'")] == [
        ("server", "allow", "ask-roots"), ("server", "deny", "no-roots"), ("client", "deny", "no-roots"),
    ]  # fmt: skip


# -- servers that do not play by the rules ----------------------------------------------------------------


def test_a_malformed_question_is_answered_too(scene: Scene) -> None:
    on = talk(scene, "post")
    on.push(question(params={**FORM, "Mode": "url"}, rpc_id=7))
    assert on.heard() == {"jsonrpc": "2.0", "id": 7, "method": "ping"}
    before = len(scene.seen)
    assert on.agent.send(answer_to(7, {})).status == 202
    assert scene.rows("reason = 'response_unexpected'") == []
    refusal_of(7, scene.seen[before])


def test_an_id_that_is_asked_twice_does_not_change_what_an_answer_is(scene: Scene) -> None:
    """The server asks for a form and, under the same id, for roots: no rule guards the answer to those."""
    on = talk(scene, "post")
    on.push(question(rpc_id=1))
    on.heard()
    on.push(question("roots/list", None, 1))
    on.push(PROGRESS)
    assert on.heard()["method"] == PROGRESS["method"]
    [row] = scene.rows("method = 'roots/list'")
    assert (row["verdict"], row["reason"]) == ("deny", "malformed_message")
    before = len(scene.seen)
    assert on.agent.send(answer_to(1, SECRETIVE)).status == 202
    assert all(b"hunter2" not in seen.raw for seen in scene.seen[before:])


def test_a_question_that_is_replayed_is_one_question(scene: Scene) -> None:
    on = talk(scene, "post")
    asked = event(question(rpc_id=1), "e2")
    on.script.push(event(PROGRESS, "e1"), asked)
    assert on.events.next() + on.events.next() == event(PROGRESS, "e1") + asked
    on.script.end()
    assert on.events.rest() == b""
    script = scene.play.stream("http/GET")
    events = on.agent.open(extra={"Last-Event-ID": "e1"})
    script.push(asked)
    assert events.next() == asked
    assert on.agent.send(answer_to(1)).status == 202
    script.push(event(result(5), "e3"))
    script.end()
    events.rest()
    scene.await_rows_end("method <> 'http/GET'")


def test_a_ping_on_the_stream_of_initialize_is_answered(scene: Scene) -> None:
    alice, session = scene.agent(), uuid.uuid4().hex
    script = scene.play.stream("initialize", headers={"Mcp-Session-Id": session})
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw"}}
    events = alice.open(request("initialize", hello, 0))
    pushed = script.push(event(request("ping", rpc_id="p")))
    assert events.next() == pushed
    alice.session = session
    assert alice.send(answer_to("p", {})).status == 202
    assert scene.posted[-1] == answer_to("p", {})
