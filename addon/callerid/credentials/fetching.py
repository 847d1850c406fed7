"""Keeping fetched secrets fresh: what is fetched when, one flight per secret. Owned by one thread.

A slot is one secret that is fetched: a credential's own, the access token made of it, or one person's token.
It outlives a reload of the rules as long as its origin (where and how it is fetched) is the same.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from callerid.credentials.flights import Fetch, Flights
from callerid.credentials.sources.base import Fetched, Flight, Unavailable
from callerid.credentials.timetable import Clock, Pace, Timetable

type Place = tuple[str, str]
"""A credential's id, and OWN, MINTED or the key of a person."""

OWN: Final = "\0own"
MINTED: Final = "\0minted"
AT_ONCE: Final = 16
"""Fetches of one credential's persons that may be under way together: each holds a thread."""
MAX_PEOPLE: Final = 500
"""Tokens of persons that one credential has; the oldest makes room."""
OF_ONE: Final = 32
"""Of those, tokens of one person: every token presented makes one, and others need room as well."""


@dataclass(slots=True, eq=False)
class Slot:
    """One fetched secret. ``begin`` gives the fetch with all that it needs, as things stand.

    ``value`` is the newest that came, and ``arrival`` what tells it from the one before; it may be used while
    ``usable`` says so. ``good_until`` is when servers take it no more, None if that is not known.
    ``asked`` is for slots that fetch on demand only: somebody waits, or will come again.
    ``made_of`` is the label of the secret that an access token is to be made of, ``begun_with`` the one that
    the last fetch was begun with.
    """

    place: Place
    origin: tuple[object, ...]
    begin: Callable[[], Fetch]
    pace: Pace
    timeout: float
    table: Timetable
    on_demand: bool = False
    asked: bool = False
    anew: bool = False
    made_of: str = ""
    begun_with: str = ""
    arrival: object = None
    value: Fetched | None = None
    good_until: float | None = None
    fault: Unavailable | None = None
    flight: Flight | None = None
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    def usable(self, now: float) -> bool:
        return self.value is not None and self.table.usable(now, self.pace)

    def coming(self, now: float) -> bool:
        """Whether it is worth waiting: something is under way that may still arrive, or may begin now."""
        if self.table.flying:
            return self.flight is None or not self.flight.over
        return now >= self.table.due

    def told(self) -> None:
        """Whoever waits looks again."""
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


class Fetching:
    """All slots, and the flights for them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.flights = Flights(clock)
        self.slots: dict[Place, Slot] = {}

    def keep(self, wanted: Mapping[Place, Slot], lasting: Callable[[Slot], bool]) -> None:
        """Exactly these slots from now on: those with the same origin as they are, with their new pace.

        ``lasting`` says of a slot that is not wanted (a person's) whether it stays.
        """
        kept: dict[Place, Slot] = {}
        for place, slot in wanted.items():
            known = self.slots.get(place)
            if known is not None and known.origin == slot.origin:
                known.pace, known.timeout, known.begin = slot.pace, slot.timeout, slot.begin
                kept[place] = known
            else:
                kept[place] = slot
        kept |= {place: slot for place, slot in self.slots.items() if place not in kept and lasting(slot)}
        for place, slot in self.slots.items():
            if kept.get(place) is not slot:
                self._leave(slot)
        self.slots = kept

    def collect(self) -> None:
        """Give up what is late and take what came. Never blocks."""
        now = self.clock.steady()
        for flight in self.flights.overdue():
            slot = self._of(flight)
            if slot is not None:
                slot.table = slot.table.failed(now, self.clock.chance(), hangs=True)
                slot.fault = Unavailable(
                    slot.place[0],
                    f"it was not to be had within {slot.timeout:g} s",
                    "Look at its source; raise `timeout` if it needs longer.",
                )
                slot.told()
        for landed in self.flights.collect():
            slot = self._of(landed.flight)
            if slot is not None:
                self._take(slot, landed.result, late=landed.late, now=now)

    def begin_due(self) -> None:
        """Start what is due. Never blocks. Of one credential's persons, so many at once and no more."""
        now = self.clock.steady()
        busy = Counter(slot.place[0] for slot in self.slots.values() if slot.on_demand and slot.table.flying)
        for slot in self.slots.values():
            if not slot.table.wants(now) or (slot.on_demand and not slot.asked):
                continue
            if slot.on_demand:
                if busy[slot.place[0]] >= AT_ONCE:
                    continue
                busy[slot.place[0]] += 1
            self._begin(slot)

    def _begin(self, slot: Slot) -> None:
        slot.table, slot.asked, slot.begun_with = slot.table.begun(), False, slot.made_of
        fetch = slot.begin()
        slot.flight = self.flights.start(slot.place[0], fetch, slot.timeout, anew=slot.anew)

    def _take(self, slot: Slot, result: Fetched | Unavailable, *, late: bool, now: float) -> None:
        slot.flight = None
        if late:
            slot.table = slot.table.landed()
            return
        life = None
        if isinstance(result, Fetched) and result.expires_at is not None:
            life = result.expires_at - self.clock.wall()
            if life <= 0:
                result = Unavailable(slot.place[0], "it had expired when it came", "Check the clocks.")
        if isinstance(result, Unavailable):
            slot.table = slot.table.failed(now, self.clock.chance())
            slot.fault = result
        else:
            slot.table = slot.table.succeeded(now, life, slot.pace, self.clock.chance())
            slot.value, slot.fault, slot.anew = result, None, False
            ends = result.good_until if result.good_until is not None else result.expires_at
            slot.good_until = now + ends - self.clock.wall() if ends is not None else None
            slot.arrival = object()
            if slot.begun_with != slot.made_of:  # its secret was exchanged while it was under way
                slot.table, slot.anew = replace(slot.table, due=now), True
        slot.told()

    def doubt(self, slot: Slot) -> None:
        """A server refused its value: fetch another one soon."""
        now = self.clock.steady()
        before, slot.table = slot.table, slot.table.doubted(now)
        if slot.table is not before:
            slot.anew = True

    def hurry(self, slot: Slot, made_of: str) -> None:
        """What its token is made of has changed: fetch at the next turn, whatever was before."""
        if slot.made_of and slot.made_of != made_of:
            slot.table = replace(slot.table, due=self.clock.steady())
            slot.anew = True
        slot.made_of = made_of

    def drop(self, places: Iterable[Place]) -> None:
        """Forget these slots."""
        for place in tuple(places):
            slot = self.slots.pop(place, None)
            if slot is not None:
                self._leave(slot)

    def _leave(self, slot: Slot) -> None:
        if slot.flight is not None:
            slot.flight.expire()
        slot.told()

    def _of(self, flight: Flight) -> Slot | None:
        return next((slot for slot in self.slots.values() if slot.flight is flight), None)
