from __future__ import annotations

import time
from pathlib import Path

import pytest

from callerid.credentials.awskeys import Keys, parse
from callerid.credentials.minters import minter_for
from callerid.credentials.minting import Given
from callerid.credentials.sources.base import Fetched, Flight, Unavailable
from tests.unit.credentials.helpers import credential


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def mint() -> Fetched | Unavailable:
    made = minter_for(credential(id="aws", inject="aws_sigv4", source_kind="none", source=""), None)
    assert made is not None
    assert not made.per_person
    return made.mint(Given(None, {}, None), Flight(5, time.monotonic, time.time()))


def test_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE00000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI-K7MDENG")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session-token-of-some-length")
    found = mint()
    assert isinstance(found, Fetched)
    assert parse(found.value) == Keys(
        "AKIDEXAMPLE00000", "wJalrXUtnFEMI-K7MDENG", "session-token-of-some-length"
    )
    assert "wJalr" not in repr(found)


def test_keys_of_a_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(
        "[robot]\naws_access_key_id = AKIDEXAMPLE00001\naws_secret_access_key = wJalrXUtnFEMI-ROBOT\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "robot")
    found = mint()
    assert isinstance(found, Fetched)
    assert parse(found.value) == Keys("AKIDEXAMPLE00001", "wJalrXUtnFEMI-ROBOT")


def test_no_keys_anywhere() -> None:
    found = mint()
    assert isinstance(found, Unavailable)
    assert "no AWS credentials" in found.detail
    assert found.hint


def test_a_profile_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "gone")
    found = mint()
    assert isinstance(found, Unavailable)
    assert "ProfileNotFound" in found.detail
