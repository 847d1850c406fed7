"""After a busy day: the shared secrets are nowhere but at their server, and the callers' never there.

One scenario runs once: allowed, denied, echoed in every form, errors, streams, a rotation, a reload, a
restart. Then every file under the home, everything the process printed, every answer and every command's
output is searched, and everything that arrived at an upstream.
"""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.e2e import harness as h
from tests.e2e.warm import Warm

OLD = 'up"secret/4f9c+2a7d\\81e6=b350'
NEW = 'up"secret/77aa+0b1c\\92f7=c461'
HEADER_SECRET = "hdr-secret-5e1f0a9b8c7d"
ISSUER = "https://idp.corp.example/"
PERSONAL = "ghp_personal0123456789abcdef"


def renderings(secret: str) -> dict[str, bytes]:
    """The forms in which a secret was seen to leak: each must be found by nobody."""
    raw = secret.encode()
    pair = base64.b64encode(b"robot:" + raw)
    forms = {
        "raw": raw,
        "percent-encoded": quote(secret, safe="").encode(),
        "percent-encoded, lower case": quote(secret, safe="").lower().encode(),
        "as a form field": quote(secret).encode(),
        "JSON": json.dumps(secret)[1:-1].encode(),
        "JSON twice": json.dumps(json.dumps(secret)[1:-1])[1:-1].encode(),
        "hexadecimal": raw.hex().encode(),
        "base64url": base64.urlsafe_b64encode(raw).rstrip(b"="),
        "Basic": pair.rstrip(b"="),
    }
    for shift in range(3):
        # Only the characters that depend on the secret alone, at each of the three alignments.
        coded = base64.b64encode(b"\0" * shift + raw)
        forms[f"base64 at {shift}"] = coded[(0, 2, 3)[shift] : len(coded) - 4]
    return forms


def leaks(secret: str) -> str:
    """The secret in each of these forms, as a careless server would write them."""
    whole = [base64.b64encode(secret.encode()), base64.b64encode(f"robot:{secret}".encode())]
    whole += [base64.b64encode(b"key=" + b"x" * n + secret.encode() + b" and more") for n in range(3)]
    others = [form for name, form in renderings(secret).items() if "base64 at" not in name]
    return " | ".join(text.decode() for text in whole + others)


def searched(where: str, data: bytes) -> list[str]:
    """Which secret stands in ``data``, and in which form."""
    return [
        f"{where}: {secret[:8]}... {form}"
        for secret in (OLD, NEW, HEADER_SECRET)
        for form, needle in renderings(secret).items()
        if needle in data
    ]


@dataclass
class Day:
    """What the scenario left behind."""

    proxy: h.WarmProxy
    upstreams: dict[str, h.Upstream]
    callers: list[str] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    def call(
        self, body: bytes, token: str, *, server: str = "things", carrier: str = "Proxy-Authorization"
    ) -> bytes:
        """Everything that came back to the client, byte for byte."""
        authority = f"localhost:{self.upstreams[server].port}"
        value = h.basic("alice", token) if carrier == "Proxy-Authorization" else f"Bearer {token}"
        headers = {carrier: value}
        at_connect = headers if carrier == "Proxy-Authorization" else None
        client = self.proxy.tunnel(authority, headers=at_connect)
        inner = {"Authorization": f"Bearer {PERSONAL}"} if at_connect else headers
        client.send(h.post(authority, "/mcp", body, {"Connection": "close", **inner}))
        client.sock.settimeout(5)
        got = b""
        with suppress(OSError):
            while data := client.sock.recv(65536):
                got += data
        client.close()
        self.answers.append(got)
        return got


def echo(secret: str, seen: h.Seen) -> h.Reply:
    """An upstream that gives away all it was told, in the way that the tool's name says."""
    message = json.loads(seen.body)
    how = message.get("params", {}).get("name", "")
    text = leaks(secret)
    result = {"content": [{"type": "text", "text": text}, {"type": "text", "text": secret}], "isError": False}
    answer = {"jsonrpc": "2.0", "id": message.get("id"), "result": result}
    if how == "read_stream":
        event = b"event: message\ndata: " + json.dumps(answer).encode() + b"\n\n"
        pieces = iter([event[i : i + 7] for i in range(0, len(event), 7)])
        return h.Reply(200, [("content-type", "text/event-stream")], chunks=pieces)
    if how == "read_error":
        error = {"code": -32000, "message": f"bad key {secret}", "data": {secret: [secret]}}
        return h.json_reply({"jsonrpc": "2.0", "id": message.get("id"), "error": error}, status=500)
    if how == "read_refused":
        return h.Reply(401, [("www-authenticate", f'Bearer error="{secret}"')], secret.encode())
    if how == "read_html":
        page = f"<html>{text}<pre>{seen.raw.decode('latin-1')}</pre></html>"
        return h.Reply(502, [("content-type", "text/html")], page.encode())
    if how == "read_headers":
        headers = [
            ("x-echo", secret),
            ("set-cookie", f"k={quote(secret, safe='')}"),
            ("location", f"/?k={secret}"),
        ]
        return h.json_reply(answer, headers=dict(headers))
    return h.json_reply(answer)


