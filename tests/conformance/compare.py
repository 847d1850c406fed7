"""Verdicts held against each other, and against the differences that docs/divergences.md explains."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.suite import ROOT, Verdicts

DIVERGENCES = ROOT / "docs" / "divergences.md"
STATUSES = ("SUCCESS", "FAILURE", "WARNING", "SKIPPED")
ABSENT = "-"

type Key = tuple[str, str, str, str]
"""Side, revision, way, check: what docs/divergences.md names, with ``*`` for every revision or way."""


@dataclass(frozen=True, order=True)
class Difference:
    """One check that came out otherwise than direct. Statuses are joined by commas; ``-`` is none."""

    side: str
    spec: str
    way: str
    scenario: str
    check: str
    name: str
    direct: str
    through: str

    def __str__(self) -> str:
        where = f"{self.side} {self.spec} {self.way}"
        return f"{where}: {self.scenario}: {self.check} ({self.name}): {self.direct} -> {self.through}"


def differences(side: str, spec: str, way: str, direct: Verdicts, through: Verdicts) -> list[Difference]:
    """Every check whose verdicts differ, scenario by scenario."""
    found = []
    for scenario in sorted(direct.keys() | through.keys()):
        ours, theirs = through.get(scenario, Counter()), direct.get(scenario, Counter())
        for check, name in sorted({key[:2] for key in (ours - theirs) + (theirs - ours)}):
            said = [_statuses(verdicts, check, name) for verdicts in (theirs, ours)]
            found.append(Difference(side, spec, way, scenario, check, name, *said))
    return found


def _statuses(verdicts: Counter[tuple[str, str, str]], check: str, name: str) -> str:
    said = sorted(status for *which, status in verdicts.elements() if which == [check, name])
    return ",".join(said) or ABSENT


def counts(verdicts: Verdicts) -> dict[str, int]:
    """How many scenarios there are, and how many checks of each status."""
    total = Counter(status for checks in verdicts.values() for _, _, status in checks.elements())
    return {"scenarios": len(verdicts), **{status.lower(): total[status] for status in STATUSES}}


def documented(page: Path = DIVERGENCES) -> set[Key]:
    """The rows of the table in docs/divergences.md: side, revision, way, `check`, why."""
    row = r"^\| (server|client) \| (\S+) \| (\S+) \| `([^`]+)` \| \S.* \|$"
    return set(re.findall(row, page.read_text(encoding="utf-8"), re.MULTILINE))


def explains(key: Key, found: Difference) -> bool:
    side, spec, way, check = key
    same = (side, check) == (found.side, found.check)
    return same and spec in ("*", found.spec) and way in ("*", found.way)
