"""Needles read loosely: in whatever escapes, and however wrapped, an honest server shows a secret.

Escapers are many (HTML by name and by number, URL, JSON, scripts; one in another of its kind) and each leaves
another set of characters alone, so no list of forms is whole. Instead escapes are undone on both sides until
none is left, blanks and backslashes are left out, and what remains is compared: the *plain* form. NUL bytes
count as blanks, so that ASCII in UTF-16 and UTF-32 reads as ASCII. What is too short then, or begins or ends
with what is left out, is still found byte for byte (``needles``).

Linear: a match is no longer than ``Loose.longest`` bytes, a gap in it no longer than ``_MAX_GAP`` with one
line break at most, so that a blank line, as at the end of an event, ends the waiting of a stream.
"""

from __future__ import annotations

import html.entities
import string
from bisect import bisect_left
from collections.abc import Collection, Iterable
from typing import Any, Final

import re2  # type: ignore[import-untyped]

from callerid.credentials.secret import MIN_LENGTH

_HEAD: Final = 4
"""Characters of the plain form that are looked for first."""
_MANY: Final = 512
"""Beginnings; with more, letters and digits in them are looked for as themselves and in one piece."""
_LONG_HEAD: Final = 6
_MAX_GAP: Final = 40
_MAX_TOKEN: Final = 40
_BEFORE_BREAK: Final = 2
"""Characters of a match before it may go over a line break: else each line ending like one would wait."""
_TAIL: Final = _LONG_HEAD * (_MAX_TOKEN + _MAX_GAP) + _MAX_TOKEN
"""Bytes: no beginning that is not yet recognised is longer."""


def _options() -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    return options


_BLANK: Final = b"\x00 \t\r\n\\"
_HEX: Final = frozenset(string.hexdigits.encode())
_PLAIN: Final = frozenset((string.ascii_letters + string.digits).encode())
_NAMES: Final = {
    name.removesuffix(";"): text
    for name, text in html.entities.html5.items()
    if name.endswith(";") and text.isascii() and len(text) == 1
}
_TOKEN: Final = (
    r"%(?:25){0,4}([0-9A-Fa-f]{2})"
    r"|\\{1,16}(?:u([0-9A-Fa-f]{4})|u\{0{0,4}([0-9A-Fa-f]{2})\}|x([0-9A-Fa-f]{2})|([nrt]))"
    r"|&(?:amp;){0,3}(?:#0{0,5}([0-9]{1,3})|#[Xx]0{0,5}([0-9A-Fa-f]{1,2})|("
    + "|".join(sorted(_NAMES))
    + "));"
)
_CUT: Final = (
    r"%(?:25){0,4}[0-9A-Fa-f]?\z"
    r"|\\{1,16}(?:u[0-9A-Fa-f]{0,3}|u\{[0-9A-Fa-f]{0,6}|x[0-9A-Fa-f]?)?\z"
    r"|&(?:(?:amp;){0,3}(?:#?[0-9A-Za-z]{0,16})?)\z"
)
_BLANK_BUT_ESCAPES: Final = b"\x00 \t\r\n"
_NEAR: Final = 2 * _MAX_TOKEN
"""Bytes: without an escape in them, none longer can end in what follows."""
_OTHERS: Final = bytes(0 if code in b"\x00 \t\r\n\\%&" or code > 0x7F else code for code in range(256))
"""As ``bytes.translate`` has it: what does not stand for itself becomes NUL."""
_RUN_MOST: Final = 64
_BREAKS: Final = (0x0A, 0x0D)
_GAP: Final = r"[\x00 \t\r\n\\]*"
_DEEP_GAP: Final = r"(?:[\x00 \t\r\n\\]|\\[nrt])*"


_ESCAPE: Final = re2.compile(_TOKEN.encode(), _options())
_CUT_TOKEN: Final = re2.compile(_CUT.encode(), _options())


