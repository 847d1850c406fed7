"""Client certificates, on the TLS connection to the proxy and on the one inside: good, bad, resumed."""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any

import pytest

from tests.e2e import harness as h
from tests.e2e.house import ALICE, MALLORY, House, accepted, carried, post, refused, shown

LEAF_FLAWS = {
    "expired": "certificate_expired",
    "not yet valid": "certificate_expired",
    "revoked": "certificate_revoked",
    "denied": "certificate_revoked",
    "wrong ca": "certificate_untrusted",
    "self-signed": "certificate_untrusted",
    "server only": "certificate_untrusted",
    "no usage": "certificate_untrusted",
    "no san": "certificate_untrusted",
    "mallory": "principal_blocked",
}
TLS12 = {"maximum_version": ssl.TLSVersion.TLSv1_2}
TLS13 = {"minimum_version": ssl.TLSVersion.TLSv1_3}


@pytest.mark.parametrize("limits", [TLS12, TLS13], ids=["TLS 1.2", "TLS 1.3"])
@pytest.mark.parametrize("where", ["to the proxy", "inside"])
@pytest.mark.parametrize("leaf", ["alice", "by intermediate"])
def test_a_certificate_names_its_caller_on_either_connection(
    house: House, where: str, limits: dict[str, Any], leaf: str
) -> None:
    row = accepted(
        house.ask(**shown(house, where, leaf, **limits)), ALICE,
        assurance="bound", issuer="corp-people", credential_id=house.leaves[leaf].credential_id,
    )  # fmt: skip
    [evidence] = json.loads(row["evidence"])
    assert evidence["carrier"] == ("proxy_tls" if where == "to the proxy" else "inner_tls")


@pytest.mark.parametrize("where", ["to the proxy", "inside"])
@pytest.mark.parametrize("flaw", LEAF_FLAWS)
def test_a_bad_certificate_is_refused_on_either_connection(house: House, where: str, flaw: str) -> None:
    known = MALLORY if flaw == "mallory" else "anonymous"
    row = refused(house.ask(**shown(house, where, flaw)), LEAF_FLAWS[flaw], principal=known)
    assert row["credential_id"] == house.leaves[flaw].credential_id


@pytest.mark.parametrize("flaw", ["self-signed", "expired", "wrong ca"])
def test_a_bad_certificate_is_not_outweighed_by_a_good_token(house: House, flaw: str) -> None:
    good = carried(house.tokens["good"], "authorization")
    refused(house.ask(**good, **shown(house, "inside", flaw)), LEAF_FLAWS[flaw])


def test_a_connection_without_a_certificate_is_nobody(house: House) -> None:
    refused(house.ask(outer=house.shows(None)), "no_evidence")
    refused(house.ask(), "no_evidence")


@pytest.mark.parametrize("limits", [TLS12, TLS13], ids=["TLS 1.2", "TLS 1.3"])
@pytest.mark.parametrize("where", ["to the proxy", "inside"])
def test_a_client_that_offers_to_resume_still_shows_its_certificate(
    house: House, pki: h.Pki, where: str, limits: dict[str, Any]
) -> None:
    """A session, of whichever server it is, must neither break the handshake nor replace the evidence."""
    context = house.shows("alice", **limits)
    context.load_verify_locations(pki.ca)
    session = ticket(context, house.upstream.port)
    for _ in range(2):
        tried = h.trial(house.proxy, house.upstream)
        plain = house.proxy.plain()
        if where == "to the proxy":
            sock = context.wrap_socket(plain.sock, server_hostname="localhost", session=session)
            client = h.RawClient(sock)
            connect(client, house.authority)
            client = h.RawClient(h.InnerTls(sock, house.proxy.trust(), "localhost"))
        else:
            connect(plain, house.authority)
            sock = context.wrap_socket(plain.sock, server_hostname="localhost", session=session)
            client = h.RawClient(sock)
        assert not sock.session_reused
        client.send(post(house.authority, []))
        tried.answer = client.read()
        session = sock.session or session  # what the proxy gave, if it gave anything: by ticket or by id
        client.close()
        accepted(tried, ALICE, assurance="bound")


def ticket(context: ssl.SSLContext, port: int) -> ssl.SSLSession:
    """A session that a server with tickets gave: offered to the proxy, it cannot be decrypted there."""
    client = h.RawClient(
        context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
    )
    client.send(b"GET /ticket HTTP/1.1\r\nHost: localhost\r\n\r\n")
    client.read()
    session = client.sock.session
    client.close()
    assert session is not None
    assert session.has_ticket
    return session


def connect(client: h.RawClient, authority: str) -> None:
    client.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    assert client.read_head().status == 200


@pytest.mark.parametrize("leaf", ["alice", "wrong ca", None])
def test_a_certificate_to_the_proxy_counts_for_absolute_form_too(house: House, leaf: str | None) -> None:
    tried = h.trial(house.proxy, house.plain)
    authority = f"localhost:{house.plain.port}"
    sock = socket.create_connection(("127.0.0.1", house.proxy.port), h.DEADLINE)
    client = h.RawClient(house.shows(leaf).wrap_socket(sock, server_hostname="localhost"))
    client.send(post(authority, [], f"http://{authority}/mcp"))
    tried.answer = client.read()
    client.close()
    if leaf != "alice":
        refused(tried, "certificate_untrusted" if leaf else "no_evidence", server="lab")
        return
    assert tried.answer is not None
    assert tried.answer.text == "ran read_thing"
    assert (tried.row["principal"], tried.row["assurance"]) == (ALICE, "bound")
