"""One batch, one commit: the transaction, what to do when it fails, and the connection it runs on."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain
from pathlib import Path

from callerid.audit.pending import Item, Table
from callerid.audit.records import DECISION_COLUMNS, FINDING_COLUMNS, OUTCOME_COLUMNS, Row
from callerid.audit.schema import connect, open_database, store_error
from callerid.errors import StoreError

type Errors = Sequence[StoreError | None]


def _insert(table: str, columns: Sequence[str], rows: int = 1) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table}({', '.join(columns)}) VALUES {', '.join([row] * rows)}"  # noqa: S608


_INSERTS = {
    Table.POLICY: "INSERT INTO policy_version(hash, loaded_us, sources) VALUES (?, ?, ?) "
    "ON CONFLICT(hash) DO NOTHING",
    Table.EVENT: "INSERT INTO event(kind, time_us, detail, after_seq) "
    "VALUES (?, ?, ?, coalesce(?, (SELECT max(seq) FROM decision), 0))",
    Table.DECISION: _insert("decision", DECISION_COLUMNS),
    Table.OUTCOME: _insert("outcome", OUTCOME_COLUMNS),
    Table.FINDING: _insert("finding", FINDING_COLUMNS),
}
_COLUMNS = {
    Table.DECISION: DECISION_COLUMNS,
    Table.OUTCOME: OUTCOME_COLUMNS,
    Table.FINDING: FINDING_COLUMNS,
}
_CHUNK = 16
"""Rows in one statement: each call into SQLite gives up the interpreter lock and waits for it again, which
on a busy proxy costs more than the row. 16 decisions stay below 999 parameters, SQLite's lowest limit."""

_ROW_ERRORS = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    sqlite3.NotSupportedError,
    OverflowError,
    TypeError,
    ValueError,
)
"""Faults of one row (ValueError covers text that UTF-8 cannot carry). All others are faults of the file."""


class Store:
    """The database while it is written. Used by one thread at a time.

    Raises, from the constructor:
        StoreError: the database cannot be used (see ``open_database``).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = open_database(path)
        try:
            self._file = _identity(path)
            self.start_seq: int = self._connection.execute(
                "SELECT coalesce(max(seq), 0) FROM decision"
            ).fetchone()[0]
            self.unknown = _unknown_outcomes(self._connection)
        except (sqlite3.Error, OSError) as error:
            self._connection.close()
            raise store_error(path, error) from error

    def commit(self, batch: Sequence[Item]) -> Errors:
        """Store the batch in one transaction, durable on return.

        One bad row must not take its neighbours along: on such a fault each row is tried by itself,
        still within one transaction, so one sync pays for all.

        Returns:
            None for each row that is stored, the reason for each that the database refused.

        Raises:
            StoreError: nothing of the batch was stored: disk full, locked, or a fault of the file.
        """
        try:
            connection = self._usable()
            try:
                return self._all_at_once(connection, batch)
            except _ROW_ERRORS:
                return self._row_by_row(connection, batch)
        except (sqlite3.Error, OSError) as error:
            if not _passes_by_itself(error):
                self._drop()
            raise store_error(self.path, error) from error
        except BaseException:
            self._drop()  # a fault of ours may have left a transaction open; the next commit begins anew
            raise

    def close(self) -> None:
        """Fold the WAL into the database and close; what is committed is safe without it."""
        if self._connection is not None:
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error:
                pass  # full or busy: the WAL stays beside the file, and the next start folds it in
            finally:
                self._drop()

    def _all_at_once(self, connection: sqlite3.Connection, batch: Sequence[Item]) -> Errors:
        with _Transaction(connection):
            for table in Table:
                rows = [item.row for item in batch if item.table is table]
                if rows and table in _COLUMNS:
                    _insert_many(connection, table, rows)
                elif rows:
                    connection.executemany(_INSERTS[table], rows)
        return [None] * len(batch)

    def _row_by_row(self, connection: sqlite3.Connection, batch: Sequence[Item]) -> Errors:
        errors: list[StoreError | None] = [None] * len(batch)
        with _Transaction(connection):
            for table in Table:
                for index, item in enumerate(batch):
                    if item.table is table:
                        errors[index] = _try_row(connection, item)
        return errors

    def _usable(self) -> sqlite3.Connection:
        """The connection, opened again after a fault; never onto another file than at the start.

        Rows written to a file that was moved or deleted would be acknowledged and never seen again.
        """
        if _identity(self.path) != self._file:
            raise StoreError(
                f"the audit {self.path} was moved, deleted or replaced while it was in use",
                hint="Put the file back, or start callerid again to begin a new one.",
            )
        if self._connection is None:
            self._connection = connect(self.path)
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Transaction:
    """BEGIN IMMEDIATE, then COMMIT or ROLLBACK. Explicit, since a commit is what ``done`` stands on."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _insert_many(connection: sqlite3.Connection, table: Table, rows: Sequence[Row]) -> None:
    """All rows in as few statements as their number allows, in order."""
    for at in range(0, len(rows), _CHUNK):
        chunk = rows[at : at + _CHUNK]
        connection.execute(_statement(table, len(chunk)), tuple(chain.from_iterable(chunk)))


@cache
def _statement(table: Table, rows: int) -> str:
    return _insert(table.value, _COLUMNS[table], rows)


def _try_row(connection: sqlite3.Connection, item: Item) -> StoreError | None:
    connection.execute("SAVEPOINT one_row")
    try:
        connection.execute(_INSERTS[item.table], item.row)
    except _ROW_ERRORS as error:
        connection.execute("ROLLBACK TO one_row")
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        return StoreError(
            f"the database refused one row for {item.table}: {name}",
            hint="This is a fault in callerid, please report it with the version.",
        )
    finally:
        if connection.in_transaction:
            connection.execute("RELEASE one_row")
    return None


def _passes_by_itself(error: Exception) -> bool:
    """After these the same connection goes on as soon as there is space or the lock is free."""
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_FULL", "SQLITE_BUSY"))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return None
    return info.st_dev, info.st_ino


def _unknown_outcomes(connection: sqlite3.Connection) -> dict[str, int] | None:
    """Calls of the run before this one that were allowed and never got an outcome: it died in between."""
    count, first, last = connection.execute(
        "SELECT count(*), min(d.seq), max(d.seq) FROM decision d WHERE d.verdict = 'allow' AND d.seq > "
        "(SELECT coalesce(max(after_seq), 0) FROM event WHERE kind IN ('started', 'recovered')) "
        "AND NOT EXISTS (SELECT 1 FROM outcome o WHERE o.event_id = d.event_id)"
    ).fetchone()
    return {"calls": count, "first_seq": first, "last_seq": last} if count else None
