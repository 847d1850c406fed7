"""Whose it is: sessions, tasks, request states and events that a server made (law 9).

With a shared credential all callers are one to the server. Here a handle belongs to the principal that
the server first gave it to; for everybody else it does not exist.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from callerid.model import Message

LIMIT = 100_000
"""Handles remembered at once, and events as many; the one that was used longest ago is forgotten first."""


class Sort(StrEnum):
    """What a handle stands for. One text may be a session and a task: they are told apart."""

    SESSION = "session"
    TASK = "task"
    STATE = "state"


def handle(sort: Sort, text: str) -> str:
    """A digest by which a handle is known: the text itself works like a secret."""
    named = text if sort is Sort.SESSION else f"{sort.value}\0{text}"
    return hashlib.sha256(named.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def state_handle(subject: str, message: Message, text: str) -> str:
    """The digest of a requestState: of this principal, for this call.

    Servers may give the same state to many, so it is not known by its text alone.
    """
    return handle(Sort.STATE, "\0".join((subject, message.method, message.name or "", text)))


def endpoint_handle(subject: str, path: str) -> str:
    """The digest of a 2024-11-05 message URL. One without a query may be the same for everybody."""
    return handle(Sort.SESSION, path if "?" in path else f"{subject}\0{path}")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose handle it is, and the message in whose answer the server made it.

    ``recalled``: read back from the audit, which holds no arguments that could be judged again.
    """

    subject: str
    message: Message | None = None
    recalled: bool = False


type Recall = Callable[[str, str], Owner | None]
"""What the audit says of (server id, handle)."""


class Handles:
    """Owners by (server id, handle). In memory and, for those made before a restart, in the audit."""

    def __init__(self, recall: Recall = lambda server, known_as: None, *, limit: int = LIMIT) -> None:
        self._recall = recall
        self._limit = limit
        self._owners: OrderedDict[tuple[str, str], Owner] = OrderedDict()
        self._events: OrderedDict[tuple[str, str, str, bytes], None] = OrderedDict()

    def owner(self, server: str, known_as: str) -> Owner | None:
        """Who owns the handle at this server, None if nobody is known to."""
        key = (server, known_as)
        found = self._owners.get(key)
        if found is not None:
            self._owners.move_to_end(key)
            return found
        found = self._recall(server, known_as)
        if found is not None:
            self.claim(server, known_as, found)
        return found

    def claim(self, server: str, known_as: str, owner: Owner) -> None:
        """The handle is ``owner``'s from now on, unless it is somebody's already."""
        self._owners.setdefault((server, known_as), owner)
        while len(self._owners) > self._limit:
            self._owners.popitem(last=False)

    def saw_event(self, server: str, session: str, subject: str, event: str) -> None:
        """This event id was sent to ``subject`` in this session."""
        self._events[server, session, subject, _short(event)] = None
        while len(self._events) > self._limit:
            self._events.popitem(last=False)

    def was_sent(self, server: str, session: str, subject: str, event: str) -> bool:
        """Whether it was. Ids of servers that count from 1 collide: hence per session and subject."""
        return (server, session, subject, _short(event)) in self._events


def _short(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()
