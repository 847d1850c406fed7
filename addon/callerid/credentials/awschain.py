"""The AWS keys that botocore finds by its own chain: environment, profiles, web identity, machine.

Loaded only where a credential asks for it: botocore is heavy, and an extra.
"""

from __future__ import annotations

from pathlib import Path

from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
from botocore.session import Session  # type: ignore[import-untyped]

from callerid.config import Credential
from callerid.credentials.awskeys import Keys, as_text
from callerid.credentials.minting import Given
from callerid.credentials.sources.base import Fetched, Flight, Unavailable
from callerid.credentials.sources.quiet import hush

hush()


class AwsChain:
    """One chain for the life of the process: botocore renews temporary keys before they end."""

    per_person = False

    def __init__(self, credential: Credential) -> None:
        self._credential = credential
        self._session = Session()

    def mint(self, given: Given, flight: Flight) -> Fetched | Unavailable:
        """The keys as they are now. Where none is found, or the metadata service does not answer, a fault."""
        hint = "See how botocore looks for credentials; AWS_PROFILE and the role of the machine are usual."
        try:
            found = self._session.get_credentials()
            frozen = found.get_frozen_credentials() if found is not None else None
        except BotoCoreError as error:
            return Unavailable(self._credential.id, f"botocore failed with {type(error).__name__}", hint)
        if frozen is None or not frozen.access_key or not frozen.secret_key:
            return Unavailable(self._credential.id, "botocore finds no AWS credentials", hint)
        return Fetched(as_text(Keys(frozen.access_key, frozen.secret_key, frozen.token)))


def open_minter(credential: Credential, roots: Path | None, kept: Path | None) -> AwsChain:
    """As the other lazily loaded modules have it; nothing is fetched here."""
    return AwsChain(credential)
