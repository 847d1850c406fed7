from __future__ import annotations

import json

import pytest
from mcp.shared.auth import ProtectedResourceMetadata

from callerid.mcp.oauthdoor import Door, challenge, door_of, is_oauth, metadata, metadata_url, withheld

RESOURCE = "oauth-protected-resource"
SERVER = "oauth-authorization-server"


@pytest.mark.parametrize(
    ("path", "door"),
    [
        ("/.well-known/oauth-protected-resource", Door(document=RESOURCE)),
        ("/.well-known/oauth-protected-resource/", Door(document=RESOURCE)),
        ("/.well-known/oauth-protected-resource/mcp", Door(document=RESOURCE, about="/mcp")),
        ("/.well-known/oauth-protected-resource/a/b/", Door(document=RESOURCE, about="/a/b")),
        ("/mcp/.well-known/oauth-protected-resource", Door(document=RESOURCE, about="/mcp")),
        ("/.Well-Known/OAuth-Protected-Resource/mcp", Door(document=RESOURCE, about="/mcp")),
        ("/.well-known/oauth-protected-resource-v2", Door(document="")),
        ("/.well-known/oauth-authorization-server", Door(document="oauth-authorization-server")),
        ("/.well-known/oauth-authorization-server/t", Door(document=SERVER, about="/t")),
        ("/.well-known/openid-configuration", Door(document="openid-configuration")),
        ("/t1/.well-known/openid-configuration", Door(document="openid-configuration", about="/t1")),
        ("/authorize", Door(document=None)),
        ("/Token/", Door(document=None)),
        ("/REGISTER", Door(document=None)),
    ],
)  # fmt: skip
def test_the_places_of_the_side_door(path: str, door: Door) -> None:
    assert door_of(path) == door


@pytest.mark.parametrize(
    "path",
    ["/", "", "/mcp", "/v1/token", "/tokens", "/authorize/x", "/.well-known", "/.well-known/security.txt",
     "/well-known/oauth-protected-resource", "/x.well-known/openid-configuration"],
)  # fmt: skip
def test_other_places_are_none_of_it(path: str) -> None:
    assert door_of(path) is None


@pytest.mark.parametrize(
    ("path", "arguments", "oauth"),
    [
        ("/api/oauth2/token", {"body": {"grant_type": "client_credentials"}}, True),
        ("/api/oauth2/token/", {"body": {"GRANT_TYPE": "client_credentials"}}, True),
        ("/oauth2/v2.0/Token.json", {"body": {"grant.type": "password"}}, True),
        ("/api/token%20", {"body": {"client_assertion": "x"}}, True),
        ("/login/oauth/access_token", {"query": {"client_id": "x", "code": "y"}}, True),
        ("/oauth/client_credential/accesstoken", {"query": {"grant_type": "client_credentials"}}, True),
        ("/oauth/odd-name", {"body": {"grant_type[]": ["client_credentials"]}}, True),
        ("/oauth2/v1/authorize", {"query": {"response_type": "token"}}, True),
        ("/realms/corp/protocol/openid-connect/auth", {"query": {"redirect_uri": "https://a/"}}, True),
        ("/connect/register", {"body": {"redirect_uris": []}}, True),
        ("/oauth2/device_authorization", {"body": {"client_id": "x", "scope": "repo"}}, True),
        ("/login/device/code", {"body": {"client_id": "x"}}, True),
        ("/v1/token", {"body": {"card": "4242"}}, False),
        ("/v1/tokens", {"body": {"card": "4242", "client_id": "c"}}, False),
        ("/v1/payments/authorize", {"body": {"amount": 5, "client_id": "c"}}, False),
        ("/v1/code", {"body": {"client_id": "x"}}, False),
        ("/v1/charges", {"body": {"refresh_token": "x"}}, False),
        ("/", {"query": {"client_id": "x"}}, False),
        ("/token", {"body": {"grant_type": "client_credentials"}}, True),
        ("/token/", {"query": {"Grant_Type": "password"}}, True),
        ("/token", {"body": {"card": "4242"}}, False),
        ("/token", {}, False),
        ("/authorize", {"query": {"response_type": "code", "client_id": "x"}}, True),
        ("/authorize", {"query": {"amount": "5"}}, False),
        ("/register", {"body": {"redirect_uris": ["https://a.corp.example/"]}}, True),
        ("/register", {"body": {"name": "Ivy"}}, False),
        ("/register", {"body": ["redirect_uris"]}, False),
    ],
)
def test_an_apis_own_paths_are_told_from_a_login_by_what_is_in_the_request(
    path: str, arguments: dict[str, object], oauth: bool
) -> None:
    assert is_oauth("POST", path, arguments, has_body="body" in arguments) is oauth


@pytest.mark.parametrize(
    ("path", "oauth"),
    [("/v1/token", True), ("/oauth/device/code", True), ("/register", True), ("/v1/tokens", False),
     ("/v1/files", False)],
)  # fmt: skip
def test_a_body_that_nobody_read_may_hold_a_login_where_one_would_be(path: str, oauth: bool) -> None:
    assert is_oauth("POST", path, {}, has_body=True) is oauth
    assert not is_oauth("POST", path, {}, has_body=False)


def test_a_list_may_be_narrowed_to_a_grant_type() -> None:
    query = {"query": {"grant_type": "password"}}
    assert not is_oauth("GET", "/v1/clients", query, has_body=False)
    assert is_oauth("GET", "/v1/token", query, has_body=False)
    assert is_oauth("POST", "/v1/clients", query, has_body=False)


def test_the_metadata_is_what_clients_take_for_metadata() -> None:
    answer = metadata("https://mcp.corp.example/mcp", ["https://login.corp.example"])
    assert answer.status == 200
    read = ProtectedResourceMetadata.model_validate_json(answer.body)
    assert str(read.resource) == "https://mcp.corp.example/mcp"
    assert [str(url).rstrip("/") for url in read.authorization_servers] == ["https://login.corp.example"]
    assert read.bearer_methods_supported == ["header"]


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/mcp", "https://mcp.corp.example/.well-known/oauth-protected-resource/mcp"),
        ("/", "https://mcp.corp.example/.well-known/oauth-protected-resource"),
    ],
)
def test_the_challenge_names_where_the_metadata_is(path: str, url: str) -> None:
    made = metadata_url("https://mcp.corp.example", path)
    assert made == url
    assert challenge(made, invalid=False) == f'Bearer resource_metadata="{url}"'
    assert challenge(made, invalid=True).endswith(', error="invalid_token"')


def test_a_place_that_is_withheld_is_a_404_that_says_what_to_do() -> None:
    answer = withheld("0193a0c0-0000-7000-8000-000000000001")
    assert answer.status == 404
    said = json.loads(answer.body)
    assert (said["error"], said["reason"]) == ("not_found", "oauth_withheld")
    assert "your own credential" in said["error_description"].lower()
    assert "WWW-Authenticate" not in dict(answer.headers)
