"""Taking live secrets out of what comes back: bytes, text, parsed JSON, and streams in any split.

One google-re2 alternation finds where a needle may begin (its first eight bytes); plain comparison then
decides. So the cost follows the data, not the number or the length of the secrets, and whole secrets do
not enter re2's module-wide pattern cache.

The scan is leftmost-longest and the marker cannot become part of a needle (``_marker``), so what comes
out holds no needle, and a stream comes out the same however it was split.
"""

from __future__ import annotations

import string
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, Final, Never, NoReturn

import re2  # type: ignore[import-untyped]

from callerid.credentials.secret import MIN_LENGTH
from callerid.errors import ConfigError

MARKER: Final = b"[callerid:removed]"
_SPARE_MARKER: Final = "\u2588\u2588\u2588".encode()
_HEAD: Final = 8
_MAX_DEPTH: Final = 256
_HEX: Final = frozenset(string.hexdigits.encode())
_NUMBER: Final = frozenset(b"0123456789")
_MEMORY_PER_BYTE: Final = 512


class Scrubber:
    """Immutable; made of needles (``Secret.renderings``). Without needles it does nothing, at no cost.

    Needles match byte for byte; the digits of hexadecimal needles and of percent-escapes match in either
    case.

    Raises:
        ConfigError: a needle is not ASCII, or shorter than a secret may be.
    """

    __slots__ = ("_heads", "_index", "_lowered", "_numeric", "_shorts", "longest", "marker")

    def __init__(self, needles: Iterable[bytes]) -> None:
        ordered = sorted(set(needles), key=lambda needle: (-len(needle), needle))
        if any(len(needle) < MIN_LENGTH or not needle.isascii() for needle in ordered):
            raise ConfigError(
                f"a secret cannot be scrubbed: its forms must be ASCII, {MIN_LENGTH} characters or more",
                hint="Use a longer secret, in printable ASCII.",
            )
        self.longest = len(ordered[0]) if ordered else 0
        self.marker = _marker(ordered)
        self._numeric = any(_NUMBER.issuperset(needle) for needle in ordered)
        self._lowered = tuple(sorted({needle.lower() for needle in ordered}))
        self._shorts = frozenset(needle[:n] for needle in self._lowered for n in range(1, _HEAD))
        index: dict[bytes, list[bytes]] = {}
        for needle in ordered:
            index.setdefault(needle[:_HEAD].lower(), []).append(needle)
        self._index = {head: tuple(found) for head, found in index.items()}
        self._heads = _compiled(tuple(self._index)) if ordered else None

    def scrub(self, data: bytes) -> tuple[bytes, int]:
        """``data`` with the marker in the place of each needle, and how many there were.

        Without a hit it is the same object. For a JSON document prefer ``scrub_json``: it also knows
        every escaped form, and cannot cut an escape in two.
        """
        span = self._find(data, 0)
        if span is None:
            return data, 0
        parts: list[bytes] = []
        at = hits = 0
        while span is not None:
            parts += (data[at : span[0]], self.marker)
            at, hits = span[1], hits + 1
            span = self._find(data, at)
        parts.append(data[at:])
        return b"".join(parts), hits

    def scrub_text(self, text: str) -> tuple[str, int]:
        """As ``scrub``, for text; lone surrogates survive."""
        if self._heads is None:
            return text, 0
        data, hits = self.scrub(text.encode("utf-8", "surrogatepass"))
        return (data.decode("utf-8", "surrogatepass"), hits) if hits else (text, 0)

    def scrub_json(self, value: Any) -> tuple[Any, int]:
        """As ``scrub``, for parsed JSON: every string, member name and number, decoded.

        Returns the same object if nothing was found. What lies deeper than 256 levels is replaced as a
        whole: it cannot be vouched for.
        """
        return (value, 0) if self._heads is None else self._json(value, _MAX_DEPTH)

    def holds(self, data: bytes) -> bool:
        """True if a needle is in ``data``."""
        return self._find(data, 0) is not None

    def stream(self) -> StreamScrubber:
        """A scrubber with memory, for one stream."""
        return StreamScrubber(self)

    def _json(self, value: Any, depth: int) -> tuple[Any, int]:
        match value:
            case str():
                return self.scrub_text(value)
            case None | bool():
                return value, 0
            case int() | float():
                spoken = self._numeric and self.holds(repr(value).encode())
                return (self.marker.decode(), 1) if spoken else (value, 0)
            case dict() | list() if depth == 0:
                return self.marker.decode(), 1
            case dict():
                names = [self.scrub_text(name) for name in value]
                members = [self._json(member, depth - 1) for member in value.values()]
                hits = sum(n for _, n in names) + sum(n for _, n in members)
                if not hits:
                    return value, 0
                pairs = zip(names, members, strict=True)
                return {name: member for (name, _), (member, _) in pairs}, hits
            case list():
                items = [self._json(item, depth - 1) for item in value]
                hits = sum(n for _, n in items)
                return ([item for item, _ in items], hits) if hits else (value, 0)
            case _:
                return self.marker.decode(), 1

    def _find(self, data: bytes, start: int) -> tuple[int, int] | None:
        """Where the leftmost of the needles lies at or after ``start``; of two at one place, the longest."""
        if self._heads is None:
            return None
        while (hit := self._heads.search(data, start)) is not None:
            begin: int = hit.start()
            for needle in self._index[data[begin : begin + _HEAD].lower()]:
                end = begin + len(needle)
                if data.startswith(needle, begin) or _alike(needle, data[begin:end]):
                    return begin, end
            start = begin + 1
        return None

    def _undecided(self, data: bytes, start: int) -> int:
        """The first place at or after ``start`` from which the rest of ``data`` could begin a needle.

        Never too late; too early only where the rest differs from a needle in case.
        """
        size = len(data)
        if self._heads is None:
            return size
        at = max(start, size - self.longest + 1)
        while (hit := self._heads.search(data, at)) is not None:
            begin: int = hit.start()
            if self._begins_needle(data[begin:].lower()):
                return begin
            at = begin + 1
        for begin in range(max(start, size - _HEAD + 1), size):
            if data[begin:].lower() in self._shorts:
                return begin
        return size

    def _begins_needle(self, rest: bytes) -> bool:
        at = bisect_left(self._lowered, rest)
        if at < len(self._lowered) and self._lowered[at] == rest:
            at += 1
        return at < len(self._lowered) and self._lowered[at].startswith(rest)

    def __repr__(self) -> str:
        return f"<scrubber of {sum(map(len, self._index.values()))} needles>"

    def __getstate__(self) -> Never:
        raise TypeError("a Scrubber cannot be serialised")

    def __reduce_ex__(self, protocol: object) -> Never:
        raise TypeError("a Scrubber cannot be serialised")


