"""From everything that was presented to one caller, or to the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from callerid.config import Agent, Identities, Workload
from callerid.errors import StoreError
from callerid.identity.authority import Authority, Presented
from callerid.identity.certificates import load_cas
from callerid.identity.jwks import JwksStore
from callerid.identity.registry import Registry
from callerid.identity.tokens import digest as digest_of
from callerid.identity.tokens import token_id
from callerid.model import Assurance, Caller, Carrier, Ceiling, Evidence, EvidenceKind, Reason, Rejected
from tests.unit.identity import made
from tests.unit.identity.made import ALICE, BOB, DAY_US, EMAIL, NOW, NOW_US, SPIFFE, basic, bearer, der

ROOT = made.Authority()
LEAF = ROOT.issue(EMAIL)
BOBS_LEAF = ROOT.issue(x509.RFC822Name("bob@corp.example"))
OLD_LEAF = ROOT.issue(EMAIL, begins=NOW - timedelta(days=9), ends=NOW - timedelta(days=1))
GONE_LEAF = ROOT.issue(EMAIL)
ROGUE_LEAF = made.Authority().issue(EMAIL)
CLAUDE_LEAF = ROOT.issue(EMAIL, SPIFFE)

GOOD, EXPIRED, REVOKED, UNKNOWN, BOBS, CHILD, CLAUDES = range(1, 8)
TOKEN = made.token(GOOD)
SLIP = TOKEN[:-1] + ("a" if TOKEN[-1] != "a" else "b")
CI = made.issuer(
    id="github-actions",
    issuer="https://token.actions.example",
    require_claims={"owner": "corp", "protected": "true"},
    claims={"workload": "sub"},
    assurance="workload",
)
GROUPS = {
    "engineering": frozenset({"user:Alice@corp.example", BOB}),
    "support": frozenset({BOB}),
    "finance-leads": frozenset(),
}
IDENTITIES = Identities(
    issuers=(made.issuer(), CI),
    groups=GROUPS,
    workloads=(
        Workload(id="ci-docs", issuer="github-actions", match={"workload": "repo:corp/docs:*"}),
        Workload(id="ci-twice", issuer="github-actions", match={"workload": "repo:corp/twice:*"}),
        Workload(id="ci-twice-too", issuer="github-actions", match={"sub": "*twice*"}),
        Workload(id="ci-empty", issuer="github-actions", match={}),
        Workload(id="ci-other", issuer="another", match={"workload": "*"}),
    ),
)


def t(number: int) -> str:
    return token_id(digest_of(made.token(number)))


class World:
    """One registry, one issuer's keys, one CA; identities as the test wants them."""

    def __init__(self, folder: Path) -> None:
        (folder / "jwks.json").write_bytes(made.jwks())
        self.folder = folder
        self.registry = Registry.open(folder / "registry.db")
        made.enter(self.registry, GOOD)
        made.enter(self.registry, EXPIRED, created_us=NOW_US - 2 * DAY_US, expires_us=NOW_US)
        made.enter(self.registry, REVOKED)
        self.registry.revoke(t(REVOKED), now_us=NOW_US, by="ops")
        made.enter(self.registry, BOBS, principal=BOB)
        made.enter(self.registry, CHILD, parent=t(GOOD), agent="sub", servers=("github",), tools=("get_*",))
        made.enter(self.registry, CLAUDES, agent="claude-code")
        self.entry = made.client_ca(folder, ROOT, crl=ROOT.crl(GONE_LEAF), agent_from="san_uri")
        self.identities = IDENTITIES
        self.with_cas = True

    def authority(self) -> Authority:
        issuers = tuple(
            replace(entry, jwks_file=self.folder / "jwks.json") for entry in self.identities.issuers
        )
        store = JwksStore(issuers)
        store.refresh(NOW)
        cas = load_cas((self.entry,)) if self.with_cas else ()
        return Authority(replace(self.identities, issuers=issuers), self.registry, store, cas)

    def __call__(self, now: Any = NOW, **presented: Any) -> Caller | Rejected:
        return self.authority().identify(Presented(**presented), now=now)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made_world = World(tmp_path)
    yield made_world
    made_world.registry.close()


