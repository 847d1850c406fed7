"""The server that the official conformance suite asks for: fixed names, one behaviour for each scenario.

Written with the low-level server of the official SDK, because schemas must stand in the list to the letter.
Run as ``python -m tests.conformance.server --fd N [--cert PEM]``: it serves ``/mcp`` on the listening socket
N, says ``"ready"``, and ends when its standard input is closed.

It has neither the Tasks nor the Skills extension, which the SDK does not have either.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import threading
import warnings
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server.lowlevel.server import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPError

from tests.conformance.tools import BUS, PNG, TOOLS, Context, ask_once, call_tool, embedded, form, list_tools

# --- resources ---

RESOURCES = {
    "test://static-text": types.TextResourceContents(
        uri="test://static-text",
        mime_type="text/plain",
        text="This is the content of the static text resource.",
    ),
    "test://static-binary": types.BlobResourceContents(
        uri="test://static-binary", mime_type="image/png", blob=PNG
    ),
    "test://watched-resource": types.TextResourceContents(
        uri="test://watched-resource", mime_type="text/plain", text="watched"
    ),
}
BEFORE, AFTER = "test://template/", "/data"


async def list_resources(
    ctx: Context, params: types.PaginatedRequestParams | None
) -> types.ListResourcesResult:
    return types.ListResourcesResult(
        resources=[
            types.Resource(uri=uri, name=uri.removeprefix("test://"), mime_type=found.mime_type)
            for uri, found in RESOURCES.items()
        ]
    )


async def list_templates(
    ctx: Context, params: types.PaginatedRequestParams | None
) -> types.ListResourceTemplatesResult:
    template = f"{BEFORE}{{id}}{AFTER}"
    line = types.ResourceTemplate(name="data", uri_template=template, mime_type="application/json")
    return types.ListResourceTemplatesResult(resource_templates=[line])


async def read_resource(ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    if (found := RESOURCES.get(params.uri)) is not None:
        return types.ReadResourceResult(contents=[found])
    if params.uri.startswith(BEFORE) and params.uri.endswith(AFTER):
        which = params.uri.removeprefix(BEFORE).removesuffix(AFTER)
        said = json.dumps({"id": which, "templateTest": True, "data": f"Data for ID: {which}"})
        made = types.TextResourceContents(uri=params.uri, mime_type="application/json", text=said)
        return types.ReadResourceResult(contents=[made])
    raise MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": params.uri})


async def subscribe(ctx: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
    return types.EmptyResult()


async def unsubscribe(ctx: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
    return types.EmptyResult()


# --- prompts, completion, logging ---

PROMPTS: dict[str, tuple[str, ...]] = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
    "test_input_required_result_prompt": (),
}


async def list_prompts(ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
    return types.ListPromptsResult(
        prompts=[
            types.Prompt(
                name=name,
                description="A prompt for testing.",
                arguments=[types.PromptArgument(name=argument, required=True) for argument in arguments],
            )
            for name, arguments in PROMPTS.items()
        ]
    )


async def get_prompt(
    ctx: Context, params: types.GetPromptRequestParams
) -> types.GetPromptResult | types.InputRequiredResult:
    given = params.arguments or {}
    contents: list[types.ContentBlock]
    match params.name:
        case "test_simple_prompt":
            contents = [types.TextContent(text="This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            said = f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'"
            contents = [types.TextContent(text=said)]
        case "test_prompt_with_embedded_resource":
            uri = given.get("resourceUri", "test://example-resource")
            contents = [
                embedded(uri, "text/plain", "Embedded resource content for testing."),
                types.TextContent(text="Please process the embedded resource above."),
            ]
        case "test_prompt_with_image":
            contents = [
                types.ImageContent(data=PNG, mime_type="image/png"),
                types.TextContent(text="Please analyze the image above."),
            ]
        case "test_input_required_result_prompt":
            asked = ask_once(params, user_context=form("What context should the prompt use?", "context"))
            if asked is not None:
                return asked
            contents = [types.TextContent(text="This is a prompt with its context.")]
        case _:
            raise MCPError(types.INVALID_PARAMS, f"there is no prompt {params.name!r}")
    messages = [types.PromptMessage(role="user", content=content) for content in contents]
    return types.GetPromptResult(messages=messages)


async def complete(ctx: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
    values = [word for word in ("test one", "test two") if word.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))


async def set_level(ctx: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
    return types.EmptyResult()


# --- serving ---


class Kept(EventStore):
    """All events of this process, so that a stream can be resumed."""

    def __init__(self) -> None:
        self._events: list[tuple[StreamId, types.JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: StreamId, message: types.JSONRPCMessage | None) -> EventId:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(
        self, last_event_id: EventId, send_callback: EventCallback
    ) -> StreamId | None:
        last = int(last_event_id) if last_event_id.isdecimal() else 0
        if not 0 < last <= len(self._events):
            return None
        wanted = self._events[last - 1][0]
        for place, (stream_id, message) in enumerate(self._events[last:], start=last + 1):
            if stream_id == wanted and message is not None:
                await send_callback(EventMessage(message, str(place)))
        return wanted


def make_server() -> Server[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on_set_logging_level is deprecated, and asked for
        server: Server[Any] = Server(
            "callerid-conformance",
            version="1",
            get_tool_input_schema=lambda name: TOOLS[name].line.input_schema if name in TOOLS else None,
            on_list_tools=list_tools,
            on_call_tool=call_tool,
            on_list_resources=list_resources,
            on_list_resource_templates=list_templates,
            on_read_resource=read_resource,
            on_subscribe_resource=subscribe,
            on_unsubscribe_resource=unsubscribe,
            on_subscriptions_listen=ListenHandler(BUS),
            on_list_prompts=list_prompts,
            on_get_prompt=get_prompt,
            on_completion=complete,
            on_set_logging_level=set_level,
        )
    security = RequestStateSecurity.ephemeral()
    server.middleware.append(RequestStateBoundary(security, default_audience=server.name))
    return server


class Announced(uvicorn.Server):
    """uvicorn that says on stdout when it serves."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(json.dumps("ready"), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--cert")
    given = parser.parse_args()
    app = make_server().streamable_http_app(event_store=Kept(), retry_interval=100)
    running = Announced(
        uvicorn.Config(app, log_level="error", ssl_certfile=given.cert, timeout_graceful_shutdown=1)
    )

    def leave() -> None:
        sys.stdin.buffer.read()
        running.should_exit = True

    threading.Thread(target=leave, daemon=True).start()
    asyncio.run(running.serve(sockets=[socket.socket(fileno=given.fd)]))


if __name__ == "__main__":
    main()
