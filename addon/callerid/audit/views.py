"""The views over the tables: what analysts ask, and a stable API (DESIGN section 3).

Columns may be added at the end of a view; none is renamed or taken away. Each migration makes all of them
anew, so an older file gets the views of this version as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from callerid.audit.columns import CALLS, CALLS_NAMES, FINDINGS, RAW_KEYS, Column, utc

SHOWN = 100
"""The most names in one cell of ``servers_seen``; callers choose names, and a view has to stay readable."""
OWN_CREDENTIAL = "carries its own"
"""How the detail says that the caller sent a credential of its own to a server that is not listed."""

SERVER_SEEN = "server_seen"
"""The kind of the event that says which tools a server lists, written when that changes."""


def _selected(columns: Iterable[Column]) -> str:
    return "SELECT\n  " + ",\n  ".join(f"{column.sql} AS {column.name}" for column in columns)


_CALLS = f"{_selected(CALLS)}\nFROM decision d LEFT JOIN outcome o ON o.event_id = d.event_id"
# SQLite uses a partial index only for a query that says the index's own condition: the literal stays.
_REFUSALS = f"SELECT {', '.join(CALLS_NAMES)}\nFROM calls WHERE verdict <> 'allow'"


def _set(column: str, where: str = "") -> str:
    """SQL for the different values of a column within a group, as a JSON array."""
    condition = f"{column} IS NOT NULL" + (f" AND {where}" if where else "")
    return f"json_group_array(DISTINCT {column}) FILTER (WHERE {condition})"


def _shown(column: str, more: str = "") -> str:
    """SQL for the first SHOWN of such values, in order."""
    first = f"SELECT value FROM json_each({column}) {more} ORDER BY value LIMIT {SHOWN}"  # noqa: S608
    return f"(SELECT json_group_array(value) FROM ({first}))"  # noqa: S608 -- constants only


def _by_address(row: str) -> str:
    """SQL: the row names its server as one that is not listed, by its own address.

    That has its port, unless that is the scheme's own.
    """
    address = f"lower(replace(replace({row}.upstream, '[', ''), ']', ''))"
    server = f"{row}.server"
    return f"({server} IN ('-', {address}) OR {address} IN ({server} || ':443', {server} || ':80'))"


# What is refused at any URL, or before there is one, says nothing of a server; nor does our own desk.
_IS_OF_A_SERVER = f"""NOT (server = 'callerid' AND upstream LIKE 'callerid.internal:%')
    AND NOT ((method = 'http/CONNECT' OR (method LIKE 'http/%' AND reason IN ('raw_key',
      'token_in_request', 'certificate_required'))) AND {_by_address("decision")})"""
# The order of GROUP BY matters: led by ``server``, SQLite would walk an index and fetch row after row from
# all over the file. So it reads the file once, from its beginning to its end, and still uses that index
# when a question names one server.
_GROUPS = f"""
  SELECT
    server, upstream, path,
    min(time_us) AS first_us,
    max(time_us) AS last_us,
    count(*) AS calls,
    sum(verdict <> 'allow') AS refused,
    {_set("principal", "principal <> 'anonymous'")} AS principals,
    {_set("agent")} AS agents,
    {_set("client_name")} AS clients,
    {_set("tool", "coalesce(kind, 'tool') = 'tool'")} AS tools,
    max(time_us || protocol) AS protocol,
    max(instr(evidence, '"kind":"scoped_token"')) AS scoped_token,
    max(instr(evidence, '"kind":"jwt"')) AS jwt,
    max(instr(evidence, '"kind":"client_cert"')) AS client_cert,
    max(instr(coalesce(detail, ''), '{OWN_CREDENTIAL}')) AS own,
    max(evidence = '[]' AND (credential_id IS NOT NULL OR claimed_subject IS NOT NULL)) AS rejected,
    max(evidence = '[]' AND credential_id IS NULL AND claimed_subject IS NULL
        AND instr(coalesce(detail, ''), '{OWN_CREDENTIAL}') = 0) AS bare,
    max(reason IN ('granted', 'protocol', 'monitored', 'no_grant', 'rule_denied', 'requirement_failed',
                   'outside_scope')) AS governed,
    max(reason IN ('observed', 'unknown_server', 'address_refused')) AS unlisted
  FROM decision WHERE {_IS_OF_A_SERVER}
  GROUP BY upstream, path, server"""  # noqa: S608 -- constants only
_CREDENTIALS = " UNION ALL ".join(
    f"SELECT '{name}' AS value WHERE g.{flag}"
    for name, flag in (
        ("scoped_token", "scoped_token"),
        ("jwt", "jwt"),
        ("client_cert", "client_cert"),
        ("own", "own"),
        ("rejected", "rejected"),
        ("none", "bare"),
    )
)
_LISTED_TOOLS = f"""
    UNION SELECT json_extract(t.value, '$.tool') FROM event e, json_each(e.detail, '$.tools') t
    WHERE e.kind = '{SERVER_SEEN}' AND json_valid(e.detail)
      AND json_extract(e.detail, '$.server') = g.server AND json_extract(e.detail, '$.upstream') = g.upstream
      AND json_extract(e.detail, '$.path') IS g.path"""  # noqa: S608 -- constants only
_SERVERS_SEEN = f"""SELECT
  g.server AS server,
  g.upstream AS upstream,
  {utc("g.first_us")} AS first_seen,
  {utc("g.last_us")} AS last_seen,
  json_array_length(g.principals) AS callers,
  g.calls AS calls,
  g.refused AS refused,
  rtrim(rtrim(g.upstream, '0123456789'), ':') AS host,
  g.path AS path,
  substr(g.protocol, 17) AS protocol,  -- after the 16 digits of a time until the year 2286
  {_shown("g.tools", _LISTED_TOOLS)} AS tools,
  {_shown("g.principals")} AS caller_names,
  {_shown("g.agents")} AS agents,
  (SELECT json_group_array(value) FROM ({_CREDENTIALS})) AS credentials,
  {_shown("g.clients")} AS clients,
  CASE WHEN g.governed THEN 1 WHEN g.unlisted THEN 0
    ELSE NOT {_by_address("g")} END AS listed,
  g.calls - g.refused AS allowed