def reason(answer: object) -> Reason | None:
    return answer.reason if isinstance(answer, Rejected) else None


def good(answer: object) -> Caller:
    assert isinstance(answer, Caller), answer
    return answer


def ci(**changes: Any) -> str:
    return made.sign(
        made.claims(
            iss=CI.issuer,
            **{"sub": "repo:corp/docs:ref:refs/heads/main", "owner": "corp", "protected": True, **changes},
        )
    )


JWT = made.sign(made.claims())

# -- every piece in every carrier --------------------------------------------------------------------

PIECES = [
    pytest.param(TOKEN, None, id="a good token"),
    pytest.param(made.token(EXPIRED), Reason.TOKEN_EXPIRED, id="an expired token"),
    pytest.param(made.token(REVOKED), Reason.TOKEN_REVOKED, id="a revoked token"),
    pytest.param(made.token(UNKNOWN), Reason.TOKEN_UNKNOWN, id="a token of nobody"),
    pytest.param(SLIP, Reason.TOKEN_MALFORMED, id="a token with a slip"),
    pytest.param(JWT, None, id="a good JWT"),
    pytest.param(
        made.sign(made.claims(exp=1_700_000_000, iat=1_699_999_000)), Reason.JWT_EXPIRED, id="an old JWT"
    ),
    pytest.param(made.sign(made.claims(aud="payroll")), Reason.JWT_AUDIENCE, id="a JWT for another service"),
    pytest.param(made.sign(made.claims(), which=9), Reason.JWT_INVALID, id="a forged JWT"),
    pytest.param(made.sign(made.claims(email=None)), Reason.JWT_INVALID, id="a JWT without the mapped claim"),
    pytest.param(
        made.sign(made.claims(email="a b")), Reason.JWT_INVALID, id="a JWT with a name that is none"
    ),
]
CARRIERS = {
    "connect_proxy_authorization": (bearer, lambda text: basic("alice", text)),
    "proxy_authorization": (bearer, lambda text: basic("alice", text)),
    "authorization": (bearer, lambda text: basic("", text)),
    "callerid_token": (str, bearer),
}


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize(("piece", "expected"), PIECES)
def test_a_piece_is_judged_alike_in_every_carrier(
    world: World, carrier: str, piece: str, expected: Reason | None
) -> None:
    for write in CARRIERS[carrier]:
        answer = world(**{carrier: (write(piece),)})
        assert reason(answer) is expected
        if expected is None:
            assert good(answer).principal.subject == ALICE


@pytest.mark.parametrize("carrier", ["proxy_chain", "inner_chain"])
@pytest.mark.parametrize(
    ("leaf", "expected"),
    [
        pytest.param(LEAF, None, id="a good certificate"),
        pytest.param(OLD_LEAF, Reason.CERTIFICATE_EXPIRED, id="an expired one"),
        pytest.param(GONE_LEAF, Reason.CERTIFICATE_REVOKED, id="a revoked one"),
        pytest.param(ROGUE_LEAF, Reason.CERTIFICATE_UNTRUSTED, id="one of another CA"),
    ],
)
def test_a_certificate_is_judged_alike_on_both_connections(
    world: World, carrier: str, leaf: x509.Certificate, expected: Reason | None
) -> None:
    assert reason(world(**{carrier: (der(leaf),)})) is expected
    both = world(**{carrier: (der(leaf),)}, connect_proxy_authorization=(bearer(TOKEN),))
    assert reason(both) is expected


@pytest.mark.parametrize("other", CARRIERS)
@pytest.mark.parametrize(("piece", "expected"), [piece for piece in PIECES if piece.values[1] is not None])
def test_a_bad_piece_refuses_whatever_good_one_is_beside_it(
    world: World, other: str, piece: str, expected: Reason
) -> None:
    for carrier in CARRIERS:
        if carrier != other:
            answer = world(**{carrier: (bearer(piece),), other: (bearer(TOKEN),)}, proxy_chain=(der(LEAF),))
            assert reason(answer) is expected


