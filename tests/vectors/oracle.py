"""Every lenient reading of bytes at once: which MCP messages could *some* server find in them?

Written apart from the product on purpose, and generous: a reading counts if any known parser has it. What
it finds must have an ALLOW row of its own; what it finds too much of costs a case some care, what it misses
would be a hole nobody sees.

Bytes are read plainly and decompressed, in every UTF, with marks and zeros skipped, overlong forms undone;
every document in a text counts, with comments, single quotes and trailing commas; all copies of a duplicate
name count, in any case; batches, JSON inside strings and forms; and a connection is cut into
requests by length, by chunks, and wherever a request line stands.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from tests.vectors.connection import Request, requests

CHARSETS = (
    "utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-16", "utf-32", "utf-7",
)  # fmt: skip
OVERRIDES = frozenset(
    {"x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url"}
)
MAX_TRIES = 500
MAX_TEXT = 1 << 20
MAX_RELAXED = 1 << 16
_OVERLONG = re.compile(rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80-\x9f][\x80-\xbf]")


@dataclass(frozen=True, slots=True)
class Found:
    """A message that some reading has. ``arguments`` is JSON text, None where the reading has none."""

    method: str
    name: str | None
    arguments: str | None
    how: str


class Pairs(list[tuple[str, Any]]):
    """The members of an object, all copies of them, in their order."""


# -- bytes to texts --------------------------------------------------------------------------------


def texts(raw: bytes) -> Iterator[tuple[str, str]]:
    """(how, text) for each different text that the bytes may be."""
    seen: set[str] = set()
    for layer, plain in _unpacked(raw, 2):
        for charset in CHARSETS:
            try:
                text = plain[:MAX_TEXT].decode(charset, "strict" if charset == "utf-7" else "replace")
            except (UnicodeError, ValueError):
                continue
            text = text.replace("\ufeff", "").replace("\0", "")
            if text not in seen:
                seen.add(text)
                yield f"{layer}, {charset}", text
        short = _OVERLONG.sub(_undo_overlong, plain[:MAX_TEXT])
        if short != plain[:MAX_TEXT]:
            yield f"{layer}, overlong forms", short.decode("utf-8", "replace")


def _unpacked(raw: bytes, depth: int) -> Iterator[tuple[str, bytes]]:
    yield "as sent", raw
    if not depth:
        return
    for name, bits in (("gzip or zlib", 47), ("deflate", -15)):
        try:
            plain = zlib.decompressobj(bits).decompress(raw, MAX_TEXT)
        except zlib.error:
            continue
        if plain:
            for how, inner in _unpacked(plain, depth - 1):
                yield f"{name}, {how}", inner


def _undo_overlong(found: re.Match[bytes]) -> bytes:
    raw = found[0]
    code = (raw[0] & 0x1F) << 6 | raw[1] & 0x3F
    if len(raw) == 3:
        code = (raw[0] & 0x0F) << 12 | (raw[1] & 0x3F) << 6 | raw[2] & 0x3F
    return chr(code).encode()


# -- texts to values -------------------------------------------------------------------------------


def _integer(digits: str) -> Any:
    return int(digits) if len(digits) < 4300 else digits


_LENIENT = json.JSONDecoder(object_pairs_hook=Pairs, strict=False, parse_int=_integer)


def values(text: str) -> Iterator[Any]:
    """Every JSON document in a text: the first, those behind it, those inside garbage."""
    start = text.lstrip()
    if start.startswith('"'):
        with suppress(ValueError):
            yield _LENIENT.raw_decode(start)[0]
    at, tries = 0, 0
    while tries < MAX_TRIES and (begin := _opening(text, at)) >= 0:
        tries += 1
        made, at = _document(text, begin)
        if made is not None:
            yield made


def _opening(text: str, at: int) -> int:
    found = [place for sign in "{[" if (place := text.find(sign, at)) >= 0]
    return min(found, default=-1)


def _document(text: str, start: int) -> tuple[Any, int]:
    """The document at ``start`` and where it ends; None, and the next place to look, if there is none."""
    try:
        return _LENIENT.raw_decode(text, start)
    except RecursionError:
        return None, len(text)
    except ValueError:
        pass
    if len(text) - start > MAX_RELAXED:
        return None, start + 1
    with suppress(ValueError, RecursionError):
        return _LENIENT.raw_decode(relaxed(text[start:]))[0], start + 1
    return None, start + 1


def relaxed(text: str) -> str:
    """JSON5 and its kin as JSON: comments and commas too many gone, single quotes doubled, ends added."""
    made: list[str] = []
    closing: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char in "\"'":
            end = _end_of_string(text, at)
            inner = text[at + 1 : end]
            made.append('"' + (inner.replace("\\'", "'").replace('"', '\\"') if char == "'" else inner) + '"')
            at = end + 1
            continue
        if text.startswith(("//", "#"), at):
            at = _past(text, at, "\n")
            continue
        if text.startswith("/*", at):
            at = _past(text, at, "*/")
            continue
        if char in "{[":
            closing.append("}" if char == "{" else "]")
        elif char in "}]":
            while made and made[-1] in ", \t\r\n":
                made.pop()
            if closing:
                closing.pop()
        made.append(char)
        at += 1
        if not closing:
            break
    return "".join(made) + "".join(reversed(closing))


def _end_of_string(text: str, start: int) -> int:
    at = start + 1
    while at < len(text) and text[at] != text[start]:
        at += 2 if text[at] == "\\" else 1
    return min(at, len(text))


def _past(text: str, at: int, mark: str) -> int:
    end = text.find(mark, at)
    return len(text) if end < 0 else end + len(mark)


# -- values to messages ----------------------------------------------------------------------------


def folded(name: str) -> str:
    """As readers that ignore case compare names: long s and Kelvin sign, Turkish i's, up to a zero."""
    return name.split("\0")[0].strip().upper().casefold().replace("\u0307", "")


