"""What may be stored of what a caller sent: secrets out, sizes bounded, every character storable.

Law 5: a secret goes to one place, and no row is that place. Four nets, one behind the other:
members named like secrets, shapes of well-known credentials, the secrets that are live right now
(``scrub``), and limits on what is kept at all. A cut is made after the redaction, never before it:
half a token would match no shape.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
_PLAIN = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"), allow_nan=False)
_NAMING_MEMBERS = ("name", "key", "header", "field", "variable")
_VALUE_MEMBERS = frozenset({"value", "val", "content", "contents", "default", "values"})


def redact(arguments: Mapping[str, Any], *, scrub: Scrub) -> tuple[str, int]:
    """Serialise the arguments of a call as compact JSON without their secrets.

    Args:
        arguments: as parsed from JSON; anything that JSON cannot carry is replaced by a note.
        scrub: replaces live secrets; called for every string and every member name.

    Returns:
        JSON text, always a valid object and at most JSON_LIMIT bytes, and how many parts were redacted.
    """
    draft = draft_json(arguments)
    if draft is not None and is_clean(draft[1], scrub=scrub):
        return draft[0], 0
    document = _Document(scrub)
    document.mapping(arguments, 0)
    return "".join(document.pieces), document.hits


def draft_json(arguments: Mapping[str, Any]) -> tuple[str, str] | None:
    """The arguments as they are, and the text to look at: stored like this only if that is clean.

    Nearly every call ends so, at a tenth of the cost: one look at all text of the row, instead of one for
    each string. In doubt the answer is None, and the document is written piece by piece.
    """
    members = arguments if type(arguments) is dict else dict(arguments)
    try:
        text = _PLAIN.encode(members)
        if len(text) > JSON_LIMIT // 4 or not _harmless(members, DEPTH_LIMIT // 2):
            return None
    except (TypeError, ValueError, RecursionError):  # no JSON value, or no JSON names
        return None
    if encodable(text) != text or inert_json(text) != text:
        return None
    if "\\" not in text and len(text) <= STRING_LIMIT // 4:
        return text, text
    # Escapes could hide a shape from a look at the JSON text. Joining with NUL cannot: no shape needs a
    # neighbour.
    strings = list(_strings(members))
    if any(len(string) > STRING_LIMIT // 4 for string in strings):
        return None
    return text, "\0".join(strings)


def is_clean(text: str, *, scrub: Scrub) -> bool:
    """True if nothing in this text has to be hidden. In doubt false.

    Where texts were joined by a line feed, a shape that reaches across it only causes doubt.
    """
    return not finds_shape(text) and scrub(text) == text


def _strings(value: Any) -> Iterator[str]:
    """Every string and member name in a JSON value, in order."""
    if type(value) is str:
        yield value
    elif type(value) is dict:
        for name, member in value.items():
            yield name
            yield from _strings(member)
    elif type(value) is list:
        for item in value:
            yield from _strings(item)


def _harmless(members: dict[str, Any], depth: int) -> bool:
    """True if no name in here says that a value is a secret, and all values are plain. In doubt false."""
    names = tuple(members)
    usual = len(names) <= 32 and sum(map(len, names)) <= 1024
    # Callers must not choose how much is remembered.
    announcing = _announcing(names) if usual else _announcing.__wrapped__(names)
    if announcing is None:
        return False
    for name in announcing:
        said = members[name]
        if type(said) is str and (len(said) > _NAME_LIMIT or names_a_secret(said)):
            return False
    return _plain_values(members.values(), depth)


def _plain_values(values: Iterable[Any], depth: int) -> bool:
    for value in values:
        kind = type(value)
        if kind is str or value is None or kind is bool:
            continue
        if kind is dict:
            if depth <= 0 or not _harmless(value, depth - 1):
                return False
        elif kind is list:
            if depth <= 0 or any(_announces_secret(item, len(value)) for item in value):
                return False
            if not _plain_values(value, depth - 1):
                return False
        elif kind is int:
            if not -_SMALL < value < _SMALL:
                return False
        elif kind is not float or not math.isfinite(value):
            return False
    return True


@lru_cache(maxsize=1024)
def _announcing(names: tuple[Any, ...]) -> tuple[str, ...] | None:
    """Of one object's member names those that may say what its value is; None if one names a secret."""
    if any(type(name) is not str or len(name) > _NAME_LIMIT or names_a_secret(name) for name in names):
        return None
    return tuple(name for name in names if name in _NAMING_MEMBERS)


def redact_text(text: str, *, scrub: Scrub, limit: int) -> str:
    """One line of caller text for a column: redacted, inert, cut at ``limit`` characters with a note."""
    return _cut(inert(_hide(text, scrub, limit)[0]), limit, text)


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
