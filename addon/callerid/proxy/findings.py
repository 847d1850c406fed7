"""Keys and tokens where they should not be: found in requests, refused or taken out, and told as findings.

A caller that still holds a shared key, one that spends a key of its own at an MCP server, evidence for us
that was sent to somebody else, two identities in one request, a server that gives its secret away: none of
them is a decision of the rules, and an operator wants to know of each (``audit.codes.FINDINGS``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from urllib.parse import unquote

from callerid.credentials.owned import KEYS_TOLD, keys_in, own_keys
from callerid.credentials.strip import CALLER_HEADERS
from callerid.credentials.tripwire import Hit
from callerid.identity.tokens import LENGTH, PREFIX, digest, is_well_formed, token_id
from callerid.model import Caller, DecisionRecord, FindingKind, FindingRecord, Reason
from callerid.proxy.calls import Call
from callerid.proxy.destination import is_desk
from callerid.proxy.facts import Facts, Ruling
from callerid.proxy.hygiene import Tell
from callerid.proxy.rooms import Rooms
from callerid.proxy.strip import foreign_strip
from callerid.proxy.unlisted import name_of

logger = logging.getLogger(__name__)


def found_in(ruling: Ruling, facts: Facts, rooms: Rooms) -> Iterator[FindingRecord]:
    """What an operator is told of a request that has its rows.

    Args:
        ruling: as the walk made it.
        facts: the request as it came.
        rooms: what it was judged by.
    """
    if ruling.records:
        yield from _of_ruling(ruling, facts, ruling.judged or facts, rooms)


def found_passing(
    facts: Facts, seen: Facts, stripped: Iterable[str], rooms: Rooms
) -> Iterator[FindingRecord]:
    """What was found in traffic that leaves no row."""
    server = name_of(facts)
    abroad = _abroad(stripped)
    if not seen.noticed.hits and not abroad:
        return
    principal, credential = _whose(facts, rooms)
    for hit in seen.noticed.hits:
        yield _raw_key(hit, facts.time_us, server, principal)
    if abroad:
        yield from _tokens_abroad(facts, abroad, server, principal, credential)


def echoed(call: Call, rooms: Rooms, tell: Tell, where: str, time_us: int) -> None:
    """An answer held a shared secret; it was taken out."""
    logger.error("callerid: server %s echoed its secret %s; removed", call.records[0].server, where)
    label = call.injection.label if call.injection is not None else None
    finding = _of_answer(FindingKind.SECRET_ECHOED, call, label, where, time_us)
    rooms.hygiene.tell((finding,), tell)


def refused_upstream(call: Call, rooms: Rooms, tell: Tell, time_us: int) -> None:
    """The server refused the credential that we put in."""
    label = call.injection.label if call.injection is not None else None
    finding = _of_answer(FindingKind.CREDENTIAL_REFUSED, call, label, call.detail, time_us)
    rooms.hygiene.tell((finding,), tell)


def _of_answer(
    kind: FindingKind, call: Call, label: str | None, detail: str | None, time_us: int
) -> FindingRecord:
    record = call.records[0]
    return FindingRecord(
        time_us=time_us,
        kind=kind,
        event_id=record.event_id,
        server=record.server,
        principal=record.principal,
        credential=label,
        detail=detail,
    )


def _of_ruling(ruling: Ruling, facts: Facts, seen: Facts, rooms: Rooms) -> Iterator[FindingRecord]:
    record = ruling.records[0]
    hits = (*seen.noticed.hits, *ruling.hits)
    if record.principal is None:
        hits += _at_connect(facts, rooms)
    for hit in hits:
        yield replace(_raw_key(hit, facts.time_us, record.server, record.principal), event_id=record.event_id)
    if record.reason is Reason.IDENTITY_CONFLICT:
        yield FindingRecord(
            time_us=facts.time_us,
            kind=FindingKind.IDENTITY_CONFLICT,
            event_id=record.event_id,
            server=record.server,
            credential=record.credential_id,
            detail=record.detail,
        )
    if record.reason is not Reason.ANSWERED_HERE:
        yield from _own_keys(ruling, record, facts, seen, rooms)
    if not is_desk(facts.host) and not rooms.servers.is_listed(facts.host, facts.port):
        stripped = foreign_strip(facts, rooms.authority)
        abroad = _abroad(stripped)
        if abroad or record.reason is Reason.TOKEN_IN_REQUEST:
            principal, credential = _whose(facts, rooms)
            for finding in _tokens_abroad(facts, abroad, record.server, principal, credential):
                yield replace(finding, event_id=record.event_id)


def _at_connect(facts: Facts, rooms: Rooms) -> tuple[Hit, ...]:
    """A shared key that was shown as evidence when the tunnel was opened: it is nobody's, and was refused."""
    shown = [("Proxy-Authorization", value) for _, values in facts.presented.at_connect() for value in values]
    return rooms.hygiene.tripwire(rooms.store).look(shown, "/").hits


