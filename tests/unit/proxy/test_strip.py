"""Which of the caller's headers stay behind, on the way to a server that gets the caller's own credential."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from callerid.config import Server
from callerid.proxy.strip import api_strip, governed_strip, holds, passing_strip
from tests.unit.identity.made import token

OURS = "Bearer " + "o" * 60
THEIRS = "DPoP " + "t" * 60


def stripped(headers: list[tuple[str, str]], strip: Any = passing_strip) -> set[str]:
    facts: Any = SimpleNamespace(headers=headers)
    authority: Any = SimpleNamespace(is_ours=lambda value: value == OURS)
    return set(strip(facts, authority))


@pytest.mark.parametrize("name", ["DPoP", "dpop", "DPOP"])
def test_the_proof_of_a_token_that_goes_on_goes_with_it(name: str) -> None:
    assert stripped([("Authorization", THEIRS), (name, "proof")]) == set()


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("Authorization", OURS), ("DPoP", "proof")], id="the token is evidence for us"),
        pytest.param([("DPoP", "proof")], id="there is no token"),
        pytest.param([("X-Api-Key", THEIRS), ("DPoP", "proof")], id="another credential"),
    ],
)
def test_the_proof_of_a_token_that_stays_behind_stays_with_it(headers: list[tuple[str, str]]) -> None:
    assert "DPoP" in stripped(headers)


def test_towards_a_server_with_a_shared_credential_both_stay_behind() -> None:
    assert stripped([("Authorization", THEIRS), ("DPoP", "proof")], governed_strip) >= {
        "authorization",
        "DPoP",
    }


def test_other_credentials_stay_behind_all_the_same() -> None:
    headers = [("Authorization", THEIRS), ("Cookie", "a=b"), ("X-Callerid-Token", "x"), ("Accept", "*/*")]
    assert stripped(headers) == {"Cookie", "X-Callerid-Token"}


@pytest.mark.parametrize(
    ("kind", "passing", "left"),
    [
        pytest.param("http", False, {"Sudo", "DPoP", "Destination"}, id="an API"),
        pytest.param(
            "http", True, {"Sudo", "Destination"}, id="an API that gets the caller's own credential"
        ),
        pytest.param("mcp", False, set(), id="an MCP server"),
    ],
)
def test_to_an_api_go_the_usual_headers_and_those_of_its_entry(
    kind: Any, passing: bool, left: set[str]
) -> None:
    server = Server(id="a", scheme="https", host="h", port=443, path="/", kind=kind, headers=("x-acct",))
    names = ("Host", "Authorization", "Accept", "X-ACCT", "Sudo", "DPoP", "Destination", "Content-Length")
    facts: Any = SimpleNamespace(headers=[(name, "x") for name in names])
    assert set(api_strip(facts, server, passing=passing)) == left


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_a_token_is_seen_through_its_percent_encoding(layers: int) -> None:
    text = token(1)
    for _ in range(layers):
        text = text.replace("%", "%25") if "%" in text else text.replace("cid_", "cid%5F")
    assert holds(f"/x?a={text}")
    assert not holds("/x?a=%2525")
