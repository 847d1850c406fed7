from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest

from callerid.audit.records import (
    DECISION_COLUMNS,
    FINDING_COLUMNS,
    OUTCOME_COLUMNS,
    AuditError,
    decision_row,
    event_row,
    finding_row,
    outcome_row,
    policy_row,
)
from callerid.errors import StoreError
from callerid.model import DecisionRecord, Direction, FindingRecord, Outcome, OutcomeRecord, Verdict

from .samples import decision, finding, outcome, refusal

CANARY = "canary-7f3a"


def unchanged(text: str) -> str:
    return text


def stored(record: DecisionRecord) -> dict[str, Any]:
    return dict(zip(DECISION_COLUMNS, decision_row(record, unchanged), strict=True))


def test_every_field_of_the_records_has_a_column() -> None:
    assert set(DecisionRecord.__slots__) | {"redactions"} == set(DECISION_COLUMNS)
    assert set(OutcomeRecord.__slots__) == set(OUTCOME_COLUMNS)
    assert set(FindingRecord.__slots__) == set(FINDING_COLUMNS)


def test_a_finding_becomes_a_row_of_plain_values() -> None:
    row = dict(zip(FINDING_COLUMNS, finding_row(finding(1), unchanged), strict=True))
    assert row["kind"] == "raw_key"
    assert (row["credential"], row["fingerprint"]) == ("files-shared@v1", "5f0c" * 8)
    assert all(value is None or type(value) in (str, int) for value in row.values())


@pytest.mark.parametrize("column", ["server", "detail"])
def test_what_a_caller_chose_of_a_finding_is_redacted_and_inert(column: str) -> None:
    record = finding(**{column: f"\x1b[2J ghp_{'Zq' * 12} {CANARY} \ud800"})
    row = dict(zip(FINDING_COLUMNS, finding_row(record, lambda text: text.replace(CANARY, "-")), strict=True))
    assert "Zq" not in row[column]
    assert CANARY not in row[column]
    assert "\x1b" not in row[column]
    row[column].encode()


def test_a_finding_that_cannot_be_serialised_says_so_without_its_values() -> None:
    with pytest.raises(AuditError) as caught:
        finding_row(finding(detail=CANARY, principal=7), unchanged)
    assert CANARY not in str(caught.value)
    assert "raw_key" in str(caught.value)


def test_a_decision_becomes_a_row_of_plain_values() -> None:
    row = stored(decision(1, actors=("agent:planner", "agent:claude-code"), request_bytes=7, batch_index=0))
    assert row["verdict"] == "allow"
    assert row["principal"] == "user:alice@corp.example"
    assert json.loads(row["actors"]) == ["agent:planner", "agent:claude-code"]
    assert json.loads(row["evidence"]) == [
        {"kind": "scoped_token", "carrier": "proxy_authorization", "credential_id": "tok_alice_1"}
    ]
    assert json.loads(row["arguments"]) == {"path": "/srv/reports/q3.md"}
    assert row["batch_index"] == 0
    assert all(value is None or type(value) in (str, int) for value in row.values())


def test_nobody_is_anonymous_and_a_claim_stays_apart() -> None:
    row = stored(refusal(principal=None, evidence=(), claimed_subject="user:alice@corp.example"))
    assert row["principal"] == "anonymous"
    assert row["claimed_subject"] == "user:alice@corp.example"


def test_no_arguments_are_not_empty_arguments() -> None:
    assert stored(decision(arguments=None))["arguments"] is None
    assert stored(decision(arguments={}))["arguments"] == "{}"


@pytest.mark.parametrize(
    "column",
    [
        "method",
        "server",
        "upstream",
        "claimed_subject",
        "client_name",
        "user_agent",
        "tool",
        "target",
        "detail",
        "protocol",
        "session",
        "rpc_id",
        "trace_id",
        "path",
    ],
)
def test_text_that_callers_choose_is_redacted_and_inert(column: str) -> None:
    row = stored(decision(**{column: f"\x1b]0;x\x07 ghp_{'Zq' * 12} \ud800"}))
    assert "Zq" not in row[column]
    assert "\x1b" not in row[column]
    row[column].encode()


