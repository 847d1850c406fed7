"""What servers are told about callers, with the example of the documentation as one of the servers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jwt
import pytest

from callerid.config import Assertion
from callerid.identity import signing_keys
from callerid.identity.assertion import Asserting
from callerid.model import DecisionRecord, Reason, Verdict
from tests.e2e import harness as h
from tests.e2e.warm import Warm

EXAMPLE = h.ROOT / "docs" / "examples" / "verify_caller.py"
HEADER, OTHER = "X-Callerid-Assertion", "X-Who-Calls"
META = "callerid/assertion"
FORGED = "eyJmb3JnZWQiOiAxfQ.eyJmb3JnZWQiOiAxfQ.forged"
MODERN = "2026-07-28"


@dataclass
class Scene:
    """A proxy with a server that verifies callers, two that are told, and one that is not."""

    proxy: h.Proxy
    told: h.Upstream
    plain: h.Upstream
    api: h.Upstream
    who_port: int
    token: str
    issuer: str

    def url(self, port: int) -> str:
        return f"https://localhost:{port}/mcp"

    def keys(self) -> jwt.PyJWKSet:
        return jwt.PyJWKSet.from_json(self.proxy.command("jwks").stdout)

    def claims(self, token: str, audience: str, **more: Any) -> dict[str, Any]:
        """Verified as a server would."""
        head = jwt.get_unverified_header(token)
        assert head["typ"] == "callerid+jwt"
        return jwt.decode(
            token, self.keys()[head["kid"]], ["EdDSA"], audience=audience, issuer=self.issuer, **more
        )

    def ask(
        self, upstream: h.Upstream, body: bytes, headers: dict[str, str] | None = None, path: str = "/mcp"
    ) -> h.Trial:
        """One POST through a tunnel of its own."""
        tried = h.trial(self.proxy, upstream)
        authority = f"localhost:{upstream.port}"
        client = self.proxy.tunnel(authority, headers={"Proxy-Authorization": h.basic("alice", self.token)})
        client.send(h.post(authority, path, body, headers))
        tried.answer = client.read()
        client.close()
        return tried

    def ask_who(self, token: str | None) -> h.Answer:
        """The verifying server itself, around the proxy, by whoever holds an assertion."""
        client = h.RawClient(h.socket.create_connection(("127.0.0.1", self.who_port), h.DEADLINE))
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "who_called"}
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "around", "version": "1"},
        }
        body = h.rpc("tools/call", {"name": "who_called", "arguments": {}, "_meta": meta})
        told = {HEADER: token} if token is not None else {}
        client.send(h.post(f"localhost:{self.who_port}", "/mcp", body, {**headers, **told}))
        answer = client.read()
        client.close()
        assert answer is not None
        return answer


def rules(scene: dict[str, int]) -> dict[str, str]:
    return {
        "identities.yaml": h.identities(
            'agents:\n  claude-code: {kind: assistant, owners: ["group:engineering"]}\n'
        ),
        "servers.yaml": f"""version: 1
servers:
  - {{id: who, url: "http://localhost:{scene["who"]}/mcp", assertion: {{meta: true}}}}
  - id: told
    url: https://localhost:{scene["told"]}/mcp
    credential: things-key
    assertion: {{header: {OTHER}, meta: true, ttl: 30s, audience: "urn:told"}}
  - {{id: plain, url: "https://localhost:{scene["plain"]}/mcp"}}
  - {{id: api, kind: http, url: "https://localhost:{scene["api"]}/v1", assertion: {{}}}}
""",
        "credentials.yaml": h.credentials(scene["told"]),
        "policy.yaml": """version: 1
mode: enforce
unknown_server: deny
rules:
  - {id: all, effect: allow, who: ["group:engineering"], tools: ["*", "http:* /**"]}
  - {id: no-drops, effect: deny, tools: ["drop_*"]}
