"""Fuzz deep: ``python -m tests.fuzz [TARGET] [--minutes N]``; a finding is printed and written down."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import sys
import time
import traceback
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.fuzz.targets import TARGETS, Target

OUT = Path("out/fuzz")
SEEDS = Path("tests/fuzz/seeds")
ROUND = 500


def fuzz(target: Target, seconds: float) -> bool:
    """Rounds of new examples until the time is over or one fails; True if none did."""
    end = time.monotonic() + seconds
    last = b""

    def one(data: bytes) -> None:
        nonlocal last
        if target.is_open(data) is None:
            last = data
            target.check(data)

    for number in itertools.count():
        deep = settings(
            max_examples=ROUND,
            deadline=None,
            database=DirectoryBasedExampleDatabase(OUT / "database" / target.name),
            phases=[Phase.reuse, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            print_blob=False,
            report_multiple_bugs=False,
        )
        run = seed(time.time_ns() + number)(deep(given(target.cases)(one)))
        try:
            run()
        except Exception:
            traceback.print_exc()
            told(target, smallest(target, last))
            return False
        if time.monotonic() > end:
            print(f"fuzz: {target.name}: {(number + 1) * ROUND} examples, nothing found", flush=True)
            return True
    return True


def fault(target: Target, data: bytes) -> tuple[str, int] | None:
    """Where a case breaks a law: the kind of exception and the line of the check; None if it does not."""
    try:
        if target.is_open(data) is None:
            target.check(data)
    except Exception as error:
        lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if "fuzz_" in at.filename]
        return type(error).__name__, lines[-1] or 0
    return None


def smallest(target: Target, data: bytes) -> bytes:
    """The case with all taken out that it can do without: halves, quarters, down to single bytes."""
    wanted = fault(target, data)
    size = len(data) // 2
    while wanted is not None and size:
        at = 0
        while at < len(data):
            less = data[:at] + data[at + size :]
            if fault(target, less) == wanted:
                data = less
            else:
                at += size
        size //= 2
    return data


def told(target: Target, data: bytes) -> None:
    """Say what was found, and how it is kept."""
    name = hashlib.sha256(data).hexdigest()[:12]
    found = OUT / "findings" / f"{target.name}-{name}"
    found.parent.mkdir(parents=True, exist_ok=True)
    found.write_bytes(data)
    print(f"\nfuzz: {target.name}: {data!r}\nIt is in {found}. Once it is mended, or to keep it until then:")
    print(f"    cp {found} {SEEDS / target.name}/WHAT-IT-SHOWS         (must pass)")
    print(
        f"    cp {found} {SEEDS / target.name}/WHAT-IT-SHOWS.open    (must fail, until it is mended)",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", choices=[*TARGETS], help="all of them if left out")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target (default: 1)")
    chosen = parser.parse_args()
    targets = [TARGETS[chosen.target]] if chosen.target else list(TARGETS.values())
    held = [fuzz(target, chosen.minutes * 60) for target in targets]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
