"""Lints: rules that load but say something that nobody can have meant. Warnings, never errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from callerid.config import Credential, Identities, Server, Servers
from callerid.errors import Problem
from callerid.policy.identities import canonical_subject
from callerid.policy.lintcredentials import lint_credentials
from callerid.policy.lintkinds import Kinds
from callerid.policy.places import is_loopback
from callerid.policy.problems import Document, Where, make_problem, show
from callerid.policy.rulemodels import AllowModel, DenyModel, PolicyFile, RequireModel
from callerid.policy.rules import Effect, Rule, Weight

type _Finding = tuple[str, Where, str, str]
"""File, place, message, hint."""


def lint(
    docs: Mapping[str, Document],
    policy: PolicyFile,
    rules: tuple[Rule, ...],
    identities: Identities,
    servers: Servers,
    credentials: tuple[Credential, ...],
) -> tuple[Problem, ...]:
    """All lints, by file and line."""
    found = [
        *_file(policy),
        *_servers(servers, rules),
        *_assertions(servers),
        *lint_credentials(servers, credentials, identities),
        *_hops(identities),
        *_groups(identities, policy),
        *_sets(policy, identities),
    ]
    killers = _Killers(rules)
    kinds = Kinds(servers, policy.sets, credentials)
    for at, (model, rule) in enumerate(zip(policy.rules, rules, strict=True)):
        found.extend(_rule(at, model, rule, killers, identities))
        found.extend(kinds.lint(("rules", at), model, rule))
    problems = []
    for file, where, message, hint in found:
        doc = docs[file]
        problems.append(make_problem(file, doc.lines, doc.place(where), message, hint))
    return tuple(sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column)))


def _file(policy: PolicyFile) -> Iterator[_Finding]:
    if policy.mode == "monitor":
        message = "mode: monitor refuses nothing by rule, it only records what would be refused"
        yield "policy.yaml", ("mode",), message, "Write mode: enforce when the trail shows no surprise."


def _servers(servers: Servers, rules: tuple[Rule, ...]) -> Iterator[_Finding]:
    grants = [rule for rule in rules if rule.effect is Effect.ALLOW and rule.weight is not Weight.TRIAL]
    for at, server in enumerate(servers.servers):
        if _reads_as_host(server):
            message = f"server {show(server.id)} has the name of a place, whose rows would look like its rows"
            hint = "Where nobody listed a server, rows name the host. Give this one an id without a dot."
            yield "servers.yaml", ("servers", at, "id"), message, hint
        if not any(rule.servers is None or server.id in rule.servers for rule in grants):
            message = f"no rule allows anything on server {show(server.id)}"
            yield "servers.yaml", ("servers", at, "id"), message, "Add an allow for it, or remove it."
        if server.scheme == "http" and not is_loopback(server.host):
            message = f"calls to server {show(server.id)} travel in the clear"
            yield "servers.yaml", ("servers", at, "url"), message, "Use https."


def _hops(identities: Identities) -> Iterator[_Finding]:
    for at, hop in enumerate(identities.trusted_hops):
        if len(hop.accept) > 1:
            message = (
                f"trusted hop {show(hop.id)} must write both headers itself, or callers can write the other"
            )
            hint = (
                "Leave in accept only the one that it writes, or let it remove the other from every request."
            )
            yield "identities.yaml", ("trusted_hops", at, "accept"), message, hint


def _reads_as_host(server: Server) -> bool:
    """Whether a row of an unlisted host, or of callerid itself, could have this id in the column server."""
    bare = server.id.lower()
    usual = {"http": 80, "https": 443}[server.scheme]
    if bare == server.host and server.port == usual:
        return False  # there it is listed
    _, dot, last = bare.rpartition(".")
    is_name = bool(dot) and (last.isalpha() or bare.replace(".", "").isdigit())
    return is_name or bare in ("localhost", "callerid")


def _assertions(servers: Servers) -> Iterator[_Finding]:
    """A server that is told who calls must be the only one that can use what it is told."""
    heard: dict[str, str] = {}
    for at, server in enumerate(servers.servers):
        if server.assertion is None:
            continue
        name, where = f"server {show(server.id)}", ("servers", at, "assertion")
        first = heard.setdefault(server.assertion.audience, server.id)
        if first != server.id:
            message = f"{name} has the same assertion audience as {show(first)}: each can pose as its callers"
            yield "servers.yaml", where, f"{message} at the other", "Give each an audience of its own."
        if server.scheme == "http" and not is_loopback(server.host):
            message = f"{name} is told who calls in the clear: whoever listens can repeat it"
            yield "servers.yaml", where, message, "Use https."


def _groups(identities: Identities, policy: PolicyFile) -> Iterator[_Finding]:
    """A group that nobody can be in makes the rules for it dead."""
    if any("groups" in issuer.claims for issuer in identities.issuers):
        return
    empty = {name for name, members in identities.groups.items() if not members}
    for at, rule in enumerate(policy.rules):
        for entry, selector in enumerate(rule.who or ()):
            if selector.removeprefix("group:") in empty and selector.startswith("group:"):
                message = f"rule {show(rule.id)}: nobody is in {show(selector)}"
                hint = "Give the group members, or map an issuer's groups claim, in identities.yaml."
                yield "policy.yaml", ("rules", at, "who", entry), message, hint


def _sets(policy: PolicyFile, identities: Identities) -> Iterator[_Finding]:
    used: set[str] = set()
    for rule in policy.rules:
        used.update(rule.tools or (), rule.except_tools or ())
    for agent in identities.agents.values():
        used.update(agent.tools or ())
    for name in policy.sets:
        if f"set:{name}" not in used:
            yield "policy.yaml", ("sets", name), f"no rule uses the set {show(name)}", "Remove it, or use it."


def _rule(
    at: int,
    model: AllowModel | DenyModel | RequireModel,
    rule: Rule,
    killers: _Killers,
    identities: Identities,
) -> Iterator[_Finding]:
    where: Where = ("rules", at)
    name = f"rule {show(model.id)}"
    if rule.effect is Effect.ALLOW:
        if (
            "anyone" in (model.who or ())
            and (model.tools is None or "*" in model.tools)
            and not rule.predicates
        ):
            yield "policy.yaml", where, f"{name} allows everything to anyone", "Name groups, or tools."
        killer = killers.of(rule)
        if killer is not None:
            message = f"{name} is dead: {show(killer.id)} denies everything that it allows"
            yield "policy.yaml", where, message, "Remove one of the two."
    elif model.args and model.tools is None:
        message = f"{name} asks for arguments of every tool: calls without them are refused"
        yield "policy.yaml", (*where, "args"), message, "Name the tools that have these arguments."
    for key, condition in (model.args or {}).items():
        for operator in ("glob", "regex"):
            text = getattr(condition, operator)
            if text is not None and text.lstrip("^").startswith("/"):
                message = f"{name}: {operator} on a path also matches /../ in it"
                yield "policy.yaml", (*where, "args", key, operator), message, "Use under: /FOLDER."
    known = {workload.id for workload in identities.workloads}
    for entry, selector in enumerate(model.who or ()):
        if rule.effect is Effect.ALLOW and canonical_subject(selector) in identities.blocked:
            message = f"{name}: {show(selector)} is blocked in identities.yaml, so this grants nothing to it"
            yield "policy.yaml", (*where, "who", entry), message, "Remove one of the two."
        kind, _, workload = selector.partition(":")
        if kind == "workload" and workload not in known and "/" not in workload:
            message = (
                f"{name}: no workload {show(workload)} in identities.yaml; only a scoped token can name it"
            )
            hint = "List it under workloads if it comes with a JWT."
            if not any(selector in members for members in identities.groups.values()):
                yield "policy.yaml", (*where, "who", entry), message, hint


class _Killers:
    """The enforced denies without predicates, found by whom they are about: thousands of rules stay cheap."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.everybody: list[Rule] = []
        self.by_name: dict[str, list[Rule]] = {}
        for rule in rules:
            if rule.effect is not Effect.DENY or rule.weight is not Weight.FIRM:
                continue
            if rule.predicates or rule.except_tools is not None:
                continue
            if rule.who is None or rule.who.anyone:
                self.everybody.append(rule)
                continue
            for name in (*rule.who.subjects, *rule.who.groups):
                self.by_name.setdefault(name, []).append(rule)

    def of(self, allow: Rule) -> Rule | None:
        """A deny that covers all that ``allow`` could grant, if there is one."""
        names = () if allow.who is None else (*allow.who.subjects, *allow.who.groups)
        found = [*self.everybody, *self.by_name.get(names[0], ())] if names else self.everybody
        return next((deny for deny in found if _kills(deny, allow)), None)


def _kills(deny: Rule, allow: Rule) -> bool:
    """Whether a deny without predicates covers all that the allow could grant."""
    if deny.who is not None and not deny.who.anyone and allow.who is not None:
        if allow.who.anyone or not allow.who.subjects <= deny.who.subjects:
            return False
        if not allow.who.groups <= deny.who.groups:
            return False
    if deny.servers is not None and (allow.servers is None or not allow.servers <= deny.servers):
        return False
    if deny.tools is None:
        return True
    if allow.tools is None or not allow.tools.exact <= deny.tools.exact:
        return False
    globs = {(pattern.kind, pattern.text) for pattern in deny.tools.patterns}
    return all((pattern.kind, pattern.text) in globs for pattern in allow.tools.patterns)
