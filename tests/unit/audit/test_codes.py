from __future__ import annotations

from callerid.audit.codes import FINDINGS, OUTCOMES, REASONS, UNKNOWN, UNKNOWN_OUTCOME
from callerid.model import FindingKind, Outcome, Reason


def test_every_reason_and_every_outcome_is_described() -> None:
    assert set(REASONS) == set(Reason)
    assert set(OUTCOMES) == set(Outcome)
    assert set(FINDINGS) == set(FindingKind)
    assert UNKNOWN not in set(Outcome)


def test_descriptions_are_sentences() -> None:
    for description in (*REASONS.values(), *OUTCOMES.values(), *FINDINGS.values(), UNKNOWN_OUTCOME):
        assert description.means.endswith(".")
        assert description.do == "" or description.do.endswith(".")
        assert "|" not in description.means + description.do, "they go into a Markdown table"


def test_every_refusal_says_what_to_do() -> None:
    passing = {Reason.GRANTED, Reason.PROTOCOL, Reason.CLIENT_GONE, Reason.ANSWERED_HERE}
    assert {reason for reason, description in REASONS.items() if not description.do} == passing
