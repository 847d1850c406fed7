"""Which secrets are to be fetched for a set of credentials, and by what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from callerid.config import Credential
from callerid.credentials.entries import Entry, origin
from callerid.credentials.fetching import MINTED, OWN, Place, Slot
from callerid.credentials.flights import Fetch
from callerid.credentials.minting import Given, Minter, Minters, Subject
from callerid.credentials.sources import Fetched, Flight, Unavailable, source_for
from callerid.credentials.sources.base import sound
from callerid.credentials.timetable import Pace, Timetable

type Entries = Callable[[], Mapping[str, Entry]]

_AT_ONCE: Final = Timetable(due=float("-inf"))


class Slots:
    """Makes the slots of these credentials. Sources and minters are made once and kept."""

    def __init__(
        self,
        credentials: tuple[Credential, ...],
        environ: Mapping[str, str],
        roots: Path | None,
        minters: Minters,
    ) -> None:
        self._credentials = credentials
        self._environ = environ
        self._roots = roots
        self._minters = minters
        self._made = {credential.id: minters(credential, roots) for credential in credentials}
        self._own = {c.id: source.fetch for c in credentials if (source := source_for(c, environ, roots))}
        per_person = (
            c for c in credentials if (minter := self._made[c.id]) is not None and minter.per_person
        )
        self._people = {c.id: _origin(c, minted=True) for c in per_person}

    def replaced(self, credentials: tuple[Credential, ...]) -> Slots:
        """Those of newly loaded rules."""
        return Slots(credentials, self._environ, self._roots, self._minters)

    def minter(self, credential_id: str) -> Minter | None:
        """What exchanges this credential's secret for tokens; None if it is injected as it is."""
        return self._made.get(credential_id)

    def wanted(self, entries: Entries) -> dict[Place, Slot]:
        """A slot for each secret that is fetched in the background. Those of persons come on demand."""
        found: dict[Place, Slot] = {}
        for credential in self._credentials:
            fetch = self._own.get(credential.id)
            if fetch is not None:
                place: Place = (credential.id, OWN)
                found[place] = _slot(place, credential, partial(_same, fetch), minted=False)
            minter, entry = self._made[credential.id], entries().get(credential.id)
            if minter is not None and not minter.per_person and entry is not None and entry.own_fault is None:
                place = (credential.id, MINTED)
                begin = partial(self._bound, credential, minter, entries, None)
                found[place] = _slot(place, credential, begin, minted=True)
        return found

    def is_current(self, slot: Slot) -> bool:
        """Whether a person's slot is of a credential that is there, and whose tokens are made as before."""
        return self._people.get(slot.place[0]) == slot.origin

    def new_person(self, place: Place, credential: Credential) -> Slot:
        """An empty slot for one person's token."""
        slot = _slot(place, credential, partial(_same, _never), minted=True)
        slot.on_demand = True
        return slot

    def for_person(
        self, slot: Slot, credential: Credential, minter: Minter, entries: Entries, subject: Subject
    ) -> None:
        """The slot's next fetch is made with this token of the person."""
        slot.begin = partial(self._bound, credential, minter, entries, subject)

    def _bound(
        self, credential: Credential, minter: Minter, entries: Entries, subject: Subject | None
    ) -> Fetch:
        """A fetch with all that it is given, as things stand now."""
        now = entries()
        entry = now.get(credential.id)
        others = {
            name: secret
            for name, other in now.items()
            if name != credential.id and (secret := other.usable_own) is not None
        }
        given = Given(
            secret=entry.usable_own if entry is not None else None,
            others=others,
            subject=subject.token if subject is not None else None,
        )
        return partial(_minted, credential, minter, given)


def _same(fetch: Fetch) -> Fetch:
    return fetch


def _never(flight: Flight) -> Fetched | Unavailable:
    return Unavailable("", "nobody asked for it")


def _minted(credential: Credential, minter: Minter, given: Given, flight: Flight) -> Fetched | Unavailable:
    made = minter.mint(given, flight)
    if isinstance(made, Unavailable):
        return made
    text = sound(credential, "the access token", made.value)
    return text if isinstance(text, Unavailable) else made


def _origin(credential: Credential, *, minted: bool) -> tuple[object, ...]:
    return (*origin(credential), *((credential.inject, credential.oauth) if minted else ()))


def _slot(place: Place, credential: Credential, begin: Callable[[], Fetch], *, minted: bool) -> Slot:
    return Slot(
        place=place,
        origin=_origin(credential, minted=minted),
        begin=begin,
        pace=Pace(refresh=credential.refresh, stale_for=credential.stale_for, by_life=minted),
        timeout=credential.timeout,
        table=_AT_ONCE,
    )
