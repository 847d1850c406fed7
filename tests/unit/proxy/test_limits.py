"""The table of limits: every option has a default within its bounds, and a text that tells what is wrong."""

from __future__ import annotations

from dataclasses import fields
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.test import taddons

from callerid.errors import ConfigError
from callerid.mcp import classify, sse, strictjson
from callerid.proxy import limits
from callerid.proxy.addon import CalleridAddon
from callerid.proxy.limits import DEFAULTS, OPTIONS, Limits, Unit


class Given:
    """Options as somebody set them; the others stand at their defaults."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def __getattr__(self, name: str) -> Any:
        option = next(option for option in OPTIONS if option.name == name)
        return self.values.get(name, [] if option.unit is Unit.PLACES else option.default)


def test_each_limit_has_one_option() -> None:
    named = [option.field for option in OPTIONS]
    assert sorted(named) == sorted(field.name for field in fields(Limits) if field.init)
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)
    assert all(option.name.startswith("callerid_") for option in OPTIONS)


def test_mitmproxy_knows_every_option_and_gives_the_defaults() -> None:
    with taddons.context(CalleridAddon()) as context:
        assert limits.read(context.options) == DEFAULTS
        for option in OPTIONS:
            assert option.name in context.options


def test_the_defaults_are_those_of_the_wire() -> None:
    assert DEFAULTS.body == strictjson.MAX_BYTES
    assert DEFAULTS.depth == strictjson.MAX_DEPTH
    assert DEFAULTS.digits == strictjson.MAX_DIGITS
    assert DEFAULTS.event == sse.MAX_EVENT
    taken = classify.classify.__kwdefaults__
    assert {name: taken[name] for name in DEFAULTS.reading} == dict(DEFAULTS.reading)


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("callerid_max_body", "8m", "body", 8 << 20),
        ("callerid_max_body", "8M", "body", 8 << 20),
        ("callerid_max_head", "4096", "head", 4096),
        ("callerid_max_upload", "1g", "upload", 1 << 30),
        ("callerid_max_batch", "1", "batch", 1),
        ("callerid_head_seconds", "0.2", "head_seconds", 0.2),
        ("callerid_idle_seconds", "0", "idle_seconds", 0),
        ("callerid_stream_idle_seconds", "0", "stream_idle_seconds", 0),
    ],
)
def test_a_value_is_read(name: str, text: str, field: str, value: float) -> None:
    assert getattr(limits.read(Given(**{name: text})), field) == value


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("callerid_max_body", "8mb", "not a size"),
        ("callerid_max_body", "", "not a size"),
        ("callerid_max_body", "-1", "not a size"),
        ("callerid_max_body", "1e6", "not a size"),
        ("callerid_max_body", "\u0661", "not a size"),
        ("callerid_max_body", "512", "1 KiB to 256 MiB"),
        ("callerid_max_body", "2g", "1 KiB to 256 MiB"),
        ("callerid_max_head", "0", "4 KiB to 1 MiB"),
        ("callerid_max_batch", "2.5", "not a number"),
        ("callerid_max_batch", "0", "1 to 1000"),
        ("callerid_max_digits", "5000", "20 to 4300"),
        ("callerid_head_seconds", "30s", "not a number"),
        ("callerid_head_seconds", "0", "0.05 s to 3600 s"),
        ("callerid_head_seconds", "nan", "not a number"),
        ("callerid_stream_idle_seconds", "100000", "or 0"),
        ("callerid_max_in_flight", "9" * 400, "not a number"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_with_its_name(name: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        limits.read(Given(**{name: text}))
    assert f"{name}={text}" in str(caught.value)
    assert said in str(caught.value)
    assert caught.value.hint


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)callerid_max_body.*callerid_head_seconds"):
        limits.read(Given(callerid_max_body="x", callerid_head_seconds="x"))


@pytest.mark.parametrize(
    ("text", "hosts", "networks"),
    [
        ("10.1.0.0/16", [], ["10.1.0.0/16"]),
        ("10.1.2.3/16", [], ["10.1.0.0/16"]),
        ("127.0.0.1", [], ["127.0.0.1/32"]),
        ("::1", [], ["::1/128"]),
        ("[::1]", [], ["::1/128"]),
        ("fd00::/8", [], ["fd00::/8"]),
        ("Lab.Corp.Example.", ["lab.corp.example"], []),
        ("localhost", ["localhost"], []),
    ],
)
def test_a_private_place_is_read(text: str, hosts: list[str], networks: list[str]) -> None:
    found = limits.read(Given(callerid_private=[text])).private
    assert found.hosts == frozenset(hosts)
    assert found.networks == tuple(map(ip_network, networks))


@pytest.mark.parametrize(
    "text",
    [
        *("", "*", "*.corp.example", "10.1.0.0/33", "0x7f.1", "127.1", "lab.corp.example:80"),
        *("http://lab", "a b", "a/b"),
    ],
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="callerid_private"):
        limits.read(Given(callerid_private=[text]))


def test_what_is_set_low_takes_along_what_could_not_be_beyond_it() -> None:
    found = limits.read(Given(callerid_max_body="16k", callerid_max_upload="8k"))
    assert (found.anonymous, found.upload) == (16 << 10, 16 << 10)


@given(st.text(max_size=20))
def test_any_text_is_a_value_or_a_clear_refusal(text: str) -> None:
    for option in OPTIONS:
        given_text = [text] if option.unit is Unit.PLACES else text
        try:
            limits.read(Given(**{option.name: given_text}))
        except ConfigError:
            with pytest.raises(ConfigError, match=option.name):
                limits.read(Given(**{option.name: given_text}))
