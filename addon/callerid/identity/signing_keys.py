"""HOME/assertion.key: the keys that sign what servers are told about callers, and how they are renewed.

A text file of PEM parts (RFC 7468: what stands between them is for explanation), the newest key first, with
the name of this deployment and the time from which each key signs:

    Issuer: urn:uuid:0b0f4c1e-...
    Signs-From: 2026-11-24T09:00:00Z
    (the private key, PKCS 8)

A key signs until the next newer one begins. From then on its public part stays listed for ``LISTED`` seconds,
longer than any assertion lives, and its private part is dropped at the next renewal. The file is replaced as
a whole, under a lock: a process that dies leaves the old one.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from callerid.errors import ConfigError, StoreError
from callerid.home import private_file

FILE = "assertion.key"
"""Its name in HOME."""
LISTED = 3600
"""Seconds for which a key is listed after its last signature."""
SEED_BYTES = 32
CHANCE_BYTES = SEED_BYTES + 16
"""For a first key, and for the name of the deployment."""
MAX_FILE = 64 * 1024
MAX_LEAD = 30 * 86_400
"""Seconds; a new key is to sign some day."""

_RESTORE = (
    "Restore it from a backup, or move it away and run `callerid init`: servers then need the new issuer."
)
_BEGIN, _END = "-----BEGIN ", "-----END "
_PRIVATE, _PUBLIC = "PRIVATE KEY-----", "PUBLIC KEY-----"


@dataclass(frozen=True, slots=True)
class Unusable:
    """There is nothing to sign with, and what to do about it."""

    detail: str
    hint: str


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key of ours. ``kid`` is its thumbprint (RFC 7638), ``signs_from`` seconds since the epoch.

    ``private`` is None once it has signed its last.
    """

    kid: str
    public: bytes
    signs_from: int
    private: Ed25519PrivateKey | None = field(default=None, repr=False, compare=False)

    def jwk(self) -> dict[str, str]:
        """The public part (RFC 8037 section 2)."""
        return {**_bare_jwk(self.public), "kid": self.kid, "use": "sig", "alg": "EdDSA"}


