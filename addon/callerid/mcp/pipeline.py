"""What becomes of a server's answer on its way to the caller: scrubbed, judged, filtered, its end learnt.

One pipeline per forwarded exchange. ``body`` takes a whole answer, ``feed`` and ``end`` a stream of
events; bytes that no rule changes pass as they came (DESIGN section 1, law 8).

An answer is read as clients read it (``documents``), and what is changed is written anew from that
reading, so that no client can find in it what was not judged. What must be judged and cannot be read does
not pass: a list that waits to be filtered, and text in which another reader might find that a server asks
something.

What rules refuse to let a server ask never reaches the client:

- A request becomes ``ping`` with the same id. Every client answers that at once, and the proxy makes of
  its answer the error that the server gets: neither side waits for the other.
- A result, or an error -32042, becomes the refusal of the request that it answers (``ask_refused``).
- A notification is dropped, and so is what has no id that could be answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum, auto
from typing import Any

from callerid.mcp.answers import ask_refused, unreadable_answer
from callerid.mcp.asks import Ask, AskRefusal, asks_of
from callerid.mcp.documents import Document, may_ask, may_be_json, may_be_message, messages_of, read, write
from callerid.mcp.lists import FILTERED_METHODS, View, filter_result, has_list, hide
from callerid.mcp.outcomes import Signal, pending_of, read_signal, rpc_id_of
from callerid.mcp.sse import BOM, MAX_EVENT, Event, EventParser, read_event, with_data
from callerid.model import Message, Outcome, RpcId

type ScrubBytes = Callable[[bytes], tuple[bytes, int]]
type ScrubJson = Callable[[Any], tuple[Any, int]]
type Judge = Callable[[tuple[Ask, ...], Message | None], AskRefusal | None]


class _Fate(Enum):
    """What becomes of a document that is not written anew."""

    KEEP = auto()
    DROP = auto()
    UNREADABLE = auto()
    UNJUDGED = auto()  # readable, but not to the end of what is done with it
    OTHER = auto()  # not JSON at all


class AnswerPipeline:
    """The answer of one forwarded exchange.

    Attributes: ``events``, those with data that came; ``hits``, the secrets scrubbed; ``dropped``, the
    events (or a whole body's messages) taken out, and the unterminated tail of a stream if it had one.
    """

    def __init__(
        self,
        *,
        pending: Mapping[RpcId, Message],
        view: View,
        scrub_bytes: ScrubBytes,
        scrub_json: ScrubJson,
        on_signal: Callable[[Signal], None],
        judge: Judge,
        on_endpoint: Callable[[str], str | None] | None = None,
        on_event_id: Callable[[str], None] | None = None,
        max_event: int = MAX_EVENT,
    ) -> None:
        """Args:
        pending: the requests that this answer may answer. It is looked at anew for every message, so
            that a stream of a session may be given a mapping that changes.
        view: what the caller may see.
        scrub_bytes: bytes without our secrets in them, and how many were found.
        scrub_json: the same for a decoded JSON value; asked only where escapes may have hidden one.
        on_signal: told the outcome of each response, before the response is given out, with the id as
            in ``pending`` where it is there.
        judge: asked once for each message in which a server asks something, before the message is
            given out, with all that it asks and the request that it answers (None if it is no response,
            or that request is not known). None lets it pass. An exception passes out of ``body`` and
            ``feed``, and then nothing of the answer may be given out.
        on_endpoint: judges the URL of an ``endpoint`` event (HTTP+SSE of 2024-11-05) and returns the
            one to announce, or None for none. Without it such events are dropped, for they would
            move the calls to an address that nobody judged.
        on_event_id: told the id of each event that is given out, before it is.
        max_event: bytes; see ``EventParser``.
        """
        self._pending = pending
        self._view = view
        self._scrub_bytes = scrub_bytes
        self._scrub_json = scrub_json
        self._on_signal = on_signal
        self._judge_asks = judge
        self._on_endpoint = on_endpoint
        self._on_event_id = on_event_id
        self._parser = EventParser(max_event=max_event)
        self._first = True
        self._given = False
        self.events = 0
        self.hits = 0
        self.dropped = 0
        self.unfinished = False

    def body(self, raw: bytes) -> bytes:
        """A whole answer, JSON or not; the same bytes if nothing applies."""
        clean = self._scrub(raw)
        made = self._judge(clean.decode("utf-8", "replace"), escaped=b"\\" in clean)
        if made is _Fate.KEEP:
            return clean
        if made is _Fate.OTHER:
            return self._stray_stream(clean)
        if made is _Fate.UNREADABLE or made is _Fate.UNJUDGED:
            errors = self._refuse_waiting(everyone=made is _Fate.UNJUDGED or may_ask(clean))
            if errors is None:
                return clean
            made = write(errors[0] if len(errors) == 1 else errors) if errors else _Fate.DROP
        if isinstance(made, str):
            return made.encode()
        self.dropped += 1
        return b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that end in this chunk, each as the bytes to give out. Raises EventTooLarge."""
        return [out for event in self._parser.feed(chunk) for out in self._event(event)]

    def end(self) -> list[bytes]:
        """The stream is over: its unterminated tail, which no client reads and nobody judged, is dropped."""
        if self._parser.rest():
            self.dropped += 1
            self.unfinished = b"data" in self._parser.rest()
        return []

    @staticmethod
    def say(message: Mapping[str, Any]) -> bytes:
        """A JSON-RPC message of ours as an event, to be put between two events of a stream."""
        return b"event: message\ndata: " + write(message).encode() + b"\n\n"

    def _stray_stream(self, raw: bytes) -> bytes:
        """A body that is no JSON. Some clients find a stream where its type does not plainly say so."""
        if not any(line.startswith((b"data:", BOM + b"data:")) for line in raw.splitlines()):
            return raw
        parser = EventParser(max_event=len(raw))
        events = parser.feed(raw)
        if parser.rest():  # its end is that of the body, and for some clients that of an event
            events.append(read_event(parser.rest(), first=not events))
        return b"".join(out for event in events for out in self._event(event))

    def _event(self, event: Event) -> list[bytes]:
        first, self._first = self._first, False
        clean = self._scrub(event.raw)
        if clean != event.raw:
            event = read_event(clean, first=first)
        is_endpoint = event.data is not None and event.event == "endpoint"
        if self.dropped and not self._given and event.raw.startswith(BOM):
            out = []  # all before it was dropped: the mark would stand at the start, where it is skipped
        else:
            out = self._endpoint(event) if is_endpoint else self._outgoing(event)
        self._given = self._given or any(piece.strip(b"\r\n") for piece in out)
        if not out:
            self.dropped += 1
        elif event.id and self._on_event_id is not None:
            self._on_event_id(event.id)
        return out

    def _outgoing(self, event: Event) -> list[bytes]:
        made: str | _Fate = _Fate.OTHER
        if event.data is not None:
            self.events += 1
            made = self._judge(event.data, escaped=b"\\" in event.raw)
        if made is _Fate.KEEP:
            return [event.raw]
        if made is _Fate.DROP:
            return []
        if made is _Fate.OTHER:
            # Clients differ about what ends a line, so one may find a message where there is none for us.
            return [] if may_be_message(event.raw) else [event.raw]
        if made is _Fate.UNREADABLE or made is _Fate.UNJUDGED:
            errors = self._refuse_waiting(everyone=made is _Fate.UNJUDGED or may_be_message(event.raw))
            return [event.raw] if errors is None else [with_data(event, write(error)) for error in errors]
        return [with_data(event, made)]

    def _endpoint(self, event: Event) -> list[bytes]:
        self.events += 1
        said = event.data or ""
        data = None if self._on_endpoint is None else self._on_endpoint(said)
        if data is None:
            return []
        return [event.raw if data == said else with_data(event, data)]

    def _scrub(self, raw: bytes) -> bytes:
        clean, hits = self._scrub_bytes(raw)
        self.hits += hits
        return clean

    def _judge(self, text: str, *, escaped: bool) -> str | _Fate:
        """One JSON document: what to write in its place, or what becomes of it."""
        text = text.removeprefix("\ufeff")
        document = read(text)
        if document is None:
            return _Fate.UNREADABLE if may_be_json(text) else _Fate.OTHER
        try:
            return self._judge_document(document, escaped=escaped)
        except RecursionError:  # deep enough to read, but not to search, compare or write
            return _Fate.UNJUDGED

    def _judge_document(self, document: Document, *, escaped: bool) -> str | _Fate:
        value, hits = document.value, 0
        if escaped:
            # Before it is judged: what a server asks is kept in rows.
            value, hits = self._scrub_json(value)
            self.hits += hits
        messages = messages_of(value)
        made = [self._message(message) for message in messages]
        kept = [message for message, _ in made if message is not _Fate.DROP]
        anew = hits > 0 or any(a is not b for a, (b, _) in zip(messages, made, strict=True))
        if not anew and document.other is not document.value:
            # Another reader takes the first of equal members: if that matters, it gets our reading. So
            # it does where the members that we do not read could hide a secret behind escapes.
            anew = escaped or any(map(self._matters, [*messages, *messages_of(document.other)]))
        fate: str | _Fate = _Fate.KEEP
        if messages and not kept:
            fate = _Fate.DROP
        elif anew:
            fate = write(kept if isinstance(value, list) else kept[0])
        for _, signal in made:
            if signal is not None:
                self._on_signal(signal)
        return fate

    def _message(self, message: Any) -> tuple[Any, Signal | None]:
        """What to give out for one message (itself if nothing applies, or DROP), and its outcome."""
        if not isinstance(message, dict):
            return message, None
        shown = hide(message, self._view)
        if shown is None:
            return _Fate.DROP, None
        known = pending_of(rpc_id_of(message), self._pending)
        request = None if known is None else known[1]
        signal = read_signal(message, request)
        if signal is not None and known is not None:
            signal = replace(signal, rpc_id=known[0])
        asks = asks_of(shown)
        refusal = self._judge_asks(asks, None if "method" in shown else request) if asks else None
        if refusal is not None:
            if signal is not None:
                signal = Signal(signal.rpc_id, Outcome.RESPONSE_REFUSED, None)
            return _refused(shown, request, refusal), signal
        result = shown.get("result")
        if isinstance(result, dict):
            filtered = filter_result(request, result, self._view)
            if filtered is not None:
                shown = {**shown, "result": filtered}
        return shown, signal

    def _matters(self, message: Any) -> bool:
        """Whether anything in here is judged at all, changed or not."""
        if not isinstance(message, dict):
            return False
        if asks_of(message) or hide(message, self._view) is not message:
            return True
        known = pending_of(rpc_id_of(message), self._pending)
        method = None if known is None else known[1].method
        return isinstance(message.get("result"), dict) and has_list(method, message["result"])

    def _refuse_waiting(self, *, everyone: bool) -> list[dict[str, Any]] | None:
        """An error for each request that may wait for what cannot be judged; None if it may pass as it is.

        Which request it belongs to cannot be known, so each of them may be it: those for a list, and
        ``everyone`` where it may hide something from us. With none, there is nobody to tell.
        """
        waiting = [
            rpc_id
            for rpc_id, request in self._pending.items()
            if everyone or request.method in FILTERED_METHODS
        ]
        if not everyone and not waiting:
            return None
        for rpc_id in waiting:
            self._on_signal(Signal(rpc_id, Outcome.RESPONSE_REFUSED, None))
        return [unreadable_answer(rpc_id) for rpc_id in waiting]


def _refused(message: dict[str, Any], request: Message | None, refusal: AskRefusal) -> dict[str, Any] | _Fate:
    """What stands in the place of a message that asks what rules refuse."""
    rpc_id = message.get("id")
    # An id like 1.0 is the id 1 to some clients: it is given back as it came.
    if rpc_id_of(message) is None and not (type(rpc_id) is float and rpc_id.is_integer()):
        return _Fate.DROP
    if "method" in message:
        if refusal.drop:
            return _Fate.DROP
        return {"jsonrpc": "2.0", "id": rpc_id, "method": "ping"}
    return {**ask_refused(request, rpc_id_of(message), refusal), "id": rpc_id}
