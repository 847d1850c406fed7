"""Where a secret may go (DESIGN section 1, law 5). Pure; anything odd is *not bound*.

The destination is judged as it is really dialled, never by what a header says. Only one reading of a host
or a path may exist: text that two servers could read differently does not get a secret.
"""

from __future__ import annotations

import string
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from callerid.config import Binding

_USUAL: Final = 256
_HOST: Final = frozenset(string.ascii_lowercase + string.digits + "-_.:")
_UNRESERVED: Final = frozenset(string.ascii_letters + string.digits + "-._~")
_NEVER_ENCODED: Final = _UNRESERVED | frozenset("/\\%?#;")
_NEVER_PLAIN: Final = frozenset("\\?#;")


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One upstream request as dialled.

    ``host`` is the name that was connected to and that the certificate was verified for, ``path`` the
    request's path without its query, ``method`` as it will be sent. ``tls_verified`` is True only if this
    very connection is TLS and its certificate was verified for ``host``.
    """

    scheme: str
    host: str
    port: int
    path: str
    method: str
    tls_verified: bool


def is_bound(binding: Binding, destination: Destination) -> bool:
    """True if the secret bound so may be written into a request to ``destination``. Total.

    https over a verified connection; host and port as listed, after lower-casing ASCII; a canonical path
    that one of the globs matches; a listed method, as HTTP compares methods (case matters, RFC 9110 9.1).
    An empty list in the binding is nowhere.
    """
    if destination.scheme != "https" or destination.tls_verified is not True:
        return False
    host = _host(destination.host)
    if host is None or type(destination.port) is not int or not isinstance(destination.path, str):
        return False
    place = (binding, host, destination.port, destination.path, destination.method)
    usual = len(destination.path) <= _USUAL and len(destination.method) <= _USUAL
    # Callers must not choose how much is remembered.
    return _covers(*place) if usual else _covers.__wrapped__(*place)


def is_place_bound(binding: Binding, host: str, port: int) -> bool:
    """True if some request to this host and port may carry the secret. Total; for what a connection shows."""
    return (_host(host), port) in {(_host(name), listed) for name, listed in binding.hosts if _host(name)}


@lru_cache(maxsize=4096)
def _covers(binding: Binding, host: str, port: int, path: str, method: str) -> bool:
    if (host, port) not in {(_host(name), listed) for name, listed in binding.hosts}:
        return False
    if method not in binding.methods or not is_canonical(path):
        return False
    return any(matches(glob, path) for glob in binding.paths)


def is_canonical(path: str) -> bool:
    """True if no two servers read ``path`` differently (RFC 3986 section 6.2.2).

    Refused: no leading slash, empty and dot segments, backslash, query, fragment, path parameters,
    anything but visible ASCII; percent-encoded unreserved characters, separators, percent signs and
    control characters; encodings that are not UTF-8 or that Unicode normalisation (NFKC) would change.
    """
    if not isinstance(path, str) or not path.startswith("/") or "//" in path:
        return False
    if any(not "!" <= c <= "~" or c in _NEVER_PLAIN for c in path):
        return False
    if any(segment in (".", "..") for segment in path.split("/")):
        return False
    for escape in path.split("%")[1:]:
        digits = escape[:2]
        if len(digits) != 2 or not all(c in string.hexdigits for c in digits):
            return False
        if chr(int(digits, 16)) in _NEVER_ENCODED:
            return False
    try:
        text = unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return text.isprintable() and unicodedata.is_normalized("NFKC", text)


def matches(glob: str, path: str) -> bool:
    """Whether the glob of a binding covers ``path``. ``path`` must be canonical.

    ``*`` is any run of characters within one segment. ``/**`` at the end is everything below and the
    folder itself: ``/mcp/**`` covers ``/mcp``, ``/mcp/`` and ``/mcp/a/b``, never ``/mcpx``. Elsewhere
    ``**`` means nothing and covers nothing. No other character is special.
    """
    wanted, actual = glob.split("/"), path.split("/")
    deep = wanted[-1] == "**"
    if deep:
        wanted.pop()
    if any("**" in segment for segment in wanted) or not glob.startswith("/"):
        return False
    if len(actual) < len(wanted) or (len(actual) > len(wanted) and not deep):
        return False
    return all(_segment(pattern, text) for pattern, text in zip(wanted, actual, strict=False))


def _segment(pattern: str, text: str) -> bool:
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == text
    last = rest.pop()
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for part in rest:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def _host(host: str) -> str | None:
    """Lower-case, or None if odd. ASCII first: lower-casing some Unicode letters gives ASCII ones."""
    if not isinstance(host, str) or not host or not host.isascii():
        return None
    lowered = host.lower()
    return lowered if set(lowered) <= _HOST and not lowered.endswith(".") else None
