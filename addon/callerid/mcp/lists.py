"""Lists that show a caller only what it may use, and the caching hints that go with such lists.

The list is a courtesy: the call itself is what policy decides. Yet a name that a caller may not know
should reach it on no path, so a list is known by the method that was asked *and* by its shape: an
answer that is replayed on another stream, or whose id was used twice, has lost its method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from callerid.model import Kind

type Visible = Callable[[Kind, str], bool]
"""May this caller know of the thing of this kind and name?"""

MAX_TTL_MS = 60_000
"""How long a client may keep a filtered list: so long may a change of the rules go unseen in it."""


@dataclass(frozen=True, slots=True)
class _List:
    """Where a list sits in a result, and which member of an entry is its name."""

    member: str
    kind: Kind
    name: str


_LISTS: Mapping[str, _List] = MappingProxyType(
    {
        "tools/list": _List("tools", Kind.TOOL, "name"),
        "prompts/list": _List("prompts", Kind.PROMPT, "name"),
        "resources/list": _List("resources", Kind.RESOURCE, "uri"),
        "resources/templates/list": _List("resourceTemplates", Kind.RESOURCE, "uriTemplate"),
    }
)
LIST_METHODS = frozenset(_LISTS)

# These too may be marked "public" by a server, and were got with a credential that callers share.
_CACHEABLE = LIST_METHODS | {"resources/read", "server/discover"}


def filter_result(method: str | None, result: dict[str, Any], visible: Visible) -> dict[str, Any] | None:
    """The result without what the caller may not see; None if it may stay as it is.

    Args:
        method: what the answered request asked, None if that is not known.
        result: the ``result`` member of a JSON-RPC response; it is not changed.
        visible: the question to policy.

    An entry without a string name is removed, ``nextCursor`` stays, and a page may become empty.
    The caching hints of 2026-07-28 (server/utilities/caching), where present, become ``private`` and
    at most a minute: what is left is one caller's view, though the server made it for a shared key.
    """
    changes: dict[str, Any] = {}
    is_list = method in LIST_METHODS
    for list_method, place in _LISTS.items():
        if place.member not in result:
            continue
        if method == list_method or _has_shape(result[place.member], place):
            is_list = True
            kept = _keep(result[place.member], place, visible)
            if kept != result[place.member]:
                changes[place.member] = kept
    if (is_list or method in _CACHEABLE) and result.get("cacheScope", "private") != "private":
        changes["cacheScope"] = "private"
    if is_list and "ttlMs" in result and not _is_short(result["ttlMs"]):
        changes["ttlMs"] = MAX_TTL_MS if _is_long(result["ttlMs"]) else 0
    return {**result, **changes} if changes else None


def has_list(method: str | None, result: dict[str, Any]) -> bool:
    """Whether ``filter_result`` takes this result for a list, changed or not."""
    return method in LIST_METHODS or any(
        _has_shape(result.get(place.member), place) for place in _LISTS.values()
    )


def tells_hidden(message: dict[str, Any], visible: Visible) -> bool:
    """Whether this is a ``notifications/resources/updated`` about a resource hidden from the caller."""
    if message.get("method") != "notifications/resources/updated":
        return False
    params = message.get("params")
    uri = params.get("uri") if isinstance(params, dict) else None
    return not isinstance(uri, str) or not visible(Kind.RESOURCE, uri)


def _has_shape(value: Any, place: _List) -> bool:
    return isinstance(value, list) and any(_name(entry, place) is not None for entry in value)


def _keep(value: Any, place: _List, visible: Visible) -> list[Any]:
    entries = value if isinstance(value, list) else []
    named = [(entry, _name(entry, place)) for entry in entries]
    return [entry for entry, name in named if name is not None and visible(place.kind, name)]


def _name(entry: Any, place: _List) -> str | None:
    name = entry.get(place.name) if isinstance(entry, dict) else None
    return name if isinstance(name, str) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_short(value: Any) -> bool:
    return _is_number(value) and bool(0 <= value <= MAX_TTL_MS)


def _is_long(value: Any) -> bool:
    return _is_number(value) and bool(value > MAX_TTL_MS)
