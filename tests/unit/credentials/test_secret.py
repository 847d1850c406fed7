from __future__ import annotations

import base64
import copy
import dataclasses
import html
import io
import json
import logging
import pickle
import pprint
import traceback
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest

from callerid.credentials.inject import Injection
from callerid.credentials.secret import MIN_LENGTH, Secret
from callerid.errors import ConfigError
from tests.unit.credentials.helpers import NEXT_VALUE, VALUE

LABEL = "github-shared@v1"


def secret(value: str = VALUE) -> Secret:
    return Secret(value, label=LABEL)


def logged(thing: object) -> str:
    stream = io.StringIO()
    logger = logging.Logger("test")
    logger.addHandler(logging.StreamHandler(stream))
    logger.warning("%s %r", thing, thing, extra={"thing": thing})
    return stream.getvalue()


def traced(thing: object) -> str:
    try:
        raise RuntimeError(thing)
    except RuntimeError as error:
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


PRINTERS: dict[str, Callable[[Any], str]] = {
    "repr": repr,
    "str": str,
    "format": lambda thing: f"{thing} {thing!s} {thing!r}",
    "percent": lambda thing: "%s %r" % (thing, thing),  # noqa: UP031
    "container": lambda thing: repr([thing, {thing: thing}]),
    "pprint": pprint.pformat,
    "json with default": lambda thing: json.dumps(thing, default=str),
    "ascii": ascii,
    "logging": logged,
    "traceback with locals": traced,
    "dir": lambda thing: repr(dir(thing)),
}


@pytest.mark.parametrize("printer", PRINTERS.values(), ids=PRINTERS)
@pytest.mark.parametrize(
    "thing",
    [secret(), secret().within("Bearer {secret}"), Injection(LABEL, "Authorization", secret())],
    ids=["a secret", "a rendered secret", "an injection"],
)
def test_no_printer_gives_the_value(printer: Callable[[Any], str], thing: Any) -> None:
    assert VALUE not in printer(thing)


def test_it_prints_its_name_and_version() -> None:
    assert repr(secret()) == str(secret()) == f"{secret()}" == "<secret github-shared v1>"
    assert f"{secret():>30}" == "     <secret github-shared v1>"


def test_a_dataclass_around_it_turns_into_a_dict_without_the_value() -> None:
    found = dataclasses.asdict(Injection(LABEL, "Authorization", secret()))
    assert VALUE not in repr(found)
    assert isinstance(found["secret"], Secret)


@pytest.mark.parametrize(
    "attempt",
    [
        bytes,
        json.dumps,
        pickle.dumps,
        lambda s: pickle.dumps(s, protocol=0),
        lambda s: pickle.dumps(Injection(LABEL, "Authorization", s)),
        vars,
        iter,
        len,
        lambda s: "" + s,
        lambda s: s.__getstate__(),
        lambda s: s.__reduce__(),
        lambda s: s.__reduce_ex__(2),
        lambda s: type("Loud", (Secret,), {}),
        lambda s: setattr(s, "label", "other"),
        lambda s: delattr(s, "label"),
    ],
)
def test_what_would_take_it_apart_is_refused_without_naming_the_value(attempt: Callable[[Any], Any]) -> None:
    with pytest.raises((TypeError, AttributeError)) as caught:
        attempt(secret())
    assert VALUE not in str(caught.value)


def test_a_copy_is_the_same_object() -> None:
    one = secret()
    assert copy.copy(one) is one
    assert copy.deepcopy([one])[0] is one


