"""Carrier headers: what a value holds, and what must not leave."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.identity.carriers import Form, is_ours, read
from callerid.model import Carrier
from tests.unit.identity.made import ISSUER_URL, basic, bearer, claims, issuer, sign, token

ISSUERS = {ISSUER_URL: issuer()}
TOKEN = token(1)
SLIP = TOKEN[:-1] + ("a" if TOKEN[-1] != "a" else "b")
OURS = sign(claims(), which=9)
THEIRS = sign(claims(iss="https://idp.vendor.example"))
PROXY, AUTH, OWN = Carrier.PROXY_AUTHORIZATION, Carrier.AUTHORIZATION, Carrier.X_CALLERID_TOKEN
EVERY = (PROXY, AUTH, OWN)


def encoded(data: bytes) -> str:
    return "Basic " + base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("value", "where", "form"),
    [
        pytest.param(bearer(TOKEN), EVERY, Form.TOKEN, id="Bearer token"),
        pytest.param(f"bEARER   {TOKEN}  ", EVERY, Form.TOKEN, id="any case, more spaces"),
        pytest.param(basic("alice", TOKEN), EVERY, Form.TOKEN, id="Basic name:token"),
        pytest.param(basic(TOKEN, ""), EVERY, Form.TOKEN, id="Basic token:"),
        pytest.param(
            encoded(b"al\xefce:" + TOKEN.encode()), EVERY, Form.TOKEN, id="a name in another encoding"
        ),
        pytest.param(bearer(OURS), EVERY, Form.JWT, id="Bearer JWT of our issuer"),
        pytest.param(basic("ci", OURS), EVERY, Form.JWT, id="Basic name:JWT"),
        pytest.param(TOKEN, (OWN,), Form.TOKEN, id="the bare token in its own header"),
        pytest.param(OURS, (OWN,), Form.JWT, id="the bare JWT in its own header"),
        pytest.param(TOKEN, (PROXY, AUTH), Form.MALFORMED, id="a bare token elsewhere"),
        pytest.param(OURS, (PROXY, AUTH), Form.MALFORMED, id="a bare JWT elsewhere"),
        pytest.param(bearer(SLIP), EVERY, Form.MALFORMED, id="a slip in the token"),
        pytest.param(bearer("cid_"), EVERY, Form.MALFORMED, id="nothing but the prefix"),
        pytest.param(basic("alice", SLIP), EVERY, Form.MALFORMED, id="a slip in a Basic token"),
        pytest.param(
            f"{bearer(TOKEN)}, {basic('a', 'b')}", EVERY, Form.MALFORMED, id="two credentials in one value"
        ),
        pytest.param(f"Token {TOKEN}", EVERY, Form.MALFORMED, id="a token under an unknown word"),
        pytest.param(f"Bearer\t{TOKEN}", EVERY, Form.MALFORMED, id="a tab for the space"),
        pytest.param(basic(TOKEN, "x"), EVERY, Form.MALFORMED, id="a token for a name, with a password"),
        pytest.param(basic(TOKEN, TOKEN), EVERY, Form.TOKEN, id="the same token twice"),
        pytest.param(basic(TOKEN, token(2)), EVERY, Form.AMBIGUOUS, id="two tokens"),
        pytest.param(basic(TOKEN, SLIP), EVERY, Form.AMBIGUOUS, id="a token, and one with a slip"),
        pytest.param(basic(TOKEN, OURS), EVERY, Form.AMBIGUOUS, id="a token and a JWT"),
        pytest.param(basic(OURS, TOKEN), EVERY, Form.AMBIGUOUS, id="a JWT and a token"),
        pytest.param(basic(THEIRS, TOKEN), EVERY, Form.TOKEN, id="a JWT of somebody else for a name"),
    ],
)
def test_a_value_is_what_it_is_in_each_carrier(value: str, where: tuple[Carrier, ...], form: Form) -> None:
    assert {carrier: read(value, carrier, ISSUERS).form for carrier in where} == dict.fromkeys(where, form)


@pytest.mark.parametrize("value", [bearer(THEIRS), basic("ci", THEIRS)])
def test_a_jwt_of_an_unlisted_issuer_is_not_called_a_damaged_token(value: str) -> None:
    assert read(value, AUTH, ISSUERS).form is Form.FOREIGN
    assert read(value, PROXY, ISSUERS).form is Form.UNKNOWN
    assert read(value, OWN, ISSUERS).form is Form.UNKNOWN
    assert read(THEIRS, OWN, ISSUERS).form is Form.UNKNOWN
    assert not is_ours(value, ISSUERS)


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "Bearer",
        "Bearer ",
        "Basic",
        "Basic !!!!",
        "Basic YQ",
        "Bearer xyz",
        "xyz",
        basic("alice", "hunter2"),
        basic("alice", ""),
        basic("", ""),
        encoded(b"no colon"),
        "AWS4-HMAC-SHA256 Credential=A/b, SignedHeaders=host, Signature=c",
        "Bearer \udcff\ud800",
        "Bearer a.b.c",
        "Basic \u00e9",
    ],
)
def test_what_is_not_for_us_is_foreign_in_authorization_and_a_fault_in_our_own_carriers(value: str) -> None:
    assert read(value, AUTH, ISSUERS).form is Form.FOREIGN
    assert read(value, PROXY, ISSUERS).form is Form.MALFORMED
    assert read(value, OWN, ISSUERS).form is Form.MALFORMED
    assert not is_ours(value, ISSUERS)


@pytest.mark.parametrize(
    "value",
    [
        bearer(TOKEN),
        TOKEN,
        f"Token {TOKEN}",
        f"a, {TOKEN}; b",
        basic("alice", TOKEN),
        basic(TOKEN, "x"),
        bearer(SLIP),
        "cid_almost",
        basic("alice", SLIP),
        bearer(OURS),
        OURS,
        basic("ci", OURS),
        basic(OURS, "x"),
        bearer(sign(claims(aud=["other", "mcp-egress"]))),
        bearer(sign(claims(exp=1))),
    ],
)
def test_what_carries_evidence_for_us_never_leaves(value: str) -> None:
    assert is_ours(value, ISSUERS)


@pytest.mark.parametrize(
    "value", [bearer(THEIRS), bearer(sign(claims(aud="vendor-api"))), bearer(sign(claims(aud=None)))]
)
def test_a_jwt_that_is_made_for_somebody_else_is_not_ours_to_strip(value: str) -> None:
    assert not is_ours(value, ISSUERS)


@pytest.mark.parametrize("name", ["a", "ab", "abc", "alice"])
@pytest.mark.parametrize("secret", [TOKEN, OURS], ids=["token", "JWT"])
@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda text: f"Basic {text.rstrip('=')}", id="without its padding"),
        pytest.param(lambda text: f"Basic {text[:20]}.{text[20:]}", id="with another letter in it"),
        pytest.param(lambda text: f"Basic {text[:20]} {text[20:]}", id="with a blank in it"),
        pytest.param(lambda text: f"Basic\t{text}", id="behind a tab"),
        pytest.param(lambda text: f"basic   {text}===", id="with too much padding"),
        pytest.param(
            lambda text: f"Basic {text.replace('+', '-').replace('/', '_')}", id="in the alphabet for URLs"
        ),
        pytest.param(lambda text: f"a=b; session={text}; x=y", id="in a cookie"),
    ],
)
def test_what_a_lenient_server_would_read_never_leaves(write: Any, secret: str, name: str) -> None:
    value = write(base64.b64encode(f"{name}:{secret}".encode()).decode())
    assert is_ours(value, ISSUERS)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(max_codepoint=255), max_size=200))
def test_any_value_is_judged_and_other_base64_is_not_ours(text: str) -> None:
    assert not is_ours(f"Basic {text}", ISSUERS)
    assert not is_ours(f"a={base64.b64encode(text.encode()).decode()}", ISSUERS)


def test_a_credential_does_not_show_what_it_holds() -> None:
    assert TOKEN not in repr(read(bearer(TOKEN), AUTH, ISSUERS))
    for value in (bearer(SLIP), f"Token {TOKEN}"):
        assert "cid_" not in read(value, AUTH, ISSUERS).detail
