"""What may be stored of what a caller sent: secrets out, sizes bounded, every character storable.

Law 5: a secret goes to one place, and no row is that place. Four nets, one behind the other:
members named like secrets, shapes of well-known credentials, the secrets that are live right now
(``scrub``), and limits on what is kept at all. A cut is made after the redaction, never before it:
half a token would match no shape.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from callerid.audit.inert import encodable, inert, inert_json
from callerid.audit.shapes import REDACTED, finds_shape, hide_shapes, names_a_secret

type Scrub = Callable[[str], str]
"""Replaces every live secret in a text. The credentials room makes it, the proxy hands it over."""

STRING_LIMIT = 8 * 1024
"""Bytes of UTF-8 kept of one string in the arguments."""
JSON_LIMIT = 64 * 1024
"""Bytes of UTF-8 kept of the arguments as a whole."""
DEPTH_LIMIT = 64
_NAME_LIMIT = 256
_LOOKAHEAD = 4 * 1024
"""A secret that straddles a cut is recognised when it is no longer than this."""
_RESERVE = 8 * 1024
"""Room inside JSON_LIMIT for the notes and brackets that close a cut document."""
_INTEGER_BITS = 256
_SMALL = 1 << 63
_PLAIN = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_NAMING_MEMBERS = ("name", "key", "header", "field", "variable")
_NAMING_MEMBERS_SET = frozenset(_NAMING_MEMBERS)
_VALUE_MEMBERS = frozenset({"value", "val", "content", "contents", "default", "values"})


def redact(arguments: Mapping[str, Any], *, scrub: Scrub) -> tuple[str, int]:
    """Serialise the arguments of a call as compact JSON without their secrets.

    Args:
        arguments: as parsed from JSON; anything that JSON cannot carry is replaced by a note.
        scrub: replaces live secrets; called for every string and every member name.

    Returns:
        JSON text, always a valid object and at most JSON_LIMIT bytes, and how many parts were redacted.
    """
    plain = _plain(arguments, scrub)
    if plain is not None:
        return plain, 0
    document = _Document(scrub)
    document.mapping(arguments, 0)
    return "".join(document.pieces), document.hits


def _plain(arguments: Mapping[str, Any], scrub: Scrub) -> str | None:
    """The arguments as they are, if one look at all of their text finds nothing to hide or to cut.

    Nearly every call ends here, at a tenth of the cost. In doubt the answer is None, and the document
    is written piece by piece. Joining with NUL hides no match: no shape can need a neighbour.
    """
    texts: list[str] = []
    if not _gather(arguments, texts):
        return None
    joined = "\0".join(texts)
    if len(joined) > JSON_LIMIT // 4 or encodable(joined) != joined or scrub(joined) != joined:
        return None
    if finds_shape(joined):
        return None
    text = _PLAIN.encode(dict(arguments))
    return text if len(text) <= JSON_LIMIT // 4 and inert_json(text) == text else None


def _gather(arguments: Mapping[str, Any], texts: list[str]) -> bool:
    """Collect every string and member name; False if anything needs the careful way."""
    level: list[Any] = [dict(arguments)]
    for _depth in range(DEPTH_LIMIT // 2):
        deeper: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is dict:
                names = tuple(value)
                if not _harmless_names(names) or (_announcing_names(names) and _named_secret(value)):
                    return False
                texts += value
                members: Iterable[Any] = value.values()
            elif any(_announces_secret(item, len(value)) for item in value if type(item) is str):
                return False
            else:
                members = value
            for member in members:
                kind = type(member)
                if kind is str:
                    if len(member) > STRING_LIMIT // 4:
                        return False
                    texts.append(member)
                elif kind is dict or kind is list:
                    deeper.append(member)
                elif not (
                    member is None or kind is bool or (kind is int and -_SMALL < member < _SMALL)
                ) and not (kind is float and math.isfinite(member)):
                    return False
        if not deeper:
            return True
        level = deeper
    return False


@lru_cache(maxsize=4096)
def _harmless_names(names: tuple[Any, ...]) -> bool:
    """Member names of one object, none of which names a secret."""
    return not any(type(name) is not str or len(name) > _NAME_LIMIT or names_a_secret(name) for name in names)


@lru_cache(maxsize=4096)
def _announcing_names(names: tuple[Any, ...]) -> bool:
    """Member names among which one could say that its neighbour's value is a secret."""
    return not _NAMING_MEMBERS_SET.isdisjoint(names)


def redact_text(text: str, *, scrub: Scrub, limit: int) -> str:
    """One line of caller text for a column: redacted, inert, cut at ``limit`` characters with a note."""
    return _cut(inert(_hide(text, scrub, limit)[0]), limit, text)


def is_plain(lines: str, *, scrub: Scrub) -> bool:
    """True if nothing in these lines has to be hidden or escaped. In doubt false.

    A line feed between two texts parts them: a shape that would reach across it only causes doubt.
    """
    bare = lines.replace("\n", "")
    return inert(bare) == bare and scrub(lines) == lines and not finds_shape(lines)


