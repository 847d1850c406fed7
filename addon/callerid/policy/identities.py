"""identities.yaml: from its model to ``config.Identities``, with the checks across its own entries."""

from __future__ import annotations

import string
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType

from callerid.config import Agent, ClientCA, Identities, Issuer, Workload
from callerid.policy.hops import build_hops
from callerid.policy.models import ClientCAModel, IdentitiesFile, OidcModel, OpaqueModel
from callerid.policy.places import is_pointer, seconds, secure_fault
from callerid.policy.problems import Document, Report, Where, did_you_mean, show

_FOLD = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
DEFAULT_MAX_TTL = 30 * 86_400


def canonical_subject(subject: str) -> str:
    """``KIND:NAME`` as it is compared: the e-mail address of a ``user:`` folded to lower case (ASCII only).

    Two spellings of one address must not be two subjects, or a guard on one would miss the other.
    """
    if subject.startswith("user:") and "@" in subject:
        return subject.translate(_FOLD)
    return subject


def build_identities(model: IdentitiesFile, doc: Document, folder: Path, report: Report) -> Identities:
    """The identities; what is wrong goes to ``report``."""
    unique_ids(doc, report, "issuers", (issuer.id for issuer in model.issuers))
    unique_ids(doc, report, "client_cas", (ca.id for ca in model.client_cas))
    unique_ids(doc, report, "workloads", (workload.id for workload in model.workloads))
    unique_ids(doc, report, "trusted_hops", (hop.id for hop in model.trusted_hops))
    oidc: list[Issuer] = []
    max_ttl = DEFAULT_MAX_TTL
    for at, issuer in enumerate(model.issuers):
        if isinstance(issuer, OpaqueModel):
            max_ttl = seconds(issuer.max_ttl)
            continue
        if issuer.id == "local":
            report.add(doc, ("issuers", at, "id"), "the id 'local' belongs to our own tokens", "Rename it.")
        if any(issuer.issuer == other.issuer for other in oidc):
            report.add(
                doc,
                ("issuers", at, "issuer"),
                f"another entry has the issuer {show(issuer.issuer)} too",
                "Join the two: audiences and algorithms are lists.",
            )
        oidc.append(_issuer(issuer, doc, ("issuers", at), folder, report))
    _workload_issuers(model, oidc, doc, report)
    if model.client_certificate == "required" and not model.client_cas:
        message = "client_certificate: required, but no client CA is listed: nobody would be served"
        hint = "client_cas: [{id: device-ca, file: ca/device-ca.pem, principal_from: san_email}]"
        report.add(doc, ("client_certificate",), message, hint)
    return Identities(
        issuers=tuple(oidc),
        client_cas=tuple(
            _client_ca(ca, doc, ("client_cas", at), folder, report) for at, ca in enumerate(model.client_cas)
        ),
        groups=MappingProxyType(
            {name: frozenset(map(canonical_subject, group.members)) for name, group in model.groups.items()}
        ),
        agents=MappingProxyType(_agents(model, doc, report)),
        workloads=tuple(
            Workload(id=entry.id, issuer=entry.issuer, match=MappingProxyType(dict(entry.match)))
            for entry in model.workloads
        ),
        blocked=frozenset(map(canonical_subject, model.blocked)),
        token_max_ttl=max_ttl,
        trusted_hops=build_hops(model, doc, report),
        require_proxy_certificate=model.client_certificate == "required",
    )


def unique_ids(doc: Document, report: Report, section: str, ids: Iterable[str]) -> None:
    """Report every id of a list that stood there before."""
    seen: dict[str, int] = {}
    for at, name in enumerate(ids):
        if name in seen:
            line = doc.place((section, seen[name], "id"))[0]
            message = f"duplicate id {show(name)} (first at line {line})"
            report.add(doc, (section, at, "id"), message, "Rename one of the two.")
        seen.setdefault(name, at)


