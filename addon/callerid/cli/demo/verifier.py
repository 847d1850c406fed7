"""How a server of the demo finds out who calls: it verifies X-Callerid-Assertion with callerid's public keys.

It shares no code with what signs. ``docs/examples/verify_caller.py`` does the same in a few lines of PyJWT.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HEADER = "x-callerid-assertion"
TYPE = "callerid+jwt"
LEEWAY = 5
"""Seconds that the clocks may differ."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom a server believes: the issuer and its keys by ``kid``; and what ``aud`` must be."""

    issuer: str
    audience: str
    keys: Mapping[str, Ed25519PublicKey]


def read_trust(path: Path, audience: str) -> Trust:
    """What ``callerid jwks --json`` printed into a file.

    Raises:
        OSError: there is no such file.
        ValueError, KeyError: it is not that.
    """
    said = json.loads(path.read_text(encoding="utf-8"))
    keys = {
        jwk["kid"]: Ed25519PublicKey.from_public_bytes(_decoded(jwk["x"]))
        for jwk in said["jwks"]["keys"]
        if (jwk["kty"], jwk["crv"]) == ("OKP", "Ed25519")
    }
    return Trust(said["issuer"], audience, keys)


def who_calls(
    assertions: Sequence[str], trust: Trust, *, method: str | None, tool: str | None, now: int
) -> dict[str, Any]:
    """``principal``, ``actors`` (the current one first) and ``decision``; or ``fault``, what is wrong. Total.

    Args:
        assertions: the values of HEADER in the request: there must be one.
        trust: whom to believe.
        method: of the request's body, None for a request without one.
        tool: that it calls, None if it calls none.
        now: seconds since the epoch.
    """
    if len(assertions) != 1:
        return {"fault": f"{len(assertions)} assertions"}
    claims = verified(assertions[0], trust, now)
    if isinstance(claims, str):
        return {"fault": claims}
    about = claims.get("tctx")
    if not isinstance(about, dict) or about.get("tool") != tool or (method and about.get("method") != method):
        return {"fault": f"it is about {about}"}
    actors = []
    act = claims.get("act")
    while isinstance(act, dict):
        actors.append(act.get("sub"))
        act = act.get("act")
    return {"principal": claims.get("sub"), "actors": actors, "decision": claims.get("txn")}


def verified(token: str, trust: Trust, now: int) -> Mapping[str, Any] | str:
    """The claims, or what is wrong with the token (RFC 7515 section 5.2, RFC 7519 section 7.2). Total.

    The algorithm is ours to say, not the token's: Ed25519 and nothing else (RFC 8725 section 3.1).
    """
    signed, _, signature = token.rpartition(".")
    try:
        head_text, claims_text = signed.split(".")
        head = json.loads(_decoded(head_text))
        if (head["typ"], head["alg"]) != (TYPE, "EdDSA") or "crit" in head:
            return "it is another kind of token"
        trust.keys[head["kid"]].verify(_decoded(signature), signed.encode("ascii"))
        claims = json.loads(_decoded(claims_text))
        if claims["iss"] != trust.issuer or claims["aud"] != trust.audience:
            return "it is not from this issuer for this server"
        if not max(claims["iat"], claims["nbf"]) - LEEWAY <= now < claims["exp"] + LEEWAY:
            return "it is not of now"
        if claims["jti"] != claims.get("txn", claims["jti"]) or not claims["sub"]:
            return "it names no decision or no principal"
    except InvalidSignature:
        return "the signature is not the issuer's"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "it cannot be read, or the key is not known"
    found: Mapping[str, Any] = claims
    return found


def _decoded(text: str) -> bytes:
    """base64url without padding (RFC 7515 section 2)."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