# -- what is and is not evidence ---------------------------------------------------------------------


def test_nothing_is_no_evidence(world: World) -> None:
    assert reason(world()) is Reason.NO_EVIDENCE


def test_an_authorization_for_somebody_else_is_not_evidence_and_does_no_harm(world: World) -> None:
    foreign = bearer("ghp_somebody_elses")
    assert reason(world(authorization=(foreign,))) is Reason.EVIDENCE_UNRECOGNISED
    assert reason(world(authorization=("",))) is Reason.EVIDENCE_UNRECOGNISED
    caller = good(world(authorization=(foreign,), connect_proxy_authorization=(bearer(TOKEN),)))
    assert [piece.carrier for piece in caller.evidence] == [Carrier.PROXY_AUTHORIZATION]


@pytest.mark.parametrize("carrier", ["connect_proxy_authorization", "proxy_authorization", "callerid_token"])
def test_nothing_is_foreign_in_our_own_carriers(world: World, carrier: str) -> None:
    answer = world(**{carrier: (bearer("ghp_x"),)}, authorization=(bearer(TOKEN),))
    assert reason(answer) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize("carrier", CARRIERS)
def test_two_instances_of_a_header_are_ambiguous_even_if_they_are_equal(world: World, carrier: str) -> None:
    values = (bearer(TOKEN), bearer(TOKEN))
    assert reason(world(**{carrier: values})) is Reason.EVIDENCE_AMBIGUOUS
    assert reason(world(**{carrier: values}, proxy_chain=(der(ROGUE_LEAF),))) is Reason.EVIDENCE_AMBIGUOUS


def test_a_certificate_is_no_evidence_where_no_ca_is_configured(world: World) -> None:
    world.with_cas = False
    assert reason(world(proxy_chain=(der(LEAF),))) is Reason.NO_EVIDENCE
    assert good(world(proxy_chain=(b"junk",), authorization=(bearer(TOKEN),))).assurance_name == "bearer"


@pytest.mark.parametrize("carrier", ["connect_proxy_authorization", "proxy_authorization", "authorization"])
@pytest.mark.parametrize("other", [BOBS, REVOKED, UNKNOWN])
def test_two_tokens_in_one_basic_value_are_a_refusal_and_no_choice(
    world: World, carrier: str, other: int
) -> None:
    for pair in ((TOKEN, made.token(other)), (made.token(other), TOKEN)):
        answer = world(**{carrier: (basic(*pair),)})
        assert isinstance(answer, Rejected)
        assert answer.reason is Reason.EVIDENCE_AMBIGUOUS
    assert good(world(**{carrier: (basic(TOKEN, TOKEN),)})).principal.subject == ALICE


def test_the_name_in_basic_is_a_claim_and_changes_nothing(world: World) -> None:
    caller = good(world(connect_proxy_authorization=(basic("bob@corp.example", TOKEN),)))
    assert caller.principal.subject == ALICE


# -- agreement ---------------------------------------------------------------------------------------


def test_all_pieces_together_make_one_caller(world: World) -> None:
    caller = good(
        world(
            connect_proxy_authorization=(basic("alice", TOKEN),),
            authorization=(bearer(JWT),),
            proxy_chain=(der(LEAF),),
            inner_chain=(der(LEAF),),
        )
    )
    certificate = f"cert:{LEAF.fingerprint(hashes.SHA256()).hex()[:16]}"
    assert (caller.principal.subject, caller.principal.issuer) == (ALICE, "device-ca")
    assert (caller.assurance, caller.assurance_name) == (Assurance.BOUND, "bound")
    assert caller.credential_id == certificate
    assert caller.evidence == (
        Evidence(kind=EvidenceKind.CLIENT_CERT, carrier=Carrier.PROXY_TLS, credential_id=certificate),
        Evidence(kind=EvidenceKind.CLIENT_CERT, carrier=Carrier.INNER_TLS, credential_id=certificate),
        Evidence(kind=EvidenceKind.SCOPED_TOKEN, carrier=Carrier.PROXY_AUTHORIZATION, credential_id=t(GOOD)),
        Evidence(kind=EvidenceKind.JWT, carrier=Carrier.AUTHORIZATION, credential_id="jwt:corp-idp:j-1"),
    )
    assert caller.expires_us == (int(NOW.timestamp()) + 630) * 1_000_000
    assert caller.groups == {"engineering"}


