"""The form of scoped tokens."""

from __future__ import annotations

import re

import pytest

from callerid.identity.tokens import contains_token, digest, is_well_formed, mint, token_id

TOKEN = mint(bytes(range(32)))


def test_a_token_has_the_documented_form() -> None:
    assert re.fullmatch(r"cid_[0-9A-Za-z]{49}", TOKEN)
    assert is_well_formed(TOKEN)
    assert is_well_formed(mint(b"\xff" * 32))
    assert is_well_formed(mint(bytes(32)))


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_token_is_never_made_of_less_than_256_bits(size: int) -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        mint(bytes(size))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(TOKEN[:-1], id="cut"),
        pytest.param(TOKEN + "0", id="longer"),
        pytest.param("CID_" + TOKEN[4:], id="another prefix"),
        pytest.param(TOKEN[:10] + ("a" if TOKEN[10] != "a" else "b") + TOKEN[11:], id="one letter off"),
        pytest.param(TOKEN[:-1] + ("a" if TOKEN[-1] != "a" else "b"), id="checksum off"),
        pytest.param(TOKEN[:20] + "-" + TOKEN[21:], id="a letter outside the alphabet"),
        pytest.param(TOKEN[:20] + "é" + TOKEN[21:], id="not ASCII"),
        pytest.param(TOKEN[:20] + "\ud800" + TOKEN[21:], id="a surrogate"),
        pytest.param(TOKEN + "\n", id="a line end"),
    ],
)
def test_a_slip_is_seen(text: str) -> None:
    assert not is_well_formed(text)


def test_the_digest_is_sha256_and_names_the_token() -> None:
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert token_id(digest("abc")) == "t_ba7816bf8f01"


@pytest.mark.parametrize(
    "around",
    [
        "{}",
        "https://host/?k={}&x=1",
        "cid_cid_{}",
        "x{}yz123",
        '{{"a":"{}"}}',
        "cid_" + "a" * 48 + "{}",
        "cid{}",
    ],
)
def test_a_token_is_found_wherever_it_stands(around: str) -> None:
    assert contains_token(around.format(TOKEN).encode())


@pytest.mark.parametrize(
    "data", [b"", b"cid_", b"cid_" * 1000, TOKEN[:-1].encode(), b"CID_" + TOKEN[4:].encode()]
)
def test_a_look_alike_is_no_token(data: bytes) -> None:
    assert not contains_token(data)
