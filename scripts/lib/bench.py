"""What callerid costs: direct, bare ``mitmdump -q`` and callerid, interleaved in one run.

CPU is user plus system time of the proxy process per call, all its threads. callerid runs as in production:
TLS interception, token identity, rules, a shared credential, a durable audit row before each call and an
outcome row after it. Machines are noisy: read the ratios of one run, and make several runs.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import platform
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import trustme

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "addon")]

from tests.e2e import harness  # noqa: E402

CONNECTIONS = 16
TICKS = os.sysconf("SC_CLK_TCK")
ARGUMENTS = {
    "sql": "select * from orders where region = 'EMEA' and total > 100",
    "limit": 50,
    "filters": [{"field": f"column_{i}", "op": "eq", "value": f"value {i}"} for i in range(12)],
}
RESULT = {"content": [{"type": "text", "text": "row " * 200}], "isError": False}


def call(number: int) -> bytes:
    return harness.tool("query", ARGUMENTS, number)


# -- the upstream, in a process of its own ------------------------------------------------------


class Echo(asyncio.Protocol):
    """Answers each tools/call at once: JSON on /mcp, five events on /mcp/stream."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            mark = head.find(b"content-length:")
            length = int(head[mark + 15 :].split(b"\r\n", 1)[0]) if mark >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            self.answer(head, json.loads(body)["id"])

    def answer(self, head: bytes, rpc_id: int) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": rpc_id, "result": RESULT}).encode()
        if b"/mcp/stream" in head.split(b"\r\n", 1)[0]:
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            progress = b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{}}\n\n'
            self.transport.write(b"%x\r\n%s\r\n" % (len(progress), progress))
            last = b"data: " + body + b"\n\n"
            loop = asyncio.get_running_loop()
            ending = b"%x\r\n%s\r\n0\r\n\r\n" % (len(last), last)
            loop.call_later(0.2, self.transport.write, ending)
            return
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body)


async def serve_upstream(cert: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert)
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# -- the load -----------------------------------------------------------------------------------


@dataclass
class Way:
    """One way to the upstream, and what was measured on it."""

    name: str
    process: int | None
    proxy: int | None
    trust: Path
    authorization: str = ""
    cpu: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    first_event: list[float] = field(default_factory=list)


async def connect(way: Way, upstream: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.create_default_context(cafile=str(way.trust))
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


def request(upstream: int, body: bytes, path: str = "/mcp") -> bytes:
    return harness.post(f"localhost:{upstream}", path, body, {"User-Agent": "bench"})


async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytes) -> None:
    writer.write(raw)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    mark = head.find(b"content-length:")
    body = await reader.readexactly(int(head[mark + 15 :].split(b"\r\n", 1)[0]))
    if b'"isError"' not in body or b'"isError":true' in body.replace(b" ", b""):
        raise AssertionError(f"not the expected answer: {body[:300]!r}")


async def load(way: Way, upstream: int, calls: int, connections: int) -> None:
    """``calls`` calls over ``connections`` keep-alive connections, closed loop."""
    pairs = [await connect(way, upstream) for _ in range(connections)]
    for reader, writer in pairs:
        await one(reader, writer, request(upstream, call(0)))
    numbers = iter(range(1, calls + 1))

    async def worker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in numbers:
            raw = request(upstream, call(number))
            start = time.perf_counter()
            await one(reader, writer, raw)
            way.latency.append(time.perf_counter() - start)

    before = cpu_seconds(way.process)
    await asyncio.gather(*(worker(*pair) for pair in pairs))
    way.cpu.append((cpu_seconds(way.process) - before) / calls)
    for _, writer in pairs:
        writer.close()


async def first_events(way: Way, upstream: int, calls: int) -> None:
    """Seconds from the request to the first event, on a warm connection."""
    reader, writer = await connect(way, upstream)
    await one(reader, writer, request(upstream, call(0)))
    for number in range(calls):
        start = time.perf_counter()
        writer.write(request(upstream, call(number), "/mcp/stream"))
        await reader.readuntil(b"notifications/progress")
        way.first_event.append(time.perf_counter() - start)
        await reader.readuntil(b"0\r\n\r\n")
    writer.close()


def cpu_seconds(process: int | None) -> float:
    if process is None:
        return 0.0
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


# -- the scene ----------------------------------------------------------------------------------


