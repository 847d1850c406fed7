"""Nothing of a call is kept when it is over, and a stream is judged again when the rules change."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from pathlib import Path

from mitmproxy import http

from tests.e2e import harness
from tests.hooks.scene import Scene, playing


async def test_a_call_that_is_over_leaves_nothing_behind(tmp_path: Path) -> None:
    async with playing(tmp_path) as scene:
        for number in range(10):
            await asyncio.to_thread(scene.ask, harness.tool("read_thing", {"number": number}))
            await asyncio.to_thread(scene.ask, harness.tool("drop_thing", {"number": number}))
        await asyncio.to_thread(scene.proxy.await_rows, 10, "outcome = 'ok'")
        gc.collect()
        assert len(scene.addon.memory._calls) == 0
        flows = [thing for thing in gc.get_objects() if isinstance(thing, http.HTTPFlow)]
        assert not [flow for flow in flows if flow.request.method == "POST"]


async def test_a_stream_is_cut_when_the_rules_withdraw_the_grant(tmp_path: Path) -> None:
    async with playing(tmp_path) as scene:
        over = threading.Event()
        client = await asyncio.to_thread(_listening, scene, over)
        policy = scene.proxy.rules / "policy.yaml"
        policy.write_text(policy.read_text().replace('who: ["group:engineering"]', 'who: ["group:interns"]'))
        [row] = await asyncio.to_thread(scene.proxy.await_rows, 1, "outcome = 'cut'")
        assert (row["method"], row["principal"]) == ("http/GET", "user:alice@corp.example")
        over.set()
        await asyncio.to_thread(client.close)


def _listening(scene: Scene, over: threading.Event) -> harness.RawClient:
    scene.upstream.answer = lambda _: harness.Reply(
        200, [("content-type", "text/event-stream")], chunks=_endless(over)
    )
    place = f"localhost:{scene.upstream.port}"
    client = scene.proxy.tunnel(place, headers={"Proxy-Authorization": harness.basic("a", scene.token)})
    client.send(f"GET /mcp HTTP/1.1\r\nHost: {place}\r\nAccept: text/event-stream\r\n\r\n".encode())
    assert client.read_head().status == 200
    assert next(client.chunks()) == b": hello\n\n"
    return client


def _endless(over: threading.Event) -> Iterator[bytes]:
    yield b": hello\n\n"
    over.wait(harness.DEADLINE)
