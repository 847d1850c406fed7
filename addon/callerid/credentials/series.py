"""The versions of one secret: the newest is used, those before it are still looked for in answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from callerid.credentials.secret import PemSecret, Secret

KEPT_VERSIONS: Final = 5
"""Versions of one secret that are scrubbed: the live one and the four before it."""
KEPT_FOR: Final = 24 * 3600.0
"""Seconds for which a version is scrubbed after another has come in its place."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One version with the forms in which it could come back; ``until`` is None for the newest."""

    secret: Secret | PemSecret
    needles: tuple[bytes, ...] = field(repr=False)
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """``name`` is ``ID``, so that versions are labelled ``ID@v1`` and so on. Newest of ``kept`` last."""

    name: str
    version: int = 0
    kept: tuple[Kept, ...] = ()

    @property
    def newest(self) -> Secret | PemSecret | None:
        return self.kept[-1].secret if self.kept else None

    def next_label(self) -> str:
        return f"{self.name}@v{self.version + 1}"

    def added(
        self,
        secret: Secret | PemSecret,
        needles: Callable[[Secret | PemSecret], tuple[bytes, ...]],
        now: float,
    ) -> Series:
        """With one more version; the same value again is no new one. ``now`` is steady, in seconds."""
        if self.newest == secret:
            return self
        retired = tuple(kept if kept.until else replace(kept, until=now + KEPT_FOR) for kept in self.kept)
        kept = (*retired, Kept(secret, needles(secret)))[-KEPT_VERSIONS:]
        return replace(self, version=self.version + 1, kept=kept)

    def pruned(self, now: float) -> Series:
        """Without the versions that nobody can have in hand any more."""
        kept = tuple(kept for kept in self.kept if kept.until is None or now < kept.until)
        return self if len(kept) == len(self.kept) else replace(self, kept=kept)

    def ended(self, now: float) -> Series:
        """Its newest version is used no more."""
        kept = tuple(kept if kept.until else replace(kept, until=now + KEPT_FOR) for kept in self.kept)
        return self if kept == self.kept else replace(self, kept=kept)

    def needles(self) -> Iterator[bytes]:
        for kept in self.kept:
            yield from kept.needles
