"""Answers on their way back: streams stream, are filtered and cut, and the secret is in none of them."""

from __future__ import annotations

import base64
import gzip
import html
import json
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e.harness import (
    DEADLINE,
    Pki,
    Proxy,
    RawClient,
    Reply,
    Seen,
    Upstream,
    basic,
    call_tool,
    newest,
    post,
    rpc,
    settled,
    standard_rules,
    tool,
    wait_for,
)

SECRET = 'up/Secret+4f9c"2a7d<81e6>b350=='
"""With every character that one encoding or another writes differently."""
EVENTS = [("content-type", "text/event-stream")]
ENTRIES = pytest.mark.parametrize("entry", ["run", "mitmdump"])


class Script:
    """A stream of the upstream in the test's hand. ``gone``: it was ended, or nobody reads it any more."""

    def __init__(self) -> None:
        self._chunks: queue.Queue[bytes | None] = queue.Queue()
        self.gone = threading.Event()

    def push(self, data: bytes) -> None:
        self._chunks.put(data)

    def end(self) -> None:
        self._chunks.put(None)

    def chunks(self) -> Iterator[bytes]:
        try:
            while (data := self._chunks.get()) is not None:
                yield data
        finally:
            self.gone.set()

    def notices_the_end(self) -> bool:
        """Keep writing: a server learns that its reader left by writing to it."""
        self.push(b": still there?\n\n")
        return self.gone.is_set()


@dataclass
class Place:
    """The upstream, and a proxy of each kind in front of it."""

    upstream: Upstream
    proxies: dict[str, Proxy]
    tokens: dict[tuple[str, str], str]
    scripts: list[Script]
    clients: list[RawClient]

    def client(self, entry: str = "run", who: str = "alice", token: str | None = None) -> RawClient:
        evidence = basic(who, token or self.tokens[entry, who])
        proxy = self.proxies[entry]
        made = proxy.tunnel(f"localhost:{self.upstream.port}", headers={"Proxy-Authorization": evidence})
        self.clients.append(made)
        return made

    def post(self, body: bytes) -> bytes:
        return post(f"localhost:{self.upstream.port}", "/mcp", body)

    def get(self) -> bytes:
        host = f"localhost:{self.upstream.port}"
        return f"GET /mcp HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n".encode()

    def answer(self, way: Callable[[Seen], Reply]) -> None:
        self.upstream.answer = way

    def script(self, *, headers: list[tuple[str, str]] | None = None, close: bool = False) -> Script:
        """The next answers are this stream."""
        made = Script()
        self.scripts.append(made)
        self.answer(lambda _: Reply(200, headers or EVENTS, chunks=made.chunks(), close=close))
        return made


@pytest.fixture(scope="module")
def made(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    upstream = Upstream(pki.server_context())
    folder = tmp_path_factory.mktemp("streams")
    rules = standard_rules(upstream.port)
    proxies = {
        entry: Proxy(folder / entry, rules, ca=pki.ca, entry=entry, environ={"THINGS_SECRET": SECRET})
        for entry in ("run", "mitmdump")
    }
    wanted = [(entry, who) for entry in proxies for who in ("alice", "bob")]
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Proxy.start, proxies.values()))
            issued = pool.map(lambda want: proxies[want[0]].issue(f"user:{want[1]}@corp.example"), wanted)
            tokens = dict(zip(wanted, issued, strict=True))
        yield Place(upstream, proxies, tokens, [], [])
    finally:
        upstream.close()
        for proxy in proxies.values():
            proxy.stop()


@pytest.fixture
def place(made: Place) -> Iterator[Place]:
    yield made
    while made.clients:
        made.clients.pop().close()
    while made.scripts:
        made.scripts.pop().end()
    made.answer(call_tool)


class Events:
    """Reads a stream event by event, with the bytes as they came."""

    def __init__(self, client: RawClient) -> None:
        self.head = client.read_head()
        self._chunks = client.chunks()
        self._held = b""

    def next(self) -> bytes:
        while (end := self._held.find(b"\n\n")) < 0:
            self._held += next(self._chunks)
        event, self._held = self._held[: end + 2], self._held[end + 2 :]
        return event

    def rest(self) -> bytes:
        return self._held + b"".join(self._chunks)


def result(rpc_id: Any, text: str = "done") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": rpc_id, "result": {"content": [{"type": "text", "text": text}]}}


