"""What a source gives, and the bounds that hold while it is asked. A fault is a value, never an exception."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Final, Protocol

from callerid.config import Credential
from callerid.credentials.secret import MIN_LENGTH, is_printable_ascii, pem_fault

MAX_BYTES: Final = 64 * 1024
MAX_LENGTH: Final = 8192
"""Characters. HTTP servers refuse longer header lines (commonly 8 KiB)."""
_SHORTEST_WAIT: Final = 0.05


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A credential that cannot be used now: what is wrong and what to do, without any part of a value.

    ``coming``: nothing is wrong with it, its first fetch is under way or about to begin.
    """

    credential_id: str
    detail: str
    hint: str = ""
    coming: bool = False


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a source holds now.

    ``expires_at`` is in seconds since the epoch, UTC; None where no end is known. ``version`` is the
    source's own word for it. ``good_until`` is when it is good no more, where it is not to be used that long.
    ``successor`` is the refresh token to use from now on, where an authorization
    server has exchanged it (RFC 6749 section 6).
    """

    value: str = field(repr=False)
    expires_at: float | None = None
    version: str | None = None
    successor: str | None = field(default=None, repr=False)
    good_until: float | None = None


class Flight:
    """One fetch under way: how long it may last, and how to end it from outside.

    Args:
        timeout: seconds.
        steady: a clock that never jumps, in seconds.
        wall: seconds since the epoch at its start, UTC.
        anew: what is in hand is doubted, so renewing it is not enough.
    """

    __slots__ = ("_ends", "_lock", "_steady", "_until", "anew", "over", "wall")

    def __init__(
        self, timeout: float, steady: Callable[[], float], wall: float, *, anew: bool = False
    ) -> None:
        self._steady = steady
        self._until = steady() + timeout
        self._lock = Lock()
        self._ends: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self.anew = anew
        self.over = False
        self.wall = wall

    def left(self) -> float:
        """Seconds until the timeout; never nothing at all, for a timeout of 0 means none to some."""
        return max(_SHORTEST_WAIT, self._until - self._steady())

    def late(self) -> bool:
        """Whether its time is up."""
        return self.over or self._steady() >= self._until

    def on_timeout(self, end: Callable[[], None], close: Callable[[], None] = lambda: None) -> None:
        """Call ``end`` when time is up, from another thread; ``close`` when the fetch has ended, always."""
        with self._lock:
            self._ends.append((end, close))
            late = self.over
        if late:
            end()

    def expire(self) -> None:
        """Time is up: end what blocks. Safe to call twice; called by whoever watches, not by the fetch."""
        with self._lock:
            self.over = True
            ends = tuple(self._ends)
        for end, _ in ends:
            with suppress(OSError, ValueError):
                end()

    def landed(self) -> None:
        """The fetch has ended: let go of what was held to end it."""
        with self._lock:
            ends, self._ends = tuple(self._ends), []
        for _, close in ends:
            with suppress(OSError, ValueError):
                close()


class Source(Protocol):
    """Where a secret is fetched from. ``fetch`` blocks; one thread calls it at a time.

    It keeps to ``flight.left()``, or says by ``flight.on_timeout`` how it can be ended. An exception counts
    as a failure of which only the type is shown.
    """

    def fetch(self, flight: Flight) -> Fetched | Unavailable: ...


def sound(credential: Credential, name: str, text: str) -> str | Unavailable:
    """``text`` if a secret can be made of it for this credential; ``name`` says where it was found.

    The checks are in the order in which a person would look. For ``mtls`` it must be a certificate chain
    and its key in PEM; for all else one line that a header can carry.
    """
    if text and credential.inject == "mtls":
        fault = pem_fault(text)
        hint = "Store the certificate chain and its unencrypted private key in one PEM."
        return Unavailable(credential.id, f"{name} {fault}", hint) if fault else text
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


def text_of(credential: Credential, name: str, data: bytes) -> str | Unavailable:
    """The bytes of a file or of a command's output as a sound text, less one newline at the end."""
    if data.endswith(b"\n") and credential.inject != "mtls":
        data = data[:-2] if data.endswith(b"\r\n") else data[:-1]
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    if text is None:
        return Unavailable(
            credential.id, f"{name} is not UTF-8 text", "Store the secret as plain text, one line."
        )
    return sound(credential, name, text)
