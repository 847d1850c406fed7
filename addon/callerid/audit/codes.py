"""What every code means and what to do about it: the source of the tables in docs/audit.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from callerid.model import FindingKind, Outcome, Reason


@dataclass(frozen=True, slots=True)
class Description:
    """One sentence on what happened, one on what to do; the second is empty where nothing is to be done."""

    means: str
    do: str = ""


UNKNOWN = "unknown"
"""The outcome that the view shows for an allowed call without an outcome row."""

REASONS: Mapping[Reason, Description] = {
    Reason.GRANTED: Description("A rule grants the call to this caller."),
    Reason.PROTOCOL: Description("A message of the protocol itself, such as `initialize` or `ping`."),
    Reason.OBSERVED: Description(
        "The server is not listed, and unlisted servers are observed.",
        "List the server in servers.yaml to govern it.",
    ),
    Reason.MONITORED: Description(
        "A rule would have refused the call, but it only monitors; `would_rule` names it.",
        "Look at these rows before you enforce the rule.",
    ),
    Reason.ANSWERED_HERE: Description(
        "callerid answered itself: its own metadata, key set, `whoami` or `derive`. Nothing went to a server."
    ),
    Reason.NO_EVIDENCE: Description(
        "The caller presented nothing that says who it is.",
        "Set the client up with a scoped token, a JWT or a client certificate.",
    ),
    Reason.EVIDENCE_AMBIGUOUS: Description(
        "The same header or carrier came more than once with different values.",
        "Send each carrier once.",
    ),
    Reason.EVIDENCE_UNRECOGNISED: Description(
        "Something was presented, but it is no kind of evidence that callerid knows.",
        "Present a scoped token, a JWT of a listed issuer or a certificate of a listed CA.",
    ),
    Reason.TOKEN_MALFORMED: Description(
        "It begins like a scoped token, but its length or checksum is wrong.",
        "Copy the whole token again, or issue a new one.",
    ),
    Reason.TOKEN_UNKNOWN: Description(
        "A well-formed scoped token that this registry never issued.",
        "Check which HOME issued it; an invented token is an attack.",
    ),
    Reason.TOKEN_EXPIRED: Description("The scoped token is past its expiry.", "Issue or rotate the token."),
    Reason.TOKEN_REVOKED: Description(
        "The scoped token, or one it was derived from, was revoked.",
        "Find out who still uses it before you issue another.",
    ),
    Reason.TOKEN_NETWORK: Description(
        "The scoped token came from an address outside of its networks.",
        "If the caller is right, issue one for that network; if not, revoke it: somebody else has it.",
    ),
    Reason.JWT_INVALID: Description(
        "The JWT's form, signature, algorithm or a required claim does not hold.",
        "Compare the token with its issuer in identities.yaml; `detail` says which part failed.",
    ),
    Reason.JWT_EXPIRED: Description(
        "The JWT is past its expiry, not yet valid, or older than the issuer's limit.",
        "Fetch a new one; check the clocks.",
    ),
    Reason.JWT_AUDIENCE: Description(
        "The JWT was made for somebody else.",
        "Ask the issuer for a token with an audience listed in identities.yaml.",
    ),
    Reason.JWT_PROOF: Description(
        "The JWT is bound to a key or certificate, and the proof of holding it is missing, wrong or used.",
        "A token without its key is a stolen one, until the client is shown to be misconfigured.",
    ),
    Reason.JWT_KEYS_UNAVAILABLE: Description(
        "The issuer's public keys could not be had, so its JWTs cannot be verified.",
        "Check that the proxy reaches the issuer's key set.",
    ),
    Reason.CERTIFICATE_UNTRUSTED: Description(
        "The client certificate does not chain to a listed CA, or is not one for clients.",
        "Enrol the client with a CA of identities.yaml.",
    ),
    Reason.CERTIFICATE_EXPIRED: Description(
        "The client certificate or one of its chain is outside its dates.", "Renew it."
    ),
    Reason.CERTIFICATE_REVOKED: Description(
        "The client certificate is on the revocation list or the deny list.",
        "Find out who still holds it.",
    ),
    Reason.CERTIFICATE_REQUIRED: Description(
        "identities.yaml asks every client of the proxy for a certificate, and this one had none.",
        "Give the client a certificate and an `https://` proxy URL.",
    ),
    Reason.IDENTITY_CONFLICT: Description(
        "Two pieces of evidence name different principals.",
        "Use one identity per connection; a borrowed token shows up like this.",
    ),
    Reason.WORKLOAD_UNKNOWN: Description(
        "The JWT is good, but no workload in identities.yaml matches its claims.",
        "Add the workload, or widen its match.",
    ),
    Reason.AGENT_NOT_PERMITTED: Description(
        "The agent is not registered, or not for this principal.",
        "Register the agent and its owners in identities.yaml.",
    ),
    Reason.PRINCIPAL_BLOCKED: Description(
        "The principal is blocked, whatever it presents.",
        "`callerid unblock` when the incident is over.",
    ),
    Reason.SESSION_NOT_YOURS: Description(
        "The session belongs to another principal.",
        "Open a session of one's own; a session id that travels between people shows up like this.",
    ),
    Reason.SESSION_UNKNOWN: Description(
        "The session was not opened through callerid, or so long ago that it is forgotten.",
        "Clients open a new one by themselves; one that was opened past callerid stays refused.",
    ),
    Reason.EVENT_NOT_YOURS: Description(
        "The stream was to be resumed at an event that this caller was never sent.",
        "Begin anew; event ids of servers that count from 1 collide between people.",
    ),
    Reason.TASK_NOT_YOURS: Description(
        "The task was not made by a call of this principal.", "Look for the caller that made the task."
    ),
    Reason.STATE_NOT_YOURS: Description(
        "The requestState was not given to this principal for this call.", "Begin the call anew."
    ),
    Reason.REQUEST_NOT_YOURS: Description(
        "A request was to be cancelled that this caller did not make in this session.",
        "Look for two clients that share a session.",
    ),
    Reason.RESPONSE_UNEXPECTED: Description(
        "The client answered a request that the server did not make to it, or that was answered before.",
        "Mend the client; after a restart of callerid it may also be a late answer.",
    ),
    Reason.UNKNOWN_SERVER: Description(
        "An MCP server that servers.yaml does not list.",
        "List it, or tell the caller which server to use.",
    ),
    Reason.DESTINATION_MISMATCH: Description(
        "CONNECT host, SNI, Host header and URL do not all name the same place.",
        "Mend the client; a client in order cannot produce this.",
    ),
    Reason.PATH_NOT_CANONICAL: Description(
        "The path has dots, double slashes or encodings that two servers could read in two ways.",
        "Use the URL as it stands in servers.yaml.",
    ),
    Reason.UPGRADE_REFUSED: Description(
        "The request asked to switch to another protocol, where calls could not be judged.",
        "Use MCP over plain HTTP.",
    ),
    Reason.ADDRESS_REFUSED: Description(
        "A host that is not listed leads to a private, loopback, link-local or metadata address.",
        "List the server, or allow its network with the option `callerid_private`.",
    ),
    Reason.TOKEN_IN_REQUEST: Description(
        "A scoped token was found where it would have left: in a URL, a body or a foreign header.",
        "Rotate that token, and mend the client.",
    ),
    Reason.RAW_KEY: Description(
        "The request carried the raw shared credential, of which the caller should know nothing.",
        "Take it out of that client; `tripwire: replace` serves such callers while a fleet is moved.",
    ),
    Reason.OAUTH_WITHHELD: Description(
        "A client looked for the login of a server whose credential callerid holds, and was shown none.",
        "Nothing, if the client is set up with a credential for callerid.",
    ),
    Reason.DERIVE_REFUSED: Description(
        "A holder asked for a token that would be good for more, or longer, than its own.",
        "Ask for less, or have one issued.",
    ),
    Reason.MALFORMED_JSON: Description(
        "The body is not valid JSON by the strict reading of RFC 8259.",
        "Mend the client.",
    ),
    Reason.DUPLICATE_KEY: Description(
        "An object names a member twice, or in two spellings, so two parsers could read two calls.",
        "Mend the client; it may be an attempt to be judged by one and executed by the other.",
    ),
    Reason.NOT_UTF8: Description(
        "The body is not UTF-8, or begins with a byte order mark.", "Mend the client."
    ),
    Reason.ENCODING_REFUSED: Description(
        "The body has a content encoding that is not decoded here.", "Send it without one."
    ),
    Reason.TOO_LARGE: Description("The body is larger than the limit.", "Send less, or raise the limit."),
    Reason.HEADERS_TOO_LARGE: Description(
        "The head of the request is larger than the limit.", "Send less, or raise the limit."
    ),
    Reason.TOO_SLOW: Description(
        "The request did not arrive whole in time.", "Look at the network between the client and callerid."
    ),
    Reason.TOO_MANY_IN_FLIGHT: Description(
        "The principal has as many calls under way as it may have.",
        "Wait, or raise the limit; a client that never reads its answers shows up like this.",
    ),
    Reason.TOO_DEEP: Description("The JSON is nested deeper than the limit.", "Mend the client."),
    Reason.MALFORMED_MESSAGE: Description(
        "JSON, but not a JSON-RPC message of MCP.", "Mend the client; `detail` says what is missing."
    ),
    Reason.MALFORMED_HTTP: Description(
        "The HTTP request cannot be understood without doubt.", "Mend the client."
    ),
    Reason.HEADER_MISMATCH: Description(
        "A header such as `Mcp-Method` says something else than the body.",
        "Mend the client; the body decides, and they must agree.",
    ),
    Reason.UNSUPPORTED_VERSION: Description(
        "An MCP revision that callerid does not speak.", "Use one of the revisions in the documentation."
    ),
    Reason.BATCH_REFUSED: Description(
        "A batch in a revision of MCP that has none, or an empty or oversized one.",
        "Send the messages one by one.",
    ),
    Reason.BATCH_PARTNER_DENIED: Description(
        "This message was in order, but another of its batch was refused, and a batch goes as a whole.",
        "Look at the other rows of the batch.",
    ),
    Reason.NOT_MCP: Description(
        "Traffic to a governed server that is not MCP.", "Use another host for what is not MCP."
    ),
    Reason.METHOD_UNKNOWN: Description(
        "A method that callerid does not know in this revision.",
        "Check for a newer callerid if the server defines it.",
    ),
    Reason.RULE_DENIED: Description(
        "A rule forbids the call; `rule` names it.", "Read the rule; its author says why."
    ),
    Reason.REQUIREMENT_FAILED: Description(
        "A grant exists, but a condition that every such call must meet is not met.",
        "`rule` names the requirement.",
    ),
    Reason.NO_GRANT: Description(
        "No rule grants the call, and nothing is granted by default.",
        "Add a rule if the call is wanted.",
    ),
    Reason.OUTSIDE_SCOPE: Description(
        "The caller's token or agent is narrowed to other servers or tools.",
        "Issue a token with a wider scope if that is right.",
    ),
    Reason.CREDENTIAL_UNAVAILABLE: Description(
        "The server's shared credential could not be read, or its assertion could not be signed.",
        "Check the source in credentials.yaml, or `assertion.key` in HOME; `detail` says which.",
    ),
    Reason.CREDENTIAL_NOT_BOUND: Description(
        "The shared credential may not go to this place, or not with this method.",
        "Compare its `bind` (hosts, paths, methods) with the call; the secret did not leave.",
    ),
    Reason.NO_SUBJECT_TOKEN: Description(
        "The server's credential is exchanged for the caller's own token, and the caller came with none.",
        "The caller needs a JWT of the identity provider, in `Authorization` or `Proxy-Authorization`.",
    ),
    Reason.AUDIT_UNAVAILABLE: Description(
        "The row of the decision could not be stored in time, so the call was refused.",
        "Look at the disk of HOME and at the event rows.",
    ),
    Reason.INTERNAL_ERROR: Description(
        "A fault in callerid; the call was refused.", "Report it with the version and this row."
    ),
    Reason.CLIENT_GONE: Description("The caller left before its call was decided or sent."),
}

OUTCOMES: Mapping[Outcome, Description] = {
    Outcome.OK: Description("The server answered with a result."),
    Outcome.TOOL_ERROR: Description("The server answered, and the tool says that it failed (`isError`)."),
    Outcome.RPC_ERROR: Description("The server answered with a JSON-RPC error; `rpc_code` has its code."),
    Outcome.HTTP_ERROR: Description("The server answered with an HTTP error; `http_status` has it."),
    Outcome.INPUT_REQUIRED: Description("The server asked the caller for more before it goes on."),
    Outcome.TASK: Description("The server took the call on as a task and will answer later."),
    Outcome.ACCEPTED: Description("A notification or a response: it was accepted, no answer follows."),
    Outcome.UNANSWERED: Description(
        "The answer ended well, but without a response to this request.",
        "The call may have taken effect there.",
    ),
    Outcome.UPSTREAM_REFUSED_CREDENTIAL: Description(
        "The server refused the shared credential.", "Rotate or mend the credential; callers cannot."
    ),
    Outcome.RESPONSE_REFUSED: Description(
        "The answer was not handed on, because it could not be judged or held a secret.",
        "`detail` says which.",
    ),
    Outcome.UPSTREAM_GONE: Description(
        "The call was sent, and the server left before its answer ended.",
        "The call may have taken effect there.",
    ),
    Outcome.CLIENT_GONE: Description(
        "The caller left before the answer ended.", "The call may have taken effect there."
    ),
    Outcome.CUT: Description("We ended the stream, as after a revocation; the call may have taken effect."),
    Outcome.IDLE: Description(
        "We ended the stream because nothing came for too long; the call may have taken effect."
    ),
    Outcome.RESPONSE_TOO_LARGE: Description(
        "The answer, or one event of it, was larger than the limit, and was not handed on.",
        "Raise the limit, or have the server send less.",
    ),
    Outcome.NOT_SENT: Description(
        "Nothing left: the call was refused, or allowed and then its server could not be reached.",
        "Of an allowed one `detail` says why; a certificate of a private CA wants `--upstream-ca FILE`.",
    ),
}

FINDINGS: Mapping[FindingKind, Description] = {
    FindingKind.RAW_KEY: Description(
        "A request carried a shared credential that only callerid should hold; `credential` says which.",
        "Take it out of that client: `raw_keys` says who still holds it, and where it went.",
    ),
    FindingKind.OWN_KEY: Description(
        "A request to an MCP server carried a key that is not one of ours; only its fingerprint is kept.",
        "Enrol the client, or list the server with a shared credential; `raw_keys` shows who shares a key.",
    ),
    FindingKind.TOKEN_ABROAD: Description(
        "A request to an unlisted host carried evidence that was meant for callerid; it did not get there.",
        "Mend the client; revoke the token if the client was made to do it.",
    ),
    FindingKind.SECRET_ECHOED: Description(
        "An answer held a shared credential; it was taken out before the caller saw it.",
        "Mend the server: its tools or its error pages show what it was sent.",
    ),
    FindingKind.CREDENTIAL_REFUSED: Description(
        "The server refused the shared credential.", "Rotate or mend the credential; callers cannot."
    ),
    FindingKind.CREDENTIAL_ILL: Description(
        "A shared credential cannot be had from its source; `detail` says why.",
        "Mend the source: calls that need it are refused until then.",
    ),
    FindingKind.CREDENTIAL_WELL: Description("The credential can be had again."),
    FindingKind.IDENTITY_CONFLICT: Description(
        "Two pieces of evidence in one request named different principals.",
        "Look for a token that was borrowed or taken; the call was refused.",
    ),
}

UNKNOWN_OUTCOME = Description(
    "Allowed, and no outcome is stored: it still runs, or callerid ended before the answer did.",
    "For rows before the last `started` event, ask the server's own records.",
)
