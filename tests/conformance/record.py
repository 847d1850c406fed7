"""What a run leaves behind: all verdicts under out/, the counts in the repository, the table in the docs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.conformance.compare import STATUSES, Difference, counts
from tests.conformance.suite import ROOT, Verdicts

COUNTS = Path(__file__).with_name("counts.json")
PAGE = ROOT / "docs" / "conformance.md"
BEGIN, END = "<!-- counts: generated -->", "<!-- counts: end -->"

TOOLS = {"suite": "Suite", "node": "Node", "sdk": "Python SDK", "mitmproxy": "mitmproxy"}
COLUMNS = ("scenarios", *(status.lower() for status in STATUSES))

type Ways = Mapping[str, Verdicts]
type Legs = Mapping[tuple[str, str], Ways]


def table(side: str, spec: str, ways: Ways) -> str:
    """What a run prints for one side and revision."""
    lines = [f"{side} {spec}".ljust(28) + "".join(column.rjust(11) for column in COLUMNS)]
    for name, verdicts in ways.items():
        found = counts(verdicts)
        lines.append(f"  {name}".ljust(28) + "".join(str(found[column]).rjust(11) for column in COLUMNS))
    return "\n".join(lines)


def write_verdicts(file: Path, versions: Mapping[str, str], legs: Legs, found: Sequence[Difference]) -> None:
    """Every verdict of the run, for whoever wants to look closer."""
    verdicts = {
        f"{side} {spec} {way}": {name: sorted(checks.elements()) for name, checks in scenarios.items()}
        for (side, spec), ways in legs.items()
        for way, scenarios in ways.items()
    }
    made = {"versions": versions, "differences": [asdict(item) for item in found], "verdicts": verdicts}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def write_counts(versions: Mapping[str, str], legs: Legs, seconds: float) -> None:
    """The committed counts, and the table that shows them."""
    made = {
        "versions": dict(versions),
        "seconds": round(seconds),
        "counts": {
            f"{side} {spec} {way}": counts(verdicts)
            for (side, spec), ways in legs.items()
            for way, verdicts in ways.items()
        },
    }
    COUNTS.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{page_table(made)}{END}{after}", encoding="utf-8")


def page_table(made: Mapping[str, Any]) -> str:
    """The table of docs/conformance.md, from what counts.json holds."""
    lines = [
        "| side | revision | way | scenarios | passed | failed | warnings | skipped |",
        "| --- | --- | --- | --: | --: | --: | --: | --: |",
    ]
    for key, found in made["counts"].items():
        cells = [*key.split(), *(str(found[column]) for column in COLUMNS)]
        lines.append(f"| {' | '.join(cells)} |")
    told = made["versions"]
    tools = (
        f"Suite {told['suite']}, Node {told['node']}, Python SDK {told['sdk']}, mitmproxy {told['mitmproxy']}"
    )
    return "\n".join([*lines, "", f"{tools}; {made['seconds']} s on 2 cores."]) + "\n"