@pytest.mark.parametrize(
    ("presented", "name", "issuer", "credential"),
    [
        ({"authorization": (bearer(TOKEN),)}, "bearer", "local", t(GOOD)),
        ({"authorization": (bearer(JWT),)}, "idp", "corp-idp", "jwt:corp-idp:j-1"),
        ({"authorization": (bearer(ci()),)}, "workload", "github-actions", "jwt:github-actions:j-1"),
        (
            {"authorization": (bearer(JWT),), "callerid_token": (TOKEN,)},
            "idp",
            "corp-idp",
            "jwt:corp-idp:j-1",
        ),
    ],
)
def test_the_strongest_piece_gives_its_name(
    world: World, presented: dict[str, Any], name: str, issuer: str, credential: str
) -> None:
    caller = good(world(**presented))
    assert caller.assurance_name == name
    assert caller.principal.issuer == issuer
    assert caller.credential_id == credential
    assert caller.assurance == (Assurance.BEARER if name == "bearer" else Assurance.IDP)


@pytest.mark.parametrize(
    "presented",
    [
        pytest.param(
            {"authorization": (bearer(TOKEN),), "callerid_token": (made.token(BOBS),)}, id="two tokens"
        ),
        pytest.param(
            {
                "connect_proxy_authorization": (bearer(TOKEN),),
                "proxy_authorization": (bearer(made.token(BOBS)),),
            },
            id="the CONNECT and the request",
        ),
        pytest.param(
            {"authorization": (bearer(JWT),), "callerid_token": (made.token(BOBS),)}, id="JWT and token"
        ),
        pytest.param(
            {"authorization": (bearer(TOKEN),), "proxy_chain": (der(BOBS_LEAF),)}, id="token and certificate"
        ),
        pytest.param({"inner_chain": (der(LEAF),), "proxy_chain": (der(BOBS_LEAF),)}, id="two certificates"),
        pytest.param(
            {"authorization": (bearer(ci()),), "callerid_token": (TOKEN,)}, id="a person and a workload"
        ),
        pytest.param(
            {"authorization": (bearer(made.token(CHILD)),), "callerid_token": (made.token(CLAUDES),)},
            id="two agents of one person",
        ),
        pytest.param(
            {"authorization": (bearer(made.token(CHILD)),), "proxy_chain": (der(CLAUDE_LEAF),)},
            id="another agent in the certificate",
        ),
        pytest.param(
            {
                "authorization": (bearer(made.sign(made.claims(azp="x", act={"sub": "a"}))),),
                "callerid_token": (made.sign(made.claims(azp="x", act={"sub": "b"})),),
            },
            id="two chains of actors",
        ),
    ],
)
def test_pieces_that_disagree_are_a_refusal_and_not_a_choice(world: World, presented: dict[str, Any]) -> None:
    assert reason(world(**presented)) is Reason.IDENTITY_CONFLICT


def test_a_piece_that_names_no_agent_does_not_contradict_one_that_does(world: World) -> None:
    caller = good(world(authorization=(bearer(made.token(CLAUDES)),), proxy_chain=(der(LEAF),)))
    assert caller.agent == "claude-code"
    caller = good(world(authorization=(bearer(made.token(CLAUDES)),), proxy_chain=(der(CLAUDE_LEAF),)))
    assert caller.agent == "claude-code"


# -- names out of claims -----------------------------------------------------------------------------


def test_one_address_in_two_spellings_is_one_person(world: World) -> None:
    shouted = made.sign(made.claims(email="ALICE@Corp.example"))
    assert good(world(authorization=(bearer(shouted),), callerid_token=(TOKEN,))).principal.subject == ALICE


