"""Answers at a listed server's host and port, but of paths that are not listed: scrubbed, else as they are.

The server there knows a secret, and a page of it may show it: its environment, its last requests. So answers
are asked for in a form that can be searched, and searched as they pass; nothing is held back but what could
be the beginning of a secret. Traffic with other servers is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mitmproxy import http

from callerid.credentials.scrub import Scrubber
from callerid.mcp import answers, problems
from callerid.model import DecisionRecord, FindingKind, FindingRecord, Outcome, Reason
from callerid.proxy import answer_heads, faults
from callerid.proxy.bodies import SCRUBBED
from callerid.proxy.calls import Call
from callerid.proxy.cleaning import scrubbed_head
from callerid.proxy.rooms import Rooms
from callerid.proxy.runtime import Runtime, now_us


class Cleaner:
    """Takes secrets out of a body as it passes. ``found`` is called at the first one.

    ``live`` gives the scrubber of now: a secret that is rotated in the middle is looked for from then on.
    """

    def __init__(self, live: Callable[[], Scrubber], found: Callable[[], None]) -> None:
        self._live = live
        self._found = found
        self._told = False
        self._stream = live().stream()

    def feed(self, data: bytes) -> bytes:
        """What may go on by now; perhaps nothing."""
        self._stream.use(self._live())
        return self._tell(self._stream.feed(data))

    def end(self) -> bytes:
        """The rest."""
        return self._tell(self._stream.end())

    def _tell(self, clean: bytes) -> bytes:
        if self._stream.hits and not self._told:
            self._told = True
            self._found()
        return clean


def is_beside(host: str, port: int, rooms: Rooms) -> bool:
    """Whether a server is listed at this place to which a secret of ours is sent."""
    listed = rooms.servers.at(host, port)
    if not listed:
        return False
    named = {server.credential for server in listed}
    return any(known.id in named and known.inject != "passthrough" for known in rooms.rules.credentials)


def ask_plainly(request: http.Request, rooms: Rooms) -> None:
    """Have the answer come as it is: in a compressed one nobody could find a secret."""
    if is_beside(request.host, request.port, rooms):
        request.headers["accept-encoding"] = "identity"


async def withhold_or_scrub(
    flow: http.HTTPFlow, call: Call | None, runtime: Runtime
) -> answers.Answer | None:
    """The head of an answer to what nobody governs: cleaned, and its body from now on.

    Returns:
        What the client gets instead, where no secret could be found in the answer. Its row is durable then.

    Raises:
        StoreError: there is no such row.
    """
    response, rooms = flow.response, runtime.rooms
    if response is None or flow.server_conn.timestamp_start is None:
        return None  # an answer of our own
    if not is_beside(flow.request.host, flow.request.port, rooms):
        return None
    heads: dict[bytes, list[bytes]] = {}
    for name, value in response.headers.fields:
        heads.setdefault(name.lower(), []).append(value)
    hidden = None if _is_bodyless(flow.request, response) else answer_heads.hidden_body(heads)
    hidden = answer_heads.folded(heads) or hidden
    if hidden is not None:
        return await _withheld(flow, call, hidden, runtime)

    server = rooms.servers.name_at(flow.request.host, flow.request.port, "")
    record = call.records[0] if call is not None else None

    def told(where: str) -> None:
        rooms.hygiene.tell(_finding(server, record, where), runtime.finding)

    for where in scrubbed_head(response, rooms.store.scrubber):
        told(where)
    flow.metadata[SCRUBBED] = Cleaner(lambda: runtime.rooms.store.scrubber, lambda: told("in an answer"))
    if not _is_bodyless(flow.request, response):
        response.headers.pop("content-length", None)  # it may get another
        if flow.request.http_version == "HTTP/1.1":
            response.headers["transfer-encoding"] = "chunked"
    return None


async def _withheld(flow: http.HTTPFlow, call: Call | None, why: str, runtime: Runtime) -> answers.Answer:
    if call is not None:
        call.refusal, call.detail = Outcome.RESPONSE_REFUSED, why
        return answers.upstream_unusable(call.first_rpc_id, call.records[0].event_id, why, call.refusal)
    record = faults.row(flow, None, Reason.ENCODING_REFUSED, why, runtime.rooms)
    await runtime.record((record,))
    return problems.upstream_unusable(record.event_id, why)


def _is_bodyless(request: http.Request, response: http.Response) -> bool:
    """Whether no body follows (RFC 9112 section 6.3)."""
    return (
        request.method == "HEAD"
        or response.status_code in (204, 304)
        or response.status_code < 200
        or response.headers.get("content-length") == "0"
    )


def _finding(server: str, record: DecisionRecord | None, where: str) -> Iterator[FindingRecord]:
    yield FindingRecord(
        time_us=now_us(),
        kind=FindingKind.SECRET_ECHOED,
        event_id=record.event_id if record is not None else None,
        server=server,
        principal=record.principal if record is not None else None,
        detail=f"{where}, at a path that is not listed",
    )
