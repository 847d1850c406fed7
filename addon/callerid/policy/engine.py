"""The Policy Decision Point: immutable, order-free, default deny, total.

Grants need certainty, guards need only doubt. The cost of a decision does not grow with the rules that
cannot match: rules are found by who is calling and where to, then by name, and both answers are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

from callerid.config import Server
from callerid.model import Caller, Ceiling, Decision, Kind, Reason, Verdict
from callerid.policy.conditions import UNREAD
from callerid.policy.explain import CeilingSay, Explanation, tell
from callerid.policy.identities import canonical_subject
from callerid.policy.rules import Call, Effect, Rule, Weight, agents_of
from callerid.policy.selectors import BadSelector, Tools, compile_tools, subject_of

NO_GRANT = "no_grant"
"""What ``would_rule`` says when monitor mode let a call pass that no rule grants."""

_REACHES = 4_096
_CANDIDATES = 16_384
_CEILINGS = 4_096
_CACHED_NAME = 256


@dataclass(frozen=True, slots=True)
class Candidates:
    """The rules whose scope covers a call, by effect, in file order."""

    denies: tuple[Rule, ...]
    requires: tuple[Rule, ...]
    allows: tuple[Rule, ...]


def _call(caller: Caller, kind: Kind, arguments: Mapping[str, Any], now: datetime) -> Call:
    """What predicates see. A body that we have not read is unknown, however optional what is asked of it."""
    if kind is Kind.HTTP and "body" not in arguments:
        arguments = {**arguments, "body": UNREAD}
    return Call(caller, arguments, now)


class _Index:
    """Which rules are about whom, without asking each rule."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.everyone: list[int] = []
        self.by_name: dict[tuple[str, str], list[int]] = {}
        for rule in rules:
            if rule.who is None or rule.who.anyone:
                self.everyone.append(rule.index)
                continue
            names = [("subject", name) for name in rule.who.subjects]
            names += [("group", name) for name in rule.who.groups]
            names += [("agent", name) for name in rule.who.agents]
            for name in names:
                self.by_name.setdefault(name, []).append(rule.index)

    def about(self, subject: str, groups: frozenset[str], agents: tuple[str, ...]) -> list[int]:
        """Indices of the rules about this caller, in file order."""
        found = set(self.everyone)
        found.update(self.by_name.get(("subject", subject), ()))
        for group in groups:
            found.update(self.by_name.get(("group", group), ()))
        for agent in agents:
            found.update(self.by_name.get(("agent", agent), ()))
        return sorted(found)


