from __future__ import annotations

import sqlite3

from callerid.audit.columns import CALLS, CALLS_NAMES, FINDINGS, RAW_KEYS, utc


def test_every_column_is_named_once_and_means_one_sentence() -> None:
    assert len(set(CALLS_NAMES)) == len(CALLS)
    for columns in (CALLS, FINDINGS, RAW_KEYS):
        assert len({column.name for column in columns}) == len(columns)
        for column in columns:
            assert column.meaning.endswith("."), column.name
            assert "|" not in column.meaning, "the meaning goes into a Markdown table"


def test_utc_is_iso_8601_with_milliseconds() -> None:
    connection = sqlite3.connect(":memory:")
    assert connection.execute(f"SELECT {utc('1790000000007999')}").fetchone() == ("2026-09-21T14:13:20.008Z",)
    assert connection.execute(f"SELECT {utc('NULL')}").fetchone() == (None,)
    connection.close()
