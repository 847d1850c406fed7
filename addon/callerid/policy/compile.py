"""From the model of policy.yaml to compiled rules, with the checks across the four files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from callerid.config import Identities, Server
from callerid.model import Assurance
from callerid.policy.conditions import compile_condition
from callerid.policy.identities import unique_ids
from callerid.policy.problems import Document, Report, Where, did_you_mean, show
from callerid.policy.rulemodels import AllowModel, DenyModel, HoursModel, PolicyFile, RequireModel
from callerid.policy.rules import (
    DAYS,
    Effect,
    OnAgent,
    OnArgument,
    OnAssurance,
    OnHours,
    Predicate,
    Rule,
    Weight,
)
from callerid.policy.selectors import BadSelector, Tools, Who, compile_tools, compile_who, split_selector

RESERVED = frozenset({"no_grant", "ceiling"})
_NOTHING = Tools(frozenset(), ())

type AnyRule = AllowModel | DenyModel | RequireModel


class Compiler:
    """Compiles one policy.yaml against the identities and servers loaded with it."""

    def __init__(
        self,
        model: PolicyFile,
        doc: Document,
        identities: Identities,
        servers: Iterable[Server],
        report: Report,
    ) -> None:
        self.model = model
        self.doc = doc
        self.identities = identities
        self.servers: Mapping[str, Server] = {server.id: server for server in servers}
        self.report = report
        self.zone: tzinfo | None = None
        self.sets: dict[str, tuple[str, ...]] = {}

    def rules(self) -> tuple[Rule, ...]:
        """The compiled rules in file order; what is wrong goes to the report."""
        unique_ids(self.doc, self.report, "rules", (rule.id for rule in self.model.rules))
        try:
            self.zone = ZoneInfo(self.model.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            message = f"unknown timezone {show(self.model.timezone)}"
            self.report.add(
                self.doc, ("timezone",), message, "Write an IANA name such as Europe/Zurich, or UTC."
            )
        for name, entries in self.model.sets.items():
            for at, entry in enumerate(entries):
                self._selector(("sets", name, at), entry, in_set=True)
            self.sets[name] = tuple(entries)
        return tuple(self._rule(at, rule) for at, rule in enumerate(self.model.rules))

    def check_agents(self, doc: Document) -> None:
        """The ceilings of agents in identities.yaml name servers and tools that exist."""
        for name, agent in self.identities.agents.items():
            for at, server in enumerate(agent.servers or ()):
                if server not in self.servers:
                    hint = did_you_mean(server, self.servers)
                    where: Where = ("agents", name, "servers", at)
                    self.report.add(doc, where, f"unknown server {show(server)}", hint)
            for at, tool in enumerate(agent.tools or ()):
                self._selector(("agents", name, "tools", at), tool, doc)

    def _rule(self, at: int, model: AnyRule) -> Rule:
        where: Where = ("rules", at)
        if model.id in RESERVED:
            self._add((*where, "id"), f"the id {show(model.id)} is reserved", "Rename the rule.")
        effect = Effect(model.effect)
        weight = Weight.TRIAL if model.mode == "monitor" else Weight.FIRM
        if model.mode is None and self.model.mode == "monitor":
            weight = Weight.SOFT
        return Rule(
            index=at,
            id=model.id,
            effect=effect,
            weight=weight,
            who=self._who(model, where),
            servers=self._servers(model.servers, (*where, "servers")),
            tools=self._tools(model.tools, (*where, "tools")),
            except_tools=self._tools(model.except_tools, (*where, "except_tools")),
            predicates=self._predicates(model, effect, where),
            say=model.reason,
            file=self.doc.file,
            line=self.doc.place(where)[0],
        )

    def _who(self, model: AnyRule, where: Where) -> Who | None:
        if model.who is None:
            return None
        for at, selector in enumerate(model.who):
            place = (*where, "who", at)
            kind, _, name = selector.partition(":")
            if kind == "group" and name not in self.identities.groups:
                hint = (
                    did_you_mean(name, self.identities.groups) or "List it in identities.yaml, under groups."
                )
                self._add(place, f"unknown group {show(name)}", hint)
            elif kind == "agent" and isinstance(model, AllowModel):
                hint = "Grant to a person, group or workload; narrow with a deny or require for the agent."
                self._add(place, "an allow cannot be given to an agent: agents only narrow", hint)
            elif kind == "agent":
                self._known_agent(place, name)
        return compile_who(model.who)

    def _known_agent(self, place: Where, name: str) -> None:
        if name not in self.identities.agents:
            hint = did_you_mean(name, self.identities.agents) or "List it in identities.yaml, under agents."
            self._add(place, f"unknown agent {show(name)}", hint)

    def _servers(self, selectors: list[str] | None, where: Where) -> frozenset[str] | None:
        if selectors is None:
            return None
        ids: set[str] = set()
        for at, selector in enumerate(selectors):
            if not selector.startswith("label:"):
                if selector not in self.servers:
                    self._add(
                        (*where, at), f"unknown server {show(selector)}", did_you_mean(selector, self.servers)
                    )
                ids.add(selector)
                continue
            key, _, value = selector.removeprefix("label:").partition("=")
            hits = {server.id for server in self.servers.values() if server.labels.get(key) == value}
            if not hits:
                labels = {
                    f"label:{k}={v}" for server in self.servers.values() for k, v in server.labels.items()
                }
                self._add((*where, at), f"no server has the {show(selector)}", did_you_mean(selector, labels))
            ids |= hits
        return frozenset(ids)

    def _tools(self, selectors: list[str] | None, where: Where) -> Tools | None:
        if selectors is None:
            return None
        good = [selector for at, selector in enumerate(selectors) if self._selector((*where, at), selector)]
        return compile_tools(good, self.sets) if len(good) == len(selectors) else _NOTHING

    def _selector(
        self, where: Where, selector: str, doc: Document | None = None, *, in_set: bool = False
    ) -> bool:
        try:
            if in_set:
                split_selector(selector)
            compile_tools([selector], self.sets)
        except BadSelector as fault:
            hint = fault.hint
            if fault.message.startswith("unknown set"):
                hint = did_you_mean(fault.message.split("'")[1], self.sets) or "List it under sets."
            if doc is None:
                self._add(where, fault.message, hint)
            else:
                self.report.add(doc, where, fault.message, hint)
            return False
        return True

    def _predicates(self, model: AnyRule, effect: Effect, where: Where) -> tuple[Predicate, ...]:
        made: list[Predicate] = []
        if model.assurance is not None:
            if effect is Effect.DENY:
                self._add(
                    (*where, "assurance"),
                    "on a deny, assurance would refuse the callers who are known best",
                    "Write effect: require; it refuses everybody who is known less well.",
                )
            made.append(OnAssurance(Assurance[model.assurance.upper()]))
        if model.agent is not None:
            for at, name in enumerate(model.agent):
                self._known_agent((*where, "agent", at), name)
            made.append(OnAgent(frozenset(model.agent)))
        if model.hours is not None and self.zone is not None:
            made.append(self._hours(model.hours, (*where, "hours"), self.zone))
        for key, condition in (model.args or {}).items():
            try:
                made.append(OnArgument(compile_condition(key, condition)))
            except ValueError as fault:
                self._add((*where, "args", key), f"args {show(key)}: {fault}")
        return tuple(made)

    def _hours(self, model: HoursModel, where: Where, zone: tzinfo) -> OnHours:
        start, end = _minutes(model.from_), _minutes(model.to)
        if start == end or start == 24 * 60:
            self._add(
                where, "hours from and to span nothing", 'Write from: "00:00", to: "24:00" for the whole day.'
            )
        days = DAYS if model.days is None else model.days
        return OnHours(frozenset(DAYS.index(day) for day in days), start, end, zone)

    def _add(self, where: Where, message: str, hint: str = "") -> None:
        rule = ""
        if len(where) > 1 and where[0] == "rules" and isinstance(where[1], int):
            rule = f"rule {show(self.model.rules[where[1]].id)}: "
        self.report.add(self.doc, where, rule + message, hint)


def _minutes(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)
