"""From a JWT's verified claims to the names of our own: principal, agent, groups, workload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from callerid.config import Identities, Issuer
from callerid.identity.jwt import JwtClaims
from callerid.identity.names import glob_match, is_name, make_subject
from callerid.model import Reason, Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Whom a JWT names. ``groups`` holds only groups that identities.yaml declares."""

    subject: str
    agent: str | None
    actors: tuple[str, ...]
    groups: frozenset[str]


def name(claims: JwtClaims, issuer: Issuer, identities: Identities) -> Named | Rejected:
    """Map the claims by the issuer's entry; refuse a token whose claims are not the required ones."""
    for wanted, pattern in issuer.require_claims.items():
        if not _matches(claims.claims.get(wanted), pattern):
            return _no(claims, Reason.JWT_INVALID, f"the claim {wanted} is not as required")
    if issuer.assurance == "workload" or set(issuer.claims) & {"principal", "workload"} == {"workload"}:
        subject = _workload(claims, issuer, identities)
    else:
        mapped = claims.claims.get(issuer.claims.get("principal", "sub"))
        subject = make_subject("user", mapped) or _no(
            claims, Reason.JWT_INVALID, "the claim for the principal is missing or is not a name"
        )
    if isinstance(subject, Rejected):
        return subject
    agent = _agent(claims, issuer)
    if isinstance(agent, Rejected):
        return agent
    return Named(
        subject=subject, agent=agent, actors=claims.actors, groups=_groups(claims, issuer, identities)
    )


def _no(claims: JwtClaims, reason: Reason, detail: str) -> Rejected:
    return Rejected(reason=reason, detail=detail, subject=claims.subject, credential_id=claims.credential_id)


def _workload(claims: JwtClaims, issuer: Issuer, identities: Identities) -> str | Rejected:
    """The one workload whose every condition holds. No condition is no match; two matches are a refusal."""
    found = {
        workload.id
        for workload in identities.workloads
        if workload.issuer == issuer.id and workload.match and _all_match(workload.match, claims, issuer)
    }
    if not found:
        return _no(claims, Reason.WORKLOAD_UNKNOWN, "no workload of this issuer matches the claims")
    if len(found) > 1:
        return _no(
            claims, Reason.WORKLOAD_UNKNOWN, f"more than one workload matches: {', '.join(sorted(found))}"
        )
    return f"workload:{found.pop()}"


def _all_match(conditions: Mapping[str, str], claims: JwtClaims, issuer: Issuer) -> bool:
    return all(
        _matches(claims.claims.get(issuer.claims.get(wanted, wanted)), pattern)
        for wanted, pattern in conditions.items()
    )


def _matches(value: object, pattern: str) -> bool:
    """A claim against a text or glob: texts, whole numbers, and true or false by their JSON spelling."""
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, int):
        value = str(value)
    return isinstance(value, str) and glob_match(pattern, value)


def _agent(claims: JwtClaims, issuer: Issuer) -> str | Rejected | None:
    """The agent by the mapped claim; without one, the current actor of the ``act`` chain."""
    mapped = issuer.claims.get("agent")
    agent = claims.claims.get(mapped) if mapped is not None else None
    if agent is None:
        return claims.actors[0] if claims.actors else None
    if not isinstance(agent, str) or not is_name(agent):
        return _no(claims, Reason.JWT_INVALID, "the claim for the agent is not a name")
    return agent


def _groups(claims: JwtClaims, issuer: Issuer, identities: Identities) -> frozenset[str]:
    mapped = issuer.claims.get("groups")
    value = claims.claims.get(mapped) if mapped is not None else None
    members = value if isinstance(value, list) else [value]
    return frozenset(item for item in members if isinstance(item, str) and item in identities.groups)
