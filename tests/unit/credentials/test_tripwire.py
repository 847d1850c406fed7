from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.config import Binding, Credential
from callerid.credentials.scrub import Scrubber
from callerid.credentials.secret import Secret
from callerid.credentials.tripwire import (
    MAX_VALUES,
    NOTHING,
    Held,
    Tripwire,
    candidates,
    deployment_key,
    fingerprint,
    refusal,
)
from callerid.errors import StoreError

KEY = b"k" * 32
RAW = 'raw"key/4f9c+2a7d=81'
BOUND = Binding(hosts=frozenset({("things.corp.example", 443)}))

type Action = Literal["deny", "alert", "replace"]


def credential(name: str = "things-key", action: Action = "deny", **more: Any) -> Credential:
    return Credential(
        id=name, source_kind="env", source="X", inject=more.pop("inject", "bearer"), binding=BOUND,
        tripwire=action, **more,
    )  # fmt: skip


def held(value: str = RAW, label: str = "things-key@v1", action: Action = "deny", **more: Any) -> Held:
    secret = Secret(value, label=label)
    return credential(label.partition("@")[0], action, **more), secret, secret.renderings()


def tripwire(*secrets: Held, key: bytes = KEY) -> Tripwire:
    return Tripwire(key, secrets, Scrubber(needle for _, _, needles in secrets for needle in needles))


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


HEADERS = {
    "Bearer": [("Authorization", f"Bearer {RAW}")],
    "no scheme": [("authorization", RAW)],
    "a scheme that nobody knows": [("Authorization", f"Whatever   {RAW} ")],
    "a password": [("Authorization", basic(f"x:{RAW}"))],
    "a name": [("Authorization", basic(f"{RAW}:"))],
    "a password without padding": [("Authorization", basic(f"xx:{RAW}").rstrip("="))],
    "a proxy's password": [("Proxy-Authorization", basic(f"alice:{RAW}"))],
    "a header for keys": [("X-Api-Key", RAW)],
    "a header for tokens, with underscores": [("PRIVATE_TOKEN", RAW)],
    "part of a header of any name": [("X-Note", f"see {RAW} there")],
    "the name of a header": [(f"X-{RAW.replace(chr(34), '').replace('/', '')}", "1")],
    "a cookie": [("Cookie", f"a=1; s={quote(RAW, safe='')}; b=2")],
    "a cookie in quotes": [("Cookie", f's="{RAW}"')],
    "the second of two": [("Authorization", "Bearer cid_x"), ("Authorization", f"Bearer {RAW}")],
}


@pytest.mark.parametrize("where", [name for name in HEADERS if name != "the name of a header"])
def test_a_raw_key_in_a_header_is_found(where: str) -> None:
    noticed = tripwire(held()).look(HEADERS[where], "/mcp")
    assert {hit.label for hit in noticed.hits} == {"things-key@v1"}
    assert {hit.fingerprint for hit in noticed.hits} == {fingerprint(KEY, RAW)}
    assert noticed.hits[0].place.header == HEADERS[where][-1][0]
    assert "things-key@v1" in noticed.refused
    assert RAW not in repr(noticed)


PATHS = {
    "encoded": f"/mcp?k={quote(RAW, safe='')}",
    "as it is": f"/mcp?k={RAW}",
    "every byte encoded": "/mcp?k=" + "".join(f"%{ord(c):02X}" for c in RAW),
    "some letters encoded": f"/mcp?k={quote(RAW, safe='').replace('r', '%72').replace('k', '%6b')}",
    "as a name": f"/mcp?{quote(RAW, safe='')}",
    "within a value": f"/mcp?url=https%3A%2F%2Fx%2F%3Fk%3D{quote(RAW, safe='')}",
}


