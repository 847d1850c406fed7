"""The shape of identities.yaml and servers.yaml; the others are in credentialmodels and rulemodels.

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
    require_claims: dict[Word, str] = Field(default_factory=dict)
    """Claims that must be there, with globs for their text. A claim's name, or a JSON pointer into one."""
    claims: dict[Literal["principal", "workload", "groups", "agent", "session"], Word] = Field(min_length=1)
    """Which claim holds the principal (a person) or the workload, and so on: a name, or a JSON pointer."""
    assurance: Literal["workload", "idp"] = "idp"
    stale_for: Duration = "24h"
    """How long its public keys are used while they cannot be fetched again."""
    clients: list[Word] | None = Field(default=None, min_length=1)
    """Accepted values of azp or client_id: who the token was issued to. Left out: any client."""
    sender_constrained: bool = False
    """Only tokens bound to a certificate (RFC 8705) or to a key (DPoP, RFC 9449), with the proof."""
    login: bool = False
    """Clients without a token are sent here to get one (RFC 9728)."""


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


class TrustedHopModel(Strict):
    """A proxy before us that may say which client certificate it saw."""

    id: Id
    peer_cert_san: Word
    """The name in its own certificate, verified by a client CA: spiffe:// URI, DNS name or e-mail address."""
    accept: list[Literal["client-cert", "xfcc"]] = Field(min_length=1)
    """client-cert is Client-Cert (RFC 9440), xfcc is X-Forwarded-Client-Cert as Envoy writes it."""


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
    """Names from the issuer's claims mapping, or JSON pointers into the token, with globs; all must match."""


class IdentitiesFile(VersionedFile):
    """identities.yaml: who can be known, and how."""

    issuers: list[Annotated[OidcModel | OpaqueModel, Field(discriminator="type")]] = Field(
        default_factory=list
    )
    """Who vouches for callers with tokens."""
    client_cas: list[ClientCAModel] = Field(default_factory=list)
    """Who vouches for callers with certificates."""
    client_certificate: Literal["optional", "required"] = "optional"
    """required: nobody is served without a client certificate on the connection to the proxy."""
    trusted_hops: list[TrustedHopModel] = Field(default_factory=list)
    """Proxies before us that are believed about the client certificates they saw."""
    groups: dict[Word, GroupModel] = Field(default_factory=dict)
    agents: dict[Word, AgentModel] = Field(default_factory=dict)
    workloads: list[WorkloadModel] = Field(default_factory=list)
    blocked: list[Annotated[str, Field(pattern=r"^(user|workload|agent):\S{1,512}$")]] = Field(
        default_factory=list
    )
    """Refused whatever they present: user:, workload: or agent:."""


# -- servers.yaml


class AssertionModel(Strict):
    """The server is told who calls: a JWT, signed by callerid, that names person, agent and decision."""

    audience: Word | None = None
    """Its claim aud. Left out: the server's URL."""
    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")] = "X-Callerid-Assertion"
    """The header that it is sent in. Inbound copies are always removed."""
    meta: bool = False
    """Also in _meta of the message; for MCP servers."""
    ttl: Duration = "60s"
    """It is good for so long; 60s at most."""


class ServerModel(Strict):
    """One governed server: an MCP server, or an HTTP API."""

    id: Id
    kind: Literal["mcp", "http"] = "mcp"
    """http: an API without MCP. Each request is a call; rules name it with http:METHOD PATH."""
    url: Word
    """Where its MCP endpoint is, or what an API's paths begin with. No user, query or fragment in it."""
    labels: dict[Id, Word] = Field(default_factory=dict)
    """Free labels; rules select by label:KEY=VALUE."""
    credential: Id | None = None
    """The shared credential that is put on allowed calls."""
    targets: dict[Text, Text] = Field(default_factory=dict)
    """Tool name to the argument (name or JSON pointer) that says what it acts on, for the audit."""
    assertion: AssertionModel | None = None
    """Left out: the server is not told who calls."""
    headers: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")]] = Field(
        default_factory=list, max_length=64
    )
    """Of an HTTP API: headers that go on to it besides the usual ones. They are arguments: /headers/NAME."""


class ServersFile(VersionedFile):
    """servers.yaml: the MCP servers and HTTP APIs that are governed."""

    servers: list[ServerModel]
    passthrough: list[Word] = Field(default_factory=list)
    """Hosts whose TLS is not opened. They are never given a secret."""
