"""What must be true when the demo is over. Pure: evidence in, findings out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from callerid.cli.demo.cast import (
    AGENT,
    ALICE,
    AS_THE_MODEL_READS_IT,
    BOB,
    CI_TOOLS,
    COLUMNS,
    DESK,
    SUB_AGENT,
    SUB_SERVERS,
    SUB_TOOLS,
    Act,
)

ASSERTION = "x-callerid-assertion"
FOREIGN_HEADERS = frozenset({"proxy-authorization", "x-callerid-token"})
KEY_HEADERS = frozenset({"authorization", "x-api-key"})
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

    ``rows`` are rows of the ``calls`` view, those of cast.QUERY, oldest first. ``seen`` holds per server what
    it wrote down of each request. ``answers`` is what the client of each act received. ``written`` holds
    by name the raw bytes of what callerid stored and printed. ``personal`` are the callers' tokens and
    JWTs, ``shared`` the servers' keys. ``explained`` is the output of ``callerid explain`` and its code.
    ``reproduced`` is what the printed query printed, one line a row. ``told`` names the servers that asked
    who calls. ``parent`` and ``derived`` are what was said of Alice's token and the sub-agent's, ``held``
    are the ids of Bob's tokens, ``blocked`` is what ``callerid block`` said of him.
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
    told: Sequence[str] = ()
    parent: Mapping[str, Any] = field(default_factory=dict)
    derived: Mapping[str, Any] = field(default_factory=dict)
    held: Sequence[str] = ()
    blocked: Mapping[str, Any] = field(default_factory=dict)


def judge(acts: Sequence[Act], evidence: Evidence) -> tuple[Check, ...]:
    """All checks, in the order in which a reader would ask."""
    return (
        *check_rows(acts, evidence.rows),
        check_answers(evidence.answers),
        check_list(evidence.ci_tools),
        check_arrivals(acts, evidence.seen),
        check_only_shared(evidence.seen, evidence.personal),
        check_told(acts, evidence.rows, evidence.seen, evidence.told),
        check_untold(evidence.seen, evidence.told),
        check_derived(evidence.parent, evidence.derived),
        check_blocked(evidence.blocked, evidence.held),
        check_unchanged(evidence.rows, evidence.seen),
        check_secrets(evidence.answers, evidence.written, evidence.shared, evidence.personal),
        check_outcomes(evidence.rows),
        check_reproduced(evidence.rows, evidence.reproduced),
        check_explained(AS_THE_MODEL_READS_IT, evidence.explained, evidence.explained_code),
    )


def check_rows(acts: Sequence[Act], rows: Sequence[Mapping[str, Any]]) -> Iterable[Check]:
    """Every expected row is there, in its place, with its chain of agents and its claim; and no other."""
    for number, act in enumerate(acts):
        names = (*COLUMNS, "actors", "claimed_subject")
        found = tuple(rows[number][name] for name in names) if number < len(rows) else None
        expected = (*act.row(), json.dumps(act.actors, separators=(",", ":")), act.claimed)
        name = f"row {number + 1}: {act.client} {act.server}.{act.tool} {act.verdict} {act.reason}"
        yield Check(name, found == expected, f"expected {expected}, found {found}")
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
        server: [act.tool for act in acts if act.server == server and act.arrives]
        for server in {act.server for act in acts if act.arrives}
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


def check_told(
    acts: Sequence[Act],
    rows: Sequence[Mapping[str, Any]],
    seen: Mapping[str, Sequence[Mapping[str, Any]]],
    told: Sequence[str],
) -> Check:
    """Who asked who calls, verified it in every request: the caller that the row of the call names."""
    wrong, calls = [], 0
    for server in told:
        expected = [
            {"principal": act.principal, "actors": list(act.chain()), "decision": row["event_id"]}
            for act, row in zip(acts, rows, strict=False)
            if act.server == server and act.arrives
        ]
        records = seen.get(server, ())
        found = [record["caller"] for record in records if record["method"] == "tools/call"]
        wrong += [f"{server}: {r['caller']}" for r in records if "principal" not in (r["caller"] or {})]
        wrong += [] if found == expected else [f"{server}: expected {expected}, found {found}"]
        calls += len(expected)
    return Check(
        "the server that asked knows who called, and by which decision",
        not wrong and calls > 0,
        "; ".join(wrong) or "no server was told anything",
    )


def check_untold(seen: Mapping[str, Sequence[Mapping[str, Any]]], told: Sequence[str]) -> Check:
    """Servers that did not ask are told nothing."""
    wrong = [
        f"{server} {record['method'] or record['http']}"
        for server, records in seen.items()
        for record in records
        if server not in told and ASSERTION in {name.lower() for name, _ in record["headers"]}
    ]
    return Check("a server that did not ask is not told who calls", not wrong, f"told: {', '.join(wrong)}")


def check_derived(parent: Mapping[str, Any], derived: Mapping[str, Any]) -> Check:
    """The sub-agent's token is Alice's, below that of her agent, narrower and shorter."""
    expected = {
        "principal": ALICE,
        "agent": SUB_AGENT,
        "actors": [SUB_AGENT, AGENT],
        "parent": parent.get("id", "the token of Alice's agent"),
        "servers": list(SUB_SERVERS),
        "tools": list(SUB_TOOLS),
    }
    found = {name: derived.get(name) for name in expected}
    ends = [str(token.get("expires", "never")) for token in (derived, parent)]
    shorter = "never" not in ends and datetime.fromisoformat(ends[0]) < datetime.fromisoformat(ends[1])
    return Check(
        "the sub-agent's token is narrower and ends sooner than the one it is derived from",
        found == expected and shorter,
        f"expected {expected}, found {found}; they end at {ends[0]} and {ends[1]}",
    )


def check_blocked(blocked: Mapping[str, Any], held: Sequence[str]) -> Check:
    """The block was new, and named all that Bob holds."""
    listed = [token.get("id") for token in blocked.get("tokens", ())]
    done = (blocked.get("subject"), blocked.get("new")) == (BOB, True)
    return Check(
        "block says what Bob still holds", done and listed == list(held) != [], f"it said {dict(blocked)}"
    )


def check_unchanged(
    rows: Sequence[Mapping[str, Any]], seen: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Check:
    """Each server was given one and the same key, from the first call to one after the block."""
    blocks = [number for number, row in enumerate(rows) if row["reason"] == "principal_blocked"]
    after = [row for row in rows[blocks[-1] :] if row["injected"]] if blocks else []
    wrong = [] if after else ["no call was allowed after the block"]
    for server, records in seen.items():
        versions = {row["injected"] for row in rows if row["server"] == server and row["injected"]}
        values = {
            value for record in records for name, value in record["headers"] if name.lower() in KEY_HEADERS
        }
        if (len(versions), len(values)) != (1, 1):
            wrong.append(f"{server}: versions {sorted(versions)}, {len(values)} keys")
    return Check("the shared keys are the same after the block as before", not wrong, "; ".join(wrong))


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
    wrong = []
    for row in rows:
        credential = str(row["injected"] or "").partition("@")[0]
        if row["verdict"] != "allow":
            expected = ("not_sent", "")
        else:
            expected = ("ok", "" if row["server"] == DESK else f"{row['server']}-shared")
        if (row["outcome"], credential) != expected:
            wrong.append(f"{row['server']}.{row['tool']}: {row['outcome']}, injected {row['injected']}")
    return Check("allowed calls name the shared credential and how they ended", not wrong, "; ".join(wrong))


def check_reproduced(rows: Sequence[Mapping[str, Any]], printed: str) -> Check:
    """The query that is shown gives the table that is shown."""
    lines = [line.replace("│", " ").split() for line in printed.splitlines()]
    found = [words for words in lines if {"allow", "deny", "error"} & set(words)]
    expected = [" ".join(str(row[name]) for name in COLUMNS if row[name]).split() for row in rows]
    return Check("the query that is shown gives this table", found == expected, f"it printed: {printed}")


def check_explained(act: Act, output: str, code: int) -> Check:
    """``callerid explain`` says no, and by which rule."""
    said = code == 1 and f"{act.verdict}: {act.reason}, by {act.rule} (" in output
    return Check("explain names the rule that refused", said, f"it ended with {code}: {output}")
