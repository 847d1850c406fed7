"""What a request says it is, where it was not read as MCP by the strict reading: for the row only.

A request to a server that is only observed goes on as it came, whatever its shape. Its row should still
name the tool. Nothing is decided by this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from callerid.mcp import lenient
from callerid.mcp.lenient import PARSE_LIMIT, Pairs
from callerid.mcp.methods import METHODS
from callerid.mcp.strictjson import fold
from callerid.model import Kind, Message, MessageType, RpcId

MAX_MESSAGES = 50
MAX_NAME = 8_192
"""Kept of a name: far more than a row keeps, since half a secret has no shape to be redacted by."""

_KNOWN: Mapping[str, str] = {fold(name): name for name in METHODS}
_OBJECTS: Mapping[str, tuple[Kind, str]] = {
    "tools/call": (Kind.TOOL, "name"),
    "prompts/get": (Kind.PROMPT, "name"),
    "resources/read": (Kind.RESOURCE, "uri"),
    "resources/subscribe": (Kind.RESOURCE, "uri"),
    "resources/unsubscribe": (Kind.RESOURCE, "uri"),
}
_LARGEST_ID = 2**53


def claimed_messages(headers: Sequence[tuple[str, str]], body: bytes) -> tuple[Message, ...]:
    """The JSON-RPC messages in a body, by the most forgiving reading; none if it is no JSON-RPC. Total."""
    charset, version = lenient.charset_of(headers), _version(headers)
    for plain in lenient.readings(body[: 16 * PARSE_LIMIT], lenient.encodings_of(headers)):
        if not plain or not lenient.opens_json(plain[:256]):
            continue
        for text in lenient.texts_of(plain, charset):
            found = _messages(text, version)
            if found:
                return found
    return ()


def _messages(text: str, version: str | None) -> tuple[Message, ...]:
    try:
        value = lenient.first_value(text)
    except (ValueError, RecursionError):
        return ()
    found = (_message(member, version) for member in lenient.members_of(value)[:MAX_MESSAGES])
    return tuple(message for message in found if message is not None)


def _message(member: Pairs, version: str | None) -> Message | None:
    named = [value for value in member.all("method") if isinstance(value, str)]
    if not named:
        return None
    # Of a duplicate name, the one that means something is shown: somebody may read it so.
    known = [_KNOWN[fold(value.strip())] for value in named if fold(value.strip()) in _KNOWN]
    method = known[-1] if known else named[-1][:MAX_NAME]
    kind, holder = _OBJECTS.get(method, (Kind.METHOD, ""))
    rpc_id = _id(member)
    return Message(
        type=MessageType.NOTIFICATION if rpc_id is None else MessageType.REQUEST,
        method=method,
        kind=kind,
        rpc_id=rpc_id,
        name=_name(member, holder) if holder else None,
        protocol=version,
    )


def _name(member: Pairs, holder: str) -> str | None:
    for params in member.all("params"):
        for value in params.all(holder) if isinstance(params, Pairs) else ():
            if isinstance(value, str):
                return value[:MAX_NAME]
    return None


def _id(member: Pairs) -> RpcId | None:
    found: Any = None
    for value in member.all("id"):
        found = value
    if type(found) is str:
        return found[:MAX_NAME]
    return found if type(found) is int and abs(found) <= _LARGEST_ID else None


def _version(headers: Sequence[tuple[str, str]]) -> str | None:
    values = [value.strip() for name, value in headers if name.lower() == "mcp-protocol-version"]
    return values[0][:64] if values else None
