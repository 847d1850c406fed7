"""One reading for everybody on the way: targets, folds, trailers, interim answers, what travels beside."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e import harness as h


@pytest.fixture
def place(proxy: h.Proxy, upstream: h.Upstream) -> Iterator[str]:
    before = upstream.answer
    yield f"localhost:{upstream.port}"
    upstream.answer = before


def opened(proxy: h.Proxy, place: str, alice: str) -> h.RawClient:
    return proxy.tunnel(place, headers={"Proxy-Authorization": h.basic("alice", alice)})


def newest(proxy: h.Proxy) -> int:
    return max((row["seq"] for row in proxy.rows()), default=0)


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_foreign_target_inside_a_tunnel_is_refused(
    proxy: h.Proxy, upstream: h.Upstream, place: str, alice: str, scheme: str
) -> None:
    since, before = newest(proxy), len(upstream.seen)
    client = opened(proxy, place, alice)
    client.send(h.post(place, "/mcp", h.tool("read_thing"), target=f"{scheme}://evil.corp.example/mcp"))
    answer = client.read()
    client.close()
    assert answer is not None
    assert b"destination_mismatch" in answer.body
    assert len(upstream.seen) == before
    [row] = proxy.rows("seq > ?", since)
    assert (row["verdict"], row["reason"]) == ("deny", "destination_mismatch")


def test_the_same_place_as_target_goes_on_in_origin_form(
    proxy: h.Proxy, upstream: h.Upstream, place: str, alice: str
) -> None:
    client = opened(proxy, place, alice)
    client.send(h.post(place, "/mcp", h.tool("read_thing"), target=f"https://{place}/mcp"))
    answer = client.read()
    client.close()
    assert answer is not None
    assert answer.text == "ran read_thing"
    assert upstream.seen[-1].path == "/mcp"


@pytest.mark.parametrize("value", ["a\r\n X-Forwarded-User: admin", "a\rX-Forwarded-User: admin", "a\0b"])
def test_a_header_value_that_holds_another_header_is_refused(
    proxy: h.Proxy, upstream: h.Upstream, place: str, alice: str, value: str
) -> None:
    since, before = newest(proxy), len(upstream.seen)
    client = opened(proxy, place, alice)
    client.send(h.post(place, "/mcp", h.tool("read_thing"), {"X-Odd": value}))
    answer = client.read()
    client.close()
    assert answer is not None
    assert answer.status == 400
    assert len(upstream.seen) == before
    [row] = proxy.rows("seq > ?", since)
    assert (row["principal"], row["reason"]) == ("user:alice@corp.example", "malformed_http")


@pytest.mark.parametrize(
    "head",
    [b"X: a\r\n" + b" a\r\n" * 4000, b"X: " + b"a" * 70_000 + b"\r\n"],
    ids=["many folds", "too long"],
)
def test_a_head_out_of_bounds_is_refused_at_once_with_a_row(
    proxy: h.Proxy, upstream: h.Upstream, place: str, alice: str, head: bytes
) -> None:
    since, before = newest(proxy), len(upstream.seen)
    client = opened(proxy, place, alice)
    client.send(b"POST /mcp HTTP/1.1\r\nHost: " + place.encode() + b"\r\n" + head + b"\r\n")
    answer = client.read()
    client.close()
    assert answer is not None
    assert answer.status == 431
    assert len(upstream.seen) == before
    [row] = proxy.await_rows(1, "seq > ?", since)
    assert (row["upstream"], row["verdict"], row["reason"]) == (place, "deny", "headers_too_large")
    assert (row["server"], row["principal"]) == ("things", "user:alice@corp.example")
    assert row["event_id"] in answer.json["error"]["message"]


def test_a_trailer_ends_the_exchange_with_a_row_and_does_not_hang(
    proxy: h.Proxy, upstream: h.Upstream, place: str, alice: str
) -> None:
    since, before = newest(proxy), len(upstream.seen)
    client = opened(proxy, place, alice)
    body = h.tool("read_thing")
    head = f"POST /mcp HTTP/1.1\r\nHost: {place}\r\nContent-Type: application/json\r\n"
    client.send(
        head.encode() + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nX: y\r\n\r\n" % (len(body), body)
    )
    client.read()
    client.close()
    [row] = proxy.await_rows(1, "seq > ?", since)
    assert (row["verdict"], row["reason"]) == ("deny", "malformed_http")
    assert len(upstream.seen) == before


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        b"2\r\n{}\r\n0\r\nx: y\r\n\r\n",
    ],
    ids=["an interim answer", "a trailer"],
)
def test_an_answer_that_the_engine_cannot_end_is_a_502_with_the_id(
    proxy: h.Proxy, upstream: h.Upstream, place: str, alice: str, raw: bytes
) -> None:
    since = newest(proxy)
    upstream.answer = lambda _: h.Reply(raw=raw, close=True)
    client = opened(proxy, place, alice)
    client.send(h.post(place, "/mcp", h.tool("read_thing", rpc_id=9)))
    answer = client.read()
    client.close()
    assert answer is not None
    assert (answer.status, answer.json["id"]) == (502, 9)
    [row] = proxy.await_rows(1, "seq > ? and outcome <> 'unknown'", since)
    assert row["outcome"] in ("response_refused", "upstream_gone")


def test_nothing_of_the_callers_own_travels_beside_the_shared_credential(
    proxy: h.Proxy, upstream: h.Upstream, place: str, alice: str
) -> None:
    upstream.answer = lambda seen: h.json_reply(
        {"jsonrpc": "2.0", "id": json.loads(seen.body)["id"], "result": {}}, headers={"set-cookie": "sid=1"}
    )
    extra = {
        "Cookie": "sid=mine",
        "X-Api-Key": "my-own-key-0123456789",
        "X-Original-URL": "/admin",
        "X-HTTP-Method-Override": "DELETE",
        "Connection": "keep-alive, authorization",
        f"X-{alice}": "1",
        "X-Note": alice.replace("cid_", "%63id_"),
    }
    client = opened(proxy, place, alice)
    client.send(h.post(place, "/mcp", h.tool("read_thing"), extra))
    answer = client.read()
    client.close()
    assert answer is not None
    assert answer.status == 200
    assert "set-cookie" not in answer.headers
    seen = upstream.seen[-1]
    assert seen.header("authorization") == f"Bearer {h.SECRET}"
    assert not {name.lower() for name, _ in seen.headers} & {name.lower() for name in extra}
    assert alice.removeprefix("cid_").encode() not in seen.raw
