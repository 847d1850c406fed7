"""The walk of one request: locate, classify, identify, decide, prepare. Values in, a Ruling out.

Nothing here waits, reads a clock or knows mitmproxy. It holds no rule of its own: it asks the rooms
in order, and the first that refuses decides. What it returns is recorded before it is acted on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from callerid.config import Server
from callerid.credentials.binding import Destination
from callerid.credentials.inject import Injection
from callerid.credentials.store import CredentialStore, Refused
from callerid.credentials.strip import strip_names
from callerid.identity.authority import Authority
from callerid.identity.client_cas import LoadedCA
from callerid.identity.jwks import JwksStore
from callerid.identity.tokens import LENGTH, PREFIX, contains_token
from callerid.mcp import answers
from callerid.mcp.classify import classify
from callerid.mcp.recognise import looks_like_mcp_request
from callerid.model import (
    Caller,
    Decision,
    DecisionRecord,
    Exchange,
    Kind,
    Malformed,
    Message,
    MessageType,
    Reason,
    Rejected,
    Verdict,
)
from callerid.policy.load import RuleSet
from callerid.proxy.destination import Astray, Governed, ServerTable, Unlisted
from callerid.proxy.facts import Facts, Ruling
from callerid.proxy.sessions import Sessions

FAULTS = frozenset({Reason.CREDENTIAL_UNAVAILABLE, Reason.INTERNAL_ERROR, Reason.AUDIT_UNAVAILABLE})
"""Reasons that are faults on our side: the verdict is ``error``, not ``deny``."""


_UNKNOWN_CALLERS = frozenset({Reason.NO_EVIDENCE, Reason.EVIDENCE_UNRECOGNISED})
"""Where servers are only observed, these pass as anonymous; evidence that fails is refused everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """The rooms as they are in force right now; a reload makes a new one, a request keeps its own."""

    rules: RuleSet
    servers: ServerTable
    authority: Authority
    cas: tuple[LoadedCA, ...]
    jwks: JwksStore
    store: CredentialStore
    sessions: Sessions


@dataclass(frozen=True, slots=True)
class _Finding:
    """One message with its decision, before it becomes a row."""

    message: Message
    decision: Decision
    detail: str | None = None


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
    place = rooms.servers.locate(
        scheme=facts.scheme,
        host=facts.host,
        port=facts.port,
        path=facts.path,
        host_header=facts.host_header,
        sni=facts.sni,
    )
    if isinstance(place, Unlisted):
        return _unlisted(facts, rooms, new_id, place)
    return _governed(facts, rooms, new_id, place)


def foreign_strip(facts: Facts, authority: Authority) -> tuple[str, ...]:
    """Header names to delete from traffic to any host: our carriers, and whatever holds our evidence."""
    names = strip_names((name for name, _ in facts.headers), governed=False)
    return (*names, *_holding(facts, authority))


def _holding(facts: Facts, authority: Authority) -> tuple[str, ...]:
    """Names of headers in which a token of ours, or a JWT for us, stands: in the value or in the name."""
    return tuple(
        name
        for name, value in facts.headers
        if (len(value) >= LENGTH and (_holds(value) or authority.is_ours(value)))
        or (len(name) >= LENGTH and _holds(name))
    )


def _holds(text: str) -> bool:
    """True if a well-formed token of ours stands anywhere in ``text``, also percent-encoded."""
    if "%" in text:
        text = f"{text} {unquote(text, errors='surrogateescape')}"
    return PREFIX in text and contains_token(text.encode("utf-8", "surrogateescape"))


def _unlisted(facts: Facts, rooms: Rooms, new_id: Callable[[], str], place: Unlisted) -> Ruling | None:
    rows = _Rows(facts, rooms, new_id, place.name)
    if _holds(facts.path) or contains_token(facts.body):
        return rows.refuse_whole(
            Reason.TOKEN_IN_REQUEST, "a token of ours would have left in the URL or body"
        )
    if not looks_like_mcp_request(facts.http_method, facts.headers, facts.body):
        return None
    found = classify(facts.http_method, facts.headers, facts.body)
    caller = rooms.authority.identify(facts.presented, now=rows.now)
    rows.know(caller)
    if rooms.rules.unknown_server != "observe":
        return rows.refuse(found, Reason.UNKNOWN_SERVER, "no server of this name is listed in servers.yaml")
    if isinstance(caller, Rejected) and caller.reason not in _UNKNOWN_CALLERS:
        return rows.refuse(found, caller.reason, caller.detail)
    observed = Decision(verdict=Verdict.ALLOW, reason=Reason.OBSERVED, policy=rooms.rules.hash)
    messages = found.messages if isinstance(found, Exchange) else (_unread(facts, found),)
    detail = None if isinstance(found, Exchange) else f"{found.reason.value}: {found.detail}"
    findings = [_Finding(message, observed, detail) for message in messages]
    return rows.allow(findings, body=None, injection=None, strip=foreign_strip(facts, rooms.authority))