def _raw_key(hit: Hit, time_us: int, server: str, principal: str | None) -> FindingRecord:
    return FindingRecord(
        time_us=time_us,
        kind=FindingKind.RAW_KEY,
        server=server,
        principal=principal,
        credential=hit.label,
        fingerprint=hit.fingerprint,
        detail=hit.place.text,
    )


def _own_keys(
    ruling: Ruling, record: DecisionRecord, facts: Facts, seen: Facts, rooms: Rooms
) -> Iterator[FindingRecord]:
    """Keys of the caller's own towards an MCP server: by their place, or by the prefix of their vendor."""
    shared = {hit.fingerprint for hit in (*seen.noticed.hits, *ruling.hits)}
    body = ruling.body if ruling.body is not None else facts.body
    found = [(value, where) for value, where in own_keys(facts.headers, facts.path, rooms.authority.is_ours)]
    found += [(value, "in the body") for value in keys_in(body)]
    for value, where in found[:KEYS_TOLD]:
        print_of = rooms.hygiene.fingerprint(value)
        if print_of in shared:
            continue
        shared.add(print_of)
        yield FindingRecord(
            time_us=facts.time_us,
            kind=FindingKind.OWN_KEY,
            event_id=record.event_id,
            server=record.server,
            principal=record.principal,
            fingerprint=print_of,
            detail=where,
        )


def _abroad(stripped: Iterable[str]) -> list[str]:
    """Headers that held evidence for us where none belongs; the carriers of a proxy are where they belong."""
    return [name for name in stripped if name.lower().replace("_", "-") not in CALLER_HEADERS]


def _tokens_abroad(
    facts: Facts, names: list[str], server: str, principal: str | None, credential: str | None
) -> Iterator[FindingRecord]:
    places = [(f"in the header {name}", f"{name} {' '.join(facts.values(name.lower()))}") for name in names]
    if not places:
        body = facts.body.decode("utf-8", "replace")
        places = [("in the URL or body", f"{facts.path} {unquote(facts.path)} {body}")]
    for where, text in places:
        yield FindingRecord(
            time_us=facts.time_us,
            kind=FindingKind.TOKEN_ABROAD,
            server=server,
            principal=principal,
            credential=_token_in(text) or credential,
            detail=where,
        )


def _token_in(text: str) -> str | None:
    """The public id of the first token of ours in a text."""
    at = text.find(PREFIX)
    while at >= 0:
        token = text[at : at + LENGTH]
        if is_well_formed(token):
            return token_id(digest(token))
        at = text.find(PREFIX, at + 1)
    return None


def _whose(facts: Facts, rooms: Rooms) -> tuple[str | None, str | None]:
    """Principal and credential id of a request that nobody had to identify."""
    caller = rooms.authority.identify(facts.presented, now=facts.now)
    return (caller.principal.subject if isinstance(caller, Caller) else None), caller.credential_id
