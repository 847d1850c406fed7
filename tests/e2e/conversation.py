"""A server that holds conversations, and agents that take part in them message by message, in raw HTTP.

The server plays what a test planned: answers at once, streams in the test's hand, sessions of its own. All
runs over a real proxy process; a ``Scene`` is one such proxy with its server, for the tests of a module.
"""

from __future__ import annotations

import json
import queue
import socket
import sqlite3
import struct
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e import harness as h
from tests.e2e.warm import Warm

OLD, LATEST, MODERN = "2024-11-05", "2025-11-25", "2026-07-28"
EVENTS = [("content-type", "text/event-stream")]
MESSAGES = "/mcp/messages?session_id="
"""Where a 2024-11-05 stream of the server announces that messages go; an id of its own follows."""

PEOPLE = {"alice": "user:alice@corp.example", "bob": "user:bob@corp.example", "ivy": "user:ivy@corp.example"}

POLICY = """version: 1
mode: enforce
unknown_server: deny
rules:
  - id: eng-things
    effect: allow
    who: ["group:engineering"]
    tools: ["*", "resource:thing://*", "prompt:*", "method:tasks/list"]
  - id: interns-read
    effect: allow
    who: ["group:interns"]
    tools: [read_thing]
  - id: no-drops
    effect: deny
    tools: ["drop_*"]
  - id: query-ceiling
    effect: require
    tools: [query]
    args:
      limit: {type: number, le: 100}
  - id: no-secrets
    effect: deny
    tools: ["resource:thing://secret/*"]
  - id: ask-forms
    effect: allow
    who: ["group:engineering"]
    tools: ["method:elicitation/create"]
    args:
      mode: {eq: form}
  - id: ask-at-login
    effect: allow
    who: ["group:engineering"]
    tools: ["method:elicitation/create"]
    args:
      mode: {eq: url}
      url_host: {eq: login.corp.example}
  - id: ask-roots
    effect: allow
    who: ["group:engineering"]
    tools: ["method:roots/list"]
  - id: ask-small-samples
    effect: allow
    who: ["group:engineering"]
    tools: ["method:sampling/createMessage"]
    args:
      maxTokens: {type: number, le: 1000}
  - id: no-passwords-out
    effect: deny
    tools: ["method:elicitation/create"]
    args:
      /answer/content/password: {glob: "*", optional: true}
    reason: Passwords are typed at the server itself.
"""


# -- messages ------------------------------------------------------------------------------------------


def event(message: Any, event_id: str | None = None) -> bytes:
    """An event as servers write it."""
    head = b"" if event_id is None else b"id: " + event_id.encode() + b"\n"
    return head + b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n"


def result(rpc_id: Any, **members: Any) -> dict[str, Any]:
    """A result; that of a tool if no members are given."""
    return {"jsonrpc": "2.0", "id": rpc_id, "result": members or tool_result("done")}


def error(rpc_id: Any, code: int, **data: Any) -> dict[str, Any]:
    """An error, with data if any is given."""
    return {"jsonrpc": "2.0", "id": rpc_id, "error": {"code": code, "message": "no"} | data}


def request(method: str, params: Any = None, rpc_id: Any = "q1") -> dict[str, Any]:
    """A request, as either side may send it."""
    made: dict[str, Any] = {"jsonrpc": "2.0", "id": rpc_id, "method": method}
    return made if params is None else {**made, "params": params}


def notification(method: str, **params: Any) -> dict[str, Any]:
    """A notification."""
    return {"jsonrpc": "2.0", "method": method, "params": params}


def tool_result(text: str, **more: Any) -> dict[str, Any]:
    """What a tool gives."""
    return {"content": [{"type": "text", "text": text}], **more}


def data_of(raw: bytes) -> Any:
    """The message in an event."""
    return json.loads(b"\n".join(line[6:] for line in raw.splitlines() if line.startswith(b"data: ")))


# -- the server ----------------------------------------------------------------------------------------


class Script:
    """A stream of the server in the test's hand."""

    def __init__(self, cut: Callable[[], None]) -> None:
        self._chunks: queue.Queue[bytes | Callable[[], None] | None] = queue.Queue()
        self._cut = cut

    def push(self, *chunks: bytes) -> bytes:
        """Send; what was sent is given back."""
        for chunk in chunks:
            self._chunks.put(chunk)
        return b"".join(chunks)

    def end(self) -> None:
        """End the stream as HTTP has it."""
        self._chunks.put(None)

    def reset(self) -> None:
        """End it by a TCP reset."""
        self._chunks.put(self._cut)

    def chunks(self) -> Iterator[bytes]:
        """For the server's answer."""
        while (data := self._chunks.get()) is not None:
            if callable(data):
                data()
                raise ConnectionError("reset")
            yield data


