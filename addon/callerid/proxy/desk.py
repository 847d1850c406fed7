"""The proxy's own address, ``callerid.internal``: answered by callerid itself and never dialled.

- ``GET /whoami``: whom callerid takes the sender for, and what narrows it.
- ``POST /derive``: a narrower token for a sub-agent, for whoever holds good evidence, no admin needed.
- ``GET /.well-known/jwks.json``: the public keys of what servers are told (``callerid jwks``).

Every request to it is a row with server ``callerid``, committed before its answer. Browsers are kept out: a
request with ``Origin`` is refused, and a POST must be JSON, which no page can send elsewhere unasked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from callerid.errors import ConfigError, StoreError
from callerid.mcp import strictjson
from callerid.mcp.answers import SENTENCES, Answer
from callerid.model import (
    EMPTY,
    Caller,
    Decision,
    Kind,
    Message,
    MessageType,
    Reason,
    Rejected,
    Verdict,
)
from callerid.proxy.clerk import Clerk
from callerid.proxy.derive import Ask, Derivation, Refusal, read_ask
from callerid.proxy.destination import DESK, is_desk, split_authority
from callerid.proxy.facts import Facts, Ruling
from callerid.proxy.rooms import Rooms
from callerid.proxy.rows import FAULTS, Finding, Rows
from callerid.proxy.strip import holds

SERVER = "callerid"
"""The server's name in the rows."""
MAX_BODY = 16_384

_PLACES = {("http", 80), ("https", 443)}
_METHODS: Mapping[str, str] = {"/whoami": "GET", "/derive": "POST", "/.well-known/jwks.json": "GET"}
_STATUS: Mapping[Reason, int] = {
    Reason.DESTINATION_MISMATCH: 421,
    Reason.MALFORMED_JSON: 400,
    Reason.DUPLICATE_KEY: 400,
    Reason.NOT_UTF8: 400,
    Reason.TOO_DEEP: 400,
    Reason.MALFORMED_MESSAGE: 400,
    Reason.TOKEN_IN_REQUEST: 400,
    Reason.ENCODING_REFUSED: 415,
    Reason.HEADER_MISMATCH: 415,
    Reason.TOO_LARGE: 413,
    Reason.INTERNAL_ERROR: 503,
}
"""HTTP status by reason; 403 for the others of the desk itself, 401 for evidence that names nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is answered, and what its row says. ``arguments`` and ``detail`` are for the row only."""

    status: int
    body: Mapping[str, Any]
    reason: Reason = Reason.ANSWERED_HERE
    detail: str | None = None
    arguments: Mapping[str, Any] = EMPTY
    headers: tuple[tuple[str, str], ...] = ()
    undo: Callable[[], None] | None = None


def is_for_desk(facts: Facts) -> bool:
    """True if any name of the place that the request is for is ours."""
    said = split_authority(facts.host_header, facts.scheme) if facts.host_header is not None else None
    return (
        is_desk(facts.host)
        or (said is not None and said[0] == DESK)
        or (facts.sni is not None and is_desk(facts.sni))
    )


class Desk:
    """Answers what is asked of callerid itself. ``new_token`` gives the text of a fresh token."""

    def __init__(self, registry: Path, new_id: Callable[[], str], new_token: Callable[[], str]) -> None:
        self._clerk = Clerk(registry)
        self._derivation = Derivation(self._clerk, new_token)
        self._new_id = new_id

    def close(self) -> None:
        """Let what is being written end."""
        self._clerk.close()

    async def rule(self, facts: Facts, rooms: Rooms) -> Ruling:
        """The row and the answer of one request that ``is_for_desk``.

        Raises:
            StoreError: who it is cannot be found out, since the registry cannot be read.
        """
        rows = Rows(facts, rooms, self._new_id, SERVER)
        caller = rooms.authority.identify(facts.presented, now=rows.now)
        rows.know(caller)
        path = facts.path.partition("?")[0]
        reply = _astray(facts, rooms, rows.now)
        if reply is None:
            reply = await self._route(path, facts, rooms, caller)
        return _ruling(rows, facts, path if path in _METHODS else None, reply)

    async def _route(self, path: str, facts: Facts, rooms: Rooms, caller: Caller | Rejected) -> Reply:
        method = _METHODS.get(path)
        if method is None:
            return Reply(status=404, body={"error": "not_found", "detail": "there is nothing at this path"})
        if facts.http_method != method:
            body = {"error": "method_not_allowed", "detail": f"{path} takes {method}"}
            return Reply(status=405, body=body, headers=(("Allow", method),))
        if path == "/.well-known/jwks.json":
            return _keys(rooms, facts)
        if isinstance(caller, Rejected):
            challenge = (("WWW-Authenticate", 'Bearer realm="callerid"'),)
            reply = _refused(caller.reason, SENTENCES[caller.reason], caller.detail)
            return replace(reply, status=401, headers=challenge)
        if path == "/whoami":
            return Reply(status=200, body=describe(caller, facts.client_ip))
        return await self._derive(facts, rooms, caller)

    async def _derive(self, facts: Facts, rooms: Rooms, caller: Caller) -> Reply:
        asked = _read(facts)
        if isinstance(asked, Refusal):
            return _refused(asked.reason, asked.detail)
        try:
            made = await self._derivation.make(asked, facts, rooms, caller)
        except ConfigError as error:
            made = Refusal(Reason.DERIVE_REFUSED, f"{error.message}. {error.hint}")
        except StoreError as error:
            made = Refusal(Reason.INTERNAL_ERROR, "the registry cannot be written now", str(error))
        if isinstance(made, Refusal):
            return replace(_refused(made.reason, made.detail, made.why), arguments=asked.plain())
        take_back = partial(self._derivation.take_back, made.id, facts.time_us)
        # The row says which token, never the token.
        return Reply(status=201, body=made.body, detail=made.detail, arguments=asked.plain(), undo=take_back)


