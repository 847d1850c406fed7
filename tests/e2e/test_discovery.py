"""MCP that nobody registered: found by its request, its place or its answer, attributed, and shown.

Each test looks at all sides at once: what the server saw, what the client got, what the row says, and what
``servers_seen`` shows.
"""

from __future__ import annotations

import gzip
import json
import socket
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import harness as h
from tests.e2e.test_unlisted import Wild, request, wild
from tests.e2e.warm import Warm

CALL = h.tool("run_anything", {"x": 1}, 5)
JSON = "Content-Type: application/json"
UNSEEN = h.rpc("acme/run", {"x": 1}, 7)
"""JSON-RPC with a method that is nobody's: only its answer can say what it is."""
TOOLS = [
    {"name": "drop_table", "description": "Drops a table for good. " * 30, "inputSchema": {"type": "object"}},
    {"name": "read_file", "inputSchema": {}},
]
ENVELOPE = {"jsonrpc": "2.0", "id": 7}
LIST = {**ENVELOPE, "result": {"tools": TOOLS}}
ALICE = "user:alice@corp.example"


@pytest.fixture(scope="module")
def denying(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Wild]:
    yield from wild(tmp_path_factory.mktemp("denying"), pki, warm, "deny")


@pytest.fixture(scope="module")
def observing(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Wild]:
    yield from wild(tmp_path_factory.mktemp("observing"), pki, warm, "observe")


_places = iter(range(10_000))


@pytest.fixture
def place() -> str:
    """A path of the test's own: what is found at one stays there."""
    return f"/api/{next(_places)}"


@dataclass
class Got:
    """What a client got: all of it, or as much as came before the connection ended."""

    status: int | None
    headers: dict[str, str]
    body: bytes
    whole: bool


def read(client: h.RawClient, verb: str) -> Got:
    try:
        head = client.read_head()
    except (ConnectionError, OSError):
        return Got(None, {}, b"", False)
    return rest_of(client, head, verb)


def rest_of(client: h.RawClient, head: h.Answer, verb: str = "") -> Got:
    if "chunked" in head.headers.get("transfer-encoding", ""):
        body = b""
        try:
            for chunk in client.chunks():
                body += chunk
        except (ConnectionError, OSError, ValueError):
            return Got(head.status, head.headers, body, False)
        return Got(head.status, head.headers, body, True)
    size = int(head.headers.get("content-length", "0"))
    body = client.stream.read(size) if verb != "HEAD" else b""
    return Got(head.status, head.headers, body, verb == "HEAD" or len(body) == size)


def via(wild: Wild, raw: bytes, who: str | None = "alice", source: str = "127.0.0.1") -> tuple[h.Trial, Got]:
    """One request through a tunnel of its own, from an address of 127.0.0.0/8."""
    tried = h.trial(wild.proxy, wild.upstream)
    connect = {"Proxy-Authorization": h.basic("alice", wild.token)} if who else {}
    plain = h.RawClient(
        socket.create_connection(("127.0.0.1", wild.proxy.port), h.DEADLINE, source_address=(source, 0))
    )
    extra = "".join(f"{name}: {value}\r\n" for name, value in connect.items())
    plain.send(f"CONNECT {wild.authority} HTTP/1.1\r\nHost: {wild.authority}\r\n{extra}\r\n".encode())
    assert plain.read_head().status == 200
    client = h.RawClient(wild.proxy.trust().wrap_socket(plain.sock, server_hostname="localhost"))
    plain.stream.close()
    client.send(raw)
    got = read(client, raw.partition(b" ")[0].decode())
    client.close()
    return tried, got


def to(wild: Wild, target: str, body: bytes = b"", *lines: str, verb: str | None = None) -> bytes:
    return request(wild.authority, body, *lines, verb=verb or ("POST" if body else "GET"), target=target)


@pytest.fixture
def answered(observing: Wild, denying: Wild) -> Iterator[Callable[[Callable[[h.Seen], h.Reply]], None]]:
    """Sets what both unlisted servers answer."""

    def answer(how: Callable[[h.Seen], h.Reply]) -> None:
        observing.upstream.answer = denying.upstream.answer = how

    yield answer
    answer(h.call_tool)


def seen_servers(wild: Wild, path: str) -> list[dict[str, Any]]:
    db = sqlite3.connect(f"file:{wild.proxy.home / 'audit.db'}?mode=ro", uri=True, timeout=h.DEADLINE)
    try:
        db.row_factory = sqlite3.Row
        found = db.execute("SELECT * FROM servers_seen WHERE path = ?", (path,)).fetchall()
    finally:
        db.close()
    names = ("tools", "caller_names", "agents", "credentials", "clients")
    return [{**dict(row), **{name: json.loads(row[name]) for name in names}} for row in found]


# -- a place once found stays governed --------------------------------------------------------------

