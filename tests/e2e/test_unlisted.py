"""Servers that nobody listed: MCP to them is seen however it is dressed, and nothing of ours goes there."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.e2e import harness as h
from tests.e2e.warm import Warm

CALL = h.tool("run_anything", {"x": 1}, 5)
ISSUER = "https://idp.corp.example/"


@dataclass
class Wild:
    """A proxy whose rules deny or observe unlisted servers, and a server that is not listed."""

    proxy: h.Proxy
    upstream: h.Upstream
    token: str
    key: ec.EllipticCurvePrivateKey

    @property
    def authority(self) -> str:
        return f"localhost:{self.upstream.port}"

    def send(self, raw: bytes, *, tls: bool = True, connect: dict[str, str] | None = None) -> h.Trial:
        tried = h.trial(self.proxy, self.upstream)
        client = self.proxy.tunnel(self.authority, headers=connect) if tls else self.proxy.plain()
        client.send(raw)
        tried.answer = client.read()
        client.close()
        return tried

    def jwt(self) -> str:
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": "callerid", "sub": "a", "email": "a@b.c", "iat": now, "exp": now + 60}
        return jwt.encode(claims, self.key, algorithm="ES256")


def wild(folder: Path, pki: h.Pki, warm: Warm, unknown_server: str) -> Iterator[Wild]:
    listed, upstream = h.Upstream(pki.server_context()), h.Upstream(pki.server_context())
    key = ec.generate_private_key(ec.SECP256R1())
    public = {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())), "kid": "k1"}
    issuer = f"""issuers:
  - {{id: corp-idp, type: oidc, issuer: "{ISSUER}", jwks_file: jwks.json, audiences: [callerid],
     algorithms: [ES256], claims: {{principal: email}}}}
