"""Sender constraint: a token that names a key or a certificate is good in the hands of its holder only.

RFC 7800 ``cnf``; certificates by RFC 8705, keys by RFC 9449. A confirmation that cannot be checked here is
one that was not given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime

from callerid.config import Issuer
from callerid.identity.carriers import Credential
from callerid.identity.dpop import Proof, Proofs, read_proof
from callerid.identity.jwt import JwtClaims
from callerid.identity.presented import Presented
from callerid.identity.resources import at_origin
from callerid.model import Carrier, Reason, Rejected

CERTIFICATE = "x5t#S256"
KEY = "jkt"


def prove(
    verified: JwtClaims,
    issuer: Issuer,
    found: Credential,
    presented: Presented,
    leaves: Collection[str],
    proofs: Proofs,
    holder: str,
    now: datetime,
) -> bool | Rejected:
    """Whether the sender proved to hold what the token is bound to; False where it is bound to nothing.

    Args:
        verified: the token's claims.
        issuer: whose token it is.
        found: how it was carried.
        presented: the request, with its DPoP header.
        leaves: ``x5t#S256`` of the certificates that speak for the sender.
        proofs: which proofs were used.
        holder: the principal that the token names, whose share of them it is.
        now: of the judgement.
    """
    if found.dpop and found.carrier is not Carrier.AUTHORIZATION:
        return _no(verified, "a DPoP proof is for one request: give it in Authorization, not at the proxy")
    if "cnf" not in verified.claims:
        if found.dpop:
            return _no(verified, "the token is bound to no key: send it as Bearer")
        if issuer.sender_constrained:
            return _no(verified, f"issuer {issuer.id} is taken with tokens that are bound to a key only")
        return False
    cnf = verified.claims["cnf"]
    if not isinstance(cnf, Mapping) or not {CERTIFICATE, KEY} & set(cnf):
        return _no(verified, "the token is bound in a way that cannot be checked here")
    if CERTIFICATE in cnf and not any(cnf[CERTIFICATE] == leaf for leaf in leaves):
        return _no(verified, "the token is bound to a certificate that its sender did not show")
    if KEY in cnf:
        proof = _by_key(verified, issuer, found, cnf[KEY], presented)
        if isinstance(proof, Rejected):
            return proof
        fault = proofs.admit(proof, presented.mark, int(now.timestamp() * 1_000_000), holder)
        return True if fault is None else _no(verified, f"the DPoP proof is not good: {fault}")
    if found.dpop:
        return _no(verified, "the token is bound to a certificate, not to a key: send it as Bearer")
    return True


def _by_key(
    verified: JwtClaims, issuer: Issuer, found: Credential, key: object, presented: Presented
) -> Proof | Rejected:
    if not found.dpop:
        return _no(verified, "the token is bound to a key: send it as DPoP with a proof")
    if len(presented.dpop) > 1:
        count = len(presented.dpop)
        return _no(verified, f"there are {count} DPoP proofs", Reason.EVIDENCE_AMBIGUOUS)
    if not presented.dpop:
        return _no(verified, "the DPoP proof is missing")
    proof = read_proof(
        presented.dpop[0], token=found.text, method=presented.method, urls=_names(presented, issuer)
    )
    if isinstance(proof, str):
        return _no(verified, f"the DPoP proof is not good: {proof}")
    if proof.key != key:
        return _no(verified, "the DPoP proof is by another key than the token's")
    return proof


def _names(presented: Presented, issuer: Issuer) -> Iterator[str | None]:
    """What the client may call the URL of its request.

    In reverse mode it knows us by a name of ours: the origin of one of the audiences, which the operator
    wrote. Never the name that came with the request: whoever was sent a proof could come under his own.
    """
    yield presented.url
    if presented.reverse:
        for audience in issuer.audiences:
            yield at_origin(presented.url, audience)


def _no(verified: JwtClaims, detail: str, reason: Reason = Reason.JWT_PROOF) -> Rejected:
    return Rejected(
        reason=reason, detail=detail, subject=verified.subject, credential_id=verified.credential_id
    )
