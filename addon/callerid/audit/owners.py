"""Whose is what a server made: asked of the audit, for a proxy that was started again and forgot.

The handle in an outcome row is a digest of a session, a task or a request state; the decision row beside it
says who called. The answer is the caller to whom the server gave it last.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

BUSY_SECONDS = 0.05
"""The longest wait for a lock of the file. Readers of a WAL file hardly ever meet one."""
STEPS = 10_000
MAX_TURNS = 50
"""A question is given up after this many times STEPS instructions of SQLite, tens of milliseconds in all. A
usual one takes about a hundred; many would need a handle that thousands of rows of other servers have too."""

_SQL = """
SELECT d.principal, d.issuer, d.method, d.tool, d.event_id, d.time_us
FROM outcome o JOIN decision d ON d.event_id = o.event_id
WHERE o.handle = ? AND d.server = ? AND d.verdict = 'allow'
ORDER BY o.rid DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """The allowed call that a handle came out of; ``principal`` is ``anonymous`` where nobody was known."""

    principal: str
    issuer: str | None
    method: str
    tool: str | None
    event_id: str
    time_us: int


class Owners:
    """Looks handles up in the audit, over one read-only connection that is opened at the first question.

    May be used from any thread, by one at a time. It never raises: what cannot be found out is not known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mutex = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._turns = 0

    def find(self, server: str, handle: str) -> Owned | None:
        """The last allowed call at ``server`` whose outcome has this handle; None if none, or on any fault.

        What is committed is seen at once. A row that the writer still holds is not.
        """
        with self._mutex:
            self._turns = 0
            try:
                row = self._connected().execute(_SQL, (handle, server)).fetchone()
            except (sqlite3.Error, ValueError, OSError):
                # The next question opens the file anew: it may have been made, migrated or put back by then.
                self._drop()
                return None
        if row is None:
            return None
        principal, issuer, method, tool, event_id, time_us = row
        return Owned(
            principal=principal, issuer=issuer, method=method, tool=tool, event_id=event_id, time_us=time_us
        )

    def close(self) -> None:
        """Close the connection; a later question opens it again."""
        with self._mutex:
            self._drop()

    def _connected(self) -> sqlite3.Connection:
        """Never ``immutable``: such a reader misses what is still in the WAL."""
        if self._connection is None:
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=ro",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=BUSY_SECONDS,
            )
            connection.set_progress_handler(self._enough, STEPS)
            self._connection = connection
        return self._connection

    def _enough(self) -> bool:
        """Asked by SQLite once in STEPS instructions; true ends the question with an error."""
        self._turns += 1
        return self._turns > MAX_TURNS

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
