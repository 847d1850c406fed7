"""Is an exchange with a server that nobody registered MCP? Lenient on purpose.

``classify`` refuses what two readers could read differently; here the same input must be *seen*, or a
byte order mark would hide an MCP server from ``unknown_server``. So every reading that some server was
measured to accept counts: other encodings, compression, duplicate names, batches, any content type.
Never decisive: the path, the content type, the user agent.

Not MCP: LSP, A2A, Ethereum and other JSON-RPC, the APIs of model providers. Where they share a method name
with MCP (``initialize``, ``ping``, ``tasks/*``), a second sign is asked for.

What stays unseen: a body in an encoding that we cannot decode (br, zstd) without any other sign, and words
spelled with escapes in a body longer than PARSE_LIMIT.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from callerid.mcp.methods import METHODS
from callerid.mcp.strictjson import fold

PARSE_LIMIT = 1_048_576

_SHARED = frozenset({"initialize", "ping"})
_OWN_METHODS = frozenset(
    fold(name)
    for name in METHODS
    if name not in _SHARED and not name.startswith(("tasks/", "notifications/tasks"))
)
_SHARED_METHODS = _SHARED | frozenset(fold(name) for name in METHODS if name.startswith("tasks/"))
_META_PREFIX = "io.modelcontextprotocol/"
_SPACE = " \t\r\n\f\v\ufeff\0"
_SPACE_BYTES = _SPACE.encode() + b"\xfe\xff"
_GZIP = 47  # zlib's window bits for "gzip or zlib, look for yourself"
_RAW_DEFLATE = -15
_CHARSETS = frozenset(
    {"utf-7", "utf-16", "utf-16le", "utf-16be", "utf-32", "utf-32le", "utf-32be", "utf7", "utf16", "utf32"}
)
_CONTENT_TYPES = frozenset({"text", "image", "audio", "resource", "resource_link"})
_LISTS = (
    ("tools", "inputSchema"),
    ("resourceTemplates", "uriTemplate"),
    ("resources", "uri"),
    ("contents", "uri"),
)
_SERVER_METHODS = frozenset({"sampling/createMessage", "elicitation/create", "roots/list"})
_HEADER_ERRORS = frozenset({-32020, -32021, -32022})
_ENDPOINTS = ("sessionid=", "session_id=", "/messages", "/message?")


def looks_like_mcp_request(http_method: str, headers: Sequence[tuple[str, str]], body: bytes) -> bool:
    """Whether a request is MCP, by its decisive headers or by its body.

    Cheap for what is plainly something else: the first character that is not space decides.

    Args:
        http_method: as sent; on GET the version header alone proves nothing, for SDKs send it with
            OAuth discovery as well.
        headers: name and value of every header line.
        body: as received; encoded bodies are decoded up to PARSE_LIMIT.
    """
    accept, encodings, charset, version = "", "", "", False
    for name, value in headers:
        match name.lower():
            case "mcp-session-id" | "mcp-method":
                return True
            case "mcp-protocol-version":
                version = version or _is_date(value.strip())
            case "accept":
                accept += value.lower()
            case "content-encoding":
                encodings += f",{value.lower()}"
            case "content-type":
                charset = value.lower().partition("charset=")[2].split(";")[0].strip(' \t"')
    streams = "text/event-stream" in accept
    if version and (streams or http_method not in ("GET", "HEAD", "OPTIONS")):
        return True
    if not body:
        return False
    both = streams and "application/json" in accept
    plain = _decompress(body, encodings)
    if plain is None:
        return both
    if not _may_be_json(plain[:256]):
        return False
    if len(plain) > PARSE_LIMIT:
        return b"jsonrpc" in plain and _mentions_mcp(plain.decode("utf-8", "replace").lower())
    return _names_mcp(_text(plain, charset), both)


def looks_like_mcp_response(status: int, headers: Sequence[tuple[str, str]], first_bytes: bytes) -> bool:
    """Whether the start of a response is MCP's: its session header, its SSE endpoint, its result shapes.

    Args:
        status: the HTTP status; the codes of 2026-07-28 count only with the 400 that they belong to.
        headers: name and value of every header line.
        first_bytes: the start of the body, not encoded; it may end anywhere.
    """
    if any(name.lower() == "mcp-session-id" for name, _ in headers):
        return True
    text = first_bytes[:PARSE_LIMIT].decode("utf-8", "replace").lstrip(_SPACE)
    if text[:1] in ("{", "["):
        return _answers_mcp(text, status)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not any(line.startswith(("data:", "event:", "id:", "retry:", ":")) for line in lines[:1]):
        return False
    return any(_event_is_mcp(event, data, status) for event, data in _events(lines))


def _is_date(value: str) -> bool:
    return (
        len(value) == 10
        and value.isascii()
        and value[4] == value[7] == "-"
        and value.replace("-", "").isdigit()
    )


def _decompress(body: bytes, encodings: str) -> bytes | None:
    """The body without its content encodings; None if one of them is not ours to decode."""
    for coding in reversed([name.strip() for name in encodings.split(",") if name.strip()][:4]):
        match coding:
            case "identity":
                continue
            case "gzip" | "x-gzip":
                decoded = _inflate(body, _GZIP)
            case "deflate":
                decoded = _inflate(body, _GZIP)
                if decoded is None:
                    decoded = _inflate(body, _RAW_DEFLATE)
            case _:
                return None
        if decoded is None:
            return None
        body = decoded
    return body


def _inflate(body: bytes, window: int) -> bytes | None:
    """At most PARSE_LIMIT bytes, however small the body is; a look at the start saves the rest."""
    try:
        stream = zlib.decompressobj(window)
        start = stream.decompress(body, 256)
        if start and not _may_be_json(start):
            return start
        return start + stream.decompress(stream.unconsumed_tail, PARSE_LIMIT)
    except zlib.error:
        return None


def _may_be_json(start: bytes) -> bool:
    """Whether the first byte that is not space, mark or zero begins an object or an array.

    In any UTF (``+`` begins it in UTF-7), or a further layer of gzip or zlib does. All space: maybe.
    """
    return start.lstrip(_SPACE_BYTES)[:1] in (b"{", b"[", b"+", b"\x1f", b"x", b"")


def _text(raw: bytes, charset: str) -> str:
    """The text of what may be JSON: by its charset if that is a UTF, else by its marks and zeros."""
    encoding = charset if charset in _CHARSETS else json.detect_encoding(raw)
    return raw.decode(encoding, "replace").lstrip(_SPACE)


def _names_mcp(text: str, both_accepted: bool) -> bool:
    """Whether a JSON text has a message of MCP. Every copy of a duplicate name counts, in any case."""
    if text[:1] not in ("{", "["):
        return False
    lower = text.lower()
    if "\\u" not in text and "method" not in lower and _META_PREFIX not in lower:
        return False
    try:
        value, _ = _LENIENT.raw_decode(text)
    except (ValueError, RecursionError):
        return _mentions_mcp(lower)
    members = value if isinstance(value, list) and not isinstance(value, _Pairs) else [value]
    return any(isinstance(member, _Pairs) and _is_message(member, both_accepted) for member in members)


def _mentions_mcp(lower: str) -> bool:
    """The same for text that does not parse, by the words that no other protocol has."""
    lower = lower.replace("\\/", "/")
    if "jsonrpc" not in lower:
        return False
    return _META_PREFIX in lower or any(f'"{method}"' in lower for method in _OWN_METHODS)


class _Pairs(list[tuple[str, Any]]):
    """The members of an object, duplicates kept."""

    def all(self, name: str) -> Iterator[Any]:
        return (value for member, value in self if fold(member) == name)

    def has(self, *names: str) -> bool:
        return all(any(True for _ in self.all(name)) for name in names)


# The value of a number says nothing here, and reading a long one costs: its length stands for it.
_LENIENT = json.JSONDecoder(object_pairs_hook=_Pairs, strict=False, parse_int=len, parse_float=len)


def _is_message(message: _Pairs, both_accepted: bool) -> bool:
    params = [value for value in message.all("params") if isinstance(value, _Pairs)]
    if any(_has_mcp_meta(value) for value in params):
        return True
    asked = {fold(value.strip()) for value in message.all("method") if isinstance(value, str)}
    if not message.has("jsonrpc"):
        return "tools/call" in asked and any(value.has("name") for value in params)
    if asked & _OWN_METHODS:
        return True
    shaped = any(value.has("protocolversion", "clientinfo") for value in params)
    return bool(asked & _SHARED_METHODS) and (both_accepted or shaped)


def _has_mcp_meta(holder: _Pairs) -> bool:
    return any(
        fold(name).startswith(_META_PREFIX)
        for meta in holder.all("_meta")
        if isinstance(meta, _Pairs)
        for name, _ in meta
    )


def _answers_mcp(text: str, status: int) -> bool:
    """Whether JSON text, perhaps cut off, is an answer of an MCP server or a request from one."""
    if "jsonrpc" not in text:
        return False
    try:
        value, _ = _ANSWER.raw_decode(text)
    except (ValueError, RecursionError):
        signs = (_META_PREFIX in text, '"inputSchema"' in text)
        return any(signs) or ('"serverInfo"' in text and '"protocolVersion"' in text)
    messages = value if isinstance(value, list) else [value]
    return any(_is_answer(message, status) for message in messages if isinstance(message, dict))


def _small(digits: str) -> int:
    return int(digits) if len(digits) < 20 else 0


_ANSWER = json.JSONDecoder(strict=False, parse_int=_small)


def _is_answer(message: dict[str, Any], status: int) -> bool:
    if "jsonrpc" not in message:
        return False
    method = message.get("method")
    if isinstance(method, str):
        return method in _SERVER_METHODS or method.startswith("notifications/")
    error = message.get("error")
    if isinstance(error, dict):
        code = error.get("code")
        return status == 400 and isinstance(code, int) and code in _HEADER_ERRORS
    result = message.get("result")
    if not isinstance(result, dict):
        return False
    meta = result.get("_meta")
    if isinstance(meta, dict) and any(name.startswith(_META_PREFIX) for name in meta):
        return True
    if isinstance(result.get("resultType"), str) or ("protocolVersion" in result and "serverInfo" in result):
        return True
    return any(_lists(result.get(name), member) for name, member in _LISTS) or _is_content(
        result.get("content")
    )


def _lists(items: object, member: str) -> bool:
    return isinstance(items, list) and any(isinstance(item, dict) and member in item for item in items)


def _is_content(items: object) -> bool:
    if not isinstance(items, list):
        return False
    types = [item.get("type") for item in items if isinstance(item, dict)]
    return any(isinstance(name, str) and name in _CONTENT_TYPES for name in types)


def _events(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The first events of a stream as (name, data); the last one may be cut off."""
    event, data = "", ""
    for line in [*lines, ""]:
        name, _, value = line.partition(":")
        if name == "event":
            event = value.strip()
        elif name == "data":
            data += value.strip()
        elif not line:
            yield event, data
            event, data = "", ""


def _event_is_mcp(event: str, data: str, status: int) -> bool:
    if event == "endpoint":
        return any(sign in data.lower() for sign in _ENDPOINTS)
    return data[:1] in ("{", "[") and _answers_mcp(data, status)
