"""The rule files that the demo writes: what somebody would put in git, with two ports filled in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ISSUER = "https://ci.corp.example"
AUDIENCE = "callerid"
CI_SUBJECT = "repo:corp/docs:ref:refs/heads/main"

_IDENTITIES = f"""\
version: 1
issuers:
  - id: ci
    type: oidc
    issuer: {ISSUER}
    jwks_file: ci-jwks.json
    audiences: [{AUDIENCE}]
    algorithms: [EdDSA]
    max_token_age: 15m
    claims: {{workload: sub}}
    assurance: workload
client_cas:
  - id: device-ca
    file: device-ca.pem
    principal_from: san_email
    agent_from: san_uri
groups:
  engineering:
    members: ["user:alice@corp.example", "user:bob@corp.example"]
agents:
  claude-code: {{kind: assistant, owners: ["group:engineering"]}}
  researcher: {{kind: autonomous, owners: ["group:engineering"]}}
workloads:
  - id: ci-docs
    issuer: ci
    match: {{workload: "{CI_SUBJECT}"}}
"""

_SERVERS = """\
version: 1
servers:
  - id: tickets
    url: https://localhost:{tickets}/mcp
    labels: {{env: prod}}
    credential: tickets-shared
    assertion: {{}}
    targets: {{read_ticket: id, close_ticket: id, delete_ticket: id}}
  - id: warehouse
    url: https://localhost:{warehouse}/mcp
    labels: {{env: prod}}
    credential: warehouse-shared
    targets: {{export_rows: table, drop_table: name}}
"""

_CREDENTIALS = """\
version: 1
credentials:
  - id: tickets-shared
    source: {{env: DEMO_TICKETS_KEY}}
    inject: {{bearer: {{}}}}
    bind: {{hosts: ["localhost:{tickets}"], paths: [/mcp]}}
  - id: warehouse-shared
    source: {{file: {warehouse_key}}}
    inject: {{header: {{name: X-Api-Key}}}}
    bind: {{hosts: ["localhost:{warehouse}"], paths: [/mcp]}}
"""

POLICY = """\
version: 1
mode: enforce
unknown_server: deny
sets:
  read_tools: ["search_*", "read_*"]
  destructive_tools: ["delete_*", "drop_*"]
rules:
  - id: engineering
    effect: allow
    who: ["group:engineering"]
    servers: [tickets, warehouse]
  - id: ci-reads-tickets
    effect: allow
    who: ["workload:ci-docs"]
    servers: [tickets]
    tools: ["set:read_tools"]
  - id: no-destruction
    effect: deny
    servers: ["label:env=prod"]
    tools: ["set:destructive_tools"]
  - id: customers-stay-in
    effect: deny
    servers: [warehouse]
    tools: [export_rows]
    args:
      table: {glob: "customers*"}
    reason: Customer tables leave the warehouse only through the data office.
  - id: query-ceiling
    effect: require
    servers: [warehouse]
    tools: [query]
    args:
      limit: {type: integer, ge: 1, le: 1000}
    reason: Ask for at most 1000 rows at a time.
"""


def write_rules(
    folder: Path, *, ports: Mapping[str, int], warehouse_key: Path, device_ca: bytes, jwks: str
) -> None:
    """Write the four rule files, and the two that identities.yaml names, into ``folder``.

    Args:
        folder: exists.
        ports: of ``tickets`` and ``warehouse`` on localhost.
        warehouse_key: the file with the warehouse's shared key.
        device_ca: PEM of the CA whose certificates name people.
        jwks: the public keys of the CI's issuer.
    """
    places = {"tickets": ports["tickets"], "warehouse": ports["warehouse"], "warehouse_key": warehouse_key}
    texts = {
        "identities.yaml": _IDENTITIES,
        "servers.yaml": _SERVERS.format(**places),
        "credentials.yaml": _CREDENTIALS.format(**places),
        "policy.yaml": POLICY,
        "ci-jwks.json": jwks,
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "device-ca.pem").write_bytes(device_ca)
