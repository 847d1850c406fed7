"""Hosts, URLs, paths and durations as rule files write them: one spelling, or a refusal that says which."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, urlsplit

DEFAULT_PORTS: Mapping[str, int] = {"http": 80, "https": 443}
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)\Z")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_DEVIATIONS = re.compile("[\u00df\u03c2\u200c\u200d]")
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+\Z")
OWN_HOST = "callerid.internal"
"""The proxy's own address for its callers: answered by callerid itself, never dialled."""


class BadPlace(ValueError):
    """A host or URL that cannot be taken as written. ``hint`` has the right spelling, if there is one."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Url:
    """An http(s) URL in its one spelling. ``host`` is lower-case ASCII, IPv6 without brackets."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def seconds(duration: str) -> int:
    """``30s 10m 1h 30d`` in seconds; the shape has been checked by the model."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def host_name(text: str) -> str:
    """``text`` lower-case, IDNA (2003, as in Python), without a trailing dot; IP addresses canonical.

    Raises:
        BadPlace: it is not one exact host: a wildcard, a port, an odd spelling of an address.
    """
    bare = text.removesuffix(".")
    if "*" in bare:
        raise BadPlace("a host is exact here, wildcards are not supported", "List the hosts one by one.")
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
    try:
        return ipaddress.ip_address(bare).compressed
    except ValueError:
        pass
    if _DEVIATIONS.search(bare):
        raise BadPlace("this host name reads differently in different IDNA versions", "Write its xn-- form.")
    try:
        name = bare.lower() if bare.isascii() else bare.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise BadPlace("this is not a host name") from None
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.match(label) for label in labels):
        raise BadPlace("this is not a host name", "Write HOST, without scheme, path or spaces.")
    if _NUMERIC.match(labels[-1]):
        raise BadPlace("this is not a host name and not a dotted IPv4 address", "Write it as 192.0.2.1.")
    return name


def host_and_port(text: str, default: int = 443) -> tuple[str, int]:
    """``HOST`` or ``HOST:PORT`` (IPv6 in brackets when a port follows).

    Raises:
        BadPlace: it is neither.
    """
    if "/" in text or "@" in text:
        raise BadPlace("this should be HOST or HOST:PORT", "Write it without scheme, user and path.")
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text.partition("]")
        host, port = f"{host}]", rest.removeprefix(":")
        if rest and not rest.startswith(":"):
            raise BadPlace("this should be HOST or HOST:PORT")
    elif text.count(":") == 1:
        host, port = text.split(":")
        if not port:
            raise BadPlace("the port is empty", f"Write {host}.")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536 and len(port) < 6):
        raise BadPlace("the port is not a number from 1 to 65535")
    return host_name(host), int(port) if port else default


def server_url(text: str) -> Url:
    """An http(s) URL in its one spelling.

    Raises:
        BadPlace: userinfo, query, fragment, another scheme, or a path that is not canonical.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise BadPlace("this is not a URL", "Write https://HOST/PATH.") from None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise BadPlace("this is not an http or https URL", "Write https://HOST/PATH.")
    if "@" in parts.netloc:
        raise BadPlace("a URL with a user or a password in it is refused", "Secrets go to credentials.yaml.")
    host = host_name(f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "")
    if port == 0 or parts.netloc.endswith(":"):
        raise BadPlace("the port is empty or zero")
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    url = Url(scheme, host, port or DEFAULT_PORTS[scheme], _path(parts))
    if "?" in text or "#" in text:
        raise BadPlace("a URL with a query or a fragment is refused", f"Write {url}.")
    if url.path != (parts.path or "/"):
        raise BadPlace("the path is not in its one spelling", f"Write {url}.")
    return url


def _path(parts: SplitResult) -> str:
    """The canonical spelling of the path (RFC 3986 section 6.2.2).

    Raises:
        BadPlace: there is none, since servers would read it differently.
    """
    path = parts.path or "/"
    if any(not "!" <= c <= "~" for c in path) or "\\" in path or ";" in path:
        raise BadPlace("the path has a character in it that servers read differently")
    if path.count("%") != len(_ESCAPE.findall(path)):
        raise BadPlace("the path has a broken % escape in it")
    if re.search(r"%(?:2f|5c|00|25)", path, re.IGNORECASE):
        raise BadPlace("the path has an encoded slash, backslash, percent sign or NUL in it")
    plain = _ESCAPE.sub(_unescape, path)
    kept: list[str] = []
    segments = plain.split("/")[1:]
    for segment in segments:
        if segment == "..":
            kept = kept[:-1]
        elif segment not in (".", ""):
            kept.append(segment)
    tail = "/" if kept and segments[-1] in ("", ".", "..") else ""
    return "/" + "/".join(kept) + tail


def _unescape(match: re.Match[str]) -> str:
    char = chr(int(match[1], 16))
    return char if char in _UNRESERVED else match[0].upper()


def is_pointer(text: str) -> bool:
    """True for a JSON pointer (RFC 6901) that points into something."""
    return _POINTER.match(text) is not None


def secure_fault(text: str, *, query: bool = False) -> str:
    """What is wrong with the address of something that is trusted; empty if nothing is.

    It must be https, except on this machine: who can change the answers could hand out keys and tokens of
    his own. ``query``: it may have one, as token endpoints may (RFC 6749 section 3.2).
    """
    try:
        url = server_url(text.partition("#")[0].partition("?")[0] if query else text)
    except BadPlace as fault:
        return fault.message
    if "#" in text or (url.scheme != "https" and not is_loopback(url.host)):
        return "this must be https and without a fragment"
    return ""


def is_loopback(host: str) -> bool:
    """True for localhost and loopback addresses."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def overlaps(one: str, other: str) -> bool:
    """True if one path is the other or lies above it: a request could belong to both."""
    a, b = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return a.startswith(b) or b.startswith(a)


def path_glob_fault(glob: str) -> str:
    """What is wrong with a path glob of a binding; empty if nothing is."""
    if not glob.startswith("/"):
        return "a path begins with /"
    if "**" in glob.removesuffix("/**"):
        return "** is only known as /** at the end"
    if "?" in glob or "#" in glob or "//" in glob or any(s in (".", "..") for s in glob.split("/")):
        return "the path is not in its one spelling: no query, fragment, empty or dot segment"
    return ""


def path_covered(glob: str, path: str) -> bool:
    """True if the glob of a binding covers ``path``: ``*`` within a segment, ``/**`` at the end any depth."""
    wanted, actual = glob.split("/"), path.split("/")
    deep = wanted[-1] == "**"
    if deep:
        wanted.pop()
    if len(actual) < len(wanted) or (len(actual) > len(wanted) and not deep):
        return False
    return all(_segment(pattern, text) for pattern, text in zip(wanted, actual, strict=False))


def path_reached(glob: str, prefix: str) -> bool:
    """True if the glob of a binding covers some path at or below ``prefix``."""
    wanted, above = glob.split("/"), prefix.rstrip("/").split("/")
    deep = wanted[-1] == "**"
    if deep:
        wanted.pop()
    if len(wanted) < len(above) and not deep:
        return False
    return all(_segment(pattern, text) for pattern, text in zip(wanted, above, strict=False))


def _segment(pattern: str, text: str) -> bool:
    expression = "".join(".*" if c == "*" else re.escape(c) for c in pattern)
    return re.fullmatch(expression, text, re.DOTALL) is not None
