"""Parts of mitmproxy's engine that every call pays for, made cheaper. Each gives exactly what it gave.

Measured (``docs/performance.md``): headers are looked up by name some thirty times in a call, each time
through five calls for each header.
"""

from __future__ import annotations

from typing import Any, Final

from mitmproxy import http


def _get_all(headers: http.Headers, name: str | bytes) -> list[str]:
    raw = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
    wanted, size = raw.lower(), len(raw)
    return [
        value.decode("utf-8", "surrogateescape")
        for key, value in headers.fields
        if len(key) == size and key.lower() == wanted
    ]


def _get(headers: http.Headers, name: str | bytes, default: Any = None) -> Any:
    values = _get_all(headers, name)
    return ", ".join(values) if values else default


def _contains(headers: http.Headers, name: object) -> bool:
    if not isinstance(name, str | bytes):
        raise TypeError("the name of a header is text or bytes")
    return bool(_get_all(headers, name))


PLACES: Final[tuple[tuple[Any, str, Any], ...]] = (
    (http.Headers, "get_all", _get_all),
    (http.Headers, "get", _get),
    (http.Headers, "__contains__", _contains),
)
"""What is put in the place of what, as in ``engine``."""
