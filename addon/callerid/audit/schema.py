"""The tables, indices, triggers and views of the audit, and how its file is opened.

One file, append-only, that an analyst can open while it grows. Tables may change under the views;
the views are the stable API (DESIGN section 3). Changes are additive: another migration, never a rewrite
of a live file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from pathlib import Path

from sqlite_utils import Database, Migrations

from callerid.audit.views import VIEWS
from callerid.errors import StoreError
from callerid.home import private_file

APPLICATION_ID = 0x43494431
"""``CID1`` in ASCII, at offset 68 of the file (SQLite file format, section 1.3.14)."""
VERSION = 3
"""``PRAGMA user_version``: the number of the newest migration."""
BUSY_TIMEOUT_MS = 250

_HEADER = b"SQLite format 3\x00"
_APPEND_ONLY = ("decision", "outcome", "policy_version", "event")
"""Tables of the first schema; a later one is closed by the migration that makes it."""

_TABLES = """
CREATE TABLE decision(
  seq             INTEGER PRIMARY KEY,
  event_id        TEXT    NOT NULL,
  time_us         INTEGER NOT NULL,
  verdict         TEXT    NOT NULL CHECK(verdict IN ('allow', 'deny', 'error')),
  reason          TEXT    NOT NULL,
  method          TEXT    NOT NULL,
  server          TEXT    NOT NULL,
  upstream        TEXT    NOT NULL,
  principal       TEXT    NOT NULL,
  issuer          TEXT,
  agent           TEXT,
  actors          TEXT    NOT NULL,
  evidence        TEXT    NOT NULL,
  assurance       TEXT,
  credential_id   TEXT,
  claimed_subject TEXT,
  client_ip       TEXT,
  client_name     TEXT,
  user_agent      TEXT,
  tool            TEXT,
  target          TEXT,
  arguments       TEXT,
  redactions      INTEGER NOT NULL,
  rule            TEXT,
  would_rule      TEXT,
  policy          TEXT,
  injected        TEXT,
  detail          TEXT,
  request_bytes   INTEGER,
  protocol        TEXT,
  session         TEXT,
  rpc_id          TEXT,
  batch_index     INTEGER,
  trace_id        TEXT
) STRICT;
CREATE TABLE outcome(
  rid             INTEGER PRIMARY KEY,
  event_id        TEXT    NOT NULL,
  time_us         INTEGER NOT NULL,
  outcome         TEXT    NOT NULL,
  http_status     INTEGER,
  rpc_code        INTEGER,
  duration_us     INTEGER,
  response_bytes  INTEGER,
  detail          TEXT
) STRICT;
CREATE TABLE policy_version(
  hash            TEXT    PRIMARY KEY,
  loaded_us       INTEGER NOT NULL,
  sources         TEXT    NOT NULL
) STRICT;
CREATE TABLE event(
  id              INTEGER PRIMARY KEY,
  kind            TEXT    NOT NULL,
  time_us         INTEGER NOT NULL,
  after_seq       INTEGER NOT NULL,
  detail          TEXT    NOT NULL
) STRICT;
"""

_INDICES = """
CREATE UNIQUE INDEX decision_event ON decision(event_id);
CREATE INDEX decision_time      ON decision(time_us, verdict);
CREATE INDEX decision_principal ON decision(principal, time_us);
CREATE INDEX decision_tool      ON decision(server, tool, time_us);
CREATE INDEX decision_session   ON decision(session, time_us) WHERE session IS NOT NULL;
CREATE INDEX decision_refused   ON decision(reason, rule, time_us) WHERE verdict <> 'allow';
CREATE UNIQUE INDEX outcome_event ON outcome(event_id);
"""

_SECOND = (
    "ALTER TABLE decision ADD COLUMN kind TEXT",
    "ALTER TABLE decision ADD COLUMN direction TEXT NOT NULL DEFAULT 'client' "
    "CHECK(direction IN ('client', 'server'))",
    "ALTER TABLE decision ADD COLUMN caused_by TEXT",
    "ALTER TABLE decision ADD COLUMN path TEXT",
    "ALTER TABLE outcome ADD COLUMN handle TEXT",
    "CREATE INDEX outcome_handle ON outcome(handle) WHERE handle IS NOT NULL",
    "CREATE INDEX event_kind ON event(kind)",
)

_THIRD = (
    "ALTER TABLE decision ADD COLUMN via TEXT",
    """
