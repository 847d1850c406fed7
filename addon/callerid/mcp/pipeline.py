"""What becomes of a server's answer on its way to the caller: scrubbed, filtered, and its end learnt.

One pipeline per forwarded exchange. ``body`` takes a whole answer, ``feed`` and ``end`` a stream of
events; bytes that no rule changes pass as they came (DESIGN section 1, law 8).

An answer is read as clients read it (UTF-8 with U+FFFD for what is not, a BOM skipped, the last of
equal members wins), and what is changed is written anew from that reading, so that no client can find
in it what was not judged. A list that cannot be read cannot be filtered, and does not pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any

from callerid.mcp.answers import unreadable_list
from callerid.mcp.lists import LIST_METHODS, Visible, filter_result, has_list, tells_hidden
from callerid.mcp.outcomes import Signal, read_signal, rpc_id_of
from callerid.mcp.sse import MAX_EVENT, Event, EventParser, read_event, with_data
from callerid.model import Outcome, RpcId

type ScrubBytes = Callable[[bytes], tuple[bytes, int]]
type ScrubJson = Callable[[Any], tuple[Any, int]]


class _Fate(Enum):
    """What becomes of a document that is not written anew."""

    KEEP = auto()
    DROP = auto()
    UNREADABLE = auto()


class AnswerPipeline:
    """The answer of one forwarded exchange.

    Attributes: ``events``, those with data that came; ``hits``, the secrets scrubbed; ``dropped``, the
    events (or a whole body's messages) taken out, and the unterminated tail of a stream if it had one.
    """

    def __init__(
        self,
        *,
        pending: Mapping[RpcId, str],
        visible: Visible,
        scrub_bytes: ScrubBytes,
        scrub_json: ScrubJson,
        on_signal: Callable[[Signal], None],
        on_endpoint: Callable[[str], str | None] | None = None,
        max_event: int = MAX_EVENT,
    ) -> None:
        """Args:
        pending: the method of each request that this answer may answer. It is looked at anew for
            every message, so that a stream of a session may be given a mapping that changes.
        visible: may the caller know of the thing of this kind and name?
        scrub_bytes: bytes without our secrets in them, and how many were found.
        scrub_json: the same for a decoded JSON value; asked only where escapes may have hidden one.
        on_signal: told the outcome of each response, before the response is given out.
        on_endpoint: judges the URL of an ``endpoint`` event (HTTP+SSE of 2024-11-05) and returns the
            one to announce, or None for none. Without it such events are dropped, for they would
            move the calls to an address that nobody judged.
        max_event: bytes; see ``EventParser``.
        """
        self._pending = pending
        self._visible = visible
        self._scrub_bytes = scrub_bytes
        self._scrub_json = scrub_json
        self._on_signal = on_signal
        self._on_endpoint = on_endpoint
        self._parser = EventParser(max_event=max_event)
        self._first = True
        self.events = 0
        self.hits = 0
        self.dropped = 0

    def body(self, raw: bytes) -> bytes:
        """A whole answer, JSON or not; the same bytes if nothing applies."""
        clean = self._scrub(raw)
        made = self._judge(clean.decode("utf-8", "replace"), escaped=b"\\" in clean)
        if made is _Fate.KEEP:
            return clean
        if made is _Fate.DROP:
            self.dropped += 1
            return b""
        if made is _Fate.UNREADABLE:
            errors = self._refuse_lists()
            if not errors:
                return clean
            return _write(errors[0] if len(errors) == 1 else errors).encode()
        return made.encode()

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that end in this chunk, each as the bytes to give out. Raises EventTooLarge."""
        return [out for event in self._parser.feed(chunk) for out in self._event(event)]

    def end(self) -> list[bytes]:
        """The stream is over: its unterminated tail, which no client reads and nobody judged, is dropped."""
        if self._parser.rest():
            self.dropped += 1
        return []

    def _event(self, event: Event) -> list[bytes]:
        first, self._first = self._first, False
        clean = self._scrub(event.raw)
        if clean != event.raw:
            event = read_event(clean, first=first)
        if event.data is None:
            return [clean]
        self.events += 1
        if event.event == "endpoint":
            return self._endpoint(event)
        made = self._judge(event.data, escaped=b"\\" in clean)
        if made is _Fate.KEEP:
            return [clean]
        if made is _Fate.DROP:
            self.dropped += 1
            return []
        if made is _Fate.UNREADABLE:
            return [with_data(event, _write(error)) for error in self._refuse_lists()] or [clean]
        return [with_data(event, made)]

    def _endpoint(self, event: Event) -> list[bytes]:
        said = event.data or ""
        data = None if self._on_endpoint is None else self._on_endpoint(said)
        if data is None:
            self.dropped += 1
            return []
        return [event.raw if data == said else with_data(event, data)]

    def _scrub(self, raw: bytes) -> bytes:
        clean, hits = self._scrub_bytes(raw)
        self.hits += hits
        return clean

    def _judge(self, text: str, *, escaped: bool) -> str | _Fate:
        """One JSON document: what to write in its place, or what becomes of it."""
        text = text.removeprefix("\ufeff")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return _Fate.UNREADABLE if _may_be_json(text) else _Fate.KEEP
        try:
            return self._judge_value(value, text, escaped=escaped)
        except RecursionError:  # deep enough to read, but not to search, compare or write
            return _Fate.UNREADABLE

    def _judge_value(self, value: Any, text: str, *, escaped: bool) -> str | _Fate:
        messages = value if isinstance(value, list) else [value]
        signals = [signal for message in messages if (signal := read_signal(message)) is not None]
        kept = [self._message(message) for message in messages if not self._is_hidden(message)]
        changed = len(kept) != len(messages) or any(a is not b for a, b in zip(kept, messages, strict=True))
        made: str | _Fate = _Fate.KEEP
        if not kept and messages:
            made = _Fate.DROP
        else:
            value = kept if isinstance(value, list) else kept[0]
            hits = 0
            if escaped:
                value, hits = self._scrub_json(value)
                self.hits += hits
            # A list with equal members may be read otherwise by another parser: it gets our reading.
            lists = any(self._is_list(message) for message in kept)
            if changed or hits or (lists and _has_equal_members(text)):
                made = _write(value)
        for signal in signals:
            self._on_signal(signal)
        return made

    def _message(self, message: Any) -> Any:
        """The message with its result filtered; the very same object if nothing applies."""
        if not isinstance(message, dict) or not isinstance(message.get("result"), dict):
            return message
        result = filter_result(self._method(message), message["result"], self._visible)
        return message if result is None else {**message, "result": result}

    def _is_hidden(self, message: Any) -> bool:
        return isinstance(message, dict) and tells_hidden(message, self._visible)

    def _is_list(self, message: Any) -> bool:
        if not isinstance(message, dict) or not isinstance(message.get("result"), dict):
            return False
        return has_list(self._method(message), message["result"])

    def _method(self, message: Any) -> str | None:
        rpc_id = rpc_id_of(message)
        return None if rpc_id is None else self._pending.get(rpc_id)

    def _refuse_lists(self) -> list[dict[str, Any]]:
        """An error for each list that is waited for; the others wait on, and their answer passes as it is.

        Which request an unreadable answer belongs to cannot be known, so each of them may be it.
        """
        waiting = [rpc_id for rpc_id, method in self._pending.items() if method in LIST_METHODS]
        for rpc_id in waiting:
            self._on_signal(Signal(rpc_id, Outcome.RESPONSE_REFUSED, None))
        return [unreadable_list(rpc_id) for rpc_id in waiting]


def _may_be_json(text: str) -> bool:
    """Whether some client might find an object or an array here, if only in another UTF."""
    return text.lstrip(" \t\r\n\x00\ufeff\ufffd")[:1] in ("{", "[")


def _has_equal_members(text: str) -> bool:
    found = False

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        members = dict(pairs)
        found = found or len(members) != len(pairs)
        return members

    json.loads(text, object_pairs_hook=look)
    return found


def _write(value: Any) -> str:
    """JSON on one line. A lone surrogate cannot be UTF-8, and is then written as the escape it was."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text
