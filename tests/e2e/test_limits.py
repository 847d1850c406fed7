"""Limits that hold, each with its reason, its row and its answer: sizes, places taken, time, and addresses.

The limits are set low, and what is waited for is what happens, never an amount of time.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import harness as h
from tests.e2e.warm import Warm

ALICE = "user:alice@corp.example"
SMALL = (
    "callerid_max_head=8k", "callerid_max_headers=32", "callerid_max_body=64k", "callerid_max_anonymous=4k",
    "callerid_max_upload=256k", "callerid_max_depth=8", "callerid_max_digits=20", "callerid_max_batch=2",
    "callerid_max_answer=64k", "callerid_max_event=64k", "callerid_max_in_flight=2", "callerid_max_streams=1",
)  # fmt: skip
HASTY = (
    "callerid_head_seconds=0.5", "callerid_body_seconds=0.3", "callerid_idle_seconds=0.4",
    "callerid_stream_idle_seconds=0.5",
)  # fmt: skip


@dataclass
class Place:
    """A proxy with a listed server over TLS (``things``), one in the clear (``lab``), and one not listed."""

    proxy: h.Proxy
    things: h.Upstream
    lab: h.Upstream
    evil: h.Upstream
    token: str

    @property
    def here(self) -> str:
        return f"localhost:{self.things.port}"

    def signed(self) -> h.RawClient:
        """A tunnel to ``things``, with Alice's token."""
        return self.proxy.tunnel(self.here, headers={"Proxy-Authorization": h.basic("alice", self.token)})

    def watch(self) -> h.Trial:
        return h.trial(self.proxy, self.things, self.lab, self.evil)

    def head(self, path: str = "/mcp", *lines: str) -> bytes:
        """The start of a POST to ``things``, without the empty line."""
        more = "".join(f"{line}\r\n" for line in lines)
        return (
            f"POST {path} HTTP/1.1\r\nHost: {self.here}\r\nContent-Type: application/json\r\n{more}".encode()
        )

    def to_lab(self, *lines: str) -> bytes:
        """The same to ``lab`` in absolute form, with Alice's token."""
        host = f"localhost:{self.lab.port}"
        more = "".join(f"{line}\r\n" for line in (f"X-Callerid-Token: {self.token}", *lines))
        return (
            f"POST http://{host}/mcp HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{more}"
        ).encode()


@contextmanager
def opened(
    folder: Path, pki: h.Pki, warm: Warm, sets: tuple[str, ...], extra: str = "", **options: tuple[str, ...]
) -> Iterator[Place]:
    things, lab, evil = h.Upstream(pki.server_context()), h.Upstream(None), h.Upstream(None)
    listed = f"  - {{id: lab, url: 'http://localhost:{lab.port}/mcp'}}\n{extra}"
    rules = h.standard_rules(
        things.port,
        **{"servers.yaml": h.servers(things.port, extra=listed), "policy.yaml": h.POLICY_ANYWHERE},
    )
    proxy = h.WarmProxy(
        warm, folder, rules, ca=pki.ca, environ={"THINGS_SECRET": h.SECRET}, sets=sets, **options
    )
    with h.running(proxy):
        yield Place(proxy, things, lab, evil, h.mint(proxy))
    for upstream in (things, lab, evil):
        upstream.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Place]:
    with opened(tmp_path_factory.mktemp("small"), pki, warm, SMALL) as made:
        yield made


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Place]:
    with opened(tmp_path_factory.mktemp("hasty"), pki, warm, HASTY) as made:
        yield made


@pytest.fixture(scope="module")
def walled(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Place]:
    """Nothing private may be dialled but what is listed."""
    extra = "  - {id: cloud, url: 'http://169.254.169.254/mcp'}\n"
    with opened(tmp_path_factory.mktemp("walled"), pki, warm, (), extra, private=()) as made:
        yield made


def ask(place: Place, raw: bytes, client: h.RawClient | None = None) -> h.Trial:
    tried = place.watch()
    client = client or place.signed()
    client.send(raw)
    tried.answer = client.read()
    client.close()
    h.wait_for(lambda: tried.rows, "a row")
    return tried


def chunked(body: bytes, size: int = 1000) -> bytes:
    parts = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


# -- the size of a request -------------------------------------------------------------------------


def nested(levels: int) -> bytes:
    return (
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"a":' * levels + b"1" + b"}" * levels + b"}"
    )


