"""One credential as it stands: the versions of its secret, what is injected of it, or why nothing is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Final

from callerid.config import Credential
from callerid.credentials.fetching import MAX_PEOPLE, MINTED, OWN, Place, Slot
from callerid.credentials.inject import Injection, needles, prepared
from callerid.credentials.secret import PemSecret, Secret
from callerid.credentials.series import InUse, Kept, Series, bounded, current, unused
from callerid.credentials.sources import Fingerprint, Unavailable, fingerprint, read_source
from callerid.errors import ConfigError

MAX_PAST: Final = 4 * MAX_PEOPLE
"""Tokens of persons that are used no more and still looked for, at the very most, be they good or not."""

NOBODY: Final[Mapping[str, Person]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Person:
    """One person's token. ``arrival`` is that of its slot."""

    arrival: object
    kept: Kept
    injection: Injection | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A credential and its secrets. ``own`` is what its source holds, ``minted`` what was made of that.

    ``heir`` is the refresh token that an authorization server gave in the place of ``heir_of``. ``past``
    are tokens of persons that are used no more. ``own_fault`` is that of the source, ``fault`` of the whole.
    """

    credential: Credential
    own: Series
    minted: Series
    heir: Series
    heir_of: str | None = None
    state: Fingerprint | None = None
    own_arrival: object = None
    minted_arrival: object = None
    people: Mapping[str, Person] = field(default_factory=lambda: NOBODY)
    past: tuple[Kept, ...] = ()
    injection: Injection | None = None
    own_fault: Unavailable | None = None
    fault: Unavailable | None = None

    @property
    def detail(self) -> str:
        return self.fault.detail if self.fault else ""

    @property
    def label(self) -> str | None:
        """That of the newest version that was, or could have been, injected."""
        newest = self.minted.newest or self.own.newest
        return newest.label if newest is not None else None

    @property
    def usable_own(self) -> Secret | PemSecret | None:
        """What tokens are to be made of now."""
        if self.own_fault is not None or self.own.newest is None:
            return None
        return self.heir.newest if self.heir_of == self.own.newest.label else self.own.newest

    def needles(self) -> Iterator[bytes]:
        """All forms of all secrets that this credential has, and had lately, but for the persons' tokens."""
        for series in (self.own, self.minted, self.heir):
            yield from series.needles()

    def marks(self) -> Iterator[object]:
        """What changes whenever ``needles`` does."""
        for series in (self.own, self.minted, self.heir):
            yield (series.version, len(series.kept))
            yield from (id(kept.secret) for kept in series.kept)
            yield from (id(kept.needles) for kept in series.kept)

    def tokens(self) -> Iterator[Kept]:
        """The tokens of persons that are used, and were lately."""
        yield from self.past
        yield from (person.kept for person in self.people.values())

    def now_of(self, credential: Credential) -> Entry:
        """The same secrets under the rules of now: what leaves with them can have other forms."""
        before = self.credential
        moved = replace(self, credential=credential)
        if (before.inject, before.username) == (credential.inject, credential.username):
            return moved
        spell = partial(needles, credential)
        return replace(
            moved,
            own=self.own.respelled(spell),
            minted=self.minted.respelled(spell),
            heir=self.heir.respelled(spell),
        )

    def gone(self, now: float) -> Entry:
        """Taken out of the rules: nothing of it is used, all of it is looked for in answers for a day."""
        past = (*self.past, *(person.kept.retired(now) for person in self.people.values()))
        return replace(
            self,
            own=self.own.ended(now),
            minted=self.minted.ended(now),
            heir=self.heir.ended(now),
            people=NOBODY,
            past=_bounded(past, now, unused),
        )

    def pruned(self, now: float, in_use: InUse = unused) -> Entry:
        """Without versions that have been out of use for long."""
        return replace(
            self,
            own=self.own.pruned(now, in_use),
            minted=self.minted.pruned(now, in_use),
            heir=self.heir.pruned(now, in_use),
            past=current(self.past, now, in_use),
        )


def fresh(credential: Credential, *, exchanged: bool) -> Entry:
    """A credential of which nothing is known yet. ``exchanged``: its secret is not what is injected."""
    own = f"{credential.id}.source" if exchanged else credential.id
    name = credential.id
    return Entry(
        credential=credential, own=Series(own), minted=Series(name), heir=Series(f"{name}.refresh_token")
    )


def secret_of(credential: Credential, text: str, label: str) -> Secret | PemSecret:
    """The guarded form of a source's text.

    Raises:
        ConfigError: it cannot be one; sources have looked at it before.
    """
    return PemSecret(text, label=label) if credential.inject == "mtls" else Secret(text, label=label)


def same_source(one: Credential, other: Credential) -> bool:
    """Whether both are fetched from one place and read in one way."""
    return origin(one) == origin(other)


def origin(credential: Credential) -> tuple[object, ...]:
    """Where and how its secret is read. Compare only."""
    return (
        credential.source_kind,
        credential.source,
        credential.argv,
        tuple(sorted(credential.source_options.items())),
        credential.inject if credential.inject in ("mtls", "aws_sigv4") else "",
    )


def watched(entry: Entry, environ: Mapping[str, str], now: float, in_use: InUse = unused) -> Entry:
    """With what its environment variable or file holds now."""
    credential = entry.credential
    # Before reading: if the file is exchanged in between, the next look sees it as changed.
    state = fingerprint(credential, environ)
    if entry.own_fault is None and entry.own.newest is not None and state == entry.state:
        return entry
    value = read_source(credential, environ)
    if isinstance(value, Unavailable):
        return replace(entry, state=state, own_fault=value)
    return replace(_with_own(entry, value, now, None, in_use), state=state)


