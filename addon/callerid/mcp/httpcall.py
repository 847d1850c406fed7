"""Bytes in, values out: what a request to an HTTP API says, or why nobody should act on it.

It stands in this room because it is the same work on the same wire: one strict reading of what came, and the
bytes written anew from that reading, so that no parser at the server finds another call in them (DESIGN
section 1, law 4). What is read is a ``Message`` of kind ``http``: ``GET /v1/charges`` with what its query and
its body say as arguments.

A numbered ladder, as in ``classify``; the first rung that fails is the answer.

 1. the method is a name in capitals, and none that makes a tunnel or an echo   MALFORMED_HTTP
 2. headers that readers must agree on come once, and have one reading          MALFORMED_HTTP
 3. the body is within the limit                                                TOO_LARGE
 4. the body is not encoded                                                     ENCODING_REFUSED
 5. GET and HEAD have no body; the body of a POST says what it is               MALFORMED_HTTP
 6. the query has one reading                                                   MALFORMED_HTTP, NOT_UTF8, ...
 7. the body of a type that is read here has one as well                        strictjson's reasons
 8. nothing in query or body names another method than the request line         MALFORMED_HTTP

The path is not looked at here: that it is canonical is known where the server is found.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

from callerid.mcp import claims, httpheads, multiparts, strictjson
from callerid.mcp import headers as fields
from callerid.mcp.forms import FormError, Pairs, read_pairs, twin, values_of, write_pairs
from callerid.model import EMPTY, Kind, Malformed, Message, MessageType, Reason

MAX_METHOD = 32

_METHOD = frozenset(string.ascii_uppercase + string.digits + "-_")
_NEVER = frozenset({"CONNECT", "TRACE"})
_BODILESS = frozenset({"GET", "HEAD"})
_TOKEN = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")
_PLAIN = frozenset("!$&'()+,:@=")
"""Characters that mean the same in a path encoded or not; RFC 3986 section 3.3, without ``*`` and ``;``."""
_OVERRIDES = ("_method", "x_http_method", "x_method_override", "http_method_override", "$httpmethod")
"""Parameters in which some frameworks look for the method that they then act on, as ``_loosely`` has them.

``x_http_method_override`` is told by how it begins.
"""
_JSON_LINES = ("ndjson", "x-ndjson")
"""Many documents, a line each. Any other type with ``json`` in its name is read by some server as JSON."""
_FORM = "application/x-www-form-urlencoded"
_ANSWERS: Mapping[Reason, int] = MappingProxyType({Reason.TOO_LARGE: 413, Reason.ENCODING_REFUSED: 415})
_INVALID_REQUEST = -32600


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """One request, understood. ``target`` and ``body`` are what goes on, as it was judged."""

    message: Message
    target: str
    body: bytes


class _Refused(Exception):
    """A rung that failed; never leaves this module."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def read_call(
    http_method: str,
    target: str,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    *,
    listed: Collection[str] = (),
    max_body: int = strictjson.MAX_BYTES,
    max_depth: int = strictjson.MAX_DEPTH,
    max_digits: int = strictjson.MAX_DIGITS,
) -> HttpCall | Malformed:
    """Read one request to an HTTP API. Total: any input gives a value, nothing is raised.

    Args:
        http_method: as on the request line, case-sensitive (RFC 9110 section 9.1).
        target: path and query; the path is canonical.
        headers: name and value of every header line, in order, duplicates kept.
        body: the whole body as received.
        listed: lower-case names of the headers that are arguments.
        max_body: the longest body in bytes, as received and as forwarded.
        max_depth: the deepest nesting of a JSON body.
        max_digits: the longest number in it, in characters.

    Returns:
        The call, or why there is none; the ``rpc_code`` of the latter means nothing here.
    """
    path, mark, query = target.partition("?")
    try:
        _check_method(http_method)
        once = _headers(http_method, headers, body, max_body)
        if not query.isascii() or not query.isprintable() or "#" in query:
            raise _Refused(Reason.MALFORMED_HTTP, "the query holds what must be percent-encoded in a URL")
        pairs = _pairs(query, "the query")
        values = values_of(pairs)
        arguments: dict[str, Any] = {"query": values} if values else {}
        arguments |= _spoken(headers, listed)
        if body:
            read, body = _body(http_method, once.get("content-type"), body, max_depth, max_digits)
            arguments |= read
            if len(body) > max_body:
                raise _Refused(Reason.TOO_LARGE, f"the canonical body is longer than {max_body} bytes")
    except _Refused as refused:
        return Malformed(
            reason=refused.reason,
            detail=refused.detail,
            http_status=_ANSWERS.get(refused.reason, 400),
            rpc_code=_INVALID_REQUEST,
            method=f"http/{shown_method(http_method)}",
        )
    message = Message(
        type=MessageType.HTTP,
        method=f"http/{http_method}",
        kind=Kind.HTTP,
        name=f"{http_method} {plain_path(path)}",
        arguments=arguments,
        trace_id=claims.trace_id(_first(headers, "traceparent")),
    )
    return HttpCall(message=message, target=f"{path}{mark}{write_pairs(pairs)}", body=body)


