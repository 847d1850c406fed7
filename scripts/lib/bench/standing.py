"""Streams that stand open and say nothing: what they hold, what they cost, and how they are cut."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench import wire
from bench.passing import Delays, delays
from bench.report import Bar, step, table
from bench.scene import PEOPLE, Memory, Pair, Scene, Way, close, connect, cpu_seconds, evidence, memory
from tests.e2e import harness

WARM = 100
"""Streams that are open before the count begins, so that what is made once is not counted."""

STEPS = 4
AT_ONCE = 8
SETTLE = 1.0
LAST_LOOK = 32.0
"""Seconds after which callerid has looked at every connection whether it is in time: once, not idly."""

JUDGED = 5
TURN = 0.7
"""Seconds between revocations: more than callerid takes to look for them."""

FAST_EVENTS = 40
FAST_EVERY = 0.0125
IDLE_SECONDS = 10.0
WINDOWS = 10
MOST_KIB = 200
MOST_IDLE = 1.0
"""Milliseconds of CPU in a second that all silent streams together may cost: a thousandth of a core."""

CUT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Idle:
    """Milliseconds of CPU per second, in each window."""

    windows: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.windows)

    @property
    def noise(self) -> float:
        """Half of the range of the windows, without the lowest and the highest."""
        kept = sorted(self.windows)[1:-1]
        return (kept[-1] - kept[0]) / 2


async def open_streams(ways: Sequence[Way], upstream: int, count: int) -> list[Pair]:
    """Open ``count`` of them on these ways in turn, and hear the first event of each."""
    get = f"GET /mcp HTTP/1.1\r\nHost: localhost:{upstream}\r\nAccept: text/event-stream\r\n\r\n".encode()
    pairs: list[Pair] = []
    left = iter(range(count))

    async def worker() -> None:
        for number in left:
            reader, writer = pair = await connect(ways[number % len(ways)], upstream)
            writer.write(get)
            await wire.head(reader)
            await wire.chunk(reader)
            pairs.append(pair)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return pairs


async def idle(ways: Sequence[Way]) -> list[Idle]:
    """What each process uses while nothing moves."""
    windows: list[list[float]] = [[] for _ in ways]
    span = IDLE_SECONDS / WINDOWS
    for _ in range(WINDOWS):
        before = [cpu_seconds(way.process) for way in ways]
        await asyncio.sleep(span)
        for kept, way, used in zip(windows, ways, before, strict=True):
            kept.append((cpu_seconds(way.process) - used) / span * 1000)
    return [Idle(tuple(kept)) for kept in windows]


class Standing:
    """The measurement: ``count`` streams through each proxy, opened in turns."""

    def __init__(self, made: Scene, count: int) -> None:
        self.made = made
        self.count = count
        self.tokens = [harness.mint(made.proxy, name) for name in PEOPLE]
        self.spare = [harness.mint(made.proxy, "workload:ci-docs") for _ in range(2 * JUDGED)]
        self.ways = (made.bare, made.ours)
        people = [replace(made.ours, authorization=evidence(token)) for token in self.tokens]
        self.opening: tuple[list[Way], list[Way]] = ([made.bare], people)
        self.pairs: list[list[Pair]] = [[], []]
        self.sizes: list[list[Memory]] = [[], []]
        self.cpu: list[list[float]] = [[], []]

    async def grow(self, count: int) -> None:
        """Open ``count`` more through each proxy, and note what it holds after that."""
        for place, way in enumerate(self.ways):
            before = cpu_seconds(way.process)
            self.pairs[place] += await open_streams(self.opening[place], self.made.upstream, count)
            await asyncio.sleep(SETTLE)
            self.cpu[place].append((cpu_seconds(way.process) - before) / count * 1000)
            self.sizes[place].append(memory(way.process))

    async def run(self) -> list[Bar]:
        """Measure everything, print it, and close the streams."""
        step("nothing is open: idle")
        quiet = await idle(self.ways)
        step("nothing is open: delay of events")
        alone = await delays(self.made)
        step(f"opening {WARM} streams each, to be warm")
        await self.grow(WARM)
        for number in range(STEPS):
            step(f"opening streams, part {number + 1} of {STEPS}")
            await self.grow(self.count // STEPS)
        opened = time.monotonic()
        step("all are open: delay of events")
        crowded = await delays(self.made)
        step("all are open: delay of events while they are judged again")
        stalled = await self._judging()
        await asyncio.sleep(opened + LAST_LOOK - time.monotonic())
        step("all are open: idle")
        loaded = await idle(self.ways)
        bars = self._memory() + self._idle(quiet, loaded)
        step("all are open: judged again")
        again = await self._judged_again(loaded[1])
        bars += await self._cut()
        for pairs in self.pairs:
            close(pairs)
        self._delays(alone, crowded, stalled, again)
        for name, found in (("nothing else open", alone), (f"{self._open()} open", crowded)):
            bars.append(found.bar(f"each event, later than direct, {name}"))
            bars.append(found.equal(f"streams that are not the same byte for byte, {name}"))
        return bars

    def _open(self) -> int:
        return WARM + self.count // STEPS * STEPS

    def _memory(self) -> list[Bar]:
        rows, bars = [], []
        part = self.count // STEPS
        for way, sizes, cpu in zip(self.ways, self.sizes, self.cpu, strict=True):
            first, last = sizes[0], sizes[-1]
            each = [(b.resident - a.resident) / part for a, b in itertools.pairwise(sizes)]
            resident = (last.resident - first.resident) / (part * STEPS)
            anonymous = (last.anonymous - first.anonymous) / (part * STEPS)
            total = f"{first.resident / 1024:.0f} to {last.resident / 1024:.0f}"
            steps = " ".join(f"{one:.0f}" for one in each)
            opening = statistics.median(cpu[1:])
            rows.append((way.name, f"{resident:.0f}", steps, f"{anonymous:.0f}", total, f"{opening:.1f}"))
            if way is self.ways[1]:
                noise = (max(each) - min(each)) / 2
                bars.append(Bar("memory of an open stream", max(resident, anonymous), noise, MOST_KIB, "KiB"))
        head = (
            "way",
            "RSS per stream (KiB)",
            "of each part",
            "not files",
            "RSS (MiB)",
            "CPU to open one (ms)",
        )
        table(head, rows)
        return bars

    def _idle(self, quiet: list[Idle], loaded: list[Idle]) -> list[Bar]:
        rows, bars = [], []
        for way, without, having in zip(self.ways, quiet, loaded, strict=True):
            more = having.median - without.median
            noise = without.noise + having.noise
            rows.append(
                (way.name, *(f"{value:.2f}" for value in (without.median, having.median, more, noise)))
            )
            if way is self.ways[1]:
                bars.append(Bar(f"idle CPU of {self._open()} silent streams", more, noise, MOST_IDLE, "ms/s"))
        head = ("way", "idle, none open (CPU ms per s)", f"{self._open()} open", "difference", "noise")
        table(head, rows)
        return bars

    async def _revoke_others(self) -> None:
        """Revoke what is somebody else's, again and again: each time all streams are judged again."""
        for _ in range(JUDGED):
            await asyncio.to_thread(harness.revoke, self.made.proxy, self.spare.pop())
            await asyncio.sleep(TURN)

    async def _judging(self) -> Delays:
        """How late events are meanwhile; they come in quick order, so that some fall into it."""
        rounds = int(JUDGED * TURN / (FAST_EVENTS * FAST_EVERY)) + 1
        task = asyncio.create_task(delays(self.made, rounds=rounds, events=FAST_EVENTS, every=FAST_EVERY))
        await self._revoke_others()
        return await task

    async def _judged_again(self, loaded: Idle) -> float:
        """Milliseconds of CPU for judging all streams once."""
        before, start = cpu_seconds(self.made.ours.process), time.monotonic()
        await self._revoke_others()
        used = (cpu_seconds(self.made.ours.process) - before) * 1000
        return (used - (time.monotonic() - start) * loaded.median) / JUDGED

    async def _cut(self) -> list[Bar]:
        """Revoke the tokens of all of them: how long until each client knows."""
        step("all are open: revoked")
        loop = asyncio.get_running_loop()

        async def until_cut(reader: asyncio.StreamReader) -> float:
            try:
                while await reader.read(65_536):
                    pass
            except ConnectionError:
                pass
            return loop.time()

        waiting = [asyncio.create_task(until_cut(reader)) for reader, _ in self.pairs[1]]
        await asyncio.sleep(0)
        await asyncio.to_thread(self._revoke_all)
        start = loop.time()
        done, open_still = await asyncio.wait(waiting, timeout=20)
        for task in open_still:
            task.cancel()
        took = sorted(task.result() - start for task in done)
        print(
            f"\nRevoked: {len(done)} of {len(waiting)} streams cut, from {took[0]:.2f} s to {took[-1]:.2f} s."
        )
        last = took[-1] if not open_still else 20.0
        rows = "outcome = 'cut' and detail = 'token_revoked'"
        harness.wait_for(lambda: len(self.made.proxy.rows(rows)) >= self._open(), "the rows of all streams")
        return [Bar(f"until the last of {self._open()} revoked streams is cut", last, 0, CUT_SECONDS, "s")]

    def _revoke_all(self) -> None:
        with harness.registry(self.made.proxy) as registry:
            for token in self.tokens:
                registry.revoke(harness.token_id(token), now_us=time.time_ns() // 1000, by="bench")

    def _delays(self, alone: Delays, crowded: Delays, stalled: Delays, again: float) -> None:
        rows = [
            ("nothing else open", *alone.columns()),
            (f"{self._open()} streams open", *crowded.columns()),
            ("while they are judged again", *stalled.columns()),
        ]
        head = (
            "later than direct",
            "callerid p50 ms",
            "p95 ms",
            "max ms",
            "mitmdump p50 ms",
            "max ms",
            "direct p50 ms",
            "max ms",
        )
        table(head, rows)
        each = again / self._open() * 1000
        print(f"\nSomebody else revoked: all judged again for {again:.1f} ms of CPU, {each:.0f} µs each.")
