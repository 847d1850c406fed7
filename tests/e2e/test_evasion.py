"""Messages that two parsers read as two different calls, sent byte by byte through every way in.

What is judged is what arrives: nothing reaches the server without an ALLOW row, and each refusal is
exactly one row with its reason (or one per message of a batch).
"""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e import harness as h
from tests.e2e.warm import Warm

CALL = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_thing","arguments":{}}}'
DROP = CALL.replace("read_thing", "drop_thing")
RAW = CALL.encode()
ENTRANCES = ("tunnel", "absolute", "reverse")


@dataclass
class Entrances:
    """One proxy with its three ways in: CONNECT and TLS, absolute form, and a reverse listener."""

    proxy: h.Proxy
    listed: h.Upstream
    lab: h.Upstream
    token: str

    def authority(self, entrance: str) -> str:
        return f"localhost:{self.lab.port if entrance == 'absolute' else self.listed.port}"

    def send(self, entrance: str, raw: bytes) -> h.Trial:
        tried = h.trial(self.proxy, self.listed, self.lab)
        if entrance == "tunnel":
            client = self.proxy.tunnel(self.authority(entrance))
        else:
            client = self.proxy.plain(self.proxy.ports[0 if entrance == "absolute" else 1])
        client.send(raw)
        tried.answer = client.read()
        client.close()
        return tried

    def request(
        self, entrance: str, body: bytes, *lines: str, verb: str = "POST", length: bool = True
    ) -> bytes:
        """A request whose every header is chosen by the case; Content-Type only if no line has one."""
        authority = self.authority(entrance)
        target = f"http://{authority}/mcp" if entrance == "absolute" else "/mcp"
        head = [f"{verb} {target} HTTP/1.1", f"Host: {authority}", f"X-Callerid-Token: {self.token}", *lines]
        if not any(line.lower().startswith("content-type") for line in lines):
            head.append("Content-Type: application/json")
        if length:
            head.append(f"Content-Length: {len(body)}")
        return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@pytest.fixture(scope="module")
def entrances(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Entrances]:
    folder = tmp_path_factory.mktemp("evasion")
    listed, lab = h.Upstream(pki.server_context()), h.Upstream(None)
    extra = f"  - {{id: lab, url: 'http://localhost:{lab.port}/mcp'}}\n"
    rules = h.standard_rules(
        listed.port,
        **{
            "servers.yaml": h.servers(listed.port, extra=extra),
            "policy.yaml": h.POLICY_ANYWHERE,
        },
    )
    modes = ("regular", f"reverse:https://localhost:{listed.port}@127.0.0.1:{h.free_port()}")
    proxy = h.WarmProxy(warm, folder, rules, ca=pki.ca, modes=modes, environ={"THINGS_SECRET": h.SECRET})
    with h.running(proxy):
        yield Entrances(proxy, listed, lab, h.mint(proxy))
    listed.close()
    lab.close()


# -- one message, two readings -------------------------------------------------------------------


def swap(old: str, new: str) -> bytes:
    """The call, with a part of it exchanged."""
    assert old in CALL
    return CALL.replace(old, new).encode()


