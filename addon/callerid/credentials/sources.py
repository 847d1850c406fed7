"""Where a secret is read from: a file or an environment variable. A fault is a value, never an exception.

Files follow what systemd credentials, Docker and Kubernetes secrets do: one secret per file, perhaps
behind a symlink that is swapped. See docs of each for the mount; the mode must be for the owner alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from callerid.config import Credential
from callerid.credentials.secret import MIN_LENGTH, is_printable_ascii

MAX_FILE_BYTES: Final = 64 * 1024
MAX_LENGTH: Final = 8192
"""Characters. HTTP servers refuse longer header lines (commonly 8 KiB)."""

type Fingerprint = tuple[int, ...]
"""What tells one state of a file from the next. Opaque: compare only."""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A credential that cannot be used now: what is wrong and what to do, without any part of a value."""

    credential_id: str
    detail: str
    hint: str = ""


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
        return _sound(credential, f"the environment variable {credential.source}", text)
    data = _read_file(credential)
    if isinstance(data, Unavailable):
        return data
    name = f"the file {credential.source}"
    if data.endswith(b"\n"):
        data = data[:-2] if data.endswith(b"\r\n") else data[:-1]
    text = _decoded(data)
    if text is None:
        return Unavailable(
            credential.id, f"{name} is not UTF-8 text", "Store the secret as plain text, one line."
        )
    return _sound(credential, name, text)


def fingerprint(credential: Credential) -> Fingerprint | None:
    """The state of a file source, symlinks followed; None if there is no file to see.

    An environment variable cannot change under a running process: its fingerprint is constant.
    """
    if credential.source_kind == "env":
        return ()
    try:
        info = os.stat(credential.source)
    except (OSError, ValueError):
        return None
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_mode)


def _read_file(credential: Credential) -> bytes | Unavailable:
    path, name = credential.source, f"the file {credential.source}"
    try:
        # Not blocking: a FIFO in the place of the file must not hang the proxy.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            return Unavailable(
                credential.id, f"{name} does not exist", "Create it, or mend the path in credentials.yaml."
            )
        what = getattr(error, "strerror", None) or "the path is not valid"
        return Unavailable(
            credential.id, f"{name} cannot be opened: {what}", "Check its owner, its mode and its folder."
        )
    try:
        info = os.fstat(descriptor)
        fault = _file_fault(credential.id, name, path, info)
        return fault if fault else _read_all(descriptor)
    except OSError as error:
        what = error.strerror or "it is gone"
        return Unavailable(credential.id, f"{name} cannot be read: {what}", "Check the disk or the mount.")
    finally:
        os.close(descriptor)


def _file_fault(credential_id: str, name: str, path: str, info: os.stat_result) -> Unavailable | None:
    if not stat.S_ISREG(info.st_mode):
        return Unavailable(credential_id, f"{name} is not a regular file", "Name a file with one secret.")
    mode = stat.S_IMODE(info.st_mode)
    # A file of root's that our group may read is how systemd and Kubernetes hand a secret to a service.
    group = 0o040 if info.st_uid == 0 and os.geteuid() != 0 else 0
    if mode & 0o077 & ~group:
        return Unavailable(
            credential_id,
            f"{name} is open to others than its owner (mode {mode:04o})",
            f"Run: chmod 600 {path} (in Kubernetes: defaultMode: 0400).",
        )
    if info.st_size > MAX_FILE_BYTES:
        return Unavailable(
            credential_id,
            f"{name} is too large ({info.st_size} bytes, at most {MAX_FILE_BYTES})",
            "Name a file that holds the secret and nothing else.",
        )
    return None


def _read_all(descriptor: int) -> bytes:
    parts: list[bytes] = []
    left = MAX_FILE_BYTES + 1
    while left > 0 and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _sound(credential: Credential, name: str, text: str) -> str | Unavailable:
    """``text`` if it can be a Secret; the checks are in the order in which a person would look."""
    detail, hint = "", "Store the secret and nothing else, on one line."
    if not text:
        detail, hint = f"{name} is empty", "Store the secret in it."
    elif any(c < " " or "\x7f" <= c < "\xa0" for c in text):
        detail = f"{name} holds a line break or another control character"
    elif not is_printable_ascii(text):
        detail, hint = f"{name} holds a character that is not ASCII", "A header can carry ASCII only."
    elif text != text.strip(" "):
        detail = f"{name} begins or ends with a space"
    elif len(text) < MIN_LENGTH:
        detail = f"{name} holds a secret of fewer than {MIN_LENGTH} characters"
        hint = "Use a longer secret: a short one cannot be kept out of answers without cutting honest text."
    elif len(text) > MAX_LENGTH:
        detail = f"{name} holds a secret that is too large for a header (at most {MAX_LENGTH} characters)"
    return Unavailable(credential.id, detail, hint) if detail else text
