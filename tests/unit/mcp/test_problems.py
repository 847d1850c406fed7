from __future__ import annotations

import json
from typing import Any

import pytest

from callerid.mcp.answers import FAULTS, Answer
from callerid.mcp.problems import (
    CHALLENGE,
    NOT_KNOWN,
    refusal,
    upstream_refused_credential,
    upstream_unusable,
)
from callerid.model import Outcome, Reason

DECISION = "0193a0c0-0000-7000-8000-000000000001"
ALLOWED = {Reason.GRANTED, Reason.PROTOCOL, Reason.OBSERVED, Reason.MONITORED, Reason.ANSWERED_HERE}
REFUSALS = [reason for reason in Reason if reason not in ALLOWED]


def refuse(reason: Reason, **more: Any) -> Answer:
    given = {"rule": None, "say": None, **more}
    return refusal(reason=reason, event_id=DECISION, **given)


def read(answer: Answer) -> dict[str, Any]:
    """The body, after the checks that hold for every answer."""
    headers = dict(answer.headers)
    assert len(headers) == len(answer.headers)
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Length"] == str(len(answer.body))
    problem: dict[str, Any] = json.loads(answer.body)
    assert problem["status"] == answer.status
    assert problem["decision"] == DECISION
    assert problem["title"]
    assert problem["detail"]
    return problem


@pytest.mark.parametrize("reason", REFUSALS)
def test_every_refusal_says_why_and_only_callers_who_are_not_known_get_a_401(reason: Reason) -> None:
    answer = refuse(reason)
    assert read(answer)["reason"] == reason.value
    assert 400 <= answer.status < 600
    assert (answer.status == 401) == (reason in NOT_KNOWN)
    assert ("WWW-Authenticate" in dict(answer.headers)) == (answer.status == 401)
    assert (answer.status == 503) == (reason in FAULTS or reason is Reason.JWT_KEYS_UNAVAILABLE)


def test_a_401_leads_nowhere_unless_there_is_a_login_of_the_company() -> None:
    assert dict(refuse(Reason.NO_EVIDENCE).headers)["WWW-Authenticate"] == CHALLENGE
    assert "http" not in CHALLENGE
    way = 'Bearer resource_metadata="https://api.corp.example/.well-known/oauth-protected-resource"'
    assert dict(refuse(Reason.NO_EVIDENCE, challenge=way).headers)["WWW-Authenticate"] == way


@pytest.mark.parametrize(
    "reason", [Reason.RULE_DENIED, Reason.CREDENTIAL_NOT_BOUND, Reason.PRINCIPAL_BLOCKED, Reason.NO_GRANT]
)
def test_a_refusal_for_rules_or_credentials_starts_no_login_even_if_one_is_offered(reason: Reason) -> None:
    answer = refuse(reason, challenge="Bearer resource_metadata=x")
    assert answer.status == 403
    assert "WWW-Authenticate" not in dict(answer.headers)


def test_a_rule_says_its_name_and_its_words() -> None:
    problem = read(refuse(Reason.RULE_DENIED, rule="no-refunds", say=" Refunds go through Bob. "))
    assert (problem["rule"], problem["say"]) == ("no-refunds", "Refunds go through Bob.")


def test_what_nobody_grants_names_no_rule() -> None:
    assert refuse(Reason.NO_GRANT, rule="a-rule", say="Its words.") == refuse(Reason.NO_GRANT)


@pytest.mark.parametrize(
    ("reason", "given", "status"),
    [
        (Reason.MALFORMED_HTTP, 400, 400),
        (Reason.TOO_LARGE, 413, 413),
        (Reason.TOO_LARGE, None, 413),
        (Reason.TOO_MANY_IN_FLIGHT, None, 429),
        (Reason.OAUTH_WITHHELD, None, 404),
        (Reason.DESTINATION_MISMATCH, None, 421),
        (Reason.PRINCIPAL_BLOCKED, 400, 400),
        (Reason.AUDIT_UNAVAILABLE, 400, 503),
        (Reason.NO_EVIDENCE, 400, 401),
    ],
)
def test_the_status_is_that_of_the_reason(reason: Reason, given: int | None, status: int) -> None:
    assert refuse(reason, status=given).status == status


def test_a_refused_credential_is_a_502_that_starts_no_login() -> None:
    answer = upstream_refused_credential(DECISION)
    assert answer.status == 502
    assert read(answer)["outcome"] == "upstream_refused_credential"
    assert "WWW-Authenticate" not in dict(answer.headers)


def test_an_answer_that_is_not_given_out_is_a_502() -> None:
    problem = read(upstream_unusable(DECISION, "it was too large", Outcome.RESPONSE_TOO_LARGE))
    assert (problem["status"], problem["outcome"]) == (502, "response_too_large")
    assert "it was too large" in problem["detail"]
