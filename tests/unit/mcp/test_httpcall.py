from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.mcp.httpcall import HttpCall, plain_path, read_call
from callerid.model import Kind, Malformed, MessageType, Reason

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
PARTS = "multipart/form-data; boundary=b"
PART = b"--b\r\nContent-Disposition: form-data; "
NAMES = st.text("abcxyz", min_size=1, max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def ask(
    method: str = "POST",
    target: str = "/v1/charges",
    body: bytes = b"",
    kind: str | None = None,
    *more: tuple[str, str],
    **limits: int,
) -> HttpCall | Malformed:
    headers = [("Host", "api.corp.example"), *([("Content-Type", kind)] if kind is not None else []), *more]
    return read_call(method, target, headers, body, **limits)


def read(*given: Any, **limits: int) -> HttpCall:
    call = ask(*given, **limits)
    assert isinstance(call, HttpCall), call
    return call


def refused(*given: Any, **limits: int) -> Malformed:
    found = ask(*given, **limits)
    assert isinstance(found, Malformed), found
    return found


def test_a_call_is_a_message_with_method_and_path_as_its_name() -> None:
    call = read("GET", "/v1/charges/ch_1?limit=3&expand=a&expand=b")
    message = call.message
    assert (message.type, message.kind, message.method) == (MessageType.HTTP, Kind.HTTP, "http/GET")
    assert message.name == "GET /v1/charges/ch_1"
    assert message.arguments == {"query": {"limit": "3", "expand": ["a", "b"]}}
    assert (call.target, call.body) == ("/v1/charges/ch_1?limit=3&expand=a&expand=b", b"")
    assert message.rpc_id is None


def test_a_json_body_is_read_and_written_anew() -> None:
    call = read("POST", "/v1/charges", b'{ "amount": 1.50, "to": "\\u00e9" }', JSON)
    assert call.message.arguments == {"body": {"amount": 1.5, "to": "é"}}
    assert call.body == '{"amount":1.5,"to":"é"}'.encode()


def test_a_form_is_read_and_written_anew() -> None:
    call = read("POST", "/v1/charges", b"amount=5&note=a+b;c&items[0]=x", FORM)
    assert call.message.arguments == {"body": {"amount": "5", "note": "a b;c", "items[0]": "x"}}
    assert call.body == b"amount=5&note=a+b%3Bc&items%5B0%5D=x"


@pytest.mark.parametrize(
    "kind",
    [
        JSON,
        "Application/JSON ; Charset=UTF-8",
        "application/vnd.api+json",
        "text/json",
        "application/scim+json;v=2",
    ],
)
def test_every_type_of_json_is_read(kind: str) -> None:
    assert read("PATCH", "/v1/x", b'{"a":1}', kind).message.arguments == {"body": {"a": 1}}


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/octet-stream", "multipart/form-data; boundary=b", "application/x-ndjson"],
)
def test_any_other_body_goes_on_as_it_is_and_is_no_argument(kind: str) -> None:
    body = b'\x00{"a": 1,  "a": 2}'
    call = read("POST", "/v1/x", body, kind)
    assert call.message.arguments == {}
    assert call.body == body


def test_a_put_may_leave_out_what_its_body_is() -> None:
    assert read("PUT", "/v1/x", b"abc").message.arguments == {}


JSON_FLAWS = [
    (b'{"a":1,"a":2}', Reason.DUPLICATE_KEY),
    (b'{"a":1,"A":2}', Reason.DUPLICATE_KEY),
    (b'\xef\xbb\xbf{"a":1}', Reason.NOT_UTF8),
    (b'{"a":"\xff"}', Reason.NOT_UTF8),
    (b'{"a":NaN}', Reason.MALFORMED_JSON),
    (b"{'a':1}", Reason.MALFORMED_JSON),
    (b'{"a":1} {"b":2}', Reason.MALFORMED_JSON),
    (b"[" * 65 + b"]" * 65, Reason.TOO_DEEP),
]


@pytest.mark.parametrize(("body", "reason"), JSON_FLAWS)
def test_json_with_no_or_two_readings_is_refused(body: bytes, reason: Reason) -> None:
    found = refused("POST", "/v1/x", body, JSON)
    assert (found.reason, found.http_status, found.method) == (reason, 400, "http/POST")