def _issuer(model: OidcModel, doc: Document, where: Where, folder: Path, report: Report) -> Issuer:
    if (model.jwks_url is None) == (model.jwks_file is None):
        message = f"issuer {show(model.id)} needs exactly one of jwks_url and jwks_file"
        report.add(doc, where, message, "The keys that its tokens are verified with come from there.")
    wrong = "" if model.jwks_url is None else secure_fault(model.jwks_url, query=True)
    if wrong:
        hint = "Keys that come in the clear could be anybody's. Write https://HOST/PATH."
        report.add(doc, (*where, "jwks_url"), f"jwks_url: {wrong}", hint)
    wrong = secure_fault(model.issuer) if model.login else ""
    if wrong:
        hint = "Clients are sent there to log in: it is the https URL of the authorization server."
        report.add(doc, (*where, "issuer"), f"issuer, with login: true: {wrong}", hint)
    _claim_names(model, doc, where, report)
    if not {"principal", "workload"} & set(model.claims):
        report.add(doc, (*where, "claims"), "claims must map 'principal' or 'workload'", "principal: email")
    return Issuer(
        id=model.id,
        issuer=model.issuer,
        audiences=tuple(model.audiences),
        algorithms=tuple(model.algorithms),
        jwks_url=model.jwks_url,
        jwks_file=existing_file(model.jwks_file, doc, (*where, "jwks_file"), folder, report),
        max_token_age=seconds(model.max_token_age),
        leeway=seconds(model.leeway),
        require_claims=MappingProxyType(dict(model.require_claims)),
        claims=MappingProxyType({str(name): claim for name, claim in model.claims.items()}),
        assurance=model.assurance,
        stale_for=seconds(model.stale_for),
        clients=tuple(model.clients or ()),
        sender_constrained=model.sender_constrained,
        login=model.login,
    )


def _claim_names(model: OidcModel, doc: Document, where: Where, report: Report) -> None:
    """Names of claims that begin with a slash are JSON pointers, and sound ones."""
    hint = "/kubernetes.io/serviceaccount/name is that member inside; / in a name is ~1, and ~ is ~0."
    for ours, claim in model.claims.items():
        if claim.startswith("/") and not is_pointer(claim):
            report.add(doc, (*where, "claims", ours), "this is not a JSON pointer", hint)
    for claim in model.require_claims:
        if claim.startswith("/") and not is_pointer(claim):
            report.add(
                doc, (*where, "require_claims", claim), "this is not a JSON pointer", hint, of_key=True
            )


def _client_ca(model: ClientCAModel, doc: Document, where: Where, folder: Path, report: Report) -> ClientCA:
    file = existing_file(model.file, doc, (*where, "file"), folder, report)
    return ClientCA(
        id=model.id,
        file=file if file is not None else folder / model.file,
        principal_from=model.principal_from,
        agent_from=model.agent_from,
        crl=existing_file(model.crl, doc, (*where, "crl"), folder, report),
        denied_sha256=frozenset(text.replace(":", "").lower() for text in model.denied_sha256),
    )


def existing_file(name: str | None, doc: Document, where: Where, folder: Path, report: Report) -> Path | None:
    """The absolute path of a file that the rules need, reported if it is not there."""
    if name is None:
        return None
    path = (folder / name).absolute()
    if not path.is_file():
        hint = "Paths are relative to the rules directory. Put the file there, or take the entry out."
        report.add(doc, where, f"the file {show(name)} does not exist", hint)
    return path


def _agents(model: IdentitiesFile, doc: Document, report: Report) -> dict[str, Agent]:
    made: dict[str, Agent] = {}
    for name, agent in model.agents.items():
        for at, owner in enumerate(agent.owners):
            kind, _, group = owner.partition(":")
            if kind == "group" and group not in model.groups:
                message = f"unknown group {show(group)}"
                report.add(doc, ("agents", name, "owners", at), message, did_you_mean(group, model.groups))
        made[name] = Agent(
            name=name,
            kind=agent.kind,
            owners=tuple(map(canonical_subject, agent.owners)),
            servers=None if agent.servers is None else tuple(agent.servers),
            tools=None if agent.tools is None else tuple(agent.tools),
        )
    return made


def _workload_issuers(model: IdentitiesFile, issuers: list[Issuer], doc: Document, report: Report) -> None:
    known = {issuer.id: issuer for issuer in issuers}
    for at, workload in enumerate(model.workloads):
        issuer = known.get(workload.issuer)
        if issuer is None:
            hint = did_you_mean(workload.issuer, known) or "List it under issuers, with type: oidc."
            report.add(doc, ("workloads", at, "issuer"), f"unknown issuer {show(workload.issuer)}", hint)
            continue
        for claim in workload.match:
            if claim not in issuer.claims and not claim.startswith("/"):
                message = f"issuer {show(issuer.id)} maps no claim to {show(claim)}"
                hint = did_you_mean(claim, issuer.claims)
                report.add(doc, ("workloads", at, "match", claim), message, hint, of_key=True)
