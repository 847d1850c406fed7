"""JSON Schemas of the four rule files, for editors; generated from the models, never written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from callerid.policy.credentialmodels import CredentialsFile
from callerid.policy.models import IdentitiesFile, ServersFile
from callerid.policy.rulemodels import PolicyFile

_FILES: Mapping[str, type[BaseModel]] = {
    "identities": IdentitiesFile,
    "servers": ServersFile,
    "credentials": CredentialsFile,
    "policy": PolicyFile,
}


def schemas() -> dict[str, str]:
    """File name (``policy.schema.json``) to its text."""
    made = {}
    for name, model in _FILES.items():
        schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        schema |= _without_null(model.model_json_schema())
        made[f"{name}.schema.json"] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    return made


def _without_null(node: Any) -> Any:
    """Left out is not null: the loader refuses empty values, so the schema does not offer them."""
    if isinstance(node, list):
        return [_without_null(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _without_null(value) for key, value in node.items()}
    if "anyOf" in made:
        rest = [option for option in made["anyOf"] if option != {"type": "null"}]
        if len(rest) < len(made["anyOf"]):
            del made["anyOf"]
            made = {**rest[0], **made} if len(rest) == 1 else {"anyOf": rest, **made}
    if made.get("default", "") is None:
        del made["default"]
    return made
