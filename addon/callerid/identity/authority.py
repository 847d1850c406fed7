"""Evidence in, Caller out: DESIGN section 5.

Law 6: what is presented is verified, all of it. Pieces that disagree are a refusal, not a choice, and a
piece that is meant for us and fails refuses the request, however good another one is. Nothing in here
raises on hostile input; a registry that cannot be read raises StoreError, and the proxy's guarded door
makes a denial of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from callerid.config import Agent, Identities
from callerid.identity import carriers
from callerid.identity.certificates import credential_id
from callerid.identity.client_cas import LoadedCA
from callerid.identity.evidence import Piece, Verifier, lineage_of, us
from callerid.identity.jwks import JwksStore
from callerid.identity.names import SUBJECT_KINDS, canonical
from callerid.identity.registry import Registry
from callerid.model import Caller, Carrier, Ceiling, Evidence, EvidenceKind, Reason, Rejected

REMEMBER_US = 5_000_000
"""How long a verified caller is believed without verifying again; keys and CRLs can be that stale."""
REMEMBERED = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """Raw header values as received, every instance of each header, and the TLS chains (DER, leaf first).

    ``connect_proxy_authorization`` is from the CONNECT that opened the tunnel, ``proxy_authorization``
    from this very request. ``proxy_chain`` is of the TLS connection to the proxy, ``inner_chain`` of the
    intercepted one. What was presented is kept out of ``repr``.
    """

    proxy_authorization: tuple[str, ...] = field(default=(), repr=False)
    connect_proxy_authorization: tuple[str, ...] = field(default=(), repr=False)
    authorization: tuple[str, ...] = field(default=(), repr=False)
    callerid_token: tuple[str, ...] = field(default=(), repr=False)
    proxy_chain: tuple[bytes, ...] = field(default=(), repr=False)
    inner_chain: tuple[bytes, ...] = field(default=(), repr=False)
    client_ip: str | None = None

    def headers(self) -> tuple[tuple[Carrier, tuple[str, ...]], ...]:
        """The carrier headers with all their values."""
        return (
            (Carrier.PROXY_AUTHORIZATION, self.connect_proxy_authorization),
            (Carrier.PROXY_AUTHORIZATION, self.proxy_authorization),
            (Carrier.X_CALLERID_TOKEN, self.callerid_token),
            (Carrier.AUTHORIZATION, self.authorization),
        )

    def digest(self) -> bytes:
        """SHA-256 over everything presented, unambiguously; what was presented cannot be read from it."""
        parts: list[str] = []
        for values in (
            self.connect_proxy_authorization,
            self.proxy_authorization,
            self.callerid_token,
            self.authorization,
        ):
            parts.append(f"{len(values)};")
            for value in values:
                parts.append(f"{len(value)}:{value}")
        made = hashlib.sha256("".join(parts).encode("utf-8", "surrogateescape"))
        for chain in (self.proxy_chain, self.inner_chain):
            made.update(b"%d;" % len(chain))
            for certificate in chain:
                made.update(b"%d:%s" % (len(certificate), certificate))
        return made.digest()


class Authority:
    """Who may call, under one set of identities. Made anew when identities.yaml or a CA file changes.

    Used by one thread, that of the registry; the keys in ``jwks`` may be refreshed by another.
    """

    def __init__(
        self, identities: Identities, registry: Registry, jwks: JwksStore, cas: tuple[LoadedCA, ...]
    ) -> None:
        self._registry = registry
        self._verifier = Verifier(identities, registry, jwks, cas)
        self._agents = identities.agents
        self._blocked = frozenset(map(canonical, identities.blocked))
        self._denied = tuple(fingerprint for ca in cas for fingerprint in ca.denied)
        self._recent: dict[bytes, tuple[int, int, int, Caller]] = {}
        self._groups: dict[str, frozenset[str]] = {}
        for group, members in identities.groups.items():
            for member in map(canonical, members):
                self._groups[member] = self._groups.get(member, frozenset()) | {group}

    def identify(self, presented: Presented, *, now: datetime) -> Caller | Rejected:
        """The caller behind a request, or why there is none.

        A caller that was verified is remembered for ``REMEMBER_US``, by a digest of exactly what was
        presented, and only as long as the registry has seen no revocation and no block (law 10).

        Raises:
            StoreError: the registry cannot be read; the request must be refused.
        """
        generation, time_us, key = self._registry.generation(), us(now), presented.digest()
        held = self._recent.get(key)
        if held is not None and held[0] == generation and held[1] <= time_us < held[2]:
            caller: Caller | Rejected = held[3]
        else:
            caller = self._identify(presented, now)
            if isinstance(caller, Caller):
                self._remember(key, generation, time_us, caller)
        if isinstance(caller, Caller):
            for evidence in caller.evidence:
                if evidence.kind is EvidenceKind.SCOPED_TOKEN:
                    self._registry.touch(evidence.credential_id, time_us, presented.client_ip)
        return caller

    def _remember(self, key: bytes, generation: int, time_us: int, caller: Caller) -> None:
        expires = time_us + REMEMBER_US
        if caller.expires_us is not None:
            expires = min(expires, caller.expires_us)
        if len(self._recent) >= REMEMBERED:
            self._recent.clear()
        self._recent[key] = (generation, time_us, expires, caller)

    def _identify(self, presented: Presented, now: datetime) -> Caller | Rejected:
        for carrier, values in presented.headers():
            if len(values) > 1:
                return Rejected(
                    reason=Reason.EVIDENCE_AMBIGUOUS, detail=f"{carrier.value} is there {len(values)} times"
                )
        pieces: list[Piece] = []
        for found in self._verified(presented, now):
            if isinstance(found, Rejected):
                return found
            pieces.append(found)
        if not pieces:
            return _nobody(bool(presented.authorization))
        return self._agree(pieces)

    def recheck(self, caller: Caller, *, now: datetime) -> Rejected | None:
        """Why an open stream of ``caller`` must be cut: blocked, revoked or expired since (law 10).

        Raises:
            StoreError: the registry cannot be read; the stream must be cut.
        """
        subject = caller.principal.subject
        refusal = self._blocked_among([subject], caller.agent, caller.actors, caller.evidence)
        if refusal is not None:
            return refusal
        for evidence in caller.evidence:
            dead = self._dead(evidence, subject, now)
            if dead is not None:
                return dead
        if caller.expires_us is not None and caller.expires_us <= us(now):
            kinds = {evidence.kind for evidence in caller.evidence}
            reason = Reason.JWT_EXPIRED if EvidenceKind.JWT in kinds else Reason.CERTIFICATE_EXPIRED
            return _about(subject, caller.credential_id, reason, "the evidence has expired since")
        return None

    def is_ours(self, header_value: str) -> bool:
        """True when a header value carries evidence for us, good or not: it never leaves (law 5). Total."""
        return carriers.is_ours(header_value, self._verifier.issuers)

    def _verified(self, presented: Presented, now: datetime) -> Iterator[Piece | Rejected]:
        """One answer per piece that is for us, in a fixed order."""
        chains = ((Carrier.PROXY_TLS, presented.proxy_chain), (Carrier.INNER_TLS, presented.inner_chain))
        for carrier, chain in chains:
            found = self._verifier.chain(chain, carrier, now)
            if found is not None:
                yield found
        for carrier, values in presented.headers():
            for value in values:
                found = self._verifier.header(value, carrier, now)
                if found is not None:
                    yield found

    def _agree(self, pieces: list[Piece]) -> Caller | Rejected:
        """One caller out of all pieces, or the refusal that they add up to."""
        best = max(pieces, key=lambda piece: piece.assurance)  # the first of equals
        subjects = sorted({piece.principal.subject for piece in pieces})
        evidence = tuple(piece.evidence for piece in pieces)
        for piece in pieces:
            refusal = self._blocked_among(
                [piece.principal.subject], piece.agent, piece.actors, [piece.evidence]
            )
            if refusal is not None:
                return refusal
        agents = {piece.agent for piece in pieces if piece.agent is not None}
        chains = {piece.actors for piece in pieces if piece.actors}
        if len(subjects) > 1 or len(agents) > 1 or len(chains) > 1:
            names = ", ".join(subjects if len(subjects) > 1 else sorted(agents))
            return Rejected(
                reason=Reason.IDENTITY_CONFLICT, detail=f"the pieces of evidence disagree: {names}"
            )
        agent = next(iter(agents), None)
        actors = next(iter(chains), ())
        subject = best.principal.subject
        groups = self._groups.get(subject, frozenset()).union(*(piece.groups for piece in pieces))
        ceilings = self._agent_ceilings(subject, groups, agent, actors, best.evidence.credential_id)
        if isinstance(ceilings, Rejected):
            return ceilings
        for piece in pieces:
            ceilings += piece.ceilings
        return Caller(
            principal=best.principal,
            agent=agent,
            actors=actors,
            evidence=evidence,
            assurance=best.assurance,
            assurance_name=best.assurance_name,
            credential_id=best.evidence.credential_id,
            groups=groups,
            ceilings=tuple(dict.fromkeys(ceilings)),
            expires_us=min(piece.expires_us for piece in pieces),
        )

    def _agent_ceilings(
        self,
        subject: str,
        groups: frozenset[str],
        agent: str | None,
        actors: tuple[str, ...],
        credential: str,
    ) -> tuple[Ceiling, ...] | Rejected:
        """The ceilings of the agents at work. Each registered one must be the principal's own.

        The agent and the current actor must be registered, once any agent is; earlier actors are
        history (RFC 8693 section 4.1), which can narrow and never needs to be known.
        """
        ceilings: tuple[Ceiling, ...] = ()
        for name in dict.fromkeys(([agent] if agent is not None else []) + list(actors)):
            entry = self._agents.get(name)
            at_work = name == agent or name == actors[0]
            if (entry is None and self._agents and at_work) or (
                entry is not None and not _owns(subject, groups, entry)
            ):
                return _about(
                    subject, credential, Reason.AGENT_NOT_PERMITTED, f"agent {name} is not one of {subject}"
                )
            if entry is not None and not (entry.servers is None and entry.tools is None):
                ceilings += (Ceiling(origin=f"agent:{name}", servers=entry.servers, tools=entry.tools),)
        return ceilings

    def _blocked_among(
        self,
        subjects: list[str],
        agent: str | None,
        actors: tuple[str, ...],
        evidence: Iterable[Evidence],
    ) -> Rejected | None:
        """PRINCIPAL_BLOCKED if any of them is. An actor is a bare name: it is looked up as every kind."""
        names = list(subjects)
        if agent is not None:
            names.append(f"agent:{agent}")
        for actor in actors:
            names.append(actor)
            names += [canonical(f"{kind}:{actor}") for kind in ("agent", *SUBJECT_KINDS)]
        credentials = [piece.credential_id for piece in evidence]
        names += credentials
        hit = next((name for name in names if name in self._blocked), None)
        hit = hit if hit is not None else self._registry.first_blocked(names)
        if hit is None:
            return None
        return _about(subjects[0], credentials[0], Reason.PRINCIPAL_BLOCKED, f"{hit} is blocked")

    def _dead(self, evidence: Evidence, subject: str, now: datetime) -> Rejected | None:
        """Why a piece that was good is good no longer, as far as its id alone can tell."""
        identifier = evidence.credential_id
        if evidence.kind is EvidenceKind.SCOPED_TOKEN:
            row = self._registry.get(identifier)
            if row is None:
                return _about(subject, identifier, Reason.TOKEN_UNKNOWN, "the token is gone")
            lineage = lineage_of(row, self._registry, now)
            return lineage if isinstance(lineage, Rejected) else None
        denied = (credential_id(fingerprint) for fingerprint in self._denied)
        if evidence.kind is EvidenceKind.CLIENT_CERT and identifier in denied:
            return _about(subject, identifier, Reason.CERTIFICATE_REVOKED, "it is on the deny list now")
        return None


def _nobody(foreign: bool) -> Rejected:
    if foreign:
        return Rejected(
            reason=Reason.EVIDENCE_UNRECOGNISED, detail="nobody here can verify what Authorization holds"
        )
    return Rejected(reason=Reason.NO_EVIDENCE, detail="nothing in the request says who is calling")


def _about(subject: str, identifier: str, reason: Reason, detail: str) -> Rejected:
    return Rejected(reason=reason, detail=detail, subject=subject, credential_id=identifier)


def _owns(subject: str, groups: frozenset[str], agent: Agent) -> bool:
    """True when an owner of the agent (``user:``, ``workload:`` or ``group:``) means this principal."""
    return any(
        canonical(owner) == subject or (owner.startswith("group:") and owner[6:] in groups)
        for owner in agent.owners
    )
