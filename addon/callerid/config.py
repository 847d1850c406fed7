"""The nouns of the four rule files once they are loaded: plain, frozen, no YAML left in them.

``policy.load`` makes them; ``identity``, ``credentials`` and ``proxy`` read them.
Durations are seconds. Paths are absolute, resolved against the rules directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from callerid.model import EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An issuer of JWTs (``type: oidc``). Exactly one of ``jwks_url`` and ``jwks_file`` is set."""

    id: str
    issuer: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    jwks_url: str | None = None
    jwks_file: Path | None = None
    max_token_age: int = 3600
    leeway: int = 30
    require_claims: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    claims: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    assurance: Literal["workload", "idp"] = "idp"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCA:
    """A CA whose client certificates name callers. ``principal_from`` picks the SAN."""

    id: str
    file: Path
    principal_from: Literal["san_email", "san_uri", "san_dns"]
    agent_from: Literal["san_uri", "san_dns"] | None = None
    crl: Path | None = None
    denied_sha256: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A registered agent. ``servers`` and ``tools`` are its ceiling; None is no ceiling."""

    name: str
    kind: str
    owners: tuple[str, ...]
    servers: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A machine identity: ``workload:ID`` for JWTs of ``issuer`` whose mapped claims all match (globs)."""

    id: str
    issuer: str
    match: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """identities.yaml."""

    issuers: tuple[Issuer, ...] = ()
    client_cas: tuple[ClientCA, ...] = ()
    groups: Mapping[str, frozenset[str]] = field(default_factory=lambda: EMPTY)
    agents: Mapping[str, Agent] = field(default_factory=lambda: EMPTY)
    workloads: tuple[Workload, ...] = ()
    blocked: frozenset[str] = frozenset()
    token_max_ttl: int = 30 * 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One governed MCP server. ``host`` is lower-case ASCII (IDNA), ``path`` begins with a slash.

    ``targets`` maps a tool's name to the argument (name or JSON pointer) that says what it acts on.
    """

    id: str
    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str
    labels: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    credential: str | None = None
    targets: Mapping[str, str] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The one place a secret may go to: https, these hosts with their ports, these paths, these methods.

    ``hosts`` holds (host, port). ``paths`` are globs; ``/**`` at the end matches any depth.
    """

    hosts: frozenset[tuple[str, int]]
    paths: tuple[str, ...] = ("/**",)
    methods: frozenset[str] = frozenset({"GET", "POST", "DELETE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A shared upstream secret: where it is read, how it is written, where it may go. Never its value.

    ``source_kind`` ``env``: ``source`` is a variable's name; ``file``: a path.
    ``header`` is the header's name; ``template`` holds ``{secret}`` once (bearer: ``Bearer {secret}``).
    For ``basic``, ``username`` is set and the secret is the password.
    """

    id: str
    source_kind: Literal["env", "file"]
    source: str
    inject: Literal["bearer", "basic", "header"]
    header: str = "Authorization"
    template: str = "Bearer {secret}"
    username: str | None = None
    binding: Binding


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """servers.yaml. ``passthrough`` hosts keep their TLS closed and are never given a secret."""

    servers: tuple[Server, ...] = ()
    passthrough: frozenset[str] = frozenset()
