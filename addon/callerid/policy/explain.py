"""Every rule's say about one message: whether its scope covers it, each predicate, and who decides.

Values of arguments never appear, only their JSON types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from callerid.model import Decision, Kind, Verdict
from callerid.policy.identities import canonical_subject
from callerid.policy.patterns import Tri
from callerid.policy.rules import Call, Effect, Rule, Weight, agents_of

type Answer = Literal["true", "false", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredicateSay:
    """One predicate's answer. ``seen`` is the JSON type of the argument, or what the predicate looked at."""

    name: str
    answer: Answer
    seen: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSay:
    """One rule's answer. ``strikes``: an allow grants, a guard refuses; False outside its scope."""

    rule: str
    effect: str
    mode: str
    file: str
    line: int
    who: bool
    servers: bool
    tools: bool
    predicates: tuple[PredicateSay, ...]
    strikes: bool
    decides: bool

    @property
    def in_scope(self) -> bool:
        return self.who and self.servers and self.tools


@dataclass(frozen=True, slots=True, kw_only=True)
class CeilingSay:
    """Whether a ceiling of a token or an agent leaves the call inside."""

    origin: str
    covers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The decision and everybody's say, in file order. ``decider`` is the rule that made it, if one did."""

    decision: Decision
    rules: tuple[RuleSay, ...]
    ceilings: tuple[CeilingSay, ...]

    @property
    def decider(self) -> RuleSay | None:
        return next((say for say in self.rules if say.decides), None)


def tell(
    rules: tuple[Rule, ...],
    decision: Decision,
    ceilings: tuple[CeilingSay, ...],
    call: Call,
    server: str,
    kind: Kind,
    target: str | None,
) -> Explanation:
    """Collect every rule's say. ``target`` is None for a message that acts on nothing."""
    deciding = decision.rule
    if deciding is None and decision.verdict is Verdict.ALLOW:
        deciding = decision.would_rule
    return Explanation(
        decision=decision,
        rules=tuple(_say(rule, deciding, call, server, kind, target) for rule in rules),
        ceilings=ceilings,
    )


def _say(
    rule: Rule, deciding: str | None, call: Call, server: str, kind: Kind, target: str | None
) -> RuleSay:
    caller = call.caller
    subject = canonical_subject(caller.principal.subject)
    who = rule.who is None or rule.who.covers(subject, caller.groups, agents_of(caller))
    servers = rule.servers is None or server in rule.servers
    if target is None:
        tools = kind is Kind.PROTOCOL and (rule.effect is Effect.ALLOW or rule.scope_only)
    else:
        tools = rule.in_tools(kind, target)
    in_scope = who and servers and tools
    predicates: tuple[PredicateSay, ...] = ()
    strikes = in_scope
    if target is not None:
        guard = rule.effect is Effect.DENY
        predicates = tuple(
            PredicateSay(name=p.name, answer=_answer(p.holds(call, guard=guard)), seen=p.seen(call))
            for p in rule.predicates
        )
        strikes = in_scope and rule.strikes(rule.holds(call))
    return RuleSay(
        rule=rule.id,
        effect=rule.effect.value,
        mode="enforce" if rule.weight is Weight.FIRM else "monitor",
        file=rule.file,
        line=rule.line,
        who=who,
        servers=servers,
        tools=tools,
        predicates=predicates,
        strikes=strikes,
        decides=rule.id == deciding,
    )


def _answer(value: Tri) -> Answer:
    if value is None:
        return "unknown"
    return "true" if value is True else "false"