METHODS = ["get", "Get", "CONNECT", "TRACE", "", "G ET", "GET\r\n", "GÉT", "X" * 33, "A|B", "ſUBSCRIBE"]


@pytest.mark.parametrize("method", METHODS)
def test_what_some_servers_would_take_for_another_method_is_refused(method: str) -> None:
    assert refused(method, "/v1/x").reason is Reason.MALFORMED_HTTP


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "M-SEARCH"]
)
def test_any_method_in_capitals_is_read(method: str) -> None:
    assert read(method, "/v1/x").message.method == f"http/{method}"


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(("GET", "/v1/x", b"x", "text/plain"), id="GET with a body"),
        pytest.param(("HEAD", "/v1/x", b"{}", JSON), id="HEAD with a body"),
        pytest.param(("POST", "/v1/x", b"_method=DELETE"), id="POST whose body nobody names"),
        pytest.param(("POST", "/v1/x?_method=DELETE"), id="the method in the query"),
        pytest.param(("GET", "/v1/x?%5fMETHOD=DELETE"), id="the method in the query, encoded"),
        pytest.param(("GET", "/v1/x?X-HTTP-Method-Override=PUT"), id="the header as a parameter"),
        pytest.param(("POST", "/v1/x", b"a=1&_method=delete", FORM), id="the method in a form"),
        pytest.param(("POST", "/v1/x", b'{"_Method":"DELETE"}', JSON), id="the method in JSON"),
        pytest.param(
            ("POST", "/v1/x", b'--b\r\nContent-Disposition: form-data; name="_method"\r\n\r\nDELETE', PARTS),
            id="the method in a part of a multipart body",
        ),
        pytest.param(
            ("POST", "/v1/x", b"--b\r\nContent-Disposition: form-data; name*=utf-8''%5Fmethod\r\n", PARTS),
            id="the method in a part with an encoded name",
        ),
        pytest.param(("POST", "/v1/x?x_http_method_override=DELETE"), id="the query, as WSGI has it"),
        pytest.param(("POST", "/v1/x?X-HTTP-Method-Override=DELETE"), id="the query, as a header"),
        pytest.param(("POST", "/v1/x?[method=DELETE"), id="the method in the query, as PHP folds it"),
        pytest.param(("POST", "/v1/x", b'{"x_method_override":"DELETE"}', JSON), id="JSON, folded"),
        *(
            pytest.param(
                ("POST", "/v1/x", PART + name + b"\r\n\r\nDELETE", PARTS),
                id=f"the method in a part: {name.decode()}",
            )
            for name in (
                b'name="X-HTTP-Method-Override"', b"name=x_http_method", b'name="%5Fmethod"',
                b'name="[method"',
                b"name\r\n =\t_method", b'name="_\\method"', b"name*0=_me; name*1=thod",
                b'name="=?utf-8?B?X21ldGhvZA==?="', b'filename="a"; name=_method', b'NAME="$httpMethod"',
            )
        ),
        pytest.param(
            ("POST", "/v1/x", b"--b\nContent-Disposition: form-data; name=_method\n\nDELETE", PARTS),
            id="the method in a part whose lines end otherwise",
        ),
        pytest.param(("POST", "/v1/x", b"{}", "application/json, text/plain"), id="two types in one header"),
        pytest.param(("POST", "/v1/x", b"{}", "json"), id="no media type"),
        pytest.param(("POST", "/v1/x", b"{}", JSON, ("Content-Type", "text/plain")), id="two types"),
        pytest.param(("POST", "/v1/x", b"{}", JSON, ("Content_Type", "text/plain")), id="a twin of a header"),
        pytest.param(("GET", "/v1/x?a#b=1"), id="a fragment"),
        pytest.param(("GET", "/v1/x?a=\xe9"), id="a query that is not ASCII"),
    ],
)  # fmt: skip
def test_what_servers_read_differently_is_refused(given: Any) -> None:
    found = refused(*given)
    assert (found.reason, found.http_status) == (Reason.MALFORMED_HTTP, 400)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-16", f"{FORM}; charset=iso-8859-1"])
def test_what_is_read_is_utf_8(kind: str) -> None:
    assert refused("POST", "/v1/x", b"{}", kind).reason is Reason.NOT_UTF8


