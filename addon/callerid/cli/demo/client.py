"""One MCP client of the demo, as its own process: the official SDK, doing what its standard input says.

It knows the servers' addresses and nothing of a proxy: HTTPS_PROXY and SSL_CERT_FILE in its environment
do all of that, as they do for any program. What is presented beyond them comes in the environment too:
DEMO_CLIENT_CERT (a PEM with key and certificate) or DEMO_BEARER (for the Authorization header).

A step is a line of JSON on stdin: ``{"do": "list"|"call", "server": NAME, "tool": .., "arguments": ..}``.
Each gives one line of JSON on stdout: ``{"tools": [..]}``, ``{"text": .., "is_error": ..}`` or
``{"error": ..}``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import sys
import traceback
from contextlib import AsyncExitStack
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

READ_SECONDS = 15.0


class Caller:
    """The connections of one client, made when a server is first used."""

    def __init__(self, stack: AsyncExitStack, servers: dict[str, str], mode: str) -> None:
        self._stack = stack
        self._servers = servers
        self._mode = mode
        self._open: dict[str, Client] = {}

    async def perform(self, step: dict[str, Any]) -> dict[str, Any]:
        """Do one step; what goes wrong is an answer too."""
        try:
            client = await self._client(step["server"])
            if step["do"] == "list":
                return {"tools": [tool.name for tool in (await client.list_tools(cache_mode="bypass")).tools]}
            result = await client.call_tool(step["tool"], step["arguments"])
        except Exception as error:  # the demo shows and checks what a client sees, whatever it is
            return {"error": _words(error)}
        text = "\n".join(part.text for part in result.content if isinstance(part, TextContent))
        return {"text": text, "is_error": bool(result.is_error)}

    async def _client(self, name: str) -> Client:
        if name not in self._open:
            client = Client(self._target(name), mode=self._mode, read_timeout_seconds=READ_SECONDS)
            self._open[name] = await self._stack.enter_async_context(client)
        return self._open[name]

    def _target(self, name: str) -> Any:
        """The URL alone for who needs nothing else, or the SDK's transport over an own HTTP client."""
        url = self._servers[name]
        certificate, bearer = os.environ.get("DEMO_CLIENT_CERT"), os.environ.get("DEMO_BEARER")
        if certificate:
            context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
            context.load_cert_chain(certificate)
            return streamable_http_client(url, http_client=httpx2.AsyncClient(verify=context))
        if bearer:
            headers = {"Authorization": f"Bearer {bearer}"}
            return streamable_http_client(url, http_client=httpx2.AsyncClient(headers=headers))
        return url


def _words(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_words(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {error}"


async def run(servers: dict[str, str], mode: str) -> None:
    """Perform the steps on stdin until it ends."""
    async with AsyncExitStack() as stack:
        caller = Caller(stack, servers, mode)
        print(json.dumps({"ready": True}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await caller.perform(json.loads(line))), flush=True)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", action="append", required=True, metavar="NAME=URL")
    parser.add_argument("--mode", default="auto", help="auto, or a protocol revision to speak at once")
    given = parser.parse_args()
    try:
        asyncio.run(run(dict(item.split("=", 1) for item in given.server), given.mode))
    except BaseExceptionGroup as group:  # broken outside of any step; the last line is quoted
        traceback.print_exception(group)
        sys.exit(_words(group))


if __name__ == "__main__":
    main()
