"""Fetches under way: each in a thread of its own that nobody waits for, bounded from outside.

The threads are daemons: a source that hangs holds its one thread, not the loop and not the end of the
process. What a fetch gave is collected by the owner of this object, in one thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from callerid.credentials.sources.base import Fetched, Flight, Unavailable
from callerid.credentials.timetable import Clock

type Fetch = Callable[[Flight], Fetched | Unavailable]


@dataclass(frozen=True, slots=True)
class Landed:
    """What one flight gave. ``late``: it had been given up before."""

    flight: Flight
    result: Fetched | Unavailable
    late: bool


class Flights:
    """Starts fetches, ends those that take too long, and holds what came until it is collected.

    ``wake`` is called from a fetch's thread when there is something to collect.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.wake: Callable[[], None] | None = None
        self._landed: deque[Landed] = deque()
        self._flying: set[Flight] = set()
        self._arrival = threading.Condition()

    def start(self, name: str, fetch: Fetch, timeout: float, *, anew: bool = False) -> Flight:
        """Begin a fetch; ``name`` is the credential's id, for the thread and for what it says of faults."""
        flight = Flight(timeout, self.clock.steady, self.clock.wall(), anew=anew)
        with self._arrival:
            self._flying.add(flight)
        thread = threading.Thread(
            target=self._fly, args=(name, fetch, flight), name=f"callerid-{name}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads
            self._land(flight, Unavailable(name, "no thread could be started to fetch it"))
        return flight

    def _fly(self, name: str, fetch: Fetch, flight: Flight) -> None:
        try:
            result = fetch(flight)
        except Exception as error:  # whatever it says may hold the secret
            result = Unavailable(name, f"fetching it failed: {type(error).__name__}")
        flight.landed()
        self._land(flight, result)

    def _land(self, flight: Flight, result: Fetched | Unavailable) -> None:
        with self._arrival:
            self._flying.discard(flight)
            self._landed.append(Landed(flight, result, flight.over))
            self._arrival.notify_all()
        wake = self.wake
        if wake is not None:
            try:
                wake()
            except RuntimeError:  # the loop is closed
                return

    def collect(self) -> tuple[Landed, ...]:
        """What has landed since the last time."""
        with self._arrival:
            landed = tuple(self._landed)
            self._landed.clear()
        return landed

    def overdue(self) -> tuple[Flight, ...]:
        """Give up the flights whose time is up; each is named once. Their threads may take a while to end."""
        with self._arrival:
            late = tuple(flight for flight in self._flying if not flight.over and flight.late())
        for flight in late:
            flight.expire()
        return late

    def settle(self, seconds: float) -> None:
        """Wait until nothing is under way, but no longer than that. Blocks; for the start alone."""
        with self._arrival:
            self._arrival.wait_for(lambda: not self._flying, seconds)

    def close(self) -> None:
        """Give up all that is under way, without waiting for it."""
        self.wake = None
        with self._arrival:
            flying = tuple(self._flying)
        for flight in flying:
            flight.expire()
