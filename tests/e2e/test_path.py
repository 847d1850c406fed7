"""The path, end to end: what the upstream saw, what the client got and what the row says, together."""

from __future__ import annotations

import json

import pytest

from tests.e2e.harness import SECRET, Answer, Proxy, Upstream, basic, post, rpc, tool


def call(proxy: Proxy, upstream: Upstream, body: bytes, connect: dict[str, str], **headers: str) -> Answer:
    authority = f"localhost:{upstream.port}"
    client = proxy.tunnel(authority, headers=connect)
    client.send(post(authority, "/mcp", body, headers))
    answer = client.read()
    client.close()
    assert answer is not None
    return answer


def test_an_allowed_call_gets_a_caller_a_decision_the_secret_and_a_row(
    proxy: Proxy, upstream: Upstream, alice: str
) -> None:
    before = len(upstream.seen)
    answer = call(
        proxy,
        upstream,
        tool("read_thing", {"name": "x", "password": "hunter2-hunter2"}, 7),
        {"Proxy-Authorization": basic("alice", alice)},
    )
    assert (answer.status, answer.json["id"], answer.text) == (200, 7, "ran read_thing")
    [seen] = upstream.seen[before:]
    assert seen.header("authorization") == f"Bearer {SECRET}"
    assert alice.encode() not in seen.raw
    assert seen.header("proxy-authorization") is None
    assert json.loads(seen.body)["params"]["name"] == "read_thing"
    [row] = proxy.await_rows(1, "tool = 'read_thing' and outcome <> 'unknown'")
    assert row["principal"] == "user:alice@corp.example"
    assert (row["verdict"], row["reason"], row["rule"]) == ("allow", "granted", "eng-things")
    assert (row["outcome"], row["http_status"], row["server"]) == ("ok", 200, "things")
    assert row["injected"] == "things-key@v1"
    assert row["assurance"] == "bearer"
    assert row["credential_id"].startswith("t_")
    assert "hunter2" not in row["arguments"]
    assert SECRET not in json.dumps(row)


def test_a_denied_call_is_a_tool_error_and_a_row_and_never_arrives(
    proxy: Proxy, upstream: Upstream, alice: str
) -> None:
    before = len(upstream.seen)
    answer = call(
        proxy,
        upstream,
        tool("drop_thing", {"name": "orders"}, "a"),
        {"Proxy-Authorization": basic("a", alice)},
    )
    assert answer.status == 200
    assert answer.json["id"] == "a"
    assert answer.json["result"]["isError"] is True
    assert len(upstream.seen) == before
    [row] = proxy.rows("tool = 'drop_thing'")
    assert (row["verdict"], row["reason"], row["rule"]) == ("deny", "rule_denied", "no-drops")
    assert (row["outcome"], row["target"], row["injected"]) == ("not_sent", "orders", None)
    assert row["event_id"] in answer.text


def test_an_argument_above_its_ceiling_is_explained(proxy: Proxy, upstream: Upstream, alice: str) -> None:
    before = len(upstream.seen)
    answer = call(proxy, upstream, tool("query", {"limit": 5000}), {"Proxy-Authorization": basic("a", alice)})
    assert "query-ceiling" in answer.text
    assert len(upstream.seen) == before
    [row] = proxy.rows("tool = 'query'")
    assert (row["verdict"], row["reason"], row["rule"]) == ("deny", "requirement_failed", "query-ceiling")


@pytest.mark.parametrize("carrier", ["authorization", "x-callerid-token", "proxy bearer"])
def test_every_carrier_of_a_token_is_accepted_and_stripped(
    proxy: Proxy, upstream: Upstream, alice: str, carrier: str
) -> None:
    connect, inner = {
        "authorization": ({}, {"Authorization": f"Bearer {alice}"}),
        "x-callerid-token": ({}, {"X-Callerid-Token": alice}),
        "proxy bearer": ({"Proxy-Authorization": f"Bearer {alice}"}, {}),
    }[carrier]
    before = len(upstream.seen)
    answer = call(proxy, upstream, tool("read_thing"), connect, **inner)
    assert answer.text == "ran read_thing"
    assert alice.encode() not in upstream.seen[before].raw
    assert upstream.seen[before].header("x-callerid-token") is None


def test_without_evidence_nothing_passes(proxy: Proxy, upstream: Upstream) -> None:
    before = len(upstream.seen)
    answer = call(proxy, upstream, tool("read_thing", rpc_id=0), {})
    assert answer.json["id"] == 0
    assert "no_evidence" in answer.body.decode()
    assert len(upstream.seen) == before
    row = proxy.rows("reason = 'no_evidence'")[-1]
    assert (row["principal"], row["verdict"], row["tool"]) == ("anonymous", "deny", "read_thing")


def test_a_list_shows_what_the_caller_could_call(proxy: Proxy, upstream: Upstream, alice: str) -> None:
    answer = call(proxy, upstream, rpc("tools/list"), {"Proxy-Authorization": basic("a", alice)})
    assert [entry["name"] for entry in answer.json["result"]["tools"]] == ["read_thing", "query"]
    ivy = proxy.issue("user:ivy@corp.example")
    answer = call(proxy, upstream, rpc("tools/list"), {"Proxy-Authorization": basic("i", ivy)})
    assert [entry["name"] for entry in answer.json["result"]["tools"]] == ["read_thing", "query"]


def test_a_revoked_token_is_refused_at_the_next_request(proxy: Proxy, upstream: Upstream) -> None:
    token = proxy.issue("user:bob@corp.example")
    assert (
        call(proxy, upstream, tool("read_thing"), {"Proxy-Authorization": basic("b", token)}).text
        == "ran read_thing"
    )
    ident = proxy.rows("principal = 'user:bob@corp.example'")[-1]["credential_id"]
    proxy.command("revoke", ident)
    before = len(upstream.seen)
    answer = call(proxy, upstream, tool("read_thing"), {"Proxy-Authorization": basic("b", token)})
    assert "token_revoked" in answer.text
    assert len(upstream.seen) == before
    assert proxy.rows("reason = 'token_revoked'")[-1]["credential_id"] == ident