""",
    }


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("propagation")
    told, plain, api = (h.Upstream(pki.server_context()) for _ in range(3))
    port = h.free_port()
    ports = {"who": port, "told": told.port, "plain": plain.port, "api": api.port}
    proxy = h.WarmProxy(warm, folder, rules(ports), ca=pki.ca, environ={"THINGS_SECRET": h.SECRET})
    with h.running(proxy):
        token = proxy.issue("user:alice@corp.example", "--agent", "claude-code")
        keys = proxy.command("jwks", "--json")
        issuer = json.loads(keys.stdout)["issuer"]
        jwks = folder / "jwks.json"
        jwks.write_text(json.dumps(json.loads(keys.stdout)["jwks"]))
        server = subprocess.Popen(
            [sys.executable, str(EXAMPLE)],
            env={**os.environ, "PORT": str(port), "CALLERID_JWKS": str(jwks), "CALLERID_ISSUER": issuer,
                 "CALLERID_AUDIENCE": f"http://localhost:{port}/mcp"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            h.wait_for(lambda: server.poll() is not None or h._connects(port), "the example serves", 60)
            yield Scene(proxy, told, plain, api, port, token, issuer)
        finally:
            server.terminate()
            server.wait(h.DEADLINE)
            for upstream in (told, plain, api):
                upstream.close()


@pytest.fixture(scope="module")
def client() -> Iterator[h.Partner]:
    made = h.Partner("tests.e2e.sdk_client", environ={})
    assert made.hear() == {"ready": True}
    yield made
    made.stop()


def metas(seen: h.Seen) -> list[Any]:
    messages = seen.message if isinstance(seen.message, list) else [seen.message]
    return [message.get("params", {}).get("_meta", {}).get(META) for message in messages]


# -- a server that verifies


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_example_knows_who_called_what_and_by_which_decision(
    scene: Scene, client: h.Partner, mode: str
) -> None:
    since = h.newest(scene.proxy)
    place = f"http://alice:{scene.token}@localhost:{scene.proxy.port}"
    environ = {"HTTP_PROXY": place, "http_proxy": place, "NO_PROXY": ""}
    client("open", url=f"http://localhost:{scene.who_port}/mcp", environ=environ, mode=mode)
    result = client("call", tool="who_called", arguments={})
    client("close")
    assert result["isError"] is False, result
    [row] = h.settled(scene.proxy, since, 1, "method = 'tools/call'")
    assert result["text"] == f"{row['principal']} called, {row['agent']} acted, decision {row['event_id']}"
    assert (row["principal"], row["agent"]) == ("user:alice@corp.example", "claude-code")


def test_around_the_proxy_nobody_is_believed(scene: Scene) -> None:
    assert scene.ask_who(None).json["result"]["isError"] is True
    assert scene.ask_who(FORGED).json["result"]["isError"] is True


def about_now(scene: Scene, **changes: Any) -> str:
    """An assertion by the proxy's own key, as it would be made of a row; ``now`` and audience to choose."""
    ring = signing_keys.read(scene.proxy.home / signing_keys.FILE)
    assert isinstance(ring, signing_keys.KeyRing)
    now = int(changes.pop("now", time.time()))
    signer = ring.signer(now)
    assert isinstance(signer, signing_keys.Signer)
    to = Assertion(audience=changes.pop("audience", f"http://localhost:{scene.who_port}/mcp"))
    row = DecisionRecord(
        event_id="e1", time_us=now, verdict=Verdict.ALLOW, reason=Reason.GRANTED, method="tools/call",
        server="who", upstream="-", principal="user:alice@corp.example", tool="who_called",
    )  # fmt: skip
    return Asserting(to, signer).say(replace(row, **changes), now)


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"now": time.time() - 61 - 6}, False),
        ({"now": time.time() + 3600}, False),
        ({"audience": "urn:told"}, False),
        ({"tool": "another_tool"}, False),
        ({"tool": None}, False),
    ],
    ids=["as it should be", "of a minute ago", "of an hour to come", "for another server",
         "about another tool", "about no tool"],
)  # fmt: skip
def test_the_example_believes_what_is_fresh_and_for_it_and_about_this_tool(
    scene: Scene, changes: dict[str, Any], good: bool
) -> None:
    result = scene.ask_who(about_now(scene, **changes)).json["result"]
    assert result.get("isError", False) is not good


# -- what is said, and where