def shown_method(http_method: str) -> str:
    """The method for a row: ``?`` in the place of what is none."""
    good = 0 < len(http_method) <= MAX_METHOD and _TOKEN.issuperset(http_method)
    return http_method if good else "?"


def plain_path(path: str) -> str:
    """A canonical path as rules name it: what a segment may have plainly is not encoded.

    ``/users/a%40corp.example`` is ``/users/a@corp.example`` for every server, so it is for every rule.
    Hexadecimal digits are capitals (RFC 3986 section 6.2.2.1), and ``*`` is ``%2A``, for rules have it.
    """
    first, *rest = path.replace("*", "%2A").split("%")
    parts = [first]
    for part in rest:
        code = part[:2]
        char = unquote_to_bytes("%" + code).decode("latin-1")
        parts.append((char if char in _PLAIN else f"%{code.upper()}") + part[2:])
    return "".join(parts)


def _first(headers: Sequence[tuple[str, str]], wanted: str) -> str | None:
    return next((value for name, value in headers if name.lower() == wanted), None)


def _check_method(http_method: str) -> None:
    """Rung 1. Some servers put what comes into capitals, so ``delete`` would be judged as another method."""
    if not 0 < len(http_method) <= MAX_METHOD or not _METHOD.issuperset(http_method):
        raise _Refused(Reason.MALFORMED_HTTP, "the method is no name in capital letters, as GET and POST are")
    if http_method in _NEVER:
        raise _Refused(Reason.MALFORMED_HTTP, f"{http_method} is not passed on to a listed server")


def _headers(
    http_method: str, headers: Sequence[tuple[str, str]], body: bytes, max_body: int
) -> Mapping[str, str]:
    """Rungs 2 to 5."""
    once = fields.read_once(headers)
    if isinstance(once, str):
        raise _Refused(Reason.MALFORMED_HTTP, once)
    if len(body) > max_body:
        raise _Refused(Reason.TOO_LARGE, f"the body is longer than {max_body} bytes")
    encoded = fields.content_encoding_flaw(once.get("content-encoding"))
    if encoded is not None:
        raise _Refused(Reason.ENCODING_REFUSED, encoded)
    if body and http_method in _BODILESS:
        # RFC 9110 section 9.3.1: a server may take it for the next request on the connection.
        raise _Refused(Reason.MALFORMED_HTTP, f"{http_method} has a body")
    if body and http_method == "POST" and "content-type" not in once:
        raise _Refused(Reason.MALFORMED_HTTP, "the body has no Content-Type; servers guess what it is then")
    return once


def _pairs(text: str, where: str) -> Pairs:
    """Rung 6, and the same for a form."""
    try:
        pairs = read_pairs(text)
    except FormError as error:
        raise _Refused(error.reason, f"{where} {error.detail}") from None
    if _names_method(name for name, _ in pairs):
        _refuse_override(where)
    return pairs


