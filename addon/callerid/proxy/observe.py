"""Answers of servers that nobody listed: watched as they pass, never held back, never changed.

Two reasons to watch. A call that is observed gets an honest outcome, and the tools that its server lists are
kept. And an exchange that nobody took for MCP may show by its answer that it is: then it is attributed, and
where such servers are refused, what can still be kept from the client is.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urljoin, urlsplit

from mitmproxy import http

from callerid.audit.views import SERVER_SEEN
from callerid.errors import StoreError
from callerid.mcp import answers
from callerid.mcp.lenient import encodings_of
from callerid.mcp.outcomes import pending_of, read_signal, rpc_id_of
from callerid.mcp.peek import AnswerReader, messages_in
from callerid.mcp.prefix import completed
from callerid.mcp.recognise import may_get_rpc_answer
from callerid.mcp.recognise_answer import LOOK, has_mcp_head, is_event_stream, looks_like_mcp_response
from callerid.model import Message, Reason, RpcId
from callerid.proxy import engine, reply
from callerid.proxy.calls import Call, Memory
from callerid.proxy.conversations import Settled, key_of
from callerid.proxy.discovered import spot
from callerid.proxy.exchange import HELD
from callerid.proxy.facts import Facts, Ruling
from callerid.proxy.findings import found_in
from callerid.proxy.heads import HEAD_WAITS
from callerid.proxy.rows import shown_path
from callerid.proxy.runtime import Runtime, new_id, now_us
from callerid.proxy.unlisted import judge_answer, spot_of

logger = logging.getLogger(__name__)

FACTS = "callerid.facts"
"""In ``flow.metadata`` of a request to an unlisted server until its answer begins: what it said."""
REPLACED = "callerid.replaced"
"""In ``flow.metadata``: what the client gets in the place of the answer."""

MAX_LOOKS = 64
"""How often the beginning of one answer is judged, while it comes in small parts."""


def remember(flow: http.HTTPFlow, facts: Facts) -> None:
    """The request goes on as other traffic: keep what it said, should its answer turn out to be MCP."""
    flow.metadata[FACTS] = facts


async def begin(flow: http.HTTPFlow, memory: Memory, runtime: Runtime) -> None:
    """The head of an answer to other traffic: let it stream, and watch it where it may be MCP."""
    response = flow.response
    if response is None or flow.server_conn.timestamp_start is None:
        return
    response.stream = True  # not governed: nothing is held back
    facts: Facts | None = flow.metadata.pop(FACTS, None)
    if facts is None:
        return
    try:
        headers = _headers(response)
        if has_mcp_head(headers):
            await _found_by_head(flow, facts, memory, runtime)
        elif _worth_watching(facts, headers):
            watch = response.stream = Watch(flow, facts, None, memory, runtime)
            if runtime.rooms.rules.unknown_server != "observe":
                watch.head_waits = True
                flow.metadata[HEAD_WAITS] = watch
    except StoreError as error:
        logger.error("callerid: an answer of an unlisted server is withheld without its row: %s", error)
        withhold(flow, answers.refusal(None, reason=Reason.AUDIT_UNAVAILABLE, event_id=new_id(),
                                        rule=None, say=None, hidden=False))  # fmt: skip


def follow(flow: http.HTTPFlow, call: Call, memory: Memory, runtime: Runtime) -> None:
    """The head of the answer to an observed call: watch it for its outcome."""
    facts: Facts | None = flow.metadata.pop(FACTS, None)
    if flow.response is not None:
        flow.response.stream = Watch(flow, facts, call, memory, runtime)


def replace_withheld(flow: http.HTTPFlow) -> None:
    """Put our refusal in the place of an answer that was already there when it was withheld."""
    response: http.Response | None = flow.metadata.pop(REPLACED, None)
    if response is not None:
        flow.response = response


async def _found_by_head(flow: http.HTTPFlow, facts: Facts, memory: Memory, runtime: Runtime) -> None:
    """Before anything of the answer went on: the row first, then the answer or a refusal (law 1)."""
    ruling, _ = judge_answer(replace(facts, time_us=now_us()), runtime.rooms, new_id, None)
    call = _begin_call(flow, facts, ruling, memory)
    await runtime.record(ruling.records)
    runtime.rooms.hygiene.tell(found_in(ruling, facts, runtime.rooms), runtime.finding)
    if ruling.answer is not None:
        withhold(flow, ruling.answer)
        return
    flow.metadata[FACTS] = facts
    follow(flow, call, memory, runtime)


def _begin_call(flow: http.HTTPFlow, facts: Facts, ruling: Ruling, memory: Memory) -> Call:
    call = Call(
        records=ruling.records,
        messages=ruling.messages,
        server=None,
        caller=ruling.caller,
        presented=facts.presented,
        allowed=ruling.answer is None,
        observed=True,
    )
    memory.begin(flow, call)
    return call


def withhold(flow: http.HTTPFlow, answer: answers.Answer) -> None:
    """Give the client our answer: nothing of the server's has gone on, and the rest of it is not awaited."""
    response = reply.fitting(flow, reply.to_response(answer))
    if flow.response is not None:
        flow.response.stream = False
    flow.metadata[REPLACED] = response
    engine.leave(flow.client_conn, response)
    reply.abort(flow)