ONES = b"1" * 20
LARGE = h.tool("read_thing", {"x": "y" * 100_000})

TOO_MUCH: dict[str, tuple[Callable[[Place], bytes], int, str]] = {
    "a long head": (lambda p: p.head("/mcp", "X: " + "a" * 9000) + b"\r\n", 431, "headers_too_large"),
    "a head that never ends": (lambda p: p.head() + b"X: " + b"a" * 200_000, 431, "headers_too_large"),
    "many header lines": (lambda p: p.head("/mcp", *["X: a"] * 40) + b"\r\n", 431, "headers_too_large"),
    "a long body": (lambda p: h.post(p.here, "/mcp", LARGE), 413, "too_large"),
    "a long body in chunks": (
        lambda p: p.head("/mcp", "Transfer-Encoding: chunked") + b"\r\n" + chunked(LARGE), 413, "too_large",
    ),
    "a length alone": (lambda p: p.head("/mcp", "Content-Length: 9000000") + b"\r\n", 413, "too_large"),
    "deep nesting": (lambda p: h.post(p.here, "/mcp", nested(9)), 400, "too_deep"),
    "a long number": (
        lambda p: h.post(p.here, "/mcp", h.tool("read_thing", {"n": 10**21})), 400, "malformed_json",
    ),
    "a long fraction": (
        lambda p: h.post(p.here, "/mcp", h.tool("read_thing", {"n": 0}).replace(b"0}", b"0." + ONES + b"}")),
        400, "malformed_json",
    ),
    "a long batch": (
        lambda p: h.post(p.here, "/mcp", b"[" + b",".join(h.rpc("ping", None, n) for n in range(3)) + b"]"),
        400, "batch_refused",
    ),
    "a body of dust": (
        lambda p: p.head("/mcp", "Transfer-Encoding: chunked") + b"\r\n" + chunked(b" " * 40_000, 1),
        400, "malformed_http",
    ),
    "an endless line before a chunk": (
        lambda p: p.head("/mcp", "Transfer-Encoding: chunked") + b"\r\n1;" + b"a" * 20_000,
        400, "malformed_http",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_MUCH)
def test_too_much_is_refused_with_its_reason_and_nothing_arrives(small: Place, name: str) -> None:
    made, status, reason = TOO_MUCH[name]
    tried = ask(small, made(small))
    assert tried.answer is not None
    assert tried.answer.status == status
    assert {row["reason"] for row in tried.rows} == {reason}
    row = tried.rows[0]
    assert (row["verdict"], row["server"], row["principal"]) == ("deny", "things", ALICE)
    assert (row["upstream"], row["path"]) == (small.here, "/mcp")
    assert row["event_id"] in tried.answer.json["error"]["message"]
    assert tried.seen == []


def test_what_is_just_within_the_limits_passes(small: Place) -> None:
    body = h.tool("read_thing", {"x": "y" * 60_000})
    for raw in (
        h.post(small.here, "/mcp", body),
        small.head("/mcp", "Transfer-Encoding: chunked") + b"\r\n" + chunked(body),
        small.head("/mcp", f"X: {'a' * 7000}", f"Content-Length: {len(body)}") + b"\r\n" + body,
    ):
        tried = ask(small, raw)
        assert tried.answer is not None
        assert tried.answer.text == "ran read_thing"


@pytest.mark.parametrize("framing", ["a length", "chunks"])
def test_of_who_is_not_known_little_is_read(small: Place, framing: str) -> None:
    line = "Content-Length: 60000" if framing == "a length" else "Transfer-Encoding: chunked"
    start = b"" if framing == "a length" else b"2000\r\n" + b" " * 0x2000 + b"\r\n"
    tried = ask(small, small.head("/mcp", line) + b"\r\n" + start, small.proxy.tunnel(small.here))
    assert tried.answer is not None
    assert tried.answer.status == 403
    row = tried.refused("no_evidence")
    assert (row["server"], row["principal"]) == ("things", "anonymous")
    assert "4096 bytes" in row["detail"]


def test_many_small_chunks_are_read(small: Place) -> None:
    body = h.tool("read_thing", {"x": "y" * 9000})
    raw = small.head("/mcp", "Transfer-Encoding: chunked") + b"\r\n" + chunked(body, 1)
    tried = ask(small, raw)
    assert tried.answer is not None
    assert tried.answer.text == "ran read_thing"


def test_who_sends_ahead_without_end_is_closed_and_the_call_has_its_outcome(small: Place) -> None:
    over = threading.Event()
    small.things.answer = lambda seen: (over.wait(h.DEADLINE), h.call_tool(seen))[1]
    tried, client = small.watch(), small.signed()
    client.send(h.post(small.here, "/mcp", h.tool("read_thing")))
    h.wait_for(lambda: tried.rows, "the call is let go")
    with suppress(OSError):
        for _ in range(400):
            client.send(b"a" * 65_536)
    over.set()
    [row] = small.proxy.await_rows(1, "seq > ? and outcome <> 'unknown'", tried.first_seq)
    client.close()
    small.things.answer = h.call_tool
    assert row["outcome"] in ("client_gone", "not_sent")


# -- the size of an answer -------------------------------------------------------------------------


def answered(small: Place, reply: Callable[[h.Seen], h.Reply]) -> h.Trial:
    small.things.answer = reply
    tried = ask(small, h.post(small.here, "/mcp", h.tool("read_thing", rpc_id=7)))
    small.things.answer = h.call_tool
    return tried


LONG = h.json_reply(
    {"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": "x" * 70_000}]}}
)
HEAD = [("content-type", "application/json")]


