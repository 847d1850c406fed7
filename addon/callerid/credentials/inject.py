"""Writing the secret where it belongs, last of all before a request leaves; the one place of ``reveal()``."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from callerid.config import Credential
from callerid.credentials import awskeys, clientcert
from callerid.credentials.outgoing import (
    AsItCame,
    InHeader,
    InPlace,
    InQuery,
    InTls,
    Outgoing,
    Signed,
    Way,
    twin,
)
from callerid.credentials.secret import PLACEHOLDER, PemSecret, Secret
from callerid.credentials.sources.lazy import load
from callerid.errors import ConfigError

_TOKEN: Final = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")
_COOKIE: Final = frozenset(map(chr, range(0x21, 0x7F))) - set('",;\\')
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
_BEARER: Final = f"Bearer {PLACEHOLDER}"
OWN: Final = "passthrough"
"""What stands for the version in the label of ``passthrough``: nothing of ours was injected."""


@dataclass(frozen=True, slots=True)
class Injection:
    """One secret and the way in which it gets into a request. ``label`` is ``ID@vN``, for the row.

    ``secret`` is what ``how`` writes: a header's whole value, say. None: nothing of ours is written.
    """

    label: str
    how: Way
    secret: Secret | PemSecret | None

    @property
    def shared(self) -> bool:
        """False for ``passthrough``: the credential is the caller's own."""
        return not isinstance(self.how, AsItCame)


def spend[T](secret: Secret | PemSecret, use: Callable[[str], T]) -> T:
    """What ``use`` makes of the value. It is to write the value into its one place and keep nothing of it.

    Its callers are counted by a test, as ``reveal()`` is.
    """
    return use(secret.reveal())


def prepared(credential: Credential, secret: Secret | PemSecret | None) -> Injection:
    """How ``secret``, as it is now, is injected for ``credential``.

    Args:
        credential: as in credentials.yaml.
        secret: the source's value; for the OAuth kinds the access token; None where there is no secret.

    Raises:
        ConfigError: the secret cannot be written there; the message does not hold it.
    """
    if credential.inject == "passthrough":
        return Injection(f"{credential.id}@{OWN}", AsItCame(), None)
    if isinstance(secret, PemSecret):
        if credential.inject != "mtls":
            raise _misfit(credential, "a PEM cannot be written into a request")
        spend(secret, partial(clientcert.check, secret.label))
        return Injection(secret.label, InTls(), secret)
    if secret is None or credential.inject == "mtls":
        raise _misfit(credential, "its source gives no such secret")
    return _written(credential, secret)


def _written(credential: Credential, secret: Secret) -> Injection:
    label = secret.label
    match credential.inject:
        case "bearer" | "header":
            return Injection(
                label, _header(credential, credential.header), secret.within(credential.template)
            )
        case "basic":
            if credential.username is None:
                raise _misfit(credential, "there is no username", "Add the username in credentials.yaml.")
            way = _header(credential, credential.header)
            return Injection(label, way, secret.as_basic(credential.username))
        case "oauth_client_credentials" | "oauth_refresh_token" | "token_exchange":
            return Injection(label, InHeader("Authorization"), secret.within(_BEARER))
        case "query" if credential.name and set(credential.name) <= _TOKEN:
            return Injection(label, InQuery(credential.name), secret)
        case "cookie" if credential.name and set(credential.name) <= _TOKEN:
            if not spend(secret, _COOKIE.issuperset):
                raise _misfit(credential, "the secret holds a character that a cookie cannot")
            return Injection(label, InHeader("Cookie"), secret.within(f"{credential.name}={PLACEHOLDER}"))
        case "replace":
            return Injection(label, _place(credential), secret)
        case "aws_sigv4" if credential.region and credential.service:
            return Injection(
                label, _signed(credential, credential.region, credential.service, secret), secret
            )
    raise _misfit(credential, "its name, region or service is missing or cannot be written")


def _header(credential: Credential, name: str) -> InHeader:
    if not name or not set(name) <= _TOKEN or twin(name) in _FRAMING:
        raise ConfigError(
            f"credential {credential.id} cannot be written into a header named {name!r}",
            hint="Name a header for credentials, such as Authorization or X-Api-Key.",
        )
    return InHeader(name)


def _place(credential: Credential) -> InPlace:
    place = credential.place or ""
    if place.startswith("/"):
        return InPlace("pointer", place)
    kind, _, name = place.partition(":")
    if kind == "header":
        return InPlace(kind, _header(credential, name).name)
    if kind == "query" and name and set(name) <= _TOKEN:
        return InPlace(kind, name)
    raise _misfit(credential, "its place is not header:NAME, query:NAME or a JSON pointer")


def _signed(credential: Credential, region: str, service: str, secret: Secret) -> Signed:
    if spend(secret, awskeys.parse) is None:
        raise _misfit(
            credential,
            "the secret is not a pair of AWS keys",
            'Store ACCESS_KEY_ID:SECRET_ACCESS_KEY, or {"access_key_id": ..., "secret_access_key": ...}.',
        )
    module = load("callerid.credentials.sigv4")
    if module is None:
        raise _misfit(credential, "botocore is not installed", "Install callerid with its extra: aws.")
    return Signed(region, service, module.sign)


def _misfit(credential: Credential, what: str, hint: str = "Mend it in credentials.yaml.") -> ConfigError:
    return ConfigError(
        f"credential {credential.id} cannot be injected as {credential.inject}: {what}", hint=hint
    )


def needles(credential: Credential, secret: Secret | PemSecret) -> tuple[bytes, ...]:
    """Every form in which the scrubber looks for what leaves with this secret, or could be made of it."""
    if isinstance(secret, PemSecret) or credential.inject != "aws_sigv4":
        return (
            secret.renderings() if isinstance(secret, PemSecret) else secret.renderings(credential.username)
        )
    keys = spend(secret, awskeys.parse)
    parts = (keys.secret_access_key, keys.session_token) if keys is not None else ()
    found = {form for part in parts if part for form in awskeys.as_secret(part, secret.label).renderings()}
    return tuple(sorted(found.union(secret.renderings()), key=lambda form: (-len(form), form)))


def apply(injection: Injection, out: Outgoing) -> None:
    """Write the secret. The last change to the request: what is signed must not change afterwards."""
    if injection.secret is not None and not isinstance(injection.how, InTls):
        spend(injection.secret, partial(injection.how.write, out))


def conceal(injection: Injection, out: Outgoing) -> None:
    """Put a placeholder where the secret is, once the request has left: dumps and views read the request
    later than the wire does."""
    injection.how.hide(out, f"[callerid:{injection.label}]")
