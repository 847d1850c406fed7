"""Bytes to JSON, read as the most forgiving server would: for looking only, never to judge or to forward.

Any UTF, with or without a mark; gzip and deflate; duplicate names, names in any case, raw control
characters, NaN. What is decoded is bounded, and nothing in here raises but what it says.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from callerid.mcp.strictjson import fold

PARSE_LIMIT = 1_048_576
"""The most bytes that are decoded, and parsed without a word in them that makes it worth while."""

SPACE = " \t\r\n\f\v\ufeff\0"
SPACE_BYTES = SPACE.encode() + b"\xfe\xff"
_GZIP = 47  # zlib's window bits for "gzip or zlib, look for yourself"
_RAW_DEFLATE = -15
_CHARSETS = frozenset(
    {"utf-7", "utf-16", "utf-16le", "utf-16be", "utf-32", "utf-32le", "utf-32be", "utf7", "utf16", "utf32"}
)
_MAX_DIGITS = 19


def encodings_of(headers: Sequence[tuple[str, str]]) -> str:
    """All content encodings, lower-case, joined by commas in the order in which they were applied."""
    return ",".join(value.lower() for name, value in headers if name.lower() == "content-encoding")


def charset_of(headers: Sequence[tuple[str, str]]) -> str:
    """The charset of the content type, lower-case; empty if there is none."""
    values = [value for name, value in headers if name.lower() == "content-type"]
    return values[-1].lower().partition("charset=")[2].split(";")[0].strip(' \t"') if values else ""


def decompress(body: bytes, encodings: str) -> bytes | None:
    """The body without its content encodings, up to PARSE_LIMIT; None if one is not ours to decode."""
    for coding in reversed([name.strip() for name in encodings.split(",") if name.strip()][:4]):
        match coding:
            case "identity":
                continue
            case "gzip" | "x-gzip":
                decoded = _inflate(body, _GZIP)
            case "deflate":
                decoded = _inflate(body, _GZIP)
                if decoded is None:
                    decoded = _inflate(body, _RAW_DEFLATE)
            case _:
                return None
        if decoded is None:
            return None
        body = decoded
    return body


def readings(body: bytes, encodings: str) -> Iterator[bytes]:
    """The body without its content encodings, if they can be undone, and as it came.

    Many a server ignores the header that names them, and runs what it finds.
    """
    plain = decompress(body, encodings)
    if plain is not None:
        yield plain
    if plain is not body:
        yield body


def _inflate(body: bytes, window: int) -> bytes | None:
    """At most PARSE_LIMIT bytes, however small the body is; a look at the start saves the rest."""
    try:
        stream = zlib.decompressobj(window)
        start = stream.decompress(body, 256)
        if start and not may_be_json(start):
            return start
        return start + stream.decompress(stream.unconsumed_tail, PARSE_LIMIT - len(start))
    except zlib.error:
        return None


def may_be_json(start: bytes) -> bool:
    """Whether the first byte that is not space, mark or zero begins an object or an array.

    In any UTF (``+`` begins it in UTF-7), or a further layer of gzip or zlib does. All space: maybe.
    """
    return start.lstrip(SPACE_BYTES)[:1] in (b"{", b"[", b"+", b"\x1f", b"x", b"")


def opens_json(start: bytes) -> bool:
    """The same without a further layer of compression."""
    return start.lstrip(SPACE_BYTES)[:1] in (b"{", b"[", b"+", b"")


def texts_of(raw: bytes, charset: str) -> Iterator[str]:
    """The texts of what may be JSON: by its charset if that is a UTF, and by its marks and zeros."""
    found = json.detect_encoding(raw)
    if charset in _CHARSETS and charset.replace("-", "") != found.replace("-", ""):
        yield raw.decode(charset, "replace").lstrip(SPACE)
    yield raw.decode(found, "replace").lstrip(SPACE)


class Pairs(list[tuple[str, Any]]):
    """The members of an object, duplicates kept."""

    def all(self, name: str) -> Iterator[Any]:
        """The values of every member called so, in any case. ``name`` is folded."""
        return (value for member, value in self if fold(member) == name)

    def has(self, *names: str) -> bool:
        """Whether each of the names, folded, is there."""
        return all(any(True for _ in self.all(name)) for name in names)

    def names(self) -> frozenset[str]:
        """All names, folded."""
        return frozenset(fold(member) for member, _ in self)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else _FRACTION


def _fraction(digits: str) -> float:
    return _FRACTION


_FRACTION = 0.5
"""Stands for every number that is no integer, or too long for one: the value says nothing here."""
_DECODER = json.JSONDecoder(object_pairs_hook=Pairs, strict=False, parse_int=_integer, parse_float=_fraction)


def first_value(text: str) -> Any:
    """The JSON value that the text begins with, objects as ``Pairs``, numbers only as integers.

    Raises:
        ValueError, RecursionError: it begins with none, or with one that is nested too deeply.
    """
    return _DECODER.raw_decode(text)[0]


def members_of(value: Any) -> list[Pairs]:
    """The objects that a message or a batch consists of."""
    if isinstance(value, Pairs):
        return [value]
    return [member for member in value if isinstance(member, Pairs)] if isinstance(value, list) else []
