"""The answer of a forwarded exchange: headers cleaned, events filtered as they pass, the outcome kept."""

from __future__ import annotations

import json
import logging
import weakref
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from mitmproxy import ctx, http

from callerid.errors import StoreError
from callerid.mcp import answers, problems
from callerid.mcp.lists import FILTERED_METHODS
from callerid.mcp.methods import MODERN
from callerid.mcp.pipeline import AnswerPipeline
from callerid.mcp.sse import EventTooLarge
from callerid.model import DecisionRecord, Kind, Message, MessageType, Outcome, OutcomeRecord, Verdict
from callerid.proxy import answer_heads, http_answers, translate
from callerid.proxy.answering import pipeline_for
from callerid.proxy.calls import Call
from callerid.proxy.cleaning import clean_head
from callerid.proxy.conversations import Settled, key_of, settle
from callerid.proxy.elsewhere import answered, comes_later, release
from callerid.proxy.exchange import HELD, say
from callerid.proxy.findings import echoed, refused_upstream
from callerid.proxy.handles import Owner, Sort, handle
from callerid.proxy.runtime import Runtime, now_us

logger = logging.getLogger(__name__)


def open_answer(flow: http.HTTPFlow, call: Call, runtime: Runtime) -> None:
    """Decide from the response's head how its body goes on: streamed, whole, or replaced."""
    response = flow.response
    if response is None:
        return
    take_back(flow, call)
    response.stream = False
    if call.observed:
        response.stream = True
        return
    heads: dict[bytes, list[bytes]] = {}
    for name, value in response.headers.fields:
        heads.setdefault(name.lower(), []).append(value)
    problem = answer_heads.flaw(response, heads, call)
    if problem is not None:
        call.refusal, call.detail = Outcome.RESPONSE_REFUSED, problem
        abort(flow)  # its body may never end, and the caller is not to wait for it
        return
    if call.injection is not None and call.injection.shared and response.status_code in (401, 403):
        # Passed on, an SDK would start a personal OAuth login around the shared credential.
        call.refusal = Outcome.UPSTREAM_REFUSED_CREDENTIAL
        call.detail = f"the server answered {response.status_code} to the injected credential"
        logger.error("callerid: server %s refuses its shared credential", call.server and call.server.id)
        refused_upstream(call, runtime.rooms, runtime.finding, now_us())
        if call.injection.secret is not None and answer_heads.doubts_credential(response, heads):
            runtime.rooms.store.doubt(call.injection.secret.label)
        abort(flow)
        return
    if call.is_api:
        clean_head(response, call, runtime, now_us())
        call.pipeline = http_answers.PlainBody(
            lambda: runtime.rooms.store.scrubber, is_json=http_answers.is_json(response)
        )
        if not http_answers.is_held(flow.request, response):
            _stream(flow, call, runtime)
        return
    modern = any(message.protocol in MODERN for message in call.messages)
    if response.status_code < 400 and not call.session and not modern:
        _own(call, heads.get(b"mcp-session-id", ()), runtime)
    clean_head(response, call, runtime, now_us())
    call.pipeline = pipeline_for(flow, call, runtime)
    if any(message.method in FILTERED_METHODS for message in call.messages):
        _private(response)
    if any(answer_heads.is_stream(value) for value in heads.get(b"content-type", ())):
        _stream(flow, call, runtime)


def _own(call: Call, given: Iterable[bytes], runtime: Runtime) -> None:
    """The session that the server opened for this caller is this caller's (law 9)."""
    if call.caller is None or call.server is None:
        return
    rooms, server, subject = runtime.rooms, call.server.id, call.caller.principal.subject
    for raw in given:
        session = handle(Sort.SESSION, raw.decode("latin-1").strip())
        rooms.handles.claim(server, session, Owner(subject))
        call.opened = session
        call.conversation = rooms.conversations.of(server, session, subject)


def take_back(flow: http.HTTPFlow, call: Call) -> None:
    """Take the secret off the flow again, so that nothing that reads flows can find it."""
    if call.injection is not None:
        translate.take_back(flow, call.injection)


def _stream(flow: http.HTTPFlow, call: Call, runtime: Runtime) -> None:
    response = flow.response
    if response is None:
        return
    response.headers.pop("content-length", None)
    if flow.request.http_version == "HTTP/1.1":
        response.headers["transfer-encoding"] = "chunked"
    call.streaming, call.touched = True, monotonic()
    response.stream = _guarded_stream(flow, call)


