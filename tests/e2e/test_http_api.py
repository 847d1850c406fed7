"""HTTP APIs that are not MCP: the same identity, binding, swap, decision and row, over a real connection."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.e2e import harness as h
from tests.e2e.warm import Warm

ALICE, IVY = "user:alice@corp.example", "user:ivy@corp.example"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
AS_JSON = [("Content-Type", JSON)]
SPLIT = h.SECRET.encode()

POLICY = """version: 1
mode: enforce
unknown_server: deny
rules:
  - id: eng-api
    effect: allow
    who: ["group:engineering"]
    servers: [api]
    tools: ["http:* /api/**"]
  - id: interns-read
    effect: allow
    who: ["group:interns"]
    servers: [api]
    tools: ["http:GET /api/charges/*", "http:HEAD /api/charges/*"]
  - id: no-admin
    effect: deny
    servers: [api]
    tools: ["http:* /api/admin/**", "http:DELETE /api/**"]
    reason: Deletions go through a change ticket.
  - id: small-charges
    effect: require
    servers: [api]
    tools: ["http:POST /api/charges"]
    args:
      /body/amount: {type: number, le: 100}
  - id: small-pages
    effect: require
    servers: [api]
    tools: ["http:GET /api/charges"]
    args:
      /query/limit: {regex: "[0-9]{1,2}", optional: true}
  - id: notes
    effect: require
    servers: [api]
    tools: ["http:POST /api/notes"]
    args:
      /body/to: {eq: bob, optional: true}
  - id: own-accounts
    effect: require
    servers: [api]
    tools: ["http:GET /api/accounts"]
    args:
      /headers/stripe-account: {glob: "acct_ours_*", optional: true}
  - id: eng-open
    effect: allow
    who: ["group:engineering"]
    servers: [open]
