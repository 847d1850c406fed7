"""The parts of a measurement: an upstream, bare mitmdump and callerid, each a process of its own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import trustme

from tests.e2e import harness

STREAM_ALL = Path(__file__).with_name("stream_all.py")
PEOPLE = tuple(f"user:person-{number:02}@corp.example" for number in range(20))
"""Who holds streams open: more than one, since there is a limit for each."""

TICKS = os.sysconf("SC_CLK_TCK")

type Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Way:
    """One way to the upstream, and what calls measured on it. ``process`` is the proxy's, if there is one."""

    name: str
    process: int | None
    proxy: int | None
    trust: Path
    authorization: str = ""
    cpu: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    first_event: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Scene:
    """``ways`` in the order in which they take turns: direct, mitmdump, callerid."""

    upstream: int
    direct: Way
    bare: Way
    ours: Way
    proxy: harness.Proxy

    @property
    def ways(self) -> tuple[Way, Way, Way]:
        return self.direct, self.bare, self.ours


@contextlib.contextmanager
def scene(*, streaming: bool) -> Iterator[Scene]:
    """Start everything in a temporary folder, and end it.

    ``streaming``: mitmdump gets the one line of an addon without which it holds event streams back.
    """
    with tempfile.TemporaryDirectory(prefix="callerid-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        pki = harness.Pki(folder / "pki")
        upstream = start_origin(stack, folder, pki)
        bare_port = harness.free_port()
        script = ("-s", str(STREAM_ALL)) if streaming else ()
        bare = subprocess.Popen(
            [sys.executable, "-c", "from mitmproxy.tools.main import mitmdump; mitmdump()", "-q", *script,
             "--listen-host", "127.0.0.1", "-p", str(bare_port), "--set", f"confdir={folder / 'bare'}",
             "--set", f"ssl_verify_upstream_trusted_ca={pki.ca}"]
        )  # fmt: skip
        stack.callback(_stop, bare)
        policy = harness.POLICY.replace('tools: ["*"]', 'tools: ["*", "method:elicitation/create"]')
        members = "".join(f', "{name}"' for name in PEOPLE)
        people = harness.identities().replace('"user:bob@corp.example"', f'"user:bob@corp.example"{members}')
        proxy = harness.Proxy(
            folder / "callerid",
            harness.standard_rules(upstream, **{"identities.yaml": people, "policy.yaml": policy}),
            ca=pki.ca,
            environ={"THINGS_SECRET": harness.SECRET},
        ).start()
        stack.callback(proxy.stop)
        ca = "mitmproxy-ca-cert.pem"
        harness.wait_for(lambda: _listens(bare_port), "mitmdump listens")
        harness.wait_for((folder / "bare" / ca).exists, "mitmdump's CA")
        if proxy.process is None:
            raise RuntimeError("the proxy is gone")
        yield Scene(
            upstream,
            Way("direct", None, None, pki.ca),
            Way("mitmdump -q", bare.pid, bare_port, folder / "bare" / ca),
            Way("callerid", proxy.process.pid, proxy.port, proxy.ca_cert, evidence(harness.mint(proxy))),
            proxy,
        )
        print(f"audit rows written: {len(proxy.rows())}")


def evidence(token: str) -> str:
    """The line of a CONNECT that says who calls."""
    secret = base64.b64encode(f"caller:{token}".encode()).decode()
    return f"Proxy-Authorization: Basic {secret}\r\n"


def start_origin(stack: contextlib.ExitStack, folder: Path, pki: harness.Pki) -> int:
    """Start the upstream; ``stack`` ends it. Returns its port."""
    cert = folder / "server.pem"
    issued: trustme.LeafCert = pki.servers.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(str(cert))
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "--upstream", str(cert)], stdout=subprocess.PIPE, text=True
    )
    stack.callback(_stop, process)
    if process.stdout is None:
        raise RuntimeError("the upstream has no output")
    return int(process.stdout.readline())


def _stop(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    process.wait(20)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


# -- clients ------------------------------------------------------------------------------------


@cache
def _trusting(cafile: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(cafile))


async def connect(way: Way, upstream: int) -> Pair:
    """A connection to the upstream, TLS included, CONNECT before it where the way has a proxy."""
    context = _trusting(way.trust)
    if way.proxy is None:
        return await asyncio.open_connection("127.0.0.1", upstream, ssl=context, server_hostname="localhost")
    reader, writer = await asyncio.open_connection("127.0.0.1", way.proxy)
    head = f"CONNECT localhost:{upstream} HTTP/1.1\r\nHost: localhost:{upstream}\r\n{way.authorization}\r\n"
    writer.write(head.encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in answer.split(b"\r\n", 1)[0]:
        raise ConnectionError(answer.decode())
    await writer.start_tls(context, server_hostname="localhost")
    return reader, writer


def request(upstream: int, body: bytes, session: str | None = None) -> bytes:
    """A POST of one message."""
    extra = {"User-Agent": "bench"} | ({"Mcp-Session-Id": session} if session else {})
    return harness.post(f"localhost:{upstream}", "/mcp", body, extra)


def close(pairs: list[Pair]) -> None:
    """Close them all at once, without waiting for the other side."""
    for _, writer in pairs:
        writer.transport.abort()


# -- what a process used ------------------------------------------------------------------------


def cpu_seconds(process: int | None) -> float:
    """User and system time of a process, all its threads. Linux tells it in nanoseconds."""
    if process is None:
        return 0.0
    try:
        return time.clock_gettime((~process << 3) | 2)  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)
    except OSError:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@dataclass(frozen=True, slots=True)
class Memory:
    """KiB: what is resident, and the part of it that is not a file."""

    resident: int
    anonymous: int


def memory(process: int | None) -> Memory:
    """What a process holds now."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return Memory(int(status["VmRSS"].split()[0]), int(status["RssAnon"].split()[0]))
