"""What a flow shows of its sender, as plain values: every header that counts, and one mark per request."""

from __future__ import annotations

import pytest
from mitmproxy.proxy import mode_specs
from mitmproxy.test import tflow, tutils

from callerid.identity.presented import RequestMark
from callerid.proxy.calls import ClientState
from callerid.proxy.shown import is_reverse, present, url_of

HEADERS = {
    "proxy-authorization": "proxy_authorization",
    "authorization": "authorization",
    "x-callerid-token": "callerid_token",
    "dpop": "dpop",
    "x-forwarded-client-cert": "forwarded_client_cert",
    "client-cert": "client_cert",
    "client-cert-chain": "client_cert_chain",
}


def test_every_instance_of_every_header_is_there_and_nothing_else() -> None:
    flow, state = tflow.tflow(), ClientState(tunnel=True, connect_token=("c",), inner_chain=(b"i",))
    shown = present(flow, state, lambda name: (f"{name} 1", f"{name} 2"), "10.1.2.3")
    for name, field in HEADERS.items():
        assert getattr(shown, field) == (f"{name} 1", f"{name} 2")
    assert (shown.connect_callerid_token, shown.inner_chain, shown.proxy_chain) == (("c",), (b"i",), ())
    assert (shown.tunnel, shown.reverse, shown.client_ip, shown.resource) == (True, False, "10.1.2.3", None)
    assert shown.method == "GET"


def test_a_request_has_one_mark_however_often_it_is_judged() -> None:
    first, second = tflow.tflow(), tflow.tflow()
    marks = [present(flow, ClientState(), lambda _: (), None).mark for flow in (first, first, second)]
    assert all(isinstance(mark, RequestMark) for mark in marks)
    assert marks[0] is marks[1]
    assert marks[1] is not marks[2]


@pytest.mark.parametrize(
    ("mode", "expected"), [("regular", False), ("reverse:https://things.corp.example", True)]
)
def test_the_listener_says_where_the_clients_certificate_is(mode: str, expected: bool) -> None:
    client = tflow.tflow().client_conn
    client.proxy_mode = mode_specs.ProxyMode.parse(mode)
    assert is_reverse(client) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("things.corp.example", "https://things.corp.example:8443/mcp?x=1"),
        ("2001:db8::1", "https://[2001:db8::1]:8443/mcp?x=1"),
    ],
)
def test_the_url_is_that_of_the_server(host: str, expected: str) -> None:
    request = tutils.treq(scheme=b"https", host=host, port=8443, path=b"/mcp?x=1")
    assert url_of(request) == expected