class StreamScrubber:
    """Scrubs a stream: at any split the joined output is what ``Scrubber.scrub`` gives for the joined input.

    Holds back only a tail that could begin a needle, fewer bytes than the longest needle.
    """

    __slots__ = ("_held", "_scrubber", "hits")

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._held = b""
        self.hits = 0

    def feed(self, data: bytes) -> bytes:
        """What may go out now; perhaps nothing (send no chunk then, an empty one ends a stream)."""
        scrubber = self._scrubber
        data = self._held + data
        parts: list[bytes] = []
        at = 0
        undecided = scrubber._undecided(data, at)
        span = scrubber._find(data, at)
        # A needle that begins before the undecided tail can neither grow nor give way to an earlier one.
        while span is not None and span[0] < undecided:
            parts += (data[at : span[0]], scrubber.marker)
            at = span[1]
            self.hits += 1
            if at > undecided:
                undecided = scrubber._undecided(data, at)
            span = scrubber._find(data, at)
        parts.append(data[at:undecided])
        self._held = data[undecided:]
        return b"".join(parts)

    def use(self, scrubber: Scrubber) -> None:
        """Go on with another scrubber: a secret was rotated in the middle. What is held back stays held."""
        self._scrubber = scrubber

    def end(self) -> bytes:
        """The rest, at the end of the stream."""
        data, hits = self._scrubber.scrub(self._held)
        self._held = b""
        self.hits += hits
        return data

    def __repr__(self) -> str:
        return f"<stream scrubber: {self.hits} hits>"

    def __getstate__(self) -> Never:
        raise TypeError("a StreamScrubber cannot be serialised")

    def __reduce_ex__(self, protocol: object) -> Never:
        raise TypeError("a StreamScrubber cannot be serialised")


def _marker(needles: Iterable[bytes]) -> bytes:
    """The marker, or one without ASCII if some needle shares an edge with it.

    Between two honest pieces a marker may not complete a needle: none may begin with its end, end with
    its beginning, hold it or lie in it. Needles are ASCII, so the spare one meets none of them.
    """
    return _SPARE_MARKER if any(_touches(needle.lower()) for needle in needles) else MARKER


def _touches(needle: bytes) -> bool:
    if MARKER in needle or needle in MARKER:
        return True
    sizes = range(1, min(len(needle), len(MARKER)) + 1)
    return any(needle[:n] == MARKER[-n:] or needle[-n:] == MARKER[:n] for n in sizes)


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


def _compiled(heads: tuple[bytes, ...]) -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.case_sensitive = False
    options.never_capture = True
    options.log_errors = False
    options.max_mem += _MEMORY_PER_BYTE * sum(map(len, heads))
    try:
        return re2.compile(b"|".join(re2.escape(head) for head in heads), options)
    except re2.error:
        pass
    return _refuse()


def _refuse() -> NoReturn:
    # Outside of the handler: re2's error, which quotes the pattern, must not hang on ours as its context.
    raise ConfigError(
        "the secrets cannot be compiled into a search pattern", hint="Use fewer or shorter secrets."
    )