class Play:
    """What the server does. What is not planned is answered at once, by its own ``call_tool``."""

    def __init__(self, upstream: h.Upstream) -> None:
        self._upstream = upstream
        self._plans: dict[str, deque[Callable[[h.Seen], h.Reply]]] = defaultdict(deque)
        self.scripts: list[Script] = []
        upstream.answer = self

    def plan(self, method: str, *replies: h.Reply | Callable[[h.Seen], h.Reply]) -> None:
        """Answer the next requests of this method so; ``http/GET`` is a method too, as is ``response``."""
        for reply in replies:
            self._plans[method].append(
                reply if callable(reply) else lambda _, reply=reply: reply  # type: ignore[misc]
            )

    def result(self, method: str, *results: Mapping[str, Any], events: bool = False, **heads: str) -> None:
        """Answer the next requests of this method with these results, in JSON or as an event."""

        def make(members: Mapping[str, Any]) -> Callable[[h.Seen], h.Reply]:
            return lambda seen: _reply(result(seen.message["id"], **members), events, heads)

        self.plan(method, *(make(members) for members in results))

    def error(self, method: str, code: int, *, events: bool = False, **data: Any) -> None:
        """Answer the next request of this method with an error."""
        self.plan(method, lambda seen: _reply(error(seen.message["id"], code, **data), events, {}))

    def stream(self, method: str, headers: Mapping[str, str] | None = None) -> Script:
        """Answer the next request of this method with a stream."""
        script = Script(self._linger)
        self.scripts.append(script)
        heads = [*EVENTS, *(headers or {}).items()]
        self.plan(method, lambda _: h.Reply(200, heads, chunks=script.chunks()))
        return script

    def forget(self) -> None:
        """Back to the beginning."""
        self._plans.clear()
        while self.scripts:
            self.scripts.pop().end()

    def _linger(self) -> None:
        for sock in list(self._upstream._open):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def __call__(self, seen: h.Seen) -> h.Reply:
        name = _name_of(seen)
        if self._plans[name]:
            return self._plans[name].popleft()(seen)
        if name == "initialize" and not seen.path.startswith(MESSAGES):
            made = h.call_tool(seen)
            made.headers.append(("Mcp-Session-Id", uuid.uuid4().hex))
            return made
        if name == "response" or seen.path.startswith(MESSAGES):
            return h.Reply(202)
        if name.startswith("http/"):
            return h.Reply(405 if name == "http/GET" else 200)
        return h.call_tool(seen)


def _name_of(seen: h.Seen) -> str:
    if not seen.body:
        return f"http/{seen.method}"
    first = seen.message[0] if isinstance(seen.message, list) else seen.message
    return str(first.get("method", "response"))


def _reply(message: Any, events: bool, heads: Mapping[str, str]) -> h.Reply:
    if not events:
        return h.json_reply(message, headers=heads)
    return h.Reply(200, [*EVENTS, *heads.items()], chunks=iter([event(message)]))


# -- the agents ----------------------------------------------------------------------------------------


class Events:
    """A stream as its client reads it, event by event, with the bytes as they came."""

    def __init__(self, client: h.RawClient) -> None:
        self.client = client
        self.head = client.read_head()
        self._chunks = client.chunks()
        self._held = b""

    def next(self) -> bytes:
        """The next event. Raises ConnectionError where the stream is cut, StopIteration at its end."""
        while (end := self._held.find(b"\n\n")) < 0:
            self._held += next(self._chunks)
        made, self._held = self._held[: end + 2], self._held[end + 2 :]
        return made

    def message(self) -> Any:
        """The message in the next event."""
        return data_of(self.next())

    def rest(self) -> bytes:
        """All that comes until the end."""
        return self._held + b"".join(self._chunks)