def echo_what_came(seen: h.Seen) -> h.Reply:
    pair = base64.b64decode((seen.header("authorization") or "").removeprefix("Basic "))
    return echo(pair.decode().partition(":")[2], seen)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Day]:
    folder = tmp_path_factory.mktemp("secrets")
    secret = folder / "things.secret"
    write(secret, OLD)
    things = h.Upstream(pki.server_context(), echo_what_came)
    tickets = h.Upstream(pki.server_context(), lambda seen: echo(HEADER_SECRET, seen))
    web = h.Upstream(pki.server_context(), lambda seen: h.Reply(200, [], seen.raw))
    key = ec.generate_private_key(ec.SECP256R1())
    proxy = h.WarmProxy(
        warm, folder, rules(things, tickets, key), ca=pki.ca, environ={"TICKETS_SECRET": HEADER_SECRET}
    )
    made = Day(proxy, {"things": things, "tickets": tickets, "web": web})
    made.callers = [PERSONAL]
    proxy.start()
    try:
        scenario(made, secret, key)
    finally:
        made.codes.append(proxy.stop())
    yield made
    for upstream in made.upstreams.values():
        upstream.close()


def write(path: Path, text: str) -> None:
    """Replace a secret's file as an operator does: beside it, then renamed into place."""
    beside = path.with_suffix(".new")
    beside.touch(mode=0o600)
    beside.write_text(text)
    beside.replace(path)


def rules(things: h.Upstream, tickets: h.Upstream, key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    public = {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())), "kid": "k1"}
    extra = f"""  - {{id: tickets, url: 'https://localhost:{tickets.port}/mcp', credential: tickets-key}}
"""
    more = f"""  - id: tickets-key
    source: {{env: TICKETS_SECRET}}
    inject: {{header: {{name: X-Api-Key, format: "key={{secret}}"}}}}
    bind: {{hosts: ["localhost:{tickets.port}"]}}
"""
    issuers = f"""issuers:
  - {{id: corp-idp, type: oidc, issuer: "{ISSUER}", jwks_file: jwks.json, audiences: [callerid],
     algorithms: [ES256], claims: {{principal: email}}}}
"""
    return h.standard_rules(
        things.port,
        **{
            "servers.yaml": h.servers(things.port, extra=extra),
            "credentials.yaml": h.credentials(
                things.port, "basic: {username: robot}", "file: ../things.secret"
            ) + more,
            "policy.yaml": h.POLICY_ANYWHERE,
            "identities.yaml": h.identities(issuers),
            "jwks.json": json.dumps({"keys": [public]}),
        },
    )  # fmt: skip


HOW = ("read_json", "read_stream", "read_error", "read_refused", "read_html", "read_headers")


def scenario(day: Day, secret: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """The busy day. What it must not leak goes to ``day.callers``."""
    proxy = day.proxy
    alice, ivy = proxy.issue("user:alice@corp.example"), proxy.issue("user:ivy@corp.example")
    day.callers += [alice, ivy]
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": "callerid",
        "sub": "a",
        "email": "alice@corp.example",
        "iat": now,
        "exp": now + 600,
    }
    token = jwt.encode(claims, key, algorithm="ES256")
    day.callers.append(token)

    def everything() -> None:
        for server in ("things", "tickets"):
            for how in HOW:
                day.call(
                    h.tool(how, {"password": "hunter2-hunter2", "note": alice[:20]}), alice, server=server
                )
            day.call(h.tool("read_json"), token, server=server, carrier="Authorization")
            day.call(h.rpc("tools/list"), ivy, server=server)
            day.call(h.tool("drop_thing", {"name": "x"}), alice, server=server)
            day.call(h.tool("anything"), ivy, server=server)
            day.call(b"{" + alice.encode(), alice, server=server)
            day.call(h.tool("read_json", {"leak": alice}), alice, server=server)
        day.call(b"name=value", alice, server="web")
        day.call(h.tool("read_json"), alice, server="web", carrier="Authorization")

    everything()
    write(secret, NEW)
    h.wait_for(lambda: renews(day, alice), "the new secret in force")
    everything()
    # An old secret may still be echoed, by a server that keeps it in a log.
    day.upstreams["things"].answer = lambda seen: echo(OLD, seen)
    everything()
    day.upstreams["things"].answer = echo_what_came
    (proxy.rules / "policy.yaml").write_text("rules: [")
    h.wait_for(lambda: any("stay in force" in line for line in proxy.output), "the broken rules refused")
    (proxy.rules / "policy.yaml").write_text(h.POLICY_ANYWHERE)
    h.wait_for(lambda: any("reloaded" in line for line in proxy.output), "the mended rules in force")
    with socket.create_connection(("127.0.0.1", proxy.port)) as rude:
        rude.sendall(
            f"GET {alice} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice}\r\n:\r\n\r\n".encode()
        )
        rude.recv(65536)
    day.codes.append(proxy.stop())
    proxy.start()
    everything()
    for arguments in (
        ("check",), ("check", "--json"), ("tokens",), ("tokens", "--all", "--json"), ("audit", "tail"),
        ("audit", "tail", "--json"), ("explain", "--help"),
    ):  # fmt: skip
        done = proxy.command(*arguments, check=False)
        day.printed.append(done.stdout + done.stderr)
    shown = proxy.rows("verdict = 'allow'")[-1]["event_id"]
    day.printed.append(proxy.command("audit", "show", shown).stdout)