def test_groups_come_from_the_file_and_from_claims_that_name_a_declared_group(world: World) -> None:
    token = made.sign(made.claims(groups=["finance-leads", "root", 7, None]))
    assert good(world(authorization=(bearer(token),))).groups == {"engineering", "finance-leads"}
    token = made.sign(made.claims(groups="support"))
    assert good(world(authorization=(bearer(token),))).groups == {"engineering", "support"}
    assert good(world(authorization=(bearer(TOKEN),))).groups == {"engineering"}


def test_a_workload_is_known_by_its_claims(world: World) -> None:
    caller = good(world(authorization=(bearer(ci()),)))
    assert caller.principal.subject == "workload:ci-docs"
    assert caller.agent is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"sub": "repo:corp/docs-evil:x"}, Reason.WORKLOAD_UNKNOWN, id="no workload matches"),
        pytest.param({"sub": "repo:corp/twice:x"}, Reason.WORKLOAD_UNKNOWN, id="two workloads match"),
        pytest.param({"owner": "evil"}, Reason.JWT_INVALID, id="a required claim differs"),
        pytest.param({"owner": None}, Reason.JWT_INVALID, id="a required claim is missing"),
        pytest.param({"owner": ["corp"]}, Reason.JWT_INVALID, id="a required claim is a list"),
        pytest.param({"protected": False}, Reason.JWT_INVALID, id="false for true"),
        pytest.param({"protected": 1}, Reason.JWT_INVALID, id="a number for true"),
    ],
)
def test_a_workload_that_does_not_match_is_nobody(
    world: World, changes: dict[str, Any], expected: Reason
) -> None:
    answer = world(authorization=(bearer(ci(**changes)),))
    assert reason(answer) is expected
    assert isinstance(answer, Rejected)
    assert answer.credential_id == "jwt:github-actions:j-1"


def test_an_issuer_that_maps_only_a_workload_never_makes_a_person(world: World) -> None:
    world.identities = replace(IDENTITIES, issuers=(replace(CI, assurance="idp"),))
    caller = good(world(authorization=(bearer(ci()),)))
    assert (caller.principal.subject, caller.assurance_name) == ("workload:ci-docs", "idp")


def test_what_became_too_old_is_seen_and_nobody_is_remembered_by_it(world: World) -> None:
    """The list of the CA ends an hour from now, and keys are good for a day after they were seen."""
    authority = world.authority()
    before = authority.lapsed(NOW)
    assert authority.lapsed(NOW + timedelta(minutes=59)) == before == 0
    stale = authority.lapsed(NOW + timedelta(hours=1))
    assert stale != before
    assert authority.lapsed(NOW + timedelta(hours=48)) not in (stale, before)
    shown, end = Presented(proxy_chain=(der(LEAF),)), NOW + timedelta(hours=1)
    assert reason(authority.identify(shown, now=end - timedelta(seconds=1))) is None
    assert reason(authority.identify(shown, now=end)) is Reason.CERTIFICATE_UNTRUSTED


def test_the_actors_are_kept_and_the_current_one_is_the_agent(world: World) -> None:
    act = {"sub": "planner", "act": {"sub": "assistant"}}
    caller = good(world(authorization=(bearer(made.sign(made.claims(act=act))),)))
    assert (caller.agent, caller.actors) == ("planner", ("planner", "assistant"))
    caller = good(world(authorization=(bearer(made.sign(made.claims(act=act, azp="claude-code"))),)))
    assert (caller.agent, caller.actors) == ("claude-code", ("planner", "assistant"))


@pytest.mark.parametrize("azp", [7, "", "a b", ["x"]])
def test_an_agent_claim_that_is_no_name_is_refused(world: World, azp: object) -> None:
    assert reason(world(authorization=(bearer(made.sign(made.claims(azp=azp))),))) is Reason.JWT_INVALID


# -- keys --------------------------------------------------------------------------------------------


def test_without_keys_a_jwt_is_refused_for_that_reason(world: World) -> None:
    authority = world.authority()
    answer = authority.identify(Presented(authorization=(bearer(JWT),)), now=NOW + timedelta(hours=25))
    assert reason(answer) is Reason.JWT_KEYS_UNAVAILABLE


