"""Which credentials are minted: made of another secret at a token endpoint, or found by AWS' own chain.

Light on purpose: the libraries are extras, and are loaded in the worker thread that first needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from callerid.config import Credential
from callerid.credentials.minting import Given, Minter
from callerid.credentials.sources.base import Fetched, Flight, Unavailable
from callerid.credentials.sources.lazy import load

_OAUTH: Final = "callerid.credentials.oauth"
_AWS: Final = "callerid.credentials.awschain"
_MODULES: Final[Mapping[str, tuple[str, str]]] = {
    "oauth_client_credentials": (_OAUTH, "oauth"),
    "oauth_refresh_token": (_OAUTH, "oauth"),
    "token_exchange": (_OAUTH, "oauth"),
    "aws_sigv4": (_AWS, "aws"),
}


def minter_for(credential: Credential, roots: Path | None, *, kept: Path | None = None) -> Minter | None:
    """The minter of ``credential``; None where its source holds what is injected.

    Args:
        credential: of any kind.
        roots: certificates that token endpoints may have besides those of the public CAs (PEM).
        kept: the folder in which refresh tokens are kept that an authorization server has exchanged;
            None: they are lost with the process.
    """
    if credential.inject not in _MODULES or (
        credential.inject == "aws_sigv4" and credential.source_kind != "none"
    ):
        return None
    return _Deferred(credential, roots, kept, per_person=credential.inject == "token_exchange")


@dataclass(slots=True)
class _Deferred:
    """A minter that is made when it is first needed, in the thread that needs it."""

    credential: Credential
    roots: Path | None
    kept: Path | None
    per_person: bool
    made: Minter | None = field(default=None, init=False)

    def mint(self, given: Given, flight: Flight) -> Fetched | Unavailable:
        if self.made is None:
            name, extra = _MODULES[self.credential.inject]
            module = load(name)
            if module is None:
                return Unavailable(
                    self.credential.id,
                    f"the libraries for {self.credential.inject} are not installed",
                    f"Run: pip install 'callerid[{extra}]' (requirements/extras.txt in a checkout).",
                )
            self.made = module.open_minter(self.credential, self.roots, self.kept)
        return self.made.mint(given, flight)