@contextlib.contextmanager
def scene(folder: Path) -> Iterator[tuple[int, list[Way]]]:
    pki = harness.Pki(folder / "pki")
    cert = folder / "server.pem"
    issued: trustme.LeafCert = pki.servers.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(str(cert))
    with contextlib.ExitStack() as stack:
        origin = subprocess.Popen(
            [sys.executable, __file__, "--upstream", str(cert)], stdout=subprocess.PIPE, text=True
        )
        stack.callback(stop, origin)
        if origin.stdout is None:
            raise RuntimeError("the upstream has no output")
        upstream = int(origin.stdout.readline())
        bare_port = harness.free_port()
        bare = subprocess.Popen(
            [sys.executable, "-c", "from mitmproxy.tools.main import mitmdump; mitmdump()", "-q",
             "--listen-host", "127.0.0.1", "-p", str(bare_port), "--set", f"confdir={folder / 'bare'}",
             "--set", f"ssl_verify_upstream_trusted_ca={pki.ca}"]
        )  # fmt: skip
        stack.callback(stop, bare)
        proxy = harness.Proxy(
            folder / "callerid",
            harness.standard_rules(upstream),
            ca=pki.ca,
            environ={"THINGS_SECRET": harness.SECRET},
        ).start()
        stack.callback(proxy.stop)
        token = proxy.issue()
        harness.wait_for(lambda: harness._connects(bare_port), "mitmdump listens")
        ca = "mitmproxy-ca-cert.pem"
        harness.wait_for((folder / "bare" / ca).exists, "mitmdump's CA")
        secret = base64.b64encode(f"alice:{token}".encode()).decode()
        if proxy.process is None:
            raise RuntimeError("the proxy is gone")
        yield (
            upstream,
            [
                Way("direct", None, None, pki.ca),
                Way("mitmdump -q", bare.pid, bare_port, folder / "bare" / ca),
                Way("callerid", proxy.process.pid, proxy.port, proxy.ca_cert,
                    f"Proxy-Authorization: Basic {secret}\r\n"),
            ],
        )  # fmt: skip
        rows = len(proxy.rows("verdict = 'allow'"))
        print(f"audit rows written: {rows}")


def stop(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(20)


def milliseconds(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] * 1000


def machine() -> str:
    """The day and the machine in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    today = datetime.now(UTC).date()
    python = platform.python_version()
    return f"{today}, {platform.system()}, {cores} cores ({model}), CPython {python}, load {load}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def report(ways: list[Way]) -> None:
    base = statistics.median(ways[1].cpu)
    print(f"\n{machine()}")
    print("\n| way | CPU per call (µs) | of each round | ratio | p50 ms | p99 ms | first event p50 ms |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for way in ways:
        cpu = statistics.median(way.cpu)
        rounds = " ".join(f"{one * 1e6:.0f}" for one in way.cpu)
        spent = f"{cpu * 1e6:.0f} | {rounds} | {cpu / base:.2f}" if way.process else "- | - | -"
        event = f"{milliseconds(way.first_event, 0.5):.2f}" if way.first_event else "-"
        print(
            f"| {way.name} | {spent} | {milliseconds(way.latency, 0.5):.2f} | "
            f"{milliseconds(way.latency, 0.99):.2f} | {event} |"
        )
    added = milliseconds(ways[2].first_event, 0.5) - milliseconds(ways[0].first_event, 0.5)
    ratio = statistics.median(ways[2].cpu) / base
    print(f"\ncallerid / mitmdump, CPU per call: {ratio:.2f} (bar: 1.00)")
    print(f"first event of a stream, added to direct: {added:.2f} ms (bar: 10 ms)")


async def measure(upstream: int, ways: list[Way], rounds: int, calls: int) -> None:
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for way in ways:
            await load(way, upstream, calls, CONNECTIONS)
    for way in (ways[0], ways[2]):
        await first_events(way, upstream, 30)


def main(rounds: int, calls: int) -> None:
    with tempfile.TemporaryDirectory(prefix="callerid-bench-") as name:
        with scene(Path(name)) as (upstream, ways):
            asyncio.run(measure(upstream, ways, rounds, calls))
        report(ways)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=1500)
    parser.add_argument("--upstream", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.upstream:
        asyncio.run(serve_upstream(options.upstream))
    else:
        main(options.rounds, options.calls)
