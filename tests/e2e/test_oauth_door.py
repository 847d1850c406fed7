"""The OAuth side door: the official SDK's client with its login attached, through the proxy.

With a company login it is led there and comes back as its person; without one it finds no way to a personal
token around the shared credential. The upstream counts who knocks at its own login.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from tests.e2e import harness as h
from tests.e2e.company_login import Login, trusting
from tests.e2e.test_sdk_ts import CLIENT, MODULES, node
from tests.e2e.warm import Warm

ALICE, IVY = "user:alice@corp.example", "user:ivy@corp.example"
CALLBACK = "http://localhost:9/callback"
DOORS = (
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-protected-resource/mcp",
    "/mcp/.well-known/oauth-protected-resource",
    "/.well-known/oauth-authorization-server",
    "/.well-known/oauth-authorization-server/mcp",
    "/.well-known/openid-configuration",
    "/mcp/.well-known/openid-configuration",
    "/.Well-Known/OpenID-Configuration/",
    "/authorize",
    "/token",
    "/Token/",
    "/register",
)


def answer(seen: h.Seen) -> h.Reply:
    """An MCP server with a login of its own, which anybody may use who reaches it."""
    path = seen.path.partition("?")[0]
    if path != "/mcp":
        return h.json_reply({"reached": path, "access_token": "personal-token"})
    if seen.header("authorization") != f"Bearer {h.SECRET}":
        metadata = f"https://{seen.header('host')}/.well-known/oauth-protected-resource/mcp"
        return h.Reply(401, [("WWW-Authenticate", f'Bearer resource_metadata="{metadata}"')], b"")
    if b"server/discover" in seen.body:
        error = {"code": -32601, "message": "unknown method"}
        return h.json_reply({"jsonrpc": "2.0", "id": seen.message["id"], "error": error})
    return h.call_tool(seen)


@dataclass
class House:
    """One proxy, forward and reverse, in front of an MCP server."""

    proxy: h.WarmProxy
    upstream: h.Upstream
    login: Login | None
    ca: Path
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return f"localhost:{self.upstream.port}"

    @property
    def url(self) -> str:
        return f"https://{self.host}/mcp"

    @property
    def reverse_url(self) -> str:
        return f"https://localhost:{self.proxy.ports[1]}/mcp"

    def get(self, method: str, path: str, *headers: tuple[str, str], body: bytes = b"") -> h.Trial:
        tried = h.trial(self.proxy, self.upstream)
        client = self.proxy.tunnel(self.host)
        fields = "".join(f"{k}: {v}\r\n" for k, v in (("Host", self.host), *headers))
        size = f"Content-Length: {len(body)}\r\n" if body else ""
        client.send(f"{method} {path} HTTP/1.1\r\n{fields}{size}\r\n".encode() + body)
        tried.answer = client.read_head() if method == "HEAD" else client.read()
        client.close()
        return tried


def identities(login: Login | None) -> str:
    if login is None:
        return h.identities()
    return h.identities(f"""issuers:
  - {{id: corp, type: oidc, issuer: "{login.issuer}", jwks_file: jwks.json, audiences: [callerid],
     algorithms: [ES256], claims: {{principal: email}}, login: true}}