def test_an_unknown_kid_is_refused_and_makes_the_keys_due(tmp_path: Path, world: World) -> None:
    entry = made.issuer(jwks_file=None, jwks_url="https://login.corp.example/keys")
    store = JwksStore((entry,), lambda _: made.jwks())
    store.refresh(NOW)
    authority = Authority(Identities(issuers=(entry,)), world.registry, store, ())
    soon = NOW + timedelta(seconds=40)
    assert not store.due(soon)
    forged = made.sign(made.claims(), header={"alg": "ES256", "kid": "new"})
    answer = authority.identify(Presented(authorization=(bearer(forged),)), now=NOW)
    assert reason(answer) is Reason.JWT_INVALID
    assert store.due(soon)


# -- agents and ceilings -----------------------------------------------------------------------------

AGENTS = {
    "claude-code": Agent(name="claude-code", kind="assistant", owners=("group:engineering",)),
    "refund-bot": Agent(name="refund-bot", kind="autonomous", owners=(BOB,), servers=("shop",)),
    "sub": Agent(
        name="sub", kind="assistant", owners=("user:Alice@corp.example",), tools=("get_*", "list_*")
    ),
    "ci-bot": Agent(name="ci-bot", kind="autonomous", owners=("workload:ci-docs",)),
}


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        pytest.param({"azp": "claude-code"}, None, id="an agent of her group"),
        pytest.param({"azp": "refund-bot"}, Reason.AGENT_NOT_PERMITTED, id="somebody else's agent"),
        pytest.param({"azp": "homemade"}, Reason.AGENT_NOT_PERMITTED, id="an agent that is not registered"),
        pytest.param({"act": {"sub": "homemade"}}, Reason.AGENT_NOT_PERMITTED, id="an unregistered actor"),
        pytest.param(
            {"azp": "claude-code", "act": {"sub": "homemade"}},
            Reason.AGENT_NOT_PERMITTED,
            id="a registered agent with an unregistered current actor",
        ),
        pytest.param(
            {"act": {"sub": "claude-code", "act": {"sub": "refund-bot"}}},
            Reason.AGENT_NOT_PERMITTED,
            id="somebody else's agent further back",
        ),
        pytest.param(
            {"act": {"sub": "claude-code", "act": {"sub": "homemade"}}},
            None,
            id="an unregistered one further back",
        ),
        pytest.param({}, None, id="no agent"),
    ],
)
def test_a_registered_agent_is_only_its_owners(
    world: World, claims: dict[str, Any], expected: Reason | None
) -> None:
    world.identities = replace(IDENTITIES, agents=AGENTS)
    assert reason(world(authorization=(bearer(made.sign(made.claims(**claims))),))) is expected


def test_without_registered_agents_any_agent_is_taken_as_named(world: World) -> None:
    assert good(world(authorization=(bearer(made.token(CHILD)),))).agent == "sub"


def test_a_workload_owns_its_agent(world: World) -> None:
    mapped = replace(CI, claims={"workload": "sub", "agent": "azp"})
    world.identities = replace(IDENTITIES, agents=AGENTS, issuers=(mapped,))
    assert good(world(authorization=(bearer(ci(azp="ci-bot")),))).agent == "ci-bot"
    assert reason(world(authorization=(bearer(ci(azp="claude-code")),))) is Reason.AGENT_NOT_PERMITTED


def test_every_narrowing_on_the_way_applies(world: World) -> None:
    made.enter(world.registry, 20, servers=("github", "jira"))
    made.enter(world.registry, 21, parent=t(20), tools=("get_*",), agent="sub")
    made.enter(world.registry, 22, parent=t(21), servers=("github",), agent="sub")
    world.identities = replace(IDENTITIES, agents=AGENTS)
    caller = good(world(authorization=(bearer(made.token(22)),), callerid_token=(made.token(22),)))
    assert caller.ceilings == (
        Ceiling(origin="agent:sub", tools=("get_*", "list_*")),
        Ceiling(origin=t(22), servers=("github",)),
        Ceiling(origin=t(21), tools=("get_*",)),
        Ceiling(origin=t(20), servers=("github", "jira")),
    )


