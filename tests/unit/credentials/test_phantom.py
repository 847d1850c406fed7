from __future__ import annotations

import json
from typing import Any

import pytest

from callerid.credentials.inject import Injection, apply, prepared
from callerid.credentials.outgoing import InPlace, Outgoing
from callerid.credentials.phantom import Spoken, fit, rest
from callerid.credentials.secret import Secret
from callerid.identity.tokens import mint
from tests.unit.credentials.helpers import VALUE, credential

MINE, THEIRS = mint(b"\1" * 32), mint(b"\2" * 32)
SECRET = Secret(VALUE, label="github-shared@v1")


def said(
    *,
    headers: Any = (),
    path: str = "/mcp",
    arguments: Any = None,
    tokens: tuple[str, ...] = (MINE,),
    extra: str = "",
) -> Spoken:
    message = {"method": "tools/call", "params": {"name": "read", "arguments": arguments or {}, "x": extra}}
    return Spoken(
        headers=headers,
        path=path,
        body=json.dumps(message, separators=(",", ":")).encode(),
        arguments=[] if arguments is None else [arguments],
        tokens=tokens,
    )


def fitted(place: str, spoken: Spoken) -> Injection | str | None:
    return fit(prepared(credential(inject="replace", place=place), SECRET), spoken)


def sent(place: str, spoken: Spoken) -> Outgoing:
    injection = fitted(place, spoken)
    assert isinstance(injection, Injection), injection
    out = Outgoing(
        method="POST",
        scheme="https",
        host="h",
        port=443,
        path=spoken.path,
        headers=dict(spoken.headers),
        body=spoken.body,
    )
    apply(injection, out)
    assert MINE not in str(out)
    return out


def test_a_header_that_is_the_token() -> None:
    assert sent("header:X-Api-Key", said(headers=[("x-api-key", MINE)])).headers == {"X-Api-Key": VALUE}


@pytest.mark.parametrize("scheme", ["Bearer", "token", "Token"])
def test_a_header_with_a_scheme_before_the_token(scheme: str) -> None:
    out = sent("header:Authorization", said(headers=[("Authorization", f"{scheme} {MINE}")]))
    assert out.headers == {"Authorization": f"{scheme} {VALUE}"}


def test_a_query_parameter_that_is_the_token() -> None:
    assert (
        sent("query:key", said(path=f"/mcp?a=1&key={MINE}")).path
        == f"/mcp?a=1&key={VALUE.replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}"
    )


@pytest.mark.parametrize(
    ("pointer", "arguments"),
    [
        ("/key", {"key": MINE, "q": 1}),
        ("/auth/keys/1", {"auth": {"keys": ["a", MINE]}}),
        ("/a~1b/c~0d", {"a/b": {"c~d": MINE}}),
    ],
)
def test_an_argument_that_is_the_token(pointer: str, arguments: dict[str, Any]) -> None:
    out = sent(pointer, said(arguments=arguments))
    expected = json.loads(json.dumps(arguments).replace(MINE, VALUE))
    assert json.loads(out.body)["params"]["arguments"] == expected


@pytest.mark.parametrize(
    ("place", "spoken"),
    [
        ("header:X-Api-Key", said()),
        ("header:X-Api-Key", said(headers=[("X-Api-Key", THEIRS)])),
        ("header:X-Api-Key", said(headers=[("X-Api-Key", MINE)], tokens=())),
        ("header:X-Api-Key", said(headers=[("X-Api-Key", MINE + "x")])),
        ("header:X-Api-Key", said(headers=[("X-Api-Key", f"x{MINE}")])),
        ("header:X-Api-Key", said(headers=[("X-Api-Key", f"{MINE} {MINE}")])),
        ("header:X-Api-Key", said(headers=[("X-Api-Key", f"a b {MINE}")])),
        ("header:X-Api-Key", said(headers=[("X-Api-Key", f"a=b {MINE}")])),
        ("header:X-Api-Key", said(headers=[("X-Api-Key", MINE), ("x_api_key", "other")])),
        ("header:X-Api-Key", said(headers=[("X-Other", MINE)])),
        ("query:key", said()),
        ("query:key", said(path=f"/mcp?key={THEIRS}")),
        ("query:key", said(path=f"/mcp?other={MINE}")),
        ("query:key", said(path=f"/mcp?key={MINE}&KEY=other")),
        ("query:key", said(path=f"/mcp?key={MINE}&a=1;key=other")),
        ("query:key", said(path=f"/mcp?key=a{MINE}")),
        ("/key", said(arguments={"q": 1})),
        ("/key", said(arguments={"key": THEIRS})),
        ("/key", said(arguments={"key": f"Bearer {MINE}"})),
        ("/key", said(arguments={"key": [MINE]})),
        ("/key", said(arguments={"key": MINE, "again": MINE})),
        ("/key", said(arguments={"key": MINE}, extra=f"and {MINE}")),
        ("/key", said(arguments={"KEY": MINE})),
    ],
)  # fmt: skip
def test_nothing_but_the_callers_own_token_in_its_place_is_exchanged(place: str, spoken: Spoken) -> None:
    found = fitted(place, spoken)
    assert isinstance(found, str)
    assert "does not stand" in found
    assert MINE not in found
    assert THEIRS not in found


def test_two_messages_with_the_token_are_one_too_many() -> None:
    spoken = said(arguments={"key": MINE})
    twice = Spoken(
        headers=(),
        path="/",
        body=spoken.body + spoken.body,
        arguments=[*spoken.arguments] * 2,
        tokens=(MINE,),
    )
    assert isinstance(fitted("/key", twice), str)


def test_a_message_without_arguments_needs_none() -> None:
    assert fitted("/key", said()) is None


def test_other_kinds_are_left_alone() -> None:
    injection = prepared(credential(), SECRET)
    assert fit(injection, said()) is injection


def test_what_is_left_without_the_token() -> None:
    path, body = rest(InPlace("query", "key"), said(path=f"/mcp?a=1&key={MINE}"))
    assert (path, body) == ("/mcp?a=1", said().body)
    assert MINE.encode() not in rest(InPlace("pointer", "/key"), said(arguments={"key": MINE}))[1]
    # Twice, or another's: it stays, and is found.
    assert MINE.encode() in rest(InPlace("pointer", "/key"), said(arguments={"key": MINE, "b": MINE}))[1]
    assert THEIRS in rest(InPlace("query", "key"), said(path=f"/mcp?key={THEIRS}"))[0]


def test_nothing_of_it_is_shown() -> None:
    assert MINE not in repr(said(headers=[("x", MINE)]))
    assert MINE not in repr(fitted("/key", said(arguments={"key": MINE})))
