"""Names of headers that rule files may not take."""

from __future__ import annotations

import pytest

from callerid.credentials.strip import CALLER_HEADERS, IDENTITY_HEADERS, IDENTITY_PREFIXES
from callerid.policy.headers import is_taken, is_transport, same_header

OURS = "x-callerid-assertion"


@pytest.mark.parametrize(
    "name", sorted(CALLER_HEADERS | IDENTITY_HEADERS | {f"{prefix}x" for prefix in IDENTITY_PREFIXES})
)
def test_an_assertion_cannot_have_a_name_that_is_removed_on_the_way(name: str) -> None:
    assert is_taken(name) or name == OURS
    assert is_taken(name.upper().replace("-", "_")) or name == OURS


@pytest.mark.parametrize(
    "name", ["X-Callerid-Assertion", "x_callerid_assertion", "X-Caller", "X-Corp-Identity"]
)
def test_names_that_an_assertion_can_have(name: str) -> None:
    assert not is_taken(name)
    assert not is_transport(name)


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "Content-Length", "X-Callerid-Token", "Proxy-Authorization"),
        *("Mcp-Session-Id", "Mcp-Method", "mcp_name", "Mcp-Param-Region", "MCP_PARAM_x", "Mcp-New"),
    ],
)
def test_headers_of_the_transport(name: str) -> None:
    assert is_transport(name)
    assert is_taken(name)


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "Cookie", "X-Forwarded-Access-Token"])
def test_a_secret_may_go_where_an_assertion_may_not(name: str) -> None:
    assert not is_transport(name)
    assert is_taken(name)


def test_headers_are_the_same_whatever_their_case_and_signs() -> None:
    assert same_header("X-Caller", "x_caller")
    assert not same_header("X-Caller", "X-Callers")
