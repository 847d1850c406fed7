"""The official SDK and fastmcp through the proxy: set up by HTTPS_PROXY and SSL_CERT_FILE alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.harness import SECRET, Stage, newest, settled, wait_for

VISIBLE = ["read_thing", "query", "measure", "break_thing", "wait_for", "open_gate", "ask_color"]


def opened(stage: Stage, server: str, who: str | None = "alice", entry: str = "run", **step: Any) -> Any:
    environ = stage.forward(who, entry)
    return stage.client("open", url=stage.server.url(server), environ=environ, **step)


def arrived(stage: Stage, since: int) -> list[tuple[str, str | None]]:
    """Method and name of each message that reached the server, all of them with the secret and no token."""
    found: list[tuple[str, str | None]] = []
    for line in stage.server.lines()[since:]:
        if "http" not in line:
            continue
        assert line["known"], "a request came without the shared secret"
        text = json.dumps(line)
        assert not any(token in text for token in stage.tokens.values())
        names = {name for name, _ in line["headers"]}
        assert not names & {"proxy-authorization", "x-callerid-token", "x-forwarded-for"}
        if line["http"] == "POST":
            message = json.loads(line["body"])
            params = message.get("params", {})
            found.append((message["method"], params.get("name") or params.get("uri")))
        else:
            found.append((f"http/{line['http']}", None))
    return found


DECIDED = [
    ("tools/list", None, "allow", "protocol", None, "ok"),
    ("resources/list", None, "allow", "protocol", None, "ok"),
    ("prompts/list", None, "allow", "protocol", None, "ok"),
    ("tools/call", "read_thing", "allow", "granted", "eng-things", "ok"),
    ("tools/call", "drop_thing", "deny", "rule_denied", "no-drops", "not_sent"),
    ("tools/call", "query", "deny", "requirement_failed", "query-ceiling", "not_sent"),
    ("tools/call", "query", "allow", "granted", "eng-things", "ok"),
    ("tools/call", "measure", "allow", "granted", "eng-things", "ok"),
    ("tools/call", "break_thing", "allow", "granted", "eng-things", "tool_error"),
    ("resources/read", "thing://public/readme", "allow", "granted", "eng-things", "ok"),
    ("resources/read", "thing://secret/plan", "deny", "rule_denied", "no-secrets", "not_sent"),
    ("prompts/get", "greet", "allow", "granted", "eng-things", "ok"),
    ("prompts/get", "hidden_prompt", "deny", "rule_denied", "no-secrets", "not_sent"),
    ("tools/call", "read_thing", "allow", "granted", "eng-things", "ok"),
]
"""What ``converse`` does, as rows: method, name, verdict, reason, rule, outcome."""
HANDSHAKE = ("server/discover", "initialize", "notifications/initialized", "http/GET", "http/DELETE")


def converse(client: Any) -> None:
    """One client does what clients do, and reads every refusal as what it is."""
    assert client("list") == VISIBLE
    assert client("list", what="resources") == ["thing://public/readme"]
    assert client("list", what="prompts") == ["greet"]
    assert client("call", tool="read_thing", arguments={"name": "x"})["text"] == "thing x"
    dropped = client("call", tool="drop_thing", arguments={"name": "x"})
    assert dropped["isError"] is True
    assert "no_grant" in dropped["text"]
    above = client("call", tool="query", arguments={"limit": 101})
    assert above["isError"] is True
    assert "Ask for at most 100 at a time." in above["text"]
    assert "rule query-ceiling" in above["text"]
    assert client("call", tool="query", arguments={"limit": 100})["text"] == "100 things"
    measured = client("call", tool="measure", arguments={"name": "four"})
    assert (measured["structured"], measured["isError"]) == ({"width": 3, "height": 4}, False)
    assert client("call", tool="break_thing", arguments={"name": "x"})["isError"] is True
    assert client("read", uri="thing://public/readme") == "read me"
    refused = client.ask("read", uri="thing://secret/plan")["error"]
    assert (refused["code"], refused["data"]["reason"]) == (-40300, "no_grant")
    assert client("prompt", name="greet", arguments={"name": "Bob"}) == "Say hello to Bob"
    refused = client.ask("prompt", name="hidden_prompt")["error"]
    assert (refused["code"], refused["data"]["reason"]) == (-40300, "no_grant")
    assert client("call", tool="read_thing", arguments={"name": "y"})["text"] == "thing y"
    client("close")


@pytest.mark.parametrize(
    ("entry", "server", "mode", "offer", "protocol"),
    [
        ("run", "stateful", "auto", None, "2026-07-28"),
        ("run", "stateless", "2026-07-28", None, "2026-07-28"),
        ("run", "stateless-json", "auto", None, "2026-07-28"),
        ("run", "json", "auto", None, "2026-07-28"),
        ("run", "stateful", "legacy", None, "2025-11-25"),
        ("run", "stateless", "legacy", None, "2025-11-25"),
        ("run", "json", "legacy", None, "2025-11-25"),
        ("run", "stateful", "legacy", "2025-06-18", "2025-06-18"),
        ("run", "stateless-json", "legacy", "2025-06-18", "2025-06-18"),
        ("run", "stateful", "legacy", "2025-03-26", "2025-03-26"),
        ("run", "json", "legacy", "2025-03-26", "2025-03-26"),
        ("mitmdump", "stateful", "auto", None, "2026-07-28"),
        ("mitmdump", "stateful", "legacy", None, "2025-11-25"),
        ("mitmdump", "stateless-json", "legacy", "2025-06-18", "2025-06-18"),
    ],
)
def test_every_revision_and_way_to_serve_is_attributed_filtered_and_refused_alike(
    stage: Stage, entry: str, server: str, mode: str, offer: str | None, protocol: str
) -> None:
    proxy = stage.proxies[entry]
    since, before = newest(proxy), len(stage.server.lines())
    step = {"mode": mode, **({"offer": offer} if offer else {})}
    assert opened(stage, server, entry=entry, **step)["protocol"] == protocol
    converse(stage.client)

    wait_for(lambda: not proxy.rows("seq > ? and outcome = 'unknown'", since), "every call has its outcome")
    rows = proxy.rows("seq > ?", since)
    said = [
        (r["method"], r["tool"] or r["target"], r["verdict"], r["reason"], r["rule"], r["outcome"])
        for r in rows
        if r["method"] not in HANDSHAKE
    ]
    assert said == DECIDED
    for row in rows:
        assert (row["principal"], row["assurance"], row["server"]) == (
            "user:alice@corp.example", "bearer", server,
        )  # fmt: skip
        assert row["protocol"] == protocol
        assert row["injected"] == ("things-key@v1" if row["verdict"] == "allow" else None)
        assert SECRET not in json.dumps(row)
    sent = [(r["method"], r["tool"] or r["target"]) for r in rows if r["verdict"] == "allow"]
    assert sorted(arrived(stage, before), key=str) == sorted(sent, key=str)
    has_sessions = server in ("stateful", "json") and protocol != "2026-07-28"
    sessions = {r["session"] for r in rows if r["method"] not in HANDSHAKE}
    assert len(sessions) == 1
    assert (None not in sessions) is has_sessions


def test_an_intern_sees_and_calls_less_than_an_engineer(stage: Stage) -> None:
    proxy = stage.proxies["run"]
    since, before = newest(proxy), len(stage.server.lines())
    opened(stage, "stateless-json", "ivy")
    assert stage.client("list") == ["read_thing"]
    assert stage.client("call", tool="read_thing", arguments={"name": "x"})["text"] == "thing x"
    refused = stage.client("call", tool="query", arguments={"limit": 1})
    unknown = stage.client("call", tool="no_such_tool", arguments={})
    stage.client("close")
    for answer in (refused, unknown):
        assert answer["isError"] is True
        assert "no_grant" in answer["text"]
    rows = settled(proxy, since, 3, "method = 'tools/call'")
    assert [(r["principal"], r["tool"], r["verdict"], r["reason"]) for r in rows] == [
        ("user:ivy@corp.example", "read_thing", "allow", "granted"),
        ("user:ivy@corp.example", "query", "deny", "no_grant"),
        ("user:ivy@corp.example", "no_such_tool", "deny", "no_grant"),
    ]
    assert [name for method, name in arrived(stage, before) if method == "tools/call"] == ["read_thing"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_who_has_no_grant_at_a_server_cannot_connect_and_is_told_why(stage: Stage, mode: str) -> None:
    proxy = stage.proxies["run"]
    since, before = newest(proxy), len(stage.server.lines())
    environ = stage.forward("ci")
    result = stage.client.ask("open", url=stage.server.url("stateful"), environ=environ, mode=mode)
    assert "no_grant" in result["error"]["message"]
    assert len(stage.server.lines()) == before
    rows = proxy.rows("seq > ?", since)
    methods = ["server/discover", "initialize"] if mode == "auto" else ["initialize"]
    assert [(r["method"], r["principal"], r["verdict"], r["reason"], r["outcome"]) for r in rows] == [
        (method, "workload:ci-docs", "deny", "no_grant", "not_sent") for method in methods
    ]
    assert rows[-1]["event_id"] in result["error"]["message"]


@pytest.mark.parametrize("entry", ["run", "mitmdump"])
@pytest.mark.parametrize(
    ("evidence", "reason"),
    [(None, "no_evidence"), ("alice:cid_notoken@", "token_malformed")],
    ids=["nothing", "a damaged token"],
)
def test_without_good_evidence_nobody_connects_and_the_client_says_why(
    stage: Stage, entry: str, evidence: str | None, reason: str
) -> None:
    proxy = stage.proxies[entry]
    since, before = newest(proxy), len(stage.server.lines())
    environ = stage.forward(None, entry)
    if evidence is not None:
        environ["HTTPS_PROXY"] = environ["HTTPS_PROXY"].replace("//", f"//{evidence}")
    result = stage.client.ask("open", url=stage.server.url("stateful"), environ=environ, mode="legacy")
    assert reason in result["error"]["message"]
    assert len(stage.server.lines()) == before
    [row] = proxy.rows("seq > ?", since)
    assert (row["method"], row["principal"], row["verdict"], row["reason"]) == (
        "initialize", "anonymous", "deny", reason,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("server", ["stateful", "stateless"])
def test_progress_arrives_before_the_result_that_waits_for_it(stage: Stage, server: str, mode: str) -> None:
    """The tool ends when a gate opens, and the gate is opened by the progress: buffered, it would hang."""
    proxy = stage.proxies["run"]
    since, gate = newest(proxy), f"gate {server} {mode}"
    opened(stage, server, mode=mode)
    assert stage.client("call_gated", gate=gate) == ["progress 1/2 waiting", f"gate {gate} opened"]
    stage.client("close")
    rows = settled(proxy, since, 2, "method = 'tools/call'")
    assert [(r["tool"], r["verdict"], r["outcome"]) for r in rows] == [
        ("wait_for", "allow", "ok"),
        ("open_gate", "allow", "ok"),
    ]


@pytest.mark.parametrize(
    ("server", "mode", "outcome", "code"),
    [
        ("stateful", "auto", "client_gone", None),
        ("stateless", "auto", "client_gone", None),
        ("stateful", "legacy", "rpc_error", -32800),
    ],
    ids=["the stream is closed", "the stream is closed, no sessions", "the server confirms the cancellation"],
)
def test_a_call_that_is_given_up_reaches_the_server_and_ends_as_what_it_was(
    stage: Stage, server: str, mode: str, outcome: str, code: int | None
) -> None:
    proxy = stage.proxies["run"]
    since, gate = newest(proxy), f"given up {server} {mode}"
    opened(stage, server, mode=mode)
    assert stage.client("call_and_leave", gate=gate) == "left"
    wait_for(lambda: {"cancelled": gate} in stage.server.lines(), "the tool is cancelled")
    [row] = settled(proxy, since, 1, "tool = 'wait_for'")
    assert (row["verdict"], row["outcome"], row["rpc_code"]) == ("allow", outcome, code)
    assert stage.client("call", tool="read_thing", arguments={"name": "x"})["text"] == "thing x"
    stage.client("close")


def test_a_call_that_the_client_no_longer_waits_for_is_not_called_a_success(stage: Stage) -> None:
    proxy = stage.proxies["run"]
    since = newest(proxy)
    opened(stage, "json", mode="auto")
    result = stage.client.ask("call", tool="wait_for", arguments={"gate": "never"}, timeout=0.2)
    assert result["error"]["code"] == -32001
    [row] = settled(proxy, since, 1, "tool = 'wait_for'")
    assert (row["verdict"], row["outcome"], row["http_status"]) == ("allow", "client_gone", None)
    assert stage.client("call", tool="read_thing", arguments={"name": "x"})["text"] == "thing x"
    stage.client("close")


def test_a_proxy_url_with_tls_carries_the_tunnel_inside_tls(stage: Stage) -> None:
    """``HTTPS_PROXY=https://...``: TLS to the proxy, CONNECT inside it, TLS to the server inside that."""
    proxy = stage.proxies["run"]
    since, before = newest(proxy), len(stage.server.lines())
    environ = stage.forward("alice", scheme="https")
    stage.client("open", url=stage.server.url("stateless"), environ=environ)
    assert stage.client("call", tool="read_thing", arguments={"name": "x"})["text"] == "thing x"
    stage.client("close")
    [row] = settled(proxy, since, 1, "tool = 'read_thing'")
    assert (row["principal"], row["outcome"]) == ("user:alice@corp.example", "ok")
    assert ("tools/call", "read_thing") in arrived(stage, before)


