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
    """An issuer of JWTs (``type: oidc``). Exactly one of ``jwks_url`` and ``jwks_file`` is set.

    ``claims`` and ``require_claims`` name a claim, or by JSON pointer one inside of it; required values are
    globs. ``clients`` are the accepted values of ``azp`` or ``client_id``, empty for all. Keys that could not
    be renewed are good for ``stale_for`` seconds. ``sender_constrained``: only tokens bound to a certificate
    (RFC 8705) or a key (RFC 9449), with the proof. ``login``: clients without evidence are sent here
    (RFC 9728), and a token made for the very server that is called is accepted besides ``audiences``.
    """

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
    stale_for: int = 86400
    clients: tuple[str, ...] = ()
    sender_constrained: bool = False
    login: bool = False


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
class TrustedHop:
    """A proxy before us that may say which client certificate it saw.

    ``subject`` is the principal that its own certificate, verified by a ClientCA, names. ``accept`` are the
    headers it is believed in: ``client-cert`` (RFC 9440) and ``xfcc`` (Envoy's x-forwarded-client-cert).
    """

    id: str
    subject: str
    accept: tuple[Literal["client-cert", "xfcc"], ...]


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
    """identities.yaml. ``require_proxy_certificate``: nobody is served without a client certificate."""

    issuers: tuple[Issuer, ...] = ()
    client_cas: tuple[ClientCA, ...] = ()
    groups: Mapping[str, frozenset[str]] = field(default_factory=lambda: EMPTY)
    agents: Mapping[str, Agent] = field(default_factory=lambda: EMPTY)
    workloads: tuple[Workload, ...] = ()
    blocked: frozenset[str] = frozenset()
    token_max_ttl: int = 30 * 86400
    trusted_hops: tuple[TrustedHop, ...] = ()
    require_proxy_certificate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """What a server is told about the caller: a JWT of ours in ``header``, and in ``_meta`` if ``meta``.

    ``audience`` is its ``aud``; it is good for ``ttl`` seconds, 60 at most.
    """

    audience: str
    header: str = "X-Callerid-Assertion"
    meta: bool = False
    ttl: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One governed server: MCP, or (``kind`` ``http``) an HTTP API. ``host`` is lower-case ASCII (IDNA).

    ``path`` begins with a slash. ``targets`` maps a tool's name to the argument (name or JSON pointer) that
    says what it acts on. ``headers``: of an HTTP API, the lower-case names of those that go on to it besides
    the usual ones, and are arguments of its calls.
    """

    id: str
    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str
    labels: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    credential: str | None = None
    targets: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    kind: Literal["mcp", "http"] = "mcp"
    assertion: Assertion | None = None
    headers: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """Its URL as clients write it: no default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}[self.scheme]
        return f"{self.scheme}://{host}{'' if self.port == usual else f':{self.port}'}{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The one place a secret may go to: https, these hosts with their ports, these paths, these methods.

    ``hosts`` holds (host, port). ``paths`` are globs; ``/**`` at the end matches any depth.
    """

    hosts: frozenset[tuple[str, int]]
    paths: tuple[str, ...] = ("/**",)
    methods: frozenset[str] = frozenset({"GET", "POST", "DELETE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth:
    """How an access token is got at ``token_url``. The credential's source holds the client secret.

    For ``refresh_token`` the source holds the refresh token, and ``client_secret`` (its own credential's id)
    the client's, None for a public client. ``resource`` is RFC 8707; ``audience``, ``subject_token_type`` and
    ``requested_token_type`` are of RFC 8693.
    """

    token_url: str
    client_id: str
    client_auth: Literal["client_secret_basic", "client_secret_post"] = "client_secret_basic"
    scope: str | None = None
    resource: str | None = None
    audience: str | None = None
    client_secret: str | None = None
    subject_token_type: str = "urn:ietf:params:oauth:token-type:access_token"
    requested_token_type: str = "urn:ietf:params:oauth:token-type:access_token"


type SourceKind = Literal["env", "file", "systemd", "exec", "vault", "aws", "none"]
type InjectKind = Literal[
    "bearer",
    "basic",
    "header",
    "query",
    "cookie",
    "replace",
    "oauth_client_credentials",
    "oauth_refresh_token",
    "token_exchange",
    "aws_sigv4",
    "mtls",
    "passthrough",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """An upstream secret: where it is read, how it is written, where it may go. Never its value.

    ``source`` is for ``env`` a variable's name, for ``file`` a path, for ``systemd`` a credential's name, for
    ``exec`` nothing (``argv`` is the command), for ``vault`` ``MOUNT/PATH``, for ``aws`` a secret's id, for
    ``none`` nothing (``passthrough``). ``source_options`` are the further words of that source, by their
    names in credentials.yaml. ``refresh`` is seconds between two readings of a source that cannot be watched,
    ``stale_for`` how long the last good value outlives a source that fails, ``timeout`` one reading.

    ``header`` is the header's name; ``template`` holds ``{secret}`` once (bearer: ``Bearer {secret}``).
    For ``basic``, ``username`` is set and the secret is the password. ``name`` is that of the query parameter
    or the cookie; for ``replace`` ``place`` is where the caller's own token stands and is exchanged for the
    secret: ``header:NAME``, ``query:NAME`` or the JSON pointer of an argument. ``tripwire`` is what becomes
    of a caller who still holds the raw secret.
    """

    id: str
    source_kind: SourceKind
    source: str
    inject: InjectKind
    header: str = "Authorization"
    template: str = "Bearer {secret}"
    username: str | None = None
    binding: Binding
    argv: tuple[str, ...] = ()
    source_options: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    refresh: int = 300
    stale_for: int = 600
    timeout: int = 5
    name: str | None = None
    place: str | None = None
    oauth: OAuth | None = None
    region: str | None = None
    service: str | None = None
    tripwire: Literal["deny", "alert", "replace"] = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """servers.yaml. ``passthrough`` hosts keep their TLS closed and are never given a secret."""

    servers: tuple[Server, ...] = ()
    passthrough: frozenset[str] = frozenset()
