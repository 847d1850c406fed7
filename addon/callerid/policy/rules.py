"""Compiled rules: what the engine runs. Plain data and closures, made by ``compile``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from enum import StrEnum
from typing import Any, Protocol

from callerid.model import Assurance, Caller, Kind
from callerid.policy.conditions import Condition, found, json_type, kleene_all
from callerid.policy.patterns import Tri
from callerid.policy.selectors import Tools, Who

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Effect(StrEnum):
    """What a rule does. Grants need certainty, guards need only doubt."""

    ALLOW = "allow"
    DENY = "deny"
    REQUIRE = "require"


class Weight(StrEnum):
    """How much a rule counts.

    FIRM is enforced. SOFT takes the file's ``mode: monitor``: what it would refuse passes, recorded. TRIAL
    has ``mode: monitor`` of its own: it neither grants nor refuses anything.
    """

    FIRM = "enforce"
    SOFT = "monitor (file)"
    TRIAL = "monitor"


@dataclass(frozen=True, slots=True)
class Call:
    """What predicates see of one message."""

    caller: Caller
    arguments: Mapping[str, Any]
    now: datetime


class Predicate(Protocol):
    """One AND-ed part of a rule."""

    @property
    def name(self) -> str: ...

    @property
    def of_arguments(self) -> bool: ...

    def holds(self, call: Call, *, guard: bool) -> Tri: ...

    def seen(self, call: Call) -> str | None: ...


def agents_of(caller: Caller) -> tuple[str, ...]:
    """The agents that act for this caller, the current one first; empty if none is known."""
    known = caller.actors if caller.agent is None else (caller.agent, *caller.actors)
    return tuple(dict.fromkeys(known))


@dataclass(frozen=True, slots=True)
class OnArgument:
    """``args``: a condition on one argument."""

    condition: Condition
    of_arguments: bool = True

    @property
    def name(self) -> str:
        return f"args {self.condition.key}"

    def holds(self, call: Call, *, guard: bool) -> Tri:
        return self.condition.holds(call.arguments, guard=guard)

    def seen(self, call: Call) -> str | None:
        """The JSON types of the values at hand, never the values."""
        return ", ".join(sorted({json_type(value) for value in found(call.arguments, self.condition.path)}))


@dataclass(frozen=True, slots=True)
class OnHours:
    """``hours``: minutes of the day, ``start`` included, ``end`` excluded, in ``zone``."""

    days: frozenset[int]
    start: int
    end: int
    zone: tzinfo
    name: str = "hours"
    of_arguments: bool = False

    def holds(self, call: Call, *, guard: bool) -> Tri:
        if call.now.tzinfo is None:
            return None
        local = call.now.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        if self.start < self.end:
            return local.weekday() in self.days and self.start <= minute < self.end
        if minute >= self.start:
            return local.weekday() in self.days
        return minute < self.end and (local.weekday() - 1) % 7 in self.days

    def seen(self, call: Call) -> str | None:
        if call.now.tzinfo is None:
            return None
        local = call.now.astimezone(self.zone)
        return f"{DAYS[local.weekday()]} {local:%H:%M}"


@dataclass(frozen=True, slots=True)
class OnAssurance:
    """``assurance``: the caller is known at least this well."""

    least: Assurance
    name: str = "assurance"
    of_arguments: bool = False

    def holds(self, call: Call, *, guard: bool) -> Tri:
        return call.caller.assurance >= self.least

    def seen(self, call: Call) -> str | None:
        return call.caller.assurance_name


@dataclass(frozen=True, slots=True)
class OnAgent:
    """``agent``: the call comes through one of these.

    Unknown when we do not know which agent it is, and when only some of a chain of agents are among them: a
    sub-agent is granted what all in its chain are granted, and refused what any of them is.
    """

    agents: frozenset[str]
    name: str = "agent"
    of_arguments: bool = False

    def holds(self, call: Call, *, guard: bool) -> Tri:
        if call.caller.agent is None:
            return None
        listed = {name in self.agents for name in agents_of(call.caller)}
        return listed.pop() if len(listed) == 1 else None

    def seen(self, call: Call) -> str | None:
        return "no agent" if call.caller.agent is None else "agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule, ready to run. ``servers`` are ids; None for ``who``, ``servers``, ``tools`` is everything."""

    index: int
    id: str
    effect: Effect
    weight: Weight
    who: Who | None
    servers: frozenset[str] | None
    tools: Tools | None
    except_tools: Tools | None
    predicates: tuple[Predicate, ...]
    say: str | None
    file: str
    line: int

    @property
    def scope_only(self) -> bool:
        """True if the rule names no tools and asks for nothing: it is about all traffic in its scope."""
        return self.tools is None and self.except_tools is None and not self.predicates

    @property
    def is_guard(self) -> bool:
        return self.effect is not Effect.ALLOW

    def in_tools(self, kind: Kind, target: str) -> bool:
        """Whether ``tools`` less ``except_tools`` covers it: an allow needs certainty, a guard only doubt.

        Left out, ``tools`` is every tool, resource, prompt and HTTP call; on a guard other methods as well.
        """
        if self.tools is None:
            inside = self.is_guard or kind is not Kind.METHOD
        else:
            answer = self.tools.covers(kind, target)
            inside = answer is not False if self.is_guard else answer is True
        if not inside or self.except_tools is None:
            return inside
        taken_out = self.except_tools.covers(kind, target)
        return taken_out is not True if self.is_guard else taken_out is False

    def holds(self, call: Call | None, favoured: Call | None = None) -> Tri:
        """Whether all predicates hold for ``call``.

        With ``favoured`` instead of ``call``: whether some arguments could make the answer one that is good
        for the caller; conditions on arguments are then taken in the caller's favour.
        """
        deny = self.effect is Effect.DENY
        answers: list[Tri] = []
        for predicate in self.predicates:
            if call is not None:
                answers.append(predicate.holds(call, guard=deny))
            elif predicate.of_arguments or favoured is None:
                answers.append(not deny)
            else:
                answers.append(predicate.holds(favoured, guard=deny))
        return kleene_all(answers)

    def strikes(self, answer: Tri) -> bool:
        """Whether the rule does what it is for: an allow grants, a guard refuses."""
        if self.effect is Effect.DENY:
            return answer is not False
        if self.effect is Effect.REQUIRE:
            return answer is not True
        return answer is True
