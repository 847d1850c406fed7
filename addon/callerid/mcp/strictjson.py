"""Strict JSON: one reading of the bytes or none (DESIGN section 1, law 4; RFC 8259, RFC 7493).

Parsers disagree about duplicate names, byte order marks, UTF-16, NaN and the case of names. Whatever two
readers could read as two different messages is refused here, so that the rest of callerid, and the server
after it, see the same one.

Numbers: what is judged is what is forwarded. An integer stays exact, unless readers of doubles would find an
infinity (from 2**1024 - 2**970 on): that is refused, as 1e309 is. A fraction becomes the nearest IEEE
double, and ``dumps`` writes the shortest text that every reader of doubles takes for that same double. Its
spelling (``1.10``, ``1E2``, twenty digits) is given up on purpose: kept, a server that computes in decimals
would act on a number that no rule has seen.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, NoReturn

from callerid.model import Reason

MAX_DEPTH = 64
MAX_BYTES = 4_194_304
MAX_DIGITS = 4300

_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_BEYOND = 2**1024 - 2**970
_SHORTEST_BEYOND = len(str(_BEYOND))
_INFINITE = (float("inf"), float("-inf"))
_UTF16_MARKS = (b"\xfe\xff", b"\xff\xfe")


class JsonError(Exception):
    """Why the bytes are not one strict JSON text. Internal to this room: callers turn it into a value.

    ``reason`` is MALFORMED_JSON, DUPLICATE_KEY, NOT_UTF8, TOO_DEEP or TOO_LARGE.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def fold(name: str) -> str:
    """The form in which two member names are twins for some reader that ignores case.

    Wider than any one such reader: simple and full folding (long s, Kelvin sign), and the Turkish i's,
    which readers that compare by upper case take for an ``i``.
    """
    if name.isascii():
        return name.lower()
    return name.upper().casefold().replace("\u0307", "")


def loads(
    raw: bytes, *, max_depth: int = MAX_DEPTH, max_bytes: int = MAX_BYTES, max_digits: int = MAX_DIGITS
) -> Any:
    """Read one JSON text: objects as dict, arrays as list, numbers as int or finite float.

    Args:
        raw: the whole text, UTF-8 without a byte order mark.
        max_depth: the deepest nesting of objects and arrays that is read; ``{}`` is 1 deep.
        max_bytes: the longest text that is read.
        max_digits: the longest number that is read, in characters; at most MAX_DIGITS.

    Raises:
        JsonError: the text has no or more than one reading; nothing else is raised.
    """
    if len(raw) > max_bytes:
        raise JsonError(Reason.TOO_LARGE, f"the JSON text is longer than {max_bytes} bytes")
    text = _decode(raw)
    _check_depth(raw, max_depth)
    # A text of max_digits bytes cannot hold a longer number, and need not pay for counting digits.
    decoder = _SHORT if len(raw) <= max_digits else _counting(max_digits)
    try:
        value = decoder.decode(text)
    except json.JSONDecodeError as error:
        raise JsonError(Reason.MALFORMED_JSON, f"{error.msg} at character {error.pos}") from None
    except ValueError:
        raise JsonError(Reason.MALFORMED_JSON, "a number has too many digits") from None
    except RecursionError:
        raise JsonError(Reason.TOO_DEEP, "the JSON text is nested too deep") from None
    if b"\\ud" in raw or b"\\uD" in raw:
        _refuse_surrogates(value)
    return value


def dumps(value: Any) -> bytes:
    """The canonical bytes of what ``loads`` returned: UTF-8, compact, members in their order.

    Raises:
        JsonError: the value has no strict JSON form (a lone surrogate, NaN, a number of too many digits).
    """
    try:
        return _ENCODER.encode(value).encode("utf-8")
    except UnicodeEncodeError:
        raise JsonError(Reason.NOT_UTF8, "a string holds half of a surrogate pair") from None
    except ValueError:
        raise JsonError(Reason.MALFORMED_JSON, "a number has no JSON form") from None


