"""The answer of an HTTP API on its way to the caller: scrubbed of secrets, otherwise as the server gave it.

Small bodies of a known length are held until they are whole, so that they keep a length. All others pass as
they come, in constant memory, and are open streams: judged again, and cut, as those of MCP are (law 10). Of
JSON the first ``HELD_BYTES`` are held also then: in a piece of it nobody finds a secret behind escapes.
"""

from __future__ import annotations

from collections.abc import Callable

from mitmproxy import http

from callerid.credentials.scrub import Scrubber, StreamScrubber
from callerid.mcp import problems
from callerid.mcp.answers import Answer
from callerid.mcp.documents import read, write
from callerid.model import Outcome
from callerid.proxy.calls import Call

HELD_BYTES = 262_144
"""A body that is declared to be no longer is held until it is whole, and so is JSON up to here."""

NO_ANSWER = "the connection to the server ended before there was a whole one"


class PlainBody:
    """What is done with the body of an API's answer; spoken to as ``mcp.pipeline.AnswerPipeline`` is.

    ``live`` gives the scrubber of now: a secret that is rotated in the middle of a long answer is looked for
    from then on. ``is_json``: what passes is held until it can be read, at most ``HELD_BYTES`` of it.
    """

    unfinished = False

    def __init__(self, live: Callable[[], Scrubber], *, is_json: bool = False) -> None:
        self._live = live
        self._stream: StreamScrubber = live().stream()
        self._hits = 0
        self._held: bytearray | None = bytearray() if is_json else None
        self._in_lines: bool | None = None

    @property
    def hits(self) -> int:
        """Secrets that were taken out so far."""
        return self._hits + self._stream.hits

    def body(self, raw: bytes) -> bytes:
        """A whole body. In JSON a secret may stand behind escapes: then it is written anew without."""
        scrubber = self._live()
        clean, hits = scrubber.scrub(raw)
        self._hits += hits
        if b"\\u" not in clean:
            return clean
        whole = self._rewritten(clean, scrubber)
        if whole is not None:
            return whole
        lines = (self._rewritten(line, scrubber) or line for line in clean.split(b"\n"))
        return b"\n".join(lines)

    def _rewritten(self, clean: bytes, scrubber: Scrubber) -> bytes | None:
        """A JSON document without what escapes hide in it; None if it is none."""
        document = read(clean.decode("utf-8", "replace")) if clean else None
        if document is None:
            return None
        value, hits = scrubber.scrub_json(document.value)
        self._hits += hits
        end = clean[len(clean.rstrip()) :]  # a line of its own stays one
        return write(value).encode() + end if hits else clean

    def feed(self, data: bytes) -> list[bytes]:
        """What may go out now. What could be the beginning of a secret waits for what follows."""
        if self._held is None:
            return self._passed(data)
        self._held += data
        out = self._lines() if b"\n" in data else []
        if len(self._held) > HELD_BYTES:
            rest, self._held = bytes(self._held), None
            out += self._passed(rest)
        return out

    def _lines(self) -> list[bytes]:
        """The whole lines, if each is a document of its own, as where an API tells of changes."""
        if self._held is None or self._in_lines is False:
            return []
        whole, _, rest = bytes(self._held).rpartition(b"\n")
        if self._in_lines is None and not whole.strip():
            return []
        if self._in_lines is None:
            first = whole.lstrip().partition(b"\n")[0]
            self._in_lines = read(first.decode("utf-8", "replace")) is not None
        if not self._in_lines:
            return []
        self._held = bytearray(rest)
        return [self.body(whole + b"\n")]

    def _passed(self, data: bytes) -> list[bytes]:
        self._stream.use(self._live())
        clean = self._stream.feed(data)
        return [clean] if clean else []

    def end(self) -> list[bytes]:
        """The rest."""
        if self._held is not None:
            rest, self._held = bytes(self._held), bytearray()
            return [self.body(rest)] if rest else []
        clean = self._stream.end()
        return [clean] if clean else []


def is_held(request: http.Request, response: http.Response) -> bool:
    """Whether the body is awaited whole: there is none, or a short one of known length."""
    if request.method == "HEAD" or response.status_code in (204, 304):
        return True
    declared = response.headers.get("content-length", "")
    return declared.isascii() and declared.isdigit() and len(declared) < 10 and int(declared) <= HELD_BYTES


def is_json(response: http.Response) -> bool:
    """Whether the body calls itself JSON."""
    media: str = response.headers.get("content-type", "").partition(";")[0].strip(" \t").lower()
    return media.endswith(("json", "jsonl", "jsonlines"))


def unanswered(call: Call, ended: Outcome, why: str) -> Answer:
    """As ``reply.unanswered``."""
    event_id = call.records[0].event_id
    if call.refusal is Outcome.UPSTREAM_REFUSED_CREDENTIAL:
        return problems.upstream_refused_credential(event_id)
    return problems.upstream_unusable(event_id, call.detail or why, call.refusal or ended)
