from __future__ import annotations

import json
import logging
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import trustme
from flask import Response

from callerid.config import OAuth
from callerid.credentials import kept
from callerid.credentials.minters import minter_for
from callerid.credentials.minting import Given, Minter
from callerid.credentials.secret import Secret
from callerid.credentials.sources.base import Fetched, Flight, Unavailable
from tests.e2e.oauth_server import EXCHANGE, Client, Login, Refresh, serving
from tests.unit.credentials.helpers import credential

CLIENT_SECRET = "client-secret-5d0c9f"
REFRESH = "refresh-first-4711-4711"
RESOURCE = "https://files.corp.example/mcp"
ALL = ("client_credentials", "refresh_token", EXCHANGE)
PEOPLE_KEY = "people-key-of-at-least-32-bytes-length"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    ca = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    path = tmp_path_factory.mktemp("pki") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return context, path


@pytest.fixture
def login(pki: tuple[ssl.SSLContext, Path]) -> Iterator[Login]:
    clients = [
        Client("basic-client", CLIENT_SECRET, ALL),
        Client("post-client", CLIENT_SECRET, ALL, "client_secret_post"),
        Client("public-client", None, ALL, "none"),
        Client("narrow-client", CLIENT_SECRET, ()),
    ]
    made = Login(
        clients={client.client_id: client for client in clients},
        refreshes={REFRESH: Refresh(REFRESH, "basic-client", "service")},
        people=lambda token: str(jwt.decode(token, PEOPLE_KEY, algorithms=["HS256"])["sub"]),
    )
    with serving(pki[0], made) as running:
        yield running


def of_person(name: str = "alice", **changes: Any) -> str:
    claims = {"sub": name, "exp": int(time.time()) + 600, **changes}
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, PEOPLE_KEY, algorithm="HS256")


def minter(
    login: Login, pki: tuple[ssl.SSLContext, Path], inject: str, folder: Path | None = None, **oauth: Any
) -> Minter:
    told = OAuth(**{"token_url": login.url, "client_id": "basic-client", **oauth})
    made = minter_for(credential(id="files", inject=inject, oauth=told), pki[1], kept=folder)
    assert made is not None
    return made


def mint(made: Minter, *, timeout: float = 10, **given: Any) -> Fetched | Unavailable:
    flight = Flight(timeout, time.monotonic, time.time())
    try:
        return made.mint(Given(**{"secret": None, "others": {}, "subject": None, **given}), flight)
    finally:
        flight.landed()


def got(found: Fetched | Unavailable) -> Fetched:
    assert isinstance(found, Fetched), found
    return found


def refused(found: Fetched | Unavailable) -> str:
    assert isinstance(found, Unavailable)
    for secret in (CLIENT_SECRET, REFRESH, "eyJ"):
        assert secret not in found.detail + found.hint
    return found.detail


SECRET = Secret(CLIENT_SECRET, label="files.source@v1")


@pytest.mark.parametrize(
    ("client", "method"),
    [("basic-client", "client_secret_basic"), ("post-client", "client_secret_post")],
)
def test_client_credentials_name_the_resource_and_the_scope(
    login: Login, pki: Any, client: str, method: str
) -> None:
    login.targets = {RESOURCE}
    made = minter(
        login, pki, "oauth_client_credentials",
        client_id=client, client_auth=method, resource=RESOURCE, scope="files.read files.write",
    )  # fmt: skip
    before = time.time()
    found = got(mint(made, secret=SECRET))
    claims = login.read(found.value, RESOURCE)
    assert (claims["sub"], claims["scope"]) == (client, "files.read files.write")
    assert found.expires_at is not None
    assert before + 3590 < found.expires_at < time.time() + 3601
    assert CLIENT_SECRET not in repr(found)
    assert not made.per_person


def test_the_audience_is_sent(login: Login, pki: Any) -> None:
    made = minter(login, pki, "oauth_client_credentials", audience="files")
    assert login.read(got(mint(made, secret=SECRET)).value, "files")
    assert login.asked[0]["audience"] == "files"
    assert "resource" not in login.asked[0]


