"""Law 3, by exhaustion: the k-th internal call raises, for every k, and no call gets through for it.

Every Python function of ours that runs on the event loop for one request is counted; then the scene is
played again with an exception at the first, the second, the third of them, until none is left. The same
is done for the writer's thread.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

from callerid.proxy import addon as addon_module
from tests.e2e import harness
from tests.hooks.scene import Scene, playing

OURS = str(Path(addon_module.__file__).parents[1])
TOOL = 3
START = sys.monitoring.events.PY_START


class Fault(Exception):
    """What is raised inside."""


class Injector:
    """Counts the starts of our functions on one kind of thread and raises at the ``at``-th."""

    def __init__(self, *, loop_thread: int, on_loop: bool) -> None:
        self._loop_thread = loop_thread
        self._on_loop = on_loop
        self.count = 0
        self.at = 0
        self.armed = False
        self.where = ""
        self.places: list[str] = []
        self.hit: set[str] = set()

    def start(self, code: CodeType, offset: int) -> Any:
        if not code.co_filename.startswith(OURS):
            return sys.monitoring.DISABLE
        if not self.armed or (threading.get_ident() == self._loop_thread) is not self._on_loop:
            return None
        if code.co_name == "_poll" or code.co_name.startswith("<"):
            return None
        if code.co_filename.endswith("/proxy/master.py"):
            return None  # mitmproxy's own place: a fault there ends the connection before any hook of ours
        self.count += 1
        place = f"{code.co_filename.removeprefix(OURS)}:{code.co_qualname}"
        self.places.append(place)
        if self.count == self.at:
            self.where = place
            self.hit.add(place)
            raise Fault(self.where)
        return None

    @contextmanager
    def at_call(self, number: int) -> Iterator[None]:
        self.count, self.at, self.where, self.armed = 0, number, "", True
        self.places.clear()
        try:
            yield
        finally:
            self.armed = False


@contextmanager
def monitoring(injector: Injector) -> Iterator[None]:
    sys.monitoring.use_tool_id(TOOL, "callerid-faults")
    sys.monitoring.register_callback(TOOL, START, injector.start)
    sys.monitoring.set_events(TOOL, START)
    try:
        yield
    finally:
        sys.monitoring.set_events(TOOL, 0)
        sys.monitoring.register_callback(TOOL, START, None)
        sys.monitoring.free_tool_id(TOOL)


def arrived(scene: Scene, marker: str) -> bool:
    return any(marker.encode() in seen.raw for seen in scene.upstream.seen)


def check(scene: Scene, where: str, marker: str, answer: harness.Answer | None, *, deniable: bool) -> None:
    """The law for one request: what arrived has its ALLOW row, what was refused has a row too."""
    rows = scene.proxy.rows("arguments like ?", f"%{marker}%")
    allowed = [row for row in rows if row["verdict"] == "allow"]
    if arrived(scene, marker):
        assert not deniable, f"{where}: a call that the rules deny arrived"
        assert allowed, f"{where}: a call arrived without its row"
    if answer is not None:
        assert harness.SECRET.encode() not in answer.body, f"{where}: the secret came back"
        assert harness.SECRET not in str(answer.headers), f"{where}: the secret came back"
        ran = answer.status == 200 and b"ran " in answer.body
        assert ran is False or arrived(scene, marker)


async def play(scene: Scene, injector: Injector, number: int) -> int:
    """One allowed and one denied call, each with a fault at the ``number``-th internal call."""
    reached = 0
    for deniable, name in ((False, "read_thing"), (True, "drop_thing")):
        marker = f"m-{number}-{name}"
        before = len(scene.proxy.rows())
        with injector.at_call(number):
            answer = await asyncio.to_thread(scene.ask, harness.tool(name, {"marker": marker}))
        reached = max(reached, injector.count)
        check(scene, injector.where, marker, answer, deniable=deniable)
        if answer is not None and not (answer.status == 200 and b"ran " in answer.body):
            assert len(scene.proxy.rows()) > before, (
                f"{number} {injector.where}: refused without a row: {name} {answer}"
            )
    return reached


def chosen(places: list[str]) -> list[int]:
    """The calls to fail at: the first and the last of each place, in order."""
    first = {place: number for number, place in reversed(list(enumerate(places, 1)))}
    last = {place: number for number, place in enumerate(places, 1)}
    return sorted({*first.values(), *last.values()})


async def test_a_fault_at_any_internal_call_on_the_loop_never_lets_a_call_through(tmp_path: Path) -> None:
    injector = Injector(loop_thread=threading.get_ident(), on_loop=True)
    async with playing(tmp_path) as scene:
        with monitoring(injector):
            await play(scene, injector, 0)
            numbers = chosen(injector.places)
            for number in numbers:
                await play(scene, injector, number)
        assert len(numbers) > 100, "the injector saw too little of the path"
        assert {"/proxy/walk.py:walk", "/proxy/runtime.py:Runtime.record"} <= set(injector.hit)
        healthy = await asyncio.to_thread(scene.ask, harness.tool("read_thing", {"marker": "after"}))
        assert healthy is not None
        assert healthy.text == "ran read_thing", "the proxy did not recover"


async def test_a_fault_in_the_writer_never_lets_a_call_through(tmp_path: Path) -> None:
    injector = Injector(loop_thread=threading.get_ident(), on_loop=False)
    async with playing(tmp_path) as scene:
        with monitoring(injector):
            reached = await play(scene, injector, 0)
            for number in range(1, reached + 1):
                marker = f"w-{number}"
                with injector.at_call(number):
                    answer = await asyncio.to_thread(
                        scene.ask, harness.tool("read_thing", {"marker": marker})
                    )
                check(scene, injector.where, marker, answer, deniable=False)
                again = await asyncio.to_thread(
                    scene.ask, harness.tool("read_thing", {"marker": marker + "b"})
                )
                assert again is not None
                assert again.text == "ran read_thing", f"{injector.where}: the writer did not recover"
        assert reached > 3, "the injector saw too little of the writer"
        healthy = await asyncio.to_thread(scene.ask, harness.tool("read_thing", {"marker": "after"}))
        assert healthy is not None
        assert healthy.text == "ran read_thing", "the writer did not recover"