def event(message: Any, extra: str = "") -> bytes:
    return f"{extra}event: message\ndata: {json.dumps(message)}\n\n".encode()


PROGRESS = {
    "jsonrpc": "2.0",
    "method": "notifications/progress",
    "params": {"progressToken": 1, "progress": 1},
}


# -- streams stream ------------------------------------------------------------------------------------


@ENTRIES
@pytest.mark.parametrize("kind", ["POST", "GET"])
def test_the_first_event_arrives_while_the_server_has_not_sent_the_second(
    place: Place, entry: str, kind: str
) -> None:
    proxy, script = place.proxies[entry], place.script()
    since, before = newest(proxy), len(place.upstream.seen)
    client = place.client(entry)
    client.send(place.post(tool("read_thing", {"name": "x"}, 5)) if kind == "POST" else place.get())
    first, second = event(PROGRESS, "id: 1\n"), event(result(5), "id: 2\n")
    script.push(first)
    events = Events(client)
    assert events.next() == first
    assert not script.gone.is_set()
    assert proxy.rows("seq > ?", since)[0]["outcome"] == "unknown"
    script.push(second)
    script.end()
    assert events.next() == second
    assert events.rest() == b""
    client.close()
    [row] = settled(proxy, since, 1)
    assert (row["verdict"], row["outcome"], row["http_status"]) == ("allow", "ok", 200)
    assert row["response_bytes"] == len(first + second)
    assert place.upstream.seen[before].header("authorization") == f"Bearer {SECRET}"


def test_the_bytes_of_a_stream_are_kept_however_they_are_cut(place: Place) -> None:
    stream = (
        b"\xef\xbb\xbf: hello\n\nretry: 100\nid: 1\ndata:\n\nid:2\r\nevent:message\r\ndata: "
        + json.dumps(PROGRESS).encode()
        + b'\r\nx-unknown: y\r\n\r\nid: 3\ndata: {"jsonrpc":"2.0",\ndata: "id": 5,\n'
        + b'data: "result": {"content": []}}\n\n:ping\n\nid: 4\revent: other\rdata: \xc3\xa9\r\r\n'
    )
    for size in (1, 7, 64, len(stream)):
        script = place.script()
        since = newest(place.proxies["run"])
        for at in range(0, len(stream), size):
            script.push(stream[at : at + size])
        script.end()
        client = place.client()
        client.send(place.post(tool("read_thing", rpc_id=5)))
        answer = client.read()
        client.close()
        assert answer is not None
        assert answer.body == stream
        [row] = settled(place.proxies["run"], since, 1)
        assert row["outcome"] == "ok"


def test_a_list_is_filtered_in_its_event_and_its_neighbours_are_left_alone(place: Place) -> None:
    proxy, script = place.proxies["run"], place.script()
    since = newest(proxy)
    tools = [{"name": n, "inputSchema": {"type": "object"}} for n in ("drop_thing", "read_thing", "query")]
    listed = {"jsonrpc": "2.0", "id": "l", "result": {"tools": tools, "nextCursor": "more"}}
    hidden = {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "thing://x"}}
    client = place.client()
    client.send(place.post(rpc("tools/list", rpc_id="l")))
    script.push(event(PROGRESS, "id: 1\n") + event(hidden, "id: 2\n") + event(listed, "id: 3\n"))
    events = Events(client)
    assert events.next() == event(PROGRESS, "id: 1\n")
    changed = events.next()
    assert changed.startswith(b"id: 3\nevent: message\n")
    got = json.loads(changed.split(b"data: ")[1])
    assert (got["id"], got["result"]["nextCursor"]) == ("l", "more")
    assert [entry["name"] for entry in got["result"]["tools"]] == ["read_thing", "query"]
    script.push(b": ping\n\n")
    assert events.next() == b": ping\n\n"
    script.end()
    assert events.rest() == b""
    client.close()
    [row] = settled(proxy, since, 1)
    assert (row["method"], row["verdict"], row["outcome"]) == ("tools/list", "allow", "ok")


def test_a_filtered_list_in_a_stream_is_nobody_elses(place: Place) -> None:
    script = place.script(headers=[*EVENTS, ("etag", "shared"), ("cache-control", "public, max-age=600")])
    script.end()
    client = place.client()
    client.send(place.post(rpc("tools/list")))
    answer = client.read()
    client.close()
    assert answer is not None
    assert answer.headers.get("cache-control") == "no-store"
    assert "etag" not in answer.headers


