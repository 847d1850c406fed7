"""Which headers of a request never go upstream. Pure: names in, names out."""

from __future__ import annotations

import string
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

CALLER_HEADERS: Final = frozenset(
    {"proxy-authorization", "proxy-connection", "proxy-authenticate", "x-callerid-token"}
)
"""Between the caller and us: they carry our own tokens, or speak to a proxy. Removed towards every host."""

IDENTITY_HEADERS: Final = frozenset(
    {
        "forwarded",
        "x-real-ip",
        "client-cert",
        "client-cert-chain",
        "x-client-cert",
        "x-client-dn",
        "remote-user",
        "remote-email",
        "remote-groups",
        "remote-name",
        "x-remote-user",
        "x-remote-group",
        "x-remote-groups",
        "x-authenticated-user",
        "x-authenticated-userid",
        "x-authenticated-groups",
        "x-webauth-user",
        "x-pomerium-jwt-assertion",
        "x-goog-iap-jwt-assertion",
        "cf-access-jwt-assertion",
        "cf-access-authenticated-user-email",
        "teleport-jwt-assertion",
        "x-jwt-assertion",
        "txn-token",
        "dpop",
        # credentials of the caller's own, which would travel beside the shared one
        "cookie",
        "cookie2",
        "x-api-key",
        "api-key",
        "apikey",
        "x-apikey",
        "x-api-token",
        "x-api-secret",
        "x-auth-token",
        "x-auth-key",
        "x-auth-email",
        "x-access-token",
        "x-session-token",
        "x-subject-token",
        "x-service-token",
        "x-user-token",
        "x-token",
        "private-token",
        "job-token",
        "deploy-token",
        "x-gitlab-token",
        "x-vault-token",
        "x-consul-token",
        "x-nomad-token",
        "x-goog-api-key",
        "x-goog-iam-authorization-token",
        "x-amz-security-token",
        "x-ms-authorization-auxiliary",
        "x-functions-key",
        "ocp-apim-subscription-key",
        "x-shopify-access-token",
        "x-figma-token",
        "x-sentry-auth",
        "x-jfrog-art-api",
        "x-redmine-api-key",
        "x-n8n-api-key",
        "x-algolia-api-key",
        "x-rapidapi-key",
        "x-honeycomb-team",
        "x-postmark-server-token",
        "x-postmark-account-token",
        "circle-token",
        "dd-api-key",
        "dd-application-key",
        # what some servers and frameworks read instead of the request line that was judged
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "impersonate-user",
        "impersonate-group",
        "impersonate-uid",
        "sudo",
        "x-redmine-switch-user",
        "es-security-runas-user",
    }
)
"""Towards listed servers: who is calling as a gateway says it, other credentials, another request line.

A caller could only be spoofing them, or spending what is not the upstream credential.
"""

OUR_PREFIX: Final = "x-callerid-"
"""What we say, and callers never do. Removed towards every host."""

_USUAL: Final = 128
_LETTERS: Final = frozenset(string.ascii_lowercase + string.digits)
IDENTITY_PREFIXES: Final = (
    "x-forwarded-",
    "x-original-",
    "x-envoy-original-",
    "x-rewrite-",
    "x-ssl-client-",
    "ssl-client-",
    "x-auth-request-",
    "x-remote-extra-",
    "impersonate-extra-",
    "x-goog-authenticated-user-",
    "x-amzn-oidc-",
    "x-ms-client-principal",
    "x-ms-token-",
    "x-consumer-",
    "x-pomerium-claim-",
    "tailscale-user-",
)


def strip_names(names: Iterable[str], *, governed: bool) -> tuple[str, ...]:
    """Those of ``names`` to delete, as written, each once, in their order.

    Case and punctuation do not save a name: CGI-like servers read ``X_Forwarded_User`` and, some of them,
    ``X.Forwarded.User`` as ``X-Forwarded-User``.

    Args:
        names: header (or trailer) names of the request.
        governed: the destination is a listed server, so identity headers go too.
    """
    return tuple(dict.fromkeys(name for name in names if _judge(name, governed)))


def _judge(name: str, governed: bool) -> bool:
    """Remembered for names of a usual length only: callers must not choose how much is remembered."""
    return _goes(name, governed) if len(name) <= _USUAL else _goes.__wrapped__(name, governed)


@lru_cache(maxsize=4096)
def _goes(name: str, governed: bool) -> bool:
    folded = plain(name)
    if folded in CALLER_HEADERS or folded.startswith(OUR_PREFIX):
        return True
    return governed and (folded in IDENTITY_HEADERS or folded.startswith(IDENTITY_PREFIXES))


def plain(name: str) -> str:
    """A header name as the most lenient reader has it: every letter but a-z and 0-9 is a dash.

    Headers reach a CGI program as the names of variables (RFC 3875 section 4.1.18), and some servers write
    an underscore there for every letter that cannot stand in one.
    """
    return "".join(letter if letter in _LETTERS else "-" for letter in name.strip().lower())
