"""The Secrets Manager source with the real botocore, against a replay that checks the signatures."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callerid.config import Credential
from callerid.credentials.sources import Fetched, Flight, Unavailable
from callerid.credentials.sources.aws import SecretsManager
from tests.e2e.harness import Pki, Reply, Upstream, free_port
from tests.unit.credentials import replay
from tests.unit.credentials.helpers import NEXT_VALUE, VALUE, credential

SECRET_KEY = "secret-access-key-of-the-tests"


class Scene:
    def __init__(self, folder: Path) -> None:
        self.pki = Pki(folder / "pki")
        self.aws = replay.SecretsManager(
            SECRET_KEY,
            {
                "mcp/tickets": {"SecretString": VALUE, "VersionId": "v-1"},
                "mcp/json": {"SecretString": json.dumps({"key": NEXT_VALUE, "n": 1}), "VersionId": "v-2"},
                "mcp/binary": {"SecretBinary": "AAAA"},
            },
        )
        self.server = Upstream(self.pki.server_context(), self.aws)
        self.aws.host = f"localhost:{self.server.port}"

    def credential(self, secret_id: str = "mcp/tickets", **options: str) -> Credential:
        words = {"region": "eu-central-1", "endpoint": f"https://localhost:{self.server.port}", **options}
        return credential(source_kind="aws", source=secret_id, source_options=words)

    def ask(self, secret_id: str = "mcp/tickets", **options: str) -> Fetched | Unavailable:
        return fetch(SecretsManager(self.credential(secret_id, **options), self.pki.ca))


def fetch(source: SecretsManager, flight: Flight | None = None) -> Fetched | Unavailable:
    flight = flight or Flight(5, time.monotonic, 0.0)
    try:
        return source.fetch(flight)
    finally:
        flight.landed()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    made = Scene(tmp_path)
    yield made
    made.server.close()


def fault(found: Fetched | Unavailable) -> str:
    assert isinstance(found, Unavailable), found
    assert found.hint
    assert VALUE not in repr(found)
    assert SECRET_KEY not in repr(found)
    return found.detail


def test_a_secret_is_fetched_with_a_right_signature(scene: Scene) -> None:
    assert scene.ask() == Fetched("nine-Lives+of/the=cat~42", None, "v-1")
    assert scene.aws.asked == [replay.TARGET]


def test_a_field_of_a_json_secret(scene: Scene) -> None:
    assert scene.ask("mcp/json", field="key") == Fetched(NEXT_VALUE, None, "v-2")


@pytest.mark.parametrize(
    ("secret_id", "field", "says"),
    [
        ("mcp/nothing", None, "ResourceNotFoundException"),
        ("mcp/binary", None, "no SecretString"),
        ("mcp/json", "other", "field other"),
        ("mcp/json", "n", "field n"),
        ("mcp/tickets", "key", "field key"),
    ],
)
def test_what_is_not_there_is_said(scene: Scene, secret_id: str, field: str | None, says: str) -> None:
    assert says in fault(scene.ask(secret_id, **({"field": field} if field else {})))


def test_wrong_keys_are_said(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-key-altogether")
    assert "InvalidSignatureException" in fault(scene.ask())


def test_no_keys_at_all(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "NoCredentialsError" in fault(scene.ask())
    assert scene.aws.asked == []


def test_a_profile_that_does_not_exist(scene: Scene) -> None:
    assert "ProfileNotFound" in fault(scene.ask(profile="nobody"))


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (replay.said(400, {"__type": "ThrottlingException", "message": VALUE}), "ThrottlingException"),
        (replay.said(400, {"__type": f"Weird{VALUE}", "message": VALUE}), "an error"),
        (Reply(500, [], b"<html>"), "an error"),
        (Reply(503), "an error"),
        (Reply(307, [("location", "https://evil.example/")]), "an error"),
        (Reply(200, [], b"garbage"), "no SecretString"),
        (Reply(200, [], b""), "no SecretString"),
        (Reply(200, [], b"{}"), "no SecretString"),
        (Reply(raw=b""), "ProtocolError"),
        (Reply(200, [], b" " * (2 * 1024 * 1024)), "was not fetched"),
    ],
)
def test_trouble_is_a_fault_after_one_request(scene: Scene, reply: Reply, says: str) -> None:
    scene.aws.trouble = lambda seen: reply
    assert says in fault(scene.ask())
    assert len(scene.aws.asked) == 1


@pytest.mark.parametrize("trouble", [replay.never(20), replay.trickling])
def test_one_that_never_answers_is_given_up_in_time(scene: Scene, trouble: Any) -> None:
    scene.aws.trouble = trouble
    flight = Flight(0.5, time.monotonic, 0.0)
    source = SecretsManager(scene.credential(), scene.pki.ca)
    found: list[Fetched | Unavailable] = []
    thread = threading.Thread(target=lambda: found.append(fetch(source, flight)), daemon=True)
    thread.start()
    thread.join(0.6)
    flight.expire()
    thread.join(10)
    assert not thread.is_alive()
    assert "in time" in fault(found[0])


def test_a_server_that_nobody_vouches_for(scene: Scene) -> None:
    assert "not fetched" in fault(fetch(SecretsManager(scene.credential(), None)))
    assert scene.aws.asked == []


@pytest.mark.parametrize("endpoint", ["http://aws.corp.example", "https://me:it@localhost/"])
def test_an_endpoint_that_is_not_safe(scene: Scene, endpoint: str) -> None:
    assert "not an https address" in fault(scene.ask(endpoint=endpoint))


def test_proxies_of_the_environment_are_not_used(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert isinstance(scene.ask(), Fetched)
