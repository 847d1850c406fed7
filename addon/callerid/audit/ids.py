"""Event ids: UUID version 7, so that ids sort by time and the unique index only ever grows at its end."""

from __future__ import annotations

_MAX_MS = (1 << 48) - 1


def uuid7(time_us: int, random: bytes) -> str:
    """Make a UUIDv7 in its text form, lower case with hyphens (RFC 9562 section 5.7).

    The 48-bit field holds milliseconds. The twelve bits of ``rand_a`` hold the fraction of the
    millisecond (RFC 9562 section 6.2, method 3), so ids made a microsecond apart sort in order.

    Args:
        time_us: microseconds since the epoch, UTC.
        random: at least eight random bytes; 62 bits of them are used.

    Raises:
        ValueError: the time does not fit, or there is too little randomness.
    """
    milliseconds, fraction = divmod(time_us, 1000)
    if not 0 <= milliseconds <= _MAX_MS:
        raise ValueError("time_us does not fit the 48 bits of a UUIDv7")
    if len(random) < 8:
        raise ValueError("a UUIDv7 needs at least eight random bytes")
    tail = int.from_bytes(random[:8], "big") & ((1 << 62) - 1)
    number = milliseconds << 80 | 0x7 << 76 | (fraction * 4096 // 1000) << 64 | 0b10 << 62 | tail
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
