"""What must be true when the demo is over. Pure: evidence in, findings out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from callerid.cli.demo.cast import AS_THE_MODEL_READS_IT, CI_TOOLS, COLUMNS, Act

FOREIGN_HEADERS = frozenset({"proxy-authorization", "x-callerid-token"})
TOKEN_PREFIX = "cid_"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that had to be true. ``detail`` says what was found when it was not."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known when the demo is over.

    ``rows`` are rows of the ``calls`` view, tools/call only, oldest first. ``seen`` holds per server what
    it wrote down of each request. ``answers`` is what the client of each act received. ``written`` holds
    by name the raw bytes of what callerid stored and printed. ``personal`` are the callers' tokens and
    JWTs, ``shared`` the servers' keys. ``explained`` is the output of ``callerid explain`` and its code.
    ``reproduced`` is what the printed query printed, one line a row.
    """

    rows: Sequence[Mapping[str, Any]] = ()
    seen: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    answers: Sequence[tuple[Act, Mapping[str, Any]]] = ()
    ci_tools: Sequence[str] = ()
    written: Mapping[str, bytes] = field(default_factory=dict)
    personal: Sequence[str] = ()
    shared: Sequence[str] = ()
    explained: str = ""
    explained_code: int = 0
    reproduced: str = ""


def judge(acts: Sequence[Act], evidence: Evidence) -> tuple[Check, ...]:
    """All checks, in the order in which a reader would ask."""
    return (
        *check_rows(acts, evidence.rows),
        check_answers(evidence.answers),
        check_list(evidence.ci_tools),
        check_arrivals(acts, evidence.seen),
        check_only_shared(evidence.seen, evidence.personal),
        check_secrets(evidence.answers, evidence.written, evidence.shared, evidence.personal),
        check_outcomes(evidence.rows),
        check_reproduced(evidence.rows, evidence.reproduced),
        check_explained(AS_THE_MODEL_READS_IT, evidence.explained, evidence.explained_code),
    )


def check_rows(acts: Sequence[Act], rows: Sequence[Mapping[str, Any]]) -> Iterable[Check]:
    """Every expected row is there, in its place, and no other tools/call."""
    for number, act in enumerate(acts):
        found = tuple(rows[number][name] for name in COLUMNS) if number < len(rows) else None
        name = f"row {number + 1}: {act.client} {act.server}.{act.tool} {act.verdict} {act.reason}"
        yield Check(name, found == act.row(), f"expected {act.row()}, found {found}")
    more = [tuple(row[name] for name in COLUMNS) for row in rows[len(acts) :]]
    yield Check("no other tool call is in the audit", not more, f"found {more}")


def check_answers(answers: Iterable[tuple[Act, Mapping[str, Any]]]) -> Check:
    """Allowed calls brought a result; refused ones a tool result that says so, and no broken session."""
    wrong = [
        f"{act.client} {act.call()}: {answer}"
        for act, answer in answers
        if "error" in answer
        or answer.get("is_error") is act.allowed
        or ("refused by callerid" in answer.get("text", "")) is act.allowed
    ]
    return Check("every client got its result or a refusal that it can read", not wrong, "; ".join(wrong))


def check_list(tools: Sequence[str]) -> Check:
    """The CI job sees what it may call."""
    return Check(
        "the CI job's list shows only what it may call", tuple(tools) == CI_TOOLS, f"it shows {list(tools)}"
    )


def check_arrivals(acts: Sequence[Act], seen: Mapping[str, Sequence[Mapping[str, Any]]]) -> Check:
    """The servers got the allowed calls and no other."""
    expected = {
        server: [act.tool for act in acts if act.server == server and act.allowed]
        for server in {act.server for act in acts}
    }
    found = {
        server: [record["tool"] for record in records if record["method"] == "tools/call"]
        for server, records in seen.items()
    }
    return Check("the servers got the allowed calls and no other", found == expected, f"they got {found}")


def check_only_shared(seen: Mapping[str, Sequence[Mapping[str, Any]]], personal: Sequence[str]) -> Check:
    """Every request that reached a server had the shared key and nothing of a caller's own."""
    wrong = []
    for server, records in seen.items():
        for record in records:
            text = f"{record['headers']} {record['query']} {record['body']}"
            names = {name.lower() for name, _ in record["headers"]}
            where = f"{server} {record['method'] or record['http']}"
            if not record["shared_key"]:
                wrong.append(f"{where}: without the shared key")
            if names & FOREIGN_HEADERS:
                wrong.append(f"{where}: header {sorted(names & FOREIGN_HEADERS)}")
            if TOKEN_PREFIX in text or any(secret in text for secret in personal):
                wrong.append(f"{where}: a caller's own credential")
    count = sum(map(len, seen.values()))
    return Check(
        "the servers saw one shared key each and no personal credential",
        not wrong and count > 0,
        "; ".join(wrong) or "they saw no request at all",
    )


def check_secrets(
    answers: Iterable[tuple[Act, Mapping[str, Any]]],
    written: Mapping[str, bytes],
    shared: Sequence[str],
    personal: Sequence[str],
) -> Check:
    """No client was told a shared key; no file that callerid writes holds a credential of anybody."""
    told = " ".join(str(answer) for _, answer in answers)
    wrong = ["an answer to a client"] if any(secret in told for secret in shared) else []
    wrong += [
        name
        for name, data in written.items()
        if any(secret.encode() in data for secret in (*shared, *personal))
    ]
    return Check("no secret is in an answer, the audit or a log", not wrong, f"found in {', '.join(wrong)}")


def check_outcomes(rows: Sequence[Mapping[str, Any]]) -> Check:
    """Allowed calls ended well and name the credential that was put in; the others were not sent."""
    wrong = [
        f"{row['server']}.{row['tool']}: {row['outcome']}, injected {row['injected']}"
        for row in rows
        if (row["outcome"], str(row["injected"] or "").startswith(f"{row['server']}-shared"))
        != (("ok", True) if row["verdict"] == "allow" else ("not_sent", False))
    ]
    return Check("allowed calls name the shared credential and how they ended", not wrong, "; ".join(wrong))


def check_reproduced(rows: Sequence[Mapping[str, Any]], printed: str) -> Check:
    """The query that is shown gives the table that is shown."""
    lines = [line.replace("│", " ").split() for line in printed.splitlines()]
    found = [words for words in lines if {"allow", "deny", "error"} & set(words)]
    expected = [[str(row[name]) for name in COLUMNS if row[name] is not None] for row in rows]
    return Check("the query that is shown gives this table", found == expected, f"it printed: {printed}")


def check_explained(act: Act, output: str, code: int) -> Check:
    """``callerid explain`` says no, and by which rule."""
    said = code == 1 and f"{act.verdict}: {act.reason}, by {act.rule} (" in output
    return Check("explain names the rule that refused", said, f"it ended with {code}: {output}")
