"""From the nouns to rows: redacted, inert, bounded, in the order of the columns.

This runs in the thread of the caller, before the row is queued. A record that cannot be made into a
row must fail there, where the call can still be refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from operator import attrgetter, itemgetter
from typing import Any

from callerid.audit.inert import encodable, inert
from callerid.audit.redact import Scrub, draft_json, is_clean, redact, redact_text
from callerid.errors import StoreError
from callerid.model import DecisionRecord, Evidence, FindingRecord, OutcomeRecord

type Row = tuple[str | int | None, ...]

ANONYMOUS = "anonymous"
"""The principal of a row where nobody was verified. No principal is called so: they have a ``kind:``."""

DECISION_COLUMNS = (
    "event_id",
    "time_us",
    "verdict",
    "reason",
    "method",
    "server",
    "upstream",
    "principal",
    "issuer",
    "agent",
    "actors",
    "evidence",
    "assurance",
    "credential_id",
    "claimed_subject",
    "client_ip",
    "client_name",
    "user_agent",
    "tool",
    "target",
    "arguments",
    "redactions",
    "rule",
    "would_rule",
    "policy",
    "injected",
    "detail",
    "request_bytes",
    "protocol",
    "session",
    "rpc_id",
    "batch_index",
    "trace_id",
    "kind",
    "direction",
    "caused_by",
    "path",
    "via",
)
OUTCOME_COLUMNS = (
    "event_id",
    "time_us",
    "outcome",
    "http_status",
    "rpc_code",
    "duration_us",
    "response_bytes",
    "detail",
    "handle",
)
FINDING_COLUMNS = (
    "time_us",
    "kind",
    "event_id",
    "server",
    "principal",
    "credential",
    "fingerprint",
    "detail",
)

_CLAIM_LIMITS: Mapping[str, int] = {
    "method": 256,
    "server": 256,
    "upstream": 1024,
    "claimed_subject": 256,
    "client_name": 256,
    "user_agent": 512,
    "tool": 256,
    "target": 1024,
    "detail": 1024,
    "protocol": 64,
    "session": 256,
    "rpc_id": 256,
    "trace_id": 128,
    "path": 1024,
}
"""Columns whose text a caller chooses, with the characters kept of each. All of it is redacted."""
_LIMITS = tuple(_CLAIM_LIMITS.values())
_LEAST_LIMIT = min(_LIMITS)
_FACTS = (
    "event_id",
    "issuer",
    "agent",
    "assurance",
    "credential_id",
    "client_ip",
    "rule",
    "would_rule",
    "policy",
    "injected",
    "kind",
    "caused_by",
    "via",
)
"""Columns whose text we or an issuer vouch for."""
_MADE = (
    "time_us",
    "verdict",
    "reason",
    "principal",
    "actors",
    "evidence",
    "arguments",
    "redactions",
    "request_bytes",
    "batch_index",
    "direction",
)
_claims_of = attrgetter(*_CLAIM_LIMITS)
_facts_of = attrgetter(*_FACTS)
_in_order = itemgetter(*map((*_CLAIM_LIMITS, *_FACTS, *_MADE).index, DECISION_COLUMNS))
"""Three groups of columns put in the order of the table: a loop over names would cost three times that."""
_FACT_LIMIT = 1024
_INTEGER = (1 << 63) - 1
_EVIDENCE_KEPT = 4096


class AuditError(StoreError):
    """A record cannot be made into a row. Nothing was queued; the call has to be refused."""


def decision_row(record: DecisionRecord, scrub: Scrub) -> Row:
    """The row of a decision, in the order of DECISION_COLUMNS.

    Raises:
        AuditError: the record cannot be serialised. The message names the record and the kind of
            fault only: the text of the fault could hold what the caller sent.
    """
    try:
        return _decision_row(record, scrub)
    except Exception as error:
        raise _unstorable("decision", record.event_id, error) from None


def _decision_row(record: DecisionRecord, scrub: Scrub) -> Row:
    claims: tuple[str | None, ...] = _claims_of(record)
    arguments, redactions = None, 0
    draft = ("", "") if record.arguments is None else draft_json(record.arguments)
    texts = filter(None, claims)
    if draft is not None and _fit(claims) and is_clean("\n".join((*texts, draft[1])), scrub=scrub):
        arguments = draft[0] or None
    else:
        claims = _hidden(claims, scrub)
        if record.arguments is not None:
            arguments, redactions = redact(record.arguments, scrub=scrub)
    made = (
        _number(record.time_us),
        str(record.verdict),
        str(record.reason),
        _fact(record.principal) if record.principal is not None else ANONYMOUS,
        _json([_fact(actor) for actor in record.actors]) if record.actors else "[]",
        _evidence(record.evidence),
        arguments,
        redactions,
        _number(record.request_bytes),
        _number(record.batch_index),
        str(record.direction),
    )
    row: Row = _in_order((*claims, *_facts(_facts_of(record)), *made))
    return row


def _fit(claims: tuple[str | None, ...]) -> bool:
    """True if nothing that the caller chose has to be escaped or cut; whether to hide it is not asked."""
    joined = "".join(filter(None, claims))
    if inert(joined) != joined:
        return False
    return len(joined) <= _LEAST_LIMIT or all(
        text is None or len(text) <= limit for text, limit in zip(claims, _LIMITS, strict=True)
    )


def _hidden(claims: tuple[str | None, ...], scrub: Scrub) -> tuple[str | None, ...]:
    """What the caller chose, in the order of _CLAIM_LIMITS: each redacted, inert and bounded."""
    return tuple(
        None if text is None else redact_text(text, scrub=scrub, limit=limit)
        for text, limit in zip(claims, _LIMITS, strict=True)
    )


def _facts(texts: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """Each as ``_fact`` has it; nearly always one look finds nothing to do."""
    joined = "".join(filter(None, texts))
    if len(joined) <= _FACT_LIMIT and joined.isascii() and joined.isprintable():
        return texts
    return tuple(None if text is None else _fact(text) for text in texts)


_written: dict[int, tuple[tuple[Evidence, ...], str]] = {}
"""Evidence as JSON, by identity: the verified evidence of one caller is one object for many calls."""


def _evidence(pieces: tuple[Evidence, ...]) -> str:
    known = _written.get(id(pieces))
    if known is not None and known[0] is pieces:
        return known[1]
    text = _json(
        [
            {
                "kind": str(piece.kind),
                "carrier": str(piece.carrier),
                "credential_id": _fact(piece.credential_id),
            }
            for piece in pieces
        ]
    )
    if len(_written) >= _EVIDENCE_KEPT:
        _written.clear()
    _written[id(pieces)] = (pieces, text)
    return text


def outcome_row(record: OutcomeRecord, scrub: Scrub) -> Row:
    """The row of an outcome, in the order of OUTCOME_COLUMNS.

    Raises:
        AuditError: the record cannot be serialised.
    """
    try:
        detail = record.detail
        return (
            _fact(record.event_id),
            _number(record.time_us),
            str(record.outcome),
            _number(record.http_status),
            _number(record.rpc_code),
            _number(record.duration_us),
            _number(record.response_bytes),
            None if detail is None else redact_text(detail, scrub=scrub, limit=_CLAIM_LIMITS["detail"]),
            None if record.handle is None else _fact(record.handle),
        )
    except Exception as error:
        raise _unstorable("outcome", record.event_id, error) from None


def finding_row(record: FindingRecord, scrub: Scrub) -> Row:
    """The row of a finding, in the order of FINDING_COLUMNS.

    Raises:
        AuditError: the record cannot be serialised.
    """
    try:
        server, detail = (
            None if text is None else redact_text(text, scrub=scrub, limit=_CLAIM_LIMITS[column])
            for column, text in (("server", record.server), ("detail", record.detail))
        )
        event_id, principal, credential, fingerprint = (
            None if text is None else _fact(text)
            for text in (record.event_id, record.principal, record.credential, record.fingerprint)
        )
        kind = str(record.kind)
        return _number(record.time_us), kind, event_id, server, principal, credential, fingerprint, detail
    except Exception as error:
        raise _unstorable("finding", record.kind, error) from None


def policy_row(hash: str, loaded_us: int, sources: Mapping[str, str], scrub: Scrub) -> Row:
    """The row of a policy in force: hash, time, and the text of each file as JSON.

    The text is kept as it is, so that it can be compared with the hash; only live secrets leave it.

    Raises:
        AuditError: the texts cannot be serialised.
    """
    try:
        texts = {encodable(name): encodable(scrub(encodable(text))) for name, text in sources.items()}
        return _fact(hash), loaded_us, _json(texts)
    except Exception as error:
        raise _unstorable("policy", hash, error) from None


def event_row(kind: str, time_us: int, detail: Mapping[str, Any], after_seq: int | None, scrub: Scrub) -> Row:
    """The row of a system event: kind, time, detail as redacted JSON, the last decision before it.

    ``after_seq`` None lets the database fill in the newest decision there is.

    Raises:
        AuditError: the detail cannot be serialised.
    """
    try:
        return _fact(kind), time_us, redact(detail, scrub=scrub)[0], after_seq
    except Exception as error:
        raise _unstorable("event", kind, error) from None


def _number(value: int | None) -> int | None:
    """An integer that the database can hold. What is no integer at all the database refuses."""
    if not isinstance(value, int) or 0 <= value <= _INTEGER:
        return value
    return max(-_INTEGER, min(_INTEGER, value))


def _fact(text: str) -> str:
    """Text that we or an issuer vouch for: kept as it is, as attribution hangs on it."""
    kept = inert(text)
    return (
        kept if len(kept) <= _FACT_LIMIT else f"{kept[:_FACT_LIMIT]}... [cut: {len(text)} characters in all]"
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _unstorable(what: str, name: object, error: Exception) -> AuditError:
    return AuditError(
        f"the {what} {_fact(str(name))} cannot be written to the audit: {type(error).__name__}",
        hint="The call was refused; this is a fault in callerid, please report it with the version.",
    )