def _hide(text: str, scrub: Scrub, limit: int) -> tuple[str, int]:
    """Redact the beginning of ``text``; what lies far beyond ``limit`` is neither seen nor kept."""
    window = encodable(text[: limit + _LOOKAHEAD])
    scrubbed = encodable(scrub(window))
    hidden, hits = hide_shapes(scrubbed)
    return hidden, hits + (scrubbed != window)


def _cut(text: str, limit: int, original: str) -> str:
    if len(text) <= limit and len(original) <= limit + _LOOKAHEAD:
        return text
    return f"{text[:limit]}... [cut: {len(original)} characters in all]"


class _Document:
    """Writes JSON piece by piece, so that its size is known while it grows and no limit is overrun."""

    def __init__(self, scrub: Scrub) -> None:
        self.pieces: list[str] = []
        self.hits = 0
        self._scrub = scrub
        self._left = JSON_LIMIT - _RESERVE

    def mapping(self, members: Mapping[Any, Any], depth: int) -> None:
        named = _named_secret(members)
        used: set[str] = set()
        self._put("{")
        for index, (raw, value) in enumerate(members.items()):
            if index:
                self._put(",")
            if self._left <= 0:
                self._put(self._name("[cut]", used))
                self._put(f':"{len(members) - index} more members"')
                break
            name = raw if isinstance(raw, str) else str(type(raw).__name__)
            self._put(self._name(name, used))
            self._put(":")
            if names_a_secret(name) or (named and name.casefold() in _VALUE_MEMBERS):
                self._redacted()
            else:
                self.value(value, depth + 1)
        self._put("}")

    def sequence(self, items: Sequence[Any], depth: int) -> None:
        self._put("[")
        for index, value in enumerate(items):
            if index:
                self._put(",")
            if self._left <= 0:
                self._put(f'"[cut: {len(items) - index} more items]"')
                break
            if index and _announces_secret(items[index - 1], len(items)):
                self._redacted()
            else:
                self.value(value, depth + 1)
        self._put("]")

    def value(self, value: Any, depth: int) -> None:
        if value is None or isinstance(value, bool):
            self._put({None: "null", True: "true", False: "false"}[value])
        elif isinstance(value, str):
            self._string(value)
        elif isinstance(value, (int, float)):
            self._number(value)
        elif depth > DEPTH_LIMIT:
            self._put(f'"[cut: deeper than {DEPTH_LIMIT} levels]"')
        elif isinstance(value, Mapping):
            self.mapping(value, depth)
        elif isinstance(value, (list, tuple)):
            self.sequence(value, depth)
        else:
            self._put(json.dumps(f"[{type(value).__name__}]"))

    def _string(self, text: str) -> None:
        hidden, hits = _hide(text, self._scrub, STRING_LIMIT)
        self.hits += hits
        kept = hidden.encode()[:STRING_LIMIT].decode("utf-8", "ignore")
        if len(kept) < len(hidden) or len(text) > STRING_LIMIT + _LOOKAHEAD:
            kept += f"... [cut: {len(text)} characters in all]"
        piece = _quote(kept)
        if len(piece.encode()) > self._left:
            piece = f'"[cut: {len(text)} characters]"'
            self._left = 0
        self._put(piece)

    def _name(self, name: str, used: set[str]) -> str:
        """The member's name as JSON; two names that redaction made equal are kept apart."""
        hidden, hits = _hide(name, self._scrub, _NAME_LIMIT)
        self.hits += hits
        kept = _cut(hidden, _NAME_LIMIT, name)
        while kept in used:
            kept += f" ({len(used) + 1})"
        used.add(kept)
        return _quote(kept)

    def _number(self, number: int | float) -> None:
        if isinstance(number, int):
            bits = number.bit_length()
            self._put(str(number) if bits <= _INTEGER_BITS else f'"[number of {bits} bits]"')
        else:
            text = json.dumps(number)
            self._put(text if text not in ("NaN", "Infinity", "-Infinity") else f'"{text}"')

    def _redacted(self) -> None:
        self.hits += 1
        self._put(f'"{REDACTED}"')

    def _put(self, piece: str) -> None:
        self.pieces.append(piece)
        self._left -= len(piece) if piece.isascii() else len(piece.encode())


def _quote(text: str) -> str:
    return inert_json(json.dumps(text, ensure_ascii=False))


def _named_secret(members: Mapping[Any, Any]) -> bool:
    """``{"name": "API_KEY", "value": ...}``: the way environment variables and headers are listed."""
    names = (members.get(member) for member in _NAMING_MEMBERS)
    return any(isinstance(name, str) and len(name) <= _NAME_LIMIT and names_a_secret(name) for name in names)


def _announces_secret(previous: Any, count: int) -> bool:
    """``["--password", ...]`` in a command line, and ``["Authorization", ...]`` in a list of pairs."""
    if not isinstance(previous, str) or len(previous) > _NAME_LIMIT:
        return False
    return (count == 2 or (previous.startswith("-") and "=" not in previous)) and names_a_secret(previous)
