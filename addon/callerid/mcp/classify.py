"""Bytes in, values out: what an HTTP request to an MCP server says, or why nobody should act on it.

A numbered ladder; the first rung that fails is the answer, and one table maps its reason to the wire.

 1. the HTTP method is POST, GET or DELETE                          NOT_MCP
 2. headers that readers must agree on come once                    MALFORMED_HTTP
 3. the body is within the limit                                    TOO_LARGE
 4. the body is not encoded                                         ENCODING_REFUSED
 5. POST has a JSON body and says so; GET and DELETE have none      NOT_MCP, MALFORMED_HTTP
 6. the body is one strict JSON text                                strictjson's reasons
 7. it is one message, or a batch where batches exist               BATCH_REFUSED
 8. each message is exactly a request, a notification or a response MALFORMED_MESSAGE
 9. header and body name one revision, and we know it               HEADER_MISMATCH, UNSUPPORTED_VERSION
10. the method comes in its shape and names its object              MALFORMED_MESSAGE
11. Mcp-Method, Mcp-Name and Mcp-Param-* agree with the body        HEADER_MISMATCH

Accept, Authorization and the destination are not looked at here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn

from callerid.mcp import claims, methods, strictjson
from callerid.mcp import headers as fields
from callerid.mcp.refs import answer_of, refs_of
from callerid.model import EMPTY, Exchange, Kind, Malformed, Message, MessageType, Reason, RpcId

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
INVALID_PARAMS = -32602
HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022

ANSWERS: Mapping[Reason, tuple[int, int]] = MappingProxyType(
    {
        Reason.NOT_MCP: (400, INVALID_REQUEST),
        Reason.MALFORMED_HTTP: (400, INVALID_REQUEST),
        Reason.TOO_LARGE: (413, INVALID_REQUEST),
        Reason.ENCODING_REFUSED: (415, INVALID_REQUEST),
        Reason.MALFORMED_JSON: (400, PARSE_ERROR),
        Reason.DUPLICATE_KEY: (400, PARSE_ERROR),
        Reason.NOT_UTF8: (400, PARSE_ERROR),
        Reason.TOO_DEEP: (400, PARSE_ERROR),
        Reason.BATCH_REFUSED: (400, INVALID_REQUEST),
        Reason.MALFORMED_MESSAGE: (400, INVALID_REQUEST),
        Reason.UNSUPPORTED_VERSION: (400, UNSUPPORTED_VERSION),
        Reason.HEADER_MISMATCH: (400, HEADER_MISMATCH),
    }
)
"""Reason to (HTTP status, JSON-RPC code); NOT_MCP may carry a closer status."""

MAX_ID_LENGTH = 256
MAX_ECHO = 64
"""Characters of a protocol version that are given back to who asked for it."""

_ENVELOPE = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_NO_PARAMS: Mapping[str, Any] = {}
_SAFE_INTEGER = 2**53


class _Refused(Exception):
    """A rung that failed; never leaves this module."""

    def __init__(
        self, reason: Reason, detail: str, *, status: int | None = None, code: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(detail)
        self.reason, self.detail = reason, detail
        self.status, self.code, self.data = status, code, data


@dataclass(frozen=True, slots=True)
class _Request:
    """What the rungs share: the headers as sent, and those that come once by lower-case name."""

    headers: Sequence[tuple[str, str]]
    once: Mapping[str, str]

    @property
    def revision(self) -> str | None:
        return self.once.get(fields.VERSION)


def classify(
    http_method: str,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    *,
    max_body: int = strictjson.MAX_BYTES,
    max_batch: int = 50,
    max_depth: int = strictjson.MAX_DEPTH,
    max_digits: int = strictjson.MAX_DIGITS,
) -> Exchange | Malformed:
    """Read one HTTP request to an MCP server. Total: any input gives a value, nothing is raised.

    Args:
        http_method: as on the request line, case-sensitive.
        headers: name and value of every header line, in order, duplicates kept.
        body: the whole body as received, not decoded.
        max_body: the longest body in bytes, as received and as forwarded.
        max_batch: the most messages in a batch.
        max_depth: the deepest nesting of the body; see ``strictjson.loads``.
        max_digits: the longest number in it, in characters.

    Returns:
        The messages and the canonical bytes to forward (``b""`` for GET and DELETE), or why there are none.
    """
    envelope: object = None
    try:
        request = _http(http_method, headers, body, max_body)
        if http_method != "POST":
            return _bodiless(request, http_method)
        envelope = _parse(body, max_body, max_depth, max_digits)
        if isinstance(envelope, list):
            messages = _batch(request, envelope, max_batch)
        else:
            messages = (_message(request, envelope),)
        return _exchange(request, messages, envelope, max_body)
    except _Refused as refused:
        status, code = ANSWERS[refused.reason]
        rpc_id, method = _readable(envelope)
        return Malformed(
            reason=refused.reason,
            detail=refused.detail,
            http_status=refused.status or status,
            rpc_code=refused.code or code,
            rpc_id=rpc_id,
            method=method,
            data=refused.data,
            elements=_elements(envelope, max_batch),
        )


def _http(http_method: str, headers: Sequence[tuple[str, str]], body: bytes, max_body: int) -> _Request:
    """Rungs 1 to 5."""
    if http_method not in ("POST", "GET", "DELETE"):
        raise _Refused(Reason.NOT_MCP, "MCP uses POST, GET and DELETE", status=405)
    once = fields.read_once(headers)
    if isinstance(once, str):
        raise _Refused(Reason.MALFORMED_HTTP, once)
    if len(body) > max_body:
        raise _Refused(Reason.TOO_LARGE, f"the body is longer than {max_body} bytes")
    encoded = fields.content_encoding_flaw(once.get("content-encoding"))
    if encoded is not None:
        raise _Refused(Reason.ENCODING_REFUSED, encoded)
    if http_method != "POST":
        if body:
            raise _Refused(Reason.MALFORMED_HTTP, f"{http_method} has a body")
    elif not body:
        raise _Refused(Reason.NOT_MCP, "the body is empty; an MCP POST carries one JSON-RPC message")
    else:
        typed = fields.content_type_flaw(once.get("content-type"))
        if typed is not None:
            raise _Refused(Reason.NOT_MCP, typed, status=415)
    return _Request(headers, once)


def _parse(body: bytes, max_body: int, max_depth: int, max_digits: int) -> object:
    """Rung 6."""
    try:
        return strictjson.loads(body, max_bytes=max_body, max_depth=max_depth, max_digits=max_digits)
    except strictjson.JsonError as error:
        raise _Refused(error.reason, error.detail) from None


def _exchange(request: _Request, messages: tuple[Message, ...], envelope: object, max_body: int) -> Exchange:
    try:
        canonical = strictjson.dumps(envelope)
    except strictjson.JsonError as error:
        raise _Refused(error.reason, error.detail) from None
    if len(canonical) > max_body:
        raise _Refused(Reason.TOO_LARGE, f"the canonical body is longer than {max_body} bytes")
    return Exchange(
        messages=messages,
        batch=isinstance(envelope, list),
        body=canonical,
        protocol=messages[0].protocol,
    )


def _bodiless(request: _Request, http_method: str) -> Exchange:
    """GET (a stream) and DELETE (the end of a session): headers only, so there is nothing to mirror."""
    _check_known(request.revision)
    _check_mirrors(request, None, (), needs_method=False, needs_name=False)
    message = Message(
        type=MessageType.HTTP,
        method=f"http/{http_method}",
        kind=Kind.PROTOCOL,
        protocol=request.revision,
    )
    return Exchange(messages=(message,), batch=False, body=b"", protocol=request.revision)


def _batch(request: _Request, members: list[Any], max_batch: int) -> tuple[Message, ...]:
    """Rung 7: arrays exist up to 2025-03-26, which is also what a missing version header means."""
    if request.revision is not None:
        _check_known(request.revision)
        if request.revision not in methods.BATCHING:
            raise _Refused(
                Reason.BATCH_REFUSED, f"{request.revision} has no batches; send one message a request"
            )
    if not 0 < len(members) <= max_batch:
        raise _Refused(Reason.BATCH_REFUSED, f"a batch holds 1 to {max_batch} messages")
    if fields.has_mirrors(request.headers):
        raise _Refused(Reason.HEADER_MISMATCH, "Mcp-* headers repeat one message, and the body is a batch")
    messages = []
    for place, member in enumerate(members, start=1):
        try:
            messages.append(_message(request, member))
        except _Refused as refused:
            refused.detail = f"message {place} of the batch: {refused.detail}"
            raise
    if any(message.method == "initialize" for message in messages):
        raise _Refused(Reason.BATCH_REFUSED, "initialize may not be part of a batch")
    if len({message.type is MessageType.RESPONSE for message in messages}) > 1:
        raise _Refused(Reason.BATCH_REFUSED, "a batch holds either responses or requests and notifications")
    ids = [message.rpc_id for message in messages if message.rpc_id is not None]
    if len(set(ids)) != len(ids):
        raise _Refused(Reason.BATCH_REFUSED, "two messages of the batch have one id")
    return tuple(messages)


def _message(request: _Request, member: object) -> Message:
    """Rungs 8 to 11 for one message."""
    envelope = _envelope(member)
    if "method" not in envelope:
        return _response(request, envelope)
    method: str = envelope["method"]
    shape = MessageType.REQUEST if "id" in envelope else MessageType.NOTIFICATION
    params: Mapping[str, Any] = envelope.get("params", EMPTY)
    meta = _meta(params)
    revision = _agree(request.revision, meta, is_request=shape is MessageType.REQUEST)
    flaw = methods.shape_flaw(method, shape)
    if flaw is not None:
        _malformed(flaw)
    target = methods.locate(method, params, revision)
    if isinstance(target, str):
        _malformed(target)
    refs = refs_of(method, params, revision)
    if isinstance(refs, str):
        _malformed(refs)
    needed = revision in methods.MODERN and shape is MessageType.REQUEST
    names = methods.mirrored(method, params) if fields.NAME in request.once else ()
    _check_mirrors(
        request, method, names, needs_method=needed, needs_name=needed and method in methods.MIRRORED
    )
    return Message(
        type=shape,
        method=method,
        kind=target.kind,
        rpc_id=envelope.get("id"),
        name=target.name,
        arguments=target.arguments,
        client_name=claims.client_name(method, params, meta),
        trace_id=claims.trace_id(meta.get("traceparent")),
        protocol=revision if revision is not None else claims.offered(method, params),
        refs=refs,
    )


def _envelope(member: object) -> Mapping[str, Any]:
    """Rung 8: JSON-RPC 2.0 sections 4 and 5, without the freedoms that readers take differently."""
    if not isinstance(member, dict):
        _malformed("a message must be an object")
    if not _ENVELOPE.issuperset(member):
        unknown = next(name for name in member if name not in _ENVELOPE)
        _malformed(f"the message has the unknown member {unknown[:64]!r}")
    if member.get("jsonrpc") != "2.0":
        _malformed('jsonrpc must be "2.0"')
    if "id" in member and not _is_id(member["id"]):
        _malformed(f"id must be a string of at most {MAX_ID_LENGTH} characters or an integer below 2**53")
    answers = ("result" in member) + ("error" in member)
    if "method" in member:
        if answers:
            _malformed("a message is a request or a response, not both")
        flaw = methods.name_flaw(member["method"], methods.MAX_NAME)
        if flaw is not None:
            _malformed(f"method {flaw}")
        if type(member.get("params", _NO_PARAMS)) is not dict:
            _malformed("params must be an object, or be left out")
    elif answers != 1 or "id" not in member or "params" in member:
        _malformed("a message has a method, or an id with either result or error")
    return member


def _response(request: _Request, envelope: Mapping[str, Any]) -> Message:
    """A client's answer to a request of the server; 2026-07-28 has none (MRTR instead)."""
    _check_known(request.revision)
    if request.revision in methods.MODERN:
        _malformed(f"{request.revision} has no client responses")
    answer = envelope["result"] if "result" in envelope else envelope["error"]
    if not isinstance(answer, dict):
        _malformed("result and error must be objects")
    if "error" in envelope and (
        type(answer.get("code")) is not int or not isinstance(answer.get("message"), str)
    ):
        _malformed("error must have an integer code and a message")
    _check_mirrors(request, None, (), needs_method=False, needs_name=False)
    return Message(
        type=MessageType.RESPONSE,
        method="response",
        kind=Kind.PROTOCOL,
        rpc_id=envelope["id"],
        protocol=request.revision,
        refs=answer_of(envelope),
    )


