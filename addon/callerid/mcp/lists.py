"""Answers that show a caller only what it may use, and the caching hints that go with them.

The list is a courtesy: the call itself is what policy decides. Yet a name that a caller may not know
should reach it on no path, so a list is known by the method that was asked *and* by its shape: an
answer that is replayed on another stream, or whose id was used twice, has lost its method.

Not filtered: ``resource_link`` and embedded contents of a tool's result, and free text of any kind. They
are what an allowed call says, and a client that follows such a link is decided again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from callerid.mcp.completions import COMPLETION, filter_completion, has_completion
from callerid.model import Kind, Message


class View(Protocol):
    """What one caller may see of one server, asked anew for each thing."""

    def visible(self, kind: Kind, name: str) -> bool:
        """May this caller know of the thing of this kind and name?"""

    def owns_task(self, task_id: str) -> bool:
        """Was this task made for this caller?"""


MAX_TTL_MS = 60_000
"""How long a client may keep an answer: so long may a change of the rules go unseen in it."""


@dataclass(frozen=True, slots=True)
class _List:
    """Where a list sits in a result, and which member of an entry names it; ``kind`` None is a task."""

    member: str
    kind: Kind | None
    name: str


_LISTS: Mapping[str, _List] = MappingProxyType(
    {
        "tools/list": _List("tools", Kind.TOOL, "name"),
        "prompts/list": _List("prompts", Kind.PROMPT, "name"),
        "resources/list": _List("resources", Kind.RESOURCE, "uri"),
        "resources/templates/list": _List("resourceTemplates", Kind.RESOURCE, "uriTemplate"),
        "tasks/list": _List("tasks", None, "taskId"),
    }
)
LIST_METHODS = frozenset(_LISTS)

FILTERED_METHODS = LIST_METHODS | {COMPLETION}
"""The methods whose answer must be read, or it cannot be given out."""

# These too may be marked "public" by a server, and were got with a credential that callers share.
_CACHEABLE = LIST_METHODS | {"resources/read", "server/discover"}


def filter_result(request: Message | None, result: dict[str, Any], view: View) -> dict[str, Any] | None:
    """The result without what the caller may not see; None if it may stay as it is.

    Args:
        request: what it answers, None if that is not known.
        result: the ``result`` member of a JSON-RPC response; it is not changed.
        view: the caller's.

    An entry without a string name is removed, ``nextCursor`` stays, and a page may become empty.
    The caching hints of 2026-07-28 (server/utilities/caching), where present, become ``private`` and
    at most a minute: what is left is one caller's view, though the server made it for a shared key.
    """
    method = None if request is None else request.method
    changes: dict[str, Any] = {}
    is_list = method in LIST_METHODS
    for list_method, place in _LISTS.items():
        if place.member not in result:
            continue
        if method == list_method or _has_shape(result[place.member], place):
            is_list = True
            kept = _keep(result[place.member], place, view)
            if kept != result[place.member]:
                changes[place.member] = kept
    if has_completion(method, result):
        completion = filter_completion(request, result["completion"], view.visible)
        if completion is not None:
            changes["completion"] = completion
    if is_list or method is None or method in _CACHEABLE:
        changes |= _hints(result)
    return {**result, **changes} if changes else None


def has_list(method: str | None, result: dict[str, Any]) -> bool:
    """Whether ``filter_result`` takes this result for something to filter, changed or not."""
    return (
        method in FILTERED_METHODS
        or has_completion(method, result)
        or any(_has_shape(result.get(place.member), place) for place in _LISTS.values())
    )


def hide(message: dict[str, Any], view: View) -> dict[str, Any] | None:
    """A notification without what the caller may not see; None if nothing is left, itself if it may stay.

    ``notifications/resources/updated`` (all revisions), ``notifications/tasks`` and
    ``notifications/tasks/status`` pass if the resource is visible, the task the caller's own. Of
    ``notifications/subscriptions/acknowledged`` only what the caller may listen to is left.
    """
    method = message.get("method")
    if not isinstance(method, str):
        return message
    params = message.get("params")
    members = params if isinstance(params, dict) else {}
    if method == "notifications/resources/updated":
        uri = members.get("uri")
        return message if isinstance(uri, str) and view.visible(Kind.RESOURCE, uri) else None
    if method.startswith("notifications/tasks"):
        task_ids = _task_ids(members)
        owned = [isinstance(task_id, str) and view.owns_task(task_id) for task_id in task_ids]
        return message if owned and all(owned) else None
    if method == "notifications/subscriptions/acknowledged":
        kept = _acknowledged(members, view)
        return message if kept is members else {**message, "params": kept}
    return message


def _acknowledged(params: dict[str, Any], view: View) -> dict[str, Any]:
    kept = _listened(params, view)
    wanted = kept.get("notifications")
    if not isinstance(wanted, dict):
        return kept
    inner = _listened(wanted, view)
    return kept if inner is wanted else {**kept, "notifications": inner}


def _listened(holder: dict[str, Any], view: View) -> dict[str, Any]:
    """The same object, or a copy whose lists of resources and tasks hold only what the caller may see."""

    def is_seen(uri: str) -> bool:
        return view.visible(Kind.RESOURCE, uri)

    checks: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("resourceSubscriptions", is_seen),
        ("taskIds", view.owns_task),
    )
    changes: dict[str, Any] = {}
    for member, check in checks:
        names = holder.get(member)
        if names is None:
            continue
        entries = names if isinstance(names, list) else []
        kept = [name for name in entries if isinstance(name, str) and check(name)]
        if kept != names:
            changes[member] = kept
    return {**holder, **changes} if changes else holder


def _task_ids(params: dict[str, Any]) -> list[Any]:
    """Every id that the news of a task may be about: that of the params, and of a task inside them."""
    task = params.get("task")
    holders = (params, task) if isinstance(task, dict) else (params,)
    return [holder["taskId"] for holder in holders if "taskId" in holder]


def _hints(result: dict[str, Any]) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    if result.get("cacheScope", "private") != "private":
        hints["cacheScope"] = "private"
    if "ttlMs" in result and not _is_short(result["ttlMs"]):
        hints["ttlMs"] = MAX_TTL_MS if _is_long(result["ttlMs"]) else 0
    return hints


def _has_shape(value: Any, place: _List) -> bool:
    return isinstance(value, list) and any(_name(entry, place) is not None for entry in value)


def _keep(value: Any, place: _List, view: View) -> list[Any]:
    entries = value if isinstance(value, list) else []
    named = [(entry, _name(entry, place)) for entry in entries]
    return [entry for entry, name in named if name is not None and _is_seen(place, name, view)]


def _is_seen(place: _List, name: str, view: View) -> bool:
    return view.owns_task(name) if place.kind is None else view.visible(place.kind, name)


def _name(entry: Any, place: _List) -> str | None:
    name = entry.get(place.name) if isinstance(entry, dict) else None
    return name if isinstance(name, str) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_short(value: Any) -> bool:
    return _is_number(value) and bool(0 <= value <= MAX_TTL_MS)


def _is_long(value: Any) -> bool:
    return _is_number(value) and bool(value > MAX_TTL_MS)
