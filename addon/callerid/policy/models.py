"""The shape of identities.yaml, servers.yaml and credentials.yaml (the shape of policy.yaml: rulemodels).

Shape only: pydantic, strict, no unknown key. What the values mean together is checked in ``identities``
and ``servers``. The JSON Schemas for editors are generated from here, docstrings included.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

type Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
type Duration = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}[smhd]$")]
type Word = Annotated[str, Field(pattern=r"^\S{1,512}$")]
type Text = Annotated[str, Field(min_length=1, max_length=512)]
type Subject = Annotated[str, Field(pattern=r"^(user|workload):\S{1,512}$")]
type Sha256 = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}$")]


class Strict(BaseModel):
    """No unknown keys, no coercion: "100" is not 100."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class VersionedFile(Strict):
    """What every rule file begins with."""

    version: Literal[1]
    """The version of the format: 1."""


# -- identities.yaml


class OidcModel(Strict):
    """An issuer of JWTs that we accept: an identity provider, a CI system, a cluster."""

    id: Id
    """The name of this issuer in rows and rules."""
    type: Literal["oidc"]
    issuer: Word
    """The exact value of the claim iss."""
    jwks_url: Word | None = Field(default=None)
    """Where its public keys are; https. Key addresses inside a token are ignored."""
    jwks_file: Text | None = None
    """Its public keys in a file, relative to the rules directory. Instead of jwks_url."""
    audiences: list[Word] = Field(min_length=1)
    """Accepted values of the claim aud: names of ours, never another service's."""
    algorithms: list[Literal["RS256", "ES256", "EdDSA"]] = Field(min_length=1)
    """Accepted signature algorithms. Symmetric ones do not exist here."""
    max_token_age: Duration = "1h"
    """A token whose iat is older is refused."""
    leeway: Duration = "30s"
    """How far the two clocks may differ."""
    require_claims: dict[str, str] = Field(default_factory=dict)
    """Claims that must be there with exactly this text."""
    claims: dict[Literal["principal", "workload", "groups", "agent", "session"], Word] = Field(min_length=1)
    """Which claim holds the principal (a person) or the workload, and which the groups, agent and session."""
    assurance: Literal["workload", "idp"] = "idp"


class OpaqueModel(Strict):
    """The scoped tokens that we issue ourselves."""

    id: Literal["local"]
    type: Literal["opaque"]
    max_ttl: Duration = "30d"
    """No token is issued for longer."""
    assurance: Literal["bearer"] = "bearer"


class ClientCAModel(Strict):
    """A CA whose client certificates name callers."""

    id: Id
    file: Text
    """PEM file with the CA certificates, relative to the rules directory."""
    principal_from: Literal["san_email", "san_uri", "san_dns"]
    """Which subject alternative name is the principal."""
    agent_from: Literal["san_uri", "san_dns"] | None = None
    """Which subject alternative name is the agent."""
    assurance: Literal["bound"] = "bound"
    crl: Text | None = None
    """PEM file with the revocation list, relative to the rules directory."""
    denied_sha256: list[Sha256] = Field(default_factory=list)
    """SHA-256 fingerprints of certificates that are refused whatever the CRL says."""


class GroupModel(Strict):
    """A group of principals. Groups named by an identity provider are listed here too, without members."""

    members: list[Subject] = Field(default_factory=list)
    """user:NAME or workload:NAME."""


class AgentModel(Strict):
    """A registered agent: who may use it, and its ceiling. A ceiling narrows, it never grants."""

    kind: Literal["assistant", "autonomous"]
    owners: list[Annotated[str, Field(pattern=r"^(user|workload|group):\S{1,512}$")]] = Field(min_length=1)
    """Who may act through this agent: user:, workload: or group:."""
    servers: list[Id] | None = Field(default=None, min_length=1)
    """The only servers it may reach. Left out: no ceiling."""
    tools: list[Text] | None = Field(default=None, min_length=1)
    """The only tools it may use; selectors as in a rule. Left out: no ceiling."""


class WorkloadModel(Strict):
    """A machine identity workload:ID, known by the claims of its issuer's tokens."""

    id: Id
    issuer: Id
    """The id of an issuer above."""
    match: dict[str, Word] = Field(min_length=1)
    """Names from the issuer's claims mapping, with globs that must all match."""


class IdentitiesFile(VersionedFile):
    """identities.yaml: who can be known, and how."""

    issuers: list[Annotated[OidcModel | OpaqueModel, Field(discriminator="type")]] = Field(
        default_factory=list
    )
    """Who vouches for callers with tokens."""
    client_cas: list[ClientCAModel] = Field(default_factory=list)
    """Who vouches for callers with certificates."""
    groups: dict[Word, GroupModel] = Field(default_factory=dict)
    agents: dict[Word, AgentModel] = Field(default_factory=dict)
    workloads: list[WorkloadModel] = Field(default_factory=list)
    blocked: list[Annotated[str, Field(pattern=r"^(user|workload|agent):\S{1,512}$")]] = Field(
        default_factory=list
    )
    """Refused whatever they present: user:, workload: or agent:."""


# -- servers.yaml


class ServerModel(Strict):
    """One governed MCP server."""

    id: Id
    url: Word
    """Where its MCP endpoint is. No user, query or fragment in it."""
    labels: dict[Id, Word] = Field(default_factory=dict)
    """Free labels; rules select by label:KEY=VALUE."""
    credential: Id | None = None
    """The shared credential that is put on allowed calls."""
    targets: dict[Text, Text] = Field(default_factory=dict)
    """Tool name to the argument (name or JSON pointer) that says what it acts on, for the audit."""


class ServersFile(VersionedFile):
    """servers.yaml: the MCP servers that are governed."""

    servers: list[ServerModel]
    passthrough: list[Word] = Field(default_factory=list)
    """Hosts whose TLS is not opened. They are never given a secret."""


# -- credentials.yaml


class SourceModel(Strict):
    """Where the secret is read. Exactly one."""

    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """The name of an environment variable; read once at start."""
    file: Text | None = None
    """A file, re-read when it changes; relative to the rules directory."""


class BearerModel(Strict):
    """Authorization: Bearer SECRET."""


class BasicModel(Strict):
    """Authorization: Basic, with the secret as the password."""

    username: Annotated[str, Field(pattern=r"^[^:\x00-\x1f\x7f]{1,256}$")]


class HeaderModel(Strict):
    """A header of its own."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")]
    format: Annotated[str, Field(max_length=256)] = "{secret}"
    """The header's value, with {secret} in it once."""


class InjectModel(Strict):
    """How the secret is written. Exactly one."""

    bearer: BearerModel | None = None
    basic: BasicModel | None = None
    header: HeaderModel | None = None


class BindModel(Strict):
    """The one place the secret may go to: https, these hosts, paths and methods."""

    hosts: list[Word] = Field(min_length=1)
    """HOST or HOST:PORT, exact."""
    paths: list[Word] | None = Field(default=None, min_length=1)
    """Path globs: * stays within a segment, /** at the end is any depth. Left out: every path."""
    methods: list[Literal["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"]] | None = Field(
        default=None, min_length=1
    )
    """Left out: GET, POST and DELETE, which is what MCP uses."""


class CredentialModel(Strict):
    """A shared upstream credential. Its value is never in this file."""

    id: Id
    source: SourceModel
    inject: InjectModel
    bind: BindModel


class CredentialsFile(VersionedFile):
    """credentials.yaml: shared upstream credentials, where they are read and where they may go."""

    credentials: list[CredentialModel] = Field(default_factory=list)
