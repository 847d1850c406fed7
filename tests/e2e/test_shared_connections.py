"""Many people behind one connection: each request is its own caller's, whatever came before or beside it.

A downstream proxy, keep-alive, requests sent ahead, HTTP/2: hypothesis chooses who sends what in which order.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e import harness as h
from tests.e2e.evidence import ALICE, BOB, Gate, Sent, open_gate
from tests.e2e.warm import Warm

EXAMPLES = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
PEOPLE = {"alice": ALICE, "bob": BOB}


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Gate]:
    folder = tmp_path_factory.mktemp("gate")
    with open_gate(folder, pki, warm, extra=("--set", "http2=true")) as made:
        yield made


@dataclass(frozen=True)
class Turn:
    """One request on the shared connection: who sends it, and by what it can be known."""

    who: str
    how: str


TOKENS = ("token", "x-token", "JWT", "DPoP", "nothing", "foreign", "unknown")
BEHIND_A_HOP = (*TOKENS, "xfcc", "client-cert", "xfcc and token", "conflicting")
REASONS = {
    "nothing": "no_evidence", "foreign": "evidence_unrecognised", "unknown": "token_unknown",
    "conflicting": "identity_conflict",
}  # fmt: skip


def shown(gate: Gate, turn: Turn, way: str) -> list[tuple[str, str]]:
    token = gate.tokens["good" if turn.who == "alice" else "bob"]
    other = gate.tokens["bob" if turn.who == "alice" else "good"]
    match turn.how:
        case "token":
            return [("Authorization", f"Bearer {token}")]
        case "x-token":
            return [("X-Callerid-Token", token)]
        case "JWT":
            return [("Authorization", f"Bearer {gate.jwt(email=f'{turn.who}@corp.example')}")]
        case "DPoP":
            bound = gate.bound_to_key(email=f"{turn.who}@corp.example")
            return [("Authorization", f"DPoP {bound}"), ("DPoP", gate.proof(bound, way))]
        case "foreign":
            return [("Authorization", "Bearer of-somebody-else")]
        case "unknown":
            return [("X-Callerid-Token", gate.tokens["spoofed"])]
        case "xfcc" | "client-cert":
            return [gate.forwarded(turn.who, turn.how)]
        case "xfcc and token":
            return [gate.forwarded(turn.who, "xfcc"), ("Authorization", f"Bearer {token}")]
        case "conflicting":
            return [gate.forwarded(turn.who, "xfcc"), ("Authorization", f"Bearer {other}")]
    return []


def turns(kinds: tuple[str, ...]) -> st.SearchStrategy[list[Turn]]:
    one = st.builds(Turn, st.sampled_from(sorted(PEOPLE)), st.sampled_from(kinds))
    return st.lists(one, min_size=2, max_size=8)


def judge(gate: Gate, sent: dict[int, Turn]) -> None:
    """Every row says who its own request said, and nobody else's arrived."""
    marks = ",".join("?" * len(sent))
    numbers = [str(number) for number in sent]
    gate.proxy.await_rows(len(sent), f"rpc_id in ({marks})", *numbers)
    rows = gate.rows()
    for number, turn in sent.items():
        row = rows[number]
        found = (row["verdict"], row["reason"], row["principal"])
        if turn.how in REASONS:
            assert found == ("deny", REASONS[turn.how], "anonymous"), (turn, row)
        else:
            assert found == ("allow", "granted", PEOPLE[turn.who]), (turn, row)
    good = {number for number, turn in sent.items() if turn.how not in REASONS}
    assert gate.arrived() & set(sent) == good


@pytest.mark.parametrize(
    ("sent", "kinds"),
    [
        (Sent("absolute"), TOKENS),
        (Sent("connect"), TOKENS),
        (Sent("absolute over TLS", outer="hop"), BEHIND_A_HOP),
        (Sent("connect", inner="hop"), BEHIND_A_HOP),
        (Sent("reverse", inner="hop"), BEHIND_A_HOP),
    ],
    ids=["absolute form", "a tunnel", "a hop, absolute form", "a hop, in a tunnel", "a hop, in reverse mode"],
)
def test_nobody_inherits_over_http_1(gate: Gate, sent: Sent, kinds: tuple[str, ...]) -> None:
    @given(chosen=turns(kinds), ahead=st.booleans())
    @EXAMPLES
    def interleave(chosen: list[Turn], ahead: bool) -> None:
        client = gate.open(sent)
        numbered = {next(gate.ids): turn for turn in chosen}
        requests = {
            number: gate.request(Sent(sent.way, headers=shown(gate, turn, sent.way)), number)
            for number, turn in numbered.items()
        }
        if ahead:
            client.send(b"".join(requests.values()))
        for number, request in requests.items():
            if not ahead:
                client.send(request)
            answer = client.read()
            assert answer is not None
            assert answer.json["id"] == number
        client.close()
        judge(gate, numbered)

    interleave()


