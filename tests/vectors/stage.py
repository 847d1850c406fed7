"""The real proxy between a client that sends cases and upstreams that record every byte.

One proxy with a way in of each kind, and one more that speaks HTTP/2; two listed servers (one with TLS, one
in the clear) and two that nobody listed. A case is played alone: what it leaves is told by row number and by
connection.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e import harness as h
from tests.e2e.warm import Warm
from tests.vectors.connection import Request, complete
from tests.vectors.corpus import Case, Reply, Way, put_in
from tests.vectors.http1 import Client, Got, request
from tests.vectors.http2 import Client2
from tests.vectors.oracle import Allowed, canonical

PATIENCE = 10.0
"""Seconds for rows that nobody waits for (a head that could not be read); a failure, not a measurement."""


@dataclass(slots=True, eq=False)
class Stream:
    """One connection as it arrived."""

    raw: bytearray = field(default_factory=bytearray)
    requests: list[Request] = field(default_factory=list)


class Recorder(h.Upstream):
    """Keeps what arrives, byte for byte; answers as told, or as a tool server does."""

    def __init__(self, context: Any) -> None:
        self.streams: list[Stream] = []
        self.script: list[bytes | list[bytes]] = []
        super().__init__(context)

    def _serve(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
        except OSError:
            sock.close()
            return
        self._open.add(sock)
        stream = Stream()
        self.streams.append(stream)
        try:
            self._record(sock, stream)
        except OSError:
            return
        finally:
            self._open.discard(sock)
            sock.close()

    def _record(self, sock: socket.socket, stream: Stream) -> None:
        at = 0
        while data := sock.recv(65536):
            stream.raw += data
            while (found := complete(bytes(stream.raw), at)) is not None:
                seen, at = found
                stream.requests.append(seen)
                if not self._reply(sock, seen):
                    return

    def _reply(self, sock: socket.socket, seen: Request) -> bool:
        """Whether the connection stays open. In a script an empty part closes it."""
        if not self.script:
            asked = h.Seen(seen.method, seen.target, list(seen.headers), seen.body, b"")
            return h.send_reply(sock, asked, self.answer(asked))
        for part in self.script.pop(0):
            if not part:
                return False
            sock.sendall(part)
        return True


def scripted(reply: Reply, names: dict[str, str]) -> list[bytes]:
    """What a lying upstream writes, part by part."""
    if reply.raw is not None:
        return [reply.raw.made(names), b""]
    parts = [part.made(names) for part in reply.parts]
    lines = [f"HTTP/1.1 {reply.status} X", *(put_in(line, names) for line in reply.headers)]
    match reply.framing:
        case "length":
            lines.append(f"Content-Length: {sum(map(len, parts))}")
        case "chunked":
            lines.append("Transfer-Encoding: chunked")
            parts = [*(b"%x\r\n%s\r\n" % (len(part), part) for part in parts), b"0\r\n\r\n"]
        case "close":
            parts.append(b"")
    return ["\r\n".join(lines).encode("latin-1") + b"\r\n\r\n", *parts]


@dataclass(slots=True)
class Played:
    """What one case left."""

    answers: list[Got | None]
    rows: list[dict[str, Any]]
    streams: list[Stream]

    @property
    def allowed(self) -> list[Allowed]:
        return [
            Allowed(
                row["method"],
                row["tool"] if row["tool"] is not None else row["target"],
                canonical(json.loads(row["arguments"] or "{}")),
            )
            for row in self.rows
            if row["verdict"] == "allow"
        ]


class Stage:
    """Everything that a case needs. ``place`` and ``opened`` know the ways in."""

    def __init__(self, folder: Path, pki: h.Pki, warm: Warm) -> None:
        self.listed, self.wild = Recorder(pki.server_context()), Recorder(pki.server_context())
        self.lab, self.wild_lab = Recorder(None), Recorder(None)
        self.recorders = (self.listed, self.lab, self.wild, self.wild_lab)
        extra = f"  - {{id: lab, url: 'http://localhost:{self.lab.port}/mcp'}}\n"
        changes = {
            "servers.yaml": h.servers(self.listed.port, extra=extra),
            "policy.yaml": h.POLICY_ANYWHERE,
        }
        rules = h.standard_rules(self.listed.port, **changes)
        reverse = f"reverse:https://localhost:{self.listed.port}@127.0.0.1:{h.free_port()}"
        options = {"ca": pki.ca, "environ": {"THINGS_SECRET": h.SECRET}}
        self.proxy = h.WarmProxy(warm, folder / "h1", rules, modes=("regular", reverse), **options)
        self.proxy2 = h.WarmProxy(
            warm, folder / "h2", rules, extra=("--set", "http2=true"), **options
        )  # fmt: skip
        self.seq = {self.proxy: 0, self.proxy2: 0}
        self.excused: list[Stream] = []
        self.contexts: dict[h.Proxy, ssl.SSLContext] = {}
        self.people: dict[h.Proxy, dict[str, str]] = {}

    def mint(self) -> None:
        for proxy in self.seq:
            whom = ("alice", "bob", "ivy")
            self.people[proxy] = {name: h.mint(proxy, f"user:{name}@corp.example") for name in whom}

    def by(self, way: Way) -> h.Proxy:
        return self.proxy2 if way == "h2" else self.proxy

    def place(self, case: Case, way: Way) -> str:
        clear = way in ("connect_plain", "absolute")
        if case.to == "unlisted":
            return f"localhost:{(self.wild_lab if clear else self.wild).port}"
        return f"localhost:{(self.lab if clear else self.listed).port}"

    def names(self, case: Case, way: Way) -> dict[str, str]:
        return {
            "place": self.place(case, way),
            "listed": f"localhost:{self.listed.port}",
            "listed-port": str(self.listed.port),
            "lab": f"localhost:{self.lab.port}",
            "evil": f"127.0.0.1:{self.wild.port}",
            "evil-lab": f"127.0.0.1:{self.wild_lab.port}",
            "secret": h.SECRET,
            "way": way,
            "own": f"{case.id}-{way}",
            "token-tail": self.people[self.by(way)]["alice"][1:],
            "token": self.people[self.by(way)]["alice"],
            **self.people[self.by(way)],
        }

    def play(self, case: Case, way: Way) -> Played:
        """Send the steps of a case; wait for the rows that it must leave."""
        proxy, names = self.by(way), self.names(case, way)
        marks = [len(recorder.streams) for recorder in self.recorders]
        script = [scripted(reply, names) for reply in case.server]
        for recorder in self.recorders:
            recorder.script = list(script)
        answers = self._sent(case, way, names)
        wanted = len(case.expected_rows(way))
        rows = self._rows(proxy, case, min(wanted, 1) if case.pending else wanted)
        self.seq[proxy] = max([self.seq[proxy], *(row["seq"] for row in rows)])
        streams = [
            stream
            for recorder, mark in zip(self.recorders, marks, strict=True)
            for stream in recorder.streams[mark:]
        ]
        return Played(answers, rows, streams)

    def _sent(self, case: Case, way: Way, names: dict[str, str]) -> list[Got | None]:
        """The answers to all steps. Steps that go on without theirs get it when somebody reads."""
        clients: dict[str, Client | Client2] = {}
        answers: list[Got | None] = [None] * len(case.steps)
        owed: list[int] = []
        try:
            for number, step in enumerate(case.steps):
                if step.on not in clients:
                    clients[step.on] = self._opened(case, way, names)
                client = clients[step.on]
                if isinstance(client, Client2):
                    answers[number] = client.ask(step, names, verbatim=case.ways == ("h2",))
                    continue
                client.send(request(step, way, names))
                owed.append(number)
                if step.then == "hang up":
                    client.hang_up()
                while owed and step.then != "go on":
                    answers[owed.pop(0)] = client.read()
        finally:
            for client in clients.values():
                client.close()
        return answers

    def _rows(self, proxy: h.Proxy, case: Case, count: int) -> list[dict[str, Any]]:
        """The rows since the last case, once there are ``count``; too few are for the comparison to tell."""
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            found[:] = proxy.rows("seq > ?", self.seq[proxy])
            return len(found) >= count

        with suppress(AssertionError):
            h.wait_for(enough, f"{count} rows", 0.2 if case.fails else PATIENCE)
        return found

    def _opened(self, case: Case, way: Way, names: dict[str, str]) -> Client | Client2:
        connect, proxy = case.connect, self.by(way)
        if way in ("absolute", "reverse"):
            return Client(proxy.plain(proxy.ports[way == "reverse"]).sock)
        authority = put_in(connect.to, names) if connect.to else names["place"]
        lines = dict(put_in(line, names).split(": ", 1) for line in connect.headers)
        context = self._trust(proxy) if connect.sni is None else proxy.trust()
        sni = put_in(connect.sni, names) if connect.sni else None
        inner = proxy.tunnel(
            authority, headers=lines, sni=sni, context=context, tls=way != "connect_plain"
        )  # fmt: skip
        return Client2(inner.sock) if way == "h2" else Client(inner.sock)

    def _trust(self, proxy: h.Proxy) -> ssl.SSLContext:
        """One context for each proxy: reading its CA takes longer than a handshake."""
        if proxy not in self.contexts:
            self.contexts[proxy] = proxy.trust()
            if proxy is self.proxy2:
                self.contexts[proxy].set_alpn_protocols(["h2"])
        return self.contexts[proxy]


def shown(row: dict[str, Any]) -> str:
    """A row as a case states it."""
    tool = "" if row["tool"] is None else f" {row['tool']}"
    return f"{row['verdict']} {row['reason']} {row['method']}{tool}"


@contextmanager
def open_stage(folder: Path, pki: h.Pki, warm: Warm) -> Iterator[Stage]:
    """The stage, while it lasts."""
    stage = Stage(folder, pki, warm)
    with h.running(stage.proxy), h.running(stage.proxy2):
        stage.mint()
        yield stage
    for recorder in stage.recorders:
        recorder.close()
