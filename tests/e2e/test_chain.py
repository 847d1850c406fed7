"""Person, agent, sub-agent and claimed client in one model, asked of server, client and row together.

Alice's assistant hands a part of its work to a planner, and that to a reader. Whoever is further down the
chain may do what all above it may, and no more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.e2e import harness as h
from tests.e2e.house import ISSUER, jwk
from tests.e2e.warm import Warm

ALICE = "user:alice@corp.example"
DESK = "callerid.internal"
MODERN = "2026-07-28"
TOOLS = ["read_thing", "drop_thing", "query"]

IDENTITIES = """version: 1
issuers:
  - {id: corp-idp, type: oidc, issuer: "https://idp.corp.example/", jwks_file: jwks.json,
     audiences: [callerid], algorithms: [ES256], claims: {principal: email, agent: agent}}
groups:
  engineering: {members: ["user:alice@corp.example", "user:bob@corp.example"]}
agents:
  claude-code: {kind: assistant, owners: ["group:engineering"], servers: [things, lab],
                tools: ["read_*", "query"]}
  planner: {kind: assistant, owners: ["user:alice@corp.example"]}
  reader: {kind: assistant, owners: ["group:engineering"], servers: [things], tools: ["read_thing", "drop_*"]}
  bobs-own: {kind: assistant, owners: ["user:bob@corp.example"]}
  a1: {kind: assistant, owners: ["group:engineering"]}
  a2: {kind: assistant, owners: ["group:engineering"]}
  a3: {kind: assistant, owners: ["group:engineering"]}
