"""A server that asks, with the official SDK on both sides: refused or not, nobody waits and nothing ends."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from mcp import Client, types
from mcp.client.sse import sse_client
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel
from starlette.applications import Starlette

from tests.e2e import harness as h
from tests.e2e.conversation import POLICY
from tests.e2e.warm import Warm


class Pick(BaseModel):
    """What the form asks for."""

    x: str


def asking() -> MCPServer[Any]:
    """A server whose tools ask, and tell what they got."""
    server: MCPServer[Any] = MCPServer("asking", log_level="ERROR")

    @server.tool(structured_output=False)
    async def ask_form(ctx: Context[Any, Any]) -> str:
        return str((await ctx.elicit("Which one?", Pick)).action)

    @server.tool(structured_output=False)
    async def ask_page(ctx: Context[Any, Any]) -> str:
        try:
            return str((await ctx.elicit_url("Log in", "https://evil.corp.example/a", "e1")).action)
        except MCPError as refused:
            return f"refused {refused.error.code}"

    return server


@contextmanager
def serving(app: Starlette, folder: Path, pki: h.Pki, listener: socket.socket) -> Iterator[None]:
    """The application over TLS, in a thread."""
    certificate = folder / "server.pem"
    pki.servers.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    config = uvicorn.Config(
        app, ssl_certfile=certificate, log_level="error", ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    try:
        h.wait_for(lambda: server.started, "the server serves")
        yield
    finally:
        server.should_exit = True
        thread.join(h.DEADLINE)


@pytest.fixture(scope="module", params=["streamable", "sse"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm
) -> Iterator[tuple[str, str, h.Proxy]]:
    """The transport, the server's URL, and a proxy in front of it."""
    folder = tmp_path_factory.mktemp("asking")
    made = asking()
    apps: dict[str, Starlette] = {
        "streamable": made.streamable_http_app(streamable_http_path="/mcp"),
        "sse": made.sse_app(sse_path="/mcp", message_path="/mcp/messages/"),
    }
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        serving(apps[request.param], folder, pki, listener),
    ):
        port = listener.getsockname()[1]
        rules = h.standard_rules(port, **{"policy.yaml": POLICY})
        proxy = h.WarmProxy(warm, folder, rules, ca=pki.ca, environ={"THINGS_SECRET": h.SECRET})
        with h.running(proxy):
            yield request.param, f"https://localhost:{port}/mcp", proxy


async def answer(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
    """The client's person says yes to everything."""
    return types.ElicitResult(action="accept", content={"x": "blue"})


async def test_questions_refused_or_not_leave_both_sides_of_the_sdk_alive(
    served: tuple[str, str, h.Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    transport, url, proxy = served
    monkeypatch.setenv("HTTPS_PROXY", f"http://alice:{h.mint(proxy)}@localhost:{proxy.port}")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("SSL_CERT_FILE", str(proxy.ca_cert))
    target: Any = sse_client(url) if transport == "sse" else url
    client = Client(target, mode="legacy", elicitation_callback=answer, read_timeout_seconds=10)
    got = []
    async with client:
        for name in ("ask_form", "ask_page", "ask_form"):
            result = await client.call_tool(name, {})
            got.append("".join(part.text for part in result.content if part.type == "text"))
    assert got == ["accept", "refused -40300", "accept"]
    h.wait_for(lambda: not proxy.rows("outcome = 'unknown'"), "every outcome")
    asked = proxy.rows("direction = 'server'")
    assert [(r["method"], r["verdict"], r["reason"], r["outcome"]) for r in asked] == [
        ("elicitation/create", "allow", "granted", "ok"),
        ("elicitation/create", "deny", "no_grant", "not_sent"),
        ("elicitation/create", "allow", "granted", "ok"),
    ]
    calls = proxy.rows("method = 'tools/call'")
    assert [(r["tool"], r["outcome"]) for r in calls] == [
        ("ask_form", "ok"), ("ask_page", "ok"), ("ask_form", "ok"),
    ]  # fmt: skip
    answers = proxy.rows("direction = 'client' and caused_by is not null")
    assert [r["caused_by"] for r in answers] == [r["event_id"] for r in asked]
    assert [(r["verdict"], r["reason"]) for r in answers] == [
        ("allow", "granted"), ("allow", "protocol"), ("allow", "granted"),
    ]  # fmt: skip