CREATE TABLE finding(
  id              INTEGER PRIMARY KEY,
  time_us         INTEGER NOT NULL,
  kind            TEXT    NOT NULL,
  event_id        TEXT,
  server          TEXT,
  principal       TEXT,
  credential      TEXT,
  fingerprint     TEXT,
  detail          TEXT
) STRICT""",
    "CREATE INDEX finding_time ON finding(time_us, kind)",
    "CREATE INDEX finding_event ON finding(event_id) WHERE event_id IS NOT NULL",
    "CREATE INDEX finding_fingerprint ON finding(fingerprint) WHERE fingerprint IS NOT NULL",
)

migrations = Migrations("callerid.audit")


@migrations(name="0001_decision_and_outcome")  # type: ignore[misc, unused-ignore]
def decision_and_outcome(database: Database) -> None:
    """The first schema: decisions, outcomes, policies and events."""
    database.executescript(_TABLES + _INDICES)
    for table in _APPEND_ONLY:
        _forbid_changes(database, table)
    database.execute("PRAGMA user_version = 1")


@migrations(name="0002_direction_path_and_handle")  # type: ignore[misc, unused-ignore]
def direction_path_and_handle(database: Database) -> None:
    """Who began a message, where it went, what the server made for its caller. Old rows stay as they are."""
    for statement in _SECOND:
        database.execute(statement)
    database.execute("PRAGMA user_version = 2")


@migrations(name="0003_findings")  # type: ignore[misc, unused-ignore]
def findings(database: Database) -> None:
    """What an operator should look at, and which trusted hop spoke for a caller."""
    for statement in _THIRD:
        database.execute(statement)
    _forbid_changes(database, "finding")
    _renew_views(database)
    database.execute("PRAGMA user_version = 3")


def _forbid_changes(database: Database, table: str) -> None:
    for verb in ("UPDATE", "DELETE"):
        database.execute(
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            "BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END"
        )


def _renew_views(database: Database) -> None:
    """The views of this version in the place of those there are; only the newest migration does it."""
    for name in reversed(tuple(VIEWS)):
        database.execute(f"DROP VIEW IF EXISTS {name}")
    for name, sql in VIEWS.items():
        database.execute(f"CREATE VIEW {name} AS {sql}")


def open_database(path: Path) -> sqlite3.Connection:
    """Open the audit for its one writer, making or migrating it first. The file and its WAL are 0600.

    The connection is in autocommit: the writer says BEGIN and COMMIT itself. It may be used by another
    thread than the one that opened it, by one at a time.

    Raises:
        StoreError: the path is a directory, cannot be read or written, or holds something else: another
            kind of database, a damaged one, or one of a newer callerid. Such a file is not touched.
    """
    size = inspect_file(path)
    if size == 0:
        _refuse_orphaned_wal(path)
        _create(path)
    private_file(path)
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            private_file(beside)
    try:
        _migrate(path)
        return connect(path)
    except sqlite3.Error as error:
        raise store_error(path, error) from error


def inspect_file(path: Path) -> int:
    """Look at the first bytes of the file, without SQLite, which would touch what lies beside it.

    The magic is in the file from its first byte on: a database is made beside its place and renamed.

    Returns:
        The size in bytes; 0 when there is no file or an empty one.

    Raises:
        StoreError: it is a directory, unreadable, or not an audit of ours.
    """
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise StoreError(f"{path} is a directory", hint="The audit is a file: name another path or HOME.")
        header = _beginning(path)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="Check the owner and the mode of the file and of the folders around it.",
        ) from error
    if not header:
        return 0
    if len(header) < 100 or not header.startswith(_HEADER):
        raise StoreError(
            f"{path} is not an SQLite database, or its beginning is damaged",
            hint="Move it away, or restore it from a copy; a new audit is made when there is no file.",
        )
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise StoreError(
            f"{path} is an SQLite database of something else, not an audit of callerid",
            hint="Choose another HOME, or move that file away; it was not touched.",
        )
    _refuse_newer(path, int.from_bytes(header[60:64], "big"))
    return path.stat().st_size


_seen: dict[Path, int] = {}
"""Descriptors of files that were looked at: one for each path, and closed only when another file is there.

