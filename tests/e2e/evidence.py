"""The scene of the evidence matrix: everything that a caller can show, and every way in.

One proxy with a forward and a reverse listener; requests are told apart by their JSON-RPC id, and their rows
are read at the end.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.e2e import harness as h
from tests.e2e.certs import DAY, Authority, ClientPki, Leaf, authority
from tests.e2e.house import jwk
from tests.e2e.warm import Warm

ALICE, BOB = "user:alice@corp.example", "user:bob@corp.example"
ISSUER = "https://idp.corp.example/"
OWN_NAME = "https://mcp.corp.example"
"""What clients call the reverse listener: one of the audiences."""

IDENTITIES = """version: 1
issuers:
  - {id: corp-idp, type: oidc, issuer: "https://idp.corp.example/", jwks_file: jwks.json, login: true,
     audiences: [callerid, "https://mcp.corp.example"], algorithms: [ES256], claims: {principal: email}}
client_cas:
  - {id: corp-people, file: people.pem, crl: people.crl, principal_from: san_email}
  - {id: corp-mesh, file: mesh.pem, principal_from: san_uri}
trusted_hops:
  - {id: envoy, peer_cert_san: "spiffe://corp.example/envoy/branch", accept: [client-cert, xfcc]}
groups:
  engineering: {members: ["user:alice@corp.example", "user:bob@corp.example"]}
  interns: {members: ["user:ivy@corp.example"]}
REQUIRED"""


@dataclass
class Sent:
    """One request: by which way, and what it shows where."""

    way: str
    connect: dict[str, str] = field(default_factory=dict)
    headers: list[tuple[str, str]] = field(default_factory=list)
    outer: str | None = None
    inner: str | None = None


WAYS = ("connect", "connect over TLS", "absolute", "absolute over TLS", "reverse")
OUTER = ("connect over TLS", "absolute over TLS")
INNER = ("connect", "connect over TLS", "reverse")
TUNNELS = ("connect", "connect over TLS")


@dataclass
class Gate:
    """The proxy, its upstreams, and what can be shown to it."""

    proxy: h.Proxy
    upstream: h.Upstream
    plain: h.Upstream
    reverse_port: int
    idp: ec.EllipticCurvePrivateKey
    holder: ec.EllipticCurvePrivateKey
    leaves: dict[str, Leaf]
    people: ClientPki
    tokens: dict[str, str] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1000))
    contexts: dict[str | None, ssl.SSLContext] = field(default_factory=dict)

    # -- what is shown -------------------------------------------------------------------------

    def jwt(self, key: Any = None, *, header: dict[str, Any] | None = None, **changes: Any) -> str:
        now = int(time.time())
        claims = {
            "iss": ISSUER, "aud": "callerid", "sub": "a1", "email": "alice@corp.example",
            "iat": now, "exp": now + 600, "jti": "j-1", **changes,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, key or self.idp, algorithm="ES256", headers={"kid": "k1", **(header or {})})

    def url(self, way: str) -> str:
        """Where a request of this way goes, as its client writes it."""
        if way == "reverse":
            return f"{OWN_NAME}/mcp"
        secure = way in TUNNELS
        return f"http{'s' if secure else ''}://localhost:{(self.upstream if secure else self.plain).port}/mcp"

    def bound_to_key(self, **changes: Any) -> str:
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.holder.public_key()))
        text = json.dumps({name: public[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
        return self.jwt(cnf={"jkt": _b64(hashlib.sha256(text.encode()).digest())}, **changes)

    def proof(self, token: str, way: str, key: Any = None, **changes: Any) -> str:
        key = key or self.holder
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
        claims = {
            "jti": f"p-{next(self.ids)}", "htm": "POST", "htu": self.url(way), "iat": int(time.time()),
            "ath": _b64(hashlib.sha256(token.encode()).digest()), **changes,
        }  # fmt: skip
        return jwt.encode(claims, key, algorithm="ES256", headers={"typ": "dpop+jwt", "jwk": public})

    def bound_to_leaf(self, leaf: str, **changes: Any) -> str:
        der = self.leaves[leaf].certificate.public_bytes(Encoding.DER)
        return self.jwt(cnf={"x5t#S256": _b64(hashlib.sha256(der).digest())}, **changes)

    def forwarded(self, leaf: str, header: str) -> tuple[str, str]:
        certificate = self.leaves[leaf].certificate
        if header == "client-cert":
            der = certificate.public_bytes(Encoding.DER)
            return ("Client-Cert", f":{base64.b64encode(der).decode()}:")
        pem = quote(certificate.public_bytes(Encoding.PEM).decode(), safe="")
        own = f'By=spiffe://corp.example/envoy/branch;Hash={self.leaves[leaf].sha256};Cert="{pem}"'
        return ("X-Forwarded-Client-Cert", own)

    # -- sending -------------------------------------------------------------------------------

    def context(self, leaf: str | None) -> ssl.SSLContext:
        if leaf not in self.contexts:
            made = self.proxy.trust()
            self.contexts[leaf] = self.leaves[leaf].shown_by(made) if leaf else made
        return self.contexts[leaf]

    def open(self, sent: Sent) -> h.RawClient:
        if sent.way == "connect":
            return self.proxy.tunnel(
                self.authority(sent.way), headers=sent.connect, context=self.context(sent.inner)
            )
        if sent.way == "connect over TLS":
            return h.tunnel_over_tls(
                self.proxy, self.authority(sent.way), self.context(sent.outer), self.context(sent.inner),
                headers=sent.connect,
            )  # fmt: skip
        if sent.way == "absolute":
            return self.proxy.plain()
        port = self.reverse_port if sent.way == "reverse" else self.proxy.port
        leaf = sent.inner if sent.way == "reverse" else sent.outer
        plain = socket.create_connection(("127.0.0.1", port), h.DEADLINE)
        return h.RawClient(self.context(leaf).wrap_socket(plain, server_hostname="localhost"))

    def authority(self, way: str) -> str:
        if way == "reverse":
            return f"localhost:{self.reverse_port}"
        return f"localhost:{(self.upstream if way in TUNNELS else self.plain).port}"

    def request(self, sent: Sent, number: int) -> bytes:
        body = h.tool("read_thing", {"x": 1}, number)
        place = self.authority(sent.way)
        target = f"http://{place}/mcp" if sent.way.startswith("absolute") else "/mcp"
        lines = [("Host", place), ("Content-Type", "application/json"), *sent.headers]
        lines.append(("Content-Length", str(len(body))))
        head = f"POST {target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines)
        return head.encode() + b"\r\n" + body

    def send(self, sent: Sent) -> int:
        """Send it on a connection of its own; its JSON-RPC id."""
        number = next(self.ids)
        client = self.open(sent)
        client.send(self.request(sent, number))
        answer = client.read()
        client.close()
        assert answer is not None
        assert answer.status in (200, 401), answer  # 401 is where a login would help (RFC 9728)
        assert answer.json["id"] == number
        return number

    # -- what became of it ---------------------------------------------------------------------

    def rows(self) -> dict[int, dict[str, Any]]:
        """Every row by the id of its message."""
        found = self.proxy.rows("rpc_id is not null")
        assert len({row["rpc_id"] for row in found}) == len(found)
        return {int(row["rpc_id"]): row for row in found}

    def arrived(self) -> set[int]:
        """The ids of the messages that reached a server."""
        return {seen.message["id"] for up in (self.upstream, self.plain) for seen in up.seen}


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def spiffe_leaf(pki: ClientPki, label: str, path: str, issuer: Authority, **more: Any) -> Leaf:
    """A machine's certificate: its name is a SPIFFE ID."""
    return pki.leaf(label, None, issuer=issuer, names=[x509.UniformResourceIdentifier(path)], **more)


