"""The request side: what we say of a message is what the official SDK reads in the bytes that we forward.

A case is header lines, an empty line and the body of a POST.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import pydantic_core
from hypothesis import strategies as st
from mcp.shared.inbound import (
    InboundModernRoute,
    classify_inbound_request,
    decode_header_value,
    encode_header_value,
)
from mcp_types import methods as sdk
from mcp_types.jsonrpc import (
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from callerid.mcp import strictjson
from callerid.mcp.answers import refusal
from callerid.mcp.classify import ANSWERS, classify
from callerid.mcp.recognise import looks_like_mcp_request
from callerid.model import Exchange, Kind, Malformed, Message, MessageType, Refs
from tests.fuzz.mutations import damaged, misshapen, recoded, spelled
from tests.fuzz.readers import same
from tests.fuzz.strategies import V, requests, responses

TYPE = ("Content-Type", "application/json")
MODERN = "2026-07-28"
REVISIONS = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", MODERN]
type Headers = list[tuple[str, str]]


def headers_for(rng: random.Random, message: Any, revision: str | None) -> Headers:
    """The headers that go with a message in a revision; now and then one is wrong, twice or missing."""
    made = [TYPE]
    if revision is not None:
        made.append(("MCP-Protocol-Version", revision))
    if revision == MODERN and isinstance(message, dict):
        params = message.get("params")
        name = None
        if isinstance(params, dict):
            name = params.get("name", params.get("uri", params.get("taskId")))
        made.append(("Mcp-Method", str(message.get("method"))))
        if isinstance(name, str):
            made.append(("Mcp-Name", encode_header_value(name.encode("utf-8", "replace").decode())))
    if rng.random() < 0.15:
        at = rng.randrange(len(made))
        name, value = made[at]
        made[at : at + 1] = rng.choice(
            [[], [made[at]] * 2, [(name.upper(), value)], [(name.replace("-", "_"), value)],
             [(name, value + " ")], [(name, value.upper())], [(name, ""), made[at]], [(name, "\t" + value)]]
        )  # fmt: skip
    if rng.random() < 0.1:
        made.append(
            rng.choice(
                [
                    ("Mcp-Param-A", "1"),
                    ("Mcp-Session-Id", "s"),
                    ("Mcp-Name", "a"),
                    ("Content-Encoding", "gzip"),
                ]
            )
        )
    return made


def joined(headers: Headers, body: bytes) -> bytes:
    return (
        "".join(f"{name}: {value}\n" for name, value in headers).encode("utf-8", "surrogateescape")
        + b"\n"
        + body
    )


def parted(data: bytes) -> tuple[Headers, bytes]:
    head, _, body = data.partition(b"\n\n")
    lines = head.decode("utf-8", "surrogateescape").split("\n")
    pairs = (line.partition(": ") for line in lines)
    return [(name, value) for name, _, value in pairs], body


@st.composite
def cases(draw: st.DrawFn) -> bytes:
    """A POST: a message or a batch, in shape and well written more often than not."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    revision = draw(st.sampled_from([*[None, *REVISIONS, MODERN] * 4, "2099-01-01"]))
    tree: Any = draw(responses if rng.random() < 0.15 else requests())
    if rng.random() < (0.3 if revision in (None, "2024-11-05", "2025-03-26") else 0.03):
        more = responses if "method" not in tree else requests()
        tree = [tree, *draw(st.lists(more, max_size=2))]
    elif revision == MODERN and rng.random() < 0.95 and "method" in tree:
        params = tree.get("params", {})
        meta = {
            V: MODERN,
            **({"io.modelcontextprotocol/clientCapabilities": {}} if rng.random() < 0.9 else {}),
        }
        tree = {**tree, "params": {**params, "_meta": {**params.get("_meta", {}), **meta}}}
    headers = headers_for(rng, tree, revision)
    if rng.random() < 0.25:
        tree = misshapen(rng, tree)
    raw = spelled(rng, tree, rng.choice([0, 1, 2, 4, 8, 15, 15, 31])).encode("utf-8", "surrogatepass")
    what = rng.random()
    raw = damaged(rng, raw) if what < 0.15 else recoded(rng, raw) if what < 0.25 else raw
    return joined(headers, raw)