Closing one would take away the locks that SQLite holds on the same file in this process (POSIX, fcntl): the
next process to close the database would then delete a WAL that is in use.
"""


def _beginning(path: Path) -> bytes:
    """The first 100 bytes of the file."""
    there, known = path.stat(), _seen.get(path)
    if known is None or os.fstat(known)[1:3] != (there.st_ino, there.st_dev):
        _seen[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if known is not None:
            os.close(known)
    return os.pread(_seen[path], 100, 0)


def connect(path: Path) -> sqlite3.Connection:
    """The writer's connection to an audit that exists. Raises sqlite3.Error."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT_MS / 1000,
    )
    try:
        # FULL: one sync per commit, so that a decision survives a power cut once it was acknowledged.
        for setting in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "wal_autocheckpoint = 1000",
            "journal_size_limit = 67108864",
            "cache_size = -16384",
        ):
            connection.execute(f"PRAGMA {setting}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def store_error(path: Path, error: BaseException) -> StoreError:
    """The sentence and the hint for what SQLite said about the audit. Values never appear in it."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    hints = (
        ("SQLITE_FULL", "Free space on its disk; callerid goes on by itself."),
        ("SQLITE_BUSY", "Another process holds the write lock of the file: end it, or let it commit."),
        (
            "SQLITE_READONLY",
            "Check the owner and the mode of the file, and whether its disk is mounted read-only.",
        ),
        ("SQLITE_CANTOPEN", "Check the owner and the mode of the file and of the folders around it."),
        (
            "SQLITE_CORRUPT",
            "Move the file away for investigation, or restore a copy; callerid then makes a new one.",
        ),
        (
            "SQLITE_NOTADB",
            "Move the file away for investigation, or restore a copy; callerid then makes a new one.",
        ),
        ("SQLITE_IOERR", "Look at the disk and the system's messages; the device reports a fault."),
    )
    hint = next((text for prefix, text in hints if name.startswith(prefix)), "See the name of the error.")
    return StoreError(f"the audit {path} cannot be used: {name}", hint=hint)


def _create(path: Path) -> None:
    """Make the database beside its place and rename it: there never is half an audit under its name."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        draft.unlink(missing_ok=True)
        private_file(draft)
        connection = sqlite3.connect(draft)
        try:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            migrations.apply(Database(connection, execute_plugins=False))
        finally:
            connection.close()
        if inspect_file(path) == 0:  # another process may have been quicker: its rows stay
            os.replace(draft, path)
            _sync_folder(path.parent)
    except sqlite3.Error as error:
        raise store_error(path, error) from error
    except OSError as error:
        raise StoreError(
            f"{path} cannot be made: {error.strerror or error}",
            hint="Check the owner, the mode and the free space of the folder around it.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _migrate(path: Path) -> None:
    """Bring an audit of an older callerid up to date; the header may lag behind its WAL, so ask SQLite."""
    connection = connect(path)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        _refuse_newer(path, version)
        if version < VERSION:
            connection.isolation_level = "DEFERRED"
            database = Database(connection, execute_plugins=False)
            with database.atomic():  # all of them or none: a file is never left between two versions
                migrations.apply(database)
        connection.execute("SELECT max(seq) FROM decision").fetchone()
    finally:
        connection.close()


def _refuse_newer(path: Path, version: int) -> None:
    if version > VERSION:
        raise StoreError(
            f"{path} was written by a newer callerid (schema {version}, this one knows {VERSION})",
            hint="Update callerid, or choose another HOME; the file was not touched.",
        )


def _refuse_orphaned_wal(path: Path) -> None:
    """SQLite would replay a left-over WAL into the new database beside it."""
    orphan = path.with_name(path.name + "-wal")
    if orphan.exists() and orphan.stat().st_size:
        raise StoreError(
            f"{path} is gone but its {orphan.name} is still there",
            hint=f"Put {path.name} back, or move {orphan.name} away as well: it holds rows of the old audit.",
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
