"""The upstream of all measurements, a process of its own: answers at once, and streams of every kind.

The argument ``do`` of a call chooses the stream; without it the answer is a JSON result. GET is a stream
that says one thing and then nothing.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import time
from collections.abc import Callable, Coroutine
from typing import Any

RESULT = {"content": [{"type": "text", "text": "row " * 200}], "isError": False}
SESSION = "bench-session"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = STREAM + b"transfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
FIRST_AND_LAST = 0.2
"""Seconds between the two events of ``first``, so that one who buffers is found out."""

_sent: dict[str, list[int]] = {}
_asked: dict[str, asyncio.Future[Any]] = {}


def progress(number: int) -> bytes:
    """An event of about 200 bytes that nothing changes on its way."""
    params = {"progressToken": 1, "progress": number, "message": f"part {number:06d} of the work is done"}
    message = json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
    return f"id: {number}\nevent: message\ndata: {message}\n\n".encode()


def final(rpc_id: Any, result: dict[str, Any] | None = None) -> bytes:
    """The event with the result."""
    message = json.dumps({"jsonrpc": "2.0", "id": rpc_id, "result": result or RESULT})
    return f"event: message\ndata: {message}\n\n".encode()


def paced(rpc_id: Any, count: int) -> bytes:
    """All bytes of a paced stream."""
    return b"".join(map(progress, range(count))) + final(rpc_id)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Origin(asyncio.Protocol):
    """One connection. Requests come one after another; an answer ends before the next is read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(type(transport).__name__)
        self.transport = transport
        self.buffer = b""
        self.writable = asyncio.Event()
        self.writable.set()
        self.task: asyncio.Task[None] | None = None

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable.set()
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            mark = head.find(b"content-length:")
            length = int(head[mark + 15 :].split(b"\r\n", 1)[0]) if mark >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"get /sent"):
            self.json(_sent)
        elif head.startswith(b"get "):
            self.transport.write(CHUNKED + chunk(progress(0)))
        else:
            self.message(json.loads(body))

    def message(self, message: dict[str, Any]) -> None:
        rpc_id, method = message.get("id"), message.get("method")
        if method == "initialize":
            result = {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "bench", "version": "1"},
            }
            self.json({"jsonrpc": "2.0", "id": rpc_id, "result": result}, f"mcp-session-id: {SESSION}\r\n")
        elif method == "tools/call":
            arguments = message["params"]["arguments"]
            play = PLAYS.get(arguments.get("do"))
            if play is None:
                self.json({"jsonrpc": "2.0", "id": rpc_id, "result": RESULT})
            else:
                self.task = asyncio.get_running_loop().create_task(play(self, rpc_id, arguments))
        else:
            if method is None and (asked := _asked.pop(str(rpc_id), None)) is not None:
                asked.set_result(message.get("result"))
            self.transport.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")

    def json(self, message: Any, extra: str = "") -> None:
        body = json.dumps(message).encode()
        head = (
            f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{extra}content-length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)


# -- streams ------------------------------------------------------------------------------------


async def first(to: Origin, rpc_id: Any, arguments: dict[str, Any]) -> None:
    """One event at once, and the result later."""
    to.transport.write(CHUNKED + chunk(progress(0)))
    await asyncio.sleep(FIRST_AND_LAST)
    to.transport.write(chunk(final(rpc_id)) + END)


async def pace(to: Origin, rpc_id: Any, arguments: dict[str, Any]) -> None:
    """``count`` events ``every`` seconds apart, then the result. ``GET /sent`` tells the times."""
    sent = _sent[arguments["tag"]] = []
    to.transport.write(CHUNKED)
    start = time.monotonic()
    for number in range(arguments["count"]):
        await asyncio.sleep(start + number * arguments["every"] - time.monotonic())
        sent.append(time.monotonic_ns())
        to.transport.write(chunk(progress(number)))
    to.transport.write(chunk(final(rpc_id)) + END)


async def burst(to: Origin, rpc_id: Any, arguments: dict[str, Any]) -> None:
    """``count`` events as fast as they are taken; streams that run together take turns."""
    to.transport.write(CHUNKED)
    for number in range(arguments["count"]):
        to.transport.write(chunk(progress(number)))
        await to.writable.wait()
        await asyncio.sleep(0)
    to.transport.write(chunk(final(rpc_id)) + END)


async def ask(to: Origin, rpc_id: Any, arguments: dict[str, Any]) -> None:
    """Ask the person something on the stream of the call, and give the answer as the result."""
    name = arguments["tag"]
    _asked[name] = asyncio.get_running_loop().create_future()
    schema = {"type": "object", "properties": {"size": {"type": "string"}}, "required": ["size"]}
    question = {"mode": "form", "message": "Which size?", "requestedSchema": schema}
    message = {"jsonrpc": "2.0", "id": name, "method": "elicitation/create", "params": question}
    to.transport.write(CHUNKED + chunk(f"event: message\ndata: {json.dumps(message)}\n\n".encode()))
    said = await _asked[name]
    text = {"type": "text", "text": json.dumps(said)}
    to.transport.write(chunk(final(rpc_id, {"content": [text], "isError": False})) + END)


async def cut(to: Origin, rpc_id: Any, arguments: dict[str, Any]) -> None:
    """One whole event and a half, then the end of the connection in the way that ``how`` names."""
    how, half = arguments["how"], progress(1)[:60]
    if how == "no length":
        to.transport.write(STREAM + b"connection: close\r\n\r\n" + progress(0) + half)
    elif how == "inside a chunk":
        to.transport.write(CHUNKED + chunk(progress(0)) + b"%x\r\n%s" % (2 * len(half), half))
    else:
        to.transport.write(CHUNKED + chunk(progress(0)) + chunk(half))
    await asyncio.sleep(0.1)
    if how == "reset":
        raw: socket.socket = to.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        to.transport.abort()
    else:
        to.transport.close()


PLAYS: dict[str | None, Callable[[Origin, Any, dict[str, Any]], Coroutine[Any, Any, None]]] = {
    "first": first,
    "pace": pace,
    "burst": burst,
    "ask": ask,
    "cut": cut,
}


async def serve(cert: str) -> None:
    """Print the port, then serve until ended."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert)
    server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", 0, ssl=context, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