def test_equality_is_by_value_and_only_with_another_secret() -> None:
    one = secret()
    assert one == Secret(VALUE, label="other@v9")
    assert hash(one) == hash(Secret(VALUE, label="other@v9"))
    assert one != secret(NEXT_VALUE)
    assert one != VALUE


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("x" * (MIN_LENGTH - 1), "shorter than 12"),
        ("", "shorter than 12"),
        ("good-until-here\r\nX-Admin: yes", "a header cannot carry"),
        ("good-until-here\nmore", "a header cannot carry"),
        ("good-until-here\x00more", "a header cannot carry"),
        ("good-until-here\x7f", "a header cannot carry"),
        ("g\u00fct-until-here", "a header cannot carry"),
        ("good-until-here\u2028", "a header cannot carry"),
        (" good-until-here", "space"),
        ("good-until-here ", "space"),
        (b"bytes-are-not-text", "not text"),
    ],
)
def test_a_value_that_cannot_be_carried_or_scrubbed_makes_no_secret(value: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Secret(value, label=LABEL)
    error = caught.value
    assert error.hint
    assert error.__context__ is None
    frames = traceback.TracebackException.from_exception(error, capture_locals=True).stack
    (own,) = [frame for frame in frames if frame.name == "__init__"]
    assert own.locals
    if value:
        assert not any(str(value)[:10] in shown for shown in own.locals.values())
        assert str(value) not in str(error)


def test_the_shortest_secret_is_twelve_characters() -> None:
    assert secret("x" * 12).reveal() == "x" * 12


def test_rendering_into_a_header() -> None:
    assert secret().within("Bearer {secret}").reveal() == f"Bearer {VALUE}"
    assert secret().within("Token t={secret}, v=1").reveal() == f"Token t={VALUE}, v=1"
    assert secret().within("{secret}").label == LABEL
    basic = secret().as_basic("svc").reveal()
    assert base64.b64decode(basic.removeprefix("Basic ")).decode() == f"svc:{VALUE}"


def test_a_secret_that_looks_like_a_template_is_not_expanded() -> None:
    odd = "{secret}{secret}{0.__class__}%s"
    assert secret(odd).within("Bearer {secret}").reveal() == f"Bearer {odd}"


@pytest.mark.parametrize(
    "template",
    ["", "Bearer", "{secret}{secret}", "Bearer {secret}\r\nX-Admin: yes", "B\u00e9 {secret}", "{Secret}"],
)
def test_a_template_that_cannot_make_a_header_is_refused(template: str) -> None:
    with pytest.raises(ConfigError, match="template") as caught:
        secret().within(template)
    assert VALUE not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("username", ["a:b", "a\r\nb", "\u00e9ve", "a\x00"])
def test_a_username_that_cannot_stand_in_basic_is_refused(username: str) -> None:
    with pytest.raises(ConfigError, match="username") as caught:
        secret().as_basic(username)
    assert VALUE not in str(caught.value) + caught.value.hint


ODD = "a\"b\\c/d<e>&f'g+h=i j%k?lmn"


@pytest.mark.parametrize("value", [VALUE, ODD, "plainAlnum0123456789"])
@pytest.mark.parametrize(
    "echo",
    [
        pytest.param(lambda v: v, id="raw"),
        pytest.param(lambda v: urllib.parse.quote(v, safe=""), id="percent-encoded"),
        pytest.param(lambda v: urllib.parse.quote(v), id="percent-encoded, slashes kept"),
        pytest.param(lambda v: urllib.parse.quote_plus(v), id="form-encoded"),
        pytest.param(lambda v: urllib.parse.quote(v, safe="!'()*~"), id="encodeURIComponent"),
        pytest.param(lambda v: urllib.parse.quote(v, safe=";,/?:@&=+$#!'()*~"), id="encodeURI"),
        pytest.param(lambda v: "".join(f"%{ord(c):02x}" for c in v), id="every byte percent-encoded"),
        pytest.param(lambda v: json.dumps(v)[1:-1], id="JSON-escaped"),
        pytest.param(lambda v: json.dumps(v, ensure_ascii=False)[1:-1], id="JSON-escaped, not ASCII"),
        pytest.param(lambda v: json.dumps(v)[1:-1].replace("/", "\\/"), id="JSON as PHP writes it"),
        pytest.param(
            lambda v: (
                json.dumps(v)[1:-1].replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
            ),
            id="JSON as Go writes it",
        ),
        pytest.param(lambda v: json.dumps(json.dumps({"k": v}))[1:-1], id="JSON within JSON"),
        pytest.param(html.escape, id="HTML-escaped"),
        pytest.param(lambda v: v.encode().hex(), id="hex"),
        pytest.param(lambda v: v.encode().hex().upper(), id="HEX"),
        pytest.param(lambda v: base64.b64encode(v.encode()).decode(), id="base64"),
        pytest.param(lambda v: base64.urlsafe_b64encode(v.encode()).decode().rstrip("="), id="base64url"),
        pytest.param(lambda v: base64.b64encode(f"svc:{v}".encode()).decode(), id="basic"),
        pytest.param(
            lambda v: urllib.parse.quote(base64.b64encode(f"svc:{v}".encode()), safe=""),
            id="basic, percent-encoded",
        ),
        *(
            pytest.param(
                lambda v, n=n, tail=tail: base64.b64encode(b"~" * n + v.encode() + tail).decode(),
                id=f"base64 at offset {n}, then {tail!r}",
            )
            for n in range(5)
            for tail in (b"", b"\xff", b"\xff\xff")
        ),
    ],
)
def test_each_echo_holds_a_needle(value: str, echo: Callable[[str], str]) -> None:
    text = echo(value).encode()
    assert any(needle in text for needle in secret(value).renderings("svc"))


def test_needles_are_distinct_ascii_and_the_longest_comes_first() -> None:
    needles = secret(ODD).renderings("svc")
    assert len(set(needles)) == len(needles)
    assert list(map(len, needles)) == sorted(map(len, needles), reverse=True)
    assert all(needle.isascii() and len(needle) >= MIN_LENGTH for needle in needles)


def test_the_whole_credential_of_basic_is_a_needle_only_with_a_username() -> None:
    whole = base64.b64encode(f"svc:{VALUE}".encode())
    assert whole in secret().renderings("svc")
    assert whole not in secret().renderings()


def test_base64_needles_hold_nothing_of_their_neighbours() -> None:
    """Each would be the same whatever stood before and after the secret."""
    for needle in secret().renderings():
        if needle in base64.b64encode(b"\x00" + VALUE.encode() + b"\x00"):
            assert needle in base64.b64encode(b"\xff" + VALUE.encode() + b"\xff")
