"""What an operator is told beside the rows: shared keys of their own, evidence that went astray, echoes.

One proxy observes unlisted servers. Findings are read as an analyst reads them: from the views.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e import harness as h
from tests.e2e.warm import Warm

KEY = "ghp_" + "aZ3" * 12
CALL = h.tool("read_thing", {"x": 1}, 5)


@dataclass
class Office:
    proxy: h.WarmProxy
    things: h.Upstream
    wild: h.Upstream
    tokens: dict[str, str]

    def send(
        self, upstream: h.Upstream, *lines: str, who: str | None = "alice", body: bytes = CALL,
        target: str = "/mcp", verb: str = "POST",
    ) -> h.Trial:  # fmt: skip
        tried = h.trial(self.proxy, upstream)
        authority = f"localhost:{upstream.port}"
        connect = {"Proxy-Authorization": h.basic(who, self.tokens[who])} if who else None
        client = self.proxy.tunnel(authority, headers=connect)
        head = [f"{verb} {target} HTTP/1.1", f"Host: {authority}", *lines]
        if body:
            head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
            head += ["Accept: application/json, text/event-stream"]
        client.send("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        tried.answer = client.read()
        client.close()
        return tried

    def ask(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        db = sqlite3.connect(f"file:{self.proxy.home / 'audit.db'}?mode=ro", uri=True, timeout=h.DEADLINE)
        try:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(sql, values)]
        finally:
            db.close()

    def await_found(self, where: str, *values: Any, count: int = 1) -> list[dict[str, Any]]:
        sql = f"select * from findings where {where} order by time_us"
        h.wait_for(lambda: len(self.ask(sql, *values)) >= count, f"{count} findings where {where}")
        return self.ask(sql, *values)


PEOPLE = ("alice", "bob", "carol", "dan", "erin", "frank", "ivy")


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Office]:
    things, wild = h.Upstream(pki.server_context()), h.Upstream(pki.server_context())
    groups = "  everybody: {members: [" + ", ".join(f'"user:{n}@corp.example"' for n in PEOPLE) + "]}\n"
    rules = h.standard_rules(
        things.port,
        **{
            "policy.yaml": h.POLICY.replace("unknown_server: deny", "unknown_server: observe").replace(
                "group:engineering", "group:everybody"
            ),
            "identities.yaml": h.identities(groups),
        },
    )
    environ = {"THINGS_SECRET": h.SECRET}
    proxy = h.WarmProxy(warm, tmp_path_factory.mktemp("findings"), rules, ca=pki.ca, environ=environ)
    with h.running(proxy):
        tokens = {name: h.mint(proxy, f"user:{name}@corp.example") for name in PEOPLE}
        yield Office(proxy, things, wild, tokens)
    for upstream in (things, wild):
        upstream.close()
    for file in proxy.home.rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        for secret in (h.SECRET, KEY, *tokens.values()):
            assert secret.encode() not in data, file.name


# -- keys of their own -------------------------------------------------------------------------------


def test_one_key_and_seven_people_is_one_question(office: Office) -> None:
    for name in PEOPLE:
        office.send(office.wild, f"Authorization: Bearer {KEY}", who=name)
    office.send(office.things, f"X-Api-Key: {KEY}", who="alice")
    office.await_found("kind = 'own_key'", count=8)
    (row,) = office.ask("select * from raw_keys where kind = 'own_key' and people > 1")
    assert (row["people"], row["credential"]) == (7, None)
    assert json.loads(row["caller_names"]) == [f"user:{name}@corp.example" for name in PEOPLE]
    assert json.loads(row["servers"]) == [f"localhost:{office.wild.port}", "things"]


@pytest.mark.parametrize(
    ("line", "body"),
    [
        pytest.param("Authorization: Bearer some-opaque-key-{n}", CALL, id="an opaque bearer"),
        pytest.param("Authorization: Basic {basic}", CALL, id="a password"),
        pytest.param("X-Tool-Header: sk-proj-{n}abcdefghijklmnopq", CALL, id="by a vendor's prefix"),
        pytest.param(
            None, h.tool("read_thing", {"note": "use glpat-abcdefghij0123456{n}"}), id="in an argument"
        ),
    ],
)
def test_a_key_is_known_by_its_place_or_its_prefix(office: Office, line: str | None, body: bytes) -> None:
    number = f"{abs(hash((line, body))) % 10**8:08}"
    basic = base64.b64encode(f"user:password-{number}".encode()).decode()
    lines = [line.format(n=number, basic=basic)] if line else []
    tried = office.send(office.wild, *lines, body=body.replace(b"{n}", number.encode()))
    event_id = tried.row["event_id"]
    (finding,) = office.await_found("event_id = ?", event_id)
    assert (finding["kind"], finding["principal"]) == ("own_key", "user:alice@corp.example")
    assert len(finding["fingerprint"]) == 32


def test_a_token_of_ours_and_honest_text_are_no_keys(office: Office) -> None:
    note = {"note": "the task-list, sk-short and basic research, AKIA but no more"}
    before = len(office.ask("select * from findings where kind = 'own_key'"))
    office.send(office.things, f"Authorization: Bearer {office.tokens['alice']}", body=h.tool("query", note))
    office.send(office.things, "Authorization: Bearer last-key-for-the-fence", who="ivy")
    office.await_found("kind = 'own_key'", count=before + 1)
    assert len(office.ask("select * from findings where kind = 'own_key'")) == before + 1


def test_keys_to_what_is_no_mcp_server_are_nobodys_business(office: Office) -> None:
    office.send(
        office.wild, "Authorization: Bearer personal-web-session-77", target="/page", body=b"", verb="GET"
    )
    office.send(office.things, "Authorization: Bearer fence-key-after-the-page", who="bob")
    office.await_found("kind = 'own_key' and principal = 'user:bob@corp.example' and server = 'things'")
    places = office.ask("select distinct server from findings where principal = 'user:bob@corp.example'")
    assert len(office.ask("select * from findings where detail like '%web-session%'")) == 0
    assert {"server": "things"} in places


# -- evidence that went astray -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "target", "body"),
    [
        pytest.param("Authorization: Bearer {token}", "/page", b"", id="in a header of another host"),
        pytest.param("X-Own: {token}", "/page", b"", id="in a header of any name"),
        pytest.param("Authorization: Basic {basic}", "/page", b"", id="in Basic"),
        pytest.param("Authorization: Bearer {token}", "/mcp", CALL, id="at an unlisted MCP server"),
        pytest.param(None, "/page?t={token}", b"", id="in the URL"),
        pytest.param(None, "/page", b"t={token}", id="in a body"),
    ],
)
def test_a_token_sent_to_another_host_is_told_and_does_not_get_there(
    office: Office, line: str | None, target: str, body: bytes
) -> None:
    who = f"user:traveller-{abs(hash((line, target, body))) % 10**6}@corp.example"
    token = h.mint(office.proxy, who)
    basic = base64.b64encode(f"x:{token}".encode()).decode()
    lines = [line.format(token=token, basic=basic)] if line else []
    sent = body.replace(b"{token}", token.encode())
    tried = office.send(
        office.wild, *lines, who=None, target=target.format(token=token), body=sent,
        verb="POST" if sent else "GET",
    )  # fmt: skip
    assert all(token.encode() not in seen.raw and basic.encode() not in seen.raw for seen in tried.seen)
    name = h.token_id(token)
    (finding,) = office.await_found("kind = 'token_abroad' and credential = ?", name)
    assert finding["server"] == f"localhost:{office.wild.port}"
    assert finding["principal"] in (who, None)
    if line is not None and line.startswith("Authorization"):
        assert finding["principal"] == who


def test_what_is_shown_to_callerid_itself_is_not_abroad(office: Office) -> None:
    token = h.mint(office.proxy, "user:deskbound@corp.example")
    client = office.proxy.plain()
    head = ("GET http://callerid.internal/whoami HTTP/1.1", "Host: callerid.internal")
    client.send("\r\n".join((*head, f"Authorization: Bearer {token}")).encode() + b"\r\n\r\n")
    answer = client.read()
    client.close()
    assert answer is not None
    assert answer.status == 200
    fence = h.mint(office.proxy, "user:deskfence@corp.example")
    office.send(office.wild, f"X-Own: {fence}", who=None, target="/page", body=b"", verb="GET")
    office.await_found("credential = ?", h.token_id(fence))
    assert office.ask("select * from findings where kind = 'token_abroad' and server = 'callerid'") == []


def test_the_carriers_of_a_proxy_are_not_abroad(office: Office) -> None:
    token = h.mint(office.proxy, "user:homebody@corp.example")
    office.send(office.wild, f"X-Callerid-Token: {token}", who=None, target="/page", body=b"", verb="GET")
    fence = h.mint(office.proxy, "user:fence@corp.example")
    office.send(office.wild, f"X-Own: {fence}", who=None, target="/page", body=b"", verb="GET")
    office.await_found("credential = ?", h.token_id(fence))
    assert office.ask("select * from findings where credential = ?", h.token_id(token)) == []


def test_two_identities_in_one_request_are_told(office: Office) -> None:
    tried = office.send(office.things, f"Authorization: Bearer {office.tokens['bob']}", who="alice")
    row = tried.refused("identity_conflict")
    (finding,) = office.await_found("event_id = ?", row["event_id"])
    assert (finding["kind"], finding["server"], finding["principal"]) == ("identity_conflict", "things", None)


# -- what servers do ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["a header", "a body", "an event", "the reason phrase"])
def test_an_echoed_secret_is_taken_out_and_told(office: Office, how: str) -> None:
    def answer(seen: h.Seen) -> h.Reply:
        result = {"jsonrpc": "2.0", "id": 5, "result": {"content": [{"type": "text", "text": h.SECRET}]}}
        text = json.dumps(result).encode()
        plain = text.replace(h.SECRET.encode(), b"nothing")
        match how:
            case "a header":
                return h.Reply(200, [("content-type", "application/json"), ("x-k", h.SECRET)], plain)
            case "an event":
                event = b"data: " + text + b"\n\n"
                pieces = iter([event[n : n + 5] for n in range(0, len(event), 5)])
                return h.Reply(200, [("content-type", "text/event-stream")], chunks=pieces)
            case "the reason phrase":
                head = f"HTTP/1.1 200 {h.SECRET}\r\nContent-Type: application/json\r\n"
                return h.Reply(raw=f"{head}Content-Length: {len(plain)}\r\n\r\n".encode() + plain)
        return h.Reply(200, [("content-type", "application/json")], text)

    before, office.things.answer = office.things.answer, answer
    who = {"a header": "alice", "a body": "bob", "an event": "carol", "the reason phrase": "dan"}[how]
    try:
        tried = office.send(office.things, who=who)
    finally:
        office.things.answer = before
    assert tried.answer is not None
    assert h.SECRET not in tried.answer.body.decode() + str(tried.answer.headers)
    (finding,) = office.await_found("event_id = ? and kind = 'secret_echoed'", tried.row["event_id"])
    assert (finding["credential"], finding["principal"]) == ("things-key@v1", f"user:{who}@corp.example")


def test_a_credential_that_its_server_refuses_is_told(office: Office) -> None:
    before, office.things.answer = office.things.answer, lambda seen: h.Reply(401, [], b"who are you")
    try:
        tried = office.send(office.things, who="erin")
    finally:
        office.things.answer = before
    (finding,) = office.await_found("event_id = ?", tried.row["event_id"])
    assert (finding["kind"], finding["credential"]) == ("credential_refused", "things-key@v1")
    assert finding["detail"] == "the server answered 401 to the injected credential"


def test_the_command_prints_them(office: Office) -> None:
    office.send(office.things, "Authorization: Bearer a-key-for-the-command", who="frank")
    office.await_found("kind = 'own_key' and principal = 'user:frank@corp.example' and server = 'things'")
    lines = office.proxy.command("audit", "findings", "--kind", "own_key", "--json").stdout.splitlines()
    assert {json.loads(line)["kind"] for line in lines} == {"own_key"}
    assert "a-key-for" not in "".join(lines)