def messages(value: Any, how: str, depth: int = 4) -> Iterator[Found]:
    """The messages in a value: itself, the elements of a batch, what is wrapped, what is in strings."""
    if depth <= 0:
        return
    if isinstance(value, str):
        if "{" in value:
            for inner in values(value):
                yield from messages(inner, f"{how}, in a string", depth - 2)
        return
    if not isinstance(value, Pairs):
        for element in value if isinstance(value, list) else ():
            yield from messages(element, how, depth - 1)
        return
    methods = [item for item in _all(value, "method") if isinstance(item, str)]
    if not methods:
        for _, inner in value:
            yield from messages(inner, f"{how}, wrapped", depth - 1)
    params = [item for item in _all(value, "params") if isinstance(item, Pairs)] or [Pairs()]
    for method in methods:
        for holder in params:
            yield from _readings(_plain_method(method), holder, how)


def _all(members: Pairs, name: str) -> list[Any]:
    return [value for member, value in members if folded(member) == name]


def _plain_method(method: str) -> str:
    return folded(method.replace("\\", "/"))


def _readings(method: str, params: Pairs, how: str) -> Iterator[Found]:
    names = [n for key in ("name", "uri") for n in _all(params, key) if isinstance(n, str)] or [None]
    arguments = [a for a in _all(params, "arguments") if isinstance(a, Pairs)] or [Pairs()]
    for name in names:
        for holder in arguments:
            for last in (True, False):
                yield Found(method, name, canonical(_resolved(holder, last)), how)


def canonical(arguments: Any) -> str:
    """JSON text by which arguments are compared."""
    return json.dumps(arguments, sort_keys=True, ensure_ascii=True)


