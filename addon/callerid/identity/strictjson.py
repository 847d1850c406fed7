"""JSON as evidence: one reading only. Used for JWT headers, JWT claims and JWKS documents.

RFC 8259 section 4 leaves duplicate names open, and readers differ; a claim that two readers see
differently proves nothing.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number


def parse_object(data: bytes) -> dict[str, Any] | None:
    """The JSON object in ``data``, or None when it is not exactly one.

    None for: not UTF-8, a byte order mark, duplicate names at any depth, NaN and Infinity, a number too
    large or too long to read, nesting too deep, trailing bytes, or a value that is no object.
    """
    try:
        value = json.loads(
            data.decode("utf-8", "strict"),
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
