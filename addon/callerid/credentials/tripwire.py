"""The raw shared key in a caller's hands: found in what callers send, by keyed digest and by needle.

A caller should know nothing of a shared credential: one that holds it is past identity, rules and audit as
soon as it is past the proxy. So each request is looked at, with two nets. Values that are credentials by
their place are taken apart (Basic of RFC 7617, cookies, query) and compared by HMAC-SHA256; and the whole is
searched for the forms that the scrubber knows, so that another place or encoding is no way around the first.

Nothing here keeps a value of a caller. What goes into a finding is a fingerprint: the first half of the
HMAC under a key of this deployment, so that equal keys are equal in the audit and nobody can test guesses.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote, unquote_plus

from callerid.config import Credential
from callerid.credentials.scrub import Scrubber
from callerid.credentials.secret import MIN_LENGTH, PemSecret, Secret
from callerid.errors import StoreError
from callerid.home import private_file

KEY_BYTES: Final = 32
DIGITS: Final = 32
"""Hexadecimal digits of a fingerprint: 128 bit."""
MAX_VALUES: Final = 64
"""Values of one request that are digested. Those beyond are still searched for needles."""
MAX_VALUE: Final = 8192
"""Characters of a value that is digested; no header that carries a shared secret is longer."""
_MAX_NAME: Final = 128
_OURS: Final = "cid_"

type Action = Literal["deny", "alert", "replace"]
type Held = tuple[Credential, Secret | PemSecret, tuple[bytes, ...]]
"""A credential, one of its secrets (live or before it), and the forms in which that is searched for."""

_AUTHORIZATION, _COOKIE, _VALUE, _OTHER = range(4)
_NAMES: Final = frozenset({"token", "key", "apikey", "secret", "password", "auth"})
_ENDS: Final = ("-token", "-key", "apikey", "-secret", "-auth", "-password", "-authorization", "-credential")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: ``header`` is its name as written, ``pair`` the number of a query's pair.

    With neither it stands where nothing can be taken out: in the path or the body.
    """

    text: str
    header: str | None = None
    pair: int | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A shared secret in a request. ``label`` is ``ID@vN``."""

    label: str
    action: Action
    fingerprint: str
    place: Place


@dataclass(frozen=True, slots=True)
class Noticed:
    """What the tripwire says of one request. ``strip`` and ``path`` are what ``replace`` leaves of it."""

    hits: tuple[Hit, ...] = ()
    refused: str = ""
    strip: tuple[str, ...] = ()
    path: str | None = None


NOTHING: Final = Noticed()


@dataclass(frozen=True, slots=True)
class _Known:
    """One secret as the tripwire knows it: by digest, and by needles that are compiled when needed."""

    label: str
    action: Action
    fingerprint: str
    needles: tuple[bytes, ...] = field(repr=False)


class Tripwire:
    """Over all secrets of a moment. Immutable; may be used from any thread.

    Args:
        key: of this deployment, secret; 32 bytes.
        held: the secrets to look for.
        scrubber: searches for all of them, and perhaps for more.
    """

    __slots__ = ("_by_digest", "_key", "_known", "_scrubber", "_single")

    def __init__(self, key: bytes, held: Iterable[Held], scrubber: Scrubber) -> None:
        self._key = key
        self._scrubber = scrubber
        self._known: list[_Known] = []
        self._by_digest: dict[bytes, _Known] = {}
        self._single: dict[str, Scrubber] = {}
        for credential, secret, needles in held:
            digest = secret.digest(key)
            known = _Known(secret.label, credential.tripwire, digest.hex()[:DIGITS], needles)
            self._known.append(known)
            self._by_digest[digest] = known
            if isinstance(secret, Secret) and credential.inject in ("bearer", "header"):
                self._by_digest[secret.within(credential.template).digest(key)] = known

    def look(self, headers: Sequence[tuple[str, str]], path: str) -> Noticed:
        """What of a request's head is a shared secret, and what to do about it. Total on any text."""
        if not self._known:
            return NOTHING
        hits = [*self._digested(headers, path), *self._searched(headers, path)]
        return self._judged(hits, headers, path) if hits else NOTHING

    def in_body(self, body: bytes) -> Hit | None:
        """The shared secret in a request's body, if there is one. Nothing can be taken out of a body."""
        if not self._known or not self._scrubber.holds(body):
            return None
        place = Place("in the body")
        return next((self._hit(known, place) for known in self._known if self._holds(known, body)), None)

    def _digested(self, headers: Sequence[tuple[str, str]], path: str) -> Iterator[Hit]:
        for number, (value, place) in enumerate(candidates(headers, path)):
            if number >= MAX_VALUES:
                return
            known = self._by_digest.get(_digest(self._key, value))
            if known is not None:
                yield self._hit(known, place)

    def _searched(self, headers: Sequence[tuple[str, str]], path: str) -> Iterator[Hit]:
        parts = [path, unquote(path)] if "%" in path else [path]
        for name, value in headers:
            parts += (name, value)
        whole = _bytes("\n".join(parts))
        if not self._scrubber.holds(whole):
            return
        for known in self._known:
            places = list(self._places(known, headers, path))
            if not places and self._holds(known, whole):
                places = [Place("in the URL")]  # across the border of two pairs, say
            for place in places:
                yield self._hit(known, place)

    def _places(self, known: _Known, headers: Sequence[tuple[str, str]], path: str) -> Iterator[Place]:
        for name, value in headers:
            if self._holds(known, _bytes(f"{name}\n{value}")):
                yield _in_header(name)
        for number, pair in enumerate(_pairs(path)):
            if self._holds(known, _bytes(f"{pair}\n{unquote(pair)}")):
                yield Place("in the query", pair=number)
        bare = path.partition("?")[0]
        if self._holds(known, _bytes(f"{bare}\n{unquote(bare)}")):
            yield Place("in the path")

    def _judged(self, hits: list[Hit], headers: Sequence[tuple[str, str]], path: str) -> Noticed:
        found = tuple({(hit.label, hit.place.text, hit.place.pair): hit for hit in hits}.values())
        refused = next((hit for hit in found if hit.action == "deny"), None)
        if refused is not None:
            return Noticed(found, _sentence(refused))
        replaced = [hit for hit in found if hit.action == "replace"]
        if not replaced:
            return Noticed(found)
        fixed = next((hit for hit in replaced if hit.place.header is None and hit.place.pair is None), None)
        if fixed is not None:
            return Noticed(found, f"{_sentence(fixed)}, where it cannot be replaced")
        names = {hit.place.header for hit in replaced if hit.place.header is not None}
        strip = tuple(dict.fromkeys(name for name, _ in headers if name in names))
        left = _without(path, {hit.place.pair for hit in replaced})
        return Noticed(found, strip=strip, path=left if left != path else None)

    def _holds(self, known: _Known, data: bytes) -> bool:
        scrubber = self._single.get(known.label)
        if scrubber is None:
            scrubber = self._single[known.label] = Scrubber(known.needles)
        return scrubber.holds(data)

    def _hit(self, known: _Known, place: Place) -> Hit:
        return Hit(known.label, known.action, known.fingerprint, place)

    def __repr__(self) -> str:
        return f"<tripwire over {len(self._known)} secrets>"


