"""Refresh tokens that an authorization server has exchanged, kept across restarts.

With rotation (OAuth 2.1 section 4.3.1) the token in the source is good for one use: what came in its place
is written to ``HOME/oauth/ID.json``, 0600 in a 0700 folder, before anything is done with it; at rest it is
what it would be in a file source. It holds as long as the source's own value is the one that the chain began
with: an operator who stores another one there begins a new chain.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

_MAX_BYTES = 64 * 1024
_unwritten: dict[Path, tuple[str, str, tuple[str, ...]]] = {}
"""Where the newest token of a chain could not be written: its origin, the token's digest, what was spent.

Who asks with that token goes on with that chain. Else the next one to be written would begin another, and a
restart would try the source's own value, which is spent.
"""
_SPENT = 16
"""Tokens of a chain that are known to be spent. Whoever missed more answers than that begins a new one."""


@dataclass(frozen=True, slots=True)
class Kept:
    """``origin`` is the SHA-256 of the source's value with which the chain began.

    ``spent`` are those of the tokens before this one, newest last: whoever missed the answer in which one was
    exchanged still asks with it.
    """

    origin: str
    token: str = field(repr=False)
    spent: tuple[str, ...] = ()

    def followed_by(self, token: str) -> Kept:
        """The chain with the token that came in the place of this one."""
        return Kept(self.origin, token, (*self.spent, digest(self.token))[-_SPENT:])


def digest(token: str) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(token.encode("utf-8")).hexdigest()


def place(folder: Path, credential_id: str) -> Path:
    """Where the token of a credential is kept. Ids hold letters, digits, dots and hyphens only."""
    return folder / f"{credential_id}.json"


def read(path: Path) -> Kept | None:
    """What is kept, None if there is nothing that can be read: then the source's own value is tried."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    origin, token, spent = found.get("origin"), found.get("refresh_token"), found.get("spent", [])
    if not isinstance(origin, str) or not isinstance(token, str) or not token:
        return None
    return Kept(origin, token, tuple(map(str, spent)) if isinstance(spent, list) else ())


def current(path: Path | None, given: str) -> Kept:
    """The token to use where the store gives ``given``: the source's value, or one that came after it."""
    if path in _unwritten:
        begun, newest, spent = _unwritten[path]
        if newest == digest(given):
            return Kept(begun, given, spent)
    found = read(path) if path is not None else None
    if found is not None and digest(given) in (found.origin, digest(found.token), *found.spent):
        return found
    return Kept(digest(given), given)


def write(path: Path, kept: Kept) -> None:
    """Durable and atomic: the file holds the old token or the new one.

    Raises:
        OSError: it could not be written. This process knows the chain none the less.
    """
    _unwritten[path] = kept.origin, digest(kept.token), kept.spent
    _write(path, kept)
    del _unwritten[path]


def _write(path: Path, kept: Kept) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        held = {"origin": kept.origin, "refresh_token": kept.token, "spent": kept.spent}
        file.write(json.dumps(held).encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