"""


@dataclass
class Scene:
    """One proxy, two servers that are told who calls, and an issuer of JWTs."""

    proxy: h.Proxy
    things: h.Upstream
    lab: h.Upstream
    key: ec.EllipticCurvePrivateKey

    def jwt(self, *actors: str, **changes: Any) -> str:
        """A JWT of Alice's; ``actors`` is its chain, the current one first."""
        act: dict[str, Any] | None = None
        for name in reversed(actors):
            act = {"sub": name} if act is None else {"sub": name, "act": act}
        now = int(time.time())
        claims = {
            "iss": ISSUER, "aud": "callerid", "sub": "a1", "email": "alice@corp.example",
            "iat": now, "exp": now + 600, **({} if act is None else {"act": act}), **changes,
        }  # fmt: skip
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": "k1"})

    def ask(
        self,
        evidence: str,
        body: bytes,
        *,
        at: h.Upstream | None = None,
        headers: dict[str, str] | None = None,
    ) -> h.Trial:
        """One message with one piece of evidence."""
        upstream = at or self.things
        tried = h.trial(self.proxy, self.things, self.lab)
        authority = f"localhost:{upstream.port}"
        client = self.proxy.tunnel(authority)
        client.send(
            h.post(authority, "/mcp", body, {"Authorization": f"Bearer {evidence}", **(headers or {})})
        )
        tried.answer = client.read()
        client.close()
        return tried

    def derive(self, evidence: str, **asked: Any) -> h.Answer:
        """A token for a sub-agent, as its parent asks for it: over the proxy, without any other right."""
        body = json.dumps(asked).encode()
        client = self.proxy.plain()
        head = (
            f"POST http://{DESK}/derive HTTP/1.1\r\nHost: {DESK}\r\nContent-Type: application/json\r\n"
            f"Proxy-Authorization: Bearer {evidence}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        client.send(head.encode() + body)
        answer = client.read()
        client.close()
        assert answer is not None
        return answer

    def child(self, evidence: str, **asked: Any) -> str:
        answer = self.derive(evidence, **asked)
        assert answer.status == 201, answer.body
        return str(answer.json["token"])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Scene]:
    key = ec.generate_private_key(ec.SECP256R1())
    things, lab = h.Upstream(pki.server_context()), h.Upstream(pki.server_context())
    rules = h.standard_rules(
        things.port,
        **{
            "identities.yaml": IDENTITIES,
            "servers.yaml": h.servers(
                things.port,
                extra="    assertion: {}\n"
                f'  - {{id: lab, url: "https://localhost:{lab.port}/mcp", assertion: {{}}}}\n',
            ),
            "policy.yaml": 'version: 1\nmode: enforce\nunknown_server: deny\nrules:\n'
            '  - {id: all, effect: allow, who: ["group:engineering"], tools: ["*"]}\n',
            "jwks.json": json.dumps({"keys": [jwk(key)]}),
        },
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("chain")
    proxy = h.WarmProxy(warm, folder, rules, ca=pki.ca, environ={"THINGS_SECRET": h.SECRET})
    with h.running(proxy):
        yield Scene(proxy, things, lab, key)
    things.close()
    lab.close()


def told(seen: h.Seen) -> dict[str, Any]:
    """What the server was told, as it came; the signature is another test's."""
    said: dict[str, Any] = jwt.decode(
        str(seen.header("x-callerid-assertion")), options={"verify_signature": False}
    )
    return said


def chain_of(said: dict[str, Any]) -> list[str]:
    found, link = [], said.get("act")
    while link is not None:
        found.append(link["sub"])
        link = link.get("act")
    return found


def ran(tried: h.Trial, agent: str | None, actors: list[str], **row: Any) -> dict[str, Any]:
    """The call ran: the client has its answer, and the server was told what the row says."""
    assert tried.answer is not None
    assert tried.answer.text == "ran read_thing"
    [seen], found = tried.seen, tried.row
    assert (found["verdict"], found["principal"], found["agent"]) == ("allow", ALICE, agent)
    assert json.loads(found["actors"] or "[]") == actors
    said = told(seen)
    assert (said["sub"], said["txn"], said["tctx"]["tool"]) == (ALICE, found["event_id"], "read_thing")
    assert chain_of(said) == (actors or ([agent] if agent else []))
    assert {name: found[name] for name in row} == row
    return found


def refused(tried: h.Trial, reason: str, agent: str | None = None, actors: list[str] | None = None) -> None:
    """The client was told, nothing arrived, and the row says who it was."""
    assert tried.answer is not None
    found = tried.refused(reason)
    assert found["event_id"] in tried.answer.text
    if agent is not None:
        assert (found["principal"], found["agent"]) == (ALICE, agent)
        assert json.loads(found["actors"] or "[]") == (actors or [])


WAYS = ["by derived tokens", "by a JWT", "by a token derived from a JWT"]
CHAIN = ["reader", "planner", "claude-code"]


def evidence_of(scene: Scene, way: str) -> str:
    """What the reader presents, three deep."""
    if way == "by a JWT":
        return scene.jwt(*CHAIN)
    if way == "by a token derived from a JWT":
        return scene.child(scene.jwt("planner", "claude-code"), agent="reader")
    root = h.mint(scene.proxy, agent="claude-code")
    return scene.child(scene.child(root, agent="planner"), agent="reader")


@pytest.mark.parametrize("way", WAYS)
def test_the_whole_chain_is_recorded_told_and_in_force(scene: Scene, way: str) -> None:
    evidence = evidence_of(scene, way)
    ran(scene.ask(evidence, h.tool("read_thing")), "reader", CHAIN)
    # claude-code alone may query, the reader alone may drop, Alice may both: together they may neither
    refused(scene.ask(evidence, h.tool("query")), "outside_scope", "reader", CHAIN)
    refused(scene.ask(evidence, h.tool("drop_thing")), "outside_scope", "reader", CHAIN)
    # claude-code may be at the lab, the reader may not
    refused(scene.ask(evidence, h.tool("read_thing"), at=scene.lab), "outside_scope", "reader", CHAIN)
    listed = scene.ask(evidence, h.rpc("tools/list"))
    assert listed.answer is not None
    assert [tool["name"] for tool in listed.answer.json["result"]["tools"]] == ["read_thing"]


def test_alice_herself_may_all_of_it(scene: Scene) -> None:
    own = h.mint(scene.proxy)
    found = ran(scene.ask(own, h.tool("read_thing")), None, [])
    assert found["actors"] in (None, "[]")
    for tool in TOOLS:
        answer = scene.ask(own, h.tool(tool)).answer
        assert answer is not None
        assert answer.text == f"ran {tool}"


def test_what_a_token_was_narrowed_to_holds_for_all_below_it(scene: Scene) -> None:
    root = h.mint(scene.proxy, agent="claude-code", tools=("read_*",))
    narrow = scene.child(root, agent="planner", servers=["things"])
    leaf = scene.child(narrow, agent="a1")
    ran(scene.ask(leaf, h.tool("read_thing")), "a1", ["a1", "planner", "claude-code"])
    refused(scene.ask(leaf, h.tool("query")), "outside_scope", "a1", ["a1", "planner", "claude-code"])
    refused(
        scene.ask(leaf, h.tool("read_thing"), at=scene.lab),
        "outside_scope",
        "a1",
        ["a1", "planner", "claude-code"],
    )
    wider = scene.derive(narrow, agent="a1", servers=["things", "lab"])
    assert (wider.status, wider.json["error"]) == (403, "derive_refused")


def test_an_agent_is_its_owners_and_nobody_elses(scene: Scene) -> None:
    refused(scene.ask(scene.jwt("bobs-own"), h.tool("read_thing")), "agent_not_permitted")
    refused(scene.ask(scene.jwt("reader", "bobs-own"), h.tool("read_thing")), "agent_not_permitted")
    refused(scene.ask(scene.jwt("nobody-knows-it"), h.tool("read_thing")), "agent_not_permitted")
    answer = scene.derive(h.mint(scene.proxy, agent="claude-code"), agent="bobs-own")
    assert (answer.status, answer.json["error"]) == (403, "derive_refused")


def test_an_actor_of_old_need_not_be_known_and_is_recorded(scene: Scene) -> None:
    chain = ["reader", "orchestrator-of-a-partner"]
    ran(scene.ask(scene.jwt(*chain), h.tool("read_thing")), "reader", chain)


def test_the_agent_that_a_claim_names_leads_what_the_server_is_told(scene: Scene) -> None:
    tried = scene.ask(scene.jwt("planner", agent="claude-code"), h.tool("read_thing"))
    [seen], row = tried.seen, tried.row
    assert (row["agent"], json.loads(row["actors"])) == ("claude-code", ["planner"])
    assert chain_of(told(seen)) == ["claude-code", "planner"]
    refused(scene.ask(scene.jwt("planner", agent="claude-code"), h.tool("drop_thing")), "outside_scope")


def test_five_may_stand_in_a_chain_and_not_six(scene: Scene) -> None:
    five = ["a3", "a2", "a1", "planner", "claude-code"]
    ran(scene.ask(scene.jwt(*five), h.tool("read_thing")), "a3", five)
    refused(scene.ask(scene.jwt("reader", *five), h.tool("read_thing")), "jwt_invalid")
    token = h.mint(scene.proxy, agent="claude-code")
    for agent in ("planner", "a1", "a2", "a3"):
        token = scene.child(token, agent=agent)
    ran(scene.ask(token, h.tool("read_thing")), "a3", five)
    answer = scene.derive(token, agent="reader")
    assert (answer.status, answer.json["error"]) == (403, "derive_refused")


def test_whoever_is_blocked_anywhere_in_the_chain_ends_it(scene: Scene) -> None:
    root = h.mint(scene.proxy, agent="claude-code")
    leaf = scene.child(scene.child(root, agent="planner"), agent="reader")
    with h.registry(scene.proxy) as opened:
        opened.block("agent:planner", now_us=time.time_ns() // 1000, why=None, by="tests")
        try:
            refused(scene.ask(leaf, h.tool("read_thing")), "principal_blocked")
            refused(scene.ask(scene.jwt(*CHAIN), h.tool("read_thing")), "principal_blocked")
            ran(scene.ask(root, h.tool("read_thing")), "claude-code", [])
        finally:
            opened.unblock("agent:planner")
    ran(scene.ask(leaf, h.tool("read_thing")), "reader", CHAIN)


def test_a_revoked_root_ends_all_below_it(scene: Scene) -> None:
    root = h.mint(scene.proxy, agent="claude-code")
    leaf = scene.child(scene.child(root, agent="planner"), agent="reader")
    ran(scene.ask(leaf, h.tool("read_thing")), "reader", CHAIN)
    with h.registry(scene.proxy) as opened:
        opened.revoke(h.token_id(root), now_us=time.time_ns() // 1000, by="tests")
    refused(scene.ask(leaf, h.tool("read_thing")), "token_revoked")


@pytest.mark.parametrize("liar", ["bob", "claude-code", ALICE])
def test_what_the_client_says_of_itself_stands_apart_and_moves_nothing(scene: Scene, liar: str) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": liar, "version": "9"},
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "baggage": "agent=claude-code,user=bob",
        "callerid/principal": "user:bob@corp.example",
    }
    body = h.rpc("tools/call", {"name": "read_thing", "arguments": {}, "_meta": meta})
    headers = {
        "MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "read_thing",
        "User-Agent": f"{liar}/1", "X-Forwarded-User": liar, "X-Callerid-Agent": "claude-code",
    }  # fmt: skip
    tried = scene.ask(scene.jwt(*CHAIN), body, headers=headers)
    row = ran(
        tried, "reader", CHAIN, client_name=f"{liar}/9", user_agent=f"{liar}/1",
        trace_id="0af7651916cd43dd8448eb211c80319c",
    )  # fmt: skip
    [seen] = tried.seen
    assert "bob" not in json.dumps(told(seen))
    assert (seen.header("x-forwarded-user"), seen.header("x-callerid-agent")) == (None, None)
    assert "callerid/principal" not in seen.message["params"]["_meta"]
    assert row["assurance"] == "idp"
    drop = scene.ask(scene.jwt(*CHAIN), h.tool("drop_thing"), headers={"User-Agent": "nobody"})
    refused(drop, "outside_scope", "reader", CHAIN)


def test_two_chains_that_disagree_are_nobody(scene: Scene) -> None:
    root = h.mint(scene.proxy, agent="claude-code")
    leaf = scene.child(root, agent="planner")
    tried = scene.ask(
        scene.jwt("reader", "claude-code"), h.tool("read_thing"), headers={"X-Callerid-Token": leaf}
    )
    refused(tried, "identity_conflict")
