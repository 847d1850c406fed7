"""A PKI for clients: certificates that are good, and one for each way in which they can be bad."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """A CA: its name, key and certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def authority(name: str, *, above: Authority | None = None, ends: timedelta = 365 * DAY) -> Authority:
    """A CA that signed itself, or an intermediate of ``above``."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    subject = _name(name)
    signer = above.key if above else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above.certificate.subject if above else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 400 * DAY)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    return Authority(key, builder.sign(signer, hashes.SHA256()))


@dataclass(frozen=True)
class Leaf:
    """A client certificate with its key, in one PEM file together with the chain to send."""

    certificate: x509.Certificate
    path: Path

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.certificate.public_bytes(Encoding.DER)).hexdigest()

    @property
    def credential_id(self) -> str:
        return f"cert:{self.sha256[:16]}"

    def shown_by(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """The context, which now shows this certificate."""
        context.load_cert_chain(self.path)
        return context


@dataclass
class ClientPki:
    """The company's CA for people, an intermediate of it, and a CA of somebody else."""

    folder: Path
    corp: Authority = field(default_factory=lambda: authority("Corp People CA"))
    other: Authority = field(default_factory=lambda: authority("Corp People CA"))

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.intermediate = authority("Corp Issuing CA", above=self.corp)

    def leaf(
        self, label: str, email: str | None = "alice@corp.example", *, issuer: Authority | None = None,
        usage: x509.ObjectIdentifier | None = Usage.CLIENT_AUTH, starts: timedelta = -DAY,
        ends: timedelta = 30 * DAY, self_signed: bool = False, chain: Iterable[Authority] = (),
        names: Iterable[x509.GeneralName] = (),
    ) -> Leaf:  # fmt: skip
        """A certificate with ``email`` and ``names`` as SANs (none: no SAN). Good, unless told otherwise."""
        key = ec.generate_private_key(ec.SECP256R1())
        signer = issuer or self.corp
        subject = _name(email or "alice@corp.example")
        signing_key = key if self_signed else signer.key
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if self_signed else signer.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + starts)
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False
            )
        )
        sans = [*([x509.RFC822Name(email)] if email is not None else []), *names]
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = builder.sign(signing_key, hashes.SHA256())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        pem += certificate.public_bytes(Encoding.PEM) + b"".join(link.pem for link in chain)
        path = self.folder / f"{label.replace(' ', '-')}.pem"
        path.write_bytes(pem)
        return Leaf(certificate, path)

    def crl(self, *revoked: Leaf) -> bytes:
        """PEM revocation lists of the CA (which names ``revoked``) and of the intermediate (empty)."""
        return _crl(self.corp, revoked) + _crl(self.intermediate, ())


def server_certificate(name: str, folder: Path) -> Path:
    """A self-signed TLS server certificate with its key, as one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + 30 * DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"self-signed-{name}.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    )
    return path


def _crl(issuer: Authority, revoked: Iterable[Leaf]) -> bytes:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now - DAY)
        .next_update(now + DAY)
    )
    for leaf in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(leaf.certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(now - DAY).build())
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=signs, crl_sign=signs,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
