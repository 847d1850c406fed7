"""The proxy's own address over the real proxy: who am I, a token for a sub-agent, and nothing dialled.

Each test asks the client and the row; that nothing was dialled is asked of a server that listens where the
name would lead.
"""

from __future__ import annotations

import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from callerid.identity.tokens import is_well_formed
from tests.e2e import harness as h
from tests.e2e.house import ALICE, House, carried, post

DESK = "callerid.internal"


def bearer(token: str) -> dict[str, str]:
    return {"Proxy-Authorization": f"Bearer {token}"}


def raw(
    method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b"", host: str = DESK
) -> bytes:
    fields = {"Host": host, **(headers or {})}
    if body:
        fields["Content-Length"] = str(len(body))
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
    return head.encode() + b"\r\n" + body


class Asked:
    """One request to the desk, and what came of it."""

    def __init__(self, house: House, answer: h.Answer | None, since: int) -> None:
        self.house, self.answer, self.since = house, answer, since

    @property
    def status(self) -> int:
        assert self.answer is not None
        return self.answer.status

    @property
    def json(self) -> Any:
        assert self.answer is not None
        return self.answer.json

    def row(self, **wanted: Any) -> dict[str, Any]:
        """The one row, with these values."""
        [row] = self.house.proxy.await_rows(1, "seq > ?", self.since)
        assert {name: row[name] for name in wanted} == wanted, row
        return row


def ask(
    house: House, method: str, path: str, *, headers: dict[str, str] | None = None, body: bytes = b"",
    host: str = DESK, target: str | None = None, context: Any = None, outer: Any = None,
    connect: dict[str, str] | None = None, tunnel: str | None = None,
) -> Asked:  # fmt: skip
    since = h.newest(house.proxy)
    if outer is not None:
        client = h.tunnel_over_tls(house.proxy, tunnel or f"{DESK}:443", outer, context, headers=connect)
        client.send(raw(method, path, headers, body, host))
    elif tunnel is not None:
        client = house.proxy.tunnel(tunnel, headers=connect, context=context)
        client.send(raw(method, path, headers, body, host))
    else:
        client = house.proxy.plain()
        client.send(raw(method, target or f"http://{DESK}{path}", headers, body, host))
    answer = client.read()
    client.close()
    return Asked(house, answer, since)


def derive(house: House, token: str | None, asked: Any, **more: Any) -> Asked:
    headers = {
        "Content-Type": "application/json",
        **(bearer(token) if token else {}),
        **more.pop("headers", {}),
    }
    body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    return ask(house, "POST", "/derive", headers=headers, body=body, **more)


# -- who am I ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["absolute form", "inside a tunnel", "at CONNECT"])
def test_whoami_says_whom_callerid_takes_the_sender_for(house: House, how: str) -> None:
    token = h.mint(house.proxy, agent="claude-code", servers=("things",), tools=("read_*",))
    if how == "absolute form":
        asked = ask(house, "GET", "/whoami", headers=bearer(token))
    elif how == "inside a tunnel":
        asked = ask(house, "GET", "/whoami", headers={"X-Callerid-Token": token}, tunnel=f"{DESK}:443")
    else:
        asked = ask(house, "GET", "/whoami", connect=bearer(token), tunnel=f"{DESK}:443")
    assert asked.status == 200
    assert asked.answer is not None
    assert asked.answer.headers["cache-control"] == "no-store"
    found = asked.json
    assert (found["principal"], found["agent"], found["assurance"]) == (ALICE, "claude-code", "bearer")
    assert found["evidence"][0]["id"] == h.token_id(token)
    assert found["ceilings"] == [{"origin": h.token_id(token), "servers": ["things"], "tools": ["read_*"]}]
    assert found["groups"] == ["engineering"]
    assert found["client_ip"] == "127.0.0.1"
    row = asked.row(
        server="callerid", verdict="allow", reason="answered_here", principal=ALICE, kind="http",
        method="http/GET", tool="GET /whoami",
    )  # fmt: skip
    [settled] = house.proxy.await_rows(1, "seq = ? and outcome <> 'unknown'", row["seq"])
    assert (settled["outcome"], settled["http_status"]) == ("ok", 200)


