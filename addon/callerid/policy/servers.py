"""servers.yaml: from its model to the nouns, and whether servers and credentials fit together."""

from __future__ import annotations

from types import MappingProxyType

from callerid.config import Assertion, Credential, Server, Servers
from callerid.policy.headers import is_taken, same_header, stays_behind
from callerid.policy.identities import unique_ids
from callerid.policy.models import AssertionModel, ServerModel, ServersFile
from callerid.policy.places import (
    OWN_HOST,
    BadPlace,
    Url,
    host_name,
    is_pointer,
    overlaps,
    path_covered,
    path_reached,
    seconds,
    server_url,
)
from callerid.policy.problems import Document, Report, Where, did_you_mean, show

_NOWHERE = Server(id="", scheme="https", host="", port=443, path="/")
LONGEST_ASSERTION = 60
"""Seconds that a server's assertion is good for, at most."""


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
            if argument.startswith("/") and not is_pointer(argument):
                report.add(doc, ("servers", at, "targets", tool), "this is not a JSON pointer", "/repo/owner")
        if url.host == OWN_HOST:
            message = f"{OWN_HOST} is the proxy's own address, which it answers itself"
            report.add(doc, ("servers", at, "url"), message, "Write the address of the server behind it.")
        server = Server(
            id=entry.id,
            scheme=url.scheme,
            host=url.host,
            port=url.port,
            path=url.path,
            labels=MappingProxyType(dict(entry.labels)),
            credential=entry.credential,
            targets=MappingProxyType(dict(entry.targets)),
            kind=entry.kind,
            assertion=_assertion(entry.assertion, entry.kind, url, doc, ("servers", at, "assertion"), report),
            headers=_headers(entry, doc, ("servers", at, "headers"), report),
        )
        _overlap(server, made, doc, at, report)
        made.append(server)
    passthrough = _passthrough(model, made, doc, report)
    return Servers(servers=tuple(s for s in made if s is not _NOWHERE), passthrough=passthrough)


def _assertion(
    model: AssertionModel | None, kind: str, url: Url, doc: Document, where: Where, report: Report
) -> Assertion | None:
    if model is None:
        return None
    if seconds(model.ttl) > LONGEST_ASSERTION:
        message = f"ttl: {model.ttl} is too long: whoever reads it could use it as long"
        report.add(doc, (*where, "ttl"), message, f"Write {LONGEST_ASSERTION}s or less.")
    if is_taken(model.header):
        message = f"the header {show(model.header)} has another meaning on the way"
        hint = "Leave it out for X-Callerid-Assertion, or choose a name of your own, such as X-Caller."
        report.add(doc, (*where, "header"), message, hint)
    if model.meta and kind == "http":
        message = "meta: an HTTP API has no _meta, which is of MCP messages"
        report.add(doc, (*where, "meta"), message, "Remove it; the header is sent.")
    return Assertion(
        audience=str(url) if model.audience is None else model.audience,
        header=model.header,
        meta=model.meta,
        ttl=min(seconds(model.ttl), LONGEST_ASSERTION),
    )


def _headers(entry: ServerModel, doc: Document, where: Where, report: Report) -> tuple[str, ...]:
    """The lower-case names of the headers that go on to an API; what is wrong goes to ``report``."""
    if entry.headers and entry.kind != "http":
        message = "headers: these are of HTTP APIs, and this server speaks MCP"
        report.add(doc, where, message, "Remove it, or write kind: http.")
    names: list[str] = []
    for at, name in enumerate(entry.headers):
        if stays_behind(name):
            message = f"the header {show(name)} never goes on as a caller wrote it"
            hint = "It is written by callerid, or holds a credential, or names another request. Remove it."
            report.add(doc, (*where, at), message, hint)
        elif any(same_header(name, other) for other in names):
            message = f"the header {show(name)} is there twice: case and underscores do not count"
            report.add(doc, (*where, at), message, "Remove one of the two.")
        names.append(name.lower())
    return tuple(names)


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
        if host == OWN_HOST:
            report.add(doc, where, f"{OWN_HOST} is the proxy's own address", "Remove it.")
        governed = next((server for server in servers if server.host == host), None)
        if governed is not None:
            message = f"{show(host)} is the host of server {show(governed.id)}, which needs its TLS opened"
            report.add(doc, where, message, "Remove one of the two.")
        hosts.add(host)
    return frozenset(hosts)


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
    _written_by_us(servers, by_id, model, doc, report)


def _written_by_us(
    servers: Servers, by_id: dict[str, Credential], model: ServersFile, doc: Document, report: Report
) -> None:
    """A header that callerid writes is not the caller's: he could not be told from us."""
    said = [server.assertion.header for server in servers.servers if server.assertion is not None]
    for entry_at, entry in enumerate(model.servers):
        credential = by_id.get(entry.credential or "")
        ours = [*said, *([] if credential is None else _headers_of(credential))]
        for at, name in enumerate(entry.headers):
            if any(same_header(name, other) for other in ours) and not stays_behind(name):
                message = f"the header {show(name)} is written by callerid: a credential or an assertion"
                where: Where = ("servers", entry_at, "headers", at)
                report.add(doc, where, message, "Remove it; what a caller writes there stays behind.")


def _headers_of(credential: Credential) -> list[str]:
    """The header that this credential is written into, if it is one."""
    place = credential.place or ""
    if place.startswith("header:"):
        return [place.removeprefix("header:")]
    elsewhere = credential.inject in ("query", "cookie", "replace", "mtls", "passthrough")
    return [] if elsewhere else [credential.header]


def _no_way(server: Server, credential: Credential) -> tuple[str, str]:
    """Why the credential cannot go to the server, and what to do; empty if it can."""
    name = f"credential {show(credential.id)}"
    if server.scheme != "https" and credential.inject != "passthrough":
        return (
            f"{name} would travel in the clear: the server is not https",
            "Use an https URL, or no credential.",
        )
    if (server.host, server.port) not in credential.binding.hosts:
        place = server.host if server.port == 443 else f"{server.host}:{server.port}"
        bound = ", ".join(sorted(f"{host}:{port}" for host, port in credential.binding.hosts))
        return f"{name} is not bound to {place}, so it would never be sent", f"It is bound to {bound}."
    reaches = path_reached if server.kind == "http" else path_covered
    if not any(reaches(glob, server.path) for glob in credential.binding.paths):
        bound = ", ".join(credential.binding.paths)
        below = "a path below" if server.kind == "http" else "the path"
        return (
            f"{name} is not bound to {below} {server.path}, so it would never be sent",
            f"It is bound to {bound}.",
        )
    if server.kind == "mcp" and "POST" not in credential.binding.methods:
        return (
            f"{name} is not bound to the method POST, which every MCP call uses",
            "Add POST to its methods.",
        )
    place = credential.place or ""
    if server.kind == "http" and place.startswith("/") and not place.startswith("/body/"):
        return (
            f"{name} replaces an argument, and those of an HTTP API stand below /body",
            'Its place is "/body/NAME", "query:NAME" or "header:NAME".',
        )
    if server.assertion is not None and _same_place(server.assertion, credential):
        return (
            f"{name} is written into the header {credential.header}, and so is the assertion",
            "Give the assertion another header.",
        )
    return "", ""


def _same_place(assertion: Assertion, credential: Credential) -> bool:
    """Whether the two would overwrite each other. False for a header that is refused anyway."""
    if is_taken(assertion.header):
        return False
    return any(same_header(name, assertion.header) for name in _headers_of(credential))
