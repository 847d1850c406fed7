"""The tools that the official conformance suite calls: fixed names, one behaviour for each scenario."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import InMemorySubscriptionBus, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError

type Context = ServerRequestContext[Any, Any]
type Params = types.CallToolRequestParams
type Called = types.CallToolResult | types.InputRequiredResult
type Handler = Callable[[Context, Params], Awaitable[Called]]

# One red pixel, and a WAV header without a sample.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
PAUSE = 0.05
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
BUS = InMemorySubscriptionBus()


@dataclass(frozen=True)
class Offered:
    """A tool: its line in the list, and what it does."""

    line: types.Tool
    run: Handler


TOOLS: dict[str, Offered] = {}


def tool(description: str, schema: dict[str, Any] = NOTHING) -> Callable[[Handler], Handler]:
    """Offer the function as the tool of its name."""

    def offer(run: Handler) -> Handler:
        name = run.__name__
        TOOLS[name] = Offered(types.Tool(name=name, description=description, input_schema=schema), run)
        return run

    return offer


def strings(*names: str) -> dict[str, Any]:
    """The schema of an object with these members, all of them strings and required."""
    fields = {name: {"type": "string"} for name in names}
    return {"type": "object", "properties": fields, "required": [*names]}


def text(said: str, *, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=said)], is_error=is_error)


def embedded(uri: str, mime_type: str, said: str) -> types.EmbeddedResource:
    resource = types.TextResourceContents(uri=uri, mime_type=mime_type, text=said)
    return types.EmbeddedResource(resource=resource)


# --- contents ---


@tool("Return one text.")
async def test_simple_text(ctx: Context, params: Params) -> Called:
    return text("This is a simple text response for testing.")


@tool("Return an image.")
async def test_image_content(ctx: Context, params: Params) -> Called:
    return types.CallToolResult(content=[types.ImageContent(data=PNG, mime_type="image/png")])


@tool("Return a sound.")
async def test_audio_content(ctx: Context, params: Params) -> Called:
    return types.CallToolResult(content=[types.AudioContent(data=WAV, mime_type="audio/wav")])


@tool("Return a resource inside the result.")
async def test_embedded_resource(ctx: Context, params: Params) -> Called:
    found = embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    return types.CallToolResult(content=[found])


@tool("Return a text, an image and a resource.")
async def test_multiple_content_types(ctx: Context, params: Params) -> Called:
    found = embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    image = types.ImageContent(data=PNG, mime_type="image/png")
    return types.CallToolResult(
        content=[types.TextContent(text="Multiple content types test:"), image, found]
    )


@tool("Fail.")
async def test_error_handling(ctx: Context, params: Params) -> Called:
    return text("This tool intentionally returns an error for testing", is_error=True)


@tool(
    "Has a schema with many keywords of JSON Schema 2020-12.",
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": {"$anchor": "addressDef", **strings("street", "city"), "required": []}},
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    },
)
async def json_schema_2020_12_tool(ctx: Context, params: Params) -> Called:
    return text(json.dumps(params.arguments))


@tool(
    "Has an argument that a header repeats.",
    {
        "type": "object",
        "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
        "required": ["region"],
    },
)
async def test_x_mcp_header(ctx: Context, params: Params) -> Called:
    return text(f"region {(params.arguments or {}).get('region')}")


# --- messages on the way, up to 2025-11-25 ---


async def log(ctx: Context, *lines: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # logging is deprecated, and asked for
        for line in lines:
            await ctx.session.send_log_message("info", line, "conformance", ctx.request_id)
            await asyncio.sleep(PAUSE)


@tool("Send three log messages.")
async def test_tool_with_logging(ctx: Context, params: Params) -> Called:
    await log(ctx, "Tool execution started", "Tool processing data", "Tool execution completed")
    return text("logged three times")


@tool("Send a log message, if the request asked for them.")
async def test_logging_tool(ctx: Context, params: Params) -> Called:
    await log(ctx, "for those who asked")
    return text("logged once")


@tool("Report progress three times.")
async def test_tool_with_progress(ctx: Context, params: Params) -> Called:
    for done in (0, 50, 100):
        await ctx.session.report_progress(done, 100)
        await asyncio.sleep(PAUSE)
    return text("progress told")


@tool("Ask the client's model.", strings("prompt"))
async def test_sampling(ctx: Context, params: Params) -> Called:
    asked = sampling(str((params.arguments or {}).get("prompt")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sampling is deprecated, and asked for
        answer = await ctx.session.create_message(
            asked.params.messages, max_tokens=100, related_request_id=ctx.request_id
        )
    return text(f"LLM response: {answer.content.model_dump_json()}")


@tool("Ask the person behind the client.", strings("message"))
async def test_elicitation(ctx: Context, params: Params) -> Called:
    message = str((params.arguments or {}).get("message"))
    return await elicit(ctx, message, strings("username", "email"))


@tool("Ask with defaults.")
async def test_elicitation_sep1034_defaults(ctx: Context, params: Params) -> Called:
    status = {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"}
    fields: dict[str, Any] = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": status,
        "verified": {"type": "boolean", "default": True},
    }
    return await elicit(ctx, "Are these right?", {"type": "object", "properties": fields})


@tool("Ask with each kind of choice.")
async def test_elicitation_sep1330_enums(ctx: Context, params: Params) -> Called:
    titled = [{"const": f"value{n}", "title": f"Choice {n}"} for n in (1, 2, 3)]
    plain = {"type": "string", "enum": ["option1", "option2", "option3"]}
    fields: dict[str, Any] = {
        "untitledSingle": plain,
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": plain},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    return await elicit(ctx, "Choose.", {"type": "object", "properties": fields})


async def elicit(ctx: Context, message: str, schema: dict[str, Any]) -> types.CallToolResult:
    answer = await ctx.session.elicit_form(message, schema, ctx.request_id)
    return text(f"Elicitation completed: action={answer.action}, content={json.dumps(answer.content)}")


@tool("Hang up before the answer, which is then to be fetched.")
async def test_reconnection(ctx: Context, params: Params) -> Called:
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
    await asyncio.sleep(2 * PAUSE)
    return text("fetched after a reconnection")


# --- 2026-07-28: capabilities, subscriptions, and input that is asked for by the result ---


@tool("Needs a client that has sampling.")
async def test_missing_capability(ctx: Context, params: Params) -> Called:
    declared = ctx.session.client_capabilities
    if declared is None or declared.sampling is None:
        needed = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "the client has no sampling", needed)
    return text("the client has sampling")


@tool("Ask for input in an answer that is a stream.")
async def test_streaming_elicitation(ctx: Context, params: Params) -> Called:
    return types.InputRequiredResult(input_requests={"user_name": form("What is your name?", "name")})


@tool("Say that the list of tools has changed.")
async def test_trigger_tool_change(ctx: Context, params: Params) -> Called:
    await BUS.publish(ToolsListChanged())
    return text("said")


@tool("Say that the list of prompts has changed.")
async def test_trigger_prompt_change(ctx: Context, params: Params) -> Called:
    await BUS.publish(PromptsListChanged())
    return text("said")


def form(message: str, field: str, kind: str = "string") -> types.ElicitRequest:
    schema = {"type": "object", "properties": {field: {"type": kind}}, "required": [field]}
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def sampling(question: str) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=types.TextContent(text=question))
    return types.CreateMessageRequest(
        params=types.CreateMessageRequestParams(messages=[message], max_tokens=100)
    )


def ask_once(
    params: Params | types.GetPromptRequestParams,
    *,
    state: str | None = None,
    **asked: types.InputRequest,
) -> types.InputRequiredResult | None:
    """What to ask for, or None if it is all there."""
    answers: Mapping[str, Any] = params.input_responses or {}
    if all(name in answers for name in asked):
        return None
    return types.InputRequiredResult(input_requests=asked, request_state=state)


@tool("Ask for a name.")
async def test_input_required_result_elicitation(ctx: Context, params: Params) -> Called:
    return ask_once(params, user_name=form("What is your name?", "name")) or text("Hello!")


@tool("Ask the client's model.")
async def test_input_required_result_sampling(ctx: Context, params: Params) -> Called:
    question = sampling("What is the capital of France?")
    return ask_once(params, capital_question=question) or text("Answered.")


@tool("Ask for the client's roots.")
async def test_input_required_result_list_roots(ctx: Context, params: Params) -> Called:
    return ask_once(params, client_roots=types.ListRootsRequest()) or text("Rooted.")


@tool("Ask, and remember that it was asked.")
async def test_input_required_result_request_state(ctx: Context, params: Params) -> Called:
    asked = ask_once(params, state="asked", confirm=form("Please confirm", "ok", "boolean"))
    return asked or text("state-ok" if params.request_state == "asked" else "state lost")


@tool("Ask for three things at once.")
async def test_input_required_result_multiple_inputs(ctx: Context, params: Params) -> Called:
    asked = ask_once(
        params,
        state="three",
        user_name=form("What is your name?", "name"),
        greeting=sampling("Generate a greeting"),
        client_roots=types.ListRootsRequest(),
    )
    return asked or text("All three came.")


@tool("Ask twice.")
async def test_input_required_result_multi_round(ctx: Context, params: Params) -> Called:
    if params.request_state is None:
        asked = ask_once(params, state="one", step1=form("Step 1: What is your name?", "name"))
    else:
        asked = ask_once(params, state="two", step2=form("Step 2: What is your favorite color?", "color"))
    return asked or text("Both came.")


@tool("Ask, and take the answer only with the state as it was given.")
async def test_input_required_result_tampered_state(ctx: Context, params: Params) -> Called:
    asked = ask_once(params, state="sealed", confirm=form("Please confirm", "ok", "boolean"))
    return asked or text("Intact.")


@tool("Ask for what the client can do.")
async def test_input_required_result_capabilities(ctx: Context, params: Params) -> Called:
    declared = ctx.session.client_capabilities or types.ClientCapabilities()
    asked: dict[str, types.InputRequest] = {}
    if declared.sampling is not None:
        asked["question"] = sampling("What is the capital of France?")
    if declared.elicitation is not None:
        asked["user_name"] = form("What is your name?", "name")
    return (ask_once(params, **asked) if asked else None) or text("Enough is known.")


async def list_tools(ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[offered.line for offered in TOOLS.values()])


async def call_tool(ctx: Context, params: Params) -> Called:
    offered = TOOLS.get(params.name)
    if offered is None:
        raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name!r}")
    return await offered.run(ctx, params)
