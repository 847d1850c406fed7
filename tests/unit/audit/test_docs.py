"""docs/audit.md says what the code says. ``python -m tests.unit.audit.test_docs`` writes the parts anew."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from callerid.audit.codes import FINDINGS, OUTCOMES, REASONS, UNKNOWN, UNKNOWN_OUTCOME, Description
from callerid.audit.columns import CALLS, RAW_KEYS, Column
from callerid.audit.columns import FINDINGS as FINDING_COLUMNS
from callerid.audit.schema import APPLICATION_ID
from callerid.audit.views import OWN_CREDENTIAL
from callerid.model import Carrier, Evidence, EvidenceKind, FindingKind, Outcome, Reason

from .samples import decision, finding, outcome, plant, refusal, rows

PAGE = Path(__file__).resolve().parents[3] / "docs" / "audit.md"

QUERY = re.compile(r"```sql\n(?P<sql>[^`]*)```\n\n(?P<table>(?:\|.*\n)+)")
MINUTE = 60_000


def markdown(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    shown = [["" if cell is None else str(cell) for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, ["---"] * len(header), *shown))


def described(codes: Iterable[tuple[str, Description]]) -> Iterable[Sequence[str]]:
    return ((f"`{code}`", text.means, text.do) for code, text in codes)


def columns(of: Iterable[Column]) -> str:
    return markdown(("column", "meaning"), ((f"`{column.name}`", column.meaning) for column in of))


def blocks() -> dict[str, str]:
    """The generated parts of the page by name."""
    outcomes = [*OUTCOMES.items(), (UNKNOWN, UNKNOWN_OUTCOME)]
    return {
        "columns": columns(CALLS),
        "findings": columns(FINDING_COLUMNS),
        "raw keys": columns(RAW_KEYS),
        "kinds": markdown(("kind", "means", "what to do"), described(FINDINGS.items())),
        "reasons": markdown(("reason", "means", "what to do"), described(REASONS.items())),
        "outcomes": markdown(("outcome", "means", "what to do"), described(outcomes)),
    }


def plant_a_morning(path: Path) -> None:
    """What the examples of the page are asked of."""
    ci = Evidence(kind=EvidenceKind.JWT, carrier=Carrier.AUTHORIZATION, credential_id="jti:9f21")
    plant(
        path,
        decision(0, session="s-alice-1", rpc_id="3", trace_id="4bf92f3577b34da6a3ce929d0e0e4736"),
        outcome(0),
        decision(
            1 * MINUTE,
            session="s-alice-1",
            tool="write_file",
            target="/srv/reports/q4.md",
            arguments={"path": "/srv/reports/q4.md", "content": "draft", "token": "xyz"},
            rule="writers",
        ),
        outcome(1 * MINUTE, outcome=Outcome.TOOL_ERROR, duration_us=180_000),
        decision(
            2 * MINUTE,
            principal="workload:ci-docs",
            issuer="forge",
            agent=None,
            evidence=(ci,),
            assurance="workload",
            credential_id="jti:9f21",
            tool="list_files",
            target=None,
        ),
        outcome(2 * MINUTE, duration_us=9_000),
        refusal(3 * MINUTE),
        refusal(
            4 * MINUTE,
            reason=Reason.TOKEN_REVOKED,
            principal=None,
            agent=None,
            claimed_subject="user:ivy@corp.example",
            evidence=(),
            client_ip="192.0.2.44",
        ),
        decision(
            5 * MINUTE,
            principal="user:bob@corp.example",
            server="warehouse",
            upstream="https://warehouse.corp.example:443/mcp",
            tool="drop_table",
            target="scratch_bob",
            arguments={"table": "scratch_bob"},
            rule="owners-drop-their-own",
            injected="warehouse-shared@v3",
        ),
        outcome(5 * MINUTE),
        decision(6 * MINUTE, principal="user:bob@corp.example", target="/srv/reports/q4.md"),
        decision(
            7 * MINUTE,
            principal="user:ivy@corp.example",
            reason=Reason.OBSERVED,
            server="notes.startup.example",
            upstream="notes.startup.example:443",
            path="/v1/mcp",
            tool="save_note",
            target=None,
            rule=None,
            injected=None,
            kind="tool",
            detail=f"{OWN_CREDENTIAL} Authorization (Bearer)",
        ),
        outcome(7 * MINUTE),
        *(
            finding(
                7 * MINUTE,
                kind=FindingKind.OWN_KEY,
                server="notes.startup.example",
                principal=f"user:{name}@corp.example",
                credential=None,
                fingerprint="9a4e" * 8,
            )
            for name in ("alice", "bob", "ivy")
        ),
        finding(8 * MINUTE, principal="user:bob@corp.example"),
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("docs") / "audit.db"
    plant_a_morning(made)
    return made


@pytest.mark.parametrize("name", sorted(blocks()))
def test_the_tables_are_those_of_the_code(name: str) -> None:
    assert _between(PAGE.read_text(), name) == blocks()[name]


def test_every_reason_and_outcome_is_on_the_page() -> None:
    text = PAGE.read_text()
    for code in (*Reason, *Outcome, *FindingKind):
        assert f"`{code}`" in text


def test_there_are_examples_for_every_view() -> None:
    asked = " ".join(match["sql"] for match in QUERY.finditer(PAGE.read_text()))
    for view in (
        "calls",
        "refusals",
        "servers_seen",
        "credential_use",
        "policy_version",
        "event",
        "findings",
        "raw_keys",
    ):
        assert view in asked


@pytest.mark.parametrize("match", list(QUERY.finditer(PAGE.read_text())), ids=lambda match: match["sql"][:40])
def test_every_example_gives_what_the_page_shows(path: Path, match: re.Match[str]) -> None:
    assert answer(path, match["sql"]) == match["table"]


def test_facts_about_the_file_are_right() -> None:
    assert f"`0x{APPLICATION_ID:08x}`" in PAGE.read_text()


def answer(path: Path, sql: str) -> str:
    found = rows(path, sql)
    assert found, sql
    return markdown(tuple(found[0]), (row.values() for row in found))


def _between(text: str, name: str) -> str:
    begin, end = f"<!-- {name}: generated -->\n", f"<!-- {name}: end -->"
    return text.partition(begin)[2].partition(end)[0]


def main() -> None:
    """Write the generated tables and the answers of the examples into the page."""
    text = PAGE.read_text()
    for name, block in blocks().items():
        begin, end = f"<!-- {name}: generated -->\n", f"<!-- {name}: end -->"
        head, _, rest = text.partition(begin)
        text = head + begin + block + end + rest.partition(end)[2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.db"
        plant_a_morning(path)
        text = QUERY.sub(lambda match: f"```sql\n{match['sql']}```\n\n{answer(path, match['sql'])}", text)
    PAGE.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
