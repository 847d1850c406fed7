"""Tokens that are bound to something, and proofs of holding it, made by hand so that any nonsense fits."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from callerid.identity.presented import Presented, RequestMark
from tests.unit.identity import made

AT = int(made.NOW.timestamp())
URL = "https://things.corp.example/mcp"
HOLDER = 20
"""``which`` of the key that tokens are bound to."""


def thumbprint(kind: str = "ES256", which: int = HOLDER) -> str:
    """RFC 7638, written out a second time."""
    jwk = made.public_jwk(kind, None, which)
    names = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}[jwk["kty"]]
    text = "{" + ",".join(f'"{name}":"{jwk[name]}"' for name in names) + "}"
    return made.b64(hashlib.sha256(text.encode()).digest())


def x5t(der: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


def bound(cnf: Any = None, **changes: Any) -> str:
    """Alice's token, bound to HOLDER's key unless told otherwise."""
    return made.sign(made.claims(cnf={"jkt": thumbprint()} if cnf is None else cnf, **changes))


def proof(
    token: str, *, kind: str = "ES256", which: int = HOLDER, header: dict[str, Any] | bytes | None = None,
    payload: bytes | None = None, **changes: Any,
) -> str:  # fmt: skip
    """A good proof for a POST to URL with ``token``; ``changes`` replace claims, None takes one out."""
    values = {
        "jti": "p-1", "htm": "POST", "htu": URL, "iat": AT,
        "ath": made.b64(hashlib.sha256(token.encode()).digest()), **changes,
    }  # fmt: skip
    claims = {name: value for name, value in values.items() if value is not None}
    if not isinstance(header, bytes):
        jwk = made.public_jwk(kind, None, which)
        usual = {"typ": "dpop+jwt", "alg": kind, "jwk": jwk, **(header or {})}
        header = {name: value for name, value in usual.items() if value is not None}
    return made.sign(
        payload if payload is not None else json.dumps(claims).encode(), kind=kind, which=which, header=header
    )


def sent(token: str, *proofs: str, scheme: str = "DPoP", **changes: Any) -> Presented:
    """A request of its own with this token and these proofs."""
    values: dict[str, Any] = {
        "authorization": (f"{scheme} {token}",), "dpop": proofs, "method": "POST", "url": URL,
        "mark": RequestMark(), **changes,
    }  # fmt: skip
    return Presented(**values)
