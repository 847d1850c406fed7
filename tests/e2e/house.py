"""Callers of every kind at one proxy: the scene of the identity tests, and what each test asks in the end.

Two servers are listed: one over TLS with a shared credential, one in the clear without.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.e2e import harness as h
from tests.e2e.certs import DAY, ClientPki, Leaf
from tests.e2e.warm import Warm

ALICE, BOB = "user:alice@corp.example", "user:bob@corp.example"
MALLORY = "user:mallory@corp.example"
ISSUER = "https://idp.corp.example/"

IDENTITIES = """version: 1
issuers:
  - {id: corp-idp, type: oidc, issuer: "https://idp.corp.example/", jwks_file: jwks.json,
     audiences: [callerid], algorithms: [ES256], claims: {principal: email, agent: agent}}
client_cas:
  - {id: corp-people, file: people.pem, crl: people.crl, principal_from: san_email,
     denied_sha256: ["DENIED"]}
groups:
  engineering: {members: ["user:alice@corp.example", "user:bob@corp.example", "user:mallory@corp.example"]}
  interns: {members: ["user:ivy@corp.example"]}
agents:
  claude-code: {kind: assistant, owners: ["group:engineering"]}
  ivys-helper: {kind: assistant, owners: ["user:ivy@corp.example"]}
blocked: ["user:mallory@corp.example"]
"""


@dataclass
class House:
    """One proxy with two listed servers, and everything that callers can show to it."""

    proxy: h.Proxy
    upstream: h.Upstream
    plain: h.Upstream
    key: ec.EllipticCurvePrivateKey
    leaves: dict[str, Leaf]
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def authority(self) -> str:
        return f"localhost:{self.upstream.port}"

    def jwt(self, key: Any = None, *, algorithm: str = "ES256", **changes: Any) -> str:
        now = int(time.time())
        claims = {
            "iss": ISSUER, "aud": "callerid", "sub": "a1", "email": "alice@corp.example",
            "iat": now, "exp": now + 600, "jti": "j-1", **changes,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        if algorithm == "none":
            return jwt.encode(claims, None, algorithm="none", headers={"kid": "k1"})
        return jwt.encode(claims, key or self.key, algorithm=algorithm, headers={"kid": "k1"})

    def shows(self, leaf: str | None, **limits: ssl.TLSVersion) -> ssl.SSLContext:
        """A client context that shows a certificate, if one is named."""
        context = self.proxy.trust()
        for name, value in limits.items():
            setattr(context, name, value)
        return self.leaves[leaf].shown_by(context) if leaf else context

    def ask(
        self, *, connect: dict[str, str] | None = None, inner: list[tuple[str, str]] | None = None,
        outer: ssl.SSLContext | None = None, context: ssl.SSLContext | None = None,
    ) -> h.Trial:  # fmt: skip
        """One tools/call through a tunnel of its own."""
        tried = h.trial(self.proxy, self.upstream)
        if outer is not None:
            client = h.tunnel_over_tls(self.proxy, self.authority, outer, context, headers=connect)
        else:
            client = self.proxy.tunnel(self.authority, headers=connect, context=context)
        client.send(post(self.authority, inner or []))
        tried.answer = client.read()
        client.close()
        return tried


def post(authority: str, headers: list[tuple[str, str]], target: str = "/mcp") -> bytes:
    """A tools/call with any headers, the same one twice if need be."""
    body = h.tool("read_thing", {"x": 1}, 7)
    lines = [("Host", authority), ("Content-Type", "application/json"), *headers]
    lines.append(("Content-Length", str(len(body))))
    return (
        f"POST {target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines) + "\r\n"
    ).encode() + body


@contextmanager
def open_house(folder: Path, pki: h.Pki, warm: Warm) -> Iterator[House]:
    """The scene, while it lasts."""
    key = ec.generate_private_key(ec.SECP256R1())
    people = ClientPki(folder / "people")
    leaves = make_leaves(people)
    upstream, plain = h.Upstream(pki.server_context()), h.Upstream(None)
    servers = h.servers(upstream.port, extra=f"  - {{id: lab, url: 'http://localhost:{plain.port}/mcp'}}\n")
    rules = h.standard_rules(
        upstream.port,
        **{
            "identities.yaml": IDENTITIES.replace("DENIED", leaves["denied"].sha256),
            "servers.yaml": servers,
            "policy.yaml": h.POLICY_ANYWHERE,
            "jwks.json": json.dumps({"keys": [jwk(key)]}),
            "people.pem": people.corp.pem.decode(),
            "people.crl": people.crl(leaves["revoked"]).decode(),
        },
    )
    proxy = h.WarmProxy(warm, folder, rules, ca=pki.ca, environ={"THINGS_SECRET": h.SECRET})
    made = House(proxy, upstream, plain, key, leaves)
    with h.running(proxy):
        make_tokens(made)
        yield made
    upstream.close()
    plain.close()


def jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    public: dict[str, str] = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    return {**public, "kid": "k1", "use": "sig", "alg": "ES256"}


def make_leaves(people: ClientPki) -> dict[str, Leaf]:
    return {
        "alice": people.leaf("alice"),
        "bob": people.leaf("bob", "bob@corp.example"),
        "mallory": people.leaf("mallory", "mallory@corp.example"),
        "by intermediate": people.leaf(
            "by intermediate", issuer=people.intermediate, chain=[people.intermediate]
        ),
        "expired": people.leaf("expired", starts=-30 * DAY, ends=-DAY),
        "not yet valid": people.leaf("not yet valid", starts=DAY),
        "revoked": people.leaf("revoked"),
        "denied": people.leaf("denied"),
        "wrong ca": people.leaf("wrong ca", issuer=people.other),
        "self-signed": people.leaf("self-signed", self_signed=True),
        "server only": people.leaf("server only", usage=ExtendedKeyUsageOID.SERVER_AUTH),
        "no usage": people.leaf("no usage", usage=None),
        "no san": people.leaf("no san", None),
    }


def make_tokens(house: House) -> None:
    good = h.mint(house.proxy)
    revoked = h.mint(house.proxy)
    h.revoke(house.proxy, revoked)
    slip = good[:-1] + ("x" if good[-1] != "x" else "y")
    house.tokens = {
        "good": good,
        "expired": h.mint(house.proxy, seconds=-60),
        "revoked": revoked,
        "malformed": slip,
        "cut short": good[:20],
        "unknown": h.tokens.mint(b"\1" * 32),
        "bob": h.mint(house.proxy, BOB),
        "mallory": h.mint(house.proxy, "user:mallory@corp.example"),
        "with agent": h.mint(house.proxy, agent="claude-code"),
        "foreign agent": h.mint(house.proxy, agent="ivys-helper"),
        "unregistered agent": h.mint(house.proxy, agent="shadow-agent"),
    }


def accepted(tried: h.Trial, principal: str, **row: Any) -> dict[str, Any]:
    """The call ran, with the shared secret and without anything of the caller's."""
    assert tried.answer is not None
    assert (tried.answer.status, tried.answer.json["id"], tried.answer.text) == (200, 7, "ran read_thing")
    [seen] = tried.seen
    assert seen.header("authorization") == f"Bearer {h.SECRET}"
    assert [name.lower() for name, _ in seen.headers].count("authorization") == 1
    assert b"cid_" not in seen.raw
    assert b"eyJ" not in seen.raw
    found = tried.row
    assert (found["principal"], found["verdict"], found["reason"]) == (principal, "allow", "granted")
    assert {name: found[name] for name in row} == row
    return found


