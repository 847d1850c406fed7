"""Spans of time as people write them: ``90m``, ``12h``, ``30d``. Pure, total on any text."""

from __future__ import annotations

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds_of(text: str) -> int | None:
    """``text`` in seconds, or None when it is no whole number of s, m, h or d."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isascii() or not number.isdigit() or len(number) > 9:
        return None
    return int(number) * _UNITS[unit]


def span_of(seconds: int) -> str:
    """A span in the largest unit that fits evenly."""
    for unit in ("d", "h", "m"):
        if seconds % _UNITS[unit] == 0:
            return f"{seconds // _UNITS[unit]}{unit}"
    return f"{seconds}s"
