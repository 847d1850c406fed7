"""scripts/conformance: the official suite, direct and through callerid, check by check.

Verdicts are the same if each check of each scenario came as often with the same status. What differs is run
once more, both ways, because several checks have time limits of their own; what differs twice counts, unless
docs/divergences.md explains it. Exit code 0 if nothing else differs, 1 if something does, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from tests.conformance import compare, record
from tests.conformance.lab import Lab, lab
from tests.conformance.suite import (
    ROOT,
    SIDES,
    SPECS,
    Node,
    Verdicts,
    Way,
    run_client,
    run_server,
    scenarios,
)

OUT = ROOT / "out" / "conformance"
MODES = ("forward", "reverse")
LOGIN = "auth/"


@dataclass
class Leg:
    """One side in one revision: what each way gave."""

    side: str
    spec: str
    names: list[str]
    ways: dict[str, Verdicts] = field(default_factory=dict)
    found: list[compare.Difference] = field(default_factory=list)


class Runner:
    """Runs legs in a lab. ``modes`` are those wanted; direct is always run."""

    def __init__(self, node: Node, scene: Lab, modes: tuple[str, ...], *, whole: bool) -> None:
        self._node, self._scene, self._modes, self._whole = node, scene, modes, whole

    def run(self, leg: Leg) -> None:
        routes = self._routes(leg)
        with ThreadPoolExecutor(2 if leg.side == "client" else 1) as pool:
            for name, verdicts in pool.map(lambda route: self._go(leg, *route), routes):
                leg.ways.setdefault(name, {}).update(verdicts)
        for name, verdicts in leg.ways.items():
            if name != "direct":
                leg.found += self._settle(leg, name, verdicts)

    def _routes(self, leg: Leg) -> list[tuple[Way, list[str]]]:
        """Each way with the scenarios that go along it."""
        if leg.side == "server":
            return [(way, leg.names) for way in self._scene.server.values() if self._wanted(way)]
        logins = [name for name in leg.names if name.startswith(LOGIN)]
        others = [name for name in leg.names if not name.startswith(LOGIN)]
        routes = [(way, others) for way in self._scene.client.values() if self._wanted(way)]
        routes += [(way, logins) for way in self._scene.login.values() if self._wanted(way)]
        return [(way, names) for way, names in routes if names]

    def _wanted(self, way: Way) -> bool:
        return way.name == "direct" or way.name.startswith(self._modes)

    def _go(self, leg: Leg, way: Way, names: list[str], *, again: bool = False) -> tuple[str, Verdicts]:
        out = OUT / leg.side / leg.spec / (f"{way.name}-again" if again else way.name)
        if leg.side == "server":
            chosen = None if self._whole and not again else names
            return way.name, run_server(self._node, way, leg.spec, chosen, out / names[0] if again else out)
        found: Verdicts = {}
        for name in names:
            found |= run_client(self._node, way, leg.spec, name, out / name.replace("/", "-"))
        return way.name, found

    def _settle(self, leg: Leg, name: str, verdicts: Verdicts) -> list[compare.Difference]:
        """What differs, and differs again."""
        direct = {scenario: leg.ways["direct"].get(scenario, Counter()) for scenario in verdicts}
        first = compare.differences(leg.side, leg.spec, name, direct, verdicts)
        twice: list[compare.Difference] = []
        for scenario in sorted({found.scenario for found in first}):
            ways = self._scene.ways(leg.side, login=scenario.startswith(LOGIN))
            again = [self._go(leg, ways[way], [scenario], again=True)[1] for way in ("direct", name)]
            twice += compare.differences(leg.side, leg.spec, name, *again)
            verdicts |= again[1]
        return twice


def main() -> int:
    given = arguments()
    node = installed()
    started = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    legs = [
        Leg(side, spec, chosen)
        for (side, spec), names in scenarios(node).items()
        if given.side in (None, side) and given.spec in (None, spec)
        if (chosen := [name for name in names if given.scenario in (None, name)])
    ]
    if not legs:
        return wrong(f"the suite has no scenario {given.scenario} for that")
    modes = MODES if given.mode is None else (given.mode,)
    with tempfile.TemporaryDirectory(prefix="callerid-conformance-") as folder, lab(Path(folder)) as scene:
        runner = Runner(node, scene, modes, whole=given.scenario is None)
        for leg in legs:
            runner.run(leg)
            print(record.table(leg.side, leg.spec, leg.ways), flush=True)
    complete = {given.spec, given.side, given.mode, given.scenario} == {None}
    return judge(legs, node, complete=complete, renew=given.record, seconds=time.monotonic() - started)


def judge(legs: list[Leg], node: Node, *, complete: bool, renew: bool, seconds: float) -> int:
    """Write it all down, say what differs, and give the exit code."""
    known = compare.documented()
    found = [difference for leg in legs for difference in leg.found]
    unknown = [item for item in found if not any(compare.explains(key, item) for key in known)]
    stale = [key for key in sorted(known) if not any(compare.explains(key, item) for item in found)]
    versions = {**node.versions, "sdk": version("mcp"), "mitmproxy": version("mitmproxy")}
    ways = {(leg.side, leg.spec): leg.ways for leg in legs}
    record.write_verdicts(OUT / "verdicts.json", versions, ways, found)
    if renew and complete:
        record.write_counts(versions, ways, seconds)
    for item in found:
        print("DIFFERS" if item in unknown else "explained", item)
    for key in stale if complete else ():
        print("STALE docs/divergences.md explains what does not differ:", *key)
    checks = sum(verdicts.total() for leg in legs for way in leg.ways.values() for verdicts in way.values())
    print(f"{checks} checks in {seconds:.0f} s: {len(found)} differ, {len(unknown)} without an explanation")
    return 1 if unknown or (stale and complete) else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/conformance", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--spec", choices=SPECS, help="one revision only")
    parser.add_argument("--side", choices=SIDES, help="one side only")
    parser.add_argument("--mode", choices=MODES, help="one mode of callerid only")
    parser.add_argument("--scenario", help="one scenario of the suite only")
    parser.add_argument("--record", action="store_true", help="renew the counts in docs/conformance.md")
    return parser.parse_args()


def installed() -> Node:
    """What ``scripts/node`` installed, as its shell library says."""
    binary, modules = os.environ.get("NODE"), os.environ.get("NODE_MODULES")
    if not binary or not modules:
        raise SystemExit(wrong("NODE and NODE_MODULES are not set: use scripts/conformance"))
    return Node(binary, modules)


def wrong(sentence: str) -> int:
    print(f"callerid: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
