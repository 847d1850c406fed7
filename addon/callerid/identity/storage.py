"""The file under the registry: connections, transactions, versions. The one home of sqlite3 in this room.

Every fault is a StoreError. Nothing in here knows what a token is, apart from the schema.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from callerid.errors import StoreError
from callerid.home import private_file
from callerid.identity.rows import APPLICATION_ID, SCHEMA, SCHEMA_VERSION, UPGRADES

BUSY_MS = 250
HINT = "Check the file and its folder; while it cannot be read, every token is refused."


class Storage:
    """One open registry file. Used by one thread; every method raises StoreError on a fault."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self.reopened = 0
        self._inode = _inode(path)
        self._version = -1

    @classmethod
    def open(cls, path: Path, *, create: bool = True) -> Storage:
        """Open the file at ``path``: made if there is none (0600, WAL), brought to our version if older.

        Raises:
            StoreError: not writable, not a registry, of a newer version; without ``create`` also: not there.
        """
        if create:
            private_file(path)
        else:
            _inode(path)
        return cls(path, _connect(path, create=create))

    def close(self) -> None:
        self.connection.close()

    def is_changed(self) -> bool:
        """True if another process has committed since this was last asked, or the file was replaced."""
        if _inode(self.path) != self._inode:
            self._reopen()
        version = self.rows("PRAGMA data_version")[0][0]
        changed = bool(version != self._version)
        self._version = version
        return changed

    def rows(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """What a query gives."""
        try:
            return self.connection.execute(statement, values).fetchall()
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise self.unusable(error) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is done in it is done or not; nobody else writes meanwhile. Waits BUSY_MS at most."""
        try:
            with _transaction(self.connection):
                yield
        except sqlite3.IntegrityError as error:
            raise StoreError(f"{self.path} refused the entry: {error}", hint="Try once more.") from error
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise self.unusable(error) from error

    def execute(self, statement: str, values: tuple[Any, ...]) -> int:
        """Change something inside of ``transaction``; the number of rows that it changed."""
        return self.connection.execute(statement, values).rowcount

    def write_if_free(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> bool:
        """Write rows that may be lost; False if somebody else is writing just now. Never waits or raises."""
        try:
            self.connection.execute("PRAGMA busy_timeout = 0")
            self.connection.execute("PRAGMA synchronous = NORMAL")
            try:
                with _transaction(self.connection):
                    self.connection.executemany(statement, rows)
            finally:
                self.connection.execute("PRAGMA synchronous = FULL")
                self.connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        except sqlite3.Error:
            return False
        return True

    def unusable(self, error: Exception) -> StoreError:
        """The StoreError that says that this file cannot be used."""
        return _unusable(self.path, error)

    def _reopen(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()
        self.connection = _connect(self.path, create=False)
        self._inode = _inode(self.path)
        self._version = -1
        self.reopened += 1


def _unusable(path: Path, error: Exception) -> StoreError:
    return StoreError(f"the registry {path} cannot be used: {error}", hint=HINT)


def _inode(path: Path) -> tuple[int, int]:
    try:
        info = os.stat(path)
    except OSError as error:
        raise StoreError(f"the registry {path} is gone: {error.strerror or error}", hint=HINT) from error
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
        connection = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None)
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
    """Check the kind and version of the file before anything in it is changed; fill or upgrade it."""
    connection.execute("PRAGMA trusted_schema = OFF")
    damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise StoreError(f"the registry {path} is damaged", hint=HINT)
    version = _version_of(connection, path)
    if version == 0 and not create:  # an empty file in the place of a registry has lost its blocked subjects
        raise StoreError(f"the registry {path} was replaced by an empty file", hint=HINT)
    if version == 0:
        connection.execute("PRAGMA journal_mode = WAL")
    if version != SCHEMA_VERSION:
        with _transaction(connection):
            version = _version_of(connection, path)  # another process may have been first
            steps = [SCHEMA] if version == 0 else []
            steps += [UPGRADES[older] for older in range(max(version, 1), SCHEMA_VERSION)]
            for statement in _statements("".join(steps)):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _version_of(connection: sqlite3.Connection, path: Path) -> int:
    """The version of our schema in this file: 0 if it is empty, 1 up to ours if it is a registry."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application == APPLICATION_ID and 1 <= version <= SCHEMA_VERSION:
        return int(version)
    if (application, version, tables) == (0, 0, 0):
        return 0
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
