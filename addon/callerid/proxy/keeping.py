"""The credential store in a running proxy: opened with a clock, and its health told once per change."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from callerid.config import Credential
from callerid.credentials.minters import minter_for
from callerid.credentials.store import CredentialStatus, CredentialStore
from callerid.credentials.timetable import Clock
from callerid.home import Home
from callerid.identity.registry import Registry
from callerid.model import FindingKind, FindingRecord

logger = logging.getLogger(__name__)

START_SECONDS: Final = 1.0
"""How long the start waits for secrets that must be fetched. What is slower is refused until it is there."""
PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def open_store(
    credentials: tuple[Credential, ...], environ: Mapping[str, str], *, roots: Path | None, home: Home
) -> CredentialStore:
    """The store with real time, and with the refresh tokens kept in HOME.

    Raises:
        ConfigError: two credentials have one id.
    """
    chance = random.SystemRandom().random
    return CredentialStore(
        credentials,
        environ,
        clock=Clock(time.monotonic, time.time, chance),
        roots=roots,
        minters=partial(minter_for, kept=home.path / "oauth"),
    )


def begin(store: CredentialStore, loop: asyncio.AbstractEventLoop, arrived: Callable[[], None]) -> None:
    """Start the first fetches; ``arrived`` is called on the loop when something comes later."""
    store.on_arrival(partial(_wake, loop, arrived))
    store.refresh()
    store.settle(START_SECONDS)


def _wake(loop: asyncio.AbstractEventLoop, arrived: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop has been closed
        loop.call_soon_threadsafe(arrived)


def forget_blocked(store: CredentialStore, registry: Registry, before: int) -> int:
    """Drop the tokens of everybody who is blocked by now. Cheap where nothing has changed since ``before``.

    Returns the generation of the registry, for the next time.

    Raises:
        StoreError: the registry cannot be read.
    """
    generation = registry.generation()
    if generation != before:
        for row in registry.blocked():
            store.forget(f"{row.subject}\n")
    return generation


def withdraw(credentials: tuple[Credential, ...]) -> None:
    """Take secrets out of our environment, where children and other code of this process would find them.

    So do the variables for proxies: nothing that this process fetches goes through a proxy, itself least.
    """
    read = tuple(credential.source for credential in credentials if credential.source_kind == "env")
    for name in (*read, *PROXIES):
        os.environ.pop(name, None)


class Health:
    """What was last said of each credential's health."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def tell(self, store: CredentialStore, finding: Callable[[FindingRecord], None], time_us: int) -> None:
        """Say of each credential once that something is wrong with it, and once that nothing is any more.

        One that is only being fetched for the first time is as it was: neither ill, nor well again.
        """
        health = {
            status.id: self._said.get(status.id) if status.coming else _why(status)
            for status in store.status()
        }
        ill = {name: why for name, why in health.items() if why}
        for name, why in ill.items():
            if self._said.get(name) != why:
                logger.warning("callerid: credential %s: %s", name, why)
                finding(_finding(FindingKind.CREDENTIAL_ILL, name, why, time_us))
        for name in self._said.keys() - ill.keys():
            logger.warning("callerid: credential %s is available", name)
            finding(_finding(FindingKind.CREDENTIAL_WELL, name, None, time_us))
        self._said = ill


def _why(status: CredentialStatus) -> str:
    if not status.ok:
        return f"it is not available: {status.detail}. {status.hint}".strip()
    return f"its source fails, the last good value serves: {status.failing}" if status.failing else ""


def _finding(kind: FindingKind, name: str, why: str | None, time_us: int) -> FindingRecord:
    return FindingRecord(time_us=time_us, kind=kind, credential=name, detail=why)
