"""Sender constraint, from the request to the caller: bound tokens are good in their holder's hands only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from callerid.config import Identities, Issuer
from callerid.identity.authority import Authority
from callerid.identity.certificates import load_cas
from callerid.identity.dpop import Proofs
from callerid.identity.jwks import JwksStore
from callerid.identity.presented import Presented, RequestMark
from callerid.identity.registry import Registry
from callerid.model import Assurance, Caller, EvidenceKind, Reason, Rejected
from tests.unit.identity import made
from tests.unit.identity.made import ALICE, EMAIL, NOW, der
from tests.unit.identity.proving import HOLDER, URL, bound, proof, sent, thumbprint, x5t

ROOT = made.Authority()
LEAF, OTHER = der(ROOT.issue(EMAIL)), der(ROOT.issue(EMAIL))
BOBS = der(ROOT.issue(made.x509.RFC822Name("bob@corp.example")))
SELF_MADE = der(made.Authority("alice's laptop").certificate)
BY_KEY = bound()
BY_CERT = bound({"x5t#S256": x5t(LEAF)})
PLAIN = made.sign(made.claims())


class World:
    """One issuer, and a CA if ``with_ca``."""

    def __init__(self, folder: Path, *, with_ca: bool = True, **changes: Any) -> None:
        (folder / "jwks.json").write_bytes(made.jwks())
        self.registry = Registry.open(folder / "registry.db")
        self.issuer: Issuer = made.issuer(jwks_file=folder / "jwks.json", **changes)
        self.store = JwksStore((self.issuer,))
        self.store.refresh(NOW)
        self.cas = load_cas((made.client_ca(folder, ROOT),)) if with_ca else ()
        self.authority = self.anew()

    def anew(self, proofs: Proofs | None = None) -> Authority:
        identities = Identities(issuers=(self.issuer,))
        return Authority(identities, self.registry, self.store, self.cas, proofs=proofs)

    def __call__(self, presented: Presented, **later: float) -> Caller | Rejected:
        return self.authority.identify(presented, now=NOW + timedelta(**later))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made_world = World(tmp_path)
    yield made_world
    made_world.registry.close()


def refused(answer: object, *says: str, reason: Reason = Reason.JWT_PROOF) -> None:
    assert isinstance(answer, Rejected), answer
    assert (answer.reason, answer.subject) == (reason, "00u-alice"), answer
    assert answer.credential_id == "jwt:corp-idp:j-1"
    for text in says:
        assert text in answer.detail


def bound_to_alice(answer: object) -> None:
    assert isinstance(answer, Caller), answer
    assert (answer.principal.subject, answer.assurance) == (ALICE, Assurance.BOUND)
    assert answer.assurance_name == "bound"
    assert [piece.bound for piece in answer.evidence if piece.kind is EvidenceKind.JWT] == [True]


def test_a_token_that_is_bound_to_nothing_is_not_taken_for_bound(world: World) -> None:
    answer = world(sent(PLAIN, scheme="Bearer", inner_chain=(LEAF,)))
    assert isinstance(answer, Caller)
    assert {piece.kind: piece.bound for piece in answer.evidence} == {
        EvidenceKind.JWT: False,
        EvidenceKind.CLIENT_CERT: False,
    }


# -- keys (RFC 9449) ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ES256", "RS256", "EdDSA"])
def test_a_token_and_its_proof_are_bound_evidence(world: World, kind: str) -> None:
    token = bound({"jkt": thumbprint(kind)})
    bound_to_alice(world(sent(token, proof(token, kind=kind))))


def test_the_scheme_is_read_in_any_case(world: World) -> None:
    bound_to_alice(world(sent(BY_KEY, proof(BY_KEY), scheme="dpop")))


@pytest.mark.parametrize(
    ("presented", "says"),
    [
        (sent(BY_KEY), "missing"),
        (sent(BY_KEY, proof(BY_KEY), scheme="Bearer"), "send it as DPoP"),
        (sent(BY_KEY, scheme="Bearer"), "send it as DPoP"),
        (sent(BY_KEY, proof(BY_KEY, which=HOLDER + 1)), "another key"),
        (sent(BY_KEY, proof(BY_KEY, htm="GET")), "htm"),
        (sent(BY_KEY, proof(BY_KEY), method="DELETE"), "htm"),
        (sent(BY_KEY, proof(BY_KEY, htu="https://other.corp.example/mcp")), "htu"),
        (sent(BY_KEY, proof(BY_KEY), url="https://other.corp.example/mcp"), "htu"),
        (sent(BY_KEY, proof(BY_KEY), url=None), "htu"),
        (sent(BY_KEY, proof(PLAIN)), "ath"),
        (sent(BY_KEY, proof(BY_KEY, iat=int(NOW.timestamp()) - 91)), "just now"),
        (sent(BY_KEY, proof(BY_KEY, iat=int(NOW.timestamp()) + 31)), "just now"),
        (sent(BY_KEY, "garbage"), "read"),
        (sent(PLAIN, proof(PLAIN)), "bound to no key"),
        (sent(PLAIN), "bound to no key"),
        (sent(BY_CERT, proof(BY_CERT), inner_chain=(LEAF,)), "not to a key"),
    ],
)
def test_a_bound_token_without_its_proof_is_nothing(world: World, presented: Presented, says: str) -> None:
    refused(world(presented), says)


def test_two_proofs_are_ambiguous(world: World) -> None:
    good = proof(BY_KEY)
    refused(world(sent(BY_KEY, good, good)), "2 DPoP", reason=Reason.EVIDENCE_AMBIGUOUS)


@pytest.mark.parametrize("carrier", ["connect_proxy_authorization", "proxy_authorization", "callerid_token"])
def test_a_proof_at_the_proxy_is_not_taken(world: World, carrier: str) -> None:
    """A CONNECT opens a tunnel for many requests, and a proof is for one."""
    values = {carrier: (f"DPoP {BY_KEY}",), "dpop": (proof(BY_KEY, htm="CONNECT"),), "method": "CONNECT"}
    refused(world(Presented(**values, url=URL, mark=RequestMark())), "not at the proxy")


def test_a_scoped_token_is_not_sent_as_dpop(world: World) -> None:
    made.enter(world.registry, 1)
    answer = world(sent(made.token(1), proof(made.token(1))))
    assert isinstance(answer, Rejected)
    assert (answer.reason, "Bearer" in answer.detail) == (Reason.TOKEN_MALFORMED, True)
    assert isinstance(world(Presented(callerid_token=(made.token(1),), dpop=("x", "y"))), Caller)


def test_a_proof_is_used_up_by_its_request(world: World) -> None:
    first = sent(BY_KEY, proof(BY_KEY))
    bound_to_alice(world(first))
    for seconds in (0, 1, 60, 89):
        refused(world(replace(first, mark=RequestMark()), seconds=seconds), "used before")
    refused(world(replace(first, mark=None)), "used before")
    bound_to_alice(world(sent(BY_KEY, proof(BY_KEY, jti="p-2"))))


def test_the_request_itself_can_be_judged_again_and_again(world: World) -> None:
    """As an open stream is, long after its proof is too old for another one."""
    first = sent(BY_KEY, proof(BY_KEY))
    for seconds in (0, 1, 4, 6, 300, 600):
        bound_to_alice(world(first, seconds=seconds))
    refused(world(replace(first, mark=RequestMark()), seconds=600), "just now")
    answer = world(first, hours=1)
    assert isinstance(answer, Rejected)
    assert answer.reason is Reason.JWT_EXPIRED


def test_a_used_proof_stays_used_after_a_reload(world: World) -> None:
    first = sent(BY_KEY, proof(BY_KEY))
    bound_to_alice(world(first))
    world.authority = world.anew(world.authority.proofs)
    refused(world(replace(first, mark=RequestMark())), "used before")
    bound_to_alice(world(first))


def test_who_is_refused_for_another_reason_does_not_use_up_a_proof(world: World) -> None:
    late = bound(email=None)
    for _ in range(2):
        answer = world(sent(late, proof(late)))
        assert isinstance(answer, Rejected)
        assert answer.reason is Reason.JWT_INVALID
    assert len(world.authority.proofs) == 0


def test_in_reverse_mode_the_proof_names_us_by_an_audience_and_by_nothing_else(tmp_path: Path) -> None:
    """The name in the request is the sender's choice: a server that got a proof could come under its own."""
    audiences = ("mcp-egress", "https://mcp.corp.example")
    world = World(tmp_path, audiences=audiences)
    ours, theirs = "https://mcp.corp.example/mcp", "https://evil.example/mcp"
    bound_to_alice(world(sent(BY_KEY, proof(BY_KEY, htu=ours), reverse=True)))
    bound_to_alice(world(sent(BY_KEY, proof(BY_KEY, jti="p-2"), reverse=True)))
    refused(world(sent(BY_KEY, proof(BY_KEY, htu=theirs, jti="p-3"), reverse=True)), "htu")
    refused(world(sent(BY_KEY, proof(BY_KEY, htu=ours + "/x", jti="p-4"), reverse=True)), "htu")
    refused(world(sent(BY_KEY, proof(BY_KEY, htu=ours, jti="p-5"))), "htu")
    world.registry.close()