@dataclass(frozen=True, slots=True)
class Signer:
    """The key in force, and in whose name it signs."""

    issuer: str
    kid: str
    private: Ed25519PrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys of this deployment, the newest first. ``issuer`` is its name: ``urn:uuid:...``."""

    issuer: str
    keys: tuple[SigningKey, ...]

    def signer(self, now: int) -> Signer | Unusable:
        """The key that signs at ``now`` (seconds): the newest that has begun.

        If none has, the clock went back, and the oldest signs.
        """
        able = [key for key in self.keys if key.private is not None]
        begun = [key for key in able if key.signs_from <= now]
        key = begun[0] if begun else able[-1] if able else None
        if key is None or key.private is None:
            return Unusable("the assertion key file holds no private key", _RESTORE)
        return Signer(self.issuer, key.kid, key.private)

    def listed(self, now: int) -> tuple[SigningKey, ...]:
        """The keys to verify with at ``now``: those that sign, will sign, or signed within ``LISTED``."""
        ends = [None, *(key.signs_from for key in self.keys[:-1])]
        return tuple(
            key for key, end in zip(self.keys, ends, strict=True) if end is None or end + LISTED > now
        )

    def jwks(self, now: int) -> dict[str, Any]:
        """The JWK Set (RFC 7517 section 5) at ``now``: public parts only."""
        return {"keys": [key.jwk() for key in self.listed(now)]}

    def renewed(self, now: int, seed: bytes, *, lead: int = 0, drop_old: bool = False) -> KeyRing:
        """With a new key, that signs from ``now + lead``; a key that was to begin later is given up.

        Args:
            now: seconds since the epoch.
            seed: 32 random bytes.
            lead: seconds for which the new key is listed before it signs.
            drop_old: the old keys are no longer listed: one was stolen.
        """
        new = _key(Ed25519PrivateKey.from_private_bytes(seed), now + lead)
        if drop_old:
            return KeyRing(self.issuer, (new,))
        signer = self.signer(now)
        kids = [key.kid for key in self.keys]
        begun = self.keys if isinstance(signer, Unusable) else self.keys[kids.index(signer.kid) :]
        # Where the clock went back, they may begin later than the one that follows them.
        before = tuple(replace(key, signs_from=min(key.signs_from, new.signs_from)) for key in begun)
        kept = KeyRing(self.issuer, (new, *before)).listed(now)
        able = 1 if lead <= 0 else 2  # of the old ones, only the newest signs until the new one begins
        return KeyRing(
            self.issuer,
            tuple(key if at < able else replace(key, private=None) for at, key in enumerate(kept)),
        )


class SigningKeys:
    """The file as the running proxy sees it. What cannot be read signs nothing (law 3)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None
        self._found: KeyRing | Unusable = Unusable("the assertion key was not read yet", "")

    def make(self, now: int, chance: bytes) -> str | None:
        """As ``ensure``, then ``refresh``. A file that can be read but not made or mended is good enough."""
        try:
            ensure(self.path, now=now, chance=chance)
        except StoreError as error:
            return self.refresh() and f"{error} {error.hint}"
        return self.refresh()

    def refresh(self) -> str | None:
        """Read the file if it changed. What is wrong with it now, told once; None where that is nothing."""
        stamp = _stamp(self.path)  # before the reading: a change in between is then seen as a change
        if stamp is not None and stamp == self._stamp:
            return None
        before, self._found, self._stamp = self._found, read(self.path), stamp
        found = self._found
        return f"{found.detail}. {found.hint}" if isinstance(found, Unusable) and found != before else None

    def signer(self, now: int) -> Signer | Unusable:
        """Who signs at ``now``, in seconds since the epoch."""
        return self._found if isinstance(self._found, Unusable) else self._found.signer(now)

    def jwks(self, now: int) -> dict[str, Any]:
        """The public keys at ``now``; an empty set while the file cannot be used."""
        return {"keys": []} if isinstance(self._found, Unusable) else self._found.jwks(now)


