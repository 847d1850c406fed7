"""Scoped tokens by network and by origin: refused where and when they are not good."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes

from callerid.config import Agent, Issuer
from callerid.identity.narrowing import Scope
from callerid.identity.origins import kept_of
from callerid.identity.presented import Presented
from callerid.identity.rows import TokenRow
from callerid.identity.tokens import digest
from callerid.model import Assurance, Ceiling, Reason
from tests.unit.identity import made
from tests.unit.identity.made import ALICE, BOB, DAY_US, NOW, NOW_US, bearer
from tests.unit.identity.test_authority import CI, GONE_LEAF, LEAF, World, good, reason, t

HOUR_US = DAY_US // 24
PLACED, BOUND, SUB, DEEP = 31, 32, 33, 34


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made_world = World(tmp_path)
    yield made_world
    made_world.registry.close()


def shown(world: World, seed: int, ip: str | None = "192.0.2.7", **more: Any) -> Any:
    return world(authorization=(bearer(made.token(seed)),), client_ip=ip, **more)


def child(world: World, seed: int, parent: int, **scope: Any) -> TokenRow:
    return world.registry.derive(
        t(parent), Scope(**scope), token_digest=digest(made.token(seed)), created_us=NOW_US,
        expires_us=NOW_US + HOUR_US, created_by=ALICE,
    )  # fmt: skip


def bound(world: World, seed: int = BOUND, **changes: Any) -> TokenRow:
    values: dict[str, Any] = {
        "id": "", "principal": ALICE, "agent": None, "parent": None, "servers": None, "tools": None,
        "created_us": NOW_US, "created_by": ALICE, "expires_us": NOW_US + HOUR_US,
    }  # fmt: skip
    row = TokenRow(**{**values, **changes})
    return world.registry.derive_from_evidence(row, token_digest=digest(made.token(seed)))


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("10.20.3.4", None),
        ("::ffff:10.20.3.4", None),
        ("2001:db8::1", None),
        ("10.21.0.1", Reason.TOKEN_NETWORK),
        ("::1", Reason.TOKEN_NETWORK),
        ("nonsense", Reason.TOKEN_NETWORK),
        (None, Reason.TOKEN_NETWORK),
    ],
)
def test_a_token_is_good_from_its_networks_only(
    world: World, ip: str | None, expected: Reason | None
) -> None:
    made.enter(world.registry, PLACED, networks=("10.20.0.0/16", "2001:db8::/32"))
    assert reason(shown(world, PLACED, ip)) is expected


def test_a_good_address_is_not_remembered_for_another_one(world: World) -> None:
    made.enter(world.registry, PLACED, networks=("10.20.0.0/16",))
    authority = world.authority()
    answers = [
        reason(authority.identify(presented, now=NOW))
        for presented in (
            made_presented("10.20.0.1"), made_presented("192.0.2.1"), made_presented("10.20.0.1"),
            made_presented(None),
        )
    ]  # fmt: skip
    assert answers == [None, Reason.TOKEN_NETWORK, None, Reason.TOKEN_NETWORK]


def made_presented(ip: str | None) -> Presented:
    return Presented(authorization=(bearer(made.token(PLACED)),), client_ip=ip)


def test_the_networks_of_every_parent_count(world: World) -> None:
    made.enter(world.registry, PLACED, networks=("10.0.0.0/8",))
    child(world, SUB, PLACED, agent="sub", networks=("10.20.0.0/16",))
    child(world, DEEP, SUB)
    assert reason(shown(world, DEEP, "10.20.0.1")) is None
    assert reason(shown(world, DEEP, "10.99.0.1")) is Reason.TOKEN_NETWORK
    assert reason(shown(world, SUB, "192.0.2.1")) is Reason.TOKEN_NETWORK


def test_a_derived_token_shows_the_chain_of_agents_and_all_their_ceilings(world: World) -> None:
    world.identities = replace(
        world.identities,
        agents={
            "claude-code": Agent(name="claude-code", kind="a", owners=(ALICE,), servers=("wiki",)),
            "reader": Agent(name="reader", kind="a", owners=(ALICE,), tools=("get_*",)),
        },
    )
    made.enter(world.registry, PLACED, agent="claude-code")
    row = child(world, SUB, PLACED, agent="reader", tools=("get_page",))
    caller = good(shown(world, SUB))
    assert (caller.agent, caller.actors) == ("reader", ("reader", "claude-code"))
    assert set(caller.ceilings) == {
        Ceiling(origin="agent:claude-code", servers=("wiki",)),
        Ceiling(origin="agent:reader", tools=("get_*",)),
        Ceiling(origin=row.id, tools=("get_page",)),
    }
    world.registry.block("agent:claude-code", now_us=NOW_US, by="ops")
    assert reason(shown(world, SUB)) is Reason.PRINCIPAL_BLOCKED


# -- bound to a JWT or a certificate -----------------------------------------------------------------


def test_a_token_from_a_jwt_is_refused_once_that_is_blocked(world: World) -> None:
    issuer = world.identities.issuers[0].id
    bound(world, origin=(f"jwt:{issuer}:j-1",), jwts=(kept(),), in_groups=("support", "no-longer-declared"))
    authority = world.authority()
    caller = good(authority.identify(made_bound(), now=NOW))
    assert caller.assurance is Assurance.BEARER
    assert caller.groups == {"support", "engineering"}
    world.registry.block(f"jwt:{issuer}:j-1", now_us=NOW_US, by="ops")
    assert reason(authority.identify(made_bound(), now=NOW)) is Reason.PRINCIPAL_BLOCKED


def made_bound() -> Presented:
    return Presented(authorization=(bearer(made.token(BOUND)),))


def test_a_child_of_a_bound_token_dies_with_the_origin(world: World) -> None:
    row = bound(world, origin=("cert:0123456789abcdef",))
    world.registry.derive(
        row.id, Scope(agent="sub"), token_digest=digest(made.token(SUB)), created_us=NOW_US,
        expires_us=NOW_US + 60, created_by=ALICE,
    )  # fmt: skip
    assert reason(shown(world, SUB)) is None
    world.registry.block("cert:0123456789abcdef", now_us=NOW_US, by="ops")
    assert reason(shown(world, SUB)) is Reason.PRINCIPAL_BLOCKED


def kept(**claims: Any) -> str:
    """What is kept of a good JWT of the first issuer, or of the CI's."""
    entry = CI if claims.get("iss") == CI.issuer else made.issuer()
    return kept_of(made.sign(made.claims(**claims)), entry)