@pytest.mark.parametrize(
    ("oauth", "secret", "says"),
    [
        ({}, "another-secret-5d0c9f", "invalid_client"),
        ({"client_id": "nobody"}, CLIENT_SECRET, "invalid_client"),
        ({"client_id": "narrow-client"}, CLIENT_SECRET, "unauthorized_client"),
        ({"resource": "https://elsewhere.corp.example"}, CLIENT_SECRET, "invalid_target"),
        ({"token_url": "http://localhost:1/token"}, CLIENT_SECRET, "https://"),
        ({"token_url": "https://localhost:1/token"}, CLIENT_SECRET, "cannot be reached"),
    ],
    ids=["a wrong secret", "an unknown client", "another grant", "another resource", "in the clear", "down"],
)
def test_what_the_server_refuses_is_said_by_its_code(
    login: Login, pki: Any, oauth: dict[str, Any], secret: str, says: str
) -> None:
    login.targets = {RESOURCE}
    made = minter(login, pki, "oauth_client_credentials", **{"resource": RESOURCE, **oauth})
    assert says in refused(mint(made, secret=Secret(secret, label="x@v1")))


def test_without_its_secret_nothing_is_asked(login: Login, pki: Any) -> None:
    assert "no client secret" in refused(mint(minter(login, pki, "oauth_client_credentials")))
    assert "no refresh token" in refused(mint(minter(login, pki, "oauth_refresh_token")))
    assert "no token of a person" in refused(mint(minter(login, pki, "token_exchange"), secret=SECRET))
    other = minter(login, pki, "oauth_refresh_token", client_secret="gone")
    assert "gone" in refused(mint(other, secret=Secret(REFRESH, label="r@v1")))
    assert login.asked == []


def test_a_certificate_that_nobody_vouches_for_gets_no_secret(login: Login) -> None:
    told = OAuth(token_url=login.url, client_id="basic-client")
    made = minter_for(credential(inject="oauth_client_credentials", oauth=told), None)
    assert made is not None
    assert "cannot be reached: SSLError" in refused(mint(made, secret=SECRET))
    assert login.asked == []


def answer(body: Any, status: int = 200, **headers: str) -> Response:
    data = body if isinstance(body, str) else json.dumps(body)
    return Response(data, status, headers, content_type="application/json")


GOOD = {"access_token": "a-token-of-some-length", "token_type": "Bearer", "expires_in": 60}


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: answer({**GOOD, "token_type": "mac"}), "no bearer token"),
        (lambda: answer({**GOOD, "token_type": None}), "no bearer token"),
        (lambda: answer({**GOOD, "token_type": "N_A"}), "no bearer token"),
        (lambda: answer({"token_type": "Bearer"}), "no bearer token"),
        (lambda: answer({**GOOD, "access_token": "short"}), "cannot carry"),
        (lambda: answer({**GOOD, "access_token": "with a blank in it"}), "cannot carry"),
        (lambda: answer({**GOOD, "access_token": "line\r\nbreak-line-break"}), "cannot carry"),
        (lambda: answer({**GOOD, "access_token": "x" * 9000}), "cannot carry"),
        (lambda: answer({**GOOD, "access_token": ["a-token-of-some-length"]}), "no bearer token"),
        (lambda: answer([GOOD]), "no token that can be read"),
        (lambda: answer("{"), "no token that can be read"),
        (lambda: answer(""), "no token that can be read"),
        (
            lambda: answer('{"access_token":"a-first-token-123","access_token":"b-second-token-123",'
                           '"token_type":"Bearer"}'),
            "a name stands twice",
        ),
        (
            lambda: answer('{"access_token":"a-first-token-123","Access_Token":"b-second-token-123",'
                           '"token_type":"Bearer"}'),
            "a name stands twice",
        ),
        (lambda: answer('{"access_token":"a-first-token-123","token_type":"Bearer","expires_in":1e999}'),
         "no number of seconds"),
        (lambda: answer('{"access_token":"a-first-token-123","token_type":"Bearer","expires_in":NaN}'),
         "a number that is none"),
        (lambda: answer("[" * 200_000), "nested too deeply"),
        (lambda: answer(GOOD, 302, Location="https://elsewhere.corp.example/"), "no token that can be read"),
        (lambda: answer({**GOOD, "expires_in": "soon"}), "no token that can be read"),
        (lambda: answer(GOOD, 201), "no token that can be read"),
        (lambda: answer(GOOD, 400), "no token that can be read"),
        (lambda: answer("gone", 500), "no token that can be read"),
        (lambda: answer({"error": f"what is {CLIENT_SECRET}?"}, 400), "an error of its own"),
        (lambda: answer("x" * 2_000_000), "cannot be reached: RequestException"),
    ],
    ids=[
        "of another type", "of no type", "not an access token", "no token", "too short", "two words",
        "a line break", "too long", "not text", "a list", "not JSON", "nothing",
        "two tokens", "two tokens by case", "a life without end", "a life that is none", "a tower",
        "a redirect",
        "a life that is no number", "created",
        "a token with an error's status", "a fault", "an error that quotes", "too large",
    ],
)  # fmt: skip
def test_an_answer_that_is_no_token_is_a_fault(login: Login, pki: Any, made: Any, says: str) -> None:
    login.instead = made
    assert says in refused(mint(minter(login, pki, "oauth_client_credentials"), secret=SECRET))
    assert len(login.asked) == 1