def _meta(params: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = params.get("_meta")
    if meta is None and "_meta" not in params:
        return EMPTY
    if not isinstance(meta, Mapping):
        _malformed("params._meta must be an object")
    twin = methods.variant(meta, methods.META_NAMES)
    if twin is not None:
        _malformed(f"params._meta has the member {twin[:64]!r}, a variant in case of a name that MCP defines")
    return meta


def _agree(header: str | None, meta: Mapping[str, Any], *, is_request: bool) -> str | None:
    """Rung 9: servers choose the era by header or by body, so both must say the same one.

    Requests of 2026-07-28 name it in both places. Its notifications need the header only: the revision
    does not say what else they carry. A missing ``_meta`` name is -32602 (basic/index, ``_meta``).
    """
    stated = meta.get(methods.META_VERSION)
    if stated is None and methods.META_VERSION not in meta:
        if header in methods.MODERN and is_request:
            detail = f"the header says {header}, and params._meta names no protocol version"
            raise _Refused(Reason.HEADER_MISMATCH, detail, code=INVALID_PARAMS)
    elif not isinstance(stated, str):
        _malformed("the protocol version in params._meta must be a string")
    elif stated != header:
        detail = "the header MCP-Protocol-Version and params._meta name different versions"
        raise _Refused(Reason.HEADER_MISMATCH, detail)
    _check_known(header)
    return header


def _check_known(revision: str | None) -> None:
    """An unknown revision is answered with those to choose from (2026-07-28 basic/versioning).

    Only revisions without a handshake are named: the others are not chosen by header, but by initialize.
    """
    if revision is not None and revision not in methods.REVISIONS:
        raise _Refused(
            Reason.UNSUPPORTED_VERSION,
            f"the protocol version {revision[:32]!r} is not known here",
            data={"supported": list(methods.MODERN), "requested": revision[:MAX_ECHO]},
        )


def _check_mirrors(
    request: _Request, method: str | None, names: Sequence[str], *, needs_method: bool, needs_name: bool
) -> None:
    """Rung 11."""
    flaw = fields.mirror_flaw(request.once, method, names, needs_method=needs_method, needs_name=needs_name)
    if flaw is None:
        twice = fields.repeated_param(request.headers)
        flaw = None if twice is None else f"the header {twice!r:.96} comes more than once"
    if flaw is not None:
        raise _Refused(Reason.HEADER_MISMATCH, flaw)


def _is_id(value: object) -> bool:
    """MCP ids are strings and integers; 2**53 is where readers of doubles begin to mix them up."""
    if isinstance(value, str):
        return len(value) <= MAX_ID_LENGTH
    return type(value) is int and abs(value) < _SAFE_INTEGER


def _readable(envelope: object) -> tuple[RpcId | None, str | None]:
    """The id and method of a refused request, where they can be trusted to be what the client means."""
    if not isinstance(envelope, dict):
        return None, None
    method = envelope.get("method")
    if methods.name_flaw(method, methods.MAX_NAME) is not None:
        return None, None
    rpc_id = envelope.get("id")
    return rpc_id if _is_id(rpc_id) else None, method


def _elements(envelope: object, max_batch: int) -> tuple[tuple[str | None, RpcId | None], ...]:
    """Method and id of each member of a refused batch, as far as they can be trusted, up to ``max_batch``."""
    if not isinstance(envelope, list):
        return ()
    return tuple((method, rpc_id) for rpc_id, method in map(_readable, envelope[:max_batch]))


def _malformed(detail: str) -> NoReturn:
    raise _Refused(Reason.MALFORMED_MESSAGE, detail)
