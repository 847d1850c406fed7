"""One piece of evidence at a time: a header value or a certificate chain, verified and mapped to names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from callerid.config import Identities, Issuer
from callerid.identity import claims, jwt, scoped
from callerid.identity.carriers import Credential, Form, read
from callerid.identity.certificates import ChainVerifier
from callerid.identity.client_cas import LoadedCA
from callerid.identity.dpop import Proofs
from callerid.identity.jwks import JwksStore
from callerid.identity.names import canonical
from callerid.identity.origins import Origins
from callerid.identity.presented import Presented
from callerid.identity.proof import prove
from callerid.identity.registry import Registry
from callerid.identity.rows import TokenRow
from callerid.identity.tokens import digest
from callerid.model import Assurance, Carrier, Ceiling, Evidence, EvidenceKind, Principal, Reason, Rejected

LOCAL = "local"
"""The issuer of our own tokens, as it stands in ``Principal.issuer``."""

_FLAWS = {Form.AMBIGUOUS: Reason.EVIDENCE_AMBIGUOUS, Form.UNKNOWN: Reason.EVIDENCE_UNRECOGNISED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One verified piece of evidence and what it says."""

    evidence: Evidence
    principal: Principal
    agent: str | None
    assurance: Assurance
    assurance_name: str
    expires_us: int
    actors: tuple[str, ...] = ()
    groups: frozenset[str] = frozenset()
    ceilings: tuple[Ceiling, ...] = ()


def us(now: datetime) -> int:
    """``now`` in microseconds since the epoch, UTC."""
    return int(now.timestamp() * 1_000_000)


def lineage_of(row: TokenRow, registry: Registry, now: datetime) -> tuple[TokenRow, ...] | Rejected:
    """The token and its parents, all good at ``now``; else why not. One dead parent kills all below it.

    Raises:
        StoreError: the registry cannot be read.
    """
    lineage = registry.lineage(row)
    for token in lineage:
        which = "the token" if token is row else f"its parent {token.id}"
        if token.revoked_us is not None:
            reason, detail = Reason.TOKEN_REVOKED, f"{which} was revoked"
        elif token.expires_us <= us(now):
            reason, detail = Reason.TOKEN_EXPIRED, f"{which} has expired"
            if token.rotated_to is not None:
                what = "use that" if token is row else "derive anew from that"
                detail += f": it was rotated to {token.rotated_to}, {what}"
        else:
            continue
        return Rejected(reason=reason, detail=detail, subject=row.principal, credential_id=row.id)
    return scoped.origin_blocked(lineage, registry) or lineage


class Verifier:
    """Verifies single pieces against identities.yaml, the registry, the issuers' keys and the client CAs."""

    def __init__(
        self,
        identities: Identities,
        registry: Registry,
        jwks: JwksStore,
        cas: tuple[LoadedCA, ...],
        proofs: Proofs,
    ) -> None:
        self.issuers = {issuer.issuer: issuer for issuer in identities.issuers}
        self._identities = identities
        self._registry = registry
        self._jwks = jwks
        self._chains = ChainVerifier(cas)
        self._proofs = proofs
        self._origins = Origins(identities, jwks)

    def header(
        self, value: str, carrier: Carrier, now: datetime, presented: Presented, leaves: Collection[str]
    ) -> Piece | Rejected | None:
        """What the value of a carrier header proves; None where nobody here can verify it.

        ``presented`` is the request that it came with, ``leaves`` the certificates (``x5t#S256``) that speak
        for its sender.
        """
        found = read(value, carrier, self.issuers)
        if found.form is Form.FOREIGN:
            return None
        if found.form is Form.TOKEN:
            return self._token(found.text, carrier, now, presented.client_ip)
        if found.form is Form.JWT and found.issuer is not None:
            return self._jwt(found, found.issuer, now, presented, leaves)
        flaw = _FLAWS.get(found.form, Reason.TOKEN_MALFORMED)
        return Rejected(reason=flaw, detail=f"{found.detail} (in {carrier.value})")

    def chain(self, ders: Sequence[bytes], carrier: Carrier, now: datetime) -> Piece | Rejected | None:
        """Whom a certificate chain proves; None where none was presented or no client CA is configured."""
        if not ders or not self._chains.cas:
            return None
        found = self._chains.verify(ders, now)
        if isinstance(found, Rejected):
            return found
        return Piece(
            evidence=Evidence(
                kind=EvidenceKind.CLIENT_CERT, carrier=carrier, credential_id=found.credential_id
            ),
            principal=Principal(found.subject, found.issuer),
            agent=found.agent,
            assurance=Assurance.BOUND,
            assurance_name="bound",
            expires_us=found.expires_us,
        )

    def _token(self, token: str, carrier: Carrier, now: datetime, client_ip: str | None) -> Piece | Rejected:
        row = self._registry.find(digest(token))
        if row is None:
            return Rejected(reason=Reason.TOKEN_UNKNOWN, detail="the token was never issued here")
        lineage = lineage_of(row, self._registry, now)
        if isinstance(lineage, Rejected):
            return lineage
        misplaced = scoped.misplaced(lineage, client_ip, self._chains, self._origins, now)
        if misplaced is not None:
            return misplaced
        return Piece(
            evidence=Evidence(kind=EvidenceKind.SCOPED_TOKEN, carrier=carrier, credential_id=row.id),
            principal=Principal(canonical(row.principal), LOCAL),
            agent=row.agent,
            assurance=Assurance.BEARER,
            assurance_name="bearer",
            expires_us=min(token.expires_us for token in lineage),
            actors=row.actors,
            groups=frozenset(name for token in lineage for name in token.in_groups)
            & self._identities.groups.keys(),
            ceilings=scoped.ceilings_of(lineage),
        )

    def _jwt(
        self, found: Credential, issuer: Issuer, now: datetime, presented: Presented, leaves: Collection[str]
    ) -> Piece | Rejected:
        keys = self._jwks.keys(issuer.id, now)
        if keys is None:
            return Rejected(
                reason=Reason.JWT_KEYS_UNAVAILABLE, detail=f"there are no fresh keys of issuer {issuer.id}"
            )
        verified = jwt.verify(found.text, issuer, keys, now, resource=presented.resource)
        if isinstance(verified, Rejected):
            if jwt.wants_other_keys(found.text, keys):
                self._jwks.note_unknown_kid(issuer.id)
            return verified
        named = claims.name(verified, issuer, self._identities)
        if isinstance(named, Rejected):
            return named
        bound = prove(verified, issuer, found, presented, leaves, self._proofs, named.subject, now)
        if isinstance(bound, Rejected):
            return bound
        usual = Assurance.WORKLOAD if issuer.assurance == "workload" else Assurance.IDP
        return Piece(
            evidence=Evidence(
                kind=EvidenceKind.JWT,
                carrier=found.carrier,
                credential_id=verified.credential_id,
                bound=bound,
            ),
            principal=Principal(named.subject, issuer.id),
            agent=named.agent,
            assurance=Assurance.BOUND if bound else usual,
            assurance_name="bound" if bound else issuer.assurance,
            expires_us=verified.expires_us,
            actors=named.actors,
            groups=named.groups,
        )
