"""A command that prints the secret: no shell, few variables, bounded time and output, killed with its group.

What it says on stderr is not looked at: tools print there what they should not.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard

from callerid.config import Credential
from callerid.credentials.sources.base import MAX_BYTES, Fetched, Flight, Unavailable, sound, text_of

PASSED: Final = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_RUNTIME_DIR", "CREDENTIALS_DIRECTORY")
"""The variables that a command gets, where we have them. Secrets in others are not its business."""

_STEP: Final = 0.25
_FIRST_LOOK: Final = 0.001


@dataclass(frozen=True, slots=True)
class Command:
    """A source of kind ``exec``. stdout is the secret, or JSON with ``value`` and perhaps more.

    Args:
        credential: its ``argv`` is run as it stands.
        environ: ours.
    """

    credential: Credential
    environ: Mapping[str, str]

    def fetch(self, flight: Flight) -> Fetched | Unavailable:
        """Run it once."""
        name = f"the command {self.credential.argv[0] if self.credential.argv else ''}".strip()
        try:
            process = subprocess.Popen(
                list(self.credential.argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={variable: self.environ[variable] for variable in PASSED if variable in self.environ},
                start_new_session=True,
            )
        except (OSError, ValueError, IndexError) as error:
            what = getattr(error, "strerror", None) or "it is not a command"
            hint = "Write its path and arguments as a list."
            if isinstance(error, PermissionError):
                hint = "Make it executable for the user that callerid runs as: chmod +x."
            return Unavailable(self.credential.id, f"{name} cannot be run: {what}", hint)
        flight.on_timeout(lambda: kill(process))
        with process:
            try:
                return self._read(name, process, flight)
            finally:
                kill(process)

    def _read(self, name: str, process: subprocess.Popen[bytes], flight: Flight) -> Fetched | Unavailable:
        data = _output(process, flight)
        if data is None:
            return Unavailable(
                self.credential.id,
                f"{name} did not end within {self.credential.timeout} s",
                "Run it by hand as the same user; raise `timeout` if it needs longer.",
            )
        if len(data) > MAX_BYTES:
            return Unavailable(
                self.credential.id,
                f"{name} printed more than {MAX_BYTES} bytes",
                "It must print the secret and nothing else.",
            )
        if process.returncode != 0:
            ended = (
                f"status {process.returncode}" if process.returncode > 0 else f"signal {-process.returncode}"
            )
            return Unavailable(
                self.credential.id,
                f"{name} ended with {ended}",
                "Run it by hand as the same user; it gets no more than PATH, HOME and the like.",
            )
        return parsed(self.credential, f"the output of {name}", data, flight.wall)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End it with all of its process group, also what outlives it. Its id is not another's: it is not reaped.

    What begins a session of its own (``setsid``, a daemon) has left the group, and goes on.
    """
    if process.returncode is None:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


def _ended(process: subprocess.Popen[bytes], flight: Flight) -> bool:
    """Wait for its end, and leave it to be reaped; False if time was up."""
    pause = _FIRST_LOOK
    while not flight.late():
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return True
        time.sleep(min(pause, flight.left()))
        pause = min(2 * pause, _STEP)
    return False


def _output(process: subprocess.Popen[bytes], flight: Flight) -> bytes | None:
    """What it printed until it ended, cut a byte after what is allowed; None if time was up."""
    if process.stdout is None:
        return None
    parts, size = [], 0
    descriptor = process.stdout.fileno()
    ready = select.poll()  # not select(): the proxy has more than 1024 descriptors
    ready.register(descriptor, select.POLLIN | select.POLLHUP)
    while size <= MAX_BYTES:
        if flight.late():
            return None
        if not ready.poll(1000 * min(_STEP, flight.left())):
            continue
        part = os.read(descriptor, MAX_BYTES + 1 - size)
        if not part:
            break
        parts.append(part)
        size += len(part)
    if size <= MAX_BYTES:
        if not _ended(process, flight):
            return None
        kill(process)  # what it left behind, and then it may be reaped
        process.wait()
    return None if flight.over else b"".join(parts)


def parsed(credential: Credential, name: str, data: bytes, wall: float) -> Fetched | Unavailable:
    """The secret in an output: all of it, or ``value`` of a JSON object with that member.

    Further members: ``expires_at`` (seconds since the epoch, or ISO 8601 with a zone), ``expires_in``
    (seconds), ``version``. For ``aws_sigv4`` the object may be the secret itself.
    """
    if not data.lstrip().startswith(b"{"):
        text = text_of(credential, name, data)
        return text if isinstance(text, Unavailable) else Fetched(text)
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        return Unavailable(credential.id, f"{name} is not sound JSON", "Print the secret, or a JSON object.")
    if "value" not in said and credential.inject == "aws_sigv4":
        value: Any = json.dumps(said)
    else:
        value = said.get("value")
    if not isinstance(value, str):
        return Unavailable(
            credential.id,
            f'{name} is JSON without a text "value"',
            'Print {"value": "..."} or the secret alone.',
        )
    text = sound(credential, name, value)
    if isinstance(text, Unavailable):
        return text
    ends = expiry(said, wall)
    if isinstance(ends, str):
        return Unavailable(credential.id, f"{name} has {ends}", "Mend what it prints.")
    if ends is not None and ends <= wall:
        return Unavailable(credential.id, f"{name} has expired already", "Check the clock and the command.")
    version = said.get("version")
    return Fetched(text, ends, str(version)[:64] if isinstance(version, str | int) else None)


def expiry(said: Mapping[str, Any], wall: float) -> float | str | None:
    """When it ends, in seconds since the epoch; None if it does not say; a text says what is wrong."""
    at, within = said.get("expires_at"), said.get("expires_in")
    if at is None and within is None:
        return None
    if at is None:
        return wall + float(within) if _is_number(within) else 'an "expires_in" that is no number of seconds'
    if _is_number(at):
        return float(at)
    try:
        when = datetime.fromisoformat(at)
    except (TypeError, ValueError):
        return 'an "expires_at" that is no time'
    return when.astimezone(UTC).timestamp() if when.tzinfo else 'an "expires_at" without a time zone'


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
