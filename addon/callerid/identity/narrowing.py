"""A child is never more than its parent: what a derived token may be. Pure.

Decided here is what can be decided: server ids, networks, times, and plain names of tools. Globs of tools
cannot be compared in general, and need not be: the scopes of a token and of all above it apply together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from callerid.errors import ConfigError
from callerid.identity.names import glob_match
from callerid.identity.networks import inside
from callerid.identity.rows import TokenRow

MAX_ACTORS = 5
"""Agents in one chain, as in the ``act`` claim of a JWT (DESIGN section 5)."""

_GLOB = frozenset("*?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is asked of a new token. None is no narrowing; ``agent`` None keeps that of its parent."""

    agent: str | None = None
    servers: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None


def actors_below(agent: str | None, actors: Sequence[str], asked: str | None) -> tuple[str, ...]:
    """The chain of agents of a child, current first (RFC 8693 section 4.1).

    Args:
        agent: the agent of the parent, or of the caller.
        actors: its chain. Where the agent is not in it (a JWT names it apart from ``act``), it leads it.
        asked: the child's agent; None, or the same name again, adds no link.

    Raises:
        ConfigError: the chain would be longer than MAX_ACTORS.
    """
    if asked is None or asked == agent:
        return tuple(actors)
    before = actors if agent is None or agent in actors else (agent, *actors)
    chain = (asked, *before)
    if len(chain) > MAX_ACTORS:
        raise ConfigError(
            f"the chain of agents would be longer than {MAX_ACTORS}", hint="Derive from one further up."
        )
    return chain


def check_alive(lineage: Iterable[TokenRow], now_us: int) -> None:
    """Raises:
    ConfigError: one of these tokens is revoked or has expired."""
    for token in lineage:
        if token.revoked_us is not None or token.expires_us <= now_us:
            raise ConfigError(f"token {token.id} is revoked or expired", hint="Issue a new one.")


def check_narrower(lineage: Sequence[TokenRow], asked: Scope, expires_us: int) -> None:
    """See that a child asks for no more than its parent (first in ``lineage``) and all above that have.

    Raises:
        ConfigError: it does, and the message says where.
    """
    for token in lineage:
        if expires_us > token.expires_us:
            raise ConfigError(f"a token below {token.id} does not outlive it", hint="Ask for a shorter ttl.")
        _subset("server", asked.servers, token.servers, token.id)
        if asked.tools is not None and token.tools is not None:
            for tool in asked.tools:
                if _GLOB.isdisjoint(tool) and not any(_may_cover(glob, tool) for glob in token.tools):
                    raise _outside("tool", tool, token.id)
        if asked.networks is not None and token.networks is not None:
            for network in asked.networks:
                if not inside(network, token.networks):
                    raise _outside("network", network, token.id)


def _may_cover(selector: str, tool: str) -> bool:
    """Whether a selector of a token could cover a tool; one with a kind or a set is not looked into."""
    return selector == tool or ":" in selector or ":" in tool or glob_match(selector, tool)


def _subset(what: str, asked: tuple[str, ...] | None, given: tuple[str, ...] | None, above: str) -> None:
    if asked is None or given is None:
        return
    for name in asked:
        if name not in given:
            raise _outside(what, name, above)


def _outside(what: str, name: str, above: str) -> ConfigError:
    return ConfigError(
        f"the {what} {name} is not within token {above}", hint="A derived token is never good for more."
    )