# -- ends ----------------------------------------------------------------------------------------------


@ENTRIES
def test_a_server_that_dies_in_the_middle_is_an_error_and_no_success(place: Place, entry: str) -> None:
    proxy, script = place.proxies[entry], place.script(close=True)
    since = newest(proxy)
    client = place.client(entry)
    client.send(place.post(tool("read_thing", rpc_id=5)))
    script.push(event(PROGRESS))
    events = Events(client)
    assert events.next() == event(PROGRESS)
    script.push(b"event: message\ndata: half of an ev")
    script.end()
    with pytest.raises(ConnectionError):
        events.rest()
    client.close()
    [row] = settled(proxy, since, 1)
    assert (row["verdict"], row["outcome"]) == ("allow", "upstream_gone")


def test_a_server_that_dies_before_it_answers_is_a_json_rpc_error_with_the_id(place: Place) -> None:
    def hang_up(_: Seen) -> Reply:
        raise OSError

    proxy = place.proxies["run"]
    since = newest(proxy)
    place.answer(hang_up)
    client = place.client()
    client.send(place.post(tool("read_thing", rpc_id="five")))
    answer = client.read()
    client.close()
    [row] = settled(proxy, since, 1)
    assert (row["verdict"], row["outcome"]) == ("allow", "upstream_gone")
    assert answer is not None
    assert answer.status == 502
    assert answer.json["id"] == "five"


@ENTRIES
def test_a_client_that_leaves_is_an_outcome_and_the_server_is_let_go(place: Place, entry: str) -> None:
    proxy, script = place.proxies[entry], place.script()
    since = newest(proxy)
    client = place.client(entry)
    client.send(place.post(tool("read_thing", rpc_id=5)))
    script.push(event(PROGRESS))
    assert Events(client).next() == event(PROGRESS)
    client.close()
    [row] = settled(proxy, since, 1)
    assert (row["verdict"], row["outcome"]) == ("allow", "client_gone")
    wait_for(script.notices_the_end, "the connection to the server is closed")


@pytest.mark.parametrize(
    ("entry", "how", "reason"),
    [
        ("run", "revoke", "token_revoked"),
        ("mitmdump", "revoke", "token_revoked"),
        ("run", "block", "principal_blocked"),
    ],
)
def test_who_is_revoked_or_blocked_loses_the_open_stream_and_nobody_else_does(
    place: Place, entry: str, how: str, reason: str
) -> None:
    proxy = place.proxies[entry]
    since = newest(proxy)
    token = proxy.issue("user:bob@corp.example") if how == "revoke" else place.tokens[entry, "bob"]
    opened: dict[str, tuple[RawClient, Script, Events]] = {}
    for who in ("alice", "bob"):
        script = place.script()
        client = place.client(entry, who, token if who == "bob" else None)
        client.send(place.post(tool("read_thing", {"name": who}, 5)))
        script.push(event(PROGRESS))
        opened[who] = client, script, Events(client)
        assert opened[who][2].next() == event(PROGRESS)
    bobs = proxy.rows("seq > ? and principal = 'user:bob@corp.example'", since)[0]
    whom = bobs["credential_id"] if how == "revoke" else "user:bob@corp.example"
    proxy.command(how, whom)
    try:
        client, script, events = opened["bob"]
        with pytest.raises(ConnectionError):
            events.rest()
        client.close()
        [row] = settled(proxy, since, 1, "principal = 'user:bob@corp.example'")
        assert (row["verdict"], row["outcome"], row["detail"]) == ("allow", "cut", reason)
        wait_for(script.notices_the_end, "the connection to the server is closed")
        before = len(place.upstream.seen)
        client = place.client(entry, "bob", token)
        client.send(place.post(tool("read_thing", {"name": "again"}, 6)))
        answer = client.read()
        client.close()
        assert answer is not None
        assert reason in answer.text
        assert len(place.upstream.seen) == before
    finally:
        if how == "block":
            proxy.command("unblock", whom)
    client, script, events = opened["alice"]
    script.push(event(result(5)))
    script.end()
    assert events.rest() == event(result(5))
    client.close()
    [row] = settled(proxy, since, 1, "principal = 'user:alice@corp.example'")
    assert row["outcome"] == "ok"