def _body(
    http_method: str, content_type: str | None, body: bytes, max_depth: int, max_digits: int
) -> tuple[Mapping[str, Any], bytes]:
    """Rungs 7 and 8: what the body says, as the argument ``body``, and the bytes to forward.

    A body of any other type is no argument: what rules ask of it is unknown to them (law 7).
    """
    media = _media_type(content_type)
    if media == _FORM:
        try:
            pairs = _pairs(body.decode("utf-8"), "the body")
        except UnicodeDecodeError:
            raise _Refused(Reason.NOT_UTF8, "the body is not UTF-8") from None
        return {"body": values_of(pairs)}, write_pairs(pairs, form=True).encode("ascii")
    if _is_json(media):
        value, canonical = _json(body, max_depth, max_digits)
        if http_method == "POST" and isinstance(value, dict) and _names_method(value):
            _refuse_override("the body")
        return {"body": value}, canonical
    if media.startswith("multipart/"):
        if _part_names_method(body):
            _refuse_override("the body")
        if flaw := multiparts.flaw(content_type or "", body):
            raise _Refused(Reason.MALFORMED_HTTP, flaw)
    return EMPTY, body


def _json(body: bytes, max_depth: int, max_digits: int) -> tuple[Any, bytes]:
    try:
        value = strictjson.loads(body, max_bytes=len(body), max_depth=max_depth, max_digits=max_digits)
        return value, strictjson.dumps(value)
    except strictjson.JsonError as error:
        raise _Refused(error.reason, error.detail) from None


def _media_type(content_type: str | None) -> str:
    """The media type in lower case, "" if none is named. What is read here must be UTF-8 (RFC 8259)."""
    if content_type is None:
        return ""
    media, *parameters = (part.strip(" \t").lower() for part in content_type.split(";"))
    if media.count("/") != 1 or not all(part and _TOKEN.issuperset(part) for part in media.split("/")):
        raise _Refused(Reason.MALFORMED_HTTP, "the Content-Type is no media type")
    charsets = [
        value for name, _, value in (p.partition("=") for p in parameters) if name.strip() == "charset"
    ]
    is_read = media == _FORM or _is_json(media)
    if is_read and any(charset.strip(' "') not in ("utf-8", "utf8") for charset in charsets):
        raise _Refused(Reason.NOT_UTF8, "the Content-Type names another charset than UTF-8")
    return media


def _is_json(media: str) -> bool:
    subtype = media.partition("/")[2]
    return "json" in subtype and subtype not in _JSON_LINES


def _spoken(headers: Sequence[tuple[str, str]], listed: Collection[str]) -> Mapping[str, Any]:
    """Rung 2, for the headers that are arguments."""
    said = httpheads.arguments_of(headers, listed)
    if isinstance(said, str):
        raise _Refused(Reason.MALFORMED_HTTP, said)
    return {"headers": said} if said else {}


def _names_method(names: Iterable[str]) -> bool:
    """Whether some framework would find its method override among these names of parameters."""
    return any(_loosely(name).startswith(_OVERRIDES) for name in names)


def _loosely(name: str) -> str:
    """As PHP and WSGI servers fold names: a dot, a blank, a hyphen and an open bracket are underscores."""
    return twin(name).replace("-", "_").replace("[", "_")


def _part_names_method(body: bytes) -> bool:
    """The same for the parts of a multipart body, however their names are quoted, folded or encoded."""
    for part in body.lower().split(b"content-disposition")[1:]:
        head = min((part.partition(end)[0] for end in (b"\r\n\r\n", b"\n\n")), key=len)
        plain = head.translate(None, b"\"\\ \t\r\n'").replace(b"filename", b"file")
        for piece in plain.split(b"name")[1:]:
            name = unquote_to_bytes(piece).decode("latin-1")
            # RFC 2231 and RFC 2047: in pieces, or in a word of another encoding. Nobody names a field so.
            if name.startswith("==?") or (name.startswith("*") and ("method" in name or name[1:2].isdigit())):
                return True
            if name.startswith("=") and _names_method([name[1:]]):
                return True
    return False


def _refuse_override(where: str) -> NoReturn:
    detail = f"{where} names another method than the request line; some servers would act on that one"
    raise _Refused(Reason.MALFORMED_HTTP, detail)
