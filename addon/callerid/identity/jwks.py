"""The public keys of JWT issuers: read from a file or fetched, in the background, last good ones kept.

Nothing in here runs on the event loop but ``JwksStore.keys``, ``note_unknown_kid`` and ``due``, which
only look at memory. The addresses come from identities.yaml alone, which is the guard against requests
to places of a caller's choosing.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock
from types import MappingProxyType

from callerid.config import Issuer
from callerid.errors import ConfigError
from callerid.identity.jwt import KeySet, key_from_jwk
from callerid.identity.strictjson import parse_object
from callerid.trust import trusting

MAX_DOCUMENT = 256 * 1024
MAX_KEYS = 100
FETCH_TIMEOUT = 5.0
REFRESH_EVERY = timedelta(minutes=5)
LOOK_EVERY = timedelta(seconds=5)
"""How often a file source is looked at; it is read only when it has changed."""
RETRY_AFTER = timedelta(seconds=30)
"""The least time between two attempts for one issuer, however many unknown kids arrive."""

_CHUNK = 16 * 1024

type Fetch = Callable[[str], bytes]


def parse_jwks(data: bytes, *, where: str) -> KeySet:
    """The usable keys of a JWKS document (RFC 7517 section 5). ``where`` is named in the error.

    Raises:
        ConfigError: larger than 256 KiB, not a JWKS, or without a key that we use.
    """
    hint = "It must be a JSON object with a list `keys` that holds RS256, ES256 or EdDSA public keys."
    document = parse_object(data) if len(data) <= MAX_DOCUMENT else None
    members = document.get("keys") if document is not None else None
    if not isinstance(members, list) or len(members) > MAX_KEYS:
        raise ConfigError(f"{where} is not a JWKS document", hint=hint)
    keys = tuple(key for member in members if isinstance(member, dict) and (key := key_from_jwk(member)))
    if not keys:
        raise ConfigError(f"{where} holds no public key that can be used", hint=hint)
    return KeySet(keys)


def load_jwks_file(path: Path) -> KeySet:
    """The keys in a file.

    Raises:
        ConfigError: it is missing, cannot be read, or is not a JWKS.
    """
    return parse_jwks(_read(path), where=str(path))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise ConfigError(
            f"the keys in {path} cannot be read: {error.strerror or error}",
            hint="Check jwks_file in identities.yaml and the file's mode.",
        ) from error


def fetch_jwks(
    url: str,
    *,
    ca_file: Path | None,
    timeout: float = FETCH_TIMEOUT,
    clock: Callable[[], float] = time.monotonic,
) -> bytes:
    """GET a JWKS document: https only, no redirect, no proxy from the environment, 256 KiB at most.

    The server is verified against certifi's roots, and those in ``ca_file`` besides. Plain http is
    taken for loopback addresses only. ``timeout`` (seconds) is for each wait and for the whole.

    Raises:
        ConfigError: the address or the CA file is of no use.
        OSError: unreachable, not verified, not answered with 200, too large or too slow.
    """
    opener = _opener(url, ca_file)
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310  (checked)
    end = clock() + timeout
    data = bytearray()
    try:
        with opener.open(request, timeout=timeout) as answer:
            if answer.status != 200:
                raise OSError(f"answered with status {answer.status}")
            while chunk := answer.read1(_CHUNK):
                data += chunk
                if len(data) > MAX_DOCUMENT:
                    raise OSError("the document is larger than 256 KiB")
                if clock() > end:
                    raise OSError("the document did not arrive in time")
            if answer.length:  # what Content-Length promised and did not come
                raise OSError("the document was cut off")
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"not an HTTP answer: {type(error).__name__}") from error
    return bytes(data)


def _opener(url: str, ca_file: Path | None) -> urllib.request.OpenerDirector:
    """An opener with nothing in it but one scheme: no redirects, proxies, files or cookies."""
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.HTTPDefaultErrorHandler())
    opener.add_handler(urllib.request.HTTPErrorProcessor())
    try:
        parts = urllib.parse.urlsplit(url)
        scheme, host = parts.scheme, parts.hostname or ""
    except ValueError:
        scheme, host = "", ""
    if scheme == "https" and host:
        opener.add_handler(urllib.request.HTTPSHandler(context=trusting(ca_file)))
    elif scheme == "http" and _is_loopback(host):
        opener.add_handler(urllib.request.HTTPHandler())
    else:
        raise ConfigError(f"keys cannot be fetched from {url}", hint="jwks_url must begin with https://.")
    return opener


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class _Held:
    """What is known of one issuer's keys. ``stamp`` is the file's (mtime, inode, size).

    ``document`` is the SHA-256 of the JWKS that they are from.
    """

    keys: KeySet | None = None
    document: bytes = b""
    good_at: datetime | None = None
    tried_at: datetime | None = None
    stamp: tuple[int, int, int] | None = None


class JwksStore:
    """The last good keys of each issuer.

    The event loop asks ``keys`` and ``due``; a thread runs ``refresh``. They meet in an immutable
    mapping that is replaced as a whole.

    Args:
        issuers: as in identities.yaml.
        fetch: ``url -> document``, raising OSError or ConfigError; ``fetch_jwks`` with its CA file.
    """

    def __init__(self, issuers: tuple[Issuer, ...], fetch: Fetch | None = None) -> None:
        self._issuers = {issuer.id: issuer for issuer in issuers}
        self._fetch = fetch if fetch is not None else _fetch_plainly
        self._held: Mapping[str, _Held] = MappingProxyType({name: _Held() for name in self._issuers})
        self._wanted: frozenset[str] = frozenset()
        self.version = 0
        """It changes whenever the keys of an issuer do: what they verified must be verified anew."""
        self._refreshing = Lock()

    def keys(self, issuer_id: str, now: datetime) -> KeySet | None:
        """The issuer's keys; None when there are none, or none seen good for its ``stale_for``."""
        held = self._held.get(issuer_id)
        if held is None or held.good_at is None:
            return None
        if now - held.good_at > timedelta(seconds=self._issuers[issuer_id].stale_for):
            return None
        return held.keys

    def note_unknown_kid(self, issuer_id: str) -> None:
        """A token named a key that is not there: make its issuer due, once per 30 s at most."""
        if issuer_id in self._issuers and issuer_id not in self._wanted:  # a lost race costs one hint
            self._wanted |= {issuer_id}

    def due(self, now: datetime) -> bool:
        """True when ``refresh`` has something to do."""
        return any(self._is_due(issuer, now) for issuer in self._issuers.values())

    def refresh(self, now: datetime) -> tuple[str, ...]:
        """Read or fetch the keys of every issuer that is due; what failed, one sentence each.

        Blocks for up to ``FETCH_TIMEOUT`` per issuer: run it in a thread. What was good is kept.
        """
        problems = []
        with self._refreshing:
            for issuer in self._issuers.values():
                if not self._is_due(issuer, now):
                    continue
                self._wanted -= {issuer.id}
                before = self._held[issuer.id]
                held = replace(before, tried_at=now)
                try:
                    held = self._renewed(issuer, held, now)
                except (OSError, ConfigError) as error:
                    where = issuer.jwks_url or issuer.jwks_file
                    said = f"the keys of issuer {issuer.id} were not renewed from {where}: {_say(error)}"
                    private = " (of a private CA? give --upstream-ca FILE)" if _UNTRUSTED in said else ""
                    problems.append(said + private)
                self._held = MappingProxyType({**self._held, issuer.id: held})
                # After the keys: whoever reads the version first can only verify once too often.
                self.version += before.document != held.document
        return tuple(problems)

    def _is_due(self, issuer: Issuer, now: datetime) -> bool:
        tried = self._held[issuer.id].tried_at
        if tried is None or tried > now:
            return True
        if issuer.jwks_file is not None:
            return now - tried >= LOOK_EVERY
        hungry = issuer.id in self._wanted or self._held[issuer.id].good_at != tried
        return now - tried >= (RETRY_AFTER if hungry else REFRESH_EVERY)

    def _renewed(self, issuer: Issuer, held: _Held, now: datetime) -> _Held:
        if issuer.jwks_file is not None:
            info = issuer.jwks_file.stat()
            stamp = (info.st_mtime_ns, info.st_ino, info.st_size)
            if held.keys is not None and stamp == held.stamp:
                return replace(held, good_at=now)
            return replace(_of(held, _read(issuer.jwks_file), str(issuer.jwks_file), now), stamp=stamp)
        if issuer.jwks_url is None:
            raise ConfigError("it has neither jwks_url nor jwks_file")
        return _of(held, self._fetch(issuer.jwks_url), issuer.jwks_url, now)


def _of(held: _Held, data: bytes, where: str, now: datetime) -> _Held:
    keys = parse_jwks(data, where=where)
    return replace(held, keys=keys, document=hashlib.sha256(data).digest(), good_at=now)


def _fetch_plainly(url: str) -> bytes:
    return fetch_jwks(url, ca_file=None)


_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"


def _say(error: Exception) -> str:
    if isinstance(error, ConfigError):
        return error.message
    if isinstance(error, urllib.error.HTTPError):
        return f"answered with status {error.code}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
