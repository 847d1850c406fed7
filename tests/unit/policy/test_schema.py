"""The JSON Schemas for editors are what the models say, and are never edited by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from callerid.cli.rules import write_schemas
from callerid.policy.schema import schemas

ROOT = Path(__file__).resolve().parents[3]


def test_the_committed_schemas_are_current() -> None:
    committed = {path.name: path.read_text() for path in (ROOT / "rules" / "schema").iterdir()}
    assert committed == schemas(), "write them anew: callerid.cli.rules.write_schemas(Path('rules'))"


def test_they_are_written_where_the_rules_are(tmp_path: Path) -> None:
    paths = write_schemas(tmp_path)
    assert {path.name: path.read_text() for path in paths} == schemas()
    assert {path.parent for path in paths} == {tmp_path / "schema"}


@pytest.mark.parametrize("name", ["identities", "servers", "credentials", "policy"])
def test_a_schema_is_strict_and_offers_no_null(name: str) -> None:
    text = schemas()[f"{name}.schema.json"]
    schema = json.loads(text)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["version"] == {**schema["properties"]["version"], "const": 1}
    assert '"type": "null"' not in text
    assert (
        (ROOT / "rules" / f"{name}.yaml")
        .read_text()
        .startswith(f"# yaml-language-server: $schema=./schema/{name}.schema.json\n")
    )


def test_a_source_and_an_injection_are_exactly_one() -> None:
    definitions = json.loads(schemas()["credentials.schema.json"])["$defs"]
    for name in ("SourceModel", "InjectModel"):
        assert (definitions[name]["minProperties"], definitions[name]["maxProperties"]) == (1, 1)
        assert "required" not in definitions[name]


@pytest.mark.parametrize(
    ("name", "definition", "properties"),
    [
        ("identities", "OidcModel", {"stale_for", "clients", "sender_constrained", "login"}),
        ("identities", "TrustedHopModel", {"id", "peer_cert_san", "accept"}),
        ("servers", "ServerModel", {"kind", "assertion"}),
        ("servers", "AssertionModel", {"audience", "header", "meta", "ttl"}),
        ("credentials", "SourceModel", {"env", "file", "systemd", "exec", "vault", "aws", "none"}),
        ("credentials", "CredentialModel", {"refresh", "stale_for", "timeout", "tripwire"}),
    ],
)
def test_editors_know_the_words(name: str, definition: str, properties: set[str]) -> None:
    definitions = json.loads(schemas()[f"{name}.schema.json"])["$defs"]
    assert properties <= set(definitions[definition]["properties"])


def test_effects_and_operators_are_offered() -> None:
    definitions = json.loads(schemas()["policy.schema.json"])["$defs"]
    assert set(definitions) >= {"AllowModel", "DenyModel", "RequireModel", "ConditionModel", "HoursModel"}
    assert set(definitions["ConditionModel"]["properties"]) == {
        "type", "eq", "in", "gt", "ge", "lt", "le", "under", "glob", "regex", "max_length",
        "optional", "negate",
    }  # fmt: skip
    assert "who" in definitions["AllowModel"]["required"]