def test_an_earlier_actor_narrows_too(world: World) -> None:
    agents = {**AGENTS, "old": Agent(name="old", kind="a", owners=(ALICE,), servers=())}
    world.identities = replace(IDENTITIES, agents=agents)
    token = made.sign(made.claims(act={"sub": "claude-code", "act": {"sub": "old"}}))
    assert good(world(authorization=(bearer(token),))).ceilings == (Ceiling(origin="agent:old", servers=()),)


def test_a_child_lives_no_longer_than_its_parent(world: World) -> None:
    child = (bearer(made.token(CHILD)),)
    assert good(world(authorization=child)).expires_us == NOW_US + DAY_US
    assert reason(world(authorization=child, now=NOW + timedelta(days=1))) is Reason.TOKEN_EXPIRED
    world.registry._connection.execute("UPDATE tokens SET revoked_us = 1 WHERE id = ?", (t(GOOD),))
    world.registry._forget()
    answer = world(authorization=child)
    assert reason(answer) is Reason.TOKEN_REVOKED
    assert isinstance(answer, Rejected)
    assert t(GOOD) in answer.detail


# -- blocked -----------------------------------------------------------------------------------------


AGREEING = [
    pytest.param({"authorization": (bearer(TOKEN),)}, id="token"),
    pytest.param({"authorization": (bearer(JWT),)}, id="JWT"),
    pytest.param({"proxy_chain": (der(LEAF),)}, id="certificate"),
]
EVIDENCE = [
    *AGREEING,
    pytest.param(
        {"proxy_chain": (der(LEAF),), "authorization": (bearer(made.token(BOBS)),)}, id="beside Bob's"
    ),
]


@pytest.mark.parametrize("presented", EVIDENCE)
def test_a_blocked_principal_is_refused_whatever_is_presented(
    world: World, presented: dict[str, Any]
) -> None:
    authority = world.authority()
    authority.identify(Presented(**presented), now=NOW)
    other = Registry.open(world.folder / "registry.db")
    other.block(ALICE, now_us=NOW_US, by="ops")
    other.close()
    answer = authority.identify(Presented(**presented), now=NOW)
    assert reason(answer) is Reason.PRINCIPAL_BLOCKED
    assert isinstance(answer, Rejected)
    assert answer.subject == ALICE
    assert answer.credential_id is not None


@pytest.mark.parametrize("presented", EVIDENCE)
def test_a_principal_blocked_in_the_file_is_refused_in_any_spelling(
    world: World, presented: dict[str, Any]
) -> None:
    world.identities = replace(IDENTITIES, blocked=frozenset({"user:ALICE@corp.example"}))
    assert reason(world(**presented)) is Reason.PRINCIPAL_BLOCKED


@pytest.mark.parametrize(
    "blocked",
    [
        "agent:planner",
        "agent:assistant",
        "agent:eve@corp.example",
        "user:eve@corp.example",
        "workload:assistant",
        "jwt:corp-idp:j-1",
    ],
)
def test_a_blocked_agent_actor_or_credential_is_refused(world: World, blocked: str) -> None:
    act = {"sub": "planner", "act": {"sub": "assistant", "act": {"sub": "eve@corp.example"}}}
    presented = {"authorization": (bearer(made.sign(made.claims(act=act))),)}
    assert reason(world(**presented)) is None
    world.registry.block(blocked, now_us=NOW_US, by="ops")
    assert reason(world(**presented)) is Reason.PRINCIPAL_BLOCKED


@pytest.mark.parametrize("presented", AGREEING)
def test_who_is_blocked_is_known(world: World, presented: dict[str, Any]) -> None:
    caller = good(world(**presented))
    world.registry.block(ALICE, now_us=NOW_US, by="ops")
    answer = world(**presented)
    assert isinstance(answer, Rejected)
    assert answer.known == replace(caller, ceilings=())


