"""How many requests each principal has under way. Pure bookkeeping: a place is taken, and given back once.

A place is kept under the exchange that takes it, weakly: should nobody give it back, it is free again when
the exchange itself is gone.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from enum import Enum, auto

from callerid.model import Kind, Message, MessageType
from callerid.proxy.limits import Limits


class Sort(Enum):
    """Requests wait for an answer; streams stay open to listen, and are counted apart."""

    REQUEST = auto()
    STREAM = auto()


def weigh(messages: Sequence[Message]) -> tuple[Sort, int]:
    """What an exchange with these messages takes: of which sort, and how many places.

    Notifications, a client's answers and DELETE take none: whoever has no place left must still be able
    to cancel, to answer what a server asked, and to end a session.
    """
    # A call to an HTTP API waits for its answer as a request does, whatever its method.
    requests = [m for m in messages if m.type is MessageType.REQUEST or m.kind is Kind.HTTP]
    listens = any(message.method in ("http/GET", "subscriptions/listen") for message in messages)
    listens = listens and not any(message.kind is Kind.HTTP for message in messages)
    return (Sort.STREAM, 1) if listens else (Sort.REQUEST, len(requests))


class InFlight:
    """Places taken by subject. ``enter`` and ``leave`` are for one thread, that of the event loop."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, Sort], int] = {}
        self._where: dict[int, tuple[weakref.ref[object], tuple[str, Sort], int]] = {}

    def count(self, subject: str, sort: Sort) -> int:
        """How many places are taken."""
        return self._held.get((subject, sort), 0)

    def flaw(self, subject: str, messages: Sequence[Message], limits: Limits) -> str | None:
        """Why this principal may not have these under way as well; None if it may."""
        sort, weight = weigh(messages)
        if not weight:
            return None
        most = limits.streams if sort is Sort.STREAM else limits.in_flight
        taken = self.count(subject, sort)
        if taken + weight <= most:
            return None
        what = "listening streams" if sort is Sort.STREAM else "requests"
        return f"{taken} {what} are under way, and {most} may be"

    def enter(self, exchange: object, subject: str, messages: Sequence[Message]) -> None:
        """Take the places of an exchange that goes on. An exchange takes them once."""
        sort, weight = weigh(messages)
        number = id(exchange)
        if not weight or number in self._where:
            return
        key = (subject, sort)
        # Called before the number can be another's.
        self._where[number] = (weakref.ref(exchange, lambda _: self._free(number)), key, weight)
        self._held[key] = self._held.get(key, 0) + weight

    def leave(self, exchange: object) -> None:
        """The exchange is over, however it ended. Harmless if it never took a place, or left before."""
        self._free(id(exchange))

    def _free(self, number: int) -> None:
        held = self._where.pop(number, None)
        if held is None:
            return
        _, key, weight = held
        self._held[key] -= weight
        if not self._held[key]:
            del self._held[key]

    def idle(self) -> bool:
        """True if no place is taken."""
        return not self._where
