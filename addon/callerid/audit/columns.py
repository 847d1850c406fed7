"""The columns of the views that are more than a grouping: name, where the value comes from, what it means.

One table for the schema, the command and the documentation, so that none of them can drift.
The order and the names up to ``event_id`` are a stable API (DESIGN section 7); columns after it are
ours to add at the end.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a view: its name, its SQL, its meaning.

    That of ``calls`` is over ``decision d`` and ``outcome o``, that of the others over ``finding``.
    """

    name: str
    sql: str
    meaning: str


def _of_decision(name: str, meaning: str) -> Column:
    return Column(name, f"d.{name}", meaning)


def utc(expression: str) -> str:
    """SQL that turns microseconds since the epoch into ISO 8601 text in UTC, to the millisecond."""
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', {expression} / 1e6, 'unixepoch')"


CALLS: tuple[Column, ...] = (
    Column("time_utc", utc("d.time_us"), "When it was decided: ISO 8601, UTC, milliseconds."),
    _of_decision(
        "principal",
        "The accountable party, as verified: `user:NAME` or `workload:NAME`; `anonymous` when nobody was. "
        "Who is blocked, or may not act through that agent, is named as well.",
    ),
    _of_decision("agent", "The agent that acted for the principal, as registered with the evidence."),
    _of_decision("actors", "The delegation chain (RFC 8693 `act`), a JSON array, nearest actor first."),
    _of_decision(
        "evidence",
        "What was presented and held: a JSON array of `kind`, `carrier`, `credential_id`, never itself.",
    ),
    _of_decision(
        "assurance", "How well the caller is known: `claimed`, `bearer`, `workload`, `idp`, `bound`."
    ),
    _of_decision(
        "credential_id", "Which token, JWT or certificate of the caller it was: its name, never its value."
    ),
    _of_decision("client_ip", "The address the connection came from."),
    _of_decision("server", "The server's id in servers.yaml, or the host when it is not listed there."),
    _of_decision("upstream", "Where it would go or went: scheme, host, port and path."),
    _of_decision("method", "The JSON-RPC method, or `http/GET`, `http/POST` and the like for what is none."),
    _of_decision(
        "tool", "The name of the tool or the prompt; for an HTTP API the method and path, as in `GET /v1/x`."
    ),
    _of_decision("target", "What it acts on: the resource URI, or the argument that servers.yaml names."),
    _of_decision(
        "arguments", "The arguments as JSON: secrets redacted, long strings and large documents cut."
    ),
    _of_decision("verdict", "`allow`, `deny`, or `error`: refused for a fault on our side."),
    _of_decision("reason", "Why: one of the reason codes below."),
    _of_decision("rule", "The id of the rule that decided, where a rule did."),
    _of_decision("would_rule", "In monitor mode: the id of the rule that would have refused."),
    _of_decision("policy", "The hash of the rules in force; `callerid audit show` names their files."),
    _of_decision(
        "injected",
        "The shared credential that was put in, never its value: `ID@vN`; `ID@p-...` is a token of this"
        " person's own, `ID@passthrough` what the caller itself brought.",
    ),
    Column(
        "outcome",
        "CASE WHEN d.verdict <> 'allow' THEN 'not_sent' ELSE coalesce(o.outcome, 'unknown') END",
        "How it ended: one of the outcome codes below.",
    ),
    Column("http_status", "o.http_status", "The HTTP status that the server answered with."),
    Column("rpc_code", "o.rpc_code", "The JSON-RPC error code in its answer, where there was one."),
    Column("duration_ms", "round(o.duration_us / 1000.0, 3)", "From the decision to the end of the answer."),
    _of_decision("request_bytes", "The length of the request's body as it came."),
    Column(
        "response_bytes",
        "o.response_bytes",
        "The length of the answer's body, of the whole stream for a stream.",
    ),
    _of_decision("protocol", "The MCP revision that the caller spoke."),
    _of_decision("session", "The MCP session, so that its calls can be put in a row."),
    _of_decision("rpc_id", "The JSON-RPC id, as text."),
    _of_decision(
        "trace_id", "The trace id of `traceparent`, to join with your traces. A claim of the caller."
    ),
    _of_decision("event_id", "The id of this row (UUIDv7); refusals tell it to the caller."),
    _of_decision("issuer", "Who vouches for the principal: an id in identities.yaml, or `local`."),
    _of_decision(
        "claimed_subject",
        "Whom refused evidence named. A claim: nobody verified it, nobody is accountable by it.",
    ),
    _of_decision("client_name", "`clientInfo` of the caller. A claim."),
    _of_decision("user_agent", "The `User-Agent` header. A claim."),
    Column(
        "detail",
        "coalesce(d.detail || '; ' || o.detail, o.detail, d.detail)",
        "A sentence more about the refusal, the failure, or how an unlisted server was recognised.",
    ),
    _of_decision("batch_index", "The place in its batch, from 0, when one body carried several messages."),
    _of_decision("time_us", "`time_utc` as microseconds since the epoch; the indices are on this one."),
    _of_decision("seq", "The order of the rows, from 1, without a gap."),
    _of_decision(
        "kind",
        "What the message acts on: `tool`, `resource`, `prompt`, `protocol`, `http` for a call of an HTTP"
        " API, or `method` for all else.",
    ),
    _of_decision(
        "direction",
        "`client`: the client asks the server; `server`: the server asks something of the client.",
    ),
    _of_decision(
        "caused_by",
        "The `event_id` of the call in whose answer a server asked, or of the request that a client answers.",
    ),
    _of_decision("path", "The path of the URL, without its query. A token in it is not stored."),
    Column(
        "handle",
        "o.handle",
        "Digest of what the server made for this caller: a session, a task, a request state.",
    ),
    _of_decision(
        "via", "The trusted hop that spoke for the caller: its id in identities.yaml; empty for most."
    ),
)

