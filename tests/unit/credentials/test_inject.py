from __future__ import annotations

import ast
import base64
import json
from pathlib import Path
from typing import Any

import pytest
import trustme
from mitmproxy.http import Headers

import callerid
from callerid.config import OAuth
from callerid.credentials.inject import Injection, apply, conceal, needles, prepared
from callerid.credentials.outgoing import AsItCame, InBody, InHeader, InPlace, InTls, Outgoing
from callerid.credentials.secret import PemSecret, Secret
from callerid.errors import ConfigError
from tests.unit.credentials.helpers import VALUE, credential

SECRET = Secret(VALUE, label="github-shared@v3")
COOKIE = Secret("a-session-of-some-length", label="github-shared@v3")
PLACEHOLDER = "[callerid:github-shared@v3]"


def request(path: str = "/mcp/", body: bytes = b"", headers: Any = None) -> Outgoing:
    return Outgoing(
        method="POST",
        scheme="https",
        host="github.corp.example",
        port=443,
        path=path,
        headers={} if headers is None else headers,
        body=body,
    )


def written(secret: Secret = SECRET, **changes: Any) -> dict[str, str]:
    out = request()
    apply(prepared(credential(**changes), secret), out)
    return dict(out.headers)


@pytest.mark.parametrize(
    ("changes", "secret", "headers"),
    [
        ({}, SECRET, {"Authorization": f"Bearer {VALUE}"}),
        ({"inject": "header", "header": "X-Api-Key", "template": "{secret}"}, SECRET, {"X-Api-Key": VALUE}),
        (
            {"inject": "basic", "username": "svc"},
            SECRET,
            {"Authorization": "Basic " + base64.b64encode(f"svc:{VALUE}".encode()).decode()},
        ),
        ({"inject": "cookie", "name": "sid"}, COOKIE, {"Cookie": "sid=a-session-of-some-length"}),
        ({"inject": "oauth_client_credentials"}, SECRET, {"Authorization": f"Bearer {VALUE}"}),
        ({"inject": "oauth_refresh_token"}, SECRET, {"Authorization": f"Bearer {VALUE}"}),
        ({"inject": "token_exchange"}, SECRET, {"Authorization": f"Bearer {VALUE}"}),
    ],
    ids=["bearer", "header", "basic", "cookie", "client credentials", "refresh token", "token exchange"],
)
def test_each_kind_of_header(changes: dict[str, Any], secret: Secret, headers: dict[str, str]) -> None:
    assert written(secret, **changes) == headers


def test_an_oauth_kind_ignores_a_template_that_is_not_its_own() -> None:
    oauth = OAuth(token_url="https://login.corp.example/token", client_id="x")
    changes = {"inject": "token_exchange", "oauth": oauth, "header": "X-Other", "template": "{secret}"}
    assert written(**changes) == {"Authorization": f"Bearer {VALUE}"}


