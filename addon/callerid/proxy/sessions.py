"""Whose session it is. With a shared credential all callers are one to the server; here they are not (law 9).

A session id, or the message URL of a 2024-11-05 stream, belongs to the principal that the server first
gave it to. One that is not known (opened before a restart) goes to the first that uses it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

LIMIT = 100_000
"""Sessions remembered at once; the one that was used longest ago is forgotten first."""


def handle(text: str) -> str:
    """A digest by which a session id or message URL is known: the text itself works like a secret."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


class Sessions:
    """Owners by (server id, handle). In memory, and kept over a reload of the rules."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._owners: OrderedDict[tuple[str, str], str] = OrderedDict()

    def owner(self, server: str, known_as: str) -> str | None:
        """The subject that owns the handle at this server, if anybody does."""
        found = self._owners.get((server, known_as))
        if found is not None:
            self._owners.move_to_end((server, known_as))
        return found

    def claim(self, server: str, known_as: str, subject: str) -> None:
        """The handle is ``subject``'s from now on, unless it is somebody's already."""
        self._owners.setdefault((server, known_as), subject)
        while len(self._owners) > self._limit:
            self._owners.popitem(last=False)
