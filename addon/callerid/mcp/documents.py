"""JSON documents of a server as clients read them, and as they are written anew.

The reading is that of the official SDKs: UTF-8 with U+FFFD for what is not, a byte order mark skipped, the
last of equal members wins. Where some reader takes the first instead, the document has a second reading.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

# What every ask has in it, and an answer that may hide one from us: a member name, or an escape in one.
_ASKING = (b'"method"', b'"inputRequests"', b'"elicitations"')


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON text: its reading, and that in which the first of equal members wins.

    ``other`` is the same object as ``value`` where no object has equal members.
    """

    value: Any
    other: Any


def read(text: str) -> Document | None:
    """The document; None if it is not one that Python can read."""
    twice = False

    def last(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        members = dict(pairs)
        twice = twice or len(members) != len(pairs)
        return members

    try:
        value = json.loads(text, object_pairs_hook=last)
        other = json.loads(text, object_pairs_hook=_first) if twice else value
    except (ValueError, RecursionError):
        return None
    return Document(value, other)


def _first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        members.setdefault(name, value)
    return members


def messages_of(value: Any) -> list[Any]:
    """The members of a batch, or the one message."""
    return value if isinstance(value, list) else [value]


def may_be_json(text: str) -> bool:
    """Whether some client might find an object or an array here, if only in another UTF."""
    return text.lstrip(" \t\r\n\x00\ufeff\ufffd")[:1] in ("{", "[")


def may_ask(raw: bytes) -> bool:
    """Whether bytes that we cannot read may hold an ask for a client that can, in UTF-8, UTF-16 or UTF-32."""
    plain = raw.replace(b"\0", b"")
    return any(word in plain for word in _ASKING) or (b"\\u" in plain and b'"' in plain)


def may_be_message(raw: bytes) -> bool:
    """The same for a request or a result, in an event: readers differ about what ends its lines."""
    return may_ask(raw) or b'"result"' in raw


def write(value: Any) -> str:
    """JSON on one line. A lone surrogate cannot be UTF-8, and is then written as the escape it was."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text
