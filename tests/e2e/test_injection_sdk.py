"""An MCP server of the official SDK that takes tokens of its authorization server for itself alone.

It verifies issuer, audience and end of what arrives, and tells whose token it was: with client credentials
everybody is callerid there, with token exchange Alice is Alice. And an HTTP API with the same ways to inject.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import jwt
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from pydantic import AnyHttpUrl

from tests.e2e import harness as h
from tests.e2e import oauth_server
from tests.e2e.house import jwk
from tests.e2e.warm import Warm

IDP = "https://idp.corp.example/"
CLIENT_SECRET = "client-secret-5d0c9f"
API_KEY = "an-api-key-of-some-length"
POLICY = (
    h.POLICY_ANYWHERE
    + """
  - id: eng-api
    effect: allow
    who: ["group:engineering"]
    servers: [api, api-body]
    tools: ["http:* /**"]
"""
)


class Verifier:
    """Signature, issuer and end; whom a token is for is checked by the SDK (``validate_token_resource``)."""

    def __init__(self, login: oauth_server.Login) -> None:
        self.login = login

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            key, off = self.login.key.public_key(), {"verify_aud": False}
            claims = jwt.decode(token, key, algorithms=["ES256"], issuer=oauth_server.ISSUER, options=off)
        except jwt.InvalidTokenError:
            return None
        return AccessToken(
            token=token, client_id="callerid", scopes=[], expires_at=claims["exp"],
            subject=claims["sub"], resource=claims["aud"],
        )  # fmt: skip


@contextmanager
def sdk_server(login: oauth_server.Login, context: ssl.SSLContext) -> Iterator[str]:
    """Its URL, while it lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield from _serve(login, context, listener)


def _serve(login: oauth_server.Login, context: ssl.SSLContext, listener: socket.socket) -> Iterator[str]:
    url = f"https://localhost:{listener.getsockname()[1]}/mcp"
    auth = AuthSettings(
        issuer_url=AnyHttpUrl(oauth_server.ISSUER),
        resource_server_url=AnyHttpUrl(url),
        validate_token_resource=True,
    )
    made: MCPServer[Any] = MCPServer("people", token_verifier=Verifier(login), auth=auth, log_level="ERROR")

    @made.tool(structured_output=False)
    def read_thing(x: int = 0) -> str:
        """Say whose token came."""
        token = get_access_token()
        return f"ran for {token.subject if token is not None else 'nobody'}"

    app = made.streamable_http_app(json_response=True, stateless_http=True)
    config = uvicorn.Config(app, log_level="error", lifespan="on", ssl_context_factory=lambda *_: context)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    h.wait_for(lambda: server.started, "the SDK server serves")
    try:
        yield url
    finally:
        server.should_exit = True
        thread.join(h.DEADLINE)


class Scene:
    """The proxy and what is behind it."""

    def __init__(self, proxy: h.Proxy, key: ec.EllipticCurvePrivateKey, upstream: h.Upstream) -> None:
        self.proxy, self.key, self.upstream = proxy, key, upstream
        self.token = h.mint(proxy)

    def ask(self, url: str, headers: dict[str, str], body: bytes | None = None) -> h.Trial:
        authority, _, path = url.removeprefix("https://").partition("/")
        tried = h.trial(self.proxy, self.upstream)
        client = self.proxy.tunnel(authority)
        headers = {"MCP-Protocol-Version": "2025-06-18", **headers}
        client.send(h.post(authority, f"/{path}", body or h.tool("read_thing", {"x": 1}), headers))
        tried.answer = client.read()
        client.close()
        return tried

    def jwt(self, name: str) -> str:
        now = int(time.time())
        claims = {
            "iss": IDP,
            "aud": "callerid",
            "sub": name,
            "email": f"{name}@corp.example",
            "iat": now,
            "exp": now + 600,
        }
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": "k1"})


