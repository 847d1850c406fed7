"""Secrets that are read at once: a file, a systemd credential, an environment variable.

Files follow what systemd credentials, Docker and Kubernetes secrets do: one secret per file, perhaps
behind a symlink that is swapped. See docs of each for the mount; the mode must be for the owner alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Final

from callerid.config import Credential
from callerid.credentials.sources.base import MAX_BYTES, Unavailable, sound, text_of

DIRECTORY: Final = "CREDENTIALS_DIRECTORY"
"""The variable in which systemd names the folder of a service's credentials (systemd.exec(5))."""

type Fingerprint = tuple[int, ...]
"""What tells one state of a file from the next. Opaque: compare only."""


def is_watched(credential: Credential) -> bool:
    """Whether its source is cheap to look at twice a second."""
    return credential.source_kind in ("env", "file", "systemd")


def read_source(credential: Credential, environ: Mapping[str, str]) -> str | Unavailable:
    """The secret's text as its source holds it now, less one trailing newline for a file. Total.

    Whatever could not stand in a header or could not be scrubbed again is refused here, with a detail
    and a hint that a person can act on.
    """
    if credential.source_kind == "env":
        text = environ.get(credential.source)
        if text is None:
            return Unavailable(
                credential.id,
                f"the environment variable {credential.source} is not set",
                "Set it in the environment of callerid, or use a file as the source.",
            )
        return sound(credential, f"the environment variable {credential.source}", text)
    path = _path(credential, environ)
    if isinstance(path, Unavailable):
        return path
    name = f"the file {path}"
    data = read_private(credential.id, path, within=_systemd(credential, environ))
    return data if isinstance(data, Unavailable) else text_of(credential, name, data)


def fingerprint(credential: Credential, environ: Mapping[str, str]) -> Fingerprint | None:
    """The state of a file source, symlinks followed; None if there is no file to see.

    An environment variable cannot change under a running process: its fingerprint is constant.
    """
    if credential.source_kind == "env":
        return ()
    path = _path(credential, environ)
    if isinstance(path, Unavailable):
        return None
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return None
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_mode)


def _path(credential: Credential, environ: Mapping[str, str]) -> str | Unavailable:
    """Where the file is. A systemd credential is a name in the folder of this service, never a path."""
    if credential.source_kind != "systemd":
        return credential.source
    folder, name = environ.get(DIRECTORY), credential.source
    if not folder:
        return Unavailable(
            credential.id,
            f"systemd gave this process no credentials ({DIRECTORY} is not set)",
            f"Add LoadCredential={name}:/path/of/the/secret to the unit, or use a file as the source.",
        )
    if not name or "/" in name or name in (".", ".."):
        return Unavailable(
            credential.id, f"{name!r} is not the name of a systemd credential", "Write its name, not a path."
        )
    return os.path.join(folder, name)


def _systemd(credential: Credential, environ: Mapping[str, str]) -> str | None:
    return environ.get(DIRECTORY) if credential.source_kind == "systemd" else None


def read_private(credential_id: str, path: str, *, within: str | None = None) -> bytes | Unavailable:
    """The bytes of a file that only we may read.

    ``within`` is systemd's folder for this service, if the file is in it: systemd shows files in there as
    0440 where the unit has ``User=`` (an ACL names the user), and the folder keeps everybody else out.
    """
    name = f"the file {path}"
    try:
        # Not blocking: a FIFO in the place of the file must not hang the proxy.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            return Unavailable(
                credential_id, f"{name} does not exist", "Create it, or mend the path in credentials.yaml."
            )
        what = getattr(error, "strerror", None) or "the path is not valid"
        return Unavailable(
            credential_id, f"{name} cannot be opened: {what}", "Check its owner, its mode and its folder."
        )
    try:
        info = os.fstat(descriptor)
        fault = _file_fault(credential_id, name, path, info, guarded=within is not None and _closed(within))
        return fault if fault else _read_all(descriptor)
    except OSError as error:
        what = error.strerror or "it is gone"
        return Unavailable(credential_id, f"{name} cannot be read: {what}", "Check the disk or the mount.")
    finally:
        os.close(descriptor)


def _closed(folder: str) -> bool:
    """Whether a folder is root's or ours, and nobody of the others can write into it or pass through it."""
    try:
        info = os.stat(folder)
    except (OSError, ValueError):
        return False
    owned = info.st_uid in (0, os.geteuid())
    return stat.S_ISDIR(info.st_mode) and owned and not stat.S_IMODE(info.st_mode) & 0o027


def _file_fault(
    credential_id: str, name: str, path: str, info: os.stat_result, *, guarded: bool
) -> Unavailable | None:
    if not stat.S_ISREG(info.st_mode):
        return Unavailable(credential_id, f"{name} is not a regular file", "Name a file with one secret.")
    mode = stat.S_IMODE(info.st_mode)
    # A file of root's that our group may read is how systemd and Kubernetes hand a secret to a service.
    group = 0o040 if guarded or (info.st_uid == 0 and os.geteuid() != 0) else 0
    if mode & 0o077 & ~group:
        return Unavailable(
            credential_id,
            f"{name} is open to others than its owner (mode {mode:04o})",
            f"Run: chmod 600 {path} (in Kubernetes: defaultMode: 0400).",
        )
    if info.st_size > MAX_BYTES:
        return Unavailable(
            credential_id,
            f"{name} is too large ({info.st_size} bytes, at most {MAX_BYTES})",
            "Name a file that holds the secret and nothing else.",
        )
    return None


def _read_all(descriptor: int) -> bytes:
    parts: list[bytes] = []
    left = MAX_BYTES + 1
    while left > 0 and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