@pytest.mark.parametrize(
    "reply",
    [
        LONG,
        h.Reply(200, HEAD, chunks=iter([LONG.body[:40_000], LONG.body[40_000:]])),
        h.Reply(200, [*HEAD, *[("x-long", "a" * 10_000)] * 7], b"{}"),
    ],
    ids=["a length", "chunks", "a long head"],
)
def test_an_answer_that_is_too_large_is_a_502_with_the_id(small: Place, reply: h.Reply) -> None:
    tried = answered(small, lambda _: reply)
    assert tried.answer is not None
    assert (tried.answer.status, tried.answer.json["id"]) == (502, 7)
    assert tried.answer.json["error"]["data"]["outcome"] == "response_too_large"
    assert b"xxxx" not in tried.answer.body
    assert (tried.row["verdict"], tried.row["outcome"]) == ("allow", "response_too_large")
    assert "large" in tried.row["detail"]


def test_an_event_that_is_too_large_ends_the_stream_with_an_error_for_the_id(small: Place) -> None:
    first = (
        b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"a"}}\n\n'
    )
    chunks = [first, b"data: " + b"x" * 70_000]
    events = h.Reply(200, [("content-type", "text/event-stream")], chunks=iter(chunks))
    small.things.answer = lambda _: events
    tried, client = small.watch(), small.signed()
    client.send(h.post(small.here, "/mcp", h.tool("read_thing", rpc_id=7)))
    assert client.read_head().status == 200
    came = b""
    with suppress(ConnectionError, ValueError, OSError):
        for part in client.chunks():
            came += part
    client.close()
    small.things.answer = h.call_tool
    assert came.startswith(first)
    assert b"xxxx" not in came
    last = json.loads(came.removeprefix(first).partition(b"data: ")[2])
    assert (last["id"], last["error"]["data"]["outcome"]) == (7, "response_too_large")
    assert tried.row["outcome"] == "response_too_large"


# -- uploads to servers that nobody lists ----------------------------------------------------------


def upload(small: Place, body: bytes, kind: str = "application/octet-stream", path: str = "/up") -> h.Trial:
    host = f"localhost:{small.evil.port}"
    head = f"POST http://{host}{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\n"
    tried, client = small.watch(), small.proxy.plain()
    client.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    tried.answer = client.read()
    client.close()
    return tried


def test_a_large_upload_goes_on_as_it_comes(small: Place) -> None:
    body = b"PACK" + bytes(range(256)) * 8000
    tried = upload(small, body)
    [seen] = tried.seen
    assert seen.body == body
    assert tried.rows == []


