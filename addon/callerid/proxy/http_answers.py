"""The answer of an HTTP API on its way to the caller: scrubbed of secrets, otherwise as the server gave it.

Small bodies of a known length are held until they are whole, so that they keep a length. All others pass as
they come, in constant memory, and are open streams: judged again, and cut, as those of MCP are (law 10).
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
"""A body that is declared to be no longer is held until it is whole."""

NO_ANSWER = "the connection to the server ended before there was a whole one"


class PlainBody:
    """What is done with the body of an API's answer; spoken to as ``mcp.pipeline.AnswerPipeline`` is.

    ``live`` gives the scrubber of now: a secret that is rotated in the middle of a long answer is looked for
    from then on.
    """

    unfinished = False

    def __init__(self, live: Callable[[], Scrubber]) -> None:
        self._live = live
        self._stream: StreamScrubber = live().stream()
        self._hits = 0

    @property
    def hits(self) -> int:
        """Secrets that were taken out so far."""
        return self._hits + self._stream.hits

    def body(self, raw: bytes) -> bytes:
        """A whole body. In JSON a secret may stand behind escapes: then it is written anew without."""
        scrubber = self._live()
        clean, hits = scrubber.scrub(raw)
        self._hits += hits
        document = read(clean.decode("utf-8", "replace")) if b"\\u" in clean else None
        if document is None:
            return clean
        value, hits = scrubber.scrub_json(document.value)
        self._hits += hits
        return write(value).encode() if hits else clean

    def feed(self, data: bytes) -> list[bytes]:
        """What may go out now. What could be the beginning of a secret waits for what follows."""
        self._stream.use(self._live())
        clean = self._stream.feed(data)
        return [clean] if clean else []

    def end(self) -> list[bytes]:
        """The rest."""
        clean = self._stream.end()
        return [clean] if clean else []


def is_held(request: http.Request, response: http.Response) -> bool:
    """Whether the body is awaited whole: there is none, or a short one of known length."""
    if request.method == "HEAD" or response.status_code in (204, 304):
        return True
    declared = response.headers.get("content-length", "")
    return declared.isascii() and declared.isdigit() and len(declared) < 10 and int(declared) <= HELD_BYTES


def unanswered(call: Call) -> Answer:
    """The 502 for a call whose answer is not given out, or never came."""
    event_id = call.records[0].event_id
    if call.refusal is Outcome.UPSTREAM_REFUSED_CREDENTIAL:
        return problems.upstream_refused_credential(event_id)
    detail = call.detail or NO_ANSWER
    return problems.upstream_unusable(event_id, detail, call.refusal or Outcome.RESPONSE_REFUSED)
