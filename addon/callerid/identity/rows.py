"""The rows of the registry and its schema (version 2). No database in here.

A scope that cannot be read must not become "no narrowing", so reading one raises.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from callerid.identity.networks import parse_network

APPLICATION_ID = int.from_bytes(b"cidR")
SCHEMA_VERSION = 2

# Version 1, from which ``UPGRADES`` lead to ours; a new file takes the same way.
# The counter of generations is kept by triggers, so that a change made by hand with another tool counts too.
SCHEMA = """
CREATE TABLE tokens (
  id TEXT PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, principal TEXT NOT NULL, agent TEXT,
  parent TEXT REFERENCES tokens(id), servers TEXT, tools TEXT,
  created_us INTEGER NOT NULL, created_by TEXT NOT NULL, expires_us INTEGER NOT NULL,
  last_used_us INTEGER, last_ip TEXT, revoked_us INTEGER, revoked_by TEXT, revoked_why TEXT
) STRICT;
CREATE INDEX tokens_principal ON tokens(principal);
CREATE INDEX tokens_parent ON tokens(parent);
CREATE TABLE blocked (
  subject TEXT PRIMARY KEY, since_us INTEGER NOT NULL, why TEXT, by TEXT NOT NULL
) STRICT;
CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), generation INTEGER NOT NULL) STRICT;
INSERT INTO state VALUES (1, 1);
CREATE TRIGGER token_changed AFTER UPDATE OF
  id, sha256, principal, agent, parent, servers, tools, expires_us, revoked_us ON tokens
  BEGIN UPDATE state SET generation = generation + 1; END;
CREATE TRIGGER token_deleted AFTER DELETE ON tokens
  BEGIN UPDATE state SET generation = generation + 1; END;
CREATE TRIGGER blocked_added AFTER INSERT ON blocked
  BEGIN UPDATE state SET generation = generation + 1; END;
CREATE TRIGGER blocked_changed AFTER UPDATE ON blocked
  BEGIN UPDATE state SET generation = generation + 1; END;
CREATE TRIGGER blocked_removed AFTER DELETE ON blocked
  BEGIN UPDATE state SET generation = generation + 1; END;
"""
UPGRADES: Mapping[int, str] = MappingProxyType(
    {
        1: """
ALTER TABLE tokens ADD COLUMN networks TEXT;
ALTER TABLE tokens ADD COLUMN actors TEXT;
ALTER TABLE tokens ADD COLUMN in_groups TEXT;
ALTER TABLE tokens ADD COLUMN origin TEXT;
ALTER TABLE tokens ADD COLUMN chain TEXT;
ALTER TABLE tokens ADD COLUMN jwts TEXT;
ALTER TABLE tokens ADD COLUMN rotated_to TEXT;
DROP TRIGGER token_changed;
CREATE TRIGGER token_changed AFTER UPDATE OF
  id, sha256, principal, agent, parent, servers, tools, expires_us, revoked_us,
  networks, actors, in_groups, origin, chain, jwts ON tokens
  BEGIN UPDATE state SET generation = generation + 1; END;
DROP TRIGGER token_deleted;
CREATE TRIGGER token_deleted AFTER DELETE ON tokens
  WHEN OLD.revoked_us IS NULL AND OLD.expires_us > strftime('%s', 'now') * 1000000
  BEGIN UPDATE state SET generation = generation + 1; END;
""",
    }
)
"""Version -> the statements that make the next one of it. They only add.

A row that was good to nobody any more may be tidied away unnoticed: all callers would be verified anew, and
all streams judged again, for nothing.
"""

COLUMNS = (
    "id, principal, agent, parent, servers, tools, created_us, created_by, expires_us, "
    "last_used_us, last_ip, revoked_us, revoked_by, revoked_why, "
    "networks, actors, in_groups, origin, chain, jwts, rotated_to"
)
_NAMES = COLUMNS.split(", ")
_LISTS = ("actors", "in_groups", "origin", "chain", "jwts")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """One issued token, without its digest. Times are microseconds since the epoch, UTC.

    ``networks`` are those it is good from, None for all. ``actors`` is the chain of agents of a derived
    token, the current one first (RFC 8693 section 4.1). A token derived from other evidence than a token
    keeps what that was: ``origin`` its credential ids, ``chain`` its certificates (base64 of DER, leaf
    first), ``jwts`` what made its JWTs good (``origins``), ``in_groups`` the groups that its claims named.
    ``rotated_to`` is the token that replaces it.
    """

    id: str
    principal: str
    agent: str | None
    parent: str | None
    servers: tuple[str, ...] | None
    tools: tuple[str, ...] | None
    created_us: int
    created_by: str
    expires_us: int
    last_used_us: int | None = None
    last_ip: str | None = None
    revoked_us: int | None = None
    revoked_by: str | None = None
    revoked_why: str | None = None
    networks: tuple[str, ...] | None = None
    actors: tuple[str, ...] = ()
    in_groups: tuple[str, ...] = ()
    origin: tuple[str, ...] = ()
    chain: tuple[str, ...] = ()
    jwts: tuple[str, ...] = ()
    rotated_to: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockedRow:
    """One blocked subject: nothing that it presents is accepted."""

    subject: str
    since_us: int
    why: str | None
    by: str


def scope_to_text(scope: tuple[str, ...] | None) -> str | None:
    """A scope as it is stored: a JSON list, or null for no narrowing."""
    return None if scope is None else json.dumps(scope)


def scope_from_text(text: str | None) -> tuple[str, ...] | None:
    """A scope as it was stored.

    Raises:
        ValueError: anything but null or a JSON list of texts.
    """
    if text is None:
        return None
    value = json.loads(text)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("a scope is not a list of names")
    return tuple(value)


def token_from(row: Sequence[Any]) -> TokenRow:
    """A row of ``COLUMNS`` as a TokenRow.

    Raises:
        ValueError: its scopes, or another list in it, cannot be read.
    """
    values = dict(zip(_NAMES, row, strict=True))
    for name in ("servers", "tools", "networks"):
        values[name] = scope_from_text(values[name])
    for name in _LISTS:
        values[name] = scope_from_text(values[name]) or ()
    for network in values["networks"] or ():
        parse_network(network)
    return TokenRow(**values)
