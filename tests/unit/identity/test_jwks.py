"""Keys of issuers: how they come in, how long they stay, and from where they are not taken."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from callerid.errors import ConfigError
from callerid.identity.jwks import (
    MAX_DOCUMENT,
    REFRESH_EVERY,
    RETRY_AFTER,
    JwksStore,
    fetch_jwks,
    load_jwks_file,
    parse_jwks,
)
from tests.unit.identity.made import NOW, issuer, jwks, public_jwk

SECOND = timedelta(seconds=1)
STALE_AFTER = timedelta(hours=24)
"""Unless the issuer's entry says otherwise."""


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b'{"keys":{}}', id="keys is no list"),
        pytest.param(b'{"keys":[]}', id="no keys"),
        pytest.param(b'{"keys":[7,{"kty":"oct","k":"AAAA"}]}', id="no usable key"),
        pytest.param(b'{"keys":[],"keys":[]}', id="keys twice"),
        pytest.param(jwks() + b" " * MAX_DOCUMENT, id="too large"),
        pytest.param(jwks(*[public_jwk()] * 101), id="too many keys"),
    ],
)
def test_a_document_that_is_of_no_use_is_an_error(data: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_jwks(data, where="the test")
    assert caught.value.hint


def test_symmetric_keys_are_passed_over() -> None:
    keys = parse_jwks(jwks({"kty": "oct", "k": "AAAA", "kid": "k9"}, public_jwk()), where="the test")
    assert not keys.knows("k9")
    assert keys.knows("k1")


def test_a_missing_file_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load_jwks_file(tmp_path / "none.json")
    assert caught.value.hint


# -- the store ---------------------------------------------------------------------------------------


class Source:
    """A place to fetch from: its document, or its failure."""

    def __init__(self) -> None:
        self.document: bytes | Exception = jwks()
        self.asked: list[str] = []

    def __call__(self, url: str) -> bytes:
        self.asked.append(url)
        if isinstance(self.document, Exception):
            raise self.document
        return self.document


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def store(source: Source) -> JwksStore:
    return JwksStore((issuer(jwks_file=None, jwks_url="https://login.corp.example/keys"),), source)


def knows(store: JwksStore, kid: str = "k1", after: timedelta = timedelta(0)) -> bool | None:
    keys = store.keys("corp-idp", NOW + after)
    return None if keys is None else keys.knows(kid)


def test_there_are_no_keys_before_the_first_refresh(store: JwksStore) -> None:
    assert store.due(NOW)
    assert knows(store) is None
    assert store.keys("nobody", NOW) is None


def test_keys_are_fetched_every_five_minutes(store: JwksStore, source: Source) -> None:
    assert store.refresh(NOW) == ()
    assert knows(store) is True
    assert not store.due(NOW + REFRESH_EVERY - SECOND)
    store.refresh(NOW + REFRESH_EVERY - SECOND)
    assert len(source.asked) == 1
    source.document = jwks(public_jwk("ES256", "k2"))
    assert store.due(NOW + REFRESH_EVERY)
    store.refresh(NOW + REFRESH_EVERY)
    assert knows(store) is False
    assert knows(store, "k2") is True


def test_the_version_changes_with_the_keys_and_with_nothing_else(store: JwksStore, source: Source) -> None:
    seen = [store.version]
    documents: tuple[bytes | Exception, ...] = (
        jwks(), jwks(), OSError("gone"), b"{}", jwks(public_jwk("ES256", "k2")), jwks(),
    )  # fmt: skip
    for turn, document in enumerate(documents):
        source.document = document
        store.refresh(NOW + turn * REFRESH_EVERY)
        seen.append(store.version)
    assert seen == [0, 1, 1, 1, 1, 2, 3]


def test_an_unknown_kid_fetches_once_in_thirty_seconds_however_many_come(
    store: JwksStore, source: Source
) -> None:
    store.refresh(NOW)
    for _ in range(100):
        store.note_unknown_kid("corp-idp")
        store.note_unknown_kid("nobody")
        store.refresh(NOW + RETRY_AFTER - SECOND)
    assert len(source.asked) == 1
    assert store.due(NOW + RETRY_AFTER)
    store.refresh(NOW + RETRY_AFTER)
    assert len(source.asked) == 2
    assert not store.due(NOW + 2 * RETRY_AFTER)


@pytest.mark.parametrize(
    "failure",
    [OSError("no route"), ConfigError("of no use"), b"{}", b'{"keys":[]}'],
    ids=["unreachable", "useless", "no JWKS", "empty"],
)
def test_the_last_good_keys_stay_for_a_day_and_no_longer(
    store: JwksStore, source: Source, failure: bytes | Exception
) -> None:
    store.refresh(NOW)
    source.document = failure
    problems = store.refresh(NOW + REFRESH_EVERY)
    assert len(problems) == 1
    assert "corp-idp" in problems[0]
    assert knows(store, after=STALE_AFTER) is True
    assert knows(store, after=STALE_AFTER + SECOND) is None


def test_after_a_failure_the_next_try_is_in_thirty_seconds(store: JwksStore, source: Source) -> None:
    source.document = OSError("no route")
    store.refresh(NOW)
    assert not store.due(NOW + RETRY_AFTER - SECOND)
    assert store.due(NOW + RETRY_AFTER)


def test_a_clock_that_was_set_back_does_not_stop_the_refresh(store: JwksStore) -> None:
    store.refresh(NOW)
    assert store.due(NOW - timedelta(days=1))


def test_one_issuers_failure_is_not_anothers(source: Source, tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_bytes(jwks())
    source.document = OSError("no route")
    store = JwksStore(
        (
            issuer(id="a", jwks_file=None, jwks_url="https://a.corp.example"),
            issuer(id="b", jwks_file=tmp_path / "jwks.json"),
            issuer(id="c", jwks_file=None, jwks_url=None),
        ),
        source,
    )
    assert len(store.refresh(NOW)) == 2
    assert store.keys("a", NOW) is None
    assert store.keys("b", NOW) is not None


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks())
    store = JwksStore((issuer(jwks_file=path),))
    store.refresh(NOW)
    assert knows(store) is True
    path.write_bytes(jwks(public_jwk("ES256", "another")))
    later = NOW + timedelta(seconds=10)
    assert store.due(later)
    assert store.refresh(later) == ()
    assert knows(store) is False
    assert knows(store, "another") is True


def test_a_file_that_vanishes_keeps_its_keys_for_a_day_since_it_was_last_seen(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks())
    store = JwksStore((issuer(jwks_file=path),))
    for hours in (0, 30, 60):
        assert store.refresh(NOW + timedelta(hours=hours)) == ()
        assert knows(store, after=timedelta(hours=hours)) is True
    path.unlink()
    assert store.refresh(NOW + timedelta(hours=61))
    assert knows(store, after=timedelta(hours=84)) is True
    assert knows(store, after=timedelta(hours=85)) is None


# -- fetching ----------------------------------------------------------------------------------------


class Site(BaseHTTPRequestHandler):
    """An issuer's web server: the path says how it behaves."""

    def do_GET(self) -> None:
        if self.path == "/moved":
            self._answer(302, b"", ("Location", "/keys"))
        elif self.path == "/huge":
            self._answer(200, b" " * (MAX_DOCUMENT + 1))
        elif self.path == "/broken":
            self.wfile.write(b"nonsense\r\n\r\n")
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"{")
        elif self.path == "/keys":
            self._answer(200, jwks())
        else:
            self._answer(404, b"")

    def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that does not like our certificate is what some tests are about."""


def serve(server: ThreadingHTTPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def http_port() -> Iterator[int]:
    yield from serve(Quiet(("127.0.0.1", 0), Site))


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def https_port(ca: trustme.CA) -> Iterator[int]:
    server = Quiet(("127.0.0.1", 0), Site)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    yield from serve(server)


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


def test_keys_are_fetched_over_verified_tls(https_port: int, ca_file: Path) -> None:
    data = fetch_jwks(f"https://localhost:{https_port}/keys", ca_file=ca_file)
    assert parse_jwks(data, where="the test").knows("k1")


def test_a_server_that_is_not_verified_is_not_read(https_port: int, ca_file: Path) -> None:
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch_jwks(f"https://localhost:{https_port}/keys", ca_file=None)
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch_jwks(f"https://127.0.0.1:{https_port}/keys", ca_file=ca_file)


@pytest.mark.parametrize("path", ["moved", "huge", "broken", "cut", "missing"])
def test_an_answer_that_is_not_the_document_is_an_error(http_port: int, path: str) -> None:
    with pytest.raises(OSError):
        fetch_jwks(f"http://127.0.0.1:{http_port}/{path}", ca_file=None)


def test_proxies_of_the_environment_are_not_used(http_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetch_jwks(f"http://127.0.0.1:{http_port}/keys", ca_file=None) == jwks()


def test_a_document_that_drips_is_given_up(http_port: int) -> None:
    ticks = iter([0.0, 6.0, 12.0])
    with pytest.raises(OSError, match="in time"):
        fetch_jwks(f"http://127.0.0.1:{http_port}/keys", ca_file=None, timeout=5.0, clock=lambda: next(ticks))


@pytest.mark.parametrize(
    "url",
    [
        "http://login.corp.example/keys",
        "http://127.0.0.1.corp.example/keys",
        "http://localhost.corp.example/keys",
        "http://0.0.0.0/keys",
        "file:///etc/passwd",
        "ftp://127.0.0.1/keys",
        "data:application/json,{}",
        "https://",
        "https://[::1/keys",
        "",
    ],
)
def test_only_https_and_loopback_are_fetched_from(url: str) -> None:
    with pytest.raises(ConfigError, match="cannot be fetched"):
        fetch_jwks(url, ca_file=None)


def test_a_ca_file_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CA file"):
        fetch_jwks("https://localhost:1/", ca_file=tmp_path / "none.pem")
