"""The registry: issued tokens and blocked subjects, in HOME/registry.db. The one home of sqlite3 here.

Law 10: revocation is now. A cached answer is used only while ``PRAGMA data_version`` says that no other
process has committed since, and while the file at the path is still the file that is open.
Every fault is a StoreError; it is never taken for "not revoked".
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from callerid.errors import ConfigError, StoreError
from callerid.home import private_file
from callerid.identity.rows import (
    APPLICATION_ID,
    COLUMNS,
    SCHEMA,
    SCHEMA_VERSION,
    BlockedRow,
    TokenRow,
    scope_to_text,
    token_from,
)
from callerid.identity.tokens import token_id

_BUSY_MS = 250
_CACHE = 4096
_TOUCHES = 10_000
_MAX_LINEAGE = 16
_HINT = "Check the file and its folder; while it cannot be read, every token is refused."

# The tree below the tokens chosen by a condition on t; UNION ends a cycle that somebody wrote by hand.
_REVOKE = (
    "UPDATE tokens SET revoked_us = ?, revoked_by = ?, revoked_why = ? WHERE revoked_us IS NULL AND id IN ("
    "WITH RECURSIVE tree(id) AS (SELECT t.id FROM tokens t WHERE {start} "
    "UNION SELECT c.id FROM tokens c JOIN tree ON c.parent = tree.id) SELECT id FROM tree)"
)


class Registry:
    """An open registry. Used by one thread; each process opens its own.

    Every method raises StoreError when the file cannot be read or written.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._inode = _inode(path)
        self._version = -1
        self._files = 0
        self._by_digest: dict[str, TokenRow] = {}
        self._by_id: dict[str, TokenRow] = {}
        self._blocked: dict[str, bool] = {}
        self._generation: int | None = None
        self._touches: dict[str, tuple[int, str | None]] = {}

    @classmethod
    def open(cls, path: Path) -> Registry:
        """Open the registry at ``path``, and make it there if there is none: mode 0600, WAL.

        Raises:
            StoreError: not writable, not a registry, or of a newer version.
        """
        private_file(path)
        return cls(path, _connect(path, create=True))

    def close(self) -> None:
        """Write what is left of the touches, and close. Never raises."""
        self.flush_touches()
        self._connection.close()

    # -- asked on every call -------------------------------------------------------------------------

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
            if parent is None or len(found) >= _MAX_LINEAGE:
                raise StoreError(f"the parents of token {row.id} are broken in {self._path}", hint=_HINT)
            found.append(parent)
        return tuple(found)

    def is_blocked(self, subject: str) -> bool:
        """True when this very subject is blocked. Give it in canonical spelling."""
        return self.first_blocked((subject,)) is not None

    def first_blocked(self, subjects: Iterable[str]) -> str | None:
        """The first of ``subjects`` that is blocked, or None."""
        self._catch_up()
        for subject in subjects:
            known = self._blocked.get(subject)
            if known is None:
                known = bool(self._rows("SELECT 1 FROM blocked WHERE subject = ?", (subject,)))
                _remember(self._blocked, subject, known)
            if known:
                return subject
        return None

    def generation(self) -> int:
        """A number that changes with every revocation, block and unblock, whoever made it."""
        self._catch_up()
        if self._generation is None:
            rows = self._rows("SELECT generation FROM state")
            if len(rows) != 1:
                raise StoreError(f"{self._path} has lost its state row", hint=_HINT)
            self._generation = self._files << 40 | int(rows[0][0])
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
        try:
            self._connection.execute("PRAGMA busy_timeout = 0")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            try:
                with _transaction(self._connection):
                    self._connection.executemany(
                        "UPDATE tokens SET last_used_us = ?, last_ip = ? WHERE id = ?", rows
                    )
            finally:
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        except sqlite3.Error:
            return False
        self._touches.clear()
        return True

    # -- administration ------------------------------------------------------------------------------

    def issue(
        self,
        *,
        token_digest: str,
        principal: str,
        agent: str | None,
        servers: tuple[str, ...] | None,
        tools: tuple[str, ...] | None,
        created_us: int,
        expires_us: int,
        created_by: str,
        parent: str | None = None,
    ) -> TokenRow:
        """Enter a new token. A child has its parent's principal and does not outlive it.

        Raises:
            ConfigError: expires before it begins, or is more than its parent.
            StoreError: also when the token is there already.
        """
        if expires_us <= created_us:
            raise ConfigError("the token would expire before it begins", hint="Give a longer --ttl.")
        if parent is not None:
            self._check_child(parent, principal, created_us, expires_us)
        row = TokenRow(
            id=token_id(token_digest),
            principal=principal,
            agent=agent,
            parent=parent,
            servers=servers,
            tools=tools,
            created_us=created_us,
            created_by=created_by,
            expires_us=expires_us,
        )
        scopes = (scope_to_text(servers), scope_to_text(tools))
        self._write(
            "INSERT INTO tokens (id, sha256, principal, agent, parent, servers, tools, created_us,"
            " created_by, expires_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (row.id, token_digest, principal, agent, parent, *scopes, created_us, created_by, expires_us),
        )
        return row

    def revoke(self, identifier: str, *, now_us: int, by: str, why: str | None = None) -> int:
        """Revoke a token and all below it; the number of tokens that were good until now."""
        return self._revoke("t.id = ?", identifier, now_us, by, why)

    def revoke_principal(self, principal: str, *, now_us: int, by: str, why: str | None = None) -> int:
        """Revoke all tokens of a principal and all below them; the number that were good until now."""
        return self._revoke("t.principal = ?", principal, now_us, by, why)

    def block(self, subject: str, *, now_us: int, by: str, why: str | None = None) -> bool:
        """Block a subject (canonical spelling). False if it was blocked already."""
        statement = "INSERT OR IGNORE INTO blocked (subject, since_us, why, by) VALUES (?, ?, ?, ?)"
        return self._write(statement, (subject, now_us, why, by)) > 0

    def unblock(self, subject: str) -> bool:
        """Lift a block. False if there was none."""
        return self._write("DELETE FROM blocked WHERE subject = ?", (subject,)) > 0

    def blocked(self) -> tuple[BlockedRow, ...]:
        """All blocked subjects, in order."""
        rows = self._rows("SELECT subject, since_us, why, by FROM blocked ORDER BY subject")
        return tuple(BlockedRow(subject=row[0], since_us=row[1], why=row[2], by=row[3]) for row in rows)

    def tokens(self, *, principal: str | None = None, agent: str | None = None) -> tuple[TokenRow, ...]:
        """All tokens, of one principal or agent if named, oldest first, dead ones included."""
        rows = self._rows(
            f"SELECT {COLUMNS} FROM tokens WHERE (?1 IS NULL OR principal = ?1)"  # noqa: S608  (a constant)
            " AND (?2 IS NULL OR agent = ?2) ORDER BY created_us, id",
            (principal, agent),
        )
        return tuple(self._token(row) for row in rows)

    # -- inside --------------------------------------------------------------------------------------

    def _check_child(self, parent: str, principal: str, created_us: int, expires_us: int) -> None:
        above = self.get(parent)
        if above is None:
            raise ConfigError(f"there is no token {parent} to derive from", hint="See `callerid tokens`.")
        for token in self.lineage(above):
            if token.revoked_us is not None or token.expires_us <= created_us:
                raise ConfigError(f"token {token.id} is revoked or expired", hint="Issue a new one.")
            if token.principal != principal or token.expires_us < expires_us:
                raise ConfigError(
                    f"a token below {token.id} has its principal and does not outlive it",
                    hint="Derive for the same principal, with a shorter --ttl.",
                )
        if len(self.lineage(above)) >= _MAX_LINEAGE:
            raise ConfigError(f"token {parent} has too many parents", hint="Derive from one further up.")

    def _revoke(self, start: str, value: str, now_us: int, by: str, why: str | None) -> int:
        return self._write(_REVOKE.format(start=start), (now_us, by, why, value))

    def _write(self, statement: str, values: tuple[Any, ...]) -> int:
        self._catch_up()
        try:
            with _transaction(self._connection):
                changed = self._connection.execute(statement, values).rowcount
        except sqlite3.IntegrityError as error:
            raise StoreError(f"{self._path} refused the entry: {error}", hint="Try once more.") from error
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise _unusable(self._path, error) from error
        finally:
            self._forget()
        return changed

    def _rows(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise _unusable(self._path, error) from error

    def _known(self, cache: dict[str, TokenRow], condition: str, value: str) -> TokenRow | None:
        row = cache.get(value)
        if row is None and (row := self._one(condition, value)) is not None:
            _remember(cache, value, row)
        return row

    def _one(self, condition: str, value: str) -> TokenRow | None:
        rows = self._rows(f"SELECT {COLUMNS} FROM tokens WHERE {condition}", (value,))  # noqa: S608
        return self._token(rows[0]) if rows else None

    def _token(self, row: Sequence[Any]) -> TokenRow:
        try:
            return token_from(row)
        except (ValueError, RecursionError) as error:
            raise _unusable(self._path, error) from error

    def _catch_up(self) -> None:
        """Drop what is remembered if another process has committed, or the file was replaced."""
        if _inode(self._path) != self._inode:
            self._reopen()
        version = self._rows("PRAGMA data_version")[0][0]
        if version != self._version:
            self._forget()
            self._version = version

    def _reopen(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        self._connection = _connect(self._path, create=False)
        self._inode = _inode(self._path)
        self._version = -1
        self._files += 1

    def _forget(self) -> None:
        self._by_digest.clear()
        self._by_id.clear()
        self._blocked.clear()
        self._generation = None


def _remember[V](cache: dict[str, V], name: str, value: V) -> None:
    if len(cache) >= _CACHE:
        cache.clear()
    cache[name] = value


def _unusable(path: Path, error: Exception) -> StoreError:
    return StoreError(f"the registry {path} cannot be used: {error}", hint=_HINT)


def _inode(path: Path) -> tuple[int, int]:
    try:
        info = os.stat(path)
    except OSError as error:
        raise StoreError(f"the registry {path} is gone: {error.strerror or error}", hint=_HINT) from error
    return info.st_dev, info.st_ino


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _connect(path: Path, *, create: bool) -> sqlite3.Connection:
    for beside in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        if beside.exists():
            private_file(beside)
    try:
        connection = sqlite3.connect(path, timeout=_BUSY_MS / 1000, isolation_level=None)
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    try:
        _prepare(connection, path, create=create)
    except sqlite3.Error as error:
        connection.close()
        raise _unusable(path, error) from error
    except StoreError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, *, create: bool) -> None:
    """Check the kind and version of the file before anything in it is changed; fill an empty one."""
    connection.execute("PRAGMA trusted_schema = OFF")
    damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise StoreError(f"the registry {path} is damaged", hint=_HINT)
    if not _is_ours(connection, path):
        if not create:  # an empty file in the place of a registry has lost its blocked subjects
            raise StoreError(f"the registry {path} was replaced by an empty file", hint=_HINT)
        connection.execute("PRAGMA journal_mode = WAL")
        with _transaction(connection):
            if not _is_ours(connection, path):  # another process may have been first
                for statement in _statements(SCHEMA):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _is_ours(connection: sqlite3.Connection, path: Path) -> bool:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if (application, version) == (APPLICATION_ID, SCHEMA_VERSION):
        return True
    if (application, version, tables) == (0, 0, 0):
        return False
    raise StoreError(
        f"{path} is a database of another kind or a newer version",
        hint="Choose another home with --home DIR, or use the callerid that wrote it.",
    )


def _statements(script: str) -> Iterator[str]:
    """The statements of ``script`` one by one: ``executescript`` would commit the transaction around it."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
