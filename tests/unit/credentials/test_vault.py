"""The Vault source with the real hvac, against a replay of Vault's API over TLS."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callerid.config import Credential
from callerid.credentials.sources import Fetched, Flight, Unavailable
from callerid.credentials.sources.vault import Vault
from tests.e2e.harness import Pki, Reply, Seen, Upstream, free_port
from tests.unit.credentials import replay
from tests.unit.credentials.helpers import NEXT_VALUE, VALUE, credential, write_secret

DATA = "/v1/kv/data/mcp/tickets"
WALL = 1_800_000_000.0


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


class Scene:
    def __init__(self, folder: Path, pki: Pki) -> None:
        self.vault = replay.Vault(kv={DATA: {"data": {"key": VALUE}, "metadata": {"version": 3}}})
        self.server = Upstream(pki.server_context(), self.vault)
        self.pki = pki
        write_secret(folder / "secret_id", replay.SECRET_ID + "\n")
        write_secret(folder / "jwt", replay.JWT + "\n", 0o644)
        self.folder = folder

    def credential(self, **options: Any) -> Credential:
        words = {
            "url": f"https://localhost:{self.server.port}",
            "mount": "kv",
            "path": "mcp/tickets",
            "field": "key",
            "auth": "approle",
            "role_id": replay.ROLE_ID,
            "secret_id_file": str(self.folder / "secret_id"),
            "ca_file": str(self.pki.ca),
            **options,
        }
        words = {name: value for name, value in words.items() if value is not None}
        return credential(source_kind="vault", source="kv/mcp/tickets", source_options=words)

    def source(self, **options: Any) -> Vault:
        return Vault(self.credential(**options), None)


@pytest.fixture
def scene(tmp_path: Path, pki: Pki) -> Iterator[Scene]:
    made = Scene(tmp_path, pki)
    yield made
    made.server.close()


def ask(
    source: Vault, *, after: float = 0.0, timeout: float = 5.0, anew: bool = False
) -> Fetched | Unavailable:
    flight = Flight(timeout, time.monotonic, WALL + after, anew=anew)
    try:
        return source.fetch(flight)
    finally:
        flight.landed()


def value(found: Fetched | Unavailable) -> str:
    assert isinstance(found, Fetched), found
    return found.value


def fault(found: Fetched | Unavailable) -> str:
    assert isinstance(found, Unavailable), found
    for secret in (VALUE, replay.SECRET_ID, replay.JWT, "hvs."):
        assert secret not in repr(found)
    assert found.hint
    return found.detail


class TestReading:
    def test_kv_version_2(self, scene: Scene) -> None:
        found = ask(scene.source())
        assert found == Fetched(VALUE, None, "3")
        assert ("GET", DATA) in scene.vault.asked

    def test_kv_version_1(self, scene: Scene) -> None:
        scene.vault.kv["/v1/old/mcp/tickets"] = {"key": NEXT_VALUE}
        assert ask(scene.source(mount="old")) == Fetched(NEXT_VALUE)

    def test_a_mount_that_is_not_to_be_seen_is_taken_for_version_2(self, scene: Scene) -> None:
        scene.vault.kv["/v1/hidden/data/mcp/tickets"] = {"data": {"key": NEXT_VALUE}, "metadata": {}}
        assert value(ask(scene.source(mount="hidden"))) == NEXT_VALUE

    def test_one_login_serves_many_readings(self, scene: Scene) -> None:
        source = scene.source()
        for n in range(5):
            value(ask(source, after=n * 100))
        assert scene.vault.count("/v1/auth/approle/login") == 1

    def test_the_namespace_is_named(self, scene: Scene) -> None:
        value(ask(scene.source(namespace="platform")))
        assert scene.vault.namespaces == {"platform"}

    @pytest.mark.parametrize("auth", ["kubernetes", "jwt"])
    def test_a_workload_logs_in_with_its_token(self, scene: Scene, auth: str) -> None:
        source = scene.source(
            auth=auth, role="callerid", jwt_file=str(scene.folder / "jwt"), role_id=None, secret_id_file=None
        )
        assert value(ask(source)) == VALUE

    def test_a_token_from_a_file_that_somebody_renews(self, scene: Scene) -> None:
        scene.vault.tokens |= {"hvs.one", "hvs.two"}
        path = write_secret(scene.folder / "token", "hvs.one\n")
        source = scene.source(auth="token", token_file=str(path), role_id=None, secret_id_file=None)
        assert value(ask(source)) == VALUE
        scene.vault.tokens.discard("hvs.one")
        write_secret(path, "hvs.two\n")
        assert value(ask(source)) == VALUE


class TestTokens:
    def test_a_token_is_renewed_when_two_thirds_of_its_life_are_gone(self, scene: Scene) -> None:
        source = scene.source()
        ask(source)
        value(ask(source, after=2000))
        assert scene.vault.count("/v1/auth/token/renew-self") == 0
        value(ask(source, after=2500))
        assert scene.vault.count("/v1/auth/token/renew-self") == 1
        assert scene.vault.count("/v1/auth/approle/login") == 1

    def test_one_that_cannot_be_renewed_is_exchanged_by_a_login(self, scene: Scene) -> None:
        scene.vault.renewable = False
        source = scene.source()
        ask(source)
        value(ask(source, after=2500))
        assert scene.vault.count("/v1/auth/approle/login") == 2

    def test_one_that_was_revoked_is_exchanged_at_once(self, scene: Scene) -> None:
        source = scene.source()
        ask(source)
        scene.vault.tokens.clear()
        assert value(ask(source, after=10)) == VALUE
        assert scene.vault.count("/v1/auth/approle/login") == 2

    def test_a_login_that_does_not_help_is_not_repeated(self, scene: Scene) -> None:
        scene.vault.trouble = lambda seen: (
            replay.said(403, {"errors": ["permission denied"]}) if "/data/" in seen.path else None
        )
        assert "403" in fault(ask(scene.source()))
        assert scene.vault.count("/v1/auth/approle/login") == 1


class TestLeases:
    @pytest.fixture
    def source(self, scene: Scene) -> Vault:
        scene.vault.leased["/v1/db/creds/app"] = VALUE
        return scene.source(mount="db", path="creds/app", field="password")

    def test_a_lease_has_its_end(self, source: Vault) -> None:
        assert ask(source) == Fetched(VALUE, WALL + 60)

    def test_it_is_renewed_and_keeps_its_value(self, scene: Scene, source: Vault) -> None:
        ask(source)
        scene.vault.leased["/v1/db/creds/app"] = NEXT_VALUE
        assert ask(source, after=45) == Fetched(VALUE, WALL + 45 + 60)
        assert scene.vault.count("/v1/sys/leases/renew") == 1

    def test_near_its_last_end_a_new_one_is_taken(self, scene: Scene, source: Vault) -> None:
        ask(source)
        scene.vault.renewed_life = 10
        scene.vault.leased["/v1/db/creds/app"] = NEXT_VALUE
        assert ask(source, after=45) == Fetched(NEXT_VALUE, WALL + 45 + 60)

    def test_one_that_is_doubted_is_not_renewed(self, scene: Scene, source: Vault) -> None:
        ask(source)
        scene.vault.leased["/v1/db/creds/app"] = NEXT_VALUE
        assert value(ask(source, after=10, anew=True)) == NEXT_VALUE
        assert scene.vault.count("/v1/sys/leases/renew") == 0

    @pytest.mark.parametrize("how", [Reply(raw=b""), replay.said(400, {"errors": ["lease not found"]})])
    def test_renewing_that_fails_does_not_fail_for_ever(
        self, scene: Scene, source: Vault, how: Reply
    ) -> None:
        ask(source)
        scene.vault.leased["/v1/db/creds/app"] = NEXT_VALUE
        scene.vault.trouble = lambda seen: how if "leases" in seen.path else None
        first = ask(source, after=45)
        assert isinstance(first, Unavailable) or first.value == NEXT_VALUE
        assert value(ask(source, after=46)) == NEXT_VALUE


class TestTrouble:
    @pytest.mark.parametrize(
        ("status", "says"),
        [(400, "400"), (401, "401"), (403, "403"), (404, "404"), (429, "429"), (500, "500"), (501, "501"),
         (502, "502"), (503, "503"), (307, "redirect"), (418, "refused")],
    )  # fmt: skip
    def test_each_refusal_is_said_and_leaks_nothing(self, scene: Scene, status: int, says: str) -> None:
        location = [("location", "https://evil.example/v1/kv")]
        scene.vault.trouble = lambda seen: Reply(
            status, location, f'{{"errors": ["{replay.SECRET_ID} {VALUE}"]}}'.encode()
        )
        assert says in fault(ask(scene.source()))
        assert len(scene.vault.asked) == 1

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            pytest.param(b"", "JSON", id="empty"),
            pytest.param(b"<html>", "JSON", id="a web page"),
            pytest.param(b"[1]", "gave no answer", id="a list"),
            pytest.param(b"{}", "no current version", id="an object with nothing"),
            pytest.param(b'{"data": {"data": null}}', "no current version", id="a deleted version"),
            pytest.param(b'{"data": {"data": {"key": 7}}}', "no text", id="a number"),
            pytest.param(b'{"data": {"data": {"other": "x"}}}', "no text", id="another field"),
            pytest.param(b'{"data": {"data": {"key": ""}}}', "empty", id="an empty secret"),
            pytest.param(b'{"data": {"data": {"key": "a\\r\\nX-Admin: yes"}}}', "line break", id="header"),
            pytest.param(b"[" * 100_000, "nobody can read", id="a tower"),
        ],
    )
    def test_garbage_is_a_fault(self, scene: Scene, body: bytes, says: str) -> None:
        kind = [("content-type", "application/json")]
        scene.vault.trouble = lambda seen: Reply(200, kind, body) if "/data/" in seen.path else None
        assert says in fault(ask(scene.source()))

    def test_a_huge_answer_is_cut_off(self, scene: Scene) -> None:
        scene.vault.trouble = lambda seen: Reply(200, [], b" " * (2 * 1024 * 1024))
        assert "cannot be reached" in fault(ask(scene.source()))

    def test_nobody_there(self, scene: Scene) -> None:
        assert "cannot be reached" in fault(ask(scene.source(url=f"https://localhost:{free_port()}")))

    def test_a_server_that_nobody_vouches_for(self, scene: Scene) -> None:
        assert "SSLError" in fault(ask(scene.source(ca_file=None)))
        assert scene.vault.asked == []

    def test_the_roots_of_the_proxy_count_where_there_is_no_ca_file(self, scene: Scene) -> None:
        assert value(ask(Vault(scene.credential(ca_file=None), scene.pki.ca))) == VALUE

    @pytest.mark.parametrize(
        "url", ["http://vault.corp.example", "ftp://x", "", "https://me:it@h/", "https://"]
    )
    def test_an_address_that_is_not_safe(self, scene: Scene, url: str) -> None:
        assert "not an https address" in fault(ask(scene.source(url=url)))

    def test_a_secret_id_that_others_can_read(self, scene: Scene) -> None:
        (scene.folder / "secret_id").chmod(0o644)
        assert "open to others" in fault(ask(scene.source()))

    @pytest.mark.parametrize("trouble", [replay.never(20), replay.trickling])
    def test_one_that_never_answers_is_given_up_in_time(self, scene: Scene, trouble: Any) -> None:
        """As the store has it: a watcher ends the flight, and the thread comes home."""
        scene.vault.trouble = trouble
        flight = Flight(0.5, time.monotonic, WALL)
        found: list[Fetched | Unavailable] = []
        source = scene.source()

        def run() -> None:
            found.append(source.fetch(flight))
            flight.landed()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(0.6)
        flight.expire()
        thread.join(10)
        assert not thread.is_alive()
        assert "in time" in fault(found[0])

    def test_the_environment_has_no_say(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        elsewhere = f"http://127.0.0.1:{free_port()}"
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "VAULT_ADDR", "VAULT_AGENT_ADDR"):
            monkeypatch.setenv(name, elsewhere)
        monkeypatch.setenv("VAULT_TOKEN", "hvs.from-the-environment")
        monkeypatch.setenv("VAULT_SKIP_VERIFY", "1")
        monkeypatch.setenv("VAULT_NAMESPACE", "from-the-environment")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", os.devnull)
        netrc = write_secret(scene.folder / "netrc", "machine localhost login me password from-netrc")
        monkeypatch.setenv("NETRC", str(netrc))
        assert value(ask(scene.source())) == VALUE
        assert scene.vault.namespaces == {None}
        assert {seen.header("authorization") for seen in scene.server.seen} == {None}
        assert "SSLError" in fault(ask(scene.source(ca_file=None)))


def test_a_request_is_counted_as_it_arrives(scene: Scene) -> None:
    """What the other tests count is what the server saw."""
    ask(scene.source())
    seen: list[Seen] = scene.server.seen
    assert [(s.method, s.path) for s in seen] == scene.vault.asked
