"""``callerid block`` and ``unblock``: somebody leaves, or comes back, in one command."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from callerid.cli.options import home_option, json_option, rules_option, why_option
from callerid.cli.output import EXIT_NO, handle_errors, print_json
from callerid.cli.registered import counted, is_live, lineages, now_us, opened, operator, plain, print_tokens
from callerid.config import Identities
from callerid.errors import CalleridError, ConfigError
from callerid.identity.names import BLOCKABLE_KINDS, canonical, parse_subject
from callerid.policy.load import load_rules


@click.command()
@home_option
@rules_option("Where identities.yaml says what else SUBJECT has.")
@click.argument("subject")
@why_option
@json_option
@handle_errors
def block(home: Path, rules: Path, subject: str, why: str | None, as_json: bool) -> None:
    """Refuse SUBJECT from the next request on, whatever it presents: user:, workload:, agent:, cert:, jwt:.

    Open streams are cut within two seconds; the shared keys stay as they are. What it still holds is listed
    and stays: a block that is taken back makes it good again. Works whether or not the proxy runs.
    """
    name = _subject(subject)
    now = now_us()
    with opened(home) as registry:  # first of all: nothing below may keep it from being done
        fresh = registry.block(name, now_us=now, by=operator(), why=why)
        held = registry.held(name)
        above = lineages(held, registry)
    rows = [row for row in held if is_live(row, now, above)]
    known = _known(rules, name)
    if as_json:
        held_now = [plain(row, now, above=above) for row in rows]
        print_json({"subject": name, "new": fresh, "tokens": held_now, **known})
        return
    click.echo(f"{name} is blocked" + ("" if fresh else " (and was before)"))
    click.echo(
        f"It still holds {counted(len(rows))}" + (", refused as long as the block lasts:" if rows else ".")
    )
    if rows:
        print_tokens(rows, now, frozenset({name}), above)
    for what, names in known.items():
        if names:
            click.echo(f"{what} (identities.yaml): {', '.join(names)}")


@click.command()
@home_option
@click.argument("subject")
@handle_errors
def unblock(home: Path, subject: str) -> None:
    """Take a block back. Blocks in identities.yaml are taken back there. Exit 1 if there was none."""
    name = _subject(subject)
    with opened(home) as registry:
        lifted = registry.unblock(name)
    click.echo(f"{name} is no longer blocked" if lifted else f"{name} was not blocked here")
    if not lifted:
        sys.exit(EXIT_NO)


def _known(rules: Path, subject: str) -> dict[str, list[str]]:
    """What identities.yaml says of a subject: agents that it owns, groups, how a workload is known.

    Rules that are not there or do not load are said on stderr: the block is done by then.
    """
    identities = Identities()
    if (rules / "identities.yaml").exists():
        try:
            identities = load_rules(rules).identities
        except CalleridError as error:
            click.echo(f"note: the rules do not load, so agents and groups are not known: {error}", err=True)
    groups = sorted(
        group for group, members in identities.groups.items() if subject in map(canonical, members)
    )
    kind, _, name = subject.partition(":")
    owners = {subject, *(f"group:{group}" for group in groups)}
    agents = [
        entry.name
        for entry in identities.agents.values()
        if owners & set(map(canonical, entry.owners)) or (kind == "agent" and entry.name == name)
    ]
    issuers = [entry.issuer for entry in identities.workloads if kind == "workload" and entry.id == name]
    return {"agents": sorted(agents), "groups": groups, "workloads": sorted(set(issuers))}


def _subject(text: str) -> str:
    subject = parse_subject(text, BLOCKABLE_KINDS)
    if subject is None:
        raise ConfigError(
            f"{text!r} cannot be blocked",
            hint="Write user:NAME, workload:NAME, agent:NAME, or the credential_id of a cert: or jwt:."
            " A token is revoked instead.",
        )
    return subject