""")


def open_house(folder: Path, pki: h.Pki, warm: Warm, login: Login | None, secret: str) -> House:
    upstream = h.Upstream(pki.server_context(), answer)
    rules = h.standard_rules(upstream.port, **{"identities.yaml": identities(login)})
    if login is not None:
        rules["jwks.json"] = json.dumps({"keys": [login.public_key]})
    port = h.free_port()
    if login is not None:
        rules["identities.yaml"] = rules["identities.yaml"].replace(
            "[callerid]", f'[callerid, "https://localhost:{port}/mcp"]'
        )
    proxy = h.WarmProxy(
        warm, folder, rules, ca=pki.ca, environ={"THINGS_SECRET": secret},
        modes=("regular", f"reverse:https://localhost:{upstream.port}/@127.0.0.1:{port}"),
    )  # fmt: skip
    return House(proxy, upstream, login, pki.ca)


@pytest.fixture(scope="module")
def login(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki) -> Iterator[Login]:
    made = Login(tmp_path_factory.mktemp("login"), pki)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def open_door(
    tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm, login: Login
) -> Iterator[House]:
    """With a company login."""
    made = open_house(tmp_path_factory.mktemp("open"), pki, warm, login, h.SECRET)
    with h.running(made.proxy):
        made.tokens = {"alice": h.mint(made.proxy), "ivy": h.mint(made.proxy, IVY)}
        yield made
    made.upstream.close()


@pytest.fixture(scope="module")
def shut_door(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[House]:
    """Without one."""
    made = open_house(tmp_path_factory.mktemp("shut"), pki, warm, None, h.SECRET)
    with h.running(made.proxy):
        made.tokens = {"alice": h.mint(made.proxy)}
        yield made
    made.upstream.close()


@pytest.fixture(scope="module")
def wrong_key(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[House]:
    """The server does not take the shared credential."""
    made = open_house(tmp_path_factory.mktemp("wrong"), pki, warm, None, "another-secret-0123456789")
    with h.running(made.proxy):
        made.tokens = {"alice": h.mint(made.proxy)}
        yield made
    made.upstream.close()


# -- the client ------------------------------------------------------------------------------------


class Memory:
    """Where the SDK keeps what it got."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


@dataclass
class Tried:
    """What a client with a login attached came to."""

    mode: Any = "legacy"
    text: str = ""
    error: str = ""
    pages: list[str] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)


def told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def _use(url: str, proxy: str | None, trust: ssl.SSLContext, tried: Tried, headers: Any) -> None:
    landed: asyncio.Queue[AuthorizationCodeResult] = asyncio.Queue()

    async def open_page(page: str) -> None:
        """The person's browser: it is at the login already, which sends it back with a code."""
        tried.pages.append(page)
        async with httpx2.AsyncClient(verify=trust, proxy=proxy) as browser:
            sent_back = await browser.get(page, follow_redirects=False)
        query = parse_qs(urlsplit(sent_back.headers["location"]).query)
        await landed.put(AuthorizationCodeResult(code=query["code"][0], state=query["state"][0]))

    metadata = OAuthClientMetadata(client_name="tests", redirect_uris=[AnyUrl(CALLBACK)])
    auth = OAuthClientProvider(url, metadata, tried.memory, open_page, landed.get)
    async with (
        httpx2.AsyncClient(auth=auth, verify=trust, proxy=proxy, headers=headers) as http,
        Client(streamable_http_client(url, http_client=http), mode=tried.mode) as client,
    ):
        result = await client.call_tool("read_thing", {"name": "x"})
        tried.text = "".join(part.text for part in result.content if part.type == "text")


def use(
    house: House, url: str, *, proxy: bool = True, headers: Any = None, memory: Memory | None = None,
    mode: str = "legacy",
) -> Tried:  # fmt: skip
    tried = Tried(memory=memory or Memory(), mode=mode)
    trust = trusting(house.proxy.ca_cert, house.ca)
    through = f"http://localhost:{house.proxy.port}" if proxy else None
    try:
        asyncio.run(asyncio.wait_for(_use(url, through, trust, tried, headers), 2 * h.DEADLINE))
    except BaseException as error:
        tried.error = told(error)
    return tried


# -- a company login -------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "first"), [("legacy", "initialize"), ("auto", "server/discover")])
def test_a_client_that_is_not_known_is_led_to_the_companys_login_and_served_as_its_person(
    open_door: House, login: Login, mode: str, first: str
) -> None:
    watched = h.trial(open_door.proxy, open_door.upstream)
    tried = use(open_door, open_door.url, mode=mode)
    assert (tried.text, tried.error) == ("ran read_thing", "")
    [page] = tried.pages
    asked = parse_qs(urlsplit(page).query)
    assert page.startswith(f"{login.issuer}authorize?")
    assert asked["resource"] == [open_door.url]
    assert {seen.header("authorization") for seen in watched.seen} == {f"Bearer {h.SECRET}"}
    assert {seen.path for seen in watched.seen} == {"/mcp"}
    assert not any(b"eyJ" in seen.raw for seen in watched.seen)
    rows = watched.rows
    asked_first = rows[0]
    assert (asked_first["method"], asked_first["principal"]) == (first, "anonymous")
    assert asked_first["reason"] == "no_evidence"
    assert (rows[1]["path"], rows[1]["verdict"], rows[1]["reason"]) == (
        "/.well-known/oauth-protected-resource/mcp", "allow", "answered_here",
    )  # fmt: skip
    [call] = [row for row in rows if row["tool"] == "read_thing"]
    assert (call["principal"], call["issuer"], call["reason"]) == (ALICE, "corp", "granted")
    assert call["injected"] == "things-key@v1"
    assert login.people.issued[-1] not in json.dumps(rows)


