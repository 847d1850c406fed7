"""``POST /derive``: what is asked for, who may have it, and the entry that makes it (DESIGN section 5).

A child is never more than its parent. The holder of a token gets a child of that token. Somebody with a JWT
or a certificate gets a token that is bound to that evidence: it ends when that ends, after twelve hours at
the latest, and is refused as soon as that is blocked, revoked, or no longer accepted.
"""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from callerid.errors import StoreError
from callerid.identity.names import is_name, is_selector
from callerid.identity.narrowing import Scope, actors_below
from callerid.identity.networks import parse_network
from callerid.identity.registry import Registry
from callerid.identity.rows import TokenRow
from callerid.identity.spans import seconds_of, span_of
from callerid.identity.tokens import contains_token, digest, token_id
from callerid.model import Caller, Carrier, Evidence, EvidenceKind, Reason, Rejected
from callerid.proxy.clerk import Clerk, Crowded
from callerid.proxy.facts import Facts
from callerid.proxy.rooms import Rooms

PER_MINUTE = 60
"""Derived tokens that one principal may ask for in a minute."""
FROM_EVIDENCE = 12 * 3600
"""Seconds that a token derived from a JWT or a certificate is good at the most."""
USUAL = 15 * 60
"""Seconds that a derived token is good if nothing else is asked for, or less where its parent ends sooner."""

KEPT_US = 30 * 86_400 * 1_000_000
"""How long a derived token that is dead stays in the registry, in microseconds."""
TIDY_US = 3_600 * 1_000_000
"""How often the registry is tidied, at most: when a token is derived, for else it does not grow."""
TIDIED = 10_000
"""Tokens that are forgotten at once, at most."""

