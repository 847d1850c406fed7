"""What several commands read alike."""

from __future__ import annotations

import pytest

from callerid.cli.options import span


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("7d", 604_800), ("2w", 1_209_600), ("999999w", 999_999 * 604_800), ("0s", 0),
     ("w", None), ("", None), ("9999999s", None), ("-1w", None), ("1.5w", None), ("1ww", None), ("٣w", None)],
)  # fmt: skip
def test_a_span_is_read_or_refused(text: str, seconds: int | None) -> None:
    assert span(text) == seconds
