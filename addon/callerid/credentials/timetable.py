"""When a secret is fetched next, and whether the one in hand may still be used. Pure: time is an argument.

One flight at a time. A good value is renewed at ``refresh`` or at 80 % of its life, whichever is sooner, a
little early and never together with others. A failure is tried again after 1, 2, 4 ... seconds, at most a
minute, scattered. The last good value outlives failing sources by ``stale_for``, and never its own life.
Times are seconds of a clock that never jumps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

FIRST_RETRY: Final = 1.0
LAST_RETRY: Final = 60.0
SOONEST: Final = 1.0
"""Seconds between two fetches of a source that works, however short the lives it gives."""
DOUBT_EVERY: Final = 30.0
"""Seconds between two early fetches because a server refused what we had."""
_LIFE: Final = 0.8
_JITTER: Final = 0.1


@dataclass(frozen=True, slots=True)
class Clock:
    """What the time is, and chance in [0, 1). ``steady`` never jumps, ``wall`` is since the epoch, UTC."""

    steady: Callable[[], float]
    wall: Callable[[], float]
    chance: Callable[[], float]


def _still() -> float:
    return 0.0


STILL: Final = Clock(_still, _still, _still)
"""A clock that stands: for secrets that are read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a secret is kept fresh, in seconds. ``by_life``: its life decides alone, where it has one."""

    refresh: float
    stale_for: float
    by_life: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """What is known of the fetches of one secret. A new one is due at once."""

    due: float
    flying: bool = False
    good: bool = False
    ill_since: float | None = None
    ends: float | None = None
    failures: int = 0
    doubted_at: float | None = None

    def wants(self, now: float) -> bool:
        """Whether a fetch is to begin. Never while one is under way, however long that hangs."""
        return not self.flying and now >= self.due

    def begun(self) -> Timetable:
        """A fetch is under way."""
        return replace(self, flying=True)

    def succeeded(self, now: float, life: float | None, pace: Pace, chance: float) -> Timetable:
        """A value came, which lives for ``life`` more seconds; None: no end is known."""
        span = pace.refresh
        if life is not None:
            span = _LIFE * life if pace.by_life else min(span, _LIFE * life)
        span = max(SOONEST, span * (1 - _JITTER * chance))
        ends = None if life is None else now + life
        return replace(self, due=now + span, flying=False, good=True, ill_since=None, ends=ends, failures=0)

    def failed(self, now: float, chance: float, *, hangs: bool = False) -> Timetable:
        """Nothing came. ``hangs``: the fetch that is out of time has not ended, so none may begin."""
        failures = self.failures + 1
        pause = min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(failures - 1, 16)) * (0.5 + 0.5 * chance)
        ill_since = now if self.ill_since is None else self.ill_since
        return replace(self, due=now + pause, flying=hangs, failures=failures, ill_since=ill_since)

    def landed(self) -> Timetable:
        """A fetch that was given up has ended at last."""
        return replace(self, flying=False)

    def usable(self, now: float, pace: Pace) -> bool:
        """Whether the last good value may still be handed out."""
        if not self.good or (self.ends is not None and now >= self.ends):
            return False
        return self.ill_since is None or now - self.ill_since < pace.stale_for

    def doubted(self, now: float) -> Timetable:
        """A server refused the value: fetch at the next turn, unless that was asked for a moment ago.

        A source that fails is not asked sooner for it.
        """
        if self.failures or (self.doubted_at is not None and now - self.doubted_at < DOUBT_EVERY):
            return self
        return replace(self, due=min(self.due, now), doubted_at=now)
