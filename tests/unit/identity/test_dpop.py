"""DPoP: what a proof must say, by which key, for which request, and that it is used once."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.identity import dpop
from callerid.identity.dpop import MAX_PROOF, PROOF_AGE_US, SKEW_US, Proof, Proofs, read_proof
from callerid.identity.jwt import verify_by_own_key
from callerid.identity.presented import RequestMark
from tests.unit.identity import made
from tests.unit.identity.made import NOW_US
from tests.unit.identity.proving import AT, HOLDER, URL, bound, proof, thumbprint

TOKEN = bound()


def read(text: str, **changes: Any) -> Proof | str:
    values: dict[str, Any] = {"token": TOKEN, "method": "POST", "urls": [URL], **changes}
    return read_proof(text, **values)


@pytest.mark.parametrize("kind", ["ES256", "RS256", "EdDSA"])
def test_a_good_proof_names_its_key(kind: str) -> None:
    found = read(proof(TOKEN, kind=kind))
    assert isinstance(found, Proof)
    assert (found.key, found.made_us) == (thumbprint(kind), AT * 1_000_000)


EXAMPLE = ".".join(
    (
        "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkR"
        "ZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQS"
        "IsImNydiI6IlAtMjU2In19",
        "eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3R"
        "va2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ",
        "2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg",
    )
)


def test_the_example_of_the_specification_is_read() -> None:
    """RFC 9449 sections 4.2 (the proof) and 6.1 (the thumbprint of its key)."""
    found = verify_by_own_key(EXAMPLE, "dpop+jwt")
    assert not isinstance(found, str)
    claims, key = found
    assert (claims["jti"], claims["htm"], claims["iat"]) == ("-BwC3ESc6acc2lTc", "POST", 1562262616)
    assert key == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


@pytest.mark.parametrize(
    "htu",
    [URL, URL + "?a=b#c", "HTTPS://Things.corp.example:443/mcp", "https://things.corp.example/%6dcp"],
)
def test_the_url_is_compared_in_one_spelling_without_its_query(htu: str) -> None:
    assert isinstance(read(proof(TOKEN, htu=htu)), Proof)
    assert isinstance(read(proof(TOKEN, htu=htu), urls=[None, URL + "?x=1"]), Proof)


def jwk(**changes: Any) -> dict[str, Any]:
    values = {**made.public_jwk("ES256", None, HOLDER), **changes}
    return {name: value for name, value in values.items() if value is not None}


def private() -> dict[str, Any]:
    key = made.signing_key("ES256", HOLDER)
    return dict(json.loads(made.pyjwt.get_algorithm_by_name("ES256").to_jwk(key)))


BAD = [
    pytest.param(proof(TOKEN, header={"typ": "JWT"}), "typ", id="an ordinary JWT"),
    pytest.param(proof(TOKEN, header={"typ": None}), "typ", id="no typ"),
    pytest.param(proof(TOKEN, header={"typ": ["dpop+jwt"]}), "typ", id="typ as a list"),
    pytest.param(TOKEN, "typ", id="the token itself"),
    pytest.param(proof(TOKEN, header={"alg": "none"}), "alg", id="alg none"),
    pytest.param(proof(TOKEN, header={"alg": "HS256"}), "alg", id="a symmetric alg"),
    pytest.param(proof(TOKEN, header={"alg": "RS256"}), "alg", id="alg of another key type"),
    pytest.param(proof(TOKEN, header={"alg": None}), "alg", id="no alg"),
    pytest.param(proof(TOKEN, header={"jwk": None}), "jwk", id="no key"),
    pytest.param(proof(TOKEN, header={"jwk": "k1"}), "jwk", id="a key by name"),
    pytest.param(proof(TOKEN, header={"jwk": private()}), "public", id="the private key"),
    pytest.param(proof(TOKEN, header={"jwk": {"kty": "oct", "k": "AAAA"}}), "jwk", id="a symmetric key"),
    pytest.param(proof(TOKEN, header={"jwk": jwk(kty="RSA")}), "jwk", id="another type of key"),
    pytest.param(proof(TOKEN, header={"jwk": jwk(crv="P-384")}), "jwk", id="another curve"),
    pytest.param(proof(TOKEN, header={"jwk": jwk(y=None)}), "jwk", id="half a key"),
    pytest.param(
        proof(TOKEN, header={"jwk": made.public_jwk("ES256", None, 21)}), "signature", id="another's key"
    ),
    pytest.param(proof(TOKEN, header={"crit": ["exp"]}), "extensions", id="crit"),
    pytest.param(proof(TOKEN, header={"b64": False}), "extensions", id="b64"),
    pytest.param(proof(TOKEN, header=b"[]"), "read", id="a header that is no object"),
    pytest.param(proof(TOKEN, payload=b"[]"), "claims", id="claims that are no object"),
    pytest.param(proof(TOKEN, payload=b'{"jti":"a","jti":"b"}'), "claims", id="jti twice"),
    pytest.param(proof(TOKEN)[:-8] + "AAAAAAAA", "signature", id="a broken signature"),
    pytest.param(proof(TOKEN, jti=None), "jti", id="no jti"),
    pytest.param(proof(TOKEN, jti=""), "jti", id="an empty jti"),
    pytest.param(proof(TOKEN, jti=7), "jti", id="jti as a number"),
    pytest.param(proof(TOKEN, jti="x" * 257), "jti", id="a jti of any length"),
    pytest.param(proof(TOKEN, iat=None), "iat", id="no iat"),
    pytest.param(proof(TOKEN, iat=str(AT)), "iat", id="iat as a text"),
    pytest.param(proof(TOKEN, iat=True), "iat", id="iat as true"),
    pytest.param(proof(TOKEN, iat=10**30), "iat", id="iat beyond all time"),
    pytest.param(proof(TOKEN, htm=None), "htm", id="no method"),
    pytest.param(proof(TOKEN, htm="GET"), "htm", id="another method"),
    pytest.param(proof(TOKEN, htm="post"), "htm", id="a method in lower case"),
    pytest.param(proof(TOKEN, htm="CONNECT"), "htm", id="made for CONNECT"),
    pytest.param(proof(TOKEN, htu=None), "htu", id="no URL"),
    pytest.param(proof(TOKEN, htu="https://evil.example/mcp"), "htu", id="another server"),
    pytest.param(proof(TOKEN, htu=URL + "/"), "htu", id="almost the URL"),
    pytest.param(proof(TOKEN, htu="https://things.corp.example/"), "htu", id="only its beginning"),
    pytest.param(proof(TOKEN, htu="http://things.corp.example/mcp"), "htu", id="another scheme"),
    pytest.param(proof(TOKEN, htu=[URL]), "htu", id="the URL as a list"),
    pytest.param(proof(TOKEN, ath=None), "ath", id="no hash of the token"),
    pytest.param(proof("another token"), "ath", id="the hash of another token"),
    pytest.param(proof(TOKEN, ath=thumbprint()), "ath", id="some other hash"),
    pytest.param(proof(TOKEN, note="x" * MAX_PROOF), "large", id="huge"),
    pytest.param("", "read", id="empty"),
    pytest.param("a.b.c", "read", id="garbage"),
    pytest.param("é.é.é", "read", id="not ASCII"),
]


@pytest.mark.parametrize(("text", "says"), BAD)
def test_a_proof_that_proves_something_else_is_none(text: str, says: str) -> None:
    found = read(text)
    assert isinstance(found, str)
    assert says in found


def test_the_url_that_was_expected_is_told_without_its_query_and_bounded() -> None:
    found = read(proof(TOKEN, htu="https://evil.example/mcp"), urls=[None, URL + "?x=1"])
    assert found == f"its htu is not the URL of the request, which is {URL}"
    assert len(str(read(proof(TOKEN), urls=[URL + "/" + "a" * 5000]))) < 300


def test_without_a_url_no_proof_fits() -> None:
    assert isinstance(read(proof(TOKEN), urls=[]), str)
    assert isinstance(read(proof(TOKEN), urls=[None]), str)
    assert isinstance(read(proof(TOKEN, htu="x"), urls=["x"]), str)


# -- once ---------------------------------------------------------------------------------------------


ALICE = "user:alice@corp.example"


def one(jti: str = "p-1", key: str = "k", made_us: int = NOW_US) -> Proof:
    return Proof(key=key, jti=jti.encode(), made_us=made_us)


def test_a_proof_is_good_for_one_request_and_stays_good_for_it() -> None:
    proofs, first, second = Proofs(), RequestMark(), RequestMark()
    assert proofs.admit(one(), first, NOW_US, ALICE) is None
    assert proofs.admit(one(), first, NOW_US, ALICE) is None
    assert proofs.admit(one(), first, NOW_US + 10**12, ALICE) is None
    assert proofs.admit(one(), second, NOW_US, ALICE) == "it was used before"
    assert proofs.admit(one(), None, NOW_US, ALICE) == "it was used before"
    assert proofs.admit(one(key="another"), second, NOW_US, ALICE) is None


def test_a_request_without_a_mark_is_never_the_same_one() -> None:
    proofs = Proofs()
    assert proofs.admit(one(), None, NOW_US, ALICE) is None
    assert proofs.admit(one(), None, NOW_US, ALICE) == "it was used before"


def test_a_mark_does_not_stand_for_another_proof() -> None:
    proofs, mark = Proofs(), RequestMark()
    assert proofs.admit(one("a"), None, NOW_US, ALICE) is None
    assert proofs.admit(one("b"), mark, NOW_US, ALICE) is None
    assert proofs.admit(one("a"), mark, NOW_US, ALICE) == "it was used before"


@pytest.mark.parametrize(
    ("away", "good"),
    [
        (-PROOF_AGE_US - SKEW_US, True),
        (-PROOF_AGE_US - SKEW_US - 1, False),
        (SKEW_US, True),
        (SKEW_US + 1, False),
    ],
)
def test_a_proof_is_of_this_minute(away: int, good: bool) -> None:
    fault = Proofs().admit(one(made_us=NOW_US + away), RequestMark(), NOW_US, ALICE)
    assert fault == (None if good else "it was not made just now")


def test_a_proof_is_not_forgotten_while_it_could_be_shown_again() -> None:
    """Made ahead of our clock by all that is allowed, it is the last one to be too old."""
    proofs = Proofs()
    early = one(made_us=NOW_US + SKEW_US)
    assert proofs.admit(early, None, NOW_US, ALICE) is None
    for after in range(0, PROOF_AGE_US + 3 * SKEW_US, 5_000_000):
        assert proofs.admit(early, None, NOW_US + after, ALICE) is not None
    assert len(proofs) <= 1


def test_what_is_too_old_is_forgotten() -> None:
    proofs = Proofs()
    for step in range(50):
        now = NOW_US + step * 10 * 60_000_000
        assert proofs.admit(one(f"p-{step}", f"k-{step}", now), None, now, ALICE) is None
        assert len(proofs) == 1
        assert len(proofs._used) == 1


def test_many_keys_of_one_holder_have_one_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpop, "PROOFS_PER_HOLDER", 3)
    proofs = Proofs()
    assert [proofs.admit(one(f"a-{n}", f"key-{n}"), None, NOW_US, ALICE) for n in range(3)] == [None] * 3
    assert "too many" in str(proofs.admit(one("a-3", "key-3"), None, NOW_US, ALICE))
    assert proofs.admit(one("b-0", "key-0"), None, NOW_US, "user:bob@corp.example") is None
    assert proofs.admit(one("a-0", "key-0"), None, NOW_US, ALICE) == "it was used before"
    later = NOW_US + PROOF_AGE_US + 2 * SKEW_US + 1
    assert proofs.admit(one("a-3", "key-3", later), None, later, ALICE) is None


def test_a_full_memory_is_shared_out_and_refuses_only_who_has_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten keys of each, as many proofs as there is room: who comes then is let in, and they are not."""
    monkeypatch.setattr(dpop, "PROOFS_PER_HOLDER", 50)
    monkeypatch.setattr(dpop, "PROOFS", 100)
    proofs = Proofs()
    for greedy in ("user:one", "user:two"):
        for n in range(50):
            assert proofs.admit(one(f"{greedy}-{n}", f"{greedy}-{n % 10}"), None, NOW_US, greedy) is None
    assert len(proofs) == 100
    others = [f"user:{n}" for n in range(20)]
    for n, other in enumerate(others):
        assert proofs.admit(one(f"o-{n}", other), None, NOW_US, other) is None
    for greedy in ("user:one", "user:two"):
        assert "too many" in str(proofs.admit(one("more", greedy), None, NOW_US, greedy))
    for n in range(1000):
        proofs.admit(one(f"more-{n}", others[0]), None, NOW_US, others[n % 20])
    assert len(proofs) <= 100 + 20 * (100 // 22)
    later = NOW_US + PROOF_AGE_US + 2 * SKEW_US + 1
    assert proofs.admit(one("again", "k", later), None, later, "user:one") is None
    assert (len(proofs), dict(proofs._held)) == (1, {"user:one": 1})


def test_a_request_that_is_over_is_not_remembered() -> None:
    proofs, mark = Proofs(), RequestMark()
    proofs.admit(one(), mark, NOW_US, ALICE)
    del mark
    gc.collect()
    assert len(proofs._admitted) == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.booleans()), max_size=60))
@settings(max_examples=100, deadline=None)
def test_no_two_requests_ever_share_a_proof(steps: list[tuple[int, int, bool]]) -> None:
    """Whatever the order and the time: each proof lets at most one request in."""
    proofs, now, owner = Proofs(), NOW_US, {}
    marks = [RequestMark() for _ in range(3)]
    for number, seconds, same in steps:
        now += seconds * 1_000_000
        mark = owner[number] if same and number in owner else marks[number % 3]
        shown = one(f"p-{number}")
        if proofs.admit(shown, mark, now, ALICE) is None:
            assert owner.setdefault(number, mark) is mark


@given(text=st.text(max_size=60) | st.binary(max_size=60).map(lambda b: f"{made.b64(b)}.{made.b64(b)}.x"))
@settings(max_examples=100, deadline=None)
def test_any_text_is_answered(text: str) -> None:
    assert isinstance(read(text), str)