@pytest.mark.parametrize(
    ("flaw", "reason"),
    [("expired", "token_expired"), ("revoked", "token_revoked"), ("mallory", "principal_blocked"),
     ("malformed", "token_malformed"), (None, "no_evidence")],
)  # fmt: skip
def test_whoever_is_not_known_is_told_why_with_a_row(house: House, flaw: str | None, reason: str) -> None:
    asked = ask(house, "GET", "/whoami", headers=bearer(house.tokens[flaw]) if flaw else {})
    assert (asked.status, asked.json["error"]) == (401, reason)
    row = asked.row(verdict="deny", reason=reason, server="callerid")
    assert asked.json["decision"] == row["event_id"]
    refused = derive(house, house.tokens[flaw] if flaw else None, {"agent": "claude-code"})
    assert (refused.status, refused.json["error"]) == (401, reason)
    refused.row(reason=reason, tool="POST /derive")


def test_the_keys_of_assertions_are_for_everybody(house: House) -> None:
    asked = ask(house, "GET", "/.well-known/jwks.json")
    assert asked.status == 200
    assert isinstance(asked.json["keys"], list)
    asked.row(reason="answered_here", principal="anonymous", tool="GET /.well-known/jwks.json")


@pytest.mark.parametrize("path", ["/", "/nothing", "/whoami/", "/WHOAMI", "/derive/x"])
def test_an_unknown_path_is_404_with_a_row(house: House, path: str) -> None:
    asked = ask(house, "GET", path, headers=bearer(house.tokens["good"]))
    assert asked.status == 404
    asked.row(reason="answered_here", server="callerid", path=path, principal=ALICE)


@pytest.mark.parametrize(("method", "path"), [("GET", "/derive"), ("POST", "/whoami"), ("DELETE", "/whoami")])
def test_a_method_that_is_not_offered_is_405(house: House, method: str, path: str) -> None:
    asked = ask(house, method, path, headers=bearer(house.tokens["good"]))
    assert asked.status == 405
    assert asked.answer is not None
    assert asked.answer.headers["allow"] in ("GET", "POST")
    asked.row(reason="answered_here", method=f"http/{method}")


# -- never dialled -------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", [DESK, "CallerID.Internal", f"{DESK}.", f"{DESK}:80"])
def test_every_spelling_of_the_name_is_answered_here(house: House, spelling: str) -> None:
    headers = bearer(house.tokens["good"])
    asked = ask(house, "GET", "", headers=headers, host=spelling, target=f"http://{spelling}/whoami")
    assert (asked.status, asked.json["principal"]) == (200, ALICE)


@pytest.mark.parametrize("port", [22, 80, 8443])
def test_other_ports_of_the_name_are_refused_and_not_dialled(house: House, port: int) -> None:
    headers, place = bearer(house.tokens["good"]), f"{DESK}:{port}"
    asked = ask(house, "GET", "/whoami", headers=headers, host=place, tunnel=place)
    assert (asked.status, asked.json["error"]) == (421, "destination_mismatch")
    asked.row(reason="destination_mismatch", server="callerid")


@pytest.mark.parametrize("bytes_sent", [b"SSH-2.0-x\r\n\r\n", b"\x00\x01\x02 nothing that is HTTP\r\n\r\n"])
def test_raw_bytes_in_a_tunnel_to_the_name_lead_nowhere(house: House, bytes_sent: bytes) -> None:
    since = h.newest(house.proxy)
    client = house.proxy.tunnel(f"{DESK}:22", tls=False)
    client.send(bytes_sent)
    assert client.stream.read(5) in (b"", b"HTTP/")  # closed, or an error of ours
    client.close()
    [row] = house.proxy.await_rows(1, "seq > ?", since)
    assert (row["verdict"], row["upstream"]) == ("deny", f"{DESK}:22")


def test_names_that_disagree_are_refused_whichever_is_ours(house: House) -> None:
    other = f"localhost:{house.plain.port}"
    before = len(house.plain.seen)
    for target, host in ((f"http://{DESK}/whoami", other), (f"http://{other}/whoami", DESK)):
        asked = ask(house, "GET", "", headers=bearer(house.tokens["good"]), host=host, target=target)
        assert (asked.status, asked.json["error"]) == (421, "destination_mismatch")
        asked.row(reason="destination_mismatch", server="callerid")
    inner = ask(house, "GET", "/whoami", tunnel=house.authority, connect=bearer(house.tokens["good"]))
    assert inner.status == 421
    assert len(house.plain.seen) == before


# -- derive --------------------------------------------------------------------------------------


