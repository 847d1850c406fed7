"""What is on the flow while a request is on its way, and what is left once its answer begins."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mitmproxy.http import HTTPFlow
from mitmproxy.test import tflow, tutils

from callerid.credentials.inject import Injection, prepared
from callerid.credentials.outgoing import InBody, InQuery, Way
from callerid.credentials.secret import Secret
from callerid.credentials.store import CredentialStore
from callerid.identity.presented import Presented
from callerid.proxy.calls import Call
from callerid.proxy.facts import Ruling
from callerid.proxy.translate import let_go, take_back
from tests.unit.credentials.helpers import VALUE, credential

LABEL = "github-shared@v1"
SECRET = Secret(VALUE, label=LABEL)
BODY = b'{"params":{"arguments":{"key":"cid_token"}}}'


def sent(injection: Injection | None, body: bytes = BODY, **ruling: Any) -> tuple[HTTPFlow, Call]:
    headers = ((b"host", b"github.corp.example"), (b"content-type", b"application/json"))
    request = tutils.treq(method=b"POST", path=b"/mcp?q=1", headers=headers, content=b"{ }")
    flow = tflow.tflow(req=request)
    call = Call(records=(), messages=(), server=None, caller=None, presented=Presented())
    ruled = Ruling(records=(), answer=None, body=body, injection=injection, **ruling)
    let_go(flow, call, ruled, CredentialStore((), {}))
    return flow, call


def everything(flow: HTTPFlow) -> bytes:
    return json.dumps(str(flow.get_state())).encode()


WAYS = [
    prepared(credential(), SECRET),
    prepared(credential(inject="header", header="X-Api-Key", template="Key {secret}"), SECRET),
    prepared(credential(inject="query", name="api_key"), SECRET),
    Injection(LABEL, InBody("cid_token"), SECRET),
    prepared(
        credential(inject="aws_sigv4", region="eu-central-1", service="s3"),
        Secret("AKIDEXAMPLE00000:wJalrXUtnFEMI-K7MDENG:session-token-of-some-length", label=LABEL),
    ),
]


@pytest.mark.parametrize("injection", WAYS, ids=lambda way: type(way.how).__name__)
def test_the_secret_is_on_the_flow_until_the_answer_begins_and_not_after(injection: Injection) -> None:
    flow, call = sent(injection)
    assert call.allowed
    assert call.injection is injection
    before = everything(flow)
    values = (b"nine-Lives", b"session-token-of-some-length")
    assert any(value in before for value in values)
    for _ in range(2):  # a fault may take it back a second time
        take_back(flow, injection)
        assert not any(value in everything(flow) for value in values)
        assert b"callerid:github-shared" in everything(flow) or b"callerid%3Agithub-shared" in everything(
            flow
        )
    assert flow.request.headers["host"] == "github.corp.example"


def test_a_longer_body_has_its_length_said() -> None:
    flow, _ = sent(Injection(LABEL, InBody("cid_token"), SECRET))
    assert flow.request.headers.get_all("content-length") == [str(len(flow.request.raw_content or b""))]
    assert json.loads(flow.request.raw_content or b"")["params"]["arguments"]["key"] == VALUE


def test_a_query_goes_after_the_target_that_was_judged() -> None:
    flow, _ = sent(
        Injection(LABEL, InQuery("k"), Secret("secret-secret", label=LABEL)), target="/mcp?q=2&k=mine"
    )
    assert flow.request.path == "/mcp?q=2&k=secret-secret"


def test_without_an_injection_nothing_is_written() -> None:
    flow, call = sent(None)
    assert call.injection is None
    assert flow.request.path == "/mcp?q=1"
    assert flow.request.raw_content == BODY


def test_what_was_signed_is_what_is_sent() -> None:
    """The last step: nothing that the signature covers is changed after it."""
    seen: list[tuple[Any, ...]] = []

    class Witness:
        def write(self, out: Any, text: str) -> None:
            seen.append((out.method, out.path, dict(out.headers), out.body))

        hide = write

    way: Way = Witness()
    flow, _ = sent(Injection(LABEL, way, SECRET))
    request = flow.request
    assert seen == [(request.method, request.path, dict(request.headers), request.raw_content)]
