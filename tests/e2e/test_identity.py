"""Who is calling, over the real proxy: tokens and JWTs by every carrier, and pieces that disagree.

Each test asks three witnesses: the upstream, the client and the row with its reason.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from tests.e2e import harness as h
from tests.e2e.house import ALICE, BOB, MALLORY, House, accepted, carried, post, refused, shown

# -- scoped tokens -------------------------------------------------------------------------------

TOKEN_CARRIERS = ("basic at CONNECT", "bearer at CONNECT", "x-token at CONNECT", "authorization", "x-token")
TOKEN_FLAWS = {
    "expired": "token_expired",
    "revoked": "token_revoked",
    "malformed": "token_malformed",
    "cut short": "token_malformed",
    "unknown": "token_unknown",
    "mallory": "principal_blocked",
    "foreign agent": "agent_not_permitted",
    "unregistered agent": "agent_not_permitted",
}
KNOWN = {
    "mallory": MALLORY,
    "foreign agent": ALICE,
    "unregistered agent": ALICE,
    "of somebody blocked": MALLORY,
    "with somebody else's agent": ALICE,
}
"""Whose evidence held, though callerid was told to refuse them: their rows are under their names."""


@pytest.mark.parametrize("carrier", [*TOKEN_CARRIERS, "basic in authorization"])
def test_a_good_token_names_its_caller_whatever_carries_it(house: House, carrier: str) -> None:
    token = house.tokens["with agent"]
    row = accepted(
        house.ask(**carried(token, carrier)), ALICE,
        assurance="bearer", issuer="local", agent="claude-code", credential_id=h.token_id(token),
    )  # fmt: skip
    [evidence] = json.loads(row["evidence"])
    assert evidence["kind"] == "scoped_token"
    assert evidence["carrier"] == (
        "proxy_authorization" if carrier in TOKEN_CARRIERS[:2]
        else "authorization" if "authorization" in carrier else "x_callerid_token"
    )  # fmt: skip


@pytest.mark.parametrize("carrier", TOKEN_CARRIERS)
@pytest.mark.parametrize("flaw", TOKEN_FLAWS)
def test_a_bad_token_is_refused_whatever_carries_it(house: House, carrier: str, flaw: str) -> None:
    token = house.tokens[flaw]
    known = KNOWN.get(flaw, "anonymous")
    row = refused(house.ask(**carried(token, carrier)), TOKEN_FLAWS[flaw], principal=known)
    assert row["assurance"] == ("bearer" if flaw in KNOWN else None)
    if flaw in KNOWN:
        assert row["claimed_subject"] is None
    if flaw not in ("malformed", "cut short", "unknown"):
        assert row["credential_id"] == h.token_id(token)
    assert token not in json.dumps(row)


@pytest.mark.parametrize("flaw", ["good", "expired", "malformed"])
@pytest.mark.parametrize("name", ["Proxy-Authorization", "Authorization", "X-Callerid-Token"])
def test_absolute_form_requests_are_identified_one_by_one(house: House, name: str, flaw: str) -> None:
    token = house.tokens[flaw]
    value = token if name.startswith("X") else f"Bearer {token}"
    tried = h.trial(house.proxy, house.plain)
    authority = f"localhost:{house.plain.port}"
    client = house.proxy.plain()
    client.send(post(authority, [(name, value)], f"http://{authority}/mcp"))
    tried.answer = client.read()
    client.close()
    if flaw != "good":
        refused(tried, TOKEN_FLAWS[flaw], server="lab")
        return
    assert tried.answer is not None
    assert tried.answer.text == "ran read_thing"
    [seen] = tried.seen
    assert b"cid_" not in seen.raw
    assert h.SECRET.encode() not in seen.raw
    assert seen.header(name) is None
    assert (tried.row["principal"], tried.row["injected"], tried.row["server"]) == (ALICE, None, "lab")


# -- JWTs ----------------------------------------------------------------------------------------

JWT_FLAWS: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"iat": 1_600_000_000, "exp": 1_600_000_600}, "jwt_expired"),
    "for another audience": ({"aud": "github"}, "jwt_audience"),
    "for two audiences": ({"aud": ["callerid", "github"]}, "jwt_audience"),
    "without an expiry": ({"exp": None}, "jwt_invalid"),
    "good for a year": ({"exp": 4_000_000_000}, "jwt_invalid"),
    "not valid yet": ({"iat": 4_000_000_000, "exp": 4_000_000_600}, "jwt_invalid"),
    "without a principal": ({"email": None}, "jwt_invalid"),
    "unsigned": ({"algorithm": "none"}, "jwt_invalid"),
    "signed by somebody else": ({"key": ec.generate_private_key(ec.SECP256R1())}, "jwt_invalid"),
    "signed in another algorithm": (
        {"key": generate_private_key(65537, 2048), "algorithm": "RS256"}, "jwt_invalid",
    ),
    "of somebody blocked": ({"email": "mallory@corp.example"}, "principal_blocked"),
    "with somebody else's agent": ({"agent": "ivys-helper"}, "agent_not_permitted"),
}  # fmt: skip


@pytest.mark.parametrize("carrier", TOKEN_CARRIERS)
def test_a_good_jwt_names_its_caller_whatever_carries_it(house: House, carrier: str) -> None:
    tried = house.ask(**carried(house.jwt(), carrier))
    accepted(tried, ALICE, issuer="corp-idp", assurance="idp", credential_id="jwt:corp-idp:j-1")


@pytest.mark.parametrize("carrier", ["basic at CONNECT", "authorization"])
@pytest.mark.parametrize("flaw", JWT_FLAWS)
def test_a_bad_jwt_is_refused(house: House, carrier: str, flaw: str) -> None:
    changes, reason = JWT_FLAWS[flaw]
    tried = house.ask(**carried(house.jwt(**changes), carrier))
    refused(tried, reason, principal=KNOWN.get(flaw, "anonymous"))


def test_a_jwt_with_a_changed_claim_is_refused(house: House) -> None:
    head, _, signature = house.jwt().split(".")
    _, body, _ = house.jwt(email="bob@corp.example").split(".")
    refused(house.ask(**carried(f"{head}.{body}.{signature}", "authorization")), "jwt_invalid")


def test_a_jwt_of_an_issuer_that_nobody_configured_names_nobody(house: House) -> None:
    foreign = house.jwt(iss="https://idp.evil.example/")
    refused(house.ask(**carried(foreign, "authorization")), "evidence_unrecognised")
    refused(house.ask(**carried(foreign, "bearer at CONNECT")), "evidence_unrecognised")


def test_a_revoked_jwt_is_refused_by_its_id(house: House) -> None:
    with h.registry(house.proxy) as registry:
        registry.block("jwt:corp-idp:stolen", now_us=1, by="tests")
    refused(house.ask(**carried(house.jwt(jti="stolen"), "authorization")), "principal_blocked")


# -- more than one piece of evidence -------------------------------------------------------------


def both(house: House, case: str) -> dict[str, Any]:
    """Pieces of evidence that are each good, and of which one is Bob's."""
    alice, bob = house.tokens["good"], house.tokens["bob"]
    bobs_jwt = house.jwt(email="bob@corp.example")
    cases: dict[str, dict[str, Any]] = {
        "token and certificate to the proxy": {
            **carried(alice, "basic at CONNECT"), **shown(house, "to the proxy", "bob")
        },
        "token and inner certificate": {**carried(alice, "authorization"), **shown(house, "inside", "bob")},
        "outer and inner certificate": {
            **shown(house, "to the proxy", "alice"), **shown(house, "inside", "bob")
        },
        "JWT and token": {**carried(alice, "basic at CONNECT"), **carried(bobs_jwt, "authorization")},
        "JWT and certificate": {**carried(bobs_jwt, "x-token"), **shown(house, "inside", "alice")},
        "tokens in two headers": {"inner": [("Authorization", f"Bearer {alice}"), ("X-Callerid-Token", bob)]},
        "tokens at CONNECT and inside": {
            **carried(bob, "bearer at CONNECT"), **carried(alice, "authorization")
        },
    }  # fmt: skip
    return cases[case]


