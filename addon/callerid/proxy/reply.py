"""The answer of a forwarded exchange: headers cleaned, events filtered as they pass, the outcome kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

from mitmproxy import ctx, http

from callerid.credentials.binding import is_canonical
from callerid.mcp import answers
from callerid.mcp.outcomes import Signal
from callerid.mcp.pipeline import AnswerPipeline
from callerid.model import Kind, MessageType, Outcome, OutcomeRecord, RpcId
from callerid.proxy.calls import Call
from callerid.proxy.destination import split_authority
from callerid.proxy.runtime import Runtime, now_us
from callerid.proxy.sessions import handle

logger = logging.getLogger(__name__)

_DROP = frozenset((b"alt-svc", b"proxy-authenticate", b"proxy-connection", b"trailer"))
_LIST_METHODS = frozenset({"tools/list", "prompts/list", "resources/list", "resources/templates/list"})


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
    problem = _unusable(response, heads)
    if problem is not None:
        call.refusal, call.detail = Outcome.RESPONSE_REFUSED, problem
        abort(flow)  # its body may never end, and the caller is not to wait for it
        return
    if call.injection is not None and response.status_code in (401, 403):
        # Passed on, an SDK would start a personal OAuth login around the shared credential.
        call.refusal = Outcome.UPSTREAM_REFUSED_CREDENTIAL
        call.detail = f"the server answered {response.status_code} to the injected credential"
        logger.error("callerid: server %s refuses its shared credential", call.server and call.server.id)
        abort(flow)
        return
    if response.status_code < 400:
        given = (value.decode("latin-1").strip() for value in heads.get(b"mcp-session-id", ()))
        _own(call, (*call.handles, *map(handle, given)), runtime)
    _clean_headers(response, call, runtime)
    call.pipeline = _pipeline(flow.request.url, call, runtime)
    if any(message.method in _LIST_METHODS for message in call.messages):
        _private(response)
    kinds = (value.split(b";")[0].strip().lower() for value in heads.get(b"content-type", ()))
    if b"text/event-stream" in kinds:
        _stream(flow, call, runtime)


def _own(call: Call, handles: Iterable[str], runtime: Runtime) -> None:
    """What the server gave to this caller, or took from it, is this caller's (law 9)."""
    if call.caller is None or call.server is None:
        return
    for known_as in handles:
        runtime.rooms.sessions.claim(call.server.id, known_as, call.caller.principal.subject)


def take_back(flow: http.HTTPFlow, call: Call) -> None:
    """Take the secret off the flow again, so that nothing that reads flows can find it."""
    if call.injection is not None:
        name = call.injection.header.lower().encode("ascii")
        fields = flow.request.headers.fields
        placeholder = (name, f"[callerid:{call.injection.label}]".encode())
        flow.request.headers.fields = (*(f for f in fields if f[0].lower() != name), placeholder)


def _unusable(response: http.Response, heads: Mapping[bytes, list[bytes]]) -> str | None:
    if 100 <= response.status_code < 200:
        return f"the server answered with the interim status {response.status_code}"
    if any(coding.strip().lower() not in (b"", b"identity") for coding in heads.get(b"content-encoding", ())):
        return "the server compressed its answer although it was asked not to"
    return None


def _clean_headers(response: http.Response, call: Call, runtime: Runtime) -> None:
    scrubber = runtime.rooms.store.scrubber
    # A cookie that the server gives to the shared credential is not the caller's to keep.
    drop = _DROP | {b"set-cookie"} if call.injection is not None else _DROP
    fields = [field for field in response.headers.fields if field[0].lower() not in drop]
    if scrubber.holds(b"\n".join(part for field in fields for part in field)):
        cleaned = [(scrubber.scrub(name)[0], scrubber.scrub(value)[0]) for name, value in fields]
        fields = [field for field in cleaned if b" " not in field[0] and b"[" not in field[0]]
        logger.error("callerid: a server echoed its secret in a header; removed")
    response.headers.fields = tuple(fields)
    response.trailers = None
    if scrubber.holds(response.data.reason):
        response.reason = ""


def _pipeline(url: str, call: Call, runtime: Runtime) -> AnswerPipeline:
    """It must not hold the flow: the flow's call holds it. Rules are looked up anew for each event."""
    caller, server = call.caller, call.server

    def visible(kind: Kind, name: str) -> bool:
        if caller is None or server is None:
            return False
        now = datetime.now(UTC)
        return runtime.rooms.rules.engine.visible(caller=caller, server=server, kind=kind, name=name, now=now)

    def on_signal(signal: Signal) -> None:
        if signal.rpc_id in pending:
            call.settled[type(signal.rpc_id), signal.rpc_id] = (signal.outcome, signal.rpc_code)

    pending: Mapping[RpcId, str] = {
        message.rpc_id: message.method
        for message in call.messages
        if message.type is MessageType.REQUEST and message.rpc_id is not None
    }
    return AnswerPipeline(
        pending=pending,
        visible=visible,
        # Looked up anew each time: a secret that is rotated in must be known to streams already open.
        scrub_bytes=lambda raw: runtime.rooms.store.scrubber.scrub(raw),
        scrub_json=lambda value: runtime.rooms.store.scrubber.scrub_json(value),
        on_signal=on_signal,
        on_endpoint=lambda data: _endpoint(url, call, runtime, data),
    )


