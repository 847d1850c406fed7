"""Writing the secret into a request: the last step before it leaves, and the one place of ``reveal()``."""

from __future__ import annotations

import string
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Final

from callerid.config import Credential
from callerid.credentials.secret import Secret
from callerid.errors import ConfigError

_TOKEN: Final = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")
_FRAMING: Final = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "mcp-protocol-version",
        "mcp-session-id",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-callerid-token",
    }
)


@dataclass(frozen=True, slots=True)
class Injection:
    """One header to write. ``label`` is ``ID@vN`` for the row; ``secret`` wraps the whole header value."""

    label: str
    header: str
    secret: Secret


def prepared(credential: Credential, secret: Secret) -> Injection:
    """The header that ``credential`` makes of ``secret``.

    Raises:
        ConfigError: its header name, template or username cannot make a sound header.
    """
    if not credential.header or not set(credential.header) <= _TOKEN or _twin(credential.header) in _FRAMING:
        raise ConfigError(
            f"credential {credential.id} cannot be written into a header named {credential.header!r}",
            hint="Name a header for credentials, such as Authorization or X-Api-Key.",
        )
    if credential.inject == "basic":
        if credential.username is None:
            raise ConfigError(
                f"credential {credential.id} is injected as basic but has no username",
                hint="Add the username in credentials.yaml.",
            )
        rendered = secret.as_basic(credential.username)
    else:
        rendered = secret.within(credential.template)
    return Injection(label=secret.label, header=credential.header, secret=rendered)


def apply(injection: Injection, headers: MutableMapping[str, str]) -> None:
    """Replace every instance of the header by the secret one.

    ``headers`` is a mapping of names to values; one that ignores case and keeps repeated fields, as
    mitmproxy's does, must drop all of them on deletion. Fields that differ in case, or in underscore
    against hyphen, go too: some servers read them as one.
    """
    conceal(injection, headers)
    headers[injection.header] = injection.secret.reveal()


def conceal(injection: Injection, headers: MutableMapping[str, str]) -> None:
    """Put a placeholder where the secret is, once the request has left: dumps and views read the request
    later than the wire does."""
    wanted = _twin(injection.header)
    for name in [name for name in headers if _twin(name) == wanted]:
        if name in headers:
            del headers[name]
    headers[injection.header] = f"[callerid:{injection.label}]"


def _twin(name: str) -> str:
    return name.lower().replace("_", "-")
