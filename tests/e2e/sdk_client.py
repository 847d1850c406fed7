"""The official MCP SDK's client (or fastmcp's) as a process, doing what its standard input says.

Run as ``python -m tests.e2e.sdk_client [--fastmcp]``. It knows nothing of callerid: HTTPS_PROXY and
SSL_CERT_FILE do that, as for any program, except where a step names headers to send.

A step is a line of JSON on stdin, its result a line of JSON on stdout: ``{"ok": ...}`` or
``{"error": {"type", "code", "message", "data"}}``. ``open`` makes a session under a name, with the
environment of that moment and the revision to offer; every other step names its session in ``on``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
from fastmcp import Client as FastClient
from mcp import Client
from mcp.client import session as sdk_session
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

OFFER = "LATEST_HANDSHAKE_VERSION"
"""The client's constant for the revision to offer: it has no option for the older ones it can speak."""
NEWEST: str = getattr(sdk_session, OFFER)


def dumped(result: Any) -> Any:
    """A result of the SDK as JSON values."""
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)


def told(error: BaseException) -> dict[str, Any]:
    """What a program sees of an exception, its groups opened."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    made: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, MCPError):
        made |= {"code": error.error.code, "message": error.error.message, "data": error.error.data}
    return made


class Session:
    """One client in a task of its own: the SDK's scopes must be left in the task that entered them."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._steps: asyncio.Queue[tuple[dict[str, Any], asyncio.Future[Any]] | None] = asyncio.Queue()
        self._opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live())

    async def opened(self) -> Any:
        return await self._opened

    async def ask(self, step: dict[str, Any]) -> Any:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        await self._steps.put((step, done))
        return await done

    async def close(self) -> None:
        await self._steps.put(None)
        await self._task

    async def _live(self) -> None:
        try:
            async with self._make() as client:
                self._opened.set_result(_greeting(client))
                while (item := await self._steps.get()) is not None:
                    step, done = item
                    try:
                        done.set_result(await STEPS[step["do"]](client, step))
                    except Exception as error:  # a step that fails is a result
                        done.set_exception(error)
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)


def _greeting(client: Any) -> dict[str, Any]:
    if isinstance(client, FastClient):
        return {}
    return {"protocol": client.protocol_version, "instructions": client.instructions}


async def _list(client: Any, step: dict[str, Any]) -> Any:
    if isinstance(client, FastClient):
        return [tool.name for tool in await client.list_tools()]
    what = step.get("what", "tools")
    listed = await getattr(client, f"list_{what}")(cache_mode="bypass")
    return [str(getattr(entry, "uri" if what == "resources" else "name")) for entry in getattr(listed, what)]


async def _call(client: Any, step: dict[str, Any]) -> Any:
    if isinstance(client, FastClient):
        result = await client.call_tool(step["tool"], step["arguments"], raise_on_error=False)
        return {"text": _text(result.content), "isError": result.is_error}
    result = await client.call_tool(step["tool"], step["arguments"], read_timeout_seconds=step.get("timeout"))
    return {
        "text": _text(result.content),
        "isError": bool(result.is_error),
        "structured": result.structured_content,
    }


def _text(content: Any) -> str:
    return "\n".join(part.text for part in content if part.type == "text")


async def _call_gated(client: Any, step: dict[str, Any]) -> Any:
    """Call ``wait_for``; its gate is opened by the progress that it reports, so that must come first."""
    heard: list[str] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append(f"progress {progress:g}/{total or 0:g} {message}")
        await client.call_tool("open_gate", {"gate": step["gate"]})

    result = await client.call_tool("wait_for", {"gate": step["gate"]}, progress_callback=on_progress)
    return [*heard, _text(result.content)]


async def _call_and_leave(client: Any, step: dict[str, Any]) -> Any:
    """Call ``wait_for`` and give the call up once it has reported progress."""
    under_way = asyncio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        under_way.set()

    call = asyncio.create_task(
        client.call_tool("wait_for", {"gate": step["gate"]}, progress_callback=on_progress)
    )
    waiting = asyncio.create_task(under_way.wait())
    await asyncio.wait((call, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    call.cancel()
    try:
        await call
    except asyncio.CancelledError:
        return "left"
    return "answered"


async def _read(client: Any, step: dict[str, Any]) -> Any:
    return dumped(await client.read_resource(step["uri"]))["contents"][0]["text"]


async def _prompt(client: Any, step: dict[str, Any]) -> Any:
    result = await client.get_prompt(step["name"], step.get("arguments", {}))
    return dumped(result)["messages"][0]["content"]["text"]


STEPS: dict[str, Callable[[Any, dict[str, Any]], Awaitable[Any]]] = {
    "list": _list,
    "call": _call,
    "call_gated": _call_gated,
    "call_and_leave": _call_and_leave,
    "read": _read,
    "prompt": _prompt,
}


def _maker(step: dict[str, Any], fast: bool) -> Callable[[], Any]:
    """How to make the client of an ``open`` step; run once the environment is set."""
    url, headers, mode = step["url"], step.get("headers"), step.get("mode", "auto")
    if fast:
        return lambda: FastClient(url)
    if mode == "sse":
        return lambda: Client(sse_client(url, headers=headers), mode="legacy", read_timeout_seconds=20)

    def make() -> Client:
        target: Any = url
        if headers:
            target = streamable_http_client(url, http_client=httpx2.AsyncClient(headers=headers, timeout=20))
        return Client(target, mode=mode, read_timeout_seconds=20)

    return make


class Program:
    """The sessions by name."""

    def __init__(self, fast: bool) -> None:
        self._fast = fast
        self._sessions: dict[str, Session] = {}

    async def perform(self, step: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": await self._perform(step)}
        except Exception as error:  # the test judges what a program sees, whatever it is
            return {"error": told(error)}

    async def _perform(self, step: dict[str, Any]) -> Any:
        if step["do"] == "open":
            os.environ.update(step.get("environ", {}))
            setattr(sdk_session, OFFER, step.get("offer", NEWEST))
            session = Session(_maker(step, self._fast))
            greeting = await session.opened()
            self._sessions[step["on"]] = session
            return greeting
        session = self._sessions[step["on"]]
        if step["do"] == "close":
            del self._sessions[step["on"]]
            return await session.close()
        return await session.ask(step)


async def run(fast: bool) -> None:
    """Perform the steps on stdin until it ends."""
    program = Program(fast)
    print(json.dumps({"ready": True}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await program.perform(json.loads(line))), flush=True)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fastmcp", action="store_true")
    asyncio.run(run(parser.parse_args().fastmcp))


if __name__ == "__main__":
    main()
