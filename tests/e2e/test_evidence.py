"""Evidence over time: lists that change while connections are open, proofs of streams that stay open."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest

from tests.e2e import harness as h
from tests.e2e.certs import ClientPki
from tests.e2e.evidence import ALICE, BOB, Gate, Sent, open_gate
from tests.e2e.warm import Warm


@pytest.fixture
def gate(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Gate]:
    with open_gate(tmp_path_factory.mktemp("gate"), pki, warm) as made:
        yield made


def turn(gate: Gate, client: h.RawClient, sent: Sent) -> h.Trial:
    """One request on a connection that is open already."""
    tried = h.trial(gate.proxy, gate.upstream)
    client.send(gate.request(sent, next(gate.ids)))
    tried.answer = client.read()
    return tried


def written(gate: Gate, name: str, text: str) -> None:
    """A file of the rules is replaced, and that is noticed."""
    before = sum("rules reloaded" in line for line in gate.proxy.output)
    (gate.proxy.rules / name).write_text(text)
    h.wait_for(
        lambda: sum("rules reloaded" in line for line in gate.proxy.output) > before, f"{name} is read again"
    )


@pytest.mark.parametrize("way", ["connect", "reverse"])
def test_a_certificate_that_is_revoked_is_refused_on_its_open_connection(gate: Gate, way: str) -> None:
    people: ClientPki = gate.people
    sent = Sent(way, inner="alice")
    client = gate.open(sent)
    assert turn(gate, client, sent).row["principal"] == ALICE
    written(gate, "people.crl", people.crl(gate.leaves["alice"]).decode())
    turn(gate, client, sent).refused("certificate_revoked")
    written(gate, "people.crl", people.crl().decode())
    assert turn(gate, client, sent).row["principal"] == ALICE
    rules = (gate.proxy.rules / "identities.yaml").read_text()
    denied = f'principal_from: san_email, denied_sha256: ["{gate.leaves["alice"].sha256}"]'
    written(gate, "identities.yaml", rules.replace("principal_from: san_email", denied, 1))
    turn(gate, client, sent).refused("certificate_revoked")
    client.close()


def test_a_list_that_cannot_be_read_leaves_the_last_one_in_force(gate: Gate) -> None:
    people: ClientPki = gate.people
    written(gate, "people.crl", people.crl(gate.leaves["alice"]).decode())
    (gate.proxy.rules / "people.crl").write_text("garbage")
    h.wait_for(lambda: any("stay in force" in line for line in gate.proxy.output), "it is refused")
    sent = Sent("connect", inner="alice")
    client = gate.open(sent)
    turn(gate, client, sent).refused("certificate_revoked")
    client.close()


def test_a_hop_that_is_taken_out_of_the_rules_speaks_for_nobody(gate: Gate) -> None:
    sent = Sent("reverse", inner="hop", headers=[gate.forwarded("alice", "xfcc")])
    client = gate.open(sent)
    row = turn(gate, client, sent).row
    assert (row["principal"], row["via"]) == (ALICE, "envoy")
    gone = Sent("reverse", inner="hop", headers=[gate.forwarded("revoked", "xfcc")])
    assert turn(gate, client, gone).refused("certificate_revoked")["via"] == "envoy"
    rules = (gate.proxy.rules / "identities.yaml").read_text()
    start, end = rules.index("trusted_hops:"), rules.index("groups:")
    written(gate, "identities.yaml", rules[:start] + rules[end:])
    row = turn(gate, client, sent).refused("no_grant")
    assert (row["principal"], row["via"]) == ("workload:spiffe://corp.example/envoy/branch", None)
    client.close()


def test_a_stream_outlives_its_proof_and_not_its_caller(gate: Gate) -> None:
    """The proof is for the request that opened the stream; who is blocked is cut (law 10).

    Bob's stream, which is cut first, tells that all streams were judged again.
    """
    events: dict[int, queue.Queue[bytes | None]] = {}

    def answer(seen: h.Seen) -> h.Reply:
        mine = events.setdefault(seen.message["id"], queue.Queue())
        return h.Reply(200, [("content-type", "text/event-stream")], chunks=iter(mine.get, None))

    gate.upstream.answer = answer
    token = gate.bound_to_key()
    once = [("Authorization", f"DPoP {token}"), ("DPoP", gate.proof(token, "connect"))]
    streams = {}
    for who, headers in ((ALICE, once), (BOB, [("X-Callerid-Token", gate.tokens["bob"])])):
        sent, number = Sent("connect", headers=headers), next(gate.ids)
        client = gate.open(sent)
        mine = events[number] = queue.Queue()
        client.send(gate.request(sent, number))
        mine.put(b": first\n\n")
        assert client.read_head().status == 200
        chunks = client.chunks()
        assert b"first" in next(chunks)
        streams[who] = (client, chunks, mine)
    again = Sent("connect", headers=once)
    tried = h.trial(gate.proxy, gate.upstream)
    gate.send(again)
    tried.refused("jwt_proof")
    _, chunks, mine = streams[ALICE]
    for blocked, still_open in ((BOB, True), (ALICE, False)):
        with h.registry(gate.proxy) as registry:
            registry.block(blocked, now_us=1, by="tests")
        gate.proxy.await_rows(1, "outcome = 'cut' and principal = ?", blocked)
        mine.put(b": more\n\n")
        if still_open:
            assert b"more" in next(chunks)
    with pytest.raises((ConnectionError, OSError, ValueError)):
        list(chunks)
    for client, _, mine in streams.values():
        mine.put(None)
        client.close()


@pytest.mark.parametrize("where", ["inner", "outer"])
def test_without_client_cas_a_certificate_of_ones_own_making_is_a_key(gate: Gate, where: str) -> None:
    """RFC 8705 section 2.2: it is asked for since the issuer's tokens are bound, and it names nobody."""
    rules = (gate.proxy.rules / "identities.yaml").read_text()
    start, end = rules.index("client_cas:"), rules.index("groups:")
    changed = (rules[:start] + rules[end:]).replace("login: true", "sender_constrained: true")
    written(gate, "identities.yaml", changed)
    bearer = ("Authorization", f"Bearer {gate.bound_to_leaf('self-signed')}")
    for leaf, headers, reason in (
        ("self-signed", [bearer], "granted"),
        ("bob", [bearer], "jwt_proof"),
        (None, [bearer], "jwt_proof"),
        ("self-signed", [("Authorization", f"Bearer {gate.jwt()}")], "jwt_proof"),
        ("self-signed", [], "no_evidence"),
    ):
        tried = h.trial(gate.proxy, gate.upstream)
        gate.send(Sent("connect over TLS", headers=headers, **{where: leaf}))
        row = tried.row
        assert row["reason"] == reason, row
        wanted = (ALICE, "bound") if reason == "granted" else ("anonymous", None)
        assert (row["principal"], row["assurance"]) == wanted
