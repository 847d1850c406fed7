"""The side door: where a client finds out how to log in at a server, and logs in there.

Of a server whose credential is shared these places are not the client's to use: with a personal token it
would walk around the shared one, and around all that is decided and recorded about it. So callerid answers
them itself: with its own RFC 9728 metadata, which leads to the company's login, or with 404.

Which they are: the well-known documents of RFC 9728, RFC 8414 and OpenID Connect Discovery, before or after a
path, and the three endpoints that a client of 2025-03-26 falls back to when it finds no document
(basic/authorization, "Fallbacks for Servers without Metadata Discovery"). Paths are canonical here, and are
compared as the most lenient router does: without case, without slashes at the end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

from callerid.mcp.answers import SENTENCES, Answer
from callerid.mcp.forms import named
from callerid.model import Reason

RESOURCE = "oauth-protected-resource"

LOGIN_HELPS = frozenset(
    {
        Reason.NO_EVIDENCE,
        Reason.EVIDENCE_UNRECOGNISED,
        Reason.TOKEN_MALFORMED,
        Reason.TOKEN_UNKNOWN,
        Reason.TOKEN_EXPIRED,
        Reason.TOKEN_REVOKED,
        Reason.JWT_INVALID,
        Reason.JWT_EXPIRED,
        Reason.JWT_AUDIENCE,
    }
)
"""Reasons at which a client is sent to log in: the caller is not known, or by nothing that is of use.

No rule, no block and no shared credential is among them: whoever is known learns nothing from a login.
"""

_WELL_KNOWN = ".well-known"
_DOCUMENTS = (RESOURCE, "oauth-authorization-server", "openid-configuration")
_FALLBACKS = frozenset({"/authorize", "/token", "/register"})
_GRANT = "grant_type"
_TOKEN = frozenset(
    {_GRANT, "client_id", "client_secret", "client_assertion", "client_assertion_type", "code_verifier",
     "assertion", "refresh_token", "subject_token", "device_code"}
)  # fmt: skip
_AUTHORIZE = frozenset({"response_type", "redirect_uri", "code_challenge", "request_uri"})
_REGISTER = frozenset(
    {"redirect_uris", "grant_types", "response_types", "token_endpoint_auth_method", "software_statement"}
)
_DEVICE = frozenset({"client_id"})
_OF_OAUTH: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("token", "accesstoken", "oauthtoken", "refreshtoken", "generatetoken"), _TOKEN),
    **dict.fromkeys(("authorize", "authorization", "auth", "par"), _AUTHORIZE),
    **dict.fromkeys(("register", "registration", "clientregistration"), _REGISTER),
    **dict.fromkeys(("deviceauthorization", "deviceauthorize", "deviceauth", "devicecode"), _DEVICE),
}
"""What the last segment of an endpoint's path is, and the parameters by which a request to it is OAuth.

RFC 6749, RFC 7521, RFC 7591, RFC 7636, RFC 8628, RFC 8693, RFC 9126; segments in the form of ``_endpoint``.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """A place of the side door.

    ``document``: the well-known document's name, None for an endpoint. ``about``: the path that it speaks of,
    as it stood there; "" for the whole origin.
    """

    document: str | None
    about: str = ""


def door_of(path: str) -> Door | None:
    """The place that this canonical path without its query is; None if it is none."""
    bare = path.rstrip("/")
    if bare.casefold() in _FALLBACKS:
        return Door(document=None)
    parts = bare.split("/")[1:]
    for at, (one, two) in enumerate(pairwise(parts)):
        name = next((name for name in _DOCUMENTS if two.casefold().startswith(name)), None)
        if one.casefold() == _WELL_KNOWN and name is not None:
            before, after = parts[:at], parts[at + 2 :]
            exact = two.casefold() == name
            return Door(document=name if exact else "", about="".join(f"/{p}" for p in (before or after)))
    return None


def is_oauth(http_method: str, path: str, arguments: Mapping[str, Any], *, has_body: bool) -> bool:
    """Whether a call to an API of its own (kind http) is one of OAuth: it would get a token for its caller.

    An API may have a ``/token`` or a ``/register`` that is no login; its rules decide about that. So it is
    told by the parameters in query and body. A body that could not be read may hold them, and counts as if it
    did. What names a grant asks for a token wherever it is sent: endpoints have names of their own.

    Args:
        http_method: as on the request line.
        path: canonical, without its query.
        arguments: ``query`` and ``body`` of the call, as far as they could be read.
        has_body: whether a body came with it, read or not.
    """
    wanted = _wanted(path)
    if has_body and wanted and "body" not in arguments:
        return True
    asks = wanted if http_method in ("GET", "HEAD") else wanted | {_GRANT}
    for part in (arguments.get("query"), arguments.get("body")):
        if isinstance(part, Mapping) and named(part, asks):
            return True
    return False


def _wanted(path: str) -> frozenset[str]:
    """The parameters that make a request to this path one of OAuth."""
    parts = [_endpoint(part) for part in path.split("/") if part]
    if parts[-2:] == ["device", "code"]:
        return _DEVICE
    return _OF_OAUTH.get(parts[-1], frozenset()) if parts else frozenset()


def _endpoint(segment: str) -> str:
    """A segment as lenient routers read it: without case, blanks at its end, a format, and signs in it."""
    bare = unquote(segment).casefold().strip(" .").partition(".")[0]
    return bare.replace("-", "").replace("_", "")


def metadata_url(origin: str, path: str) -> str:
    """Where the metadata of the resource at ``origin`` and ``path`` is (RFC 9728 section 3.1)."""
    return f"{origin}/{_WELL_KNOWN}/{RESOURCE}{path if path != '/' else ''}"


def challenge(url: str, *, invalid: bool) -> str:
    """The ``WWW-Authenticate`` that leads a client to the company's login (RFC 9728 section 5.1).

    ``invalid``: a token was there, and is not good (RFC 6750 section 3.1); without one no error is named.
    """
    error = ', error="invalid_token"' if invalid else ""
    return f'Bearer resource_metadata="{url}"{error}'


def metadata(resource: str, issuers: Sequence[str]) -> Answer:
    """The protected resource metadata of a server (RFC 9728 section 2): the company's logins, not its own."""
    document = {
        "resource": resource,
        "authorization_servers": list(issuers),
        "bearer_methods_supported": ["header"],
    }
    return _json(200, document)


def withheld(event_id: str) -> Answer:
    """404 for a place of the side door, in a form that OAuth clients show to their person."""
    return _json(
        404,
        {
            "error": "not_found",
            "error_description": f"There is no login here: {SENTENCES[Reason.OAUTH_WITHHELD]}. Present your "
            f"own credential for callerid. Decision {event_id}.",
            "reason": Reason.OAUTH_WITHHELD.value,
            "decision": event_id,
        },
    )


def _json(status: int, payload: Mapping[str, Any]) -> Answer:
    body = json.dumps(payload, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    headers = (
        ("Content-Type", "application/json"),
        ("Cache-Control", "no-store"),
        ("Content-Length", str(len(body))),
        ("Access-Control-Allow-Origin", "*"),  # clients in browsers look here as well
    )
    return Answer(status, headers, body)
