"""The shared upstream credentials, live: reading, rotating, and handing one out for a bound destination."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Never
from weakref import WeakKeyDictionary

from callerid.config import Credential
from callerid.credentials import entries as made
from callerid.credentials.binding import Destination, is_bound, is_place_bound
from callerid.credentials.entries import Entry
from callerid.credentials.fetching import MAX_PEOPLE, MINTED, OF_ONE, OWN, Fetching, Place, Slot
from callerid.credentials.inject import Injection
from callerid.credentials.layers import Layers
from callerid.credentials.minting import Minter, Minters, Subject, Wanted, no_minters, person_of
from callerid.credentials.scrub import Scrubber
from callerid.credentials.series import KEPT_VERSIONS as KEPT_VERSIONS
from callerid.credentials.slots import Slots
from callerid.credentials.sources import is_watched
from callerid.credentials.timetable import STILL, Clock
from callerid.credentials.tripwire import Held
from callerid.errors import ConfigError
from callerid.model import Reason

GRACE: Final = 1.0
"""Seconds that ``obtain`` waits beyond the credential's own timeout."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No secret for this request. ``detail`` is for the row, not for the caller."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialStatus:
    """One credential's health. ``label`` is that of the newest version ever read, None if there is none.

    ``failing`` says what is wrong with a source whose last good value still serves; empty if nothing is.
    ``coming``: it is not there yet, and nothing has failed.
    """

    id: str
    label: str | None
    ok: bool
    detail: str
    hint: str
    failing: str = ""
    coming: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    """What is in force, exchanged as a whole: a secret is never handed out before it is scrubbed."""

    entries: Mapping[str, Entry]
    retired: Mapping[str, Entry]
    layers: Layers