def check(data: bytes) -> None:
    """Total, refused with an answer, or agreed."""
    headers, body = parted(data)
    said = classify("POST", headers, body)
    looks_like_mcp_request("POST", headers, body)
    for method in ("GET", "DELETE", "PUT"):
        refused = classify(method, headers, body)
        if isinstance(refused, Malformed):
            check_refused(refused)
    if isinstance(said, Malformed):
        check_refused(said)
    else:
        check_agreed(said, headers, body)


def check_refused(said: Malformed) -> None:
    """There is an answer to give, with the id if one could be read, and nothing odd in the row."""
    assert said.reason in ANSWERS
    assert said.detail.isprintable()
    assert 0 < len(said.detail) < 400
    answer = refusal(
        None, reason=said.reason, event_id="e", rule=None, say=None, hidden=False, malformed=said
    )
    assert 400 <= answer.status < 500
    told = json.loads(answer.body)
    assert told["jsonrpc"] == "2.0"
    assert same(told["id"], said.rpc_id)
    assert told["error"]["code"] == said.rpc_code


def check_agreed(said: Exchange, headers: Headers, body: bytes) -> None:
    """Canonical bytes have one reading for all parsers, and it is ours."""
    tree = strictjson.loads(said.body)
    assert same(json.loads(said.body), tree)
    assert same(json.loads(body.decode("utf-8")), tree)
    assert same(pydantic_core.from_json(said.body), tree)
    assert strictjson.dumps(tree) == said.body
    again = classify("POST", headers, said.body)
    assert again == said
    assert isinstance(again, Exchange)
    assert said.batch is isinstance(tree, list)
    elements = tree if said.batch else [tree]
    assert len(elements) == len(said.messages)
    for element, ours, repeated in zip(elements, said.messages, again.messages, strict=True):
        assert same(dict(ours.arguments), dict(repeated.arguments))
        check_message(ours, strictjson.dumps(element), headers, alone=not said.batch)


def check_message(ours: Message, raw: bytes, headers: Headers, *, alone: bool) -> None:
    """One message, by each of the ways in which the SDK's servers read one."""
    theirs = jsonrpc_message_adapter.validate_python(pydantic_core.from_json(raw), by_name=False)
    # HTTP+SSE of 2024-11-05 reads the text at once.
    assert jsonrpc_message_adapter.validate_json(raw, by_name=False) == theirs
    params = getattr(theirs, "params", None) or {}
    if ours.type is MessageType.RESPONSE:
        assert isinstance(theirs, JSONRPCResponse | JSONRPCError)
        assert same(theirs.id, ours.rpc_id)
        answer = theirs.result if isinstance(theirs, JSONRPCResponse) else None
        assert same(answer, ours.refs.answer)
        return
    assert isinstance(theirs, JSONRPCRequest if ours.type is MessageType.REQUEST else JSONRPCNotification)
    assert theirs.method == ours.method
    assert same(getattr(theirs, "id", None), ours.rpc_id)
    check_object(ours, params)
    check_refs(ours.refs, params)
    check_typed(ours, params)
    if alone and ours.protocol == MODERN:
        check_modern(ours, raw, headers)