def test_a_form_that_is_not_utf_8_is_refused() -> None:
    assert refused("POST", "/v1/x", b"a=\xff", FORM).reason is Reason.NOT_UTF8
    assert read("POST", "/v1/x", "a=é".encode(), FORM).body == b"a=%C3%A9"


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_an_encoded_body_is_refused(encoding: str) -> None:
    found = refused("POST", "/v1/x", b"{}", JSON, ("Content-Encoding", encoding))
    assert (found.reason, found.http_status) == (Reason.ENCODING_REFUSED, 415)


def test_a_body_beyond_the_limit_is_refused_as_received_and_as_forwarded() -> None:
    assert refused("POST", "/v1/x", b"x" * 11, "text/plain", max_body=10).reason is Reason.TOO_LARGE
    assert refused("POST", "/v1/x", b"[1e20]", JSON, max_body=6).reason is Reason.TOO_LARGE
    assert read("POST", "/v1/x", b"x" * 10, "text/plain", max_body=10).body == b"x" * 10


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("/users/a%40corp.example", "/users/a@corp.example"),
        ("/x/%3a%2B%24", "/x/:+$"),
        ("/x/%e4%b8%ad", "/x/%E4%B8%AD"),
        ("/x/a%20b", "/x/a%20b"),
        ("/x/@:!", "/x/@:!"),
        ("/x/%22", "/x/%22"),
        ("/x/*", "/x/%2A"),
        ("/x/%2a", "/x/%2A"),
    ],
)
def test_a_path_has_one_name_for_rules_and_is_forwarded_as_it_came(path: str, plain: str) -> None:
    assert plain_path(path) == plain
    call = read("GET", path)
    assert (call.message.name, call.target) == (f"GET {plain}", path)


def test_the_trace_of_the_request_is_kept() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    call = read("GET", "/v1/x", b"", None, ("traceparent", f"00-{trace}-b7ad6b7169203331-01"))
    assert call.message.trace_id == trace


@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE"]) | st.text(max_size=8),
    st.text(max_size=30),
    st.sampled_from([None, JSON, FORM, "text/plain", "multipart/form-data"]) | st.text(max_size=20),
    st.binary(max_size=40),
)
@settings(max_examples=200, deadline=None)
def test_anything_is_a_call_or_a_refusal(method: str, query: str, kind: str | None, body: bytes) -> None:
    found = ask(method, f"/v1/x?{query}", body, kind)
    assert isinstance(found, HttpCall | Malformed)


@given(VALUES)
@settings(max_examples=100, deadline=None)
def test_the_forwarded_json_is_what_was_judged(value: Any) -> None:
    try:
        body = json.dumps(value).encode()
        call = ask("PUT", "/v1/x", body, JSON)
    except UnicodeEncodeError:
        return
    if isinstance(call, Malformed):
        assert call.reason in (Reason.NOT_UTF8, Reason.MALFORMED_JSON)
        return
    assert json.loads(call.body) == call.message.arguments["body"] == value


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(PART + b'name="f"; filename="_method.txt"\r\n\r\nx', id="a file"),
        pytest.param(PART + b'name="f"\r\n\r\nname=_method name*0=x', id="a text"),
        pytest.param(PART + b'name="payment_method"\r\n\r\ncard', id="a name"),
    ],
)  # fmt: skip
def test_a_part_that_only_speaks_of_methods_is_read(body: bytes) -> None:
    assert read("POST", "/v1/x", body, PARTS).body == body


def test_listed_headers_are_arguments_and_others_are_not() -> None:
    headers = [("Stripe-Account", "acct_1"), ("Sudo", "root"), ("Accept", "*/*")]
    call = read_call("GET", "/v1/charges", headers, b"", listed=("stripe-account",))
    assert isinstance(call, HttpCall)
    assert call.message.arguments == {"headers": {"stripe-account": "acct_1"}}
    bare = read_call("GET", "/v1/charges", headers, b"")
    assert isinstance(bare, HttpCall)
    assert bare.message.arguments == {}


def test_a_listed_header_without_one_reading_is_refused() -> None:
    found = read_call("GET", "/v1/charges", [("Stripe-Account", "\udce9")], b"", listed=("stripe-account",))
    assert isinstance(found, Malformed)
    assert found.reason is Reason.MALFORMED_HTTP
    assert "stripe-account" in found.detail