def read(path: Path) -> KeyRing | Unusable:
    """The keys in the file, or why there are none. Total; nothing of the file is quoted."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return Unusable(f"{path} is not a file", _RESTORE)
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        return Unusable(f"there is no {path}", "Run `callerid init` to make it, or restore it from a backup.")
    except OSError as error:
        return Unusable(f"{path} cannot be read: {error.strerror or error}", "Check its owner and mode.")
    try:
        return _parse(data) if len(data) <= MAX_FILE else Unusable(f"{path} is too large", _RESTORE)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return Unusable(f"{path} does not hold the assertion keys of callerid", _RESTORE)


def ensure(path: Path, *, now: int, chance: bytes) -> KeyRing | Unusable:
    """The keys, after making the first one if there is no file. ``chance`` is CHANCE_BYTES random ones.

    Raises:
        StoreError: the file cannot be made, or its mode cannot be set.
    """
    if not path.exists():
        with _locked(path):
            if not path.exists():
                issuer = uuid.UUID(bytes=chance[SEED_BYTES:], version=4).urn
                key = _key(Ed25519PrivateKey.from_private_bytes(chance[:SEED_BYTES]), now)
                _write(path, KeyRing(issuer, (key,)))
    private_file(path)
    return read(path)


def rotate(path: Path, *, now: int, seed: bytes, lead: int = 0, drop_old: bool = False) -> KeyRing:
    """Add a new key to the file. Arguments as ``KeyRing.renewed``.

    Raises:
        ConfigError: ``lead`` is out of bounds.
        StoreError: the file cannot be read or written; it is as it was.
    """
    if not 0 <= lead <= MAX_LEAD:
        raise ConfigError(
            "the lead is out of bounds", hint="At most 30d; without it the new key signs at once."
        )
    with _locked(path):
        found = read(path)
        if isinstance(found, Unusable):
            raise StoreError(found.detail, hint=found.hint)
        made = found.renewed(now, seed, lead=lead, drop_old=drop_old)
        _write(path, made)
    return made


def _parse(data: bytes) -> KeyRing:
    """The keys in the text. Raises ValueError and its kin for anything else."""
    lines = iter(data.decode("ascii").splitlines())
    issuer, keys = "", []
    signs_from: int | None = None
    for line in lines:
        name, _, value = line.partition(": ")
        if line.startswith(_BEGIN):
            if signs_from is None or line.removeprefix(_BEGIN) not in (_PRIVATE, _PUBLIC):
                raise ValueError("a part that is not ours")
            keys.append(_read_part(line, lines, signs_from))
            signs_from = None
        elif name == "Issuer" and not issuer:
            issuer = uuid.UUID(value).urn
        elif name == "Signs-From" and signs_from is None:
            signs_from = int(datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
        elif line:
            raise ValueError("a line that is not ours")
    begins = [key.signs_from for key in keys]
    if not issuer or not keys or begins != sorted(begins, reverse=True):
        raise ValueError("no issuer, no key, or keys out of order")
    return KeyRing(issuer, tuple(keys))


def _read_part(first: str, rest: Iterator[str], signs_from: int) -> SigningKey:
    part = [first]
    for line in rest:
        part.append(line)
        if line.startswith(_END):
            break
    pem = "\n".join((*part, "")).encode("ascii")
    if first.endswith(_PUBLIC):
        public = serialization.load_pem_public_key(pem)
        if not isinstance(public, Ed25519PublicKey):
            raise TypeError("another kind of key")
        raw = public.public_bytes_raw()
        return SigningKey(_thumbprint(raw), raw, signs_from)
    private = serialization.load_pem_private_key(pem, None)
    if not isinstance(private, Ed25519PrivateKey):
        raise TypeError("another kind of key")
    return _key(private, signs_from)


def _key(private: Ed25519PrivateKey, signs_from: int) -> SigningKey:
    raw = private.public_key().public_bytes_raw()
    return SigningKey(_thumbprint(raw), raw, signs_from, private)


def _bare_jwk(public: bytes) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": base64.urlsafe_b64encode(public).rstrip(b"=").decode()}


def _thumbprint(public: bytes) -> str:
    """RFC 7638 section 3: SHA-256 of the required members, sorted, without a space."""
    text = json.dumps(_bare_jwk(public), sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _render(ring: KeyRing) -> bytes:
    parts = [f"Issuer: {ring.issuer}\n".encode()]
    for key in ring.keys:
        parts.append(
            f"Signs-From: {datetime.fromtimestamp(key.signs_from, UTC):%Y-%m-%dT%H:%M:%SZ}\n".encode()
        )
        if key.private is not None:
            parts.append(
                key.private.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
        else:
            parts.append(
                Ed25519PublicKey.from_public_bytes(key.public).public_bytes(
                    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
                )
            )
    return b"".join(parts)


def _write(path: Path, ring: KeyRing) -> None:
    """Put the file in its place as a whole, 0600 from its first byte, durable before it is seen."""
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.unlink(missing_ok=True)  # left by one who died: its mode and owner are not to be trusted
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(beside, flags, 0o600), "wb") as file:
            file.write(_render(ring))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}",
            hint="Check the owner, the mode and the free space of the folder around it.",
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone with the file: two who renew it at once would lose a key that signs already.

    The lock is on the folder, which stays, and is the kernel's: it ends with the process.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(
            f"{path.parent} cannot be opened: {error.strerror or error}",
            hint="Run `callerid init` first, or name the right place with --home DIR.",
        ) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
        with suppress(OSError):
            os.fsync(folder)
    finally:
        os.close(folder)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_mtime_ns, info.st_ino, info.st_size