CORP, OTHER = made.issuer(), Reason.JWT_INVALID


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        pytest.param(CORP, None, id="as it was"),
        pytest.param(None, Reason.TOKEN_REVOKED, id="it is no issuer any more"),
        pytest.param(
            replace(CORP, issuer="https://other.example"),
            Reason.TOKEN_REVOKED,
            id="its id is another issuer's",
        ),
        pytest.param(
            replace(CORP, sender_constrained=True), Reason.JWT_PROOF, id="bound tokens only, by now"
        ),
        pytest.param(replace(CORP, clients=("claude-code",)), None, id="its client is listed"),
        pytest.param(replace(CORP, clients=("another",)), OTHER, id="its client is listed no longer"),
    ],
)
def test_a_token_from_a_jwt_ends_with_what_made_that_good(
    world: World, entry: Issuer | None, expected: Reason | None
) -> None:
    bound(world, origin=("jwt:corp-idp:j-1",), jwts=(kept(azp="claude-code"),))
    child_of = world.registry.derive(
        t(BOUND), Scope(), token_digest=digest(made.token(SUB)), created_us=NOW_US, expires_us=NOW_US + 60,
        created_by=ALICE,
    )  # fmt: skip
    assert child_of.jwts == ()
    assert reason(shown(world, BOUND)) is reason(shown(world, SUB)) is None
    world.identities = replace(world.identities, issuers=(() if entry is None else (entry,)) + (CI,))
    assert reason(shown(world, BOUND)) is expected
    assert reason(shown(world, SUB)) is expected


