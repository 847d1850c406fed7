"""The life of an issuer's keys against a real HTTPS server with a private CA: rotation, outage, nonsense."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from callerid.config import Identities
from callerid.identity.authority import Authority
from callerid.identity.jwks import MAX_DOCUMENT, REFRESH_EVERY, RETRY_AFTER, JwksStore, fetch_jwks
from callerid.identity.presented import Presented
from callerid.identity.registry import Registry
from callerid.model import Caller, Reason, Rejected
from tests.unit.identity.made import NOW, claims, issuer, jwks, public_jwk, sign

OLD, NEW = public_jwk("ES256", "k1"), public_jwk("ES256", "k2", which=1)
STALE = 3600


class Site:
    """An issuer's web server: what it answers, and how it fails to."""

    def __init__(self, folder: Path) -> None:
        self.asked = 0
        self.status, self.headers, self.body = 200, {"Content-Type": "application/json"}, jwks(OLD)
        self.drips = False
        self.hangs_up = False
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked += 1
                if site.hangs_up:
                    self.close_connection = True
                    return
                self.send_response(site.status)
                for name, value in {**site.headers, "Content-Length": str(len(site.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if site.drips:
                    self.wfile.write(site.body[:1])
                    self.wfile.flush()
                    site.enough.wait(10)
                    return
                self.wfile.write(site.body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that gives up is what some tests are about."""

        self.enough = threading.Event()
        ca = trustme.CA()
        self.ca_file = folder / "private-ca.pem"
        ca.cert_pem.write_to_path(str(self.ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("localhost").configure_cert(context)
        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_address[1]}/keys"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.enough.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Door:
    """One issuer behind ``site``, and callers with its tokens."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.issuer = issuer(jwks_file=None, jwks_url=site.url, stale_for=STALE)
        self.store = JwksStore((self.issuer,), lambda url: fetch_jwks(url, ca_file=site.ca_file, timeout=0.3))
        self.registry = Registry.open(folder / "registry.db")
        self.authority = Authority(Identities(issuers=(self.issuer,)), self.registry, self.store, ())

    def ask(self, now: datetime, *, kid: str = "k1", which: int = 0) -> Reason | None:
        at = int(now.timestamp())
        header = {"alg": "ES256", "typ": "JWT", "kid": kid}
        token = sign(claims(iat=at - 1, exp=at + 600), which=which, header=header)
        answer = self.authority.identify(Presented(authorization=(f"Bearer {token}",)), now=now)
        assert isinstance(answer, Caller | Rejected)
        return answer.reason if isinstance(answer, Rejected) else None


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


@pytest.fixture
def door(site: Site, tmp_path: Path) -> Iterator[Door]:
    made = Door(site, tmp_path)
    yield made
    made.registry.close()


def test_a_private_ca_is_named_as_the_cause_with_the_url(site: Site) -> None:
    entry = issuer(jwks_file=None, jwks_url=site.url)
    [problem] = JwksStore((entry,), lambda url: fetch_jwks(url, ca_file=None)).refresh(NOW)
    assert f"not renewed from {site.url}: " in problem
    assert "--upstream-ca FILE" in problem
    entry = issuer(jwks_file=None, jwks_url="https://localhost:1/keys")
    [problem] = JwksStore((entry,), lambda url: fetch_jwks(url, ca_file=None)).refresh(NOW)
    assert "https://localhost:1/keys" in problem
    assert "--upstream-ca" not in problem


def test_keys_rotate_in_mid_life(door: Door, site: Site) -> None:
    """A key that is added is taken up by the first token that names it, once; one that is gone is gone."""
    assert door.ask(NOW) is Reason.JWT_KEYS_UNAVAILABLE
    assert door.store.refresh(NOW) == ()
    assert door.ask(NOW) is None
    site.body = jwks(OLD, NEW)
    soon = NOW + RETRY_AFTER
    assert not door.store.due(soon)
    for _ in range(20):
        assert door.ask(soon, kid="k2", which=1) is Reason.JWT_INVALID
    assert door.store.due(soon)
    door.store.refresh(soon)
    assert door.ask(soon, kid="k2", which=1) is None
    assert door.ask(soon) is None
    for _ in range(20):
        assert door.ask(soon, kid="never", which=5) is Reason.JWT_INVALID
    assert door.store.refresh(soon) == ()
    assert site.asked == 2, "one question for each unknown kid would be a way to flood the issuer"
    site.body = jwks(NEW)
    later = soon + REFRESH_EVERY
    door.store.refresh(later)
    assert door.ask(later) is Reason.JWT_INVALID
    assert door.ask(later, kid="k2", which=1) is None


def fails(site: Site, how: str) -> None:
    match how:
        case "refuses":
            site.status = 503
        case "moves":
            site.status, site.headers = 302, {"Location": site.url}
        case "hangs up":
            site.hangs_up = True
        case "garbage":
            site.body = b"<html>sign in</html>"
        case "empty":
            site.body = jwks({"kty": "oct", "k": "AAAA"})
        case "huge":
            site.body = b" " * (MAX_DOCUMENT + 1)
        case "drips":
            site.drips = True
        case "is gone":
            site.close()
            site.close = lambda: None  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "how", ["refuses", "moves", "hangs up", "garbage", "empty", "huge", "drips", "is gone"]
)
def test_through_an_outage_the_last_keys_are_good_for_a_bounded_time(
    door: Door, site: Site, how: str
) -> None:
    door.store.refresh(NOW)
    fails(site, how)
    [problem] = door.store.refresh(NOW + REFRESH_EVERY)
    assert "corp-idp" in problem
    edge = NOW + timedelta(seconds=STALE)
    assert door.ask(edge) is None
    after = edge + timedelta(seconds=1)
    assert door.ask(after) is Reason.JWT_KEYS_UNAVAILABLE
    assert door.ask(after, which=9) is Reason.JWT_KEYS_UNAVAILABLE
    if how == "is gone":
        return
    site.status, site.headers, site.body = 200, {}, jwks(OLD)
    site.drips = site.hangs_up = False
    assert door.store.due(after)
    assert door.store.refresh(after) == ()
    assert door.ask(after) is None


def test_the_issuers_server_is_verified_by_the_private_ca_alone(site: Site, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch_jwks(site.url, ca_file=None)
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch_jwks(site.url.replace("localhost", "127.0.0.1"), ca_file=site.ca_file)
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch_jwks(site.url, ca_file=other)
    assert site.asked == 0
