"""The JWT that servers get: its claims are its row's, its life is short, and odd names survive it whole."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.config import Assertion
from callerid.identity import jwt as ours
from callerid.identity.assertion import (
    MAX_TOOL,
    TYPE,
    Asserting,
    claims_of,
    claims_of_batch,
)
from callerid.identity.signing_keys import Signer
from callerid.model import DecisionRecord, Reason, Rejected, Verdict
from tests.unit.identity import made

NOW = 1_780_000_000
ISSUER = "urn:uuid:20212223-2425-4627-a829-2a2b2c2d2e2f"
TO = Assertion(audience="https://things.corp.example/mcp")
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ASSERTING = Asserting(TO, Signer(ISSUER, "k1", PRIVATE))

ROW = DecisionRecord(
    event_id="0190a1b2-0000-7000-8000-000000000001",
    time_us=NOW * 1_000_000,
    verdict=Verdict.ALLOW,
    reason=Reason.GRANTED,
    method="tools/call",
    server="things",
    upstream="things.corp.example:443",
    principal=made.ALICE,
    issuer="corp-idp",
    agent="claude-code",
    assurance="idp",
    credential_id="jwt:corp-idp:j-1",
    client_ip="10.0.0.9",
    client_name="claimed/1",
    tool="read_thing",
    target="the thing",
    arguments={"x": "private"},
    rule="eng-things",
    injected="things-key@v1",
)


def verified(token: str, **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "algorithms": ["EdDSA"], "audience": TO.audience, "issuer": ISSUER, "options": {"verify_exp": False,
        "verify_nbf": False, "verify_iat": False}, **changes,
    }  # fmt: skip
    return pyjwt.decode(token, PRIVATE.public_key(), **options)


def test_all_that_is_said_about_a_tool_call() -> None:
    token = ASSERTING.say(ROW, NOW)
    assert pyjwt.get_unverified_header(token) == {"alg": "EdDSA", "kid": "k1", "typ": TYPE}
    assert verified(token) == {
        "iss": ISSUER,
        "sub": made.ALICE,
        "aud": "https://things.corp.example/mcp",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 60,
        "jti": ROW.event_id,
        "txn": ROW.event_id,
        "act": {"sub": "claude-code"},
        "rctx": {"issuer": "corp-idp", "assurance": "idp"},
        "tctx": {"server": "things", "method": "tools/call", "tool": "read_thing"},
    }


@pytest.mark.parametrize(
    ("agent", "actors", "chain"),
    [
        (None, (), []),
        ("claude-code", (), ["claude-code"]),
        ("planner", ("planner", "claude-code"), ["planner", "claude-code"]),
        ("claude-code", ("planner", "claude-code"), ["planner", "claude-code"]),
        ("claude-code", ("planner",), ["claude-code", "planner"]),
        (None, ("planner",), ["planner"]),
        ("a", ("b", "c", "d", "e", "f"), ["a", "b", "c", "d", "e", "f"]),
    ],
)
def test_the_chain_has_the_current_actor_outermost(
    agent: str | None, actors: tuple[str, ...], chain: list[str]
) -> None:
    link: Any = claims_of(replace(ROW, agent=agent, actors=actors), TO, ISSUER, NOW)
    found = []
    while (link := link.get("act")) is not None:
        found.append(link["sub"])
    assert found == chain


@pytest.mark.parametrize(("asked", "given"), [(60, 60), (5, 5), (1, 1), (600, 60)])
def test_no_configuration_makes_it_live_longer_than_a_minute(asked: int, given: int) -> None:
    said = claims_of(ROW, replace(TO, ttl=asked), ISSUER, NOW)
    assert said["exp"] - said["iat"] == given


def test_without_a_tool_the_method_stands_alone() -> None:
    assert claims_of(replace(ROW, method="tools/list", tool=None), TO, ISSUER, NOW)["tctx"] == {
        "server": "things",
        "method": "tools/list",
    }


def test_a_name_too_long_for_a_header_is_left_out_and_never_cut() -> None:
    name = "GET /" + "a" * MAX_TOOL
    assert "tool" not in claims_of(replace(ROW, tool=name), TO, ISSUER, NOW)["tctx"]
    assert claims_of(replace(ROW, tool=name[:MAX_TOOL]), TO, ISSUER, NOW)["tctx"]["tool"] == name[:MAX_TOOL]


def test_a_batch_names_its_decisions_and_no_tool() -> None:
    rows = [ROW, replace(ROW, event_id="0190a1b2-0000-7000-8000-000000000002", tool="drop_thing")]
    said = claims_of_batch(rows, TO, ISSUER, NOW)
    assert said["tctx"] == {"server": "things", "decisions": [row.event_id for row in rows]}
    assert said["jti"] not in {row.event_id for row in rows}
    assert "txn" not in said
    assert verified(ASSERTING.say_all(rows, NOW)) == said


def test_it_is_no_evidence_for_callerid_itself() -> None:
    """Even where a deployment lists another one as an issuer: explicit typing keeps the two apart."""
    key = ours.key_from_jwk(
        {**json.loads(pyjwt.algorithms.OKPAlgorithm.to_jwk(PRIVATE.public_key())), "kid": "k1"}
    )
    assert key is not None
    entry = made.issuer(issuer=ISSUER, audiences=(TO.audience,), algorithms=("EdDSA",), max_token_age=3600)
    found = ours.verify(ASSERTING.say(ROW, int(made.NOW.timestamp())), entry, ours.KeySet((key,)), made.NOW)
    assert isinstance(found, Rejected)
    assert found.reason is Reason.JWT_INVALID
    assert "typ" in found.detail


def test_at_another_server_it_fails_by_its_audience() -> None:
    with pytest.raises(pyjwt.InvalidAudienceError):
        verified(ASSERTING.say(ROW, NOW), audience="https://notes.corp.example/mcp")


# -- the property: nothing but what the row and the configuration say


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(
    principal=NAMES, agent=st.none() | NAMES, actors=st.lists(NAMES, max_size=5), tool=st.none() | TEXTS,
    method=TEXTS, server=TEXTS, issuer=st.none() | NAMES, assurance=st.sampled_from(("idp", "bearer")),
    now=st.integers(0, 4_000_000_000), ttl=st.integers(1, 60),
)  # fmt: skip
def test_the_assertion_never_says_more_than_the_row(
    principal: str, agent: str | None, actors: list[str], tool: str | None, method: str, server: str,
    issuer: str | None, assurance: str, now: int, ttl: int,
) -> None:  # fmt: skip
    row = replace(
        ROW, principal=f"user:{principal}", agent=agent, actors=tuple(actors), tool=tool, method=method,
        server=server, issuer=issuer, assurance=assurance,
    )  # fmt: skip
    to = replace(TO, ttl=ttl)
    token = Asserting(to, ASSERTING.signer).say(row, now)
    assert token.isascii()
    said = verified(token)
    assert (said.pop("iss"), said.pop("aud")) == (ISSUER, TO.audience)
    assert (said.pop("iat"), said.pop("nbf"), said.pop("exp")) == (now, now, now + ttl)
    of_the_row = [
        row.event_id, row.principal, row.agent, *row.actors, row.server, row.method, row.tool,
        row.issuer, row.assurance,
    ]  # fmt: skip
    assert all(leaf in of_the_row for leaf in leaves(said))
    assert said["tctx"].get("tool") == tool
    private = (
        row.client_ip,
        row.client_name,
        row.target,
        "private",
        row.injected,
        row.credential_id,
        row.rule,
    )
    assert not set(leaves(said)) & (set(private) - set(of_the_row))
