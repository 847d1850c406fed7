"""What the server of the demo that asks who calls believes: what callerid signed, for it, now, of this."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from callerid.cli.demo import verifier
from callerid.config import Assertion
from callerid.identity.assertion import Asserting
from callerid.identity.signing_keys import Signer
from callerid.model import DecisionRecord, Reason, Verdict

NOW = 1_795_000_000
ISSUER = "urn:uuid:20212223-2425-4627-a829-2a2b2c2d2e2f"
AUDIENCE = "https://tickets.corp.example/mcp"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ASSERTING = Asserting(Assertion(audience=AUDIENCE), Signer(ISSUER, "k1", PRIVATE))
TRUST = verifier.Trust(ISSUER, AUDIENCE, {"k1": PRIVATE.public_key()})
ROW = DecisionRecord(
    event_id="0190a1b2-0000-7000-8000-000000000001",
    time_us=NOW * 1_000_000,
    verdict=Verdict.ALLOW,
    reason=Reason.GRANTED,
    method="tools/call",
    server="tickets",
    upstream="tickets.corp.example:443",
    principal="user:alice@corp.example",
    issuer="local",
    agent="researcher",
    actors=("researcher", "claude-code"),
    assurance="bearer",
    tool="read_ticket",
)
KNOWN = {
    "principal": "user:alice@corp.example",
    "actors": ["researcher", "claude-code"],
    "decision": ROW.event_id,
}


def heard(*tokens: str, trust: verifier.Trust = TRUST, **changes: Any) -> dict[str, Any]:
    call: dict[str, Any] = {"method": "tools/call", "tool": "read_ticket", "now": NOW, **changes}
    return verifier.who_calls(tokens, trust, **call)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(head: dict[str, Any] | None = None, key: Ed25519PrivateKey = PRIVATE, **claims: Any) -> str:
    """What is signed in callerid's way, with other claims; those that are None are left out."""
    parts = ASSERTING.say(ROW, NOW).split(".")
    first, second = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in parts[:2])
    body = {name: value for name, value in {**second, **claims}.items() if value is not None}
    text = f"{b64(json.dumps({**first, **(head or {})}).encode())}.{b64(json.dumps(body).encode())}"
    return f"{text}.{b64(key.sign(text.encode()))}"


def test_what_callerid_signs_is_believed_for_a_minute() -> None:
    token = ASSERTING.say(ROW, NOW)
    for now in (NOW - 5, NOW, NOW + 64):
        assert heard(token, now=now) == KNOWN
    assert heard(forged()) == KNOWN


def test_a_caller_without_an_agent_has_no_actors() -> None:
    row = replace(ROW, principal="workload:ci-docs", agent=None, actors=())
    assert heard(ASSERTING.say(row, NOW)) == {
        "principal": "workload:ci-docs",
        "actors": [],
        "decision": ROW.event_id,
    }


def test_a_request_without_a_body_is_believed_by_its_server_alone() -> None:
    row = replace(ROW, method="http/GET", tool=None)
    assert heard(ASSERTING.say(row, NOW), method=None, tool=None) == KNOWN


@pytest.mark.parametrize(
    ("tokens", "changes", "fault"),
    [
        pytest.param((), {}, "0 assertions", id="none"),
        pytest.param((forged(), forged()), {}, "2 assertions", id="two, of which one could be the caller's"),
        pytest.param((forged(),), {"tool": "close_ticket"}, "it is about", id="another tool"),
        pytest.param((forged(),), {"method": "tools/list"}, "it is about", id="another method"),
        pytest.param((forged(),), {"now": NOW + 65}, "it is not of now", id="too late"),
        pytest.param((forged(),), {"now": NOW - 6}, "it is not of now", id="too early"),
        pytest.param((forged(tctx=None),), {}, "it is about None", id="about nothing"),
        pytest.param(
            (forged(aud="https://wiki.corp.example/mcp"),), {}, "from this issuer", id="another server"
        ),
        pytest.param((forged(aud=[AUDIENCE]),), {}, "from this issuer", id="a list of servers"),
        pytest.param((forged(iss="urn:uuid:other"),), {}, "from this issuer", id="another issuer"),
        pytest.param((forged(exp=None),), {}, "cannot be read", id="without an end"),
        pytest.param((forged(sub=None),), {}, "cannot be read", id="without a principal"),
        pytest.param((forged(sub=""),), {}, "no principal", id="of nobody"),
        pytest.param((forged(txn="another"),), {}, "no decision", id="of two decisions"),
        pytest.param((forged({"alg": "none"}),), {}, "another kind", id="an algorithm of its own"),
        pytest.param((forged({"typ": "JWT"}),), {}, "another kind", id="a JWT for something else"),
        pytest.param((forged({"crit": ["exp"]}),), {}, "another kind", id="an extension"),
        pytest.param((forged({"kid": "k2"}),), {}, "key is not known", id="a key that is not listed"),
        pytest.param((forged({"kid": ["k1"]}),), {}, "key is not known", id="a list as a key's name"),
        pytest.param((forged()[:-8],), {}, "the signature", id="a signature that is cut"),
        pytest.param((forged() + ".x",), {}, "cannot be read", id="four parts"),
        pytest.param(("",), {}, "cannot be read", id="empty"),
        pytest.param(("\u00e9.\u00e9.\u00e9",), {}, "cannot be read", id="not ASCII"),
        pytest.param((f"{b64(b'[' * 30_000)}.e30.AA",), {}, "cannot be read", id="deeper than can be read"),
    ],
)
def test_it_is_not_believed(tokens: tuple[str, ...], changes: dict[str, Any], fault: str) -> None:
    found = heard(*tokens, **changes)
    assert set(found) == {"fault"}
    assert fault in found["fault"]


def test_what_somebody_else_signed_is_not_believed() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    assert heard(forged(key=other)) == {"fault": "the signature is not the issuer's"}


def test_the_keys_are_read_as_callerid_prints_them(tmp_path: Path) -> None:
    jwk = {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": b64(PRIVATE.public_key().public_bytes_raw())}
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"issuer": ISSUER, "jwks": {"keys": [{"kty": "RSA", "crv": None}, jwk]}}))
    assert heard(ASSERTING.say(ROW, NOW), trust=verifier.read_trust(path, AUDIENCE)) == KNOWN
