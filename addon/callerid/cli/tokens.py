"""``callerid issue``, ``tokens``, ``revoke``, ``block``, ``unblock``: who may come in, over the registry."""

from __future__ import annotations

import contextlib
import getpass
import secrets
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from callerid.cli.output import EXIT_NO, handle_errors, print_json, table
from callerid.config import Identities
from callerid.errors import ConfigError, StoreError
from callerid.home import Home
from callerid.identity.names import BLOCKABLE_KINDS, is_name, parse_subject
from callerid.identity.registry import Registry
from callerid.identity.rows import TokenRow
from callerid.identity.tokens import RANDOM_BYTES, digest, mint
from callerid.policy.load import load_rules

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_COLUMNS = ("id", "principal", "agent", "scope", "created", "expires", "last used", "state")

_home_option = click.option(
    "--home",
    envvar="CALLERID_HOME",
    default="./.callerid",
    show_default=True,
    type=click.Path(path_type=Path),
    help="State: CA, registry, audit.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_why_option = click.option("--why", help="Kept beside it, for whoever asks later.")


@click.command()
@_home_option
@click.option(
    "--rules",
    envvar="CALLERID_RULES",
    default="./rules",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where identities.yaml says how long a token may live.",
)
@click.option("--principal", required=True, metavar="SUBJECT", help="user:NAME or workload:NAME.")
@click.option("--agent", metavar="NAME", help="The agent that will carry it.")
@click.option("--ttl", required=True, metavar="TIME", help="How long it is good: 90m, 12h, 30d.")
@click.option(
    "--server", "servers", multiple=True, metavar="ID", help="Good for this server only; repeatable."
)
@click.option("--tool", "tools", multiple=True, metavar="GLOB", help="Good for these tools only; repeatable.")
@_json_option
@handle_errors
def issue(
    home: Path,
    rules: Path,
    principal: str,
    agent: str | None,
    ttl: str,
    servers: tuple[str, ...],
    tools: tuple[str, ...],
    as_json: bool,
) -> None:
    """Issue a scoped token. It is the only thing on stdout, and it is shown this once."""
    subject = _principal(principal)
    if agent is not None and not is_name(agent):
        raise ConfigError("--agent is not a name", hint="For example --agent claude-code")
    if not all(map(is_name, (*servers, *tools))):
        raise ConfigError(
            "--server or --tool is not a name", hint="They are server ids and globs, without spaces."
        )
    span = _seconds(ttl, _longest(rules))
    created = _now_us()
    token = mint(secrets.token_bytes(RANDOM_BYTES))
    with _registry(home) as registry:
        row = registry.issue(
            token_digest=digest(token),
            principal=subject,
            agent=agent,
            servers=servers or None,
            tools=tools or None,
            created_us=created,
            expires_us=created + span * 1_000_000,
            created_by=_operator(),
        )
    if as_json:
        print_json({"token": token, **_plain(row, created)})
        return
    click.echo(token)
    name = subject.partition(":")[2].partition("@")[0]
    click.echo(f"{row.id} for {_who(row)}, {_scope(row)}, until {_time(row.expires_us)}", err=True)
    click.echo("It is not shown again. To use it, put it in the place of TOKEN:", err=True)
    click.echo(f"  export HTTPS_PROXY=http://{name}:TOKEN@PROXY:8080", err=True)


@click.command()
@_home_option
@click.option("--all", "everything", is_flag=True, help="Expired and revoked ones too.")
@_json_option
@handle_errors
def tokens(home: Path, everything: bool, as_json: bool) -> None:
    """List scoped tokens: whose they are, what they are good for, when they were last used."""
    now = _now_us()
    with _registry(home) as registry:
        blocked = frozenset(entry.subject for entry in registry.blocked())
        rows = [row for row in registry.tokens() if everything or _is_live(row, now)]
    if as_json:
        print_json([_plain(row, now, blocked) for row in rows])
        return
    _print(rows, now, blocked)


@click.command()
@_home_option
@click.argument("identifier", metavar="[ID]", required=False)
@click.option("--principal", metavar="SUBJECT", help="All tokens of this principal.")
@_why_option
@handle_errors
def revoke(home: Path, identifier: str | None, principal: str | None, why: str | None) -> None:
    """Revoke one token, or all of a principal, and every token derived from them.

    The next request is refused, and open streams are cut within two seconds.
    """
    if (identifier is None) == (principal is None):
        raise ConfigError(
            "name one token, or one principal", hint="revoke t_0123456789ab, or revoke --principal P"
        )
    now = _now_us()
    with _registry(home) as registry:
        if identifier is not None:
            if registry.get(identifier) is None:
                raise ConfigError(
                    f"there is no token {identifier}", hint="`callerid tokens --all` lists them."
                )
            count = registry.revoke(identifier, now_us=now, by=_operator(), why=why)
        else:
            subject = _principal(principal or "")
            if not registry.tokens(principal=subject):
                raise ConfigError(
                    f"{subject} was never issued a token", hint="`callerid tokens --all` lists them."
                )
            count = registry.revoke_principal(subject, now_us=now, by=_operator(), why=why)
    click.echo(f"{_counted(count)} revoked" + ("" if count else ": all were revoked before"))


@click.command()
@_home_option
@click.argument("subject")
@_why_option
@_json_option
@handle_errors
def block(home: Path, subject: str, why: str | None, as_json: bool) -> None:
    """Refuse SUBJECT from the next request on, whatever it presents: user:, workload:, agent:, cert:, jwt:.

    Its tokens are listed and stay; a block that is taken back makes them good again.
    """
    name = _subject(subject)
    now = _now_us()
    with _registry(home) as registry:
        fresh = registry.block(name, now_us=now, by=_operator(), why=why)
        kind, _, rest = name.partition(":")
        held = registry.tokens(agent=rest) if kind == "agent" else registry.tokens(principal=name)
    rows = [row for row in held if _is_live(row, now)]
    if as_json:
        print_json({"subject": name, "new": fresh, "tokens": [_plain(row, now) for row in rows]})
        return
    click.echo(f"{name} is blocked" + ("" if fresh else " (and was before)"))
    click.echo(
        f"It still holds {_counted(len(rows))}" + (", refused as long as the block lasts:" if rows else ".")
    )
    if rows:
        _print(rows, now, frozenset({name}))


@click.command()
@_home_option
@click.argument("subject")
@handle_errors
def unblock(home: Path, subject: str) -> None:
    """Take a block back. Blocks in identities.yaml are taken back there. Exit 1 if there was none."""
    name = _subject(subject)
    with _registry(home) as registry:
        lifted = registry.unblock(name)
    click.echo(f"{name} is no longer blocked" if lifted else f"{name} was not blocked here")
    if not lifted:
        sys.exit(EXIT_NO)


@contextlib.contextmanager
def _registry(home: Path) -> Iterator[Registry]:
    """The registry of an existing home: a misspelt one must not look like one without tokens."""
    place = Home(home.absolute())
    if not place.registry.exists():
        raise StoreError(
            f"there is no registry in {place.path}",
            hint="Make one with `callerid init`, or name the right place with --home DIR or CALLERID_HOME.",
        )
    registry = Registry.open(place.registry)
    try:
        yield registry
    finally:
        registry.close()


def _longest(rules: Path) -> int:
    """The longest life of a token, in seconds: what identities.yaml says, if there is one."""
    if not (rules / "identities.yaml").exists():
        return Identities().token_max_ttl
    return load_rules(rules).identities.token_max_ttl


def _seconds(ttl: str, longest: int) -> int:
    number, unit = ttl[:-1], ttl[-1:]
    if unit not in _UNITS or not number.isascii() or not number.isdigit() or not 0 < len(number) <= 9:
        raise ConfigError(
            f"--ttl {ttl} is not a time", hint="Write a number and s, m, h or d: 90m, 12h, 30d."
        )
    span = int(number) * _UNITS[unit]
    if not 0 < span <= longest:
        raise ConfigError(
            f"--ttl {ttl} is not between 1s and {_span(longest)}",
            hint="A longer life needs another max_ttl under issuers in identities.yaml, type opaque.",
        )
    return span


def _span(seconds: int) -> str:
    for unit in ("d", "h", "m"):
        if seconds % _UNITS[unit] == 0:
            return f"{seconds // _UNITS[unit]}{unit}"
    return f"{seconds}s"


def _principal(text: str) -> str:
    subject = parse_subject(text)
    if subject is None:
        raise ConfigError(
            f"{text!r} is not a principal", hint="Write user:NAME or workload:NAME: user:alice@corp.example"
        )
    return subject


def _subject(text: str) -> str:
    subject = parse_subject(text, BLOCKABLE_KINDS)
    if subject is None:
        raise ConfigError(
            f"{text!r} cannot be blocked",
            hint="Write user:NAME, workload:NAME, agent:NAME, or the credential_id of a cert: or jwt:."
            " A token is revoked instead.",
        )
    return subject


def _operator() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def _now_us() -> int:
    return int(datetime.now(UTC).timestamp() * 1_000_000)


def _is_live(row: TokenRow, now: int) -> bool:
    return row.revoked_us is None and row.expires_us > now


def _state(row: TokenRow, now: int, blocked: frozenset[str]) -> str:
    if row.revoked_us is not None:
        return "revoked"
    if row.expires_us <= now:
        return "expired"
    return "blocked" if blocked & {row.principal, f"agent:{row.agent}"} else "good"


def _counted(number: int) -> str:
    return "1 token" if number == 1 else f"{number} tokens"


def _who(row: TokenRow) -> str:
    return row.principal if row.agent is None else f"{row.principal} by {row.agent}"


def _scope(row: TokenRow) -> str:
    parts = [
        f"{word} {', '.join(names)}"
        for word, names in (("servers", row.servers), ("tools", row.tools))
        if names is not None
    ]
    return "; ".join(parts) or "no narrowing"


def _time(moment_us: int | None) -> str | None:
    if moment_us is None:
        return None
    return datetime.fromtimestamp(moment_us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _plain(row: TokenRow, now: int, blocked: frozenset[str] = frozenset()) -> dict[str, object]:
    """A row for machines: times as ISO 8601 in UTC, scopes as lists or null."""
    names = ("id", "principal", "agent", "parent", "servers", "tools", "created_by", "last_ip")
    times = ("created", "expires", "last_used", "revoked")
    return {
        **{name: getattr(row, name) for name in names},
        **{name: _iso(getattr(row, f"{name}_us")) for name in times},
        "revoked_by": row.revoked_by,
        "revoked_why": row.revoked_why,
        "state": _state(row, now, blocked),
    }


def _iso(moment_us: int | None) -> str | None:
    if moment_us is None:
        return None
    return datetime.fromtimestamp(moment_us // 1_000_000, UTC).isoformat()


def _print(rows: list[TokenRow], now: int, blocked: frozenset[str]) -> None:
    table(
        _COLUMNS,
        [
            (
                row.id,
                row.principal,
                row.agent,
                _scope(row),
                _time(row.created_us),
                _time(row.expires_us),
                _time(row.last_used_us),
                _state(row, now, blocked),
            )
            for row in rows
        ],
    )
