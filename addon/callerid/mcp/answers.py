"""What a caller reads when its message was refused, or when the server's answer cannot be given to it.

The forms follow what real clients do with each (DESIGN section 4, reference/mcp-on-the-wire.md
section 4): no SDK may hang on a refusal, lose its session, or start a login of its own.

- A refused ``tools/call`` is a tool result with ``isError``: the text reaches the model, which adapts.
- ``initialize`` and ``server/discover`` get HTTP 403, so that a client stops and does not fall back.
- A fault of ours gets HTTP 503 with a JSON-RPC error that carries the id: the Python SDK shows its
  message, the TypeScript SDKs throw with its body, and in all of them the session lives on. It is not
  a tool result, for a model should not plan around a fault as if it were a rule, and not a 200, for
  whoever watches HTTP statuses has to see it.
- A notification and a client's response get 202 and nothing: any other status breaks the connect of
  some clients. A request never gets 202, which leaves some of them waiting.
- GET and DELETE get 405, which clients read as "not offered here".

Nothing that the caller sent is repeated, apart from its id and a protocol version that is not known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from callerid.mcp.asks import AskRefusal
from callerid.model import Kind, Malformed, Message, MessageType, Outcome, Reason, RpcId

# Codes of ours, outside the range -32768..-32000 that JSON-RPC and MCP keep for themselves.
DENIED_CODE = -40300
UPSTREAM_CODE = -50200
FAULT_CODE = -50300

FAULTS = frozenset({Reason.AUDIT_UNAVAILABLE, Reason.INTERNAL_ERROR, Reason.CREDENTIAL_UNAVAILABLE})
"""Reasons that are faults on our side: the same call may be right a minute later."""

UNKNOWN_SESSION = frozenset({Reason.SESSION_NOT_YOURS, Reason.SESSION_UNKNOWN})
"""Both are told as an unknown session: 404, at which clients open a new one (2025-11-25, sessions)."""

_UNKNOWN_PARAMS = frozenset({Reason.TASK_NOT_YOURS, Reason.STATE_NOT_YOURS})
_INVALID_PARAMS = -32602  # what servers answer to a task or a state that they do not know

_CONNECT = frozenset({"initialize", "server/discover"})
_MODERN = "2026-07-28"  # from this revision on a result must have a resultType

_THING: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.TOOL: "This tool call",
        Kind.RESOURCE: "This use of a resource",
        Kind.PROMPT: "This use of a prompt",
    }
)

# The status of a refusal for which no message was read. 401 and 407 are not among them: the one starts
# a login at the server, the other makes undici fail without a word when it answers an inner request.
STATUS: Mapping[Reason, int] = MappingProxyType(
    {
        Reason.DESTINATION_MISMATCH: 421,
        Reason.PATH_NOT_CANONICAL: 400,
        Reason.MALFORMED_JSON: 400,
        Reason.DUPLICATE_KEY: 400,
        Reason.NOT_UTF8: 400,
        Reason.TOO_DEEP: 400,
        Reason.MALFORMED_MESSAGE: 400,
        Reason.MALFORMED_HTTP: 400,
        Reason.HEADER_MISMATCH: 400,
        Reason.UNSUPPORTED_VERSION: 400,
        Reason.BATCH_REFUSED: 400,
        Reason.ENCODING_REFUSED: 415,
        Reason.TOO_LARGE: 413,
        Reason.HEADERS_TOO_LARGE: 431,
        Reason.TOO_SLOW: 408,
    }
)

SENTENCES: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.NO_EVIDENCE: "it does not say who is calling; present your callerid token or certificate",
        Reason.EVIDENCE_AMBIGUOUS: "it carries more than one credential of a kind; present one",
        Reason.EVIDENCE_UNRECOGNISED: "it carries a credential that callerid does not accept",
        Reason.TOKEN_MALFORMED: "the callerid token in it is damaged; copy it again, whole",
        Reason.TOKEN_UNKNOWN: "the callerid token in it was not issued here",
        Reason.TOKEN_EXPIRED: "the callerid token in it has expired; ask for a new one",
        Reason.TOKEN_REVOKED: "the callerid token in it was revoked; ask for a new one",
        Reason.TOKEN_NETWORK: "the callerid token in it is not good from this address",
        Reason.JWT_INVALID: "the JWT in it is not valid",
        Reason.JWT_EXPIRED: "the JWT in it has expired; get a new one",
        Reason.JWT_AUDIENCE: "the JWT in it was issued for another audience",
        Reason.JWT_PROOF: "the JWT in it is bound to a key, and the proof of holding it is missing or wrong",
        Reason.JWT_KEYS_UNAVAILABLE: "the JWT in it cannot be checked now: its issuer's keys are not at hand",
        Reason.CERTIFICATE_UNTRUSTED: "the client certificate does not come from a CA trusted here",
        Reason.CERTIFICATE_EXPIRED: "the client certificate is outside its dates; get a new one",
        Reason.CERTIFICATE_REVOKED: "the client certificate was revoked; get a new one",
        Reason.CERTIFICATE_REQUIRED: "this proxy asks every client for a certificate, and there was none",
        Reason.IDENTITY_CONFLICT: "its credentials name different callers; present those of one",
        Reason.WORKLOAD_UNKNOWN: "its credential is valid, but names no workload that is registered here",
        Reason.AGENT_NOT_PERMITTED: "this agent may not act for this caller",
        Reason.PRINCIPAL_BLOCKED: "this caller is blocked; ask your administrator",
        Reason.SESSION_NOT_YOURS: "its session is not known for you; open one of your own",
        Reason.SESSION_UNKNOWN: "its session is not known for you; open one of your own",
        Reason.EVENT_NOT_YOURS: "there is no stream of yours with this event; begin anew",
        Reason.TASK_NOT_YOURS: "there is no task of yours with this id",
        Reason.STATE_NOT_YOURS: "its requestState is not known for you; begin the call anew",
        Reason.REQUEST_NOT_YOURS: "you have no request with this id",
        Reason.RESPONSE_UNEXPECTED: "the server asked you nothing with this id",
        Reason.UNKNOWN_SERVER: "this server is not one that callerid knows; ask for it to be listed",
        Reason.DESTINATION_MISMATCH: "it names one server for its connection and another in its headers",
        Reason.PATH_NOT_CANONICAL: "servers read its URL in different ways; write it plainly",
        Reason.UPGRADE_REFUSED: "it asks to leave HTTP, which is not allowed for this server",
        Reason.ADDRESS_REFUSED: "it leads to a private address, and only listed servers may have one",
        Reason.TOKEN_IN_REQUEST: "it carries a callerid token where it would be sent on to the server",
        Reason.RAW_KEY: "it carries the shared key of a server; take it out of the client",
        Reason.OAUTH_WITHHELD: "no login is needed for this server: callerid holds its credential",
        Reason.DERIVE_REFUSED: "the token asked for would be good for more than the one it is derived from",
        Reason.MALFORMED_JSON: "its body is not valid JSON",
        Reason.DUPLICATE_KEY: "its body has an object with the same member twice",
        Reason.NOT_UTF8: "its body is not plain UTF-8",
        Reason.ENCODING_REFUSED: "its body has an encoding that callerid does not open; send it as it is",
        Reason.TOO_LARGE: "it is too large",
        Reason.HEADERS_TOO_LARGE: "its headers are too large",
        Reason.TOO_SLOW: "it did not arrive whole in time",
        Reason.TOO_MANY_IN_FLIGHT: "you have too many calls under way; wait until some of them end",
        Reason.TOO_DEEP: "its body is nested too deeply",
        Reason.MALFORMED_MESSAGE: "its body is not a valid MCP message",
        Reason.MALFORMED_HTTP: "it is not a valid HTTP request for an MCP server",
        Reason.HEADER_MISMATCH: "its MCP headers do not agree with its body",
        Reason.UNSUPPORTED_VERSION: "callerid does not know the MCP version that it names",
        Reason.BATCH_REFUSED: "batches are not allowed here; send each message by itself",
        Reason.BATCH_PARTNER_DENIED: "another message of the same batch was refused; send it by itself",
        Reason.NOT_MCP: "it is not MCP, and only MCP is allowed to this server",
        Reason.METHOD_UNKNOWN: "callerid does not know its method",
        Reason.RULE_DENIED: "a rule denies it",
        Reason.REQUIREMENT_FAILED: "it does not meet what a rule requires",
        Reason.NO_GRANT: "there is nothing of this name that you may use",
        Reason.OUTSIDE_SCOPE: "it is outside the scope of your token or agent",
        Reason.CREDENTIAL_UNAVAILABLE: "the credential for this server cannot be had now",
        Reason.CREDENTIAL_NOT_BOUND: "this method or URL is not one that the server's credential may go to",
        Reason.NO_SUBJECT_TOKEN: "this server wants to know you: come with a JWT of your identity provider",
        Reason.AUDIT_UNAVAILABLE: "it could not be recorded, and nothing is sent on without a record",
        Reason.INTERNAL_ERROR: "callerid met a fault of its own",
        Reason.CLIENT_GONE: "the client left before it was decided",
    }
)
"""Why, for the caller: a clause for each reason that is not an allowance."""

WITHHELD = "The server's answer was not given out by callerid"
NOT_SENT = "callerid could not send this to the server"
"""What is said before the clause on why a call that was allowed has no answer."""

_ASK_SENTENCES: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.MALFORMED_MESSAGE: "it is not a valid MCP message",
        Reason.METHOD_UNKNOWN: "callerid does not know what it is",
    }
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP response. ``headers`` are names and values in the order to send them."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


# An empty body has no content type to name: empty bytes are not JSON.
ACCEPTED = Answer(202, (("Cache-Control", "no-store"), ("Content-Length", "0")), b"")


@dataclass(frozen=True, slots=True)
class _Said:
    """A refusal as the caller may know it. ``rule`` is None if there is none, or none to be told."""

    text: str
    reason: Reason
    event_id: str
    rule: str | None

    def data(self) -> dict[str, str]:
        rule = {} if self.rule is None else {"rule": self.rule}
        return {"reason": self.reason.value, **rule, "decision": self.event_id}


def refusal(
    message: Message | None,
    *,
    reason: Reason,
    event_id: str,
    rule: str | None,
    say: str | None,
    hidden: bool,
    malformed: Malformed | None = None,
) -> Answer:
    """The answer to an HTTP request that is refused.

    Args:
        message: what was read of it, None if nothing was.
        reason: why; told as ``no_grant`` if ``hidden``.
        event_id: the decision's row, so that caller and operator can speak of the same thing.
        rule: the rule that decided, if one did.
        say: that rule's own words for the caller.
        hidden: the caller may not learn that the name exists: neither rule nor reason are told.
        malformed: set if the request could not be judged; its status and code are the answer, unless
            the reason is a fault of ours.
    """
    if message is not None and message.type in (MessageType.NOTIFICATION, MessageType.RESPONSE):
        return ACCEPTED
    said = _say(message, reason, event_id, rule, say, hidden)
    rpc_id = message.rpc_id if message is not None else malformed.rpc_id if malformed is not None else None
    if reason in FAULTS:
        return _answer(503, _error(rpc_id, FAULT_CODE, said))
    if malformed is not None:
        error = _error(rpc_id, malformed.rpc_code, said)
        error["error"]["data"] = {**(malformed.data or {}), **said.data()}
        return _answer(malformed.http_status, error)
    if message is None:
        return _answer(STATUS.get(reason, 403), _error(None, DENIED_CODE, said))
    if message.type is MessageType.HTTP:
        status = 400 if reason is Reason.EVENT_NOT_YOURS else 405
        return _answer(status, _error(None, DENIED_CODE, said))
    if message.method in _CONNECT or rpc_id is None:  # a 200 with a null id leaves the Python SDK waiting
        return _answer(403, _error(rpc_id, DENIED_CODE, said))
    return _answer(200, _refused(message, said))


def login(rpc_id: RpcId | None, reason: Reason, event_id: str, challenge: str) -> Answer:
    """The answer to a caller who is not known, where the company has a login for it: 401, and the way there.

    It is the one refusal that starts a login, and it starts the company's: ``challenge`` names metadata of
    ours (RFC 9728). Notifications get it as well: a client renews its token with whatever it sends first.
    """
    answer = _answer(401, _error(rpc_id, DENIED_CODE, _say(None, reason, event_id, None, None, False)))
    return Answer(answer.status, (*answer.headers, ("WWW-Authenticate", challenge)), answer.body)


def unknown_session(rpc_id: RpcId | None, event_id: str) -> Answer:
    """The answer to whatever names a session that is not its caller's, or nobody's: 404."""
    said = _say(None, Reason.SESSION_UNKNOWN, event_id, None, None, False)
    return _answer(404, _error(rpc_id, DENIED_CODE, said))


def batch_refusal(
    entries: Sequence[tuple[Message, Reason, str, str | None, str | None, bool]],
) -> Answer:
    """The answer to a batch, all of which is refused.

    Args:
        entries: message, reason, event id, rule, say, hidden of each element, in the batch's order.

    An array with one response per request (JSON-RPC 2.0 section 6), or 202 if there is no request.
    """
    responses = [
        _refused(message, _say(message, reason, event_id, rule, say, hidden))
        for message, reason, event_id, rule, say, hidden in entries
        if message.type is MessageType.REQUEST
    ]
    if not responses:
        return ACCEPTED
    return _answer(200, responses)


def upstream_refused_credential(rpc_id: RpcId | None, event_id: str) -> Answer:
    """The server did not take the shared credential: 502, and no ``WWW-Authenticate``.

    The server's own 401 would make an SDK log its person in at the server, past the shared credential.
    """
    text = (
        "The server did not accept the credential that callerid holds for it. Your own credential is not "
        f"the cause: do not log in again, tell the operator of callerid. Decision {event_id}."
    )
    return _answer(502, _upstream_error(rpc_id, event_id, Outcome.UPSTREAM_REFUSED_CREDENTIAL, text))


def upstream_unusable(
    rpc_id: RpcId | None, event_id: str, detail: str, outcome: Outcome = Outcome.RESPONSE_REFUSED
) -> Answer:
    """The server's answer cannot be inspected, so it is not given out: 502.

    ``detail`` is a clause in our own words, without a byte of the answer.
    """
    return _answer(502, _unusable(rpc_id, event_id, detail, outcome))


def stream_error(
    rpc_id: RpcId | None, event_id: str, detail: str, outcome: Outcome = Outcome.RESPONSE_REFUSED
) -> bytes:
    """An event that ends the call ``rpc_id`` with an error: the last of a stream that is cut off."""
    return b"event: message\ndata: " + _dump(_unusable(rpc_id, event_id, detail, outcome)) + b"\n\n"


def unreadable_answer(rpc_id: RpcId) -> dict[str, Any]:
    """The JSON-RPC error in place of an answer that had to be judged and could not be read."""
    text = "The server's answer could not be read, so callerid cannot tell what of it is for you."
    error = {"code": UPSTREAM_CODE, "message": text, "data": {"outcome": Outcome.RESPONSE_REFUSED.value}}
    return {"jsonrpc": "2.0", "id": rpc_id, "error": error}


def ask_refused(request: Message | None, rpc_id: RpcId | None, refusal: AskRefusal) -> dict[str, Any]:
    """The response in place of one in which the server asks what rules refuse.

    Args:
        request: what the server's answer answered, None if that is not known.
        rpc_id: the id of the server's answer, as it stood there.
        refusal: why.

    A tool result with ``isError`` for ``tools/call``, so that the model learns of it; else a JSON-RPC error.
    """
    reason, rule, say = refusal.reason, refusal.rule, refusal.say
    text = "The server did not answer this, but asked you for something"
    if reason in FAULTS:
        text += f", and callerid could not decide whether it may: {SENTENCES[reason]}. Try again later. "
        return _refuse_ask(request, rpc_id, _Said(text, reason, refusal.event_id, None))
    # As in _say: what is hidden reads like what no rule allows.
    if refusal.hidden or reason is Reason.NO_GRANT:
        reason, rule, say = Reason.NO_GRANT, None, None
    why = "no rule allows it" if reason is Reason.NO_GRANT else _ASK_SENTENCES.get(reason, SENTENCES[reason])
    text += f" that callerid does not let it ask: {why}. "
    if say:
        text += f"{say.strip()} "
    text += "Do not retry unchanged. "
    return _refuse_ask(request, rpc_id, _Said(text, reason, refusal.event_id, rule))


def _refuse_ask(request: Message | None, rpc_id: RpcId | None, said: _Said) -> dict[str, Any]:
    named = "" if said.rule is None else f"rule {said.rule}, "
    text = f"{said.text}Reason {said.reason.value}, {named}decision {said.event_id}."
    told = _Said(text, said.reason, said.event_id, said.rule)
    if request is None:
        return _error(rpc_id, FAULT_CODE if said.reason in FAULTS else DENIED_CODE, told)
    return {**_refused(request, told), "id": rpc_id}


def _say(
    message: Message | None, reason: Reason, event_id: str, rule: str | None, say: str | None, hidden: bool
) -> _Said:
    thing = "This request" if message is None else _THING.get(message.kind, "This request")
    if reason in FAULTS:
        text = f"{thing} was not sent on: {SENTENCES[reason]}. Try again later."
        return _Said(f"{text} Reason {reason.value}, decision {event_id}.", reason, event_id, None)
    # Hidden, forbidden and unknown names read the same: nothing below may depend on which it was.
    if hidden or reason is Reason.NO_GRANT:
        reason, rule, say = Reason.NO_GRANT, None, None
    text = f"{thing} was refused by callerid: {SENTENCES[reason]}. "
    if say:
        text += f"{say.strip()} "
    named = "" if rule is None else f"rule {rule}, "
    text += f"Do not retry it unchanged. Reason {reason.value}, {named}decision {event_id}."
    return _Said(text, reason, event_id, rule)


def _refused(message: Message, said: _Said) -> dict[str, Any]:
    """The JSON-RPC response that refuses a request."""
    if said.reason in _UNKNOWN_PARAMS:
        return _error(message.rpc_id, _INVALID_PARAMS, said)
    if message.method != "tools/call" or said.reason in FAULTS:
        return _error(message.rpc_id, FAULT_CODE if said.reason in FAULTS else DENIED_CODE, said)
    result: dict[str, Any] = {"content": [{"type": "text", "text": said.text}], "isError": True}
    if message.protocol is not None and message.protocol >= _MODERN:
        result["resultType"] = "complete"
    result["_meta"] = {f"callerid/{name}": value for name, value in said.data().items()}
    return {"jsonrpc": "2.0", "id": message.rpc_id, "result": result}


def _error(rpc_id: RpcId | None, code: int, said: _Said) -> dict[str, Any]:
    error = {"code": code, "message": said.text, "data": said.data()}
    return {"jsonrpc": "2.0", "id": rpc_id, "error": error}


def _unusable(rpc_id: RpcId | None, event_id: str, detail: str, outcome: Outcome) -> dict[str, Any]:
    text = f"{NOT_SENT if outcome is Outcome.NOT_SENT else WITHHELD}: {detail}. Decision {event_id}."
    return _upstream_error(rpc_id, event_id, outcome, text)


def _upstream_error(rpc_id: RpcId | None, event_id: str, outcome: Outcome, text: str) -> dict[str, Any]:
    data = {"outcome": outcome.value, "decision": event_id}
    return {"jsonrpc": "2.0", "id": rpc_id, "error": {"code": UPSTREAM_CODE, "message": text, "data": data}}


def _answer(status: int, payload: Any) -> Answer:
    body = _dump(payload)
    headers = (
        ("Content-Type", "application/json"),
        ("Cache-Control", "no-store"),
        ("Content-Length", str(len(body))),
    )
    allow = (("Allow", "POST"),) if status == 405 else ()  # RFC 9110 section 15.5.6 asks for it
    return Answer(status, headers + allow, body)


def _dump(payload: Any) -> bytes:
    """JSON in ASCII: it can be written whatever an id or a rule's text has in it."""
    return json.dumps(payload, ensure_ascii=True, separators=(",", ":")).encode("ascii")
