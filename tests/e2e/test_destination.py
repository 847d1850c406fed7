"""The secret goes to one place: every way to name another place, or the same place otherwise.

Two upstreams watch: the listed one, and an evil one that nobody listed. Both speak TLS with a certificate
that the proxy trusts, so only the destination tells them apart.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from tests.e2e import harness as h
from tests.e2e.certs import server_certificate
from tests.e2e.warm import Warm


@dataclass
class Places:
    """One proxy; ``listed`` is the server ``things``, ``lab`` one in the clear, ``evil`` nobody listed."""

    proxy: h.Proxy
    listed: h.Upstream
    lab: h.Upstream
    evil: h.Upstream
    token: str

    @property
    def here(self) -> str:
        return f"localhost:{self.listed.port}"

    @property
    def away(self) -> str:
        return f"127.0.0.1:{self.evil.port}"

    @property
    def signed(self) -> dict[str, str]:
        """The carrier that every request here has: evidence is not what they are refused for."""
        return {"X-Callerid-Token": self.token}

    def watch(self) -> h.Trial:
        return h.trial(self.proxy, self.listed, self.lab, self.evil)

    def secret_stayed_home(self) -> None:
        """Neither the evil server nor the one in the clear ever saw the secret, nor any a token of ours."""
        for upstream in (self.evil, self.lab):
            assert all(h.SECRET.encode() not in seen.raw for seen in upstream.seen)
        for upstream in (self.evil, self.lab, self.listed):
            assert all(b"cid_" not in seen.raw for seen in upstream.seen)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Places]:
    folder = tmp_path_factory.mktemp("destination")
    listed, lab = h.Upstream(pki.server_context()), h.Upstream(None)
    evil = h.Upstream(pki.server_context("localhost", "127.0.0.1", "evil.corp.example"))
    extra = f"  - {{id: lab, url: 'http://localhost:{lab.port}/mcp'}}\n"
    rules = h.standard_rules(
        listed.port,
        **{
            "servers.yaml": h.servers(listed.port, extra=extra),
            "policy.yaml": h.POLICY_ANYWHERE,
        },
    )
    proxy = h.WarmProxy(warm, folder, rules, ca=pki.ca, environ={"THINGS_SECRET": h.SECRET})
    with h.running(proxy):
        made = Places(proxy, listed, lab, evil, h.mint(proxy))
        yield made
        made.secret_stayed_home()
    for upstream in (listed, lab, evil):
        upstream.close()


def ask(places: Places, raw: bytes, client: h.RawClient) -> h.Trial:
    tried = places.watch()
    client.send(raw)
    tried.answer = client.read_head() if raw.startswith(b"HEAD") else client.read()
    client.close()
    return tried


def call(places: Places, host: str, path: str = "/mcp", **options: str) -> bytes:
    return h.post(host, path, h.tool("read_thing", {"x": 1}), places.signed, **options)


# -- names that disagree -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.corp.example", "localhost", "127.0.0.1:{port}", "localhost:1", "", "a b"]
)
def test_a_host_header_that_names_another_place_is_refused(places: Places, host: str) -> None:
    raw = call(places, host.format(port=places.listed.port))
    tried = ask(places, raw, places.proxy.tunnel(places.here))
    assert tried.answer is not None
    row = tried.refused("destination_mismatch")
    assert tried.answer.status == 200
    assert "destination_mismatch" in tried.answer.text
    assert (row["principal"], row["server"]) == ("user:alice@corp.example", "things")


def test_two_host_headers_are_refused(places: Places) -> None:
    raw = call(places, places.here).replace(b"Host:", b"Host: evil.corp.example\r\nHost:", 1)
    tried = ask(places, raw, places.proxy.tunnel(places.here))
    assert tried.seen == []
    assert tried.row["verdict"] == "deny"


@pytest.mark.parametrize("sni", ["evil.corp.example", "other.localhost"])
def test_a_server_name_of_another_host_is_refused(places: Places, sni: str) -> None:
    tried = ask(places, call(places, places.here), places.proxy.tunnel(places.here, sni=sni))
    assert tried.refused("destination_mismatch")["server"] == "things"


@pytest.mark.parametrize("what", ["Host and SNI", "Host", "SNI"])
def test_another_destination_that_calls_itself_the_listed_one_is_refused(places: Places, what: str) -> None:
    """Domain fronting: the connection goes to the evil server under the name of the good one."""
    client = places.proxy.tunnel(places.away, sni="localhost" if "SNI" in what else None)
    raw = call(places, places.here if "Host" in what else places.away)
    tried = ask(places, raw, client)
    row = tried.refused("destination_mismatch")
    assert row["upstream"] == places.away


def test_another_port_of_the_listed_host_is_not_the_listed_server(places: Places) -> None:
    authority = f"localhost:{places.evil.port}"
    for host in (authority, places.here):
        tried = ask(places, call(places, host), places.proxy.tunnel(authority))
        assert tried.row["verdict"] == "deny"
        assert tried.seen == []


def test_the_address_of_the_listed_host_is_not_the_listed_server(places: Places) -> None:
    authority = f"127.0.0.1:{places.listed.port}"
    tried = ask(places, call(places, authority), places.proxy.tunnel(authority))
    tried.refused("unknown_server")


def test_absolute_form_with_a_foreign_host_is_refused(places: Places) -> None:
    lab = f"localhost:{places.lab.port}"
    for target, host in ((lab, "evil.corp.example"), (places.away, lab), (lab, places.here)):
        raw = call(places, host, target=f"http://{target}/mcp")
        tried = ask(places, raw, places.proxy.plain())
        tried.refused("destination_mismatch")


def test_absolute_form_inside_a_tunnel_goes_where_the_tunnel_goes_or_nowhere(places: Places) -> None:
    raw = call(places, places.away, target=f"https://{places.away}/mcp")
    tried = ask(places, raw, places.proxy.tunnel(places.here))
    assert places.evil.seen == []
    assert all(row["verdict"] != "allow" for row in tried.rows)
    assert tried.seen == []


# -- the same place by another way ---------------------------------------------------------------


def test_plain_http_inside_a_tunnel_to_the_tls_port_is_refused(places: Places) -> None:
    tried = ask(places, call(places, places.here), places.proxy.tunnel(places.here, tls=False))
    assert "listed with https" in tried.refused("destination_mismatch")["detail"]


def test_plain_absolute_form_to_the_tls_port_is_refused(places: Places) -> None:
    raw = call(places, places.here, target=f"http://{places.here}/mcp")
    tried = ask(places, raw, places.proxy.plain())
    tried.refused("destination_mismatch")


def test_https_absolute_form_is_a_call_and_leaves_over_verified_tls(places: Places) -> None:
    raw = call(places, places.here, target=f"https://{places.here}/mcp")
    tried = ask(places, raw, places.proxy.plain())
    assert tried.answer is not None
    assert tried.answer.text == "ran read_thing"
    [seen] = tried.seen
    assert seen.header("authorization") == f"Bearer {h.SECRET}"
    assert (tried.row["verdict"], tried.row["outcome"]) == ("allow", "ok")


def test_user_information_in_the_target_never_passes(places: Places) -> None:
    for target in (f"https://evil@{places.here}/mcp", f"https://{places.here}@{places.away}/mcp"):
        tried = ask(places, call(places, places.here, target=target), places.proxy.plain())
        assert all(row["verdict"] != "allow" for row in tried.rows)
        assert tried.seen == []
        assert tried.answer is None or tried.answer.status >= 400 or tried.answer.json["result"]["isError"]


@pytest.mark.parametrize("name", ["LOCALHOST", "LocalHost"])
def test_the_case_of_a_host_does_not_matter(places: Places, name: str) -> None:
    authority = f"{name}:{places.listed.port}"
    tried = ask(places, call(places, authority), places.proxy.tunnel(authority, sni="localhost"))
    assert (tried.row["verdict"], tried.row["server"]) == ("allow", "things")
    assert tried.seen[0].header("authorization") == f"Bearer {h.SECRET}"


def test_a_trailing_dot_never_takes_the_secret_along(places: Places) -> None:
    authority = f"localhost.:{places.listed.port}"
    tried = ask(places, call(places, authority), places.proxy.tunnel(authority, sni="localhost"))
    assert tried.refused("credential_not_bound")["server"] == "things"


# -- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/MCP", "/Mcp/x", "/%6dcp", "/%6Dcp", "//mcp", "/./mcp", "/x/../mcp", "/mcp/..", "/mcp/../admin",
        "/mcp;a=b", "/mcp%2f..", "/mcp/%2e%2e/admin", "/mcp%00", "/mcp%3b", "/mcp\\x",
        "/mcp/%zz", "/mcp/%5c", "/mcp//x",
    ],
)  # fmt: skip
def test_a_path_that_two_servers_read_differently_is_refused(places: Places, path: str) -> None:
    tried = ask(places, call(places, places.here, path), places.proxy.tunnel(places.here))
    tried.refused("path_not_canonical")


@pytest.mark.parametrize("path", ["/mcp", "/mcp/", "/mcp/deeper", "/mcp?x=1"])
def test_plain_paths_below_the_listed_one_pass_as_they_are(places: Places, path: str) -> None:
    tried = ask(places, call(places, places.here, path), places.proxy.tunnel(places.here))
    assert tried.row["verdict"] == "allow"
    assert [seen.path for seen in tried.seen] == [path]


@pytest.mark.parametrize("path", ["/", "/admin", "/mcpx", "/x/mcp", "*"])
def test_another_path_of_the_listed_host_is_no_listed_server(places: Places, path: str) -> None:
    tried = ask(places, call(places, places.here, path), places.proxy.tunnel(places.here))
    assert tried.seen == []
    assert tried.row["verdict"] == "deny"
    assert tried.row["reason"] in ("unknown_server", "path_not_canonical")


# -- leaving HTTP --------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "TLS/1.0"])
@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_an_upgrade_is_refused(places: Places, protocol: str, verb: str) -> None:
    extra = f"Upgrade: {protocol}\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n"
    raw = call(places, places.here).replace(b"Host:", extra.encode() + b"Host:", 1)
    if verb == "GET":
        raw = (
            f"GET /mcp HTTP/1.1\r\nHost: {places.here}\r\nX-Callerid-Token: {places.token}\r\n{extra}"
            "Accept: text/event-stream\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
    tried = ask(places, raw, places.proxy.tunnel(places.here))
    assert tried.answer is not None
    assert tried.answer.status != 101
    tried.refused("upgrade_refused")


@pytest.mark.parametrize("tls", [True, False], ids=["in TLS", "in the clear"])
@pytest.mark.parametrize(
    "start",
    [b"\r\n" * 5, b"\0\0\0\0", b"{", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01"],
)
def test_bytes_that_are_not_http_after_connect_reach_nobody(places: Places, start: bytes, tls: bool) -> None:
    """The classic way around a proxy of this kind: what does not look like HTTP would be passed on raw."""
    tried = places.watch()
    client = places.proxy.tunnel(places.here, tls=tls)
    before = places.listed.connections
    client.send(start + call(places, places.here))
    client.sock.shutdown(socket.SHUT_WR)
    with suppress(OSError):
        client.stream.read()
    client.close()
    assert tried.seen == []
    assert places.listed.connections == before
    assert all(row["verdict"] == "deny" for row in tried.rows)


def test_a_tunnel_in_a_tunnel_is_refused(places: Places) -> None:
    for authority in (places.away, places.here):
        client = places.proxy.tunnel(places.here)
        tried = places.watch()
        client.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        answer = client.read()
        client.close()
        assert answer is not None
        assert answer.status >= 400
        assert b"mitmproxy" not in answer.body
        assert tried.seen == []
        assert places.evil.connections == 0


def test_a_tunnel_in_a_tunnel_is_a_row(places: Places) -> None:
    client = places.proxy.tunnel(places.here)
    tried = places.watch()
    client.send(f"CONNECT {places.away} HTTP/1.1\r\nHost: {places.away}\r\n\r\n".encode())
    client.read()
    client.close()
    h.wait_for(lambda: tried.rows, "a row", 2)
    assert tried.refused("malformed_http")["upstream"] == places.here


@pytest.mark.parametrize("verb", ["TRACE", "OPTIONS", "PUT", "PATCH", "HEAD", "post", "BREW"])
def test_other_methods_never_reach_a_listed_server(places: Places, verb: str) -> None:
    raw = call(places, places.here).replace(b"POST", verb.encode(), 1)
    tried = ask(places, raw, places.proxy.tunnel(places.here))
    row = tried.refused("not_mcp")
    assert row["method"] == f"http/{verb}"
    assert tried.answer is not None
    assert tried.answer.status in (403, 405)


# -- who answers ---------------------------------------------------------------------------------


class Clear(h.Upstream):
    """Answers a TLS greeting in plain HTTP, as a web server on the wrong port does."""

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            sock.recv(65536)
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture(params=["self-signed", "for another name", "from an unknown CA", "in the clear"])
def impostor(
    request: pytest.FixtureRequest, pki: h.Pki, tmp_path_factory: pytest.TempPathFactory, warm: Warm
) -> Iterator[tuple[h.Upstream, h.Proxy]]:  # fmt: skip
    """Something else answers at the address of the listed server."""
    folder = tmp_path_factory.mktemp("impostor")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if request.param == "self-signed":
        context.load_cert_chain(server_certificate("localhost", folder))
    elif request.param == "for another name":
        context = pki.server_context("other.corp.example")
    elif request.param == "from an unknown CA":
        context = h.Pki(folder / "other").server_context()
    upstream = Clear(None) if request.param == "in the clear" else h.Upstream(context)
    proxy = h.WarmProxy(
        warm, folder, h.standard_rules(upstream.port), ca=pki.ca, environ={"THINGS_SECRET": h.SECRET}
    )
    with h.running(proxy):
        yield upstream, proxy
    upstream.close()


def test_an_impostor_never_gets_the_secret_and_the_row_says_how_it_ended(
    impostor: tuple[h.Upstream, h.Proxy],
) -> None:
    upstream, proxy = impostor
    tried = h.trial(proxy, upstream)
    authority = f"localhost:{upstream.port}"
    client = proxy.tunnel(authority)
    client.send(
        h.post(authority, "/mcp", h.tool("read_thing", rpc_id=3), {"X-Callerid-Token": h.mint(proxy)})
    )
    answer = client.read()
    client.close()
    assert answer is not None
    assert answer.status == 502
    assert tried.seen == []
    row = tried.row
    assert (row["verdict"], row["reason"], row["outcome"]) == ("allow", "granted", "not_sent")
    assert answer.json["id"] == 3
    assert answer.json["error"]["message"]
    assert h.SECRET.encode() not in answer.body
    assert b"mitmproxy" not in answer.body
    assert row["detail"]


def test_a_redirect_leads_nowhere_with_the_secret(places: Places) -> None:
    def astray(seen: h.Seen) -> h.Reply:
        secret = (seen.header("authorization") or "").removeprefix("Bearer ")
        location = f"https://{places.away}/mcp?leak={secret}"
        return h.Reply(307, [("Location", location), ("Refresh", f"0;url={location}")], location.encode())

    places.listed.answer = astray
    try:
        tried = ask(places, call(places, places.here), places.proxy.tunnel(places.here))
    finally:
        places.listed.answer = h.call_tool
    assert tried.answer is not None
    assert h.SECRET not in json.dumps(tried.answer.headers) + tried.answer.body.decode()
    assert len(tried.seen) == 1
    assert (tried.row["verdict"], tried.row["http_status"]) == ("allow", 307)
    assert places.evil.seen == []
    followed = ask(places, call(places, places.away), places.proxy.tunnel(places.away))
    followed.refused("unknown_server")


def test_the_secret_was_only_ever_seen_in_its_place(places: Places) -> None:
    places.secret_stayed_home()
    holders = [seen for seen in places.listed.seen if h.SECRET.encode() in seen.raw]
    assert holders
    assert {seen.header("authorization") for seen in holders} == {f"Bearer {h.SECRET}"}
    assert all(seen.raw.count(h.SECRET.encode()) == 1 for seen in holders)
