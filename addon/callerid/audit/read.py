"""Read-only questions to the audit while it grows. Each call opens and closes its own connection.

Plain ``mode=ro``, never ``immutable``: an immutable reader of a live file misses what is still in the WAL.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callerid.audit.columns import CALLS_NAMES, FINDINGS_NAMES
from callerid.audit.schema import VERSION, inspect_file, store_error
from callerid.errors import StoreError

type Call = Mapping[str, Any]
"""One row of the ``calls`` view: column name to text, number or None."""

FINDINGS_SINCE = 3
"""The version of the schema that first had findings."""
_HEX = frozenset("0123456789abcdef-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which calls to show: all that are given must hold. ``since_us``: decided at that time or later."""

    principal: str | None = None
    server: str | None = None
    tool: str | None = None
    verdict: str | None = None
    reason: str | None = None
    since_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """All that is stored about one call. ``policy_files`` are the names of the rule files in force then."""

    call: Call
    redactions: int
    outcome_time_us: int | None
    policy_loaded_us: int | None
    policy_files: tuple[str, ...]


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection with rows by name.

    Raises:
        StoreError: there is no audit, it is not ours, of a newer callerid, or cannot be read.
    """
    if inspect_file(path) == 0:
        raise StoreError(
            f"there is no audit at {path}",
            hint="Name the HOME of the proxy with --home DIR; the audit begins with its first start.",
        )
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)
        try:
            connection.row_factory = sqlite3.Row
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise StoreError(
                    f"{path} was written by a newer callerid (schema {version}, this one knows {VERSION})",
                    hint="Read it with that version.",
                )
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise store_error(path, error) from error


def tail(path: Path, since_seq: int, limit: int, only: Filter | None = None) -> tuple[Call, ...]:
    """The newest ``limit`` calls after row ``since_seq``, in the order of the rows.

    Raises:
        StoreError: the audit cannot be read.
    """
    return _calls(path, since_seq, limit, only, newest=True)


def follow(path: Path, since_seq: int, limit: int, only: Filter | None = None) -> tuple[Call, ...]:
    """The next ``limit`` calls after row ``since_seq``: asked again and again, none is left out.

    Raises:
        StoreError: the audit cannot be read.
    """
    return _calls(path, since_seq, limit, only, newest=False)


def show(path: Path, event_id: str) -> tuple[Shown, ...]:
    """The calls whose event id begins with ``event_id``: one, none, or several up to ten.

    Raises:
        StoreError: the audit cannot be read.
    """
    prefix = event_id.strip().lower()
    if not prefix or not _HEX.issuperset(prefix):
        return ()
    with reading(path) as connection:
        # "g" sorts after every hexadecimal digit: a range over the unique index, no LIKE.
        rows = connection.execute(
            f"{_select(connection)} WHERE event_id >= ? AND event_id < ? ORDER BY event_id LIMIT 10",
            (prefix, prefix + "g"),
        ).fetchall()
        return tuple(_shown(connection, dict(row)) for row in rows)


def findings(
    path: Path, limit: int, *, kind: str | None = None, since_us: int | None = None
) -> tuple[Call, ...]:
    """The newest ``limit`` findings, the newest last, one of ``findings`` each.

    An audit that no callerid of this version has opened yet has none.

    Raises:
        StoreError: the audit cannot be read.
    """
    asked = {"kind = ?": kind, "time_us >= ?": since_us}
    conditions = ["1", *(condition for condition, value in asked.items() if value is not None)]
    values = [value for value in asked.values() if value is not None]
    sql = f"SELECT {', '.join(FINDINGS_NAMES)} FROM findings WHERE {' AND '.join(conditions)}"  # noqa: S608
    with reading(path) as connection:
        if connection.execute("PRAGMA user_version").fetchone()[0] < FINDINGS_SINCE:
            return ()
        newest = connection.execute(f"{sql} ORDER BY time_us DESC LIMIT ?", (*values, limit))
        return tuple(dict(row) for row in reversed(newest.fetchall()))


def _calls(path: Path, since_seq: int, limit: int, only: Filter | None, *, newest: bool) -> tuple[Call, ...]:
    conditions, values = ["seq > ?"], [since_seq]
    for name, value in _conditions(only or Filter()):
        conditions.append(name)
        values.append(value)
    order = "DESC" if newest else "ASC"
    rest = f"WHERE {' AND '.join(conditions)} ORDER BY seq {order} LIMIT ?"
    with reading(path) as connection:
        sql = f"{_select(connection)} {rest}"
        rows = [dict(row) for row in connection.execute(sql, (*values, limit))]
    return tuple(reversed(rows)) if newest else tuple(rows)


def _select(connection: sqlite3.Connection) -> str:
    """All columns of ``calls``. A file that no callerid of this version has opened yet lacks the newest."""
    there = {row["name"] for row in connection.execute("PRAGMA table_info(calls)")}
    names = (name if name in there else f"NULL AS {name}" for name in CALLS_NAMES)
    return f"SELECT {', '.join(names)} FROM calls"  # noqa: S608 -- constants only


def _conditions(only: Filter) -> Iterator[tuple[str, Any]]:
    for name in ("principal", "server", "tool", "verdict", "reason"):
        if (value := getattr(only, name)) is not None:
            yield f"{name} = ?", value
    if only.since_us is not None:
        yield "time_us >= ?", only.since_us


def _shown(connection: sqlite3.Connection, call: Call) -> Shown:
    stored = connection.execute(
        "SELECT d.redactions, o.time_us, p.loaded_us, p.sources FROM decision d "
        "LEFT JOIN outcome o ON o.event_id = d.event_id LEFT JOIN policy_version p ON p.hash = d.policy "
        "WHERE d.seq = ?",
        (call["seq"],),
    ).fetchone()
    redactions, outcome_time_us, loaded_us, sources = stored
    return Shown(
        call=call,
        redactions=redactions,
        outcome_time_us=outcome_time_us,
        policy_loaded_us=loaded_us,
        policy_files=tuple(json.loads(sources)) if sources else (),
    )