class Streams:
    """One HTTP/2 connection whose frames are sent in any order."""

    def __init__(self, client: h.RawClient) -> None:
        self.sock = client.sock
        assert isinstance(self.sock, ssl.SSLSocket)
        assert self.sock.selected_alpn_protocol() == "h2"
        self.http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.http.initiate_connection()

    def head(self, stream: int, gate: Gate, sent: Sent) -> None:
        fields = [
            (":method", "POST"), (":scheme", "https"), (":authority", gate.authority(sent.way)),
            (":path", "/mcp"), ("content-type", "application/json"),
            *((name.lower(), value) for name, value in sent.headers),
        ]  # fmt: skip
        self.http.send_headers(stream, fields)
        self.flush()

    def part(self, stream: int, data: bytes, *, last: bool) -> None:
        self.http.send_data(stream, data, end_stream=last)
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.http.data_to_send())

    def answers(self, count: int) -> dict[int, bytes]:
        """The body of each stream's answer."""
        got: dict[int, bytes] = {}
        done: set[int] = set()
        while len(done) < count:
            data = self.sock.recv(65536)
            assert data, "the connection was closed"
            for event in self.http.receive_data(data):
                if isinstance(event, ResponseReceived):
                    got[event.stream_id] = b""
                elif isinstance(event, DataReceived):
                    got[event.stream_id] += event.data
                    self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    done.add(event.stream_id)
                assert not isinstance(event, StreamReset)
            self.flush()
        return got


@pytest.mark.parametrize(
    ("sent", "kinds"),
    [
        (Sent("connect"), TOKENS),
        (Sent("connect", inner="hop"), BEHIND_A_HOP),
        (Sent("reverse", inner="hop"), BEHIND_A_HOP),
    ],
    ids=["a tunnel", "a hop, in a tunnel", "a hop, in reverse mode"],
)
def test_nobody_inherits_over_http_2(gate: Gate, sent: Sent, kinds: tuple[str, ...]) -> None:
    """Heads and bodies of all streams come in one mixed order, so that several are under way at once."""
    context = gate.proxy.trust()
    context.set_alpn_protocols(["h2"])
    if sent.inner:
        gate.leaves[sent.inner].shown_by(context)
    gate.contexts["h2"] = context

    @given(chosen=turns(kinds), data=st.data())
    @EXAMPLES
    def interleave(chosen: list[Turn], data: Any) -> None:
        streams = Streams(gate.open(Sent(sent.way, inner="h2")))
        numbered = {next(gate.ids): turn for turn in chosen}
        steps = [
            (2 * at + 1, number, turn, part)
            for at, (number, turn) in enumerate(numbered.items())
            for part in ("start", "end")
        ]
        for at, (_, turn) in enumerate(numbered.items()):
            streams.head(2 * at + 1, gate, Sent(sent.way, headers=shown(gate, turn, sent.way)))
            if data.draw(st.booleans(), label="at once"):
                number = list(numbered)[at]
                streams.part(2 * at + 1, h.tool("read_thing", {"x": 1}, number), last=True)
                steps = [step for step in steps if step[1] != number]
        started: set[int] = set()
        for stream, number, _, _ in data.draw(st.permutations(steps), label="order"):
            body = h.tool("read_thing", {"x": 1}, number)
            if number in started:
                streams.part(stream, body[20:], last=True)
            else:
                started.add(number)
                streams.part(stream, body[:20], last=False)
        answers = streams.answers(len(numbered))
        for at, number in enumerate(numbered):
            assert f'"id":{number}' in answers[2 * at + 1].decode().replace(" ", "")
        streams.sock.close()
        judge(gate, numbered)

    interleave()


def test_two_peoples_tunnels_through_one_hop_are_their_own(gate: Gate) -> None:
    """The hop opens a tunnel for each: what was shown at one CONNECT is not good in another tunnel."""
    numbered: dict[int, Turn] = {}
    tokens = {"alice": gate.tokens["good"], "bob": gate.tokens["bob"]}
    clients = {
        who: gate.open(
            Sent("connect over TLS", outer="hop", connect={"Proxy-Authorization": h.basic("x", tokens[who])})
        )
        for who in PEOPLE
    }
    for who in ("alice", "bob", "bob", "alice"):
        number = next(gate.ids)
        numbered[number] = Turn(who, "token")
        clients[who].send(gate.request(Sent("connect over TLS"), number))
        answer = clients[who].read()
        assert answer is not None
        assert answer.text == "ran read_thing"
    for client in clients.values():
        client.close()
    judge(gate, numbered)
    assert {row["via"] for number, row in gate.rows().items() if number in numbered} == {"envoy"}
