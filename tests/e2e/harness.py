"""Real parts for the end-to-end tests: a proxy process, a recording TLS upstream, raw clients.

Everything is on loopback, every wait has a deadline, every process is ended by its own id.
"""

from __future__ import annotations

import base64
import io
import json
import os
import queue
import re
import select
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from callerid.identity import tokens
from callerid.identity.registry import Registry
from tests.e2e.warm import Warm

ROOT = Path(__file__).resolve().parents[2]
SECRET = "up-secret-4f9c2a7d81e6b350"
DEADLINE = 20.0
STARTING = 60.0
"""Several processes start side by side, on two cores."""


@dataclass
class Seen:
    """One request as it arrived at the upstream, byte for byte."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    raw: bytes

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return values[0] if values else None

    @property
    def message(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """What the upstream answers. ``chunks`` are sent one by one as a chunked body.

    ``raw`` is sent in the place of all else, and then the connection is closed.
    """

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    chunks: Iterator[bytes] | None = None
    close: bool = False
    raw: bytes | None = None


def json_reply(message: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    body = json.dumps(message).encode()
    return Reply(status, [("content-type", "application/json"), *(headers or {}).items()], body)


def call_tool(seen: Seen) -> Reply:
    """The default answer: a tool result that says which tool ran, or an empty list, or 202."""
    try:
        message = json.loads(seen.body)
    except ValueError:
        return Reply(405 if seen.method != "POST" else 400)
    if isinstance(message, list):
        return json_reply([_result(m) for m in message if "id" in m])
    if "id" not in message:
        return Reply(202)
    return json_reply(_result(message))


def _result(message: dict[str, Any]) -> dict[str, Any]:
    method = message.get("method")
    if method == "tools/list":
        names = ["read_thing", "drop_thing", "query"]
        result: dict[str, Any] = {"tools": [{"name": n, "inputSchema": {"type": "object"}} for n in names]}
    elif method == "initialize":
        result = {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "recorder", "version": "1"},
        }
    elif method == "tools/call":
        name = message["params"]["name"]
        result = {"content": [{"type": "text", "text": f"ran {name}"}], "isError": False}
    else:
        result = {}
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


class Upstream:
    """A recording HTTP/1.1 server, with TLS or without, in threads of its own."""

    def __init__(self, context: ssl.SSLContext | None, answer: Callable[[Seen], Reply] = call_tool) -> None:
        self.answer = answer
        self.seen: list[Seen] = []
        self.connections = 0
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def calls(self) -> list[Seen]:
        """The requests that carried a tools/call, however they may be read."""
        return [seen for seen in self.seen if b"tools/call" in seen.body or b"tools\\/call" in seen.body]

    def close(self) -> None:
        self._listener.close()
        for sock in list(self._open):
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        self.connections += 1
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
            self._open.add(sock)
            stream = sock.makefile("rb")
            while (seen := read_request(stream)) is not None:
                self.seen.append(seen)
                if not send_reply(sock, seen, self.answer(seen)):
                    return
        except OSError:
            return
        finally:
            self._open.discard(sock)
            sock.close()


def read_request(stream: Any) -> Seen | None:
    line = stream.readline()
    if not line:
        return None
    raw = line
    method, path, _ = line.decode("latin-1").split(" ", 2)
    headers: list[tuple[str, str]] = []
    while (line := stream.readline()) not in (b"\r\n", b""):
        raw += line
        name, _, value = line.decode("latin-1").rstrip("\r\n").partition(":")
        headers.append((name, value.strip()))
    lowered = {name.lower(): value for name, value in headers}
    if "chunked" in lowered.get("transfer-encoding", ""):
        body = b""
        while size := int(stream.readline().split(b";")[0], 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    else:
        body = stream.read(int(lowered.get("content-length", "0")))
    return Seen(method, path, headers, body, raw + b"\r\n" + body)


def send_reply(sock: socket.socket, seen: Seen, reply: Reply) -> bool:
    if reply.raw is not None:
        sock.sendall(reply.raw)
        return False
    head = f"HTTP/1.1 {reply.status} X\r\n" + "".join(f"{k}: {v}\r\n" for k, v in reply.headers)
    if reply.chunks is None:
        sock.sendall(f"{head}content-length: {len(reply.body)}\r\n\r\n".encode("latin-1") + reply.body)
        return not reply.close
    sock.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode("latin-1"))
    for chunk in reply.chunks:
        sock.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    if reply.close:
        return False
    sock.sendall(b"0\r\n\r\n")
    return True


@dataclass
class Answer:
    """A response as the client got it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The text of a tool result, or of a JSON-RPC error."""
        message = self.json
        if "error" in message:
            return str(message["error"]["message"])
        return "".join(part.get("text", "") for part in message["result"]["content"])


class RawClient:
    """A socket that speaks what it is told, through the proxy or not."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(DEADLINE)
        self.sock = sock
        self.stream = sock.makefile("rb")

    def send(self, raw: bytes) -> None:
        self.sock.sendall(raw)

    def read(self) -> Answer | None:
        """The next response, or None if the peer closed."""
        line = self.stream.readline()
        if not line:
            return None
        status = int(line.split()[1])
        headers: dict[str, str] = {}
        while (line := self.stream.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        if "chunked" in headers.get("transfer-encoding", ""):
            body = b"".join(self.chunks())
        else:
            body = self.stream.read(int(headers.get("content-length", "0")))
        return Answer(status, headers, body)

    def read_head(self) -> Answer:
        """Status and headers only, for a stream."""
        line = self.stream.readline()
        if not line:
            raise ConnectionError("closed instead of answered")
        headers: dict[str, str] = {}
        while (header := self.stream.readline()) not in (b"\r\n", b""):
            name, _, value = header.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        return Answer(int(line.split()[1]), headers, b"")

    def chunks(self) -> Iterator[bytes]:
        while True:
            line = self.stream.readline()
            if not line.strip():
                raise ConnectionError("the chunked body was cut")
            size = int(line.split(b";")[0], 16)
            data = self.stream.read(size)
            self.stream.readline()
            if not size:
                return
            yield data

    def close(self) -> None:
        self.stream.close()
        self.sock.close()


def rpc(method: str, params: Any = None, rpc_id: Any = 1) -> bytes:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if rpc_id is not None:
        message["id"] = rpc_id
    if params is not None:
        message["params"] = params
    return json.dumps(message).encode()


def tool(name: str, arguments: Any = None, rpc_id: Any = 1) -> bytes:
    return rpc("tools/call", {"name": name, "arguments": arguments or {}}, rpc_id)


def post(
    host: str, path: str, body: bytes, headers: Mapping[str, str] | None = None, *, target: str | None = None
) -> bytes:
    """A POST of JSON as bytes. ``target`` replaces the request target (absolute form)."""
    fields = {
        "Host": host,
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        **(headers or {}),
        "Content-Length": str(len(body)),
    }
    head = f"POST {target or path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
    return head.encode("latin-1") + b"\r\n" + body


def basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


class Proxy:
    """One proxy process with its own home and rules. ``entry`` is ``run`` or ``mitmdump``."""

    def __init__(
        self, folder: Path, rules: Mapping[str, str], *, ca: Path, modes: tuple[str, ...] = ("regular",),
        environ: Mapping[str, str] | None = None, entry: str = "run", python: tuple[str, ...] = ("-O",),
        private: tuple[str, ...] = ("127.0.0.0/8", "::1"), sets: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.home = folder / "home"
        self.rules = folder / "rules"
        self.rules.mkdir(parents=True, exist_ok=True)
        for name, text in rules.items():
            (self.rules / name).write_text(text)
        self.ca = ca
        self.modes = modes
        self.entry = entry
        self.python = python
        self.sets = tuple(f"callerid_private={place}" for place in private) + sets
        self.environ = {**os.environ, "PYTHONPATH": str(ROOT / "addon"), **(environ or {})}
        for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy", "ALL_PROXY"):
            self.environ.pop(name, None)
        self.ports: list[int] = []
        self.output: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None

    # -- process -------------------------------------------------------------------------------

    def start(self) -> Proxy:
        if self.entry == "run":
            command = [
                sys.executable, *self.python, "-m", "callerid", "run", "--home", str(self.home),
                "--rules", str(self.rules), "--listen", "127.0.0.1:0", "--upstream-ca", str(self.ca),
                *(arg for mode in self.modes for arg in ("--mode", mode)),
                *(arg for option in self.sets for arg in ("--set", option)),
            ]  # fmt: skip
        else:
            self.ports = [free_port() for _ in self.modes]
            command = [
                sys.executable, "-c", "from mitmproxy.tools.main import mitmdump; mitmdump()",
                "-s", str(ROOT / "addon" / "entry.py"), "--set", f"confdir={self.home / 'ca'}",
                "--set", f"callerid_home={self.home}", "--set", f"callerid_rules={self.rules}",
                "--set", f"ssl_verify_upstream_trusted_ca={self.ca}", "--listen-host", "127.0.0.1",
                *(arg for mode, port in zip(self.modes, self.ports, strict=True)
                  for arg in ("--mode", f"{mode}@127.0.0.1:{port}")),
                *(arg for option in self.sets for arg in ("--set", option)),
            ]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.environ, cwd=self.home.parent
        )
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._pump, args=(self.process.stdout, lines), daemon=True).start()
        self._await_listening(lines)
        return self

    def _pump(self, stream: Any, lines: queue.Queue[str | None]) -> None:
        with stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip()
                self.output.append(line)
                lines.put(line)
        lines.put(None)

    def _await_listening(self, lines: queue.Queue[str | None]) -> None:
        if self.entry == "mitmdump":
            for port in self.ports:
                wait_for(lambda port=port: self._dead() or _connects(port), "mitmdump listens")
            # It listens before the addon has made its home: then commands find no registry yet.
            wait_for(lambda: self._dead() or (self.home / "audit.db").exists(), "the home is made")
            if self._dead():
                raise AssertionError("mitmdump did not start:\n" + "\n".join(self.output))
            return
        end = time.monotonic() + STARTING
        while time.monotonic() < end:
            line = lines.get(timeout=STARTING)
            if line is None:
                raise AssertionError("the proxy did not start:\n" + "\n".join(self.output))
            if line.startswith("callerid: listening on "):
                self.ports = [int(place) for place in re.findall(r":(\d+)(?:,|$)", line)]
                return
        raise AssertionError("the proxy did not say where it listens")

    def _dead(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    @property
    def port(self) -> int:
        return self.ports[0]

    def stop(self, how: int = signal.SIGTERM) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            code = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(DEADLINE)
            raise AssertionError("the proxy did not stop:\n" + "\n".join(self.output)) from None
        self.process = None
        return code

    # -- commands ------------------------------------------------------------------------------

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "callerid", *arguments],
            env={**self.environ, "CALLERID_HOME": str(self.home), "CALLERID_RULES": str(self.rules)},
            capture_output=True, text=True, timeout=60, check=False, cwd=self.home.parent,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(f"callerid {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done

    def issue(self, principal: str = "user:alice@corp.example", *more: str) -> str:
        return self.command("issue", "--principal", principal, "--ttl", "1d", *more).stdout.strip()

    # -- clients -------------------------------------------------------------------------------

    @property
    def ca_cert(self) -> Path:
        return self.home / "ca" / "mitmproxy-ca-cert.pem"

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_cert))

    def plain(self, port: int | None = None) -> RawClient:
        return RawClient(socket.create_connection(("127.0.0.1", port or self.port), DEADLINE))

    def tunnel(
        self, authority: str, *, headers: Mapping[str, str] | None = None, sni: str | None = None,
        context: ssl.SSLContext | None = None, tls: bool = True,
    ) -> RawClient:  # fmt: skip
        """CONNECT, then TLS with the given server name (default: the CONNECT host)."""
        client = self.plain()
        try:
            extra = "".join(f"{k}: {v}\r\n" for k, v in (headers or {}).items())
            client.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{extra}\r\n".encode())
            head = client.read_head()
            if head.status != 200:
                raise ConnectionError(f"CONNECT answered {head.status}")
            if not tls:
                return client
            context = context or self.trust()
            if sni is not None:
                context.check_hostname = False
            name = sni or authority.rpartition(":")[0]
            inner = RawClient(context.wrap_socket(client.sock, server_hostname=name))
        except BaseException:
            client.close()
            raise
        client.stream.close()
        return inner

    # -- audit ---------------------------------------------------------------------------------

    def rows(self, where: str = "1", *values: Any) -> list[dict[str, Any]]:
        """Rows of the ``calls`` view, oldest first."""
        db = sqlite3.connect(f"file:{self.home / 'audit.db'}?mode=ro", uri=True, timeout=DEADLINE)
        try:
            db.row_factory = sqlite3.Row
            query = f"select * from calls where {where} order by seq"
            return [dict(row) for row in db.execute(query, values)]
        finally:
            db.close()

    def await_rows(self, count: int, where: str = "1", *values: Any) -> list[dict[str, Any]]:
        """At least ``count`` rows, once they are there (outcomes are appended after the answer)."""
        wait_for(lambda: len(self.rows(where, *values)) >= count, f"{count} rows where {where}")
        return self.rows(where, *values)