@pytest.mark.parametrize(
    "case",
    [
        "token and certificate to the proxy",
        "token and inner certificate",
        "outer and inner certificate",
        "JWT and token",
        "JWT and certificate",
        "tokens in two headers",
        "tokens at CONNECT and inside",
    ],
)
def test_two_good_pieces_that_disagree_are_a_refusal(house: House, case: str) -> None:
    row = refused(house.ask(**both(house, case)), "identity_conflict")
    assert "alice" in row["detail"]
    assert "bob" in row["detail"]


def test_pieces_that_agree_add_up_to_the_strongest(house: House) -> None:
    token = house.tokens["with agent"]
    tried = house.ask(
        **carried(token, "basic at CONNECT"),
        **shown(house, "to the proxy", "alice"),
        **shown(house, "inside", "by intermediate"),
        inner=[("Authorization", f"Bearer {house.jwt()}")],
    )
    row = accepted(tried, ALICE, assurance="bound", agent="claude-code")
    assert [e["carrier"] for e in json.loads(row["evidence"])] == [
        "proxy_tls", "inner_tls", "proxy_authorization", "authorization",
    ]  # fmt: skip


def test_one_bad_piece_spoils_a_good_one(house: House) -> None:
    bad = carried(house.tokens["revoked"], "authorization")
    refused(house.ask(**bad, **carried(house.tokens["good"], "basic at CONNECT")), "token_revoked")


