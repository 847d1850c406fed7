"""The closed lists of the public surface: stored, sent, documented and tested by these very words."""

from __future__ import annotations

from enum import StrEnum


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
    ANSWERED_HERE = "answered_here"
    # who is calling
    NO_EVIDENCE = "no_evidence"
    EVIDENCE_AMBIGUOUS = "evidence_ambiguous"
    EVIDENCE_UNRECOGNISED = "evidence_unrecognised"
    TOKEN_MALFORMED = "token_malformed"
    TOKEN_UNKNOWN = "token_unknown"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_REVOKED = "token_revoked"
    TOKEN_NETWORK = "token_network"
    JWT_INVALID = "jwt_invalid"
    JWT_EXPIRED = "jwt_expired"
    JWT_AUDIENCE = "jwt_audience"
    JWT_PROOF = "jwt_proof"
    JWT_KEYS_UNAVAILABLE = "jwt_keys_unavailable"
    CERTIFICATE_UNTRUSTED = "certificate_untrusted"
    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_REVOKED = "certificate_revoked"
    CERTIFICATE_REQUIRED = "certificate_required"
    IDENTITY_CONFLICT = "identity_conflict"
    WORKLOAD_UNKNOWN = "workload_unknown"
    AGENT_NOT_PERMITTED = "agent_not_permitted"
    PRINCIPAL_BLOCKED = "principal_blocked"
    # whose it is
    SESSION_NOT_YOURS = "session_not_yours"
    SESSION_UNKNOWN = "session_unknown"
    EVENT_NOT_YOURS = "event_not_yours"
    TASK_NOT_YOURS = "task_not_yours"
    STATE_NOT_YOURS = "state_not_yours"
    REQUEST_NOT_YOURS = "request_not_yours"
    RESPONSE_UNEXPECTED = "response_unexpected"
    # where it goes
    UNKNOWN_SERVER = "unknown_server"
    DESTINATION_MISMATCH = "destination_mismatch"
    PATH_NOT_CANONICAL = "path_not_canonical"
    UPGRADE_REFUSED = "upgrade_refused"
    ADDRESS_REFUSED = "address_refused"
    TOKEN_IN_REQUEST = "token_in_request"
    RAW_KEY = "raw_key"
    OAUTH_WITHHELD = "oauth_withheld"
    DERIVE_REFUSED = "derive_refused"
    # what it says
    MALFORMED_JSON = "malformed_json"
    DUPLICATE_KEY = "duplicate_key"
    NOT_UTF8 = "not_utf8"
    ENCODING_REFUSED = "encoding_refused"
    TOO_LARGE = "too_large"
    HEADERS_TOO_LARGE = "headers_too_large"
    TOO_SLOW = "too_slow"
    TOO_MANY_IN_FLIGHT = "too_many_in_flight"
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
    NO_SUBJECT_TOKEN = "no_subject_token"
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
    IDLE = "idle"
    RESPONSE_TOO_LARGE = "response_too_large"
    NOT_SENT = "not_sent"


class FindingKind(StrEnum):
    """What an operator should look at. A closed list and a stable API, as ``Reason`` is."""

    RAW_KEY = "raw_key"
    OWN_KEY = "own_key"
    TOKEN_ABROAD = "token_abroad"
    SECRET_ECHOED = "secret_echoed"
    CREDENTIAL_REFUSED = "credential_refused"
    CREDENTIAL_ILL = "credential_ill"
    CREDENTIAL_WELL = "credential_well"
    IDENTITY_CONFLICT = "identity_conflict"
