"""Trailers: HTTP/2 has them after the body, where all was judged and cleaned long ago. None goes on."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from tests.e2e import harness as h
from tests.e2e.warm import Warm

JSON = "application/json"
ANSWER = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": []}}).encode()
TRAILERS = [("x-key", h.SECRET), ("set-cookie", "sid=shared"), ("www-authenticate", "Bearer")]


class Upstream2:
    """An HTTP/2 server that ends every answer with trailers. ``/held`` says how long its body is."""

    def __init__(self, context: ssl.SSLContext) -> None:
        context.set_alpn_protocols(["h2"])
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.trailers: list[object] = []
        self.ended = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with self._context.wrap_socket(sock, server_side=True) as tls:
                self._speak(tls)
        except OSError:
            return

    def _speak(self, sock: ssl.SSLSocket) -> None:
        http = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        http.initiate_connection()
        sock.sendall(http.data_to_send())
        paths: dict[int, str] = {}
        while data := sock.recv(65536):
            for event in http.receive_data(data):
                if isinstance(event, RequestReceived):
                    paths[event.stream_id] = dict(event.headers)[":path"]
                elif isinstance(event, TrailersReceived):
                    self.trailers.append(event.headers)
                elif isinstance(event, DataReceived):
                    http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    self.ended += 1
                    head = [(":status", "200"), ("content-type", "application/json")]
                    if "held" in paths[event.stream_id]:
                        head.append(("content-length", str(len(ANSWER))))
                    http.send_headers(event.stream_id, head)
                    http.send_data(event.stream_id, ANSWER)
                    http.send_headers(event.stream_id, TRAILERS, end_stream=True)
            sock.sendall(http.data_to_send())


RULES = """version: 1
mode: enforce
unknown_server: deny
rules:
  - {id: all, effect: allow, who: ["group:engineering"], tools: ["*", "http:* /api/**"]}
"""


@pytest.fixture(scope="module")
def gate(
    tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm
) -> Iterator[tuple[h.Proxy, Upstream2]]:
    upstream = Upstream2(pki.server_context())
    rules = h.standard_rules(upstream.port, **{"policy.yaml": RULES})
    rules["servers.yaml"] = f"""version: 1
servers:
  - {{id: things, url: "https://localhost:{upstream.port}/mcp", credential: things-key}}
  - {{id: api, kind: http, url: "https://localhost:{upstream.port}/api", credential: api-key}}
"""
    rules["credentials.yaml"] = f"""version: 1
credentials:
  - {{id: things-key, source: {{env: THINGS_SECRET}}, inject: {{bearer: {{}}}},
     bind: {{hosts: ["localhost:{upstream.port}"], paths: [/mcp]}}}}
  - {{id: api-key, source: {{env: THINGS_SECRET}}, inject: {{bearer: {{}}}},
     bind: {{hosts: ["localhost:{upstream.port}"], paths: ["/api/**"]}}}}
"""
    proxy = h.WarmProxy(
        warm, tmp_path_factory.mktemp("trailers"), rules, ca=pki.ca, environ={"THINGS_SECRET": h.SECRET},
        sets=("http2=true",),
    )  # fmt: skip
    with h.running(proxy):
        yield proxy, upstream
    upstream.close()


def ask(
    proxy: h.Proxy, port: int, path: str, body: bytes, *, trailers_of_ours: Any = None, kind: str = JSON
) -> tuple[list[str], bytes, Any]:
    """Names of the answer's headers, its body, and its trailers or None."""
    raw = socket.create_connection(("127.0.0.1", proxy.port), h.DEADLINE)
    raw.sendall(f"CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
    assert b" 200 " in raw.recv(4096)
    context = proxy.trust()
    context.set_alpn_protocols(["h2"])
    http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    http.initiate_connection()
    head = [
        (":method", "POST"), (":scheme", "https"), (":authority", f"localhost:{port}"), (":path", path),
        ("content-type", kind), ("accept", "application/json, text/event-stream"),
        ("authorization", f"Bearer {h.mint(proxy)}"), ("content-length", str(len(body))),
    ]  # fmt: skip
    http.send_headers(1, head)
    names: list[str] = []
    got, trailers = b"", None
    with context.wrap_socket(raw, server_hostname="localhost") as sock:
        sock.settimeout(h.DEADLINE)
        sock.sendall(http.data_to_send())
        left, done = body, False
        while True:
            while left and (room := min(http.local_flow_control_window(1), http.max_outbound_frame_size)) > 0:
                http.send_data(1, left[:room])
                left = left[room:]
            if not left and not done:
                done = True
                if trailers_of_ours is None:
                    http.end_stream(1)
                else:
                    http.send_headers(1, trailers_of_ours, end_stream=True)
            sock.sendall(http.data_to_send())
            for event in http.receive_data(sock.recv(65536)):
                if isinstance(event, ResponseReceived):
                    names = [name for name, _ in event.headers]
                elif isinstance(event, DataReceived):
                    got += event.data
                elif isinstance(event, TrailersReceived):
                    trailers = event.headers
                elif isinstance(event, StreamEnded):
                    return names, got, trailers
                assert not isinstance(event, StreamReset)
            sock.sendall(http.data_to_send())


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        pytest.param("/api/held", b"{}", id="an API, held until it is whole"),
        pytest.param("/api/streamed", b"{}", id="an API, as it comes"),
        pytest.param("/mcp", h.tool("read_thing"), id="MCP"),
        pytest.param("/beside", b"{}", id="a path beside the listed ones"),
    ],
)
def test_where_a_server_knows_a_secret_no_trailer_goes_on(
    gate: tuple[h.Proxy, Upstream2], path: str, asked: bytes
) -> None:
    proxy, upstream = gate
    names, body, trailers = ask(proxy, upstream.port, path, asked)
    assert (":status" in names, json.loads(body)) == (True, json.loads(ANSWER))
    assert trailers is None


@pytest.mark.parametrize(
    ("path", "asked", "kind"),
    [
        pytest.param("/api/held", b"{}", JSON, id="an API"),
        pytest.param("/mcp", h.tool("read_thing"), JSON, id="MCP"),
        pytest.param("/beside", b"hello", "text/plain", id="a path beside the listed ones"),
        pytest.param("/beside", b"z" * 8_000_000, "text/plain", id="a body that goes on as it comes"),
    ],
)
def test_no_trailer_of_a_request_goes_on(
    gate: tuple[h.Proxy, Upstream2], path: str, asked: bytes, kind: str
) -> None:
    """Where nobody lists the path, they would take tokens and raw keys along, and nobody would know."""
    proxy, upstream = gate
    ended = upstream.ended
    ours = [("x-token", h.mint(proxy)), ("x-key", h.SECRET)]
    _, body, _ = ask(proxy, upstream.port, path, asked, trailers_of_ours=ours, kind=kind)
    assert json.loads(body) == json.loads(ANSWER)
    assert (upstream.ended, upstream.trailers) == (ended + 1, [])
