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
        self._held: dict[tuple[str, Sort], weakref.WeakKeyDictionary[object, int]] = {}
        self._where: weakref.WeakKeyDictionary[object, tuple[str, Sort]] = weakref.WeakKeyDictionary()

    def count(self, subject: str, sort: Sort) -> int:
        """How many places are taken."""
        held = self._held.get((subject, sort))
        return sum(held.values()) if held else 0

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
        if not weight or exchange in self._where:
            return
        key = (subject, sort)
        self._where[exchange] = key
        self._held.setdefault(key, weakref.WeakKeyDictionary())[exchange] = weight

    def leave(self, exchange: object) -> None:
        """The exchange is over, however it ended. Harmless if it never took a place, or left before."""
        key = self._where.pop(exchange, None)
        held = self._held.get(key) if key is not None else None
        if key is None or held is None:
            return
        held.pop(exchange, None)
        if not held:
            del self._held[key]

    def idle(self) -> bool:
        """True if no place is taken."""
        return not any(len(held) for held in self._held.values())
