"""A set of needles, compiled once: where the next of them lies in bytes, and where one could begin.

One google-re2 alternation finds where a needle may begin (its first eight bytes); a look into the sorted
needles then decides. So the cost follows the data, not the number or the length of the secrets, even where
thousands begin alike as JSON Web Tokens do, and whole secrets do not enter re2's module-wide pattern cache.
"""

from __future__ import annotations

import string
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable
from typing import Any, Final, Never, NoReturn

import re2  # type: ignore[import-untyped]

from callerid.credentials.loose import Loose
from callerid.credentials.secret import MIN_LENGTH
from callerid.errors import ConfigError

MARKER: Final = b"[callerid:removed]"
_BEGINNINGS: Final = tuple(MARKER[:n] for n in range(1, len(MARKER) + 1))
_ENDINGS: Final = tuple(MARKER[-n:] for n in range(1, len(MARKER) + 1))
_HEAD: Final = 8
_HEX: Final = frozenset(string.hexdigits.encode())
_NUMBER: Final = frozenset(b"0123456789")
_MEMORY_PER_BYTE: Final = 512

type Span = tuple[int, int]
"""Where a needle begins and where it has ended."""


class Needles:
    """Immutable, at least one. They match byte for byte, but for the case of hexadecimal digits and escapes,
    and loosely: in whatever escapes, and wrapped (``loose``).

    Raises:
        ConfigError: a needle is not ASCII, or shorter than a secret may be.
    """

    __slots__ = ("_exact", "_heads", "_loose", "_lowered", "_outer", "_shorts", "edged", "longest", "numeric")

    def __init__(self, needles: Collection[bytes]) -> None:
        if any(len(needle) < MIN_LENGTH or not needle.isascii() for needle in needles):
            raise ConfigError(
                f"a secret cannot be scrubbed: its forms must be ASCII, {MIN_LENGTH} characters or more",
                hint="Use a longer secret, in printable ASCII.",
            )
        exact: dict[bytes, tuple[bytes, ...]] = {}
        for needle in set(needles):
            lowered = needle.lower()
            exact[lowered] = (*exact.get(lowered, ()), needle)
        self._exact = exact
        self._lowered = sorted(exact)
        self._outer = _outer(self._lowered)
        self._loose = Loose(needles)
        self.longest = max(*map(len, exact), self._loose.longest)
        self.numeric = any(_NUMBER.issuperset(needle) for needle in exact)
        self.edged = any(map(_touches_marker, (*exact, *self._loose.edges)))
        heads = {needle[:_HEAD] for needle in exact}
        self._shorts = frozenset(head[:n] for head in heads for n in range(1, _HEAD))
        self._heads = _compiled(heads, self._loose.heads())

    def without(self, needles: Iterable[bytes]) -> Needles:
        """Itself, but these are not found any more. As cheap as they are few; the others stay compiled."""
        gone, exact = frozenset(needles), dict(self._exact)
        for needle in gone:
            lowered = needle.lower()
            exact[lowered] = tuple(one for one in exact.get(lowered, ()) if one != needle)
        less = object.__new__(Needles)
        for name in Needles.__slots__:
            setattr(less, name, getattr(self, name))
        less._exact = exact
        less._loose = self._loose.without(gone)
        left = (lowered for lowered, needles in exact.items() if needles)
        less.edged = self.edged and any(map(_touches_marker, (*left, *less._loose.edges)))
        return less

    def find(self, data: bytes, start: int) -> Span | None:
        """The leftmost of the needles that lie at or after ``start``; of two at one place, the longest."""
        while (hit := self._heads.search(data, start)) is not None:
            begin: int = hit.start()
            end = max(self._end(data, begin) or 0, self._loose.end(data, begin) or 0)
            if end:
                return begin, end
            start = begin + 1
        return None

    def _end(self, data: bytes, begin: int) -> int | None:
        """Where the longest needle that begins here has ended."""
        rest = data[begin : begin + self.longest].lower()
        at = bisect_right(self._lowered, rest) - 1
        # Whatever begins ``rest`` also begins its neighbour: what sorts between the two begins like both.
        while at >= 0:
            lowered = self._lowered[at]
            if rest.startswith(lowered):
                end = begin + len(lowered)
                for needle in self._exact[lowered]:
                    if data.startswith(needle, begin) or _alike(needle, data[begin:end]):
                        return end
            at = self._outer[at]
        return None

    def undecided(self, data: bytes, start: int) -> int:
        """The first place at or after ``start`` from which the rest of ``data`` could begin a needle.

        Never too late; too early only where the rest differs from a needle in case, or begins one that
        was taken out.
        """
        size = len(data)
        at = max(start, size - self.longest + 1)
        while (hit := self._heads.search(data, at)) is not None:
            begin: int = hit.start()
            if self._could_begin(data, begin):
                size = begin
                break
            at = begin + 1
        # At the end a beginning may be too short to be recognised as one.
        for begin in range(max(start, len(data) - _HEAD + 1), size):
            if data[begin:].lower() in self._shorts:
                size = begin
                break
        return min(size, self._loose.pending_end(data, start))

    def _could_begin(self, data: bytes, begin: int) -> bool:
        return self._begins_needle(data[begin:].lower()) or self._loose.pending(data, begin)

    def _begins_needle(self, rest: bytes) -> bool:
        at = bisect_left(self._lowered, rest)
        if at < len(self._lowered) and self._lowered[at] == rest:
            at += 1
        return at < len(self._lowered) and self._lowered[at].startswith(rest)

    def __len__(self) -> int:
        return sum(map(len, self._exact.values()))

    def __repr__(self) -> str:
        return f"<{len(self)} needles>"

    def __getstate__(self) -> Never:
        raise TypeError("Needles cannot be serialised")

    def __reduce_ex__(self, protocol: object) -> Never:
        raise TypeError("Needles cannot be serialised")


