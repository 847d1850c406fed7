"""JWTs: the table of attacks, and what still has to pass."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from callerid.config import Issuer
from callerid.identity.jwks import parse_jwks
from callerid.identity.jwt import (
    MAX_TOKEN,
    JwtClaims,
    KeySet,
    key_from_jwk,
    names_audience,
    peek_claims,
    signed_digest,
    verify,
    wants_other_keys,
)
from callerid.model import Reason, Rejected
from tests.unit.identity.made import NOW, b64, claims, issuer, jwks, public_jwk, sign, signing_key

AT = int(NOW.timestamp())
KEYS = parse_jwks(
    jwks(public_jwk("ES256"), public_jwk("RS256", "k2"), public_jwk("EdDSA", "k3")), where="the test"
)


def judge(token: str, entry: Issuer | None = None, keys: KeySet = KEYS) -> JwtClaims | Rejected:
    return verify(token, entry or issuer(), keys, NOW)


def reason(answer: object) -> Reason | None:
    return answer.reason if isinstance(answer, Rejected) else None


def head(**changes: Any) -> dict[str, Any]:
    values = {"alg": "ES256", "typ": "JWT", "kid": "k1", **changes}
    return {name: value for name, value in values.items() if value is not None}


@pytest.mark.parametrize(("kind", "kid"), [("ES256", "k1"), ("RS256", "k2"), ("EdDSA", "k3")])
def test_a_good_token_passes_for_each_algorithm(kind: str, kid: str) -> None:
    answer = judge(sign(claims(), kind=kind, header=head(alg=kind, kid=kid)))
    assert isinstance(answer, JwtClaims)
    assert (answer.issuer, answer.subject, answer.actors) == ("corp-idp", "00u-alice", ())
    assert answer.credential_id == "jwt:corp-idp:j-1"
    assert answer.expires_us == (AT + 600 + 30) * 1_000_000


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(head(typ=None), id="without typ"),
        pytest.param(head(typ="at+jwt"), id="an access token (RFC 9068)"),
        pytest.param(head(typ="application/at+jwt"), id="an access token, spelled in full"),
        pytest.param(head(typ="jwt"), id="typ in lower case"),
        pytest.param(head(kid=None), id="without kid, one key of that algorithm"),
        pytest.param(head(jku="https://evil.example/jwks"), id="jku is not read"),
        pytest.param(head(x5u="https://evil.example/c", x5c=["AAAA"]), id="x5u and x5c are not read"),
        pytest.param(head(jwk=public_jwk("ES256", which=9)), id="an embedded jwk is not read"),
    ],
)
def test_headers_that_choose_nothing_do_no_harm(header: dict[str, Any]) -> None:
    assert isinstance(judge(sign(claims(), header=header)), JwtClaims)


def _hs256_with_the_public_key() -> str:
    pem = (
        signing_key("RS256")
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    signed = f"{b64(json.dumps(head(alg='HS256', kid='k2')).encode())}.{b64(json.dumps(claims()).encode())}"
    return f"{signed}.{b64(hmac.digest(pem, signed.encode(), hashlib.sha256))}"


def _none(alg: str) -> str:
    return f"{b64(json.dumps(head(alg=alg)).encode())}.{b64(json.dumps(claims()).encode())}."


FORGED = [
    pytest.param(_none("none"), id="alg none"),
    pytest.param(_none("None"), id="alg None"),
    pytest.param(_none("ES256"), id="no signature"),
    pytest.param(_hs256_with_the_public_key(), id="HS256 with the public key as the secret"),
    pytest.param(sign(claims(), which=9), id="another key under our kid"),
    pytest.param(sign(claims(), which=9, header=head(jwk=public_jwk(which=9))), id="an embedded jwk"),
    pytest.param(
        sign(claims(), which=9, header=head(kid="evil", jku="https://evil.example/jwks")),
        id="its own jku",
    ),
    pytest.param(sign(claims(), header=head(kid="../../../../dev/null")), id="kid as a path"),
    pytest.param(sign(claims(), header=head(kid="k1' OR '1'='1")), id="kid as SQL"),
    pytest.param(sign(claims(), header=head(kid=["k1"])), id="kid as a list"),
    pytest.param(sign(claims(), header=head(kid="k2")), id="a kid of another algorithm"),
    pytest.param(sign(claims(), header=head(alg="RS256")), id="alg of another key"),
    pytest.param(sign(claims(), header=head(alg=["ES256"])), id="alg as a list"),
    pytest.param(sign(claims(), header=head(alg=None)), id="no alg"),
    pytest.param(sign(claims(), header=head(crit=["exp"])), id="crit"),
    pytest.param(sign(claims(), header=head(crit=["b64"], b64=False)), id="an unencoded payload"),
    pytest.param(sign(claims(), header=head(crit=[])), id="an empty crit"),
    pytest.param(sign(claims(), header=head(crit=["b64"], b64=True)), id="a crit that the library knows"),
    pytest.param(sign(claims(), header=head(typ="dpop+jwt")), id="a DPoP proof"),
    pytest.param(sign(claims(), header=head(typ="oauth-id-jag+jwt")), id="an identity assertion grant"),
    pytest.param(sign(claims(), header=head(typ="logout+jwt")), id="a logout token"),
    pytest.param(sign(claims(), header=head(typ=7)), id="typ as a number"),
    pytest.param(sign(claims(), header=b'{"alg":"none","alg":"ES256","kid":"k1"}'), id="alg twice"),
    pytest.param(sign(claims(), header=b"[]"), id="a header that is no object"),
    pytest.param(sign(b'{"sub":"a","sub":"b"}'), id="sub twice"),
    pytest.param(
        sign(json.dumps(claims()).encode()[:-1] + b',"email":"bob@corp.example"}'), id="email twice"
    ),
    pytest.param(sign(b"[]"), id="claims that are no object"),
    pytest.param(sign(b""), id="no claims"),
    pytest.param(sign(claims()) + ".x", id="four parts"),
    pytest.param(sign(claims()).rpartition(".")[0], id="two parts"),
    pytest.param(sign(claims()) + "=", id="padding"),
    pytest.param(sign(claims()).replace(".", " ."), id="spaces"),
    pytest.param(sign(claims()).replace(".", "\0.", 1), id="a NUL in the header"),
    pytest.param(sign(claims()) + "\0", id="a NUL at the end"),
    pytest.param(sign(claims(), header=head(kid="k1\0")), id="a NUL in kid"),
    pytest.param(sign(claims(), header=head(typ="JWT\0")), id="a NUL in typ"),
    pytest.param(sign(claims(sub="a\0b")), id="a NUL in sub"),
    pytest.param(sign(claims(iss="https://login.corp.example\0")), id="a NUL in iss"),
    pytest.param(sign(claims(), header=head(b64=True)), id="b64 without crit"),
    pytest.param(sign(claims(note="x" * MAX_TOKEN)), id="huge"),
    pytest.param("", id="empty"),
    pytest.param("..", id="dots"),
    pytest.param("é.é.é", id="not ASCII"),
]


@pytest.mark.parametrize("token", FORGED)
def test_a_forged_token_is_no_evidence(token: str) -> None:
    assert reason(judge(token)) is Reason.JWT_INVALID


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"exp": None}, Reason.JWT_INVALID, id="no exp"),
        pytest.param({"iat": None}, Reason.JWT_INVALID, id="no iat"),
        pytest.param({"aud": None}, Reason.JWT_AUDIENCE, id="no aud"),
        pytest.param({"iss": None}, Reason.JWT_INVALID, id="no iss"),
        pytest.param({"sub": None}, Reason.JWT_INVALID, id="no sub"),
        pytest.param({"sub": ""}, Reason.JWT_INVALID, id="an empty sub"),
        pytest.param({"sub": 7}, Reason.JWT_INVALID, id="sub as a number"),
        pytest.param({"sub": "a\nb"}, Reason.JWT_INVALID, id="sub with a line end"),
        pytest.param({"iss": "https://evil.example"}, Reason.JWT_INVALID, id="another issuer"),
        pytest.param({"iss": "https://login.corp.example/"}, Reason.JWT_INVALID, id="almost the issuer"),
        pytest.param({"aud": "payroll"}, Reason.JWT_AUDIENCE, id="another audience"),
        pytest.param({"aud": ["mcp-egress", "payroll"]}, Reason.JWT_AUDIENCE, id="ours among others"),
        pytest.param({"aud": []}, Reason.JWT_AUDIENCE, id="an empty audience"),
        pytest.param({"aud": {"mcp-egress": 1}}, Reason.JWT_AUDIENCE, id="audience as an object"),
        pytest.param({"exp": AT - 31, "iat": AT - 600}, Reason.JWT_EXPIRED, id="expired"),
        pytest.param({"exp": AT - 30, "iat": AT - 600}, Reason.JWT_EXPIRED, id="expired by the leeway"),
        pytest.param({"iat": AT + 31}, Reason.JWT_INVALID, id="made in the future"),
        pytest.param({"nbf": AT + 31}, Reason.JWT_INVALID, id="not valid yet"),
        pytest.param({"iat": AT - 60, "exp": AT + 3541}, Reason.JWT_INVALID, id="made for too long"),
        pytest.param({"iat": AT + 20, "exp": AT + 10}, Reason.JWT_INVALID, id="ends before it begins"),
        pytest.param({"exp": str(AT + 600)}, Reason.JWT_INVALID, id="exp as a text"),
        pytest.param({"exp": True}, Reason.JWT_INVALID, id="exp as true"),
        pytest.param({"exp": 10**30}, Reason.JWT_INVALID, id="exp beyond all time"),
        pytest.param({"iat": -1}, Reason.JWT_INVALID, id="iat before all time"),
        pytest.param({"nbf": "now"}, Reason.JWT_INVALID, id="nbf as a text"),
        pytest.param({"act": "bot"}, Reason.JWT_INVALID, id="act as a text"),
        pytest.param({"act": {}}, Reason.JWT_INVALID, id="act without sub"),
        pytest.param({"act": {"sub": "a b"}}, Reason.JWT_INVALID, id="act with a sub that is no name"),
        pytest.param({"act": {"sub": "a", "act": None}}, Reason.JWT_INVALID, id="act that ends in null"),
    ],
)
def test_claims_that_are_not_in_order_are_refused(changes: dict[str, Any], expected: Reason) -> None:
    token = sign(claims(**changes))
    assert reason(judge(token)) is expected


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"aud": ["mcp-egress"]}, id="a list of our audience alone"),
        pytest.param({"exp": AT - 29, "iat": AT - 600}, id="expired within the leeway"),
        pytest.param({"iat": AT + 29}, id="made in the future, within the leeway"),
        pytest.param({"iat": AT - 60, "exp": AT + 3540}, id="made for exactly as long as allowed"),
        pytest.param({"exp": AT + 600.5}, id="a fraction of a second"),
    ],
)
def test_what_is_just_in_order_passes(changes: dict[str, Any]) -> None:
    assert isinstance(judge(sign(claims(**changes))), JwtClaims)


def _chain(depth: int) -> dict[str, Any]:
    act: dict[str, Any] = {"sub": f"a{depth}"}
    for number in range(depth - 1, 0, -1):
        act = {"sub": f"a{number}", "act": act}
    return act


def test_the_actors_are_read_with_the_current_one_first() -> None:
    answer = judge(sign(claims(act=_chain(5))))
    assert isinstance(answer, JwtClaims)
    assert answer.actors == ("a1", "a2", "a3", "a4", "a5")


@pytest.mark.parametrize("depth", [6, 40])
def test_a_longer_chain_of_actors_is_refused(depth: int) -> None:
    assert reason(judge(sign(claims(act=_chain(depth))))) is Reason.JWT_INVALID


def test_an_algorithm_that_the_issuer_does_not_list_is_refused() -> None:
    assert reason(judge(sign(claims()), issuer(algorithms=("RS256",)))) is Reason.JWT_INVALID


def test_a_symmetric_algorithm_is_refused_even_where_it_is_listed() -> None:
    assert reason(judge(_hs256_with_the_public_key(), issuer(algorithms=("HS256",)))) is Reason.JWT_INVALID


def test_without_a_kid_two_keys_of_one_algorithm_are_a_refusal() -> None:
    keys = parse_jwks(jwks(public_jwk("ES256"), public_jwk("ES256", "k4", 1)), where="the test")
    assert reason(judge(sign(claims(), header=head(kid=None)), keys=keys)) is Reason.JWT_INVALID


def test_two_keys_of_one_name_are_a_refusal() -> None:
    keys = parse_jwks(jwks(public_jwk("ES256"), public_jwk("ES256", "k1", 1)), where="the test")
    assert reason(judge(sign(claims()), keys=keys)) is Reason.JWT_INVALID


def test_a_refusal_for_its_dates_says_whose_token_it_was() -> None:
    answer = verify(sign(claims()), issuer(), KEYS, NOW + timedelta(hours=1))
    assert isinstance(answer, Rejected)
    assert (answer.reason, answer.subject) == (Reason.JWT_EXPIRED, "00u-alice")
    assert answer.credential_id == "jwt:corp-idp:j-1"


@pytest.mark.parametrize("jti", [None, 7, "a b", "x" * 600])
def test_without_a_usable_jti_the_id_is_of_the_tokens_hash(jti: object) -> None:
    token = sign(claims(jti=jti))
    answer = judge(token)
    assert isinstance(answer, JwtClaims)
    signed = token.rpartition(".")[0]
    assert answer.credential_id == f"jwt:corp-idp:{hashlib.sha256(signed.encode()).hexdigest()[:12]}"


def test_the_twin_of_a_signature_makes_no_other_token() -> None:
    """With (r, s) an ES256 signature (r, n - s) is good too: a block of the one must be a block of both."""
    token = sign(claims(jti=None))
    signed, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    twin = f"{signed}.{b64(raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32))}"
    first, second = judge(token), judge(twin)
    assert twin != token
    assert isinstance(first, JwtClaims)
    assert isinstance(second, JwtClaims)
    assert first.credential_id == second.credential_id
    assert signed_digest(token) == signed_digest(twin)


@pytest.mark.parametrize(
    "jwk",
    [
        pytest.param({"kty": "oct", "k": "AAAA", "kid": "k1", "alg": "HS256"}, id="a symmetric key"),
        pytest.param(public_jwk(use="enc"), id="for encryption"),
        pytest.param(public_jwk(key_ops=["encrypt"]), id="for other operations"),
        pytest.param(public_jwk(key_ops="verify"), id="operations as a text"),
        pytest.param(public_jwk(alg="ES512"), id="of another algorithm"),
        pytest.param(public_jwk("RS256", alg="HS256"), id="an RSA key for HS256"),
        pytest.param(public_jwk(crv="P-521"), id="on another curve"),
        pytest.param(public_jwk(crv=["P-256"]), id="curve as a list"),
        pytest.param(public_jwk(x="AAAA"), id="not on the curve"),
        pytest.param(public_jwk(x=7), id="a number for a coordinate"),
        pytest.param(public_jwk(kid=7), id="kid as a number"),
        pytest.param({"kty": "RSA", "kid": "k1"}, id="without its parts"),
        pytest.param({"kty": ["RSA"]}, id="type as a list"),
        pytest.param({}, id="empty"),
    ],
)
def test_a_key_that_cannot_verify_is_passed_over(jwk: dict[str, Any]) -> None:
    assert key_from_jwk(jwk) is None


def test_a_short_rsa_key_is_passed_over() -> None:
    numbers = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key().public_numbers()
    n = b64(numbers.n.to_bytes(128))
    assert key_from_jwk({"kty": "RSA", "n": n, "e": "AQAB", "kid": "k1"}) is None


def test_the_private_part_of_a_key_is_not_read() -> None:
    key = key_from_jwk(public_jwk(d="AAAA"))
    assert key is not None
    assert not hasattr(key.public.key, "private_numbers")


def test_peeking_says_what_is_claimed_and_proves_nothing() -> None:
    token = sign(claims(aud=["x", "mcp-egress"]), which=9)
    peeked = peek_claims(token)
    assert (peeked or {})["iss"] == "https://login.corp.example"
    assert peeked is not None
    assert names_audience(peeked, issuer())
    assert not names_audience({"aud": "x"}, issuer())
    assert not names_audience({}, issuer())
    assert peek_claims("x.y.z") is None
    assert peek_claims("a" * 20_000) is None


def test_an_unknown_kid_asks_for_other_keys() -> None:
    assert wants_other_keys(sign(claims(), header=head(kid="new")), KEYS)
    assert not wants_other_keys(sign(claims()), KEYS)
    assert not wants_other_keys(sign(claims(), header=head(kid=None)), KEYS)
    assert not wants_other_keys("x.y.z", KEYS)
