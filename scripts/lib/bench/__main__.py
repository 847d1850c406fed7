"""``python -m bench [calls|streams|tokens]``: measure, print, exit 1 if a bar is missed beyond the noise."""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import sys

import bench
from bench import calls, origin, report, standing, streams, tokens


def main() -> int:
    gc.disable()  # a pause here, or in the upstream, would be taken for one of the proxy
    """Measure what was asked for. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=bench.__doc__)
    parser.add_argument("what", nargs="?", choices=("calls", "streams", "tokens"), help="leave out for all")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of calls (default 5)")
    parser.add_argument("--calls", type=int, default=1500, help="calls of a round (default 1500)")
    parser.add_argument("--streams", type=int, default=1000, help="streams held open (default 1000)")
    parser.add_argument("--upstream", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if min(options.rounds, options.calls) < 1 or options.streams < standing.STEPS:
        parser.error(f"at least one round of one call, and {standing.STEPS} streams")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.upstream:
        asyncio.run(origin.serve(options.upstream))
        return 0
    bars: list[report.Bar] = []
    if options.what in (None, "calls"):
        bars += calls.measure(options.rounds, options.calls)
    if options.what in (None, "streams"):
        bars += streams.measure(options.streams)
    if options.what in (None, "tokens"):
        bars += tokens.measure(options.rounds, options.calls)
    return report.conclude(bars)


if __name__ == "__main__":
    sys.exit(main())