# -- certificates (RFC 8705) --------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["proxy_chain", "inner_chain"])
def test_a_token_and_its_certificate_are_bound_evidence(world: World, where: str) -> None:
    answer = world(sent(BY_CERT, scheme="Bearer", **{where: (LEAF,)}))
    bound_to_alice(answer)
    assert isinstance(answer, Caller)
    assert len(answer.evidence) == 2


@pytest.mark.parametrize(
    ("chains", "says"),
    [
        ({}, "did not show"),
        ({"proxy_chain": (OTHER,)}, "did not show"),
        ({"inner_chain": (OTHER, LEAF)}, "did not show"),
    ],
)
def test_a_token_of_another_certificate_is_nothing(
    world: World, chains: dict[str, tuple[bytes, ...]], says: str
) -> None:
    refused(world(sent(BY_CERT, scheme="Bearer", **chains)), says)


def test_the_remembered_caller_is_not_good_for_another_connection(world: World) -> None:
    bound_to_alice(world(sent(BY_CERT, scheme="Bearer", inner_chain=(LEAF,))))
    refused(world(sent(BY_CERT, scheme="Bearer")), "did not show")
    refused(world(sent(BY_CERT, scheme="Bearer", inner_chain=(OTHER,))), "did not show")


def test_a_forwarded_certificate_of_nobody_proves_nothing(world: World) -> None:
    header = f":{made.base64.b64encode(LEAF).decode()}:"
    refused(world(sent(BY_CERT, scheme="Bearer", client_cert=(header,))), "did not show")


