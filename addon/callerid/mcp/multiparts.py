"""The heads of the parts of a multipart body: only such as every server reads alike.

A part may name a field that some framework takes for the method of the request, and readers differ in how
they find that name: where a line is folded, at a bare CR, in RFC 2231's pieces, behind a percent sign. A
body with such a head is refused; no client of an API writes one (RFC 7578 sections 4.2 and 5.1).
"""

from __future__ import annotations

import string
from typing import Final

_CONTROLS: Final = frozenset(range(0x20)) - frozenset(b"\t\r\n") | {0x7F}
_BOUNDARY: Final = frozenset(string.ascii_letters + string.digits + "'()+_,-./:=? ")
"""RFC 2046 section 5.1.1."""
_MAX_BOUNDARY: Final = 70


def flaw(content_type: str, body: bytes) -> str:
    """What in the heads of the parts is not read alike everywhere; empty if nothing is."""
    boundary = _boundary(content_type)
    if not boundary:
        return "the Content-Type does not name one boundary of its parts"
    for part in (b"\n" + body).split(b"\n--" + boundary.encode("ascii"))[1:]:
        found = _flaw_of_head(part)
        if found:
            return f"a part of the body {found}"
    return ""


def _boundary(content_type: str) -> str:
    """The boundary; empty if there is none, or more than one, or none that all readers find."""
    named = [
        value.strip(" \t")
        for name, mark, value in (piece.partition("=") for piece in content_type.split(";")[1:])
        if mark and name.strip(" \t").lower().startswith("boundary")
    ]
    if len(named) != 1 or "boundary*" in content_type.lower():
        return ""
    value = named[0]
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    good = 0 < len(value) <= _MAX_BOUNDARY and _BOUNDARY.issuperset(value) and not value.endswith(" ")
    return value if good else ""


def _flaw_of_head(part: bytes) -> str:
    """``part`` begins right behind its boundary."""
    head = part.partition(b"\r\n\r\n")[0]
    plain = head.removesuffix(b"\r").replace(b"\r\n", b"")  # before the next boundary there is an LF as well
    if b"\r" in plain or b"\n" in plain:
        return "has a bare CR or LF in its head"
    if any(byte in _CONTROLS for byte in plain):
        return "has a control character in its head"
    lines = head.lower().split(b"\r\n")[1:]
    if any(line[:1] in (b" ", b"\t") for line in lines):
        return "has a folded line in its head"
    for line in lines:
        if line.startswith(b"content-disposition"):
            for name, value in _parameters(line):
                if name.startswith("name*") or (name == "name" and b"%" in value):
                    return "has a name that is encoded"
    return ""


def _parameters(line: bytes) -> list[tuple[str, bytes]]:
    """The parameters of a header, in whatever quotes: each ends where a semicolon or another name begins."""
    found = []
    for piece in line.split(b";")[1:]:
        name, _, value = piece.partition(b"=")
        found.append((name.translate(None, b" \t\"'").decode("latin-1"), value))
    return found
