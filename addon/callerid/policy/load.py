"""The four rule files as one set: read together, checked together, or refused together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel

from callerid.config import Credential, Identities, Servers
from callerid.errors import ConfigError, Problem
from callerid.policy.compile import Compiler
from callerid.policy.credentialmodels import CredentialsFile
from callerid.policy.credentials import build_credentials
from callerid.policy.engine import Engine
from callerid.policy.identities import build_identities
from callerid.policy.lint import lint
from callerid.policy.models import IdentitiesFile, ServersFile
from callerid.policy.problems import MAX_PROBLEMS, Document, Report, Where
from callerid.policy.rulemodels import PolicyFile
from callerid.policy.secretlike import looks_secret, spans
from callerid.policy.servers import build_servers, check_places
from callerid.policy.shape import shape
from callerid.policy.strictyaml import MAX_BYTES, parse, read_text

FILES = ("identities.yaml", "servers.yaml", "credentials.yaml", "policy.yaml")
_NOT_YET = ("policy.d", "egress.yaml")
_ATTEMPTS = 3
_PUBLIC = frozenset({"denied_sha256", "client_id", "clients"})
"""Where random text is no secret: fingerprints, and the names that authorization servers give to clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSet:
    """One policy in force: the nouns of the four files, the engine, and the texts they were made from.

    ``hash`` is 16 hexadecimal digits of the SHA-256 over names and texts. ``warnings`` are lints.
    """

    identities: Identities
    servers: Servers
    credentials: tuple[Credential, ...]
    engine: Engine
    hash: str
    sources: Mapping[str, str]
    unknown_server: Literal["deny", "observe"]
    warnings: tuple[Problem, ...]


def fingerprint(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """(name, mtime in ns, size, inode) of each file, links resolved; zeros for one that is missing.

    Differs when a file may have changed. Never raises.
    """
    made = []
    for name in FILES:
        try:
            info = (folder / name).stat()
            made.append((name, info.st_mtime_ns, info.st_size, info.st_ino))
        except (OSError, ValueError):
            made.append((name, 0, 0, 0))
    return tuple(made)


def load_rules(folder: Path) -> RuleSet:
    """Load the four files of ``folder`` as one set.

    Raises:
        ConfigError: anything is wrong in any of them; it carries all problems, with their places. Also
            when the files change while they are read: the next attempt will see them whole.
    """
    for _ in range(_ATTEMPTS):
        before = fingerprint(folder)
        report = Report()
        texts = _read(folder, report)
        if fingerprint(folder) == before:
            return _build(folder, texts, report)
    raise ConfigError(
        f"the rule files in {folder} change while they are read",
        hint="Write new files beside the old ones and rename them into place.",
    )


def _read(folder: Path, report: Report) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name in _NOT_YET:
        if (folder / name).exists():
            hint = "Move its content to the four files; what is in it would not be enforced."
            report.at(name, (), (0, 0), f"{name} is not supported yet", hint)
    for name in FILES:
        path = folder / name
        try:
            if not path.is_file():
                hint = f"All of {', '.join(FILES)} must be there; lists in them may be empty."
                report.at(name, (), (0, 0), f"there is no file {name} in the rules directory", hint)
                continue
            with path.open("rb") as stream:
                raw = stream.read(MAX_BYTES + 1)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            report.at(name, (), (0, 0), f"{name} cannot be read: {reason}", "Mend its owner and mode.")
            continue
        text = read_text(name, raw, report)
        if text is not None:
            texts[name] = text
    return texts


def _build(folder: Path, texts: Mapping[str, str], report: Report) -> RuleSet:
    docs: dict[str, Document] = {}
    for name, text in texts.items():
        doc = parse(name, text, report)
        if doc is not None:
            docs[name] = doc
            _refuse_secrets(doc, report)
    identities_model = _shape(IdentitiesFile, "identities.yaml", docs, report)
    servers_model = _shape(ServersFile, "servers.yaml", docs, report)
    credentials_model = _shape(CredentialsFile, "credentials.yaml", docs, report)
    policy = _shape(PolicyFile, "policy.yaml", docs, report)
    identities, servers = Identities(), Servers()
    credentials: tuple[Credential, ...] = ()
    if identities_model is not None:
        identities = build_identities(identities_model, docs["identities.yaml"], folder.absolute(), report)
    if servers_model is not None:
        servers = build_servers(servers_model, docs["servers.yaml"], report)
    if credentials_model is not None:
        credentials = build_credentials(
            credentials_model, docs["credentials.yaml"], folder.absolute(), report
        )
    if servers_model is not None and credentials_model is not None:
        known = {entry.id for entry in credentials_model.credentials}
        check_places(servers, credentials, servers_model, docs["servers.yaml"], known, report)
    if policy is None or identities_model is None or servers_model is None or credentials_model is None:
        raise _error(folder, report)
    compiler = Compiler(policy, docs["policy.yaml"], identities, servers.servers, report)
    rules = compiler.rules()
    compiler.check_agents(docs["identities.yaml"])
    if report.problems:
        raise _error(folder, report)
    digest = _hash(texts)
    return RuleSet(
        identities=identities,
        servers=servers,
        credentials=credentials,
        engine=Engine(
            rules=rules,
            sets=compiler.sets,
            servers=(server.id for server in servers.servers),
            mode=policy.mode,
            hash=digest,
        ),
        hash=digest,
        sources=MappingProxyType(dict(texts)),
        unknown_server=policy.unknown_server,
        warnings=lint(docs, policy, rules, identities, servers, credentials),
    )


def _shape[M: BaseModel](model: type[M], name: str, docs: Mapping[str, Document], report: Report) -> M | None:
    return shape(model, docs[name], report) if name in docs else None


def _refuse_secrets(doc: Document, report: Report) -> None:
    """Rule files live in git and are shown to people; the text of each is kept with the audit."""
    hint = "Take it out, change the secret at its owner, and name its place: source: {file: PATH}."
    for number, line in enumerate(doc.lines, start=1):
        for start, _ in spans(line):
            report.at(doc.file, doc.lines, (number, start + 1), "this looks like a real secret", hint)
    for where, value in _texts(doc.data, ()):
        words = value.replace("=", " ").split() if "exec" in where or "format" in where else [value]
        if _PUBLIC.isdisjoint(where) and any(looks_secret(word) and not spans(word) for word in words):
            report.add(doc, where, "this looks like a real secret", hint)


def _texts(value: object, where: Where) -> Iterator[tuple[Where, str]]:
    """Every text in plain data, with its path."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*where, key))
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _texts(item, (*where, at))


def _error(folder: Path, report: Report) -> ConfigError:
    order = {name: at for at, name in enumerate(FILES)}
    problems = sorted(report.problems, key=lambda p: (order.get(p.file, -1), p.line, p.column))
    count = len(problems)
    many = f"{count} problems" if count != 1 else "1 problem"
    if count >= MAX_PROBLEMS:
        many = f"at least {count} problems"
    return ConfigError(f"{many} in the rules in {folder}", problems=tuple(problems))


def _hash(texts: Mapping[str, str]) -> str:
    whole = hashlib.sha256()
    for name in FILES:
        for part in (name.encode(), texts[name].encode()):
            whole.update(len(part).to_bytes(8, "big"))
            whole.update(part)
    return whole.hexdigest()[:16]