@pytest.mark.parametrize("how", PATHS)
def test_a_raw_key_in_the_query_is_found_and_can_be_replaced(how: str) -> None:
    path = PATHS[how].replace("?", "?a=1&") + "&b=2"
    noticed = tripwire(held(action="replace")).look([], path)
    assert {hit.place.pair for hit in noticed.hits} == {1}
    assert (noticed.refused, noticed.path) == ("", "/mcp?a=1&b=2")


def test_a_raw_key_in_the_path_cannot_be_replaced() -> None:
    noticed = tripwire(held(action="replace")).look([], f"/{quote(RAW, safe='')}/mcp")
    assert "cannot be replaced" in noticed.refused


@pytest.mark.parametrize("action", ["deny", "replace"])
def test_a_raw_key_that_breaks_the_query_in_two_is_refused(action: Action) -> None:
    raw = "part-one&part=two"
    noticed = tripwire(held(raw, action=action)).look([], f"/mcp?a=1&k={raw}&b=2")
    assert "in the URL" in noticed.refused


@pytest.mark.parametrize(
    ("action", "refused"), [("deny", "stands"), ("replace", "cannot be replaced"), ("alert", "")]
)
def test_a_raw_key_in_the_body_is_refused_unless_it_only_alerts(action: Action, refused: str) -> None:
    body = json.dumps({"params": {"arguments": {"note": f"key={RAW}."}}}).encode()
    hit = tripwire(held(action=action)).in_body(body)
    assert hit is not None
    assert (hit.label, hit.place.text) == ("things-key@v1", "in the body")
    sentence = refusal(NOTHING, hit)
    assert refused in sentence
    assert bool(sentence) == bool(refused)


def test_what_is_taken_out_is_all_of_it_and_nothing_else() -> None:
    other = "another-secret-7d1e"
    headers = [
        ("Host", "x"), ("X-Key", RAW), ("x-key", "innocent, but of one name"), ("X-Note", f"a {other} b"),
    ]  # fmt: skip
    wire = tripwire(held(action="replace"), held(other, "other@v3", "replace"))
    noticed = wire.look(headers, f"/p?one={other}&two=2&three={quote(RAW, safe='')}")
    assert noticed.strip == ("X-Key", "X-Note")
    assert noticed.path == "/p?two=2"
    left = [pair for pair in headers if pair[0] not in noticed.strip]
    assert wire.look(left, noticed.path) == NOTHING


def test_the_strictest_of_several_decides() -> None:
    wire = tripwire(held(action="alert"), held("another-secret-7d1e", "other@v3", "deny"))
    noticed = wire.look([("X-Key", RAW), ("Y-Key", "another-secret-7d1e")], "/")
    assert "other@v3" in noticed.refused
    assert {hit.label for hit in noticed.hits} == {"things-key@v1", "other@v3"}


def test_a_key_that_only_alerts_stays_where_it_is() -> None:
    noticed = tripwire(held(action="alert")).look([("X-Key", RAW)], f"/?k={RAW}")
    assert (noticed.refused, noticed.strip, noticed.path) == ("", (), None)
    assert len(noticed.hits) == 2


def test_the_versions_before_are_found_too() -> None:
    wire = tripwire(held(), held("another-secret-7d1e", "things-key@v2"))
    for value, label in ((RAW, "things-key@v1"), ("another-secret-7d1e", "things-key@v2")):
        assert wire.look([("X-Key", value)], "/").hits[0].label == label


def test_a_whole_header_value_of_ours_is_found() -> None:
    entry = held("short-secret-1", inject="header", header="X-Key", template="key={secret}")
    assert tripwire(entry).look([("X-Key", "key=short-secret-1")], "/").hits


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="nothing"),
        pytest.param([("Authorization", "Bearer cid_" + "a" * 49)], id="a token of ours"),
        pytest.param([("Authorization", basic("alice:cid_" + "a" * 49))], id="a token of ours in Basic"),
        pytest.param([("Authorization", f"Bearer {RAW[:-1]}")], id="all but one character"),
        pytest.param([("Authorization", "Basic !!!"), ("Cookie", ";;;="), ("X-Key", "")], id="garbage"),
    ],
)
def test_what_is_not_the_key_is_nothing(headers: list[tuple[str, str]]) -> None:
    assert tripwire(held()).look(headers, "/mcp?a=b&c=dddddddddddddddd&&=") is NOTHING
    assert tripwire(held()).in_body(b'{"a":1}') is None