def deployment_key(path: Path, fresh: bytes) -> bytes:
    """The key of this deployment: what ``path`` holds, or ``fresh`` if there is no such file yet.

    It is made beside its place and linked there, so that of two processes that begin at once both have one.

    Raises:
        StoreError: it cannot be read or made, or does not hold KEY_BYTES bytes.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        if not path.exists():
            draft.unlink(missing_ok=True)
            private_file(draft)
            draft.write_bytes(fresh)
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink()
        private_file(path)
        key = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"{path} cannot be used: {error.strerror or error}",
            hint="Check the owner and the mode of the file and of HOME.",
        ) from error
    if len(key) != KEY_BYTES:
        raise StoreError(
            f"{path} does not hold the {KEY_BYTES} bytes of a key",
            hint="Put it back from a copy, or move it away: fingerprints of keys then begin anew.",
        )
    return key


def refusal(noticed: Noticed, in_body: Hit | None) -> str:
    """Why a request may not go on for the shared keys in its head and its body; empty if it may."""
    if noticed.refused or in_body is None or in_body.action == "alert":
        return noticed.refused
    return _sentence(in_body) + ("" if in_body.action == "deny" else ", where it cannot be replaced")


def fingerprint(key: bytes, value: str) -> str:
    """What stands for a value that is not kept."""
    return _digest(key, value).hex()[:DIGITS]


def candidates(headers: Sequence[tuple[str, str]], path: str) -> Iterator[tuple[str, Place]]:
    """The values of a request's head that could be credentials by their place, taken apart.

    Authorization after its scheme, both halves of Basic, headers named like credentials, each
    cookie, each value of the query from MIN_LENGTH characters on.
    """
    for name, value in headers:
        kind = _kind(name) if len(name) <= _MAX_NAME else _OTHER
        if kind == _OTHER or not MIN_LENGTH <= len(value) <= MAX_VALUE:
            continue
        place = _in_header(name)
        if kind == _COOKIE:
            for text in _cookies(value):
                yield text, place
        else:
            for text in parts(value):
                yield text, place
    if "?" in path:
        for number, pair in enumerate(_pairs(path)):
            text = pair.partition("=")[2]
            if MIN_LENGTH <= len(text) <= MAX_VALUE:
                place = Place("in the query", pair=number)
                yield unquote(text), place
                if "+" in text:
                    yield unquote_plus(text), place


def parts(value: str) -> Iterator[str]:
    """The credentials in the value of a header: what stands after its scheme, or all of it, and both halves
    of Basic. A token of callerid is none."""
    scheme, _, rest = value.strip().partition(" ")
    text = rest.strip() or scheme
    if text.startswith(_OURS):
        return
    if rest and scheme.lower() == "basic":
        name, _, password = _basic(text).partition(":")
        for half in (password, name):
            if len(half) >= MIN_LENGTH and not half.startswith(_OURS):
                yield half
    yield text


@lru_cache(maxsize=4096)
def _kind(name: str) -> int:
    plain = name.strip().lower().replace("_", "-")
    if plain in ("authorization", "proxy-authorization"):
        return _AUTHORIZATION
    if plain == "cookie":
        return _COOKIE
    return _VALUE if plain in _NAMES or plain.endswith(_ENDS) else _OTHER


def _cookies(value: str) -> Iterator[str]:
    for pair in value.split(";"):
        text = pair.partition("=")[2].strip().strip('"')
        if len(text) >= MIN_LENGTH:
            yield text
            if "%" in text:
                yield unquote(text)


def _basic(text: str) -> str:
    """The user-pass of a Basic value (RFC 7617 section 2), whatever alphabet and padding it has."""
    whole = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(whole + "=" * (-len(whole) % 4))
    except ValueError:
        return ""
    return data.decode("utf-8", "replace")


def _pairs(path: str) -> list[str]:
    query = path.partition("?")[2]
    return query.split("&") if query else []


def _without(path: str, numbers: set[int | None]) -> str:
    kept = [pair for number, pair in enumerate(_pairs(path)) if number not in numbers]
    return path.partition("?")[0] + ("?" + "&".join(kept) if kept else "")


def _in_header(name: str) -> Place:
    shown = name[:_MAX_NAME]
    return Place(f"in the header {shown}", header=name)


def _sentence(hit: Hit) -> str:
    return f"the raw credential {hit.label} stands {hit.place.text}"


def _digest(key: bytes, value: str) -> bytes:
    return hmac.digest(key, value.encode("utf-8", "surrogatepass"), "sha256")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
