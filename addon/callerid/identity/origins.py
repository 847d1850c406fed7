"""What made a JWT good, kept for the tokens that are derived from it: they are good no longer than that is.

Kept are its issuer (``iss``), the name of its key (``kid``) and the clients that it was made for. What else
made it good (its groups, required claims, the mapping of its names) is judged once, when the token is
derived.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from callerid.config import Identities, Issuer
from callerid.identity.claims import clients_of
from callerid.identity.jwks import JwksStore
from callerid.identity.jwt import peek_claims, peek_kid
from callerid.identity.rows import TokenRow
from callerid.model import Reason

type Flaw = tuple[Reason, str]
_GONE = "of an issuer that is no longer one"


def kept_of(token: str, issuer: Issuer) -> str:
    """What is kept of a JWT of ``issuer`` that was verified: JSON, without the token."""
    named = clients_of(peek_claims(token) or {})
    clients = [client if isinstance(client, str) else None for client in named]
    return json.dumps({"issuer": issuer.id, "iss": issuer.issuer, "kid": peek_kid(token), "clients": clients})


@dataclass(frozen=True, slots=True)
class Origins:
    """Judges what tokens were derived from, by identities.yaml and the issuers' keys as they are now."""

    identities: Identities
    jwks: JwksStore

    def flaw(self, row: TokenRow, now: datetime) -> Flaw | None:
        """Why a token is not good any more whose JWT would not be; None if it was derived from none."""
        wanted = {name.partition(":")[2].partition(":")[0] for name in _jwts(row.origin)}
        try:
            kept = [dict(json.loads(text)) for text in row.jwts]
        except (ValueError, TypeError, RecursionError):
            kept = []
        if wanted - {one.get("issuer") for one in kept}:
            return Reason.TOKEN_REVOKED, "it is not known any more what its JWT was"
        return next((flaw for one in kept if (flaw := self._flaw(one, row, now)) is not None), None)

    def _flaw(self, kept: Mapping[str, object], row: TokenRow, now: datetime) -> Flaw | None:
        issuers = {issuer.id: issuer for issuer in self.identities.issuers}
        issuer = issuers.get(str(kept.get("issuer")))
        if issuer is None or issuer.issuer != kept.get("iss"):
            return Reason.TOKEN_REVOKED, f"its JWT is {_GONE}"
        if issuer.sender_constrained:
            return Reason.JWT_PROOF, f"issuer {issuer.id} is taken with tokens that are bound to a key only"
        clients = kept.get("clients")
        if issuer.clients and not (
            isinstance(clients, list) and clients and all(map(issuer.clients.__contains__, clients))
        ):
            return Reason.JWT_INVALID, "its JWT was made for none of the issuer's clients"
        kind, _, name = row.principal.partition(":")
        if kind == "workload" and not any(
            one.id == name and one.issuer == issuer.id for one in self.identities.workloads
        ):
            return Reason.WORKLOAD_UNKNOWN, f"{row.principal} is no workload of issuer {issuer.id} any more"
        keys, kid = self.jwks.keys(issuer.id, now), kept.get("kid")
        if keys is None:
            return Reason.JWT_KEYS_UNAVAILABLE, f"there are no fresh keys of issuer {issuer.id}"
        if isinstance(kid, str) and not keys.knows(kid):
            return Reason.JWT_INVALID, f"issuer {issuer.id} has withdrawn the key of its JWT"
        return None


def _jwts(origin: Iterable[str]) -> Iterable[str]:
    return (name for name in origin if name.startswith("jwt:"))
