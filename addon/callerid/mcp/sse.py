"""An incremental reader of event streams (WHATWG HTML, section 9.2 "Server-sent events").

Chunks of bytes in, whole events out, however the chunks are cut. Three laws:

1. An event is given out with the chunk that ends it. A carriage return ends a line by itself, so the
   line feed that may follow it in the next chunk is never waited for.
2. No byte is lost or invented: all ``raw`` of all events, then ``rest()``, are the stream as it came.
3. The memory held is bounded by ``max_event`` and one chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

from callerid.errors import CalleridError

BOM = b"\xef\xbb\xbf"
MAX_EVENT = 4_194_304
_LF, _CR = 0x0A, 0x0D


class EventTooLarge(CalleridError):
    """The stream went on for more than ``max_event`` bytes without ending an event."""

    def __init__(self, max_event: int) -> None:
        super().__init__(
            f"the server sent an event of more than {max_event} bytes",
            hint="Raise the size limit, or have the server send less in one answer.",
        )


@dataclass(frozen=True, slots=True)
class Event:
    """One block of a stream, up to and including its blank line.

    ``raw``: its exact bytes. ``data``: its data lines joined with LF; None if it has no data line
    (a comment, a keep-alive, a lone blank line), so no client dispatches it. ``event``: its type,
    "message" if it names none. ``id``: the id that this block sets, None if it sets none.
    """

    raw: bytes
    data: str | None
    event: str
    id: str | None


class EventParser:
    """Cuts a stream into events.

    A CRLF that two chunks share is given out in two parts: the event at its CR, and then the LF as an
    event without data, at once. Some clients do not take a lone CR for a line end, and would otherwise
    wait for that LF until the next event.
    """

    def __init__(self, *, max_event: int = MAX_EVENT) -> None:
        """Args: max_event: the most bytes that one event may have, its blank line included."""
        self._max = max_event
        self._buffer = bytearray()
        self._line = 0  # where the line that is being read begins, in the buffer
        self._after_cr = False  # the byte before the buffer's end was a CR that ended a line
        self._first_line = True  # no line was read yet, so a BOM may come
        self._first_event = True
        self._too_large = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that end in this chunk.

        Raises EventTooLarge, now or (if events ended in this chunk before the large one began) at the
        next call; from then on every call raises it.
        """
        if self._too_large:
            raise EventTooLarge(self._max)
        seen = len(self._buffer)
        self._buffer += chunk
        events: list[Event] = []
        begin = self._cut(seen, events)
        del self._buffer[:begin]
        self._line -= begin
        if len(self._buffer) > self._max:
            self._too_large = True
        if self._too_large and not events:
            raise EventTooLarge(self._max)
        return events

    def rest(self) -> bytes:
        """What came after the last whole event. At the end of a stream clients ignore it."""
        return bytes(self._buffer)

    def _cut(self, seen: int, events: list[Event]) -> int:
        """Collect the events that end in the buffer; returns where the unfinished one begins."""
        buffer, begin, position = self._buffer, 0, seen
        if self._after_cr and len(buffer) > seen:
            self._after_cr = False
            if buffer[seen] == _LF:  # the second half of a CRLF: of this event's line, or of the last event
                position = self._line = seen + 1
                if seen == 0:
                    events.append(Event(b"\n", None, "message", None))
                    begin = position
        lf, cr = buffer.find(b"\n", position), buffer.find(b"\r", position)
        while lf >= 0 or cr >= 0:
            end = lf if cr < 0 or 0 <= lf < cr else cr
            after = end + 2 if buffer[end] == _CR and lf == end + 1 else end + 1
            if self._is_blank(end):
                if after - begin > self._max:
                    self._too_large = True
                    return begin
                events.append(read_event(bytes(buffer[begin:after]), first=self._first_event))
                self._first_event = False
                begin = after
            self._line = after
            self._after_cr = buffer[after - 1] == _CR and after == len(buffer)
            # Each find goes on from its own last hit, so that many short lines cost one pass, not many.
            if 0 <= lf < after:
                lf = buffer.find(b"\n", after)
            if 0 <= cr < after:
                cr = buffer.find(b"\r", after)
        return begin

    def _is_blank(self, end: int) -> bool:
        line = self._buffer[self._line : end] if end - self._line <= len(BOM) else None
        first, self._first_line = self._first_line, False
        return line is not None and (not line or (first and line == BOM))


def read_event(raw: bytes, *, first: bool = False) -> Event:
    """Read the bytes of one block. Total: bytes that are not UTF-8 become U+FFFD, as in every client.

    ``first``: it is the first of its stream, where a BOM is no part of the line.
    """
    data: list[str] = []
    event, event_id = "", None
    lines = raw.removeprefix(BOM) if first else raw
    for line in lines.splitlines():  # of bytes: at CR, LF and CRLF, and nowhere else
        name, value = _field(line)
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event = value
        elif name == b"id" and "\0" not in value:
            event_id = value
    return Event(raw, "\n".join(data) if data else None, event or "message", event_id)


def with_data(event: Event, data: str) -> bytes:
    """The same event with other data: its id, type, retry and comments stay, in their order.

    ``data`` may have line ends of any kind; clients will read them as LF.
    """
    lines: list[bytes] = []
    fresh = [b"data: " + line for line in data.encode("utf-8", "replace").splitlines() or [b""]]
    if data.endswith(("\n", "\r")):
        fresh.append(b"data: ")
    written = False
    for line in _unmarked(event):
        if _field(line)[0] != b"data":
            lines += [line] if line else []
        elif not written:
            lines += fresh
            written = True
    return b"\n".join(lines if written else [*lines, *fresh]) + b"\n\n"


def _unmarked(event: Event) -> list[bytes]:
    """Its lines as they were read, and none that begins with a byte order mark.

    At the start of a stream one mark is skipped; elsewhere it makes the line one that no client knows,
    and without the mark that line would be read.
    """
    head, *lines = event.raw.splitlines() or [b""]
    rest = [line for line in lines if not line.startswith(BOM)]
    if not head.startswith(BOM):
        return [head, *rest]
    plain, skipped = head.removeprefix(BOM), read_event(event.raw, first=True)
    if plain.startswith(BOM) or (skipped.event, skipped.id) != (event.event, event.id):
        return rest
    return [plain, *rest]


def _field(line: bytes) -> tuple[bytes, str]:
    """Field name and value of a line; a comment has the empty name."""
    name, _, value = line.partition(b":")
    return name, value.removeprefix(b" ").decode("utf-8", "replace")