@dataclass
class Agent:
    """A client of one person, speaking one revision: what it says goes out as it is."""

    scene: Scene
    who: str | None
    revision: str = LATEST
    session: str | None = None
    path: str = "/mcp"
    kept: h.RawClient | None = None

    def connect(self) -> h.RawClient:
        """A tunnel of its own, with its evidence at CONNECT."""
        given = {"Proxy-Authorization": h.basic(self.who, self.scene.tokens[self.who])} if self.who else {}
        made = self.scene.proxy.tunnel(self.scene.authority, headers=given)
        self.scene.clients.append(made)
        return made

    def heads(self, said: Any) -> dict[str, str]:
        """The headers that its revision has with this body."""
        made = {"Mcp-Session-Id": self.session} if self.session else {}
        method = said.get("method") if isinstance(said, dict) else None
        if self.revision != OLD and method != "initialize":
            made["MCP-Protocol-Version"] = self.revision
        if self.revision == MODERN and method is not None:
            made["Mcp-Method"] = method
            params = said.get("params", {})
            name = params.get("taskId") or params.get("name") or params.get("uri")
            made |= {"Mcp-Name": name} if name else {}
        return made

    def ask(self, method: str, params: Any = None, rpc_id: Any = 5) -> dict[str, Any]:
        """A request of its revision."""
        if self.revision == MODERN:
            meta = {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
            }
            params = {**(params or {}), "_meta": meta}
        return request(method, params, rpc_id)

    def call(self, name: str = "read_thing", rpc_id: Any = 5, **more: Any) -> dict[str, Any]:
        """A tools/call; ``more`` stands beside name and arguments."""
        return self.ask("tools/call", {"name": name, "arguments": {"name": "x"}, **more}, rpc_id)

    def raw(self, said: Any, extra: Mapping[str, str], verb: str = "POST") -> bytes:
        """A request as it goes on the wire."""
        heads = {**self.heads(said), **extra}
        if verb == "POST":
            body = said if isinstance(said, bytes) else json.dumps(said).encode()
            return h.post(self.scene.authority, self.path, body, heads)
        lines = {"Host": self.scene.authority, "Accept": "text/event-stream", **heads}
        return f"{verb} {self.path} HTTP/1.1\r\n{h_lines(lines)}\r\n".encode()

    def send(self, said: Any, extra: Mapping[str, str] | None = None, verb: str = "POST") -> h.Answer:
        """One exchange to its end, on a connection that is kept."""
        client = self.kept or self.connect()
        client.send(self.raw(said, extra or {}, verb))
        answer = client.read()
        assert answer is not None
        self.kept = client if answer.headers.get("connection") != "close" else None
        return answer

    def open(self, said: Any = None, extra: Mapping[str, str] | None = None) -> Events:
        """An exchange that is a stream, on a connection of its own: a POST, or a GET if nothing is said."""
        client = self.connect()
        client.send(self.raw(said, extra or {}, "GET" if said is None else "POST"))
        return Events(client)

    def initialize(self) -> Agent:
        """Open a session; the agent is given back."""
        hello = {"protocolVersion": self.revision, "capabilities": {}, "clientInfo": {"name": "raw"}}
        answer = self.send(request("initialize", hello, 0))
        assert answer.status == 200, answer
        self.session = answer.headers["mcp-session-id"]
        return self


def h_lines(fields: Mapping[str, str]) -> str:
    """Header lines."""
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items())


# -- all of it -----------------------------------------------------------------------------------------


