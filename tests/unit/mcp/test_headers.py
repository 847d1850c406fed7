"""Headers: read once, decoded once, held against the body."""

from __future__ import annotations

import base64

import pytest
from mcp.shared.inbound import decode_header_value, encode_header_value

from callerid.mcp.headers import (
    SINGLE,
    content_encoding_flaw,
    content_type_flaw,
    decode_value,
    has_mirrors,
    mirror_flaw,
    read_once,
    repeated_param,
)


@pytest.mark.parametrize("name", sorted(SINGLE))
def test_a_header_that_readers_must_agree_on_comes_once(name: str) -> None:
    assert read_once([(name.title(), " a\t")]) == {name: "a"}
    assert isinstance(read_once([(name, "a"), (name.upper(), "a")]), str)


@pytest.mark.parametrize(
    "name", ["Mcp_Method", "MCP_PROTOCOL_VERSION", "Content_Type", "Mcp-Name ", "\tHost"]
)
def test_a_spelling_that_some_server_folds_is_refused(name: str) -> None:
    assert isinstance(read_once([(name, "a")]), str)


def test_other_headers_may_repeat() -> None:
    headers = [
        ("Accept", "application/json"),
        ("Accept", "text/event-stream"),
        ("X_Acme", "1"),
        ("X_Acme", "2"),
    ]
    assert read_once(headers) == {}


def test_a_parameter_mirror_comes_once() -> None:
    assert repeated_param([("Mcp-Param-Region", "eu"), ("mcp-param-region", "us")]) == "mcp-param-region"
    assert (
        repeated_param([("Mcp-Param-Region", "eu"), ("Mcp-Param-Zone", "eu"), ("X", "1"), ("X", "1")]) is None
    )


def test_mirrors_are_seen() -> None:
    assert has_mirrors([("MCP-METHOD", "a")])
    assert has_mirrors([("Mcp-Name", "a")])
    assert has_mirrors([("mcp-param-x", "a")])
    assert not has_mirrors([("Mcp-Session-Id", "a"), ("MCP-Protocol-Version", "2025-06-18")])


DECODED = {
    "plain text": ("read_file", "read_file"),
    "an encoded name": ("=?base64?cmVhZF9maWxl?=", "read_file"),
    "encoded text beyond ASCII": (
        "=?base64?" + base64.b64encode("caf\u00e9".encode()).decode() + "?=",
        "caf\u00e9",
    ),
    "an encoded sentinel": (
        "=?base64?" + base64.b64encode(b"=?base64?eA==?=").decode() + "?=",
        "=?base64?eA==?=",
    ),
    "nothing, encoded": ("=?base64??=", ""),
    "half a sentinel is plain": ("=?base64?=", "=?base64?="),
    "another case is plain": ("=?BASE64?eA==?=", "=?BASE64?eA==?="),
    "not base64": ("=?base64?***?=", None),
    "base64 without padding": ("=?base64?eA?=", None),
    "base64 with stray bits": ("=?base64?eB==?=", None),
    "base64 with space": ("=?base64?eA= =?=", None),
    "base64 of the URL sort": ("=?base64?_-__?=", None),
    "not UTF-8": ("=?base64?/w==?=", None),
    "text beyond ASCII": ("caf\u00e9", None),
    "a control character": ("a\x01", None),
}


@pytest.mark.parametrize(("value", "text"), DECODED.values(), ids=DECODED)
def test_decoding(value: str, text: str | None) -> None:
    assert decode_value(value) == text


@pytest.mark.parametrize("name", ["read_file", " edge ", "caf\u00e9", "=?base64?eA==?=", "a\nb", "\u540d"])
def test_the_sdk_encodes_what_we_decode(name: str) -> None:
    encoded = encode_header_value(name)
    assert decode_value(encoded) == decode_header_value(encoded) == name


def flaw(
    *, method: str | None = "tools/call", names: tuple[str, ...] = ("x",), need: bool = True, **once: str
) -> bool:
    values = {name.replace("_", "-"): value for name, value in once.items()}
    return mirror_flaw(values, method, names, needs_method=need, needs_name=need) is not None


def test_mirrors_must_agree() -> None:
    assert not flaw(mcp_method="tools/call", mcp_name="x")
    assert not flaw(mcp_method="tools/call", mcp_name="=?base64?eA==?=")
    assert flaw(mcp_method="tools/list", mcp_name="x")
    assert flaw(mcp_method="Tools/Call", mcp_name="x")
    assert flaw(mcp_method="tools/call", mcp_name="y")
    assert flaw(mcp_method="tools/call", mcp_name="X")
    assert flaw(mcp_method="tools/call", mcp_name="=?base64?eB==?=")
    assert flaw(mcp_method="tools/call", mcp_name="", names=())


def test_mirrors_must_be_there_where_the_revision_says_so() -> None:
    assert flaw(mcp_method="tools/call")
    assert flaw(mcp_name="x")
    assert flaw()
    assert not flaw(need=False)


def test_mirrors_that_are_there_anyway_must_agree() -> None:
    assert flaw(need=False, mcp_method="tools/list")
    assert flaw(need=False, mcp_name="y")
    assert flaw(need=False, method=None, names=(), mcp_method="tools/call")
    assert flaw(need=False, method=None, names=(), mcp_name="x")


TYPES = {
    "application/json": True,
    "APPLICATION/JSON": True,
    " application/json ;charset=UTF-8": True,
    'application/json; charset="utf-8"': True,
    "application/json; charset=utf8": True,
    "application/json;": True,
    "application/json; charset=utf-16": False,
    "application/json; charset=latin-1": False,
    "application/json; charset=utf-8; charset=utf-8": False,
    "application/json; charset": False,
    "application/json; boundary=x": False,
    "application/json, text/plain": False,
    "application/json-rpc": False,
    "application/vnd.acme+json": False,
    "text/plain": False,
    "": False,
}


@pytest.mark.parametrize(("value", "good"), TYPES.items(), ids=TYPES)
def test_content_types(value: str, good: bool) -> None:
    assert (content_type_flaw(value) is None) is good


def test_a_missing_content_type_is_a_flaw_and_a_missing_encoding_is_not() -> None:
    assert content_type_flaw(None)
    assert content_encoding_flaw(None) is None


@pytest.mark.parametrize("value", ["gzip", "deflate", "br", "zstd", "identity, gzip", "", "foo"])
def test_encodings_are_refused(value: str) -> None:
    assert content_encoding_flaw(value)


def test_identity_is_no_encoding() -> None:
    assert content_encoding_flaw("Identity") is None
