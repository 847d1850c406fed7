"""The rows and the answer of one request: every refusal is a row (law 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from callerid.audit.shapes import finds_shape
from callerid.config import Server
from callerid.credentials.inject import Injection
from callerid.credentials.store import Refused
from callerid.mcp import answers, problems
from callerid.mcp.answers import Answer
from callerid.mcp.httpcall import shown_method
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
    RpcId,
    Verdict,
)
from callerid.proxy.facts import Facts, Ruling
from callerid.proxy.propagate import spoofed, to_be_said, without_claims
from callerid.proxy.rooms import Rooms
from callerid.proxy.sidedoor import challenge_for

_NAMED = frozenset({Kind.TOOL, Kind.PROMPT, Kind.HTTP})
"""What has a name of its own to stand as the tool."""

FAULTS = frozenset({Reason.CREDENTIAL_UNAVAILABLE, Reason.INTERNAL_ERROR, Reason.AUDIT_UNAVAILABLE})
"""Reasons that are faults on our side: the verdict is ``error``, not ``deny``."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One message, or a part of one, with its decision, before it becomes a row.

    ``substitute``: what goes to the server in the place of the message. ``caused_by``: the event id of the
    question that it answers. ``index``: its place in a batch. ``part``: it has no answer of its own.
    """

    message: Message
    decision: Decision
    detail: str | None = None
    substitute: Mapping[str, Any] | None = None
    caused_by: str | None = None
    tool: str | None = None
    index: int | None = None
    part: bool = False


class Rows:
    """Makes the rows and the answer of one request: every refusal is a row (law 2)."""

    def __init__(self, facts: Facts, rooms: Rooms, new_id: Callable[[], str], server: str) -> None:
        self.facts = facts
        self.rooms = rooms
        self.new_id = new_id
        self.server = server
        self.server_entry: Server | None = None
        self.caller: Caller | Rejected | None = None
        self.session = facts.session()
        self.target: str | None = None
        self.now = datetime.fromtimestamp(facts.time_us / 1e6, UTC)

    def know(self, caller: Caller | Rejected) -> None:
        self.caller = caller

    @property
    def entry(self) -> Server | None:
        """The server that the row names, also where nobody got as far as to be at it."""
        listed = self.rooms.servers.is_listed(self.facts.host, self.facts.port)
        named = self.rooms.servers.by_id.get(self.server) if listed else None  # a host may be called as one
        return self.server_entry or named

    def _row(self, finding: Finding, injected: str | None) -> DecisionRecord:
        message, decision, facts = finding.message, finding.decision, self.facts
        rejected = self.caller if isinstance(self.caller, Rejected) else None
        caller = self.caller.known if isinstance(self.caller, Rejected) else self.caller
        tool = message.name if message.kind in _NAMED else finding.tool
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
            session=self.session,
            rpc_id=None if message.rpc_id is None else repr_id(message.rpc_id),
            batch_index=finding.index,
            trace_id=message.trace_id,
            caused_by=finding.caused_by,
            principal=caller.principal.subject if caller else None,
            issuer=caller.principal.issuer if caller else None,
            agent=caller.agent if caller else None,
            actors=caller.actors if caller else (),
            evidence=caller.evidence if caller else (),
            assurance=caller.assurance_name if caller else None,
            credential_id=self.caller.credential_id if self.caller else None,
            claimed_subject=rejected.subject if rejected and caller is None else None,
            kind=message.kind.value,
            path=shown_path(facts.path),
            via=self.caller.via if self.caller else None,
        )

    def allow(
        self,
        findings: list[Finding],
        *,
        body: bytes | None,
        injection: Injection | None,
        strip: Sequence[str],
    ) -> Ruling:
        """Let go of what was decided so, unless its server is to be told who called and cannot be."""
        server = self.server_entry
        said = to_be_said(server, self.rooms.signing, self.facts.time_us // 1_000_000)
        if isinstance(said, Refused):
            return self._spoil(findings, said)
        if server is not None:
            strip = (*strip, *spoofed(self.facts.headers, self.rooms.asserted))
            body = without_claims(body) if body and server.kind == "mcp" else body
        label = injection.label if injection is not None else None
        return Ruling(
            records=tuple(
                self._row(f, label if f.decision.verdict is Verdict.ALLOW else None) for f in findings
            ),
            answer=None,
            body=body,
            injection=injection,
            strip=tuple(strip),
            server=self.server_entry,
            caller=self.caller if isinstance(self.caller, Caller) else None,
            messages=tuple(f.message for f in findings),
            asserting=said,
            target=self.target,
        )

    def _spoil(self, findings: list[Finding], refused: Refused) -> Ruling:
        """Refuse what the rules allow: it cannot be sent as its server wants it."""
        verdict = Verdict.ERROR if refused.reason in FAULTS else Verdict.DENY
        decision = Decision(verdict=verdict, reason=refused.reason, policy=self.rooms.rules.hash)
        return self.deny(
            [
                replace(f, decision=decision, detail=refused.detail)
                if f.decision.verdict is Verdict.ALLOW
                else f
                for f in findings
            ],
            batch=any(f.index is not None for f in findings),
        )

    def deny(self, findings: list[Finding], batch: bool) -> Ruling:
        """Refuse the whole exchange: a partly denied batch is never forwarded in part."""
        partner = Decision(
            verdict=Verdict.DENY, reason=Reason.BATCH_PARTNER_DENIED, policy=self.rooms.rules.hash
        )
        findings = [
            replace(f, decision=partner) if f.decision.verdict is Verdict.ALLOW else f for f in findings
        ]
        records = tuple(self._row(f, None) for f in findings)
        entries = [
            (f.message, f.decision.reason, r.event_id, f.decision.rule, f.decision.say, f.decision.hidden)
            for f, r in zip(findings, records, strict=True)
            if not f.part
        ]
        message, reason, event_id, rule, say, hidden = entries[0]
        answer = self._apart(message.rpc_id, reason, event_id, rule, say)
        if answer is None and batch:
            answer = answers.batch_refusal(entries)
        elif answer is None:
            answer = answers.refusal(
                message, reason=reason, event_id=event_id, rule=rule, say=say, hidden=hidden
            )
        messages = tuple(finding.message for finding in findings)
        caller = self.caller if isinstance(self.caller, Caller) else None
        return Ruling(
            records=records, answer=answer, messages=messages, server=self.server_entry, caller=caller
        )

    def refuse(self, found: Exchange | Malformed, reason: Reason, detail: str) -> Ruling:
        """Refuse for a reason that holds for the whole request, whether it could be read or not."""
        verdict = Verdict.ERROR if reason in FAULTS else Verdict.DENY
        decision = Decision(verdict=verdict, reason=reason, policy=self.rooms.rules.hash)
        if isinstance(found, Exchange):
            findings = [
                Finding(m, decision, detail, index=i if found.batch else None)
                for i, m in enumerate(found.messages)
            ]
            if reason in answers.UNKNOWN_SESSION:
                records = tuple(self._row(f, None) for f in findings)
                answer = answers.unknown_session(found.messages[0].rpc_id, records[0].event_id)
                return Ruling(records=records, answer=answer)
            return self.deny(findings, found.batch)
        records = tuple(self._row(f, None) for f in self._unread(found, decision, detail))
        if reason in answers.UNKNOWN_SESSION:
            return Ruling(records=records, answer=answers.unknown_session(found.rpc_id, records[0].event_id))
        event_id = records[0].event_id
        answer = self._apart(found.rpc_id, reason, event_id, status=found.http_status) or answers.refusal(
            None, reason=reason, event_id=event_id, rule=None, say=None, hidden=False, malformed=found
        )
        caller = self.caller if isinstance(self.caller, Caller) else None
        return Ruling(records=records, answer=answer, server=self.server_entry, caller=caller)

    def _apart(
        self,
        rpc_id: RpcId | None,
        reason: Reason,
        event_id: str,
        rule: str | None = None,
        say: str | None = None,
        status: int | None = None,
    ) -> Answer | None:
        """The answer where it is not the usual one of MCP: for an HTTP API, and where a login can help."""
        server = self.entry
        login = challenge_for(self.facts, self.rooms, server, reason)
        if server is not None and server.kind == "http":
            return problems.refusal(
                reason=reason,
                event_id=event_id,
                rule=rule,
                say=say,
                status=status,
                challenge=login,
            )
        return answers.login(rpc_id, reason, event_id, login) if login is not None else None

    def answer_here(self, reason: Reason, answer: Callable[[str], Answer]) -> Ruling:
        """What callerid answers itself. ``answer`` is given the id of the row; nothing is sent on."""
        verdict = Verdict.ALLOW if reason is Reason.ANSWERED_HERE else Verdict.DENY
        method = f"http/{shown_method(self.facts.http_method)}"
        message = Message(type=MessageType.HTTP, method=method, kind=Kind.METHOD)
        record = self._row(
            Finding(message, Decision(verdict=verdict, reason=reason, policy=self.rooms.rules.hash)), None
        )
        return Ruling(records=(record,), answer=answer(record.event_id), messages=(message,))

    def _unread(self, found: Malformed, decision: Decision, detail: str) -> list[Finding]:
        """One finding for what could not be read; one for each member where it was a batch (law 2)."""
        if not found.elements:
            message = unread(self.facts, found)
            if self.entry is not None and self.entry.kind == "http":
                message = replace(message, kind=Kind.HTTP)
            return [Finding(message, decision, detail)]
        return [
            Finding(
                unread(self.facts, replace(found, method=method, rpc_id=rpc_id)), decision, detail, index=i
            )
            for i, (method, rpc_id) in enumerate(found.elements)
        ]

    def refuse_whole(self, reason: Reason, detail: str) -> Ruling:
        """Refuse a request that was not read as MCP at all."""
        caller = self.rooms.authority.identify(self.facts.presented, now=self.now)
        self.know(caller)
        return self.refuse(
            Malformed(reason=reason, detail=detail, http_status=403, rpc_code=-32600), reason, detail
        )


def unread(facts: Facts, found: Malformed) -> Message:
    """The row of a message that could not be read."""
    method = found.method or f"http/{facts.http_method}"
    return Message(type=MessageType.HTTP, method=method, kind=Kind.METHOD, rpc_id=found.rpc_id)


def shown_path(target: str) -> str:
    """The path of a request target for the row, without its query: the audit hides secrets in it.

    Percent-encoded as no client would write it, a secret has no shape to be known by. So a path that holds
    one when it is decoded is shown decoded.
    """
    bare = target.partition("?")[0]
    if "%" not in bare:
        return bare
    plain = bare
    for _ in range(3):
        plain = unquote(plain)
    return plain if finds_shape(plain) else bare


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