BODIES: dict[str, tuple[bytes, str]] = {
    # duplicate and look-alike names
    "method twice, ping last": (swap('"params"', '"method":"ping","params"'), "duplicate_key"),
    "method twice, the call last": (b'{"method":"ping",' + CALL[1:].encode(), "duplicate_key"),
    "name twice": (swap('"arguments"', '"name":"drop_thing","arguments"'), "duplicate_key"),
    "params twice": (CALL[:-1].encode() + b',"params":{"name":"drop_thing"}}', "duplicate_key"),
    "id twice": (b'{"id":2,' + CALL[1:].encode(), "duplicate_key"),
    "method and Method": (b'{"Method":"ping",' + CALL[1:].encode(), "duplicate_key"),
    "name and Name": (swap('"arguments"', '"Name":"drop_thing","arguments"'), "duplicate_key"),
    "only Method": (swap('"method"', '"Method"'), "malformed_message"),
    "only Name": (swap('"name"', '"Name"'), "malformed_message"),
    "params with a long s": (swap('"params"', '"param\u017f"'), "malformed_message"),
    "arguments with a long s beside it": (
        swap('"arguments"', '"argument\u017f":{"a":1},"arguments"'), "duplicate_key",
    ),
    "a duplicate deep in the arguments": (
        swap("{}", '{"a":[{"b":{"c":1,"c":2}}]}'), "duplicate_key",
    ),
    "an escaped duplicate": (b'{"\\u006dethod":"ping",' + CALL[1:].encode(), "duplicate_key"),
    "a name that ends at a zero": (swap('"name"', '"name\\u0000"'), "malformed_json"),
    # encodings
    "a byte order mark": (codecs.BOM_UTF8 + RAW, "not_utf8"),
    "UTF-16 with a mark": (CALL.encode("utf-16"), "not_utf8"),
    "UTF-16 little endian": (CALL.encode("utf-16-le"), "not_utf8"),
    "UTF-16 big endian": (CALL.encode("utf-16-be"), "not_utf8"),
    "UTF-32": (CALL.encode("utf-32-le"), "not_utf8"),
    "UTF-7": (b"+AHs-" + CALL[1:].encode(), "malformed_json"),
    "a byte that is not UTF-8": (RAW.replace(b"read_thing", b"read\xffthing"), "not_utf8"),
    "an overlong slash": (RAW.replace(b"tools/call", b"tools\xc0\xafcall"), "not_utf8"),
    "half of a surrogate pair": (swap("read_thing", "\\ud800"), "not_utf8"),
    "a zero byte after it": (RAW + b"\0", "not_utf8"),
    # numbers
    "NaN": (swap("{}", '{"x":NaN}'), "malformed_json"),
    "Infinity": (swap("{}", '{"x":-Infinity}'), "malformed_json"),
    "a number beyond doubles": (swap("{}", '{"x":1e999}'), "malformed_json"),
    "five thousand digits": (swap("{}", '{"x":1%s}' % ("0" * 5000)), "malformed_json"),
    "an id of 1.0": (swap('"id":1', '"id":1.0'), "malformed_message"),
    "an id of true": (swap('"id":1', '"id":true'), "malformed_message"),
    "an id of null": (swap('"id":1', '"id":null'), "malformed_message"),
    "an id of {}": (swap('"id":1', '"id":{}'), "malformed_message"),
    "an id of 300 letters": (swap('"id":1', '"id":"%s"' % ("i" * 300)), "malformed_message"),
    # shapes
    "a call without an id": (swap('"id":1,', ""), "malformed_message"),
    "a method and a result": (CALL[:-1].encode() + b',"result":{}}', "malformed_message"),
    "an unknown member": (CALL[:-1].encode() + b',"extra":1}', "malformed_message"),
    "no jsonrpc": (swap('"jsonrpc":"2.0",', ""), "malformed_message"),
    "jsonrpc 1.0": (swap("2.0", "1.0"), "malformed_message"),
    "params as an array": (swap('{"name":"read_thing","arguments":{}}', '["x"]'), "malformed_message"),
    "arguments as a text": (swap('"arguments":{}', '"arguments":"{}"'), "malformed_message"),
    "a name of 5": (swap('"read_thing"', "5"), "malformed_message"),
    "a method with a line end": (swap("tools/call", "tools/call\\n"), "malformed_message"),
    "a bare text": (b'"tools/call"', "malformed_message"),
    "nothing": (b"", "not_mcp"),
    "spaces": (b"   ", "malformed_json"),
    "garbage behind it": (RAW + b"x", "malformed_json"),
    "another call behind it": (RAW + b"\n" + DROP.encode(), "malformed_json"),
    "a comment in it": (b"/*" + RAW + b"*/", "malformed_json"),
    "a comma too many": (swap("{}", '{"a":1,}'), "malformed_json"),
    "cut short": (CALL[:-1].encode(), "malformed_json"),
    "a hundred levels": (swap("{}", f'{{"a":{"[" * 100}{"]" * 100}}}'), "too_deep"),
    "a million levels": (swap("{}", '{"a":%s' % ("[" * 1_000_000)), "too_deep"),
    "more than four MiB": (swap("{}", '{"a":"%s"}' % ("x" * 4_200_000)), "too_large"),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_a_body_with_two_readings_is_refused_in_a_tunnel(entrances: Entrances, name: str) -> None:
    two_readings(entrances, "tunnel", name)


@pytest.mark.parametrize("entrance", ["absolute", "reverse"])
@pytest.mark.parametrize("name", list(BODIES)[::6])
def test_a_body_with_two_readings_is_refused_elsewhere(
    entrances: Entrances, name: str, entrance: str
) -> None:
    two_readings(entrances, entrance, name)


def two_readings(entrances: Entrances, entrance: str, name: str) -> None:
    body, reason = BODIES[name]
    tried = entrances.send(entrance, entrances.request(entrance, body))
    row = tried.refused(reason)
    assert tried.answer is not None
    assert tried.answer.status == {"too_large": 413}.get(reason, 400)
    assert tried.answer.json["error"]["data"] == {"reason": reason, "decision": row["event_id"]}
    assert row["principal"] == "user:alice@corp.example"


# -- one call in another spelling ----------------------------------------------------------------

SPELLINGS = {
    "an escaped slash": r"tools\/call",
    "a slash in hexadecimal": r"tools\u002fcall",
    "letters in hexadecimal": r"\u0074ools/c\u0061ll",
}


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_escapes_change_nothing(entrances: Entrances, spelling: str, entrance: str) -> None:
    """The judged message is written anew: what arrives has one spelling."""
    text = CALL.replace("tools/call", SPELLINGS[spelling]).replace('"params"', r'"\u0070arams"')
    tried = entrances.send(entrance, entrances.request(entrance, f" {text}\n".encode()))
    assert tried.answer is not None
    assert tried.answer.text == "ran read_thing"
    assert (tried.row["verdict"], tried.row["method"], tried.row["tool"]) == (
        "allow",
        "tools/call",
        "read_thing",
    )
    assert [json.loads(seen.body) for seen in tried.seen] == [json.loads(CALL)]
    assert b"\\u" not in tried.seen[0].body
    assert b'"method":"tools/call"' in tried.seen[0].body


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_escapes_do_not_hide_a_denied_tool(entrances: Entrances, entrance: str) -> None:
    text = DROP.replace("drop_thing", r"dr\u006fp\u005fthing")
    tried = entrances.send(entrance, entrances.request(entrance, text.encode()))
    row = tried.refused("rule_denied")
    assert (row["rule"], row["tool"]) == ("no-drops", "drop_thing")


@pytest.mark.parametrize(
    "kind", ["APPLICATION/JSON", "application/json; charset=UTF-8", "Application/Json;charset=utf8"]
)
def test_the_case_of_a_content_type_does_not_matter(entrances: Entrances, kind: str) -> None:
    tried = entrances.send("tunnel", entrances.request("tunnel", DROP.encode(), f"Content-Type: {kind}"))
    tried.refused("rule_denied")


# -- headers -------------------------------------------------------------------------------------

MODERN = json.dumps(
    {
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {
            "name": "read_thing", "arguments": {},
            "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"},
        },
    }
).encode()  # fmt: skip
VERSION, METHOD, NAME = "MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", "Mcp-Name: read_thing"

