"""What is asked of the registry on every call: tokens by digest, blocked subjects, the generation.

Law 10: revocation is now. A cached answer is used only while ``PRAGMA data_version`` says that no other
process has committed since, and while the file at the path is still the file that is open.
Every fault is a StoreError; it is never taken for "not revoked".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from callerid.errors import StoreError
from callerid.identity.rows import COLUMNS, TokenRow, token_from
from callerid.identity.storage import HINT, Storage

MAX_LINEAGE = 16
_CACHE = 4096
_TOUCHES = 10_000


class Lookup:
    """An open registry. Used by one thread; each process opens its own, and so does each thread.

    Every method raises StoreError when the file cannot be read or written.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._by_digest: dict[str, TokenRow] = {}
        self._by_id: dict[str, TokenRow] = {}
        self._blocked: dict[str, bool] = {}
        self._generation: int | None = None
        self._touches: dict[str, tuple[int, str | None]] = {}

    @classmethod
    def open(cls, path: Path, *, create: bool = True) -> Self:
        """Open the registry at ``path``, and make it there if there is none: mode 0600, WAL.

        Without ``create`` one must be there: a fresh one would have forgotten who is blocked.

        Raises:
            StoreError: not writable, not a registry, or of a newer version.
        """
        return cls(Storage.open(path, create=create))

    def close(self) -> None:
        """Write what is left of the touches, and close. Never raises."""
        self.flush_touches()
        self._storage.close()

    @property
    def _connection(self) -> Any:
        return self._storage.connection

    def find(self, token_digest: str) -> TokenRow | None:
        """The token with this digest, revoked and expired ones included; None if never issued."""
        self._catch_up()
        return self._known(self._by_digest, "sha256 = ?", token_digest)

    def get(self, identifier: str) -> TokenRow | None:
        """The token with this public id, or None."""
        self._catch_up()
        return self._known(self._by_id, "id = ?", identifier)

    def lineage(self, row: TokenRow) -> tuple[TokenRow, ...]:
        """``row`` and its parents, the child first. All of them must be good, and each one narrows.

        Raises:
            StoreError: a parent is missing, or the parents form a ring.
        """
        found = [row]
        while found[-1].parent is not None:
            parent = self.get(found[-1].parent)
            if parent is None or len(found) >= MAX_LINEAGE:
                raise StoreError(
                    f"the parents of token {row.id} are broken in {self._storage.path}", hint=HINT
                )
            found.append(parent)
        return tuple(found)

    def first_blocked(self, subjects: Iterable[str]) -> str | None:
        """The first of ``subjects`` that is blocked, or None."""
        self._catch_up()
        for subject in subjects:
            known = self._blocked.get(subject)
            if known is None:
                known = bool(self._storage.rows("SELECT 1 FROM blocked WHERE subject = ?", (subject,)))
                _remember(self._blocked, subject, known)
            if known:
                return subject
        return None

    def generation(self) -> int:
        """A number that changes with every revocation, block and unblock, whoever made it."""
        self._catch_up()
        if self._generation is None:
            rows = self._storage.rows("SELECT generation FROM state")
            if len(rows) != 1:
                raise StoreError(f"{self._storage.path} has lost its state row", hint=HINT)
            self._generation = self._storage.reopened << 40 | int(rows[0][0])
        return self._generation

    def touch(self, identifier: str, now_us: int, ip: str | None) -> None:
        """Note that a token was used. Kept in memory until ``flush_touches``; may be lost; never raises."""
        if identifier in self._touches or len(self._touches) < _TOUCHES:
            self._touches[identifier] = (now_us, ip)

    def flush_touches(self) -> bool:
        """Write the noted uses; False if somebody else is writing just now. Never waits, never raises."""
        if not self._touches:
            return True
        rows = [(now_us, ip, identifier) for identifier, (now_us, ip) in self._touches.items()]
        statement = "UPDATE tokens SET last_used_us = ?, last_ip = ? WHERE id = ?"
        if not self._storage.write_if_free(statement, rows):
            return False
        self._touches.clear()
        return True

    # -- inside --------------------------------------------------------------------------------------

    def _known(self, cache: dict[str, TokenRow], condition: str, value: str) -> TokenRow | None:
        row = cache.get(value)
        if row is None and (row := self._one(condition, value)) is not None:
            _remember(cache, value, row)
        return row

    def _one(self, condition: str, value: str) -> TokenRow | None:
        statement = f"SELECT {COLUMNS} FROM tokens WHERE {condition}"  # noqa: S608  (constants)
        rows = self._storage.rows(statement, (value,))
        return self._token(rows[0]) if rows else None

    def _token(self, row: Sequence[Any]) -> TokenRow:
        try:
            return token_from(row)
        except (ValueError, RecursionError) as error:
            raise self._storage.unusable(error) from error

    def _catch_up(self) -> None:
        """Drop what is remembered if another process has committed, or the file was replaced."""
        if self._storage.is_changed():
            self._forget()

    def _forget(self) -> None:
        self._by_digest.clear()
        self._by_id.clear()
        self._blocked.clear()
        self._generation = None


def _remember[V](cache: dict[str, V], name: str, value: V) -> None:
    if len(cache) >= _CACHE:
        cache.clear()
    cache[name] = value
