"""The walk of one request: locate, classify, identify, decide, prepare. Values in, a Ruling out.

Nothing here waits, reads a clock or knows mitmproxy. It holds no rule of its own: it asks the rooms
in order, and the first that refuses decides. What it returns is recorded before it is acted on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from urllib.parse import unquote

from callerid.mcp import oauthdoor, strictjson
from callerid.mcp.classify import classify
from callerid.model import (
    Exchange,
    Malformed,
    MessageType,
    Reason,
    Rejected,
    Verdict,
)
from callerid.proxy import http_calls, sidedoor
from callerid.proxy.crediting import beside_certificate, credential, stray_token
from callerid.proxy.deciding import Place, decide
from callerid.proxy.destination import Astray, Governed, Unlisted
from callerid.proxy.doorway import turned_away
from callerid.proxy.facts import Facts, Ruling
from callerid.proxy.ownership import not_yours, session_of
from callerid.proxy.rooms import Rooms
from callerid.proxy.rows import Finding, Rows
from callerid.proxy.unlisted import judge_unlisted


def walk(facts: Facts, rooms: Rooms, new_id: Callable[[], str]) -> Ruling | None:
    """Judge one request.

    Args:
        facts: the request.
        rooms: what it is judged by.
        new_id: gives a fresh event id per row.

    Returns:
        The ruling, or None for traffic that is not MCP towards a server that nobody listed: it
        leaves no row, and goes on without what is ours in it (``foreign_strip``).
    """
    seen = rooms.hygiene.looked(facts, rooms.store)
    ruling = _walk(seen, rooms, new_id)
    if ruling is None or seen is facts:
        return ruling
    target = seen.path if ruling.target is None and seen.path != facts.path else ruling.target
    return replace(ruling, judged=seen, target=target)


def _walk(facts: Facts, rooms: Rooms, new_id: Callable[[], str]) -> Ruling | None:
    uncertified = turned_away(facts, rooms, new_id)
    if uncertified is not None:
        return uncertified
    place = rooms.servers.locate(
        scheme=facts.scheme,
        host=facts.host,
        port=facts.port,
        path=facts.path,
        host_header=facts.host_header,
        sni=facts.sni,
    )
    opened = None if isinstance(place, Astray) else sidedoor.find(facts, rooms, place)
    if opened is not None:
        return _side_door(Rows(facts, rooms, new_id, opened.server.id), opened)
    if isinstance(place, Unlisted):
        beside = beside_certificate(facts, Rows(facts, rooms, new_id, place.name))
        return beside or judge_unlisted(facts, rooms, new_id, place)
    return _governed(facts, rooms, new_id, place)


def _side_door(rows: Rows, opened: sidedoor.Opened) -> Ruling:
    """Answered here. Nobody has to be known for it: clients look there before they have anything to show."""
    rows.know(rows.rooms.authority.identify(rows.facts.presented, now=rows.now))
    if opened.resource is None:
        return rows.answer_here(Reason.OAUTH_WITHHELD, oauthdoor.withheld)
    document = oauthdoor.metadata(opened.resource, sidedoor.logins(rows.rooms))
    return rows.answer_here(Reason.ANSWERED_HERE, lambda _: document)


def _governed(facts: Facts, rooms: Rooms, new_id: Callable[[], str], place: Governed | Astray) -> Ruling:
    rows = Rows(facts, rooms, new_id, place.server.id if isinstance(place, Governed) else place.server)
    caller = rooms.authority.identify(facts.presented, now=rows.now)
    rows.know(caller)
    if isinstance(place, Governed) and place.server.kind == "http":
        return http_calls.judge(facts, rows, caller, place.server)
    if isinstance(place, Astray):
        return rows.refuse(http_calls.seen(facts, rows), place.reason, place.detail)
    found = classify(facts.http_method, facts.headers, facts.body, **rooms.limits.reading)
    server = place.server
    rows.server_entry = server
    if _is_message_in_query(facts.path):
        return rows.refuse(
            found, Reason.PATH_NOT_CANONICAL, "a message in the query travels where nobody judges it"
        )
    if facts.upgrade:
        return rows.refuse(found, Reason.UPGRADE_REFUSED, "no protocol but HTTP is spoken to this server")
    if isinstance(caller, Rejected):
        return rows.refuse(found, caller.reason, caller.detail)
    protocol = found.protocol if isinstance(found, Exchange) else None
    session = session_of(facts, caller, server, rooms, protocol)
    rows.session = session or rows.session
    foreign = not_yours(facts, caller, server, rooms, session)
    if foreign is not None:
        return rows.refuse(found, foreign.reason, foreign.detail)
    conversation = rooms.conversations.of(server.id, session, caller.principal.subject)
    said = Place(rooms=rooms, caller=caller, server=server, conversation=conversation, now=rows.now)
    return replace(_own(facts, rows, found, said), conversation=conversation, session=session)


def _is_message_in_query(path: str) -> bool:
    """Whether a JSON-RPC message stands in the query, as JSON-RPC over GET has it."""
    members = (unquote(pair.partition("=")[0]).lower() for pair in path.partition("?")[2].split("&"))
    return not {"jsonrpc", "method"}.isdisjoint(members) and "jsonrpc" in unquote(path).lower()


def _own(facts: Facts, rows: Rows, found: Exchange | Malformed, place: Place) -> Ruling:
    """The ruling on a request in its caller's own session."""
    if isinstance(found, Malformed):
        return rows.refuse(found, found.reason, found.detail)
    if stray_token(facts, found, place):
        return rows.refuse(
            found, Reason.TOKEN_IN_REQUEST, "a token of ours would have left in the URL or body"
        )
    findings = [
        replace(finding, index=index if found.batch else None, part=place_in > 0)
        for index, message in enumerate(found.messages)
        for place_in, finding in enumerate(decide(message, place))
    ]
    if found.messages[0].type is MessageType.RESPONSE:
        return _responses(facts, rows, found, findings, place)
    if any(finding.decision.verdict is not Verdict.ALLOW for finding in findings):
        return rows.deny(findings, found.batch)
    crowded = place.rooms.in_flight.flaw(place.caller.principal.subject, found.messages, place.rooms.limits)
    if crowded is not None:
        return rows.refuse(found, Reason.TOO_MANY_IN_FLIGHT, crowded)
    return credential(facts, rows, found, findings, place)


def _responses(facts: Facts, rows: Rows, found: Exchange, findings: list[Finding], place: Place) -> Ruling:
    """A client's answers: those that may go, and an error of ours in the place of those that may not."""
    limits = place.rooms.limits
    envelope = strictjson.loads(
        found.body, max_bytes=limits.body, max_depth=limits.depth, max_digits=limits.digits
    )
    members = envelope if found.batch else [envelope]
    kept = [
        finding.substitute or members[finding.index or 0]
        for finding in findings
        if finding.decision.verdict is Verdict.ALLOW
    ]
    if not kept:
        return rows.deny(findings, found.batch)
    body = strictjson.dumps(kept if found.batch else kept[0])
    return credential(facts, rows, replace(found, body=body), findings, place)
