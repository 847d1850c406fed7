"""Names of headers that rule files may not take, because they have a meaning on the way already."""

from __future__ import annotations

_TRANSPORT = frozenset(
    {
        "connection", "content-length", "content-type", "expect", "host", "keep-alive", "te", "trailer",
        "transfer-encoding", "upgrade", "proxy-authenticate", "proxy-authorization", "proxy-connection",
        "mcp-protocol-version", "mcp-session-id", "mcp-method", "mcp-name",
    }
)  # fmt: skip
_TAKEN = frozenset(
    {
        # of requests themselves
        "accept", "accept-encoding", "authorization", "baggage", "cache-control", "content-encoding", "dpop",
        "last-event-id", "location", "origin", "referer", "set-cookie", "traceparent", "tracestate",
        "user-agent", "www-authenticate",
        # removed on the way to a governed server: credentials, other gateways, another request line
        "forwarded", "x-real-ip", "client-cert", "client-cert-chain", "x-client-cert", "x-client-dn",
        "remote-user", "remote-email", "remote-groups", "remote-name", "x-remote-user", "x-remote-group",
        "x-remote-groups", "x-authenticated-user", "x-authenticated-userid", "x-authenticated-groups",
        "x-webauth-user", "x-pomerium-jwt-assertion", "x-goog-iap-jwt-assertion", "cf-access-jwt-assertion",
        "cf-access-authenticated-user-email", "teleport-jwt-assertion", "x-jwt-assertion", "txn-token",
        "cookie", "cookie2", "x-api-key", "api-key", "x-auth-token", "x-access-token", "x-original-url",
        "x-rewrite-url", "x-original-host", "x-original-method", "x-http-method", "x-http-method-override",
        "x-method-override", "impersonate-user", "impersonate-group", "impersonate-uid",
    }
)  # fmt: skip
_TAKEN_PREFIXES = (
    "x-forwarded-", "x-ssl-client-", "ssl-client-", "x-auth-request-", "x-remote-extra-",
    "impersonate-extra-",
    "x-goog-authenticated-user-", "x-amzn-oidc-", "x-ms-client-principal", "x-ms-token-", "x-consumer-",
    "x-pomerium-claim-", "tailscale-user-",
)  # fmt: skip
_OURS = "x-callerid-"
_ASSERTION = "x-callerid-assertion"


def same_header(one: str, other: str) -> bool:
    """True if some server would take the two for one header: case and underscores do not count for all."""
    return _plain(one) == _plain(other)


def is_transport(name: str) -> bool:
    """True for headers of HTTP and MCP themselves, and for those between callers and us."""
    name = _plain(name)
    return name in _TRANSPORT or (name.startswith(_OURS) and name != _ASSERTION)


def is_taken(name: str) -> bool:
    """True for a name that an assertion cannot have: it is removed on the way, or says something else."""
    plain = _plain(name)
    return is_transport(name) or plain in _TAKEN or plain.startswith(_TAKEN_PREFIXES)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