def test_a_token_from_a_jwt_ends_when_its_issuer_withdraws_the_key(world: World) -> None:
    bound(world, origin=("jwt:corp-idp:j-1",), jwts=(kept(),))
    (world.folder / "jwks.json").write_bytes(made.jwks(made.public_jwk(kid="k2", which=1)))
    assert reason(shown(world, BOUND)) is Reason.JWT_INVALID
    (world.folder / "jwks.json").unlink()
    assert reason(shown(world, BOUND)) is Reason.JWT_KEYS_UNAVAILABLE


def test_a_token_of_a_workload_ends_with_its_entry(world: World) -> None:
    jwt_of_ci = kept(iss=CI.issuer)
    bound(world, principal="workload:ci-docs", origin=("jwt:github-actions:j-1",), jwts=(jwt_of_ci,))
    assert reason(shown(world, BOUND)) is None
    world.identities = replace(world.identities, workloads=world.identities.workloads[1:])
    assert reason(shown(world, BOUND)) is Reason.WORKLOAD_UNKNOWN


@pytest.mark.parametrize("what", [(), ("[]",), ("x",), ('{"issuer": "another"}',), ("[" * 99_999,)])
def test_a_token_of_whose_jwt_nothing_is_known_is_refused(world: World, what: tuple[str, ...]) -> None:
    bound(world, origin=("jwt:corp-idp:j-1",), jwts=what)
    assert reason(shown(world, BOUND)) is Reason.TOKEN_REVOKED


def test_a_rotated_token_keeps_what_it_was_made_of(world: World) -> None:
    row = bound(world, origin=("jwt:corp-idp:j-1",), jwts=(kept(),))
    fresh, _ = world.registry.rotate(
        row.id, token_digest=digest(made.token(SUB)), now_us=NOW_US, overlap_us=0, longest_us=HOUR_US, by="t"
    )
    assert fresh.jwts == row.jwts


@pytest.mark.parametrize(
    ("leaf", "setup", "now", "expected"),
    [
        pytest.param(LEAF, None, NOW, None, id="good"),
        pytest.param(GONE_LEAF, None, NOW, Reason.CERTIFICATE_REVOKED, id="on the revocation list"),
        pytest.param(LEAF, "no CA", NOW, Reason.CERTIFICATE_UNTRUSTED, id="its CA is no longer one"),
        pytest.param(LEAF, "denied", NOW, Reason.CERTIFICATE_REVOKED, id="on the deny list"),
        pytest.param(
            LEAF, None, NOW + timedelta(hours=25), Reason.CERTIFICATE_EXPIRED, id="the certificate has ended"
        ),
        pytest.param(LEAF, "bob", NOW, Reason.IDENTITY_CONFLICT, id="it names somebody else"),
        pytest.param(None, None, NOW, Reason.CERTIFICATE_UNTRUSTED, id="it cannot be read"),
    ],
)
def test_a_token_from_a_certificate_is_as_good_as_that(
    world: World, leaf: Any, setup: str | None, now: Any, expected: Reason | None
) -> None:
    chain = ("?",) if leaf is None else (b64encode(made.der(leaf)).decode(),)
    who = BOB if setup == "bob" else ALICE
    bound(world, origin=("cert:x",), chain=chain, principal=who, expires_us=NOW_US + 40 * HOUR_US)
    world.with_cas = setup != "no CA"
    if setup == "denied":
        world.entry = replace(world.entry, denied_sha256=frozenset({leaf.fingerprint(hashes.SHA256()).hex()}))
    if now is not NOW:
        world.entry = replace(world.entry, crl=None)
    assert reason(world(now=now, authorization=(bearer(made.token(BOUND)),))) is expected


# -- the clock ---------------------------------------------------------------------------------------


def test_a_clock_that_goes_back_makes_no_child_more_than_its_parent(world: World) -> None:
    row = world.registry.derive(
        t(1), Scope(), token_digest=digest(made.token(SUB)), created_us=NOW_US - 10 * DAY_US,
        expires_us=NOW_US + HOUR_US, created_by=ALICE,
    )  # fmt: skip
    assert reason(world(now=NOW - timedelta(days=9), authorization=(bearer(made.token(SUB)),))) is None
    parent = world.registry.get(t(1))
    assert parent is not None
    assert row.expires_us <= parent.expires_us