def _outer(ordered: list[bytes]) -> list[int]:
    """For each of the sorted: the place of the longest other one that it begins with, or -1."""
    found: list[int] = []
    for place, needle in enumerate(ordered):
        at = place - 1
        while at >= 0 and not needle.startswith(ordered[at]):
            at = found[at]
        found.append(at)
    return found


def _touches_marker(needle: bytes) -> bool:
    """Whether a marker could complete it: they share an edge, or one holds the other."""
    return needle.startswith(_ENDINGS) or needle.endswith(_BEGINNINGS) or MARKER in needle or needle in MARKER


def _alike(needle: bytes, found: bytes) -> bool:
    """Equal but for the case of hexadecimal digits, where the needle is made of them or escapes with them."""
    if len(needle) != len(found):
        return False
    if _HEX.issuperset(needle):
        return needle.lower() == found.lower()
    return b"%" in needle and _lower_escapes(needle) == _lower_escapes(found)


def _lower_escapes(data: bytes) -> bytes:
    first, *rest = data.split(b"%")
    return b"%".join([first, *(part[:2].lower() + part[2:] for part in rest)])


def _compiled(heads: Collection[bytes], loosely: bytes) -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.case_sensitive = False
    options.never_capture = True
    options.log_errors = False
    options.max_mem += _MEMORY_PER_BYTE * (sum(map(len, heads)) + len(loosely))
    try:
        if loosely:
            found = re2.compile(loosely, options)
            heads = [head for head in heads if found.match(head) is None]
        pattern = b"|".join([re2.escape(head) for head in sorted(heads)] + [loosely] * bool(loosely))
        return re2.compile(pattern, options)
    except re2.error:
        pass
    return _refuse()


def _refuse() -> NoReturn:
    # Outside of the handler: re2's error, which quotes the pattern, must not hang on ours as its context.
    raise ConfigError(
        "the secrets cannot be compiled into a search pattern", hint="Use fewer or shorter secrets."
    )