class CredentialStore:
    """Holds every shared secret. One thread refreshes, asks and reloads; others fetch.

    Sources that are cheap to look at are read here and now; the others are fetched in threads of their own,
    and what came is in force from the next ``refresh`` on.

    Args:
        credentials: the loaded credentials.yaml.
        environ: where sources of kind ``env`` are looked up, once per credential.
        clock: for what is fetched; without one nothing expires and nothing is tried again.
        roots: certificates to trust besides the public ones, for sources and token endpoints.
        minters: which credentials' secrets are exchanged for access tokens, and how.

    Raises:
        ConfigError: two credentials have one id. An unreadable source is no exception: it makes that
            credential unavailable, and every request that needs it is refused.
    """

    __slots__ = ("_clock", "_credentials", "_environ", "_fetching", "_sent", "_slots", "_snapshot")

    def __init__(
        self,
        credentials: tuple[Credential, ...],
        environ: Mapping[str, str],
        *,
        clock: Clock = STILL,
        roots: Path | None = None,
        minters: Minters = no_minters,
    ) -> None:
        _refuse_twins(credentials)
        self._environ = environ
        self._clock = clock
        self._credentials = credentials
        self._fetching = Fetching(clock)
        self._sent: WeakKeyDictionary[object, str] = WeakKeyDictionary()
        self._slots = Slots(credentials, environ, roots, minters)
        self._snapshot = _Snapshot(entries={}, retired={}, layers=Layers())
        self._look({}, {})

    def refresh(self) -> None:
        """Read again what has changed or was at fault, take what was fetched, begin what is due.

        A new value is a new version. Never raises, never waits. A watched source that fails leaves its
        credential unavailable at once, a fetched one after ``stale_for``; its secrets are still scrubbed.
        """
        self._fetching.keep(self._slots.wanted(self._entries), self._lasting)
        self._fetching.collect()
        old = self._snapshot
        self._look(old.entries, old.retired)
        # What is to be made of a secret that has just come is wanted from now on.
        self._fetching.keep(self._slots.wanted(self._entries), self._lasting)
        self._hurry()
        self._fetching.begin_due()

    def replaced(self, credentials: tuple[Credential, ...]) -> CredentialStore:
        """The store for newly loaded rules; this one stays as it is.

        An id keeps its version numbers and its secrets; a removed id's secrets are still scrubbed. What is
        under way for sources that stay goes on. Nothing new is fetched before the first ``refresh``.

        Raises:
            ConfigError: two credentials have one id.
        """
        _refuse_twins(credentials)
        known = {**self._snapshot.retired, **self._snapshot.entries}
        store = CredentialStore((), self._environ, clock=self._clock)
        store._credentials = credentials
        store._fetching, store._sent = self._fetching, self._sent
        store._slots = self._slots.replaced(credentials)
        ids = {credential.id for credential in credentials}
        store._look(
            known, {name: entry.gone(self._now()) for name, entry in known.items() if name not in ids}
        )
        return store

    def prepare(
        self, credential_id: str, destination: Destination, subject: Subject | None = None
    ) -> Injection | Refused | Wanted:
        """The injection for one request, if the secret may go there and there is one.

        ``Wanted`` only for credentials with a token per person, of whom ``subject`` is one.
        """
        entry = self._snapshot.entries.get(credential_id)
        if entry is None:
            return Refused(Reason.CREDENTIAL_UNAVAILABLE, f"there is no credential {credential_id}")
        if not is_bound(entry.credential.binding, destination):
            return Refused(
                Reason.CREDENTIAL_NOT_BOUND, f"credential {credential_id} is not bound to this destination"
            )
        minter = self._slots.minter(credential_id)
        if minter is not None and minter.per_person:
            return self._for_person(entry, minter, subject)
        if entry.injection is None:
            return Refused(Reason.CREDENTIAL_UNAVAILABLE, entry.detail)
        return entry.injection

    def at(self, credential_id: str, host: str, port: int) -> Injection | Refused:
        """What a connection to this place may show before a request on it is known: a client certificate."""
        entry = self._snapshot.entries.get(credential_id)
        if entry is None or entry.injection is None:
            detail = entry.detail if entry is not None else f"there is no credential {credential_id}"
            return Refused(Reason.CREDENTIAL_UNAVAILABLE, detail)
        if not is_place_bound(entry.credential.binding, host, port):
            return Refused(
                Reason.CREDENTIAL_NOT_BOUND, f"credential {credential_id} is not bound to {host}:{port}"
            )
        return entry.injection

    def _for_person(
        self, entry: Entry, minter: Minter, subject: Subject | None
    ) -> Injection | Refused | Wanted:
        name = entry.credential.id
        if entry.fault is not None:
            return Refused(Reason.CREDENTIAL_UNAVAILABLE, entry.detail)
        if subject is None:
            return Refused(Reason.NO_SUBJECT_TOKEN, f"credential {name} is made of the caller's own token")
        now, slot = self._now(), self._fetching.slots.get((name, subject.key))
        person = entry.people.get(subject.key)
        if person is not None and person.injection is not None and slot is not None and slot.usable(now):
            if slot.table.wants(now):
                self._slots.for_person(slot, entry.credential, minter, self._entries, subject)
                slot.asked = True
            return person.injection
        if slot is not None and slot.fault is not None and not slot.coming(now):
            return Refused(Reason.CREDENTIAL_UNAVAILABLE, slot.fault.detail)
        return Wanted(name, subject)

    async def obtain(self, wanted: Wanted) -> None:
        """Wait until that person's token is there or is not to be had: then ``prepare`` again.

        One fetch serves all who wait. Bounded by the credential's ``timeout``. Never raises.
        """
        entry = self._snapshot.entries.get(wanted.credential_id)
        minter = self._slots.minter(wanted.credential_id)
        if entry is None or minter is None:
            return
        if self._fetching.flights.wake is None:
            loop = asyncio.get_running_loop()
            self.on_arrival(partial(_at, loop, self.refresh))
        place: Place = (wanted.credential_id, wanted.subject.key)
        slot = self._fetching.slots.get(place)
        if slot is None:
            self._make_room(wanted.credential_id, wanted.subject.person)
            slot = self._slots.new_person(place, entry.credential)
            self._fetching.slots[place] = slot
        if slot.table.wants(self._now()):
            self._slots.for_person(slot, entry.credential, minter, self._entries, wanted.subject)
            slot.asked = True
            self._fetching.begin_due()
        if not slot.coming(self._now()):
            return
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        slot.waiting.append(arrived)
        await asyncio.wait((arrived,), timeout=slot.timeout + GRACE)

    def sent(self, exchange: object, label: str) -> None:
        """The secret of this label goes with ``exchange``: scrubbed for as long as somebody holds that."""
        self._sent[exchange] = label

    def doubt(self, label: str) -> None:
        """A server refused the secret of this label: ask its source early, every 30 s at most.

        A source that is watched needs no asking. A person's token is not used again. Where very many that
        are still good were made already, no more is: a caller can bring a server to refuse.
        """
        name = label.rpartition("@v")[0]
        entry = self._snapshot.entries.get(name)
        if entry is None:
            return
        for key, person in entry.people.items():
            if person.kept.secret.label == label:
                self._fetching.drop([(name, key)])
                return
        now = self._now()
        if entry.label == label and not (entry.own.is_crowded(now) or entry.minted.is_crowded(now)):
            for stage in (MINTED, OWN):
                slot = self._fetching.slots.get((name, stage))
                if slot is not None:
                    self._fetching.doubt(slot)

    def forget(self, key: str) -> None:
        """The tokens of whom ``key`` names, or begins to name, are not used again: they are refused now."""
        self._fetching.drop([place for place in self._fetching.slots if place[1].startswith(key)])

    def on_arrival(self, wake: Callable[[], None]) -> None:
        """Call ``wake``, from another thread, when something came: ``refresh`` need not be waited for."""
        self._fetching.flights.wake = wake

    def settle(self, seconds: float) -> None:
        """Block until the first fetches are over, but no longer: for the start, before anybody is served."""
        end = self._clock.steady() + seconds
        for _ in range(3):  # a secret, and what is made of it
            self._fetching.flights.settle(max(0.0, end - self._clock.steady()))
            self.refresh()

    def close(self) -> None:
        """End all fetches without waiting for them."""
        self._fetching.flights.close()

    @property
    def scrubber(self) -> Scrubber:
        """Over all live secrets and those before them. Fetch it per answer: a refresh makes a new one."""
        return self._snapshot.layers.scrubber

    def held(self) -> tuple[Held, ...]:
        """Every secret in force and those before it, with its needles: what the tripwire looks for.

        A person's token is not among them: it is made in here, and nobody else has it. What is held changes
        only with ``scrubber``.
        """
        return tuple(
            (entry.credential, kept.secret, kept.needles)
            for entry in self._snapshot.entries.values()
            for series in (entry.own, entry.minted, entry.heir)
            for kept in series.kept
        )

    def status(self) -> tuple[CredentialStatus, ...]:
        """The health of every credential, in the order of the rules."""
        return tuple(self._status(entry) for entry in self._snapshot.entries.values())

    def _status(self, entry: Entry) -> CredentialStatus:
        slots = (self._fetching.slots.get((entry.credential.id, stage)) for stage in (OWN, MINTED))
        failing = next((slot.fault.detail for slot in slots if slot is not None and slot.fault), "")
        return CredentialStatus(
            id=entry.credential.id,
            label=entry.label,
            ok=entry.fault is None,
            detail=entry.detail,
            hint=entry.fault.hint if entry.fault else "",
            failing=failing if entry.fault is None else "",
            coming=entry.fault is not None and entry.fault.coming,
        )

    # -- how it is put together ------------------------------------------------------------------

    def _now(self) -> float:
        return self._clock.steady()

    def _entries(self) -> Mapping[str, Entry]:
        return self._snapshot.entries

    def _lasting(self, slot: Slot) -> bool:
        """Whether a person's slot stays: its credential is as before, and there is something in it."""
        if slot.place[1] in (OWN, MINTED) or not self._slots.is_current(slot):
            return False
        now = self._now()
        return slot.usable(now) or slot.table.flying or slot.asked or now < slot.table.due

    def _make_room(self, credential_id: str, person: str) -> None:
        """For one more token, by the oldest for which nothing is under way: of that person, who has many."""
        mine = [place for place in self._fetching.slots if place[0] == credential_id]
        own = [place for place in mine if person_of(place[1]) == person]
        crowd = own if len(own) >= OF_ONE else mine if len(mine) >= MAX_PEOPLE else []
        idle = (place for place in crowd if not self._fetching.slots[place].table.flying)
        if (oldest := next(idle, None)) is not None:
            self._fetching.drop([oldest])

    def _hurry(self) -> None:
        for name, entry in self._snapshot.entries.items():
            slot = self._fetching.slots.get((name, MINTED))
            if slot is not None and entry.own.newest is not None:
                self._fetching.hurry(slot, entry.own.newest.label)

    def _look(self, known: Mapping[str, Entry], retired: Mapping[str, Entry]) -> None:
        """Put the snapshot of now in force, if it differs from the one that is."""
        now = self._now()
        entries = {c.id: self._looked(c, known.get(c.id), now) for c in self._credentials}
        gone = {
            name: entry.pruned(now, self._in_use) for name, entry in retired.items() if name not in entries
        }
        old, all_ = self._snapshot, (*entries.values(), *gone.values())
        layers = old.layers.holding(
            tuple(mark for entry in all_ for mark in entry.marks()),
            lambda: (needle for entry in all_ for needle in entry.needles()),
            (kept for entry in all_ for kept in entry.tokens()),
        )
        same = layers is old.layers and gone == old.retired and old.entries.keys() == entries.keys()
        if not same or any(entries[name] is not old.entries[name] for name in entries):
            self._snapshot = _Snapshot(entries=entries, retired=gone, layers=layers)

    def _looked(self, credential: Credential, old: Entry | None, now: float) -> Entry:
        minter = self._slots.minter(credential.id)
        entry = (old or made.fresh(credential, exchanged=minter is not None)).pruned(now, self._in_use)
        changed = entry.credential != credential
        if not made.same_source(entry.credential, credential):
            entry = replace(entry, own_arrival=None, state=None, own_fault=made.unread(credential))
        entry = entry.now_of(credential)
        before = entry.own
        slots = self._fetching.slots
        if credential.source_kind == "none":
            entry = replace(entry, own_fault=None)
        elif is_watched(credential):
            entry = made.watched(entry, self._environ, now, self._in_use)
        else:
            entry = made.fetched(entry, slots.get((credential.id, OWN)), now, self._in_use)
        if minter is None:
            entry = made.rendered(entry, entry.own.newest, again=changed or entry.own != before)
        elif minter.per_person:
            entry = made.with_people(entry, slots, now, self._in_use)
        else:
            entry = made.minted(entry, slots.get((credential.id, MINTED)), now, self._in_use)
        # A fault that lasts makes no new snapshot.
        return old if old is not None and entry == old else entry

    def _in_use(self) -> frozenset[str]:
        return frozenset(self._sent.values())

    def __repr__(self) -> str:
        return f"<credential store: {', '.join(self._snapshot.entries)}>"

    def __getstate__(self) -> Never:
        raise TypeError("a CredentialStore cannot be serialised")

    def __reduce_ex__(self, protocol: object) -> Never:
        raise TypeError("a CredentialStore cannot be serialised")


def _at(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(what)


def _refuse_twins(credentials: Iterable[Credential]) -> None:
    seen: set[str] = set()
    for credential in credentials:
        if credential.id in seen:
            raise ConfigError(
                f"two credentials have the id {credential.id}", hint="Give each credential its own id."
            )
        seen.add(credential.id)