class Engine:
    """One loaded policy. Never changes; a reload makes another one.

    Args:
        rules: compiled rules in file order.
        sets: the file's named selector lists; the ceilings of tokens may use them.
        servers: ids of the governed servers.
        mode: the file's ``mode``.
        hash: names this policy in every decision.
    """

    def __init__(
        self,
        *,
        rules: tuple[Rule, ...],
        sets: Mapping[str, tuple[str, ...]],
        servers: Iterable[str],
        mode: Literal["enforce", "monitor"],
        hash: str,
    ) -> None:
        self.rules = rules
        self.sets: Mapping[str, tuple[str, ...]] = MappingProxyType(dict(sets))
        self.hash = hash
        self._servers = frozenset(servers)
        self._monitor = mode == "monitor"
        self._index = _Index(rules)
        self._reach: Callable[..., tuple[Rule, ...]] = lru_cache(_REACHES)(self._find_reach)
        self._named: Callable[..., Candidates] = lru_cache(_CANDIDATES)(self._find_named)
        self._ceiling: Callable[..., Tools | None] = lru_cache(_CEILINGS)(self._compile_ceiling)

    def decide(
        self,
        *,
        caller: Caller,
        server: Server,
        kind: Kind,
        method: str,
        name: str | None,
        arguments: Mapping[str, Any],
        now: datetime,
    ) -> Decision:
        """Decide one message. Total: whatever goes wrong inside is a refusal with INTERNAL_ERROR.

        ``now`` is aware. ``name`` is the tool, prompt or resource URI, for Kind.HTTP ``GET /v1/x``; for
        Kind.METHOD the method counts.
        """
        try:
            call = _call(caller, kind, arguments, now)
            if kind is Kind.PROTOCOL:
                return self._protocol(call, server)
            target = subject_of(kind, method, name)
            decision = self._judge(server, kind, target, call, call)
            if decision.verdict is Verdict.ALLOW:
                return decision
            hidden = self._judge(server, kind, target, None, call).verdict is not Verdict.ALLOW
            return replace(decision, hidden=hidden)
        except Exception:
            return Decision(
                verdict=Verdict.ERROR, reason=Reason.INTERNAL_ERROR, policy=self.hash, hidden=True
            )

    def visible(self, *, caller: Caller, server: Server, kind: Kind, name: str, now: datetime) -> bool:
        """Whether some arguments could be allowed: what a list may show. Total; False on any fault.

        Conditions on arguments are taken in the caller's favour, everything else is evaluated. So what is
        not visible is refused for all arguments.
        """
        try:
            target = subject_of(kind, name, name)
            decision = self._judge(server, kind, target, None, Call(caller, {}, now))
            return decision.verdict is Verdict.ALLOW
        except Exception:
            return False

    def explain(
        self,
        *,
        caller: Caller,
        server: Server,
        kind: Kind,
        method: str,
        name: str | None,
        arguments: Mapping[str, Any],
        now: datetime,
    ) -> Explanation:
        """What every rule says about one message, and which of them decides."""
        decision = self.decide(
            caller=caller, server=server, kind=kind, method=method, name=name, arguments=arguments, now=now
        )
        target = None if kind is Kind.PROTOCOL else subject_of(kind, method, name)
        ceilings = tuple(
            CeilingSay(origin=ceiling.origin, covers=self.covered(ceiling, server, kind, target))
            for ceiling in caller.ceilings
        )
        call = _call(caller, kind, arguments, now)
        return tell(self.rules, decision, ceilings, call, server.id, kind, target)

    def candidates(self, caller: Caller, server: Server, kind: Kind, target: str) -> Candidates:
        """The rules whose scope covers the call."""
        who = (caller.groups, canonical_subject(caller.principal.subject), agents_of(caller))
        if len(target) > _CACHED_NAME:
            return self._find_named(*who, server.id, kind, target)
        return self._named(*who, server.id, kind, target)

    def covered(self, ceiling: Ceiling, server: Server, kind: Kind, target: str | None) -> bool:
        """Whether a ceiling leaves the call inside. ``target`` None asks about the server only."""
        if ceiling.servers is not None and server.id not in ceiling.servers:
            return False
        if target is None or ceiling.tools is None:
            return True
        tools = self._ceiling(tuple(ceiling.tools))
        return tools is not None and tools.covers(kind, target) is True

    def _judge(
        self, server: Server, kind: Kind, target: str | None, call: Call | None, favoured: Call
    ) -> Decision:
        """The decision for ``call``; with None, for the arguments that would suit the caller best."""
        caller = favoured.caller
        if server.id not in self._servers:
            return self._no(Reason.UNKNOWN_SERVER)
        if target is None or type(kind) is not Kind:
            return self._no(Reason.NO_GRANT)
        if not all(self.covered(ceiling, server, kind, target) for ceiling in caller.ceilings):
            return self._no(Reason.OUTSIDE_SCOPE)
        found = self.candidates(caller, server, kind, target)

        def first(rules: tuple[Rule, ...], weight: Weight, other: Weight | None = None) -> Rule | None:
            for rule in rules:
                wanted = rule.weight is weight or rule.weight is other
                if wanted and rule.strikes(rule.holds(call, favoured)):
                    return rule
            return None

        guards = ((found.denies, Reason.RULE_DENIED), (found.requires, Reason.REQUIREMENT_FAILED))
        for rules, reason in guards:
            guard = first(rules, Weight.FIRM)
            if guard is not None:
                return self._no(reason, guard)
        grant = first(found.allows, Weight.FIRM, Weight.SOFT)
        soft = first(found.denies, Weight.SOFT) or first(found.requires, Weight.SOFT)
        if soft is not None:
            return self._monitored(grant, soft.id)
        if grant is None:
            if self._monitor:
                return self._monitored(None, NO_GRANT)
            trial = first(found.allows, Weight.TRIAL)
            return self._no(Reason.NO_GRANT, would=trial)
        trial = first(found.denies, Weight.TRIAL) or first(found.requires, Weight.TRIAL)
        if trial is not None:
            return self._monitored(grant, trial.id)
        return Decision(verdict=Verdict.ALLOW, reason=Reason.GRANTED, policy=self.hash, rule=grant.id)

    def _protocol(self, call: Call, server: Server) -> Decision:
        """Messages that act on nothing: for whoever has something to do on this server."""
        caller = call.caller
        if server.id not in self._servers:
            return self._no(Reason.UNKNOWN_SERVER)
        if not all(self.covered(ceiling, server, Kind.PROTOCOL, None) for ceiling in caller.ceilings):
            return self._no(Reason.OUTSIDE_SCOPE)
        subject = canonical_subject(caller.principal.subject)
        reach = self._reach(caller.groups, subject, agents_of(caller), server.id)
        denies = [rule for rule in reach if rule.effect is Effect.DENY and rule.scope_only]
        firm = next((rule for rule in denies if rule.weight is Weight.FIRM), None)
        if firm is not None:
            return self._no(Reason.NO_GRANT, firm)
        soft = next((rule for rule in denies if rule.weight is Weight.SOFT), None)
        granted = any(rule.effect is Effect.ALLOW and rule.weight is not Weight.TRIAL for rule in reach)
        if soft is not None:
            return self._monitored(None, soft.id)
        if not granted:
            return self._monitored(None, NO_GRANT) if self._monitor else self._no(Reason.NO_GRANT)
        trial = next((rule for rule in denies if rule.weight is Weight.TRIAL), None)
        if trial is not None:
            return self._monitored(None, trial.id)
        return Decision(verdict=Verdict.ALLOW, reason=Reason.PROTOCOL, policy=self.hash)

    def _find_reach(
        self, groups: frozenset[str], subject: str, agents: tuple[str, ...], server: str
    ) -> tuple[Rule, ...]:
        about = (self.rules[index] for index in self._index.about(subject, groups, agents))
        return tuple(rule for rule in about if rule.servers is None or server in rule.servers)

    def _find_named(
        self,
        groups: frozenset[str],
        subject: str,
        agents: tuple[str, ...],
        server: str,
        kind: Kind,
        target: str,
    ) -> Candidates:
        reach = self._reach(groups, subject, agents, server)
        rules = [rule for rule in reach if rule.in_tools(kind, target)]
        return Candidates(
            tuple(rule for rule in rules if rule.effect is Effect.DENY),
            tuple(rule for rule in rules if rule.effect is Effect.REQUIRE),
            tuple(rule for rule in rules if rule.effect is Effect.ALLOW),
        )

    def _compile_ceiling(self, selectors: tuple[str, ...]) -> Tools | None:
        """A ceiling's tools; a selector that we do not understand leaves nothing inside."""
        good = []
        for selector in selectors:
            try:
                compile_tools([selector], self.sets)
            except BadSelector:
                continue
            good.append(selector)
        return compile_tools(good, self.sets) if good else None

    def _no(self, reason: Reason, rule: Rule | None = None, *, would: Rule | None = None) -> Decision:
        return Decision(
            verdict=Verdict.DENY,
            reason=reason,
            policy=self.hash,
            rule=None if rule is None else rule.id,
            would_rule=None if would is None else would.id,
            say=None if rule is None else rule.say,
        )

    def _monitored(self, grant: Rule | None, would: str) -> Decision:
        return Decision(
            verdict=Verdict.ALLOW,
            reason=Reason.MONITORED,
            policy=self.hash,
            rule=None if grant is None else grant.id,
            would_rule=would,
        )
