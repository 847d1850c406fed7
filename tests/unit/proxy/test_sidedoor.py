from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from callerid.config import Binding, Credential, Identities, Issuer, Server, Servers
from callerid.identity.presented import Presented
from callerid.mcp.oauthdoor import LOGIN_HELPS
from callerid.model import Malformed, Reason
from callerid.proxy.destination import Governed, ServerTable, Unlisted
from callerid.proxy.facts import Facts
from callerid.proxy.rows import Rows
from callerid.proxy.sidedoor import Opened, challenge_for, find, injects

HOST = "mcp.corp.example"
LOGIN = "https://login.corp.example"
METADATA = "/.well-known/oauth-protected-resource"


def server(path: str = "/mcp", credential: str | None = "shared", **more: Any) -> Server:
    given = {"id": path.strip("/") or "root", "scheme": "https", "host": HOST, "port": 443, **more}
    return Server(path=path, credential=credential, **given)


def credential(name: str, inject: Any) -> Credential:
    binding = Binding(hosts=frozenset({(HOST, 443)}))
    return Credential(id=name, source_kind="none", source="", inject=inject, binding=binding)


def rooms(*servers: Server, login: bool = False) -> Any:
    issuer = Issuer(
        id="corp", issuer=LOGIN, audiences=("a",), algorithms=("ES256",), jwks_file=Path("k"), login=login
    )
    rules = SimpleNamespace(
        credentials=(
            credential("shared", "bearer"),
            credential("own", "passthrough"),
            credential("pem", "mtls"),
        ),
        identities=Identities(issuers=(issuer,)),
    )
    return SimpleNamespace(rules=rules, servers=ServerTable(Servers(servers=servers)))


def facts(path: str, method: str = "GET", called: str | None = None, **presented: Any) -> Facts:
    return Facts(
        time_us=0, http_method=method, scheme="https", host=HOST, port=443, path=path,
        host_header=HOST, sni=HOST,
        headers=(), body=b"", client_ip=None, presented=Presented(**presented), called=called,
    )  # fmt: skip


def opened(path: str, rooms: Any, **more: Any) -> Opened | None:
    asked = facts(path, **more)
    place = rooms.servers.locate(
        scheme="https", host=HOST, port=443, path=path, host_header=HOST, sni=HOST
    )  # fmt: skip
    assert isinstance(place, Governed | Unlisted)
    return find(asked, rooms, place)


@pytest.mark.parametrize(("name", "shared"), [("shared", True), ("pem", True), ("own", False), (None, False)])
def test_a_credential_of_ours_is_one_that_is_not_the_callers(name: str | None, shared: bool) -> None:
    assert injects(server(credential=name), rooms()) is shared


@pytest.mark.parametrize(
    "path", ["/authorize", "/token?x=1", f"{METADATA}/mcp", METADATA, "/.well-known/openid-configuration"]
)
def test_what_is_shared_is_withheld_on_the_whole_host(path: str) -> None:
    assert opened(path, rooms(server())) == Opened(server(), None)
    assert opened(path, rooms(server(credential=None))) is None
    assert opened(path, rooms(server(credential="own"))) is None
    assert opened(path, rooms(server(host="other.corp.example"))) is None


def test_with_a_login_the_metadata_of_each_server_is_its_own() -> None:
    one, two = server("/one"), server("/two")
    house = rooms(one, two, login=True)
    assert opened(f"{METADATA}/one", house) == Opened(one, f"https://{HOST}/one")
    assert opened(f"/two{METADATA}", house) == Opened(two, f"https://{HOST}/two")
    assert opened(f"{METADATA}/one/deep", house) == Opened(one, f"https://{HOST}/one")
    assert opened(METADATA, house) == Opened(two, None) or opened(METADATA, house) == Opened(one, None)
    assert opened(METADATA, rooms(one, login=True)) == Opened(one, f"https://{HOST}/one")
    assert opened(f"{METADATA}/oneself", house) in (Opened(one, None), Opened(two, None))


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "DELETE"])
def test_metadata_is_for_reading(method: str) -> None:
    assert opened(f"{METADATA}/mcp", rooms(server(), login=True), method=method) == Opened(server(), None)


def test_beside_a_shared_credential_another_server_keeps_only_its_own_document() -> None:
    shared, own = server("/mcp"), server("/own", "own")
    house = rooms(shared, own, login=True)
    assert opened(f"{METADATA}/own", house) is None
    assert opened("/token", house) == Opened(shared, None)


def test_a_server_without_a_credential_may_have_its_people_log_in_at_the_company() -> None:
    bare = server(credential=None)
    assert opened(f"{METADATA}/mcp", rooms(bare, login=True)) == Opened(bare, f"https://{HOST}/mcp")
    assert opened("/token", rooms(bare, login=True)) is None


def test_a_path_of_an_apis_own_is_left_to_its_rules_and_the_documents_are_not() -> None:
    api = server("/", kind="http")
    assert opened("/token", rooms(api)) is None
    assert opened("/.well-known/openid-configuration", rooms(api)) == Opened(api, None)
    narrow = server("/v1", kind="http")
    assert opened("/token", rooms(narrow)) == Opened(narrow, None)


# -- the way there


def test_the_way_to_the_login_is_that_of_the_url_that_was_called() -> None:
    house = rooms(server(), login=True)
    here = challenge_for(facts("/mcp"), house, server(), Reason.NO_EVIDENCE)
    assert here == f'Bearer resource_metadata="https://{HOST}{METADATA}/mcp"'
    called = facts("/mcp", called="https://proxy.corp.example:8443")
    assert challenge_for(called, house, server(), Reason.NO_EVIDENCE) == (
        f'Bearer resource_metadata="https://proxy.corp.example:8443{METADATA}/mcp"'
    )
    root = challenge_for(facts("/"), house, server("/"), Reason.NO_EVIDENCE)
    assert root == f'Bearer resource_metadata="https://{HOST}{METADATA}"'


@pytest.mark.parametrize("reason", list(Reason))
def test_nobody_is_sent_to_log_in_where_that_cannot_help(reason: Reason) -> None:
    house, asked = rooms(server(), login=True), facts("/mcp", authorization=("Bearer x",))
    way = challenge_for(asked, house, server(), reason)
    assert (way is not None) is (reason in LOGIN_HELPS)
    assert way is None or way.endswith(', error="invalid_token"')
    assert challenge_for(asked, rooms(server()), server(), reason) is None
    assert challenge_for(asked, house, None, reason) is None
    assert challenge_for(asked, house, server(credential="own"), reason) is None


@pytest.mark.parametrize(
    "carrier",
    ["proxy_authorization", "connect_proxy_authorization", "callerid_token", "connect_callerid_token"],
)
def test_evidence_that_a_login_does_not_replace_starts_none(carrier: str) -> None:
    asked = facts("/mcp", **{carrier: ("Bearer cid_x",)})
    assert challenge_for(asked, rooms(server(), login=True), server(), Reason.TOKEN_EXPIRED) is None


def test_a_host_that_is_called_as_a_server_is_not_that_server() -> None:
    """Nobody is led to its login, nor answered in its form, by a place that is not listed."""
    house = rooms(server(id="docs"), login=True)
    house.rules.hash = "h"
    asked = replace(facts("/mcp", "POST"), host="docs", host_header="docs")
    found = Malformed(reason=Reason.TOKEN_EXPIRED, detail="", http_status=403, rpc_code=-32600)
    answer = Rows(asked, house, lambda: "e-1", "docs").refuse(found, Reason.TOKEN_EXPIRED, "").answer
    assert answer is not None
    assert "WWW-Authenticate" not in dict(answer.headers)