def fetched(entry: Entry, slot: Slot | None, now: float, in_use: InUse = unused) -> Entry:
    """With what was fetched last, if that may still be used."""
    name = entry.credential.id
    if slot is None or slot.origin != origin(entry.credential):
        known = entry.own.newest is not None and entry.own_fault is None
        return entry if known else replace(entry, own_fault=unread(entry.credential))
    if slot.value is not None and slot.arrival is not entry.own_arrival:
        entry = _with_own(entry, slot.value.value, now, slot.good_until, in_use)
        entry = replace(entry, own_arrival=slot.arrival)
    return replace(entry, own_fault=None if slot.usable(now) else stale(name, slot))


def unread(credential: Credential) -> Unavailable:
    """Nothing is known of its source yet."""
    return Unavailable(credential.id, "its secret has not been fetched yet", "Wait a moment.", coming=True)


def stale(name: str, slot: Slot) -> Unavailable:
    """Why what a slot has, if it has anything, is not used."""
    if slot.fault is None:
        first = slot.value is None
        what = "its secret has not been fetched yet" if first else "its secret has expired"
        return Unavailable(name, what, "Wait a moment.", coming=first)
    return slot.fault


def _with_own(entry: Entry, text: str, now: float, ends: float | None, in_use: InUse) -> Entry:
    try:
        secret = secret_of(entry.credential, text, entry.own.next_label())
    except ConfigError as error:
        return replace(entry, own_fault=Unavailable(entry.credential.id, error.message, error.hint))
    finally:
        del text
    own = entry.own.added(secret, partial(needles, entry.credential), now, ends, in_use)
    return replace(entry, own=own, own_fault=None)


def rendered(entry: Entry, secret: Secret | PemSecret | None, *, again: bool) -> Entry:
    """With the injection made of ``secret``; a template that cannot make one is a fault."""
    if entry.own_fault is not None:
        return replace(entry, injection=None, fault=entry.own_fault)
    if entry.injection is not None and not again:
        return replace(entry, fault=None)
    try:
        injection = prepared(entry.credential, secret)
    except ConfigError as error:
        fault = Unavailable(entry.credential.id, error.message, error.hint)
        return replace(entry, injection=None, fault=fault)
    return replace(entry, injection=injection, fault=None)


def minted(entry: Entry, slot: Slot | None, now: float, in_use: InUse = unused) -> Entry:
    """With the access token that was made last of its secret, if that may still be used."""
    name, before = entry.credential.id, entry.minted
    if entry.own_fault is not None:
        return replace(entry, injection=None, fault=entry.own_fault)
    if slot is not None and slot.value is not None and slot.arrival is not entry.minted_arrival:
        try:
            token = Secret(slot.value.value, label=entry.minted.next_label())
        except ConfigError as error:
            return replace(entry, injection=None, fault=Unavailable(name, error.message, error.hint))
        more = entry.minted.added(token, partial(needles, entry.credential), now, slot.good_until, in_use)
        entry = _with_heir(replace(entry, minted=more, minted_arrival=slot.arrival), slot, now, in_use)
    if slot is None or not slot.usable(now):
        waits = Unavailable(name, "its access token has not been fetched yet", "Wait a moment.", coming=True)
        return replace(entry, injection=None, fault=stale(name, slot) if slot is not None else waits)
    return rendered(entry, entry.minted.newest, again=entry.minted != before)


def _with_heir(entry: Entry, slot: Slot, now: float, in_use: InUse) -> Entry:
    """The refresh token that came with an access token is used from now on, until the source changes."""
    if slot.value is None or slot.value.successor is None or entry.own.newest is None:
        return entry
    try:
        heir = Secret(slot.value.successor, label=entry.heir.next_label())
    except ConfigError:
        return entry
    return replace(
        entry,
        heir=entry.heir.added(heir, partial(needles, entry.credential), now, None, in_use),
        heir_of=slot.begun_with,  # of that, whatever the source holds by now
    )


def with_people(entry: Entry, slots: Mapping[Place, Slot], now: float, in_use: InUse = unused) -> Entry:
    """With the tokens of the persons who have a slot; the others' are used no more."""
    name = entry.credential.id
    people: dict[str, Person] = {}
    past, version = list(entry.past), entry.minted.version
    for (credential_id, key), slot in slots.items():
        if credential_id != name or key in (OWN, MINTED) or slot.value is None:
            continue
        known = entry.people.get(key)
        if known is not None and known.arrival is slot.arrival:
            people[key] = known
            continue
        person = _person(entry.credential, slot, f"{name}@v{version + 1}")
        if person is not None:
            version += 1
            people[key] = person
    for key, known in entry.people.items():
        if people.get(key) is not known:
            past.append(known.kept.retired(now))
    return replace(
        entry,
        people=people if people != entry.people else entry.people,
        past=_bounded(past, now, in_use),
        minted=replace(entry.minted, version=version),
        injection=None,
        fault=entry.own_fault,
    )


def _person(credential: Credential, slot: Slot, label: str) -> Person | None:
    if slot.value is None:
        return None
    try:
        token = Secret(slot.value.value, label=label)
        injection = prepared(credential, token)
    except ConfigError:
        return None
    kept = Kept(token, needles(credential, token), ends=slot.good_until)
    return Person(slot.arrival, kept, injection)


def _bounded(past: Sequence[Kept], now: float, in_use: InUse) -> tuple[Kept, ...]:
    return bounded(past, MAX_PEOPLE, now, in_use)[-MAX_PAST:]