def test_header_and_meta_say_what_the_row_says(scene: Scene) -> None:
    tried = scene.ask(scene.told, h.tool("read_thing", {"x": 1}, 7))
    assert tried.answer is not None
    assert tried.answer.text == "ran read_thing"
    [seen], row = tried.seen, tried.row
    token = seen.header(OTHER)
    assert token is not None
    assert metas(seen) == [token]
    said = scene.claims(token, "urn:told", options={"strict_aud": True})
    assert said == {
        "iss": scene.issuer, "aud": "urn:told", "sub": row["principal"], "act": {"sub": row["agent"]},
        "iat": said["iat"], "nbf": said["iat"], "exp": said["iat"] + 30,
        "jti": row["event_id"], "txn": row["event_id"],
        "rctx": {"issuer": "local", "assurance": row["assurance"]},
        "tctx": {"server": row["server"], "method": row["method"], "tool": row["tool"]},
    }  # fmt: skip
    assert abs(said["iat"] - time.time()) < 60
    assert seen.header(HEADER) is None
    message = seen.message
    del message["params"]["_meta"]
    assert message == json.loads(h.tool("read_thing", {"x": 1}, 7))
    assert seen.header("authorization") == f"Bearer {h.SECRET}"
    assert seen.header("content-length") == str(len(seen.body))


@pytest.mark.parametrize(
    "name", ["read_ümlaut", 'a b"c\\d', "😀", "a/b?c#d%20", "{}", "__proto__", "x" * 256, "\u202egnp.exe"]
)
def test_odd_names_arrive_whole(scene: Scene, name: str) -> None:
    tried = scene.ask(scene.told, h.tool(name))
    [seen], row = tried.seen, tried.row
    said = scene.claims(str(seen.header(OTHER)), "urn:told")
    assert said["tctx"]["tool"] == seen.message["params"]["name"] == name
    assert said["txn"] == row["event_id"]


def test_every_call_has_its_own(scene: Scene) -> None:
    tokens = [scene.ask(scene.told, h.tool("read_thing")).seen[0].header(OTHER) for _ in range(3)]
    assert len(set(tokens)) == 3


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (h.rpc("ping"), True),
        (h.rpc("tools/list", {}), True),
        (h.rpc("tools/list", {"_meta": {"progressToken": 5}}), True),
        (h.rpc("notifications/initialized", rpc_id=None), True),
    ],
    ids=["without params", "with empty params", "beside what is there", "a notification"],
)
def test_protocol_messages_have_one_too(scene: Scene, body: bytes, where: bool) -> None:
    [seen] = scene.ask(scene.told, body).seen
    token = seen.header(OTHER)
    assert metas(seen) == [token]
    assert "tool" not in scene.claims(str(token), "urn:told")["tctx"]
    if b"progressToken" in body:
        assert seen.message["params"]["_meta"]["progressToken"] == 5


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_requests_without_a_body_have_the_header(scene: Scene, method: str) -> None:
    tried = h.trial(scene.proxy, scene.told)
    authority = f"localhost:{scene.told.port}"
    client = scene.proxy.tunnel(authority, headers={"Proxy-Authorization": h.basic("alice", scene.token)})
    client.send(f"{method} /mcp HTTP/1.1\r\nHost: {authority}\r\nAccept: text/event-stream\r\n\r\n".encode())
    assert client.read() is not None
    client.close()
    [seen] = tried.seen
    assert scene.claims(str(seen.header(OTHER)), "urn:told")["tctx"]["method"] == f"http/{method}"
    assert seen.body == b""


def test_each_message_of_a_batch_has_its_own_and_the_header_names_them_all(scene: Scene) -> None:
    batch = b"[" + b",".join(
        (h.tool("read_thing", {}, 1), h.rpc("notifications/initialized", rpc_id=None), h.tool("query", {}, 2))
    ) + b"]"  # fmt: skip
    tried = scene.ask(scene.told, batch)
    [seen] = tried.seen
    rows = h.settled(scene.proxy, tried.first_seq, 3)
    said = [scene.claims(token, "urn:told") for token in metas(seen)]
    assert [(c["jti"], c["tctx"].get("tool")) for c in said] == [(r["event_id"], r["tool"]) for r in rows]
    whole = scene.claims(str(seen.header(OTHER)), "urn:told")
    assert whole["tctx"] == {"server": "told", "decisions": [row["event_id"] for row in rows]}
    assert whole["jti"] not in {row["event_id"] for row in rows}


