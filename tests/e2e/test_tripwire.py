"""A caller who still holds the raw shared key: refused, told, or served while a fleet is moved.

The three servers differ in ``tripwire`` only. Each test looks at what arrived, at the row, and at the
finding; no test may leave a raw key in the home.
"""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e import harness as h
from tests.e2e.warm import Warm

RAW = {
    "deny": "raw-key-for-deny-1f3a9c7e",
    "alert": 'raw"key/for+alert=2b8d0e4f',
    "replace": "raw-key-for-replace-5c6a1b9d",
}
PERSONAL = "ghp_" + "aZ3" * 12
READ = h.tool("read_thing", {"x": 1}, 5)


def spelled(how: str, key: str) -> tuple[tuple[str, ...], str, bytes]:
    """Header lines, request target and body of a call that carries ``key``."""
    pair = base64.b64encode(f"x-access-token:{key}".encode()).decode()
    lines = {
        "as Bearer": f"Authorization: Bearer {key}",
        "as another scheme": f"Authorization: token {key}",
        "in Basic": f"Authorization: Basic {pair}",
        "as the name of Basic": "Authorization: Basic " + base64.b64encode(f"{key}:".encode()).decode(),
        "in X-Api-Key": f"X-Api-Key: {key}",
        "in a header of any name": f"X-Something: a {key} b",
        "in a cookie": f"Cookie: a=b; session={quote(key, safe='')}",
    }.get(how)
    target = {
        "in the query": f"/mcp?a=1&api_key={quote(key, safe='')}&b=2",
        "in the query, all encoded": "/mcp?a=1&x=" + "".join(f"%{ord(c):02x}" for c in key) + "&b=2",
    }.get(how, "/mcp")
    body = h.tool("read_thing", {"note": f"my key is {key}"}, 5) if how == "in an argument" else READ
    return (lines,) if lines else (), target, body


HEADS = (
    "as Bearer",
    "as another scheme",
    "in Basic",
    "as the name of Basic",
    "in X-Api-Key",
    "in a header of any name",
    "in a cookie",
    "in the query",
    "in the query, all encoded",
)
ANYWHERE = (*HEADS, "in an argument")


@dataclass
class House:
    proxy: h.WarmProxy
    upstreams: dict[str, h.Upstream]
    alice: str

    def send(
        self, to: str, lines: tuple[str, ...] = (), target: str = "/mcp", body: bytes = READ,
        *, verb: str = "POST", as_alice: bool = True,
    ) -> h.Trial:  # fmt: skip
        upstream = self.upstreams[to]
        tried = h.trial(self.proxy, upstream)
        authority = f"localhost:{upstream.port}"
        connect = {"Proxy-Authorization": h.basic("alice", self.alice)} if as_alice else None
        client = self.proxy.tunnel(authority, headers=connect)
        head = [f"{verb} {target} HTTP/1.1", f"Host: {authority}", *lines]
        if body:
            head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
            head += ["Accept: application/json, text/event-stream"]
        client.send("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        tried.answer = client.read()
        client.close()
        return tried

    def found(self, where: str, *values: Any) -> list[dict[str, Any]]:
        """Findings, once there are any."""
        h.wait_for(lambda: self._found(where, *values), f"a finding where {where}")
        return self._found(where, *values)

    def _found(self, where: str, *values: Any) -> list[dict[str, Any]]:
        db = sqlite3.connect(f"file:{self.proxy.home / 'audit.db'}?mode=ro", uri=True, timeout=h.DEADLINE)
        try:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(f"select * from findings where {where}", values)]
        finally:
            db.close()


