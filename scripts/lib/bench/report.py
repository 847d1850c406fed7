"""Figures as lines of Markdown, and the bars that they are held against."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure, how far the same run says it may be off, and the most that it may be.

    ``noise`` is in the unit of the figure, and so is ``limit``.
    """

    name: str
    figure: float
    noise: float
    limit: float
    unit: str

    @property
    def missed(self) -> bool:
        """True if it is above the limit by more than the noise."""
        return self.figure - self.noise > self.limit

    @property
    def verdict(self) -> str:
        """``met``, ``not met``, or what cannot be told apart from the noise."""
        if self.missed:
            return "NOT MET"
        return "met" if self.figure <= self.limit else "over, within the noise"


def yes(name: str, holds: bool) -> Bar:
    """A bar that is met or not: the figure is the number of failures."""
    return Bar(name, 0 if holds else 1, 0, 0, "failures")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
    print("\n| " + " | ".join(head) + " |")
    print("|---" + "|--:" * (len(head) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


def conclude(bars: Sequence[Bar]) -> int:
    """Print every bar with its verdict. Returns the exit code: 1 if one was missed."""
    rows = [
        (bar.name, f"{bar.figure:.4g}", f"{bar.noise:.2g}", f"{bar.limit:g} {bar.unit}", bar.verdict)
        for bar in bars
    ]
    table(("bar", "measured", "noise", "at most", "verdict"), rows)
    return 1 if any(bar.missed for bar in bars) else 0


_STARTED = time.monotonic()


def step(what: str) -> None:
    """Say on stderr what is being measured."""
    print(f"{time.monotonic() - _STARTED:6.1f} s  {what}", file=sys.stderr)


def share(values: Sequence[float], part: float) -> float:
    """The value below which this part of all values lies."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


def machine() -> str:
    """The day and the machine in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    today = datetime.now(UTC).date()
    python = platform.python_version()
    return f"{today}, {platform.system()}, {cores} cores ({model}), CPython {python}, load {load}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
