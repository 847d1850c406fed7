"""Access tokens that are made of a credential's own secret: what a maker of them is given, and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from callerid.config import Credential
from callerid.credentials.secret import PemSecret, Secret
from callerid.credentials.sources.base import Fetched, Flight, Unavailable


@dataclass(frozen=True, slots=True)
class Given:
    """What there is to make a token of.

    ``secret`` is what the credential's source holds (or the refresh token that came in its place),
    ``others`` the newest secrets of the other credentials by id, ``subject`` the person's own token.
    """

    secret: Secret | PemSecret | None
    others: Mapping[str, Secret | PemSecret]
    subject: Secret | None


class Minter(Protocol):
    """Makes access tokens. ``mint`` blocks, in a thread; as ``Source.fetch`` otherwise."""

    per_person: bool

    def mint(self, given: Given, flight: Flight) -> Fetched | Unavailable: ...


type Minters = Callable[[Credential, Path | None], Minter | None]
"""The maker for a credential, None if its secret is injected as it is; with the roots to trust besides."""


def no_minters(credential: Credential, roots: Path | None) -> Minter | None:
    """No credential's secret is exchanged."""
    return None


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose token is wanted. ``key`` begins with the person (principal, issuer), a line each; what follows
    behind a last line break tells one token of theirs from another. ``token`` is theirs."""

    key: str
    token: Secret

    @property
    def person(self) -> str:
        """The part of ``key`` that names the person alone."""
        return person_of(self.key)


def person_of(key: str) -> str:
    """Whom the key of a ``Subject`` names."""
    return key.rpartition("\n")[0] or key


@dataclass(frozen=True, slots=True)
class Wanted:
    """There is no token of this person yet, and it may be asked for: ``CredentialStore.obtain``."""

    credential_id: str
    subject: Subject
