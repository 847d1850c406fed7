"""One writer per audit: an exclusive lock on a file beside it.

Two writers on one SQLite file starve each other under load, and row order with its later proofs wants
exactly one hand. The lock is the kernel's: it ends with the process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from callerid.errors import StoreError
from callerid.home import private_file


class WriterLock:
    """An exclusive ``flock`` on ``audit.lock`` beside ``audit.db``, held until ``release``."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_suffix(".lock")
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock without waiting.

        Raises:
            StoreError: another writer holds it, or the file cannot be made.
        """
        private_file(self.path)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StoreError(
                f"another callerid is writing this audit: {self.path} is locked",
                hint="End the other process, or give this one a HOME of its own with --home DIR.",
            ) from error
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; safe to call twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
