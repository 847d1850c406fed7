"""The scene: our two servers, one callerid in all modes with an allow-all policy, and the ways through it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.relay import Relays
from tests.conformance.suite import PLAIN_ONLY, Way
from tests.e2e.harness import NO_CREDENTIALS, Partner, Pki, Proxy, free_port, running

# Rules name methods that callerid does not know one by one (docs/rules.md): first what a server asks of a
# client, then the Tasks extension, then what the suite sends to see it refused by the server.
METHODS = (
    *("sampling/createMessage", "elicitation/create", "roots/list"),
    *("tasks/get", "tasks/list", "tasks/result", "tasks/cancel", "tasks/update", "subscriptions/listen"),
    *("unknown/method", "initialize", "ping", "logging/setLevel"),
    *("resources/subscribe", "resources/unsubscribe", "skills/list", "skills/get"),
)

POLICY = """version: 1
mode: enforce
unknown_server: {unknown}
rules:
  - id: everything
    effect: allow
    who: [anyone]
    tools: ["*", "resource:*", "prompt:*", {methods}]
"""

SERVERS = """version: 1
servers:
  - {{id: plain, url: "http://127.0.0.1:{plain}/mcp"}}
  - {{id: tls, url: "https://localhost:{tls}/mcp"}}
  - {{id: forward, url: "http://localhost:{forward}/"}}
  - {{id: reverse, url: "http://localhost:{reverse}/"}}
"""


def policy(unknown: str) -> str:
    return POLICY.format(unknown=unknown, methods=", ".join(f'"method:{name}"' for name in METHODS))


@dataclass(frozen=True)
class Lab:
    """The ways to the server, and those of the client, by name. What goes ``direct`` is the measure.

    ``login`` is for the client scenarios with OAuth: a listed server gets the shared credential, never a
    token of the client's own, so these go to servers that are not listed (on this machine: callerid_private),
    and only forward, because a resource is named by its address.
    """

    server: dict[str, Way]
    client: dict[str, Way]
    login: dict[str, Way]
    proxy: Proxy

    def ways(self, side: str, *, login: bool) -> dict[str, Way]:
        if side == "server":
            return self.server
        return self.login if login else self.client


@contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    """The scene, while it lasts. ``folder`` takes callerid's home and what processes tell each other."""
    pki = Pki(folder / "pki")
    certificate = pki.servers.issue_cert("localhost", "127.0.0.1")
    pem = folder / "server.pem"
    pem.write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
    relays = Relays()
    guides = {name: folder / f"{name}.port" for name in ("forward", "reverse")}
    ports = {name: relays.guide(file) for name, file in guides.items()}
    warm = str(folder / "warm.sock")
    with _server() as plain, _server("--cert", str(pem)) as tls, _ready("tests.conformance.warm", warm):
        rules = {
            "identities.yaml": "version: 1\n",
            "servers.yaml": SERVERS.format(plain=plain, tls=tls, **ports),
            "credentials.yaml": NO_CREDENTIALS,
            "policy.yaml": policy("observe"),
        }
        modes = (
            "regular",
            f"reverse:http://127.0.0.1:{plain}@127.0.0.1:{free_port()}",
            f"reverse:http://localhost:{ports['reverse']}@127.0.0.1:{free_port()}",
        )
        proxy = Proxy(
            folder / "callerid", rules, ca=pki.ca, modes=modes, sets=("callerid_private=localhost",)
        )
        try:
            with running(proxy):
                yield _ways(proxy, relays, guides, {**ports, "plain": plain, "tls": tls}, warm)
        finally:
            relays.close()


def _ways(proxy: Proxy, relays: Relays, guides: dict[str, Path], ports: dict[str, int], warm: str) -> Lab:
    token = proxy.issue("user:alice@corp.example")
    regular, to_server, to_client = proxy.ports
    header = f"X-Callerid-Token: {token}".encode("ascii")
    names = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")
    through = dict.fromkeys(names, f"http://alice:{token}@127.0.0.1:{regular}")
    through |= {"NO_PROXY": "", "no_proxy": ""}
    node = {**through, "NODE_USE_ENV_PROXY": "1", "NODE_EXTRA_CA_CERTS": str(proxy.ca_cert)}
    plain, tls = f"http://127.0.0.1:{ports['plain']}/mcp", f"https://localhost:{ports['tls']}/mcp"
    reverse = f"http://127.0.0.1:{relays.bearer(to_server, header)}/mcp"
    server = [
        Way(name="direct", url=plain),
        Way(name="forward", url=plain, environ=node),
        Way(name="forward-tls", url=tls, environ=node, without=PLAIN_ONLY),
        Way(name="reverse", url=reverse),
    ]
    entry = {"forward": ports["forward"], "reverse": relays.bearer(to_client, header)}
    relay = {name: {"CONFORMANCE_RELAY": f"{port}:{guides[name]}"} for name, port in entry.items()}
    direct = Way(name="direct", warm=warm)
    client = [
        direct,
        Way(name="forward", warm=warm, environ={**through, **relay["forward"]}),
        Way(name="reverse", warm=warm, environ=relay["reverse"]),
    ]
    login = [direct, Way(name="forward", warm=warm, environ=through)]
    by_name = [{way.name: way for way in ways} for ways in (server, client, login)]
    return Lab(*by_name, proxy=proxy)


@contextmanager
def _server(*arguments: str) -> Iterator[int]:
    """The port of a conformance server that is ready."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = ("tests.conformance.server", "--fd", str(listener.fileno()), *arguments)
        with _ready(*command, fds=(listener.fileno(),)):
            yield int(listener.getsockname()[1])


@contextmanager
def _ready(*command: str, fds: tuple[int, ...] = ()) -> Iterator[None]:
    """A process that said that it is ready, and ends with its standard input."""
    partner = Partner(*command, environ={}, fds=fds)
    try:
        partner.hear()
        yield
    finally:
        partner.stop()
