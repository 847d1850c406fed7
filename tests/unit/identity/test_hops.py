"""Trusted hops: who may speak for whom, where, and what is never inherited from a connection."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callerid.config import Identities, TrustedHop
from callerid.identity.authority import Authority
from callerid.identity.certificates import load_cas
from callerid.identity.jwks import JwksStore
from callerid.identity.presented import Presented
from callerid.identity.registry import Registry
from callerid.model import Assurance, Caller, Carrier, Reason, Rejected
from tests.unit.identity import made
from tests.unit.identity.made import ALICE, BOB, EMAIL, NOW, NOW_US, bearer, der
from tests.unit.identity.proving import bound, x5t

ENVOY = "workload:spiffe://corp.example/envoy/branch"
SQUID = "workload:spiffe://corp.example/squid"
ROOT = made.Authority("Corp People CA")
MESH = made.Authority("Corp Mesh CA")


def spiffe(path: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(f"spiffe://corp.example/{path}")


ALICES, BOBS = ROOT.issue(EMAIL), ROOT.issue(x509.RFC822Name("bob@corp.example"))
GONE = ROOT.issue(EMAIL)
OLD = ROOT.issue(EMAIL, begins=NOW - timedelta(days=9), ends=NOW - timedelta(days=1))
ROGUE = made.Authority("Corp People CA").issue(EMAIL)
HOP = MESH.issue(spiffe("envoy/branch"), ends=NOW + timedelta(hours=1))
OLD_HOP = MESH.issue(spiffe("envoy/branch"), begins=NOW - timedelta(days=9), ends=NOW - timedelta(days=1))
FALSE_HOP = made.Authority("Corp Mesh CA").issue(spiffe("envoy/branch"))
OTHER_HOP = MESH.issue(spiffe("squid"))
NO_HOP = MESH.issue(spiffe("build/worker"))
TOKEN, BOBS_TOKEN, HOPS_TOKEN = made.token(1), made.token(2), made.token(3)


def sf(*certificates: x509.Certificate) -> str:
    return ", ".join(f":{base64.b64encode(der(certificate)).decode()}:" for certificate in certificates)


def xfcc(certificate: x509.Certificate) -> str:
    pem = quote(certificate.public_bytes(Encoding.PEM).decode(), safe="")
    return f'By=spiffe://corp.example/x;Hash={hashlib.sha256(der(certificate)).hexdigest()};Cert="{pem}"'


def says(certificate: x509.Certificate, header: str) -> dict[str, Any]:
    """The forwarded certificate in one of the two headers."""
    if header == "xfcc":
        return {"forwarded_client_cert": (xfcc(certificate),)}
    return {"client_cert": (sf(certificate),)}


PLACES: dict[str, Any] = {
    "absolute form over TLS to the proxy": lambda leaf: {"proxy_chain": (der(leaf),)},
    "inside of a tunnel": lambda leaf: {"inner_chain": (der(leaf),), "tunnel": True},
    "in reverse mode": lambda leaf: {"inner_chain": (der(leaf),), "reverse": True},
}
HEADERS = {"xfcc": Carrier.FORWARDED_CLIENT_CERT, "client-cert": Carrier.CLIENT_CERT_HEADER}


class World:
    def __init__(self, folder: Path) -> None:
        (folder / "jwks.json").write_bytes(made.jwks())
        self.registry = Registry.open(folder / "registry.db")
        made.enter(self.registry, 1)
        made.enter(self.registry, 2, principal=BOB)
        made.enter(self.registry, 3, principal=ENVOY)
        people = made.client_ca(folder, ROOT, id="people", crl=ROOT.crl(GONE))
        mesh = made.client_ca(folder, MESH, id="mesh", principal_from="san_uri")
        self.cas = load_cas((people, mesh))
        self.issuer = made.issuer(jwks_file=folder / "jwks.json")
        self.store = JwksStore((self.issuer,))
        self.store.refresh(NOW)
        self.hops: tuple[TrustedHop, ...] = (
            TrustedHop(id="envoy", subject=ENVOY, accept=("client-cert", "xfcc")),
            TrustedHop(id="squid", subject=SQUID, accept=("xfcc",)),
        )

    def authority(self) -> Authority:
        identities = Identities(issuers=(self.issuer,), trusted_hops=self.hops)
        return Authority(identities, self.registry, self.store, self.cas)

    def __call__(self, **presented: Any) -> Caller | Rejected:
        return self.authority().identify(Presented(**presented), now=NOW)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made_world = World(tmp_path)
    yield made_world
    made_world.registry.close()


def refused(answer: object, reason: Reason, *texts: str) -> None:
    assert isinstance(answer, Rejected), answer
    assert answer.reason is reason, answer
    for text in texts:
        assert text in answer.detail


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("place", PLACES)
def test_a_hop_speaks_for_the_caller_whose_certificate_it_saw(world: World, place: str, header: str) -> None:
    answer = world(**PLACES[place](HOP), **says(ALICES, header))
    assert isinstance(answer, Caller), answer
    assert (answer.principal.subject, answer.principal.issuer, answer.via) == (ALICE, "people", "envoy")
    assert answer.assurance is Assurance.BOUND
    [evidence] = answer.evidence
    assert evidence.carrier is HEADERS[header]
    assert evidence.credential_id == f"cert:{hashlib.sha256(der(ALICES)).hexdigest()[:16]}"
    assert answer.expires_us == NOW_US + 3_600_000_000, "the hop's own end counts"


@pytest.mark.parametrize(
    ("leaf", "reason"),
    [
        (OLD, Reason.CERTIFICATE_EXPIRED),
        (GONE, Reason.CERTIFICATE_REVOKED),
        (ROGUE, Reason.CERTIFICATE_UNTRUSTED),
    ],
    ids=["expired", "revoked", "of another CA"],
)
@pytest.mark.parametrize("header", HEADERS)
def test_what_a_hop_saw_is_verified_again(
    world: World, header: str, leaf: x509.Certificate, reason: Reason
) -> None:
    refused(world(**PLACES["in reverse mode"](HOP), **says(leaf, header)), reason)


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        (None, Reason.NO_EVIDENCE),
        (NO_HOP, None),
        (ALICES, None),
        (OLD_HOP, Reason.CERTIFICATE_EXPIRED),
        (FALSE_HOP, Reason.CERTIFICATE_UNTRUSTED),
    ],
    ids=["nobody", "a workload that is no hop", "a person", "an expired hop", "a hop of another CA"],
)
@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("place", PLACES)
def test_from_anybody_else_the_headers_are_claims(
    world: World, place: str, header: str, sender: x509.Certificate | None, expected: Reason | None
) -> None:
    shown = PLACES[place](sender) if sender is not None else {"tunnel": place == "inside of a tunnel"}
    answer = world(**shown, **says(BOBS, header))
    if expected is not None:
        refused(answer, expected)
        return
    assert isinstance(answer, Caller)
    assert answer.principal.subject in (ALICE, "workload:spiffe://corp.example/build/worker")
    assert answer.via is None


def test_who_is_carried_through_a_hops_tunnel_is_not_the_hop(world: World) -> None:
    """The TLS that the hop opened to us says nothing about who writes inside of the tunnel in it."""
    tunnel = {"proxy_chain": (der(HOP),), "tunnel": True}
    for header in HEADERS:
        refused(world(**tunnel, **says(BOBS, header)), Reason.NO_EVIDENCE, "hop envoy")
        answer = world(**tunnel, **says(BOBS, header), inner_chain=(der(ALICES),))
        assert isinstance(answer, Caller)
        assert (answer.principal.subject, answer.via) == (ALICE, "envoy")
        assert [evidence.carrier for evidence in answer.evidence] == [Carrier.INNER_TLS]


def test_a_hop_is_believed_in_its_own_headers_only(world: World) -> None:
    place = PLACES["in reverse mode"](OTHER_HOP)
    refused(world(**place, **says(BOBS, "client-cert")), Reason.NO_EVIDENCE)
    answer = world(**place, **says(ALICES, "xfcc"), **says(BOBS, "client-cert"))
    assert isinstance(answer, Caller)
    assert (answer.principal.subject, answer.via) == (ALICE, "squid")


def test_two_headers_must_name_one_certificate(world: World) -> None:
    place = PLACES["in reverse mode"](HOP)
    refused(world(**place, **says(ALICES, "xfcc"), **says(BOBS, "client-cert")), Reason.IDENTITY_CONFLICT)
    other = ROOT.issue(EMAIL)
    refused(world(**place, **says(ALICES, "xfcc"), **says(other, "client-cert")), Reason.IDENTITY_CONFLICT)
    answer = world(**place, **says(ALICES, "xfcc"), **says(ALICES, "client-cert"))
    assert isinstance(answer, Caller)
    assert len(answer.evidence) == 2


@pytest.mark.parametrize(
    "twice",
    [
        {"forwarded_client_cert": (xfcc(ALICES), xfcc(ALICES))},
        {"client_cert": (sf(ALICES), sf(ALICES))},
        {"client_cert": (sf(ALICES),), "client_cert_chain": (sf(ROOT.certificate), sf(ROOT.certificate))},
    ],
)
def test_a_header_that_is_there_twice_is_ambiguous(world: World, twice: dict[str, Any]) -> None:
    refused(world(**PLACES["in reverse mode"](HOP), **twice), Reason.EVIDENCE_AMBIGUOUS)


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"forwarded_client_cert": ("By=x;Hash=00;URI=spiffe://corp.example/agent/x",)}, "neither Cert"),
        ({"forwarded_client_cert": ("",)}, "list"),
        ({"forwarded_client_cert": (f"{xfcc(ALICES)},By=spiffe://corp.example/x",)}, "Hash"),
        ({"client_cert": ("alice",)}, "byte sequence"),
        ({"client_cert_chain": (sf(ROOT.certificate),)}, "without its certificate"),
    ],
)
def test_what_a_hop_says_without_a_certificate_is_refused(
    world: World, headers: dict[str, Any], text: str
) -> None:
    answer = world(**PLACES["in reverse mode"](HOP), **headers, authorization=(bearer(TOKEN),))
    refused(answer, Reason.CERTIFICATE_UNTRUSTED, text, "hop envoy")


def test_only_the_last_element_counts(world: World) -> None:
    header = f"{xfcc(BOBS)},{xfcc(ALICES)}"
    answer = world(**PLACES["in reverse mode"](HOP), forwarded_client_cert=(header,))
    assert isinstance(answer, Caller)
    assert answer.principal.subject == ALICE


# -- tokens behind a hop ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_behind_a_hop_each_request_names_its_own_caller(world: World, place: str) -> None:
    authority = world.authority()
    shown = PLACES[place](HOP)
    for token, subject in ((TOKEN, ALICE), (BOBS_TOKEN, BOB), (TOKEN, ALICE)):
        answer = authority.identify(Presented(**shown, authorization=(bearer(token),)), now=NOW)
        assert isinstance(answer, Caller), answer
        assert (answer.principal.subject, answer.via, len(answer.evidence)) == (subject, "envoy", 1)
        assert answer.assurance is Assurance.BEARER, "the hop's certificate proves nothing about the caller"
        answer = authority.identify(Presented(**shown), now=NOW)
        refused(answer, Reason.NO_EVIDENCE, "hop envoy does not say who is calling")


def test_a_token_and_the_forwarded_certificate_must_agree(world: World) -> None:
    place = PLACES["in reverse mode"](HOP)
    answer = world(**place, **says(ALICES, "xfcc"), authorization=(bearer(TOKEN),))
    assert isinstance(answer, Caller)
    assert len(answer.evidence) == 2
    refused(
        world(**place, **says(ALICES, "xfcc"), authorization=(bearer(BOBS_TOKEN),)), Reason.IDENTITY_CONFLICT
    )


@pytest.mark.parametrize("at", ["connect_proxy_authorization", "connect_callerid_token"])
def test_what_a_hop_brought_at_connect_is_nobodys_behind_it(world: World, at: str) -> None:
    inside = {"inner_chain": (der(HOP),), "tunnel": True}
    at_connect = {at: (bearer(TOKEN),)}
    refused(world(**inside, **at_connect), Reason.EVIDENCE_AMBIGUOUS, "with each request")
    refused(world(**inside, **at_connect, authorization=(bearer(TOKEN),)), Reason.EVIDENCE_AMBIGUOUS)
    answer = world(**inside, **{at: (bearer(HOPS_TOKEN),)}, authorization=(bearer(TOKEN),))
    assert isinstance(answer, Caller), answer
    assert answer.principal.subject == ALICE
    refused(world(**inside, **{at: (bearer(HOPS_TOKEN),)}), Reason.NO_EVIDENCE)


def test_a_hop_inside_of_somebodys_connection_is_ambiguous(world: World) -> None:
    inside = {"proxy_chain": (der(ALICES),), "inner_chain": (der(HOP),), "tunnel": True}
    refused(world(**inside), Reason.EVIDENCE_AMBIGUOUS, "somebody else opened")
    refused(world(**inside, authorization=(bearer(TOKEN),)), Reason.EVIDENCE_AMBIGUOUS)


def test_a_hop_behind_a_hop_is_no_caller(world: World) -> None:
    refused(world(**PLACES["in reverse mode"](HOP), **says(OTHER_HOP, "xfcc")), Reason.NO_EVIDENCE)
    answer = world(
        **PLACES["in reverse mode"](HOP), **says(OTHER_HOP, "xfcc"), authorization=(bearer(TOKEN),)
    )
    assert isinstance(answer, Caller)
    assert (answer.principal.subject, answer.via) == (ALICE, "envoy")


def test_a_bound_token_needs_the_callers_certificate_and_not_the_hops(world: World) -> None:
    place = PLACES["in reverse mode"](HOP)
    hops, alices = bound({"x5t#S256": x5t(der(HOP))}), bound({"x5t#S256": x5t(der(ALICES))})
    refused(world(**place, authorization=(bearer(hops),)), Reason.JWT_PROOF)
    refused(world(**place, authorization=(bearer(alices),)), Reason.JWT_PROOF)
    refused(world(**place, **says(BOBS, "xfcc"), authorization=(bearer(alices),)), Reason.JWT_PROOF)
    answer = world(**place, **says(ALICES, "xfcc"), authorization=(bearer(alices),))
    assert isinstance(answer, Caller)
    assert answer.principal.subject == ALICE


@pytest.mark.parametrize("blocked", [ENVOY, f"cert:{hashlib.sha256(der(HOP)).hexdigest()[:16]}"])
def test_a_blocked_hop_speaks_for_nobody(world: World, blocked: str) -> None:
    world.registry.block(blocked, now_us=NOW_US, by="ops")
    for more in (says(ALICES, "xfcc"), {"authorization": (bearer(TOKEN),)}, {}):
        refused(world(**PLACES["in reverse mode"](HOP), **more), Reason.PRINCIPAL_BLOCKED)


def test_a_refusal_names_the_hop_that_it_came_through(world: World) -> None:
    place = PLACES["in reverse mode"](HOP)
    world.registry.block(BOB, now_us=NOW_US, by="ops")
    for more in (
        {},
        says(BOBS, "xfcc"),
        says(OLD, "xfcc"),
        says(OTHER_HOP, "xfcc"),
        {"authorization": (bearer(made.token(9)),)},
        {"forwarded_client_cert": ("garbage",)},
        {**says(ALICES, "xfcc"), **says(BOBS, "client-cert")},
    ):
        answer = world(**place, **more)
        assert isinstance(answer, Rejected), more
        assert answer.via == "envoy", answer
    aside = world(inner_chain=(der(OLD),), reverse=True)
    assert isinstance(aside, Rejected)
    assert aside.via is None


def test_a_blocked_person_is_refused_behind_a_hop(world: World) -> None:
    world.registry.block(ALICE, now_us=NOW_US, by="ops")
    refused(world(**PLACES["in reverse mode"](HOP), **says(ALICES, "xfcc")), Reason.PRINCIPAL_BLOCKED)


def test_an_entry_that_is_taken_out_ends_the_trust(world: World) -> None:
    world.hops = world.hops[1:]
    answer = world(**PLACES["in reverse mode"](HOP), **says(ALICES, "xfcc"))
    assert isinstance(answer, Caller)
    assert (answer.principal.subject, answer.via) == (ENVOY, None)


# -- what is exchanged in somebody's name ----------------------------------------------------------------


JWT = made.sign(made.claims())
CONNECTED: dict[str, dict[str, Any]] = {
    "Proxy-Authorization": {"connect_proxy_authorization": (bearer(JWT),)},
    "X-Callerid-Token": {"connect_callerid_token": (JWT,)},
}


@pytest.mark.parametrize("shown", CONNECTED)
def test_the_jwt_of_a_person_in_a_tunnel_of_their_own_is_theirs_behind_a_hop_too(
    world: World, shown: str
) -> None:
    """The hop carries the tunnel, and the person opened it and speaks in it."""
    presented = Presented(proxy_chain=(der(OTHER_HOP),), tunnel=True, **CONNECTED[shown])
    authority = world.authority()
    caller = authority.identify(presented, now=NOW)
    assert isinstance(caller, Caller)
    assert (caller.principal.subject, caller.via, caller.spoken_for) == (ALICE, "squid", False)
    assert authority.jwt_of(presented, caller) == JWT
    alone = replace(presented, proxy_chain=())
    assert authority.jwt_of(alone, caller) == JWT


def test_a_token_of_a_person_in_a_tunnel_of_their_own_is_theirs_too(world: World) -> None:
    presented = Presented(proxy_chain=(der(OTHER_HOP),), tunnel=True, connect_callerid_token=(TOKEN,))
    authority = world.authority()
    caller = authority.identify(presented, now=NOW)
    assert isinstance(caller, Caller)
    assert authority.tokens_of(presented, caller) == (TOKEN,)


def test_what_a_hop_shows_for_its_own_tunnel_is_not_the_callers(world: World) -> None:
    """Both carriers are the same: only that the hop wrote the request tells them apart."""
    presented = Presented(
        **PLACES["inside of a tunnel"](HOP), connect_callerid_token=(HOPS_TOKEN,), callerid_token=(TOKEN,)
    )
    authority = world.authority()
    caller = authority.identify(presented, now=NOW)
    assert isinstance(caller, Caller)
    assert (caller.principal.subject, caller.spoken_for) == (ALICE, True)
    assert authority.tokens_of(presented, caller) == (TOKEN,)


# -- interleavings ------------------------------------------------------------------------------------

PEOPLE = {ALICE: (ALICES, TOKEN), BOB: (BOBS, BOBS_TOKEN)}
turns = st.lists(
    st.tuples(
        st.sampled_from(["nothing", "token", "xfcc", "client-cert", "both", "mixed", "junk"]),
        st.sampled_from([ALICE, BOB]),
        st.sampled_from(list(PLACES)),
    ),
    min_size=1,
    max_size=12,
)


@given(turns=turns)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nobody_inherits_anything_from_the_request_before(
    world: World, turns: list[tuple[str, str, str]]
) -> None:
    authority = world.authority()
    for number, (how, who, place) in enumerate(turns):
        leaf, token = PEOPLE[who]
        _, others = PEOPLE[BOB if who == ALICE else ALICE]
        carried: dict[str, Any] = {
            "nothing": {},
            "token": {"authorization": (bearer(token),)},
            "xfcc": says(leaf, "xfcc"),
            "client-cert": says(leaf, "client-cert"),
            "both": {**says(leaf, "xfcc"), "callerid_token": (token,)},
            "mixed": {**says(leaf, "client-cert"), "callerid_token": (others,)},
            "junk": {"forwarded_client_cert": ("Hash=0;URI=spiffe://corp.example/alice",)},
        }[how]
        presented = Presented(**PLACES[place](HOP), **carried)
        answer = authority.identify(presented, now=NOW + timedelta(seconds=number))
        if how in ("nothing", "mixed", "junk"):
            assert isinstance(answer, Rejected)
            expected = (Reason.NO_EVIDENCE, Reason.IDENTITY_CONFLICT, Reason.CERTIFICATE_UNTRUSTED)
            assert answer.reason is expected[("nothing", "mixed", "junk").index(how)]
        else:
            assert isinstance(answer, Caller)
            assert (answer.principal.subject, answer.via) == (who, "envoy")


# -- the digest ---------------------------------------------------------------------------------------

FIELDS = (
    "proxy_authorization", "connect_proxy_authorization", "authorization", "callerid_token",
    "connect_callerid_token", "dpop", "forwarded_client_cert", "client_cert", "client_cert_chain",
)  # fmt: skip


def test_whatever_is_presented_differently_has_another_digest() -> None:
    plain = Presented()
    made_of = [plain]
    made_of += [
        replace(plain, **{name: value}) for name, value in product(FIELDS, (("a",), ("a", "a"), ("b",)))
    ]
    made_of += [replace(plain, **{name: (b"a",)}) for name in ("proxy_chain", "inner_chain")]
    made_of += [replace(plain, tunnel=True), replace(plain, reverse=True), replace(plain, resource="a")]
    made_of += [replace(plain, client_ip="a")]
    assert len({one.digest() for one in made_of}) == len(made_of)
    for one in made_of[1:]:
        assert "b'a'" not in repr(one)
        assert "('a'" not in repr(one)
