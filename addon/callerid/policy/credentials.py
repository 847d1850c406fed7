"""credentials.yaml: from its model to ``config.Credential``, with the checks within and between entries.

Values are never read here. Nothing of the file but ids and names of headers is quoted in a message: what
stands in a wrong place may be the secret itself.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from callerid.config import Binding, Credential, InjectKind, OAuth, SourceKind
from callerid.policy.credentialmodels import (
    AwsModel,
    BindModel,
    ClientCredentialsModel,
    CredentialModel,
    CredentialsFile,
    InjectModel,
    RefreshTokenModel,
    SourceModel,
    TokenExchangeModel,
    VaultModel,
)
from callerid.policy.headers import is_transport
from callerid.policy.identities import unique_ids
from callerid.policy.places import (
    BadPlace,
    host_and_port,
    is_pointer,
    path_covered,
    path_glob_fault,
    seconds,
    secure_fault,
    server_url,
)
from callerid.policy.problems import Document, Report, Where, did_you_mean, show

LONGEST_READING = 60
"""Seconds that one reading of a source may take, at most: callers wait for the first."""

_FILES = frozenset({"secret_id_file", "token_file", "jwt_file", "ca_file"})
_LOGINS = {
    "token": (("token_file",), ()),
    "approle": (("role_id", "secret_id_file"), ()),
    "kubernetes": (("role",), ("jwt_file",)),
    "jwt": (("jwt_file",), ("role",)),
}
"""The words of each Vault login: those it needs, and those it may have."""
_LOGIN_WORDS = ("role", "role_id", "secret_id_file", "token_file", "jwt_file")
_NO_SECRET: frozenset[InjectKind] = frozenset({"passthrough", "aws_sigv4"})
_EXAMPLES = {
    "source": "source: {file: /run/secrets/NAME}, or source: {env: NAME}",
    "inject": "inject: {bearer: {}}",
}


def build_credentials(
    model: CredentialsFile, doc: Document, folder: Path, report: Report
) -> tuple[Credential, ...]:
    """The credentials; what is wrong goes to ``report``. Values are never read here, nor shown."""
    unique_ids(doc, report, "credentials", (entry.id for entry in model.credentials))
    made = []
    for at, entry in enumerate(model.credentials):
        credential = _credential(entry, doc, ("credentials", at), folder, report)
        if credential is not None:
            made.append(credential)
    known = {entry.id for entry in model.credentials}
    index = {entry.id: at for at, entry in reversed(list(enumerate(model.credentials)))}
    for credential in made:
        where: Where = ("credentials", index[credential.id], "inject", "oauth_refresh_token", "client_secret")
        _client_secret(credential, made, known, doc, where, report)
    return tuple(made)


def _credential(
    model: CredentialModel, doc: Document, where: Where, folder: Path, report: Report
) -> Credential | None:
    binding = _binding(model.bind, doc, (*where, "bind"), report)
    source = _only(model.source, doc, (*where, "source"), report)
    inject = _only(model.inject, doc, (*where, "inject"), report)
    if source is None or inject is None:
        return None
    source_kind: SourceKind = source  # type: ignore[assignment]
    inject_kind: InjectKind = inject  # type: ignore[assignment]
    _fits(model, source_kind, inject_kind, doc, where, report)
    if seconds(model.timeout) > LONGEST_READING:
        message = f"timeout: {LONGEST_READING}s is the longest, since callers wait for the secret"
        report.add(doc, (*where, "timeout"), message, "Write 5s, or leave it out.")
    name, argv, options = _source(model.source, doc, (*where, "source"), folder, report)
    made = Credential(
        id=model.id,
        source_kind=source_kind,
        source=name,
        inject=inject_kind,
        binding=binding,
        argv=argv,
        source_options=MappingProxyType(options),
        refresh=seconds(model.refresh),
        stale_for=seconds(model.stale_for),
        timeout=min(seconds(model.timeout), LONGEST_READING),
        tripwire=model.tripwire,
    )
    return _written(made, model.inject, doc, (*where, "inject", inject), report)


def _only(model: SourceModel | InjectModel, doc: Document, where: Where, report: Report) -> str | None:
    """The one key that is given, or None with a report."""
    given = [name for name in type(model).model_fields if getattr(model, name) is not None]
    if len(given) == 1:
        return given[0]
    *most, last = type(model).model_fields
    section = str(where[-1])
    instead = f", not {' and '.join(given)}" if given else ""
    message = f"{section} needs exactly one of {', '.join(most)} and {last}{instead}"
    report.add(doc, where, message, _EXAMPLES[section])
    return None


def _fits(
    model: CredentialModel,
    source: SourceKind,
    inject: InjectKind,
    doc: Document,
    where: Where,
    report: Report,
) -> None:
    """``none`` is the source of what needs no secret, and of nothing else."""
    if inject == "passthrough" and source != "none":
        message = "passthrough injects nothing, so it has no secret: its source is none"
        report.add(doc, (*where, "source"), message, "source: {none: {}}")
    elif source == "none" and inject not in _NO_SECRET:
        message = f"source none holds no secret, and {inject} needs one"
        hint = f"{_EXAMPLES['source']}. none is for passthrough and aws_sigv4."
        report.add(doc, (*where, "source"), message, hint)
    if source == "none":
        for key in ("tripwire", "refresh", "stale_for", "timeout"):
            if key in model.model_fields_set:
                message = f"{key}: there is no secret here that it could be about"
                report.add(doc, (*where, key), message, "Remove the line.", of_key=True)


# -- sources


def _source(
    model: SourceModel, doc: Document, where: Where, folder: Path, report: Report
) -> tuple[str, tuple[str, ...], dict[str, str]]:
    """``source``, ``argv`` and ``source_options`` of the credential."""
    if model.env is not None:
        return model.env, (), {}
    if model.file is not None:
        return str((folder / model.file).absolute()), (), {}
    if model.systemd is not None:
        return model.systemd, (), {}
    if model.exec is not None:
        if "/" in model.exec[0] and not model.exec[0].startswith("/"):
            message = "exec: the command is neither an absolute path nor a name to be found on PATH"
            report.add(doc, (*where, "exec", 0), message, "exec: [/usr/bin/op, read, op://vault/item/field]")
        return "", tuple(model.exec), {}
    if model.vault is not None:
        return _vault(model.vault, doc, (*where, "vault"), folder, report)
    if model.aws is not None:
        return _aws(model.aws, doc, (*where, "aws"), report)
    return "", (), {}


def _vault(
    model: VaultModel, doc: Document, where: Where, folder: Path, report: Report
) -> tuple[str, tuple[str, ...], dict[str, str]]:
    wrong = secure_fault(model.url)
    if wrong:
        report.add(doc, (*where, "url"), f"url: {wrong}", "url: https://vault.corp.example:8200")
    needed, allowed = _LOGINS[model.auth]
    for word in _LOGIN_WORDS:
        given = getattr(model, word) is not None
        if word in needed and not given:
            example = "/run/secrets/NAME" if word in _FILES else "NAME"
            message = f"auth: {model.auth} needs {word}"
            report.at(doc.file, doc.lines, doc.place((*where, "auth")), message, f"{word}: {example}")
        elif given and word not in needed and word not in allowed:
            message = f"{word} is not for auth: {model.auth}"
            report.add(doc, (*where, word), message, _logins_with(word), of_key=True)
    for word in ("mount", "path"):
        text: str = getattr(model, word)
        if any(step in ("", ".", "..") for step in text.rstrip("/").split("/")):
            message = f"{word}: no empty and no dot segments in it, and no slash at its beginning"
            report.add(doc, (*where, word), message, "mount: kv, path: mcp/github")
    options = _options(model.model_dump(exclude_none=True), folder)
    options["mount"], options["path"] = options["mount"].rstrip("/"), options["path"].rstrip("/")
    return f"{options['mount']}/{options['path']}", (), options


def _logins_with(word: str) -> str:
    logins = [name for name, (needed, allowed) in _LOGINS.items() if word in (*needed, *allowed)]
    return f"It is for auth: {' or '.join(logins)}. Remove it, or change auth."


def _aws(
    model: AwsModel, doc: Document, where: Where, report: Report
) -> tuple[str, tuple[str, ...], dict[str, str]]:
    wrong = "" if model.endpoint is None else secure_fault(model.endpoint)
    if wrong:
        hint = "endpoint: https://secretsmanager.eu-central-1.amazonaws.com"
        report.add(doc, (*where, "endpoint"), f"endpoint: {wrong}", hint)
    options = model.model_dump(exclude_none=True, exclude={"secret_id"})
    return model.secret_id, (), options


def _options(words: dict[str, Any], folder: Path) -> dict[str, str]:
    """The words as they are, files as absolute paths beside the rules."""
    return {
        word: str((folder / value).absolute()) if word in _FILES else value for word, value in words.items()
    }


# -- injection


def _written(made: Credential, model: InjectModel, doc: Document, where: Where, report: Report) -> Credential:
    """The credential with what its kind of injection says."""
    if model.basic is not None:
        return replace(made, template="Basic {secret}", username=model.basic.username)
    if model.header is not None:
        _header(model.header.name, model.header.format, doc, where, report)
        return replace(made, header=model.header.name, template=model.header.format)
    if model.query is not None:
        return replace(made, name=model.query.name)
    if model.cookie is not None:
        return replace(made, name=model.cookie.name)
    if model.replace is not None:
        _place(model.replace.place, doc, (*where, "place"), report)
        return replace(made, place=model.replace.place)
    if model.aws_sigv4 is not None:
        return replace(made, region=model.aws_sigv4.region, service=model.aws_sigv4.service)
    oauth = model.oauth_client_credentials or model.oauth_refresh_token or model.token_exchange
    return made if oauth is None else replace(made, oauth=_oauth(oauth, doc, where, report))


def _header(name: str, template: str, doc: Document, where: Where, report: Report) -> None:
    if is_transport(name):
        message = f"the header {show(name)} belongs to the transport"
        report.add(doc, (*where, "name"), message, "Choose the header that the server reads its key from.")
    rest = template.replace("{secret}", "", 1)
    if template.count("{secret}") != 1 or "{" in rest or "}" in rest:
        report.add(
            doc, (*where, "format"), "format needs {secret} in it exactly once", 'format: "Bearer {secret}"'
        )
    if any(not " " <= c <= "~" for c in template):
        report.add(doc, (*where, "format"), "format must be plain ASCII on one line")


def _place(place: str, doc: Document, where: Where, report: Report) -> None:
    """``header:NAME``, ``query:NAME`` or a JSON pointer without ``*``: one place, never several."""
    kind, colon, name = place.partition(":")
    if place.startswith("/"):
        if not is_pointer(place) or "*" in place.split("/"):
            message = "place: this is not the JSON pointer of one argument"
            report.add(doc, where, message, "place: /api_key, or /body/auth/token for an HTTP API")
        return
    if not colon or not _is_token(name):
        noun = "header" if kind == "header" else "query parameter"
        message = f"place: what stands after {kind}: is not the name of a {noun}"
        report.add(doc, where, message, "place: header:X-Api-Key, or place: query:key")
    elif kind == "header" and is_transport(name):
        message = f"place: the header {show(name)} belongs to the transport"
        report.add(doc, where, message, "Choose the header that the server reads its key from.")


def _is_token(name: str) -> bool:
    """A token as HTTP names headers (RFC 9110 section 5.6.2), of a usual length."""
    good = name.isascii() and 0 < len(name) <= 64
    return good and all(c.isalnum() or c in "!#$%&'*+-.^_`|~" for c in name)


def _oauth(
    model: ClientCredentialsModel | RefreshTokenModel | TokenExchangeModel,
    doc: Document,
    where: Where,
    report: Report,
) -> OAuth:
    wrong = secure_fault(model.token_url, query=True)
    if wrong:
        hint = "token_url: https://login.corp.example/oauth2/token"
        report.add(doc, (*where, "token_url"), f"token_url: {wrong}", hint)
    if model.resource is not None and not _is_uri(model.resource):
        message = "resource: this is not an absolute URI without a fragment (RFC 8707 section 2)"
        report.add(doc, (*where, "resource"), message, "resource: https://files.corp.example/mcp")
    made = OAuth(
        token_url=model.token_url,
        client_id=model.client_id,
        client_auth=model.client_auth,
        scope=model.scope,
        resource=model.resource,
    )
    if isinstance(model, RefreshTokenModel):
        if model.client_secret is None and "client_auth" in model.model_fields_set:
            message = "client_auth: a client without client_secret does not authenticate"
            report.add(doc, (*where, "client_auth"), message, "Remove the line.", of_key=True)
        return replace(made, client_secret=model.client_secret)
    made = replace(made, audience=model.audience)
    if isinstance(model, TokenExchangeModel):
        return replace(
            made,
            subject_token_type=model.subject_token_type,
            requested_token_type=model.requested_token_type,
        )
    return made


def _is_uri(text: str) -> bool:
    scheme, colon, rest = text.partition(":")
    good = scheme.isascii() and scheme[:1].isalpha() and scheme.replace("+", "").replace("-", "").isalnum()
    return good and bool(colon) and bool(rest) and "#" not in text


def _client_secret(
    credential: Credential,
    made: list[Credential],
    known: set[str],
    doc: Document,
    where: Where,
    report: Report,
) -> None:
    """The client's secret is another entry of the file, and one that may go to the token endpoint."""
    named = None if credential.oauth is None else credential.oauth.client_secret
    if credential.oauth is None or named is None:
        return
    if named == credential.id:
        message = "client_secret names its own entry, whose source holds the refresh token"
        report.add(doc, where, message, "Give the client secret an entry of its own, and name that.")
        return
    other = next((entry for entry in made if entry.id == named), None)
    if other is None:
        if named not in known:
            hint = did_you_mean(named, known - {credential.id}) or "Give the client secret an entry here."
            report.add(doc, where, "client_secret: no credential of this file has this id", hint)
        return
    if other.inject not in ("basic", "bearer", "header") or other.source_kind == "none":
        message = f"client_secret: the credential {show(named)} does not hold a plain secret"
        report.add(doc, where, message, "Name one with inject: {basic: {username: CLIENT_ID}}.")
    elif not _bound_to(other.binding, credential.oauth.token_url):
        message = f"client_secret: the credential {show(named)} is not bound to this token_url"
        report.add(doc, where, message, "Put its host, its path and POST into the bind of that entry.")


def _bound_to(binding: Binding, text: str) -> bool:
    """Whether a binding covers a POST to the URL. True for a broken one, which is reported already."""
    try:
        url = server_url(text.partition("?")[0])
    except BadPlace:
        return True
    covered = any(path_covered(glob, url.path) for glob in binding.paths)
    return (url.host, url.port) in binding.hosts and covered and "POST" in binding.methods


def _binding(model: BindModel, doc: Document, where: Where, report: Report) -> Binding:
    hosts: set[tuple[str, int]] = set()
    for at, text in enumerate(model.hosts):
        try:
            hosts.add(host_and_port(text))
        except BadPlace as fault:
            report.add(doc, (*where, "hosts", at), f"hosts: {fault.message}", fault.hint)
    for at, glob in enumerate(model.paths or ()):
        wrong = path_glob_fault(glob)
        if wrong:
            report.add(doc, (*where, "paths", at), f"paths: {wrong}", 'Write it as "/mcp" or "/mcp/**".')
    plain = Binding(hosts=frozenset(hosts))
    return Binding(
        hosts=plain.hosts,
        paths=tuple(model.paths) if model.paths is not None else plain.paths,
        methods=frozenset(model.methods) if model.methods is not None else plain.methods,
    )
