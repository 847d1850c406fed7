"""Who writes into the registry while the proxy runs: one thread with a connection of its own.

The event loop itself never writes: a transaction waits up to 250 ms for another process and then for its
fsync, and all streams would stand still meanwhile. Few may wait; who comes too late is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from callerid.errors import StoreError
from callerid.identity.registry import Registry

QUEUE = 8
"""Entries that may wait at once; each takes a quarter of a second at most before its fsync."""
TIMEOUT = 5.0


class Clerk:
    """Runs one piece of work after another on a registry of its own. For one event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="callerid-clerk")
        self._registry: Registry | None = None
        self._waiting = 0

    async def do[R](self, work: Callable[[Registry], R]) -> R:
        """What ``work`` returns. What it enters may stand although nobody waits for it any more.

        Raises:
            StoreError: the registry cannot be written, or not in time, or too many wait already.
            ConfigError: as ``work``.
        """
        if self._waiting >= QUEUE:
            raise StoreError("too many tokens are being derived at once", hint="Try again in a second.")
        self._waiting += 1
        done = asyncio.get_running_loop().run_in_executor(self._pool, self._do, work)
        done.add_done_callback(self._leave)
        try:
            return await asyncio.wait_for(asyncio.shield(done), TIMEOUT)
        except TimeoutError:
            raise StoreError(f"the registry was not written within {TIMEOUT:g} s") from None

    def close(self) -> None:
        """Let the work under way end, and close the registry. Safe to call twice."""
        with contextlib.suppress(RuntimeError):  # closed before
            self._pool.submit(self._forget)
        self._pool.shutdown(wait=True)

    def _do[R](self, work: Callable[[Registry], R]) -> R:
        try:
            if self._registry is None:
                self._registry = Registry.open(self._path, create=False)
            return work(self._registry)
        except StoreError:
            self._forget()
            raise

    def _forget(self) -> None:
        if self._registry is not None:
            self._registry.close()
            self._registry = None

    def _leave(self, done: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        if not done.cancelled():
            done.exception()  # heard here: whoever asked may be gone
