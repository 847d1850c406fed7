"""The count of calls under way comes down however a call ends: answered, refused, left, or by a fault."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from callerid.proxy import addon as addon_module
from callerid.proxy import early, reply
from callerid.proxy.inflight import InFlight, Sort
from tests.e2e import harness
from tests.hooks.scene import Scene, playing

OK = [("content-type", "application/json")]
STREAM = [("content-type", "text/event-stream")]


def leave(scene: Scene, raw: bytes) -> None:
    """Send a request and go as soon as it has arrived."""
    place, before = f"localhost:{scene.upstream.port}", len(scene.upstream.seen)
    client = scene.proxy.tunnel(place, headers={"Proxy-Authorization": harness.basic("a", scene.token)})
    client.send(raw)
    harness.wait_for(lambda: len(scene.upstream.seen) > before, "it arrived")
    client.close()


def ask(scene: Scene, name: str = "read_thing") -> None:
    with suppress(AssertionError):
        scene.ask(harness.tool(name, {"x": 1}))


def malformed(scene: Scene) -> None:
    assert scene.ask(b"{") is not None


def listening(scene: Scene) -> None:
    place = f"localhost:{scene.upstream.port}"
    leave(scene, f"GET /mcp HTTP/1.1\r\nHost: {place}\r\nAccept: text/event-stream\r\n\r\n".encode())


def calling(scene: Scene) -> None:
    leave(scene, harness.post(f"localhost:{scene.upstream.port}", "/mcp", harness.tool("read_thing")))


def answering(scene: Scene, reply: Callable[[harness.Seen], harness.Reply]) -> Callable[[Scene], None]:
    def play(_: Scene) -> None:
        scene.upstream.answer = reply
        ask(scene)
        scene.upstream.answer = harness.call_tool

    return play


def endings(scene: Scene, over: threading.Event) -> dict[str, Callable[[Scene], None]]:
    """Every way in which a call may end."""

    def slow(seen: harness.Seen) -> harness.Reply:
        over.wait(harness.DEADLINE)
        return harness.call_tool(seen)

    def left(play: Callable[[Scene], None]) -> Callable[[Scene], None]:
        def leaving(_: Scene) -> None:
            scene.upstream.answer = slow
            play(scene)
            scene.upstream.answer = harness.call_tool

        return leaving

    event = b'data: {"jsonrpc":"2.0","id":1,"result":{}}\n\n'
    return {
        "answered": ask,
        "refused by a rule": lambda s: ask(s, "drop_thing"),
        "refused by its form": malformed,
        "the caller leaves": left(calling),
        "the listener leaves": left(listening),
        "the server closes": answering(scene, lambda _: harness.Reply(raw=b"")),
        "the server closes in its head": answering(scene, lambda _: harness.Reply(raw=b"HTTP/1.1 200")),
        "the server is not HTTP": answering(scene, lambda _: harness.Reply(raw=b"\0\1\2\3\r\n\r\n")),
        "an interim answer": answering(scene, lambda _: harness.Reply(raw=b"HTTP/1.1 103 X\r\n\r\n")),
        "an error": answering(scene, lambda _: harness.Reply(500, OK, b"{}")),
        "a refused credential": answering(scene, lambda _: harness.Reply(401, OK, b"{}")),
        "an answer too large": answering(scene, lambda _: harness.Reply(200, OK, b"x" * (17 << 20))),
        "an event stream": answering(scene, lambda _: harness.Reply(200, STREAM, chunks=iter([event]))),
        "a stream cut short": answering(
            scene, lambda _: harness.Reply(200, STREAM, chunks=iter([event]), close=True)
        ),
    }


async def settled(in_flight: InFlight) -> None:
    async with asyncio.timeout(harness.DEADLINE):
        while not in_flight.idle():  # noqa: ASYNC110  (there is no event for nothing)
            await asyncio.sleep(0.01)


async def test_after_any_sequence_of_endings_no_place_is_taken(tmp_path: Path) -> None:
    async with playing(tmp_path) as scene:
        over = threading.Event()
        plays = endings(scene, over)
        names = list(plays) * 2
        random.Random(4).shuffle(names)
        for name in names:
            await asyncio.to_thread(plays[name], scene)
        over.set()
        await settled(scene.addon.runtime.in_flight)
        healthy = await asyncio.to_thread(scene.ask, harness.tool("read_thing"))
        assert healthy is not None
        assert healthy.text == "ran read_thing"


FAULTS: list[tuple[Any, str]] = [
    (addon_module.translate, "let_go"),
    (reply, "open_answer"),
    (reply, "close_answer"),
    (reply, "finish"),
    (reply, "take_back"),
    (early.EarlyRefusals, "refused_early"),
]


@pytest.mark.parametrize(("where", "name"), FAULTS, ids=[name for _, name in FAULTS])
async def test_a_fault_in_a_hook_takes_no_place_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str
) -> None:
    async with playing(tmp_path) as scene:

        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError(name)

        with monkeypatch.context() as patch:
            patch.setattr(where, name, fail)
            await asyncio.to_thread(ask, scene)
            scene.upstream.answer = lambda _: harness.Reply(raw=b"")
            await asyncio.to_thread(ask, scene)
            scene.upstream.answer = harness.call_tool
        await settled(scene.addon.runtime.in_flight)


async def test_places_are_taken_while_calls_wait_and_are_not_while_they_are_refused(tmp_path: Path) -> None:
    async with playing(tmp_path) as scene:
        over, most = threading.Event(), 0
        in_flight = scene.addon.runtime.in_flight
        before = in_flight.enter

        def enter(*arguments: Any) -> None:
            nonlocal most
            before(*arguments)
            most = max(most, in_flight.count("user:alice@corp.example", Sort.REQUEST))

        in_flight.enter = enter  # type: ignore[method-assign]
        scene.upstream.answer = lambda seen: (over.wait(harness.DEADLINE), harness.call_tool(seen))[1]
        calls = [asyncio.create_task(asyncio.to_thread(ask, scene)) for _ in range(4)]
        denied = asyncio.create_task(asyncio.to_thread(ask, scene, "drop_thing"))
        await denied
        async with asyncio.timeout(harness.DEADLINE):
            while len(scene.upstream.seen) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert most == 4
        over.set()
        await asyncio.gather(*calls)
        await settled(in_flight)
