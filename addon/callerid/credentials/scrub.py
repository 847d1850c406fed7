"""Taking live secrets out of what comes back: bytes, text, parsed JSON, and streams in any split.

The scan is leftmost-longest and the marker cannot become part of a needle (``Needles.edged``), so what
comes out holds no needle, and a stream comes out the same however it was split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, Never

from callerid.credentials.needles import MARKER as MARKER
from callerid.credentials.needles import Needles, Span

_SPARE_MARKER: Final = "\u2588\u2588\u2588".encode()
_MAX_DEPTH: Final = 256


class Scrubber:
    """Immutable; made of needles (``Secret.renderings``). Without needles it does nothing, at no cost.

    Raises:
        ConfigError: a needle is not ASCII, or shorter than a secret may be.
    """

    __slots__ = ("_numeric", "_sets", "longest", "marker")

    def __init__(self, needles: Iterable[bytes]) -> None:
        found = frozenset(needles)
        self._over((Needles(found),) if found else ())

    @classmethod
    def over(cls, sets: Iterable[Needles]) -> Scrubber:
        """One that finds what one made of all their needles would. Each set is one more pass over data."""
        made = cls.__new__(cls)
        made._over(tuple(sets))
        return made

    def _over(self, sets: tuple[Needles, ...]) -> None:
        self._sets = sets
        self.longest = max((one.longest for one in sets), default=0)
        self._numeric = any(one.numeric for one in sets)
        # Between two honest pieces no marker may complete a needle. Needles are ASCII: none meets the spare.
        self.marker = _SPARE_MARKER if any(one.edged for one in sets) else MARKER

    def scrub(self, data: bytes) -> tuple[bytes, int]:
        """``data`` with the marker in the place of each needle, and how many there were.

        Without a hit it is the same object. For a JSON document prefer ``scrub_json``: it also knows
        every escaped form, and cannot cut an escape in two.
        """
        parts: list[bytes] = []
        at = hits = 0
        for begin, end in self._spans(data):
            parts += (data[at:begin], self.marker)
            at, hits = end, hits + 1
        if not hits:
            return data, 0
        parts.append(data[at:])
        return b"".join(parts), hits

    def scrub_text(self, text: str) -> tuple[str, int]:
        """As ``scrub``, for text; lone surrogates survive."""
        if not self._sets:
            return text, 0
        data, hits = self.scrub(text.encode("utf-8", "surrogatepass"))
        return (data.decode("utf-8", "surrogatepass"), hits) if hits else (text, 0)

    def scrub_json(self, value: Any) -> tuple[Any, int]:
        """As ``scrub``, for parsed JSON: every string, member name and number, decoded.

        Returns the same object if nothing was found. What lies deeper than 256 levels is replaced as a
        whole: it cannot be vouched for.
        """
        return self._json(value, _MAX_DEPTH) if self._sets else (value, 0)

    def holds(self, data: bytes) -> bool:
        """True if a needle is in ``data``."""
        return any(one.find(data, 0) is not None for one in self._sets)

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

    def _spans(self, data: bytes) -> Iterator[Span]:
        """Where needles lie: the leftmost, of two at one place the longest, and from its end on again."""
        if len(self._sets) == 1:
            (only,) = self._sets
            span = only.find(data, 0)
            while span is not None:
                yield span
                span = only.find(data, span[1])
            return
        # What a set has ahead is kept until it is passed: each set goes over the data once.
        ahead = [(span, one) for one in self._sets if (span := one.find(data, 0)) is not None]
        while ahead:
            first = min((span for span, _ in ahead), key=lambda span: (span[0], -span[1]))
            yield first
            at = first[1]
            moved = ((span if span[0] >= at else one.find(data, at), one) for span, one in ahead)
            ahead = [(span, one) for span, one in moved if span is not None]

    def _undecided(self, data: bytes, start: int) -> int:
        """The first place at or after ``start`` from which the rest of ``data`` could begin a needle."""
        return min((one.undecided(data, start) for one in self._sets), default=len(data))

    def __repr__(self) -> str:
        return f"<scrubber of {sum(map(len, self._sets))} needles>"

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
        for begin, end in scrubber._spans(data):
            # A needle that begins before the undecided tail can neither grow nor give way to an earlier one.
            if begin >= undecided:
                break
            parts += (data[at:begin], scrubber.marker)
            at = end
            self.hits += 1
            if at > undecided:
                undecided = scrubber._undecided(data, at)
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
