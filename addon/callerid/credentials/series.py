"""The versions of one secret: the newest is used, those before it are still looked for in answers.

A caller can have a server refuse a token, and so a new one made: how many there are says nothing of how long
one is good. What is kept goes by time, by its own end and by what was sent with it and is not answered yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from callerid.credentials.secret import PemSecret, Secret

KEPT_VERSIONS: Final = 256
"""Versions of one secret that are scrubbed; more only of tokens that are still good, or under way."""
KEPT_FOR: Final = 24 * 3600.0
"""Seconds for which a version is scrubbed after another has come in its place."""
LEEWAY: Final = 300.0
"""Seconds that a token is scrubbed beyond its end: clocks differ, and some servers are generous."""

type InUse = Callable[[], frozenset[str]]
"""The labels of the secrets that went with what is not answered yet. Asked only where one would go."""


def unused() -> frozenset[str]:
    """Nothing is under way."""
    return frozenset()


@dataclass(frozen=True, slots=True)
class Kept:
    """One version with the forms in which it could come back; ``until`` is None for the newest.

    ``ends`` is when it is good no more, None if that is not known. Both in steady seconds.
    """

    secret: Secret | PemSecret
    needles: tuple[bytes, ...] = field(repr=False)
    until: float | None = None
    ends: float | None = None

    def retired(self, now: float) -> Kept:
        """Another has come in its place, or it is used no more."""
        if self.until is not None:
            return self
        until = now + KEPT_FOR
        return replace(self, until=until if self.ends is None else max(until, self.ends + LEEWAY))

    def is_good(self, now: float) -> bool:
        """Whether a server that saw it could still be served with it, as far as is known."""
        return self.ends is not None and now < self.ends + LEEWAY


def bounded(kept: Sequence[Kept], most: int, now: float, in_use: InUse) -> tuple[Kept, ...]:
    """At most so many, but those that are still good or under way stay. Oldest first; the newest stays."""
    excess = len(kept) - most
    if excess <= 0:
        return tuple(kept)
    under_way = in_use()
    spare = [
        number
        for number, one in enumerate(kept)
        if one.until is not None and not one.is_good(now) and one.secret.label not in under_way
    ]
    gone = frozenset(spare[:excess])
    return tuple(one for number, one in enumerate(kept) if number not in gone)


def current(kept: Sequence[Kept], now: float, in_use: InUse) -> tuple[Kept, ...]:
    """Without those whose time is over, and that nobody can have in hand any more."""
    over = [one for one in kept if one.until is not None and now >= one.until]
    if not over:
        return tuple(kept)
    under_way = in_use()
    gone = frozenset(id(one) for one in over if one.secret.label not in under_way)
    return tuple(one for one in kept if id(one) not in gone)


@dataclass(frozen=True, slots=True)
class Series:
    """``name`` is ``ID``, so that versions are labelled ``ID@v1`` and so on. Newest of ``kept`` last."""

    name: str
    version: int = 0
    kept: tuple[Kept, ...] = ()

    @property
    def newest(self) -> Secret | PemSecret | None:
        return self.kept[-1].secret if self.kept else None

    def next_label(self) -> str:
        return f"{self.name}@v{self.version + 1}"

    def added(
        self,
        secret: Secret | PemSecret,
        needles: Callable[[Secret | PemSecret], tuple[bytes, ...]],
        now: float,
        ends: float | None = None,
        in_use: InUse = unused,
    ) -> Series:
        """With one more version; the same value again is no new one. ``now`` and ``ends`` are steady."""
        if self.newest == secret:
            *before, last = self.kept
            # Taken out of the rules and back: in use again, it must not be forgotten on its old date.
            again = replace(last, until=None, ends=ends)
            return self if last == again else replace(self, kept=(*before, again))
        kept = (*(one.retired(now) for one in self.kept), Kept(secret, needles(secret), ends=ends))
        return replace(self, version=self.version + 1, kept=bounded(kept, KEPT_VERSIONS, now, in_use))

    def is_crowded(self, now: float) -> bool:
        """Half of the versions that may be kept are tokens still good: no more are made before their time."""
        return sum(one.is_good(now) for one in self.kept) >= KEPT_VERSIONS // 2

    def pruned(self, now: float, in_use: InUse = unused) -> Series:
        """Without the versions that nobody can have in hand any more."""
        kept = current(self.kept, now, in_use)
        return self if len(kept) == len(self.kept) else replace(self, kept=kept)

    def ended(self, now: float) -> Series:
        """Its newest version is used no more."""
        kept = tuple(one.retired(now) for one in self.kept)
        return self if kept == self.kept else replace(self, kept=kept)

    def respelled(self, needles: Callable[[Secret | PemSecret], tuple[bytes, ...]]) -> Series:
        """With the forms in which its versions could come back as they are used now, besides those before."""
        found = (frozenset(needles(kept.secret)).union(kept.needles) for kept in self.kept)
        spelled = (tuple(sorted(forms, key=lambda form: (-len(form), form))) for forms in found)
        return replace(
            self, kept=tuple(replace(kept, needles=new) for kept, new in zip(self.kept, spelled, strict=True))
        )

    def needles(self) -> Iterator[bytes]:
        for kept in self.kept:
            yield from kept.needles
