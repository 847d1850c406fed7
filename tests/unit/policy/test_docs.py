"""docs/rules.md is true: its files are loaded, its commands are run, and what it shows is what they print.

With ``CALLERID_WRITE_DOCS=1`` the page is written anew with the real output instead.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from callerid.cli.rules import check, explain
from callerid.policy.credentialmodels import CredentialsFile
from callerid.policy.models import IdentitiesFile, ServersFile
from callerid.policy.rulemodels import PolicyFile
from callerid.policy.selectors import PREFIXES

PAGE = Path(__file__).resolve().parents[3] / "docs" / "rules.md"
BLOCK = re.compile(r"```(yaml|console)\n(.*?)```\n", re.DOTALL)


def run(command: str) -> str:
    program, name, *arguments = shlex.split(command)
    assert program == "callerid"
    return CliRunner().invoke({"check": check, "explain": explain}[name], arguments).output


def real(text: str, folder: Path) -> str:
    """The page with the output of its commands as they are today; ``folder`` holds its rules."""

    def block(match: re.Match[str]) -> str:
        kind, body = match.groups()
        if kind == "yaml":
            name = body.splitlines()[0].removeprefix("# ")
            assert name in {"identities.yaml", "servers.yaml", "credentials.yaml", "policy.yaml"}
            (folder / name).write_text(body)
            return match.group()
        commands = [line for line in body.splitlines() if line.startswith("$ ")]
        shown = "".join(f"{command}\n{run(command[2:]).strip(chr(10))}\n" for command in commands)
        return f"```console\n{shown}```\n"

    return BLOCK.sub(block, text)


def test_the_page_shows_what_really_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rules").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CALLERID_RULES", raising=False)
    text = PAGE.read_text(encoding="utf-8")
    today = real(text, tmp_path / "rules")
    if os.environ.get("CALLERID_WRITE_DOCS") == "1":
        PAGE.write_text(today, encoding="utf-8")
    assert text == today


def keys(schema: dict[str, object]) -> set[str]:
    found: set[str] = set()
    for key, value in schema.items():
        if key == "properties" and isinstance(value, dict):
            found |= set(value)
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                found |= keys(inner)
    return found


@pytest.mark.parametrize("model", [IdentitiesFile, ServersFile, CredentialsFile, PolicyFile])
def test_every_key_is_on_the_page(
    model: type[IdentitiesFile] | type[ServersFile] | type[CredentialsFile] | type[PolicyFile],
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    unnamed = {key for key in keys(model.model_json_schema()) if not re.search(rf"\b{key}\b", text)}
    assert unnamed <= {"anonymous", "list_filter"}  # one value each: nothing to choose


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_selector_is_on_the_page(prefix: str) -> None:
    assert f"`{prefix}:" in PAGE.read_text(encoding="utf-8")
