"""Calls that are answered at once: CPU and delay of each way, and the first event of a stream."""

from __future__ import annotations

import asyncio
import statistics
import time

from bench.report import Bar, machine, share, step, table
from bench.scene import Scene, Way, connect, cpu_seconds, request, scene
from tests.e2e import harness

CONNECTIONS = 16
FIRST_EVENTS = 30
SMALLEST = 0.08
"""A ratio that is off by less cannot be told from noise, however alike the rounds are (measured)."""

ARGUMENTS = {
    "sql": "select * from orders where region = 'EMEA' and total > 100",
    "limit": 50,
    "filters": [{"field": f"column_{i}", "op": "eq", "value": f"value {i}"} for i in range(12)],
}


def call(number: int, **arguments: object) -> bytes:
    """A call of the tool, with ``arguments`` besides the usual ones."""
    return harness.tool("query", {**ARGUMENTS, **arguments}, number)


async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytes) -> None:
    """Send a call and read its answer, which must be the tool's."""
    writer.write(raw)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    mark = head.find(b"content-length:")
    body = await reader.readexactly(int(head[mark + 15 :].split(b"\r\n", 1)[0]))
    if b'"isError"' not in body or b'"isError":true' in body.replace(b" ", b""):
        raise AssertionError(f"not the expected answer: {body[:300]!r}")


async def load(way: Way, upstream: int, calls: int, connections: int) -> None:
    """``calls`` calls over ``connections`` keep-alive connections, closed loop."""
    pairs = [await connect(way, upstream) for _ in range(connections)]
    for reader, writer in pairs:
        await one(reader, writer, request(upstream, call(0)))
    numbers = iter(range(1, calls + 1))

    async def worker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in numbers:
            raw = request(upstream, call(number))
            start = time.perf_counter()
            await one(reader, writer, raw)
            way.latency.append(time.perf_counter() - start)

    before = cpu_seconds(way.process)
    await asyncio.gather(*(worker(*pair) for pair in pairs))
    way.cpu.append((cpu_seconds(way.process) - before) / calls)
    for _, writer in pairs:
        writer.close()


async def first_events(way: Way, upstream: int, calls: int) -> None:
    """Seconds from the request to the first event, on a warm connection."""
    reader, writer = await connect(way, upstream)
    await one(reader, writer, request(upstream, call(0)))
    for number in range(calls):
        start = time.perf_counter()
        writer.write(request(upstream, call(number, do="first")))
        await reader.readuntil(b"notifications/progress")
        way.first_event.append(time.perf_counter() - start)
        await reader.readuntil(b"0\r\n\r\n")
    writer.close()


async def _rounds(made: Scene, rounds: int, calls: int) -> None:
    for number in range(rounds):
        step(f"calls: round {number + 1} of {rounds}")
        for way in made.ways:
            await load(way, made.upstream, calls, CONNECTIONS)
    for way in (made.direct, made.ours):
        await first_events(way, made.upstream, FIRST_EVENTS)


def measure(rounds: int, calls: int) -> list[Bar]:
    """Print the table of calls; returns their bars."""
    with scene(streaming=False) as made:
        asyncio.run(_rounds(made, rounds, calls))
    print(f"\n{machine()}")
    base = statistics.median(made.bare.cpu)
    rows = []
    for way in made.ways:
        cpu = statistics.median(way.cpu)
        each = " ".join(f"{one * 1e6:.0f}" for one in way.cpu)
        spent = (f"{cpu * 1e6:.0f}", each, f"{cpu / base:.2f}") if way.process else ("-", "-", "-")
        delay = (f"{share(way.latency, part) * 1000:.2f}" for part in (0.5, 0.99))
        event = f"{share(way.first_event, 0.5) * 1000:.2f}" if way.first_event else "-"
        rows.append((way.name, *spent, *delay, event))
    head = ("way", "CPU per call (µs)", "of each round", "ratio", "p50 ms", "p99 ms", "first event p50 ms")
    table(head, rows)
    ratios = [ours / bare for ours, bare in zip(made.ours.cpu, made.bare.cpu, strict=True)]
    spread = max((max(ratios) - min(ratios)) / 2, SMALLEST)
    late, soon = made.ours.first_event, made.direct.first_event
    added = [(share(late, part) - share(soon, part)) * 1000 for part in (0.5, 0.9)]
    return [
        Bar("CPU of a call, callerid / mitmdump", statistics.median(made.ours.cpu) / base, spread, 1.0, ""),
        Bar("first event of a stream, later than direct", added[0], abs(added[1] - added[0]), 10, "ms"),
    ]
