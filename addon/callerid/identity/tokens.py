"""Scoped tokens: their form and their digest. Pure; what a token stands for is in the registry.

``cid_`` + 43 base62 characters (256 bit) + 6 base62 characters of CRC-32 over all before: 53 characters,
safe in a URL's userinfo and selected by one double click. The checksum is for typing slips and for
secret scanners, which can tell a real token from a look-alike; it is no proof of anything.
As a pattern: ``cid_[0-9A-Za-z]{49}``.
"""

from __future__ import annotations

import hashlib
import string
import zlib

PREFIX = "cid_"
LENGTH = 53
RANDOM_BYTES = 32
_BODY = 43
_CHECK = 6
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_LETTERS = frozenset(_ALPHABET.encode("ascii"))
_PREFIX_BYTES = PREFIX.encode("ascii")


def _base62(number: int, width: int) -> str:
    out = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        out.append(_ALPHABET[digit])
    return "".join(reversed(out))


def _checksum(head: bytes) -> bytes:
    return _base62(zlib.crc32(head), _CHECK).encode("ascii")


def mint(random_bytes: bytes) -> str:
    """A new token out of exactly 32 random bytes.

    Raises:
        ValueError: not 32 bytes; a shorter secret must not pass for a token.
    """
    if len(random_bytes) != RANDOM_BYTES:
        raise ValueError(f"a token is made of {RANDOM_BYTES} random bytes, not {len(random_bytes)}")
    head = PREFIX + _base62(int.from_bytes(random_bytes), _BODY)
    return head + _checksum(head.encode("ascii")).decode("ascii")


def _is_token(data: bytes) -> bool:
    if len(data) != LENGTH or not data.startswith(_PREFIX_BYTES):
        return False
    if not _LETTERS.issuperset(data[len(_PREFIX_BYTES) :]):
        return False
    return _checksum(data[:-_CHECK]) == data[-_CHECK:]


def is_well_formed(text: str) -> bool:
    """True for a text with the prefix, length, alphabet and checksum of a token. Total."""
    try:
        return _is_token(text.encode("ascii"))
    except UnicodeEncodeError:
        return False


def digest(token: str) -> str:
    """Hex SHA-256 of ``token``: what the registry keeps. No salt is needed for 256 random bits."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def token_id(token_digest: str) -> str:
    """The public id of the token with this digest: ``t_`` and 12 hex digits."""
    return f"t_{token_digest[:12]}"


def contains_token(data: bytes) -> bool:
    """True when a well-formed token stands anywhere in ``data``, whatever is around it.

    Runs over every egress URL, header and body: one pass of ``bytes.find``, and a look at 53 bytes per
    occurrence of the prefix.
    """
    at = data.find(_PREFIX_BYTES)
    while at >= 0:
        if _is_token(data[at : at + LENGTH]):
            return True
        at = data.find(_PREFIX_BYTES, at + 1)
    return False
