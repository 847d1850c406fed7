"""Every way in which a secret gets to its server, against real parts: what arrives, what is in the row.

One proxy, one recording upstream for each credential, a real OAuth authorization server over TLS, AWS
signatures that are computed again, and a server that asks for a client certificate.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt
import pytest
from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.e2e import harness as h
from tests.e2e import oauth_server
from tests.e2e.certs import ClientPki
from tests.e2e.house import jwk
from tests.e2e.warm import Warm

IDP = "https://idp.corp.example/"
KEY = 'a-key+of/some=length&"quoted"'
SESSION = "a-session-of-some-length"
CLIENT_SECRET = "client-secret-5d0c9f"
FIRST_REFRESH = "refresh-first-of-all-4711"
AWS = ("AKIDEXAMPLE00000", "wJalrXUtnFEMI-K7MDENG-bPxRfiCY", "session-token-of-some-length")
OWN = "ghp_personal0123456789abcdef"
RESOURCE = "https://files.corp.example/mcp"
NAMES = (
    "query", "cookie", "in-header", "in-query", "in-argument", "granted", "refreshed", "personal", "aws",
    "tls", "tls-other", "own",
)  # fmt: skip

IDENTITIES = f"""issuers:
  - {{id: corp-idp, type: oidc, issuer: "{IDP}", jwks_file: jwks.json, audiences: [callerid],
     algorithms: [ES256], claims: {{principal: email}}}}