"""


def rules(port: int) -> dict[str, str]:
    bind = f'{{hosts: ["localhost:{port}"], methods: [GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS]}}'
    return {
        "identities.yaml": h.identities(),
        "servers.yaml": f"version: 1\nservers:\n  - id: api\n    kind: http\n    url: https://localhost:{port}/api\n"
        "    credential: api-key\n    headers: [Stripe-Account]\n"
        f"  - id: open\n    kind: http\n    url: https://localhost:{port}/open\n",
        "credentials.yaml": "version: 1\ncredentials:\n  - id: api-key\n    source: {env: THINGS_SECRET}\n"
        f"    inject: {{bearer: {{}}}}\n    bind: {bind}\n",
        "policy.yaml": POLICY,
    }  # fmt: skip


def answer(seen: h.Seen) -> h.Reply:
    """An API with a path for every kind of answer."""
    path = seen.path.partition("?")[0]
    known: dict[str, Any] = {
        "/api/missing": lambda: h.json_reply({"error": "no such thing"}, status=404),
        "/api/refuses": lambda: h.Reply(401, [("WWW-Authenticate", 'Bearer realm="up"')], b"who are you"),
        "/api/forbids": lambda: h.Reply(403, [("WWW-Authenticate", "Bearer")], b"not you"),
        "/api/headers": lambda: h.Reply(
            200,
            [("Set-Cookie", "s=all"), ("WWW-Authenticate", "Bearer"), ("X-Echo", h.SECRET), ("ETag", "e")],
            b"ok",
        ),
        "/api/echo": lambda: h.Reply(200, [("Content-Type", "text/plain")], b"you sent " + SPLIT + b"!"),
        "/api/escaped": lambda: h.Reply(200, AS_JSON, b'{"k":"\\u0075' + SPLIT[1:] + b'!"}'),
        "/api/escaped-chunks": lambda: h.Reply(
            200, AS_JSON, chunks=iter([b'{"k":"\\u0075' + SPLIT[1:9], SPLIT[9:] + b'!"}'])
        ),
        "/api/watch": lambda: h.Reply(200, AS_JSON, chunks=_watch()),
        "/api/split": lambda: h.Reply(200, [], chunks=iter([b"a" * 1000 + SPLIT[:9], SPLIT[9:], b" end"])),
        "/api/gzip": lambda: h.Reply(200, [("Content-Encoding", "gzip")], b"\x1f\x8b"),
        "/api/utf16": lambda: h.Reply(200, [("Content-Type", "text/plain; charset=UTF-16")], b"x\0"),
        "/api/range": lambda: h.Reply(206, [("Content-Range", "bytes 0-3/9")], b"abcd"),
        "/api/fresh": lambda: h.Reply(304, [("ETag", "e")], b""),
        "/api/empty": lambda: h.Reply(raw=b"HTTP/1.1 204 No Content\r\n\r\n"),
        "/api/moved": lambda: h.Reply(302, [("Location", "https://elsewhere.corp.example/x")], b""),
        "/api/big": lambda: h.Reply(200, [("Content-Type", "application/octet-stream")], b"x" * 20_000_000),
        "/api/hints": lambda: h.Reply(
            raw=b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        ),
        "/api/gone": lambda: h.Reply(raw=b""),
    }  # fmt: skip
    if path == "/api/endless":
        return h.Reply(200, [("Content-Type", "text/plain")], chunks=(_tick() for _ in itertools.count()))
    if path == "/api/events":
        return h.Reply(
            200, [("Content-Type", "text/event-stream")], chunks=iter([b"data: 1\n\n", b"data: 2\n\n"])
        )
    if path in known:
        reply: h.Reply = known[path]()
        return reply
    return h.json_reply({"did": f"{seen.method} {seen.path}", "body": seen.body.decode("latin-1")})


def _watch() -> Iterator[bytes]:
    """Changes as they come, as Kubernetes tells them; the second never comes."""
    yield b'{"type": "ADDED"}\n'
    time.sleep(60)


def _tick() -> bytes:
    time.sleep(0.05)
    return b"tick " * 100


class Api:
    """The proxy with its API, its callers, and one request at a time."""

    def __init__(self, proxy: h.WarmProxy, upstream: h.Upstream) -> None:
        self.proxy, self.upstream = proxy, upstream
        self.host = f"localhost:{upstream.port}"
        self.tokens: dict[str, str] = {}

    def request(
        self, method: str, path: str, body: bytes = b"", kind: str | None = None, who: str | None = "alice",
        headers: tuple[tuple[str, str], ...] = (), length: bool = True,
    ) -> bytes:  # fmt: skip
        fields = [("Host", self.host), *headers]
        if kind is not None:
            fields.append(("Content-Type", kind))
        if who is not None:
            fields.append(("Authorization", f"Bearer {self.tokens[who]}"))
        if length and (body or method == "POST"):
            fields.append(("Content-Length", str(len(body))))
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields)
        return head.encode("latin-1") + b"\r\n" + body

    def tries(self, method: str, path: str, *given: Any, raw: bytes | None = None, **more: Any) -> h.Trial:
        tried = h.trial(self.proxy, self.upstream)
        client = self.proxy.tunnel(self.host)
        try:
            client.send(raw if raw is not None else self.request(method, path, *given, **more))
            if method == "HEAD" and raw is None:
                tried.answer = client.read_head()
            else:
                tried.answer = client.read()
        finally:
            client.close()
        return tried


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Api]:
    upstream = h.Upstream(pki.server_context(), answer)
    folder = tmp_path_factory.mktemp("api")
    reverse = f"reverse:https://localhost:{upstream.port}/@127.0.0.1:{h.free_port()}"
    proxy = h.WarmProxy(
        warm, folder, rules(upstream.port), ca=pki.ca, environ={"THINGS_SECRET": h.SECRET},
        modes=("regular", reverse),
    )  # fmt: skip
    with h.running(proxy):
        made = Api(proxy, upstream)
        made.tokens = {"alice": h.mint(proxy), "ivy": h.mint(proxy, IVY), "revoked": h.mint(proxy)}
        made.tokens["narrow"] = h.mint(proxy, tools=("http:GET /api/charges/*",))
        h.revoke(proxy, made.tokens["revoked"])
        yield made
    upstream.close()


def served(tried: h.Trial, status: int = 200) -> h.Seen:
    assert tried.answer is not None
    assert tried.answer.status == status, tried.answer
    [seen] = tried.seen
    assert seen.header("authorization") == f"Bearer {h.SECRET}"
    assert b"cid_" not in seen.raw
    return seen


def told(tried: h.Trial, status: int, reason: str) -> dict[str, Any]:
    """Refused with a problem that names the reason and the row; nothing arrived."""
    assert tried.answer is not None
    assert tried.answer.status == status, tried.answer
    row = tried.refused(reason)
    if tried.answer.body:
        assert tried.answer.headers["content-type"] == "application/problem+json"
        problem: dict[str, Any] = tried.answer.json
        assert (problem["status"], problem["decision"]) == (status, row["event_id"])
        assert (row["server"], row["path"]) == ("api", row["path"])
        return {**problem, "row": row}
    return {"row": row}


# -- what is asked ---------------------------------------------------------------------------------


def test_a_call_is_attributed_decided_swapped_and_recorded(api: Api) -> None:
    tried = api.tries("GET", "/api/charges/ch_1?expand=a&expand=b")
    seen = served(tried)
    assert (seen.method, seen.path) == ("GET", "/api/charges/ch_1?expand=a&expand=b")
    row = tried.row
    assert (row["principal"], row["verdict"], row["reason"], row["rule"]) == (
        ALICE,
        "allow",
        "granted",
        "eng-api",
    )
    assert (row["kind"], row["method"], row["tool"]) == ("http", "http/GET", "GET /api/charges/ch_1")
    assert json.loads(row["arguments"]) == {"query": {"expand": ["a", "b"]}}
    assert (row["outcome"], row["http_status"], row["injected"]) == ("ok", 200, "api-key@v1")
    assert (row["path"], row["server"]) == ("/api/charges/ch_1", "api")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "POST"])
def test_the_methods_of_an_api_go_through(api: Api, method: str) -> None:
    tried = api.tries(method, "/api/things/1", b'{"a": [1, 2.50]}', JSON)
    seen = served(tried)
    assert (seen.method, seen.body) == (method, b'{"a":[1,2.5]}')
    assert json.loads(tried.row["arguments"]) == {"body": {"a": [1, 2.5]}}


def test_head_has_no_body_and_keeps_its_length(api: Api) -> None:
    tried = api.tries("HEAD", "/api/big")
    assert served(tried).method == "HEAD"
    assert tried.answer is not None
    assert tried.answer.headers["content-length"] == "20000000"
    assert tried.row["outcome"] == "ok"


def test_a_rule_reads_the_body(api: Api) -> None:
    served(api.tries("POST", "/api/charges", b'{"amount": 100}', JSON))
    problem = told(api.tries("POST", "/api/charges", b'{"amount": 101}', JSON), 403, "requirement_failed")
    assert problem["rule"] == problem["row"]["rule"] == "small-charges"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(b'{"amount": 1}', "text/plain", id="JSON that calls itself text"),
        pytest.param(b'{"amount": 1}', "application/octet-stream", id="JSON that calls itself nothing"),
        pytest.param(b"amount=1", FORM, id="a form, in which an amount is no number"),
        pytest.param(b"", None, id="no body"),
        pytest.param(b'{"amount": "1"}', JSON, id="a number as text"),
    ],
)
def test_what_a_guard_asks_for_and_nobody_can_read_is_refused(
    api: Api, body: bytes, kind: str | None
) -> None:
    told(api.tries("POST", "/api/charges", body, kind), 403, "requirement_failed")


def test_an_optional_condition_is_not_met_by_a_body_that_nobody_read(api: Api) -> None:
    served(api.tries("POST", "/api/notes", b"{}", JSON))
    served(api.tries("POST", "/api/notes", b"to=bob", FORM))
    told(api.tries("POST", "/api/notes", b'{"to": "eve"}', "text/plain"), 403, "requirement_failed")


def test_a_form_is_judged_and_forwarded_as_it_was_judged(api: Api) -> None:
    tried = api.tries("POST", "/api/forms", b"amount=5;x=1&note=a+b%2Bc&amount=6", FORM)
    seen = served(tried)
    assert seen.body == b"amount=5%3Bx%3D1&note=a+b%2Bc&amount=6"
    assert json.loads(tried.row["arguments"])["body"] == {"amount": ["5;x=1", "6"], "note": "a b+c"}


def test_an_opaque_body_goes_on_byte_for_byte_and_is_no_argument(api: Api) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n\x00\xff\r\n--b--\r\n'
    tried = api.tries("POST", "/api/files", body, "multipart/form-data; boundary=b")
    assert served(tried).body == body
    assert tried.row["arguments"] is None


def test_the_query_is_forwarded_as_it_was_judged(api: Api) -> None:
    seen = served(api.tries("GET", "/api/charges?limit=5&q=a+b;c&flag&x="))
    assert seen.path == "/api/charges?limit=5&q=a%20b%3Bc&flag&x="
    assert parse_qs(seen.path.partition("?")[2], separator=";")["limit"] == ["5&q"] or "limit=5" in seen.path


@pytest.mark.parametrize(
    "query",
    ["limit=5&limit=500", "limit=500", "limit=5%00", "limit=", "limit"],
    ids=["twice", "too many", "a zero character", "empty", "bare"],
)
def test_a_condition_on_the_query_holds_for_every_reading(api: Api, query: str) -> None:
    tried = api.tries("GET", f"/api/charges?{query}")
    assert tried.answer is not None
    assert tried.answer.status in (400, 403)
    assert tried.seen == []


DUPLICATE, MALFORMED, TEXT = "duplicate_key", "malformed_http", "text/plain"
MISREAD = [
    pytest.param(("GET", "/api/charges?limit=5&LIMIT=500"), DUPLICATE, id="a parameter in two cases"),
    pytest.param(("GET", "/api/charges?limit=5&limit[]=500"), DUPLICATE, id="a parameter with brackets"),
    pytest.param(("POST", "/api/charges", b'{"amount":1,"amount":500}', JSON), DUPLICATE, id="twice"),
    pytest.param(("POST", "/api/charges", b'\xef\xbb\xbf{"a":1}', JSON), "not_utf8", id="a byte order mark"),
    pytest.param(("POST", "/api/charges", b'{"amount":NaN}', JSON), "malformed_json", id="NaN"),
    pytest.param(("POST", "/api/things?_method=DELETE"), MALFORMED, id="the method in the query"),
    pytest.param(("POST", "/api/things", b"_method=DELETE", FORM), MALFORMED, id="the method in a form"),
    pytest.param(("delete", "/api/things/1"), MALFORMED, id="a method in small letters"),
    pytest.param(("GET", "/api/things", b"DELETE / HTTP/1.1\r\n\r\n", TEXT), MALFORMED, id="one in it"),
    pytest.param(("TRACE", "/api/things"), MALFORMED, id="TRACE"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "reason"), MISREAD)
def test_what_servers_would_read_in_two_ways_is_refused(api: Api, given: Any, reason: str) -> None:
    told(api.tries(*given), 400, reason)


@pytest.mark.parametrize(
    "path",
    ["/api/%61dmin/x", "/api//admin/x", "/api/x/../admin/x", "/api/%2e%2e/x", "/api/x%2Fadmin",
     "/api/admin;x/y",
     "/api/admin\\x", "/api/%5cadmin", "/API/admin/x", "/api/%00", "/api/x%"],
)  # fmt: skip
def test_a_path_with_two_readings_is_refused(api: Api, path: str) -> None:
    tried = api.tries("GET", path)
    assert tried.answer is not None
    assert tried.answer.status == 400
    tried.refused("path_not_canonical")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/admin/x"),
        ("GET", "/api/admin"),
        ("GET", "/api/admin/"),
        ("GET", "/api/Admin/x"),
        ("DELETE", "/api/things/1"),
        ("DELETE", "/api/things/1/"),
    ],
)
def test_a_guard_is_not_walked_around(api: Api, method: str, path: str) -> None:
    problem = told(api.tries(method, path), 403, "rule_denied")
    assert (problem["rule"], problem["say"]) == ("no-admin", "Deletions go through a change ticket.")


@pytest.mark.parametrize(
    "name", ["X-HTTP-Method-Override", "x_http_method", "X-Method-Override", "X-Original-URL"]
)
def test_a_header_that_names_another_request_does_not_go_on(api: Api, name: str) -> None:
    seen = served(api.tries("POST", "/api/things", headers=((name, "DELETE"),)))
    assert seen.header(name) is None


@pytest.mark.parametrize(
    ("method", "path", "verdict"),
    [("GET", "/api/charges/1", "allow"), ("POST", "/api/charges/1", "deny"), ("GET", "/api/charges", "deny"),
     ("GET", "/api/charges/1/refunds", "deny"), ("HEAD", "/api/charges/1", "allow"),
     ("GET", "/api/charges/", "deny")],
)  # fmt: skip
def test_a_grant_is_for_its_method_and_path(api: Api, method: str, path: str, verdict: str) -> None:
    tried = api.tries(method, path, who="ivy")
    if verdict == "allow":
        served(tried)
    else:
        problem = told(tried, 403, "no_grant")
        assert "rule" not in problem


def test_a_token_may_be_narrowed_to_some_calls(api: Api) -> None:
    served(api.tries("GET", "/api/charges/1", who="narrow"))
    told(api.tries("GET", "/api/things/1", who="narrow"), 403, "outside_scope")


@pytest.mark.parametrize(("who", "reason"), [(None, "no_evidence"), ("revoked", "token_revoked")])
def test_who_is_not_known_gets_a_401_that_leads_nowhere(api: Api, who: str | None, reason: str) -> None:
    tried = api.tries("GET", "/api/charges/1", who=who)
    told(tried, 401, reason)
    assert tried.answer is not None
    assert tried.answer.headers["www-authenticate"] == 'Bearer realm="callerid"'
    assert tried.row["tool"] == "GET /api/charges/1"


def test_an_upgrade_is_refused(api: Api) -> None:
    headers = (("Upgrade", "websocket"), ("Connection", "Upgrade"))
    told(api.tries("GET", "/api/x", headers=headers), 403, "upgrade_refused")


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_a_compressed_request_is_refused(api: Api, encoding: str) -> None:
    told(
        api.tries("POST", "/api/x", b"{}", JSON, headers=(("Content-Encoding", encoding),)),
        415,
        "encoding_refused",
    )


def test_a_body_beyond_the_limit_is_refused(api: Api) -> None:
    tried = api.tries("PUT", "/api/x", b"x" * 4_500_000, "application/octet-stream")
    told(tried, 413, "too_large")


def test_a_token_of_ours_in_url_or_body_does_not_leave(api: Api) -> None:
    token = api.tokens["ivy"]
    told(api.tries("GET", f"/api/x?key={token}"), 403, "token_in_request")
    told(api.tries("POST", "/api/x", b"note=" + token.encode(), FORM), 403, "token_in_request")
    told(api.tries("PUT", "/api/x", b"\xff" + token.encode(), "text/plain"), 403, "token_in_request")


def test_the_callers_own_credentials_stay_behind(api: Api) -> None:
    own = (("Cookie", "a=b"), ("X-Api-Key", "sk_own"), ("X-Forwarded-User", "root"), ("Connection", "X-Keep"))
    seen = served(api.tries("GET", "/api/x", headers=own))
    for name in ("cookie", "x-api-key", "x-forwarded-user", "connection", "expect"):
        assert seen.header(name) is None


NAMING = (
    *(
        "Destination",
        "x-amz-copy-source",
        "Sudo",
        "X-Forwarded-Path",
        "X-Envoy-Original-Path",
        "Private-Token",
    ),
    *("X-Vault-Token", "X-Goog-Api-Key", "Stripe_Account", "X-Made-Up"),
)


@pytest.mark.parametrize("path", ["/api/x", "/open/x"], ids=["with a shared key", "without a credential"])
def test_headers_that_could_name_something_else_stay_behind(api: Api, path: str) -> None:
    usual = (("Accept", "text/x"), ("If-Match", '"e"'), ("Idempotency-Key", "k-1"), ("User-Agent", "sdk/1"))
    tried = api.tries("GET", path, headers=(*((name, "elsewhere") for name in NAMING), *usual))
    assert tried.answer is not None
    assert tried.answer.status == 200
    [seen] = tried.seen
    assert [seen.header(name) for name in NAMING] == [None] * len(NAMING)
    assert b"elsewhere" not in seen.raw
    assert [seen.header(name) for name, _ in usual] == [value for _, value in usual]
    said = "headers left behind: destination, private-token, stripe_account, sudo, x-amz-copy-source"
    assert tried.row["detail"].startswith(said)
    assert tried.row["detail"].endswith(", 2 more")


def test_a_header_that_the_entry_names_goes_on_and_is_judged(api: Api) -> None:
    tried = api.tries("GET", "/api/accounts", headers=(("Stripe-Account", "acct_ours_1"),))
    assert served(tried).header("stripe-account") == "acct_ours_1"
    assert json.loads(tried.row["arguments"]) == {"headers": {"stripe-account": "acct_ours_1"}}
    assert tried.row["detail"] is None
    for other in ("acct_2", "acct_ours_1, acct_2"):
        tried = api.tries("GET", "/api/accounts", headers=(("STRIPE-ACCOUNT", other),))
        assert told(tried, 403, "requirement_failed")["row"]["rule"] == "own-accounts"
    twice = (("Stripe-Account", "acct_ours_1"), ("Stripe-Account", "acct_2"))
    told(api.tries("GET", "/api/accounts", headers=twice), 403, "requirement_failed")
    told(api.tries("GET", "/api/accounts", headers=(("Stripe-Account", "\xe9"),)), 400, "malformed_http")


@pytest.mark.parametrize(
    ("path", "place", "name"),
    [("/api/%61dmin/x", {}, "path_not_canonical"), ("/API/x", {}, "path_not_canonical"),
     ("/api/x", {"host": "elsewhere.corp.example"}, "destination_mismatch")],
)  # fmt: skip
def test_what_goes_astray_is_a_row_of_an_http_call(
    api: Api, path: str, place: dict[str, str], name: str
) -> None:
    raw = api.request("POST", path, b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}', JSON)
    if place:
        raw = raw.replace(f"Host: {api.host}".encode(), f"Host: {place['host']}".encode())
    tried = api.tries("POST", path, raw=raw)
    row = tried.refused(name)
    assert (row["kind"], row["method"], row["server"], row["rpc_id"]) == ("http", "http/POST", "api", None)
    assert row["tool"].startswith("POST /")


def test_what_cannot_be_read_is_a_row_of_an_http_call(api: Api) -> None:
    row = api.tries("POST", "/api/x", b"{", JSON).refused("malformed_json")
    assert (row["kind"], row["method"]) == ("http", "http/POST")


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(("/api/oauth2/token", b"grant_type=client_credentials", FORM), id="a form"),
        pytest.param(("/api/oauth2/token/", b'{"Grant_Type":"client_credentials"}', JSON), id="JSON"),
        pytest.param(("/api/v1/token?grant_type=client_credentials",), id="the query"),
        pytest.param(("/api/token", b"grant_type=client_credentials", "text/plain"), id="a text"),
        pytest.param(
            ("/api/token", b'--b\r\nContent-Disposition: form-data; name="grant_type"\r\n\r\nx\r\n--b--',
             "multipart/form-data; boundary=b"),
            id="a multipart body",
        ),
        pytest.param(("/api/odd-name", b"grant_type=client_credentials", FORM), id="an odd name"),
    ],
)  # fmt: skip
def test_no_token_is_minted_with_the_shared_key(api: Api, given: tuple[Any, ...]) -> None:
    told(api.tries("POST", *given), 404, "oauth_withheld")


def test_an_apis_own_token_and_a_login_without_our_key_stay_under_the_rules(api: Api) -> None:
    served(api.tries("POST", "/api/v1/token", b'{"card":"4242"}', JSON))
    tried = api.tries("POST", "/open/oauth2/token", b"grant_type=client_credentials", FORM)
    assert tried.answer is not None
    assert tried.answer.status == 200
    assert tried.seen[0].header("authorization") is None


def test_json_rpc_to_an_api_is_a_call_to_the_api(api: Api) -> None:
    tried = api.tries("POST", "/api/rpc", h.tool("drop_thing"), JSON)
    served(tried)
    row = tried.row
    assert (row["kind"], row["tool"], row["rpc_id"]) == ("http", "POST /api/rpc", None)


def test_a_login_at_the_api_itself_is_withheld(api: Api) -> None:
    for path in ("/token", "/authorize", "/register", "/.well-known/openid-configuration"):
        tried = api.tries("POST", path, b"grant_type=client_credentials", FORM)
        assert tried.answer is not None
        assert tried.answer.status == 404
        tried.refused("oauth_withheld")


# -- framing ---------------------------------------------------------------------------------------


def written(api: Api, head: str) -> bytes:
    who = f"Authorization: Bearer {api.tokens['alice']}"
    return f"POST /api/things HTTP/1.1\r\nHost: {api.host}\r\n{who}\r\n{head}\r\n".encode()


def smuggled(api: Api, head: str, body: bytes) -> h.Trial:
    return api.tries("POST", "", raw=written(api, head) + body)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("Content-Type: text/plain\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        ("Content-Type: text/plain\r\nContent-Length: 4\r\nContent-Length: 5\r\n", b"abcde"),
        ("Content-Type: text/plain\r\nTransfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
        ("Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n", b"1\r\na\r\n0\r\nX-Late: 1\r\n\r\n"),
    ],
    ids=["both lengths", "two lengths", "an odd coding", "trailers"],
)
def test_a_request_without_a_clear_end_never_arrives(api: Api, head: str, body: bytes) -> None:
    tried = smuggled(api, head, body)
    assert tried.answer is None or tried.answer.status >= 400
    assert tried.seen == []
    h.wait_for(lambda: tried.rows, "a row")


def test_chunks_arrive_as_one_body_with_a_length(api: Api) -> None:
    head = f"Content-Type: {JSON}\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n"
    tried = h.trial(api.proxy, api.upstream)
    client = api.proxy.tunnel(api.host)
    client.send(written(api, head) + b'3\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n')
    first = client.read_head()
    tried.answer = client.read() if first.status == 100 else first
    client.close()
    seen = served(tried)
    assert (seen.body, seen.header("content-length"), seen.header("transfer-encoding")) == (
        b'{"a":1}',
        "7",
        None,
    )
    assert seen.header("expect") is None


# -- what is answered ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "outcome"),
    [("/api/missing", 404, "http_error"), ("/api/range", 206, "ok"), ("/api/fresh", 304, "ok"),
     ("/api/empty", 204, "ok"), ("/api/moved", 302, "ok"), ("/api/hints", 200, "ok")],
)  # fmt: skip
def test_an_answer_passes_with_its_status(api: Api, path: str, status: int, outcome: str) -> None:
    tried = api.tries("GET", path)
    served(tried, status)
    assert (tried.row["outcome"], tried.row["http_status"]) == (outcome, status)
    assert tried.answer is not None
    assert "transfer-encoding" not in tried.answer.headers


@pytest.mark.parametrize("path", ["/api/refuses", "/api/forbids"])
def test_a_server_that_refuses_the_shared_credential_starts_no_login(api: Api, path: str) -> None:
    tried = api.tries("GET", path)
    assert tried.answer is not None
    assert (tried.answer.status, "www-authenticate" in tried.answer.headers) == (502, False)
    assert tried.answer.json["outcome"] == tried.row["outcome"] == "upstream_refused_credential"


def test_what_a_server_says_to_the_credential_is_not_the_callers(api: Api) -> None:
    tried = api.tries("GET", "/api/headers")
    served(tried)
    assert tried.answer is not None
    headers = tried.answer.headers
    assert not {"set-cookie", "www-authenticate"} & set(headers)
    assert (headers["x-echo"], headers["etag"]) == ("[callerid:removed]", "e")


@pytest.mark.parametrize("path", ["/api/echo", "/api/split", "/api/escaped", "/api/escaped-chunks"])
def test_a_secret_is_taken_out_of_what_passes(api: Api, path: str) -> None:
    tried = api.tries("GET", path)
    served(tried)
    assert tried.answer is not None
    assert SPLIT not in tried.answer.body
    assert b"[callerid:removed]" in tried.answer.body
    assert tried.answer.body.rstrip(b'"}').endswith((b"!", b" end"))


def test_lines_of_json_pass_as_they_come(api: Api) -> None:
    client = api.proxy.tunnel(api.host)
    client.send(api.request("GET", "/api/watch"))
    assert client.read_head().status == 200
    assert next(client.chunks()) == b'{"type": "ADDED"}\n'
    client.close()


@pytest.mark.parametrize("path", ["/api/gzip", "/api/utf16", "/api/gone"])
def test_an_answer_that_cannot_be_scrubbed_or_never_came_is_a_502(api: Api, path: str) -> None:
    tried = api.tries("GET", path)
    assert tried.answer is not None
    assert tried.answer.status == 502
    if path != "/api/gone":
        assert tried.answer.json["outcome"] == tried.row["outcome"] == "response_refused"
    else:
        assert tried.row["outcome"] == "upstream_gone"


def test_events_pass_one_by_one(api: Api) -> None:
    tried = api.tries("GET", "/api/events")
    served(tried)
    assert tried.answer is not None
    assert tried.answer.body == b"data: 1\n\ndata: 2\n\n"


def test_a_large_download_passes_in_constant_memory(api: Api) -> None:
    assert api.proxy.process is not None
    status = Path(f"/proc/{api.proxy.process.pid}/status")

    def peak() -> int:
        return int(
            next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]
        )

    before = peak()
    for _ in range(3):
        tried = api.tries("GET", "/api/big")
        served(tried)
        assert tried.answer is not None
        assert len(tried.answer.body) == 20_000_000
        assert (tried.row["outcome"], tried.row["response_bytes"]) == ("ok", 20_000_000)
    assert peak() - before < 16_000


def drain(client: h.RawClient, began: float) -> None:
    for _ in client.chunks():
        assert time.monotonic() - began < h.DEADLINE


def test_a_download_is_cut_when_its_caller_is_blocked(api: Api) -> None:
    principal = "user:bob@corp.example"
    api.tokens["bob"] = h.mint(api.proxy, principal)
    tried = h.trial(api.proxy, api.upstream)
    client = api.proxy.tunnel(api.host)
    client.send(api.request("GET", "/api/endless", who="bob"))
    assert client.read_head().status == 200
    assert next(client.chunks())
    began = time.monotonic()
    api.proxy.command("block", principal)
    with pytest.raises((ConnectionError, OSError)):
        drain(client, began)
    client.close()
    h.wait_for(lambda: tried.rows and tried.rows[0]["outcome"] == "cut", "the cut in the row")
    assert "principal_blocked" in tried.rows[0]["detail"]
    told(api.tries("GET", "/api/x", who="bob"), 403, "principal_blocked")
    api.proxy.command("unblock", principal)


def test_two_callers_on_one_connection_are_two_callers(api: Api) -> None:
    tried = h.trial(api.proxy, api.upstream)
    client = api.proxy.tunnel(api.host)
    statuses = []
    for who in ("alice", "ivy", None, "alice"):
        client.send(api.request("POST", "/api/things", b"{}", JSON, who=who))
        answer = client.read()
        assert answer is not None
        statuses.append(answer.status)
    client.close()
    assert statuses == [200, 403, 401, 200]
    h.wait_for(lambda: len(tried.rows) == 4, "four rows")
    assert [row["principal"] for row in tried.rows] == [ALICE, IVY, "anonymous", ALICE]


def test_it_works_through_a_reverse_listener(api: Api) -> None:
    tried = h.trial(api.proxy, api.upstream)
    sock = socket.create_connection(("127.0.0.1", api.proxy.ports[1]), h.DEADLINE)
    client = h.RawClient(api.proxy.trust().wrap_socket(sock, server_hostname="localhost"))
    client.send(api.request("GET", "/api/charges/9").replace(api.host.encode(), b"localhost:1"))
    tried.answer = client.read()
    client.close()
    assert served(tried).header("host") == api.host
    assert tried.row["tool"] == "GET /api/charges/9"
