"""``callerid issue``, ``tokens``, ``rotate``, ``revoke``: scoped tokens, over the registry."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import click

from callerid.cli.options import (
    home_option,
    json_option,
    network_option,
    rules_option,
    server_option,
    tool_option,
    why_option,
)
from callerid.cli.output import handle_errors, print_json
from callerid.cli.registered import (
    counted,
    is_live,
    life,
    lineages,
    longest_life,
    now_us,
    opened,
    operator,
    plain,
    principal_in,
    print_tokens,
    scope_in,
    scope_text,
    shown_time,
    span_in,
    unknown_names,
    who,
)
from callerid.errors import ConfigError
from callerid.identity.rows import TokenRow
from callerid.identity.tokens import RANDOM_BYTES, digest, mint


@click.command()
@home_option
@rules_option("Where identities.yaml says how long a token may live.")
@click.option("--principal", required=True, metavar="SUBJECT", help="user:NAME or workload:NAME.")
@click.option("--agent", metavar="NAME", help="The agent that will carry it.")
@click.option("--ttl", required=True, metavar="TIME", help="How long it is good: 90m, 12h, 30d.")
@server_option
@tool_option
@network_option
@json_option
@handle_errors
def issue(
    home: Path,
    rules: Path,
    principal: str,
    agent: str | None,
    ttl: str,
    servers: tuple[str, ...],
    tools: tuple[str, ...],
    networks: tuple[str, ...],
    as_json: bool,
) -> None:
    """Issue a scoped token. It is the only thing on stdout, and it is shown this once."""
    subject = principal_in(principal)
    scope = scope_in(agent, servers, tools, networks)
    span = life(ttl, longest_life(rules))
    for unknown in unknown_names(rules, scope):
        click.echo(f"warning: {unknown}", err=True)
    created = now_us()
    token = mint(secrets.token_bytes(RANDOM_BYTES))
    with opened(home) as registry:
        row = registry.issue(
            token_digest=digest(token),
            principal=subject,
            agent=scope.agent,
            servers=scope.servers,
            tools=scope.tools,
            networks=scope.networks,
            created_us=created,
            expires_us=created + span * 1_000_000,
            created_by=operator(),
        )
    hand_over(token, row, created, as_json=as_json)


def hand_over(token: str, row: TokenRow, now: int, *, as_json: bool) -> None:
    """The token on stdout, all about it on stderr; or both in one JSON object."""
    if as_json:
        print_json({"token": token, **plain(row, now)})
        return
    click.echo(token)
    name = row.principal.partition(":")[2].partition("@")[0]
    click.echo(f"{row.id} for {who(row)}, {scope_text(row)}, until {shown_time(row.expires_us)}", err=True)
    click.echo("It is not shown again. To use it, put it in the place of TOKEN:", err=True)
    click.echo(f"  export HTTPS_PROXY=http://{name}:TOKEN@PROXY:8080", err=True)


@click.command()
@home_option
@click.option("--principal", metavar="SUBJECT", help="Only those of this principal.")
@click.option("--agent", metavar="NAME", help="Only those of this agent, or of agents below it.")
@click.option("--server", metavar="ID", help="Only those that are good for this server.")
@click.option("--unused", metavar="TIME", help="Only those that were not used for so long: 30d.")
@click.option("--expiring", metavar="TIME", help="Only those that end within this time: 7d.")
@click.option("--tree", is_flag=True, help="Derived tokens below their parents.")
@click.option("--all", "everything", is_flag=True, help="Expired and revoked ones too.")
@json_option
@handle_errors
def tokens(
    home: Path,
    principal: str | None,
    agent: str | None,
    server: str | None,
    unused: str | None,
    expiring: str | None,
    tree: bool,
    everything: bool,
    as_json: bool,
) -> None:
    """List scoped tokens: whose they are, what they are good for, when and from where they were last used."""
    now = now_us()
    idle = None if unused is None else now - span_in("--unused", unused) * 1_000_000
    ends = None if expiring is None else now + span_in("--expiring", expiring) * 1_000_000
    subject = None if principal is None else principal_in(principal)
    with opened(home) as registry:
        blocked = frozenset(entry.subject for entry in registry.blocked())
        known = registry.tokens(principal=subject)
        above = lineages(known, registry)
    by_id = {row.id: row for row in known}
    rows = [
        row
        for row in known
        if (everything or is_live(row, now, above))
        and (agent is None or agent == row.agent or agent in row.actors)
        and (server is None or _is_good_for(row, server, by_id))
        and (idle is None or (row.last_used_us or row.created_us) < idle)
        and (ends is None or now < row.expires_us <= ends)
    ]
    depths = [0] * len(rows)
    if tree:
        rows, depths = _as_tree(rows)
    if as_json:
        print_json([plain(row, now, blocked, above) for row in rows])
        return
    print_tokens(rows, now, blocked, above, depths)


def _is_good_for(row: TokenRow, server: str, by_id: dict[str, TokenRow]) -> bool:
    """Whether the scopes of a token and of all above it leave this server inside."""
    seen: set[str] = set()
    at: TokenRow | None = row
    while at is not None and at.id not in seen:
        if at.servers is not None and server not in at.servers:
            return False
        seen.add(at.id)
        at = by_id.get(at.parent) if at.parent is not None else None
    return True


def _as_tree(rows: Sequence[TokenRow]) -> tuple[list[TokenRow], list[int]]:
    """The rows in the order of a tree, with their depths. Whose parent is not listed is a root."""
    listed = {row.id for row in rows}
    below: dict[str | None, list[TokenRow]] = {}
    for row in rows:
        below.setdefault(row.parent if row.parent in listed else None, []).append(row)
    ordered: list[TokenRow] = []
    depths: list[int] = []
    waiting = [(row, 0) for row in reversed(below.get(None, []))]
    while waiting:
        row, depth = waiting.pop()
        ordered.append(row)
        depths.append(depth)
        waiting += [(child, depth + 1) for child in reversed(below.get(row.id, []))]
    return ordered, depths


@click.command()
@home_option
@rules_option("Where identities.yaml says how long a token may live.")
@click.argument("identifier", metavar="ID")
@click.option(
    "--overlap",
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How long the old one stays good besides the new one; 0s ends it at once.",
)
@json_option
@handle_errors
def rotate(home: Path, rules: Path, identifier: str, overlap: str, as_json: bool) -> None:
    """Replace a token by a new one with the same scope and length of life.

    The old one ends after the overlap, and with it every token that was derived from it: whoever has the old
    one may have derived them. Derive anew from the new one.
    """
    now = now_us()
    token = mint(secrets.token_bytes(RANDOM_BYTES))
    with opened(home) as registry:
        made, ending = registry.rotate(
            identifier,
            token_digest=digest(token),
            now_us=now,
            overlap_us=span_in("--overlap", overlap) * 1_000_000,
            longest_us=longest_life(rules) * 1_000_000,
            by=operator(),
        )
    hand_over(token, made, now, as_json=as_json)
    click.echo(f"{ending.id} and all derived from it end at {shown_time(ending.expires_us)}", err=True)


@click.command()
@home_option
@click.argument("identifier", metavar="[ID]", required=False)
@click.option("--principal", metavar="SUBJECT", help="All tokens of this principal.")
@why_option
@handle_errors
def revoke(home: Path, identifier: str | None, principal: str | None, why: str | None) -> None:
    """Revoke one token, or all of a principal, and every token derived from them.

    The next request is refused, and open streams are cut within two seconds.
    """
    if (identifier is None) == (principal is None):
        raise ConfigError(
            "name one token, or one principal", hint="revoke t_0123456789ab, or revoke --principal P"
        )
    now = now_us()
    with opened(home) as registry:
        if identifier is not None:
            if registry.get(identifier) is None:
                raise ConfigError(
                    f"there is no token {identifier}", hint="`callerid tokens --all` lists them."
                )
            count = registry.revoke(identifier, now_us=now, by=operator(), why=why)
        else:
            subject = principal_in(principal or "")
            if not registry.tokens(principal=subject):
                raise ConfigError(
                    f"{subject} was never issued a token", hint="`callerid tokens --all` lists them."
                )
            count = registry.revoke_principal(subject, now_us=now, by=operator(), why=why)
    click.echo(f"{counted(count)} revoked" + ("" if count else ": all were revoked before"))
