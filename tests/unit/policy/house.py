"""What the policy tests share: rule folders, callers, and a short way to ask the engine."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from callerid.config import Server
from callerid.errors import ConfigError, Problem
from callerid.model import Assurance, Caller, Ceiling, Decision, Kind, Principal
from callerid.policy.engine import Engine
from callerid.policy.load import RuleSet, load_rules

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)  # a Monday, 10:00 in Zurich

IDENTITIES = """\
version: 1
issuers:
  - {id: local, type: opaque, max_ttl: 12h}
  - id: ci
    type: oidc
    issuer: https://ci.corp.example
    jwks_url: https://ci.corp.example/jwks
    audiences: [callerid]
    algorithms: [RS256]
    claims: {workload: sub, groups: groups}
groups:
  engineering: {members: ["user:alice@corp.example", "user:bob@corp.example"]}
  interns: {members: ["user:ivy@corp.example"]}
  support: {members: ["user:sam@corp.example"]}
agents:
  claude-code: {kind: assistant, owners: ["group:engineering"]}
  refund-bot: {kind: autonomous, owners: ["group:support"], servers: [payments], tools: [get_charge]}
workloads:
  - {id: ci-docs, issuer: ci, match: {workload: "repo:corp/docs:*"}}
"""
SERVERS = """\
version: 1
servers:
  - {id: github, url: https://github.corp.example/mcp, labels: {env: prod, team: eng}}
  - {id: payments, url: https://payments.corp.example/, labels: {env: prod}, credential: payments-shared}
  - {id: files, url: https://files.corp.example/mcp, labels: {env: prod, team: shared}}
  - {id: sandbox, url: "http://127.0.0.1:8000/mcp", labels: {env: dev}}
"""
CREDENTIALS = """\
version: 1
credentials:
  - id: payments-shared
    source: {file: /run/secrets/payments}
    inject: {bearer: {}}
    bind: {hosts: [payments.corp.example]}
"""
POLICY = "version: 1\nrules: []\n"


def write(folder: Path, **files: str) -> Path:
    """A complete rules folder; ``policy=`` and the like replace whole files."""
    texts = {"identities": IDENTITIES, "servers": SERVERS, "credentials": CREDENTIALS, "policy": POLICY}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (texts | files).items():
        (folder / f"{name}.yaml").write_bytes(text.encode())
    return folder


def load(folder: Path, **files: str) -> RuleSet:
    return load_rules(write(folder, **files))


def faults(folder: Path, **files: str) -> tuple[Problem, ...]:
    """The problems of a folder; empty if it loads."""
    try:
        load(folder, **files)
    except ConfigError as error:
        return error.problems
    return ()


def told(problems: tuple[Problem, ...]) -> list[str]:
    return [f"{p.file}:{p.line}:{p.column}: {p.message}" for p in problems]


def rules(text: str, head: str = "") -> str:
    """A policy.yaml of rules written as a YAML list."""
    return f"version: 1\n{head}rules:\n{text}"


class World:
    """An engine, and the servers and groups that go with it."""

    def __init__(self, loaded: RuleSet) -> None:
        self.loaded = loaded
        self.engine: Engine = loaded.engine
        self.servers: Mapping[str, Server] = {server.id: server for server in loaded.servers.servers}

    def caller(
        self,
        subject: str,
        *,
        agent: str | None = None,
        assurance: str = "bearer",
        groups: frozenset[str] | None = None,
        ceilings: tuple[Ceiling, ...] = (),
    ) -> Caller:
        subject = subject if ":" in subject else f"user:{subject}@corp.example"
        found = {name for name, members in self.loaded.identities.groups.items() if subject in members}
        return Caller(
            principal=Principal(subject, "local"),
            agent=agent,
            actors=(),
            evidence=(),
            assurance=Assurance[assurance.upper()],
            assurance_name=assurance,
            credential_id="t",
            groups=frozenset(found) if groups is None else groups,
            ceilings=ceilings,
        )

    def ask(
        self,
        who: str | Caller,
        server: str,
        name: str | None,
        arguments: Mapping[str, Any] | None = None,
        *,
        kind: Kind = Kind.TOOL,
        method: str = "tools/call",
        now: datetime = NOW,
        **extra: Any,
    ) -> Decision:
        caller = who if isinstance(who, Caller) else self.caller(who, **extra)
        return self.engine.decide(
            caller=caller,
            server=self.servers[server],
            kind=kind,
            method=method,
            name=name,
            arguments=arguments or {},
            now=now,
        )

    def sees(
        self, who: str, server: str, name: str, *, kind: Kind = Kind.TOOL, now: datetime = NOW, **extra: Any
    ) -> bool:
        return self.engine.visible(
            caller=self.caller(who, **extra), server=self.servers[server], kind=kind, name=name, now=now
        )


def world(folder: Path, policy: str, **files: str) -> World:
    return World(load(folder, policy=policy, **files))
