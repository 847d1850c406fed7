"""Official MCP SDK servers as one process: each way to serve over HTTP, TLS, one shared secret, a record.

Run as ``python -m tests.e2e.sdk_server --fd N --cert FILE --seen FILE``; the shared secret comes in the
environment as THINGS_SECRET. Prints ``ready`` and serves until its standard input is closed.

``/stateful/mcp`` sessions, answers as events; ``/json/mcp`` sessions, answers as JSON; ``/stateless/mcp``
and ``/stateless-json/mcp`` the same without sessions; ``/old/sse`` the transport of 2024-11-05.

Each request is a line of the record *before* it is answered, and so is a tool call that was cancelled.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import os
import socket
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send


class Size(BaseModel):
    """What ``measure`` gives as structured output."""

    width: int
    height: int


class Color(BaseModel):
    """What ``ask_color`` asks for."""

    answer: str


def things(gates: dict[str, asyncio.Event], note: Callable[[dict[str, Any]], None]) -> MCPServer[Any]:
    """One server with a tool, resource or prompt for each thing that the tests want to see."""
    server: MCPServer[Any] = MCPServer("things", instructions="Ask for things.", log_level="ERROR")

    @server.tool(structured_output=False)
    def read_thing(name: str) -> str:
        """Read a thing."""
        return f"thing {name}"

    @server.tool(structured_output=False)
    def drop_thing(name: str) -> str:
        """Drop a thing for good."""
        return f"dropped {name}"

    @server.tool(structured_output=False)
    def query(limit: int) -> str:
        """Ask for at most ``limit`` things."""
        return f"{limit} things"

    @server.tool()
    def measure(name: str) -> Size:
        """Measure a thing."""
        return Size(width=3, height=len(name))

    @server.tool(structured_output=False)
    def break_thing(name: str) -> str:
        """Raise."""
        raise ValueError(f"{name} fell apart")

    @server.tool(structured_output=False)
    async def wait_for(gate: str, ctx: Context[Any, Any]) -> str:
        """Report progress, then wait until ``open_gate`` opens the gate."""
        try:
            await ctx.report_progress(1, 2, "waiting")
            await gates[gate].wait()
        except asyncio.CancelledError:
            note({"cancelled": gate})
            raise
        return f"gate {gate} opened"

    @server.tool(structured_output=False)
    def open_gate(gate: str) -> str:
        """Let ``wait_for`` go on."""
        gates[gate].set()
        return "opened"

    @server.tool(structured_output=False)
    async def ask_color(ctx: Context[Any, Any]) -> str:
        """Ask the person for a colour."""
        try:
            given = await ctx.elicit(message="Which colour?", schema=Color)
        except MCPError as error:
            return f"refused: {error.error.message}"
        return f"{given.action}: {given.data.answer if given.action == 'accept' else ''}"

    @server.resource("thing://public/readme")
    def readme() -> str:
        return "read me"

    @server.resource("thing://secret/plan")
    def plan() -> str:
        return "the plan"

    @server.prompt()
    def greet(name: str) -> str:
        return f"Say hello to {name}"

    @server.prompt()
    def hidden_prompt() -> str:
        return "hidden"

    return server


class Doorman:
    """Write down every request as it came, then let in only who has the shared secret."""

    def __init__(
        self, apps: dict[str, Starlette], secret: str, note: Callable[[dict[str, Any]], None]
    ) -> None:
        self._apps = apps
        self._value = f"Bearer {secret}".encode("latin-1")
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        body = await _read(receive)
        presented = [value for name, value in scope["headers"] if name == b"authorization"]
        known = len(presented) == 1 and hmac.compare_digest(presented[0], self._value)
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
        self._note(
            {
                "http": scope["method"],
                "path": scope["path"],
                "query": scope["query_string"].decode("latin-1"),
                "headers": headers,
                "body": body.decode("utf-8", "replace"),
                "known": known,
            }
        )
        app = self._apps.get(scope["path"].split("/")[1])
        if not known or app is None:
            status = 404 if known else 401
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": b"no"})
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await app(scope, replay, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """The session managers live in the applications' lifespans, which nobody else runs."""
        await receive()
        async with AsyncExitStack() as stack:
            for app in self._apps.values():
                await stack.enter_async_context(app.router.lifespan_context(app))
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


class Server(uvicorn.Server):
    """uvicorn that says on stdout when it serves."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(json.dumps({"ready": True}), flush=True)


def applications(note: Callable[[dict[str, Any]], None]) -> dict[str, Starlette]:
    """The applications by the first segment of their path."""
    gates: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
    made: dict[str, Starlette] = {}
    for name, stateless, as_json in (
        ("stateful", False, False),
        ("json", False, True),
        ("stateless", True, False),
        ("stateless-json", True, True),
    ):
        made[name] = things(gates, note).streamable_http_app(
            streamable_http_path=f"/{name}/mcp", stateless_http=stateless, json_response=as_json
        )
    made["old"] = things(gates, note).sse_app(sse_path="/old/sse", message_path="/old/messages/")
    return made


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--cert", type=Path, required=True)
    parser.add_argument("--seen", type=Path, required=True)
    given = parser.parse_args()
    record = given.seen.open("a", encoding="utf-8", buffering=1)

    def note(line: dict[str, Any]) -> None:
        record.write(json.dumps(line) + "\n")

    door = Doorman(applications(note), os.environ["THINGS_SECRET"], note)
    config = uvicorn.Config(
        door, ssl_certfile=given.cert, lifespan="on", log_level="error", timeout_graceful_shutdown=1
    )
    server = Server(config)

    def leave() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=leave, daemon=True).start()
    asyncio.run(server.serve(sockets=[socket.socket(fileno=given.fd)]))


if __name__ == "__main__":
    main()
