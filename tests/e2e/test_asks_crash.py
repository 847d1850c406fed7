"""Killed, reset, out of space while a server asks: what a client was asked has its row.

Law 1 for the other direction: the row is durable before the question is given out.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.e2e import harness as h
from tests.e2e.asking import PROGRESS, question, talk
from tests.e2e.conversation import Events, Scene, Script, event, open_scene
from tests.e2e.warm import Warm


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Scene]:
    with open_scene(tmp_path_factory.mktemp("crash"), pki, warm) as scene:
        yield scene


@pytest.fixture
def scene(made: Scene) -> Iterator[Scene]:
    made.begin()
    yield made
    made.clear()


FLOOD, ENOUGH = 150, 40


@dataclass
class Flood:
    """Streams on which a server asks without end, and the ids of the questions that arrived."""

    scene: Scene
    arrived: list[str]
    enough: threading.Event
    scripts: list[Script]
    threads: list[threading.Thread]

    def read(self, events: Events) -> None:
        number = 0
        try:
            while True:
                rpc_id = str(events.message()["id"])
                assert rpc_id.endswith(f"-{number}")  # in the order in which they were asked
                number += 1
                self.arrived.append(rpc_id)
                if len(self.arrived) == ENOUGH:
                    self.enough.set()
        except (OSError, StopIteration):  # ConnectionError is one
            return

    def join(self) -> None:
        for thread in self.threads:
            thread.join(h.DEADLINE)
            assert not thread.is_alive()


def flood(scene: Scene) -> Flood:
    """Four calls under way, with questions arriving on all of them."""
    made = Flood(scene, [], threading.Event(), [], [])
    for number in range(4):
        agent = scene.agent().initialize()
        script = scene.play.stream("tools/call")
        events = agent.open(agent.call(rpc_id=number))
        script.push(*(event(question(rpc_id=f"{number}-{n}")) for n in range(FLOOD)))
        made.scripts.append(script)
        made.threads.append(threading.Thread(target=made.read, args=(events,), daemon=True))
    for thread in made.threads:
        thread.start()
    assert made.enough.wait(h.DEADLINE)
    return made


def recorded(scene: Scene) -> set[str]:
    """The ids of the questions that have an ALLOW row."""
    rows = scene.rows("direction = 'server' and verdict = 'allow'")
    calls = {row["event_id"] for row in scene.rows("method = 'tools/call' and verdict = 'allow'")}
    assert {row["caused_by"] for row in rows} <= calls
    return {json.loads(row["rpc_id"]) for row in rows}


def test_no_question_that_arrived_is_without_its_row_when_the_proxy_is_killed(scene: Scene) -> None:
    under_way = flood(scene)
    assert scene.proxy.process is not None
    os.kill(scene.proxy.process.pid, signal.SIGKILL)
    under_way.join()
    assert len(under_way.arrived) >= ENOUGH
    assert set(under_way.arrived) <= recorded(scene)
    assert len(scene.rows("method = 'tools/call' and verdict = 'allow'")) == 4
    assert scene.query("pragma integrity_check") == [("ok",)]
    scene.stop(signal.SIGKILL)
    scene.proxy.start()
    before = len(scene.seen)
    agent = scene.agent().initialize()
    assert agent.send(agent.call()).text == "ran read_thing"
    assert len(scene.seen) == before + 2


def test_no_question_that_arrived_is_without_its_row_when_the_server_resets(scene: Scene) -> None:
    under_way = flood(scene)
    for script in under_way.scripts:
        script.reset()
    under_way.join()
    assert set(under_way.arrived) <= recorded(scene)
    calls = scene.settled(4, "method = 'tools/call'")
    assert {row["outcome"] for row in calls} == {"upstream_gone"}


def test_a_question_whose_row_cannot_be_written_is_not_asked(scene: Scene) -> None:
    on = talk(scene, "post")
    pushed = on.push(PROGRESS)
    assert on.events.next() == pushed
    with full(scene):
        on.push(question())
        try:
            heard = on.events.rest()
        except ConnectionError:
            heard = b""
    assert b"elicitation" not in heard
    h.wait_for(lambda: scene.agent().initialize().session, "calls served again")
    h.wait_for(lambda: scene.rows("method = 'tools/call'")[0]["outcome"] != "unknown", "the call's outcome")
    assert scene.rows("method = 'tools/call'")[0]["outcome"] == "response_refused"
    assert scene.rows("direction = 'server' and outcome in ('ok', 'input_required')") == []


@contextmanager
def full(scene: Scene) -> Iterator[None]:
    """No file of the proxy can grow any more, as on a full disk."""
    assert scene.proxy.process is not None
    pid = scene.proxy.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