def test_headers_that_repeat_the_body_still_do(scene: Scene) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
        META: FORGED,
    }
    body = h.rpc("tools/call", {"name": "read_thing", "arguments": {}, "_meta": meta})
    tried = scene.ask(
        scene.told, body,
        {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "read_thing"},
    )  # fmt: skip
    [seen] = tried.seen
    assert (seen.header("mcp-method"), seen.header("mcp-name")) == ("tools/call", "read_thing")
    assert seen.message["params"]["_meta"] == {**meta, META: seen.header(OTHER)}


def test_an_http_api_is_told_in_the_header(scene: Scene) -> None:
    tried = scene.ask(scene.api, b'{"amount": 5}', path="/v1/charges")
    [seen], row = tried.seen, tried.row
    said = scene.claims(str(seen.header(HEADER)), f"https://localhost:{scene.api.port}/v1")
    assert said["tctx"] == {"server": "api", "method": "http/POST", "tool": row["tool"]}
    assert said["txn"] == row["event_id"]
    assert row["tool"] == "POST /v1/charges"
    assert seen.message == {"amount": 5}


# -- what callers say there themselves

SPELLINGS = ["X-Callerid-Assertion", "x-callerid-assertion", "X_Callerid_Assertion", "X-CALLERID_Assertion",
             "X-Callerid-Anything", "X-Who-Calls", "x-who-calls", "X_WHO_CALLS", "x_who-calls"]  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("where", ["told", "plain", "api"])
def test_no_header_of_the_callers_arrives(scene: Scene, name: str, where: str) -> None:
    upstream, path = getattr(scene, where), "/v1/x" if where == "api" else "/mcp"
    [seen] = scene.ask(upstream, h.tool("read_thing"), {name: FORGED}, path).seen
    assert FORGED.encode() not in seen.raw
    names = [key.lower().replace("_", "-") for key, _ in seen.headers]
    expected = {"told": [OTHER.lower()], "plain": [], "api": [HEADER.lower()]}[where]
    assert [key for key in names if key in (HEADER.lower(), OTHER.lower())] == expected


def test_no_repeated_header_of_the_callers_arrives(scene: Scene) -> None:
    tried = h.trial(scene.proxy, scene.plain)
    authority, body = f"localhost:{scene.plain.port}", h.tool("read_thing")
    client = scene.proxy.tunnel(authority, headers={"Proxy-Authorization": h.basic("alice", scene.token)})
    twice = f"{OTHER}: {FORGED}\r\n{OTHER.lower()}: {FORGED}2\r\n{HEADER}: {FORGED}\r\n{HEADER}: {FORGED}\r\n"
    head = f"POST /mcp HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n{twice}"
    client.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert client.read() is not None
    client.close()
    [seen] = tried.seen
    assert b"forged" not in seen.raw


def call(meta: str, rpc_id: int = 1) -> str:
    """A tools/call with a ``_meta`` in the caller's own spelling."""
    params = f'{{"name":"read_thing","arguments":{{}},"_meta":{{{meta}}}}}'
    return f'{{"jsonrpc":"2.0","id":{rpc_id},"method":"tools/call","params":{params}}}'


SAID = f'"{FORGED}"'
OURS = f'"{META}":{SAID}'
IN_META = {
    "plainly": call(OURS),
    "escaped": call(f'"call\\u0065rid\\/assertion":{SAID}'),
    "in capitals": call(f'"CallerID/Assertion":{SAID}'),
    "with letters that fold": call(f'"callerıd/aſſertıon":{SAID}'),
    "under another name of ours": call(f'"callerid/principal":{SAID},"callerid/x":{{"a":{SAID}}}'),
    "in a notification": call(OURS).replace('"id":1,', "").replace("tools/call", "notifications/progress"),
    "in a batch": f"[{call(OURS)},{call(OURS, 2)}]",
}


@pytest.mark.parametrize("body", IN_META.values(), ids=IN_META)
@pytest.mark.parametrize("where", ["told", "plain"])
def test_no_meta_of_the_callers_arrives(scene: Scene, body: str, where: str) -> None:
    tried = scene.ask(getattr(scene, where), body.encode())
    [seen] = tried.seen
    assert b"forged" not in seen.raw
    assert len(re.findall(rb"(?i)callerid/", seen.body)) == (len(metas(seen)) if where == "told" else 0)


