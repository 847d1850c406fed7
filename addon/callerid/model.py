"""The nouns that every room speaks: frozen and slotted. The closed lists are in reasons.

Nothing in here decides. A default never permits: ``Decision`` has no default verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

from callerid.reasons import FindingKind as FindingKind
from callerid.reasons import Outcome as Outcome
from callerid.reasons import Reason as Reason
from callerid.reasons import Verdict as Verdict

EMPTY: Mapping[str, Any] = MappingProxyType({})

type RpcId = str | int
"""A JSON-RPC id, kept with its JSON type: 0 is an id, and "1" is not 1 (JSON-RPC 2.0 section 4)."""


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
    FORWARDED_CLIENT_CERT = "x_forwarded_client_cert"
    CLIENT_CERT_HEADER = "client_cert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One verified piece of evidence. ``credential_id`` names it without being it.

    ``bound``: a token that is good in the hands of its holder only (RFC 7800 ``cnf``), which was proven.
    """

    kind: EvidenceKind
    carrier: Carrier
    credential_id: str
    bound: bool = False


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
    """Who is calling, as verified: the answer of ``identity.identify``.

    ``via`` is the id of the trusted hop that it came through, None where the caller came itself.
    ``spoken_for``: the hop wrote the request, so what its connection and its CONNECT show is the hop's own.
    """

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
    via: str | None = None
    spoken_for: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Evidence that does not make a caller. ``subject`` is what it *says*, for the row only.

    ``via``: the id of the trusted hop that it came through. ``known``: who it is, where all evidence held and
    is still good, and only what callerid was told of that caller refuses it: for the row, and nothing else.
    """

    reason: Reason
    detail: str
    subject: str | None = None
    credential_id: str | None = None
    via: str | None = None
    known: Caller | None = None


class Kind(StrEnum):
    """What a message acts on; with the name, the object of a rule's ``tools`` selector."""

    TOOL = "tool"
    RESOURCE = "resource"
    PROMPT = "prompt"
    HTTP = "http"
    PROTOCOL = "protocol"
    METHOD = "method"


class Direction(StrEnum):
    """Who began it: the client asks a server, or a server asks something of the client."""

    CLIENT = "client"
    SERVER = "server"


class MessageType(StrEnum):
    """The three JSON-RPC shapes, and a bodiless HTTP exchange (GET stream, DELETE session)."""

    REQUEST = "request"
    NOTIFICATION = "notification"
    RESPONSE = "response"
    HTTP = "http"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refs:
    """What a message refers to that was made before it: handles, and answers to a server's requests.

    ``task_ids`` of ``tasks/*`` and of ``subscriptions/listen``; ``resources`` that the latter subscribes to;
    ``request_state`` and ``input_responses`` of a repeated call (2026-07-28, multi round-trip requests);
    ``cancels`` of ``notifications/cancelled``; ``answer`` is the result of a client's response, None if
    that is an error.
    """

    task_ids: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    request_state: str | None = None
    input_responses: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    cancels: RpcId | None = None
    answer: Mapping[str, Any] | None = None


NO_REFS = Refs()


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
    refs: Refs = NO_REFS


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A whole HTTP request, understood: its messages, and the canonical bytes to forward."""

    messages: tuple[Message, ...]
    batch: bool
    body: bytes
    protocol: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """A request that cannot be judged. ``http_status``, ``rpc_code`` and ``data`` are its answer.

    ``elements`` are method and id of each member of a batch, as far as they can be read: each is a row.
    """

    reason: Reason
    detail: str
    http_status: int
    rpc_code: int
    rpc_id: RpcId | None = None
    method: str | None = None
    data: Mapping[str, Any] | None = None
    elements: tuple[tuple[str | None, RpcId | None], ...] = ()


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
    """One row of the audit, written before a byte leaves. Times are microseconds since the epoch, UTC.

    ``path`` is that of the URL, without its query. ``via`` is the id of the trusted hop that spoke for the
    caller. ``caused_by`` is the event id of the call in whose
    answer a server asked (``direction`` server), or of the server's request that a client answers.
    """

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
    kind: str | None = None
    direction: Direction = Direction.CLIENT
    caused_by: str | None = None
    path: str | None = None
    via: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRecord:
    """How a recorded call ended; appended, never an update of the decision row.

    ``handle`` is the digest of what the server made for this caller: a session, a task, a request state.
    """

    event_id: str
    time_us: int
    outcome: Outcome
    http_status: int | None = None
    rpc_code: int | None = None
    duration_us: int | None = None
    response_bytes: int | None = None
    detail: str | None = None
    handle: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRecord:
    """Something for an operator, appended to the audit. ``event_id`` is that of the call it was seen in.

    ``credential`` is ``ID@vN`` of ours; ``fingerprint`` the keyed digest of a value that is not kept.
    """

    time_us: int
    kind: FindingKind
    event_id: str | None = None
    server: str | None = None
    principal: str | None = None
    credential: str | None = None
    fingerprint: str | None = None
    detail: str | None = None
