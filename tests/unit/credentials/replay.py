"""Vault's and Secrets Manager's documented HTTP APIs, replayed over TLS: for the real hvac and botocore.

https://developer.hashicorp.com/vault/api-docs and the Secrets Manager API reference say what is answered.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.e2e.harness import Reply, Seen

ROLE_ID, SECRET_ID = "role-id-of-callerid", "secret-id-of-callerid"
JWT = "eyJhbGciOiJub25lIn0.e30.workload"
TARGET = "secretsmanager.GetSecretValue"


def said(status: int, body: Any) -> Reply:
    return Reply(status, [("content-type", "application/json")], json.dumps(body).encode())


@dataclass
class Vault:
    """One server: AppRole, Kubernetes and JWT logins, KV of both versions, leases."""

    kv: dict[str, Any] = field(default_factory=dict)
    leased: dict[str, str] = field(default_factory=dict)
    lease_life: int = 60
    renewed_life: int = 60
    token_life: int = 3600
    renewable: bool = True
    trouble: Callable[[Seen], Reply | None] = lambda seen: None
    tokens: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)
    namespaces: set[str | None] = field(default_factory=set)

    def count(self, path: str) -> int:
        return Counter(path for _, path in self.asked)[path]

    def __call__(self, seen: Seen) -> Reply:
        path = unquote(seen.path)
        self.asked.append((seen.method, path))
        self.namespaces.add(seen.header("x-vault-namespace"))
        trouble = self.trouble(seen)
        if trouble is not None:
            return trouble
        if path.startswith("/v1/auth/") and path.endswith("/login"):
            return self._login(path, json.loads(seen.body))
        if seen.header("x-vault-token") not in self.tokens:
            return said(403, {"errors": ["permission denied"]})
        return self._granted(path, seen)

    def _login(self, path: str, body: dict[str, str]) -> Reply:
        proofs = {
            "/v1/auth/approle/login": {"role_id": ROLE_ID, "secret_id": SECRET_ID},
            "/v1/auth/kubernetes/login": {"role": "callerid", "jwt": JWT},
            "/v1/auth/jwt/login": {"role": "callerid", "jwt": JWT},
        }
        if proofs.get(path) != body:
            return said(400, {"errors": ["invalid role or secret ID"]})
        token = f"hvs.token-{len(self.asked)}"
        self.tokens.add(token)
        return self._auth(token)

    def _auth(self, token: str) -> Reply:
        auth = {"client_token": token, "lease_duration": self.token_life, "renewable": self.renewable}
        return said(200, {"auth": auth})

    def _granted(self, path: str, seen: Seen) -> Reply:
        token = seen.header("x-vault-token") or ""
        if path == "/v1/auth/token/lookup-self":
            return said(200, {"data": {"ttl": self.token_life, "renewable": self.renewable}})
        if path == "/v1/auth/token/renew-self":
            return self._auth(token)
        if path == "/v1/sys/leases/renew":
            lease = json.loads(seen.body)["lease_id"]
            answer = {"lease_id": lease, "lease_duration": self.renewed_life, "renewable": True}
            return said(200, answer)
        if path.startswith("/v1/sys/internal/ui/mounts/"):
            mount = path.rpartition("/")[2]
            kinds = {
                "kv": {"type": "kv", "options": {"version": "2"}},
                "old": {"type": "kv", "options": None},
                "db": {"type": "database", "options": None},
            }
            return said(200, {"data": kinds[mount]}) if mount in kinds else said(403, {"errors": ["no"]})
        found = self.kv.get(path)
        if path in self.leased:
            lease = f"{path}/{len(self.asked)}"
            answer = {"lease_id": lease, "lease_duration": self.lease_life, "renewable": True}
            return said(200, {**answer, "data": {"password": self.leased[path]}})
        return said(200, {"data": found}) if found is not None else said(404, {"errors": []})


def signed_right(seen: Seen, secret_key: str, host: str) -> bool:
    """Whether SigV4 was done with this key over what arrived (AWS: Signature Version 4, steps 1 to 4)."""
    authorization = seen.header("authorization") or ""
    scheme, _, rest = authorization.partition(" ")
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    names = parts["SignedHeaders"].split(";")
    values = {name: host if name == "host" else (seen.header(name) or "") for name in names}
    canonical = "\n".join([
        seen.method, seen.path, "", *(f"{name}:{values[name]}" for name in names), "",
        parts["SignedHeaders"], hashlib.sha256(seen.body).hexdigest(),
    ])  # fmt: skip
    _, *scope = parts["Credential"].split("/")
    date = seen.header("x-amz-date") or ""
    text = "\n".join([scheme, date, "/".join(scope), hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + secret_key.encode()
    for step in scope:
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    return hmac.compare_digest(hmac.new(key, text.encode(), hashlib.sha256).hexdigest(), parts["Signature"])


@dataclass
class SecretsManager:
    """GetSecretValue, for who signs with the right key."""

    secret_key: str
    secrets: dict[str, dict[str, Any]]
    host: str = ""
    trouble: Callable[[Seen], Reply | None] = lambda seen: None
    asked: list[str] = field(default_factory=list)

    def __call__(self, seen: Seen) -> Reply:
        self.asked.append(seen.header("x-amz-target") or "")
        trouble = self.trouble(seen)
        if trouble is not None:
            return trouble
        if not signed_right(seen, self.secret_key, self.host):
            return self.error("InvalidSignatureException")
        found = self.secrets.get(json.loads(seen.body)["SecretId"])
        return self.error("ResourceNotFoundException") if found is None else said(200, found)

    def error(self, code: str) -> Reply:
        return said(400, {"__type": code, "message": "what the service says, perhaps with what it was sent"})


def never(seconds: float) -> Callable[[Seen], Reply | None]:
    """Takes the request and does not answer, for longer than anybody waits."""

    def wait(seen: Seen) -> Reply | None:
        time.sleep(seconds)
        return Reply(500)

    return wait


def trickling(seen: Seen) -> Reply | None:
    """A head that never ends, a byte at a time: each read succeeds in time."""

    def drops() -> Any:
        while True:
            time.sleep(0.05)
            yield b" "

    return Reply(200, [("content-type", "application/json")], chunks=drops())
