"""Law 3, by exhaustion: the k-th internal call raises, for every k, and no call gets through for it.

Every Python function of ours that runs on the event loop for one request is counted; then the scene is
played again with an exception at the first, the second, the third of them, until none is left. The same
is done for the writer's thread.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from callerid.proxy import addon as addon_module
from tests.e2e import harness
from tests.hooks.scene import Scene, playing

OURS = str(Path(addon_module.__file__).parents[1])
TOOL = 3
BACKGROUND = frozenset(
    {
        "_poll",
        "watch",
        "cut_streams",
        "judge_again",
        "stamp_of",
        "lapsed",
        "_flush",
        "flush_touches",
        "_look",
        "_tell_health",
    }
)
"""What runs twice a second beside the requests."""
ENGINE = ("/proxy/master.py",)
MADE = ("/proxy/engine.py", "/proxy/framing.py", "/proxy/bodies.py")
GUARDS = frozenset({"Exchange._handle_event", "_Bounded._handle_event", "_receive_hello"})
START = sys.monitoring.events.PY_START


class Fault(Exception):
    """What is raised inside."""


type Aim = tuple[str, int]
"""A function of ours, and which of its starts fails."""


class Injector:
    """Counts the starts of our functions on one kind of thread, and raises at the one aimed at."""

    def __init__(self, *, loop_thread: int, on_loop: bool) -> None:
        self._loop_thread = loop_thread
        self._on_loop = on_loop
        self.starts: Counter[str] = Counter()
        self.aim: Aim = ("", 0)
        self.armed = False
        self.hit: set[str] = set()

    def start(self, code: CodeType, offset: int) -> Any:
        if not code.co_filename.startswith(OURS):
            return sys.monitoring.DISABLE
        if not self.armed or (threading.get_ident() == self._loop_thread) is not self._on_loop:
            return None
        if code.co_name in BACKGROUND or code.co_name.startswith("<"):
            return None
        if code.co_filename.endswith(ENGINE):
            return None  # mitmproxy's own places: it stops the connection there, outside of any hook
        if code.co_qualname in GUARDS:
            return None  # the guards themselves; what they guard is aimed at
        if code.co_filename.endswith(MADE) and code.co_name == "__init__":
            return None  # mitmproxy makes them, before there is anything to guard or to let through
        place = f"{code.co_filename.removeprefix(OURS)}:{code.co_qualname}"
        self.starts[place] += 1
        if (place, self.starts[place]) == self.aim:
            self.hit.add(place)
            raise Fault(place)
        return None

    @contextmanager
    def aiming(self, aim: Aim) -> Iterator[None]:
        self.starts.clear()
        self.aim, self.armed = aim, True
        try:
            yield
        finally:
            self.armed = False

    def aims(self) -> list[Aim]:
        """The first and the last start of every function that the last play went through."""
        return sorted({(place, n) for place, count in self.starts.items() for n in (1, count)})


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
        told = [seen.header("x-callerid-assertion") for seen in scene.upstream.seen]
        assert not scene.told or all(told), f"{where}: a call arrived without its assertion"
        assert not deniable, f"{where}: a call that the rules deny arrived"
        assert allowed, f"{where}: a call arrived without its row"
    if answer is not None:
        assert harness.SECRET.encode() not in answer.body, f"{where}: the secret came back"
        assert harness.SECRET not in str(answer.headers), f"{where}: the secret came back"
        ran = answer.status == 200 and b"ran " in answer.body
        assert ran is False or arrived(scene, marker)


async def play(scene: Scene, injector: Injector, aim: Aim) -> None:
    """One allowed and one denied call, each with a fault where it is aimed."""
    for deniable, name in ((False, "read_thing"), (True, "drop_thing")):
        marker = f"m-{aim[0]}-{aim[1]}-{name}"
        before = len(scene.proxy.rows())
        with injector.aiming(aim):
            answer = await asyncio.to_thread(scene.ask, harness.tool(name, {"marker": marker}))
        check(scene, f"{aim}", marker, answer, deniable=deniable)
        if answer is not None and not (answer.status == 200 and b"ran " in answer.body):
            assert len(scene.proxy.rows()) > before, f"{aim}: refused without a row: {name} {answer}"


async def all_aims(scene: Scene, injector: Injector) -> list[Aim]:
    aims: set[Aim] = set()
    for name in ("read_thing", "drop_thing"):
        with injector.aiming(("", 0)):
            await asyncio.to_thread(scene.ask, harness.tool(name, {"marker": "dry"}))
        aims |= set(injector.aims())
    return sorted(aims)


@pytest.mark.timeout(600)
async def test_a_fault_at_any_internal_call_on_the_loop_never_lets_a_call_through(tmp_path: Path) -> None:
    injector = Injector(loop_thread=threading.get_ident(), on_loop=True)
    async with playing(tmp_path, assertion=True) as scene:
        with monitoring(injector):
            aims = await all_aims(scene, injector)
            for aim in aims:
                await play(scene, injector, aim)
        assert len(aims) > 100, "the injector saw too little of the path"
        assert {
            "/proxy/walk.py:walk",
            "/proxy/runtime.py:Runtime.record",
            "/identity/jwt.py:sign",
        } <= injector.hit
        healthy = await asyncio.to_thread(scene.ask, harness.tool("read_thing", {"marker": "after"}))
        assert healthy is not None
        assert healthy.text == "ran read_thing", "the proxy did not recover"


@pytest.mark.timeout(600)
async def test_a_fault_in_the_writer_never_lets_a_call_through(tmp_path: Path) -> None:
    injector = Injector(loop_thread=threading.get_ident(), on_loop=False)
    async with playing(tmp_path) as scene:
        with monitoring(injector):
            aims = await all_aims(scene, injector)
            for aim in aims:
                marker = f"w-{aim[0]}-{aim[1]}"
                with injector.aiming(aim):
                    answer = await asyncio.to_thread(
                        scene.ask, harness.tool("read_thing", {"marker": marker})
                    )
                check(scene, f"{aim}", marker, answer, deniable=False)
                again = await asyncio.to_thread(
                    scene.ask, harness.tool("read_thing", {"marker": marker + "b"})
                )
                assert again is not None
                assert again.text == "ran read_thing", f"{aim}: the writer did not recover"
        assert len(aims) > 3, "the injector saw too little of the writer"
