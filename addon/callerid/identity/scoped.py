"""What a scoped token is good for besides its dates: where it comes from, and what it was made from.

A token that was derived from a certificate or a JWT is good no longer than that is: the certificate is
verified again as if it were presented, and of the JWT what ``origins`` keeps.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Sequence
from datetime import datetime

from callerid.identity.certificates import ChainVerifier
from callerid.identity.lookup import Lookup
from callerid.identity.networks import is_within
from callerid.identity.origins import Origins
from callerid.identity.rows import TokenRow
from callerid.model import Ceiling, Reason, Rejected


def origin_blocked(lineage: Sequence[TokenRow], registry: Lookup) -> Rejected | None:
    """The refusal of a token whose origin, or that of one above it, is blocked.

    Raises:
        StoreError: the registry cannot be read.
    """
    names = [name for token in lineage for name in token.origin]
    hit = registry.first_blocked(names) if names else None
    if hit is None:
        return None
    return _no(lineage, Reason.PRINCIPAL_BLOCKED, f"{hit}, which the token was derived from, is blocked")


def misplaced(
    lineage: Sequence[TokenRow],
    client_ip: str | None,
    chains: ChainVerifier,
    origins: Origins,
    now: datetime,
) -> Rejected | None:
    """The refusal of a token that is not good from this address, or whose origin is not good any more.

    Args:
        lineage: the token and its parents, the child first; each narrows.
        client_ip: where the request comes from, None if that is not known.
        chains: verifies certificates.
        origins: judges what JWTs they were derived from.
        now: the time.
    """
    for token in lineage:
        if token.networks is not None and not is_within(client_ip, token.networks):
            where = client_ip if client_ip is not None else "an unknown address"
            return _no(lineage, Reason.TOKEN_NETWORK, f"{token.id} is not good from {where}")
        flaw = origins.flaw(token, now)
        if flaw is not None:
            return _no(lineage, *flaw)
        if token.chain:
            try:
                ders = [b64decode(one, validate=True) for one in token.chain]
            except (ValueError, binascii.Error):
                return _no(
                    lineage, Reason.CERTIFICATE_UNTRUSTED, "the certificate it was derived from is gone"
                )
            found = chains.verify(ders, now)
            if isinstance(found, Rejected):
                detail = f"the certificate it was derived from: {found.detail}"
                return _no(lineage, found.reason, detail)
            if found.subject != token.principal:
                return _no(lineage, Reason.IDENTITY_CONFLICT, "its certificate names somebody else now")
    return None


def ceilings_of(lineage: Sequence[TokenRow]) -> tuple[Ceiling, ...]:
    """The narrowings of a token and of all above it."""
    return tuple(
        Ceiling(origin=token.id, servers=token.servers, tools=token.tools)
        for token in lineage
        if token.servers is not None or token.tools is not None
    )


def _no(lineage: Sequence[TokenRow], reason: Reason, detail: str) -> Rejected:
    row = lineage[0]
    return Rejected(reason=reason, detail=detail, subject=row.principal, credential_id=row.id)