@pytest.mark.parametrize("name", ["Authorization", "X-Callerid-Token"])
def test_the_same_header_twice_is_ambiguous_even_if_equal(house: House, name: str) -> None:
    value = house.tokens["good"] if name.startswith("X") else f"Bearer {house.tokens['good']}"
    refused(house.ask(inner=[(name, value), (name, value)]), "evidence_ambiguous")


@pytest.mark.parametrize(
    "value", ["Bearer ghp_personal0123456789", "Basic " + base64.b64encode(b"alice:pw").decode(), "Bearer"]
)
def test_a_foreign_credential_alone_is_nobody_and_does_not_leave(house: House, value: str) -> None:
    refused(house.ask(inner=[("Authorization", value)]), "evidence_unrecognised")


def test_claims_are_recorded_and_never_believed(house: House) -> None:
    claims = [("User-Agent", ALICE), ("X-Forwarded-User", "alice"), ("X-Forwarded-Client-Cert", "By=alice")]
    row = refused(house.ask(inner=claims), "no_evidence")
    assert row["user_agent"] == ALICE
    accepted(house.ask(inner=[*claims, ("X-Callerid-Token", house.tokens["bob"])]), BOB)
    sent = {name.lower() for name, _ in house.upstream.seen[-1].headers}
    assert not sent & {"x-forwarded-user", "x-forwarded-client-cert", "x-callerid-token"}


def test_two_callers_on_one_kept_connection_are_told_apart(house: House) -> None:
    client = house.proxy.tunnel(house.authority)
    turns = [("good", ALICE), ("bob", BOB), ("good", ALICE), ("revoked", None), ("bob", BOB)]
    for name, principal in turns:
        tried = h.trial(house.proxy, house.upstream)
        client.send(post(house.authority, [("Authorization", f"Bearer {house.tokens[name]}")]))
        tried.answer = client.read()
        if principal is None:
            refused(tried, "token_revoked")
        else:
            accepted(tried, principal)
    tried = h.trial(house.proxy, house.upstream)
    client.send(post(house.authority, []))
    tried.answer = client.read()
    client.close()
    refused(tried, "no_evidence")


def test_the_evidence_of_a_tunnel_ends_with_it(house: House) -> None:
    accepted(house.ask(**carried(house.tokens["good"], "basic at CONNECT")), ALICE)
    refused(house.ask(), "no_evidence")


def test_a_block_takes_effect_at_the_next_request_of_an_open_connection(house: House) -> None:
    client = house.proxy.tunnel(house.authority, context=house.shows("bob"))
    for blocked in (False, True):
        if blocked:
            house.proxy.command("block", BOB)
        tried = h.trial(house.proxy, house.upstream)
        client.send(post(house.authority, []))
        tried.answer = client.read()
        if blocked:
            refused(tried, "principal_blocked", principal=BOB, assurance="bound", claimed_subject=None)
        else:
            accepted(tried, BOB)
    client.close()
    house.proxy.command("unblock", BOB)
    accepted(house.ask(context=house.shows("bob")), BOB)
