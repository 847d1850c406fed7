"""The tripwire in force, and what operators were told lately: one for the life of the proxy."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from callerid.credentials.store import CredentialStore
from callerid.credentials.tripwire import NOTHING, Hit, Tripwire, fingerprint
from callerid.model import FindingRecord
from callerid.proxy.facts import Facts

logger = logging.getLogger(__name__)

AGAIN_US: Final = 3_600_000_000
"""The same finding of the same person at the same server is told once in this time."""
REMEMBERED: Final = 10_000
"""Findings that are remembered for that; beyond it the oldest is forgotten, and may be told again."""

type Tell = Callable[[FindingRecord], None]


class Hygiene:
    """The tripwire in force, and which findings were told lately. Used from the event loop.

    Args:
        key: of this deployment; fingerprints are made with it.
    """

    def __init__(self, key: bytes = bytes(32)) -> None:
        self._key = key
        self._of: tuple[object, object] = (None, None)
        self._tripwire: Tripwire | None = None
        self._told: OrderedDict[tuple[str, ...], int] = OrderedDict()

    def tripwire(self, store: CredentialStore) -> Tripwire:
        """Over the secrets that ``store`` holds now."""
        scrubber = store.scrubber  # read first: a refresh in between makes a new one, and is seen next time
        if self._tripwire is None or self._of != (store, scrubber):
            self._tripwire = Tripwire(self._key, store.held(), scrubber)
            self._of = (store, scrubber)
        return self._tripwire

    def looked(self, facts: Facts, store: CredentialStore) -> Facts:
        """The request with what the tripwire says of its head, and without what ``replace`` takes out."""
        noticed = self.tripwire(store).look(facts.headers, facts.path)
        if noticed is NOTHING:
            return facts
        left = [(name, value) for name, value in facts.headers if name not in noticed.strip]
        path = facts.path if noticed.path is None else noticed.path
        return replace(facts, noticed=noticed, headers=left, path=path)

    def in_body(self, body: bytes, store: CredentialStore) -> Hit | None:
        """The shared key in a body, if there is one."""
        return self.tripwire(store).in_body(body)

    def fingerprint(self, value: str) -> str:
        """What stands for a caller's key in the audit."""
        return fingerprint(self._key, value)

    def once(self, record: FindingRecord) -> bool:
        """True unless the same was told within the hour."""
        what = record.fingerprint or record.credential or record.detail or ""
        known = (str(record.kind), what, record.principal or "", record.server or "")
        before = self._told.pop(known, None)
        again = before is not None and 0 <= record.time_us - before < AGAIN_US
        self._told[known] = before if again and before is not None else record.time_us
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        return not again

    def tell(self, findings: Iterable[FindingRecord], write: Tell) -> None:
        """Write those that were not told lately. Never raises: the call that they are about goes on."""
        try:
            for finding in findings:
                if self.once(finding):
                    write(finding)
        except Exception:
            logger.exception("callerid: what was found in a request could not be told")