def test_the_holder_of_a_token_derives_a_narrower_one_that_works(house: House) -> None:
    parent = h.mint(house.proxy, servers=("things", "lab"))
    asked = derive(
        house, parent, {"agent": "claude-code", "ttl": "10m", "servers": ["lab"], "tools": ["read_*"]}
    )
    assert asked.status == 201
    made = asked.json
    assert is_well_formed(made["token"])
    assert asked.answer is not None
    assert asked.answer.headers["cache-control"] == "no-store"
    assert (made["agent"], made["parent"], made["actors"]) == (
        "claude-code",
        h.token_id(parent),
        ["claude-code"],
    )
    row = asked.row(reason="answered_here", principal=ALICE, tool="POST /derive", method="http/POST")
    assert made["token"] not in json.dumps(row)
    assert json.loads(row["arguments"])["servers"] == ["lab"]
    assert made["id"] in row["detail"]
    who = ask(house, "GET", "/whoami", headers=bearer(made["token"])).json
    assert (who["principal"], who["agent"], who["actors"]) == (ALICE, "claude-code", ["claude-code"])
    assert {tuple(one["servers"]) for one in who["ceilings"]} == {("lab",), ("things", "lab")}
    with h.registry(house.proxy) as registry:
        assert registry.revoke(h.token_id(parent), now_us=time.time_ns() // 1000, by="tests") == 2
    assert ask(house, "GET", "/whoami", headers=bearer(made["token"])).json["error"] == "token_revoked"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        pytest.param({"servers": ["lab"]}, "not within", id="another server"),
        pytest.param({"servers": ["things", "lab"]}, "not within", id="one server more"),
        pytest.param({"tools": ["drop_thing"]}, "not within", id="another tool"),
        pytest.param({"networks": ["10.0.0.0/8"]}, "not within", id="another network"),
        pytest.param({"networks": ["0.0.0.0/0"]}, "not within", id="every network"),
        pytest.param({"ttl": "2h"}, "outlive", id="a longer life"),
        pytest.param({"ttl": "900d"}, "more than", id="a life longer than any"),
        pytest.param({"agent": "ivys-helper"}, "may not act", id="somebody else's agent"),
        pytest.param({"agent": "shadow-agent"}, "may not act", id="an agent that nobody registered"),
    ],
)
def test_a_child_is_never_more_than_its_parent(house: House, asked: dict[str, Any], said: str) -> None:
    parent = h.mint(
        house.proxy, seconds=3600, servers=("things",), tools=("read_*",), networks=("127.0.0.0/8",)
    )
    refused = derive(house, parent, asked)
    assert (refused.status, refused.json["error"]) == (403, "derive_refused")
    assert said in refused.json["detail"]
    refused.row(verdict="deny", reason="derive_refused", tool="POST /derive", principal=ALICE)
    with h.registry(house.proxy) as registry:
        assert [row for row in registry.tokens() if row.parent == h.token_id(parent)] == []


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        pytest.param(b"{", {}, 400, "malformed_json", id="no JSON"),
        pytest.param(b"", {}, 400, "malformed_json", id="nothing"),
        pytest.param(b"[]", {}, 400, "malformed_message", id="a list"),
        pytest.param(b'{"agent":"a","agent":"b"}', {}, 400, "duplicate_key", id="a member twice"),
        pytest.param(b'{"principal":"user:bob@corp.example"}', {}, 400, "malformed_message", id="a stranger"),
        pytest.param(b'{"agent":7}', {}, 400, "malformed_message", id="a number for a name"),
        pytest.param(b'{"agent":"a b"}', {}, 400, "malformed_message", id="no name"),
        pytest.param(b'{"ttl":"soon"}', {}, 400, "malformed_message", id="no time"),
        pytest.param(b'{"ttl":"0s"}', {}, 400, "malformed_message", id="no time at all"),
        pytest.param(b'{"servers":[]}', {}, 400, "malformed_message", id="no server at all"),
        pytest.param(
            b'{"networks":["10.0.0.1/8"]}', {}, 400, "malformed_message", id="host bits in a network"
        ),
        pytest.param(b'{"agent":"\xff"}', {}, 400, "not_utf8", id="not UTF-8"),
        pytest.param(b"{}", {"Content-Type": "text/plain"}, 415, "header_mismatch", id="a form of a page"),
        pytest.param(b"{}", {"Origin": "https://evil.example"}, 403, "header_mismatch", id="from a page"),
        pytest.param(b"{}", {"Content-Encoding": "gzip"}, 415, "encoding_refused", id="compressed"),
        pytest.param(b'{"agent":"' + b"a" * 20_000 + b'"}', {}, 413, "too_large", id="too large"),
        pytest.param(b" " * 200_000, {}, 413, "too_large", id="much too large"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_row(
    house: House, body: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    asked = derive(house, house.tokens["good"], body, headers=headers)
    assert asked.status == status
    asked.row(verdict="deny", reason=reason, server="callerid", principal=ALICE)


def test_a_token_in_the_url_is_refused_and_stands_in_no_row(house: House) -> None:
    token = house.tokens["good"]
    asked = ask(house, "GET", f"/whoami?token={token}")
    assert (asked.status, asked.json["error"]) == (400, "token_in_request")
    assert token not in json.dumps(asked.row(reason="token_in_request"))


def test_two_lengths_are_one_too_many(house: House) -> None:
    body = b'{"agent":"claude-code"}'
    headers = {"Content-Type": "application/json", **bearer(house.tokens["good"]), "Content-length": "4"}
    asked = ask(house, "POST", "/derive", headers=headers, body=body)
    assert asked.status == 400
    asked.row(verdict="deny", reason="malformed_http")


# -- with a JWT or a certificate -------------------------------------------------------------------


def test_a_token_derived_from_a_jwt_ends_with_it_and_dies_with_it(house: House) -> None:
    evidence = house.jwt(jti="derives-1", groups=None)
    asked = derive(house, evidence, {"agent": "claude-code", "ttl": "5m", "servers": ["lab"]})
    assert asked.status == 201
    token = asked.json["token"]
    who = ask(house, "GET", "/whoami", headers=bearer(token)).json
    assert (who["principal"], who["issuer"], who["assurance"]) == (ALICE, "local", "bearer")
    too_long = derive(house, evidence, {"ttl": "1h"})
    assert (too_long.status, too_long.json["error"]) == (403, "derive_refused")
    with h.registry(house.proxy) as registry:
        registry.block("jwt:corp-idp:derives-1", now_us=1, by="tests")
    assert ask(house, "GET", "/whoami", headers=bearer(token)).json["error"] == "principal_blocked"
    assert derive(house, token, {}).status == 401


@pytest.mark.parametrize("where", ["to the proxy", "inside"])
def test_a_token_derived_from_a_certificate_dies_with_it(house: House, where: str) -> None:
    shown = house.shows("alice")
    place = {"outer": shown} if where == "to the proxy" else {"context": shown, "tunnel": f"{DESK}:443"}
    asked = derive(house, None, {"agent": "claude-code"}, **place)
    assert asked.status == 201
    token, credential = asked.json["token"], house.leaves["alice"].credential_id
    assert ask(house, "GET", "/whoami", headers=bearer(token)).json["principal"] == ALICE
    house.proxy.command("block", credential)
    try:
        assert ask(house, "GET", "/whoami", headers=bearer(token)).json["error"] == "principal_blocked"
    finally:
        house.proxy.command("unblock", credential)
    assert ask(house, "GET", "/whoami", headers=bearer(token)).status == 200


# -- attacks -------------------------------------------------------------------------------------


def test_a_registry_that_is_locked_refuses_with_a_row_and_recovers(house: House) -> None:
    writer = sqlite3.connect(house.proxy.home / "registry.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        asked = derive(house, house.tokens["good"], {"agent": "claude-code"})
        assert (asked.status, asked.json["error"]) == (503, "internal_error")
        asked.row(verdict="error", reason="internal_error", tool="POST /derive", principal=ALICE)
    finally:
        writer.execute("ROLLBACK")
        writer.close()
    assert derive(house, house.tokens["good"], {"agent": "claude-code"}).status == 201


def test_deriving_while_the_parent_is_revoked_leaves_no_good_child(house: House) -> None:
    for _ in range(5):
        parent = h.mint(house.proxy)
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(derive, house, parent, {"agent": "claude-code"}) for _ in range(3)]
            with h.registry(house.proxy) as registry:
                registry.revoke(h.token_id(parent), now_us=time.time_ns() // 1000, by="tests")
            answers = [one.result().answer for one in asked]
        for answer in answers:
            assert answer is not None
            if answer.status == 201:
                who = ask(house, "GET", "/whoami", headers=bearer(answer.json["token"]))
                assert who.json["error"] == "token_revoked"
        with h.registry(house.proxy) as registry:
            children = [row for row in registry.tokens() if row.parent == h.token_id(parent)]
            assert all(row.revoked_us is not None for row in children)


def test_nobody_derives_without_end(house: House) -> None:
    token = h.mint(house.proxy, "user:bob@corp.example")
    client = house.proxy.plain()
    statuses = []
    for _ in range(64):
        headers = {"Content-Type": "application/json", **bearer(token)}
        client.send(raw("POST", f"http://{DESK}/derive", headers, b'{"agent": "claude-code"}'))
        answer = client.read()
        assert answer is not None
        statuses.append((answer.status, answer.json.get("error")))
    client.close()
    assert statuses[0] == (201, None)
    assert (403, "derive_refused") in statuses
    assert statuses.count((201, None)) <= 61


# -- networks ------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(house: House) -> str:
    return h.mint(house.proxy, networks=("10.20.0.0/16", "2001:db8::/32"))


@pytest.mark.parametrize("carrier", ["basic at CONNECT", "bearer at CONNECT", "authorization", "x-token"])
def test_a_token_of_another_network_is_refused_with_its_reason(
    house: House, elsewhere: str, carrier: str
) -> None:
    tried = house.ask(**carried(elsewhere, carrier))
    row = tried.refused("token_network")
    assert row["credential_id"] == h.token_id(elsewhere)


def test_a_token_of_this_network_is_good(house: House) -> None:
    token = h.mint(house.proxy, networks=("192.0.2.0/24", "127.0.0.0/8"))
    assert ask(house, "GET", "/whoami", headers=bearer(token)).status == 200
    client = house.proxy.plain()
    client.send(post(f"localhost:{house.plain.port}", [("X-Callerid-Token", token)],
                     f"http://localhost:{house.plain.port}/mcp"))  # fmt: skip
    answer = client.read()
    client.close()
    assert answer is not None
    assert answer.text == "ran read_thing"


# -- an address of its own -------------------------------------------------------------------------


def test_in_reverse_mode_the_desk_has_a_port(
    tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Any, upstream: h.Upstream
) -> None:
    port = h.free_port()
    proxy = h.WarmProxy(
        warm, tmp_path_factory.mktemp("reverse"), h.standard_rules(upstream.port), ca=pki.ca,
        environ={"THINGS_SECRET": h.SECRET}, modes=("regular", f"reverse:http://{DESK}@127.0.0.1:{port}"),
    )  # fmt: skip
    with h.running(proxy):
        token = proxy.issue()
        for path, status in (("/whoami", 200), ("/.well-known/jwks.json", 200), ("/mcp", 404)):
            client = proxy.plain(port)
            client.send(raw("GET", path, {"Authorization": f"Bearer {token}"}, host=f"localhost:{port}"))
            answer = client.read()
            client.close()
            assert answer is not None
            assert answer.status == status
        assert [row["server"] for row in proxy.rows()] == ["callerid"] * 3


def test_what_is_too_long_is_refused_in_the_desks_own_words(house: House) -> None:
    asked = derive(house, h.mint(house.proxy), b" " * 20_000)
    assert (asked.status, asked.json["error"]) == (413, "too_large")
    row = asked.row(verdict="deny", reason="too_large", server="callerid")
    assert asked.json["decision"] == row["event_id"]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no Host"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", id="HTTP/2 without TLS"),
    ],
)
def test_a_request_that_names_no_place_is_refused_with_a_row(house: House, sent: bytes) -> None:
    since = h.newest(house.proxy)
    client = house.proxy.plain()
    client.send(sent)
    client.sock.settimeout(10)
    assert b" 200 " not in client.sock.recv(200)
    client.close()
    [row] = h.settled(house.proxy, since, 1)
    assert (row["verdict"], row["reason"], row["server"]) == ("deny", "malformed_http", "-")


def test_calls_of_an_api_can_be_all_that_a_derived_token_is_good_for(house: House) -> None:
    made = derive(house, h.mint(house.proxy), {"tools": ["http:GET /**"]})
    assert made.status == 201
    assert made.json["tools"] == ["http:GET /**"]
    house.ask(**carried(made.json["token"], "authorization")).refused("outside_scope")


def test_a_token_in_what_is_asked_is_refused_and_kept_nowhere(house: House) -> None:
    token = h.mint(house.proxy)
    asked = derive(house, token, {"agent": token})
    assert (asked.status, asked.json["error"]) == (400, "token_in_request")
    asked.row(verdict="deny", reason="token_in_request")
    assert token not in json.dumps(house.proxy.rows("1"), default=str)