def plain(needle: bytes) -> bytes:
    """What is left of a needle when its escapes are undone. The needle is ours: printable ASCII."""
    if needle[::3] == b"%" * (len(needle) // 3) and len(needle) % 3 == 0:
        needle = bytes.fromhex(needle.translate(None, b"%").decode())
    if b"%" in needle or b"\\" in needle or b"&" in needle:
        needle = _ESCAPE.sub(lambda found: bytes((_code(found) & 0xFF,)), needle)
    return needle.translate(None, _BLANK)


class Loose:
    """The plain forms of some needles. ``longest`` is in bytes of what is searched; 0 if there is none."""

    __slots__ = ("_exact", "_firsts", "_lengths", "_ordered", "edges", "longest", "most", "of")

    def __init__(self, needles: Collection[bytes]) -> None:
        self.of: dict[bytes, tuple[bytes, ...]] = {}
        for needle in needles:
            core = plain(needle)
            # Without its first character: where a line was broken right behind that.
            self.of[needle] = tuple(form for form in (core, core[1:]) if len(form) >= MIN_LENGTH)
        self._take({form for forms in self.of.values() for form in forms})
        self._ordered = sorted(self._exact)
        firsts = {form[:1] for form in self._ordered}
        self._firsts = b"".join(firsts | {first.upper() for first in firsts}) + b"%\\&"
        self._lengths = sorted(set(map(len, self._ordered)), reverse=True)
        self.most = max(map(len, self._ordered), default=0)
        self.longest = 8 * self.most + 64 if self.most else 0

    def _take(self, forms: Iterable[bytes]) -> None:
        exact: dict[bytes, tuple[bytes, ...]] = {}
        for form in forms:
            lowered = form.lower()
            exact[lowered] = (*exact.get(lowered, ()), form)
        self._exact = exact
        self.edges = tuple(exact)

    def without(self, needles: Collection[bytes]) -> Loose:
        """Itself, but what only these read as is not found any more. Its order stays as it is."""
        gone = set(needles)
        less = object.__new__(Loose)
        less.of = {needle: forms for needle, forms in self.of.items() if needle not in gone}
        less._take({form for forms in less.of.values() for form in forms})
        less._ordered, less._firsts, less._lengths = self._ordered, self._firsts, self._lengths
        less.most, less.longest = self.most, self.longest
        return less

    def heads(self) -> bytes:
        """A pattern, to be matched in any case, that finds where one begins; empty if there is none."""
        return _pattern(*self._tree()).encode("latin-1") if self._ordered else b""

    def _tree(self) -> tuple[dict[int, Any], bool]:
        beginnings = {form[:_HEAD] for forms in self._exact.values() for form in forms}
        if many := len(beginnings) > _MANY:
            beginnings = {forms[0][:_LONG_HEAD] for forms in self.of.values() if forms}
        tree: dict[int, Any] = {}
        for beginning in sorted(beginnings):
            node = tree
            for code in beginning:
                node = node.setdefault(code, {})
        return tree, not many

    def end(self, data: bytes, begin: int) -> int | None:
        """Where the longest that begins here has ended."""
        return self._walk(data, begin)[0]

    def pending(self, data: bytes, begin: int) -> bool:
        """Whether more data could make a match of what begins here, or a longer one."""
        return self._walk(data, begin)[1]

    def pending_end(self, data: bytes, start: int) -> int:
        """The first place at or after ``start`` whose rest is pending and too short for ``heads``."""
        for at in range(max(start, _few_before_end(data)), len(data)):
            if data[at] in self._firsts and self.pending(data, at):
                return at
        return len(data)

    def _walk(self, data: bytes, begin: int) -> tuple[int | None, bool]:
        size, limit = len(data), begin + self.longest
        read = bytearray()
        ends: list[int] = []
        gap = lines = returns = 0
        at = begin
        while at < size and len(read) < self.most:
            run = data[at : at + min(_RUN_MOST, self.most - len(read))]
            if (length := run.translate(_OTHERS).find(0)) != 0:
                length = len(run) if length < 0 else length
                read += run[:length]
                ends += range(at + 1, at + 1 + length)
                at += length
                gap = lines = returns = 0
            else:
                code, at_next = _next(data, at)
                if code is None:
                    return self._longest(read, ends), at_next < 0 and self._may_grow(read)
                if code in _BLANK:
                    gap += at_next - at
                    lines += code == 0x0A
                    returns += code == 0x0D
                    early = (not read and code != 0x5C) or (code in _BREAKS and len(read) < _BEFORE_BREAK)
                    if early or gap > _MAX_GAP or lines > 1 or returns > 1:
                        break
                    at = at_next
                    continue
                gap = lines = returns = 0
                read.append(code)
                ends.append(at_next)
                at = at_next
            # At each step, so that what is read in vain is little.
            if at > limit or not self._may_grow(read):
                break
        else:
            return self._longest(read, ends), at >= size and len(read) < self.most and self._may_grow(read)
        return self._longest(read, ends), False

    def _may_grow(self, read: bytearray) -> bool:
        rest = bytes(read).lower()
        at = bisect_left(self._ordered, rest)
        if at < len(self._ordered) and self._ordered[at] == rest:
            at += 1
        return at < len(self._ordered) and self._ordered[at].startswith(rest)

    def _longest(self, read: bytearray, ends: list[int]) -> int | None:
        if len(read) < MIN_LENGTH:
            return None
        rest = bytes(read).lower()
        for length in self._lengths:
            for form in self._exact.get(rest[:length], ()):
                if length <= len(rest) and (form == read[:length] or _HEX.issuperset(form)):
                    return ends[length - 1]
        return None


def _next(data: bytes, at: int) -> tuple[int | None, int]:
    """One character, its escapes undone, and where it ends. None is none; with -1, none until more comes."""
    code = data[at]
    if code not in b"%\\&":
        return (code, at + 1) if code < 0x80 else (None, at)
    if len(data) - at <= _MAX_TOKEN and _CUT_TOKEN.match(data, at) is not None:
        return None, -1
    found = _ESCAPE.match(data, at)
    if found is None:
        return code, at + 1
    value = _code(found)
    return (value, found.end()) if value < 0x100 else (None, at)


def _few_before_end(data: bytes) -> int:
    """Where at the latest the last ``_LONG_HEAD`` characters begin, each in any escape."""
    end = len(data)
    few, begin = _LONG_HEAD, max(0, end - _TAIL)
    near = data[-_NEAR:].translate(None, _BLANK_BUT_ESCAPES)
    if len(near) >= few and not any(mark in near for mark in (b"%", b"\\", b"&")):
        while few:
            end -= 1
            few -= data[end] not in _BLANK
        return end
    if (cut := _CUT_TOKEN.search(data, max(0, end - _MAX_TOKEN))) is not None:
        end, few = cut.start(), few - 1
    escaped = [found.span() for found in _ESCAPE.finditer(data, begin) if found.end() <= end]
    while end > begin and few:
        if escaped and end == escaped[-1][1]:
            end = escaped.pop()[0]
            few -= 1
        else:
            end -= 1
            few -= data[end] not in _BLANK
    return end


def _code(found: Any) -> int:
    percent, script, braced, short, control, decimal, sixteen, name = found.groups()
    if control is not None:
        return {b"n": 0x0A, b"r": 0x0D, b"t": 0x09}[control]
    if decimal is not None:
        return int(decimal)
    if name is not None:
        return ord(_NAMES[name.decode()])
    return int(percent or script or braced or short or sixteen, 16)


def _pattern(tree: dict[int, Any], loosely: bool, depth: int = 0) -> str:
    """What is escaped after the first two is not looked into: there ``Loose.end`` does."""
    if not tree:
        return ""
    deep = depth > 1 or not loosely
    branches = [
        (re2.escape(chr(code)) if deep and code in _PLAIN else _one(code, first=not depth))
        + _pattern(below, loosely, depth + 1)
        for code, below in tree.items()
    ]
    if not loosely:
        return f"(?:{'|'.join(branches)})"
    if deep:
        branches.append(r"%|&|\\+[ux]")
    return f"{(_GAP, _DEEP_GAP)[deep] if depth else ''}(?:{'|'.join(branches)})"


def _one(code: int, *, first: bool) -> str:
    """A character in any of its escapes. At the beginning all is bounded, for the search to stay linear."""
    char = re2.escape(chr(code)) if code < 0x80 else f"\\x{code:02x}"
    names = "".join(f"|{name}" for name, text in _NAMES.items() if text == chr(code))
    slashes = "{1,16}" if first else "+"
    few = "{0,4}" if first else "*"
    bare = char if code in _PLAIN else rf"(?:\\{slashes})?{char}"
    return (
        rf"(?:{bare}|%(?:25){few}{code:02x}"
        rf"|\\{slashes}(?:u00{code:02x}|u\{{0{few}{code:02x}\}}|x{code:02x})"
        rf"|&(?:amp;){few}(?:#0{few}{code}|#x0{few}{code:02x}{names});)"
    )