@pytest.mark.parametrize("sdk", ["ts1", "ts2"])
def test_the_typescript_clients_are_led_there_too(open_door: House, shut_door: House, sdk: str) -> None:
    for house, ok in ((open_door, True), (shut_door, False)):
        watched = h.trial(house.proxy, house.upstream)
        with typescript(house) as partner:
            result = partner.ask("open", sdk=sdk, url=house.url, login=True)
            if ok:
                assert "ok" in result, result
                called = partner("call", sdk=sdk, tool="read_thing", arguments={"name": "x"})
                assert called["text"] == "ran read_thing"
                assert len(partner("pages", sdk=sdk)) == 1
            else:
                assert "callerid" in result["error"]["message"]
                assert result["error"]["data"] == {"pages": [], "tokens": None}
        reached = [row["principal"] for row in watched.rows if row["tool"] == "read_thing"]
        assert reached == ([ALICE] if ok else [])
        assert {seen.path for seen in watched.seen} <= {"/mcp"}


@contextmanager
def typescript(house: House) -> Iterator[h.Partner]:
    program = node()
    if program is None or not MODULES.is_dir():
        pytest.skip("the TypeScript SDKs are not installed: run scripts/node first")
    place = f"http://localhost:{house.proxy.port}"
    environ = {
        "HTTPS_PROXY": place, "NO_PROXY": "", "NODE_USE_ENV_PROXY": "1", "NODE_MODULES": str(MODULES),
        "NODE_EXTRA_CA_CERTS": str(house.proxy.ca_cert), "PATH": os.environ.get("PATH", ""),
    }  # fmt: skip
    partner = h.Partner(str(CLIENT), environ=environ, program=(program,))
    try:
        assert partner.hear() == {"ready": True}
        yield partner
    finally:
        partner.stop()


def test_an_expired_login_is_renewed(open_door: House, login: Login) -> None:
    memory = Memory()
    expired = login.people.token(open_door.url, "alice@corp.example", -60)
    memory.tokens = OAuthToken(access_token=expired, token_type="Bearer", expires_in=600)
    tried = use(open_door, open_door.url, memory=memory)
    assert (tried.text, tried.error, len(tried.pages)) == ("ran read_thing", "", 1)


def test_the_rules_are_those_of_the_person_who_logged_in(open_door: House, login: Login) -> None:
    login.people.person = "mallory@corp.example"
    try:
        tried = use(open_door, open_door.url)
    finally:
        login.people.person = "alice@corp.example"
    assert tried.text == ""
    assert len(tried.pages) == 1  # a refusal for rules starts no second login
    rows = open_door.proxy.rows("principal = 'user:mallory@corp.example'")
    assert rows
    assert {row["verdict"] for row in rows} == {"deny"}


def test_it_works_against_the_proxys_own_address(open_door: House) -> None:
    watched = h.trial(open_door.proxy, open_door.upstream)
    tried = use(open_door, open_door.reverse_url, proxy=False)
    assert (tried.text, tried.error) == ("ran read_thing", "")
    [page] = tried.pages
    assert parse_qs(urlsplit(page).query)["resource"] == [open_door.reverse_url]
    assert [row["principal"] for row in watched.rows if row["tool"] == "read_thing"] == [ALICE]


