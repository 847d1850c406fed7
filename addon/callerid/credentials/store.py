"""The shared upstream credentials, live: reading, rotating, and handing one out for a bound destination."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Never

from callerid.config import Credential
from callerid.credentials.binding import Destination, is_bound
from callerid.credentials.inject import Injection, prepared
from callerid.credentials.scrub import Scrubber
from callerid.credentials.secret import Secret
from callerid.credentials.sources import Fingerprint, Unavailable, fingerprint, read_source
from callerid.errors import ConfigError
from callerid.model import Reason

KEPT_VERSIONS: Final = 5
"""Versions of one credential that are scrubbed: the live one and the four before it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No secret for this request. ``detail`` is for the row, not for the caller."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialStatus:
    """One credential's health. ``label`` is that of the newest version ever read, None if there is none."""

    id: str
    label: str | None
    ok: bool
    detail: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One credential as last read: ready with an ``injection``, or at fault. Newest of ``secrets`` last."""

    credential: Credential
    state: Fingerprint | None
    version: int
    secrets: tuple[Secret, ...]
    injection: Injection | None
    fault: Unavailable | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    """What is in force, exchanged as a whole: a secret is never handed out before it is scrubbed."""

    entries: Mapping[str, _Entry]
    retired: Mapping[str, _Entry]
    scrubber: Scrubber


class CredentialStore:
    """Holds every shared secret. One thread may ``refresh`` while another calls the other methods.

    Args:
        credentials: the loaded credentials.yaml.
        environ: where sources of kind ``env`` are looked up, once per credential.

    Raises:
        ConfigError: two credentials have one id. An unreadable source is no exception: it makes that
            credential unavailable, and every request that needs it is refused.
    """

    __slots__ = ("_environ", "_snapshot")

    def __init__(self, credentials: tuple[Credential, ...], environ: Mapping[str, str]) -> None:
        self._environ = environ
        _refuse_twins(credentials)
        entries = {credential.id: _read(credential, None, environ) for credential in credentials}
        self._snapshot = _assembled(entries, {})

    def refresh(self) -> None:
        """Read again what has changed or was at fault; a new value is a new version. Never raises.

        A source that fails leaves its credential unavailable; its secrets are still scrubbed.
        """
        old = self._snapshot
        entries = {name: _read(e.credential, e, self._environ) for name, e in old.entries.items()}
        if any(entries[name] is not old.entries[name] for name in entries):
            self._snapshot = _assembled(entries, old.retired)

    def replaced(self, credentials: tuple[Credential, ...]) -> CredentialStore:
        """The store for newly loaded rules; this one stays as it is.

        An id keeps its version numbers and its secrets; a removed id's secrets are still scrubbed.

        Raises:
            ConfigError: two credentials have one id.
        """
        _refuse_twins(credentials)
        known = {**self._snapshot.retired, **self._snapshot.entries}
        entries = {c.id: _read(c, known.get(c.id), self._environ) for c in credentials}
        store = CredentialStore((), self._environ)
        store._snapshot = _assembled(entries, {name: e for name, e in known.items() if name not in entries})
        return store

    def prepare(self, credential_id: str, destination: Destination) -> Injection | Refused:
        """The injection for one request, if the secret may go there and there is one."""
        entry = self._snapshot.entries.get(credential_id)
        if entry is None:
            return Refused(Reason.CREDENTIAL_UNAVAILABLE, f"there is no credential {credential_id}")
        if not is_bound(entry.credential.binding, destination):
            return Refused(
                Reason.CREDENTIAL_NOT_BOUND, f"credential {credential_id} is not bound to this destination"
            )
        if entry.injection is None:
            return Refused(Reason.CREDENTIAL_UNAVAILABLE, _detail(entry))
        return entry.injection

    @property
    def scrubber(self) -> Scrubber:
        """Over all live secrets and those before them. Fetch it per answer: a refresh makes a new one."""
        return self._snapshot.scrubber

    def status(self) -> tuple[CredentialStatus, ...]:
        """The health of every credential, in the order of the rules."""
        return tuple(
            CredentialStatus(
                id=entry.credential.id,
                label=entry.secrets[-1].label if entry.secrets else None,
                ok=entry.injection is not None,
                detail=_detail(entry),
                hint=entry.fault.hint if entry.fault else "",
            )
            for entry in self._snapshot.entries.values()
        )

    def __repr__(self) -> str:
        return f"<credential store: {', '.join(self._snapshot.entries)}>"

    def __getstate__(self) -> Never:
        raise TypeError("a CredentialStore cannot be serialised")

    def __reduce_ex__(self, protocol: object) -> Never:
        raise TypeError("a CredentialStore cannot be serialised")


def _read(credential: Credential, old: _Entry | None, environ: Mapping[str, str]) -> _Entry:
    # Before reading: if the file is exchanged in between, the next refresh sees it as changed.
    state = fingerprint(credential)
    if old and old.injection and state == old.state and _same_source(credential, old.credential):
        return old if credential == old.credential else _rendered(replace(old, credential=credential))
    entry = _reread(credential, state, old, environ)
    # A fault that lasts makes no new snapshot.
    return old if old is not None and entry == old else entry


def _reread(
    credential: Credential, state: Fingerprint | None, old: _Entry | None, environ: Mapping[str, str]
) -> _Entry:
    entry = _Entry(
        credential=credential,
        state=state,
        version=old.version if old else 0,
        secrets=old.secrets if old else (),
        injection=None,
        fault=None,
    )
    value = read_source(credential, environ)
    if isinstance(value, Unavailable):
        return replace(entry, fault=value)
    secret = Secret(value, label=f"{credential.id}@v{entry.version + 1}")
    del value
    if not entry.secrets or entry.secrets[-1] != secret:
        kept = (*entry.secrets, secret)[-KEPT_VERSIONS:]
        entry = replace(entry, version=entry.version + 1, secrets=kept)
    return _rendered(entry)


def _rendered(entry: _Entry) -> _Entry:
    """With the header made of its newest secret; a template that cannot make one is a fault."""
    try:
        injection = prepared(entry.credential, entry.secrets[-1])
    except ConfigError as error:
        fault = Unavailable(entry.credential.id, error.message, error.hint)
        return replace(entry, injection=None, fault=fault)
    return replace(entry, injection=injection, fault=None)


def _same_source(one: Credential, other: Credential) -> bool:
    return (one.source_kind, one.source) == (other.source_kind, other.source)


def _assembled(entries: Mapping[str, _Entry], retired: Mapping[str, _Entry]) -> _Snapshot:
    scrubber = Scrubber(
        needle
        for entry in (*entries.values(), *retired.values())
        for secret in entry.secrets
        for needle in secret.renderings(entry.credential.username)
    )
    return _Snapshot(entries=entries, retired=retired, scrubber=scrubber)


def _detail(entry: _Entry) -> str:
    return entry.fault.detail if entry.fault else ""


def _refuse_twins(credentials: Iterable[Credential]) -> None:
    seen: set[str] = set()
    for credential in credentials:
        if credential.id in seen:
            raise ConfigError(
                f"two credentials have the id {credential.id}", hint="Give each credential its own id."
            )
        seen.add(credential.id)
