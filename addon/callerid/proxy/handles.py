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
"""Handles remembered at once; the one used longest ago is forgotten first, and then asked of the audit."""

EVENTS, SUBJECTS = 10_000, 1_000
"""Event ids remembered of one principal, and principals of whom any are."""


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
    """The digest of a 2024-11-05 message URL as announced to this principal: one may be the same for all."""
    return handle(Sort.SESSION, f"{subject}\0{path}")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose handle it is, and for a task the message in whose answer the server made it.

    That message may have lost its arguments, with the process or for their size: rules that ask for them
    are in doubt then.
    """

    subject: str
    message: Message | None = None


type Recall = Callable[[str, str], Owner | None]
"""What the audit says of (server id, handle)."""


class Handles:
    """Owners by (server id, handle). In memory and, for those made before a restart, in the audit."""

    def __init__(self, recall: Recall = lambda server, known_as: None, *, limit: int = LIMIT) -> None:
        self._recall = recall
        self._limit = limit
        self._owners: OrderedDict[tuple[str, str], Owner] = OrderedDict()
        self._events: OrderedDict[str, OrderedDict[tuple[str, str, bytes], None]] = OrderedDict()

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
        """The server gave the handle to ``owner``: it is theirs from now on.

        A server that names a new thing like an old one has forgotten the old one.
        """
        self._owners[server, known_as] = owner
        self._owners.move_to_end((server, known_as))
        while len(self._owners) > self._limit:
            self._owners.popitem(last=False)

    def saw_event(self, server: str, session: str, subject: str, event: str) -> None:
        """This event id was sent to ``subject`` in this session."""
        own = self._events.setdefault(subject, OrderedDict())
        self._events.move_to_end(subject)
        own[server, session, _short(event)] = None
        while len(own) > EVENTS:
            own.popitem(last=False)
        while len(self._events) > SUBJECTS:
            self._events.popitem(last=False)

    def was_sent(self, server: str, session: str, subject: str, event: str) -> bool:
        """Whether it was. Ids of servers that count from 1 collide: hence per session and subject."""
        return (server, session, _short(event)) in self._events.get(subject, ())


def _short(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()
