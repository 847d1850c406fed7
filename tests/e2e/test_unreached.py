"""A server that is down, or whose certificate is not trusted: caller, row and log say one thing."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import harness as h
from tests.e2e.warm import Warm

POLICY = (
    h.POLICY
    + """  - id: eng-api
    effect: allow
    who: ["group:engineering"]
    servers: [api, down]
    tools: ["*", "http:* /**"]
"""
)


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[h.Upstream]:
    """A server whose CA callerid was not told of."""
    stranger = h.Pki(tmp_path_factory.mktemp("stranger"))
    server = h.Upstream(stranger.server_context())
    yield server
    server.close()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm, private: h.Upstream,
          closed: int) -> Iterator[h.WarmProxy]:  # fmt: skip
    more = f"""  - id: api
    url: https://localhost:{private.port}/api
    kind: http
  - id: down
    url: https://localhost:{closed}/mcp
"""
    rules = h.standard_rules(
        private.port, **{"servers.yaml": h.servers(private.port, extra=more), "policy.yaml": POLICY}
    )
    folder: Path = tmp_path_factory.mktemp("unreached")
    made = h.WarmProxy(warm, folder, rules, ca=pki.ca, environ={"THINGS_SECRET": h.SECRET})
    with h.running(made):
        yield made


@pytest.fixture(scope="module")
def closed() -> Iterator[int]:
    """A port where nobody listens, and nobody else can."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def ask(proxy: h.WarmProxy, token: str, port: int, path: str, private: h.Upstream) -> h.Trial:
    tried = h.trial(proxy, private)
    client = proxy.tunnel(f"localhost:{port}", headers={"Proxy-Authorization": h.basic("alice", token)})
    client.send(h.post(f"localhost:{port}", path, h.tool("read_thing", {"x": 1}, 5)))
    tried.answer = client.read()
    client.close()
    return tried


@pytest.mark.parametrize(
    ("path", "why", "hint"),
    [
        pytest.param("/mcp", "its certificate is not trusted", True, id="an untrusted certificate"),
        pytest.param("/api/x", "its certificate is not trusted", True, id="the same of an HTTP API"),
        pytest.param("down", "it could not be reached", False, id="a server that is down"),
    ],
)
def test_caller_row_and_log_say_the_same(
    proxy: h.WarmProxy, private: h.Upstream, closed: int, path: str, why: str, hint: bool
) -> None:
    port, path = (closed, "/mcp") if path == "down" else (private.port, path)
    said = len(proxy.output)
    tried = ask(proxy, h.mint(proxy), port, path, private)
    row = tried.row
    assert (row["verdict"], row["outcome"]) == ("allow", "not_sent")
    assert row["detail"].startswith(why)
    answer = tried.answer
    assert answer is not None
    assert answer.status == 502
    data = answer.json if "outcome" in answer.json else answer.json["error"]["data"]
    assert (data["outcome"], data["decision"]) == ("not_sent", row["event_id"])
    said_to_caller = json.dumps(answer.json)
    assert f"callerid could not send this to the server: {why}" in said_to_caller
    assert "not given out" not in said_to_caller
    assert tried.seen == []

    def told() -> list[str]:
        return [line for line in proxy.output[said:] if f"localhost:{port} could not be reached" in line]

    h.wait_for(told, "the log names the server")
    assert ("--upstream-ca FILE" in told()[0]) is hint
