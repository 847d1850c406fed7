"""Evidence kind x carrier x ingress x state: the exact reason in the row, and nothing let through by mistake.

All requests are sent first, each on a connection of its own, and then every row is looked at.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.e2e import harness as h
from tests.e2e.evidence import ALICE, BOB, INNER, OUTER, TUNNELS, WAYS, Gate, Sent, open_gate
from tests.e2e.warm import Warm

GRANTED = "granted"
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


@dataclass
class Case:
    """One cell of the matrix."""

    name: str
    sent: Sent
    reason: str
    row: dict[str, Any] = field(default_factory=dict)
    number: int = 0


CARRIERS = {
    "basic at CONNECT": TUNNELS,
    "bearer at CONNECT": TUNNELS,
    "x-token at CONNECT": TUNNELS,
    "authorization": WAYS,
    "x-token": WAYS,
    "proxy-authorization": ("absolute", "absolute over TLS"),
}


def carry(way: str, carrier: str, token: str) -> Sent:
    match carrier:
        case "basic at CONNECT":
            return Sent(way, connect={"Proxy-Authorization": h.basic("alice", token)})
        case "bearer at CONNECT":
            return Sent(way, connect={"Proxy-Authorization": f"Bearer {token}"})
        case "x-token at CONNECT":
            return Sent(way, connect={"X-Callerid-Token": token})
        case "authorization":
            return Sent(way, headers=[("Authorization", f"Bearer {token}")])
        case "x-token":
            return Sent(way, headers=[("X-Callerid-Token", token)])
    return Sent(way, headers=[("Proxy-Authorization", h.basic("x", token))])


def with_bobs_token(gate: Gate, sent: Sent) -> Sent:
    """The same, and good evidence of somebody else in another header."""
    bobs = gate.tokens["bob"]
    used = {name.lower() for name, _ in sent.headers}
    more = ("X-Callerid-Token", bobs) if "authorization" in used else ("Authorization", f"Bearer {bobs}")
    sent.headers.append(more)
    return sent


def tokens(gate: Gate) -> Iterator[Case]:
    reasons = {
        "good": GRANTED, "right network": GRANTED, "expired": "token_expired", "revoked": "token_revoked",
        "wrong network": "token_network", "spoofed": "token_unknown", "malformed": "token_malformed",
    }  # fmt: skip
    for carrier, ways in CARRIERS.items():
        for way in ways:
            for state, reason in reasons.items():
                sent = carry(way, carrier, gate.tokens[state])
                yield Case(f"token, {carrier}, {way}, {state}", sent, reason, {"assurance": "bearer"})
            sent = with_bobs_token(gate, carry(way, carrier, gate.tokens["good"]))
            yield Case(f"token, {carrier}, {way}, conflicting", sent, "identity_conflict")


def jwts(gate: Gate) -> Iterator[Case]:
    now = int(time.time())
    unsigned = gate.jwt().rpartition(".")[0] + "."
    states = {
        "good": (gate.jwt(), GRANTED),
        "expired": (gate.jwt(iat=now - 700, exp=now - 100), "jwt_expired"),
        "revoked": (gate.jwt(jti="stolen"), "principal_blocked"),
        "wrong audience": (gate.jwt(aud="payroll"), "jwt_audience"),
        "for another server": (gate.jwt(aud="https://other.corp.example/mcp"), "jwt_audience"),
        "spoofed": (gate.jwt(OTHER_KEY), "jwt_invalid"),
        "unsigned": (unsigned, "jwt_invalid"),
    }
    for carrier, ways in CARRIERS.items():
        for way in ways:
            for state, (token, reason) in states.items():
                sent = carry(way, carrier, token)
                yield Case(f"JWT, {carrier}, {way}, {state}", sent, reason, {"assurance": "idp"})
            sent = with_bobs_token(gate, carry(way, carrier, gate.jwt()))
            yield Case(f"JWT, {carrier}, {way}, conflicting", sent, "identity_conflict")


def logins(gate: Gate) -> Iterator[Case]:
    """A token for the very server that is called, and none for the other one."""
    things = f"https://localhost:{gate.upstream.port}/mcp"
    lab = f"http://localhost:{gate.plain.port}/mcp"
    for way in WAYS:
        here, there = (lab, things) if way.startswith("absolute") else (things, lab)
        for audience, reason in ((here, GRANTED), (here + "/", GRANTED), (there, "jwt_audience"),
                                 (here.removesuffix("/mcp"), "jwt_audience")):  # fmt: skip
            sent = carry(way, "authorization", gate.jwt(aud=audience))
            name = f"login, {way}, {audience.replace(str(gate.upstream.port), 'U')}"
            yield Case(name.replace(str(gate.plain.port), "P"), sent, reason)


CERTIFICATES = {
    "alice": GRANTED, "expired": "certificate_expired", "revoked": "certificate_revoked",
    "wrong CA": "certificate_untrusted", "self-signed": "certificate_untrusted",
}  # fmt: skip


def certificates(gate: Gate) -> Iterator[Case]:
    for where, ways in (("outer", OUTER), ("inner", INNER)):
        for way in ways:
            for leaf, reason in CERTIFICATES.items():
                sent = Sent(way, **{where: leaf})
                yield Case(f"certificate, {where}, {way}, {leaf}", sent, reason, {"assurance": "bound"})
            sent = with_bobs_token(gate, Sent(way, **{where: "alice"}))
            yield Case(f"certificate, {where}, {way}, conflicting", sent, "identity_conflict")
            if where == "inner" and way in OUTER:
                sent = Sent(way, outer="bob", inner="alice")
                yield Case(f"certificate, both, {way}, conflicting", sent, "identity_conflict")


def dpop(gate: Gate) -> Iterator[Case]:
    now = int(time.time())
    token = gate.bound_to_key()
    for way in WAYS:

        def shown(token: str, *proofs: str, scheme: str = "DPoP", way: str = way) -> Sent:
            return Sent(way, headers=[("Authorization", f"{scheme} {token}"), *(("DPoP", p) for p in proofs)])

        once = gate.proof(token, way)
        expired = gate.bound_to_key(iat=now - 700, exp=now - 100)
        elsewhere, stolen = gate.bound_to_key(aud="payroll"), gate.bound_to_key(jti="stolen")
        states = {
            "good": (shown(token, once), GRANTED),
            "replayed": (shown(token, once), "jwt_proof"),
            "of an old minute": (shown(token, gate.proof(token, way, iat=now - 200)), "jwt_proof"),
            "expired": (shown(expired, gate.proof(expired, way)), "jwt_expired"),
            "revoked": (shown(stolen, gate.proof(stolen, way)), "principal_blocked"),
            "wrong audience": (shown(elsewhere, gate.proof(elsewhere, way)), "jwt_audience"),
            "spoofed": (shown(token, gate.proof(token, way, OTHER_KEY)), "jwt_proof"),
            "missing": (shown(token), "jwt_proof"),
            "twice": (shown(token, gate.proof(token, way), gate.proof(token, way)), "evidence_ambiguous"),
            "as Bearer": (shown(token, gate.proof(token, way), scheme="Bearer"), "jwt_proof"),
            "of another method": (shown(token, gate.proof(token, way, htm="GET")), "jwt_proof"),
            "of another server": (
                shown(token, gate.proof(token, way, htu="https://evil.example/mcp")), "jwt_proof",
            ),
            "conflicting": (with_bobs_token(gate, shown(token, gate.proof(token, way))), "identity_conflict"),
        }  # fmt: skip
        for state, (sent, reason) in states.items():
            yield Case(f"DPoP, {way}, {state}", sent, reason, {"assurance": "bound"})
        if way in TUNNELS:
            made = gate.proof(token, way, htm="CONNECT", htu=f"https://{gate.authority(way)}")
            sent = Sent(way, connect={"Proxy-Authorization": f"DPoP {token}", "DPoP": made})
            yield Case(f"DPoP, {way}, at CONNECT", sent, "jwt_proof")


def bound_jwts(gate: Gate) -> Iterator[Case]:
    now = int(time.time())
    late = gate.bound_to_leaf("alice", iat=now - 700, exp=now - 100)
    for where, ways in (("outer", OUTER), ("inner", INNER)):
        for way in ways:
            for carrier in ("authorization", "x-token"):
                other = "bob" if carrier == "authorization" else None
                states = {
                    "good": ("alice", gate.bound_to_leaf("alice"), GRANTED),
                    "expired": ("alice", late, "jwt_expired"),
                    "revoked": ("revoked", gate.bound_to_leaf("revoked"), "certificate_revoked"),
                    "wrong audience": ("alice", gate.bound_to_leaf("alice", aud="payroll"), "jwt_audience"),
                    "wrong CA": ("wrong CA", gate.bound_to_leaf("wrong CA"), "certificate_untrusted"),
                    "conflicting": (
                        "alice", gate.bound_to_leaf("alice", email="bob@corp.example"), "identity_conflict",
                    ),
                    "without the certificate": (None, gate.bound_to_leaf("alice"), "jwt_proof"),
                    "spoofed": (other, gate.bound_to_leaf("alice"), "jwt_proof"),
                }  # fmt: skip
                for state, (leaf, token, reason) in states.items():
                    sent = carry(way, carrier, token)
                    setattr(sent, where, leaf)
                    name = f"bound JWT, {carrier}, {where}, {way}, {state}"
                    yield Case(name, sent, reason, {"assurance": "bound"})


def forwarded(gate: Gate) -> Iterator[Case]:
    """A hop speaks where its own certificate is that of whoever wrote the request."""
    places = (("outer", "absolute over TLS"), ("inner", "connect"), ("inner", "reverse"))
    for header in ("xfcc", "client-cert"):
        for where, way in places:

            def by(
                hop: str | None, *leaves: str, way: str = way, where: str = where, header: str = header
            ) -> Sent:
                return Sent(way, headers=[gate.forwarded(leaf, header) for leaf in leaves], **{where: hop})

            other = "client-cert" if header == "xfcc" else "xfcc"
            both = by("hop", "alice")
            both.headers.append(gate.forwarded("bob", other))
            token = by("hop")
            token.headers.append(("Authorization", f"Bearer {gate.tokens['good']}"))
            states: dict[str, tuple[Sent, str, dict[str, Any]]] = {
                **{leaf: (by("hop", leaf), reason, {"assurance": "bound", "via": "envoy"})
                   for leaf, reason in CERTIFICATES.items()},
                "token behind the hop": (token, GRANTED, {"assurance": "bearer", "via": "envoy"}),
                "nothing behind the hop": (by("hop"), "no_evidence", {"via": "envoy"}),
                "twice": (by("hop", "alice", "alice"), "evidence_ambiguous", {"via": "envoy"}),
                "conflicting headers": (both, "identity_conflict", {"via": "envoy"}),
                "conflicting":
                    (with_bobs_token(gate, by("hop", "alice")), "identity_conflict", {"via": "envoy"}),
                "by nobody": (by(None, "alice"), "no_evidence", {}),
                "by a false hop": (by("false hop", "alice"), "certificate_untrusted", {}),
                "by an expired hop": (by("expired hop", "alice"), "certificate_expired", {}),
                "by a person": (by("bob", "alice"), GRANTED, {"principal": BOB, "via": None}),
                "by a workload": (by("worker", "alice"), "no_grant", {"via": None}),
            }  # fmt: skip
            for state, (sent, reason, row) in states.items():
                yield Case(f"forwarded, {header}, {where}, {way}, {state}", sent, reason, row)
        sent = Sent("connect over TLS", headers=[gate.forwarded("alice", header)], outer="hop")
        yield Case(
            f"forwarded, {header}, through the hop's tunnel, spoofed", sent, "no_evidence", {"via": "envoy"}
        )
        sent = Sent("connect over TLS", headers=[gate.forwarded("bob", header)], outer="hop", inner="alice")
        yield Case(f"forwarded, {header}, through the hop's tunnel, own", sent, GRANTED, {"via": "envoy"})
    for carrier in ("basic at CONNECT", "x-token at CONNECT"):
        sent = carry("connect", carrier, gate.tokens["good"])
        sent.inner = "hop"
        yield Case(f"token behind a hop, {carrier}", sent, "evidence_ambiguous", {"via": "envoy"})


KINDS = (tokens, jwts, logins, certificates, dpop, bound_jwts, forwarded)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Gate]:
    with open_gate(tmp_path_factory.mktemp("gate"), pki, warm) as made:
        yield made


def test_every_cell_of_the_matrix_has_its_reason_in_the_row(gate: Gate) -> None:
    cases = [case for kind in KINDS for case in kind(gate)]
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        case.number = gate.send(case.sent)
    rows = gate.rows()
    wrong = []
    for case in cases:
        row = rows[case.number]
        good = case.reason == GRANTED
        wanted = {
            "reason": case.reason,
            "verdict": "allow" if good else "deny",
        }
        if good or case.reason == "no_grant":
            wanted |= {**({"principal": ALICE} if good else {}), **case.row}
        else:
            wanted |= {"principal": "anonymous", "via": case.row.get("via")}
        found = {name: row[name] for name in wanted}
        if found != wanted:
            wrong.append(f"{case.name}: {found} instead of {wanted}; {row['detail']}")
    assert wrong == [], f"{len(wrong)} of {len(cases)}"
    allowed = {case.number for case in cases if case.reason == GRANTED}
    assert gate.arrived() == allowed, "what arrived is what was allowed, and nothing else"
    assert {number for number, row in rows.items() if row["verdict"] == "allow"} == allowed
    for seen in (*gate.upstream.seen, *gate.plain.seen):
        text = seen.raw.lower()
        assert not any(word in text for word in (b"cid_", b"eyj", b"dpop", b"client-cert", b"\nproxy-"))