def test_without_secrets_nothing_is_looked_at() -> None:
    assert Tripwire(KEY, (), Scrubber(())).look([("X-Key", RAW)], "/") is NOTHING
    assert Tripwire(KEY, (), Scrubber(())).in_body(RAW.encode()) is None


def test_a_secret_that_is_only_scrubbed_any_more_trips_nothing() -> None:
    wire = Tripwire(KEY, [held()], Scrubber([b"retired-secret-1", *held()[2]]))
    assert wire.look([("X-Key", "retired-secret-1")], "/") is NOTHING


def test_many_values_are_not_all_digested_and_still_searched() -> None:
    crowd = [(f"X-{n}-Key", f"a-value-of-some-length-{n}") for n in range(MAX_VALUES + 5)]
    noticed = tripwire(held()).look([*crowd, ("Y-Key", RAW)], "/")
    assert [hit.place.header for hit in noticed.hits] == ["Y-Key"]


def test_a_fingerprint_depends_on_the_key_of_the_deployment() -> None:
    assert fingerprint(KEY, RAW) == Secret(RAW, label="x").digest(KEY).hex()[:32]
    assert fingerprint(KEY, RAW) != fingerprint(b"j" * 32, RAW)
    assert len(fingerprint(KEY, "")) == 32


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=20), st.text(max_size=60)), max_size=6),
    st.text(max_size=80),
    st.binary(max_size=80),
)
def test_it_is_total_and_finds_nothing_in_noise(
    headers: list[tuple[str, str]], path: str, body: bytes
) -> None:
    wire = tripwire(held())
    assert wire.look(headers, path) is NOTHING
    assert wire.in_body(body) is None
    assert all(value for value, _ in candidates(headers, path))


def spellings(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    yield secret.encode().hex()
    yield base64.b64encode(secret.encode()).decode()
    yield base64.urlsafe_b64encode(b"xy" + secret.encode()).decode()


@settings(max_examples=150, deadline=None)
@given(
    st.text("abcdefgh0123456789-._~/+=", min_size=12, max_size=40),
    st.text("xyzXYZ :,;", max_size=10),
    st.text("xyzXYZ :,;", max_size=10),
    st.integers(0, 4),
)
def test_however_it_is_spelled_and_surrounded_it_is_found(
    secret: str, before: str, after: str, how: int
) -> None:
    spelled = list(spellings(secret))[how]
    noticed = tripwire(held(secret, action="replace")).look([("X-Note", before + spelled + after)], "/")
    assert noticed.strip == ("X-Note",)


def test_the_deployments_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "fingerprint.key"
    before = os.umask(0)
    try:
        assert deployment_key(path, KEY) == KEY
    finally:
        os.umask(before)
    assert deployment_key(path, b"j" * 32) == KEY
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["fingerprint.key"]


def test_a_looser_mode_of_the_key_is_tightened(tmp_path: Path) -> None:
    path = tmp_path / "fingerprint.key"
    deployment_key(path, KEY)
    path.chmod(0o644)
    deployment_key(path, KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_key_of_another_length_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fingerprint.key"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="does not hold") as caught:
        deployment_key(path, KEY)
    assert caught.value.hint
    assert path.read_bytes() == content


def test_a_key_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be"):
        deployment_key(tmp_path / "nowhere" / "fingerprint.key", KEY)


def test_it_does_not_print_what_it_knows() -> None:
    wire = tripwire(held())
    assert repr(wire) == "<tripwire over 1 secrets>"
    assert RAW not in repr(wire._known)
