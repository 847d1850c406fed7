"""Evidence made for the tests: a small PKI, an issuer with keys, a registry. No network, one clock."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import jwt as pyjwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from callerid.config import ClientCA, Issuer
from callerid.identity.registry import Registry, TokenRow
from callerid.identity.tokens import digest, mint

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NOW_US = int(NOW.timestamp() * 1_000_000)
DAY_US = 86_400_000_000
ALICE = "user:alice@corp.example"
BOB = "user:bob@corp.example"
ISSUER_URL = "https://login.corp.example"


def us(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


# -- JWT ---------------------------------------------------------------------------------------------


@cache
def signing_key(kind: str, which: int = 0) -> Any:
    """A private key; ``which`` tells keys of one kind apart."""
    if kind == "RS256":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if kind == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def public_jwk(kind: str = "ES256", kid: str | None = "k1", which: int = 0, **more: Any) -> dict[str, Any]:
    """The JWK of ``signing_key(kind, which)``."""
    algorithm = pyjwt.get_algorithm_by_name(kind)
    jwk = dict(json.loads(algorithm.to_jwk(signing_key(kind, which).public_key())))
    jwk.pop("key_ops", None)
    return {**jwk, **({} if kid is None else {"kid": kid}), **more}


def jwks(*keys: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys) or [public_jwk()]}).encode()


def issuer(**changes: Any) -> Issuer:
    values: dict[str, Any] = {
        "id": "corp-idp",
        "issuer": ISSUER_URL,
        "audiences": ("mcp-egress",),
        "algorithms": ("RS256", "ES256", "EdDSA"),
        "jwks_file": Path("/nowhere/jwks.json"),
        "claims": {"principal": "email", "groups": "groups", "agent": "azp"},
    }
    return Issuer(**{**values, **changes})


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims of Alice; ``changes`` replace them, and None takes one out."""
    at = int(NOW.timestamp())
    values = {
        "iss": ISSUER_URL,
        "aud": "mcp-egress",
        "sub": "00u-alice",
        "email": "alice@corp.example",
        "iat": at - 60,
        "exp": at + 600,
        "jti": "j-1",
    }
    return {name: value for name, value in {**values, **changes}.items() if value is not None}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(
    payload: Mapping[str, Any] | bytes,
    *,
    kind: str = "ES256",
    which: int = 0,
    header: Mapping[str, Any] | bytes | None = None,
) -> str:
    """A compact JWS made by hand, so that any nonsense can be signed."""
    if header is None:
        header = {"alg": kind, "typ": "JWT", "kid": "k1"}
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    signed = f"{b64(head)}.{b64(body)}".encode()
    algorithm = pyjwt.get_algorithm_by_name(kind)
    return f"{signed.decode()}.{b64(algorithm.sign(signed, signing_key(kind, which)))}"


# -- certificates ------------------------------------------------------------------------------------

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
EMAIL = x509.RFC822Name("alice@corp.example")
SPIFFE = x509.UniformResourceIdentifier("spiffe://corp.example/agent/claude-code")


class Authority:
    """A certificate authority, and what it issues. Dates are around NOW."""

    def __init__(self, name: str = "Corp Device CA", above: Authority | None = None) -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.above = above
        signer = above or self
        self.certificate = (
            self._builder(self.name, signer, NOW - timedelta(days=365), NOW + timedelta(days=3650), self.key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_ca_usage(), critical=True)
            .sign(signer.key, hashes.SHA256())
        )

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def _builder(
        self, subject: x509.Name, signer: Authority, begins: datetime, ends: datetime, key: Any
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(signer.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False
            )
        )

    def issue(
        self,
        *names: x509.GeneralName,
        usages: tuple[x509.ObjectIdentifier, ...] | None = (CLIENT,),
        begins: datetime = NOW - timedelta(days=1),
        ends: datetime = NOW + timedelta(days=1),
    ) -> x509.Certificate:
        """A leaf with these SANs (none: no extension) and extended key usages (None: no extension)."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice@corp.example")])
        builder = self._builder(subject, self, begins, ends, key)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def crl(
        self,
        *revoked: x509.Certificate,
        begins: datetime = NOW - timedelta(hours=1),
        ends: datetime = NOW + timedelta(hours=1),
        signer: Authority | None = None,
        extension: x509.ExtensionType | None = None,
    ) -> bytes:
        """A PEM revocation list of this CA; ``signer`` forges its signature."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(begins).next_update(ends)
        for certificate in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(begins)
                .build()
            )
        if extension is not None:
            builder = builder.add_extension(extension, critical=True)
        made = builder.sign((signer or self).key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM)


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def client_ca(folder: Path, authority: Authority, *, crl: bytes | None = None, **changes: Any) -> ClientCA:
    """A ClientCA entry with its files written into ``folder``."""
    name = str(changes.get("id", "device-ca"))
    (folder / f"{name}.pem").write_bytes(authority.pem)
    values: dict[str, Any] = {
        "id": name,
        "file": folder / f"{name}.pem",
        "principal_from": "san_email",
        "crl": None,
    }
    if crl is not None:
        (folder / f"{name}.crl").write_bytes(crl)
        values["crl"] = folder / f"{name}.crl"
    return ClientCA(**{**values, **changes})


# -- tokens ------------------------------------------------------------------------------------------


def token(seed: int) -> str:
    return mint(seed.to_bytes(32))


def enter(registry: Registry, seed: int, **changes: Any) -> TokenRow:
    """A token of Alice in the registry; its text is ``token(seed)``."""
    values: dict[str, Any] = {
        "token_digest": digest(token(seed)),
        "principal": ALICE,
        "agent": None,
        "servers": None,
        "tools": None,
        "created_us": NOW_US - DAY_US,
        "expires_us": NOW_US + DAY_US,
        "created_by": "test",
    }
    return registry.issue(**{**values, **changes})


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def bearer(text: str) -> str:
    return f"Bearer {text}"


type Build = Callable[..., Any]
