"""The doctor: each thing that can be ill is found, nothing is changed, nothing secret is shown."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from callerid.audit.lock import WriterLock
from callerid.cli import doctor as doctor_module
from callerid.cli.main import main
from tests.e2e.certs import DAY, ClientPki
from tests.unit.credentials.helpers import VALUE, write_secret

RULES = {
    "identities.yaml": """version: 1
issuers:
  - {id: ci, type: oidc, issuer: "https://ci.corp.example", jwks_file: jwks.json, audiences: [callerid],
     algorithms: [ES256], claims: {principal: email}}
client_cas:
  - {id: people, file: people.pem, crl: people.crl, principal_from: san_email}
""",
    "servers.yaml": """version: 1
servers: [{id: things, url: "https://things.corp.example/mcp", credential: things-key}]
""",
    "credentials.yaml": """version: 1
credentials:
  - {id: things-key, source: {file: things}, inject: {bearer: {}},
     bind: {hosts: [things.corp.example], paths: ["/mcp"]}}
""",
    "policy.yaml": """version: 1
rules:
  - {id: all, effect: allow, who: ["user:alice@corp.example"], servers: [things], tools: ["*"]}
""",
    "jwks.json": '{"keys": [{"kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig", "alg": "ES256",'
    ' "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",'
    ' "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}',
}


class Scene:
    def __init__(self, folder: Path) -> None:
        self.home, self.rules = folder / "home", folder / "rules"
        self.rules.mkdir()
        for name, text in RULES.items():
            (self.rules / name).write_text(text)
        self.people = ClientPki(folder / "people")
        (self.rules / "people.pem").write_bytes(self.people.corp.pem)
        (self.rules / "people.crl").write_bytes(self.people.crl(self.people.leaf("revoked")))
        write_secret(self.rules / "things", VALUE)
        self.run("init")

    def run(self, *arguments: str) -> Result:
        place = ("--home", str(self.home), "--rules", str(self.rules))
        return CliRunner().invoke(main, [*arguments, *place])

    def look(self, *more: str) -> tuple[int, dict[str, list[tuple[str, str]]]]:
        done = self.run("doctor", "--json", "--listen", "127.0.0.1:0", *more)
        found: dict[str, list[tuple[str, str]]] = {}
        said = json.loads(done.stdout)
        for check in said["checks"]:
            found.setdefault(check["what"], []).append((check["state"], check["detail"]))
            assert check["state"] == "well" or check["hint"], check
        assert said["well"] is (done.exit_code == 0)
        assert VALUE not in done.output
        return done.exit_code, found


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_where_all_is_well_it_says_so(scene: Scene) -> None:
    code, found = scene.look()
    assert code == 0, found
    assert {state for checks in found.values() for state, _ in checks} == {"well"}
    assert set(found) == {
        "home", "ca", "registry", "audit", "clock", "proxy", "rules", "issuer ci", "client CA people",
        "credential things-key",
    }  # fmt: skip


def test_for_people_it_is_a_table_with_what_to_do(scene: Scene) -> None:
    (scene.rules / "things").unlink()
    done = scene.run("doctor", "--listen", "127.0.0.1:0")
    assert done.exit_code == 1
    assert "credential things-key" in done.output
    assert "credential things-key: Create it, or mend the path in credentials.yaml." in done.output


def test_a_client_ca_that_may_not_sign_is_a_warning_here_and_at_check(scene: Scene) -> None:
    corp, now = scene.people.corp, datetime.now(UTC)
    name, key = corp.certificate.subject, corp.key
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(5).not_valid_before(now - DAY).not_valid_after(now + 90 * DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    (scene.rules / "people.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    _, found = scene.look()
    assert any(state == "warning" and "keyCertSign" in said for state, said in found["client CA people"])
    done = CliRunner().invoke(main, ["check", "--rules", str(scene.rules)])
    assert done.exit_code == 0
    assert "warning: client CA people: people.pem: a certificate without key usage keyCertSign" in done.stderr


def test_it_changes_nothing(scene: Scene) -> None:
    def tree() -> dict[str, tuple[int, int]]:
        found = [*scene.home.rglob("*"), *scene.rules.rglob("*")]
        kept = (path for path in found if not path.name.endswith(("-wal", "-shm")))  # SQLite's own
        return {str(path): (path.stat().st_mode, path.stat().st_size) for path in kept}

    scene.home.chmod(0o755)
    (scene.home / "ca" / "mitmproxy-ca.pem").chmod(0o644)
    before = tree()
    scene.look()
    assert tree() == before


def away(*parts: str) -> Callable[[Scene], None]:
    return lambda scene: Path(scene.home.parent, *parts).unlink()


def mode(bits: int, *parts: str) -> Callable[[Scene], None]:
    return lambda scene: Path(scene.home.parent, *parts).chmod(bits)


def text(content: str, *parts: str) -> Callable[[Scene], None]:
    return lambda scene: void(Path(scene.home.parent, *parts).write_text(content))


def void(_: Any) -> None:
    return None


def stale_list(scene: Scene) -> None:
    corp, now = scene.people.corp, datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(corp.certificate.subject)
    made = builder.last_update(now - 3 * DAY).next_update(now - DAY).sign(corp.key, hashes.SHA256())
    (scene.rules / "people.crl").write_bytes(made.public_bytes(Encoding.PEM))


@pytest.mark.parametrize(
    ("harm", "what", "says"),
    [
        pytest.param(mode(0o755, "home"), "home", "open to others", id="an open home"),
        pytest.param(mode(0o644, "home", "audit.db"), "home", "audit.db is open", id="an open audit"),
        pytest.param(mode(0o644, "home", "ca", "mitmproxy-ca.pem"), "ca", "private key", id="an open key"),
        pytest.param(away("home", "ca", "mitmproxy-ca-cert.pem"), "ca", "No such file", id="no CA"),
        pytest.param(
            text("x", "home", "ca", "mitmproxy-ca-cert.pem"), "ca", "cannot be read", id="a broken CA"
        ),
        pytest.param(away("home", "registry.db"), "registry", "does not exist", id="no registry"),
        pytest.param(
            text("garbage" * 99, "home", "registry.db"), "registry", "registry", id="a broken registry"
        ),
        pytest.param(away("home", "audit.db"), "audit", "does not exist", id="no audit"),
        pytest.param(text("garbage" * 99, "home", "audit.db"), "audit", "audit.db", id="a broken audit"),
        pytest.param(
            text("version: 1\nnonsense: 1\n", "rules", "policy.yaml"), "rules", "policy.yaml:2", id="rules"
        ),
        pytest.param(away("rules", "jwks.json"), "rules", "jwks.json", id="no keys of an issuer"),
        pytest.param(text("{}", "rules", "jwks.json"), "issuer ci", "not renewed", id="broken keys"),
        pytest.param(away("rules", "people.pem"), "rules", "people.pem", id="no client CA"),
        pytest.param(stale_list, "client CA people", "revocation list", id="a stale list"),
        pytest.param(away("rules", "things"), "credential things-key", "does not exist", id="no secret"),
        pytest.param(
            mode(0o644, "rules", "things"), "credential things-key", "open to others", id="an open one"
        ),
    ],
)
def test_what_is_ill_is_found(scene: Scene, harm: Callable[[Scene], None], what: str, says: str) -> None:
    harm(scene)
    code, found = scene.look()
    assert code == 1
    assert any(state == "ill" and says in detail for state, detail in found[what]), found


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        pytest.param(None, "signs for urn:uuid:", id="well"),
        pytest.param(away("home", "assertion.key"), "there is no", id="no key"),
        pytest.param(text("garbage", "home", "assertion.key"), "does not hold", id="a broken key"),
    ],
)
def test_the_assertion_key_is_looked_at_where_a_server_is_told_who_calls(
    scene: Scene, harm: Callable[[Scene], None] | None, says: str
) -> None:
    servers = scene.rules / "servers.yaml"
    servers.write_text(servers.read_text().replace("things-key}", "things-key, assertion: {}}"))
    if harm is not None:
        harm(scene)
    code, found = scene.look()
    [(state, detail)] = found["assertion key"]
    assert (code, state) == ((0, "well") if harm is None else (1, "ill"))
    assert says in detail
    assert harm is None or "things cannot be called" in detail


def test_without_a_home_the_rest_is_looked_at_all_the_same(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.home = tmp_path / "nowhere"
    code, found = scene.look()
    assert code == 1
    assert found["home"][0][0] == found["ca"][0][0] == "ill"
    assert found["credential things-key"] == [("well", "its source gives it")]


def test_an_address_that_is_taken(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, found = scene.look("--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert code == 1
    assert "in use" in found["proxy"][0][1]


def test_a_proxy_that_runs_has_its_address(scene: Scene) -> None:
    lock = WriterLock(scene.home / "audit.db")
    lock.acquire()
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            code, found = scene.look("--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    finally:
        lock.release()
    assert code == 0
    assert found["proxy"] == [("well", "it runs with this HOME")]


def test_a_clock_that_is_behind(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"time_utc": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    monkeypatch.setattr(doctor_module.audit, "tail", lambda *arguments: (row,))
    code, found = scene.look()
    assert code == 1
    assert "behind" in found["clock"][0][1]


def test_a_command_that_fails_or_hangs_is_ill_and_the_doctor_comes_back(scene: Scene) -> None:
    entries = "\n".join(
        f"  - {{id: {name}, source: {{exec: {json.dumps(argv)}}}, inject: {{bearer: {{}}}}, timeout: 1s,"
        " bind: {hosts: [things.corp.example]}}"
        for name, argv in {
            "things-key": ["/bin/echo", "a-secret-that-is-printed"],
            "fails": ["/bin/false"],
            "hangs": ["/bin/sleep", "600"],
        }.items()
    )
    (scene.rules / "credentials.yaml").write_text(f"version: 1\ncredentials:\n{entries}\n")
    code, found = scene.look()
    assert code == 1
    assert found["credential things-key"] == [("well", "its source gives it")]
    assert "status 1" in found["credential fails"][0][1]
    assert "within 1 s" in found["credential hangs"][0][1]


def test_it_needs_no_extra_library(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hvac", "callerid.credentials.sources.vault"):
        monkeypatch.setitem(sys.modules, name, None)
    (scene.rules / "credentials.yaml").write_text("""version: 1
credentials:
  - id: things-key
    source: {vault: {url: "https://vault.corp.example", mount: kv, path: things, field: key, auth: token,
                     token_file: token}}
    inject: {bearer: {}}
    bind: {hosts: [things.corp.example]}
""")
    code, found = scene.look()
    assert code == 1
    assert "not installed" in found["credential things-key"][0][1]


def test_run_as_root_or_not_its_own_home_is_its_own(scene: Scene) -> None:
    assert scene.home.stat().st_uid == os.geteuid()
