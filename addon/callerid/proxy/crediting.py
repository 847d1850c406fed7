"""The last step of the walk: which credential goes with a call that the rules allow, and how.

Nothing here waits. Where a person's token must first be asked for, the ruling is a refusal that says what
could mend it (``Ruling.pending``): whoever forgets to ask has refused (law 3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from callerid.credentials import phantom
from callerid.credentials.binding import Destination
from callerid.credentials.inject import Injection
from callerid.credentials.minting import Subject, Wanted
from callerid.credentials.outgoing import AsItCame, InPlace, InQuery, InTls
from callerid.credentials.query import hides
from callerid.credentials.secret import Secret
from callerid.credentials.store import Refused
from callerid.credentials.tripwire import refusal
from callerid.errors import ConfigError
from callerid.identity.jwt import signed_digest
from callerid.identity.tokens import contains_token
from callerid.mcp.methods import MODERN
from callerid.model import Decision, Exchange, Kind, Reason, Rejected, Verdict
from callerid.proxy.deciding import Place
from callerid.proxy.facts import Facts, Pending, Ruling
from callerid.proxy.rooms import Rooms
from callerid.proxy.rows import FAULTS, Finding, Rows
from callerid.proxy.strip import api_strip, governed_strip, holds, passing_strip
from callerid.proxy.unlisted import blamed

_NAMED = frozenset({Kind.TOOL, Kind.PROMPT, Kind.HTTP})


def credential(facts: Facts, rows: Rows, found: Exchange, findings: list[Finding], place: Place) -> Ruling:
    """The ruling on a call that the rules allow: refused if it carries a raw shared key.

    Args:
        facts: the request.
        rows: makes its rows.
        found: what it says; its body is what will be forwarded.
        findings: the decisions about it.
        place: who says it, where and when.
    """
    hit = place.rooms.hygiene.in_body(found.body, place.rooms.store)
    raw = refusal(facts.noticed, hit)
    if raw:
        ruling = rows.refuse(found, Reason.RAW_KEY, raw)
    else:
        ruling = _credited(facts, rows, found, findings, place)
    return blamed(ruling, hit)


def _credited(facts: Facts, rows: Rows, found: Exchange, findings: list[Finding], place: Place) -> Ruling:
    rooms, server = place.rooms, place.server
    prepared = _prepared(facts, found, place, server.credential) if server.credential is not None else None
    if isinstance(prepared, Refused):
        return _spoilt(rows, found, findings, prepared)
    if isinstance(prepared, Wanted):
        detail = f"credential {prepared.credential_id}: no token of this person is to be had"
        spoilt = _spoilt(rows, found, findings, Refused(Reason.CREDENTIAL_UNAVAILABLE, detail))
        again = _again(facts, rows, found, findings, place)
        return replace(spoilt, pending=Pending(wanted=prepared, store=rooms.store, again=again))
    passing = prepared is not None and isinstance(prepared.how, AsItCame)
    strip = (passing_strip if passing else governed_strip)(facts, rooms.authority)
    strip = (*strip, *api_strip(facts, server, passing=passing))
    if found.protocol in MODERN:
        strip = (*strip, "mcp-session-id")
    strip = (*strip, *facts.noticed.strip)
    if passing:
        left = {name.lower() for name, _ in facts.headers} - {name.lower() for name in strip}
        # Without a credential of the caller's own nothing passes: the server may ask for a login.
        prepared = prepared if "authorization" in left else None
    return rows.allow(findings, body=found.body, injection=prepared, strip=strip)


def _prepared(
    facts: Facts, found: Exchange, place: Place, credential_id: str
) -> Injection | Refused | Wanted | None:
    """The injection, fitted to this request; None if this request needs none of it."""
    rooms = place.rooms
    where = Destination(
        scheme=facts.scheme,
        host=facts.host,
        port=facts.port,
        path=facts.path.partition("?")[0],
        method=facts.http_method,
        tls_verified=facts.tls_verified,
    )
    prepared = rooms.store.prepare(credential_id, where)
    if isinstance(prepared, Refused) and prepared.reason is Reason.NO_SUBJECT_TOKEN:
        return _personal(facts, place, credential_id, where)
    if isinstance(prepared, Refused | Wanted):
        return prepared
    if isinstance(prepared.how, InTls) and certificate_at(rooms, facts.host, facts.port) is None:
        return Refused(
            Reason.CREDENTIAL_UNAVAILABLE,
            f"credential {credential_id} is a client certificate, and servers with other credentials share"
            " its host and port: a connection would show it to all of them",
        )
    if isinstance(prepared.how, InQuery) and hides(facts.path, prepared.how.name):
        return Refused(Reason.PATH_NOT_CANONICAL, f"the query names {prepared.how.name} behind a semicolon")
    return _fitted(prepared, facts, found, place)


def _personal(
    facts: Facts, place: Place, credential_id: str, where: Destination
) -> Injection | Refused | Wanted:
    """The token of this very person, made of the JWT that was verified as evidence; never of another's."""
    jwt = place.rooms.authority.jwt_of(facts.presented, place.caller)
    if jwt is None:
        return Refused(
            Reason.NO_SUBJECT_TOKEN,
            f"credential {credential_id} is made of the caller's own JWT, and none was presented",
        )
    try:
        token = Secret(jwt, label="subject")
    except ConfigError:
        return Refused(Reason.NO_SUBJECT_TOKEN, "the caller's JWT cannot be exchanged")
    principal = place.caller.principal
    person = f"{principal.subject}\n{principal.issuer}"  # begins as ``keeping.forget_blocked`` has it
    key = f"{person}\n{signed_digest(jwt)}"
    prepared = place.rooms.store.prepare(credential_id, where, Subject(key, token))
    if not isinstance(prepared, Injection):
        return prepared
    digest = hashlib.sha256(person.encode("utf-8", "surrogateescape")).hexdigest()
    return replace(prepared, label=f"{credential_id}@p-{digest[:12]}")