def rules(upstreams: dict[str, h.Upstream]) -> dict[str, str]:
    listed = {name: upstream for name, upstream in upstreams.items() if name in RAW}
    servers = "".join(
        f"  - {{id: {name}, url: 'https://localhost:{up.port}/mcp', credential: {name}-key}}\n"
        for name, up in listed.items()
    )
    keys = "".join(
        f"""  - id: {name}-key
    source: {{env: RAW_{name.upper()}}}
    inject: {{bearer: {{}}}}
    bind: {{hosts: ["localhost:{up.port}"]}}
    tripwire: {name}
"""
        for name, up in listed.items()
    )
    return h.standard_rules(
        0,
        **{
            "servers.yaml": f"version: 1\nservers:\n{servers}",
            "credentials.yaml": f"version: 1\ncredentials:\n{keys}",
            "policy.yaml": h.POLICY_ANYWHERE.replace("unknown_server: deny", "unknown_server: observe"),
        },
    )


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[House]:
    names = ("deny", "alert", "replace", "wild")
    upstreams = {name: h.Upstream(pki.server_context()) for name in names}
    environ = {f"RAW_{name.upper()}": key for name, key in RAW.items()}
    proxy = h.WarmProxy(
        warm, tmp_path_factory.mktemp("tripwire"), rules(upstreams), ca=pki.ca, environ=environ
    )
    with h.running(proxy):
        made = House(proxy, upstreams, h.mint(proxy))
        yield made
    for upstream in upstreams.values():
        upstream.close()
    for file in proxy.home.rglob("*"):
        for secret in (*RAW.values(), PERSONAL):
            assert not file.is_file() or secret.encode() not in file.read_bytes(), file.name
    for secret in (*RAW.values(), PERSONAL):
        assert secret not in "\n".join(proxy.output)


# -- deny --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ANYWHERE)
@pytest.mark.parametrize("to", ["deny", "alert"])
def test_a_raw_key_is_refused_at_its_place_and_at_another_listed_server(
    house: House, to: str, how: str
) -> None:
    tried = house.send(to, *spelled(how, RAW["deny"]))
    row = tried.refused("raw_key")
    assert (row["server"], row["principal"]) == (to, "user:alice@corp.example")
    assert RAW["deny"] not in tried.answer.text if tried.answer is not None else False
    finding = house.found("credential = 'deny-key@v1' and server = ?", to)[0]
    assert (finding["kind"], finding["principal"]) == ("raw_key", "user:alice@corp.example")
    assert len(finding["fingerprint"]) == 32


@pytest.mark.parametrize("how", ANYWHERE)
def test_a_raw_key_is_refused_at_an_mcp_server_that_nobody_listed(house: House, how: str) -> None:
    house.send("wild", *spelled(how, RAW["deny"])).refused("raw_key")


@pytest.mark.parametrize("how", HEADS)
def test_a_raw_key_is_refused_at_any_other_host_too(house: House, how: str) -> None:
    lines, target, _ = spelled(how, RAW["deny"])
    row = house.send("wild", lines, target.replace("/mcp", "/page"), b"", verb="GET").refused("raw_key")
    assert (row["method"], row["principal"]) == ("http/GET", "user:alice@corp.example")


def test_a_raw_key_alone_is_nobodys_evidence_and_is_told(house: House) -> None:
    tried = house.send("replace", *spelled("as Bearer", RAW["replace"]), as_alice=False)
    row = tried.refused("evidence_unrecognised")
    finding = house.found("event_id = ?", row["event_id"])[0]
    assert (finding["kind"], finding["principal"]) == ("raw_key", None)
    assert finding["credential"] == "replace-key@v1"


def test_a_raw_key_in_the_proxys_url_is_told(house: House) -> None:
    upstream = house.upstreams["deny"]
    tried = h.trial(house.proxy, upstream)
    authority = f"localhost:{upstream.port}"
    client = house.proxy.tunnel(authority, headers={"Proxy-Authorization": h.basic("alice", RAW["alert"])})
    client.send(h.post(authority, "/mcp", READ))
    tried.answer = client.read()
    client.close()
    row = tried.refused("token_malformed")
    finding = house.found("event_id = ?", row["event_id"])[0]
    assert (finding["credential"], finding["principal"]) == ("alert-key@v1", None)


