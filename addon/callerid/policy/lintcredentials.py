"""Lints of credentials.yaml. Ids are quoted, and nothing else of that file."""

from __future__ import annotations

from collections.abc import Iterator

from callerid.config import Credential, Identities, Server, Servers
from callerid.policy.problems import Where, show

_FILE = "credentials.yaml"
_PROD = frozenset({"prod", "production"})
_SECRET_WORDS = ("password=", "passwd=", "token=", "secret=", "api-key=", "api_key=", "apikey=")


def lint_credentials(
    servers: Servers, credentials: tuple[Credential, ...], identities: Identities
) -> Iterator[tuple[str, Where, str, str]]:
    """(file, place, message, hint) of each finding."""
    used: dict[str, list[Server]] = {}
    for server in servers.servers:
        if server.credential is not None:
            used.setdefault(server.credential, []).append(server)
    lent = {entry.oauth.client_secret for entry in credentials if entry.oauth is not None}
    for at, credential in enumerate(credentials):
        where: Where = ("credentials", at)
        name = f"credential {show(credential.id)}"
        if credential.id not in used and credential.id not in lent:
            message = f"no server uses credential {show(credential.id)}"
            yield _FILE, (*where, "id"), message, "Name it in servers.yaml, or remove it."
        for server in used.get(credential.id, ()):
            if credential.source_kind == "env" and not _PROD.isdisjoint(server.labels.values()):
                message = f"{name} comes from the environment, so server {show(server.id)} needs a restart"
                hint = "A file, systemd, vault or aws is read again when the secret is changed."
                yield _FILE, (*where, "source", "env"), f"{message} for a new secret", hint
                break
        if credential.inject == "query" or (credential.place or "").startswith("query:"):
            message = f"{name} goes into the URL, which servers write to their access logs"
            hint = "Use a header if the server reads one."
            yield _FILE, (*where, "inject", credential.inject), message, hint
        if credential.inject == "token_exchange" and not identities.issuers:
            message = f"{name} exchanges the JWT of the caller, and no issuer of JWTs is in identities.yaml"
            hint = "List your identity provider there, with type: oidc."
            yield _FILE, (*where, "inject", credential.inject), message, hint
        for word, text in enumerate(credential.argv):
            if any(sign in text.lower() for sign in _SECRET_WORDS):
                message = f"{name} has what may be a secret among the words of its command"
                hint = "Command lines are seen by everybody on the machine. Let the command read a file."
                yield _FILE, (*where, "source", "exec", word), message, hint