@pytest.mark.parametrize(
    ("seconds", "lives"),
    [(None, None), (60, 60), ("60", 60), (0, 0), (-5, 0), (10**9, 86400), ([], 0)],
)
def test_how_long_it_lives_is_bounded(login: Login, pki: Any, seconds: Any, lives: int | None) -> None:
    login.instead = lambda: answer({**GOOD, "expires_in": seconds})
    flight = Flight(10, time.monotonic, 1000.0)
    found = minter(login, pki, "oauth_client_credentials").mint(Given(SECRET, {}, None), flight)
    flight.landed()
    assert got(found).expires_at == (None if lives is None else 1000.0 + lives)


def test_what_is_good_for_longer_than_it_is_used_is_known(login: Login, pki: Any) -> None:
    login.instead = lambda: answer({**GOOD, "expires_in": 30 * 86400})
    flight = Flight(10, time.monotonic, 1000.0)
    found = minter(login, pki, "oauth_client_credentials").mint(Given(SECRET, {}, None), flight)
    flight.landed()
    assert (got(found).expires_at, got(found).good_until) == (1000.0 + 86400, 1000.0 + 30 * 86400)


def test_a_slow_server_is_given_up_in_time(login: Login, pki: Any) -> None:
    login.gate.clear()
    made = minter(login, pki, "oauth_client_credentials")
    assert "cannot be reached" in refused(mint(made, timeout=0.3, secret=SECRET))


