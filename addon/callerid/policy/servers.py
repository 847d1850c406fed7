"""servers.yaml and credentials.yaml: from their models to the nouns, and whether the two fit together."""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from callerid.config import Binding, Credential, Server, Servers
from callerid.policy.identities import unique_ids
from callerid.policy.models import BindModel, CredentialModel, CredentialsFile, ServersFile
from callerid.policy.places import (
    BadPlace,
    host_and_port,
    host_name,
    overlaps,
    path_covered,
    path_glob_fault,
    server_url,
)
from callerid.policy.problems import Document, Report, Where, did_you_mean, show

_NOWHERE = Server(id="", scheme="https", host="", port=443, path="/")
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+\Z")
_TRANSPORT = frozenset(
    {
        "connection", "content-length", "content-type", "expect", "host", "keep-alive", "te", "trailer",
        "transfer-encoding", "upgrade", "proxy-authorization", "proxy-connection",
        "mcp-protocol-version", "mcp-session-id", "x-callerid-token",
    }
)  # fmt: skip


def build_servers(model: ServersFile, doc: Document, report: Report) -> Servers:
    """The servers; what is wrong goes to ``report``."""
    unique_ids(doc, report, "servers", (server.id for server in model.servers))
    made: list[Server] = []
    for at, entry in enumerate(model.servers):
        try:
            url = server_url(entry.url)
        except BadPlace as fault:
            report.add(doc, ("servers", at, "url"), f"url: {fault.message}", fault.hint)
            made.append(_NOWHERE)
            continue
        for tool, argument in entry.targets.items():
            if argument.startswith("/") and not _POINTER.match(argument):
                report.add(doc, ("servers", at, "targets", tool), "this is not a JSON pointer", "/repo/owner")
        server = Server(
            id=entry.id,
            scheme=url.scheme,
            host=url.host,
            port=url.port,
            path=url.path,
            labels=MappingProxyType(dict(entry.labels)),
            credential=entry.credential,
            targets=MappingProxyType(dict(entry.targets)),
        )
        _overlap(server, made, doc, at, report)
        made.append(server)
    passthrough = _passthrough(model, made, doc, report)
    return Servers(servers=tuple(s for s in made if s is not _NOWHERE), passthrough=passthrough)


def _overlap(server: Server, before: list[Server], doc: Document, at: int, report: Report) -> None:
    for other in before:
        if (other.host, other.port) == (server.host, server.port) and overlaps(other.path, server.path):
            message = (
                f"server {show(server.id)} overlaps server {show(other.id)}: a request could be for both"
            )
            report.add(doc, ("servers", at, "url"), message, "Give each its own host, port or path.")
            return


def _passthrough(model: ServersFile, servers: list[Server], doc: Document, report: Report) -> frozenset[str]:
    hosts: set[str] = set()
    for at, text in enumerate(model.passthrough):
        where: Where = ("passthrough", at)
        try:
            host = host_name(text)
        except BadPlace as fault:
            report.add(doc, where, f"{show(text)}: {fault.message}", fault.hint)
            continue
        governed = next((server for server in servers if server.host == host), None)
        if governed is not None:
            message = f"{show(host)} is the host of server {show(governed.id)}, which needs its TLS opened"
            report.add(doc, where, message, "Remove one of the two.")
        hosts.add(host)
    return frozenset(hosts)


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
    return tuple(made)


def _credential(
    model: CredentialModel, doc: Document, where: Where, folder: Path, report: Report
) -> Credential | None:
    source, inject = model.source, model.inject
    binding = _binding(model.bind, doc, (*where, "bind"), report)
    if (source.env is None) == (source.file is None):
        hint = "source: {file: /run/secrets/NAME}, or source: {env: NAME}"
        report.add(doc, (*where, "source"), "source needs exactly one of env and file", hint)
        return None
    if sum(kind is not None for kind in (inject.bearer, inject.basic, inject.header)) != 1:
        hint = "inject: {bearer: {}}"
        report.add(doc, (*where, "inject"), "inject needs exactly one of bearer, basic and header", hint)
        return None
    kind: Literal["bearer", "basic", "header"] = "bearer"
    header, template, username = "Authorization", "Bearer {secret}", None
    if inject.basic is not None:
        kind, template, username = "basic", "Basic {secret}", inject.basic.username
    elif inject.header is not None:
        kind, header, template = "header", inject.header.name, inject.header.format
        _header(header, template, doc, (*where, "inject", "header"), report)
    return Credential(
        id=model.id,
        source_kind="env" if source.env is not None else "file",
        source=source.env if source.env is not None else str((folder / (source.file or "")).absolute()),
        inject=kind,
        header=header,
        template=template,
        username=username,
        binding=binding,
    )


def _header(name: str, template: str, doc: Document, where: Where, report: Report) -> None:
    if name.lower().replace("_", "-") in _TRANSPORT:
        message = f"the header {show(name)} belongs to the transport"
        report.add(doc, (*where, "name"), message, "Choose the header that the server reads its key from.")
    rest = template.replace("{secret}", "", 1)
    if template.count("{secret}") != 1 or "{" in rest or "}" in rest:
        report.add(
            doc, (*where, "format"), "format needs {secret} in it exactly once", 'format: "Bearer {secret}"'
        )
    if any(not " " <= c <= "~" for c in template):
        report.add(doc, (*where, "format"), "format must be plain ASCII on one line")


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


def check_places(
    servers: Servers,
    credentials: tuple[Credential, ...],
    model: ServersFile,
    doc: Document,
    known: set[str],
    report: Report,
) -> None:
    """Every server's credential exists and may go there. ``known`` are the ids in credentials.yaml."""
    by_id = {credential.id: credential for credential in credentials}
    index = {entry.id: at for at, entry in reversed(list(enumerate(model.servers)))}
    for server in servers.servers:
        if server.credential is None:
            continue
        where: Where = ("servers", index[server.id], "credential")
        if server.credential not in known:
            message = f"unknown credential {show(server.credential)}"
            report.add(
                doc, where, message, did_you_mean(server.credential, known) or "List it in credentials.yaml."
            )
            continue
        credential = by_id.get(server.credential)
        if credential is not None:
            message, hint = _no_way(server, credential)
            if message:
                report.add(doc, where, message, hint)


def _no_way(server: Server, credential: Credential) -> tuple[str, str]:
    """Why the credential cannot go to the server, and what to do; empty if it can."""
    name = f"credential {show(credential.id)}"
    if server.scheme != "https":
        return (
            f"{name} would travel in the clear: the server is not https",
            "Use an https URL, or no credential.",
        )
    if (server.host, server.port) not in credential.binding.hosts:
        place = server.host if server.port == 443 else f"{server.host}:{server.port}"
        bound = ", ".join(sorted(f"{host}:{port}" for host, port in credential.binding.hosts))
        return f"{name} is not bound to {place}, so it would never be sent", f"It is bound to {bound}."
    if not any(path_covered(glob, server.path) for glob in credential.binding.paths):
        bound = ", ".join(credential.binding.paths)
        return (
            f"{name} is not bound to the path {server.path}, so it would never be sent",
            f"It is bound to {bound}.",
        )
    if "POST" not in credential.binding.methods:
        return (
            f"{name} is not bound to the method POST, which every MCP call uses",
            "Add POST to its methods.",
        )
    return "", ""