def test_a_certificate_of_somebody_else_is_a_conflict_even_if_the_token_names_it(world: World) -> None:
    """Law 6: a certificate of our CAs is evidence of its own, and what disagrees is refused."""
    token = bound({"x5t#S256": x5t(BOBS)})
    answer = world(sent(token, scheme="Bearer", inner_chain=(BOBS,)))
    assert isinstance(answer, Rejected)
    assert answer.reason is Reason.IDENTITY_CONFLICT


def test_a_certificate_of_no_ca_of_ours_is_refused_where_there_are_any(world: World) -> None:
    token = bound({"x5t#S256": x5t(SELF_MADE)})
    answer = world(sent(token, scheme="Bearer", inner_chain=(SELF_MADE,)))
    assert isinstance(answer, Rejected)
    assert answer.reason is Reason.CERTIFICATE_UNTRUSTED


def test_without_client_cas_a_certificate_is_a_key_and_no_name(tmp_path: Path) -> None:
    """RFC 8705 section 2.2: self-signed certificates, known by the token alone."""
    world = World(tmp_path, with_ca=False)
    token = bound({"x5t#S256": x5t(SELF_MADE)})
    bound_to_alice(world(sent(token, scheme="Bearer", inner_chain=(SELF_MADE,))))
    refused(world(sent(token, scheme="Bearer", inner_chain=(LEAF,))), "did not show")
    refused(world(sent(token, scheme="Bearer", inner_chain=(b"",))), "did not show")
    world.registry.close()


# -- confirmations ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cnf",
    [
        {"x": 1}, {"jwk": made.public_jwk()}, {"kid": "k1"}, "jkt", 7, True, ["jkt"],
        {"x5t#S256": None}, {"x5t#S256": [x5t(LEAF)]}, {"x5t#S256": ""}, {"jkt": None}, {"jkt": [1]},
    ],
)  # fmt: skip
def test_a_confirmation_that_cannot_be_checked_is_not_given(world: World, cnf: Any) -> None:
    token = bound(cnf)
    for scheme in ("Bearer", "DPoP"):
        refused(world(sent(token, proof(token), scheme=scheme, inner_chain=(LEAF,))))


@pytest.mark.parametrize("cnf", ["null", "{}"])
def test_an_empty_confirmation_is_not_none(world: World, cnf: str) -> None:
    payload = made.json.dumps(made.claims())[:-1] + f',"cnf":{cnf}}}'
    refused(world(sent(made.sign(payload.encode()), scheme="Bearer")), "cannot be checked")


def test_both_confirmations_are_asked_for(world: World) -> None:
    token = bound({"jkt": thumbprint(), "x5t#S256": x5t(LEAF)})
    refused(world(sent(token, proof(token))), "certificate")
    refused(world(sent(token, scheme="Bearer", inner_chain=(LEAF,))), "DPoP")
    bound_to_alice(world(sent(token, proof(token), inner_chain=(LEAF,))))


def test_an_issuer_can_be_taken_with_bound_tokens_only(tmp_path: Path) -> None:
    world = World(tmp_path, sender_constrained=True)
    refused(world(sent(PLAIN, scheme="Bearer")), "bound to a key only")
    refused(world(sent(PLAIN, scheme="Bearer", inner_chain=(LEAF,))), "bound to a key only")
    bound_to_alice(world(sent(BY_KEY, proof(BY_KEY))))
    bound_to_alice(world(sent(BY_CERT, scheme="Bearer", proxy_chain=(LEAF,))))
    world.registry.close()
