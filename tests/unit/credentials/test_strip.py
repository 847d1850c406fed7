from __future__ import annotations

import pytest

from callerid.credentials.strip import CALLER_HEADERS, IDENTITY_HEADERS, strip_names

PLAIN = (
    "Host",
    "Accept",
    "Content-Type",
    "Authorization",
    "User-Agent",
    "Mcp-Session-Id",
    "Mcp-Method",
    "Last-Event-Id",
    "Traceparent",
    "X-Request-Id",
    "Clientcert",
    "X-Request.Id",
    "X.Tenant",
)

IDENTITY = (
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Client-Cert",
    "Client-Cert",
    "Client-Cert-Chain",
    "X-SSL-Client-Verify",
    "X-SSL-Client-S-DN",
    "X-Client-DN",
    "X-Remote-User",
    "Remote-User",
    "X-Auth-Request-Email",
    "X-Authenticated-User",
    "X-Pomerium-Jwt-Assertion",
    "X-Goog-IAP-JWT-Assertion",
    "Cf-Access-Jwt-Assertion",
    "X-Amzn-Oidc-Data",
    "Teleport-Jwt-Assertion",
    "Tailscale-User-Login",
    "Txn-Token",
    "Impersonate-User",
    "Impersonate-Extra-Scopes",
)


@pytest.mark.parametrize("governed", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "Proxy-Authorization",
        "proxy-authorization",
        "PROXY_AUTHORIZATION",
        "Proxy-Connection",
        "Proxy-Authenticate",
        "X-Callerid-Token",
        "x_callerid_token",
        "X-Callerid_Token ",
        "X-Callerid-Principal",
        "X_CALLERID_ASSERTION",
        "X.Callerid.Token",
        "x~callerid~principal",
    ],
)
def test_what_the_caller_says_to_us_goes_nowhere(name: str, governed: bool) -> None:
    assert strip_names([name], governed=governed) == (name,)


@pytest.mark.parametrize("name", IDENTITY)
def test_identity_headers_do_not_reach_a_governed_server(name: str) -> None:
    for spelled in (
        name,
        name.lower(),
        name.upper(),
        name.replace("-", "_"),
        name.replace("-", "."),
        f" {name}",
    ):
        assert strip_names([spelled], governed=True) == (spelled,)


@pytest.mark.parametrize("name", IDENTITY)
def test_identity_headers_to_other_hosts_are_not_ours(name: str) -> None:
    assert strip_names([name], governed=False) == ()


@pytest.mark.parametrize(
    "name",
    ["Cookie", "X-Api-Key", "X-Forwarded-Proto", "X-Forwarded-Path", "X-Original-URL", "X-Original-Uri",
     "X-Rewrite-URL", "X-Envoy-Original-Path", "x_envoy_original_path", "X-HTTP-Method-Override",
     "Private-Token", "X-Vault-Token", "X-Goog-Api-Key", "X-Amz-Security-Token", "Sudo"],
)  # fmt: skip
def test_other_credentials_and_other_request_lines_do_not_reach_a_governed_server(name: str) -> None:
    assert strip_names([name], governed=True) == (name,)
    assert strip_names([name], governed=False) == ()


def test_other_headers_stay() -> None:
    assert strip_names(PLAIN, governed=True) == ()


def test_each_name_once_as_written_and_in_order() -> None:
    names = ["Forwarded", "Accept", "forwarded", "Forwarded", "Proxy-Authorization"]
    assert strip_names(iter(names), governed=True) == ("Forwarded", "forwarded", "Proxy-Authorization")


def test_the_tables_are_written_as_they_are_compared() -> None:
    assert all(name == name.lower() and "_" not in name for name in CALLER_HEADERS | IDENTITY_HEADERS)
