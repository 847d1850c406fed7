"""One MCP server of the demo, as its own process: official SDK, TLS, one shared key, a record of what it saw.

Run as ``python -m callerid.cli.demo.server NAME --fd N --cert FILE --seen FILE``; the shared key comes in
the environment as DEMO_SHARED_KEY. With ``--callerid FILE``, which is what ``callerid jwks --json`` printed,
and ``--audience URL``, its own address, it also verifies who calls, and writes that down. It ends on
SIGTERM, SIGINT, or when its standard input is closed.
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
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from callerid.cli.demo import verifier

HEADERS: Mapping[str, tuple[str, str]] = {
    "tickets": ("authorization", "Bearer {}"),
    "warehouse": ("x-api-key", "{}"),
}
"""Server -> the one header that lets a caller in, and how its value is written."""

_TICKETS = {
    "T-1": "Printer on floor 3 is on fire",
    "T-2": "Printer on floor 2 wants to be on fire",
    "T-3": "Coffee machine speaks only YAML",
}


def tickets() -> MCPServer[Any]:
    """A ticket system."""
    server: MCPServer[Any] = MCPServer("tickets", log_level="WARNING")

    @server.tool(structured_output=False)
    def search_tickets(text: str) -> str:
        """Find tickets whose title contains the text."""
        found = [f"{key}: {title}" for key, title in _TICKETS.items() if text.lower() in title.lower()]
        return "\n".join(found) or "nothing found"

    @server.tool(structured_output=False)
    def read_ticket(id: str) -> str:
        """Read one ticket."""
        return _TICKETS.get(id, "no such ticket")

    @server.tool(structured_output=False)
    def close_ticket(id: str) -> str:
        """Close one ticket."""
        return f"{id} closed" if id in _TICKETS else "no such ticket"

    @server.tool(structured_output=False)
    def delete_ticket(id: str) -> str:
        """Delete one ticket for good."""
        return f"{id} deleted" if _TICKETS.pop(id, None) else "no such ticket"

    return server


def warehouse() -> MCPServer[Any]:
    """A data warehouse."""
    server: MCPServer[Any] = MCPServer("warehouse", log_level="WARNING")

    @server.tool(structured_output=False)
    def query(sql: str, limit: int) -> str:
        """Run a query and return at most ``limit`` rows."""
        return f"{min(limit, 3)} rows"

    @server.tool(structured_output=False)
    def export_rows(table: str) -> str:
        """Write a table to the export folder."""
        return f"{table} exported"

    @server.tool(structured_output=False)
    def drop_table(name: str) -> str:
        """Drop a table for good."""
        return f"{name} dropped"

    return server


KINDS: Mapping[str, Callable[[], MCPServer[Any]]] = {"tickets": tickets, "warehouse": warehouse}


class Doorman:
    """ASGI middleware: write down every request as it came, then let in only the shared key."""

    def __init__(
        self, app: ASGIApp, header: str, value: str, seen: Path, trust: Callable[[], verifier.Trust] | None
    ) -> None:
        self._app = app
        self._header = header.encode("latin-1")
        self._value = value.encode("latin-1")
        self._seen = seen
        self._trust = trust

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        presented = [value for name, value in scope["headers"] if name == self._header]
        known = len(presented) == 1 and hmac.compare_digest(presented[0], self._value)
        self._write_down(scope, body, known)
        if not known:
            await _refuse(send)
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    def _write_down(self, scope: Scope, body: bytes, known: bool) -> None:
        try:
            message = json.loads(body) if body else {}
        except ValueError:
            message = {}
        params = message.get("params") if isinstance(message, dict) else None
        method = message.get("method") if isinstance(message, dict) else None
        tool = params.get("name") if isinstance(params, dict) else None
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        line = {
            "http": f"{scope['method']} {scope['path']}",
            "method": method,
            "tool": tool,
            "shared_key": known,
            "caller": self._caller(headers, method, tool),
            "headers": headers,
            "query": scope["query_string"].decode("latin-1"),
            "body": body.decode("utf-8", "replace"),
        }
        with self._seen.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _caller(
        self, headers: Sequence[tuple[str, str]], method: str | None, tool: str | None
    ) -> dict[str, Any] | None:
        """Who it verifiably was, or what is wrong with the proof; None where nobody looks."""
        if self._trust is None:
            return None
        told = [value for name, value in headers if name == verifier.HEADER]
        return verifier.who_calls(told, self._trust(), method=method, tool=tool, now=int(time.time()))


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _refuse(send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": b"the shared key, please"})


class Server(uvicorn.Server):
    """uvicorn that says on stdout when it serves."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print("ready", flush=True)


def _leave_with_the_demo(server: Server) -> None:
    sys.stdin.buffer.read()
    server.should_exit = True


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=sorted(KINDS))
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--cert", type=Path, required=True)
    parser.add_argument("--seen", type=Path, required=True)
    parser.add_argument("--callerid", type=Path)
    parser.add_argument("--audience", default="")
    given = parser.parse_args()
    trust = partial(verifier.read_trust, given.callerid, given.audience) if given.callerid else None
    header, form = HEADERS[given.name]
    app = KINDS[given.name]().streamable_http_app()
    door = Doorman(app, header, form.format(os.environ["DEMO_SHARED_KEY"]), given.seen, trust)
    server = Server(
        uvicorn.Config(
            door,
            ssl_certfile=given.cert,
            lifespan="on",
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
    )
    threading.Thread(target=_leave_with_the_demo, args=(server,), daemon=True).start()
    asyncio.run(server.serve(sockets=[socket.socket(fileno=given.fd)]))


if __name__ == "__main__":
    main()
