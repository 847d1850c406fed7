"""A server that asks in the middle of a conversation: on every kind of stream, and inside of results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.e2e import harness as h
from tests.e2e.conversation import Agent, Events, Scene, Script, announced, event, notification, request

SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}}
FORM = {"message": "Which one?", "requestedSchema": SCHEMA}
ASKED_FORM = {**FORM, "mode": "form"}
URL = {"mode": "url", "message": "Log in", "url": "https://login.corp.example/a", "elicitationId": "e1"}
EVIL = {**URL, "url": "https://login.corp.example@evil.corp.example/a"}
SAMPLE = {"messages": [], "maxTokens": 10}
ACCEPT = {"action": "accept", "content": {"x": "blue"}}
SECRETIVE = {"action": "accept", "content": {"password": "hunter2"}}
PROGRESS = notification("notifications/progress", progressToken=1, progress=1)
CARRIERS = ["post", "array", "get", "old"]
DENIED = -40300


@dataclass
class Talk:
    """A stream under way on which the server asks. ``cause``: the row of the exchange that it belongs to."""

    scene: Scene
    agent: Agent
    script: Script
    events: Events
    cause: dict[str, Any]
    array: bool

    def push(self, message: Any) -> bytes:
        """The server says it; where it speaks in arrays, with a notification beside it."""
        return self.script.push(event([PROGRESS, message] if self.array else message))

    def heard(self) -> Any:
        """The next message that the client gets."""
        message = self.events.message()
        if not self.array:
            return message
        assert message[0] == PROGRESS
        return message[1]


def talk(scene: Scene, carrier: str, who: str = "alice") -> Talk:
    """A stream on which a server may ask: of a call, of a session, of 2024-11-05."""
    if carrier == "old":
        agent, script, events = announced(scene, who)
        assert agent.send(agent.call(rpc_id=5)).status == 202
        cause = scene.rows("method = 'http/GET'")[0]
    elif carrier == "get":
        agent = scene.opened(who)
        script = scene.play.stream("http/GET")
        events = agent.open()
        [cause] = scene.rows()
    else:
        agent = scene.opened(who)
        script = scene.play.stream("tools/call")
        events = agent.open(agent.call(rpc_id=5))
        [cause] = scene.rows()
    assert events.head.status == 200
    return Talk(scene, agent, script, events, cause, carrier == "array")


def question(method: str = "elicitation/create", params: Any = FORM, rpc_id: Any = "q1") -> dict[str, Any]:
    return request(method, params, rpc_id)


def answer_to(rpc_id: Any, said: Any = ACCEPT) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": rpc_id, "result": said}


def refusal_of(rpc_id: Any, seen: h.Seen) -> None:
    """The server got an error of ours in the place of an answer, and learnt of no rule."""
    message = seen.message
    assert set(message) == {"jsonrpc", "id", "error"}
    assert (type(message["id"]), message["id"]) == (type(rpc_id), rpc_id)
    assert message["error"]["code"] == DENIED
    assert set(message["error"]) == {"code", "message"}
    assert seen.header("authorization") == f"Bearer {h.SECRET}"


def asked_row(scene: Scene, cause: dict[str, Any]) -> dict[str, Any]:
    """The one row of what the server asked, as it is now; it belongs to ``cause`` and its caller."""
    [row] = scene.rows("direction = 'server'")
    for name in ("principal", "credential_id", "server", "session", "protocol", "upstream"):
        assert row[name] == cause[name], name
    assert (row["caused_by"], row["kind"], row["injected"]) == (cause["event_id"], "method", None)
    return row


def needs(**inputs: Any) -> dict[str, Any]:
    """A result that asks; ``inputs`` are requests by their key."""
    return {"resultType": "input_required", "inputRequests": inputs}


def wish(method: str = "elicitation/create", **params: Any) -> dict[str, Any]:
    return {"method": method, "params": params or FORM}
