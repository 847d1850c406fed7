"""Paths of a listed host that are not listed: the server knows the secret there, and no caller gets it."""

from __future__ import annotations

import base64
import gzip
import queue
import sqlite3
from collections.abc import Callable, Iterator

import pytest

from tests.e2e import harness as h
from tests.e2e.test_discovery import Got, read, rest_of
from tests.e2e.warm import Warm

SECRET = h.SECRET.encode()
MARKER = b"[callerid:removed]"
TEXT = ("Content-Type", "text/plain")


class Place:
    """One proxy, the listed server with its other paths, and a server of nobody's."""

    def __init__(self, proxy: h.WarmProxy, listed: h.Upstream, other: h.Upstream) -> None:
        self.proxy, self.listed, self.other = proxy, listed, other

    def open(self, upstream: h.Upstream) -> h.RawClient:
        return self.proxy.tunnel(f"localhost:{upstream.port}")

    def get(self, upstream: h.Upstream, verb: str = "GET", target: str = "/debug/env", **how: bytes) -> Got:
        client = self.open(upstream)
        body = how.get("body", b"")
        lines = ["Accept-Encoding: gzip", *([f"Content-Length: {len(body)}"] if body else [])]
        head = [f"{verb} {target} HTTP/1.1", f"Host: localhost:{upstream.port}", *lines]
        client.send("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        got = read(client, verb)
        client.close()
        return got

    def findings(self) -> list[dict[str, object]]:
        db = sqlite3.connect(f"file:{self.proxy.home / 'audit.db'}?mode=ro", uri=True)
        try:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute("SELECT * FROM findings WHERE kind = 'secret_echoed'")]
        finally:
            db.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Place]:
    listed, other = h.Upstream(pki.server_context()), h.Upstream(pki.server_context())
    rules = h.standard_rules(
        listed.port, **{"policy.yaml": h.POLICY.replace("unknown_server: deny", "unknown_server: observe")}
    )
    folder = tmp_path_factory.mktemp("beside")
    proxy = h.WarmProxy(warm, folder, rules, ca=pki.ca, environ={"THINGS_SECRET": h.SECRET})
    with h.running(proxy):
        yield Place(proxy, listed, other)
    listed.close()
    other.close()


@pytest.fixture
def answers(place: Place) -> Iterator[Callable[[h.Reply], None]]:
    def answer(reply: h.Reply) -> None:
        place.listed.answer = place.other.answer = lambda seen: reply

    yield answer
    place.listed.answer = place.other.answer = h.call_tool


@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_a_page_that_shows_the_secret_shows_it_to_nobody(
    place: Place, answers: Callable[[h.Reply], None], verb: str
) -> None:
    shown = b"THINGS_SECRET=" + SECRET + b"\n" + base64.b64encode(SECRET) + b"\n"
    answers(h.Reply(200, [TEXT, ("X-Sent", h.SECRET), ("ETag", "e")], shown))
    got = place.get(place.listed, verb, body=b"a=b" if verb == "POST" else b"")
    assert (got.status, got.whole) == (200, True)
    assert SECRET not in got.body
    assert got.body.startswith(b"THINGS_SECRET=" + MARKER + b"\n")
    assert h.SECRET not in str(got.headers)
    assert got.headers["etag"] == "e"


def test_an_operator_is_told_where(place: Place, answers: Callable[[h.Reply], None]) -> None:
    answers(h.Reply(200, [TEXT, ("X-Sent", h.SECRET)], SECRET * 3))
    place.get(place.listed)
    h.wait_for(lambda: len(place.findings()) == 2, "what was found in the head and in the body")
    assert {(one["server"], one["detail"]) for one in place.findings()} == {
        ("things", "in a header, at a path that is not listed"),
        ("things", "in an answer, at a path that is not listed"),
    }


def test_it_is_found_in_whatever_pieces_it_comes(place: Place, answers: Callable[[h.Reply], None]) -> None:
    raw = b"a" * 5000 + SECRET + b"b" * 5000 + SECRET
    answers(h.Reply(200, [TEXT], chunks=iter(raw[at : at + 7] for at in range(0, len(raw), 7))))
    got = place.get(place.listed)
    assert (got.body, got.whole) == (raw.replace(SECRET, MARKER), True)


