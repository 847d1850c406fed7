"""Names and values as URLs and HTML forms write them: one reading, and its canonical text.

Servers differ about this text: some split it at ``;`` too, some leave ``+`` alone, some take the first of
equal names, some fold case, some make ``a.b`` into ``a_b`` and ``a[]`` into a list under ``a``. What has two
readings is refused, and what has one is written anew so that all of them find it (WHATWG URL Standard,
application/x-www-form-urlencoded; RFC 3986 section 3.4).
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from urllib.parse import quote

from callerid.mcp.strictjson import fold
from callerid.model import Reason

MAX_PAIRS = 10_000

_SAFE = "/:@,$!*()"
"""What stays plain in a query besides letters, digits and ``-._~``: it ends nothing for any reader."""
_HEX = frozenset(string.hexdigits.encode())

type Pairs = tuple[tuple[str, str | None], ...]
"""Names with their values, in order. None: without a ``=``, which some servers tell from an empty value."""


class FormError(Exception):
    """Why the text has no or more than one reading. ``detail`` continues a sentence about the text."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def read_pairs(text: str) -> Pairs:
    """Read a query or the body of a form.

    Raises:
        FormError: see there; nothing else is raised.
    """
    if not text:
        return ()
    if text.count("&") >= MAX_PAIRS:
        raise FormError(Reason.TOO_LARGE, f"has more than {MAX_PAIRS} parameters")
    pairs = []
    for piece in text.split("&"):
        if piece:
            name, mark, value = piece.partition("=")
            pairs.append((_decode(name), _decode(value) if mark else None))
    _refuse_twins({name for name, _ in pairs})
    return tuple(pairs)


def values_of(pairs: Pairs) -> dict[str, str | list[str]]:
    """Name to value, or to the list of values where a name is repeated."""
    values: dict[str, str | list[str]] = {}
    for name, value in pairs:
        known = values.get(name)
        if known is None:
            values[name] = value or ""
        elif isinstance(known, list):
            known.append(value or "")
        else:
            values[name] = [known, value or ""]
    return values


def write_pairs(pairs: Pairs, *, form: bool = False) -> str:
    """The canonical text: ASCII, and without a character that some server would split or decode otherwise.

    A space is ``%20`` in a query, where some servers leave ``+`` alone, and ``+`` in a form, as all do it.
    """
    pieces = []
    for name, value in pairs:
        piece = _encode(name, form)
        pieces.append(piece if value is None else f"{piece}={_encode(value, form)}")
    return "&".join(pieces)


def twin(name: str) -> str:
    """The form in which two names are one for some server: without case, dots and blanks (PHP, ASP.NET)."""
    return fold(name.strip()).replace(".", "_").replace(" ", "_")


def base(name: str) -> str:
    """What a name with brackets is a part of: ``ids`` of ``ids[]`` and of ``ids[0][x]``."""
    return twin(name.partition("[")[0])


def _refuse_twins(names: set[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if seen.setdefault(twin(name), name) != name:
            raise FormError(Reason.DUPLICATE_KEY, f"has the parameter {name[:64]!r} in two spellings")
    plain = {twin(name) for name in names if "[" not in name}
    for name in names:
        if "[" in name and base(name) in plain:
            raise FormError(
                Reason.DUPLICATE_KEY, f"has {name[:64]!r} beside a parameter of its name without brackets"
            )


def _decode(text: str) -> str:
    """``+`` is a space, and percent-escapes are UTF-8; each of them must be whole."""
    raw = text.replace("+", " ").encode("utf-8", "surrogateescape")
    if b"%" in raw:
        first, *rest = raw.split(b"%")
        parts = [first]
        for part in rest:
            digits = part[:2]
            if len(digits) != 2 or not _HEX.issuperset(digits):
                raise FormError(Reason.MALFORMED_HTTP, "has a percent sign without two hexadecimal digits")
            parts.append(bytes((int(digits, 16),)) + part[2:])
        raw = b"".join(parts)
    if b"\0" in raw:
        raise FormError(Reason.MALFORMED_HTTP, "holds a zero character")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise FormError(Reason.NOT_UTF8, "is not UTF-8") from None


def _encode(text: str, form: bool) -> str:
    if form:
        return quote(text, safe="* ").replace(" ", "+")
    return quote(text, safe=_SAFE)


def named(names: Iterable[str], wanted: frozenset[str]) -> bool:
    """Whether some server would find one of ``wanted`` (in the form of ``twin``) among these names."""
    return any(base(name) in wanted for name in names)