ODD: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
    "a GET": ("GET", b"", ()),
    "a DELETE": ("DELETE", b"", ()),
    "a HEAD": ("HEAD", b"", ()),
    "an OPTIONS": ("OPTIONS", b"", ()),
    "a body that nobody can read": ("POST", b"\x0b\x02\x80abc", ("Content-Encoding: br",)),
    "a body that is no JSON": ("POST", b"\0\1\2", ()),
    "a form": ("POST", b"a=b", ("Content-Type: application/x-www-form-urlencoded",)),
    "a PUT": ("PUT", b"x", ()),
    "an upgrade": (
        "GET", b"", ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_where_mcp_was_refused_nothing_else_passes_for_its_sender(
    denying: Wild, place: str, what: str
) -> None:
    via(denying, to(denying, place, CALL))
    verb, body, lines = ODD[what]
    tried, got = via(denying, to(denying, place, body, *lines, verb=verb), who=None)
    row = tried.refused("unknown_server")
    assert "found at this place before" in row["detail"]
    assert row["path"] == place
    assert got.status is not None
    assert got.status >= 400
    assert tried.seen == []


@pytest.mark.parametrize(
    "spelled",
    [
        "{}?a=b",
        "{}/",
        "/{}",
        "{}#x",
        "/x/..{}",
        "{}/.",
        "{};v=1",
        "/api%2F{last}",
        "/%61pi/{last}",
        "/API/{last}",
    ],
)
def test_another_spelling_of_the_place_leads_to_the_same_refusal(
    denying: Wild, place: str, spelled: str
) -> None:
    via(denying, to(denying, place, CALL))
    target = spelled.format(place, last=place.rpartition("/")[2])
    tried, _ = via(denying, to(denying, target))
    tried.refused("unknown_server")


def test_other_paths_of_the_host_pass_as_before(denying: Wild, place: str) -> None:
    via(denying, to(denying, place, CALL))
    tried, got = via(denying, to(denying, place + "/docs"))
    assert tried.rows == []
    assert len(tried.seen) == 1
    assert got.whole


def test_a_request_alone_closes_a_place_to_its_sender_only(denying: Wild, place: str) -> None:
    """Else anybody could close any page for everybody, by one POST to it."""
    via(denying, to(denying, place, CALL))
    tried, _ = via(denying, to(denying, place), who=None, source="127.0.0.2")
    assert (tried.rows, len(tried.seen)) == ([], 1)
    by_name, _ = via(denying, to(denying, place), source="127.0.0.2")
    by_name.refused("unknown_server")
    by_address, _ = via(denying, to(denying, place), who=None)
    by_address.refused("unknown_server")


def test_where_mcp_is_observed_everything_is_recorded_and_passes(observing: Wild, place: str) -> None:
    via(observing, to(observing, place, CALL))
    for verb, body, lines in [*ODD.values()][:7]:
        raw = to(observing, place + "?q=1", body, *lines, verb=verb)
        tried, _ = via(observing, raw, who=None, source="127.0.0.3")
        row = tried.row
        assert (row["verdict"], row["reason"]) == ("allow", "observed")
        assert (row["principal"], row["client_ip"], row["path"]) == ("anonymous", "127.0.0.3", place)
        [seen] = tried.seen
        assert (seen.method, seen.body) == (verb, body)
    [shown] = seen_servers(observing, place)
    assert (shown["calls"], shown["caller_names"], shown["credentials"]) == (
        8,
        [ALICE],
        ["scoped_token", "none"],
    )


def test_what_was_found_outlives_a_reload_and_is_refused_once_the_rules_say_so(
    tmp_path: Path, pki: h.Pki, warm: Warm
) -> None:
    opened = wild(tmp_path, pki, warm, "observe")
    house = next(opened)
    via(house, to(house, "/found", CALL))
    via(house, to(house, "/asked", h.rpc("notifications/initialized", rpc_id=None)))
    policy = house.proxy.rules / "policy.yaml"
    policy.write_text(policy.read_text().replace("unknown_server: observe", "unknown_server: deny"))

    def reloaded() -> bool:
        db = sqlite3.connect(f"file:{house.proxy.home / 'audit.db'}?mode=ro", uri=True)
        try:
            return bool(db.execute("SELECT 1 FROM event WHERE kind = 'reload'").fetchall())
        finally:
            db.close()

    h.wait_for(reloaded, "the reload")
    for who, source in (("alice", "127.0.0.1"), (None, "127.0.0.9")):
        tried, _ = via(house, to(house, "/found"), who=who, source=source)
        tried.refused("unknown_server")
    mine, _ = via(house, to(house, "/asked"))
    mine.refused("unknown_server")
    other, _ = via(house, to(house, "/asked"), who=None, source="127.0.0.9")
    assert other.rows == [], "the server never answered in MCP there: it is proved to nobody else"
    next(opened, None)


# -- recognised by the answer -----------------------------------------------------------------------


def sse(*events: str) -> bytes:
    return "".join(f"event: message\ndata: {data}\n\n" for data in events).encode()


def deflated(raw: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(raw) + stream.flush()


BODY = json.dumps(LIST).encode()
STREAM = ("content-type", "text/event-stream")
TYPE = ("content-type", "application/json")
GZIP = ("content-encoding", "gzip")


def packed(raw: bytes) -> bytes:
    return gzip.compress(raw, mtime=0)


def pieces(raw: bytes, size: int) -> Iterator[bytes]:
    return (raw[at : at + size] for at in range(0, len(raw), size))


ANSWERS: dict[str, tuple[str, Callable[[], h.Reply]]] = {
    "JSON": ("POST", lambda: h.Reply(200, [TYPE], BODY)),
    "JSON in one chunk": ("POST", lambda: h.Reply(200, [TYPE], chunks=iter([BODY]))),
    "JSON under another type": ("POST", lambda: h.Reply(200, [("content-type", "text/html")], BODY)),
    "JSON without a type": ("POST", lambda: h.Reply(200, [], BODY)),
    "JSON with the result first": (
        "POST",
        lambda: h.Reply(200, [TYPE], json.dumps({"result": {"tools": TOOLS}, **ENVELOPE}).encode()),
    ),
    "a batch": ("POST", lambda: h.Reply(200, [TYPE], b"[" + BODY + b"]")),
    "gzip": ("POST", lambda: h.Reply(200, [TYPE, GZIP], packed(BODY))),
    "gzip in one chunk": ("POST", lambda: h.Reply(200, [TYPE, GZIP], chunks=iter([packed(BODY)]))),
    "deflate": ("POST", lambda: h.Reply(200, [TYPE, ("content-encoding", "deflate")], zlib.compress(BODY))),
    "raw deflate": ("POST", lambda: h.Reply(200, [TYPE, ("content-encoding", "deflate")], deflated(BODY))),
    "an event": ("POST", lambda: h.Reply(200, [STREAM], chunks=iter([sse(json.dumps(LIST))]))),
    "an event of a stated length": ("POST", lambda: h.Reply(200, [STREAM], sse(json.dumps(LIST)))),
    "an event after a comment": (
        "POST", lambda: h.Reply(200, [STREAM], chunks=iter([b": hello\n\n", sse(json.dumps(LIST))])),
    ),
    "an event in gzip": (
        "POST", lambda: h.Reply(200, [STREAM, GZIP], chunks=iter([packed(sse(json.dumps(LIST)))])),
    ),
    "an event on a GET": ("GET", lambda: h.Reply(200, [STREAM], chunks=iter([sse(json.dumps(LIST))]))),
    "an endpoint": (
        "GET", lambda: h.Reply(200, [STREAM], chunks=iter([b"event: endpoint\ndata: /odd/place?x=1\n\n"])),
    ),
    "a session": ("POST", lambda: h.Reply(200, [TYPE, ("mcp-session-id", "s1")], b'{"drop_table":1}')),
    "a session without a body": ("DELETE", lambda: h.Reply(202, [("Mcp-Session-Id", "s1")], b"")),
    "a session on a stream": (
        "GET", lambda: h.Reply(200, [STREAM, ("mcp-session-id", "s1")], chunks=iter([b": drop_table\n\n"])),
    ),
    "a long list in small pieces": (
        "POST", lambda: h.Reply(200, [TYPE], chunks=pieces(BODY[:-3] + b" " * 70_000 + BODY[-3:], 37)),
    ),
}  # fmt: skip


def plain_body(reply: h.Reply) -> bytes:
    return b"".join(reply.chunks) if reply.chunks is not None else reply.body


@pytest.mark.parametrize("how", ANSWERS)
def test_an_observed_answer_is_recognised_attributed_and_passes_byte_for_byte(
    observing: Wild, place: str, answered: Any, how: str
) -> None:
    verb, reply = ANSWERS[how]
    expected = plain_body(reply())
    answered(lambda seen: reply())
    body = UNSEEN if verb == "POST" else b""
    tried, got = via(observing, to(observing, place, body, "Accept: text/event-stream", verb=verb))
    assert (got.body, got.whole) == (expected, True)
    row = tried.row
    assert (row["verdict"], row["reason"], row["principal"]) == ("allow", "observed", ALICE)
    assert "recognised by its answer" in row["detail"]
    assert (row["path"], row["server"], row["injected"]) == (place, observing.authority, None)
    assert row["method"] == ("acme/run" if body else f"http/{verb}")
    assert row["outcome"] in ("ok", "accepted", "unanswered")
    [seen] = tried.seen
    assert seen.body == body
    [shown] = seen_servers(observing, place)
    assert (shown["caller_names"], shown["credentials"], shown["listed"]) == ([ALICE], ["scoped_token"], 0)
    if "drop_table" in str(expected) and "session" not in how:
        assert shown["tools"] == ["drop_table", "read_file"]
        assert row["outcome"] == "ok"


@pytest.mark.parametrize("how", ANSWERS)
def test_a_refused_answer_is_recognised_recorded_and_kept_from_the_client(
    denying: Wild, place: str, answered: Any, how: str
) -> None:
    verb, reply = ANSWERS[how]
    answered(lambda seen: reply())
    body = UNSEEN if verb == "POST" else b""
    tried, got = via(denying, to(denying, place, body, "Accept: text/event-stream", verb=verb))
    row = tried.row
    assert (row["verdict"], row["reason"], row["principal"]) == ("deny", "unknown_server", ALICE)
    assert "the request had already gone to the server" in row["detail"]
    assert (row["outcome"], row["path"]) == ("not_sent", place)
    assert len(tried.seen) == 1, "what is seen by its answer only has been there"
    assert b"read_file" not in got.body
    if "pieces" in how and got.status == 200:
        assert not got.whole, "too little came at once to tell it: its head has gone on"
    else:
        assert (got.status, got.whole) == (403, True)
        refusal = json.loads(got.body)
        assert refusal["error"]["data"] == {"reason": "unknown_server", "decision": row["event_id"]}
        assert refusal["id"] == (7 if verb == "POST" else None)
    [shown] = seen_servers(denying, place)
    assert (shown["calls"], shown["refused"], shown["caller_names"]) == (1, 1, [ALICE])
    again, _ = via(denying, to(denying, place), who=None, source="127.0.0.7")
    again.refused("unknown_server")


class Halting:
    """A TLS server that sends a head, waits until it is told to go on, and then sends the rest."""

    def __init__(self, pki: h.Pki, head: bytes, rest: bytes) -> None:
        self.go_on, self.done = threading.Event(), threading.Event()
        self._context = pki.server_context()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._said = (head, rest)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        plain, _ = self._listener.accept()
        with self._listener, plain, self._context.wrap_socket(plain, server_side=True) as sock:
            with sock.makefile("rb") as stream:
                h.read_request(stream)
            sock.sendall(self._said[0])
            self.go_on.wait(h.DEADLINE)
            sock.sendall(self._said[1])
            self.done.wait(h.DEADLINE)


def of_length(body: bytes, *lines: str) -> tuple[bytes, bytes]:
    head = "".join(f"{line}\r\n" for line in ("HTTP/1.1 200 OK", *lines, f"Content-Length: {len(body)}"))
    return head.encode() + b"\r\n", body


def in_a_chunk(body: bytes, *lines: str, first: bytes = b"") -> tuple[bytes, bytes]:
    head = "".join(f"{line}\r\n" for line in ("HTTP/1.1 200 OK", *lines, "Transfer-Encoding: chunked"))
    begun = b"%x\r\n%s\r\n" % (len(first), first) if first else b""
    return head.encode() + b"\r\n" + begun, b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


SHORT = {**ENVELOPE, "result": {"tools": [{"name": "drop_table", "inputSchema": {}}]}}
EVENT_TYPE = "Content-Type: text/event-stream"
LATE: dict[str, tuple[bytes, tuple[bytes, bytes], str]] = {
    "JSON of a stated length": (UNSEEN, of_length(BODY, JSON), "told"),
    "JSON too short for a refusal": (UNSEEN, of_length(json.dumps(SHORT).encode(), JSON), "cut"),
    "JSON in a chunk": (UNSEEN, in_a_chunk(BODY, JSON), "told"),
    "gzip in a chunk": (UNSEEN, in_a_chunk(packed(BODY), JSON, "Content-Encoding: gzip"), "told"),
    "gzip of a stated length": (UNSEEN, of_length(packed(BODY), JSON, "Content-Encoding: gzip"), "cut"),
    "deflate": (UNSEEN, in_a_chunk(zlib.compress(BODY), JSON, "Content-Encoding: deflate"), "cut"),
    "an event": (UNSEEN, in_a_chunk(sse(json.dumps(LIST)), EVENT_TYPE), "told"),
    "an event of a stated length": (UNSEEN, of_length(sse(json.dumps(LIST)), EVENT_TYPE), "told"),
    "an event after a comment": (
        UNSEEN, in_a_chunk(sse(json.dumps(LIST)), EVENT_TYPE, first=b": hello\n\n"), "told",
    ),
    "an event after half a line": (
        UNSEEN, in_a_chunk(sse(json.dumps(LIST)), EVENT_TYPE, first=b": h"), "cut",
    ),
    "an endpoint on a GET": (b"", in_a_chunk(b"event: endpoint\ndata: /odd/place?x\n\n", EVENT_TYPE), "cut"),
    "JSON to a request without an id": (
        b"\x0b\x02\x80abc", in_a_chunk(BODY.replace(b'"id": 7, ', b""), JSON), "cut",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", LATE)
def test_a_refusal_after_the_head_went_on_is_told_where_its_form_allows_it_and_else_cut(
    denying: Wild, pki: h.Pki, place: str, how: str
) -> None:
    """The head of an answer waits a moment for its first bytes, and not longer: it may be an idle stream."""
    body, said, expected = LATE[how]
    server = Halting(pki, *said)
    since = h.newest(denying.proxy)
    client = denying.proxy.tunnel(f"localhost:{server.port}")
    lines = ("Content-Encoding: br",) if body[:1] == b"\x0b" else ()
    authority, verb = f"localhost:{server.port}", "POST" if body else "GET"
    client.send(request(authority, body, *lines, verb=verb, target=place))
    head = client.read_head()
    assert head.status == 200, "it did not wait for the body"
    server.go_on.set()
    got = rest_of(client, head)
    server.done.set()
    client.close()
    [row] = denying.proxy.await_rows(1, "seq > ?", since)
    assert (row["verdict"], row["reason"], row["path"]) == ("deny", "unknown_server", place)
    assert b"drop_table" not in got.body
    assert b"/odd" not in got.body
    if expected == "cut":
        assert not got.whole
        return
    plain = gzip.decompress(got.body) if "gzip" in how else got.body
    refusal = json.loads(plain.partition(b"data: ")[2] or plain)
    assert (refusal["id"], refusal["error"]["data"]["decision"]) == (7, row["event_id"])
    assert got.whole or how in ("an event", "an event after a comment"), "a stream is cut after it was told"


def test_a_server_that_leaves_while_its_head_waits_is_an_error_and_an_empty_answer_is_whole(
    denying: Wild, place: str, answered: Any
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    for said, status, whole in (
        (head + b"Transfer-Encoding: chunked\r\n\r\n", 502, True),
        (head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, True),
        (head + b"Content-Length: 9\r\n\r\n: hi", 200, False),
    ):
        answered(lambda seen, said=said: h.Reply(raw=said))
        tried, got = via(denying, to(denying, place))
        assert (got.status, got.whole) == (status, whole)
        assert (len(tried.seen), tried.rows) == (1, [])


def test_a_request_that_nobody_can_read_is_known_by_its_answer_and_gets_its_id(
    observing: Wild, place: str, answered: Any
) -> None:
    answered(lambda seen: h.json_reply({"jsonrpc": "2.0", "id": 0, "result": {"content": [], "isError": True,
                                        "resultType": "complete"}}))  # fmt: skip
    tried, got = via(observing, to(observing, place, b"\x0b\x02\x80abc", "Content-Encoding: br"))
    row = tried.row
    assert (row["method"], row["rpc_id"], row["outcome"]) == ("http/POST", "0", "tool_error")
    assert got.whole


def test_a_caller_whose_token_fails_is_refused_by_the_answer_too(
    observing: Wild, place: str, answered: Any
) -> None:
    answered(lambda seen: h.json_reply(LIST))
    expired = h.mint(observing.proxy, seconds=-60)
    raw = to(observing, place, UNSEEN, f"X-Callerid-Token: {expired}")
    tried, got = via(observing, raw, who=None)
    row = tried.row
    assert (row["verdict"], row["reason"], row["principal"]) == ("deny", "token_expired", "anonymous")
    assert b"drop_table" not in got.body
    assert seen_servers(observing, place)[0]["credentials"] == ["rejected"]


# -- what an observed call leaves behind ----------------------------------------------------------


def result(value: Any, rpc_id: Any = 5) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": rpc_id, "result": value}


OUTCOMES: dict[str, tuple[dict[str, Any], str, int | None]] = {
    "ok": (result({"content": [{"type": "text", "text": "x"}]}), "ok", None),
    "a tool error": (result({"content": [], "isError": True}), "tool_error", None),
    "an error": ({"jsonrpc": "2.0", "id": 5, "error": {"code": -32001, "message": "x"}}, "rpc_error", -32001),
    "input required": (result({"resultType": "input_required", "inputRequests": {}}), "input_required", None),
    "a task": (result({"task": {"taskId": "t1"}}), "task", None),
    "another id": (result({"content": []}, 6), "unanswered", None),
    "no JSON": ({}, "unanswered", None),
}
CARRIED: dict[str, Callable[[str], h.Reply]] = {
    "as JSON": lambda text: h.Reply(200, [TYPE], text.encode()),
    "in gzip": lambda text: h.Reply(200, [TYPE, GZIP], packed(text.encode())),
    "in chunks": lambda text: h.Reply(200, [TYPE], chunks=pieces(text.encode(), 7)),
    "as events": lambda text: h.Reply(200, [STREAM], chunks=pieces(b": hi\n\n" + sse("{}", text), 11)),
    "as events in gzip": lambda text: h.Reply(
        200, [STREAM, GZIP], chunks=pieces(packed(sse("{}", text)), 13)
    ),
    "in a batch": lambda text: h.Reply(200, [TYPE], f"[{text}]".encode()),
}


@pytest.mark.parametrize("carried", CARRIED)
@pytest.mark.parametrize("what", OUTCOMES)
def test_an_observed_call_ends_as_its_answer_says(
    observing: Wild, place: str, answered: Any, what: str, carried: str
) -> None:
    message, outcome, code = OUTCOMES[what]
    text = json.dumps(message)
    expected = plain_body(CARRIED[carried](text))
    answered(lambda seen: CARRIED[carried](text))
    tried, got = via(observing, to(observing, place, CALL))
    row = tried.row
    assert (row["outcome"], row["rpc_code"], row["http_status"]) == (outcome, code, 200)
    assert (got.body, got.whole, row["response_bytes"]) == (expected, True, len(expected))


def test_an_answer_that_cannot_be_read_passes_and_the_row_says_so(
    observing: Wild, place: str, answered: Any
) -> None:
    noise = bytes(range(256)) * 8
    answered(lambda seen: h.Reply(200, [TYPE, ("content-encoding", "br")], noise))
    tried, got = via(observing, to(observing, place, CALL, JSON, "Authorization: Basic YTpiYmI="))
    row = tried.row
    assert got.body == noise
    assert row["outcome"] == "unanswered"
    assert row["detail"] == (
        "carries its own Authorization (Basic); the answer is in an encoding that is not read here"
    )


@pytest.mark.parametrize("size", [2_000_000, 20_000_000])
def test_a_large_answer_passes_whole(observing: Wild, place: str, answered: Any, size: int) -> None:
    body = json.dumps(result({"content": [{"type": "text", "text": "x" * size}]})).encode()
    answered(lambda seen: h.Reply(200, [TYPE], body))
    tried, got = via(observing, to(observing, place, CALL))
    assert got.body == body
    assert tried.row["outcome"] == "unanswered"
    assert "longer than" in tried.row["detail"]


def test_an_observed_http_error_and_a_server_that_leaves(observing: Wild, place: str, answered: Any) -> None:
    answered(lambda seen: h.Reply(500, [TYPE], b"{}"))
    tried, _ = via(observing, to(observing, place, CALL))
    assert (tried.row["outcome"], tried.row["http_status"]) == ("http_error", 500)
    answered(lambda seen: h.Reply(raw=b"HTTP/1.1 200 X\r\ncontent-length: 99\r\n\r\n{"))
    tried, got = via(observing, to(observing, place, CALL))
    assert tried.row["outcome"] == "upstream_gone"
    assert (got.body, got.whole) == (b"{", False)


def test_an_observed_stream_is_not_held_back_and_its_list_is_kept(
    observing: Wild, place: str, answered: Any
) -> None:
    gate = threading.Event()
    first, second = (
        sse(json.dumps({"jsonrpc": "2.0", "method": "notifications/progress"})),
        sse(json.dumps(LIST)),
    )

    def slowly(seen: h.Seen) -> h.Reply:
        def parts() -> Iterator[bytes]:
            yield first
            gate.wait(h.DEADLINE)
            yield second[:20]
            yield second[20:]

        return h.Reply(200, [STREAM], chunks=parts())

    answered(slowly)
    try:
        for body in (h.rpc("tools/list", rpc_id=7), UNSEEN):
            gate.clear()
            tried = h.trial(observing.proxy, observing.upstream)
            client = observing.proxy.tunnel(observing.authority)
            client.send(to(observing, place, body))
            client.read_head()
            chunks = client.chunks()
            assert next(chunks) == first
            assert tried.rows[0]["reason"] == "observed", "its row is there before its first event"
            gate.set()
            assert b"".join(chunks) == second
            client.close()
            assert tried.row["outcome"] == "ok"
    finally:
        gate.set()
    assert seen_servers(observing, place)[0]["tools"] == ["drop_table", "read_file"]


def test_servers_seen_tells_the_whole_story_of_a_shadow_server(observing: Wild, place: str) -> None:
    bob = h.mint(observing.proxy, "user:bob@corp.example", agent=None)
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "cursor", "version": "1"},
    }
    version = "MCP-Protocol-Version: 2025-06-18"
    via(observing, to(observing, place, h.rpc("initialize", hello, 1), JSON))
    via(observing, to(observing, place, h.rpc("tools/list", rpc_id=2), JSON, version))
    via(observing, to(observing, place, h.rpc("tools/list", rpc_id=3), JSON, version))
    via(observing, to(observing, place, CALL, JSON, version))
    via(observing, to(observing, place, gzip.compress(h.tool("zipped", rpc_id=4)), "Content-Encoding: gzip"))
    via(observing, to(observing, place, CALL, f"X-Callerid-Token: {bob}", "X-Api-Key: k-123456"), who=None)
    via(observing, to(observing, place, CALL, "Authorization: Bearer ghp_personal0123456789"), who=None)
    tried, _ = via(observing, to(observing, place, CALL), who=None)
    assert tried.row["outcome"] == "ok"
    [shown] = seen_servers(observing, place)
    assert {name: shown[name] for name in shown if name not in ("first_seen", "last_seen")} == {
        "server": observing.authority,
        "upstream": observing.authority,
        "host": "localhost",
        "path": place,
        "protocol": "2025-06-18",
        "tools": ["drop_thing", "query", "read_thing", "run_anything", "zipped"],
        "callers": 2,
        "caller_names": [ALICE, "user:bob@corp.example"],
        "agents": [],
        "credentials": ["scoped_token", "own", "none"],
        "clients": ["cursor/1"],
        "listed": 0,
        "calls": 8,
        "refused": 0,
        "allowed": 8,
    }
    assert shown["first_seen"] < shown["last_seen"]
    db = sqlite3.connect(f"file:{observing.proxy.home / 'audit.db'}?mode=ro", uri=True)
    told = [json.loads(row[0]) for row in db.execute("SELECT detail FROM event WHERE kind = 'server_seen'")]
    db.close()
    mine = [event for event in told if event["path"] == place]
    assert len(mine) == 1, "once per change, however often it is listed"
    whole = (observing.proxy.home / "audit.db").read_bytes()
    for suffix in ("-wal",):
        beside = observing.proxy.home / f"audit.db{suffix}"
        whole += beside.read_bytes() if beside.exists() else b""
    for secret in (b"ghp_personal", b"k-123456", bob.encode()):
        assert secret not in whole


def test_a_disguised_call_is_named_in_its_row(observing: Wild, place: str) -> None:
    for body, lines in (
        (gzip.compress(CALL), ("Content-Encoding: gzip",)),
        (b"\xef\xbb\xbf" + CALL, ()),
        (CALL.decode().encode("utf-16"), ()),
        (b"[" + CALL + b"," + h.tool("second", rpc_id=6) + b"]", ("MCP-Protocol-Version: 2025-06-18",)),
        (CALL.replace(b'"method"', b'"METHOD"'), ()),
    ):
        tried, _ = via(observing, to(observing, place, body, *lines))
        h.wait_for(lambda tried=tried: tried.rows, "rows")
        assert tried.rows[0]["tool"] == "run_anything"
        assert {row["method"] for row in tried.rows} == {"tools/call"}
        assert tried.seen[0].body == body


# -- with the official SDK ------------------------------------------------------------------------


OWN_SECRET = "shadow-secret-77aa0b1c5d"
OWN_KEY = {"Authorization": f"Bearer {OWN_SECRET}"}
"""These servers want one; towards a server that is not listed the caller brings its own."""


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki) -> Iterator[tuple[h.SdkServer, h.Partner]]:
    server = h.SdkServer(tmp_path_factory.mktemp("sdk"), pki, OWN_SECRET)
    client = h.Partner("tests.e2e.sdk_client", environ={})
    try:
        assert server.partner.hear() == client.hear() == {"ready": True}
        yield server, client
    finally:
        client.stop()
        server.stop()


def through(house: Wild) -> dict[str, str]:
    place = f"http://alice:{house.token}@localhost:{house.proxy.port}"
    return {"HTTPS_PROXY": place, "NO_PROXY": "", "SSL_CERT_FILE": str(house.proxy.ca_cert)}


@pytest.mark.parametrize(
    ("name", "mode", "protocol"),
    [
        ("stateful", "auto", "2026-07-28"),
        ("stateless-json", "auto", "2026-07-28"),
        ("stateful", "legacy", "2025-11-25"),
        ("json", "legacy", "2025-11-25"),
    ],
)
def test_a_real_client_of_a_shadow_server_is_observed_and_not_disturbed(
    observing: Wild, sdk: tuple[h.SdkServer, h.Partner], name: str, mode: str, protocol: str
) -> None:
    server, client = sdk
    since = h.newest(observing.proxy)
    client("open", url=server.url(name), environ=through(observing), mode=mode, headers=OWN_KEY)
    listed = client("list")
    assert "read_thing" in listed
    assert client("call", tool="read_thing", arguments={"name": "x"})["text"] == "thing x"
    assert client("call", tool="break_thing", arguments={"name": "x"})["isError"] is True
    client("close")
    h.wait_for(
        lambda: (
            len(observing.proxy.rows("seq > ? and method = 'tools/call' and outcome <> 'unknown'", since))
            == 2
        ),
        "both outcomes",
    )
    rows = observing.proxy.rows("seq > ?", since)
    assert {(row["verdict"], row["reason"], row["principal"]) for row in rows} == {
        ("allow", "observed", ALICE)
    }
    calls = [(row["tool"], row["outcome"], row["protocol"]) for row in rows if row["tool"]]
    assert calls == [("read_thing", "ok", protocol), ("break_thing", "tool_error", protocol)]
    shown = [
        row for row in seen_servers(observing, f"/{name}/mcp") if row["upstream"].endswith(str(server.port))
    ]
    assert len(shown) == 1
    assert set(listed) <= set(shown[0]["tools"])
    assert (shown[0]["caller_names"], shown[0]["credentials"]) == ([ALICE], ["scoped_token", "own"])


def test_a_real_client_of_the_old_transport_is_observed_on_both_its_connections(
    observing: Wild, sdk: tuple[h.SdkServer, h.Partner]
) -> None:
    server, client = sdk
    since = h.newest(observing.proxy)
    client("open", url=server.url("old"), environ=through(observing), mode="sse", headers=OWN_KEY)
    assert client("call", tool="read_thing", arguments={"name": "x"})["text"] == "thing x"
    client("close")
    h.wait_for(lambda: observing.proxy.rows("seq > ? and tool = 'read_thing'", since), "the call")
    rows = observing.proxy.rows("seq > ?", since)
    assert [row["method"] for row in rows][:3] == ["http/GET", "initialize", "notifications/initialized"]
    assert "recognised by its answer" in rows[0]["detail"]
    assert {row["principal"] for row in rows} == {ALICE}
    called = [row["outcome"] for row in rows if row["tool"] == "read_thing"]
    assert called == ["accepted"], "its result came on the stream"


@pytest.mark.parametrize("mode", ["auto", "legacy", "sse"])
def test_a_real_client_of_a_refused_server_is_told_at_once(
    denying: Wild, sdk: tuple[h.SdkServer, h.Partner], mode: str
) -> None:
    server, client = sdk
    since, before = h.newest(denying.proxy), len(server.lines())
    name = "old" if mode == "sse" else "json"
    refused = client.ask("open", url=server.url(name), environ=through(denying), mode=mode, headers=OWN_KEY)
    assert "error" in refused
    rows = denying.proxy.rows("seq > ?", since)
    assert rows
    assert {(row["verdict"], row["reason"]) for row in rows} == {("deny", "unknown_server")}
    arrived = [line for line in server.lines()[before:] if "http" in line]
    assert len(arrived) == (1 if mode == "sse" else 0), "only the GET, which nothing tells from others"


# -- what is not MCP ------------------------------------------------------------------------------

QUOTED = json.dumps(LIST)
OPENAI = {"model": "m", "messages": [{"role": "user", "content": f"method tools/call: {QUOTED}"}],
          "tools": [{"type": "function", "function": {"name": "drop_table", "parameters": {}}},
                    {"type": "mcp", "server_url": "https://docs.corp.example/mcp"}]}  # fmt: skip
DELTA = json.dumps({"choices": [{"delta": {"tool_calls": [{"function": {"name": "drop_table"}}]}}]})
CLAUDE = json.dumps({"type": "content_block_start", "content_block": {"type": "mcp_tool_use", "name": "x"}})
TEXT_PART = {"kind": "text", "text": QUOTED}
A2A_TASK = {"id": "t", "contextId": "c", "kind": "task", "status": {"state": "working"},
            "artifacts": [{"parts": [TEXT_PART]}]}  # fmt: skip

type Shape = tuple[str, bytes, tuple[str, ...], h.Reply]


def rest(message: Any, *headers: tuple[str, str]) -> h.Reply:
    return h.Reply(200, [TYPE, *headers], json.dumps(message).encode())


def events(*data: str, name: str = "message") -> h.Reply:
    return h.Reply(200, [STREAM], "".join(f"event: {name}\ndata: {text}\n\n" for text in data).encode())


OTHERS: dict[str, Callable[[], Shape]] = {
    "Ethereum": lambda: (
        "POST", h.rpc("eth_call", [{"to": "0x0"}, "latest"]), (JSON,), rest(result("0x1", 1)),
    ),
    "an Ethereum batch": lambda: (
        "POST", b"[" + h.rpc("eth_chainId", []) + b"," + h.rpc("eth_getLogs", [{}], 2) + b"]", (JSON,),
        rest([result("0x1", 1), result([{"address": "0x0"}], 2)]),
    ),
    "Bitcoin": lambda: (
        "POST", b'{"jsonrpc":"1.0","id":"c","method":"getblockcount","params":[]}',
        ("Authorization: Basic YTpi",), rest({"result": 1, "error": None, "id": "c"}),
    ),
    "LSP initialize": lambda: (
        "POST", h.rpc("initialize", {"processId": 1, "capabilities": {}, "clientInfo": {"name": "vim"}}),
        (JSON, "Accept: application/json, text/event-stream"),
        rest(result({"capabilities": {"hoverProvider": True}, "serverInfo": {"name": "ls"}}, 1)),
    ),
    "LSP shutdown": lambda: ("POST", h.rpc("shutdown"), (JSON,), rest(result(None, 1))),
    "LSP hover": lambda: (
        "POST", h.rpc("textDocument/hover", {"textDocument": {"uri": "file:///x"}}), (JSON,),
        rest(result({"contents": {"kind": "markdown", "value": QUOTED}}, 1)),
    ),
    "an agent client protocol": lambda: (
        "POST", h.rpc("initialize", {"protocolVersion": 1, "clientInfo": {"name": "z"}}),
        (JSON,), rest(result({"protocolVersion": 1, "agentCapabilities": {}}, 1)),
    ),
    "A2A send": lambda: (
        "POST", h.rpc("message/send", {"message": {"role": "user", "parts": [TEXT_PART]}}),
        (JSON,), rest(result({"kind": "message", "role": "agent", "parts": [TEXT_PART]}, 1)),
    ),
    "A2A get": lambda: (
        "POST", h.rpc("tasks/get", {"id": "t", "historyLength": 2}),
        (JSON, "Accept: application/json, text/event-stream"), rest(result(A2A_TASK, 1)),
    ),
    "A2A cancel": lambda: ("POST", h.rpc("tasks/cancel", {"id": "t"}), (JSON,), rest(result(A2A_TASK, 1))),
    "A2A stream": lambda: (
        "POST", h.rpc("message/stream", {"message": {}}), (JSON, "Accept: text/event-stream"),
        events(json.dumps(result(A2A_TASK, 1)), json.dumps(result({"kind": "status-update"}, 1))),
    ),
    "Kodi": lambda: (
        "POST", h.rpc("Player.GetItem", {"playerid": 0}), (JSON,), rest(result({"item": {"label": "x"}}, 1)),
    ),
    "Transmission": lambda: (
        "POST", b'{"method":"torrent-get","arguments":{"fields":["id"]},"tag":1}',
        ("X-Transmission-Session-Id: x",), rest({"arguments": {}, "result": "success", "tag": 1}),
    ),
    "OpenAI": lambda: ("POST", json.dumps(OPENAI).encode(), (JSON,), events(DELTA, "[DONE]")),
    "OpenAI with a long context": lambda: (
        "POST", json.dumps({**OPENAI, "x": ["io.modelcontextprotocol/x jsonrpc " + QUOTED] * 9000}).encode(),
        (JSON, "Accept: application/json, text/event-stream"), events(DELTA, json.dumps({"text": QUOTED})),
    ),
    "OpenAI in gzip with a long context": lambda: (
        "POST", gzip.compress(json.dumps({**OPENAI, "x": ["io.modelcontextprotocol/x"] * 90000}).encode()),
        (JSON, "Content-Encoding: gzip"), events(DELTA),
    ),
    "Anthropic": lambda: (
        "POST", b'{"model":"m","mcp_servers":[{"type":"url","url":"https://docs.corp.example/mcp"}],"messages":[]}',
        (JSON, "Accept: text/event-stream"), events(CLAUDE, name="content_block_start"),
    ),
    "Anthropic, whole": lambda: (
        "POST", b'{"model":"m","messages":[{"role":"user","content":"jsonrpc method"}]}', (JSON,),
        rest({"role": "assistant", "content": [{"type": "text", "text": QUOTED}], "model": "m"}),
    ),
    "Gemini": lambda: (
        "POST", b'{"contents":[{"parts":[{"text":"x"}]}],"tools":[{"functionDeclarations":[]}]}', (JSON,),
        events(json.dumps({"candidates": [{"content": {"parts": [{"text": QUOTED}]}}]})),
    ),
    "a model behind JSON-RPC": lambda: (
        "POST", h.rpc("llm.complete", {"prompt": QUOTED}), (JSON,),
        rest(result({"role": "assistant", "content": [{"type": "text", "text": "x"}]}, 1)),
    ),
    "GraphQL over events": lambda: (
        "POST", b'{"query":"subscription { method }"}', (JSON, "Accept: text/event-stream"),
        events(json.dumps({"data": {"method": "tools/call"}}), name="next"),
    ),
    "a registry of MCP servers": lambda: (
        "GET", b"", ("Accept: application/json",),
        rest({"servers": [{"name": "x", "_meta": {"io.modelcontextprotocol.registry/official": {}}}]}),
    ),
    "publishing to such a registry": lambda: (
        "POST", b'{"name":"x","_meta":{"io.modelcontextprotocol.registry/publisher":{"jsonrpc":1}}}', (JSON,),
        rest({"ok": True}),
    ),
    "MCP's own schema": lambda: (
        "GET", b"", (),
        rest({"$defs": {"Tool": {"properties": {"inputSchema": {}, "jsonrpc": {}, "method": {}}}}}),
    ),
    "a schema that is posted": lambda: (
        "POST", json.dumps({"schema": {"method": {"const": "tools/call"}, "jsonrpc": "2.0"}}).encode(),
        (JSON,), rest({"x": {"properties": {"jsonrpc": {}, "serverInfo": {}, "protocolVersion": {}}}}),
    ),
    "a file that holds a message": lambda: (
        "GET", b"", (), h.Reply(200, [("content-type", "text/plain")], BODY),
    ),
    "a file that holds an event": lambda: (
        "GET", b"", (), h.Reply(200, [("content-type", "text/plain")], sse(QUOTED)),
    ),
    "a package registry": lambda: ("GET", b"", (), rest({"name": "mcp", "versions": {}})),
    "npm audit": lambda: (
        "POST", gzip.compress(b'{"name":"x","requires":{"mcp":"1"}}'), (JSON, "Content-Encoding: gzip"),
        rest({}),
    ),
    "a GitHub issue about MCP": lambda: (
        "POST", json.dumps({"title": "tools/call", "body": CALL.decode()}).encode(), (JSON,),
        rest({"id": 1, "body": QUOTED, "comments": [QUOTED]}),
    ),
    "OAuth discovery": lambda: (
        "GET", b"", ("MCP-Protocol-Version: 2025-06-18", "Accept: application/json"),
        rest({"resource": "https://x.corp.example/mcp", "authorization_servers": []}),
    ),
    "other events": lambda: ("GET", b"", ("Accept: text/event-stream",), events("{}", "hello", name="tick")),
    "an upload": lambda: ("PUT", bytes(range(256)) * 40, (), h.Reply(201, [], b"")),
    "a form about MCP": lambda: ("POST", b"jsonrpc=2.0&method=tools/call", (), h.Reply(204, [], b"")),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_not_mcp_passes_byte_for_byte_and_leaves_no_row(
    denying: Wild, observing: Wild, place: str, answered: Any, what: str
) -> None:
    verb, body, lines, reply = OTHERS[what]()
    answered(lambda seen: reply)
    for house in (denying, observing):
        tried, got = via(house, to(house, place, body, *lines, verb=verb))
        assert (got.status, got.body, got.whole) == (reply.status, reply.body, True)
        [seen] = tried.seen
        assert (seen.method, seen.body) == (verb, body)
        again, _ = via(house, to(house, place, verb="GET"))
        assert len(again.seen) == 1
        assert tried.rows == again.rows == []
        assert seen_servers(house, place) == []