def test_arguments_and_what_others_put_in_meta_stay(scene: Scene) -> None:
    params = {
        "name": "read_thing",
        "arguments": {"_meta": {META: "mine"}, "callerid": "x"},
        "_meta": {"progressToken": 1, "corp.example/callerid/x": 2, META: FORGED},
    }
    [seen] = scene.ask(scene.plain, h.rpc("tools/call", params)).seen
    del params["_meta"][META]  # type: ignore[attr-defined]
    assert seen.message["params"] == params


def test_towards_hosts_that_nobody_listed_nothing_of_ours_is_said(scene: Scene) -> None:
    elsewhere = h.Upstream(None, lambda seen: h.Reply(200, body=b"hi"))
    client = scene.proxy.plain()
    place = f"localhost:{elsewhere.port}"
    client.send(f"GET http://{place}/page HTTP/1.1\r\nHost: {place}\r\n{HEADER}: {FORGED}\r\n\r\n".encode())
    assert client.read() is not None
    client.close()
    elsewhere.close()
    assert all(b"forged" not in seen.raw for seen in elsewhere.seen)


# -- keys


def test_the_keys_are_renewed_while_it_runs_and_both_verify(scene: Scene) -> None:
    before = str(scene.ask(scene.told, h.tool("read_thing")).seen[0].header(OTHER))
    old = jwt.get_unverified_header(before)["kid"]
    printed = json.loads(scene.proxy.command("jwks", "--rotate").stdout)
    new = printed["keys"][0]["kid"]
    assert [key["kid"] for key in printed["keys"][:2]] == [new, old]

    def signs() -> bool:
        seen = scene.ask(scene.told, h.tool("read_thing")).seen
        return jwt.get_unverified_header(str(seen[0].header(OTHER)))["kid"] == new

    h.wait_for(signs, "the new key signs")
    assert scene.claims(before, "urn:told", leeway=60)["sub"] == "user:alice@corp.example"


@pytest.mark.parametrize("spoilt", ["garbage", "gone"])
def test_without_its_key_only_those_who_are_to_be_told_are_not_called(scene: Scene, spoilt: str) -> None:
    path: Path = scene.proxy.home / signing_keys.FILE
    good = path.read_bytes()
    aside = path.with_name("aside")
    path.rename(aside)
    if spoilt == "garbage":
        path.write_bytes(b"garbage")
    try:
        h.wait_for(
            lambda: scene.ask(scene.told, h.tool("read_thing")).seen == [],
            "the file is looked at",
        )
        tried = scene.ask(scene.told, h.tool("read_thing"))
        row = tried.refused("credential_unavailable")
        assert row["verdict"] == "error"
        assert "cannot be asserted" in row["detail"]
        assert "credential_unavailable" in tried.answer.text  # type: ignore[union-attr]
        assert str(path) not in tried.answer.text  # type: ignore[union-attr]
        batch = b"[" + h.tool("read_thing", {}, 1) + b"," + h.tool("query", {}, 2) + b"]"
        assert scene.ask(scene.told, batch).seen == []
        assert scene.ask(scene.api, b"{}", path="/v1/x").refused("credential_unavailable")
        other = scene.ask(scene.plain, h.tool("read_thing"))
        assert other.answer is not None
        assert other.answer.text == "ran read_thing"
    finally:
        path.unlink(missing_ok=True)
        aside.rename(path)
    assert path.read_bytes() == good
    h.wait_for(lambda: scene.ask(scene.told, h.tool("read_thing")).seen, "the key is back")


def test_the_private_key_is_nowhere_but_in_its_file(scene: Scene) -> None:
    text = (scene.proxy.home / signing_keys.FILE).read_text()
    secret = text.split("PRIVATE KEY-----\n")[1].split("\n")[0]
    for path in scene.proxy.home.rglob("*"):
        if path.is_file() and path.name != signing_keys.FILE:
            assert secret.encode() not in path.read_bytes(), path
    assert secret not in "\n".join(scene.proxy.output)
    assert secret not in scene.proxy.command("jwks", "--json").stdout
