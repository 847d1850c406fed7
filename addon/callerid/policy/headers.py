"""Names of headers that rule files may not take, because they have a meaning on the way already."""

from __future__ import annotations

_TRANSPORT = frozenset(
    {
        "connection", "content-length", "content-type", "expect", "host", "keep-alive", "te", "trailer",
        "transfer-encoding", "upgrade", "proxy-authenticate", "proxy-authorization", "proxy-connection",
    }
)  # fmt: skip
_OF_REQUESTS = frozenset(
    {
        "accept", "baggage", "cache-control", "last-event-id", "location", "origin", "referer", "traceparent",
        "tracestate", "user-agent",
    }
)  # fmt: skip
_REMOVED = frozenset(
    {
        # judged or written by us, or of answers
        "accept-encoding", "authorization", "content-encoding", "dpop", "set-cookie", "set-cookie2",
        "www-authenticate",
        # removed on the way to a governed server: credentials, other gateways, another request line
        "forwarded", "x-real-ip", "client-cert", "client-cert-chain", "x-client-cert", "x-client-dn",
        "remote-user", "remote-email", "remote-groups", "remote-name", "x-remote-user", "x-remote-group",
        "x-remote-groups", "x-authenticated-user", "x-authenticated-userid", "x-authenticated-groups",
        "x-webauth-user", "x-pomerium-jwt-assertion", "x-goog-iap-jwt-assertion", "cf-access-jwt-assertion",
        "cf-access-authenticated-user-email", "teleport-jwt-assertion", "x-jwt-assertion", "txn-token",
        "cookie", "cookie2", "x-api-key", "api-key", "apikey", "x-apikey", "x-api-token",
        "x-api-secret", "x-auth-token", "x-auth-key", "x-auth-email", "x-access-token", "x-session-token",
        "x-subject-token", "x-service-token", "x-user-token", "x-token", "private-token", "job-token",
        "deploy-token", "x-gitlab-token", "x-vault-token", "x-consul-token", "x-nomad-token",
        "x-goog-api-key", "x-goog-iam-authorization-token", "x-amz-security-token",
        "x-ms-authorization-auxiliary", "x-functions-key", "ocp-apim-subscription-key",
        "x-shopify-access-token", "x-figma-token", "x-sentry-auth", "x-jfrog-art-api", "x-redmine-api-key",
        "x-n8n-api-key", "x-algolia-api-key", "x-rapidapi-key", "x-honeycomb-team",
        "x-postmark-server-token", "x-postmark-account-token", "circle-token", "dd-api-key",
        "dd-application-key", "x-http-method", "x-http-method-override", "x-method-override",
        "impersonate-user", "impersonate-group", "impersonate-uid", "sudo", "x-redmine-switch-user",
        "es-security-runas-user",
    }
)  # fmt: skip
_REMOVED_PREFIXES = (
    "x-forwarded-", "x-original-", "x-envoy-original-", "x-rewrite-", "x-ssl-client-", "ssl-client-",
    "x-auth-request-", "x-remote-extra-", "impersonate-extra-",
    "x-goog-authenticated-user-", "x-amzn-oidc-", "x-ms-client-principal", "x-ms-token-", "x-consumer-",
    "x-pomerium-claim-", "tailscale-user-",
)  # fmt: skip
_OURS = "x-callerid-"
_MCP = "mcp-"
"""Headers of MCP: ``Mcp-Session-Id``, ``Mcp-Method``, ``Mcp-Name``, ``Mcp-Param-...`` and those to come."""
_ASSERTION = "x-callerid-assertion"


def same_header(one: str, other: str) -> bool:
    """True if some server would take the two for one header: case and underscores do not count for all."""
    return _plain(one) == _plain(other)


def is_transport(name: str) -> bool:
    """True for headers of HTTP and MCP themselves, and for those between callers and us."""
    name = _plain(name)
    return name in _TRANSPORT or name.startswith(_MCP) or (name.startswith(_OURS) and name != _ASSERTION)


def is_taken(name: str) -> bool:
    """True for a name that an assertion cannot have: it is removed on the way, or says something else."""
    plain = _plain(name)
    return is_transport(name) or plain in _OF_REQUESTS or _is_removed(plain)


def stays_behind(name: str) -> bool:
    """True for a name that no entry can let go on to an HTTP API: ours, a credential, another call."""
    plain = _plain(name)
    return is_transport(name) or plain.startswith(_OURS) or _is_removed(plain)


def _is_removed(plain: str) -> bool:
    return plain in _REMOVED or plain.startswith(_REMOVED_PREFIXES)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
