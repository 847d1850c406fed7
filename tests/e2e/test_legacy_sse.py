"""What only the older revisions have: HTTP+SSE of 2024-11-05, and the batches of 2025-03-26."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.harness import (
    SECRET,
    Answer,
    Proxy,
    RawClient,
    Reply,
    Seen,
    Stage,
    Upstream,
    basic,
    call_tool,
    newest,
    post,
    rpc,
    settled,
    tool,
    wait_for,
)

OLD = {"MCP-Protocol-Version": "2025-03-26"}


@pytest.fixture
def answering(upstream: Upstream) -> Iterator[Callable[[Callable[[Seen], Reply]], None]]:
    """Let the upstream answer in its own way for one test."""

    def answer(way: Callable[[Seen], Reply]) -> None:
        upstream.answer = way

    yield answer
    upstream.answer = call_tool


# -- 2024-11-05: HTTP+SSE ------------------------------------------------------------------------------


def test_the_sdk_works_over_http_and_sse_and_every_post_is_governed(stage: Stage) -> None:
    proxy, client = stage.proxies["run"], stage.client
    since, before = newest(proxy), len(stage.server.lines())
    url = stage.server.url("old")
    opened = client("open", url=url, environ=stage.forward("alice"), mode="sse", offer="2024-11-05")
    assert opened["protocol"] == "2024-11-05"
    assert "drop_thing" not in client("list")
    assert client("call", tool="read_thing", arguments={"name": "x"})["text"] == "thing x"
    # The answer of a denied POST has no way to an SDK client of this revision: what counts is what happens.
    client.ask("call", tool="drop_thing", arguments={"name": "x"}, timeout=0.5)
    assert client("call", tool="read_thing", arguments={"name": "y"})["text"] == "thing y"
    client("close")
    wait_for(lambda: not proxy.rows("seq > ? and outcome = 'unknown'", since), "every call has its outcome")
    rows = proxy.rows("seq > ? and method <> 'notifications/cancelled'", since)
    said = [(r["method"], r["tool"], r["verdict"], r["reason"], r["outcome"]) for r in rows]
    assert said[0][:4] == ("http/GET", None, "allow", "protocol")
    assert said[1:] == [
        ("initialize", None, "allow", "protocol", "accepted"),
        ("notifications/initialized", None, "allow", "protocol", "accepted"),
        ("tools/list", None, "allow", "protocol", "accepted"),
        ("tools/call", "read_thing", "allow", "granted", "accepted"),
        ("tools/call", "drop_thing", "deny", "rule_denied", "not_sent"),
        ("tools/call", "read_thing", "allow", "granted", "accepted"),
    ]
    assert {(r["principal"], r["server"]) for r in rows} == {("user:alice@corp.example", "old")}
    seen = stage.server.lines()[before:]
    assert all(line["known"] for line in seen if "http" in line)
    assert not [line for line in seen if "drop_thing" in line.get("body", "")]
    assert {line["path"] for line in seen if line.get("http") == "POST"} == {"/old/messages/"}
    assert stage.tokens["run", "alice"] not in json.dumps(seen)


def through(proxy: Proxy, port: int, token: str | None) -> RawClient:
    headers = {"Proxy-Authorization": basic("x", token)} if token else {}
    return proxy.tunnel(f"localhost:{port}", headers=headers)


def get(port: int, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nAccept: text/event-stream\r\n\r\n".encode()


def event(client: RawClient, chunks: Iterator[bytes], held: bytearray) -> bytes:
    """The next whole event of a stream."""
    while b"\n\n" not in held and b"\r\n\r\n" not in held:
        held += next(chunks)
    ends = [held.find(mark) + len(mark) for mark in (b"\r\n\r\n", b"\n\n") if mark in held]
    made = bytes(held[: min(ends)])
    del held[: min(ends)]
    return made


def answered(client: RawClient, request: bytes) -> Answer:
    try:
        client.send(request)
        answer = client.read()
    finally:
        client.close()
    assert answer is not None
    return answer


def announced(stage: Stage, who: str) -> tuple[RawClient, str]:
    """An open stream of ``who`` and the message path that it announced."""
    client = through(stage.proxies["run"], stage.server.port, stage.tokens["run", who])
    client.send(get(stage.server.port, "/old/sse"))
    assert client.read_head().status == 200
    first = event(client, client.chunks(), bytearray())
    assert first.startswith(b"event: endpoint")
    return client, first.split(b"data: ")[1].strip().decode()


@pytest.mark.parametrize(
    ("who", "tool_name", "reason"),
    [
        (None, "read_thing", "no_evidence"),
        ("ci", "read_thing", "session_not_yours"),
        ("alice", "drop_thing", "rule_denied"),
    ],
    ids=["without evidence", "in the session of somebody else", "against a rule"],
)
def test_a_post_to_the_announced_path_needs_a_grant(
    stage: Stage, who: str | None, tool_name: str, reason: str
) -> None:
    proxy, port = stage.proxies["run"], stage.server.port
    stream, path = announced(stage, "alice")
    since, before = newest(proxy), len(stage.server.lines())
    token = stage.tokens["run", who] if who else None
    answer = answered(
        through(proxy, port, token), post(f"localhost:{port}", path, tool(tool_name, {"name": "x"}))
    )
    stream.close()
    assert answer.json["result"]["isError"] is True
    [row] = proxy.rows("seq > ? and method = 'tools/call'", since)
    assert (row["server"], row["tool"], row["verdict"], row["reason"]) == ("old", tool_name, "deny", reason)
    assert not [line for line in stage.server.lines()[before:] if line.get("http") == "POST"]


def test_without_a_grant_there_is_no_stream_either(stage: Stage) -> None:
    proxy, port = stage.proxies["run"], stage.server.port
    since, before = newest(proxy), len(stage.server.lines())
    answer = answered(through(proxy, port, stage.tokens["run", "ci"]), get(port, "/old/sse"))
    assert (answer.status, answer.json["error"]["data"]["reason"]) == (405, "no_grant")
    [row] = proxy.rows("seq > ?", since)
    assert (row["method"], row["principal"], row["reason"]) == ("http/GET", "workload:ci-docs", "no_grant")
    assert len(stage.server.lines()) == before


def test_a_path_that_no_stream_announced_is_not_governed_by_guess(stage: Stage) -> None:
    proxy, port = stage.proxies["run"], stage.server.port
    since, before = newest(proxy), len(stage.server.lines())
    answer = answered(
        through(proxy, port, stage.tokens["run", "alice"]),
        post(f"localhost:{port}", "/old/never-announced", tool("read_thing", {"name": "x"})),
    )
    assert answer.json["result"]["isError"] is True
    [row] = proxy.rows("seq > ?", since)
    assert (row["verdict"], row["reason"]) == ("deny", "unknown_server")
    assert len(stage.server.lines()) == before


def test_a_post_into_the_session_of_somebody_else_is_refused(stage: Stage) -> None:
    """Ivy may read things, but not in Alice's session: the answer would arrive at Alice's agent."""
    proxy, port = stage.proxies["run"], stage.server.port
    stream, path = announced(stage, "alice")
    since, before = newest(proxy), len(stage.server.lines())
    answered(
        through(proxy, port, stage.tokens["run", "ivy"]),
        post(f"localhost:{port}", path, tool("read_thing", {"name": "x"})),
    )
    stream.close()
    [row] = proxy.rows("seq > ? and method = 'tools/call'", since)
    assert (row["principal"], row["reason"]) == ("user:ivy@corp.example", "session_not_yours")
    assert not [line for line in stage.server.lines()[before:] if line.get("http") == "POST"]


def test_a_session_id_of_somebody_else_is_refused(stage: Stage) -> None:
    proxy, port = stage.proxies["run"], stage.server.port
    place = f"localhost:{port}"
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"},
    }
    alice = through(proxy, port, stage.tokens["run", "alice"])
    session = answered(alice, post(place, "/stateful/mcp", rpc("initialize", hello))).headers[
        "mcp-session-id"
    ]
    since, before = newest(proxy), len(stage.server.lines())
    answered(
        through(proxy, port, stage.tokens["run", "ivy"]),
        post(place, "/stateful/mcp", tool("read_thing", {"name": "x"}), {"Mcp-Session-Id": session}),
    )
    [row] = proxy.rows("seq > ?", since)
    assert (row["principal"], row["reason"]) == ("user:ivy@corp.example", "session_not_yours")
    assert len(stage.server.lines()) == before


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("https://evil.corp.example/messages?session_id=1", None),
        ("//evil.corp.example/messages?session_id=1", None),
        ("http://localhost:{port}/messages", None),
        ("/mcp/%2e%2e/admin", None),
        ("/mcp/messages?session_id=1", "/mcp/messages?session_id=1"),
        ("https://localhost:{port}/elsewhere?session_id=1", "/elsewhere?session_id=1"),
    ],
    ids=["another origin", "another host", "another scheme", "two readings", "a path", "its own origin"],
)
def test_an_endpoint_is_announced_only_at_the_servers_own_origin(
    proxy: Proxy, upstream: Upstream, alice: str, answering: Any, said: str, heard: str | None
) -> None:
    url = said.format(port=upstream.port)
    events = [f"event: endpoint\ndata: {url}\n\n".encode(), b": the end\n\n"]
    answering(lambda _: Reply(200, [("content-type", "text/event-stream")], chunks=iter(events)))
    client = through(proxy, upstream.port, alice)
    client.send(get(upstream.port, "/mcp"))
    assert client.read_head().status == 200
    body = b"".join(client.chunks())
    client.close()
    expected = b": the end\n\n"
    if heard is not None:
        expected = f"event: endpoint\ndata: {heard}\n\n".encode() + expected
    assert body == expected
    if heard is None:
        return
    answering(call_tool)
    before, since = len(upstream.seen), newest(proxy)
    place = f"localhost:{upstream.port}"
    answer = answered(through(proxy, upstream.port, alice), post(place, heard, tool("read_thing")))
    assert answer.text == "ran read_thing"
    [seen] = upstream.seen[before:]
    assert (seen.path, seen.header("authorization")) == (heard, f"Bearer {SECRET}")
    [row] = settled(proxy, since, 1)
    assert (row["server"], row["verdict"], row["outcome"]) == ("things", "allow", "ok")


# -- 2025-03-26: batches ---------------------------------------------------------------------------------


def batch(*messages: bytes) -> bytes:
    return b"[" + b",".join(messages) + b"]"


INITIALIZED = rpc("notifications/initialized", rpc_id=None)


def send(
    proxy: Proxy, upstream: Upstream, token: str, body: bytes, headers: dict[str, str] | None = None
) -> Answer:
    client = through(proxy, upstream.port, token)
    return answered(
        client, post(f"localhost:{upstream.port}", "/mcp", body, OLD if headers is None else headers)
    )


@pytest.mark.parametrize("headers", [OLD, {}], ids=["with the version header", "without it"])
def test_a_batch_that_is_allowed_is_forwarded_as_one_and_has_a_row_per_message(
    proxy: Proxy, upstream: Upstream, alice: str, headers: dict[str, str]
) -> None:
    before, since = len(upstream.seen), newest(proxy)
    body = batch(
        tool("read_thing", rpc_id=0),
        INITIALIZED,
        tool("query", {"limit": 5}, "0"),
        rpc("tools/list", rpc_id=7),
    )
    answer = send(proxy, upstream, alice, body, headers)
    assert answer.status == 200
    assert [(type(m["id"]), m["id"]) for m in answer.json] == [(int, 0), (str, "0"), (int, 7)]
    assert answer.json[0]["result"]["content"][0]["text"] == "ran read_thing"
    assert [entry["name"] for entry in answer.json[2]["result"]["tools"]] == ["read_thing", "query"]
    [seen] = upstream.seen[before:]
    assert [message.get("id") for message in seen.message] == [0, None, "0", 7]
    assert seen.header("authorization") == f"Bearer {SECRET}"
    rows = settled(proxy, since, 4)
    assert [(r["batch_index"], r["rpc_id"], r["tool"], r["reason"], r["outcome"]) for r in rows] == [
        (0, "0", "read_thing", "granted", "ok"),
        (1, None, None, "protocol", "ok"),
        (2, '"0"', "query", "granted", "ok"),
        (3, "7", None, "protocol", "ok"),
    ]
    assert {r["injected"] for r in rows} == {"things-key@v1"}


def test_a_batch_that_is_denied_in_part_is_refused_whole(
    proxy: Proxy, upstream: Upstream, alice: str
) -> None:
    before, since = len(upstream.seen), newest(proxy)
    body = batch(
        tool("read_thing", rpc_id=1),
        INITIALIZED,
        tool("drop_thing", {"name": "orders"}, "1"),
        tool("query", {"limit": 101}, 0),
        rpc("tools/list", rpc_id="list"),
    )
    answer = send(proxy, upstream, alice, body)
    assert answer.status == 200
    assert [(type(m["id"]), m["id"]) for m in answer.json] == [(int, 1), (str, "1"), (int, 0), (str, "list")]
    assert [m["result"]["isError"] for m in answer.json[:3]] == [True, True, True]
    assert answer.json[3]["error"]["data"]["reason"] == "batch_partner_denied"
    assert len(upstream.seen) == before
    rows = proxy.rows("seq > ?", since)
    assert [
        (r["batch_index"], r["rpc_id"], r["tool"], r["verdict"], r["reason"], r["rule"]) for r in rows
    ] == [
        (0, "1", "read_thing", "deny", "batch_partner_denied", None),
        (1, None, None, "deny", "batch_partner_denied", None),
        (2, '"1"', "drop_thing", "deny", "rule_denied", "no-drops"),
        (3, "0", "query", "deny", "requirement_failed", "query-ceiling"),
        (4, '"list"', None, "deny", "batch_partner_denied", None),
    ]
    assert {(r["principal"], r["outcome"], r["injected"]) for r in rows} == {
        ("user:alice@corp.example", "not_sent", None)
    }


def test_a_batch_answered_by_events_has_its_outcomes_one_by_one(
    proxy: Proxy, upstream: Upstream, alice: str, answering: Any
) -> None:
    since = newest(proxy)
    results = [
        {"jsonrpc": "2.0", "id": "b", "result": {"content": [], "isError": True}},
        {"jsonrpc": "2.0", "id": 1, "error": {"code": -32005, "message": "busy"}},
    ]
    events = [f"event: message\ndata: {json.dumps(result)}\n\n".encode() for result in results]
    answering(lambda _: Reply(200, [("content-type", "text/event-stream")], chunks=iter(events)))
    body = batch(*(tool("read_thing", rpc_id=rpc_id) for rpc_id in (1, "b", 2)))
    answer = send(proxy, upstream, alice, body)
    assert answer.body == b"".join(events)
    rows = settled(proxy, since, 3)
    assert [(r["rpc_id"], r["outcome"], r["rpc_code"]) for r in rows] == [
        ("1", "rpc_error", -32005),
        ('"b"', "tool_error", None),
        ("2", "unanswered", None),
    ]


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25", "2026-07-28"])
def test_later_revisions_have_no_batches(proxy: Proxy, upstream: Upstream, alice: str, version: str) -> None:
    before, since = len(upstream.seen), newest(proxy)
    body = batch(tool("read_thing", rpc_id=1), tool("read_thing", rpc_id=2))
    answer = send(proxy, upstream, alice, body, {"MCP-Protocol-Version": version})
    assert (answer.status, answer.json["error"]["data"]["reason"]) == (400, "batch_refused")
    assert len(upstream.seen) == before
    [row] = proxy.rows("seq > ?", since)
    assert (row["principal"], row["verdict"], row["reason"]) == (
        "user:alice@corp.example", "deny", "batch_refused",
    )  # fmt: skip