# -- the secret ----------------------------------------------------------------------------------------


def json_escaped(text: str) -> str:
    return "".join(f"\\u{ord(c):04x}" for c in text)


FORMS: dict[str, str] = {
    "raw": SECRET,
    "as the whole header": f"Bearer {SECRET}",
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 of the header": base64.b64encode(f"Bearer {SECRET}".encode()).decode(),
    "base64url without padding": base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
    "percent-encoded": quote(SECRET, safe=""),
    "percent-encoded in full": "".join(f"%{ord(c):02x}" for c in SECRET),
    "hexadecimal": SECRET.encode().hex(),
}
TELLTALES = [form[len(form) // 2 - 8 : len(form) // 2 + 8].encode() for form in FORMS.values()]


def clean(raw: bytes) -> None:
    """No form of the secret is in these bytes, nor in what JSON makes of them."""
    for telltale in (*TELLTALES, json_escaped(SECRET)[48:96].encode()):
        assert telltale not in raw
        assert telltale.decode() not in html.unescape(raw.decode("latin-1")).replace("\\", "")
    for line in raw.splitlines():
        try:
            value = json.loads(line.removeprefix(b"data: "))
        except ValueError:
            continue
        assert SECRET[8:24] not in json.dumps(value, ensure_ascii=False)
        assert SECRET not in str(value)


def whole(client: RawClient) -> tuple[bytes, Any]:
    """All bytes of one answer, head included, and the answer."""
    head = client.read_head()
    if "chunked" in head.headers.get("transfer-encoding", ""):
        body = b"".join(client.chunks())
    else:
        body = client.stream.read(int(head.headers["content-length"]))
    raw = "\n".join(f"{k}: {v}" for k, v in head.headers.items()).encode() + b"\n" + body
    return raw, head


def bodies(form: str) -> dict[str, bytes]:
    """A JSON body that holds the form, as JSON writers write it."""
    message = result(5, f"before {form} after")
    plain = json.dumps(message)
    holder = json.dumps(form)[1:-1]
    return {
        "plain": plain.encode(),
        "slashes escaped": plain.replace("/", "\\/").encode(),
        "escaped in full": plain.replace(holder, json_escaped(form)).encode(),
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("carrier", ["json", "events", "text"])
def test_a_secret_that_the_server_echoes_does_not_reach_the_client(
    place: Place, form: str, carrier: str
) -> None:
    for body in bodies(FORMS[form]).values():
        if carrier == "json":
            reply = Reply(200, [("content-type", "application/json")], body)
        elif carrier == "text":
            reply = Reply(500, [("content-type", "text/plain")], FORMS[form].encode())
        else:
            reply = Reply(200, EVENTS, chunks=iter([b"data: " + body[:60], body[60:] + b"\n\n"]))
        place.answer(lambda _, reply=reply: reply)
        client = place.client()
        client.send(place.post(tool("read_thing", rpc_id=5)))
        raw, head = whole(client)
        client.close()
        clean(raw)
        assert head.status == reply.status
        if carrier != "text":
            [data] = [line for line in raw.splitlines() if b"jsonrpc" in line]
            text = json.loads(data.removeprefix(b"data: "))["result"]["content"][0]["text"]
            assert text.startswith("before ")
            assert text.endswith(" after")
            assert "[callerid:removed]" in text
    for proxy in place.proxies.values():
        for path in proxy.home.glob("audit.db*"):
            clean(path.read_bytes())
        clean("\n".join(proxy.output).encode())


@ENTRIES
@pytest.mark.parametrize("form", [form for form in FORMS if form != "raw"] + ["raw"])
def test_a_secret_in_a_header_does_not_reach_the_client(place: Place, entry: str, form: str) -> None:
    headers = [
        ("content-type", "application/json"),
        ("x-echo", FORMS[form]),
        ("location", f"https://localhost/?k={FORMS[form]}"),
        ("x-kept", "honest"),
    ]
    place.answer(lambda _: Reply(200, headers, json.dumps(result(5)).encode()))
    client = place.client(entry)
    client.send(place.post(tool("read_thing", rpc_id=5)))
    raw, head = whole(client)
    client.close()
    clean(raw)
    assert head.headers["x-kept"] == "honest"


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 X\r\n%b x: 1\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 X\r\ncontent-length: %b\r\n\r\n",
        b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n%b\r\n",
        b"%b\r\n\r\n",
    ],
    ids=["a header name", "a length", "a chunk's length", "a status line"],
)
def test_a_secret_in_an_answer_that_is_not_http_does_not_reach_the_client(place: Place, raw: bytes) -> None:
    proxy = place.proxies["run"]
    since = newest(proxy)
    answer = Reply(raw=raw % SECRET.encode())
    place.answer(lambda _: answer)
    client = place.client()
    client.send(place.post(tool("read_thing", rpc_id=5)))
    heard = client.stream.read()
    client.close()
    clean(heard)
    assert b" 502 " in heard.splitlines()[0]
    [row] = settled(proxy, since, 1)
    assert row["outcome"] == "upstream_gone"
    clean(json.dumps(row).encode())
    clean("\n".join(proxy.output).encode())


# -- answers that are refused --------------------------------------------------------------------------


def refused(place: Place, rpc_id: Any) -> tuple[Any, dict[str, Any]]:
    """Call, and return what the client got and the row."""
    proxy = place.proxies["run"]
    since = newest(proxy)
    client = place.client()
    client.send(place.post(tool("read_thing", rpc_id=rpc_id)))
    answer = client.read()
    client.close()
    assert answer is not None
    [row] = settled(proxy, since, 1)
    return answer, row


@pytest.mark.parametrize("rpc_id", [0, "0", "x"])
@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("kind", ["text/plain", "text/event-stream"])
def test_a_server_that_refuses_the_shared_credential_starts_no_login(
    place: Place, status: int, kind: str, rpc_id: Any
) -> None:
    challenge = 'Bearer resource_metadata="https://localhost/.well-known/oauth-protected-resource"'
    headers = [("www-authenticate", challenge), ("content-type", kind)]
    place.answer(lambda _: Reply(status, headers, b"who are you?"))
    answer, row = refused(place, rpc_id)
    assert (answer.status, answer.json["id"]) == (502, rpc_id)
    assert type(answer.json["id"]) is type(rpc_id)
    assert answer.json["error"]["data"] == {
        "outcome": "upstream_refused_credential",
        "decision": row["event_id"],
    }
    assert "www-authenticate" not in answer.headers
    assert b"who are you" not in answer.body
    assert (row["verdict"], row["outcome"], row["http_status"]) == (
        "allow", "upstream_refused_credential", status,
    )  # fmt: skip


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip"])
def test_a_compressed_answer_cannot_be_inspected_and_is_not_given_out(place: Place, coding: str) -> None:
    body = gzip.compress(json.dumps(result(5, SECRET)).encode())
    headers = [("content-type", "application/json"), ("content-encoding", coding)]
    place.answer(lambda _: Reply(200, headers, body))
    before = len(place.upstream.seen)
    answer, row = refused(place, 5)
    assert (answer.status, answer.json["id"]) == (502, 5)
    assert "content-encoding" not in answer.headers
    assert body not in answer.body
    assert (row["verdict"], row["outcome"]) == ("allow", "response_refused")
    assert place.upstream.seen[before].header("accept-encoding") == "identity"


@pytest.mark.parametrize(
    ("status", "headers", "outcome"),
    [
        (200, [*EVENTS, ("content-encoding", "gzip")], "response_refused"),
        (401, EVENTS, "upstream_refused_credential"),
    ],
    ids=["compressed", "credential refused"],
)
def test_a_refused_stream_does_not_keep_the_caller_waiting_for_its_end(
    place: Place, status: int, headers: list[tuple[str, str]], outcome: str
) -> None:
    script = place.script(headers=headers)
    place.answer(lambda _: Reply(status, headers, chunks=script.chunks()))
    proxy = place.proxies["run"]
    since = newest(proxy)
    client = place.client()
    client.sock.settimeout(DEADLINE / 5)
    client.send(place.post(tool("read_thing", rpc_id=5)))
    script.push(b"nothing to read")
    answer = client.read()
    client.close()
    assert answer is not None
    assert (answer.status, answer.json["id"]) == (502, 5)
    [row] = settled(proxy, since, 1)
    assert row["outcome"] == outcome
    wait_for(script.notices_the_end, "the connection to the server is closed")