def make_leaves(people: ClientPki, mesh: Authority, other_mesh: Authority) -> dict[str, Leaf]:
    hop = "spiffe://corp.example/envoy/branch"
    return {
        "alice": people.leaf("alice"),
        "bob": people.leaf("bob", "bob@corp.example"),
        "expired": people.leaf("expired", starts=-30 * DAY, ends=-DAY),
        "revoked": people.leaf("revoked"),
        "wrong CA": people.leaf("wrong ca", issuer=people.other),
        "self-signed": people.leaf("self-signed", self_signed=True),
        "hop": spiffe_leaf(people, "hop", hop, mesh),
        "false hop": spiffe_leaf(people, "false-hop", hop, other_mesh),
        "expired hop": spiffe_leaf(people, "expired-hop", hop, mesh, starts=-30 * DAY, ends=-DAY),
        "worker": spiffe_leaf(people, "worker", "spiffe://corp.example/worker", mesh),
    }


@contextmanager
def open_gate(
    folder: Path, pki: h.Pki, warm: Warm, *, required: bool = False, extra: tuple[str, ...] = ()
) -> Iterator[Gate]:
    """The scene, while it lasts. ``required``: nobody is served without a certificate."""
    idp, holder = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    people, mesh = ClientPki(folder / "people"), authority("Corp Mesh CA")
    leaves = make_leaves(people, mesh, authority("Corp Mesh CA"))
    upstream, plain = h.Upstream(pki.server_context()), h.Upstream(None)
    lab = f"  - {{id: lab, url: 'http://localhost:{plain.port}/mcp'}}\n"
    servers = h.servers(upstream.port, extra=f"{lab}passthrough: [closed.corp.example]\n")
    word = "client_certificate: required\n" if required else ""
    rules = h.standard_rules(
        upstream.port,
        **{
            "identities.yaml": IDENTITIES.replace("REQUIRED", word),
            "servers.yaml": servers,
            "policy.yaml": h.POLICY_ANYWHERE,
            "jwks.json": json.dumps({"keys": [jwk(idp)]}),
            "people.pem": people.corp.pem.decode(),
            "people.crl": people.crl(leaves["revoked"]).decode(),
            "mesh.pem": mesh.pem.decode(),
        },
    )
    port = h.free_port()
    modes = ("regular", f"reverse:https://localhost:{upstream.port}/@127.0.0.1:{port}")
    proxy = h.WarmProxy(
        warm, folder, rules, ca=pki.ca, modes=modes, extra=extra, environ={"THINGS_SECRET": h.SECRET}
    )
    made = Gate(proxy, upstream, plain, port, idp, holder, leaves, people)
    with h.running(proxy):
        good, revoked = h.mint(proxy), h.mint(proxy)
        h.revoke(proxy, revoked)
        made.tokens = {
            "good": good, "revoked": revoked, "bob": h.mint(proxy, BOB),
            "expired": h.mint(proxy, seconds=-60),
            "wrong network": h.mint(proxy, networks=("203.0.113.0/24",)),
            "right network": h.mint(proxy, networks=("127.0.0.0/8",)),
            "spoofed": h.tokens.mint(b"\1" * 32), "malformed": good[:-1] + ("x" if good[-1] != "x" else "y"),
        }  # fmt: skip
        with h.registry(proxy) as registry:
            registry.block("jwt:corp-idp:stolen", now_us=1, by="tests")
        yield made
    upstream.close()
    plain.close()