def test_a_token_for_another_resource_is_not_taken(open_door: House, login: Login) -> None:
    token = login.people.token("https://other.corp.example/mcp", "alice@corp.example", 600)
    tried = open_door.get(
        "POST", "/mcp", ("Authorization", f"Bearer {token}"), *AS_JSON, body=h.tool("read_thing")
    )
    assert tried.answer is not None
    assert tried.answer.status == 401
    tried.refused("jwt_audience")


AS_JSON = (("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream"))


@pytest.mark.parametrize(
    ("seconds", "error", "reason"),
    [(None, "", "no_evidence"), (-60, ', error="invalid_token"', "jwt_expired")],
    ids=["nothing", "an expired token"],
)
@pytest.mark.parametrize(
    "message",
    [h.tool("read_thing", rpc_id=0), h.rpc("notifications/initialized", rpc_id=None),
     b"[" + h.tool("query") + b"]", b"{"],
    ids=["a call", "a notification", "a batch", "what cannot be read"],
)  # fmt: skip
def test_the_challenge_names_our_metadata(
    open_door: House, login: Login, seconds: int | None, error: str, reason: str, message: bytes
) -> None:
    headers = list(AS_JSON)
    if seconds is not None:
        token = login.people.token(open_door.url, "alice@corp.example", seconds)
        headers.append(("Authorization", f"Bearer {token}"))
    tried = open_door.get("POST", "/mcp", *headers, body=message)
    assert tried.answer is not None
    assert tried.answer.status == 401
    metadata = f"https://{open_door.host}/.well-known/oauth-protected-resource/mcp"
    assert tried.answer.headers["www-authenticate"] == f'Bearer resource_metadata="{metadata}"{error}'
    assert tried.answer.json["error"]["data"]["reason"] == reason
    tried.refused(reason)


def test_a_stream_without_evidence_gets_the_challenge_as_well(open_door: House) -> None:
    for method in ("GET", "DELETE"):
        tried = open_door.get(method, "/mcp", ("Accept", "text/event-stream"))
        assert tried.answer is not None
        assert tried.answer.status == 401
        tried.refused("no_evidence")


@pytest.mark.parametrize("carrier", ["X-Callerid-Token", "Proxy-Authorization"])
def test_no_login_is_started_where_it_would_not_help(open_door: House, carrier: str) -> None:
    bad = open_door.tokens["alice"][:-1] + "x" if not open_door.tokens["alice"].endswith("x") else "cid_x"
    value = bad if carrier.startswith("X") else f"Bearer {bad}"
    tried = open_door.get("POST", "/mcp", (carrier, value), *AS_JSON, body=h.tool("read_thing"))
    assert tried.answer is not None
    assert (tried.answer.status, "www-authenticate" in tried.answer.headers) == (200, False)
    tried.refused("token_malformed")


def test_a_refusal_for_rules_starts_no_login(open_door: House) -> None:
    who = ("Authorization", f"Bearer {open_door.tokens['ivy']}")
    for message in (h.tool("drop_thing"), h.rpc("tools/call", {"name": "nothing"})):
        tried = open_door.get("POST", "/mcp", who, *AS_JSON, body=message)
        assert tried.answer is not None
        assert (tried.answer.status, "www-authenticate" in tried.answer.headers) == (200, False)


@pytest.mark.parametrize("path", DOORS[:3])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_metadata_is_ours_and_has_a_row(open_door: House, path: str, method: str) -> None:
    tried = open_door.get(method, path)
    assert tried.answer is not None
    assert tried.answer.status == 200
    if method == "GET":
        assert tried.answer.json == {
            "resource": open_door.url,
            "authorization_servers": [open_door.login.issuer if open_door.login else ""],
            "bearer_methods_supported": ["header"],
        }
    assert tried.seen == []
    row = tried.row
    assert (row["verdict"], row["reason"], row["server"]) == ("allow", "answered_here", "things")
    assert (row["outcome"], row["http_status"], row["principal"]) == ("ok", 200, "anonymous")


@pytest.mark.parametrize("path", DOORS[3:])
def test_all_else_of_the_door_stays_shut_beside_a_company_login(open_door: House, path: str) -> None:
    stays_shut(open_door, "GET", path)


