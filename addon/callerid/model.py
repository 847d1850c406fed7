"""The nouns that every room speaks: frozen, slotted, and without an import of ours.

Nothing in here decides. A default never permits: ``Decision`` has no default verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

EMPTY: Mapping[str, Any] = MappingProxyType({})

type RpcId = str | int
"""A JSON-RPC id, kept with its JSON type: 0 is an id, and "1" is not 1 (JSON-RPC 2.0 section 4)."""


class Verdict(StrEnum):
    """What became of a message. ERROR is a refusal for a fault on our side, never a pass."""

    DENY = "deny"
    ALLOW = "allow"
    ERROR = "error"


class Reason(StrEnum):
    """Why. A closed list and a stable API: stored, sent, documented, tested."""

    # allowed
    GRANTED = "granted"
    PROTOCOL = "protocol"
    OBSERVED = "observed"
    MONITORED = "monitored"
    # who is calling
    NO_EVIDENCE = "no_evidence"
    EVIDENCE_AMBIGUOUS = "evidence_ambiguous"
    EVIDENCE_UNRECOGNISED = "evidence_unrecognised"
    TOKEN_MALFORMED = "token_malformed"
    TOKEN_UNKNOWN = "token_unknown"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_REVOKED = "token_revoked"
    JWT_INVALID = "jwt_invalid"
    JWT_EXPIRED = "jwt_expired"
    JWT_AUDIENCE = "jwt_audience"
    JWT_KEYS_UNAVAILABLE = "jwt_keys_unavailable"
    CERTIFICATE_UNTRUSTED = "certificate_untrusted"
    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_REVOKED = "certificate_revoked"
    IDENTITY_CONFLICT = "identity_conflict"
    WORKLOAD_UNKNOWN = "workload_unknown"
    AGENT_NOT_PERMITTED = "agent_not_permitted"
    PRINCIPAL_BLOCKED = "principal_blocked"
    SESSION_NOT_YOURS = "session_not_yours"
    # where it goes
    UNKNOWN_SERVER = "unknown_server"
    DESTINATION_MISMATCH = "destination_mismatch"
    PATH_NOT_CANONICAL = "path_not_canonical"
    UPGRADE_REFUSED = "upgrade_refused"
    TOKEN_IN_REQUEST = "token_in_request"
    # what it says
    MALFORMED_JSON = "malformed_json"
    DUPLICATE_KEY = "duplicate_key"
    NOT_UTF8 = "not_utf8"
    ENCODING_REFUSED = "encoding_refused"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    MALFORMED_MESSAGE = "malformed_message"
    MALFORMED_HTTP = "malformed_http"
    HEADER_MISMATCH = "header_mismatch"
    UNSUPPORTED_VERSION = "unsupported_version"
    BATCH_REFUSED = "batch_refused"
    BATCH_PARTNER_DENIED = "batch_partner_denied"
    NOT_MCP = "not_mcp"
    METHOD_UNKNOWN = "method_unknown"
    # what the rules say
    RULE_DENIED = "rule_denied"
    REQUIREMENT_FAILED = "requirement_failed"
    NO_GRANT = "no_grant"
    OUTSIDE_SCOPE = "outside_scope"
    # the shared credential
    CREDENTIAL_UNAVAILABLE = "credential_unavailable"
    CREDENTIAL_NOT_BOUND = "credential_not_bound"
    # our own faults, and the caller's departure
    AUDIT_UNAVAILABLE = "audit_unavailable"
    INTERNAL_ERROR = "internal_error"
    CLIENT_GONE = "client_gone"


class Outcome(StrEnum):
    """How an allowed message ended. A call without an outcome row reads as ``unknown``."""

    OK = "ok"
    TOOL_ERROR = "tool_error"
    RPC_ERROR = "rpc_error"
    HTTP_ERROR = "http_error"
    INPUT_REQUIRED = "input_required"
    TASK = "task"
    ACCEPTED = "accepted"
    UNANSWERED = "unanswered"
    UPSTREAM_REFUSED_CREDENTIAL = "upstream_refused_credential"
    RESPONSE_REFUSED = "response_refused"
    UPSTREAM_GONE = "upstream_gone"
    CLIENT_GONE = "client_gone"
    CUT = "cut"
    NOT_SENT = "not_sent"


class Assurance(IntEnum):
    """How well we know the caller. WORKLOAD and IDP rank the same; BOUND is proof of possession."""

    CLAIMED = 0
    BEARER = 1
    WORKLOAD = 2
    IDP = 2
    BOUND = 3


class EvidenceKind(StrEnum):
    """What was presented."""

    SCOPED_TOKEN = "scoped_token"
    JWT = "jwt"
    CLIENT_CERT = "client_cert"


class Carrier(StrEnum):
    """Where on the wire it was presented (DESIGN section 3)."""

    PROXY_AUTHORIZATION = "proxy_authorization"
    AUTHORIZATION = "authorization"
    X_CALLERID_TOKEN = "x_callerid_token"
    PROXY_TLS = "proxy_tls"
    INNER_TLS = "inner_tls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One verified piece of evidence. ``credential_id`` names it without being it."""

    kind: EvidenceKind
    carrier: Carrier
    credential_id: str


