"""Which headers of a request never go upstream. Pure: names in, names out."""

from __future__ import annotations

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
        "x-forwarded-for",
        "x-forwarded-user",
        "x-forwarded-email",
        "x-forwarded-groups",
        "x-forwarded-preferred-username",
        "x-forwarded-access-token",
        "x-forwarded-client-cert",
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
        "x-auth-token",
        "x-access-token",
        # what some servers and frameworks read instead of the request line that was judged
        "x-original-url",
        "x-rewrite-url",
        "x-original-host",
        "x-original-method",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-uri",
        "x-forwarded-server",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "impersonate-user",
        "impersonate-group",
        "impersonate-uid",
    }
)
"""Towards listed servers: who is calling as a gateway says it, other credentials, another request line.

A caller could only be spoofing them, or spending what is not the upstream credential.
"""

OUR_PREFIX: Final = "x-callerid-"
"""What we say, and callers never do. Removed towards every host."""

_USUAL: Final = 128
IDENTITY_PREFIXES: Final = (
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

    Case and underscores do not save a name: CGI-like servers read ``X_Forwarded_User`` as
    ``X-Forwarded-User``.

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
    plain = name.strip().lower().replace("_", "-")
    if plain in CALLER_HEADERS or plain.startswith(OUR_PREFIX):
        return True
    return governed and (plain in IDENTITY_HEADERS or plain.startswith(IDENTITY_PREFIXES))