class Watch:
    """A stream callable that gives on what it gets. It must not hold the flow, which holds it.

    ``head_waits``: the head of the answer has not gone on yet.
    """

    def __init__(
        self, flow: http.HTTPFlow, facts: Facts | None, call: Call | None, memory: Memory, runtime: Runtime
    ) -> None:
        response = flow.response
        self._flow = weakref.ref(flow)
        self._facts = facts
        self._call = call
        self._memory = memory
        self._runtime = runtime
        self._status = response.status_code if response is not None else 0
        self._headers = _headers(response) if response is not None else ()
        self._url = flow.request.url
        self._reader = AnswerReader(
            encodings=encodings_of(self._headers), event_stream=is_event_stream(self._headers)
        )
        self._looked, self._looks = 0, 0
        self._passed = 0
        self._between = True  # what passed ends with an event, or nothing did
        self._refused = False
        self._answer: answers.Answer | None = None
        self._ahead: list[bytes] | None = None
        self.head_waits = False

    def first(self, data: bytes | None) -> http.Response | None:
        """As ``heads.Look``: whether the answer that begins with these bytes is refused, and with what."""
        if data is not None:
            self._ahead = self(data)
        self.head_waits = False
        flow = self._flow()
        if self._answer is None or flow is None:
            return None
        reply.abort(flow)
        response = reply.fitting(flow, reply.to_response(self._answer))
        response.headers["connection"] = "close"
        return response

    def __call__(self, data: bytes) -> list[bytes]:
        """The bytes as they came, or what the client gets instead of them once the exchange is refused."""
        if self._ahead is not None:
            chunks, self._ahead = self._ahead, None
            return chunks
        if self._refused:
            return []
        chunks = [data] if data else []
        flow = self._flow()
        if flow is None:
            return chunks
        try:
            chunks = self._pass(flow, data, chunks)
        except Exception:
            logger.exception("callerid: an answer of an unlisted server could not be watched; it goes on")
            _let_be(flow)
        self._passed += len(data)
        self._between = data.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")) if data else self._between
        return chunks

    def _pass(self, flow: http.HTTPFlow, data: bytes, chunks: list[bytes]) -> list[bytes]:
        call = self._call
        messages = self._reader.feed(data) if data else self._reader.end()
        if call is None:
            found = self._recognised(flow) if data else False
            if not found:
                return chunks
            return self._found(flow, chunks, messages)
        call.response_bytes += len(data)
        self._note(call, messages)
        if not data:
            self._explain(call)
        return chunks

    # -- recognised by the answer ----------------------------------------------------------------

    def _recognised(self, flow: http.HTTPFlow) -> bool:
        """Whether what came so far is MCP. Once it cannot be any more, nobody looks again."""
        start = self._reader.start
        enough = len(start) >= LOOK or self._reader.unread is not None
        # Not at every byte: when there is a quarter more, or a whole event or body may have ended.
        grown = len(start) - self._looked
        if not enough and grown * 4 < self._looked and not start.endswith((b"\n", b"\r", b"}", b"]")):
            return False
        if grown:
            self._looked, self._looks = len(start), self._looks + 1
            asked = flow.request.method
            if looks_like_mcp_response(self._status, self._headers, start, http_method=asked):
                return True
        if enough or self._looks >= MAX_LOOKS:
            _let_be(flow)
        return False

    def _found(self, flow: http.HTTPFlow, chunks: list[bytes], messages: Sequence[Any]) -> list[bytes]:
        """The row first: what came now waits for it (law 1), or does not go on at all."""
        facts = self._facts
        if facts is None:
            return chunks
        ids = map(rpc_id_of, (*messages, *_begun(self._reader.start)))
        named = next((rpc_id for rpc_id in ids if rpc_id is not None), None)
        if flow.request.method == "GET":
            named = None  # what comes on a stream of its own answers no request of this exchange
        now = replace(facts, time_us=now_us())
        ruling, asked = judge_answer(now, self._runtime.rooms, new_id, named)
        call = self._call = _begin_call(flow, facts, ruling, self._memory)
        call.due = list(ruling.records)
        rooms = self._runtime.rooms
        rooms.hygiene.tell(found_in(ruling, facts, rooms), self._runtime.finding)
        call.first_rpc_id = next((m.rpc_id for m in asked if m.rpc_id is not None), named)
        if ruling.answer is not None:
            self._refused = True
            if self.head_waits:
                self._answer = ruling.answer
                return []
            told = self._refusal(flow, call, ruling.answer)
            chunks = [told] if told is not None else []
            if told is None:
                # While its row is written nothing more of the exchange goes on, not even its end.
                asyncio.get_running_loop().call_soon(reply.cut, flow)
        else:
            call.response_bytes = self._passed + sum(map(len, chunks))
            self._note(call, messages)
        flow.metadata[HELD] = chunks
        return chunks

    def _refusal(self, flow: http.HTTPFlow, call: Call, answer: answers.Answer) -> bytes | None:
        """What can still be said to a client that got the server's head, in the form that it promised.

        Without an id nobody would take it for an answer, and half an answer is none: then the end of the
        connection has to say it.
        """
        coding = encodings_of(self._headers)
        streams = is_event_stream(self._headers)
        sound = not self._passed or (streams and self._between and coding != "gzip")
        asked = call.first_rpc_id is not None
        said = b"event: message\ndata: " + answer.body + b"\n\n" if streams else answer.body
        lengths = [value for name, value in self._headers if name.lower() == "content-length"]
        if lengths and lengths[0].isdigit():
            # The length is promised. JSON may end in spaces, and a stream in empty lines.
            room = int(lengths[0]) - self._passed
            sound = sound and len(said) <= room and coding != "gzip"
            said = said.ljust(room, b"\n" if streams else b" ") if sound else said
        elif streams:
            reply.abort(flow)  # it may never end; what is left of a body is swallowed
        if not asked or not sound or coding not in ("", "identity", "gzip"):
            return None
        return gzip.compress(said) if coding == "gzip" else said

    # -- an observed call ------------------------------------------------------------------------

    def _note(self, call: Call, messages: Sequence[dict[str, Any]]) -> None:
        """How requests ended, and what the server offers."""
        pending: dict[RpcId, Message] = {rpc_id: message for _, message, rpc_id in call.requests()}
        for message in messages:
            if "jsonrpc" in message and self._facts is not None:
                self._runtime.rooms.discovered.prove(spot_of(self._facts))
            found = pending_of(rpc_id_of(message), pending)
            signal = read_signal(message, found[1]) if found is not None else None
            if found is not None and signal is not None:
                call.settled.setdefault(key_of(found[0]), Settled(signal.outcome, signal.rpc_code))
            self._offered(call, message)
        endpoint = self._reader.endpoint
        if endpoint is not None and self._facts is not None:
            self._announced(endpoint)

    def _announced(self, endpoint: str) -> None:
        """The message URL of a 2024-11-05 stream speaks MCP as well, if it is the same server's."""
        self._reader.endpoint = None
        try:
            here, there = urlsplit(self._url), urlsplit(urljoin(self._url, endpoint))
        except ValueError:
            return
        if (here.scheme, here.netloc) == (there.scheme, there.netloc) and self._facts is not None:
            place = spot(self._facts.host, self._facts.port, there.path)
            self._runtime.rooms.discovered.prove(place)

    def _offered(self, call: Call, message: dict[str, Any]) -> None:
        """Tools in a list that were not seen before are told to the audit, once."""
        result = message.get("result")
        tools = result.get("tools") if isinstance(result, dict) else None
        if not isinstance(tools, list) or self._facts is None:
            return
        names = [
            tool["name"] for tool in tools if isinstance(tool, dict) and isinstance(tool.get("name"), str)
        ]
        record = call.records[0]
        path = shown_path(self._facts.path)
        fresh = self._runtime.rooms.discovered.new_tools(record.server, record.upstream, path, names)
        if fresh:
            where = {"server": record.server, "upstream": record.upstream, "path": path}
            # Each name in an object of its own: in a list, what follows a telling name is redacted.
            detail = {**where, "tools": [{"tool": name} for name in fresh]}
            self._runtime.writer.event(SERVER_SEEN, now_us(), detail)

    def _explain(self, call: Call) -> None:
        if self._reader.unread is not None and any(
            key_of(rpc_id) not in call.settled for _, _, rpc_id in call.requests()
        ):
            call.detail = self._reader.unread


def _worth_watching(facts: Facts, headers: Sequence[tuple[str, str]]) -> bool:
    """Whether an answer may be MCP, by its request and its head: a stream on a GET, or JSON-RPC's."""
    if not facts.body:
        return is_event_stream(headers)
    return may_get_rpc_answer(facts.http_method, facts.headers, facts.body)


def _let_be(flow: http.HTTPFlow) -> None:
    """Nobody looks at this answer any more."""
    if flow.response is not None:
        flow.response.stream = True


def _begun(start: bytes) -> list[dict[str, Any]]:
    """The messages in the beginning of an answer, as far as it is there."""
    text = start.decode("utf-8-sig", "replace").lstrip()
    return messages_in(completed(text).encode("utf-8", "surrogatepass"))


def _headers(response: http.Response) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name.decode("latin-1"), value.decode("latin-1").strip()) for name, value in response.headers.fields
    )
