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


@dataclass(frozen=True, slots=True)
class Kept:
    """``origin`` is the SHA-256 of the source's value with which the chain began."""

    origin: str
    token: str = field(repr=False)


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
    origin, token = found.get("origin"), found.get("refresh_token")
    return Kept(origin, token) if isinstance(origin, str) and isinstance(token, str) and token else None


def current(path: Path | None, given: str) -> Kept:
    """The token to use where the store gives ``given``: the source's value, or one that came after it."""
    found = read(path) if path is not None else None
    if found is not None and digest(given) in (found.origin, digest(found.token)):
        return found
    return Kept(digest(given), given)


def write(path: Path, kept: Kept) -> None:
    """Durable and atomic: the file holds the old token or the new one.

    Raises:
        OSError: it could not be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(json.dumps({"origin": kept.origin, "refresh_token": kept.token}).encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
