"""Absolute form: a plain http server, ``POST http://host/path`` to the proxy, evidence on every request."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.e2e.harness import (
    DEADLINE,
    NO_CREDENTIALS,
    Answer,
    Pki,
    Proxy,
    RawClient,
    Upstream,
    basic,
    newest,
    post,
    servers,
    settled,
    standard_rules,
    tool,
)

PEOPLE = ("alice", "bob", "ivy")


@dataclass
class Place:
    """A plain http upstream, and a proxy of each kind in front of it."""

    upstream: Upstream
    proxies: dict[str, Proxy]
    tokens: dict[tuple[str, str], str]

    @property
    def host(self) -> str:
        return f"localhost:{self.upstream.port}"

    def request(self, body: bytes, headers: dict[str, str], *, host: str | None = None) -> bytes:
        return post(host or self.host, "", body, headers, target=f"http://{self.host}/mcp")


@pytest.fixture(scope="module")
def place(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    upstream = Upstream(None)
    folder = tmp_path_factory.mktemp("absolute")
    changes = {
        "servers.yaml": servers(upstream.port, credential=None, scheme="http"),
        "credentials.yaml": NO_CREDENTIALS,
    }
    rules = standard_rules(upstream.port, **changes)
    proxies = {entry: Proxy(folder / entry, rules, ca=pki.ca, entry=entry) for entry in ("run", "mitmdump")}
    wanted = [("run", who) for who in PEOPLE] + [("mitmdump", "alice")]
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Proxy.start, proxies.values()))
            issued = pool.map(lambda want: proxies[want[0]].issue(f"user:{want[1]}@corp.example"), wanted)
            tokens = dict(zip(wanted, issued, strict=True))
        yield Place(upstream, proxies, tokens)
    finally:
        upstream.close()
        for proxy in proxies.values():
            proxy.stop()


def ask(client: RawClient, request: bytes) -> Answer:
    client.send(request)
    answer = client.read()
    assert answer is not None
    return answer


@pytest.mark.parametrize("entry", ["run", "mitmdump"])
@pytest.mark.parametrize("carrier", ["basic", "bearer", "authorization", "x-callerid-token"])
def test_every_carrier_is_accepted_and_none_goes_on(place: Place, entry: str, carrier: str) -> None:
    proxy, token = place.proxies[entry], place.tokens[entry, "alice"]
    headers = {
        "basic": {"Proxy-Authorization": basic("alice", token)},
        "bearer": {"Proxy-Authorization": f"Bearer {token}", "Proxy-Connection": "keep-alive"},
        "authorization": {"Authorization": f"Bearer {token}"},
        "x-callerid-token": {"X-Callerid-Token": token},
    }[carrier]
    since, before = newest(proxy), len(place.upstream.seen)
    client = proxy.plain()
    answer = ask(client, place.request(tool("read_thing", rpc_id=0), headers))
    client.close()
    assert (answer.status, answer.json["id"], answer.text) == (200, 0, "ran read_thing")
    [seen] = place.upstream.seen[before:]
    assert (seen.path, seen.header("host")) == ("/mcp", place.host)
    assert {name.lower() for name, _ in seen.headers} == {
        "host", "content-type", "accept", "content-length", "accept-encoding",
    }  # fmt: skip
    assert token.encode() not in seen.raw
    [row] = settled(proxy, since, 1)
    assert (row["principal"], row["verdict"], row["reason"], row["outcome"]) == (
        "user:alice@corp.example", "allow", "granted", "ok",
    )  # fmt: skip
    kind = "proxy_authorization" if carrier in ("basic", "bearer") else carrier.replace("-", "_")
    assert json.loads(row["evidence"])[0]["carrier"] == kind
    assert row["injected"] is None


@pytest.mark.parametrize("entry", ["run", "mitmdump"])
def test_a_denied_call_without_evidence_and_a_denied_one_with_it_never_arrive(
    place: Place, entry: str
) -> None:
    proxy, token = place.proxies[entry], place.tokens[entry, "alice"]
    since, before = newest(proxy), len(place.upstream.seen)
    client = proxy.plain()
    nobody = ask(client, place.request(tool("read_thing", rpc_id="a"), {}))
    alice = ask(client, place.request(tool("drop_thing", rpc_id="b"), {"X-Callerid-Token": token}))
    client.close()
    assert (nobody.json["id"], nobody.json["result"]["isError"]) == ("a", True)
    assert "no_evidence" in nobody.text
    assert (alice.json["id"], alice.json["result"]["isError"]) == ("b", True)
    assert len(place.upstream.seen) == before
    assert [(r["principal"], r["reason"], r["outcome"]) for r in proxy.rows("seq > ?", since)] == [
        ("anonymous", "no_evidence", "not_sent"),
        ("user:alice@corp.example", "rule_denied", "not_sent"),
    ]


def test_people_who_share_a_connection_are_never_taken_for_each_other(place: Place) -> None:
    """A downstream proxy keeps one connection for many; each request is judged by its own evidence."""
    proxy = place.proxies["run"]
    since, before = newest(proxy), len(place.upstream.seen)
    turns = ["alice", "ivy", None, "bob", "ivy", "alice", None, "bob"]
    client = proxy.plain()
    said = []
    for number, who in enumerate(turns):
        token = place.tokens["run", who] if who else ""
        evidence = [
            {"Proxy-Authorization": basic("x", token)},
            {"X-Callerid-Token": token},
            {"Authorization": f"Bearer {token}"},
        ][number % 3]
        # An intern may query, but list or measure nothing: "other_thing" tells her from the engineers.
        answer = ask(client, place.request(tool("other_thing", rpc_id=number), evidence if who else {}))
        assert answer.json["id"] == number
        said.append(answer.text == "ran other_thing")
    client.close()
    assert said == [who in ("alice", "bob") for who in turns]
    rows = settled(proxy, since, len(turns))
    assert [(r["rpc_id"], r["principal"], r["reason"]) for r in rows] == [
        (
            str(number),
            f"user:{who}@corp.example" if who else "anonymous",
            {"alice": "granted", "bob": "granted", "ivy": "no_grant", None: "no_evidence"}[who],
        )
        for number, who in enumerate(turns)
    ]
    sent = [r["rpc_id"] for r in rows if r["verdict"] == "allow"]
    assert [str(seen.message["id"]) for seen in place.upstream.seen[before:]] == sent


def test_two_people_in_one_request_are_a_conflict(place: Place) -> None:
    proxy = place.proxies["run"]
    since, before = newest(proxy), len(place.upstream.seen)
    headers = {
        "Proxy-Authorization": basic("alice", place.tokens["run", "alice"]),
        "X-Callerid-Token": place.tokens["run", "bob"],
    }
    client = proxy.plain()
    answer = ask(client, place.request(tool("read_thing"), headers))
    client.close()
    assert "identity_conflict" in answer.text
    assert len(place.upstream.seen) == before
    [row] = proxy.rows("seq > ?", since)
    assert (row["verdict"], row["reason"]) == ("deny", "identity_conflict")


def test_a_host_header_that_names_another_place_is_refused(place: Place) -> None:
    proxy = place.proxies["run"]
    since, before = newest(proxy), len(place.upstream.seen)
    headers = {"X-Callerid-Token": place.tokens["run", "alice"]}
    client = proxy.plain()
    answer = ask(client, place.request(tool("read_thing"), headers, host="other.corp.example"))
    client.close()
    assert answer.json["result"]["isError"] is True
    assert len(place.upstream.seen) == before
    [row] = proxy.rows("seq > ?", since)
    assert (row["verdict"], row["reason"]) == ("deny", "destination_mismatch")


def test_a_proxy_reached_by_tls_takes_absolute_form_as_well(place: Place) -> None:
    """``HTTP_PROXY=https://...``: the token is not seen on the way to the proxy."""
    proxy, token = place.proxies["run"], place.tokens["run", "alice"]
    since, before = newest(proxy), len(place.upstream.seen)
    sock = socket.create_connection(("127.0.0.1", proxy.port), DEADLINE)
    client = RawClient(proxy.trust().wrap_socket(sock, server_hostname="localhost"))
    evidence = {"Proxy-Authorization": basic("alice", token)}
    allowed = ask(client, place.request(tool("read_thing", rpc_id=1), evidence))
    refused = ask(client, place.request(tool("read_thing", rpc_id=2), {}))
    client.close()
    assert allowed.text == "ran read_thing"
    assert "no_evidence" in refused.text
    [seen] = place.upstream.seen[before:]
    assert token.encode() not in seen.raw
    rows = settled(proxy, since, 2)
    assert [(r["principal"], r["reason"]) for r in rows] == [
        ("user:alice@corp.example", "granted"),
        ("anonymous", "no_evidence"),
    ]
