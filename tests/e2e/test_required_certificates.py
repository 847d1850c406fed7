"""Where a client certificate is required: nobody is served without one, at any listener, for any host."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import harness as h
from tests.e2e.evidence import ALICE, Gate, Sent, open_gate
from tests.e2e.warm import Warm


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Gate]:
    with open_gate(tmp_path_factory.mktemp("gate"), pki, warm, required=True) as made:
        yield made


@pytest.fixture(scope="module")
def stranger() -> Iterator[h.Upstream]:
    """A server that nobody listed."""
    server = h.Upstream(None, lambda seen: h.Reply(200, body=b"hello"))
    yield server
    server.close()


def to_the_proxy(gate: Gate, leaf: str | None) -> h.RawClient:
    """A TLS connection to the proxy itself."""
    plain = socket.create_connection(("127.0.0.1", gate.proxy.port), h.DEADLINE)
    return h.RawClient(gate.context(leaf).wrap_socket(plain, server_hostname="localhost"))


def knock(client: h.RawClient, authority: str, **headers: str) -> h.Answer | None:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    client.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{lines}\r\n".encode())
    return client.read()


def the_row(tried: h.Trial, reason: str, **wanted: Any) -> None:
    row = tried.refused(reason)
    assert {name: row[name] for name in wanted} == wanted


FLAWS = {
    None: "certificate_required", "wrong CA": "certificate_untrusted", "self-signed": "certificate_untrusted",
    "expired": "certificate_expired", "revoked": "certificate_revoked",
}  # fmt: skip
HOSTS = ("listed", "unlisted", "closed")


def authority_of(gate: Gate, stranger: h.Upstream, host: str) -> tuple[str, str]:
    """Where a CONNECT is for, and what stands in the row as its server."""
    return {
        "listed": (f"localhost:{gate.upstream.port}", f"localhost:{gate.upstream.port}"),
        "unlisted": (f"localhost:{stranger.port}", f"localhost:{stranger.port}"),
        "closed": ("closed.corp.example:443", "closed.corp.example"),
    }[host]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("leaf", FLAWS)
def test_no_tunnel_without_a_good_certificate(
    gate: Gate, stranger: h.Upstream, host: str, leaf: str | None
) -> None:
    authority, name = authority_of(gate, stranger, host)
    tried = h.trial(gate.proxy, gate.upstream, stranger)
    client = to_the_proxy(gate, leaf)
    answer = knock(client, authority, Proxy_Authorization=f"Bearer {gate.tokens['good']}")
    client.close()
    assert answer is not None
    assert answer.status == 403
    assert FLAWS[leaf] in answer.body.decode()
    the_row(tried, FLAWS[leaf], method="http/CONNECT")
    assert name.partition(":")[0] in tried.rows[0]["upstream"]


@pytest.mark.parametrize("host", HOSTS)
def test_no_tunnel_on_a_port_without_tls(gate: Gate, stranger: h.Upstream, host: str) -> None:
    tried = h.trial(gate.proxy, gate.upstream, stranger)
    client = gate.proxy.plain()
    answer = knock(client, authority_of(gate, stranger, host)[0], X_Callerid_Token=gate.tokens["good"])
    client.close()
    assert answer is not None
    assert answer.status == 403
    the_row(tried, "certificate_required", method="http/CONNECT")


def test_a_refused_connect_leaves_nothing_on_its_connection(gate: Gate, stranger: h.Upstream) -> None:
    """Its token is forgotten: behind a shared proxy the next request may be somebody else's."""
    client = gate.proxy.plain()
    knock(client, gate.authority("connect"), Proxy_Authorization=f"Bearer {gate.tokens['good']}")
    tried = h.trial(gate.proxy, gate.plain)
    number = next(gate.ids)
    try:
        client.send(gate.request(Sent("absolute"), number))
        answered = client.read() is not None
    except OSError:
        answered = False
    client.close()
    if answered:
        the_row(tried, "certificate_required", principal="anonymous", credential_id=None)
    assert tried.seen == []


@pytest.mark.parametrize("leaf", ["alice", "bob"])
def test_with_a_certificate_everything_is_as_ever(gate: Gate, stranger: h.Upstream, leaf: str) -> None:
    tried = h.trial(gate.proxy, gate.upstream)
    gate.send(Sent("connect over TLS", outer=leaf))
    assert (tried.row["reason"], tried.row["principal"]) == ("granted", f"user:{leaf}@corp.example")
    client = to_the_proxy(gate, leaf)
    client.send(get(stranger, "/page"))
    answer = client.read()
    client.close()
    assert answer is not None
    assert (answer.status, answer.body) == (200, b"hello")


def get(server: h.Upstream, path: str) -> bytes:
    place = f"localhost:{server.port}"
    return f"GET http://{place}{path} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode()