def wait_for(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> None:
    """Poll until ``condition`` holds; the deadline is a failure, not a measurement."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline:g} s in vain for: {what}")
        select.select([], [], [], 0.02)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@dataclass
class Pki:
    """A throw-away CA for servers and one for clients."""

    folder: Path
    servers: trustme.CA = field(default_factory=trustme.CA)
    clients: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.servers.cert_pem.write_to_path(str(self.ca))
        self.clients.cert_pem.write_to_path(str(self.client_ca))

    @property
    def ca(self) -> Path:
        return self.folder / "servers-ca.pem"

    @property
    def client_ca(self) -> Path:
        return self.folder / "clients-ca.pem"

    def server_context(self, *names: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.servers.issue_cert(*(names or ("localhost", "127.0.0.1"))).configure_cert(context)
        return context


def identities(extra: str = "") -> str:
    return f"""version: 1
groups:
  engineering: {{members: ["user:alice@corp.example", "user:bob@corp.example"]}}
  interns: {{members: ["user:ivy@corp.example"]}}
{extra}"""


def servers(port: int, *, credential: str | None = "things-key", scheme: str = "https", path: str = "/mcp",
            extra: str = "") -> str:  # fmt: skip
    line = f"    credential: {credential}\n" if credential else ""
    return f"""version: 1
servers:
  - id: things
    url: {scheme}://localhost:{port}{path}
    labels: {{env: prod}}
{line}    targets: {{drop_thing: name, query: sql}}
{extra}"""


def credentials(port: int, inject: str = "bearer: {}", source: str = "env: THINGS_SECRET") -> str:
    return f"""version: 1
credentials:
  - id: things-key
    source: {{{source}}}
    inject: {{{inject}}}
    bind: {{hosts: ["localhost:{port}"]}}
"""


NO_CREDENTIALS = "version: 1\ncredentials: []\n"

POLICY = """version: 1
mode: enforce
unknown_server: deny
rules:
  - id: eng-things
    effect: allow
    who: ["group:engineering"]
    servers: [things]
    tools: ["*"]
  - id: interns-read
    effect: allow
    who: ["group:interns"]
    servers: [things]
    tools: ["read_*", "query"]
  - id: no-drops
    effect: deny
    servers: [things]
    tools: ["drop_*"]
    reason: Deletions on production go through a change ticket.
  - id: query-ceiling
    effect: require
    servers: [things]
    tools: [query]
    args:
      limit: {type: number, le: 100}
"""

POLICY_ANYWHERE = POLICY.replace("    servers: [things]\n", "")
"""The same rules for every listed server."""


def standard_rules(port: int, **changes: str) -> dict[str, str]:
    return {
        "identities.yaml": identities(),
        "servers.yaml": servers(port),
        "credentials.yaml": credentials(port),
        "policy.yaml": POLICY,
        **changes,
    }


@contextmanager
def running(proxy: Proxy) -> Iterator[Proxy]:
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


# -- real SDK servers and clients as processes -----------------------------------------------------


class Partner:
    """A process that takes steps and gives results as lines of JSON (``sdk_client``, ``sdk_server``)."""

    def __init__(
        self,
        *command: str,
        environ: Mapping[str, str],
        fds: tuple[int, ...] = (),
        program: tuple[str, ...] = (sys.executable, "-m"),
    ) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        paths = os.pathsep.join((str(ROOT), str(ROOT / "addon")))
        self.process = subprocess.Popen(
            [*program, *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=fds, text=True,
            env={**inherited, "PYTHONPATH": paths, **environ},
        )  # fmt: skip
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors: list[str] = []
        out, err = self.process.stdout, self.process.stderr
        for stream, put in ((out, self._lines.put), (err, self._errors.append)):
            threading.Thread(target=self._pump, args=(stream, put), daemon=True).start()

    def _pump(self, stream: Any, put: Callable[[Any], None]) -> None:
        with stream:
            for line in stream:
                put(line)
        if put == self._lines.put:
            put(None)

    def hear(self) -> dict[str, Any]:
        """The next line of its output."""
        line = self._lines.get(timeout=2 * DEADLINE)
        if line is None:
            raise AssertionError("the process ended:\n" + "".join(self._errors))
        result: dict[str, Any] = json.loads(line)
        return result

    def ask(self, do: str, on: str = "it", **step: Any) -> dict[str, Any]:
        """Do one step. The result has ``ok`` or ``error``."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, "on": on, **step}) + "\n")
        self.process.stdin.flush()
        return self.hear()

    def __call__(self, do: str, on: str = "it", **step: Any) -> Any:
        """Do one step that must succeed."""
        result = self.ask(do, on, **step)
        assert "ok" in result, result
        return result["ok"]

    def stop(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(DEADLINE)


SDK_SERVERS = ("stateful", "json", "stateless", "stateless-json", "old")


class SdkServer:
    """The process of ``sdk_server``, with its port and what it saw. ``hear`` its ``ready`` before use."""

    def __init__(self, folder: Path, pki: Pki, secret: str = SECRET) -> None:
        certificate = pki.servers.issue_cert("localhost", "127.0.0.1")
        pem, self.seen_file = folder / "sdk-server.pem", folder / "sdk-server.jsonl"
        pem.write_bytes(b"".join([certificate.private_key_and_cert_chain_pem.bytes()]))
        self.seen_file.touch()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = int(listener.getsockname()[1])
            self.partner = Partner(
                "tests.e2e.sdk_server", "--fd", str(listener.fileno()), "--cert", str(pem),
                "--seen", str(self.seen_file), environ={"THINGS_SECRET": secret}, fds=(listener.fileno(),),
            )  # fmt: skip

    def url(self, name: str, port: int | None = None) -> str:
        return f"https://localhost:{port or self.port}/{name}/{'sse' if name == 'old' else 'mcp'}"

    def lines(self) -> list[dict[str, Any]]:
        """Every request and cancellation so far."""
        return [json.loads(line) for line in self.seen_file.read_text().splitlines()]

    def stop(self) -> None:
        self.partner.stop()


def sdk_rules(port: int) -> dict[str, str]:
    """Rules for all servers of ``SdkServer``: Alice and Bob may nearly all, Ivy reads, nobody else."""
    entries = "".join(
        f"  - id: {name}\n    url: https://localhost:{port}/{name}/{'sse' if name == 'old' else 'mcp'}\n"
        f"    credential: things-key\n    targets: {{drop_thing: name, query: limit}}\n"
        for name in SDK_SERVERS
    )
    served = f"[{', '.join(SDK_SERVERS)}]"
    return {
        "identities.yaml": identities(),
        "servers.yaml": f"version: 1\nservers:\n{entries}",
        "credentials.yaml": credentials(port),
        "policy.yaml": f"""version: 1
mode: enforce
unknown_server: deny
rules:
  - id: eng-things
    effect: allow
    who: ["group:engineering"]
    servers: {served}
    tools: ["*", "resource:thing://*", "prompt:*"]
  - id: stateful-asks
    effect: allow
    who: ["group:engineering"]
    servers: [stateful]
    tools: ["method:elicitation/create"]
    args:
      mode: {{eq: form}}
  - id: interns-read
    effect: allow
    who: ["group:interns"]
    servers: {served}
    tools: ["read_*"]
  - id: no-drops
    effect: deny
    servers: {served}
    tools: ["drop_*"]
    reason: Deletions go through a change ticket.
  - id: no-secrets
    effect: deny
    servers: {served}
    tools: ["resource:thing://secret/*", "prompt:hidden_*"]
  - id: query-ceiling
    effect: require
    servers: {served}
    tools: [query]
    args:
      limit: {{type: number, le: 100}}
    reason: Ask for at most 100 at a time.
""",
    }


def newest(proxy: Proxy) -> int:
    """The number of the last row, to tell a test's own rows from those before it."""
    rows = proxy.rows("1")
    return int(rows[-1]["seq"]) if rows else 0


def settled(proxy: Proxy, since: int, count: int, where: str = "1") -> list[dict[str, Any]]:
    """The rows after ``since``, once ``count`` of them have an outcome; more of them are a failure."""
    condition = f"seq > ? and ({where})"
    proxy.await_rows(count, f"{condition} and outcome <> 'unknown'", since)
    rows = proxy.rows(condition, since)
    assert len(rows) == count, rows
    return rows


# -- evidence without a command, and one request seen from three sides ---------------------------


def mint(
    proxy: Proxy, principal: str = "user:alice@corp.example", *, seconds: int = 86_400,
    agent: str | None = None, servers: tuple[str, ...] | None = None, tools: tuple[str, ...] | None = None,
    networks: tuple[str, ...] | None = None,
) -> str:  # fmt: skip
    """A scoped token, entered in the registry as ``callerid issue`` does; negative ``seconds``: expired."""
    token = tokens.mint(os.urandom(tokens.RANDOM_BYTES))
    now = time.time_ns() // 1000
    expires = now + seconds * 1_000_000
    with registry(proxy) as opened:
        opened.issue(
            token_digest=tokens.digest(token), principal=principal, agent=agent, servers=servers, tools=tools,
            created_us=min(now, expires - 1_000_000), expires_us=expires, created_by="tests",
            networks=networks,
        )  # fmt: skip
    return token


def token_id(token: str) -> str:
    return tokens.token_id(tokens.digest(token))


def revoke(proxy: Proxy, token: str) -> None:
    with registry(proxy) as opened:
        assert opened.revoke(token_id(token), now_us=time.time_ns() // 1000, by="tests") == 1


@contextmanager
def registry(proxy: Proxy) -> Iterator[Registry]:
    opened = Registry.open(proxy.home / "registry.db")
    try:
        yield opened
    finally:
        opened.close()


class WarmProxy(Proxy):
    """As ``Proxy``, forked from a warm process instead of started from nothing."""

    def __init__(self, warm: Warm, *arguments: Any, extra: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.warm = warm
        self.extra = extra

    def arguments(self) -> list[str]:
        """What follows ``callerid`` on the command line."""
        return [
            "run", "--home", str(self.home), "--rules", str(self.rules), "--listen", "127.0.0.1:0",
            "--upstream-ca", str(self.ca), *(arg for mode in self.modes for arg in ("--mode", mode)),
            *(arg for option in self.sets for arg in ("--set", option)), *self.extra,
        ]  # fmt: skip

    def start(self) -> WarmProxy:
        forked = self.warm.spawn(self.arguments(), environ=self.environ, cwd=self.home.parent)
        self.process = forked  # type: ignore[assignment]
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._pump_to_end, args=(forked.stdout, lines), daemon=True).start()
        self._await_listening(lines)
        return self

    def _pump_to_end(self, stream: Any, lines: queue.Queue[str | None]) -> None:
        with stream:
            self._pump(stream, lines)

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environ = {**self.environ, "CALLERID_HOME": str(self.home), "CALLERID_RULES": str(self.rules)}
        done = self.warm.run(arguments, environ=environ, cwd=self.home.parent)
        if check and done.returncode != 0:
            raise AssertionError(f"callerid {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done


@dataclass
class Trial:
    """What one request left behind: the rows in the audit, and the requests at each upstream."""

    proxy: Proxy
    upstreams: tuple[Upstream, ...]
    first_seq: int
    marks: tuple[int, ...]
    answer: Answer | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.proxy.rows("seq > ?", self.first_seq)

    @property
    def seen(self) -> list[Seen]:
        pairs = zip(self.upstreams, self.marks, strict=True)
        return [seen for upstream, mark in pairs for seen in upstream.seen[mark:]]

    @property
    def row(self) -> dict[str, Any]:
        """The one row, with its outcome once the call is over."""

        def settled() -> bool:
            rows = self.rows
            return bool(rows) and all(row["outcome"] != "unknown" for row in rows)

        wait_for(settled, "a row with its outcome")
        [row] = self.rows
        return row

    def refused(self, reason: str) -> dict[str, Any]:
        """The one row, which refuses; and nothing arrived anywhere."""
        row = self.row
        assert (row["verdict"] != "allow", row["reason"]) == (True, reason), row
        assert (row["outcome"], row["injected"]) == ("not_sent", None)
        assert self.seen == []
        return row


def trial(proxy: Proxy, *upstreams: Upstream) -> Trial:
    """Begin to watch: rows and requests from here on."""
    rows = proxy.rows("seq = (select max(seq) from calls)")
    first = rows[0]["seq"] if rows else 0
    return Trial(proxy, upstreams, first, tuple(len(upstream.seen) for upstream in upstreams))


class InnerTls(io.RawIOBase):
    """TLS inside a connection that is TLS already, which ``ssl`` itself does not do."""

    def __init__(self, sock: ssl.SSLSocket, context: ssl.SSLContext, name: str) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._run(self._tls.do_handshake)

    def _run(self, step: Callable[..., Any], *arguments: Any) -> Any:
        while True:
            try:
                result = step(*arguments)
            except ssl.SSLWantReadError:
                self._flush()
                data = self._sock.recv(65536)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
                continue
            self._flush()
            return result

    def _flush(self) -> None:
        self._sock.sendall(self._outgoing.read())

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._run(self._tls.read, len(buffer))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return 0
        buffer[: len(data)] = data
        return len(data)

    def sendall(self, data: bytes) -> None:
        self._run(self._tls.write, data)

    def settimeout(self, seconds: float) -> None:
        self._sock.settimeout(seconds)

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(self)

    def close(self) -> None:
        self._sock.close()
        super().close()


def tunnel_over_tls(
    proxy: Proxy, authority: str, outer: ssl.SSLContext, inner: ssl.SSLContext | None = None,
    *, headers: Mapping[str, str] | None = None,
) -> RawClient:  # fmt: skip
    """TLS to the proxy, CONNECT inside it, and TLS to the server inside that."""
    plain = socket.create_connection(("127.0.0.1", proxy.port), DEADLINE)
    sock = outer.wrap_socket(plain, server_hostname="localhost")
    client = RawClient(sock)
    extra = "".join(f"{k}: {v}\r\n" for k, v in (headers or {}).items())
    client.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{extra}\r\n".encode())
    head = client.read_head()
    if head.status != 200:
        raise ConnectionError(f"CONNECT answered {head.status}")
    host = authority.rpartition(":")[0]
    return RawClient(InnerTls(sock, inner or proxy.trust(), host))  # type: ignore[arg-type]


@dataclass
class Stage:
    """SDK servers and clients, and one proxy per entry, each of them forward and reverse."""

    server: SdkServer
    client: Partner
    fastmcp: Partner
    proxies: dict[str, Proxy]
    reverse_ports: dict[str, int]
    tokens: dict[tuple[str, str], str]

    def forward(self, who: str | None, entry: str = "run", scheme: str = "http") -> dict[str, str]:
        """The environment of a client that goes through the proxy: this and nothing else."""
        proxy = self.proxies[entry]
        evidence = f"{who}:{self.tokens[entry, who]}@" if who is not None else ""
        place = f"{scheme}://{evidence}localhost:{proxy.port}"
        return {"HTTPS_PROXY": place, "NO_PROXY": "", "SSL_CERT_FILE": str(proxy.ca_cert)}

    def direct(self, entry: str = "run") -> dict[str, str]:
        """The environment of a client of the reverse proxy: it only trusts its CA."""
        return {"HTTPS_PROXY": "", "NO_PROXY": "*", "SSL_CERT_FILE": str(self.proxies[entry].ca_cert)}

    def reverse_url(self, name: str, entry: str = "run") -> str:
        return self.server.url(name, self.reverse_ports[entry])


PEOPLE = {
    "alice": "user:alice@corp.example",
    "bob": "user:bob@corp.example",
    "ivy": "user:ivy@corp.example",
    "ci": "workload:ci-docs",
}


@contextmanager
def sdk_stage(folder: Path, pki: Pki) -> Iterator[Stage]:
    """Everything for tests with the SDK, started side by side.

    All of PEOPLE have a token for ``run``, and Alice has one for ``mitmdump``.
    """
    server = SdkServer(folder, pki)
    client = Partner("tests.e2e.sdk_client", environ={})
    fastmcp = Partner("tests.e2e.sdk_client", "--fastmcp", environ={})
    reverse, port = f"reverse:https://localhost:{server.port}/", free_port()
    proxies = {
        entry: Proxy(
            folder / entry, sdk_rules(server.port), ca=pki.ca, entry=entry,
            modes=("regular", f"{reverse}@127.0.0.1:{port}" if entry == "run" else reverse),
            environ={"THINGS_SECRET": SECRET},
        )
        for entry in ("run", "mitmdump")
    }  # fmt: skip
    wanted = [("mitmdump", "alice"), *(("run", who) for who in PEOPLE)]
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Proxy.start, proxies.values()))
            issued = list(pool.map(lambda want: proxies[want[0]].issue(PEOPLE[want[1]]), wanted))
        for partner in (server.partner, client, fastmcp):
            assert partner.hear() == {"ready": True}
        ports = {"run": port, "mitmdump": proxies["mitmdump"].ports[1]}
        yield Stage(server, client, fastmcp, proxies, ports, dict(zip(wanted, issued, strict=True)))
    finally:
        with ThreadPoolExecutor() as pool:
            stops = [client.stop, fastmcp.stop, server.stop, *(proxy.stop for proxy in proxies.values())]
            for end in [pool.submit(stop) for stop in stops]:
                end.result()
