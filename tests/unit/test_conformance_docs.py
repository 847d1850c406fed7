"""docs/conformance.md and docs/divergences.md say what was measured, with what is pinned."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from callerid.mcp import classify
from callerid.model import Reason
from tests.conformance import compare, record
from tests.conformance.suite import SIDES, SPECS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "conformance.md"
NODE = ROOT / "tests" / "node"
COUNTS: dict[str, Any] = json.loads(record.COUNTS.read_text(encoding="utf-8"))
LOCK: dict[str, Any] = json.loads((NODE / "package-lock.json").read_text(encoding="utf-8"))


# --- the counts ---


def test_the_table_is_what_is_stored() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = text.partition(record.BEGIN)[2].partition(record.END)[0]
    assert shown == "\n" + record.page_table(COUNTS), "write it anew: scripts/conformance --record"


def test_each_side_was_run_in_each_revision_and_along_each_way() -> None:
    ways = {
        "server": ("direct", "forward", "forward-tls", "reverse"),
        "client": ("direct", "forward", "reverse"),
    }
    wanted = [f"{side} {spec} {way}" for side in SIDES for spec in SPECS for way in ways[side]]
    assert sorted(COUNTS["counts"]) == sorted(wanted)


@pytest.mark.parametrize("key", COUNTS["counts"])
def test_a_way_that_carries_every_scenario_has_the_counts_of_direct(key: str) -> None:
    side, spec, way = key.split()
    direct, through = (COUNTS["counts"][f"{side} {spec} {name}"] for name in ("direct", way))
    if through["scenarios"] == direct["scenarios"] and not any(
        row[0] == side for row in compare.documented()
    ):
        assert through == direct
    assert 0 < through["scenarios"] <= direct["scenarios"]
    assert through["success"] > 0


def test_the_versions_are_those_that_are_pinned() -> None:
    packages = LOCK["packages"]
    pins = dict(
        re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements" / "dev.txt").read_text(), re.MULTILINE)
    )
    versions = COUNTS["versions"]
    assert versions["suite"] == packages["node_modules/@modelcontextprotocol/conformance"]["version"]
    assert (versions["sdk"], versions["mitmproxy"]) == (pins["mcp"], pins["mitmproxy"])


# --- the divergences ---


def test_every_row_of_the_first_table_can_be_read() -> None:
    text = compare.DIVERGENCES.read_text(encoding="utf-8")
    table = text.partition("## Checks of the suite")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(compare.documented()) == len(rows)


def test_a_row_names_what_there_is() -> None:
    ways = {key.split()[2] for key in COUNTS["counts"]}
    for _, spec, way, _ in compare.documented():
        assert spec in (*SPECS, "*")
        assert way in (ways - {"direct"}) | {"*"}


def test_what_is_said_of_refusals_is_what_they_are() -> None:
    text = compare.DIVERGENCES.read_text(encoding="utf-8")
    said = re.findall(r"(?:(\d{3}), )?(-\d{5}), `(\w+)`", text)
    assert len(said) >= 10
    for status, code, reason in said:
        answer = classify.ANSWERS[Reason(reason)]
        assert (reason, code) == (reason, str(answer[1]))
        # NOT_MCP has 405 or 415 where that says more.
        assert status in ("", str(answer[0])) or (reason, status) == ("not_mcp", "415")
    assert set(re.findall(r"`([a-z]+_[a-z_]+)`", text)) <= {reason.value for reason in Reason} | {"tasks"}


# --- what comes from npm ---


def test_the_lock_pins_by_hash_and_names_no_address() -> None:
    text = (NODE / "package-lock.json").read_text(encoding="utf-8")
    assert not re.search(r"resolved|registry|https?:", text)
    packages = {name: found for name, found in LOCK["packages"].items() if name}
    assert len(packages) > 50
    assert [name for name, found in packages.items() if not found["integrity"].startswith("sha512-")] == []


def test_what_is_asked_for_is_exact_and_locked() -> None:
    asked = json.loads((NODE / "package.json").read_text(encoding="utf-8"))
    for kind in ("dependencies", "optionalDependencies"):
        assert LOCK["packages"][""][kind] == asked[kind]
        for name, version in asked[kind].items():
            assert LOCK["packages"][f"node_modules/{name}"]["version"] == version
    scripts = [name for name, found in LOCK["packages"].items() if found.get("hasInstallScript")]
    assert scripts == [], "they are installed with --ignore-scripts"