HEADERS: dict[str, tuple[bytes, tuple[str, ...], str]] = {
    "gzip, truly": (gzip.compress(RAW), ("Content-Encoding: gzip",), "encoding_refused"),
    "deflate, truly": (zlib.compress(RAW), ("Content-Encoding: deflate",), "encoding_refused"),
    "gzip, in name only": (RAW, ("Content-Encoding: gzip",), "encoding_refused"),
    "an encoding nobody knows": (RAW, ("Content-Encoding: foo",), "encoding_refused"),
    "identity and gzip": (RAW, ("Content-Encoding: identity, gzip",), "encoding_refused"),
    "gzip without saying so": (gzip.compress(RAW), (), "not_utf8"),
    "charset utf-16": (CALL.encode("utf-16"), ("Content-Type: application/json; charset=utf-16",), "not_mcp"),
    "charset utf-7": (RAW, ("Content-Type: application/json; charset=utf-7",), "not_mcp"),
    "two charsets": (RAW, ("Content-Type: application/json; charset=utf-8; charset=utf-16",), "not_mcp"),
    "text/plain": (RAW, ("Content-Type: text/plain",), "not_mcp"),
    "no content type": (RAW, ("Content-Type:",), "not_mcp"),
    "json-rpc": (RAW, ("Content-Type: application/json-rpc",), "not_mcp"),
    "a form": (RAW, ("Content-Type: application/x-www-form-urlencoded",), "not_mcp"),
    "two content types": (
        RAW, ("Content-Type: application/json", "Content-Type: text/plain"), "malformed_http",
    ),
    "two session ids": (RAW, ("Mcp-Session-Id: a", "Mcp-Session-Id: b"), "malformed_http"),
    "two encodings": (RAW, ("Content-Encoding: identity", "Content-Encoding: gzip"), "malformed_http"),
    "a header that servers fold": (RAW, ("Mcp_Method: ping",), "malformed_http"),
    "Mcp-Method of another method": (RAW, ("Mcp-Method: ping",), "header_mismatch"),
    "Mcp-Name of another tool": (RAW, ("Mcp-Name: drop_thing",), "header_mismatch"),
    "modern, another method": (MODERN, (VERSION, "Mcp-Method: ping", NAME), "header_mismatch"),
    "modern, another name": (MODERN, (VERSION, METHOD, "Mcp-Name: drop_thing"), "header_mismatch"),
    "modern, a name in other case": (MODERN, (VERSION, METHOD, "Mcp-Name: Read_Thing"), "header_mismatch"),
    "modern, an encoded other name": (
        MODERN, (VERSION, METHOD, "Mcp-Name: =?base64?ZHJvcF90aGluZw==?="), "header_mismatch",
    ),
    "modern, no method": (MODERN, (VERSION, NAME), "header_mismatch"),
    "modern, no name": (MODERN, (VERSION, METHOD), "header_mismatch"),
    "modern, method twice": (MODERN, (VERSION, METHOD, METHOD, NAME), "malformed_http"),
    "modern body, old header": (
        MODERN, ("MCP-Protocol-Version: 2025-06-18", METHOD, NAME), "header_mismatch",
    ),
    "modern body, no header": (MODERN, (METHOD, NAME), "header_mismatch"),
    "old body, modern header": (RAW, (VERSION, METHOD, NAME), "header_mismatch"),
    "a version nobody knows": (RAW, ("MCP-Protocol-Version: 2031-01-01",), "unsupported_version"),
    "two versions": (
        RAW, ("MCP-Protocol-Version: 2025-06-18", "MCP-Protocol-Version: 2025-03-26"), "malformed_http",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_do_not_fit_the_body_are_refused(entrances: Entrances, name: str) -> None:
    body, lines, reason = HEADERS[name]
    tried = entrances.send("tunnel", entrances.request("tunnel", body, *lines))
    row = tried.refused(reason)
    assert tried.answer is not None
    assert tried.answer.json["error"]["data"] == {"reason": reason, "decision": row["event_id"]}
    assert 400 <= tried.answer.status <= 415


def test_a_modern_call_whose_headers_fit_passes(entrances: Entrances) -> None:
    tried = entrances.send("tunnel", entrances.request("tunnel", MODERN, VERSION, METHOD, NAME))
    assert (tried.row["verdict"], tried.row["protocol"]) == ("allow", "2026-07-28")
    assert len(tried.seen) == 1


# -- framing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_chunked_call_is_judged_whole_and_framed_anew(entrances: Entrances, entrance: str) -> None:
    for text, verdict in ((CALL, "allow"), (DROP, "deny")):
        half = len(text) // 2
        parts = [text[:half].encode(), text[half:].encode()]
        body = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in parts)
        body += b"0\r\n\r\n"
        raw = entrances.request(entrance, body, "Transfer-Encoding: chunked", "TE: trailers", length=False)
        tried = entrances.send(entrance, raw)
        assert tried.row["verdict"] == verdict
        for seen in tried.seen:
            assert seen.header("transfer-encoding") is None
            assert seen.header("content-length") == str(len(seen.body))
            assert json.loads(seen.body) == json.loads(CALL)


FRAMINGS: dict[str, tuple[str, ...]] = {
    "a length and chunks": ("Transfer-Encoding: chunked",),
    "two lengths": ("Content-Length: 0",),
    "two lengths in one": ("Content-Length: 5, 5",),
    "a negative length": ("Content-Length: -1",),
    "chunked twice": ("Transfer-Encoding: chunked, chunked",),
    "chunked in disguise": ("Transfer-Encoding: xchunked",),
    "a space before the colon": ("Transfer-Encoding : chunked",),
    "a folded header": ("X-Fold: a\r\n b: c",),
    "a header without a colon": ("nonsense",),
    "a name with a control character": ("X-\x01: a",),
}


def cut_differently(entrances: Entrances, entrance: str, name: str) -> h.Trial:
    raw = entrances.request(entrance, b"%x\r\n%s\r\n0\r\n\r\n" % (len(DROP), DROP.encode()), *FRAMINGS[name])
    return entrances.send(entrance, raw)


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("name", FRAMINGS)
def test_a_request_that_two_servers_would_cut_differently_never_arrives(
    entrances: Entrances, name: str, entrance: str
) -> None:
    tried = cut_differently(entrances, entrance, name)
    assert tried.seen == []
    assert tried.answer is not None
    assert tried.answer.status >= 400


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_each_of_them_is_a_row(entrances: Entrances, entrance: str) -> None:
    """But for what cannot be read as the head of a request at all: mitmproxy tells no addon of it."""
    begun = h.trial(entrances.proxy)
    names = [name for name in FRAMINGS if name != "a header without a colon"]
    for name in names:
        cut_differently(entrances, entrance, name)
    h.wait_for(lambda: len(begun.rows) >= len(names), "a row for each")
    assert len(begun.rows) == len(names)
    for row in begun.rows:
        assert (row["verdict"], row["outcome"]) == ("deny", "not_sent")
        assert row["upstream"] == entrances.authority(entrance)
        assert row["reason"] in ("malformed_http", "malformed_json")


def test_a_body_over_the_limit_of_the_proxy_is_a_refusal_with_a_row(entrances: Entrances) -> None:
    raw = entrances.request("tunnel", b"", "Content-Length: 20000000", length=False)
    tried = entrances.send("tunnel", raw)
    assert tried.answer is not None
    assert tried.answer.status == 413
    [row] = entrances.proxy.await_rows(1, "seq > ?", tried.first_seq)
    assert (row["verdict"], row["reason"]) == ("deny", "too_large")
    assert row["upstream"] == entrances.authority("tunnel")
    assert tried.seen == []


# -- batches -------------------------------------------------------------------------------------


def reasons(tried: h.Trial) -> list[tuple[str, str, int]]:
    return [(row["verdict"], row["reason"], row["batch_index"]) for row in tried.rows]


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_batch_with_one_denied_call_is_denied_whole_with_a_row_for_each(
    entrances: Entrances, entrance: str
) -> None:
    drop = DROP.replace('"id":1', '"id":"two"')
    tried = entrances.send(entrance, entrances.request(entrance, f"[{CALL},{drop}]".encode()))
    assert reasons(tried) == [("deny", "batch_partner_denied", 0), ("deny", "rule_denied", 1)]
    assert tried.seen == []
    assert tried.answer is not None
    assert [message["id"] for message in tried.answer.json] == [1, "two"]
    assert all(message["result"]["isError"] for message in tried.answer.json)


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_batch_that_is_allowed_has_a_row_for_each_message(entrances: Entrances, entrance: str) -> None:
    second = CALL.replace('"id":1', '"id":2')
    tried = entrances.send(entrance, entrances.request(entrance, f"[{CALL},{second}]".encode()))
    assert reasons(tried) == [("allow", "granted", 0), ("allow", "granted", 1)]
    assert [len(json.loads(seen.body)) for seen in tried.seen] == [2]


@pytest.mark.parametrize(
    ("body", "line", "reason"),
    [
        (f"[{CALL}]", "MCP-Protocol-Version: 2025-06-18", "batch_refused"),
        (f"[{CALL}]", "MCP-Protocol-Version: 2026-07-28", "batch_refused"),
        ("[]", "", "batch_refused"),
        (f"[{CALL},{CALL}]", "", "batch_refused"),
        (f'[{CALL},{{"jsonrpc":"2.0","id":9,"result":{{}}}}]', "", "batch_refused"),
        ("[" + ",".join(CALL.replace('"id":1', f'"id":{n}') for n in range(99)) + "]", "", "batch_refused"),
        (f"[[{CALL}]]", "", "malformed_message"),
        (f"[{CALL},1]", "", "malformed_message"),
        (f"[{CALL}]", "Mcp-Method: tools/call", "header_mismatch"),
    ],
    ids=[
        "2025-06-18",
        "2026-07-28",
        "empty",
        "one id twice",
        "mixed",
        "99",
        "nested",
        "a number",
        "mirrored",
    ],
)
def test_a_batch_that_must_not_be_is_refused(entrances: Entrances, body: str, line: str, reason: str) -> None:
    lines = [line] if line else []
    entrances.send("tunnel", entrances.request("tunnel", body.encode(), *lines)).refused(reason)


def test_a_get_or_delete_with_a_body_is_refused(entrances: Entrances) -> None:
    for verb in ("GET", "DELETE"):
        tried = entrances.send("tunnel", entrances.request("tunnel", DROP.encode(), verb=verb))
        tried.refused("malformed_http")


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_pipelined_requests_are_judged_one_by_one(entrances: Entrances, entrance: str) -> None:
    tried = h.trial(entrances.proxy, entrances.listed, entrances.lab)
    if entrance == "tunnel":
        client = entrances.proxy.tunnel(entrances.authority(entrance))
    else:
        client = entrances.proxy.plain(entrances.proxy.ports[0 if entrance == "absolute" else 1])
    texts = [CALL, DROP, CALL, DROP]
    client.send(b"".join(entrances.request(entrance, text.encode()) for text in texts))
    answers = [client.read() for _ in texts]
    client.close()
    assert [answer and answer.json["result"]["isError"] for answer in answers] == [False, True, False, True]
    assert [row["reason"] for row in tried.rows] == ["granted", "rule_denied", "granted", "rule_denied"]
    assert [json.loads(seen.body)["params"]["name"] for seen in tried.seen] == ["read_thing", "read_thing"]


def test_every_call_that_arrived_has_its_row(entrances: Entrances) -> None:
    """Law 1 over all that was sent in this module."""
    arrived = 0
    for seen in entrances.listed.calls() + entrances.lab.calls():
        message = json.loads(seen.body)
        arrived += len(message) if isinstance(message, list) else 1
    allowed = entrances.proxy.rows("verdict = 'allow' and method = 'tools/call'")
    assert arrived == len(allowed)
    assert all(b"drop_thing" not in seen.raw for seen in entrances.listed.seen + entrances.lab.seen)
    assert all(h.SECRET.encode() not in seen.raw for seen in entrances.lab.seen)