def _endpoint(url: str, call: Call, runtime: Runtime, data: str) -> str | None:
    """The message URL of a 2024-11-05 stream: same origin, canonical path, then governed and owned."""
    server = call.server
    if server is None:
        return None
    target = urlsplit(urljoin(url, data))
    authority = split_authority(target.netloc, target.scheme)
    if target.scheme != server.scheme or authority != (server.host, server.port):
        logger.error("callerid: server %s announced a message URL on another origin; dropped", server.id)
        return None
    if not is_canonical(target.path):
        return None
    runtime.rooms.servers.learn_endpoint(server, target.path)
    path = target.path + (f"?{target.query}" if target.query else "")
    _own(call, (handle(path),), runtime)
    return path if urlsplit(data).netloc else data


def _stream(flow: http.HTTPFlow, call: Call, runtime: Runtime) -> None:
    response = flow.response
    if response is None:
        return
    response.headers.pop("content-length", None)
    if flow.request.http_version == "HTTP/1.1":
        response.headers["transfer-encoding"] = "chunked"
    call.streaming = True
    response.stream = _guarded_stream(flow, call)


def _guarded_stream(flow: http.HTTPFlow, call: Call) -> Callable[[bytes], list[bytes]]:
    """The stream callable with its own guard: a raising one would go on out of step (law 3)."""

    def feed(data: bytes) -> list[bytes]:
        pipeline = call.pipeline
        if call.refusal is not None or pipeline is None:
            return []
        try:
            chunks = pipeline.feed(data) if data else pipeline.end()
        except Exception as error:
            logger.exception("callerid: the answer stream could not be read and is cut")
            call.refusal = Outcome.RESPONSE_REFUSED
            call.detail = f"the event stream could not be read: {type(error).__name__}"
            abort(flow)
            event_id = call.records[0].event_id
            return [answers.stream_error(call.first_rpc_id, event_id, "the server's stream was cut")]
        call.response_bytes += sum(map(len, chunks))
        return chunks

    return feed


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


def close_answer(flow: http.HTTPFlow, call: Call, runtime: Runtime) -> None:
    """The whole answer is here (or has been streamed): finish its body and write the outcome."""
    response = flow.response
    if response is None or call.observed:
        finish(flow, call, runtime)
        return
    if call.refusal is not None and not call.streaming:
        status = response.status_code
        _replace(flow, call)
        finish(flow, call, runtime, status=status)
        return
    if not call.streaming:
        raw = response.raw_content or b""
        body = call.pipeline.body(raw) if call.pipeline is not None else b""
        call.response_bytes = len(body)
        if body != raw:
            response.raw_content = body
            if "content-length" in response.headers:
                response.headers["content-length"] = str(len(body))
        if call.pipeline is not None and call.pipeline.hits:
            logger.error("callerid: a server echoed its secret in an answer; removed")
    finish(flow, call, runtime)


def _private(response: http.Response) -> None:
    """A filtered list belongs to one caller: no shared cache may keep it."""
    for name in ("etag", "last-modified", "expires", "age"):
        response.headers.pop(name, None)
    response.headers["cache-control"] = "no-store"
    response.headers["vary"] = "Authorization, Proxy-Authorization"


def _replace(flow: http.HTTPFlow, call: Call) -> None:
    flow.response = fitting(flow, unanswered(call))


def unanswered(call: Call) -> http.Response:
    """The 502 for a call whose answer is not given out, or never came."""
    event_id = call.records[0].event_id
    if call.refusal is Outcome.UPSTREAM_REFUSED_CREDENTIAL:
        return to_response(answers.upstream_refused_credential(call.first_rpc_id, event_id))
    detail = call.detail or "the connection to the server ended before there was a whole one"
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
    response = flow.response
    if status is None and response is not None and ended is not Outcome.NOT_SENT:
        status = response.status_code
    for record, message in zip(call.records, call.messages, strict=True):
        signal = None
        if message.rpc_id is not None and message.type is MessageType.REQUEST:
            signal = call.settled.get((type(message.rpc_id), message.rpc_id))
        outcome = call.refusal or (signal[0] if signal else ended or _from_status(status, message.type))
        why = call.detail or (None if signal else detail)
        runtime.outcome(
            OutcomeRecord(
                event_id=record.event_id,
                time_us=time_us,
                outcome=outcome,
                http_status=status,
                rpc_code=signal[1] if signal else None,
                duration_us=time_us - record.time_us,
                response_bytes=call.response_bytes,
                detail=why,
            )
        )


def _from_status(status: int | None, kind: MessageType) -> Outcome:
    if status is None:
        return Outcome.UPSTREAM_GONE
    if status >= 400:
        return Outcome.HTTP_ERROR
    if kind is MessageType.REQUEST:
        return Outcome.ACCEPTED if status == 202 else Outcome.UNANSWERED
    return Outcome.ACCEPTED if status == 202 else Outcome.OK