def _fitted(prepared: Injection, facts: Facts, found: Exchange, place: Place) -> Injection | Refused | None:
    if not isinstance(prepared.how, InPlace):
        return prepared
    try:
        fitted = phantom.fit(prepared, _spoken(facts, found, place))
    except ConfigError as error:
        return Refused(Reason.CREDENTIAL_UNAVAILABLE, error.message)
    return Refused(Reason.CREDENTIAL_UNAVAILABLE, fitted) if isinstance(fitted, str) else fitted


def _spoken(facts: Facts, found: Exchange, place: Place) -> phantom.Spoken:
    return phantom.Spoken(
        headers=facts.headers,
        path=facts.path,
        body=found.body,
        arguments=[message.arguments for message in found.messages if message.kind in _NAMED],
        tokens=place.rooms.authority.tokens_of(facts.presented, place.caller),
    )


def stray_token(facts: Facts, found: Exchange, place: Place) -> bool:
    """Whether a token of ours stands in the URL or body, other than where it is exchanged for the secret."""
    if not holds(facts.path) and not contains_token(found.body):
        return False
    named = (known for known in place.rooms.rules.credentials if known.id == place.server.credential)
    config = next(named, None)
    if config is None or config.inject != "replace" or not config.place:
        return True
    kind, _, name = ("pointer", "", config.place) if config.place[0] == "/" else config.place.partition(":")
    path, body = phantom.rest(InPlace(kind, name), _spoken(facts, found, place))
    return holds(path) or contains_token(body)


def _again(
    facts: Facts, rows: Rows, found: Exchange, findings: list[Finding], place: Place
) -> Callable[[datetime], Ruling]:
    """This step once more: who is calling is verified anew, for that may have been revoked (law 10)."""

    def again(now: datetime) -> Ruling:
        caller = place.rooms.authority.identify(facts.presented, now=now)
        if isinstance(caller, Rejected):
            rows.know(caller)
            return rows.refuse(found, caller.reason, caller.detail)
        crowded = place.rooms.in_flight.flaw(caller.principal.subject, found.messages, place.rooms.limits)
        if crowded is not None:
            return rows.refuse(found, Reason.TOO_MANY_IN_FLIGHT, crowded)
        return credential(facts, rows, found, findings, replace(place, caller=caller))

    return again


def _spoilt(rows: Rows, found: Exchange, findings: list[Finding], refused: Refused) -> Ruling:
    """Refuse what the rules allow."""
    verdict = Verdict.ERROR if refused.reason in FAULTS else Verdict.DENY
    spoilt = [
        replace(
            finding,
            decision=Decision(
                verdict=verdict,
                reason=refused.reason,
                policy=rows.rooms.rules.hash,
                would_rule=finding.decision.would_rule,
            ),
            detail=refused.detail,
        )
        if finding.decision.verdict is Verdict.ALLOW
        else finding
        for finding in findings
    ]
    return rows.deny(spoilt, found.batch)


def certificate_at(rooms: Rooms, host: str, port: int) -> str | None:
    """The credential whose client certificate connections to this place show; None if they show none.

    A connection carries all requests to its place, so all servers there must have that credential.
    """
    named = {server.credential for server in rooms.servers.at(host, port)}
    if len(named) != 1:
        return None
    known = (c for c in rooms.rules.credentials if c.id in named and c.inject == "mtls")
    found = next(known, None)
    return found.id if found is not None else None


def beside_certificate(facts: Facts, rows: Rows) -> Ruling | None:
    """The refusal of a request that nobody judges on a connection that shows a client certificate of ours."""
    if certificate_at(rows.rooms, facts.host, facts.port) is None:
        return None
    detail = "connections to this host show a client certificate, which is for the listed paths only"
    return rows.refuse_whole(Reason.CREDENTIAL_NOT_BOUND, detail)