# -- alert and replace -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ANYWHERE)
def test_a_raw_key_that_only_alerts_goes_on_and_is_told(house: House, how: str) -> None:
    tried = house.send("alert", *spelled(how, RAW["alert"]))
    row = tried.row
    assert (row["verdict"], row["reason"], row["injected"]) == ("allow", "granted", "alert-key@v1")
    [seen] = tried.seen
    assert seen.header("authorization") == f"Bearer {RAW['alert']}"
    found = house.found("credential = 'alert-key@v1' and server = 'alert'")
    assert {finding["principal"] for finding in found} == {"user:alice@corp.example"}


@pytest.mark.parametrize("how", HEADS)
def test_a_raw_key_is_replaced_by_the_injection_and_told(house: House, how: str) -> None:
    lines, target, body = spelled(how, RAW["replace"])
    tried = house.send("replace", lines, target, body)
    row = tried.row
    assert (row["verdict"], row["injected"]) == ("allow", "replace-key@v1")
    [seen] = tried.seen
    assert seen.header("authorization") == f"Bearer {RAW['replace']}"
    assert seen.raw.count(RAW["replace"].encode()) == 1
    assert seen.path == ("/mcp?a=1&b=2" if "?" in target else "/mcp")
    assert seen.header("x-something") is None
    house.found("credential = 'replace-key@v1' and server = 'replace'")


@pytest.mark.parametrize("to", ["replace", "wild"])
def test_a_raw_key_that_cannot_be_replaced_is_refused(house: House, to: str) -> None:
    house.send(to, *spelled("in an argument", RAW["replace"])).refused("raw_key")


@pytest.mark.parametrize("how", HEADS)
def test_a_raw_key_to_be_replaced_does_not_get_to_another_host(house: House, how: str) -> None:
    lines, target, _ = spelled(how, RAW["replace"])
    tried = house.send("wild", (*lines, "X-Own: kept"), target.replace("/mcp", "/page"), b"", verb="GET")
    [seen] = tried.seen
    assert tried.rows == []
    assert RAW["replace"].encode() not in seen.raw
    assert seen.path == ("/page?a=1&b=2" if "?" in target else "/page")
    assert seen.header("x-own") == "kept"
    house.found("credential = 'replace-key@v1' and server = ?", f"localhost:{house.upstreams['wild'].port}")
    with closing(sqlite3.connect(f"file:{house.proxy.home / 'audit.db'}?mode=ro", uri=True)) as db:
        assert db.execute("select * from findings where kind = 'token_abroad'").fetchall() == []


def test_the_same_is_told_once_an_hour(house: House) -> None:
    for _ in range(3):
        house.send("alert", *spelled("as Bearer", RAW["alert"]))
    assert len(house.found("credential = 'alert-key@v1' and server = 'alert'")) == 1


def test_after_a_rotation_the_old_key_and_the_new_one_trip(
    tmp_path: Path, pki: h.Pki, warm: Warm, house: House
) -> None:
    upstream = h.Upstream(pki.server_context())
    source = tmp_path / "things.secret"
    source.touch(mode=0o600)
    source.write_text(RAW["deny"])
    rules = h.standard_rules(
        upstream.port, **{"credentials.yaml": h.credentials(upstream.port, source="file: ../things.secret")}
    )
    proxy = h.WarmProxy(warm, tmp_path, rules, ca=pki.ca)
    with h.running(proxy):
        own = House(proxy, {"it": upstream}, h.mint(proxy))
        own.send("it", *spelled("as Bearer", RAW["deny"])).refused("raw_key")
        own.send("it", *spelled("as Bearer", RAW["alert"]))  # not known here
        source.write_text(RAW["replace"])
        h.wait_for(
            lambda: any(
                row["reason"] == "raw_key"
                for row in own.send("it", *spelled("as Bearer", RAW["replace"])).rows
            ),
            "the new key trips",
        )
        own.send("it", *spelled("in X-Api-Key", RAW["deny"])).refused("raw_key")
        labels = {finding["credential"] for finding in own.found("kind = 'raw_key'")}
    upstream.close()
    assert labels == {"things-key@v1", "things-key@v2"}


def test_the_key_of_the_fingerprints_is_made_once_and_private(house: House) -> None:
    key = house.proxy.home / "fingerprint.key"
    assert (len(key.read_bytes()), key.stat().st_mode & 0o777) == (32, 0o600)