"""


@dataclass
class Scene:
    """The proxy, what is behind it, and who comes to it."""

    proxy: h.Proxy
    upstreams: dict[str, h.Upstream]
    login: oauth_server.Login
    key: ec.EllipticCurvePrivateKey
    people: ClientPki
    folder: Path
    tokens: dict[str, str] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)

    def jwt(self, name: str = "alice", **changes: Any) -> str:
        now = int(time.time())
        claims = {
            "iss": IDP, "aud": "callerid", "sub": name, "email": f"{name}@corp.example", "iat": now,
            "exp": now + 600, **changes,
        }  # fmt: skip
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": "k1"})

    def place(self, server: str) -> str:
        return f"localhost:{self.upstreams[server].port}"

    def ask(
        self, server: str, *, path: str = "/mcp", body: bytes | None = None,
        headers: dict[str, str] | None = None, connect: str | None = None,
    ) -> h.Trial:  # fmt: skip
        """One call through a tunnel of its own, by Alice with her scoped token at CONNECT unless told."""
        tried = h.trial(self.proxy, self.upstreams[server])
        at_connect = connect if connect is not None else h.basic("alice", self.tokens["alice"])
        client = self.proxy.tunnel(self.place(server), headers={"Proxy-Authorization": at_connect})
        client.send(h.post(self.place(server), path, body or h.tool("read_thing", {"x": 1}), headers))
        tried.answer = client.read()
        client.close()
        return tried


def servers(ports: dict[str, int]) -> str:
    lines = [
        f"  - {{id: {name}, url: 'https://localhost:{port}/mcp', credential: {name}-key}}"
        for name, port in ports.items()
    ]
    lines += [
        f"  - {{id: tls-twin, url: 'https://localhost:{ports['tls-other']}/twin', credential: cookie-key}}"
    ]
    return "version: 1\nservers:\n" + "\n".join(lines) + "\n"


def credentials(ports: dict[str, int], token_url: str) -> str:
    client = f'token_url: "{token_url}", client_id: callerid, resource: "{RESOURCE}"'
    kinds = {
        "query": ("file: ../key", "query: {name: api_key}"),
        "cookie": ("file: ../session", "cookie: {name: sid}"),
        "in-header": ("file: ../key", 'replace: {place: "header:X-Api-Key"}'),
        "in-query": ("file: ../key", 'replace: {place: "query:key"}'),
        "in-argument": ("file: ../key", 'replace: {place: "/auth/key"}'),
        "granted": ("file: ../client", f"oauth_client_credentials: {{{client}}}"),
        "refreshed": ("file: ../refresh", f"oauth_refresh_token: {{{client}, client_secret: login-client}}"),
        "personal": ("file: ../client", f"token_exchange: {{{client}}}"),
        "aws": ("file: ../aws", "aws_sigv4: {region: eu-central-1, service: execute-api}"),
        "tls": ("file: ../tls.pem", "mtls: {}"),
        "tls-other": ("file: ../tls.pem", "mtls: {}"),
        "own": ("none: {}", "passthrough: {}"),
    }
    lines = [
        f"  - {{id: {name}-key, source: {{{source}}}, inject: {{{inject}}},"
        f"{'' if name == 'own' else ' timeout: 3s,'} bind: {{hosts: ['localhost:{ports[name]}'"
        + (f", 'localhost:{ports['tls-other']}'" if name == "cookie" else "")
        + "]}}"
        for name, (source, inject) in kinds.items()
    ]
    lines.append(
        "  - {id: login-client, source: {file: ../client}, inject: {basic: {username: callerid}},"
        f" bind: {{hosts: ['{urlsplit(token_url).netloc}'], paths: [/token], methods: [POST]}}}}"
    )
    return "version: 1\ncredentials:\n" + "\n".join(lines) + "\n"


def verified(login: oauth_server.Login) -> Callable[[h.Seen], h.Reply]:
    """A resource server: it takes tokens of its authorization server that were made for it, and no others."""

    def answer(seen: h.Seen) -> h.Reply:
        try:
            login.read((seen.header("authorization") or "").removeprefix("Bearer "), RESOURCE)
        except jwt.InvalidTokenError:
            return h.Reply(401, [("www-authenticate", 'Bearer error="invalid_token"')])
        return h.call_tool(seen)

    return answer


def asking_for_certificates(pki: h.Pki, people: ClientPki) -> ssl.SSLContext:
    context = pki.server_context()
    context.load_verify_locations(cadata=people.corp.pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("injection")
    key = ec.generate_private_key(ec.SECP256R1())
    people = ClientPki(folder / "people")
    login = oauth_server.Login(people=lambda token: _whose(token, key))
    login.clients["callerid"] = oauth_server.Client(
        "callerid", CLIENT_SECRET, ("client_credentials", "refresh_token", oauth_server.EXCHANGE)
    )
    login.refreshes[FIRST_REFRESH] = oauth_server.Refresh(FIRST_REFRESH, "callerid", "service")
    login.targets = {RESOURCE}
    tls = asking_for_certificates(pki, people)
    with ExitStack() as stack:
        stack.enter_context(oauth_server.serving(pki.server_context(), login))
        upstreams = {
            name: h.Upstream(
                tls if name.startswith("tls") else pki.server_context(),
                verified(login) if name in ("granted", "refreshed", "personal") else h.call_tool,
            )
            for name in NAMES
        }
        for upstream in upstreams.values():
            stack.callback(upstream.close)
        ports = {name: upstream.port for name, upstream in upstreams.items()}
        rules = h.standard_rules(
            0,
            **{
                "servers.yaml": servers(ports),
                "credentials.yaml": credentials(ports, login.url),
                "policy.yaml": h.POLICY_ANYWHERE,
                "identities.yaml": h.identities(IDENTITIES),
                "jwks.json": json.dumps({"keys": [jwk(key)]}),
            },
        )
        leaf = people.leaf(
            "robot", "robot@corp.example", issuer=people.intermediate, chain=[people.intermediate]
        )
        secrets = {
            "key": KEY, "session": SESSION, "client": CLIENT_SECRET, "refresh": FIRST_REFRESH,
            "aws": ":".join(AWS), "tls.pem": leaf.path.read_text(),
        }  # fmt: skip
        for name, text in secrets.items():
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(text)
        proxy = h.WarmProxy(warm, folder, rules, ca=pki.ca)
        stack.enter_context(h.running(proxy))
        made = Scene(proxy, upstreams, login, key, people, folder)
        made.tokens = {name: h.mint(proxy, f"user:{name}@corp.example") for name in ("alice", "bob")}
        yield made


def _whose(token: str, key: ec.EllipticCurvePrivateKey) -> str:
    claims = jwt.decode(token, key.public_key(), algorithms=["ES256"], audience="callerid", issuer=IDP)
    return str(claims["email"])


def allowed(tried: h.Trial, injected: str | None) -> h.Seen:
    assert tried.answer is not None
    assert (tried.answer.status, tried.answer.text) == (200, "ran read_thing"), tried.answer
    row = tried.row
    assert (row["verdict"], row["reason"], row["injected"]) == ("allow", "granted", injected)
    [seen] = tried.seen
    assert b"cid_" not in seen.raw
    return seen


def refused(tried: h.Trial, reason: str, says: str = "") -> dict[str, Any]:
    row = tried.refused(reason)
    assert says in (row["detail"] or "")
    return row


# -- what is written into the request -------------------------------------------------------------


def test_a_query_parameter_is_there_once_and_in_the_forwarded_copy_only(scene: Scene) -> None:
    tried = scene.ask("query", path="/mcp?api%5Fkey=mine&q=1&API_KEY=mine")
    seen = allowed(tried, "query-key@v1")
    assert parse_qsl(seen.path.partition("?")[2]) == [("q", "1"), ("api_key", KEY)]
    assert tried.row["path"] == "/mcp"


def test_a_parameter_that_two_servers_would_read_differently_is_refused(scene: Scene) -> None:
    refused(scene.ask("query", path="/mcp?q=1;api_key=mine"), "path_not_canonical", "semicolon")


def test_a_cookie_is_the_only_one(scene: Scene) -> None:
    seen = allowed(scene.ask("cookie", headers={"Cookie": "sid=mine; other=x"}), "cookie-key@v1")
    assert [value for name, value in seen.headers if name.lower() == "cookie"] == [f"sid={SESSION}"]


def test_a_phantom_token_is_exchanged_in_its_header(scene: Scene) -> None:
    tried = scene.ask("in-header", headers={"x-api-key": scene.tokens["alice"]})
    assert allowed(tried, "in-header-key@v1").header("x-api-key") == KEY


def test_a_phantom_token_is_exchanged_in_its_parameter(scene: Scene) -> None:
    tried = scene.ask("in-query", path=f"/mcp?key={scene.tokens['alice']}&q=1")
    seen = allowed(tried, "in-query-key@v1")
    assert parse_qsl(seen.path.partition("?")[2]) == [("q", "1"), ("key", KEY)]


def test_a_phantom_token_is_exchanged_in_its_argument(scene: Scene) -> None:
    arguments = {"auth": {"key": scene.tokens["alice"]}, "x": 1.5}
    tried = scene.ask("in-argument", body=h.tool("read_thing", arguments))
    seen = allowed(tried, "in-argument-key@v1")
    assert seen.message["params"]["arguments"] == {"auth": {"key": KEY}, "x": 1.5}
    assert seen.header("content-length") == str(len(seen.body))
    assert scene.tokens["alice"] not in json.dumps(tried.row)


def test_a_message_without_arguments_needs_no_phantom(scene: Scene) -> None:
    tried = scene.ask("in-argument", body=h.rpc("tools/list"))
    assert tried.answer is not None
    assert tried.answer.status == 200
    assert (tried.row["verdict"], tried.row["injected"]) == ("allow", None)


@pytest.mark.parametrize(
    ("server", "how", "reason"),
    [
        ("in-header", lambda s: {}, "credential_unavailable"),
        ("in-header", lambda s: {"headers": {"X-Api-Key": s.tokens["bob"]}}, "credential_unavailable"),
        ("in-header", lambda s: {"headers": {"X-Other": s.tokens["alice"]}}, "credential_unavailable"),
        ("in-query", lambda s: {"path": f"/mcp?key={s.tokens['bob']}"}, "token_in_request"),
        ("in-query", lambda s: {"path": f"/mcp?key={s.tokens['alice']}&key=x"}, "token_in_request"),
        (
            "in-query",
            lambda s: {
                "path": f"/mcp?key={s.tokens['alice']}",
                "body": h.tool("read_thing", {"x": s.tokens["alice"]}),
            },
            "token_in_request",
        ),
        (
            "in-argument",
            lambda s: {"body": h.tool("read_thing", {"auth": {"key": s.tokens["bob"]}})},
            "token_in_request",
        ),
        (
            "in-argument",
            lambda s: {
                "body": h.tool("read_thing", {"auth": {"key": s.tokens["alice"]}, "x": s.tokens["alice"]})
            },
            "token_in_request",
        ),
        ("in-argument", lambda s: {"body": h.tool("read_thing", {"auth": {}})}, "credential_unavailable"),
        ("in-argument", lambda s: {"path": f"/mcp?key={s.tokens['alice']}"}, "token_in_request"),
    ],
    ids=[
        "nowhere", "another's in the header", "in another header", "another's in the query",
        "twice in the query",
        "in the query and the body", "another's in the argument", "in two arguments", "not in the argument",
        "in the query instead",
    ],
)  # fmt: skip
def test_a_phantom_token_anywhere_else_is_refused(
    scene: Scene, server: str, how: Callable[[Scene], dict[str, Any]], reason: str
) -> None:
    tried = scene.ask(server, **how(scene))
    refused(tried, reason)
    assert tried.seen == []


def test_an_aws_signature_covers_what_arrives(scene: Scene) -> None:
    tried = scene.ask(
        "aws", path="/mcp?b=2&a=1", headers={"X-Amz-Date": "19700101T000000Z", "X-Amz-Target": "T.L"}
    )
    seen = allowed(tried, "aws-key@v1")
    assert AWS[1].encode() not in seen.raw
    assert seen.header("x-amz-security-token") == AWS[2]
    again = AWSRequest(seen.method, f"https://{seen.header('host')}{seen.path}", data=seen.body)
    signed = (seen.header("authorization") or "").partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "x-amz-date", "x-amz-content-sha256", "x-amz-target", "x-amz-security-token"} <= set(
        signed
    )
    for name in signed:
        again.headers[name] = seen.header(name)
    signer = SigV4Auth(Credentials(*AWS), "execute-api", "eu-central-1")
    again.context["timestamp"] = seen.header("x-amz-date")
    signature = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
    assert (seen.header("authorization") or "").endswith(f"Signature={signature}")


# -- what the connection shows --------------------------------------------------------------------


def test_a_client_certificate_with_its_chain_is_shown_to_its_server(scene: Scene) -> None:
    seen = allowed(scene.ask("tls", headers={"Authorization": f"Bearer {OWN}"}), "tls-key@v1")
    assert seen.header("authorization") is None


def test_nothing_else_goes_over_a_connection_that_shows_it(scene: Scene) -> None:
    tried = scene.ask("tls", path="/elsewhere")
    refused(tried, "credential_not_bound", "client certificate")
    assert tried.seen == []


def test_a_place_with_two_credentials_shows_no_certificate(scene: Scene) -> None:
    tried = scene.ask("tls-other", path="/mcp")
    refused(tried, "credential_unavailable", "share its host and port")
    assert tried.seen == []


def test_a_server_that_misses_a_certificate_ends_the_call_and_leaves_nobody_hanging(scene: Scene) -> None:
    """With TLS 1.3 it says so by an alert, after the handshake: mitmproxy by itself then waits for ever."""
    for _ in range(20):
        tried = scene.ask("tls-other", path="/twin")
        assert tried.answer is not None
        assert tried.answer.status == 502
        assert tried.seen == []
        assert (tried.row["verdict"], tried.row["outcome"]) == ("allow", "upstream_gone")


def test_a_certificate_that_was_rotated_is_shown_on_new_connections(scene: Scene) -> None:
    context = asking_for_certificates_of(scene)
    upstream = scene.upstreams["tls"]
    upstream._context, before = context, upstream._context
    try:
        leaf = scene.people.leaf(
            "next", "next@corp.example", issuer=scene.people.intermediate, chain=[scene.people.intermediate]
        )
        fresh = scene.folder / "tls.new"
        fresh.touch(mode=0o600)
        fresh.write_text(leaf.path.read_text())
        fresh.replace(scene.folder / "tls.pem")
        h.wait_for(lambda: allowed_label(scene.ask("tls")) == "tls-key@v2", "the new version is in force")
    finally:
        upstream._context = before


def test_a_certificate_that_is_in_the_rules_no_more_is_shown_for_nothing_else(scene: Scene) -> None:
    """The tunnel and its connection to the server outlive the reload, and nobody judges what is asked."""
    place, upstream = scene.place("tls"), scene.upstreams["tls"]
    servers = scene.proxy.rules / "servers.yaml"
    text = servers.read_text()
    client = scene.proxy.tunnel(place, headers={"Proxy-Authorization": h.basic("a", scene.tokens["alice"])})
    try:
        client.send(h.post(place, "/mcp", h.tool("read_thing", {"x": 1})))
        assert client.read().status == 200
        rewritten(scene, servers, "\n".join(x for x in text.splitlines() if "id: tls," not in x) + "\n")
        seen = len(upstream.seen)
        client.send(f"GET /internal HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        assert client.read().status == 502  # without the certificate, the server does not let anybody in
        assert len(upstream.seen) == seen
    finally:
        client.close()
        rewritten(scene, servers, text)
    assert allowed_label(scene.ask("tls")) is not None


def rewritten(scene: Scene, file: Path, text: str) -> None:
    def reloads() -> int:
        return sum("rules reloaded" in line for line in scene.proxy.output)

    before = reloads()
    file.write_text(text)
    h.wait_for(lambda: reloads() > before, "the reload")


def allowed_label(tried: h.Trial) -> str | None:
    assert tried.answer is not None
    assert tried.answer.status == 200
    label: str | None = tried.row["injected"]
    return label


def asking_for_certificates_of(scene: Scene) -> ssl.SSLContext:
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made = scene.upstreams["tls"]._context
    assert made is not None
    return made


# -- the caller's own -----------------------------------------------------------------------------


def test_the_callers_own_credential_goes_on_untouched_and_is_attributed(scene: Scene) -> None:
    tried = scene.ask(
        "own", headers={"Authorization": f"Bearer {OWN}", "X-Callerid-Token": scene.tokens["alice"]}
    )
    seen = allowed(tried, "own-key@passthrough")
    assert [value for name, value in seen.headers if name.lower() == "authorization"] == [f"Bearer {OWN}"]
    assert tried.row["principal"] == "user:alice@corp.example"


def test_a_token_of_the_company_for_that_server_is_its_own_business(scene: Scene) -> None:
    own = scene.jwt(aud="https://own.corp.example/mcp")
    seen = allowed(scene.ask("own", headers={"Authorization": f"Bearer {own}"}), "own-key@passthrough")
    assert seen.header("authorization") == f"Bearer {own}"


def test_evidence_for_us_does_not_pass(scene: Scene) -> None:
    seen = allowed(scene.ask("own", headers={"Authorization": f"Bearer {scene.jwt()}"}), None)
    assert seen.header("authorization") is None
    seen = allowed(scene.ask("own", headers={"Authorization": f"Bearer {scene.tokens['alice']}"}), None)
    assert seen.header("authorization") is None


def test_somebody_elses_evidence_is_a_conflict_there_too(scene: Scene) -> None:
    refused(scene.ask("own", headers={"Authorization": f"Bearer {scene.jwt('bob')}"}), "identity_conflict")


def test_who_only_has_his_own_credential_is_nobody(scene: Scene) -> None:
    tried = h.trial(scene.proxy, scene.upstreams["own"])
    client = scene.proxy.tunnel(scene.place("own"))
    client.send(h.post(scene.place("own"), "/mcp", h.tool("read_thing"), {"Authorization": f"Bearer {OWN}"}))
    tried.answer = client.read()
    client.close()
    assert tried.row["reason"] == "no_evidence"
    assert tried.seen == []


def test_a_login_that_the_server_asks_for_is_the_callers_to_do(scene: Scene) -> None:
    challenge = 'Bearer resource_metadata="https://own.corp.example/.well-known/oauth-protected-resource"'
    upstream = scene.upstreams["own"]
    upstream.answer = lambda seen: h.Reply(401, [("www-authenticate", challenge), ("set-cookie", "a=b")])
    try:
        tried = scene.ask("own", headers={"Authorization": f"Bearer {OWN}"})
    finally:
        upstream.answer = h.call_tool
    assert tried.answer is not None
    assert (tried.answer.status, tried.answer.headers["www-authenticate"]) == (401, challenge)
    assert tried.answer.headers["set-cookie"] == "a=b"
    assert tried.row["outcome"] == "http_error"


# -- OAuth ----------------------------------------------------------------------------------------


def bearer(seen: h.Seen) -> str:
    return (seen.header("authorization") or "").removeprefix("Bearer ")


def test_client_credentials_give_a_token_for_that_server(scene: Scene) -> None:
    before = scene.login.count("client_credentials")
    seen = allowed(scene.ask("granted", headers={"Authorization": f"Bearer {scene.jwt()}"}), "granted-key@v1")
    assert scene.login.read(bearer(seen), RESOURCE)["sub"] == "callerid"
    assert CLIENT_SECRET.encode() not in seen.raw
    # Fetched at the start, not by the call.
    assert scene.login.count("client_credentials") == before == 1


def test_a_refresh_token_gives_one_and_its_successor_is_kept(scene: Scene) -> None:
    seen = allowed(scene.ask("refreshed"), "refreshed-key@v1")
    assert scene.login.read(bearer(seen), RESOURCE)["sub"] == "service"
    [successor] = scene.login.refreshes
    path = scene.proxy.home / "oauth" / "refreshed-key.json"
    assert json.loads(path.read_text())["refresh_token"] == successor != FIRST_REFRESH
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_token_that_a_server_echoes_is_removed(scene: Scene) -> None:
    upstream = scene.upstreams["granted"]
    judge = upstream.answer

    def echo(seen: h.Seen) -> h.Reply:
        text = f"you said {bearer(seen)}"
        result = {"content": [{"type": "text", "text": text}], "isError": False}
        return h.json_reply({"jsonrpc": "2.0", "id": 1, "result": result}, headers={"x-echo": bearer(seen)})

    upstream.answer = echo
    try:
        tried = scene.ask("granted")
    finally:
        upstream.answer = judge
    assert tried.answer is not None
    assert tried.answer.text == "you said [callerid:removed]"
    assert bearer(tried.seen[0]) not in str(tried.answer)


def test_a_person_gets_a_token_of_that_person_from_one_connection(scene: Scene) -> None:
    """One connection to the proxy, two people on it: a shared downstream proxy with keep-alive."""
    place, tried = scene.place("personal"), h.trial(scene.proxy, scene.upstreams["personal"])
    client = scene.proxy.tunnel(place)
    names = ("alice", "bob", "alice", "bob", "alice")
    tokens = {name: scene.jwt(name) for name in set(names)}
    before = scene.login.count(oauth_server.EXCHANGE)
    for name in names:
        client.send(h.post(place, "/mcp", h.tool("read_thing"), {"Authorization": f"Bearer {tokens[name]}"}))
        answer = client.read()
        assert answer is not None
        assert answer.text == "ran read_thing"
    client.close()
    found = [scene.login.read(bearer(seen), RESOURCE)["sub"] for seen in tried.seen]
    assert found == [f"{name}@corp.example" for name in names]
    assert scene.login.count(oauth_server.EXCHANGE) - before == 2
    rows = scene.proxy.await_rows(5, "seq > ? and outcome is not null", tried.first_seq)
    labels = {row["principal"]: row["injected"] for row in rows}
    assert len({row["injected"] for row in rows}) == 2
    assert all(label.startswith("personal-key@p-") for label in labels.values())
    assert all(token.encode() not in seen.raw for token in tokens.values() for seen in tried.seen)


def test_fifty_calls_at_once_ask_once(scene: Scene) -> None:
    token = scene.jwt("alice", jti="fifty")
    before = scene.login.count(oauth_server.EXCHANGE)
    tried = h.trial(scene.proxy, scene.upstreams["personal"])

    def call(number: int) -> str:
        client = scene.proxy.tunnel(scene.place("personal"))
        headers = {"Authorization": f"Bearer {token}"}
        client.send(h.post(scene.place("personal"), "/mcp", h.tool("read_thing", rpc_id=number), headers))
        answer = client.read()
        client.close()
        return answer.text if answer is not None else "nothing"

    scene.login.gate.clear()
    with ThreadPoolExecutor(50) as pool:
        calls = [pool.submit(call, number) for number in range(1, 51)]
        h.wait_for(lambda: scene.login.count(oauth_server.EXCHANGE) > before, "it was asked")
        scene.login.gate.set()
        assert {done.result() for done in calls} == {"ran read_thing"}
    assert scene.login.count(oauth_server.EXCHANGE) - before == 1
    assert len({bearer(seen) for seen in tried.seen}) == 1


def test_two_tokens_of_one_person_are_two_exchanges(scene: Scene) -> None:
    before = scene.login.count(oauth_server.EXCHANGE)
    labels = set()
    for number in (1, 2):
        header = {"Authorization": f"Bearer {scene.jwt('alice', jti=f'two-{number}')}"}
        labels.add(allowed_label(scene.ask("personal", headers=header)))
    assert scene.login.count(oauth_server.EXCHANGE) - before == 2
    assert len(labels) == 1


def test_a_caller_without_a_jwt_has_nothing_to_exchange(scene: Scene) -> None:
    tried = scene.ask("personal")
    refused(tried, "no_subject_token")
    assert tried.seen == []


def test_what_the_server_refuses_to_exchange_is_a_refusal_with_its_row(scene: Scene) -> None:
    scene.login.instead = lambda: oauth_server.Response('{"error":"access_denied"}', 400)
    try:
        tried = scene.ask("personal", connect=f"Bearer {scene.jwt('bob', jti='denied')}")
    finally:
        scene.login.instead = None
    row = refused(tried, "credential_unavailable", "access_denied")
    assert (row["verdict"], row["principal"], row["tool"]) == ("error", "user:bob@corp.example", "read_thing")
    assert tried.seen == []


def test_a_server_that_does_not_answer_holds_nobody_up_for_long_nor_anybody_else(scene: Scene) -> None:
    before = scene.login.count(oauth_server.EXCHANGE)
    scene.login.gate.clear()
    try:
        with ThreadPoolExecutor(1) as pool:
            connect = f"Bearer {scene.jwt('bob', jti='slow')}"
            waiting = pool.submit(scene.ask, "personal", connect=connect)
            h.wait_for(lambda: scene.login.count(oauth_server.EXCHANGE) > before, "it was asked")
            other = scene.ask("cookie")
            assert other.answer is not None
            assert other.answer.text == "ran read_thing"
            assert not waiting.done()
            tried = waiting.result()
    finally:
        scene.login.gate.set()
    [row] = [row for row in tried.rows if row["server"] == "personal"]
    assert (row["verdict"], row["reason"]) == ("error", "credential_unavailable")
    assert tried.seen == []


def test_who_leaves_while_his_token_is_asked_for_is_not_called_for(scene: Scene) -> None:
    tried = h.trial(scene.proxy, scene.upstreams["personal"])
    before = scene.login.count(oauth_server.EXCHANGE)
    scene.login.gate.clear()
    client = scene.proxy.tunnel(scene.place("personal"))
    headers = {"Authorization": f"Bearer {scene.jwt('alice', jti='gone')}"}
    client.send(h.post(scene.place("personal"), "/mcp", h.tool("read_thing", rpc_id=9), headers))
    h.wait_for(lambda: scene.login.count(oauth_server.EXCHANGE) > before, "it was asked")
    client.sock.shutdown(socket.SHUT_RDWR)
    client.close()
    threading.Event().wait(0.3)  # the proxy reads the end before the token comes
    scene.login.gate.set()
    [row] = scene.proxy.await_rows(1, "seq > ?", tried.first_seq)
    assert (row["verdict"], row["reason"], row["rpc_id"]) == ("deny", "client_gone", "9")
    assert row["principal"] == "user:alice@corp.example"
    assert tried.seen == []


def test_a_block_while_a_token_is_asked_for_counts(scene: Scene) -> None:
    """Law 10: the call that waited is judged by what is true when it goes."""
    tried = h.trial(scene.proxy, scene.upstreams["personal"])
    before = scene.login.count(oauth_server.EXCHANGE)
    scene.login.gate.clear()
    try:
        with ThreadPoolExecutor(1) as pool:
            connect = f"Bearer {scene.jwt('bob', jti='blocked')}"
            waiting = pool.submit(scene.ask, "personal", connect=connect)
            h.wait_for(lambda: scene.login.count(oauth_server.EXCHANGE) > before, "it was asked")
            scene.proxy.command("block", "user:bob@corp.example")
            scene.login.gate.set()
            waiting.result()
    finally:
        scene.login.gate.set()
        scene.proxy.command("unblock", "user:bob@corp.example", check=False)
    [row] = scene.proxy.await_rows(1, "seq > ?", tried.first_seq)
    assert row["reason"] == "principal_blocked"
    assert tried.seen == []


def test_a_block_drops_the_tokens_of_that_person(scene: Scene) -> None:
    connect = f"Bearer {scene.jwt('bob', jti='dropped')}"
    before = scene.login.count(oauth_server.EXCHANGE)
    allowed_label(scene.ask("personal", connect=connect))
    allowed_label(scene.ask("personal", connect=connect))
    assert scene.login.count(oauth_server.EXCHANGE) - before == 1

    def exchanged_again() -> bool:
        scene.proxy.command("block", "user:bob@corp.example")
        refused(scene.ask("personal", connect=connect), "principal_blocked")
        time.sleep(0.6)  # the proxy looks twice a second
        scene.proxy.command("unblock", "user:bob@corp.example")
        h.wait_for(lambda: _is_served(scene, connect), "bob is served again")
        return scene.login.count(oauth_server.EXCHANGE) - before > 1

    h.wait_for(exchanged_again, "another token was asked for")


def _is_served(scene: Scene, connect: str) -> bool:
    tried = scene.ask("personal", connect=connect)
    return tried.answer is not None and tried.answer.text == "ran read_thing"


def test_nothing_secret_is_left_anywhere_in_the_home_or_the_output(scene: Scene) -> None:
    secrets = [
        KEY,
        SESSION,
        CLIENT_SECRET,
        FIRST_REFRESH,
        *AWS[1:],
        *scene.login.given,
        *scene.tokens.values(),
    ]
    for path in scene.proxy.home.rglob("*"):
        if not path.is_file() or path.parent.name in ("ca", "oauth"):
            continue
        data = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in data], path
    output = "\n".join(scene.proxy.output)
    assert not [secret for secret in secrets if secret in output]


def test_the_certificates_in_the_scene_are_of_a_hierarchy(scene: Scene) -> None:
    found = x509.load_pem_x509_certificates((scene.folder / "tls.pem").read_bytes())
    assert len(found) == 2
