"""A token that is derived from a JWT or a certificate: what it is bound to, and who gets none."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from callerid.identity.narrowing import Scope
from callerid.identity.presented import Presented
from callerid.identity.rows import TokenRow
from callerid.model import Assurance, Caller, Carrier, Evidence, EvidenceKind, Principal, Reason
from callerid.proxy.derive import FROM_EVIDENCE, USUAL, Ask, Refusal, _from_evidence

NOW_US = 1_795_000_000_000_000
JWT = Evidence(kind=EvidenceKind.JWT, carrier=Carrier.AUTHORIZATION, credential_id="jwt:corp-idp:j-1")
CERT = Evidence(
    kind=EvidenceKind.CLIENT_CERT, carrier=Carrier.PROXY_TLS, credential_id="cert:0123456789abcdef"
)
INNER = replace(CERT, carrier=Carrier.INNER_TLS)
CALLER = Caller(
    principal=Principal("user:alice@corp.example", "corp-idp"),
    agent="claude-code",
    actors=(),
    evidence=(JWT,),
    assurance=Assurance.IDP,
    assurance_name="idp",
    credential_id=JWT.credential_id,
    groups=frozenset({"engineering", "from-claims"}),
    expires_us=NOW_US + 3600 * 1_000_000,
)


def derived(
    *,
    seconds: int | None = None,
    scope: Scope | None = None,
    chains: tuple[tuple[bytes, ...], tuple[bytes, ...]] = ((), ()),
    **caller: Any,
) -> TokenRow | Refusal:
    authority = SimpleNamespace(
        claimed_groups=lambda _: frozenset({"from-claims"}), jwts_kept=lambda *_: ("kept",)
    )
    rooms: Any = SimpleNamespace(authority=authority)
    facts: Any = SimpleNamespace(
        time_us=NOW_US, presented=Presented(proxy_chain=chains[0], inner_chain=chains[1])
    )
    ask = Ask(scope=scope or Scope(), seconds=seconds)
    return _from_evidence(ask, facts, rooms, replace(CALLER, **caller), ("sub", "claude-code"))


def row(found: TokenRow | Refusal) -> TokenRow:
    assert isinstance(found, TokenRow), found
    return found


def test_it_keeps_what_it_was_made_from() -> None:
    made = row(
        derived(scope=Scope(agent="sub", servers=("wiki",)), evidence=(JWT, CERT), chains=((b"leaf",), ()))
    )
    assert made.origin == (JWT.credential_id, CERT.credential_id)
    assert made.chain == ("bGVhZg==",)
    assert made.jwts == ("kept",)
    assert (made.in_groups, made.servers, made.parent) == (("from-claims",), ("wiki",), None)
    assert (made.agent, made.actors) == ("sub", ("sub", "claude-code"))


def test_a_chain_that_was_not_accepted_as_evidence_is_not_kept() -> None:
    assert row(derived(chains=((b"leaf",), (b"other",)))).chain == ()


@pytest.mark.parametrize(
    ("seconds", "evidence_ends", "ends"),
    [
        pytest.param(None, 3600, USUAL, id="as usual"),
        pytest.param(None, 60, 60, id="sooner with the evidence"),
        pytest.param(None, None, USUAL, id="evidence without an end"),
        pytest.param(3600, 3600, 3600, id="as long as the evidence"),
        pytest.param(FROM_EVIDENCE, 999_999, FROM_EVIDENCE, id="twelve hours"),
    ],
)
def test_it_ends_with_the_evidence_and_after_twelve_hours(
    seconds: int | None, evidence_ends: int | None, ends: int
) -> None:
    until = None if evidence_ends is None else NOW_US + evidence_ends * 1_000_000
    assert row(derived(seconds=seconds, expires_us=until)).expires_us == NOW_US + ends * 1_000_000


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"seconds": 3601}, "at most", id="longer than the evidence"),
        pytest.param({"seconds": FROM_EVIDENCE + 1, "expires_us": None}, "at most", id="longer than ever"),
        pytest.param({"via": "envoy"}, "a hop spoke", id="behind a hop"),
        pytest.param(
            {"evidence": (replace(CERT, carrier=Carrier.FORWARDED_CLIENT_CERT),)},
            "a hop spoke",
            id="forwarded",
        ),
        pytest.param({"evidence": (replace(JWT, bound=True),)}, "bound to a key", id="a bound token"),
        pytest.param(
            {"evidence": (CERT, replace(JWT, bound=True)), "chains": ((b"a",), ())},
            "bound to a key",
            id="a bound token beside a certificate",
        ),
        pytest.param(
            {"evidence": (CERT, INNER), "chains": ((b"a",), (b"b",))},
            "two certificates",
            id="two certificates",
        ),
    ],
)
def test_who_gets_none_is_told_why(changes: dict[str, Any], said: str) -> None:
    found = derived(**changes)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.DERIVE_REFUSED
    assert said in found.detail
