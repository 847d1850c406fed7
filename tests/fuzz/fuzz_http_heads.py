"""Heads of HTTP/1 requests, through the reader that the product uses: one value a header, or a refusal."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st
from mitmproxy import connection, ctx, http, options
from mitmproxy.net.http.validate import validate_headers
from mitmproxy.proxy import commands, context, events
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestHeaders

from callerid.mcp import headers
from callerid.mcp.classify import classify
from callerid.model import Exchange
from callerid.proxy import engine, translate
from callerid.proxy.calls import ClientState
from tests.fuzz.mutations import damaged

BODY = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}'
LINES = [
    b"POST /mcp HTTP/1.1", b"GET /mcp HTTP/1.1", b"POST http://things.corp.example/mcp HTTP/1.1",
    b"POST HTTPS://Things.corp.example:443/mcp HTTP/1.1", b"POST  /mcp\tHTTP/1.1", b"POST /mcp HTTP/1.0",
    b"POST /mcp", b"CONNECT things.corp.example:443 HTTP/1.1", b"POST /m\xc3\xa9\xff HTTP/1.1",
    b"POST http://[::1]:99999/ HTTP/1.1", b"POST http://a@b/ HTTP/1.1", b"POST * HTTP/1.1",
    b"post /mcp HTTP/9.9", b"POST ftp://x/ HTTP/1.1", b"\x16\x03\x01",
]  # fmt: skip
FIELDS = [
    b"Host: things.corp.example", b"host: other.corp.example", b"Host : x", b"Host:",
    b"HOST:\tthings.corp.example \t", b"Content-Type: application/json", b"content-type: text/plain",
    b"Content_Type: application/json", b"Mcp-Method: tools/call", b"mcp-method: tools/list",
    b"Mcp_Method: x", b"MCP-METHOD:tools/call", b"Mcp-Name: a", b"Mcp-Name: =?base64?YQ==?=",
    b"MCP-Protocol-Version: 2025-06-18", b"Mcp-Protocol-Version: 2026-07-28", b"Mcp-Session-Id: s",
    b"mcp-session-id: t", b"Mcp-Param-A: 1", b"mcp-param-a: 2", b"Mcp-Param-\xff: 2", b"Content-Length: 68",
    b"Content-Length: +68", b"content-length: 0", b"Content-Length: 6 8", b"Content-Length: 68, 68",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked, identity", b"transfer-encoding: xchunked",
    b"Content-Encoding: gzip", b"Authorization: Bearer x", b"authorization: Basic y",
    b"Proxy-Authorization: Basic z", b"X-Callerid-Token: t", b"Upgrade: websocket", b"Connection: close",
    b"X: a\rHost: evil", b"X: \0", b"X: \xff\xc3\xa9", b" folded: x", b"\tMcp-Method: tools/list",
    b": empty", b"no colon", b"\x0bX: 1", b"X\x00: 1", b"K\xe2\x84\xaa: 1", b"X: " + b"a" * 9000,
    b"Expect: 100-continue", b"Accept: application/json, text/event-stream",
]  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> bytes:
    """A request line, fields, an empty line and a body, with line ends of one or of all kinds."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    ends = rng.choice([[b"\r\n"], [b"\r\n"], [b"\n"], [b"\r\n", b"\n"], [b"\r\n", b"\n", b"\r", b"\r\r\n"]])
    lines = [
        draw(st.sampled_from([*LINES[:3] * 5, *LINES])),
        *draw(st.lists(st.sampled_from(FIELDS), max_size=7)),
    ]
    raw = b"".join(line + rng.choice(ends) for line in lines) + rng.choice(ends) + BODY
    if rng.random() < 0.1:
        raw = b"".join(rng.choice(ends) for _ in range(rng.randint(1, 6))) + raw
    return damaged(rng, raw, [*LINES, *FIELDS, *ends]) if rng.random() < 0.35 else raw


def check(data: bytes) -> None:
    """Never an exception; where readers must agree there is one value, that of the bytes."""
    request = read([data])
    places = random.Random(zlib.crc32(data)).sample(range(len(data) + 1), min(3, len(data) + 1))
    for place in places:
        assert told(read([data[:place], data[place:]])) == told(request)
    if request is None:
        return
    found = facts(request)
    once = headers.read_once(found.headers)
    said = classify(found.http_method, found.headers, BODY)
    if isinstance(once, str):
        assert once.isprintable()
        assert not isinstance(said, Exchange)
        return
    raw = list(fields(data))
    for name in headers.SINGLE:
        lines = [
            value for spelled, value in raw if spelled.lower().strip().replace(b"_", b"-") == name.encode()
        ]
        assert len(lines) <= 1
        assert [once[name].encode("utf-8", "surrogateescape")] == lines if name in once else not lines
    assert not any(sign in value for _, value in found.headers for sign in "\r\n\0")
    assert [name.lower() for name, _ in found.headers].count("host") <= 1


def fields(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The header lines as they stand in the bytes, nothing joined and nothing taken for granted."""
    head = data.replace(b"\r\n", b"\n").lstrip(b"\n").partition(b"\n\n")[0]
    for line in head.split(b"\n")[1:]:
        name, _, value = line.partition(b":")
        yield name, value.strip()


def read(chunks: list[bytes]) -> http.Request | None:
    """The request that mitmproxy's reader, with our bounds, makes of the bytes; None if it refuses them."""
    client = connection.Client(peername=("192.0.2.1", 1), sockname=("192.0.2.2", 8080), timestamp_start=0.0)
    client.state = connection.ConnectionState.OPEN
    reader = engine._Server(context.Context(client, _options()))
    requests: list[http.Request] = []
    for event in (events.Start(), *(events.DataReceived(client, chunk) for chunk in chunks)):
        for command in reader.handle_event(event):
            if isinstance(command, ReceiveHttp) and isinstance(command.event, RequestHeaders):
                requests.append(command.event.request)
            if isinstance(command, commands.CloseConnection):
                return None
    if not requests:
        return None
    try:
        validate_headers(requests[0])
    except ValueError:
        return None
    return requests[0]


def told(request: http.Request | None) -> Any:
    """A request without its times."""
    if request is None:
        return None
    data = request.data
    return data.method, data.scheme, data.authority, data.host, data.port, data.path, data.headers.fields


def facts(request: http.Request) -> Any:
    """What the enforcer is told of it."""
    client = connection.Client(peername=("192.0.2.1", 1), sockname=("192.0.2.2", 8080), timestamp_start=0.0)
    flow = http.HTTPFlow(client, connection.Server(address=None))
    flow.request = request
    ctx.options = _options()
    try:
        return translate.facts(flow, ClientState())
    finally:
        del ctx.options


def _options() -> options.Options:
    return _OPTIONS


_OPTIONS = options.Options()
