"""Is an answer of a server that nobody registered MCP's? By its head and its first bytes.

What tells is the shape: JSON-RPC at the top level, and in it what only MCP has. A text that quotes a
message, a schema that names its members and a document about MCP are not that. Nor are the answers of LSP,
A2A, Ethereum and other JSON-RPC, nor those of model APIs that hand on a tool's result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from callerid.mcp import lenient
from callerid.mcp.lenient import Pairs
from callerid.mcp.prefix import completed

LOOK = 16_384
"""The most bytes of a body that are looked at."""

_META_PREFIX = "io.modelcontextprotocol/"
_CONTENT_TYPES = frozenset({"text", "image", "audio", "resource", "resource_link"})
_RESULT_TYPES = frozenset({"complete", "input_required", "task"})
_LISTS = (
    ("tools", ("inputSchema",)),
    ("resourceTemplates", ("uriTemplate",)),
    ("resources", ("uri", "name")),
    ("contents", ("uri", "text")),
    ("contents", ("uri", "blob")),
)
_NO_TOOL_RESULT = ("role", "model", "stop_reason", "choices")
"""Members of a model's answer, which has a ``content`` as well."""
_SAID = frozenset(
    {
        "sampling/createMessage",
        "elicitation/create",
        "roots/list",
        "notifications/message",
        "notifications/progress",
        "notifications/cancelled",
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
        "notifications/elicitation/complete",
        "notifications/subscriptions/acknowledged",
    }
)
"""What servers say of their own accord; ``notifications/tasks`` are A2A's as well."""
_HEADER_ERRORS = frozenset({-32020, -32021, -32022})
_ENDPOINTS = ("sessionid=", "session_id=", "/messages", "/message?")
_LINES = ("data:", "event:", "id:", "retry:", ":")


def has_mcp_head(headers: Sequence[tuple[str, str]]) -> bool:
    """Whether the head of an answer alone says that it is MCP's: it opens or names a session."""
    return any(name.lower() == "mcp-session-id" for name, _ in headers)


def is_event_stream(headers: Sequence[tuple[str, str]]) -> bool:
    """Whether the content type says that it is an event stream."""
    return any(
        name.lower() == "content-type" and value.split(";")[0].strip().lower() == "text/event-stream"
        for name, value in headers
    )


def looks_like_mcp_response(
    status: int, headers: Sequence[tuple[str, str]], first_bytes: bytes, *, http_method: str = "POST"
) -> bool:
    """Whether the start of a response is MCP's: its session header, its SSE endpoint, its result shapes.

    Args:
        status: the HTTP status; the codes of 2026-07-28 count only with the 400 that they belong to.
        headers: name and value of every header line.
        first_bytes: the start of the body, not encoded; it may end anywhere.
        http_method: of the request; MCP answers no GET with JSON, but with a stream that says so.
    """
    if has_mcp_head(headers):
        return True
    streams = is_event_stream(headers)
    asked = http_method not in ("GET", "HEAD", "OPTIONS")
    text = first_bytes[:LOOK].decode("utf-8", "replace").lstrip(lenient.SPACE)
    if text[:1] in ("{", "["):
        return asked and _answers_mcp(text, status)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not (asked or streams) or not lines[0].startswith(_LINES):
        return False
    return any(_event_is_mcp(event, data, status, streams and first) for first, event, data in _events(lines))


def _events(lines: Sequence[str]) -> Iterator[tuple[bool, str, str]]:
    """The first events of a stream as (it is the first one, name, data); the last one may be cut off."""
    event, data, first = "", "", True
    for line in [*lines, ""]:
        name, _, value = line.partition(":")
        if name == "event":
            event = value.strip()
        elif name == "data":
            data += value.strip()
        elif not line:
            if event or data:
                yield first, event, data
                first = False
            event, data = "", ""


def _event_is_mcp(event: str, data: str, status: int, opens: bool) -> bool:
    if event == "endpoint":
        # The name and the place are MCP's own; where the stream does not say what it is, the words tell.
        return (opens and _is_reference(data)) or any(sign in data.lower() for sign in _ENDPOINTS)
    return data[:1] in ("{", "[") and _answers_mcp(data, status)


def _is_reference(data: str) -> bool:
    return data.startswith(("/", "http://", "https://", "?", "./")) and not any(c.isspace() for c in data)


def _answers_mcp(text: str, status: int) -> bool:
    """Whether JSON text, perhaps cut off, is an answer of an MCP server or a request from one."""
    cut = False
    try:
        value = lenient.first_value(text)
    except RecursionError:
        return False
    except ValueError:
        cut = True
        try:
            value = lenient.first_value(completed(text))
        except (ValueError, RecursionError):
            return False
    return any(_is_answer(message, status, cut) for message in lenient.members_of(value))


def _is_answer(message: Pairs, status: int, cut: bool) -> bool:
    members = dict(message)
    result = members.get("result")
    if "jsonrpc" not in members:
        # Some SDKs write the result first, and the rest of the message beyond where we look.
        return cut and isinstance(result, Pairs) and _is_telling(dict(result))
    method = members.get("method")
    if isinstance(method, str):
        return method in _SAID
    error = members.get("error")
    if isinstance(error, Pairs):
        code = dict(error).get("code")
        return status == 400 and isinstance(code, int) and code in _HEADER_ERRORS
    return isinstance(result, Pairs) and _is_result(dict(result))


def _is_telling(result: dict[str, Any]) -> bool:
    """What nothing else has: a list of tools with their input schemas, or the answer to ``initialize``."""
    if isinstance(result.get("protocolVersion"), str) and isinstance(result.get("serverInfo"), Pairs):
        return True
    return _lists(result.get("tools"), ("name", "inputSchema"))


def _is_result(result: dict[str, Any]) -> bool:
    meta = result.get("_meta")
    if isinstance(meta, Pairs) and any(name.startswith(_META_PREFIX) for name, _ in meta):
        return True
    kind = result.get("resultType")
    if isinstance(kind, str) and kind in _RESULT_TYPES:
        return True
    if "protocolVersion" in result and "serverInfo" in result:
        return True
    if any(_lists(result.get(name), wanted) for name, wanted in _LISTS):
        return True
    return not any(name in result for name in _NO_TOOL_RESULT) and _is_content(result.get("content"))


def _lists(items: object, wanted: Sequence[str]) -> bool:
    if not isinstance(items, list):
        return False
    return any(isinstance(item, Pairs) and all(name in dict(item) for name in wanted) for item in items)


def _is_content(items: object) -> bool:
    if not isinstance(items, list):
        return False
    types = [dict(item).get("type") for item in items if isinstance(item, Pairs)]
    return any(isinstance(name, str) and name in _CONTENT_TYPES for name in types)
