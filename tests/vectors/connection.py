"""What arrived on one connection, cut into requests in every way that some server has.

By the length that a head names, by its chunks, to the end, and wherever a request line stands: a request
inside another one's body (request smuggling) is a request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_REQUEST_LINE = re.compile(rb"([A-Za-z]{3,10}) ([^ \r\n]+) HTTP/\d\.\d\r?\n")

type Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One way to cut a request out of a connection. ``hidden``: it stands inside another one's body."""

    start: int
    method: str
    target: str
    headers: Headers
    bodies: tuple[tuple[str, bytes], ...]
    hidden: bool

    @property
    def body(self) -> bytes:
        """The body by its own framing, as the server behind us reads it."""
        return self.bodies[_framing(self.headers)[0] is None][1]

    def values(self, name: str) -> list[str]:
        """All values of the header ``name`` (lower-case)."""
        return [value for header, value in self.headers if header == name]


def requests(raw: bytes) -> list[Request]:
    """Every request that somebody may cut out of what arrived on one connection."""
    told = _told(raw)
    return [_request(raw, found, found.start() not in told) for found in _REQUEST_LINE.finditer(raw)]


def complete(raw: bytes, start: int) -> tuple[Request, int] | None:
    """The request at ``start`` and where it ends by its own framing; None while it has not all arrived."""
    found = _REQUEST_LINE.match(raw, start)
    if found is None or b"\r\n\r\n" not in raw[start:]:
        return None
    request = _request(raw, found, False)
    end = _end(raw, found)
    return (
        None
        if end > len(raw) or (_framing(request.headers)[1] and b"0\r\n\r\n" not in raw[start:])
        else (
            request,
            end,
        )
    )


def _told(raw: bytes) -> set[int]:
    """Where requests begin if each one's own framing is believed, as the server behind us does."""
    starts: set[int] = set()
    at = 0
    while (found := _REQUEST_LINE.match(raw, at)) is not None:
        starts.add(at)
        at = _end(raw, found)
    return starts


def _end(raw: bytes, found: re.Match[bytes]) -> int:
    head, body = _split(raw, found.end())
    length, chunked = _framing(_headers(head))
    begin = len(raw) - len(body)
    return begin + (len(body) - len(_dechunked(body)[1]) if chunked and length is None else length or 0)


def _split(raw: bytes, start: int) -> tuple[bytes, bytes]:
    """Head and the rest. ``start`` is behind the request line, whose own end may belong to the empty line."""
    ends = [(at, len(mark)) for mark in (b"\r\n\r\n", b"\n\n") if (at := raw.find(mark, start - 2)) >= 0]
    if not ends:
        return raw[start:], b""
    at, size = min(ends)
    return raw[start:at], raw[at + size :]


def _headers(head: bytes) -> Headers:
    lines = head.decode("latin-1").replace("\r\n", "\n").split("\n")
    parted = (line.partition(":") for line in lines if line)
    return tuple((name.strip().lower(), value.strip()) for name, _, value in parted)


def _framing(headers: Headers) -> tuple[int | None, bool]:
    lengths = [int(value) for name, value in headers if name == "content-length" and value.isdigit()]
    chunked = any("chunked" in value.lower() for name, value in headers if name == "transfer-encoding")
    return lengths[0] if lengths else None, chunked


def _dechunked(body: bytes) -> tuple[bytes, bytes]:
    """A chunked body and what is behind it, as far as it can be read."""
    made = b""
    while True:
        line, _, rest = body.partition(b"\n")
        try:
            size = int(line.split(b";")[0].strip() or b"x", 16)
        except ValueError:
            return made, body
        if not size:
            return made, rest.partition(b"\n")[2]
        made += rest[:size]
        body = rest[size:].lstrip(b"\r\n")


def _request(raw: bytes, found: re.Match[bytes], hidden: bool) -> Request:
    head, rest = _split(raw, found.end())
    headers = _headers(head)
    length, _ = _framing(headers)
    bodies = (
        ("by its length", rest[:length] if length is not None else b""),
        ("by its chunks", _dechunked(rest)[0]),
        ("to the end", rest),
    )
    method, target = found[1].decode("latin-1"), found[2].decode("latin-1")
    return Request(found.start(), method, target, headers, bodies, hidden)
