"""Reverse mode: the URL names the proxy, the token is in a header, the server is the rules' server."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from tests.e2e.harness import (
    DEADLINE,
    SECRET,
    RawClient,
    Stage,
    newest,
    post,
    rpc,
    settled,
    tool,
    wait_for,
)


def header(stage: Stage, who: str, carrier: str, entry: str = "run") -> dict[str, str]:
    token = stage.tokens[entry, who]
    return {"Authorization": f"Bearer {token}"} if carrier == "authorization" else {"X-Callerid-Token": token}


def ask_open(
    stage: Stage, server: str, headers: dict[str, str] | None, entry: str = "run", **step: Any
) -> Any:
    return stage.client.ask(
        "open",
        url=stage.reverse_url(server, entry),
        environ=stage.direct(entry),
        headers=headers,
        **step,
    )


@pytest.mark.parametrize(
    ("entry", "server", "mode", "carrier", "protocol"),
    [
        ("run", "stateful", "auto", "authorization", "2026-07-28"),
        ("run", "stateful", "legacy", "x-callerid-token", "2025-11-25"),
        ("run", "stateless-json", "auto", "x-callerid-token", "2026-07-28"),
        ("run", "json", "legacy", "authorization", "2025-11-25"),
        ("mitmdump", "stateful", "legacy", "authorization", "2025-11-25"),
    ],
)
def test_the_sdk_works_against_the_proxys_own_address(
    stage: Stage, entry: str, server: str, mode: str, carrier: str, protocol: str
) -> None:
    proxy, client = stage.proxies[entry], stage.client
    since, before = newest(proxy), len(stage.server.lines())
    opened = ask_open(stage, server, header(stage, "alice", carrier, entry), entry, mode=mode)
    assert opened["ok"]["protocol"] == protocol
    assert "drop_thing" not in client("list")
    assert client("call", tool="read_thing", arguments={"name": "x"})["text"] == "thing x"
    refused = client("call", tool="query", arguments={"limit": 101})
    assert refused["isError"] is True
    assert "rule query-ceiling" in refused["text"]
    if server == "stateful":
        assert client("call_gated", gate=f"{entry} {mode}")[0] == "progress 1/2 waiting"
    assert client("call", tool="read_thing", arguments={"name": "y"})["text"] == "thing y"
    client("close")
    wait_for(lambda: not proxy.rows("seq > ? and outcome = 'unknown'", since), "every call has its outcome")
    rows = proxy.rows("seq > ?", since)
    assert {(r["principal"], r["server"]) for r in rows} == {("user:alice@corp.example", server)}
    kinds = {json.loads(r["evidence"])[0]["carrier"] for r in rows}
    assert kinds == {carrier.replace("-", "_")}
    reads = [r for r in rows if r["tool"] in ("read_thing", "query")]
    assert [(r["tool"], r["verdict"], r["reason"], r["outcome"]) for r in reads] == [
        ("read_thing", "allow", "granted", "ok"),
        ("query", "deny", "requirement_failed", "not_sent"),
        ("read_thing", "allow", "granted", "ok"),
    ]
    seen = stage.server.lines()[before:]
    assert len(seen) == len([r for r in rows if r["verdict"] == "allow"])
    for line in seen:
        assert line["known"]
        assert stage.tokens[entry, "alice"] not in json.dumps(line)
        assert dict(line["headers"])["host"] == f"localhost:{stage.server.port}"


@pytest.mark.parametrize("who", [None, "ci"], ids=["without a token", "without a grant"])
def test_who_may_not_connect_is_told_why_and_nothing_arrives(stage: Stage, who: str | None) -> None:
    proxy = stage.proxies["run"]
    since, before = newest(proxy), len(stage.server.lines())
    headers = header(stage, who, "authorization") if who else None
    reason, principal = ("no_grant", "workload:ci-docs") if who else ("no_evidence", "anonymous")
    result = ask_open(stage, "stateful", headers, mode="legacy")
    assert reason in result["error"]["message"]
    assert len(stage.server.lines()) == before
    [row] = proxy.rows("seq > ?", since)
    assert (row["method"], row["principal"], row["verdict"], row["reason"], row["outcome"]) == (
        "initialize", principal, "deny", reason, "not_sent",
    )  # fmt: skip


def tls(stage: Stage) -> RawClient:
    proxy = stage.proxies["run"]
    sock = socket.create_connection(("127.0.0.1", stage.reverse_ports["run"]), DEADLINE)
    return RawClient(proxy.trust().wrap_socket(sock, server_hostname="localhost"))


def test_two_people_on_one_connection_are_two_callers(stage: Stage) -> None:
    proxy = stage.proxies["run"]
    since, before = newest(proxy), len(stage.server.lines())
    client = tls(stage)
    place = f"localhost:{stage.reverse_ports['run']}"
    answers = []
    for number, who in enumerate(["alice", "ivy", "alice", None], start=1):
        headers = header(stage, who, "authorization") if who else {}
        client.send(post(place, "/stateless-json/mcp", tool("query", {"limit": 1}, number), headers))
        answer = client.read()
        assert answer is not None
        assert answer.json["id"] == number
        answers.append("1 things" if "1 things" in answer.text else answer.json["result"]["isError"])
    client.close()
    assert answers == ["1 things", True, "1 things", True]
    rows = settled(proxy, since, 4)
    assert [(r["principal"], r["reason"]) for r in rows] == [
        ("user:alice@corp.example", "granted"),
        ("user:ivy@corp.example", "no_grant"),
        ("user:alice@corp.example", "granted"),
        ("anonymous", "no_evidence"),
    ]
    assert len(stage.server.lines()) == before + 2


@pytest.mark.parametrize(
    ("host", "path", "status", "reason"),
    [
        ("evil.corp.example", "/stateless-json/mcp", 200, "granted"),
        ("localhost", "/nobody/mcp", 403, "unknown_server"),
        ("localhost", "/stateless-json/../stateful/mcp", 400, "path_not_canonical"),
    ],
    ids=[
        "the Host header is the proxy's and not the server's",
        "a path of no server",
        "a path of two readings",
    ],
)
def test_the_place_is_the_rules_and_not_what_the_client_calls_it(
    stage: Stage, host: str, path: str, status: int, reason: str
) -> None:
    """In reverse mode the address is fixed; only the path is the client's choice, and it is judged."""
    proxy = stage.proxies["run"]
    since, before = newest(proxy), len(stage.server.lines())
    client = tls(stage)
    client.send(post(host, path, tool("read_thing", {"name": "x"}), header(stage, "alice", "authorization")))
    answer = client.read()
    client.close()
    assert answer is not None
    row = settled(proxy, since, 1)[-1]
    assert row["reason"] == reason
    seen = stage.server.lines()[before:]
    if reason == "granted":
        assert answer.status == status
        assert dict(seen[0]["headers"])["host"] == f"localhost:{stage.server.port}"
    else:
        assert seen == []
        assert answer.json["result"]["isError"] is True if answer.status == 200 else answer.status == status


def test_a_secret_never_leaves_through_the_reverse_listener(stage: Stage) -> None:
    """The client presents the secret's own header: it is not forwarded, and not taken for evidence."""
    proxy = stage.proxies["run"]
    since, before = newest(proxy), len(stage.server.lines())
    client = tls(stage)
    place = f"localhost:{stage.reverse_ports['run']}"
    client.send(post(place, "/stateless-json/mcp", rpc("tools/list"), {"Authorization": f"Bearer {SECRET}"}))
    answer = client.read()
    client.close()
    assert answer is not None
    assert answer.json["error"]["data"]["reason"] == "evidence_unrecognised"
    assert SECRET.encode() not in answer.body
    assert len(stage.server.lines()) == before
    [row] = proxy.rows("seq > ?", since)
    assert (row["principal"], row["reason"]) == ("anonymous", "evidence_unrecognised")
    assert SECRET not in json.dumps(row)
