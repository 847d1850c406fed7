"""Servers that nobody listed: MCP among them is found, attributed, and refused or observed.

Found by the request, by what was found at this place before, or by the answer. Everything that is not MCP
passes, and leaves nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from callerid.audit.views import OWN_CREDENTIAL
from callerid.credentials.tripwire import Hit, refusal
from callerid.identity.tokens import contains_token
from callerid.mcp.claimed import claimed_messages
from callerid.mcp.classify import classify
from callerid.mcp.recognise import looks_like_mcp_request
from callerid.model import (
    Caller,
    Carrier,
    Decision,
    Exchange,
    Malformed,
    Message,
    MessageType,
    Reason,
    Rejected,
    RpcId,
    Verdict,
)
from callerid.proxy.destination import DEFAULT_PORTS, Unlisted, normal_host
from callerid.proxy.discovered import Spot, spot
from callerid.proxy.facts import Facts, Ruling
from callerid.proxy.rooms import Rooms
from callerid.proxy.rows import Finding, Rows, unread
from callerid.proxy.strip import foreign_strip, holds

UNKNOWN_CALLERS = frozenset({Reason.NO_EVIDENCE, Reason.EVIDENCE_UNRECOGNISED})
"""Where servers are only observed, these pass as anonymous; evidence that fails is refused everywhere."""

_NOT_LISTED = "no server of this name is listed in servers.yaml"
_BY_ANSWER = "recognised by its answer; the request had already gone to the server"
_BY_PLACE = "MCP was found at this place before"
_OWN: Mapping[str, str] = MappingProxyType(
    {
        "authorization": "Authorization",
        "x-api-key": "X-Api-Key",
        "api-key": "Api-Key",
        "x-auth-token": "X-Auth-Token",
        "cookie": "Cookie",
    }
)
_SCHEMES: Mapping[str, str] = MappingProxyType(
    {name.lower(): name for name in ("Bearer", "Basic", "Digest", "DPoP", "Negotiate", "NTLM", "Token")}
)


def judge_unlisted(facts: Facts, rooms: Rooms, new_id: Callable[[], str], place: Unlisted) -> Ruling | None:
    """The ruling on a request to a server that nobody listed; None if it is not MCP as far as it shows."""
    rows = Rows(facts, rooms, new_id, place.name)
    if holds(facts.path) or contains_token(facts.body):
        return rows.refuse_whole(
            Reason.TOKEN_IN_REQUEST, "a token of ours would have left in the URL or body"
        )
    if facts.noticed.refused:
        rows.know(rooms.authority.identify(facts.presented, now=rows.now))
        return rows.refuse_whole(Reason.RAW_KEY, facts.noticed.refused)
    here = spot_of(facts)
    looks = looks_like_mcp_request(facts.http_method, facts.headers, facts.body)
    proved = rooms.discovered.is_proved(here)
    if not looks and not proved and not rooms.discovered.is_claimed(here):
        return None
    rows.know(rooms.authority.identify(facts.presented, now=rows.now))
    senders = _senders(facts, rows.caller)
    if not looks and not proved and not rooms.discovered.is_claimed(here, senders):
        return None
    if looks:
        rooms.discovered.claim(here, senders)
    return _rule(facts, rooms, rows, None if looks else _BY_PLACE)


def judge_answer(
    facts: Facts, rooms: Rooms, new_id: Callable[[], str], rpc_id: RpcId | None
) -> tuple[Ruling, tuple[Message, ...]]:
    """The ruling on an exchange that its answer showed to be MCP, and what was asked in it.

    Args:
        facts: the request, with the time of now.
        rooms: what it is judged by.
        new_id: gives a fresh event id per row.
        rpc_id: the id that the answer names, for a request that cannot be read.

    The request is at the server by now: a refusal can only keep the answer from the client.
    """
    rows = Rows(facts, rooms, new_id, name_of(facts))
    rooms.discovered.prove(spot_of(facts))
    rows.know(rooms.authority.identify(facts.presented, now=rows.now))
    asked = claimed_messages(facts.headers, facts.body)
    if not asked:
        asked = (_nameless(facts, rpc_id),)
    refused = _refused(facts, rooms, rows.caller)
    own = own_credential(facts, rooms)
    if refused is None:
        observed = Decision(verdict=Verdict.ALLOW, reason=Reason.OBSERVED, policy=rooms.rules.hash)
        findings = [Finding(message, observed, _join(_BY_ANSWER, own)) for message in asked]
        return rows.allow(findings, body=None, injection=None, strip=()), asked
    reason, detail = refused
    found = Malformed(
        reason=reason, detail=detail, http_status=403, rpc_code=-32600,
        rpc_id=next((message.rpc_id for message in asked if message.rpc_id is not None), None),
        method=asked[0].method if len(asked) == 1 else None,
        elements=tuple((message.method, message.rpc_id) for message in asked) if len(asked) > 1 else (),
    )  # fmt: skip
    return rows.refuse(found, reason, _join(detail, _BY_ANSWER, own)), asked


def spot_of(facts: Facts) -> Spot:
    """The place that a request is for."""
    return spot(facts.host, facts.port, facts.path)


def own_credential(facts: Facts, rooms: Rooms) -> str:
    """What the caller carries for the server itself, by its kind and never its value; empty if nothing."""
    ours = {name.lower() for name in foreign_strip(facts, rooms.authority)}
    carried = {name.lower(): value for name, value in facts.headers if name.lower() not in ours}
    named = [shown for name, shown in _OWN.items() if name in carried]
    if not named:
        return ""
    if "authorization" not in carried:
        return f"{OWN_CREDENTIAL} {named[0]}"
    scheme = _SCHEMES.get(carried["authorization"].strip().partition(" ")[0].lower(), "of another scheme")
    return f"{OWN_CREDENTIAL} Authorization ({scheme})"


def _rule(facts: Facts, rooms: Rooms, rows: Rows, why: str | None) -> Ruling:
    found = classify(facts.http_method, facts.headers, facts.body)
    own = own_credential(facts, rooms)
    refused = _refused(facts, rooms, rows.caller)
    if refused is not None:
        reason, detail = refused
        return rows.refuse(found, reason, _join(detail, why, own))
    hit = rooms.hygiene.in_body(found.body if isinstance(found, Exchange) else facts.body, rooms.store)
    raw = refusal(facts.noticed, hit)
    if raw:
        return blamed(rows.refuse(found, Reason.RAW_KEY, raw), hit)
    observed = Decision(verdict=Verdict.ALLOW, reason=Reason.OBSERVED, policy=rooms.rules.hash)
    if isinstance(found, Exchange):
        messages, flaw, many = found.messages, None, found.batch
    else:
        flaw = f"{found.reason.value}: {found.detail}"
        messages = claimed_messages(facts.headers, facts.body) or (unread(facts, found),)
        many = len(messages) > 1
    findings = [
        Finding(message, observed, _join(flaw, why, own) or None, index=index if many else None)
        for index, message in enumerate(messages)
    ]
    strip = (*foreign_strip(facts, rooms.authority), *facts.noticed.strip)
    return blamed(rows.allow(findings, body=None, injection=None, strip=strip), hit)


def blamed(ruling: Ruling, hit: Hit | None) -> Ruling:
    """The ruling with the shared key that stands in the body, if there is one."""
    return ruling if hit is None else replace(ruling, hits=(hit,))


def _refused(facts: Facts, rooms: Rooms, caller: Caller | Rejected | None) -> tuple[Reason, str] | None:
    """Why MCP to a server that nobody listed is refused to this caller, or None if it is observed."""
    if rooms.rules.unknown_server != "observe":
        return Reason.UNKNOWN_SERVER, _NOT_LISTED
    if isinstance(caller, Rejected) and (caller.reason not in UNKNOWN_CALLERS or _came_to_us(facts)):
        return caller.reason, caller.detail
    return None


def _came_to_us(facts: Facts) -> bool:
    """Whether anything came in a carrier of ours: it was meant as evidence for us, and fails as such."""
    carriers = (*facts.presented.at_connect(), *facts.presented.headers())
    return any(values for carrier, values in carriers if carrier is not Carrier.AUTHORIZATION)


def _senders(facts: Facts, caller: Caller | Rejected | None) -> tuple[str, ...]:
    """Whom a request binds: who it is, and the address that it came from."""
    known = (caller.principal.subject,) if isinstance(caller, Caller) else ()
    return (*known, facts.client_ip) if facts.client_ip is not None else known


def name_of(facts: Facts) -> str:
    """As ``destination.Unlisted`` has it."""
    host = normal_host(facts.host)
    return host if facts.port == DEFAULT_PORTS.get(facts.scheme) else f"{host}:{facts.port}"


def _nameless(facts: Facts, rpc_id: RpcId | None) -> Message:
    """The message of a request that nobody can read; the answer says its id, if it has one."""
    empty = Malformed(reason=Reason.NOT_MCP, detail="", http_status=0, rpc_code=0, rpc_id=rpc_id)
    message = unread(facts, empty)
    return message if rpc_id is None else replace(message, type=MessageType.REQUEST)


def _join(*parts: str | None) -> str:
    return "; ".join(part for part in parts if part)