@pytest.mark.parametrize("tls", [False, True], ids=["without TLS", "over TLS"])
def test_what_is_not_governed_is_not_served_either(gate: Gate, stranger: h.Upstream, tls: bool) -> None:
    tried = h.trial(gate.proxy, stranger)
    client = to_the_proxy(gate, None) if tls else gate.proxy.plain()
    client.send(get(stranger, "/page"))
    answer = client.read()
    client.close()
    assert answer is not None
    assert answer.status == 403
    the_row(tried, "certificate_required", method="http/GET", server=f"localhost:{stranger.port}")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (Sent("absolute"), "certificate_required"),
        (Sent("absolute over TLS"), "certificate_required"),
        (Sent("absolute over TLS", outer="revoked"), "certificate_revoked"),
        (Sent("absolute over TLS", outer="worker"), "no_grant"),
        (Sent("reverse"), "certificate_required"),
        (Sent("reverse", inner="wrong CA"), "certificate_untrusted"),
        (Sent("reverse", inner="expired"), "certificate_expired"),
        (Sent("reverse", inner="alice"), "granted"),
        (Sent("absolute over TLS", outer="alice"), "granted"),
        (Sent("connect over TLS", outer="hop", inner="alice"), "granted"),
    ],
    ids=lambda value: value.way if isinstance(value, Sent) else value,
)
@pytest.mark.parametrize("token", [True, False], ids=["with a token", "without"])
def test_every_way_in_asks_for_it(gate: Gate, sent: Sent, reason: str, token: bool) -> None:
    """A good token does not stand for a certificate, and a certificate needs no token."""
    headers = [("Authorization", f"Bearer {gate.tokens['good']}")] if token else []
    if token and reason == "no_grant":
        reason = "identity_conflict"
    tried = h.trial(gate.proxy, gate.upstream, gate.plain)
    gate.send(Sent(sent.way, headers=headers, outer=sent.outer, inner=sent.inner))
    row = tried.row
    assert row["reason"] == reason, row
    if reason == "granted":
        assert (row["principal"], len(tried.seen)) == (ALICE, 1)
    else:
        tried.refused(reason)


def test_a_blocked_certificate_is_not_served_on_a_kept_connection_either(
    gate: Gate, stranger: h.Upstream
) -> None:
    """Law 10, for what is not governed too."""
    client = to_the_proxy(gate, "bob")
    client.send(get(stranger, "/first"))
    first = client.read()
    assert first is not None
    assert first.status == 200
    with h.registry(gate.proxy) as registry:
        registry.block(gate.leaves["bob"].credential_id, now_us=1, by="tests")
    tried = h.trial(gate.proxy, stranger)
    client.send(get(stranger, "/second"))
    second = client.read()
    client.close()
    assert second is not None
    assert second.status == 403
    the_row(tried, "principal_blocked")
    with h.registry(gate.proxy) as registry:
        registry.unblock(gate.leaves["bob"].credential_id)


def test_the_requirement_takes_effect_on_open_connections(gate: Gate, stranger: h.Upstream) -> None:
    rules = gate.proxy.rules / "identities.yaml"
    strict = rules.read_text()
    reloads = len(gate.proxy.output)

    def reloaded() -> bool:
        return any("rules reloaded" in line for line in gate.proxy.output[reloads:])

    rules.write_text(strict.replace("client_certificate: required\n", ""))
    h.wait_for(reloaded, "the rules are reloaded")
    client = gate.proxy.tunnel(gate.authority("connect"), context=gate.context("alice"))
    kept = gate.proxy.plain()
    kept.send(get(stranger, "/open"))
    answer = kept.read()
    assert answer is not None
    assert answer.status == 200
    reloads = len(gate.proxy.output)
    rules.write_text(strict)
    h.wait_for(reloaded, "the rules are reloaded again")
    tried = h.trial(gate.proxy, gate.upstream, stranger)
    client.send(gate.request(Sent("connect"), next(gate.ids)))
    client.read()
    kept.send(get(stranger, "/closed"))
    kept.read()
    client.close()
    kept.close()
    h.wait_for(lambda: len(tried.rows) == 2, "two rows")
    assert [row["reason"] for row in tried.rows] == ["certificate_required"] * 2
    assert tried.seen == []


def test_the_proxys_own_address_asks_for_it_too(gate: Gate) -> None:
    tried = h.trial(gate.proxy)
    client = gate.proxy.plain()
    token = gate.tokens["good"]
    client.send(
        b"GET http://callerid.internal/whoami HTTP/1.1\r\nHost: callerid.internal\r\n"
        + f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    answer = client.read()
    client.close()
    assert answer is not None
    assert answer.status == 403
    assert b"alice" not in answer.body
    the_row(tried, "certificate_required", server="callerid")
