"""Throw-away keys of the demo: a CA for the servers, one for client certificates, an issuer of JWTs.

Everything is made on the spot, is good for a day at most, and goes with the folder.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(hours=24)
_BACKDATE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority: its certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def pem(self) -> bytes:
        """The certificate alone, as its relying parties want it."""
        return self.certificate.public_bytes(Encoding.PEM)


def make_authority(name: str, *, now: datetime) -> Authority:
    """A self-signed CA (RFC 5280 section 4.2: basic constraints, key usage and key identifier)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _begin(subject, subject, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, SHA256())
    )
    return Authority(certificate, key)


def issue_server(ca: Authority, host: str, *, now: datetime) -> bytes:
    """Key and certificate of a server called ``host``, as one PEM."""
    return _issue(ca, host, [x509.DNSName(host)], ExtendedKeyUsageOID.SERVER_AUTH, now)


def issue_client(ca: Authority, email: str, agent_uri: str, *, now: datetime) -> bytes:
    """Key and certificate of a person's agent: an e-mail SAN and a URI SAN, as one PEM."""
    names = [x509.RFC822Name(email), x509.UniformResourceIdentifier(agent_uri)]
    return _issue(ca, email, names, ExtendedKeyUsageOID.CLIENT_AUTH, now)


def _issue(
    ca: Authority,
    name: str,
    alternatives: Sequence[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    now: datetime,
) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _begin(subject, ca.certificate.subject, key.public_key(), now)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False
        )
        .sign(ca.key, SHA256())
    )
    return _pem(key) + certificate.public_bytes(Encoding.PEM)


def _begin(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class TokenIssuer:
    """An issuer of JWTs signed with Ed25519 (RFC 7519, RFC 8037), as a CI system has one."""

    KID = "demo-1"

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()

    def jwks(self) -> str:
        """The public key as a JWK Set (RFC 7517)."""
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        jwk = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.KID, "x": _b64(raw)}
        return json.dumps({"keys": [jwk]})

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A JWT with these claims in compact form (RFC 7515 section 7.1)."""
        header = {"alg": "EdDSA", "typ": "JWT", "kid": self.KID}
        text = f"{_b64(_json(header))}.{_b64(_json(claims))}"
        return f"{text}.{_b64(self._key.sign(text.encode('ascii')))}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def write_private(path: Path, data: bytes) -> Path:
    """Write a file that is 0600 from its first byte on; it must not exist yet."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    return path
