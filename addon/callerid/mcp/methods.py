"""The closed table of what a client may say to an MCP server, per revision, and where the object stands.

From the schemas of the five revisions (unions ClientRequest and ClientNotification) and the Tasks
extension. A method that the revision in force does not define is an unknown method, whatever another
revision says of it: its kind is METHOD, and only an explicit rule lets it pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from callerid.mcp.strictjson import dumps, fold
from callerid.model import EMPTY, Kind, MessageType

LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN = ("2026-07-28",)
REVISIONS = frozenset(LEGACY + MODERN)
BATCHING = frozenset({"2024-11-05", "2025-03-26"})

META_VERSION = "io.modelcontextprotocol/protocolVersion"
META_CLIENT_INFO = "io.modelcontextprotocol/clientInfo"

MAX_NAME = 256
MAX_URI = 8192

MIRRORED: Mapping[str, str] = MappingProxyType(
    {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
)
"""Method to the member of params that the ``Mcp-Name`` header must repeat (2026-07-28)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a message acts on. ``arguments`` of METHOD and PROTOCOL messages are params without ``_meta``."""

    kind: Kind
    name: str | None = None
    arguments: Mapping[str, Any] = EMPTY


type Found = Target | str
"""A target, or the sentence that says why there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One row of the table: the shape it must come in, the revisions that define it, how to read params."""

    type: MessageType
    revisions: frozenset[str]
    find: Callable[[Mapping[str, Any]], Found]


def locate(method: str, params: Mapping[str, Any], revision: str | None) -> Found:
    """Find what a message acts on.

    Args:
        method: the method, exactly as sent.
        params: its params; empty if it has none.
        revision: the revision in force, one of REVISIONS, or None before it is known.
    """
    row = METHODS.get(method)
    if row is None:
        return Target(kind=Kind.METHOD, arguments=_without_meta(params))
    twin = variant(params, PARAMS_NAMES)
    if twin is not None:
        return f"params has the member {twin[:64]!r}, a variant in case of a name that MCP defines"
    if revision is not None and revision not in row.revisions:
        return Target(kind=Kind.METHOD, arguments=_without_meta(params))
    return row.find(params)


def shape_flaw(method: str, type: MessageType) -> str | None:
    """What is wrong with sending this method as a request or as a notification; None if nothing is."""
    row = METHODS.get(method)
    if row is not None:
        expected = row.type
    elif method.startswith("notifications/"):
        expected = MessageType.NOTIFICATION
    else:
        return None
    if type is expected:
        return None
    if expected is MessageType.REQUEST:
        return f"{method} is a request and needs an id"
    return "a notification has no id"


def name_flaw(value: object, limit: int) -> str | None:
    """What is wrong with a name or URI: it must be 1 to ``limit`` characters, none of them control."""
    if not isinstance(value, str) or not value:
        return "must be a non-empty string"
    if len(value) > limit:
        return f"is longer than {limit} characters"
    if not value.isprintable() and any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in value):
        return "holds a control character"
    return None


def mirrored(method: str, params: Mapping[str, Any]) -> tuple[str, ...]:
    """What ``Mcp-Name`` may repeat: the member in MIRRORED, else any member that names something."""
    member = MIRRORED.get(method)
    found = [params.get(name) for name in ((member,) if member is not None else ("name", "uri", "taskId"))]
    return tuple(name for name in found if isinstance(name, str))


@dataclass(frozen=True, slots=True)
class Names:
    """Member names that MCP defines for one object, as they are and folded."""

    exact: frozenset[str]
    folded: frozenset[str]


def variant(members: Mapping[str, Any], names: Names) -> str | None:
    """The first member that a reader ignoring case would take for one of ``names``, or None.

    Such a reader was CVE-2026-27896.
    """
    for member in members:
        if member not in names.exact and fold(member) in names.folded:
            return member
    return None


def name_set(*names: str) -> Names:
    """``Names`` of these names."""
    return Names(frozenset(names), frozenset(map(fold, names)))


META_NAMES = name_set(
    META_VERSION,
    META_CLIENT_INFO,
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/logLevel",
    "io.modelcontextprotocol/related-task",
    "progressToken",
    "traceparent",
    "tracestate",
    "baggage",
)
PARAMS_NAMES = name_set(
    "_meta",
    "name",
    "arguments",
    "uri",
    "ref",
    "argument",
    "context",
    "cursor",
    "level",
    "task",
    "taskId",
    "requestState",
    "inputResponses",
    "notifications",
    "resourceSubscriptions",
    "taskIds",
    "protocolVersion",
    "capabilities",
    "clientInfo",
    "requestId",
    "progressToken",
)
_REF_NAMES = name_set("type", "name", "uri")
_COMPLETION_NAMES = name_set("name", "value", "arguments")
_LISTENED = frozenset(
    {"toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions", "taskIds"}
)


def _without_meta(params: Mapping[str, Any]) -> Mapping[str, Any]:
    if "_meta" not in params:
        return params
    return {name: value for name, value in params.items() if name != "_meta"}


def _protocol(params: Mapping[str, Any]) -> Found:
    return Target(kind=Kind.PROTOCOL, arguments=_without_meta(params))


def _method(params: Mapping[str, Any]) -> Found:
    return Target(kind=Kind.METHOD, arguments=_without_meta(params))


def _named(kind: Kind, params: Mapping[str, Any]) -> Found:
    flaw = name_flaw(params.get("name"), MAX_NAME)
    if flaw is not None:
        return f"params.name {flaw}"
    arguments = params.get("arguments", EMPTY)
    if not isinstance(arguments, Mapping):
        return "params.arguments must be an object, or be left out"
    return Target(kind=kind, name=params["name"], arguments=arguments)


def _tool(params: Mapping[str, Any]) -> Found:
    return _named(Kind.TOOL, params)


def _prompt(params: Mapping[str, Any]) -> Found:
    return _named(Kind.PROMPT, params)


def _resource(params: Mapping[str, Any]) -> Found:
    flaw = name_flaw(params.get("uri"), MAX_URI)
    if flaw is not None:
        return f"params.uri {flaw}"
    return Target(kind=Kind.RESOURCE, name=params["uri"])


def _completion(params: Mapping[str, Any]) -> Found:
    """completion/complete: a question about a prompt or a resource template, with its arguments so far."""
    ref = params.get("ref")
    if not isinstance(ref, Mapping):
        return "params.ref must be an object"
    if variant(ref, _REF_NAMES) is not None:
        return "params.ref has a variant in case of a name that MCP defines"
    arguments = _completed(params)
    if isinstance(arguments, str):
        return arguments
    match ref.get("type"):
        case "ref/prompt":
            member, kind, limit = "name", Kind.PROMPT, MAX_NAME
        case "ref/resource":
            member, kind, limit = "uri", Kind.RESOURCE, MAX_URI
        case _:
            return "params.ref.type must be ref/prompt or ref/resource"
    flaw = name_flaw(ref.get(member), limit)
    if flaw is not None:
        return f"params.ref.{member} {flaw}"
    return Target(kind=kind, name=ref[member], arguments=arguments)


def _completed(params: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """The arguments that a completion tells: the one being typed, and those of ``context``."""
    argument = params.get("argument", EMPTY)
    context = params.get("context", EMPTY)
    if not isinstance(argument, Mapping) or not isinstance(context, Mapping):
        return "params.argument and params.context must be objects"
    known = context.get("arguments", EMPTY)
    if not isinstance(known, Mapping):
        return "params.context.arguments must be an object"
    if variant(argument, _COMPLETION_NAMES) or variant(context, _COMPLETION_NAMES):
        return "params has a variant in case of a name that MCP defines"
    name = argument.get("name")
    if name is None:
        return known
    if not isinstance(name, str):
        return "params.argument.name must be a string"
    value = argument.get("value")
    # By their bytes: to Python 1, 1.0 and true are equal, and to a server they are not.
    if name in known and dumps(known[name]) != dumps(value):
        return "params.argument and params.context disagree about an argument"
    # The one being typed stands last: lists.py expands the template by it.
    return {**{other: known[other] for other in known if other != name}, name: value}


def _listen(params: Mapping[str, Any]) -> Found:
    """subscriptions/listen (2026-07-28, subscriptions): its resources and tasks are decided one by one.

    They are in the message's refs. A filter that names anything that we do not know needs a rule of its own.
    """
    wanted = params.get("notifications", EMPTY)
    if not isinstance(wanted, Mapping):
        return "params.notifications must be an object"
    named = [name for name, value in wanted.items() if name not in _LISTENED and value not in ([], None)]
    return _method(params) if named else _protocol(params)


def _request(find: Callable[[Mapping[str, Any]], Found], *revisions: str) -> Method:
    return Method(type=MessageType.REQUEST, revisions=frozenset(revisions), find=find)


def _notification(*revisions: str) -> Method:
    return Method(type=MessageType.NOTIFICATION, revisions=frozenset(revisions), find=_protocol)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "initialize": _request(_protocol, *LEGACY),
        "server/discover": _request(_protocol, *MODERN),
        "ping": _request(_protocol, *LEGACY),
        "logging/setLevel": _request(_protocol, *LEGACY),
        "tools/list": _request(_protocol, *REVISIONS),
        "tools/call": _request(_tool, *REVISIONS),
        "resources/list": _request(_protocol, *REVISIONS),
        "resources/templates/list": _request(_protocol, *REVISIONS),
        "resources/read": _request(_resource, *REVISIONS),
        "resources/subscribe": _request(_resource, *LEGACY),
        "resources/unsubscribe": _request(_resource, *LEGACY),
        "subscriptions/listen": _request(_listen, *MODERN),
        "prompts/list": _request(_protocol, *REVISIONS),
        "prompts/get": _request(_prompt, *REVISIONS),
        "completion/complete": _request(_completion, *REVISIONS),
        "tasks/list": _request(_method, "2025-11-25"),
        "tasks/result": _request(_method, "2025-11-25"),
        "tasks/get": _request(_method, "2025-11-25", *MODERN),
        "tasks/cancel": _request(_method, "2025-11-25", *MODERN),
        "tasks/update": _request(_method, *MODERN),
        "notifications/initialized": _notification(*LEGACY),
        "notifications/cancelled": _notification(*REVISIONS),
        "notifications/progress": _notification(*LEGACY),
        "notifications/roots/list_changed": _notification(*LEGACY),
        "notifications/tasks/status": _notification("2025-11-25"),
    }
)