FROM ({_GROUPS}
) g"""  # noqa: S608 -- constants only
_CREDENTIAL_USE = f"""SELECT
  injected,
  server,
  principal,
  count(*) AS calls,
  {utc("min(time_us)")} AS first,
  {utc("max(time_us)")} AS last
FROM decision WHERE injected IS NOT NULL AND verdict = 'allow' GROUP BY injected, server, principal"""  # noqa: S608 -- constants only
_FINDINGS = f"{_selected(FINDINGS)}\nFROM finding"
_KEYS = f"""
  SELECT
    kind, credential, fingerprint,
    {_set("principal")} AS people,
    {_set("server")} AS places,
    count(*) AS findings,
    min(time_us) AS first_us,
    max(time_us) AS last_us
  FROM finding WHERE kind IN ('raw_key', 'own_key') AND fingerprint IS NOT NULL
  GROUP BY fingerprint, credential, kind"""  # noqa: S608 -- constants only
_NAMES = {"caller_names": _shown("people"), "servers": _shown("places")}
_RAW_KEYS = (
    _selected(replace(column, sql=_NAMES.get(column.name, column.sql)) for column in RAW_KEYS)
    + f"\nFROM ({_KEYS}\n)"
)

VIEWS: Mapping[str, str] = {
    "calls": _CALLS,
    "refusals": _REFUSALS,
    "servers_seen": _SERVERS_SEEN,
    "credential_use": _CREDENTIAL_USE,
    "findings": _FINDINGS,
    "raw_keys": _RAW_KEYS,
}
"""Every view by name, in an order in which they can be made."""
