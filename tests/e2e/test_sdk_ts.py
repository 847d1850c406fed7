"""The official TypeScript SDKs through the proxy, legacy and modern, over both transports.

No refusal may leave a client waiting, cost it its session, or hide its reason (reference §4).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.harness import ROOT, Partner, Stage, newest, wait_for

CLIENT = ROOT / "tests" / "node" / "client.mjs"
MODULES = ROOT / ".node" / "node_modules"
WAYS = [
    ("ts1", "http", "stateful", None),
    ("ts1", "http", "json", None),
    ("ts1", "http", "stateless", None),
    ("ts1", "sse", "old", None),
    ("ts2", "http", "stateful", None),
    ("ts2", "http", "stateful", "auto"),
    ("ts2", "http", "stateless-json", "auto"),
    ("ts2", "sse", "old", None),
]
"""SDK, transport, server, version negotiation."""


def node() -> str | None:
    """A Node that reads the proxy's environment variables: this machine's, or the one of scripts/node."""
    for found in (shutil.which("node"), *map(str, MODULES.glob("node-linux-*/bin/node"))):
        if found is not None:
            said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
            if said.startswith("v") and int(said[1:].split(".")[0]) >= 24:
                return found
    return None


@dataclass
class Asker:
    """One TypeScript client process, and how it speaks."""

    partner: Partner
    sdk: str

    def ask(self, do: str, **step: Any) -> dict[str, Any]:
        return self.partner.ask(do, sdk=self.sdk, **step)

    def __call__(self, do: str, **step: Any) -> Any:
        result = self.ask(do, **step)
        assert "ok" in result, result
        return result["ok"]


@pytest.fixture(scope="module")
def clients(stage: Stage) -> Iterator[Partner]:
    yield from started(stage, "alice")


@pytest.fixture(scope="module")
def strangers(stage: Stage) -> Iterator[Partner]:
    """Clients of the CI job, which no rule allows anything here."""
    yield from started(stage, "ci")


def started(stage: Stage, who: str) -> Iterator[Partner]:
    program = node()
    if program is None or not MODULES.is_dir():
        pytest.skip("the TypeScript SDKs are not installed: run scripts/node first")
    environ = {
        **stage.forward(who),
        "NODE_USE_ENV_PROXY": "1",
        "NODE_EXTRA_CA_CERTS": str(stage.proxies["run"].ca_cert),
        "NODE_MODULES": str(MODULES),
        "PATH": os.environ.get("PATH", ""),
    }
    partner = Partner(str(CLIENT), environ=environ, program=(program,))
    assert partner.hear() == {"ready": True}
    yield partner
    partner.stop()


@pytest.fixture(params=WAYS, ids=lambda way: "-".join(str(part) for part in way if part))
def asker(request: pytest.FixtureRequest, clients: Partner, stage: Stage) -> Iterator[Asker]:
    sdk, transport, server, mode = request.param
    made = Asker(clients, sdk)
    made("open", url=stage.server.url(server), transport=transport, mode=mode)
    yield made
    made.ask("close")


def test_what_is_allowed_works(asker: Asker) -> None:
    assert "read_thing" in asker("list")
    assert "drop_thing" not in asker("list")
    assert asker("call", tool="read_thing", arguments={"name": "x"}) == {"text": "thing x", "isError": False}
    assert asker("read", uri="thing://public/readme") == "read me"


def test_a_refused_call_says_why_and_the_session_lives_on(asker: Asker, stage: Stage) -> None:
    proxy, before = stage.proxies["run"], len(stage.server.lines())
    since = newest(proxy)
    above = asker("call", tool="query", arguments={"limit": 101})
    assert above["isError"] is True
    assert "Ask for at most 100 at a time." in above["text"]
    assert "rule query-ceiling" in above["text"]
    hidden = asker("call", tool="drop_thing", arguments={"name": "x"})
    assert (hidden["isError"], "no_grant" in hidden["text"]) == (True, True)
    assert asker("call", tool="query", arguments={"limit": 3})["text"] == "3 things"
    sent = [line["body"] for line in stage.server.lines()[before:] if "http" in line]
    assert not any("101" in body or "drop_thing" in body for body in sent)
    wait_for(
        lambda: not proxy.rows("seq > ? and outcome = 'unknown' and method = 'tools/call'", since), "outcomes"
    )
    rows = [r for r in proxy.rows("seq > ?", since) if r["method"] == "tools/call"]
    assert [(r["tool"], r["verdict"], r["reason"], r["outcome"]) for r in rows] == [
        ("query", "deny", "requirement_failed", "not_sent"),
        ("drop_thing", "deny", "rule_denied", "not_sent"),
        ("query", "allow", "granted", "ok"),
    ]


def test_another_refused_request_is_an_error_with_its_reason(asker: Asker) -> None:
    refused = asker.ask("read", uri="thing://secret/plan")["error"]
    assert "no_grant" in refused["message"], refused
    refused = asker.ask("prompt", name="hidden_prompt")["error"]
    assert "no_grant" in refused["message"], refused
    assert asker("call", tool="read_thing", arguments={"name": "y"})["text"] == "thing y"
    assert asker("state")["faults"] == []


QUESTIONS = [
    ("ts1", "http", "stateful", None),
    ("ts1", "sse", "old", None),
    ("ts2", "http", "stateful", None),
]


@pytest.mark.parametrize("way", QUESTIONS, ids=lambda way: "-".join(str(part) for part in way if part))
def test_what_a_server_asks_reaches_the_person_or_nobody(
    clients: Partner, stage: Stage, way: tuple[str, str, str, str | None]
) -> None:
    sdk, transport, server, mode = way
    proxy, client = stage.proxies["run"], Asker(clients, sdk)
    client("open", url=stage.server.url(server), transport=transport, mode=mode)
    since = newest(proxy)
    said = client("call", tool="ask_color", arguments={})
    allowed = server == "stateful"
    assert said["text"] == ("accept: blue" if allowed else "refused: The client's side refused this request.")
    assert client("state") == {"asked": 1 if allowed else 0, "faults": []}
    assert client("call", tool="read_thing", arguments={"name": "z"})["text"] == "thing z"
    asked = [row for row in proxy.rows("seq > ?", since) if row["direction"] == "server"]
    assert [(row["method"], row["verdict"], row["rule"]) for row in asked] == [
        ("elicitation/create", "allow", "stateful-asks") if allowed else ("elicitation/create", "deny", None)
    ]
    client("close")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(str(part) for part in way if part))
def test_who_may_do_nothing_is_told_so_at_the_connect(
    strangers: Partner, stage: Stage, way: tuple[str, str, str, str | None]
) -> None:
    sdk, transport, server, mode = way
    proxy, client = stage.proxies["run"], Asker(strangers, sdk)
    since, before = newest(proxy), len(stage.server.lines())
    refused = client.ask("open", url=stage.server.url(server), transport=transport, mode=mode)["error"]
    told = f"{refused['message']} {refused['data']}"
    assert "no_grant" in told or "403" in told or "405" in told, refused
    assert len(stage.server.lines()) == before
    assert {(row["verdict"], row["reason"]) for row in proxy.rows("seq > ?", since)} == {("deny", "no_grant")}