def check_object(ours: Message, params: Mapping[str, Any]) -> None:
    """Name and arguments, from params as they are, and as a reader finds them that ignores case."""
    if ours.kind in (Kind.TOOL, Kind.PROMPT, Kind.RESOURCE):
        folded = {name.casefold(): value for name, value in params.items()}
        for member in ("name", "uri", "arguments", "ref", "argument", "context"):
            assert same(folded.get(member), params.get(member))
    if ours.method == "completion/complete" and ours.kind is not Kind.METHOD:
        ref = params["ref"]
        kind = {"ref/prompt": (Kind.PROMPT, "name"), "ref/resource": (Kind.RESOURCE, "uri")}[ref["type"]]
        assert (ours.kind, ours.name) == (kind[0], ref[kind[1]])
        known = params.get("context", {}).get("arguments", {})
        typed = params.get("argument", {})
        more = {typed["name"]: typed.get("value")} if isinstance(typed.get("name"), str) else {}
        assert same(dict(ours.arguments), {**known, **more})
    elif ours.kind in (Kind.TOOL, Kind.PROMPT):
        assert params["name"] == ours.name
        assert same(params.get("arguments", {}), dict(ours.arguments))
    elif ours.kind is Kind.RESOURCE:
        assert params["uri"] == ours.name
    else:
        assert ours.name is None
        assert same({name: value for name, value in params.items() if name != "_meta"}, dict(ours.arguments))


def check_refs(refs: Refs, params: Mapping[str, Any]) -> None:
    """The handles that are bound to a caller are those that the server will look at."""
    if refs.cancels is not None:
        assert same(params["requestId"], refs.cancels)
    if refs.request_state is not None:
        assert params["requestState"] == refs.request_state
    if refs.input_responses:
        assert same(params["inputResponses"], dict(refs.input_responses))
    wanted = params.get("notifications")
    named = [params.get("taskId")]
    for holder in (params, wanted if isinstance(wanted, dict) else {}):
        for names in (holder.get("taskIds"), holder.get("resourceSubscriptions")):
            named += names if isinstance(names, list) else []
    assert {*refs.task_ids, *refs.resources} <= {name for name in named if isinstance(name, str)}


def check_typed(ours: Message, params: Mapping[str, Any]) -> None:
    """Name and arguments, as a handler of the SDK gets them; what it refuses it does not run."""
    if ours.type is not MessageType.REQUEST or ours.kind is Kind.METHOD:
        return
    for revision in [ours.protocol] if ours.protocol in REVISIONS else REVISIONS[:4]:
        try:
            request = sdk.parse_client_request(ours.method, revision, params)
        except (KeyError, ValidationError):
            continue
        typed = request.params
        if ours.method in ("tools/call", "prompts/get"):
            assert typed.name == ours.name
            assert same(typed.arguments or {}, dict(ours.arguments))
            # Revisions before 2026-07-28 have no such thing, and their servers do not look at it.
            state = typed.request_state if revision == MODERN else ours.refs.request_state
            assert state == ours.refs.request_state
        elif ours.kind is Kind.RESOURCE and ours.method != "completion/complete":
            assert typed.uri == ours.name
        elif ours.method == "subscriptions/listen":
            wanted = typed.notifications.model_dump(by_alias=True)
            assert set(wanted.get("resourceSubscriptions") or []) <= set(ours.refs.resources)
            assert set(wanted.get("taskIds") or []) <= set(ours.refs.task_ids)
        elif ours.method == "completion/complete":
            assert getattr(typed.ref, "uri", None) or typed.ref.name == ours.name
            assert same(ours.arguments[typed.argument.name], typed.argument.value)


def check_modern(ours: Message, raw: bytes, headers: Headers) -> None:
    """The modern path: body and headers make one route, or the SDK refuses."""
    decoded = json.loads(raw)
    assert ("id" in decoded) is (ours.type is MessageType.REQUEST)
    lower = {name.lower(): value.strip(" \t") for name, value in headers}
    if "mcp-name" in lower:
        assert decode_header_value(lower["mcp-name"]) in [
            decoded["params"].get(name) for name in ("name", "uri", "taskId")
        ]
    if ours.type is MessageType.REQUEST:
        JSONRPCRequest.model_validate(decoded)
        assert lower["mcp-method"] == ours.method
        route = classify_inbound_request(decoded, headers=lower)
        if isinstance(route, InboundModernRoute):
            assert route.protocol_version == ours.protocol
