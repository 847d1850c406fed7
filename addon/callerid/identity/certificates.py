"""Client certificates: mitmproxy accepts any, so the chain is verified here, and a name taken from it.

Path building and dates are cryptography's (RFC 5280 section 6, in the CA/Browser profile); on top of that
this module asks for the clientAuth key usage, exactly one SAN of the configured kind, and the revocation
lists. A certificate that is doubtful in any way names nobody.
"""

from __future__ import annotations

import hashlib
import string
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from callerid.identity.client_cas import BROKEN, LoadedCA, RevocationList, load_cas
from callerid.identity.names import ascii_lower, is_name, make_subject
from callerid.model import Reason, Rejected

__all__ = [
    "CertificateIdentity",
    "ChainVerifier",
    "LoadedCA",
    "credential_id",
    "load_cas",
    "verify_chain",
]

MAX_CHAIN = 10
MAX_CERTIFICATE = 64 * 1024
"""Bytes of DER. A larger one is refused unread."""
CACHE_FOR = timedelta(minutes=5)
CACHE_SIZE = 2048
_MAX_DEPTH = 4
ANOTHER_ISSUER = "its issuer is another"
_EXTENSIONS = {
    "2.5.29.14": "subject key identifier",
    "2.5.29.15": "key usage (keyCertSign, for a CA)",
    "2.5.29.17": "subject alternative name",
    "2.5.29.19": "basic constraints",
    "2.5.29.30": "name constraints",
    "2.5.29.35": "authority key identifier",
    "2.5.29.37": "extended key usage",
}
_CAUSES = {
    "extension validator failed": "its extended key usage is not for clients (clientAuth)",
    "signature does not match": "it is not signed by that CA's key",
    "no interior errors": ANOTHER_ISSUER,
    "not valid at validation time": "the dates of its chain do not overlap",
}
"""How cryptography says why a chain does not verify, and how we do."""
_SPIFFE = "spiffe://"
_SPIFFE_LETTERS = frozenset(string.ascii_letters + string.digits + "._-/")


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateIdentity:
    """Whom a verified chain names.

    ``issuer`` is the ClientCA's id, ``fingerprint`` the leaf's SHA-256 in hex, ``expires_us`` the first
    end among the dates of the chain, in microseconds, UTC.
    """

    subject: str
    issuer: str
    agent: str | None
    fingerprint: str
    expires_us: int

    @property
    def credential_id(self) -> str:
        """``cert:`` and the first 16 digits of the fingerprint."""
        return credential_id(self.fingerprint)


def credential_id(fingerprint: str) -> str:
    """The public id of the certificate with this SHA-256."""
    return f"cert:{fingerprint[:16]}"


def verify_chain(
    chain: Sequence[bytes], cas: Sequence[LoadedCA], now: datetime
) -> CertificateIdentity | Rejected:
    """Verify a chain (DER, leaf first) as a client's of ``cas`` at ``now``. Total.

    What is revoked under one CA is revoked; what is good under two must mean the same under both.
    """
    read = _read(chain)
    if read is None:
        return Rejected(reason=Reason.CERTIFICATE_UNTRUSTED, detail="the certificate cannot be read")
    leaf = hashlib.sha256(chain[0]).hexdigest()
    answers = [_verify_under(read, leaf, ca, now) for ca in cas]
    good = [answer for answer in answers if isinstance(answer, CertificateIdentity)]
    refusals = [answer for answer in answers if isinstance(answer, Rejected)]
    # The last of a reason counts: what another CA says tells least.
    refusals.sort(key=lambda refusal: not refusal.detail.endswith(ANOTHER_ISSUER))
    bad = {refusal.reason: refusal for refusal in refusals}
    if Reason.CERTIFICATE_REVOKED in bad:
        return bad[Reason.CERTIFICATE_REVOKED]
    if len({(answer.subject, answer.agent) for answer in good}) > 1:
        return _no(leaf, Reason.IDENTITY_CONFLICT, "the certificate means two callers under two CAs")
    if good:
        return good[0]
    untrusted = _no(leaf, Reason.CERTIFICATE_UNTRUSTED, "there is no CA to verify it by")
    return bad.get(Reason.CERTIFICATE_EXPIRED) or bad.get(Reason.CERTIFICATE_UNTRUSTED, untrusted)