def test_nothing_secret_is_logged_even_in_detail(
    login: Login, pki: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    found = got(mint(minter(login, pki, "oauth_client_credentials"), secret=SECRET))
    # The server logs to the same place: its own words are left out.
    ours = [record for record in caplog.records if not record.name.startswith("authlib.oauth2.rfc6749")]
    text = " ".join(record.getMessage() for record in ours)
    assert CLIENT_SECRET not in text
    assert found.value not in text


def test_a_proxy_of_the_environment_is_not_asked(
    login: Login, pki: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://localhost:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    assert got(mint(minter(login, pki, "oauth_client_credentials"), secret=SECRET))


# -- refresh tokens -------------------------------------------------------------------------------


def test_a_refresh_token_is_exchanged_and_its_successor_is_kept(
    login: Login, pki: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "oauth"
    oauth = {"client_secret": "files-client", "resource": RESOURCE, "scope": "files.read"}
    made = minter(login, pki, "oauth_refresh_token", folder, **oauth)
    given: dict[str, Any] = {"secret": Secret(REFRESH, label="r@v1"), "others": {"files-client": SECRET}}
    first = got(mint(made, **given))
    assert login.read(first.value, RESOURCE)["sub"] == "service"
    assert first.successor is not None
    assert first.successor != REFRESH
    assert login.refreshes.keys() == {first.successor}
    file = folder / "files.json"
    assert (file.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    # A restart: the source still holds the first one, which the server takes no more.
    again = minter(login, pki, "oauth_refresh_token", folder, **oauth)
    second = got(mint(again, **given))
    assert [form["refresh_token"] for form in login.asked] == [REFRESH, first.successor]
    # Running on: the store gives the successor itself.
    got(mint(again, **{**given, "secret": Secret(second.successor or "", label="r@v2")}))
    assert login.asked[-1]["refresh_token"] == second.successor


def test_answers_that_nobody_waited_for_end_no_chain(login: Login, pki: Any, tmp_path: Path) -> None:
    """They came after the timeout, say: the store still gives the token that was exchanged for them."""
    made = minter(login, pki, "oauth_refresh_token", tmp_path, client_secret="c")
    first = got(mint(made, secret=Secret(REFRESH, label="r@v1"), others={"c": SECRET}))
    for _ in range(3):
        given = Secret(first.successor or "", label="r@v2")
        last = got(mint(made, secret=given, others={"c": SECRET}))
    assert login.refreshes.keys() == {last.successor}


def test_another_token_in_the_source_begins_a_new_chain(login: Login, pki: Any, tmp_path: Path) -> None:
    other = "refresh-other-0815-0815"
    made = minter(login, pki, "oauth_refresh_token", tmp_path, client_secret="c")
    got(mint(made, secret=Secret(REFRESH, label="r@v1"), others={"c": SECRET}))
    login.refreshes[other] = Refresh(other, "basic-client", "service")
    got(mint(made, secret=Secret(other, label="r@v2"), others={"c": SECRET}))
    assert login.asked[-1]["refresh_token"] == other
    assert kept.read(tmp_path / "files.json") is not None
    held = kept.current(tmp_path / "files.json", other)
    assert held.origin == kept.digest(other)
    assert held.token in login.refreshes


def test_a_used_refresh_token_is_a_fault(login: Login, pki: Any) -> None:
    login.refreshes.clear()
    made = minter(login, pki, "oauth_refresh_token", client_secret="c")
    assert "invalid_grant" in refused(mint(made, secret=Secret(REFRESH, label="r@v1"), others={"c": SECRET}))


def test_a_public_client_sends_its_name_alone(login: Login, pki: Any) -> None:
    login.refreshes[REFRESH] = Refresh(REFRESH, "public-client", "service")
    made = minter(login, pki, "oauth_refresh_token", client_id="public-client")
    got(mint(made, secret=Secret(REFRESH, label="r@v1")))
    assert login.asked[0]["client_id"] == "public-client"
    assert "client_secret" not in login.asked[0]


def test_what_cannot_be_kept_is_used_all_the_same(
    login: Login, pki: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "oauth").write_text("a file where the folder should be")
    made = minter(login, pki, "oauth_refresh_token", tmp_path / "oauth", client_secret="c")
    found = got(mint(made, secret=Secret(REFRESH, label="r@v1"), others={"c": SECRET}))
    assert found.successor in login.refreshes
    assert "could not be kept" in caplog.text
    assert str(found.successor) not in caplog.text


# -- token exchange -------------------------------------------------------------------------------


def test_a_persons_token_is_exchanged_for_one_of_that_person(login: Login, pki: Any) -> None:
    login.targets = {RESOURCE}
    made = minter(login, pki, "token_exchange", resource=RESOURCE, audience="files", scope="files.read")
    assert made.per_person
    for name in ("alice", "bob"):
        subject = Secret(of_person(name), label="subject")
        found = got(mint(made, secret=SECRET, subject=subject))
        assert login.read(found.value, RESOURCE)["sub"] == name
    form = login.asked[0]
    assert form["grant_type"] == EXCHANGE
    assert (
        form["subject_token_type"]
        == form["requested_token_type"]
        == "urn:ietf:params:oauth:token-type:access_token"
    )
    assert "actor_token" not in form
    assert "client_secret" not in form


@pytest.mark.parametrize(
    ("theirs", "servers", "expected"),
    [(600, 60, 60), (60, 600, 60), (None, 60, 60), (None, None, 300), (60, None, 60)],
    ids=[
        "the shorter is the server's",
        "the shorter is the person's",
        "theirs has no end",
        "nobody says",
        "one says",
    ],
)
def test_it_does_not_outlive_what_it_was_made_of(
    login: Login, pki: Any, theirs: int | None, servers: int | None, expected: int
) -> None:
    login.lifetime = servers
    subject = of_person(exp=int(time.time()) + theirs if theirs is not None else None)
    found = got(mint(minter(login, pki, "token_exchange"), secret=SECRET, subject=Secret(subject, label="s")))
    assert found.expires_at is not None
    assert abs(found.expires_at - time.time() - expected) < 5


def test_a_token_that_the_server_does_not_take_is_a_fault(login: Login, pki: Any) -> None:
    stale = Secret(of_person(exp=int(time.time()) - 600), label="subject")
    assert "invalid_grant" in refused(
        mint(minter(login, pki, "token_exchange"), secret=SECRET, subject=stale)
    )


def test_a_public_client_may_exchange(login: Login, pki: Any) -> None:
    made = minter(login, pki, "token_exchange", client_id="public-client")
    assert got(mint(made, subject=Secret(of_person(), label="subject")))


@pytest.mark.parametrize(
    "inject", ["bearer", "header", "basic", "query", "cookie", "replace", "mtls", "passthrough"]
)
def test_other_kinds_are_not_minted(inject: str) -> None:
    assert minter_for(credential(inject=inject), None) is None


def test_keys_in_a_source_are_not_minted_and_those_of_the_chain_are() -> None:
    assert minter_for(credential(inject="aws_sigv4"), None) is None
    assert minter_for(credential(inject="aws_sigv4", source_kind="none", source=""), None) is not None
