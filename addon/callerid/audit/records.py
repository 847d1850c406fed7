"""From the nouns to rows: redacted, inert, bounded, in the order of the columns.

This runs in the thread of the caller, before the row is queued. A record that cannot be made into a
row must fail there, where the call can still be refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from callerid.audit.inert import encodable, inert
from callerid.audit.redact import Scrub, is_plain, redact, redact_text
from callerid.errors import StoreError
from callerid.model import DecisionRecord, Evidence, OutcomeRecord

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
}
"""Columns whose text a caller chooses, with the characters kept of each. All of it is redacted."""
_FACT_LIMIT = 1024
_INTEGER = (1 << 63) - 1


class AuditError(StoreError):
    """A record cannot be made into a row. Nothing was queued; the call has to be refused."""


def decision_row(record: DecisionRecord, scrub: Scrub) -> Row:
    """The row of a decision, in the order of DECISION_COLUMNS.

    Raises:
        AuditError: the record cannot be serialised. The message names the record and the kind of
            fault only: the text of the fault could hold what the caller sent.
    """
    try:
        arguments, redactions = None, 0
        if record.arguments is not None:
            arguments, redactions = redact(record.arguments, scrub=scrub)
        special: Mapping[str, str | int | None] = {
            "principal": _fact(record.principal) if record.principal is not None else ANONYMOUS,
            "actors": _json([_fact(actor) for actor in record.actors]) if record.actors else "[]",
            "evidence": _evidence(record.evidence),
            "arguments": arguments,
            "redactions": redactions,
        }
        plain = _claims_are_plain(record, scrub)
        return tuple(
            special[name] if name in special else _cell(name, getattr(record, name), scrub, plain)
            for name in DECISION_COLUMNS
        )
    except Exception as error:
        raise _unstorable("decision", record.event_id, error) from None


@lru_cache(maxsize=4096)
def _evidence(pieces: tuple[Evidence, ...]) -> str:
    return _json(
        [
            {
                "kind": str(piece.kind),
                "carrier": str(piece.carrier),
                "credential_id": _fact(piece.credential_id),
            }
            for piece in pieces
        ]
    )


def outcome_row(record: OutcomeRecord, scrub: Scrub) -> Row:
    """The row of an outcome, in the order of OUTCOME_COLUMNS.

    Raises:
        AuditError: the record cannot be serialised.
    """
    try:
        return tuple(_cell(name, getattr(record, name), scrub, False) for name in OUTCOME_COLUMNS)
    except Exception as error:
        raise _unstorable("outcome", record.event_id, error) from None


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


def _claims_are_plain(record: DecisionRecord, scrub: Scrub) -> bool:
    """One look at all that the caller chose: True if none of it has to be redacted, escaped or cut."""
    texts = []
    for name, limit in _CLAIM_LIMITS.items():
        value = getattr(record, name)
        if value is not None:
            if type(value) is not str or len(value) > limit:
                return False
            texts.append(value)
    return is_plain("\n".join(texts), scrub=scrub)


def _cell(name: str, value: Any, scrub: Scrub, plain: bool) -> str | int | None:
    if value is None:
        return None
    if isinstance(value, int):
        return max(-_INTEGER, min(_INTEGER, value))
    text = str(value)
    limit = _CLAIM_LIMITS.get(name)
    if plain and limit is not None:
        return text
    return _fact(text) if limit is None else redact_text(text, scrub=scrub, limit=limit)


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
