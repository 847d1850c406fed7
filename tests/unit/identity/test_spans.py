"""Spans of time as people write them."""

from __future__ import annotations

import pytest

from callerid.identity.spans import seconds_of, span_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000), ("0s", 0), ("", None), ("m", None),
     ("-1d", None), ("1w", None), ("1.5h", None), ("٣d", None), ("9" * 10 + "s", None), ("1 d", None)],
)  # fmt: skip
def test_a_span_is_read_or_refused(text: str, seconds: int | None) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["30d", "36h", "90m", "61s"])
def test_a_span_is_written_as_it_was_read(text: str) -> None:
    assert span_of(seconds_of(text) or 0) == text
