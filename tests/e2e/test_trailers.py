"""Trailers of answers: HTTP/2 has them after the body, where the head was cleaned long ago. None goes on."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
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

ANSWER = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": []}}).encode()
TRAILERS = [("x-key", h.SECRET), ("set-cookie", "sid=shared"), ("www-authenticate", "Bearer")]


class Upstream2:
    """An HTTP/2 server that ends every answer with trailers. ``/held`` says how long its body is."""

    def __init__(self, context: ssl.SSLContext) -> None:
        context.set_alpn_protocols(["h2"])
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
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
                elif isinstance(event, StreamEnded):
                    length = [("content-length", str(len(ANSWER)))] if "held" in paths[event.stream_id] else []
                    head = [(":status", "200"), ("content-type", "application/json"), *length]
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
def gate(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[tuple[h.Proxy, int]]:
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
        yield proxy, upstream.port
    upstream.close()


def ask(proxy: h.Proxy, port: int, path: str, body: bytes) -> tuple[list[str], bytes, Any]:
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
        ("content-type", "application/json"), ("accept", "application/json, text/event-stream"),
        ("authorization", f"Bearer {h.mint(proxy)}"),
    ]  # fmt: skip
    http.send_headers(1, head)
    http.send_data(1, body, end_stream=True)
    names: list[str] = []
    got, trailers = b"", None
    with context.wrap_socket(raw, server_hostname="localhost") as sock:
        sock.settimeout(h.DEADLINE)
        sock.sendall(http.data_to_send())
        while True:
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


@pytest.mark.parametrize("path", ["/api/held", "/api/streamed", "/mcp"])
def test_no_trailer_of_a_governed_answer_goes_on(gate: tuple[h.Proxy, int], path: str) -> None:
    proxy, port = gate
    names, body, trailers = ask(proxy, port, path, h.tool("read_thing"))
    assert (":status" in names, json.loads(body)) == (True, json.loads(ANSWER))
    assert trailers is None