@dataclass
class Scene:
    """A proxy, the server behind it, and what was seen and recorded since the test began."""

    proxy: h.WarmProxy
    upstream: h.Upstream
    play: Play
    tokens: dict[str, str] = field(default_factory=dict)
    clients: list[h.RawClient] = field(default_factory=list)
    agents: list[Agent] = field(default_factory=list)
    since: int = 0
    mark: int = 0

    @property
    def authority(self) -> str:
        return f"localhost:{self.upstream.port}"

    def agent(self, who: str | None = "alice", revision: str = LATEST) -> Agent:
        """An agent without a session."""
        made = Agent(self, who, revision)
        self.agents.append(made)
        return made

    def opened(self, who: str = "alice", revision: str = LATEST) -> Agent:
        """An agent with a session of its own; what follows is looked at from here on."""
        made = self.agent(who, revision).initialize()
        self.look()
        return made

    def look(self) -> None:
        """Rows and requests from here on, once all before have their outcome."""
        h.wait_for(lambda: not self.rows("outcome = 'unknown'"), "outcomes of what was before")
        self.begin()

    def begin(self) -> None:
        """Rows and requests from here on."""
        rows = self.proxy.rows("seq = (select max(seq) from calls)")
        self.since, self.mark = (int(rows[0]["seq"]) if rows else 0), len(self.upstream.seen)

    @property
    def seen(self) -> list[h.Seen]:
        """What arrived at the server."""
        return self.upstream.seen[self.mark :]

    @property
    def posted(self) -> list[Any]:
        """What the server was told."""
        return [seen.message for seen in self.seen if seen.method == "POST"]

    def rows(self, where: str = "1") -> list[dict[str, Any]]:
        """The rows, as they are now."""
        return self.proxy.rows(f"seq > ? and ({where})", self.since)

    def settled(self, count: int, where: str = "1") -> list[dict[str, Any]]:
        """The rows once there are so many, all with their outcome."""
        return h.settled(self.proxy, self.since, count, where)

    def told(self, where: str = "1") -> list[tuple[Any, ...]]:
        """Method, verdict, reason and outcome of each row, as they are now."""
        return [tuple(row[name] for name in ("method", "verdict", "reason", "outcome"))
                for row in self.rows(where)]  # fmt: skip

    def await_told(self, expected: Iterable[tuple[Any, ...]], where: str = "1") -> list[dict[str, Any]]:
        """The rows, once they tell this."""
        wanted = list(expected)
        try:
            h.wait_for(lambda: self.told(where) == wanted, "these rows", deadline=5)
        except AssertionError:
            got = "\n".join(map(str, self.told(where)))
            raise AssertionError(f"the rows are\n{got}") from None
        return self.rows(where)

    def await_rows_end(self, where: str = "1") -> None:
        """Every row has its outcome."""
        h.wait_for(lambda: not self.rows(f"outcome = 'unknown' and ({where})"), "the outcomes", deadline=3)

    def stop(self, how: int) -> None:
        """Stop the proxy, and forget the connections to it."""
        self.proxy.stop(how)
        self.drop()

    def drop(self) -> None:
        """Close all connections."""
        for agent in self.agents:
            agent.kept = None
        while self.clients:
            self.clients.pop().close()

    def clear(self) -> None:
        """After a test."""
        self.drop()
        self.agents.clear()
        self.play.forget()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """A question to the audit's file."""
        db = sqlite3.connect(f"file:{self.proxy.home / 'audit.db'}?mode=ro", uri=True, timeout=h.DEADLINE)
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()

    def reload(self, policy: str) -> None:
        """Put other rules in force."""
        count = "select count(*) from event where kind = 'reload'"
        [(before,)] = self.query(count)
        (self.proxy.rules / "policy.yaml").write_text(policy)
        h.wait_for(lambda: self.query(count)[0][0] > before, "the new rules are in force")


@contextmanager
def open_scene(folder: Path, pki: h.Pki, warm: Warm) -> Iterator[Scene]:
    """A scene of its own."""
    upstream = h.Upstream(pki.server_context())
    rules = h.standard_rules(upstream.port, **{"policy.yaml": POLICY})
    proxy = h.WarmProxy(warm, folder, rules, ca=pki.ca, environ={"THINGS_SECRET": h.SECRET})
    scene = Scene(proxy, upstream, Play(upstream))
    with h.running(proxy):
        scene.tokens = {who: h.mint(proxy, principal) for who, principal in PEOPLE.items()}
        try:
            yield scene
        finally:
            scene.clear()
    upstream.close()


def announced(scene: Scene, who: str = "alice", *, path: str | None = None) -> tuple[Agent, Script, Events]:
    """A 2024-11-05 agent with its open stream, its path that which the stream announced."""
    agent = scene.agent(who, OLD)
    script = scene.play.stream("http/GET")
    events = agent.open()
    path = path or MESSAGES + uuid.uuid4().hex
    pushed = script.push(f"event: endpoint\ndata: {path}\n\n".encode())
    assert events.next() == pushed
    agent.path = path
    return agent, script, events


@contextmanager
def small_stage(folder: Path, pki: h.Pki, warm: Warm) -> Iterator[h.Stage]:
    """As ``harness.sdk_stage``, with one proxy from the warm process and one client: sooner ready."""
    server = h.SdkServer(folder, pki)
    client = h.Partner("tests.e2e.sdk_client", environ={})
    rules = h.sdk_rules(server.port)
    proxy = h.WarmProxy(warm, folder / "run", rules, ca=pki.ca, environ={"THINGS_SECRET": h.SECRET})
    try:
        proxy.start()
        tokens = {("run", who): h.mint(proxy, principal) for who, principal in h.PEOPLE.items()}
        for partner in (server.partner, client):
            assert partner.hear() == {"ready": True}
        yield h.Stage(server, client, client, {"run": proxy}, {}, tokens)
    finally:
        for stop in (client.stop, server.stop, proxy.stop):
            stop()