def test_a_large_upload_in_chunks_goes_on_as_well(small: Place) -> None:
    host = f"localhost:{small.evil.port}"
    body = b"PACK" + bytes(range(256)) * 2000
    tried, client = small.watch(), small.proxy.plain()
    client.send(
        f"PUT http://{host}/up HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    client.send(chunked(body))
    assert client.read() is not None
    client.close()
    [seen] = tried.seen
    assert seen.body == body


def test_what_may_be_json_is_held_and_judged_whole(small: Place) -> None:
    body = json.dumps({"prompt": "x" * 200_000}).encode()
    tried = upload(small, body, "application/json")
    [seen] = tried.seen
    assert seen.body == body
    padded = json.dumps({"x": "y" * 200_000, "jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode()
    upload(small, padded, "text/plain", "/padded").refused("unknown_server")


def test_what_may_be_json_has_a_limit(small: Place) -> None:
    tried = upload(small, b" " * 300_000 + b"{}")
    assert tried.answer is not None
    assert tried.answer.status == 413
    tried.refused("too_large")


def test_a_token_of_ours_never_leaves_in_an_upload(small: Place) -> None:
    tried = upload(small, b"PACK" + b"-" * 200_000 + small.token.encode() + b"-" * 200_000)
    assert tried.answer is None or tried.answer.status == 403
    h.wait_for(lambda: tried.rows and tried.seen, "a row, and half of a body")
    assert [row["reason"] for row in tried.rows] == ["token_in_request"]
    assert all(b"cid_" not in seen.raw for seen in tried.seen)


def test_a_token_of_ours_never_leaves_beside_an_upload(small: Place) -> None:
    host = f"localhost:{small.evil.port}"
    tried, client = small.watch(), small.proxy.plain()
    extra = f"Proxy-Authorization: {h.basic('alice', small.token)}\r\nX-Note: {small.token}\r\n"
    body = b"PACK" + b"-" * 200_000
    head = f"POST http://{host}/up HTTP/1.1\r\nHost: {host}\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    client.send(head.encode() + body)
    assert client.read() is not None
    client.close()
    [seen] = tried.seen
    assert b"cid_" not in seen.raw
    assert seen.header("proxy-authorization") is None


# -- places taken ----------------------------------------------------------------------------------


@contextmanager
def holding(small: Place) -> Iterator[threading.Event]:
    """The server answers calls only once the event is set; listens on GET until then."""
    over = threading.Event()

    def reply(seen: h.Seen) -> h.Reply:
        if seen.method == "GET":
            return h.Reply(200, [("content-type", "text/event-stream")], chunks=_until(over))
        if b"tools/call" in seen.body:
            over.wait(h.DEADLINE)
        return h.call_tool(seen)

    small.things.answer = reply
    try:
        yield over
    finally:
        over.set()
        small.things.answer = h.call_tool


def _until(over: threading.Event) -> Iterator[bytes]:
    yield b": hello\n\n"
    over.wait(h.DEADLINE)


def begin(small: Place, raw: bytes) -> h.RawClient:
    """A request whose answer is not waited for, once it has arrived."""
    before, client = len(small.things.seen), small.signed()
    client.send(raw)
    h.wait_for(lambda: len(small.things.seen) > before, "the request arrived")
    return client


def call(small: Place, rpc_id: int = 1) -> bytes:
    return h.post(small.here, "/mcp", h.tool("read_thing", {}, rpc_id))


def listen(small: Place) -> bytes:
    return f"GET /mcp HTTP/1.1\r\nHost: {small.here}\r\nAccept: text/event-stream\r\n\r\n".encode()


def test_a_principal_has_so_many_calls_under_way_and_can_still_cancel(small: Place) -> None:
    with holding(small) as over:
        clients = [begin(small, call(small, number)) for number in (1, 2)]
        tried = ask(small, call(small, 3))
        assert tried.answer is not None
        assert "too many calls under way" in tried.answer.text
        row = tried.refused("too_many_in_flight")
        assert (row["principal"], row["tool"]) == (ALICE, "read_thing")
        batch = b"[" + b",".join(h.tool("read_thing", {}, number) for number in (4, 5)) + b"]"
        assert {row["reason"] for row in ask(small, h.post(small.here, "/mcp", batch)).rows} == {
            "too_many_in_flight"
        }
        note = h.rpc("notifications/progress", {"progressToken": 1, "progress": 1}, None)
        passed = ask(small, h.post(small.here, "/mcp", note))
        assert [row["verdict"] for row in passed.rows] == ["allow"]
        over.set()
        assert [client.read() is not None for client in clients] == [True, True]
        for client in clients:
            client.close()
    after = ask(small, call(small, 6))
    assert after.answer is not None
    assert after.answer.text == "ran read_thing"


def test_a_place_is_free_again_when_its_client_left(small: Place) -> None:
    with holding(small):
        tried = small.watch()
        for number in range(4):
            client = begin(small, call(small, number))
            client.close()
            where = "seq > ? and outcome = 'client_gone'"
            small.proxy.await_rows(number + 1, where, tried.first_seq)


def test_a_principal_has_so_many_streams_open_and_calls_beside_them(small: Place) -> None:
    with holding(small) as over:
        first = begin(small, listen(small))
        assert first.read_head().status == 200
        tried = ask(small, listen(small))
        assert tried.answer is not None
        assert tried.answer.status >= 400
        tried.refused("too_many_in_flight")
        second = begin(small, call(small))
        over.set()
        assert second.read() is not None
        first.close()
        second.close()
    where = "seq > ? and method = 'http/GET' and verdict = 'allow' and outcome <> 'unknown'"
    small.proxy.await_rows(1, where, tried.first_seq - 1)
    with holding(small):
        again = begin(small, listen(small))
        assert again.read_head().status == 200
        again.close()


# -- time ------------------------------------------------------------------------------------------


def test_a_head_that_does_not_come_whole_is_a_408_with_a_row(hasty: Place) -> None:
    tried = ask(hasty, hasty.to_lab("X: "), hasty.proxy.plain())
    assert tried.answer is not None
    assert tried.answer.status == 408
    row = tried.refused("too_slow")
    assert (row["server"], row["method"], row["path"]) == ("lab", "http/POST", "/mcp")


def test_the_same_in_a_tunnel_has_its_caller(hasty: Place) -> None:
    lab = f"localhost:{hasty.lab.port}"
    opened_by = {"Proxy-Authorization": h.basic("alice", hasty.token)}
    client = hasty.proxy.tunnel(lab, headers=opened_by, tls=False)
    tried = ask(hasty, b"POST /mcp HTTP/1.1\r\n", client)
    assert tried.answer is not None
    assert tried.answer.status == 408
    row = tried.refused("too_slow")
    assert (row["server"], row["principal"]) == ("lab", ALICE)


def test_dripping_does_not_buy_time(hasty: Place) -> None:
    tried, client = hasty.watch(), hasty.proxy.plain()
    closed = threading.Event()

    def drip() -> None:
        with suppress(OSError):
            while not closed.wait(0.01):
                client.send(b"a")

    client.send(hasty.to_lab("X: "))
    thread = threading.Thread(target=drip)
    thread.start()
    answer = client.read()
    closed.set()
    thread.join()
    client.close()
    assert answer is not None
    assert answer.status == 408
    tried.refused("too_slow")


@pytest.mark.parametrize("line", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_a_body_that_does_not_come_whole_is_a_408_with_a_row(hasty: Place, line: str) -> None:
    tried = ask(hasty, hasty.to_lab(line) + b"\r\n1\r\n", hasty.proxy.plain())
    assert tried.answer is not None
    assert tried.answer.status == 408
    row = tried.refused("too_slow")
    assert (row["server"], row["principal"]) == ("lab", ALICE)


def test_a_handshake_that_does_not_end_is_closed_with_a_row(hasty: Place) -> None:
    tried = hasty.watch()
    opened_by = {"Proxy-Authorization": h.basic("alice", hasty.token)}
    client = hasty.proxy.tunnel(hasty.here, headers=opened_by, tls=False)
    client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
    assert client.sock.recv(1) == b""
    client.close()
    h.wait_for(lambda: tried.rows, "a row")
    row = tried.refused("too_slow")
    assert (row["upstream"], row["principal"]) == (hasty.here, ALICE)
    assert "handshake" in row["detail"]


@pytest.mark.parametrize("where", ["a connection", "a tunnel"])
def test_silence_is_closed_without_a_row(hasty: Place, where: str) -> None:
    tried = hasty.watch()
    client = hasty.proxy.plain() if where == "a connection" else hasty.proxy.tunnel(hasty.here, tls=False)
    assert client.sock.recv(1) == b""
    client.close()
    assert tried.rows == []


def test_rest_between_requests_is_closed_and_a_call_that_waits_is_not(hasty: Place) -> None:
    over = threading.Event()
    hasty.lab.answer = lambda seen: (over.wait(h.DEADLINE), h.call_tool(seen))[1]
    body = h.tool("read_thing")
    waits, tried = hasty.proxy.plain(), hasty.watch()
    waits.send(hasty.to_lab(f"Content-Length: {len(body)}") + b"\r\n" + body)
    h.wait_for(lambda: tried.seen, "the call arrived")
    rests = hasty.proxy.plain()
    denied = h.tool("drop_thing")
    rests.send(hasty.to_lab(f"Content-Length: {len(denied)}") + b"\r\n" + denied)
    assert rests.read() is not None
    assert rests.read() is None, "the connection at rest is closed, after all limits of time have passed"
    over.set()
    answer = waits.read()
    hasty.lab.answer = h.call_tool
    assert answer is not None
    assert answer.text == "ran read_thing"
    rests.close()
    waits.close()
    assert {row["reason"] for row in tried.rows} == {"granted", "rule_denied"}


def test_a_stream_on_which_the_server_is_silent_is_cut_as_idle(hasty: Place) -> None:
    over = threading.Event()
    hasty.lab.answer = lambda _: h.Reply(200, [("content-type", "text/event-stream")], chunks=_until(over))
    tried, client = hasty.watch(), hasty.proxy.plain()
    client.send(
        hasty.to_lab().replace(b"POST", b"GET", 1).replace(b"Content-Type: application/json\r\n", b"")
        + b"\r\n"
    )
    assert client.read_head().status == 200
    came = client.chunks()
    assert next(came) == b": hello\n\n"
    with pytest.raises((ConnectionError, ValueError)):
        next(came)
    client.close()
    over.set()
    hasty.lab.answer = h.call_tool
    row = tried.row
    assert (row["verdict"], row["outcome"]) == ("allow", "idle")


# -- addresses -------------------------------------------------------------------------------------


def plain_get(place: Place, authority: str, *lines: str) -> h.Trial:
    more = "".join(f"{line}\r\n" for line in lines)
    raw = f"GET http://{authority}/x HTTP/1.1\r\nHost: {authority}\r\n{more}\r\n".encode()
    return ask(place, raw, place.proxy.plain())


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "localhost.", "LOCALHOST", "127.1", "0x7f.1", "0x7f000001", "2130706433"),
        *(
            "0177.0.0.1",
            "0.0.0.0",
            "0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "127.0.0.1.",
        ),
    ],
)
def test_a_private_address_is_refused_however_it_is_written(walled: Place, host: str) -> None:
    before = walled.evil.connections
    authority = f"{host}:{walled.evil.port}"
    tried, client = walled.watch(), walled.proxy.plain()
    client.send(f"GET http://{authority}/x HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    tried.answer = client.read()
    client.close()
    assert tried.answer is not None
    assert tried.answer.status in (400, 403, 502)  # no address at all, where the resolver reads it so
    if tried.answer.status == 403:
        assert "private address" in tried.answer.json["error"]["message"]
        tried.refused("address_refused")
    assert walled.evil.connections == before


def test_the_row_of_a_refused_address_has_its_caller(walled: Place) -> None:
    tried = plain_get(walled, f"127.0.0.1:{walled.evil.port}", f"X-Callerid-Token: {walled.token}")
    row = tried.refused("address_refused")
    assert (row["principal"], row["method"], row["path"]) == (ALICE, "http/GET", "/x")
    assert "loopback address 127.0.0.1" in row["detail"]


def test_a_tunnel_to_a_private_address_carries_nothing(walled: Place) -> None:
    before = walled.evil.connections
    authority = f"127.0.0.1:{walled.evil.port}"
    for tls in (True, False):
        client = walled.proxy.tunnel(authority, tls=tls)
        tried = ask(walled, f"GET /x HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode(), client)
        assert tried.answer is not None
        assert tried.answer.status == 403
        tried.refused("address_refused")
    assert walled.evil.connections == before


def test_a_large_upload_to_a_private_address_is_refused(walled: Place) -> None:
    before = walled.evil.connections
    host, size = f"127.0.0.1:{walled.evil.port}", 5_000_000
    head = f"POST http://{host}/x HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n".encode()
    tried = ask(walled, head + b"P" * size, walled.proxy.plain())
    assert tried.answer is not None
    assert tried.answer.status == 403
    tried.refused("address_refused")
    assert walled.evil.connections == before


@pytest.mark.parametrize(
    "authority", ["169.254.169.254", "[fd00:ec2::254]", "10.0.0.1:9", "100.64.0.1", "[fe80::1]"]
)
def test_networks_that_are_not_public_are_refused_without_a_packet(walled: Place, authority: str) -> None:
    plain_get(walled, authority).refused("address_refused")


def test_a_listed_server_may_be_private(walled: Place) -> None:
    body = h.tool("read_thing")
    raw = walled.to_lab(f"Content-Length: {len(body)}") + b"\r\n" + body
    tried = ask(walled, raw, walled.proxy.plain())
    assert tried.answer is not None
    assert tried.answer.text == "ran read_thing"


def test_a_metadata_service_is_refused_although_it_is_listed(walled: Place) -> None:
    raw = h.post(
        "169.254.169.254", "/mcp", h.tool("read_thing", rpc_id=4), target="http://169.254.169.254/mcp"
    )
    raw = raw.replace(b"\r\n", f"\r\nX-Callerid-Token: {walled.token}\r\n".encode(), 1)
    tried = ask(walled, raw, walled.proxy.plain())
    assert tried.answer is not None
    assert tried.answer.json["id"] == 4
    assert "address_refused" in tried.answer.text
    rows = walled.proxy.await_rows(2, "seq > ? and outcome = 'not_sent'", tried.first_seq)
    assert [(row["server"], row["reason"]) for row in rows] == [
        ("cloud", "granted"),
        ("cloud", "address_refused"),
    ]


def test_callerid_does_not_dial_itself(small: Place) -> None:
    for host in ("127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]"):
        row = plain_get(small, f"{host}:{small.proxy.port}").refused("address_refused")
        assert "callerid itself" in row["detail"]


# -- as options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("callerid_max_body=8mb", "is not a size"),
        ("callerid_max_body=1", "1 KiB to 256 MiB"),
        ("callerid_private=http://x", "neither a host name nor a network"),
        ("callerid_max_bodies=8m", "unknown option"),
        ("body_size_limit=8m", "use callerid_max_body"),
    ],
)
def test_a_limit_that_cannot_be_meant_does_not_start(small: Place, option: str, said: str) -> None:
    done = small.proxy.command(
        "run", "--listen", "127.0.0.1:0", "--home", str(small.proxy.home.parent / "other"),
        "--rules", str(small.proxy.rules), "--set", option, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr


def speaks(proxy: h.Proxy) -> bool:
    """Whether it answers: until it is open, it takes no client."""
    client = proxy.plain()
    try:
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        return client.read() is not None
    except OSError:
        return False
    finally:
        client.close()


def test_mitmdump_has_the_same_options(tmp_path: Path, pki: h.Pki) -> None:
    lab = h.Upstream(None)
    rules = h.standard_rules(
        lab.port, **{"servers.yaml": h.servers(lab.port, scheme="http", credential=None),
                     "credentials.yaml": h.NO_CREDENTIALS},
    )  # fmt: skip
    proxy = h.Proxy(tmp_path, rules, ca=pki.ca, entry="mitmdump", sets=("callerid_max_body=8k",))
    proxy.command("init")
    with h.running(proxy):
        h.wait_for(lambda: speaks(proxy), "callerid is open")
        token = h.mint(proxy)
        body = h.tool("read_thing", {"x": "y" * 9000})
        host = f"localhost:{lab.port}"
        client = proxy.plain()
        client.send(h.post(host, "/mcp", body, {"X-Callerid-Token": token}, target=f"http://{host}/mcp"))
        answer = client.read()
        client.close()
        assert answer is not None
        assert answer.status == 413
        *knocked, row = proxy.await_rows(2)
        assert (row["reason"], row["principal"]) == ("too_large", ALICE)
        assert {row["reason"] for row in knocked} == {"malformed_http"}, (
            "what names no place has a row as well"
        )
    assert lab.seen == []
    lab.close()


def test_sockets_are_closed_however_much_is_sent_into_them(small: Place) -> None:
    """A peer that floods a connection while it is being closed keeps none of our sockets open."""
    process = small.proxy.process
    assert process is not None

    def sockets() -> int:
        links = Path(f"/proc/{process.pid}/fd").iterdir()
        found = 0
        for link in links:
            with suppress(OSError):
                found += str(link.readlink()).startswith("socket:")
        return found

    before = sockets()
    for _ in range(8):
        client = small.proxy.plain()
        with suppress(OSError):
            client.send(small.to_lab("Transfer-Encoding: chunked") + b"\r\nno chunk\r\n")
            for _ in range(60):
                client.send(b"a" * 65_536)
        h.wait_for(lambda: sockets() <= before, "the socket is closed while its peer still has it open")
        client.close()