@pytest.mark.parametrize(
    "column", ["principal", "agent", "rule", "policy", "injected", "credential_id", "via"]
)
def test_text_that_we_vouch_for_is_inert_but_never_redacted(column: str) -> None:
    assert stored(decision(**{column: "user:token=x\x1b"}))[column] == "user:token=x\\x1b"


def test_numbers_beyond_64_bits_do_not_break_a_row() -> None:
    row = dict(zip(OUTCOME_COLUMNS, outcome_row(outcome(rpc_code=-(10**30)), unchanged), strict=True))
    assert row["rpc_code"] == -(2**63 - 1)


def test_a_record_that_cannot_be_serialised_says_so_without_its_values() -> None:
    def broken(text: str) -> str:
        raise RuntimeError(text)

    with pytest.raises(AuditError) as caught:
        decision_row(decision(arguments={"path": CANARY}), broken)
    assert isinstance(caught.value, StoreError)
    assert caught.value.hint
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__
    for attempt in (
        lambda: outcome_row(outcome(detail=CANARY), broken),
        lambda: policy_row("p1", 0, {"policy.yaml": CANARY}, broken),
        lambda: event_row("reload_failed", 0, {"error": CANARY}, None, broken),
    ):
        with pytest.raises(AuditError) as caught:
            attempt()
        assert CANARY not in str(caught.value)


def test_a_policy_keeps_its_text_but_no_live_secret() -> None:
    text = "rules:\n  - regex: 'token=.*'\n"
    row = policy_row(
        "p1", 5, MappingProxyType({"policy.yaml": text + CANARY}), lambda t: t.replace(CANARY, "*")
    )
    assert row[:2] == ("p1", 5)
    assert json.loads(str(row[2])) == {"policy.yaml": text + "*"}


def test_an_outcome_becomes_a_row() -> None:
    row = outcome_row(outcome(outcome=Outcome.TOOL_ERROR), unchanged)
    assert row[OUTCOME_COLUMNS.index("outcome")] == "tool_error"


def test_verdicts_are_stored_by_value() -> None:
    assert [stored(decision(verdict=verdict))["verdict"] for verdict in Verdict] == ["deny", "allow", "error"]


@pytest.mark.parametrize("column", ["tool", "target", "user_agent", "detail"])
def test_a_line_feed_in_a_claim_is_made_visible(column: str) -> None:
    assert stored(decision(**{column: "first\nsecond"}))[column] == "first\\x0asecond"


def test_a_secret_in_the_arguments_and_one_in_a_claim_are_both_found() -> None:
    def scrub(text: str) -> str:
        return text.replace(CANARY, "[shared]")

    for changes in ({"target": CANARY}, {"arguments": {"path": CANARY}}, {"arguments": {CANARY: 1}}):
        row = decision_row(decision(**changes), scrub)
        assert CANARY not in json.dumps(row)
        assert "[shared]" in json.dumps(row)


def test_evidence_is_written_for_its_own_caller() -> None:
    first = stored(decision(evidence=()))["evidence"]
    second = stored(decision(evidence=(decision().evidence[0],)))["evidence"]
    assert first == "[]"
    assert json.loads(second)[0]["credential_id"] == "tok_alice_1"


def test_a_token_in_a_path_does_not_get_into_the_row() -> None:
    row = stored(decision(path="/mcp/cid_" + "Zq7" * 14 + "/x"))
    assert "Zq7" not in row["path"]
    assert row["path"].startswith("/mcp/")
    assert len(str(stored(decision(path="/" + "a" * 5000))["path"])) < 1200


def test_who_began_a_message_is_stored_by_value() -> None:
    row = stored(decision(direction=Direction.SERVER, caused_by="e1", kind="tool"))
    assert (row["direction"], row["caused_by"], row["kind"]) == ("server", "e1", "tool")
    assert type(row["direction"]) is str
    assert stored(decision())["direction"] == "client"
