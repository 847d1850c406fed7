from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.proxy import mode_specs

from callerid.proxy.called import HOST, origin_called


def called(
    said: str | None, *, tls: bool = True, sni: str | None = None, at: Any = ("127.0.0.1", 8443),
    mode: str = "reverse:https://up.corp.example/",
) -> str | None:  # fmt: skip
    client = SimpleNamespace(proxy_mode=mode_specs.ProxyMode.parse(mode), tls=tls, sni=sni, sockname=at)
    flow: Any = SimpleNamespace(client_conn=client, metadata={HOST: said})
    return origin_called(flow)


@pytest.mark.parametrize(
    ("said", "sni", "origin"),
    [
        ("mcp.corp.example:8443", "mcp.corp.example", "https://mcp.corp.example:8443"),
        ("MCP.corp.example", "mcp.corp.example", "https://mcp.corp.example"),
        ("mcp.corp.example:443", "mcp.corp.example", "https://mcp.corp.example"),
        ("127.0.0.1:8443", None, "https://127.0.0.1:8443"),
        ("evil.corp.example:8443", "mcp.corp.example", None),
        ("evil.corp.example:8443", None, None),
        ("mcp.corp.example/x", "mcp.corp.example", None),
        ("user@mcp.corp.example", "mcp.corp.example", None),
        ('mcp.corp.example", error="x', "mcp.corp.example", None),
        ("", "mcp.corp.example", None),
        (None, "mcp.corp.example", None),
    ],
)
def test_over_tls_it_is_the_name_that_the_certificate_was_asked_for(
    said: str | None, sni: str | None, origin: str | None
) -> None:
    assert called(said, sni=sni) == origin


@pytest.mark.parametrize(
    ("said", "at", "origin"),
    [
        ("127.0.0.1:8443", ("127.0.0.1", 8443), "http://127.0.0.1:8443"),
        ("localhost:8443", ("127.0.0.1", 8443), "http://localhost:8443"),
        ("[::1]:8443", ("::1", 8443, 0, 0), "http://[::1]:8443"),
        ("localhost:8443", ("10.0.0.5", 8443), None),
        ("10.0.0.5:80", ("10.0.0.5", 8443), None),
        ("10.0.0.5", ("10.0.0.5", 80), "http://10.0.0.5"),
        ("evil.corp.example:8443", ("10.0.0.5", 8443), None),
        ("10.0.0.5:8443", None, None),
    ],
)
def test_in_the_clear_it_is_the_listeners_own_address(said: str, at: Any, origin: str | None) -> None:
    assert called(said, tls=False, at=at) == origin


def test_a_forward_proxy_is_called_nothing() -> None:
    assert called("mcp.corp.example", sni="mcp.corp.example", mode="regular") is None
