"""identities.yaml, ``trusted_hops``: whom a hop's own certificate must name, in the nouns of certificates."""

from __future__ import annotations

import string
from typing import Literal

from callerid.config import TrustedHop
from callerid.policy.models import IdentitiesFile
from callerid.policy.places import BadPlace, host_name
from callerid.policy.problems import Document, Report, Where, show

_SPIFFE = "spiffe://"
_PATH = frozenset(string.ascii_letters + string.digits + "._-")
_DOMAIN = frozenset(string.ascii_lowercase + string.digits + "._-")
_FOLD = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

type San = Literal["san_email", "san_uri", "san_dns"]


def build_hops(model: IdentitiesFile, doc: Document, report: Report) -> tuple[TrustedHop, ...]:
    """The trusted hops; what is wrong goes to ``report``."""
    made: list[TrustedHop] = []
    verified = {ca.principal_from for ca in model.client_cas}
    for at, hop in enumerate(model.trusted_hops):
        where: Where = ("trusted_hops", at, "peer_cert_san")
        found = _subject(hop.peer_cert_san)
        if found is None:
            message = f"{show(hop.peer_cert_san)} is not a name that a certificate can be known by"
            hint = "spiffe://corp.example/envoy/branch, envoy.corp.example, or an e-mail address."
            report.add(doc, where, message, hint)
            continue
        san, subject = found
        if san not in verified:
            message = f"no client CA with principal_from: {san} verifies this hop's certificate"
            hint = f"client_cas: [{{id: mesh-ca, file: ca/mesh.pem, principal_from: {san}}}]"
            report.add(doc, where, message, hint)
        if any(subject == other.subject for other in made):
            report.add(doc, where, "another hop has this name too", "Join the two: accept is a list.")
        made.append(TrustedHop(id=hop.id, subject=subject, accept=tuple(dict.fromkeys(hop.accept))))
    return tuple(made)


def _subject(san: str) -> tuple[San, str] | None:
    """Which kind of SAN it is and the principal that it names; None for what could not be one."""
    if san.startswith(_SPIFFE):
        domain, *segments = san.removeprefix(_SPIFFE).split("/")
        sound = bool(domain) and _DOMAIN.issuperset(domain) and bool(segments)
        for segment in segments:
            sound = sound and segment not in ("", ".", "..") and _PATH.issuperset(segment)
        return ("san_uri", f"workload:{san}") if sound else None
    if "@" in san:
        local, _, domain = san.partition("@")
        sound = bool(local) and bool(domain) and "@" not in domain and san.isprintable()
        return ("san_email", f"user:{san.translate(_FOLD)}") if sound else None
    try:
        return ("san_dns", f"workload:{host_name(san)}") if ":" not in san else None
    except BadPlace:
        return None