def renews(day: Day, token: str) -> bool:
    day.call(h.tool("read_json"), token)
    return str(day.proxy.rows("injected is not null")[-1]["injected"]).endswith("@v2")


def test_the_scenario_was_busy_enough_to_prove_something(day: Day) -> None:
    assert day.codes == [0, 0]
    found = {(row["server"], row["verdict"], row["reason"]) for row in day.proxy.rows()}
    for server in ("things", "tickets"):
        for reason in ("no_grant", "rule_denied", "malformed_json", "token_in_request"):
            assert (server, "deny", reason) in found
        assert (server, "allow", "granted") in found
    outcomes = {row["outcome"] for row in day.proxy.rows("verdict = 'allow'")}
    assert {"ok", "rpc_error", "http_error", "upstream_refused_credential"} <= outcomes
    assert "unknown" not in outcomes
    injected = {row["injected"] for row in day.proxy.rows("injected is not null")}
    assert {"things-key@v1", "things-key@v2", "tickets-key@v1"} <= injected


def test_the_upstreams_did_get_their_secrets(day: Day) -> None:
    """Else nothing below would prove anything."""
    things = b"".join(seen.raw for seen in day.upstreams["things"].seen)
    for secret in (OLD, NEW):
        assert b"Basic " + base64.b64encode(f"robot:{secret}".encode()) in things
    tickets = day.upstreams["tickets"].seen
    assert {seen.header("x-api-key") for seen in tickets} == {f"key={HEADER_SECRET}"}
    assert all(seen.header("authorization") is None for seen in tickets)


def test_no_answer_to_a_client_has_a_secret_in_it(day: Day) -> None:
    assert sum(b"[callerid:removed]" in answer for answer in day.answers) > 20
    assert [hit for number, got in enumerate(day.answers) for hit in searched(f"answer {number}", got)] == []


def test_no_file_under_the_home_has_a_secret_or_a_token_in_it(day: Day) -> None:
    files = [path for path in day.proxy.home.rglob("*") if path.is_file()]
    assert {"audit.db", "registry.db"} <= {path.name for path in files}
    hits = []
    for path in files:
        data = path.read_bytes()
        hits += searched(path.name, data)
        hits += [f"{path.name}: {caller[:8]}..." for caller in day.callers if caller.encode() in data]
        if path.name.startswith("audit"):
            hits += [f"{path.name}: password"] if b"hunter2" in data else []
    assert hits == []


def test_the_files_of_the_home_are_private(day: Day) -> None:
    assert day.proxy.home.stat().st_mode & 0o777 == 0o700
    for path in day.proxy.home.rglob("*"):
        if path.is_file() and not path.name.startswith("mitmproxy-ca-cert."):
            assert path.stat().st_mode & 0o077 == 0, path.name


def test_nothing_that_was_printed_has_a_secret_or_a_token_in_it(day: Day) -> None:
    """The output of the proxy, and of the commands that read its state."""
    printed = "\n".join([*day.proxy.output, *day.printed]).encode()
    assert b"things" in printed
    hits = searched("output", printed)
    hits += [f"output: {caller[:8]}..." for caller in day.callers if caller.encode() in printed]
    assert hits == []


def test_no_upstream_saw_anything_of_a_caller(day: Day) -> None:
    ours = [caller for caller in day.callers if caller != PERSONAL]
    for name, upstream in day.upstreams.items():
        for seen in upstream.seen:
            assert b"proxy-authorization" not in seen.raw.lower()
            for caller in ours:
                assert caller.encode() not in seen.raw
                assert base64.b64encode(f"alice:{caller}".encode()) not in seen.raw
            if name != "web":
                assert PERSONAL.encode() not in seen.raw
    assert any(seen.header("authorization") == f"Bearer {PERSONAL}" for seen in day.upstreams["web"].seen)


def test_each_secret_was_seen_by_its_own_server_only(day: Day) -> None:
    for name, upstream in day.upstreams.items():
        raw = b"".join(seen.raw for seen in upstream.seen)
        hits = searched(name, raw)
        if name == "things":
            assert all("Basic" in hit or "base64" in hit for hit in hits), hits
        elif name == "tickets":
            assert all("hdr-secr" in hit for hit in hits), hits
        else:
            assert hits == []