def test_the_label_names_the_version_and_nothing_prints_the_value() -> None:
    injection = prepared(credential(), SECRET)
    assert injection.label == "github-shared@v3"
    assert injection.shared
    assert VALUE not in repr(injection)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"header": ""}, "header named"),
        ({"header": "X Api Key"}, "header named"),
        ({"header": "X-Key\r\nX-Admin"}, "header named"),
        ({"header": "X-Key:"}, "header named"),
        ({"header": "X-Cl\u00e9"}, "header named"),
        ({"header": "Host"}, "header named"),
        ({"header": "content_length"}, "header named"),
        ({"header": "Transfer-Encoding"}, "header named"),
        ({"header": "Proxy-Authorization"}, "header named"),
        ({"header": "Mcp-Session-Id"}, "header named"),
        ({"template": "Bearer {secret}\r\nX-Admin: yes"}, "template"),
        ({"template": "Bearer"}, "template"),
        ({"inject": "basic", "username": None}, "no username"),
        ({"inject": "basic", "username": "a:b"}, "username"),
        ({"inject": "basic", "username": "a\r\nX-Admin: yes"}, "username"),
        ({"inject": "query", "name": None}, "as query"),
        ({"inject": "query", "name": "a=b"}, "as query"),
        ({"inject": "cookie", "name": "a=b"}, "as cookie"),
        ({"inject": "cookie", "name": ""}, "as cookie"),
        ({"inject": "replace", "place": None}, "as replace"),
        ({"inject": "replace", "place": "header:Host"}, "header named"),
        ({"inject": "replace", "place": "header:X-Callerid-Token"}, "header named"),
        ({"inject": "replace", "place": "query:a b"}, "as replace"),
        ({"inject": "replace", "place": "anywhere"}, "as replace"),
        ({"inject": "aws_sigv4", "region": "eu-west-1"}, "as aws_sigv4"),
        ({"inject": "aws_sigv4", "region": "eu-west-1", "service": "execute-api"}, "AWS keys"),
        ({"inject": "mtls"}, "as mtls"),
    ],
)
def test_what_cannot_be_written_soundly_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        prepared(credential(**changes), SECRET)
    assert caught.value.hint
    assert VALUE not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["a;b-of-some-length", "a,b-of-some-length", 'a"b-of-some-length', "a b-of-some-length"]
)
def test_a_cookie_holds_no_character_that_would_end_it(value: str) -> None:
    with pytest.raises(ConfigError, match="a cookie cannot"):
        prepared(credential(inject="cookie", name="sid"), Secret(value, label="x@v1"))


def test_every_instance_of_the_header_is_replaced() -> None:
    headers = Headers(
        [
            (b"authorization", b"Bearer cid_alice"),
            (b"Accept", b"application/json"),
            (b"AUTHORIZATION", b"Basic eHk6eg=="),
            (b"Authorization", b""),
        ]
    )
    apply(prepared(credential(), SECRET), request(headers=headers))
    assert headers.get_all("authorization") == [f"Bearer {VALUE}"]
    assert headers["accept"] == "application/json"


def test_twins_go_too_in_a_plain_mapping_and_in_headers() -> None:
    injection = prepared(credential(inject="header", header="X-Api-Key", template="{secret}"), SECRET)
    plain = {"x-api-key": "mine", "X_API_KEY": "mine", "X-Api-Keys": "other"}
    apply(injection, request(headers=plain))
    assert plain == {"X-Api-Keys": "other", "X-Api-Key": VALUE}
    headers = Headers([(b"x-api-key", b"a"), (b"x_api_key", b"b"), (b"X-API-KEY", b"c")])
    apply(injection, request(headers=headers))
    assert headers.fields == ((b"X-Api-Key", VALUE.encode()),)


def test_a_query_parameter_is_the_only_one_of_its_name() -> None:
    injection = prepared(credential(inject="query", name="api_key"), SECRET)
    out = request("/mcp/?api_key=mine&q=a%20b&api%5Fkey=mine")
    apply(injection, out)
    assert out.path == "/mcp/?q=a%20b&api_key=nine-Lives%2Bof%2Fthe%3Dcat~42"
    conceal(injection, out)
    assert out.path == "/mcp/?q=a%20b&api_key=%5Bcallerid%3Agithub-shared%40v3%5D"


def test_afterwards_a_header_can_be_concealed() -> None:
    injection = prepared(credential(), SECRET)
    headers = Headers([(b"Host", b"github.corp.example")])
    apply(injection, request(headers=headers))
    conceal(injection, request(headers=headers))
    assert headers.get_all("authorization") == [PLACEHOLDER]
    assert VALUE.encode() not in bytes(headers)


