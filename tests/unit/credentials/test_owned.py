from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.credentials.owned import KEYS_TOLD, keys_in, own_keys

GHP = "ghp_" + "aZ3" * 12


def nobodys(value: str) -> bool:
    return False


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("header", "value", "key"),
    [
        pytest.param("Authorization", "Bearer opaque-key-1", "opaque-key-1", id="a bearer"),
        pytest.param("authorization", "token opaque-key-1", "opaque-key-1", id="another scheme"),
        pytest.param(
            "Authorization", basic("x:password-long-enough"), "password-long-enough", id="a password"
        ),
        pytest.param("Authorization", "opaque-key-1", "opaque-key-1", id="no scheme"),
        pytest.param("X-Api-Key", "opaque-key-1", "opaque-key-1", id="a header for keys"),
        pytest.param("X_API_KEY", "opaque-key-1", "opaque-key-1", id="with underscores"),
        pytest.param("X-Note", f"see {GHP}.", GHP, id="by the vendor's prefix"),
        pytest.param("Cookie", f"a=b; gh={GHP}", GHP, id="in a cookie"),
    ],
)
def test_a_key_of_the_callers_own_is_found(header: str, value: str, key: str) -> None:
    assert list(own_keys([("Host", "x"), (header, value)], "/mcp", nobodys)) == [
        (key, f"in the header {header}")
    ]


def test_a_key_in_the_query_is_found_by_its_prefix() -> None:
    assert list(own_keys([], f"/mcp?a=1&k={GHP.replace('_', '%5F')}", nobodys)) == [(GHP, "in the query")]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Authorization", "Bearer x"),
        ("Authorization", ""),
        ("Authorization", "Negotiate YIIJvwYGKwYBBQUCoIIJszCCCa+gMDAuBgk"),
        ("Authorization", 'Digest username="a", nonce="b"'),
        ("Authorization", "AWS4-HMAC-SHA256 Credential=x/20260921/eu, Signature=ab"),
        ("Authorization", "Bearer cid_" + "a" * 49),
        ("X-Note", "the task-list, sk-short, ghp_tooshort, AKIA, hf_, SG.a.b"),
        ("X-Trace", "desk-0123456789abcdefghijkl"),
    ],
)
def test_honest_text_and_what_changes_with_each_request_is_none(header: str, value: str) -> None:
    assert list(own_keys([(header, value)], "/", nobodys)) == []


def test_evidence_for_us_is_no_key() -> None:
    assert list(own_keys([("Authorization", "Bearer a-jwt-for-us")], "/", lambda value: True)) == []


@pytest.mark.parametrize(
    "key",
    [
        GHP,
        "github_pat_" + "A1_" * 20,
        "glpat-" + "a1-" * 8,
        "sk-ant-api03-" + "a1_-" * 10,
        "sk_live_".replace("s", "r", 1) + "a1" * 12,
        "xoxb-" + "1-a" * 6,
        "AKIA" + "A1B2" * 4,
        "AIza" + "a1-_b" * 7,
        "hf_" + "aB" * 17,
        "npm_" + "aB1" * 12,
        "pypi-" + "AgEI" * 10,
        "shpat_" + "a1" * 16,
        "dop_v1_" + "a1" * 32,
        "SG." + "a" * 22 + "." + "b" * 43,
    ],
)
def test_the_prefixes_of_vendors_are_known(key: str) -> None:
    assert list(keys_in(f'{{"note":"my key: {key}"}}'.encode())) == [key]


def test_no_more_than_some_are_told() -> None:
    many = " ".join(f"ghp_{n:036}" for n in range(KEYS_TOLD + 5))
    assert len(list(keys_in(many.encode()))) == KEYS_TOLD


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=60)), max_size=5), st.text(max_size=60))
def test_it_is_total(headers: list[tuple[str, str]], path: str) -> None:
    assert all(key for key, _ in own_keys(headers, path, nobodys))