@pytest.fixture(scope="module")
def stage_of(
    tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm
) -> Iterator[tuple[Scene, dict[str, str]]]:
    folder: Path = tmp_path_factory.mktemp("injection-sdk")
    key = ec.generate_private_key(ec.SECP256R1())

    def whose(token: str) -> str:
        claims = jwt.decode(token, key.public_key(), algorithms=["ES256"], audience="callerid", issuer=IDP)
        return str(claims["email"])

    login = oauth_server.Login(people=whose)
    grants = ("client_credentials", oauth_server.EXCHANGE)
    login.clients["callerid"] = oauth_server.Client("callerid", CLIENT_SECRET, grants)
    with ExitStack() as stack:
        stack.enter_context(oauth_server.serving(pki.server_context(), login))
        urls = {
            name: stack.enter_context(sdk_server(login, pki.server_context()))
            for name in ("shared", "personal", "strict")
        }
        upstream = h.Upstream(pki.server_context(), lambda seen: h.json_reply({"ok": True}))
        stack.callback(upstream.close)
        urls |= {name: f"https://localhost:{upstream.port}/{name}" for name in ("api", "api-body")}
        kinds = {
            "shared": "oauth_client_credentials",
            "personal": "token_exchange",
            "strict": "oauth_client_credentials",
        }
        # The token for strict is made for another server, as a confused deputy would send it.
        resources = {name: urls["shared" if name == "strict" else name] for name in kinds}
        lines = [
            f"  - {{id: {name}-key, source: {{file: ../client}},"
            f" bind: {{hosts: ['{urls[name].split('/')[2]}']}},"
            f" inject: {{{kind}: {{token_url: '{login.url}', client_id: callerid,"
            f" resource: '{resources[name]}'}}}}}}"
            for name, kind in kinds.items()
        ]
        for name, inject in (
            ("api", "query: {name: api_key}"),
            ("api-body", "replace: {place: /body/auth/key}"),
        ):
            lines.append(
                f"  - {{id: {name}-key, source: {{file: ../key}}, inject: {{{inject}}},"
                f" bind: {{hosts: ['localhost:{upstream.port}'], paths: ['/{name}/**']}}}}"
            )
        servers = [f"  - {{id: {name}, url: '{url}', credential: {name}-key" for name, url in urls.items()]
        servers = [line + (", kind: http}" if "/api" in line else "}") for line in servers]
        issuers = f"""issuers:
  - {{id: corp-idp, type: oidc, issuer: "{IDP}", jwks_file: jwks.json, audiences: [callerid],
     algorithms: [ES256], claims: {{principal: email}}}}
"""
        rules = h.standard_rules(
            0,
            **{
                "servers.yaml": "version: 1\nservers:\n" + "\n".join(servers) + "\n",
                "credentials.yaml": "version: 1\ncredentials:\n" + "\n".join(lines) + "\n",
                "policy.yaml": POLICY,
                "identities.yaml": h.identities(issuers),
                "jwks.json": json.dumps({"keys": [jwk(key)]}),
            },
        )
        for name, text in (("client", CLIENT_SECRET), ("key", API_KEY)):
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(text)
        proxy = h.WarmProxy(warm, folder, rules, ca=pki.ca)
        stack.enter_context(h.running(proxy))
        yield Scene(proxy, key, upstream), urls


def test_with_a_shared_token_everybody_is_the_client(stage_of: tuple[Scene, dict[str, str]]) -> None:
    scene, urls = stage_of
    for name in ("alice", "bob"):
        tried = scene.ask(urls["shared"], {"Authorization": f"Bearer {scene.jwt(name)}"})
        assert tried.answer is not None
        assert tried.answer.text == "ran for callerid"
        assert tried.row["principal"] == f"user:{name}@corp.example"


def test_with_an_exchanged_token_alice_is_alice_and_bob_is_bob(
    stage_of: tuple[Scene, dict[str, str]],
) -> None:
    scene, urls = stage_of
    for name in ("alice", "bob", "alice"):
        tried = scene.ask(urls["personal"], {"Authorization": f"Bearer {scene.jwt(name)}"})
        assert tried.answer is not None
        assert tried.answer.text == f"ran for {name}@corp.example"


def test_a_token_for_another_server_is_refused_there_and_no_login_is_offered(
    stage_of: tuple[Scene, dict[str, str]],
) -> None:
    scene, urls = stage_of
    tried = scene.ask(urls["strict"], {"Authorization": f"Bearer {scene.jwt('alice')}"})
    assert tried.answer is not None
    assert tried.answer.status == 502
    assert "www-authenticate" not in tried.answer.headers
    assert tried.row["outcome"] == "upstream_refused_credential"


def test_an_api_has_its_key_in_the_query(stage_of: tuple[Scene, dict[str, str]]) -> None:
    scene, urls = stage_of
    headers = {"X-Callerid-Token": scene.token}
    tried = scene.ask(f"{urls['api']}/v1/things?q=a+b&API-KEY=mine", headers, b'{"n": 1.50}')
    [seen] = tried.seen
    assert parse_qsl(seen.path.partition("?")[2]) == [("q", "a b"), ("api_key", API_KEY)]
    assert (tried.row["injected"], tried.row["path"]) == ("api-key@v1", "/api/v1/things")


def test_an_api_has_its_key_in_the_body_where_the_token_stood(stage_of: tuple[Scene, dict[str, str]]) -> None:
    scene, urls = stage_of
    headers = {"X-Callerid-Token": scene.token}
    body = json.dumps({"auth": {"key": scene.token}, "n": 1}).encode()
    tried = scene.ask(f"{urls['api-body']}/v1/things", headers, body)
    [seen] = tried.seen
    assert seen.message == {"auth": {"key": API_KEY}, "n": 1}
    assert tried.row["injected"] == "api-body-key@v1"
    wrong = json.dumps({"auth": {"other": scene.token}}).encode()
    tried = scene.ask(f"{urls['api-body']}/v1/things", headers, wrong)
    assert tried.row["reason"] == "token_in_request"
    assert tried.seen == []
