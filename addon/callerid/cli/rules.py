"""``callerid check`` and ``callerid explain``: are the rules good, and what do they say about one call?"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from callerid.cli.output import EXIT_DONE, EXIT_NO, EXIT_USAGE, handle_errors, print_error, print_json, table
from callerid.config import Identities, Server
from callerid.errors import ConfigError
from callerid.identity.client_cas import doubts
from callerid.model import Assurance, Caller, Ceiling, Decision, Kind, Principal, Reason, Verdict
from callerid.policy.explain import Explanation, RuleSay
from callerid.policy.identities import canonical_subject
from callerid.policy.load import RuleSet, load_rules
from callerid.policy.problems import did_you_mean
from callerid.policy.schema import schemas

_rules_option = click.option(
    "--rules",
    "folder",
    envvar="CALLERID_RULES",
    default="./rules",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The rules directory.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@_rules_option
@_json_option
@handle_errors
def check(folder: Path, as_json: bool) -> None:
    """Load the rules and print every problem with its place. Exit 0 if they are good, 2 if not."""
    try:
        rules = load_rules(folder)
    except ConfigError as error:
        if as_json:
            print_json({"good": False, "problems": error.problems, "warnings": [], "hint": error.hint})
        else:
            print_error(error)
        sys.exit(EXIT_USAGE)
    found = (
        *rules.warnings,
        *(f"client CA {ca.id}: {text}" for ca in rules.identities.client_cas for text in doubts(ca)),
    )
    if as_json:
        print_json(
            {
                "good": True,
                "problems": [],
                "warnings": found,
                "servers": len(rules.servers.servers),
                "rules": len(rules.engine.rules),
                "policy": rules.hash,
            }
        )
        return
    for warning in found:
        click.echo(f"warning: {warning}", err=True)
    click.echo(
        f"rules are good: {_count(len(rules.servers.servers), 'server')}, "
        f"{_count(len(rules.engine.rules), 'rule')}, policy {rules.hash}"
    )


def _call_options[F: Callable[..., Any]](command: F) -> F:
    """The options that describe one call, for ``explain`` and its kin."""
    options = [
        click.option("--as", "subject", required=True, help="user:NAME or workload:NAME."),
        click.option("--group", "groups", multiple=True, help="A group besides those in identities.yaml."),
        click.option("--agent", help="The agent that acts for the caller."),
        click.option(
            "--assurance",
            type=click.Choice([level.lower() for level in Assurance.__members__]),
            default="bearer",
            show_default=True,
            help="How well the caller is known.",
        ),
        click.option("--server", "server_id", required=True, help="The server's id."),
        click.option("--tool", help="The tool that is called."),
        click.option("--resource", help="The URI of the resource that is read."),
        click.option("--prompt", help="The prompt that is asked for."),
        click.option("--http", help='The call of an HTTP API: "GET /v1/charges".'),
        click.option("--args", "arguments", default="{}", help="The arguments, as a JSON object."),
        click.option("--at", help="When, as ISO 8601 with an offset. Left out: now."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_rules_option
@_json_option
@_call_options
@handle_errors
def explain(
    folder: Path,
    as_json: bool,
    subject: str,
    groups: tuple[str, ...],
    agent: str | None,
    assurance: str,
    server_id: str,
    tool: str | None,
    resource: str | None,
    prompt: str | None,
    http: str | None,
    arguments: str,
    at: str | None,
) -> None:
    """Show what every rule says about one call. Exit 0 if it is allowed, 1 if not."""
    rules = load_rules(folder)
    kind, method, name = _target(tool, resource, prompt, http)
    caller = _caller(rules.identities, subject, groups, agent, assurance)
    server = _server(rules, server_id)
    if server.kind == "http" and kind is not Kind.HTTP:
        raise ConfigError(
            f"server '{server_id}' is an HTTP API, where nothing is a tool, resource or prompt",
            hint=f'Write --http "{name if kind is Kind.TOOL and " /" in name else "GET /v1/charges"}"',
        )
    refused = _refused_before(rules.identities, caller)
    if refused is not None:
        _print_refused(refused, rules.hash, as_json)
        sys.exit(EXIT_NO)
    explanation = rules.engine.explain(
        caller=caller,
        server=server,
        kind=kind,
        method=method,
        name=name,
        arguments=_arguments(arguments),
        now=_time(at),
    )
    if as_json:
        print_json(_as_json(explanation))
    else:
        _print(explanation, server)
    allowed = explanation.decision.verdict is Verdict.ALLOW
    sys.exit(EXIT_DONE if allowed else EXIT_NO)


def write_schemas(folder: Path) -> tuple[Path, ...]:
    """Write ``FOLDER/schema/*.schema.json`` anew from the models; returns the paths of the files."""
    target = folder / "schema"
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in schemas().items():
        path = target / name
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return tuple(paths)


def _target(
    tool: str | None, resource: str | None, prompt: str | None, http: str | None
) -> tuple[Kind, str, str]:
    given = [
        (kind, method, name)
        for kind, method, name in (
            (Kind.TOOL, "tools/call", tool),
            (Kind.RESOURCE, "resources/read", resource),
            (Kind.PROMPT, "prompts/get", prompt),
            (Kind.HTTP, f"http/{(http or '').partition(' ')[0]}", http),
        )
        if name is not None
    ]
    if len(given) != 1:
        raise ConfigError(
            "exactly one of --tool, --resource, --prompt and --http is needed",
            hint="For example: --tool read_file",
        )
    kind, method, name = given[0]
    return kind, method, str(name)


def _server(rules: RuleSet, server_id: str) -> Server:
    known = {server.id: server for server in rules.servers.servers}
    if server_id not in known:
        raise ConfigError(f"there is no server '{server_id}'", hint=did_you_mean(server_id, known))
    return known[server_id]


def _caller(
    identities: Identities, subject: str, groups: tuple[str, ...], agent: str | None, assurance: str
) -> Caller:
    kind, _, name = subject.partition(":")
    if kind not in ("user", "workload") or not name:
        raise ConfigError(
            f"'{subject}' is not a principal", hint="Write user:NAME or workload:NAME, as in identities.yaml."
        )
    subject = canonical_subject(subject)
    member = {group for group, members in identities.groups.items() if subject in members}
    for group in groups:
        if group not in identities.groups:
            raise ConfigError(f"there is no group '{group}'", hint=did_you_mean(group, identities.groups))
    member.update(groups)
    if agent is not None and agent not in identities.agents:
        raise ConfigError(f"there is no agent '{agent}'", hint=did_you_mean(agent, identities.agents))
    ceilings: tuple[Ceiling, ...] = ()
    entry = identities.agents[agent] if agent is not None else None
    if entry is not None and (entry.servers is not None or entry.tools is not None):
        ceilings = (Ceiling(origin=f"agent:{entry.name}", servers=entry.servers, tools=entry.tools),)
    return Caller(
        principal=Principal(subject, "local"),
        agent=agent,
        actors=(),
        evidence=(),
        assurance=Assurance[assurance.upper()],
        assurance_name=assurance,
        credential_id="explain",
        groups=frozenset(member),
        ceilings=ceilings,
    )


def _refused_before(identities: Identities, caller: Caller) -> Reason | None:
    """Why identity would refuse the caller, so that no rule is ever asked; None if it would not."""
    subject, agent = caller.principal.subject, caller.agent
    if subject in identities.blocked or (agent is not None and f"agent:{agent}" in identities.blocked):
        return Reason.PRINCIPAL_BLOCKED
    if agent is None:
        return None
    mine = {subject} | {f"group:{group}" for group in caller.groups}
    return Reason.AGENT_NOT_PERMITTED if mine.isdisjoint(identities.agents[agent].owners) else None


def _print_refused(reason: Reason, policy: str, as_json: bool) -> None:
    decision = Decision(verdict=Verdict.DENY, reason=reason, policy=policy)
    if as_json:
        print_json({"decision": decision, "decider": None, "ceilings": [], "rules": []})
        return
    why = {
        Reason.PRINCIPAL_BLOCKED: "the principal or its agent is blocked (identities.yaml)",
        Reason.AGENT_NOT_PERMITTED: "the principal is no owner of the agent (identities.yaml)",
    }[reason]
    click.echo(f"deny: {reason.value}, before any rule is asked: {why}")


def _arguments(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--args is not JSON: {error}", hint='Write --args \'{"path": "/srv"}\'') from None
    if not isinstance(value, dict):
        raise ConfigError("--args must be a JSON object", hint='Write --args \'{"path": "/srv"}\'')
    return value


def _time(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            "--at is not an ISO 8601 time", hint="Write --at 2026-11-23T10:00:00+01:00"
        ) from None
    if at.tzinfo is None:
        raise ConfigError("--at has no offset from UTC", hint=f"Write --at {text}Z or {text}+01:00")
    return at


def _as_json(explanation: Explanation) -> dict[str, Any]:
    decider = explanation.decider
    return {
        "decision": explanation.decision,
        "decider": None
        if decider is None
        else {"rule": decider.rule, "file": decider.file, "line": decider.line},
        "ceilings": explanation.ceilings,
        "rules": explanation.rules,
    }


def _print(explanation: Explanation, server: Server) -> None:
    rows = [
        (
            ">" if say.decides else "",
            say.rule,
            say.effect if say.mode == "enforce" else f"{say.effect} ({say.mode})",
            _scope(say),
            "; ".join(f"{p.name}: {p.answer}" + (f" ({p.seen})" if p.seen else "") for p in say.predicates),
            _effect(say),
            f"{say.file}:{say.line}",
        )
        for say in explanation.rules
    ]
    table(("", "rule", "effect", "scope", "predicates", "says", "where"), rows)
    for ceiling in explanation.ceilings:
        click.echo(f"ceiling {ceiling.origin}: {'inside' if ceiling.covers else 'OUTSIDE'}")
    decision = explanation.decision
    line = f"{decision.verdict.value}: {decision.reason.value}"
    decider = explanation.decider
    if decider is not None:
        line += f", by {decider.rule} ({decider.file}:{decider.line})"
    if decision.would_rule is not None:
        line += f", would be decided otherwise by {decision.would_rule}"
    click.echo(line)
    # An API has no lists in which a name could be hidden: its callers are told the rule and its words.
    hidden = decision.hidden and (server.kind != "http" or decision.reason is Reason.NO_GRANT)
    if decision.say is not None and not hidden:
        click.echo(f"the caller is told: {decision.say}")
    if hidden:
        click.echo("the caller is told the same as for a name that does not exist")


def _scope(say: RuleSay) -> str:
    if say.in_scope:
        return "covers it"
    other = [part for part in ("who", "servers", "tools") if not getattr(say, part)]
    return "other " + ", ".join(other)


def _effect(say: RuleSay) -> str:
    if not say.in_scope:
        return ""
    if say.effect == "allow":
        return "grants" if say.strikes else "does not grant"
    return "refuses" if say.strikes else "lets pass"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