def _resolved(value: Any, last: bool) -> Any:
    """Plain data, of equal names the last one or the first."""
    if isinstance(value, Pairs):
        pairs = [(name, _resolved(inner, last)) for name, inner in value]
        return dict(pairs if last else reversed(pairs))
    return [_resolved(inner, last) for inner in value] if isinstance(value, list) else value


def in_body(raw: bytes) -> list[Found]:
    """All messages that somebody may find in a body."""
    made: list[Found] = []
    for how, text in texts(raw):
        for value in values(text):
            made += messages(value, how)
        if "=" in text and text.lstrip()[:1] not in ("{", "["):
            made += in_form(text, f"{how}, a form")
    return list(dict.fromkeys(made))


def in_form(text: str, how: str) -> list[Found]:
    """All messages in a query string or a form: its fields are one, and each value may hold some."""
    fields = Pairs(parse_qsl(text[:MAX_TEXT], keep_blank_values=True, max_num_fields=1000))
    made = [found for _, value in fields for found in messages(value, how)]
    made += [found for value in values(unquote_plus(text)) for found in messages(value, how)]
    opened = Pairs((name, next(values(value), value)) for name, value in fields)
    asked = [name for key in ("name", "tool") for name in _all(fields, key)] or [None]
    for method in _all(fields, "method"):
        made += messages(opened, how) if _all(opened, "params") else ()
        made += [Found(folded(method), name, None, how) for name in asked]
    return made


# -- a request to messages -------------------------------------------------------------------------


def in_request(request: Request) -> list[Found]:
    """All messages in one request: in its body however it is cut, in its target, in its headers."""
    made = [found for _, body in request.bodies for found in in_body(body)]
    if "?" in request.target:
        made += in_form(request.target.partition("?")[2], "the query")
    named = dict(request.headers)
    if "mcp-method" in named:
        name = header_text(named.get("mcp-name", "")) or None
        made.append(Found(named["mcp-method"].lower(), name, None, "the headers"))
    made += [
        Found(f"header {name}", None, None, "an override") for name, _ in request.headers if name in OVERRIDES
    ]
    return list(dict.fromkeys(made))


def header_text(value: str) -> str:
    """The text of a header value, an encoded word opened."""
    if value.startswith("=?base64?") and value.endswith("?="):
        try:
            return base64.b64decode(value[9:-2] + "==").decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            return value
    return value


# -- the verdict -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Allowed:
    """What one ALLOW row allows."""

    method: str
    name: str | None
    arguments: str


def unallowed(
    connections: Iterable[bytes], allowed: Iterable[Allowed], *, calls_only: bool = False
) -> list[Found]:
    """What arrived and has no ALLOW row of its own; empty is the only good answer.

    ``calls_only``: for a server that is not listed, whose traffic may be somebody else's JSON-RPC, or a text
    that looks like a request.
    """
    rows = list(allowed)
    stray: list[Found] = []
    calls = 0
    for raw in connections:
        for request in requests(raw):
            found = [one for one in in_request(request) if not calls_only or one.method == "tools/call"]
            stray += [one for one in found if not any(_fits(one, row) for row in rows)]
            if request.hidden and not calls_only:
                stray.append(Found("http", request.target, None, "a request in a body"))
            elif not request.hidden:
                calls += _plainly_called(request.body)
    permitted = sum(row.method == "tools/call" for row in rows)
    if calls > permitted:
        stray.append(Found("tools/call", None, None, f"{calls} calls arrived for {permitted} rows"))
    return stray


def _plainly_called(body: bytes) -> int:
    """How many calls an ordinary reader finds in a body."""
    try:
        value = json.loads(body)
    except ValueError:
        return 0
    made = value if isinstance(value, list) else [value]
    return sum(isinstance(item, dict) and item.get("method") == "tools/call" for item in made)


def _fits(found: Found, row: Allowed) -> bool:
    if found.method != row.method.casefold():
        return False
    if found.name is not None and found.name != row.name:
        return False
    return found.arguments is None or found.method != "tools/call" or found.arguments == row.arguments