def _guarded_stream(flow: http.HTTPFlow, call: Call) -> Callable[[bytes], list[bytes]]:
    """The stream callable with its own guard: a raising one would go on out of step (law 3)."""
    known = weakref.ref(flow)  # the flow holds its response, and so this callable

    def feed(data: bytes) -> list[bytes]:
        pipeline, here = call.pipeline, known()
        if call.refusal is not None or pipeline is None or here is None:
            return []
        call.touched = monotonic()
        if (
            not call.response_bytes
            and here.response is not None
            and answer_heads.is_wide(here.response, data)
        ):
            return _last(break_off(here, call, Outcome.RESPONSE_REFUSED, answer_heads.WIDE))
        try:
            chunks = pipeline.feed(data) if data else pipeline.end()
        except EventTooLarge:
            why = "the server sent too large an event"
            return _last(break_off(here, call, Outcome.RESPONSE_TOO_LARGE, why))
        except Exception as error:
            logger.exception("callerid: the answer stream could not be read and is cut")
            why = f"the event stream could not be read: {type(error).__name__}"
            return _last(break_off(here, call, Outcome.RESPONSE_REFUSED, why))
        if pipeline.unfinished:
            # Without a length the end of the connection is the end of the answer: it came too early.
            call.refusal, call.detail = Outcome.UPSTREAM_GONE, "the stream ended inside of an event"
            cut(here)
        if call.due:
            here.metadata[HELD] = chunks
        call.response_bytes += sum(map(len, chunks))
        return chunks

    return feed


def break_off(flow: http.HTTPFlow, call: Call, outcome: Outcome, detail: str) -> bytes:
    """End a stream that may not go on: close it upstream, and give back the event to end it with."""
    call.refusal, call.detail = outcome, detail
    abort(flow)
    if call.is_api:
        return b""  # the body is broken off: it has no place for words of ours
    event_id = call.records[0].event_id
    return answers.stream_error(call.first_rpc_id, event_id, "the server's stream was cut", outcome)


def _last(event: bytes) -> list[bytes]:
    """An empty chunk would end the answer as if it were whole."""
    return [event] if event else []


async def hold(flow: http.HTTPFlow, call: Call, runtime: Runtime) -> None:
    """What the server asks goes on once its rows are durable; without them the stream ends here (law 1)."""
    if not await _make_durable(call, runtime):
        flow.metadata[HELD] = [break_off(flow, call, Outcome.RESPONSE_REFUSED, "audit_unavailable")]


def forget_due(call: Call, due: Iterable[DecisionRecord]) -> None:
    """Questions without their rows were not shown: asked again, they are new. Nothing of it was given out."""
    call.settled.clear()
    if call.conversation is not None:
        call.conversation.unask(frozenset(record.event_id for record in due))


async def _make_durable(call: Call, runtime: Runtime) -> bool:
    due, call.due = tuple(call.due), []
    handed, call.handed = call.handed, []
    try:
        await runtime.record(due)
    except StoreError as error:
        logger.error("callerid: a server's question was refused without its row: %s", error)
        forget_due(call, due)
        return False
    for waiting in handed:
        settle(waiting, Settled(Outcome.INPUT_REQUIRED, None), now_us(), runtime.outcome)
    return True


def abort(flow: http.HTTPFlow) -> None:
    """Close the upstream side in mid-stream; mitmproxy has no public call for it (issue 4711)."""
    handler = _handler(flow)
    transport = handler.transports.get(flow.server_conn) if handler is not None else None
    if transport is not None and transport.handler is not None:
        transport.handler.cancel()


def cut(flow: http.HTTPFlow) -> None:
    """Close the client's connection in mid-stream (law 10)."""
    handler = _handler(flow)
    if handler is not None and flow.client_conn in handler.transports:
        handler.close_connection(flow.client_conn)


def _handler(flow: http.HTTPFlow) -> Any:
    proxyserver = ctx.master.addons.get("proxyserver")
    return proxyserver.connections.get(flow.client_conn.id) if proxyserver is not None else None


async def close_answer(flow: http.HTTPFlow, call: Call, runtime: Runtime) -> None:
    """The whole answer is here (or has been streamed): finish its body and write the outcome."""
    response = flow.response
    if response is None or call.observed:
        finish(flow, call, runtime)
        return
    response.trailers = None  # HTTP/2 has them, and they came after the head was cleaned
    if call.refusal is None and not call.streaming:
        await _judge_body(response, call, runtime)
    if call.refusal is not None and not call.streaming:
        await deliver(flow, call, unanswered(call))
    finish(flow, call, runtime, status=response.status_code)


async def _judge_body(response: http.Response, call: Call, runtime: Runtime) -> None:
    raw = response.raw_content or b""
    if answer_heads.is_wide(response, raw):
        call.refusal, call.detail = Outcome.RESPONSE_REFUSED, answer_heads.WIDE
        return
    body = call.pipeline.body(raw) if call.pipeline is not None else b""
    if call.due and not await _make_durable(call, runtime):
        call.refusal, call.detail = Outcome.RESPONSE_REFUSED, "audit_unavailable"
        return
    call.response_bytes = len(body)
    if body != raw:
        response.raw_content = body
        if "content-length" in response.headers:
            response.headers["content-length"] = str(len(body))


