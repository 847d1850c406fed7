"""What the credential tests share. The secrets are made up, and look like nothing a vendor issues."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from callerid.config import Binding, Credential
from callerid.credentials.binding import Destination

HOST = "github.corp.example"
VALUE = "nine-Lives+of/the=cat~42"
NEXT_VALUE = "ten-Lives+of/the=dog~4711"

BINDING = Binding(hosts=frozenset({(HOST, 443)}), paths=("/mcp/**",), methods=frozenset({"GET", "POST"}))


def credential(**changes: Any) -> Credential:
    fields: dict[str, Any] = {
        "id": "github-shared",
        "source_kind": "env",
        "source": "GITHUB_SHARED",
        "inject": "bearer",
        "binding": BINDING,
    }
    return Credential(**{**fields, **changes})


def destination(**changes: Any) -> Destination:
    fields: dict[str, Any] = {
        "scheme": "https",
        "host": HOST,
        "port": 443,
        "path": "/mcp/",
        "method": "POST",
        "tls_verified": True,
    }
    return Destination(**{**fields, **changes})


def write_secret(path: Path, data: str | bytes, mode: int = 0o600) -> Path:
    """A file put in place atomically, as a secret manager does."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(data.encode() if isinstance(data, str) else data)
    fresh.chmod(mode)
    os.replace(fresh, path)
    return path