def refused(tried: h.Trial, reason: str, *, principal: str = "anonymous", **row: Any) -> dict[str, Any]:
    """The client was told why, nothing arrived, and one row says who it is, or was said to be."""
    assert tried.answer is not None
    assert tried.answer.status == 200
    assert tried.answer.json["id"] == 7
    assert tried.answer.json["result"]["isError"] is True
    found = tried.refused(reason)
    assert reason in tried.answer.text
    assert found["event_id"] in tried.answer.text
    assert (found["principal"], found["tool"]) == (principal, "read_thing")
    assert {name: found[name] for name in row} == row
    return found


def carried(token: str, carrier: str) -> dict[str, Any]:
    return {
        "basic at CONNECT": {"connect": {"Proxy-Authorization": h.basic("alice", token)}},
        "bearer at CONNECT": {"connect": {"Proxy-Authorization": f"Bearer {token}"}},
        "x-token at CONNECT": {"connect": {"X-Callerid-Token": token}},
        "authorization": {"inner": [("Authorization", f"Bearer {token}")]},
        "basic in authorization": {"inner": [("Authorization", h.basic("x", token))]},
        "x-token": {"inner": [("X-Callerid-Token", token)]},
    }[carrier]


def shown(house: House, where: str, leaf: str | None, **limits: Any) -> dict[str, Any]:
    context = house.shows(leaf, **limits)
    return {"outer": context} if where == "to the proxy" else {"context": context}