def test_a_string_of_the_body_is_exchanged_and_concealed_again() -> None:
    injection = Injection("github-shared@v3", InBody("cid_token"), Secret('quo"te\\d-secret', label="x@v1"))
    body = b'{"params":{"arguments":{"key":"cid_token","q":"other"}}}'
    out = request(body=body)
    apply(injection, out)
    assert json.loads(out.body) == {"params": {"arguments": {"key": 'quo"te\\d-secret', "q": "other"}}}
    conceal(injection, out)
    assert out.body == body.replace(b"cid_token", PLACEHOLDER.encode())
    conceal(injection, out)
    assert out.body == body.replace(b"cid_token", PLACEHOLDER.encode())


def test_a_body_without_its_place_is_not_let_go() -> None:
    with pytest.raises(LookupError):
        apply(Injection("x@v1", InBody("cid_token"), SECRET), request(body=b"{}"))


def test_a_place_that_nobody_looked_up_is_not_written() -> None:
    injection = prepared(credential(inject="replace", place="header:X-Api-Key"), SECRET)
    assert injection.how == InPlace("header", "X-Api-Key")
    with pytest.raises(LookupError):
        apply(injection, request())


def test_passthrough_writes_nothing() -> None:
    injection = prepared(credential(inject="passthrough", source_kind="none"), None)
    assert (injection.label, injection.how, injection.secret) == (
        "github-shared@passthrough",
        AsItCame(),
        None,
    )
    assert not injection.shared
    out = request(headers={"Authorization": "Bearer own"})
    apply(injection, out)
    conceal(injection, out)
    assert out.headers == {"Authorization": "Bearer own"}


@pytest.mark.parametrize("inject", ["bearer", "query", "aws_sigv4", "mtls", "token_exchange"])
def test_other_kinds_need_a_secret(inject: str) -> None:
    with pytest.raises(ConfigError, match="no such secret"):
        prepared(credential(inject=inject, source_kind="none"), None)


def pem(extra: str = "") -> PemSecret:
    made = trustme.CA().issue_cert("alice@corp.example")
    text = "".join(blob.bytes().decode() for blob in made.cert_chain_pems)
    return PemSecret(text + made.private_key_pem.bytes().decode() + extra, label="files@v1")


def test_a_client_certificate_is_nothing_in_the_request() -> None:
    injection = prepared(credential(inject="mtls"), pem())
    assert (injection.label, injection.how) == ("files@v1", InTls())
    out = request()
    apply(injection, out)
    conceal(injection, out)
    assert (out.headers, out.path, out.body) == ({}, "/mcp/", b"")


def test_a_pem_is_never_written_into_a_request() -> None:
    with pytest.raises(ConfigError, match="a PEM cannot"):
        prepared(credential(), pem())


def test_the_needles_of_aws_keys_are_those_of_their_parts() -> None:
    keys = {
        "access_key_id": "AKIDEXAMPLE0000",
        "secret_access_key": "wJalrXUtnFEMI-K7MDENG",
        "session_token": "t" * 20,
    }
    secret = Secret(json.dumps(keys), label="aws@v1")
    found = needles(credential(inject="aws_sigv4"), secret)
    assert b"wJalrXUtnFEMI-K7MDENG" in found
    assert b"t" * 20 in found
    assert b"AKIDEXAMPLE0000" not in found
    assert needles(credential(), SECRET) == SECRET.renderings()


def test_the_value_is_revealed_in_one_place_and_spent_in_few() -> None:
    package = Path(callerid.__file__).parent
    trees = {path.name: ast.parse(path.read_text("utf-8")) for path in package.rglob("*.py")}
    revealing = [
        name
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "reveal"
    ]
    assert revealing == ["inject.py"]
    spending = {
        name
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == "spend"
    }
    assert spending == {"inject.py", "oauth.py", "upstream_tls.py"}


def test_an_injection_cannot_be_edited() -> None:
    injection = Injection("a@v1", InHeader("Authorization"), SECRET)
    with pytest.raises(AttributeError):
        injection.label = "b@v1"  # type: ignore[misc]