class ChainVerifier:
    """``verify_chain`` for one set of CAs; good answers are remembered for up to five minutes."""

    def __init__(self, cas: tuple[LoadedCA, ...]) -> None:
        self.cas = cas
        self._versions = "".join(ca.version for ca in cas)
        self._known: OrderedDict[str, tuple[CertificateIdentity, datetime, datetime]] = OrderedDict()

    def verify(self, chain: Sequence[bytes], now: datetime) -> CertificateIdentity | Rejected:
        """As ``verify_chain``. The dates count on every call; a refusal is never remembered."""
        name = hashlib.sha256(self._versions.encode())
        for certificate in chain:
            name.update(hashlib.sha256(certificate).digest())
        known = self._known.get(name.hexdigest())
        if known is not None and known[1] <= now < known[2]:
            self._known.move_to_end(name.hexdigest())
            return known[0]
        answer = verify_chain(chain, self.cas, now)
        if isinstance(answer, CertificateIdentity):
            self._known[name.hexdigest()] = (answer, now, self._until(answer, now))
            while len(self._known) > CACHE_SIZE:
                self._known.popitem(last=False)
        return answer

    def _until(self, answer: CertificateIdentity, now: datetime) -> datetime:
        """When the answer must be found anew: the lists' ends and the chain's dates cut the five minutes."""
        expires = datetime.fromtimestamp(answer.expires_us // 1_000_000, now.tzinfo)
        ends = [crl.ends for ca in self.cas for crl in ca.crls or () if crl.ends > now]
        return min([now + CACHE_FOR, expires, *ends])


def _no(leaf: str, reason: Reason, detail: str) -> Rejected:
    return Rejected(reason=reason, detail=detail, credential_id=credential_id(leaf))


def _read(chain: Sequence[bytes]) -> list[x509.Certificate] | None:
    if not 0 < len(chain) <= MAX_CHAIN or any(len(der) > MAX_CERTIFICATE for der in chain):
        return None
    try:
        return [x509.load_der_x509_certificate(der) for der in chain]
    except BROKEN:
        return None


def _verify_under(
    chain: list[x509.Certificate], leaf: str, ca: LoadedCA, now: datetime
) -> CertificateIdentity | Rejected:
    try:
        path = _path(chain, ca, now)
        if isinstance(path, str):
            moment = _common_moment(chain)
            then = _path(chain, ca, moment) if moment is not None else path
            if not isinstance(then, str):
                return _no(leaf, Reason.CERTIFICATE_EXPIRED, "the certificate is not valid at this time")
            what = f"it is no client certificate issued by {ca.config.id}"
            return _no(leaf, Reason.CERTIFICATE_UNTRUSTED, f"{what}: {then}" if then else what)
        refusal = _revocation(path, leaf, ca, now)
        return refusal if refusal is not None else _identity(path, leaf, ca)
    except (*BROKEN, x509.ExtensionNotFound):
        return _no(leaf, Reason.CERTIFICATE_UNTRUSTED, "the certificate cannot be understood")


def _require_client_auth(
    _policy: verification.Policy, _leaf: x509.Certificate, usage: x509.ExtendedKeyUsage
) -> None:
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise ValueError("the certificate is not for client authentication")


def _path(chain: list[x509.Certificate], ca: LoadedCA, moment: datetime) -> list[x509.Certificate] | str:
    """The path from the leaf to a certificate of the CA, valid at ``moment``; else why there is none."""
    anything = verification.Criticality.AGNOSTIC
    leaf_policy = (
        verification.ExtensionPolicy.webpki_defaults_ee()
        .require_present(x509.ExtendedKeyUsage, anything, _require_client_auth)
        .require_present(x509.SubjectAlternativeName, anything, None)
    )
    verifier = (
        verification.PolicyBuilder()
        .store(ca.store)
        .time(moment)
        .max_chain_depth(_MAX_DEPTH)
        .extension_policies(
            ca_policy=verification.ExtensionPolicy.webpki_defaults_ca(), ee_policy=leaf_policy
        )
        .build_client_verifier()
    )
    try:
        return verifier.verify(chain[0], chain[1:]).chain
    except verification.VerificationError as error:
        return _cause(str(error))


def _cause(said: str) -> str:
    """Why there is no path, in our words; empty where that is not known.

    The library quotes the certificate after its own words: what a caller wrote into it is not read.
    """
    said, _, _ = said.partition("(encountered")
    whose = "a CA's certificate" if "exhausted" in said else "it"
    for oid, name in _EXTENSIONS.items():
        if f"extension: {oid}:" in said:
            flaw = "lacks" if "missing" in said else "has an unacceptable"
            return f"{whose} {flaw} {name}"
    return next((words for sign, words in _CAUSES.items() if sign in said), "")


def _common_moment(chain: list[x509.Certificate]) -> datetime | None:
    """A time at which all of the chain was valid: to tell a late certificate from a foreign one."""
    begins = max(certificate.not_valid_before_utc for certificate in chain)
    ends = min(certificate.not_valid_after_utc for certificate in chain)
    return ends if begins <= ends else None


def _revocation(path: list[x509.Certificate], leaf: str, ca: LoadedCA, now: datetime) -> Rejected | None:
    """Deny list first, then a list of every issuer on the path; no list, or a stale one, is a refusal."""
    for certificate in path[:-1]:
        if hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest() in ca.denied:
            return _no(leaf, Reason.CERTIFICATE_REVOKED, "the certificate is on the deny list")
    if ca.crls is None:
        return None
    doubt = None
    for certificate, issuer in pairwise(path):
        lists = [entry for entry in ca.crls if entry.is_by(issuer)]
        if any(certificate.serial_number in entry.serials for entry in lists):
            return _no(leaf, Reason.CERTIFICATE_REVOKED, "the certificate is on the revocation list")
        if not any(_is_current(entry, now) for entry in lists):
            doubt = _no(
                leaf, Reason.CERTIFICATE_UNTRUSTED, "the revocation list of its issuer is missing or stale"
            )
    return doubt


def _is_current(entry: RevocationList, now: datetime) -> bool:
    return entry.begins <= now < entry.ends


def _identity(path: list[x509.Certificate], leaf: str, ca: LoadedCA) -> CertificateIdentity | Rejected:
    names = path[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    wanted = ca.config.principal_from
    found = _values(names, wanted)
    subject = _subject(wanted, found[0]) if len(found) == 1 else None
    if subject is None:
        return _no(leaf, Reason.CERTIFICATE_UNTRUSTED, f"it has not exactly one usable {wanted}")
    agents = [] if ca.config.agent_from is None else _values(names, ca.config.agent_from)
    agent = _agent(agents[0]) if agents else None
    if len(agents) > 1 or (agents and agent is None):
        return _no(
            leaf, Reason.CERTIFICATE_UNTRUSTED, f"it has not at most one usable {ca.config.agent_from}"
        )
    ends = min(certificate.not_valid_after_utc for certificate in path)
    return CertificateIdentity(
        subject=subject,
        issuer=ca.config.id,
        agent=agent,
        fingerprint=leaf,
        expires_us=int(ends.timestamp()) * 1_000_000,
    )


def _values(names: x509.SubjectAlternativeName, kind: str) -> list[str]:
    if kind == "san_email":
        return names.get_values_for_type(x509.RFC822Name)
    if kind == "san_uri":
        return names.get_values_for_type(x509.UniformResourceIdentifier)
    return names.get_values_for_type(x509.DNSName)


def _subject(kind: str, value: str) -> str | None:
    """``user:EMAIL``, ``workload:spiffe://...`` or ``workload:DNS``; None for any other value."""
    if kind == "san_email":
        local, _, domain = value.partition("@")
        return make_subject("user", value) if local and domain and "@" not in domain else None
    if kind == "san_uri":
        return make_subject("workload", value) if _is_spiffe(value) else None
    return make_subject("workload", ascii_lower(value)) if "*" not in value else None


def _is_spiffe(uri: str) -> bool:
    """A SPIFFE ID of a workload in its one spelling (SPIFFE-ID section 2): no port, query, dots, escapes."""
    if not uri.startswith(_SPIFFE) or not _SPIFFE_LETTERS.issuperset(uri[len(_SPIFFE) :]):
        return False
    domain, *segments = uri[len(_SPIFFE) :].split("/")
    if not domain or domain != ascii_lower(domain) or not segments:
        return False
    return all(segment not in ("", ".", "..") for segment in segments)


def _agent(value: str) -> str | None:
    """The agent that a SAN names: NAME of ``spiffe://DOMAIN/.../agent/NAME``, else the SAN as it is."""
    if _is_spiffe(value):
        _domain, *segments = value[len(_SPIFFE) :].split("/")
        return segments[-1] if segments[-2:-1] == ["agent"] else value
    return value if is_name(value) and not value.startswith(_SPIFFE) else None
