"""What a client sends, as bytes: TLS hellos, heads and chunked bodies, read at a bounded cost.

h11's, which mitmproxy uses, are sound in what they accept, and are kept for that.
"""

from __future__ import annotations

from typing import Any

import h11
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy.proxy.layers.http import _http1

MAX_FOLDED = 8_192
"""Beyond this a head with folded lines is not read at all: joining them costs the square of its length."""

MAX_EMPTY = 4
"""Empty lines that are skipped before a request line (RFC 9112 section 2.2); more of them are no request."""

MAX_INTERIM = 32
"""Interim answers before one answer; they are not passed on, for nobody asked for them."""

MAX_SMALL, SMALL = 10_000, 16
"""A request may have so many chunks, whatever their size; more of them must have so many bytes on average."""


MAX_HELLO = 16_384
"""Bytes of a ClientHello; the largest in use, with post-quantum keys, have 2,000."""


class Head(ReceiveBuffer):
    """A receive buffer that remembers the form of the last head taken out of it."""

    def __init__(self) -> None:
        super().__init__()
        self.size = self.lines = 0
        self.first = b""
        self.folded = False
        self._empty = 0

    def skip_empty_lines(self) -> bool:
        """Take off the empty lines that a request may begin with; False if there are too many of them."""
        while self._data.startswith((b"\n", b"\r\n")):
            self._empty += 1
            self.first = b""
            if self._empty > MAX_EMPTY:
                return False
            super().maybe_extract_lines()  # gives such a line out as a head without lines
        return True

    def maybe_extract_lines(self) -> list[bytearray] | None:
        before = len(self)
        found = super().maybe_extract_lines()
        self._empty = 0 if found else self._empty
        self.size, self.lines = before - len(self), len(found or ())
        self.first = bytes(found[0]) if found else b""
        self.folded = self.size > MAX_FOLDED and any(line.startswith((b" ", b"\t")) for line in found or ())
        if self.folded and found:
            del found[1:]  # never joined: the head is refused
        return found


class Chunks(ChunkedReader):
    """h11's reader of chunked bodies, with all chunks that are there in one piece."""

    def __init__(self) -> None:
        super().__init__()
        self._end: Any = None
        self._count = self._size = 0

    def __call__(self, buf: Any) -> Any:
        parts: list[Any] = []
        while self._end is None:
            found = super().__call__(buf)
            if isinstance(found, h11.EndOfMessage):
                self._end = found
            elif found is None:
                break
            else:
                parts.append(found.data)
        if not parts:
            return self._end
        data = b"".join(parts)
        self._count += len(parts)
        self._size += len(data)
        return h11.Data(data=data)

    def is_dust(self) -> bool:
        """Whether its chunks are so many and so small that reading them costs more than sending them."""
        return self._count > MAX_SMALL and self._size < self._count * SMALL


def skip_interim(buf: ReceiveBuffer) -> int:
    """Take whole interim answers off the beginning of what a server sent, but none that leaves HTTP (101)."""
    count = 0
    while _is_interim(bytes(buf._data[:13])) and buf.maybe_extract_lines() is not None:
        count += 1
    return count


def _is_interim(start: bytes) -> bool:
    code = start[9:12]
    good = code[:1] == b"1" and code.isdigit() and code != b"101"
    return good and start[:9] in (b"HTTP/1.1 ", b"HTTP/1.0 ")


_make_body_reader: Any = getattr(_http1, "make_body_reader", None)


def reader(expected_size: int | None) -> Any:
    return Chunks() if expected_size is None else _make_body_reader(expected_size)


def hello_is_ready(data: bytes) -> bool | None:
    """Whether this holds a whole ClientHello, or what none begins with; None if it is too long to be one.

    mitmproxy reads all of it again with each part that comes. Its length stands in its first nine bytes
    (RFC 8446 sections 4 and 5.1), so it needs to be read only once.
    """
    if data[:1] != b"\x16":
        return True
    if len(data) < 9:
        return False
    if int.from_bytes(data[3:5]) >= 4:
        needed = 9 + int.from_bytes(data[6:9])
        if len(data) >= needed:
            return True
        return None if needed > MAX_HELLO else False
    return None if len(data) > MAX_HELLO else True