@dataclass(frozen=True, slots=True)
class Principal:
    """The accountable party: always subject and issuer together.

    ``subject`` is ``user:NAME`` or ``workload:NAME``; ``issuer`` is the id in identities.yaml of who
    vouches for it (an issuer, a client CA, or ``local`` for tokens of our own).
    """

    subject: str
    issuer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """A narrowing that a token or an agent entry puts on its bearer. None means no narrowing there.

    ``servers`` are server ids, ``tools`` are globs. A ceiling never grants.
    """

    origin: str
    servers: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who is calling, as verified: the answer of ``identity.identify``."""

    principal: Principal
    agent: str | None
    actors: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    assurance: Assurance
    assurance_name: str
    credential_id: str
    groups: frozenset[str] = frozenset()
    ceilings: tuple[Ceiling, ...] = ()
    expires_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Evidence that does not make a caller. ``subject`` is what it *says*, for the row only."""

    reason: Reason
    detail: str
    subject: str | None = None
    credential_id: str | None = None


class Kind(StrEnum):
    """What a message acts on; with the name, the object of a rule's ``tools`` selector."""

    TOOL = "tool"
    RESOURCE = "resource"
    PROMPT = "prompt"
    PROTOCOL = "protocol"
    METHOD = "method"


class MessageType(StrEnum):
    """The three JSON-RPC shapes, and a bodiless HTTP exchange (GET stream, DELETE session)."""

    REQUEST = "request"
    NOTIFICATION = "notification"
    RESPONSE = "response"
    HTTP = "http"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One MCP message as read from the body. ``method`` is ``http/GET`` and the like for HTTP.

    ``name`` is the tool, the prompt or the resource URI, ``arguments`` the tool's or prompt's
    arguments. ``client_name`` (clientInfo) and ``trace_id`` are claims, never identity.
    """

    type: MessageType
    method: str
    kind: Kind
    rpc_id: RpcId | None = None
    name: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    client_name: str | None = None
    trace_id: str | None = None
    protocol: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A whole HTTP request, understood: its messages, and the canonical bytes to forward."""

    messages: tuple[Message, ...]
    batch: bool
    body: bytes
    protocol: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """A request that cannot be judged. ``http_status`` and ``rpc_code`` are its answer."""

    reason: Reason
    detail: str
    http_status: int
    rpc_code: int
    rpc_id: RpcId | None = None
    method: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The Policy Decision Point's answer. ``hidden``: the caller may not learn that the name exists.

    ``say`` is the rule's own ``reason:`` text, meant for the caller.
    """

    verdict: Verdict
    reason: Reason
    policy: str
    rule: str | None = None
    would_rule: str | None = None
    hidden: bool = False
    say: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """One row of the audit, written before a byte leaves. Times are microseconds since the epoch, UTC."""

    event_id: str
    time_us: int
    verdict: Verdict
    reason: Reason
    method: str
    server: str
    upstream: str
    principal: str | None = None
    issuer: str | None = None
    agent: str | None = None
    actors: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    assurance: str | None = None
    credential_id: str | None = None
    claimed_subject: str | None = None
    client_ip: str | None = None
    client_name: str | None = None
    user_agent: str | None = None
    tool: str | None = None
    target: str | None = None
    arguments: Mapping[str, Any] | None = None
    rule: str | None = None
    would_rule: str | None = None
    policy: str | None = None
    injected: str | None = None
    detail: str | None = None
    request_bytes: int | None = None
    protocol: str | None = None
    session: str | None = None
    rpc_id: str | None = None
    batch_index: int | None = None
    trace_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRecord:
    """How a recorded call ended; appended, never an update of the decision row."""

    event_id: str
    time_us: int
    outcome: Outcome
    http_status: int | None = None
    rpc_code: int | None = None
    duration_us: int | None = None
    response_bytes: int | None = None
    detail: str | None = None
