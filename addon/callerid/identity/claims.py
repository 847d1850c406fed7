"""From a JWT's verified claims to the names of our own: principal, agent, groups, workload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from callerid.config import Identities, Issuer
from callerid.identity.jwt import JwtClaims
from callerid.identity.names import glob_match, is_name, make_subject
from callerid.model import Reason, Rejected

_CLIENTS = ("azp", "client_id")
_INDEXES = frozenset(map(str, range(100)))


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
        if not _matches(look_up(claims.claims, wanted), pattern):
            return _no(claims, Reason.JWT_INVALID, f"the claim {wanted} is not as required")
    if not _is_client(claims, issuer):
        return _no(claims, Reason.JWT_INVALID, "the token was made for none of the issuer's clients")
    if issuer.assurance == "workload" or set(issuer.claims) & {"principal", "workload"} == {"workload"}:
        subject = _workload(claims, issuer, identities)
    else:
        mapped = look_up(claims.claims, issuer.claims.get("principal", "sub"))
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


def look_up(claims: Mapping[str, Any], where: str) -> object:
    """The claim of that name or, where it begins with a slash, at that JSON pointer (RFC 6901); else None."""
    if not where.startswith("/"):
        return claims.get(where)
    value: object = claims
    for part in where.split("/")[1:]:
        step = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step in _INDEXES and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def clients_of(claims: Mapping[str, Any]) -> tuple[Any, ...]:
    """Which clients the claims say that a token was made for."""
    return tuple(claims[name] for name in _CLIENTS if name in claims)


def _is_client(claims: JwtClaims, issuer: Issuer) -> bool:
    """Whether the token says which client it was made for, and that this is one of those accepted."""
    if not issuer.clients:
        return True
    named = clients_of(claims.claims)
    return bool(named) and all(isinstance(client, str) and client in issuer.clients for client in named)


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
        _matches(look_up(claims.claims, issuer.claims.get(wanted, wanted)), pattern)
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
    agent = look_up(claims.claims, mapped) if mapped is not None else None
    if agent is None:
        return claims.actors[0] if claims.actors else None
    if not isinstance(agent, str) or not is_name(agent):
        return _no(claims, Reason.JWT_INVALID, "the claim for the agent is not a name")
    return agent


def _groups(claims: JwtClaims, issuer: Issuer, identities: Identities) -> frozenset[str]:
    mapped = issuer.claims.get("groups")
    value = look_up(claims.claims, mapped) if mapped is not None else None
    members = value if isinstance(value, list) else [value]
    return frozenset(item for item in members if isinstance(item, str) and item in identities.groups)