"""
    rules = h.standard_rules(
        listed.port,
        **{
            "policy.yaml": h.POLICY.replace("unknown_server: deny", f"unknown_server: {unknown_server}"),
            "identities.yaml": h.identities(issuer),
            "jwks.json": json.dumps({"keys": [public]}),
        },
    )
    proxy = h.WarmProxy(warm, folder, rules, ca=pki.ca, environ={"THINGS_SECRET": h.SECRET})
    with h.running(proxy):
        made = Wild(proxy, upstream, h.mint(proxy), key)
        yield made
        assert all(h.SECRET.encode() not in seen.raw for seen in upstream.seen)
        assert all(b"cid_" not in seen.raw for seen in upstream.seen)
    listed.close()
    upstream.close()


@pytest.fixture(scope="module")
def denying(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Wild]:
    yield from wild(tmp_path_factory.mktemp("denying"), pki, warm, "deny")


@pytest.fixture(scope="module")
def observing(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Wild]:
    yield from wild(tmp_path_factory.mktemp("observing"), pki, warm, "observe")


def request(authority: str, body: bytes, *lines: str, verb: str = "POST", target: str = "/rpc") -> bytes:
    head = [f"{verb} {target} HTTP/1.1", f"Host: {authority}", *lines]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


DISGUISES: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "plainly": (CALL, ("Content-Type: application/json",)),
    "as text": (CALL, ("Content-Type: text/plain",)),
    "without a type": (CALL, ()),
    "with a byte order mark": (b"\xef\xbb\xbf" + CALL, ()),
    "in UTF-16": (CALL.decode().encode("utf-16"), ("Content-Type: application/json; charset=utf-16",)),
    "in gzip": (gzip.compress(CALL), ("Content-Encoding: gzip",)),
    "in a batch": (b"[" + CALL + b"]", ()),
    "escaped": (CALL.replace(b"tools/call", rb"\u0074ools\/c\u0061ll"), ()),
    "with its method twice": (CALL.replace(b'"id"', b'"method": "ping", "id"'), ()),
    "followed by garbage": (CALL + b" trailing", ()),
    "in capitals": (CALL.replace(b'"method"', b'"Method"'), ()),
    "as initialize": (
        h.rpc("initialize", {"protocolVersion": "2025-06-18", "clientInfo": {"name": "x"}}), (),
    ),
    "as a listing": (h.rpc("tools/list"), ()),
    "as a notification": (h.rpc("notifications/initialized", rpc_id=None), ()),
    "by its session header": (b"{}", ("Mcp-Session-Id: s1",)),
}  # fmt: skip


@pytest.mark.parametrize("how", DISGUISES)
def test_mcp_to_an_unlisted_server_is_refused_however_it_is_dressed(denying: Wild, how: str) -> None:
    body, lines = DISGUISES[how]
    connect = {"Proxy-Authorization": h.basic("alice", denying.token)}
    tried = denying.send(request(denying.authority, body, *lines), connect=connect)
    row = tried.refused("unknown_server")
    assert row["server"] == row["upstream"] == denying.authority
    assert row["principal"] == "user:alice@corp.example"
    assert tried.answer is not None
    assert tried.answer.status in (200, 202, 400, 403, 413, 415)


def test_an_unlisted_server_is_refused_to_nobody_in_particular_too(denying: Wild) -> None:
    raw = request(denying.authority, CALL, "Content-Type: application/json")
    row = denying.send(raw).refused("unknown_server")
    assert (row["principal"], row["tool"]) == ("anonymous", "run_anything")


@pytest.mark.parametrize("verb", ["GET", "DELETE"])
def test_the_streams_and_sessions_of_an_unlisted_server_are_refused(denying: Wild, verb: str) -> None:
    lines = ("Accept: text/event-stream", "MCP-Protocol-Version: 2025-06-18")
    tried = denying.send(request(denying.authority, b"", *lines, verb=verb))
    tried.refused("unknown_server")


@pytest.mark.parametrize("how", DISGUISES)
def test_an_observed_server_gets_the_very_bytes_and_each_message_a_row(observing: Wild, how: str) -> None:
    body, lines = DISGUISES[how]
    connect = {"Proxy-Authorization": h.basic("alice", observing.token)}
    raw = request(observing.authority, body, *lines, f"X-Callerid-Token: {observing.token}", "X-Own: kept")
    tried = observing.send(raw, connect=connect)
    row = tried.row
    assert (row["verdict"], row["reason"], row["injected"]) == ("allow", "observed", None)
    assert (row["principal"], row["server"]) == ("user:alice@corp.example", observing.authority)
    [seen] = tried.seen
    assert (seen.body, seen.path, seen.header("x-own")) == (body, "/rpc", "kept")
    assert seen.header("x-callerid-token") is None


def test_an_observed_server_gets_the_callers_own_credential_for_it(observing: Wild) -> None:
    raw = request(observing.authority, CALL, "Authorization: Bearer ghp_personal0123456789")
    tried = observing.send(raw, connect={"Proxy-Authorization": h.basic("alice", observing.token)})
    assert tried.seen[0].header("authorization") == "Bearer ghp_personal0123456789"
    assert tried.row["reason"] == "observed"
    assert "ghp_" not in json.dumps(tried.row)


@pytest.mark.parametrize("line", ["X-Callerid-Token: {}", "Proxy-Authorization: Bearer {}"])
def test_a_strangers_jwt_in_a_carrier_of_ours_is_refused_where_servers_are_observed(
    observing: Wild, line: str
) -> None:
    claims = {"iss": "https://idp.elsewhere.example", "aud": "callerid", "exp": int(time.time()) + 60}
    theirs = jwt.encode(claims, observing.key, algorithm="ES256")
    observing.send(request(observing.authority, CALL, line.format(theirs))).refused("evidence_unrecognised")


# -- what is not MCP -----------------------------------------------------------------------------

OTHER: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
    "a page": ("GET", b"", ()),
    "a form": ("POST", b"method=tools/call", ("Content-Type: application/x-www-form-urlencoded",)),
    "an API": ("POST", b'{"model":"m","messages":[]}', ("Content-Type: application/json",)),
    "another JSON-RPC": ("POST", b'{"jsonrpc":"2.0","id":1,"method":"eth_call","params":[]}', ()),
    "a PUT": ("PUT", b"\0\1\2", ()),
    "OPTIONS": ("OPTIONS", b"", ()),
}


@pytest.mark.parametrize("what", OTHER)
def test_other_traffic_passes_as_it_is_and_leaves_no_row(denying: Wild, what: str) -> None:
    verb, body, lines = OTHER[what]
    tried = denying.send(request(denying.authority, body, *lines, "X-Own: kept", verb=verb, target="/a?b=c"))
    assert tried.answer is not None
    assert tried.rows == []
    [seen] = tried.seen
    assert (seen.method, seen.path, seen.body, seen.header("x-own")) == (verb, "/a?b=c", body, "kept")


@pytest.mark.parametrize(
    "line",
    [
        "Proxy-Authorization: Bearer {token}",
        "X-Callerid-Token: {token}",
        "X_Callerid_Token: {token}",
        "Authorization: Bearer {token}",
        "Authorization: {token}",
        "Authorization: Basic {basic}",
        "Authorization: Bearer {jwt}",
        "X-Api-Key: {token}",
        "Cookie: a=b; t={token}",
        "X-Forwarded-Authorization: Bearer {jwt}",
        "Referer: https://x.corp.example/?t={token}",
    ],
)
def test_nothing_of_ours_leaves_in_a_header_of_other_traffic(denying: Wild, line: str) -> None:
    token, ours = denying.token, denying.jwt()
    basic = base64.b64encode(f"alice:{token}".encode()).decode()
    line_sent = line.format(token=token, basic=basic, jwt=ours)
    raw = request(denying.authority, b"", line_sent, "X-Own: kept", verb="GET", target="/page")
    tried = denying.send(raw)
    assert tried.rows == []
    [seen] = tried.seen
    assert seen.header(line.partition(":")[0]) is None
    assert seen.header("x-own") == "kept"
    for secret in (token, basic, ours):
        assert secret.encode() not in seen.raw


def test_a_credential_that_is_not_ours_stays_on_other_traffic(denying: Wild) -> None:
    lines = ("Authorization: Bearer ghp_personal0123456789", "Cookie: session=1")
    [seen] = denying.send(request(denying.authority, b"", *lines, verb="GET", target="/page")).seen
    assert seen.header("authorization") == "Bearer ghp_personal0123456789"
    assert seen.header("cookie") == "session=1"


@pytest.mark.parametrize("where", ["path", "encoded path", "query", "body", "form", "MCP body"])
def test_a_token_in_a_url_or_a_body_stops_the_request(denying: Wild, where: str) -> None:
    token = denying.token
    encoded = "".join(f"%{ord(char):02x}" for char in token)
    target = {"path": f"/{token}/x", "encoded path": f"/{encoded}/x", "query": f"/x?t={token}"}.get(
        where, "/x"
    )
    body = {
        "body": b'{"t":"%s"}' % token.encode(),
        "form": b"t=" + token.encode(),
        "MCP body": h.tool("x", {"t": token}),
    }.get(where, b"")
    raw = request(denying.authority, body, verb="POST" if body else "GET", target=target)
    tried = denying.send(raw)
    row = tried.refused("token_in_request")
    assert token not in json.dumps(row)
    assert encoded not in json.dumps(row)
    assert tried.answer is not None
    assert tried.answer.status >= 400


def test_plain_traffic_by_absolute_form_is_stripped_as_well(denying: Wild) -> None:
    plain = h.Upstream(None)
    tried = h.trial(denying.proxy, plain)
    client = denying.proxy.plain()
    authority = f"localhost:{plain.port}"
    lines = (f"Proxy-Authorization: {h.basic('alice', denying.token)}", "Proxy-Connection: keep-alive")
    client.send(request(authority, b"", *lines, verb="GET", target=f"http://{authority}/page"))
    client.read()
    client.close()
    plain.close()
    [seen] = tried.seen
    assert tried.rows == []
    assert {name.lower() for name, _ in seen.headers} == {"host"}


def test_a_passed_stream_of_an_unlisted_server_is_not_held_back(denying: Wild) -> None:
    """Traffic that is not governed is not buffered: the first part arrives while the rest is not written."""
    gate = threading.Event()

    def slowly(seen: h.Seen) -> h.Reply:
        def parts() -> Iterator[bytes]:
            yield b"first"
            gate.wait(h.DEADLINE)
            yield b"second"

        return h.Reply(200, [("content-type", "text/plain")], chunks=parts())

    denying.upstream.answer = slowly
    try:
        client = denying.proxy.tunnel(denying.authority)
        client.send(request(denying.authority, b"", verb="GET", target="/page"))
        client.read_head()
        chunks = client.chunks()
        assert next(chunks) == b"first"
        gate.set()
        assert b"".join(chunks) == b"second"
        client.close()
    finally:
        gate.set()
        denying.upstream.answer = h.call_tool