def test_what_comes_goes_on_at_once(place: Place, answers: Callable[[h.Reply], None]) -> None:
    pieces: queue.Queue[bytes | None] = queue.Queue()
    answers(h.Reply(200, [("Content-Type", "text/event-stream")], chunks=iter(pieces.get, None)))
    client = place.open(place.listed)
    client.send(f"GET /ticks HTTP/1.1\r\nHost: localhost:{place.listed.port}\r\n\r\n".encode())
    pieces.put(b"data: 1\n\n")
    assert client.read_head().status == 200
    chunks = client.chunks()
    assert next(chunks) == b"data: 1\n\n"
    pieces.put(b"data: " + SECRET + b"\n\n")
    assert next(chunks) == b"data: " + MARKER + b"\n\n"
    pieces.put(None)
    client.close()


def test_what_is_observed_there_is_scrubbed_as_well(place: Place, answers: Callable[[h.Reply], None]) -> None:
    text = f"you sent {h.SECRET}"
    result = {"content": [{"type": "text", "text": text}]}
    answers(h.json_reply({"jsonrpc": "2.0", "id": 7, "result": result}))
    since = h.newest(place.proxy)
    got = place.get(place.listed, "POST", "/elsewhere", body=h.tool("read_thing", {"x": 1}, 7))
    assert got.whole
    assert SECRET not in got.body
    [row] = place.proxy.await_rows(1, "seq > ? and outcome = 'ok'", since)
    assert row["reason"] == "observed"


@pytest.mark.parametrize(
    "field",
    [
        ("Content-Encoding", "gzip"),
        ("Content-Type", "text/html; charset=utf-16"),
        ("Content-Transfer-Encoding", "quoted-printable"),
    ],
)
@pytest.mark.parametrize("body", [b"", h.tool("read_thing", {"x": 1}, 7)], ids=["page", "observed"])
def test_what_cannot_be_searched_is_not_given_out(
    place: Place, answers: Callable[[h.Reply], None], field: tuple[str, str], body: bytes
) -> None:
    answers(h.Reply(200, [field], gzip.compress(SECRET)))
    since, target = h.newest(place.proxy), f"/hidden/{field[0]}/{len(body)}"
    got = place.get(place.listed, "POST" if body else "GET", target, body=body)
    assert (got.status, got.whole) == (502, True)
    assert place.listed.seen[-1].header("accept-encoding") == "identity"
    [row] = place.proxy.await_rows(1, "seq > ? and outcome <> 'unknown'" if body else "seq > ?", since)
    if body:
        assert (row["reason"], row["outcome"]) == ("observed", "response_refused")
    else:
        assert (row["verdict"], row["reason"]) == ("deny", "encoding_refused")


def test_an_answer_without_a_body_is_as_it_was(place: Place, answers: Callable[[h.Reply], None]) -> None:
    answers(h.Reply(200, [TEXT, ("Content-Encoding", "gzip")], b"12345"))
    got = place.get(place.listed, "HEAD")
    assert (got.status, got.headers["content-length"]) == (200, "5")
    answers(h.Reply(304, [("ETag", "e")], b""))
    assert place.get(place.listed).status == 304


def test_a_connection_is_kept_after_it(place: Place, answers: Callable[[h.Reply], None]) -> None:
    answers(h.Reply(200, [TEXT], b"x" + SECRET))
    client = place.open(place.listed)
    for _ in range(3):
        client.send(f"GET /page HTTP/1.1\r\nHost: localhost:{place.listed.port}\r\n\r\n".encode())
        assert rest_of(client, client.read_head()).body == b"x" + MARKER
    client.close()


def test_servers_of_others_are_not_looked_at(place: Place, answers: Callable[[h.Reply], None]) -> None:
    """Nobody sends them the secret: what looks like it is theirs."""
    packed = gzip.compress(SECRET)
    answers(h.Reply(200, [TEXT, ("Content-Encoding", "gzip"), ("X-Sent", h.SECRET)], packed))
    got = place.get(place.other)
    assert (got.body, got.headers["x-sent"]) == (packed, h.SECRET)
    assert got.headers["content-length"] == str(len(packed))
    assert place.other.seen[-1].header("accept-encoding") == "gzip"