def _decode(raw: bytes) -> str:
    if raw.startswith(b"\xef\xbb\xbf"):
        raise JsonError(Reason.NOT_UTF8, "the JSON text starts with a byte order mark; send it without")
    if raw.startswith(_UTF16_MARKS) or b"\x00" in raw:
        raise JsonError(Reason.NOT_UTF8, "the JSON text is UTF-16 or UTF-32, or holds zero bytes; send UTF-8")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonError(Reason.NOT_UTF8, f"the JSON text is not UTF-8 at byte {error.start}") from None


def _check_depth(raw: bytes, limit: int) -> None:
    """Refuse deep nesting before the parser recurses, at the speed of ``bytes.replace`` where it counts.

    Few brackets cannot nest deep. Otherwise drop the strings, keep only the brackets, and take away the
    innermost pairs a few times: each time everything nests one level less, and ordinary messages are gone.
    What is left over is counted one by one.
    """
    if raw.count(b"[") + raw.count(b"{") <= limit:
        return
    outside = raw.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]
    rest = b"".join(outside).translate(_BRACKETS, _NOT_BRACKETS)
    allowed = limit
    while rest and allowed > max(limit - 8, 0):
        rest = rest.replace(b"[]", b"")
        allowed -= 1
    depth = 0
    for bracket in rest:
        depth += 1 if bracket == 0x5B else -1
        if depth > allowed:
            raise JsonError(Reason.TOO_DEEP, f"the JSON text is nested deeper than {limit}")
        if depth < 0:
            return  # a closing bracket too many: the parser stops here and says so


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without twins among its names. A zero character ends a name for readers written in C."""
    members = dict(pairs)
    if len(members) != len(pairs):
        _refuse_names(pairs)
    names = "".join(members)
    if names.isascii():
        # Names in lower case have no twin that differs in case: the common case, and a cheap question.
        if not names.islower() and len(set(map(str.lower, members))) != len(members):
            _refuse_names(pairs)
    elif len(set(map(fold, members))) != len(members):
        _refuse_names(pairs)
    if "\0" in names:
        _refuse_names(pairs)
    return members


def _refuse_names(pairs: list[tuple[str, Any]]) -> NoReturn:
    seen: dict[str, str] = {}
    for name, _ in pairs:
        if "\0" in name:
            raise JsonError(Reason.MALFORMED_JSON, f"the member name {name[:64]!r} holds a zero character")
        twin = seen.setdefault(fold(name), name)
        if twin != name:
            detail = f"the members {twin[:64]!r} and {name[:64]!r} differ only in case"
            raise JsonError(Reason.DUPLICATE_KEY, detail)
    raise JsonError(Reason.DUPLICATE_KEY, f"the member {_first_repeated(pairs)[:64]!r} appears twice")


def _first_repeated(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    return ""


def _double(digits: str) -> float:
    number = float(digits)
    if number in _INFINITE:
        raise JsonError(Reason.MALFORMED_JSON, "a number is too large for a double")
    return number


def _integer(digits: str) -> int:
    number = int(digits)
    if len(digits) >= _SHORTEST_BEYOND and abs(number) >= _BEYOND:
        raise JsonError(Reason.MALFORMED_JSON, "a number is too large for a double")
    return number


def _constant(name: str) -> NoReturn:
    raise JsonError(Reason.MALFORMED_JSON, f"{name} is not JSON")


def _refuse_surrogates(value: Any) -> None:
    try:
        _ENCODER.encode(value).encode("utf-8")
    except UnicodeEncodeError:
        raise JsonError(Reason.NOT_UTF8, "a string holds half of a surrogate pair") from None


_SHORT = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_double, parse_int=_integer, parse_constant=_constant
)


@lru_cache(maxsize=8)
def _counting(max_digits: int) -> json.JSONDecoder:
    """A decoder that counts the digits of every number."""

    def count(digits: str) -> str:
        if len(digits) > max_digits:
            raise JsonError(Reason.MALFORMED_JSON, f"a number has more than {max_digits} digits")
        return digits

    return json.JSONDecoder(
        object_pairs_hook=_object,
        parse_float=lambda digits: _double(count(digits)),
        parse_int=lambda digits: _integer(count(digits)),
        parse_constant=_constant,
    )


_ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"))