@pytest.mark.parametrize("server", ["stateful", "stateless-json"])
def test_fastmcp_is_attributed_filtered_and_refused_alike(stage: Stage, server: str) -> None:
    proxy, client = stage.proxies["run"], stage.fastmcp
    since, before = newest(proxy), len(stage.server.lines())
    client("open", url=stage.server.url(server), environ=stage.forward("alice"))
    assert client("list") == VISIBLE
    assert client("call", tool="read_thing", arguments={"name": "x"})["text"] == "thing x"
    refused = client("call", tool="query", arguments={"limit": 101})
    assert refused["isError"] is True
    assert "rule query-ceiling" in refused["text"]
    assert client("call", tool="query", arguments={"limit": 1})["text"] == "1 things"
    client("close")
    rows = settled(proxy, since, 3, "method = 'tools/call'")
    assert [(r["principal"], r["tool"], r["reason"], r["outcome"]) for r in rows] == [
        ("user:alice@corp.example", "read_thing", "granted", "ok"),
        ("user:alice@corp.example", "query", "requirement_failed", "not_sent"),
        ("user:alice@corp.example", "query", "granted", "ok"),
    ]
    calls = [name for method, name in arrived(stage, before) if method == "tools/call"]
    assert calls == ["read_thing", "query"]


def test_fastmcp_reports_why_it_may_not_connect(stage: Stage) -> None:
    before = len(stage.server.lines())
    url = stage.server.url("stateful")
    result = stage.fastmcp.ask("open", url=url, environ=stage.forward("ci"))
    assert "no_grant" in result["error"]["message"]
    assert len(stage.server.lines()) == before
    row = stage.proxies["run"].rows()[-1]
    assert (row["principal"], row["reason"]) == ("workload:ci-docs", "no_grant")
