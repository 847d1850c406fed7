"""The client that the official conformance suite starts: the official SDK's, trying all that it is offered.

The suite runs ``python -m tests.conformance.client URL``, or what is quicker (``warm.py``), with the
scenario's revision and context in the environment. It connects, lists everything, calls every tool, reads
every resource and gets every prompt: that is what each scenario wants to see; what is particular to one
comes in its context. It logs in where the server asks for it. It knows nothing of callerid: HTTP_PROXY does
that, as for any program.

With CONFORMANCE_RELAY=PORT:FILE the port of the URL is written to FILE and PORT is called instead: callerid
must know the address of a server beforehand, and the suite takes another for every scenario (``relay.py``).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)
from mcp.shared.exceptions import MCPError

REDIRECT = "http://localhost:3999/callback"
METADATA_DOCUMENT = "https://conformance-test.local/client-metadata.json"
SAMPLES: Mapping[str, Any] = {
    "string": "text",
    "number": 1.5,
    "integer": 3,
    "boolean": True,
    "array": [],
    "object": {},
}


# --- logging in ---


class Memory:
    """Tokens and registrations, for one run."""

    def __init__(self, known: OAuthClientInformationFull | None) -> None:
        self._client, self._tokens = known, None

    async def get_tokens(self) -> OAuthToken | None:
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self._client = client_info


class Browser:
    """Follows the authorization URL, as a person's browser would, and keeps where it was sent."""

    def __init__(self) -> None:
        self._sent_to = ""

    async def go(self, url: str) -> None:
        async with httpx2.AsyncClient(timeout=20) as http:
            self._sent_to = (await http.get(url, follow_redirects=False)).headers["location"]

    async def back(self) -> AuthorizationCodeResult:
        found = {name: values[0] for name, values in parse_qs(urlsplit(self._sent_to).query).items()}
        return AuthorizationCodeResult(code=found["code"], state=found.get("state"), iss=found.get("iss"))


def login(url: str, context: Mapping[str, Any]) -> OAuthClientProvider:
    known = None
    if "client_id" in context:
        known = OAuthClientInformationFull(
            client_id=context["client_id"],
            client_secret=context.get("client_secret"),
            redirect_uris=[REDIRECT],
            token_endpoint_auth_method="client_secret_basic",
            issuer=context.get("issuer"),
        )
    browser = Browser()
    return OAuthClientProvider(
        url,
        OAuthClientMetadata(client_name="callerid-conformance", redirect_uris=[REDIRECT]),
        Memory(known),
        redirect_handler=browser.go,
        callback_handler=browser.back,
        client_metadata_url=METADATA_DOCUMENT,
    )


# --- what the server may ask of the client ---


async def elicited(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
    """Accept, with each field's default, or a value of its type."""
    fields = getattr(params, "requested_schema", {}).get("properties", {})
    content = {name: field.get("default", SAMPLES.get(field.get("type"))) for name, field in fields.items()}
    return types.ElicitResult(action="accept", content=content)


async def sampled(context: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    content = types.TextContent(text="sampled")
    return types.CreateMessageResult(role="assistant", content=content, model="none")


async def rooted(context: Any) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri="file:///conformance")])


# --- trying everything ---


def arguments(schema: Mapping[str, Any], tools: Mapping[str, types.Tool]) -> dict[str, Any]:
    """A value for each required argument; one that is called ``schema`` gets that of the other tool."""
    fields = schema.get("properties", {})
    kinds = {name: fields.get(name, {}).get("type") for name in schema.get("required", ())}
    given = {name: SAMPLES.get(kind, "text") for name, kind in kinds.items()}
    if "schema" in fields:
        given["schema"] = next(t.input_schema for t in tools.values() if t.input_schema is not schema)
    return given


async def attempt(what: Any) -> Any:
    """The result, or None: one refusal must not end the tour."""
    try:
        return await what
    except (MCPError, ValueError) as error:  # pydantic says ValueError of an answer that is none
        print(error, file=sys.stderr)
        return None


async def tour(client: Client, context: Mapping[str, Any]) -> None:
    listed = await attempt(client.list_tools())
    tools = {tool.name: tool for tool in listed.tools} if listed else {}
    calls = context.get("toolCalls") or [
        {"name": name, "arguments": arguments(tool.input_schema, tools)} for name, tool in tools.items()
    ]
    for call in calls:
        await attempt(client.call_tool(call["name"], call["arguments"]))
    offered = client.server_capabilities
    if offered.resources is not None and (resources := await attempt(client.list_resources())):
        for resource in resources.resources:
            await attempt(client.read_resource(resource.uri))
    if offered.prompts is not None and (prompts := await attempt(client.list_prompts())):
        for prompt in prompts.prompts:
            await attempt(client.get_prompt(prompt.name, {}))


def address(url: str) -> str:
    """The URL to call; see the module's text on CONFORMANCE_RELAY."""
    relay = os.environ.get("CONFORMANCE_RELAY")
    if relay is None:
        return url
    port, _, file = relay.partition(":")
    parts = urlsplit(url)
    Path(file).write_text(str(parts.port))
    return parts._replace(netloc=f"localhost:{port}").geturl()


async def main(given: str) -> None:
    """One scenario, against the server at the URL ``given``."""
    url = address(given)
    modern = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "") >= "2026-07-28"
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    secured = os.environ.get("MCP_CONFORMANCE_SCENARIO", "").startswith("auth/")
    http = httpx2.AsyncClient(timeout=30, auth=login(url, context) if secured else None)
    async with http:
        client = Client(
            streamable_http_client(url, http_client=http),
            mode="auto" if modern else "legacy",
            elicitation_callback=elicited,
            sampling_callback=sampled,
            list_roots_callback=rooted,
            read_timeout_seconds=20,
        )
        async with client:
            await tour(client, context)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
