"""Who writes into the registry while the proxy runs: one thread with a connection of its own.

The event loop itself never writes: a transaction waits up to 250 ms for another process and then for its
fsync, and all streams would stand still meanwhile. Few may wait; who comes too late is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from callerid.errors import StoreError
from callerid.identity.registry import Registry

logger = logging.getLogger(__name__)

QUEUE = 8
"""Entries that may wait at once; each takes a quarter of a second at most before its fsync."""
TIMEOUT = 5.0


class Crowded(StoreError):
    """Too many wait already: nothing was begun."""


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
            raise Crowded("too many tokens are being derived at once", hint="Try again in a second.")
        self._waiting += 1
        done = asyncio.get_running_loop().run_in_executor(self._pool, self._do, work)
        done.add_done_callback(self._leave)
        try:
            return await asyncio.wait_for(asyncio.shield(done), TIMEOUT)
        except TimeoutError:
            raise StoreError(f"the registry was not written within {TIMEOUT:g} s") from None

    def send(self, work: Callable[[Registry], object]) -> None:
        """Have ``work`` done after what waits already, as far as it can be. Nobody waits; never raises."""
        if self._waiting >= 2 * QUEUE:
            logger.error("callerid: too much waits for the registry: something was left undone")
            return
        self._waiting += 1
        try:
            done = asyncio.get_running_loop().run_in_executor(self._pool, self._do, work)
        except RuntimeError:  # closed before
            self._waiting -= 1
            return
        done.add_done_callback(self._leave)
        done.add_done_callback(_told)

    def close(self) -> None:
        """Let the work under way end, and close the registry; not for ever. Safe to call twice."""
        with contextlib.suppress(RuntimeError):  # closed before
            if wait((self._pool.submit(self._forget),), TIMEOUT).not_done:
                logger.error("callerid: the registry is still being written, and is left at that")
        self._pool.shutdown(wait=False)

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


def _told(done: asyncio.Future[Any]) -> None:
    fault = None if done.cancelled() else done.exception()
    if fault is not None:
        logger.error("callerid: something was left undone in the registry: %s", fault)
