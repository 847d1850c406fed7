"""What callers may not say to servers, and what is said to them instead."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.config import Assertion, Server, Servers
from callerid.credentials.store import Refused
from callerid.identity.assertion import Asserting
from callerid.identity.signing_keys import CHANCE_BYTES, FILE, Signer, SigningKeys
from callerid.mcp import strictjson
from callerid.model import DecisionRecord, Reason, Verdict
from callerid.proxy.facts import Ruling
from callerid.proxy.propagate import (
    META_NAME,
    header_names,
    speak,
    spoofed,
    to_be_said,
    without_claims,
)

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = Signer("urn:uuid:x", "k1", PRIVATE)


def server(**changes: Any) -> Server:
    given: dict[str, Any] = {
        "id": "things", "scheme": "https", "host": "things.corp.example", "port": 443, "path": "/mcp",
        "assertion": Assertion(audience="urn:things"), **changes,
    }  # fmt: skip
    return Server(**given)


# -- the caller's own words


def test_the_headers_of_all_servers_count_for_every_one_of_them() -> None:
    names = header_names(
        Servers(
            servers=(
                server(),
                server(id="other", assertion=Assertion(audience="a", header="X_Who-Calls")),
                server(id="none", assertion=None),
            )
        )
    )
    assert names == {"x-callerid-assertion", "x-who-calls"}
    said = [("X-Who-Calls", "1"), ("x_who_calls", "2"), ("X-Callerid_Assertion ", "3"), ("X-Who-Call", "4")]
    assert spoofed(said, names) == ("X-Who-Calls", "x_who_calls", "X-Callerid_Assertion ")
    assert spoofed(said, frozenset()) == ()
    twins = ["X.Who.Calls", "X~Who~Calls", "x!who+calls", "X_Who.Calls"]
    assert spoofed([(name, "1") for name in (*twins, "XWhoCalls")], names) == tuple(twins)


META_NAMES = st.sampled_from(
    (
        "callerid/assertion",
        "CALLERID/assertion",
        "callerid/",
        "callerıd/x",
        "callerİd/x",
        "callerid",
        "other",
        " callerid/assertion",
        "\u00a0callerid/x",
    )
)
METAS = st.dictionaries(META_NAMES, st.integers() | st.just({"callerid/assertion": "deep"}), max_size=4)
PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "_meta": METAS | st.none(), "_Meta": METAS, "_META": METAS, "name": st.text(max_size=5),
        "arguments": st.fixed_dictionaries({"_meta": METAS}),
    },
)  # fmt: skip
MESSAGES = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0")}, optional={"method": st.just("x"), "params": PARAMS, "result": PARAMS}
)


def ours(meta: Any) -> list[str]:
    if not isinstance(meta, dict):
        return []
    return [name for name in meta if strictjson.fold(name).strip().startswith("callerid/")]


@settings(max_examples=200, deadline=None)
@given(MESSAGES | st.lists(MESSAGES, min_size=1, max_size=3))
def test_nothing_under_our_prefix_is_left_in_meta_and_everything_else_is(envelope: Any) -> None:
    body = strictjson.dumps(envelope)
    left = json.loads(without_claims(body))
    expected = copy.deepcopy(envelope)
    for message in expected if isinstance(expected, list) else [expected]:
        for part in (message.get("params"), message.get("result")):
            for name in [n for n in part or {} if strictjson.fold(n) == "_meta"]:
                for member in ours(part[name]):
                    del part[name][member]
    assert left == expected
    assert without_claims(without_claims(body)) == without_claims(body)


def test_a_body_without_such_a_name_is_not_read_at_all() -> None:
    body = b"not even JSON"
    assert without_claims(body) is body


def test_no_spelling_of_our_prefix_escapes_the_quick_look() -> None:
    """Readers that ignore case fold some letters beyond ASCII; none of those that the look is for."""
    beyond = (chr(code) for code in range(0x80, 0x110000) if not 0xD800 <= code < 0xE000)
    assert not [char for char in beyond if strictjson.fold(char) in set("caller")]


# -- who may be told


def test_a_server_that_did_not_ask_is_told_nothing(tmp_path: Path) -> None:
    keys = SigningKeys(tmp_path / FILE)
    assert to_be_said(None, keys, 0) is None
    assert to_be_said(server(assertion=None), keys, 0) is None


def test_without_a_key_a_server_that_asked_is_not_called(tmp_path: Path) -> None:
    keys = SigningKeys(tmp_path / FILE)
    refused = to_be_said(server(), keys, 0)
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.CREDENTIAL_UNAVAILABLE
    assert keys.make(0, bytes(CHANCE_BYTES)) is None
    assert isinstance(to_be_said(server(), keys, 0), Asserting)


# -- what is told


def record(event_id: str = "e1", **changes: Any) -> DecisionRecord:
    given: dict[str, Any] = {
        "event_id": event_id, "time_us": 0, "verdict": Verdict.ALLOW, "reason": Reason.GRANTED,
        "method": "tools/call", "server": "things", "upstream": "-", "principal": "user:alice@corp.example",
        "tool": "read_thing", **changes,
    }  # fmt: skip
    return DecisionRecord(**given)


def ruling(body: bytes, *records: DecisionRecord, meta: bool = True, **changes: Any) -> Ruling:
    to = Assertion(audience="urn:things", meta=meta)
    given: dict[str, Any] = {"server": server(assertion=to), "asserting": Asserting(to, SIGNER), **changes}
    return Ruling(records=records or (record(),), answer=None, body=body, **given)


def jti(token: str) -> str:
    said = jwt.decode(token, PRIVATE.public_key(), ["EdDSA"], {"verify_exp": False}, audience="urn:things")
    return str(said["jti"])


def test_nothing_is_signed_before_it_is_asked_to_speak() -> None:
    """The rows are durable by then: a ruling as the walk makes it holds no statement yet."""
    made = ruling(b"{}")
    assert made.headers == ()
    assert b"eyJ" not in repr(made).encode()


def test_a_ruling_without_it_goes_as_it_is() -> None:
    made = ruling(b'{"params":{}}', asserting=None)
    assert speak(made, 5) is made


@pytest.mark.parametrize(
    "body", [b"", b'{"jsonrpc":"2.0","id":1,"result":{"action":"decline"}}'], ids=["a GET", "an answer"]
)
def test_where_there_is_nothing_to_ask_only_the_header_speaks(body: bytes) -> None:
    said = speak(ruling(body), 1_000_000)
    assert said.body == body
    [(name, value)] = said.headers
    assert (name, jti(value.decode())) == (b"X-Callerid-Assertion", "e1")


def test_an_http_api_gets_no_meta_whatever_its_entry_says() -> None:
    to = Assertion(audience="urn:things", meta=True)
    body = b'{"method":"transfer","params":{}}'
    assert speak(ruling(body, server=server(kind="http", assertion=to)), 0).body == body


def test_of_a_batch_with_refused_answers_only_those_that_go_are_named() -> None:
    body = b'[{"jsonrpc":"2.0","id":1,"result":{}},{"jsonrpc":"2.0","id":2,"error":{"code":1,"message":"x"}}]'
    rows = record("e1", batch_index=0), record("e2", batch_index=1, verdict=Verdict.DENY)
    said = speak(ruling(body, *rows), 0)
    assert said.body == body
    claims = jwt.decode(
        said.headers[0][1], PRIVATE.public_key(), ["EdDSA"], {"verify_exp": False}, audience="urn:things"
    )
    assert claims["tctx"]["decisions"] == ["e1"]


def test_of_several_rows_about_one_message_the_first_speaks() -> None:
    first, second = b'{"id":1,"method":"a"}', b'{"id":2,"method":"b","params":{"_meta":{"x":1}}}'
    body = b"[" + first + b"," + second + b"]"
    rows = (record("e1", batch_index=0), record("e2", batch_index=0), record("e3", batch_index=1))
    said = speak(ruling(body, *rows), 0)
    assert said.body is not None
    metas = [message["params"]["_meta"] for message in json.loads(said.body)]
    assert [jti(meta[META_NAME]) for meta in metas] == ["e1", "e3"]
    assert metas[1]["x"] == 1
