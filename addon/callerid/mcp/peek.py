"""Reads an answer beside its way to the client: never holds a byte back, never changes one, never raises.

For servers that nobody listed, whose answers go on as they are. It decodes gzip and deflate and cuts event
streams; what it keeps is bounded, and where it stops to read it says so.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

from callerid.mcp.recognise_answer import LOOK
from callerid.mcp.sse import EventParser, EventTooLarge

MAX_MESSAGE = 1_048_576
"""The largest JSON body or event that is read."""
MAX_DECODED = 67_108_864
"""Bytes of one answer that are decompressed, so that a bomb costs a second and no more."""
_STEP = 65_536
_MAX_MEMBERS = 50
_MAX_DIGITS = 19
_GZIP = 47
_RAW_DEFLATE = -15


class Unreadable(Exception):
    """The rest of an answer is not read; the text says why. Never leaves this module."""


class Decoder:
    """A body without its content encoding, as it comes.

    Args:
        encodings: the content encodings, joined by commas, in lower case.
    """

    def __init__(self, encodings: str) -> None:
        named = [name.strip() for name in encodings.split(",") if name.strip() not in ("", "identity")]
        self._coding = named[0] if named else ""
        self._stream: Any = None
        self._decoded = 0
        known = len(named) < 2 and self._coding in ("", "gzip", "x-gzip", "deflate")
        self.unknown = None if known else "the answer is in an encoding that is not read here"

    def feed(self, data: bytes) -> bytes:
        """What these bytes decode to.

        Raises:
            Unreadable: they do not, or to more than MAX_DECODED in all.
        """
        if self.unknown is not None:
            raise Unreadable(self.unknown)
        if not self._coding or not data:
            return data
        try:
            return self._inflate(data)
        except zlib.error:
            raise Unreadable("the answer does not decode as its head says") from None

    def _inflate(self, data: bytes) -> bytes:
        parts: list[bytes] = []
        while data:
            if self._stream is None:
                self._stream = zlib.decompressobj(self._window(data))
            part = self._stream.decompress(data, _STEP)
            parts.append(part)
            self._decoded += len(part)
            if self._decoded > MAX_DECODED:
                raise Unreadable(f"the answer decodes to more than {MAX_DECODED} bytes")
            if self._stream.eof:  # gzip may go on with another member (RFC 1952 section 2.2)
                data, self._stream = self._stream.unused_data, None
            else:
                data = self._stream.unconsumed_tail
        return b"".join(parts)

    def _window(self, data: bytes) -> int:
        """``deflate`` is zlib's format by the book (RFC 9110 section 8.4.1.2), and raw from some servers."""
        if self._coding != "deflate" or data[0] & 0x0F == 8:
            return _GZIP
        return _RAW_DEFLATE


class AnswerReader:
    """The messages of JSON-RPC in an answer: of its JSON body, or of each event.

    ``start``: its first bytes, decoded, up to LOOK. ``endpoint``: the message URL that a 2024-11-05 stream
    announced. ``unread``: why the rest is not read, None while it is.
    """

    def __init__(self, *, encodings: str = "", event_stream: bool = False) -> None:
        self.start = b""
        self.endpoint: str | None = None
        self._decoder = Decoder(encodings)
        self.unread: str | None = self._decoder.unknown
        self._streams = event_stream
        self._waiting = b""
        self._body: bytearray | None = None
        self._events: EventParser | None = None

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Take the next bytes; give back the messages in the events that ended in them."""
        if self.unread is not None:
            return []
        try:
            return self._read(self._decoder.feed(data))
        except Unreadable as reason:
            self._stop(str(reason))
        except EventTooLarge:
            self._stop(f"an event of the answer is longer than {MAX_MESSAGE} bytes")
        return []

    def end(self) -> list[dict[str, Any]]:
        """The answer is over: the messages of its body, if that was JSON."""
        body, self._body = self._body, None
        return messages_in(bytes(body)) if body is not None and self.unread is None else []

    def _read(self, plain: bytes) -> list[dict[str, Any]]:
        if len(self.start) < LOOK:
            self.start += plain[: LOOK - len(self.start)]
        if self._events is None and self._body is None:
            plain = self._waiting + plain
            begun = plain.removeprefix(b"\xef\xbb\xbf").lstrip()
            if begun in (b"", b"\xef", b"\xef\xbb") and len(plain) < LOOK:
                self._waiting = plain
                return []
            self._waiting = b""
            if self._streams or not begun.startswith((b"{", b"[")):
                self._events = EventParser(max_event=MAX_MESSAGE)
            else:
                self._body = bytearray()
        if self._events is not None:
            events = self._events.feed(plain)
            return [message for event in events for message in self._of(event.event, event.data)]
        if self._body is not None:
            self._body += plain
            if len(self._body) > MAX_MESSAGE:
                raise Unreadable(f"the answer is longer than {MAX_MESSAGE} bytes")
        return []

    def _of(self, event: str, data: str | None) -> list[dict[str, Any]]:
        if data is None:
            return []
        if event == "endpoint" and self.endpoint is None:
            self.endpoint = data.strip()[:2048]
            return []
        return messages_in(data.encode("utf-8", "surrogatepass"))

    def _stop(self, reason: str) -> None:
        self.unread, self._body, self._events = reason, None, None


def messages_in(raw: bytes) -> list[dict[str, Any]]:
    """The objects that a JSON text consists of: one, or those of an array. Total; none if it is no JSON."""
    text = raw.decode("utf-8-sig", "replace").lstrip()
    if text[:1] not in ("{", "["):
        return []
    try:
        value = json.loads(text, strict=False, parse_int=_small)
    except (ValueError, RecursionError):
        return []
    members = value[:_MAX_MEMBERS] if isinstance(value, list) else [value]
    return [member for member in members if isinstance(member, dict)]


def _small(digits: str) -> int:
    return int(digits) if len(digits) <= _MAX_DIGITS else 0