CALLS_NAMES: tuple[str, ...] = tuple(column.name for column in CALLS)


def _of_finding(name: str, meaning: str) -> Column:
    return Column(name, name, meaning)


FINDINGS: tuple[Column, ...] = (
    Column("time_utc", utc("time_us"), "When it was seen: ISO 8601, UTC, milliseconds."),
    _of_finding("kind", "What it is: one of the kinds below."),
    _of_finding("server", "The server's id in servers.yaml, or the host when it is not listed there."),
    _of_finding("principal", "Whose request it was, as verified; empty where nobody was."),
    _of_finding("credential", "The shared credential, as `ID@vN`, or the caller's own by its id."),
    _of_finding(
        "fingerprint", "A keyed digest of a value that is not kept: equal values have equal ones, here only."
    ),
    _of_finding("detail", "Where it was, or what was said."),
    _of_finding("event_id", "The call that it was seen in, as in `calls`; empty for traffic without a row."),
    _of_finding("time_us", "`time_utc` as microseconds since the epoch; the index is on this one."),
)
RAW_KEYS: tuple[Column, ...] = (
    _of_finding("kind", "`raw_key`: a shared credential of credentials.yaml; `own_key`: some other key."),
    _of_finding("credential", "Which shared credential and version; empty for `own_key`."),
    _of_finding("fingerprint", "The keyed digest by which one key is known wherever it turns up."),
    Column("people", "json_array_length(people)", "How many principals were seen with it."),
    _of_finding("caller_names", "Who: a JSON array, sorted, at most 100 names."),
    _of_finding("servers", "Where they sent it: a JSON array, sorted, at most 100 names."),
    _of_finding("findings", "How many rows: at most one an hour for a person and a server."),
    Column("first_seen", utc("first_us"), "When it was seen first."),
    Column("last_seen", utc("last_us"), "When it was seen last."),
)
FINDINGS_NAMES: tuple[str, ...] = tuple(column.name for column in FINDINGS)
