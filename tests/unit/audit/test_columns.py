from __future__ import annotations

import sqlite3

from callerid.audit.columns import CALLS, CALLS_NAMES, utc


def test_every_column_is_named_once_and_means_one_sentence() -> None:
    assert len(set(CALLS_NAMES)) == len(CALLS)
    for column in CALLS:
        assert column.meaning.endswith("."), column.name
        assert "|" not in column.meaning, "the meaning goes into a Markdown table"


def test_utc_is_iso_8601_with_milliseconds() -> None:
    connection = sqlite3.connect(":memory:")
    assert connection.execute(f"SELECT {utc('1790000000007999')}").fetchone() == ("2026-09-21T14:13:20.008Z",)
    assert connection.execute(f"SELECT {utc('NULL')}").fetchone() == (None,)
    connection.close()
