"""``callerid jwks``: keys on stdout and nothing else there, and what renewing them prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from callerid.cli.init import init
from callerid.cli.jwks import jwks
from callerid.identity.signing_keys import CHANCE_BYTES, FILE, KeyRing, ensure, read


@pytest.fixture
def home(tmp_path: Path) -> Path:
    ensure(tmp_path / FILE, now=1_780_000_000, chance=bytes(range(CHANCE_BYTES)))
    return tmp_path


def call(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(jwks, ["--home", str(home), *arguments])


def test_the_keys_are_the_only_thing_on_stdout(home: Path) -> None:
    result = call(home)
    assert result.exit_code == 0
    [entry] = json.loads(result.stdout)["keys"]
    assert set(entry) == {"kty", "crv", "x", "kid", "use", "alg"}
    assert "urn:uuid:20212223-2425-4627-a829-2a2b2c2d2e2f" in result.stderr
    assert f"{entry['kid']}  signs" in result.stderr


def test_renewing_lists_both_and_the_new_one_signs(home: Path) -> None:
    [old] = json.loads(call(home).stdout)["keys"]
    said = json.loads(call(home, "--rotate", "--json").stdout)
    assert [key["state"].split()[0] for key in said["keys"]] == ["signs", "listed"]
    assert said["keys"][1]["kid"] == old["kid"]
    assert [key["kid"] for key in said["jwks"]["keys"]] == [key["kid"] for key in said["keys"]]


def test_with_a_lead_the_old_one_goes_on_signing(home: Path) -> None:
    [old] = json.loads(call(home).stdout)["keys"]
    said = json.loads(call(home, "--rotate", "--lead", "1d", "--json").stdout)
    assert said["keys"][0]["state"].startswith("signs from ")
    assert (said["keys"][1]["kid"], said["keys"][1]["state"]) == (old["kid"], "signs")


def test_a_stolen_one_is_gone(home: Path) -> None:
    [old] = json.loads(call(home).stdout)["keys"]
    [new] = json.loads(call(home, "--rotate", "--drop-old").stdout)["keys"]
    assert new["kid"] != old["kid"]


def test_no_private_part_is_printed(home: Path) -> None:
    text = (home / FILE).read_text()
    result = call(home, "--rotate", "--lead", "1d", "--json")
    assert "PRIVATE" not in result.output
    assert text.splitlines()[3] not in result.output
    assert '"d"' not in result.output


@pytest.mark.parametrize(
    "arguments",
    [("--lead", "1d"), ("--drop-old",), ("--rotate", "--lead", "soon"), ("--rotate", "--lead", "31d"),
     ("--rotate", "--lead", ""), ("--rotate", "--lead", "-1d"), ("--rotate", "--lead", "٣d")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_changes_nothing(home: Path, arguments: tuple[str, ...]) -> None:
    before = read(home / FILE)
    result = call(home, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "hint:" in result.stderr
    assert read(home / FILE) == before


@pytest.mark.parametrize("arguments", [(), ("--rotate",)])
def test_without_a_key_it_says_what_to_do_and_makes_none(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = call(tmp_path / "nowhere", *arguments)
    assert result.exit_code == 2
    assert "callerid init" in result.stderr
    assert not (tmp_path / "nowhere").exists()


def test_the_home_stays_as_tight_as_it_was(home: Path) -> None:
    call(home, "--rotate")
    assert (home / FILE).stat().st_mode & 0o777 == 0o600
    assert isinstance(read(home / FILE), KeyRing)


def test_init_makes_the_key_and_leaves_the_one_that_is_there(tmp_path: Path) -> None:
    arguments = ["--home", str(tmp_path / "home"), "--rules", str(tmp_path / "rules")]
    assert CliRunner().invoke(init, arguments).exit_code == 0
    first = call(tmp_path / "home").stdout
    assert len(json.loads(first)["keys"]) == 1
    assert CliRunner().invoke(init, arguments).exit_code == 0
    assert call(tmp_path / "home").stdout == first
