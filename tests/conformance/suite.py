"""The official conformance suite as a process: what it can run, and the verdict of each check."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "@modelcontextprotocol/conformance"
SPECS = ("2025-11-25", "2026-07-28")
SIDES = ("server", "client")
KNOCK = Path(__file__).with_name("knock.py")

# They speak plain HTTP to the host and port of the URL, also if it says https.
PLAIN_ONLY = frozenset({"http-header-validation", "http-custom-header-server-validation"})

# Ours is the verdict, not the diary: the suite also notes each message as a check of status INFO.
NO_VERDICT = "INFO"

type Verdicts = dict[str, Counter[tuple[str, str, str]]]
"""Scenario -> how often each (check, name, status) was given."""


@dataclass(frozen=True)
class Node:
    """A Node that can run the suite, and the packages that ``scripts/node`` installed."""

    binary: str
    modules: str

    @classmethod
    def installed(cls) -> Node | None:
        """What ``scripts/node`` installed; None if it has not, or not what is pinned now."""
        script = "source scripts/lib/env.sh; source scripts/lib/node.sh; node_ready || exit 1"
        script += '; printf "%s\\n" "$NODE" "$NODE_MODULES"'
        done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
        return cls(*done.stdout.splitlines()) if done.returncode == 0 else None

    @property
    def command(self) -> list[str]:
        return [self.binary, str(Path(self.modules) / PACKAGE / "dist" / "index.js")]

    @property
    def versions(self) -> dict[str, str]:
        package = json.loads((Path(self.modules) / PACKAGE / "package.json").read_text(encoding="utf-8"))
        node = subprocess.run([self.binary, "--version"], capture_output=True, text=True, check=True).stdout
        return {"suite": package["version"], "node": node.strip().removeprefix("v")}


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a party gets to the other one: directly, or through callerid in one of its modes.

    ``url`` is the server's, for the server side; ``warm`` is the socket of ``warm.py``, for the client side;
    ``environ`` is for the suite, which its client inherits;
    ``without`` are scenarios that cannot go this way, whatever stands in it.
    """

    name: str
    url: str = ""
    warm: str = ""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    without: frozenset[str] = frozenset()


def scenarios(node: Node) -> dict[tuple[str, str], list[str]]:
    """(side, revision) -> the scenarios that belong to it, in the suite's order, without extensions."""
    done = subprocess.run([*node.command, "list"], capture_output=True, text=True, check=True, timeout=60)
    found: dict[tuple[str, str], list[str]] = {(side, spec): [] for side in SIDES for spec in SPECS}
    side = ""
    for line in done.stdout.splitlines():
        if heading := re.match(r"(\w+)( server)? scenarios", line):
            side = "" if heading[2] else heading[1].lower()
        elif (item := re.fullmatch(r"\s+- (\S+) \[(.*)\]", line)) and side:
            for spec in set(item[2].split(",")) & set(SPECS):
                found[side, spec].append(item[1])
    return found


def run_server(node: Node, way: Way, spec: str, names: Iterable[str] | None, out: Path) -> Verdicts:
    """The server side: all its scenarios in one run, or those that are named."""
    chosen = [["--suite", "all"]] if names is None else [["--scenario", name] for name in names]
    for choice in chosen:
        _run([*node.command, "server", "--url", way.url, *choice], way, spec, out, seconds=300)
    found = verdicts(out, prefix="server-")
    return {name: checks for name, checks in found.items() if name not in way.without}


def run_client(node: Node, way: Way, spec: str, name: str, out: Path) -> Verdicts:
    """One scenario of the client side. The suite would start all its clients at once."""
    command = f"{sys.executable} -I -S {KNOCK} {way.warm}"
    _run([*node.command, "client", "--command", command, "--scenario", name], way, spec, out, seconds=100)
    return verdicts(out)


def _run(command: list[str], way: Way, spec: str, out: Path, *, seconds: float) -> None:
    out.mkdir(parents=True, exist_ok=True)
    plain = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environ = {**plain, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "addon"))), **way.environ}
    arguments = ["--spec-version", spec, "--timeout", "30000", "--output-dir", str(out)]
    with (out / "suite.log").open("a", encoding="utf-8") as log:
        try:
            subprocess.run(
                [*command, *arguments], env=environ, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:  # what it did not get to has no verdict, and so differs
            log.write(f"callerid: stopped after {seconds:g} s\n")


def verdicts(out: Path, *, prefix: str = "") -> Verdicts:
    """What the suite wrote below ``out``, in folders ``PREFIX SCENARIO TIME``. The latest one counts."""
    found: Verdicts = {}
    for file in sorted(out.rglob("checks.json"), key=lambda file: file.parent.name[-24:]):
        name = re.sub(r"-\d{4}-\d\d-\d\dT[\d-]+Z$", "", str(file.parent.relative_to(out)))
        checks = json.loads(file.read_text(encoding="utf-8"))
        found[name.removeprefix(prefix)] = Counter(
            (check["id"], check["name"], check["status"]) for check in checks if check["status"] != NO_VERDICT
        )
    return found