def _unread(facts: Facts, found: Malformed) -> Message:
    """The row of a message that could not be read."""
    method = found.method or f"http/{facts.http_method}"
    return Message(type=MessageType.HTTP, method=method, kind=Kind.METHOD, rpc_id=found.rpc_id)


def _governed(facts: Facts, rooms: Rooms, new_id: Callable[[], str], place: Governed | Astray) -> Ruling:
    rows = _Rows(facts, rooms, new_id, place.server.id if isinstance(place, Governed) else place.server)
    caller = rooms.authority.identify(facts.presented, now=rows.now)
    rows.know(caller)
    found = classify(facts.http_method, facts.headers, facts.body)
    if isinstance(place, Astray):
        return rows.refuse(found, place.reason, place.detail)
    server = place.server
    rows.server_entry = server
    if facts.upgrade:
        return rows.refuse(found, Reason.UPGRADE_REFUSED, "no protocol but HTTP is spoken to this server")
    if isinstance(caller, Rejected):
        return rows.refuse(found, caller.reason, caller.detail)
    if isinstance(found, Malformed):
        return rows.refuse(found, found.reason, found.detail)
    for known_as in facts.handles():
        if rooms.sessions.owner(server.id, known_as) not in (None, caller.principal.subject):
            return rows.refuse(found, Reason.SESSION_NOT_YOURS, "the session belongs to another principal")
    if _holds(facts.path) or contains_token(found.body):
        return rows.refuse(
            found, Reason.TOKEN_IN_REQUEST, "a token of ours would have left in the URL or body"
        )
    findings = [_decide(message, rooms, caller, server, rows.now) for message in found.messages]
    if any(finding.decision.verdict is not Verdict.ALLOW for finding in findings):
        return rows.deny(findings, found.batch)
    return _credential(facts, rooms, rows, server, found, findings)


def _decide(message: Message, rooms: Rooms, caller: Caller, server: Server, now: datetime) -> _Finding:
    decision = rooms.rules.engine.decide(
        caller=caller,
        server=server,
        kind=message.kind,
        method=message.method,
        name=message.name,
        arguments=message.arguments,
        now=now,
    )
    return _Finding(message, decision)


def _credential(
    facts: Facts,
    rooms: Rooms,
    rows: _Rows,
    server: Server,
    found: Exchange,
    findings: list[_Finding],
) -> Ruling:
    strip = _governed_strip(facts, rooms.authority)
    if server.credential is None:
        return rows.allow(findings, body=found.body, injection=None, strip=strip)
    prepared = rooms.store.prepare(
        server.credential,
        Destination(
            scheme=facts.scheme,
            host=facts.host,
            port=facts.port,
            path=facts.path.partition("?")[0],
            method=facts.http_method,
            tls_verified=facts.tls_verified,
        ),
    )
    if isinstance(prepared, Refused):
        verdict = Verdict.ERROR if prepared.reason in FAULTS else Verdict.DENY
        spoilt = [
            replace(
                finding,
                decision=Decision(
                    verdict=verdict,
                    reason=prepared.reason,
                    policy=rooms.rules.hash,
                    would_rule=finding.decision.would_rule,
                ),
                detail=prepared.detail,
            )
            for finding in findings
        ]
        return rows.deny(spoilt, found.batch)
    return rows.allow(findings, body=found.body, injection=prepared, strip=strip)


def _governed_strip(facts: Facts, authority: Authority) -> tuple[str, ...]:
    """Towards a listed server nothing of the caller's own credentials goes on, ours or not."""
    names = strip_names((name for name, _ in facts.headers), governed=True)
    return (*names, *_holding(facts, authority), "authorization")