async def deliver(flow: http.HTTPFlow, call: Call, response: http.Response) -> None:
    """Answer a request in the place of its server: where its client reads answers.

    A client of 2024-11-05 reads them on its event stream: refused on the POST, it would wait for its
    timeout, and some lose the session. So the refusal is said on the stream, and the POST is accepted;
    nothing of a refused call goes to the server.
    """
    stream = call.conversation.live() if call.conversation is not None else None
    if stream is None or stream is flow or flow.request.method != "POST":
        flow.response = fitting(flow, response)
        return
    messages = _messages_of(response.raw_content or b"")
    own = {rpc_id for _, rpc_id in call.awaits}
    waited = (call.conversation.waiting.keys() if call.conversation is not None else set()) - own
    # What cannot be told under an id of its own is told on the POST: nobody waits for it on the stream.
    apart = bool(messages) and not any(message["id"] in waited for message in messages)
    if apart and await say(stream, b"".join(map(AnswerPipeline.say, messages))):
        flow.response = to_response(answers.ACCEPTED)
    else:
        flow.response = fitting(flow, response)


def _messages_of(body: bytes) -> list[Any]:
    """The answers in a body of ours that some request waits for."""
    made = json.loads(body) if body else []
    return [m for m in (made if isinstance(made, list) else [made]) if m.get("id") is not None]


def _private(response: http.Response) -> None:
    """A filtered list belongs to one caller: no shared cache may keep it."""
    for name in ("etag", "last-modified", "expires", "age"):
        response.headers.pop(name, None)
    response.headers["cache-control"] = "no-store"
    response.headers["vary"] = "Authorization, Proxy-Authorization"


def unanswered(
    call: Call, ended: Outcome = Outcome.RESPONSE_REFUSED, why: str = http_answers.NO_ANSWER
) -> http.Response:
    """The 502 for a call whose answer is not given out, or never came.

    ``ended`` and ``why`` are what its row says, unless the call itself knows better.
    """
    if call.is_api:
        return to_response(http_answers.unanswered(call, ended, why))
    event_id = call.records[0].event_id
    if call.refusal is Outcome.UPSTREAM_REFUSED_CREDENTIAL:
        return to_response(answers.upstream_refused_credential(call.first_rpc_id, event_id))
    detail, outcome = call.detail or why, call.refusal or ended
    return to_response(answers.upstream_unusable(call.first_rpc_id, event_id, detail, outcome))


def unusable(call: Call, detail: str) -> http.Response:
    """The 502 for an answer that a fault of ours keeps from the caller; ``detail`` is for the caller."""
    event_id = call.records[0].event_id
    if call.is_api:
        return to_response(problems.upstream_unusable(event_id, detail))
    return to_response(answers.upstream_unusable(call.first_rpc_id, event_id, detail))


def to_response(answer: answers.Answer) -> http.Response:
    """An ``Answer`` as mitmproxy's response."""
    headers = http.Headers(
        [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    )
    return http.Response.make(answer.status, answer.body, headers)


def fitting(flow: http.HTTPFlow, response: http.Response) -> http.Response:
    """The same answer as this request may have it: none to HEAD has a body (RFC 9110 section 9.3.2)."""
    if flow.request.method == "HEAD":
        response.raw_content = b""
    return response


def finish(
    flow: http.HTTPFlow,
    call: Call,
    runtime: Runtime,
    *,
    ended: Outcome | None = None,
    status: int | None = None,
    detail: str | None = None,
) -> None:
    """Write one outcome row per recorded message, once. ``ended`` overrides what the head says."""
    if call.finished or not call.allowed:
        return
    call.finished = True
    time_us = now_us()
    if ended is Outcome.NOT_SENT:
        release(call)
    answered(call, time_us, runtime.outcome)
    if call.pipeline is not None and call.pipeline.hits:
        echoed(call, runtime.rooms, runtime.finding, "in an answer", time_us)
    response = flow.response
    if status is None and response is not None and ended is not Outcome.NOT_SENT:
        status = response.status_code
    for record, message in zip(call.records, call.messages, strict=True):
        if record.verdict is not Verdict.ALLOW or comes_later(call, record, message, status, ended):
            continue
        rpc_id = message.rpc_id if message.type is MessageType.REQUEST else None
        settled = call.settled.get(key_of(rpc_id)) if rpc_id is not None else None
        outcome = settled.outcome if settled else call.refusal or ended or _from_status(status, message)
        runtime.outcome(
            OutcomeRecord(
                event_id=record.event_id,
                time_us=time_us,
                outcome=outcome,
                http_status=status,
                rpc_code=settled.rpc_code if settled else None,
                duration_us=time_us - record.time_us,
                response_bytes=call.response_bytes,
                detail=call.detail or (None if settled else detail),
                handle=(settled.handle if settled else None) or call.opened,
            )
        )
    if call.legacy and call.conversation is not None:
        for waiting in call.conversation.waiting.values():
            how = Settled(ended or Outcome.UPSTREAM_GONE, None)
            settle(waiting, how, time_us, runtime.outcome, "the event stream ended")
        call.conversation.waiting.clear()


def _from_status(status: int | None, message: Message) -> Outcome:
    if status is None:
        return Outcome.UPSTREAM_GONE
    if status >= 400:
        return Outcome.HTTP_ERROR
    if message.kind is Kind.HTTP:
        return Outcome.OK
    if message.type is MessageType.REQUEST:
        return Outcome.ACCEPTED if status == 202 else Outcome.UNANSWERED
    return Outcome.ACCEPTED if status == 202 else Outcome.OK