@pytest.mark.parametrize("presented", AGREEING)
def test_a_blocked_credential_names_nobody(world: World, presented: dict[str, Any]) -> None:
    """A thief may have it: the row says whose it was, and that nobody verified it."""
    caller = good(world(**presented))
    world.registry.block(caller.credential_id, now_us=NOW_US, by="ops")
    world.registry.block(ALICE, now_us=NOW_US, by="ops")
    answer = world(**presented)
    assert reason(answer) is Reason.PRINCIPAL_BLOCKED
    assert isinstance(answer, Rejected)
    assert (answer.subject, answer.known) == (ALICE, None)


def test_evidence_of_two_names_nobody_where_one_of_them_is_blocked(world: World) -> None:
    world.registry.block(ALICE, now_us=NOW_US, by="ops")
    answer = world(authorization=(bearer(TOKEN),), callerid_token=(made.token(BOBS),))
    assert reason(answer) is Reason.PRINCIPAL_BLOCKED
    assert isinstance(answer, Rejected)
    assert answer.known is None


def test_whose_agent_it_is_not_is_known(world: World) -> None:
    world.identities = replace(IDENTITIES, agents=AGENTS)
    answer = world(authorization=(bearer(made.sign(made.claims(azp="refund-bot"))),))
    assert isinstance(answer, Rejected)
    assert answer.known is not None
    assert (answer.known.principal.subject, answer.known.agent) == (ALICE, "refund-bot")


def test_a_block_of_an_agent_is_not_one_of_its_person(world: World) -> None:
    world.registry.block("agent:claude-code", now_us=NOW_US, by="ops")
    assert reason(world(authorization=(bearer(made.token(CLAUDES)),))) is Reason.PRINCIPAL_BLOCKED
    assert reason(world(authorization=(bearer(TOKEN),))) is None


# -- refusals say what they safely can ---------------------------------------------------------------


@pytest.mark.parametrize("number", [EXPIRED, REVOKED])
def test_the_refusal_of_a_dead_token_names_whose_it_was(world: World, number: int) -> None:
    answer = world(authorization=(bearer(made.token(number)),))
    assert isinstance(answer, Rejected)
    assert (answer.subject, answer.credential_id) == (ALICE, t(number))


def test_no_refusal_shows_what_was_presented(world: World) -> None:
    for text in (TOKEN, SLIP, made.token(REVOKED), made.token(UNKNOWN), JWT):
        for carrier in CARRIERS:
            answer = world(**{carrier: (f"Odd {text}",)})
            assert text not in repr(answer)
            assert text not in repr(Presented(**{carrier: (text,)}))


# -- the registry ------------------------------------------------------------------------------------


def test_a_use_is_noted(world: World) -> None:
    world(authorization=(bearer(TOKEN),), client_ip="192.0.2.7")
    world(authorization=(bearer(made.token(REVOKED)),), client_ip="192.0.2.8")
    world.registry.flush_touches()
    used = {row.id: row.last_ip for row in world.registry.tokens() if row.last_used_us is not None}
    assert used == {t(GOOD): "192.0.2.7"}


def test_a_registry_that_cannot_be_read_raises_and_lets_nobody_in(world: World) -> None:
    authority = world.authority()
    world.registry._connection.close()
    for presented in ({"authorization": (bearer(TOKEN),)}, {"proxy_chain": (der(LEAF),)}):
        with pytest.raises(StoreError):
            authority.identify(Presented(**presented), now=NOW)


def test_who_was_verified_by_a_withdrawn_key_is_not_remembered(world: World) -> None:
    authority, path = world.authority(), world.folder / "jwks.json"
    presented = Presented(authorization=(bearer(JWT),))
    good(authority.identify(presented, now=NOW))
    path.write_bytes(made.jwks(made.public_jwk("ES256", "another-one")))
    later = NOW + timedelta(seconds=1)
    assert isinstance(authority.identify(presented, now=later), Caller)
    authority._jwks.refresh(NOW + timedelta(minutes=1))
    assert reason(authority.identify(presented, now=later)) is Reason.JWT_INVALID


def test_what_is_ours_is_known_by_the_configured_issuers(world: World) -> None:
    authority = world.authority()
    assert authority.is_ours(bearer(TOKEN))
    assert authority.is_ours(bearer(JWT))
    assert not authority.is_ours(bearer("ghp_somebody_elses"))
