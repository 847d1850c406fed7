"""Unsafe settings do not start, and the text says why."""

from __future__ import annotations

from typing import Any

import pytest
from mitmproxy import options
from mitmproxy.addons import block, proxyauth, proxyserver, save, tlsconfig
from mitmproxy.test import taddons

from callerid.errors import ConfigError
from callerid.proxy import harden

ADDONS = (proxyserver.Proxyserver, tlsconfig.TlsConfig, block.Block, save.Save, proxyauth.ProxyAuth)


@pytest.fixture
def opts() -> options.Options:
    """mitmproxy's options as a mitmdump knows them, made safe."""
    with taddons.context(*(addon() for addon in ADDONS)) as context:
        context.options.update(**harden.safe_values(context.options))
        return context.options


def test_the_safe_values_pass(opts: options.Options) -> None:
    harden.check(opts, {})
    assert opts.connection_strategy == "lazy"
    assert opts.rawtcp is False
    assert opts.body_size_limit is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rawtcp", True),
        ("connection_strategy", "eager"),
        ("http3", True),
        ("websocket", True),
        ("validate_inbound_headers", False),
        ("ssl_insecure", True),
        ("store_streamed_bodies", True),
        ("keep_host_header", True),
        ("proxy_debug", True),
        ("block_global", True),
        ("stream_large_bodies", "1m"),
        ("save_stream_file", "flows"),
        ("ignore_hosts", ["example"]),
        ("allow_hosts", ["example"]),
        ("tcp_hosts", ["example"]),
        ("proxyauth", "any"),
        ("body_size_limit", "16m"),
        ("mode", ["socks5"]),
        ("mode", ["transparent"]),
        ("mode", ["upstream:http://proxy.corp.example:3128"]),
        ("mode", ["reverse:tcp://db.corp.example:5432"]),
        ("mode", ["regular", "dns"]),
    ],
)
def test_an_unsafe_setting_is_refused_with_its_name_and_the_reason(
    opts: options.Options, name: str, value: Any
) -> None:
    opts._options[name].set(value)
    with pytest.raises(ConfigError) as caught:
        harden.check(opts, {})
    assert name in str(caught.value)
    assert caught.value.hint


def test_all_unsafe_settings_are_named_at_once(opts: options.Options) -> None:
    opts._options["rawtcp"].set(True)
    opts._options["ssl_insecure"].set(True)
    with pytest.raises(ConfigError, match=r"(?s)rawtcp.*ssl_insecure"):
        harden.check(opts, {})


@pytest.mark.parametrize("name", harden.ENVIRONMENT)
def test_a_key_log_in_the_environment_is_refused(opts: options.Options, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        harden.check(opts, {name: "keys.txt"})


def test_a_value_that_somebody_chose_is_left_for_the_check(opts: options.Options) -> None:
    opts._options["connection_strategy"].set("lazy")
    opts._options["validate_inbound_headers"].set(False)
    assert "validate_inbound_headers" not in harden.safe_values(opts)


def test_reverse_modes_over_http_are_served(opts: options.Options) -> None:
    opts._options["mode"].set(["regular", "reverse:https://mcp.corp.example/@127.0.0.1:8443"])
    harden.check(opts, {})
