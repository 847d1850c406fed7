"""What the commands over the registry share: opening it, and tokens as tables and JSON."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from callerid.cli.output import table
from callerid.config import Identities
from callerid.errors import ConfigError, StoreError
from callerid.home import Home
from callerid.identity.names import is_name, is_selector, parse_subject
from callerid.identity.narrowing import Scope
from callerid.identity.networks import parse_network
from callerid.identity.registry import Registry
from callerid.identity.rows import TokenRow
from callerid.identity.spans import seconds_of, span_of
from callerid.model import EMPTY
from callerid.policy.load import load_rules
from callerid.policy.problems import did_you_mean

COLUMNS = ("id", "principal", "agent", "scope", "created", "expires", "last used", "from", "state")


@contextlib.contextmanager
def opened(home: Path) -> Iterator[Registry]:
    """The registry of an existing home: a misspelt one must not look like one without tokens.

    Raises:
        StoreError: there is none, or it cannot be used.
    """
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


def longest_life(rules: Path) -> int:
    """The longest life of a token, in seconds: what identities.yaml says, if there is one."""
    if not (rules / "identities.yaml").exists():
        return Identities().token_max_ttl
    return load_rules(rules).identities.token_max_ttl


def unknown_names(rules: Path, scope: Scope) -> Iterator[str]:
    """What the rules do not know of a scope. A warning is enough: the rules may come later."""
    if not (rules / "identities.yaml").exists():
        return
    loaded = load_rules(rules)
    known = [server.id for server in loaded.servers.servers]
    agents = loaded.identities.agents
    if scope.agent is not None and agents and scope.agent not in agents:
        yield f"identities.yaml has no agent {scope.agent}. {did_you_mean(scope.agent, agents)}".strip()
    for server in scope.servers or ():
        if server not in known:
            yield f"servers.yaml has no server {server}. {did_you_mean(server, known)}".strip()


def life(ttl: str, longest: int) -> int:
    """``--ttl`` in seconds.

    Raises:
        ConfigError: it is no time, or longer than allowed.
    """
    span = span_in("--ttl", ttl)
    if not 0 < span <= longest:
        raise ConfigError(
            f"--ttl {ttl} is not between 1s and {span_of(longest)}",
            hint="A longer life needs another max_ttl under issuers in identities.yaml, type opaque.",
        )
    return span


def span_in(option: str, text: str) -> int:
    """An option's time in seconds.

    Raises:
        ConfigError: it is none.
    """
    span = seconds_of(text)
    if span is None:
        raise ConfigError(
            f"{option} {text} is not a time", hint="Write a number and s, m, h or d: 90m, 12h, 30d."
        )
    return span


def principal_in(text: str) -> str:
    """A principal as it is stored.

    Raises:
        ConfigError: it is none.
    """
    subject = parse_subject(text)
    if subject is None:
        raise ConfigError(
            f"{text!r} is not a principal", hint="Write user:NAME or workload:NAME: user:alice@corp.example"
        )
    return subject


def scope_in(
    agent: str | None, servers: tuple[str, ...], tools: tuple[str, ...], networks: tuple[str, ...]
) -> Scope:
    """The scope that the options of a command name.

    Raises:
        ConfigError: something in it is no name, or no network.
    """
    if agent is not None and not is_name(agent):
        raise ConfigError("--agent is not a name", hint="For example --agent claude-code")
    if not all(map(is_name, servers)) or not all(map(is_selector, tools)):
        raise ConfigError(
            "--server or --tool is not a name",
            hint="They are server ids and globs, without spaces; for an API, 'http:GET /v1/**'.",
        )
    return Scope(
        agent=agent,
        servers=servers or None,
        tools=tools or None,
        networks=tuple(map(_network, networks)) or None,
    )


def _network(text: str) -> str:
    try:
        return str(parse_network(text))
    except ValueError as error:
        raise ConfigError(
            f"--network {text!r} is no network: {error}", hint="Write 10.20.0.0/16 or 2001:db8::/32."
        ) from error


def operator() -> str:
    """Who runs this command, as far as the system says."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def now_us() -> int:
    return int(datetime.now(UTC).timestamp() * 1_000_000)


type Lineages = Mapping[str, Sequence[TokenRow]]
"""By token: itself and its parents, where it has any. One dead parent kills all below it."""


def lineages(rows: Iterable[TokenRow], registry: Registry) -> Lineages:
    """Those of tokens that were derived from others."""
    return {row.id: registry.lineage(row) for row in rows if row.parent is not None}


def is_live(row: TokenRow, now: int, above: Lineages) -> bool:
    return all(token.revoked_us is None and token.expires_us > now for token in above.get(row.id, (row,)))


def names_of(row: TokenRow) -> frozenset[str]:
    """The subjects whose block refuses this token, apart from those above it."""
    agents = {*row.actors, *({row.agent} if row.agent is not None else ())}
    return frozenset((row.principal, *(f"agent:{name}" for name in agents), *row.origin))


def state(row: TokenRow, now: int, blocked: frozenset[str], above: Lineages) -> str:
    """One word for it and all above it: good, blocked, expired, revoked."""
    lineage = above.get(row.id, (row,))
    if any(token.revoked_us is not None for token in lineage):
        return "revoked"
    if any(token.expires_us <= now for token in lineage):
        return "expired"
    return "blocked" if any(blocked & names_of(token) for token in lineage) else "good"


def counted(number: int) -> str:
    return "1 token" if number == 1 else f"{number} tokens"


def who(row: TokenRow) -> str:
    return row.principal if row.agent is None else f"{row.principal} by {row.agent}"


def scope_text(row: TokenRow) -> str:
    """What narrows it, in words."""
    parts = [
        f"{word} {', '.join(names)}"
        for word, names in (("servers", row.servers), ("tools", row.tools), ("from", row.networks))
        if names is not None
    ]
    return "; ".join(parts) or "no narrowing"


def shown_time(moment_us: int | None) -> str | None:
    if moment_us is None:
        return None
    return datetime.fromtimestamp(moment_us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def plain(
    row: TokenRow, now: int, blocked: frozenset[str] = frozenset(), above: Lineages = EMPTY
) -> dict[str, object]:
    """A row for machines: times as ISO 8601 in UTC, scopes as lists or null."""
    names = ("id", "principal", "agent", "actors", "parent", "origin", "servers", "tools", "networks",
             "rotated_to", "created_by", "last_ip")  # fmt: skip
    times = ("created", "expires", "last_used", "revoked")
    return {
        **{name: getattr(row, name) for name in names},
        **{name: _iso(getattr(row, f"{name}_us")) for name in times},
        "revoked_by": row.revoked_by,
        "revoked_why": row.revoked_why,
        "state": state(row, now, blocked, above),
    }


def _iso(moment_us: int | None) -> str | None:
    if moment_us is None:
        return None
    return datetime.fromtimestamp(moment_us // 1_000_000, UTC).isoformat()


def print_tokens(
    rows: Sequence[TokenRow],
    now: int,
    blocked: frozenset[str],
    above: Lineages,
    depths: Iterable[int] | None = None,
) -> None:
    """Tokens as a table; ``depths`` indents the ids below their parents."""
    table(
        COLUMNS,
        [
            (
                "  " * depth + row.id,
                row.principal,
                row.agent if len(row.actors) < 2 else " < ".join(row.actors),
                scope_text(row),
                shown_time(row.created_us),
                shown_time(row.expires_us),
                shown_time(row.last_used_us),
                row.last_ip,
                state(row, now, blocked, above),
            )
            for row, depth in zip(rows, depths if depths is not None else [0] * len(rows), strict=True)
        ],
    )