_MOST = 64
_PEOPLE = 10_000
_MEMBERS = frozenset({"agent", "ttl", "servers", "tools", "networks"})
_IS = {"servers": is_name, "tools": is_selector, "networks": is_name}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing was derived. ``detail`` is told; ``why``, if there is one, stands in the row instead."""

    reason: Reason
    detail: str
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A token that is asked for. ``seconds`` None leaves its life to us."""

    scope: Scope
    seconds: int | None

    def plain(self) -> dict[str, Any]:
        """As it was asked, for the row."""
        scope = self.scope
        lists = {"servers": scope.servers, "tools": scope.tools, "networks": scope.networks}
        return {
            **({} if scope.agent is None else {"agent": scope.agent}),
            **({} if self.seconds is None else {"ttl": span_of(self.seconds)}),
            **{name: list(value) for name, value in lists.items() if value is not None},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A derived token: ``body`` is the answer with the token in it, ``detail`` is for the row, without."""

    id: str
    body: Mapping[str, Any]
    detail: str


def read_ask(value: object) -> Ask | Refusal:
    """The JSON of a request as an Ask. Total; a member that is not known is a refusal, not a guess."""
    if not isinstance(value, dict):
        return _malformed("the body is not a JSON object")
    if any(contains_token(text.encode("utf-8", "surrogatepass")) for text in _texts(value)):
        return Refusal(Reason.TOKEN_IN_REQUEST, "a token belongs into the header that says who you are only")
    strange = sorted(set(value) - _MEMBERS)
    if strange:
        return _malformed(f"there is no member like that; known are {', '.join(sorted(_MEMBERS))}")
    agent, ttl = value.get("agent"), value.get("ttl")
    if agent is not None and not is_name(agent):
        return _malformed("agent is not a name")
    seconds = seconds_of(ttl) if isinstance(ttl, str) else None
    if ttl is not None and not seconds:
        return _malformed("ttl is not a time: write a number and s, m, h or d, as in 15m")
    lists: dict[str, tuple[str, ...] | None] = {}
    for name in ("servers", "tools", "networks"):
        found = value.get(name)
        if found is None:
            lists[name] = None
        elif isinstance(found, list) and 0 < len(found) <= _MOST and all(map(_IS[name], found)):
            lists[name] = tuple(found)
        else:
            return _malformed(f"{name} is not a list of 1 to {_MOST} names")
    try:
        networks = lists["networks"]
        lists["networks"] = None if networks is None else tuple(str(parse_network(one)) for one in networks)
    except ValueError:
        return _malformed("networks holds something that is no network: write 10.20.0.0/16")
    return Ask(scope=Scope(agent=agent, **lists), seconds=seconds)


def _texts(value: object) -> Iterator[str]:
    """Every text in a JSON value, names of members too, as decoded."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict):
        yield from value
        for one in value.values():
            yield from _texts(one)


class Derivation:
    """Makes derived tokens, not too many for one principal. For one event loop."""

    def __init__(self, clerk: Clerk, new_token: Callable[[], str]) -> None:
        self._clerk = clerk
        self._new_token = new_token
        self._asked: dict[str, deque[int]] = {}
        self._tidied_us = 0

    async def make(self, ask: Ask, facts: Facts, rooms: Rooms, caller: Caller) -> Made | Refusal:
        """Enter the token that ``caller`` asks for, if it may have it.

        Raises:
            ConfigError: it would be more than what it is derived from, or that is not good any more.
            StoreError: the registry cannot be written.
        """
        subject, now_us = caller.principal.subject, facts.time_us
        if self._is_too_often(subject, now_us):
            return _no(f"not more than {PER_MINUTE} tokens are derived in a minute; wait a little")
        longest = rooms.rules.identities.token_max_ttl
        if ask.seconds is not None and ask.seconds > longest:
            return _no(f"no token is good for more than {span_of(longest)} here")
        parents = {e.credential_id for e in caller.evidence if e.kind is EvidenceKind.SCOPED_TOKEN}
        if len(parents) > 1:
            return _no("two tokens were presented: derive from one of them")
        actors = actors_below(caller.agent, caller.actors, ask.scope.agent)
        agent = ask.scope.agent if ask.scope.agent is not None else caller.agent
        refused = rooms.authority.refuses_agent(caller, agent, actors)
        if isinstance(refused, Rejected):
            return _no(f"agent {agent} may not act here for you", refused.detail)
        token = self._new_token()
        if parents:
            expires_us = _ends(ask.seconds, now_us, caller.expires_us)
            parent = parents.pop()

            def child(registry: Registry) -> TokenRow:
                return registry.derive(
                    parent,
                    ask.scope,
                    token_digest=digest(token),
                    created_us=now_us,
                    expires_us=expires_us,
                    created_by=subject,
                    acting=caller.agent,
                    actors=caller.actors,
                )

            return _made(token, await self._entered(child, token, now_us))
        row = _from_evidence(ask, facts, rooms, caller, actors)
        if isinstance(row, Refusal):
            return row
        entered = row

        def bound(registry: Registry) -> TokenRow:
            return registry.derive_from_evidence(entered, token_digest=digest(token))

        return _made(token, await self._entered(bound, token, now_us))

    def take_back(self, identifier: str, now_us: int) -> None:
        """Revoke a token that nobody got to see, as far as it can be done."""

        def revoke(registry: Registry) -> int:
            return registry.revoke(identifier, now_us=now_us, by="callerid", why="it was never given out")

        self._clerk.send(revoke)

    async def _entered(self, work: Callable[[Registry], TokenRow], token: str, now_us: int) -> TokenRow:
        try:
            row = await self._clerk.do(work)
        except Crowded:
            raise
        except StoreError:
            self.take_back(token_id(digest(token)), now_us)  # it may be entered yet, when nobody waits for it
            raise
        if not 0 <= now_us - self._tidied_us < TIDY_US:
            self._tidied_us = now_us
            before_us = now_us - KEPT_US
            self._clerk.send(lambda registry: registry.forget_derived(before_us=before_us, at_most=TIDIED))
        return row

    def _is_too_often(self, subject: str, now_us: int) -> bool:
        if subject not in self._asked and len(self._asked) >= _PEOPLE:
            self._asked.pop(next(iter(self._asked)))
        times = self._asked.setdefault(subject, deque(maxlen=PER_MINUTE))
        # A clock that was put back must not lock anybody out: times from its future do not count.
        recent = sum(now_us - 60_000_000 < time <= now_us for time in times)
        if recent >= PER_MINUTE:
            return True
        times.append(now_us)
        return False


def _ends(seconds: int | None, now_us: int, limit_us: int | None) -> int:
    """When a token ends that is asked for ``seconds``; without a wish, as usual, and by ``limit_us``."""
    if seconds is not None:
        return now_us + seconds * 1_000_000
    usual = now_us + USUAL * 1_000_000
    return usual if limit_us is None else min(usual, limit_us)


def _from_evidence(
    ask: Ask, facts: Facts, rooms: Rooms, caller: Caller, actors: tuple[str, ...]
) -> TokenRow | Refusal:
    """The row of a token that is bound to a JWT or a certificate."""
    now_us = facts.time_us
    if caller.via is not None or any(_is_forwarded(evidence) for evidence in caller.evidence):
        return _no("a hop spoke for you: derive with evidence of your own, on a connection of your own")
    if any(evidence.bound for evidence in caller.evidence):
        return _no("your JWT is bound to a key or a certificate, and what is derived would not be")
    limit = now_us + FROM_EVIDENCE * 1_000_000
    limit = limit if caller.expires_us is None else min(limit, caller.expires_us)
    expires_us = _ends(ask.seconds, now_us, limit)
    if expires_us > limit:
        until = datetime.fromtimestamp(limit // 1_000_000, UTC).isoformat()
        return _no(f"what it is derived from is good until {until} at most: ask for less")
    chains = [
        chain
        for carrier, chain in (
            (Carrier.PROXY_TLS, facts.presented.proxy_chain),
            (Carrier.INNER_TLS, facts.presented.inner_chain),
        )
        if any(e.kind is EvidenceKind.CLIENT_CERT and e.carrier is carrier for e in caller.evidence)
    ]
    if len(set(chains)) > 1:
        return _no("two certificates were presented: derive with one of them")
    return TokenRow(
        id="",
        principal=caller.principal.subject,
        agent=ask.scope.agent if ask.scope.agent is not None else caller.agent,
        parent=None,
        servers=ask.scope.servers,
        tools=ask.scope.tools,
        created_us=now_us,
        created_by=caller.principal.subject,
        expires_us=expires_us,
        networks=ask.scope.networks,
        actors=actors,
        in_groups=tuple(sorted(rooms.authority.claimed_groups(caller))),
        origin=tuple(dict.fromkeys(evidence.credential_id for evidence in caller.evidence)),
        jwts=rooms.authority.jwts_kept(facts.presented, caller),
        chain=tuple(b64encode(one).decode("ascii") for one in chains[0]) if chains else (),
    )


def _is_forwarded(evidence: Evidence) -> bool:
    return evidence.carrier in (Carrier.FORWARDED_CLIENT_CERT, Carrier.CLIENT_CERT_HEADER)


def _made(token: str, row: TokenRow) -> Made:
    expires = datetime.fromtimestamp(row.expires_us // 1_000_000, UTC).isoformat()
    scope = {"servers": row.servers, "tools": row.tools, "networks": row.networks}
    body = {
        "token": token,
        "id": row.id,
        "expires": expires,
        "principal": row.principal,
        "agent": row.agent,
        "actors": list(row.actors),
        "parent": row.parent,
        **{name: None if value is None else list(value) for name, value in scope.items()},
    }
    source = row.parent if row.parent is not None else ", ".join(row.origin)
    return Made(id=row.id, body=body, detail=f"{row.id} derived from {source}, until {expires}")


def _no(detail: str, why: str | None = None) -> Refusal:
    return Refusal(Reason.DERIVE_REFUSED, detail, why)


def _malformed(detail: str) -> Refusal:
    return Refusal(Reason.MALFORMED_MESSAGE, detail)