class _Rows:
    """Makes the rows and the answer of one request: every refusal is a row (law 2)."""

    def __init__(self, facts: Facts, rooms: Rooms, new_id: Callable[[], str], server: str) -> None:
        self.facts = facts
        self.rooms = rooms
        self.new_id = new_id
        self.server = server
        self.server_entry: Server | None = None
        self.caller: Caller | Rejected | None = None
        self.now = datetime.fromtimestamp(facts.time_us / 1e6, UTC)

    def know(self, caller: Caller | Rejected) -> None:
        self.caller = caller

    def _row(self, finding: _Finding, index: int | None, injected: str | None) -> DecisionRecord:
        message, decision, facts = finding.message, finding.decision, self.facts
        caller = self.caller if isinstance(self.caller, Caller) else None
        rejected = self.caller if isinstance(self.caller, Rejected) else None
        tool = message.name if message.kind in (Kind.TOOL, Kind.PROMPT) else None
        return DecisionRecord(
            event_id=self.new_id(),
            time_us=facts.time_us,
            verdict=decision.verdict,
            reason=decision.reason,
            method=message.method,
            server=self.server,
            upstream=facts.upstream,
            client_ip=facts.client_ip,
            client_name=message.client_name,
            user_agent=facts.first("user-agent"),
            tool=tool,
            target=target_of(self.server_entry, message),
            arguments=message.arguments or None,
            rule=decision.rule,
            would_rule=decision.would_rule,
            policy=decision.policy,
            injected=injected,
            detail=finding.detail,
            request_bytes=len(facts.body),
            protocol=message.protocol,
            session=facts.session(),
            rpc_id=None if message.rpc_id is None else repr_id(message.rpc_id),
            batch_index=index,
            trace_id=message.trace_id,
            principal=caller.principal.subject if caller else None,
            issuer=caller.principal.issuer if caller else None,
            agent=caller.agent if caller else None,
            actors=caller.actors if caller else (),
            evidence=caller.evidence if caller else (),
            assurance=caller.assurance_name if caller else None,
            credential_id=self.caller.credential_id if self.caller else None,
            claimed_subject=rejected.subject if rejected else None,
        )

    def allow(
        self,
        findings: list[_Finding],
        *,
        body: bytes | None,
        injection: Injection | None,
        strip: Sequence[str],
    ) -> Ruling:
        label = injection.label if injection is not None else None
        many = len(findings) > 1
        return Ruling(
            records=tuple(self._row(f, i if many else None, label) for i, f in enumerate(findings)),
            answer=None,
            body=body,
            injection=injection,
            strip=tuple(strip),
            server=self.server_entry,
            caller=self.caller if isinstance(self.caller, Caller) else None,
            messages=tuple(f.message for f in findings),
        )

    def deny(self, findings: list[_Finding], batch: bool) -> Ruling:
        """Refuse the whole exchange: a partly denied batch is never forwarded in part."""
        partner = Decision(
            verdict=Verdict.DENY, reason=Reason.BATCH_PARTNER_DENIED, policy=self.rooms.rules.hash
        )
        findings = [
            replace(f, decision=partner) if f.decision.verdict is Verdict.ALLOW else f for f in findings
        ]
        records = tuple(self._row(f, i if batch else None, None) for i, f in enumerate(findings))
        if batch:
            entries = [
                (f.message, f.decision.reason, r.event_id, f.decision.rule, f.decision.say, f.decision.hidden)
                for f, r in zip(findings, records, strict=True)
            ]
            answer = answers.batch_refusal(entries)
        else:
            decision = findings[0].decision
            answer = answers.refusal(
                findings[0].message,
                reason=decision.reason,
                event_id=records[0].event_id,
                rule=decision.rule,
                say=decision.say,
                hidden=decision.hidden,
            )
        messages = tuple(finding.message for finding in findings)
        return Ruling(records=records, answer=answer, messages=messages)

    def refuse(self, found: Exchange | Malformed, reason: Reason, detail: str) -> Ruling:
        """Refuse for a reason that holds for the whole request, whether it could be read or not."""
        verdict = Verdict.ERROR if reason in FAULTS else Verdict.DENY
        decision = Decision(verdict=verdict, reason=reason, policy=self.rooms.rules.hash)
        if isinstance(found, Exchange):
            return self.deny([_Finding(m, decision, detail) for m in found.messages], found.batch)
        record = self._row(_Finding(_unread(self.facts, found), decision, detail), None, None)
        answer = answers.refusal(
            None,
            reason=reason,
            event_id=record.event_id,
            rule=None,
            say=None,
            hidden=False,
            malformed=found,
        )
        return Ruling(records=(record,), answer=answer)

    def refuse_whole(self, reason: Reason, detail: str) -> Ruling:
        """Refuse a request that was not read as MCP at all."""
        caller = self.rooms.authority.identify(self.facts.presented, now=self.now)
        self.know(caller)
        return self.refuse(
            Malformed(reason=reason, detail=detail, http_status=403, rpc_code=-32600), reason, detail
        )


def repr_id(rpc_id: str | int) -> str:
    """A JSON-RPC id as text for the row: the string 1 reads ``"1"``, the number reads ``1``."""
    return str(rpc_id) if isinstance(rpc_id, int) else f'"{rpc_id}"'


def target_of(server: Server | None, message: Message) -> str | None:
    """What a message acts on: the resource's URI, or the argument that servers.yaml names for a tool."""
    if message.kind is Kind.RESOURCE:
        return message.name
    if server is None or message.kind is not Kind.TOOL or message.name is None:
        return None
    path = server.targets.get(message.name)
    if path is None:
        return None
    value: Any = message.arguments
    for part in path.split("/")[1:] if path.startswith("/") else [path]:
        step = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and step.isascii() and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif hasattr(value, "get"):
            value = value.get(step)
        else:
            return None
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
