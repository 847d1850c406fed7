"""Evidence in, Caller out: DESIGN section 5.

Law 6: what is presented is verified, all of it. Pieces that disagree are a refusal, not a choice, and a
piece that is meant for us and fails refuses the request, however good another one is. Nothing in here
raises on hostile input; a registry that cannot be read raises StoreError, and the proxy's guarded door
makes a denial of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from callerid.config import Agent, Identities
from callerid.identity import carriers
from callerid.identity.client_cas import LoadedCA
from callerid.identity.dpop import Proofs
from callerid.identity.evidence import Piece, Verifier, us
from callerid.identity.hops import Shown, read_certificates
from callerid.identity.jwks import JwksStore
from callerid.identity.jwt import peek_claims
from callerid.identity.names import SUBJECT_KINDS, canonical
from callerid.identity.origins import kept_of
from callerid.identity.presented import Presented as Presented
from callerid.identity.registry import Registry
from callerid.model import Caller, Carrier, Ceiling, Evidence, EvidenceKind, Reason, Rejected

REMEMBER_US = 5_000_000
"""How long a verified caller is believed without verifying again."""
REMEMBERED = 4096


class Authority:
    """Who may call, under one set of identities. Made anew when identities.yaml or a CA file changes.

    Used by one thread, that of the registry; the keys in ``jwks`` may be refreshed by another.
    ``proofs`` are those of the authority before this one; ``resources`` the URLs of the listed servers.
    """

    def __init__(
        self,
        identities: Identities,
        registry: Registry,
        jwks: JwksStore,
        cas: tuple[LoadedCA, ...],
        *,
        proofs: Proofs | None = None,
        resources: Collection[str] = (),
    ) -> None:
        self._registry = registry
        self._jwks = jwks
        self._issuers = tuple(issuer.id for issuer in identities.issuers)
        self._list_ends = tuple(crl.ends for ca in cas for crl in ca.crls or ())
        self.proofs = proofs if proofs is not None else Proofs()
        self._verifier = Verifier(identities, registry, jwks, cas, self.proofs)
        self._hops = {canonical(hop.subject): hop for hop in identities.trusted_hops}
        self._resources = tuple(resources)
        self._certificates_required = identities.require_proxy_certificate
        self._agents = identities.agents
        self._blocked = frozenset(map(canonical, identities.blocked))
        self._recent: dict[bytes, tuple[tuple[int, int, int], int, int, Caller]] = {}
        self._groups: dict[str, frozenset[str]] = {}
        for group, members in identities.groups.items():
            for member in map(canonical, members):
                self._groups[member] = self._groups.get(member, frozenset()) | {group}

    def identify(self, presented: Presented, *, now: datetime) -> Caller | Rejected:
        """The caller behind a request, or why there is none.

        A caller that was verified is remembered for ``REMEMBER_US``, by a digest of exactly what was
        presented, and only as long as the registry has seen no revocation and no block, the issuers' keys
        are the same, and no list became too old (law 10). One who sends a DPoP proof is not: it is good for
        one request.

        Raises:
            StoreError: the registry cannot be read; the request must be refused.
        """
        stamp = self._registry.generation(), self._jwks.version, self.lapsed(now)
        time_us, key = us(now), presented.digest()
        held = self._recent.get(key)
        if held is not None and held[0] == stamp and held[1] <= time_us < held[2]:
            caller: Caller | Rejected = held[3]
        else:
            caller = self._identify(presented, now)
            if isinstance(caller, Caller) and not presented.dpop:
                self._remember(key, stamp, time_us, caller)
        if isinstance(caller, Caller):
            for evidence in caller.evidence:
                if evidence.kind is EvidenceKind.SCOPED_TOKEN:
                    self._registry.touch(evidence.credential_id, time_us, presented.client_ip)
        return caller

    def lapsed(self, now: datetime) -> int:
        """Which revocation lists and which issuers' keys are too old at ``now``: a bit for each.

        Another number than before means that whoever was verified by them must be verified again.
        """
        found = 0
        for ends in self._list_ends:
            found = found << 1 | (now >= ends)
        for issuer in self._issuers:
            found = found << 1 | (self._jwks.keys(issuer, now) is None)
        return found

    def _remember(self, key: bytes, stamp: tuple[int, int, int], time_us: int, caller: Caller) -> None:
        expires = time_us + REMEMBER_US
        if caller.expires_us is not None:
            expires = min(expires, caller.expires_us)
        if len(self._recent) >= REMEMBERED:
            self._recent.clear()
        self._recent[key] = (stamp, time_us, expires, caller)

    def _identify(self, presented: Presented, now: datetime) -> Caller | Rejected:
        for carrier, values in (*presented.at_connect(), *presented.headers()):
            if len(values) > 1:
                return Rejected(
                    reason=Reason.EVIDENCE_AMBIGUOUS, detail=f"{carrier.value} is there {len(values)} times"
                )
        shown = read_certificates(presented, self._verifier, self._hops, now)
        if isinstance(shown, Rejected):
            return shown
        found = self._identify_shown(presented, shown, now)
        return replace(found, via=shown.via) if isinstance(found, Rejected) else found

    def _identify_shown(self, presented: Presented, shown: Shown, now: datetime) -> Caller | Rejected:
        pieces = list(shown.pieces)
        for found in self._carried(presented, shown, now):
            if isinstance(found, Rejected):
                return found
            pieces.append(found)
        for piece in shown.hops:
            refusal = self._blocked_piece(piece)
            if refusal is not None:
                return refusal
        if not pieces:
            return _nobody(bool(presented.authorization), shown)
        return self._agree(pieces, shown)

    def uncertified(self, presented: Presented, *, now: datetime) -> Rejected | None:
        """Why nobody is served on this connection: a client certificate is required there, and not shown.

        One that was shown and is not good, or is somebody's who is blocked, has its own reason. None where
        it is good, or where none is required.

        Raises:
            StoreError: the registry cannot be read; the request must be refused.
        """
        if not self._certificates_required:
            return None
        carrier = Carrier.INNER_TLS if presented.reverse else Carrier.PROXY_TLS
        found = self._verifier.chain(presented.door_chain(), carrier, now)
        if found is None:
            return Rejected(
                reason=Reason.CERTIFICATE_REQUIRED,
                detail="nobody is served here without a client certificate on the connection to the proxy",
            )
        if isinstance(found, Rejected):
            return found
        refusal = self._blocked_piece(found)
        return refusal and self._attributed(refusal, [found], Shown())

    def refuses_agent(self, caller: Caller, agent: str | None, actors: tuple[str, ...]) -> Rejected | None:
        """Why ``caller`` may not act through ``agent`` and this chain of agents; None if it may.

        Raises:
            StoreError: the registry cannot be read.
        """
        subject = caller.principal.subject
        found = self._agent_ceilings(subject, caller.groups, agent, actors, caller.credential_id)
        if isinstance(found, Rejected):
            return found
        return self._blocked_among([subject], agent, actors, caller.evidence)

    def claimed_groups(self, caller: Caller) -> frozenset[str]:
        """The groups of ``caller`` that its evidence named, and identities.yaml does not put it into."""
        return caller.groups - self._groups.get(caller.principal.subject, frozenset())

    def is_ours(self, header_value: str) -> bool:
        """True when a header value carries evidence for us, good or not: it never leaves (law 5). Total."""
        return carriers.is_ours(header_value, self._verifier.issuers, self._resources)

    def jwt_of(self, presented: Presented, caller: Caller) -> str | None:
        """The JWT that was verified as evidence of ``caller``, for an exchange in that person's name."""
        return next(self._texts(presented, caller, carriers.Form.JWT, EvidenceKind.JWT), None)

    def jwts_kept(self, presented: Presented, caller: Caller) -> tuple[str, ...]:
        """What a token that is derived from the caller's JWTs keeps of them (``TokenRow.jwts``)."""
        issuers = self._verifier.issuers
        kept = []
        for text in self._texts(presented, caller, carriers.Form.JWT, EvidenceKind.JWT):
            claims = peek_claims(text) or {}
            kept.append(kept_of(text, issuers[claims["iss"]]))
        return tuple(dict.fromkeys(kept))

    def tokens_of(self, presented: Presented, caller: Caller) -> tuple[str, ...]:
        """The scoped tokens that were verified as evidence of ``caller``."""
        return tuple(self._texts(presented, caller, carriers.Form.TOKEN, EvidenceKind.SCOPED_TOKEN))

    def _texts(
        self, presented: Presented, caller: Caller, form: carriers.Form, kind: EvidenceKind
    ) -> Iterator[str]:
        """What this very caller showed: where a hop wrote the request, nothing of the hop's own tunnel."""
        counted = {evidence.carrier for evidence in caller.evidence if evidence.kind is kind}
        at_connect = () if caller.spoken_for else presented.at_connect()
        for carrier, values in (*presented.headers(), *at_connect):
            for value in values if carrier in counted else ():
                found = carriers.read(value, carrier, self._verifier.issuers)
                if found.form is form:
                    yield found.text

    def _carried(self, presented: Presented, shown: Shown, now: datetime) -> Iterator[Piece | Rejected]:
        """One answer per header value that is for us, in a fixed order.

        Where a hop speaks for many, a credential of its connection is good for nobody among them: only what
        names the hop itself may stand there.
        """
        for carrier, values in presented.at_connect():
            for value in values:
                found = self._verifier.header(value, carrier, now, presented, shown.leaves)
                if found is None:
                    continue
                if shown.speaker is None or isinstance(found, Rejected):
                    yield found
                elif found.principal.subject not in self._hops:
                    detail = (
                        f"behind hop {shown.speaker.id} a credential goes with each request, not at CONNECT"
                    )
                    yield Rejected(reason=Reason.EVIDENCE_AMBIGUOUS, detail=detail)
        for carrier, values in presented.headers():
            for value in values:
                found = self._verifier.header(value, carrier, now, presented, shown.leaves)
                if found is not None:
                    yield found

    def _blocked_piece(self, piece: Piece) -> Rejected | None:
        return self._blocked_among([piece.principal.subject], piece.agent, piece.actors, [piece.evidence])

    def _agree(self, pieces: list[Piece], shown: Shown) -> Caller | Rejected:
        """One caller out of all pieces, or the refusal that they add up to."""
        subjects = sorted({piece.principal.subject for piece in pieces})
        agents = {piece.agent for piece in pieces if piece.agent is not None}
        chains = {piece.actors for piece in pieces if piece.actors}
        agree = len(subjects) == 1 and len(agents) <= 1 and len(chains) <= 1
        for piece in pieces:
            refusal = self._blocked_piece(piece)
            if refusal is not None:
                return self._attributed(refusal, pieces, shown) if agree else refusal
        if not agree:
            names = ", ".join(subjects if len(subjects) > 1 else sorted(agents))
            return Rejected(
                reason=Reason.IDENTITY_CONFLICT, detail=f"the pieces of evidence disagree: {names}"
            )
        caller = self._one(pieces, shown)
        subject, credential = caller.principal.subject, caller.credential_id
        ceilings = self._agent_ceilings(subject, caller.groups, caller.agent, caller.actors, credential)
        if isinstance(ceilings, Rejected):
            return replace(ceilings, known=caller)
        for piece in pieces:
            ceilings += piece.ceilings
        return replace(caller, ceilings=tuple(dict.fromkeys(ceilings)))

    def _one(self, pieces: list[Piece], shown: Shown) -> Caller:
        """Whom the pieces agree on; its ceilings are not looked up."""
        best = max(pieces, key=lambda piece: piece.assurance)  # the first of equals
        subject = best.principal.subject
        return Caller(
            principal=best.principal,
            agent=next((piece.agent for piece in pieces if piece.agent is not None), None),
            actors=next((piece.actors for piece in pieces if piece.actors), ()),
            evidence=tuple(piece.evidence for piece in pieces),
            assurance=best.assurance,
            assurance_name=best.assurance_name,
            credential_id=best.evidence.credential_id,
            groups=self._groups.get(subject, frozenset()).union(*(piece.groups for piece in pieces)),
            expires_us=min(piece.expires_us for piece in (*pieces, *shown.hops)),
            via=shown.via,
            spoken_for=shown.speaker is not None,
        )

    def _attributed(self, refusal: Rejected, pieces: list[Piece], shown: Shown) -> Rejected:
        """The refusal under the caller's name, but for a credential that is blocked: a thief may have it."""
        shown_ids = [piece.evidence.credential_id for piece in pieces]
        if not self._blocked.isdisjoint(shown_ids) or self._registry.first_blocked(shown_ids) is not None:
            return refusal
        return replace(refusal, known=self._one(pieces, shown))

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


def _nobody(foreign: bool, shown: Shown) -> Rejected:
    if foreign:
        return Rejected(
            reason=Reason.EVIDENCE_UNRECOGNISED, detail="nobody here can verify what Authorization holds"
        )
    detail = "nothing in the request says who is calling"
    if shown.via is not None:
        detail = f"hop {shown.via} does not say who is calling, and is not the caller itself"
    return Rejected(reason=Reason.NO_EVIDENCE, detail=detail)


def _about(subject: str, identifier: str, reason: Reason, detail: str) -> Rejected:
    return Rejected(reason=reason, detail=detail, subject=subject, credential_id=identifier)


def _owns(subject: str, groups: frozenset[str], agent: Agent) -> bool:
    """True when an owner of the agent (``user:``, ``workload:`` or ``group:``) means this principal."""
    return any(
        canonical(owner) == subject or (owner.startswith("group:") and owner[6:] in groups)
        for owner in agent.owners
    )