def test_the_rest_of_the_host_is_as_it_was(open_door: House) -> None:
    for path in ("/", "/docs", "/.well-known/security.txt", "/v2/token"):
        tried = open_door.get("GET", path)
        assert tried.answer is not None
        assert tried.answer.json["reached"] == path
        assert tried.rows == []


# -- none ------------------------------------------------------------------------------------------


def stays_shut(
    house: House, method: str, path: str, *headers: tuple[str, str], body: bytes = b""
) -> dict[str, Any]:
    tried = house.get(method, path, *headers, body=body)
    assert tried.answer is not None
    assert tried.answer.status == 404
    assert "www-authenticate" not in tried.answer.headers
    row = tried.refused("oauth_withheld")
    assert (row["server"], row["path"], row["verdict"]) == ("things", path, "deny")
    if method != "HEAD":
        assert tried.answer.json["error"] == "not_found"
        assert row["event_id"] in tried.answer.json["error_description"]
    return row


@pytest.mark.parametrize("path", DOORS)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
def test_without_a_company_login_the_door_is_shut(shut_door: House, path: str, method: str) -> None:
    assert stays_shut(shut_door, method, path)["principal"] == "anonymous"


def test_who_knocks_is_recorded_if_it_is_known(shut_door: House) -> None:
    who = ("Authorization", f"Bearer {shut_door.tokens['alice']}")
    assert (
        stays_shut(shut_door, "POST", "/token", who, body=b"grant_type=client_credentials")["principal"]
        == ALICE
    )


def test_a_client_with_a_login_attached_cannot_get_a_token_around_the_shared_one(shut_door: House) -> None:
    watched = h.trial(shut_door.proxy, shut_door.upstream)
    tried = use(shut_door, shut_door.url)
    assert tried.text == ""
    assert "callerid" in tried.error
    assert "present your callerid token" in tried.error
    assert (tried.pages, tried.memory.tokens) == ([], None)
    assert watched.seen == []
    assert {row["reason"] for row in watched.rows} <= {"no_evidence", "oauth_withheld"}


def test_a_client_that_insists_on_a_login_finds_none(shut_door: House) -> None:
    """As a client of 2025-03-26 does, it walks the whole way by itself, whatever it was told."""
    watched = h.trial(shut_door.proxy, shut_door.upstream)
    tried = Tried()

    async def insist() -> None:
        metadata = OAuthClientMetadata(client_name="tests", redirect_uris=[AnyUrl(CALLBACK)])
        auth = OAuthClientProvider(shut_door.url, metadata, tried.memory)
        flow = auth.async_auth_flow(httpx2.Request("POST", shut_door.url))
        trust = trusting(shut_door.proxy.ca_cert)
        async with httpx2.AsyncClient(verify=trust, proxy=f"http://localhost:{shut_door.proxy.port}") as http:
            request = await anext(flow)
            request = await flow.asend(httpx2.Response(401, request=request))
            while True:
                response = await http.send(request)
                await response.aread()
                request = await flow.asend(response)

    try:
        asyncio.run(asyncio.wait_for(insist(), h.DEADLINE))
    except Exception as error:
        tried.error = told(error)
    assert "Registration" in tried.error
    assert "callerid holds its credential" in tried.error
    assert watched.seen == []
    assert {row["reason"] for row in watched.rows} == {"oauth_withheld"}
    assert tried.memory.client is None


# -- a server that refuses the shared credential ---------------------------------------------------


def test_a_servers_own_challenge_starts_no_login(wrong_key: House) -> None:
    watched = h.trial(wrong_key.proxy, wrong_key.upstream)
    tried = use(wrong_key, wrong_key.url, headers={"X-Callerid-Token": wrong_key.tokens["alice"]})
    assert tried.text == ""
    assert "do not log in again" in tried.error
    assert (tried.pages, tried.memory.tokens) == ([], None)
    assert {seen.path for seen in watched.seen} == {"/mcp"}
    h.wait_for(lambda: all(row["outcome"] != "unknown" for row in watched.rows), "the outcomes")
    assert {row["outcome"] for row in watched.rows} == {"upstream_refused_credential"}
