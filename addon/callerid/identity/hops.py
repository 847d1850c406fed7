"""The certificates of a request: whose they are, and whether a trusted hop speaks for somebody else.

A hop is known by its own certificate on the connection on which it wrote the request. Behind it there are
many people, so what counts is what comes with the request itself, never what belongs to the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from callerid.config import TrustedHop
from callerid.identity.evidence import Piece, Verifier
from callerid.identity.forwarded import Chain, read_client_cert, read_xfcc
from callerid.identity.jwt import b64url_sha256
from callerid.identity.presented import Presented
from callerid.model import Carrier, Reason, Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the certificates of a request come to.

    ``pieces`` are evidence of the caller, ``hops`` what the hops proved of themselves. ``via`` is the id of
    the hop that it came through, ``speaker`` the hop if it wrote the request itself. ``leaves`` are the
    ``x5t#S256`` (RFC 8705 section 3.1) of the certificates that speak for the caller.
    """

    pieces: tuple[Piece, ...] = ()
    hops: tuple[Piece, ...] = ()
    via: str | None = None
    speaker: TrustedHop | None = None
    leaves: frozenset[str] = frozenset()


def read_certificates(
    presented: Presented, verifier: Verifier, hops: Mapping[str, TrustedHop], now: datetime
) -> Shown | Rejected:
    """Verify every certificate of a request. ``hops`` maps the subject of each trusted hop to it."""
    pieces: list[Piece] = []
    own: list[Piece] = []
    leaves: set[str] = set()
    via = speaker = None
    for carrier, chain in (
        (Carrier.PROXY_TLS, presented.proxy_chain),
        (Carrier.INNER_TLS, presented.inner_chain),
    ):
        found = verifier.chain(chain, carrier, now)
        if isinstance(found, Rejected):
            return replace(found, via=via)
        hop = hops.get(found.principal.subject) if found is not None else None
        if found is not None and hop is not None:
            own.append(found)
            via = hop.id
            if carrier is presented.sender_carrier():
                speaker = hop
            continue
        if found is not None:
            pieces.append(found)
        if chain and chain[0]:
            leaves.add(b64url_sha256(chain[0]))
    shown = Shown(pieces=tuple(pieces), hops=tuple(own), via=via, leaves=frozenset(leaves))
    if speaker is None:
        return shown
    said = _spoken_for(shown, speaker, presented, verifier, hops, now)
    return replace(said, via=speaker.id) if isinstance(said, Rejected) else said


def _spoken_for(
    shown: Shown,
    hop: TrustedHop,
    presented: Presented,
    verifier: Verifier,
    hops: Mapping[str, TrustedHop],
    now: datetime,
) -> Shown | Rejected:
    """The certificates that the hop says it saw take the place of its own."""
    if shown.pieces:
        return Rejected(
            reason=Reason.EVIDENCE_AMBIGUOUS,
            detail=f"hop {hop.id} speaks inside of a connection that somebody else opened",
        )
    chains = _forwarded(presented, hop)
    if isinstance(chains, Rejected):
        return chains
    if len({chain[0] for _, chain in chains}) > 1:
        return Rejected(
            reason=Reason.IDENTITY_CONFLICT, detail=f"hop {hop.id} names two certificates in two headers"
        )
    pieces: list[Piece] = []
    own = list(shown.hops)
    leaves: set[str] = set()
    for carrier, chain in chains:
        found = verifier.chain(chain, carrier, now)
        if isinstance(found, Rejected):
            return found
        if found is None or found.principal.subject in hops:
            own += [found] if found is not None else []
            continue
        pieces.append(found)
        leaves.add(b64url_sha256(chain[0]))
    return Shown(pieces=tuple(pieces), hops=tuple(own), via=hop.id, speaker=hop, leaves=frozenset(leaves))


def _forwarded(presented: Presented, hop: TrustedHop) -> list[tuple[Carrier, Chain]] | Rejected:
    """The chains in the headers that this hop is believed in. Headers it is not believed in are claims."""
    found: list[tuple[Carrier, Chain | str]] = []
    if "xfcc" in hop.accept and presented.forwarded_client_cert:
        if len(presented.forwarded_client_cert) > 1:
            return _twice("X-Forwarded-Client-Cert")
        found.append((Carrier.FORWARDED_CLIENT_CERT, read_xfcc(presented.forwarded_client_cert[0])))
    if "client-cert" in hop.accept and (presented.client_cert or presented.client_cert_chain):
        if max(len(presented.client_cert), len(presented.client_cert_chain)) > 1:
            return _twice("Client-Cert or Client-Cert-Chain")
        chain = read_client_cert(presented.client_cert, presented.client_cert_chain)
        found.append((Carrier.CLIENT_CERT_HEADER, chain))
    good: list[tuple[Carrier, Chain]] = []
    for carrier, read in found:
        if isinstance(read, str):
            return Rejected(
                reason=Reason.CERTIFICATE_UNTRUSTED,
                detail=f"what hop {hop.id} forwards in {carrier.value} cannot be used: {read}",
            )
        good.append((carrier, read))
    return good


def _twice(name: str) -> Rejected:
    return Rejected(reason=Reason.EVIDENCE_AMBIGUOUS, detail=f"{name} is there more than once")
