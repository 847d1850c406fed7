"""Streams: everything that is measured of them, in one scene and below four minutes."""

from __future__ import annotations

import asyncio

from bench import passing
from bench.calls import call, one
from bench.report import Bar, machine, step
from bench.scene import Scene, connect, request, scene
from bench.standing import Standing


async def _all(made: Scene, count: int) -> list[Bar]:
    for way in made.ways:
        pair = await connect(way, made.upstream)
        for number in range(50):
            await one(*pair, request(made.upstream, call(number)))
        pair[1].close()
    # Memory first: what closed streams leave behind would be used again, and not be counted.
    bars = await Standing(made, count).run()
    bars += await passing.questions(made)
    bars += await passing.cuts(made)
    bars += await passing.bursts(made)
    return bars


def measure(count: int) -> list[Bar]:
    """Print the tables of streams; returns their bars. ``count``: streams that are held open."""
    with scene(streaming=True) as made:
        bars = asyncio.run(_all(made, count))
        step("closing")
    print(f"\n{machine()}")
    return bars
