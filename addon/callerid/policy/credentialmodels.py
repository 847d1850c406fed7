"""The shape of credentials.yaml: where shared secrets are read, how they are written, where they may go.

Shape only, as in ``models``; what the values mean together is checked in ``credentials``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from callerid.policy.models import Duration, Id, Strict, Text, VersionedFile, Word

type Token = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")]
type Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./:@+=-]{0,511}$")]
type UnitCredential = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@:-]{0,254}$")]
type ScopeText = Annotated[str, Field(pattern=r"^[!#-\[\]-~]{1,256}( [!#-\[\]-~]{1,256}){0,63}$")]


class _OneOf(Strict):
    """Exactly one of its keys."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})


# -- sources


class VaultModel(Strict):
    """HashiCorp Vault (or OpenBao): one field of one secret."""

    url: Word
    """Where Vault is; https. No user, query or fragment in it."""
    mount: Label
    """The mount of the secrets engine: kv, database."""
    path: Label
    """The secret's path within the mount; for a KV version 2 engine without data/ before it."""
    field: Label
    """Which field of the secret."""
    auth: Literal["token", "approle", "kubernetes", "jwt"]
    """How callerid proves to Vault who it is."""
    role: Label | None = None
    """For kubernetes and jwt: the role to log in with."""
    role_id: Label | None = None
    """For approle: the role's id, which is no secret."""
    secret_id_file: Text | None = None
    """For approle: the file with the secret id; relative to the rules directory."""
    token_file: Text | None = None
    """For token: the file with the token, as Vault's agent writes it."""
    jwt_file: Text | None = None
    """For jwt, and for kubernetes where it is not in the usual place: the file with the JWT."""
    namespace: Label | None = None
    ca_file: Text | None = None
    """PEM file with the CA of Vault's own certificate. Left out: the CAs of callerid run."""


class AwsModel(Strict):
    """AWS Secrets Manager, with the credentials that botocore finds."""

    secret_id: Label
    """The secret's name or ARN."""
    region: Label | None = None
    field: Label | None = None
    """Which member, where the secret is a JSON object. Left out: the whole text."""
    profile: Label | None = None
    """A profile of the AWS configuration files."""
    endpoint: Word | None = None
    """Another address of the service, such as a VPC endpoint; https."""


class NoneModel(Strict):
    """No secret: for passthrough, and for aws_sigv4 with the credentials that botocore finds."""


class SourceModel(_OneOf):
    """Where the secret is read. Exactly one."""

    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """The name of an environment variable; read once at start."""
    file: Text | None = None
    """A file, re-read when it changes; relative to the rules directory."""
    systemd: UnitCredential | None = None
    """The name of a systemd credential (LoadCredential=), re-read when it changes."""
    exec: list[Text] | None = Field(default=None, min_length=1)
    """A command, word by word, without a shell; what it prints is the secret. Run again every refresh."""
    vault: VaultModel | None = None
    aws: AwsModel | None = None
    none: NoneModel | None = None


# -- injection


class BearerModel(Strict):
    """Authorization: Bearer SECRET."""


class BasicModel(Strict):
    """Authorization: Basic, with the secret as the password."""

    username: Annotated[str, Field(pattern=r"^[^:\x00-\x1f\x7f]{1,256}$")]


class HeaderModel(Strict):
    """A header of its own."""

    name: Token
    format: Annotated[str, Field(max_length=256)] = "{secret}"
    """The header's value, with {secret} in it once."""


class QueryModel(Strict):
    """A query parameter. Servers write it to their access logs: use it only where there is no header."""

    name: Token


class CookieModel(Strict):
    """A cookie."""

    name: Token


class ReplaceModel(Strict):
    """The caller's own callerid token, where it stands, is exchanged for the secret."""

    place: Annotated[str, Field(pattern=r"^(header:|query:|/)\S{1,512}$")]
    """header:NAME, query:NAME, or the JSON pointer of an argument."""


class ClientModel(Strict):
    """What every OAuth client says."""

    token_url: Word
    """The token endpoint of the authorization server; https."""
    client_id: Label
    client_auth: Literal["client_secret_basic", "client_secret_post"] = "client_secret_basic"
    """How the client secret is sent (RFC 6749 section 2.3.1)."""
    scope: ScopeText | None = None
    """Scopes, with one space between two."""
    resource: Word | None = None
    """The server that the token is for, as a URI (RFC 8707)."""


class ClientCredentialsModel(ClientModel):
    """OAuth 2.1 client credentials; the source holds the client secret."""

    audience: Word | None = None


class RefreshTokenModel(ClientModel):
    """An OAuth refresh token, held by the source; what is injected are the access tokens got for it."""

    client_secret: Id | None = None
    """The id of the credential with the client secret. Left out: a public client."""


class TokenExchangeModel(ClientModel):
    """RFC 8693: a token of the calling person for this server. The source holds the client secret."""

    audience: Word | None = None
    subject_token_type: Word = "urn:ietf:params:oauth:token-type:access_token"
    """The type of what the caller presents: a JWT of an issuer in identities.yaml."""
    requested_token_type: Word = "urn:ietf:params:oauth:token-type:access_token"


class SigV4Model(Strict):
    """AWS Signature Version 4. The source holds AKID:SECRET[:TOKEN] or the same as JSON, or is none."""

    region: Label
    service: Label
    """The service's signing name: execute-api, bedrock, s3."""


class MtlsModel(Strict):
    """A client certificate towards the server; the source holds chain and key in one PEM."""


class PassthroughModel(Strict):
    """The caller's own upstream token stays; the call is only attributed. The source is none."""


class InjectModel(_OneOf):
    """How the secret is written. Exactly one."""

    bearer: BearerModel | None = None
    basic: BasicModel | None = None
    header: HeaderModel | None = None
    query: QueryModel | None = None
    cookie: CookieModel | None = None
    replace: ReplaceModel | None = None
    oauth_client_credentials: ClientCredentialsModel | None = None
    oauth_refresh_token: RefreshTokenModel | None = None
    token_exchange: TokenExchangeModel | None = None
    aws_sigv4: SigV4Model | None = None
    mtls: MtlsModel | None = None
    passthrough: PassthroughModel | None = None


# -- the file


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
    refresh: Duration = "5m"
    """How often a source that cannot be watched is read again: exec, vault, aws."""
    stale_for: Duration = "10m"
    """How long the last good value is used while its source fails."""
    timeout: Duration = "5s"
    """One reading of the source may take so long; at most 60s."""
    tripwire: Literal["deny", "alert", "replace"] = "deny"
    """What becomes of a caller who still holds the raw secret: refused, reported, or served and reported."""


class CredentialsFile(VersionedFile):
    """credentials.yaml: shared upstream credentials, where they are read and where they may go."""

    credentials: list[CredentialModel] = Field(default_factory=list)