def describe(caller: Caller, client_ip: str | None) -> dict[str, Any]:
    """A caller as it is shown to itself."""
    return {
        "principal": caller.principal.subject,
        "issuer": caller.principal.issuer,
        "agent": caller.agent,
        "actors": list(caller.actors),
        "groups": sorted(caller.groups),
        "assurance": caller.assurance_name,
        "evidence": [
            {"kind": one.kind.value, "carrier": one.carrier.value, "id": one.credential_id}
            for one in caller.evidence
        ],
        "ceilings": [
            {
                "origin": one.origin,
                "servers": None if one.servers is None else list(one.servers),
                "tools": None if one.tools is None else list(one.tools),
            }
            for one in caller.ceilings
        ],
        "expires": None if caller.expires_us is None else _iso(caller.expires_us),
        "client_ip": client_ip,
        "via": caller.via,
    }


def _astray(facts: Facts, rooms: Rooms, now: datetime) -> Reply | None:
    """The refusal of a request that is not for us alone, or that a page in a browser sent."""
    uncertified = rooms.authority.uncertified(facts.presented, now=now)
    if uncertified is not None:
        reply = _refused(uncertified.reason, SENTENCES[uncertified.reason], uncertified.detail)
        return replace(reply, status=403)
    said = split_authority(facts.host_header, facts.scheme) if facts.host_header is not None else None
    agree = is_desk(facts.host) and (facts.sni is None or is_desk(facts.sni))
    if not agree or (facts.host_header is not None and said != (DESK, facts.port)):
        return _refused(Reason.DESTINATION_MISMATCH, f"not all names in the request are {DESK}")
    if (facts.scheme, facts.port) not in _PLACES:
        return _refused(Reason.DESTINATION_MISMATCH, f"{DESK} is at ports 80 (http) and 443 (https)")
    if facts.values("origin"):
        return replace(_refused(Reason.HEADER_MISMATCH, "nothing here is for pages in browsers"), status=403)
    if holds(facts.path):
        return _refused(Reason.TOKEN_IN_REQUEST, "a token does not belong into a URL")
    return None


def _read(facts: Facts) -> Ask | Refusal:
    """The body of ``POST /derive``: one strict JSON object."""
    kinds = [value.partition(";")[0].strip().lower() for value in facts.values("content-type")]
    if kinds != ["application/json"]:
        return Refusal(Reason.HEADER_MISMATCH, "send it with Content-Type: application/json")
    if any(value.strip().lower() != "identity" for value in facts.values("content-encoding")):
        return Refusal(Reason.ENCODING_REFUSED, "send the body as it is, without a content encoding")
    try:
        asked = strictjson.loads(facts.body, max_bytes=MAX_BODY, max_depth=3, max_digits=20)
    except strictjson.JsonError as error:
        return Refusal(error.reason, error.detail)
    return read_ask(asked)


def _keys(rooms: Rooms, facts: Facts) -> Reply:
    keys = rooms.signing.jwks(facts.time_us // 1_000_000)
    return Reply(status=200, body=keys, headers=(("Cache-Control", "public, max-age=300"),))


def _refused(reason: Reason, said: str, why: str | None = None) -> Reply:
    """A refusal: ``said`` is for the caller, ``why`` for the row if that is to say more."""
    body = {"error": reason.value, "detail": said}
    return Reply(status=_STATUS.get(reason, 403), body=body, reason=reason, detail=why or said)


def _ruling(rows: Rows, facts: Facts, path: str | None, reply: Reply) -> Ruling:
    """The row of a reply, and the reply as it goes out: with the id of its row."""
    refused = reply.reason is not Reason.ANSWERED_HERE
    faulty = Verdict.ERROR if reply.reason in FAULTS else Verdict.DENY
    verdict = faulty if refused else Verdict.ALLOW
    known = facts.http_method if facts.http_method.isalpha() and len(facts.http_method) <= 16 else "?"
    message = Message(
        type=MessageType.HTTP,
        method=f"http/{known}",
        kind=Kind.HTTP,
        name=None if path is None else f"{known} {path}",
        arguments=reply.arguments,
    )
    decision = Decision(verdict=verdict, reason=reply.reason, policy=rows.rooms.rules.hash)
    ruling = rows.allow(
        [Finding(message, decision, reply.detail, tool=message.name)], body=None, injection=None, strip=()
    )
    body = {**reply.body, "decision": ruling.records[0].event_id} if refused else reply.body
    return replace(ruling, answer=_written(replace(reply, body=body)), undo=reply.undo)


def refusal(reason: Reason, detail: str, event_id: str) -> Answer:
    """The answer to a request for us that was refused before it was here as a whole."""
    reply = _refused(reason, detail)
    return _written(replace(reply, body={**reply.body, "decision": event_id}))


def _written(reply: Reply) -> Answer:
    text = json.dumps(reply.body, ensure_ascii=True, indent=2).encode("ascii") + b"\n"
    fields = [("Content-Type", "application/json"), *reply.headers]
    if not any(name == "Cache-Control" for name, _ in reply.headers):
        fields.append(("Cache-Control", "no-store"))
    fields += [("X-Content-Type-Options", "nosniff"), ("Content-Length", str(len(text)))]
    return Answer(reply.status, tuple(fields), text)


def _iso(moment_us: int) -> str:
    return datetime.fromtimestamp(moment_us // 1_000_000, UTC).isoformat()
