"""The files of the client CAs: certificates, revocation lists, deny lists. Read, not judged.

A revocation list must be whole: a delta or a partial one that cannot be judged would read as "not revoked"
(RFC 5280 section 5.2).
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.verification import Store

from callerid.config import ClientCA
from callerid.errors import ConfigError

MAX_FILE = 16 * 1024 * 1024
BROKEN = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
    x509.AttributeNotFound,
)
"""What cryptography raises for certificates and lists that it cannot read."""

_PEM_CRL = b"-----BEGIN X509 CRL-----"
_PEM_CRL_END = b"-----END X509 CRL-----"

type Stamp = tuple[int, int, int] | None
"""A file as it was: (mtime in ns, inode, size); None when it was not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """A CRL, read. ``serials`` are the revoked ones. Good from ``begins`` until ``ends``, not after."""

    crl: x509.CertificateRevocationList
    serials: frozenset[int]
    begins: datetime
    ends: datetime

    def is_by(self, issuer: x509.Certificate) -> bool:
        """True when ``issuer`` issued and signed this list."""
        if self.crl.issuer != issuer.subject:
            return False
        try:
            return self.crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
        except BROKEN:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedCA:
    """A ClientCA with its files read. ``crls`` is None when no list is configured.

    ``version`` changes with any byte of the files and with the entry in identities.yaml.
    """

    config: ClientCA
    store: Store
    crls: tuple[RevocationList, ...] | None
    denied: frozenset[str]
    stamps: Mapping[Path, Stamp]
    version: str


def load_cas(client_cas: tuple[ClientCA, ...]) -> tuple[LoadedCA, ...]:
    """Read the files of all client CAs.

    Raises:
        ConfigError: a file is missing or garbage, holds no CA certificate, or a list that is not whole.
    """
    return tuple(_load(config) for config in client_cas)


def file_stamps(client_cas: Sequence[ClientCA]) -> tuple[Stamp, ...]:
    """What the files of these CAs look like from outside; None in the place of one that is not there."""
    files = (path for ca in client_cas for path in (ca.file, ca.crl) if path is not None)
    return tuple(map(_stamp, files))


def doubts(config: ClientCA) -> tuple[str, ...]:
    """What is wrong with the CA's certificates so that nothing that they sign is good (RFC 5280, 4.2.1.3).

    Nothing is said of a file that cannot be read: ``load_cas`` does.
    """
    try:
        found = _certificates(config, _read(config.file, {}))
    except ConfigError:
        return ()
    weak = sum(not _may_sign(certificate) for certificate in found)
    said = f"{config.file.name}: a certificate without key usage keyCertSign; what it signs is refused"
    return (said,) if weak else ()


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except (*BROKEN, x509.ExtensionNotFound):
        return False


def _load(config: ClientCA) -> LoadedCA:
    stamps: dict[Path, Stamp] = {}
    version = hashlib.sha256(repr(config).encode())
    data = _read(config.file, stamps)
    version.update(data)
    certificates = _certificates(config, data)
    crls: tuple[RevocationList, ...] | None = None
    if config.crl is not None:
        data = _read(config.crl, stamps)
        version.update(data)
        crls = _crls(config.crl, data, certificates)
    return LoadedCA(
        config=config,
        store=Store(certificates),
        crls=crls,
        denied=frozenset(_fingerprint(config, text) for text in config.denied_sha256),
        stamps=stamps,
        version=version.hexdigest(),
    )


def _stamp(path: Path) -> Stamp:
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_mtime_ns, info.st_ino, info.st_size


def _read(path: Path, stamps: dict[Path, Stamp]) -> bytes:
    stamps[path] = _stamp(path)  # before the reading: a change in between is then seen as a change
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="Check the path under client_cas in identities.yaml, and the file's mode.",
        ) from error
    if len(data) > MAX_FILE:
        raise ConfigError(f"{path} is too large", hint="16 MiB is the most that is read.")
    return data


def _certificates(config: ClientCA, data: bytes) -> list[x509.Certificate]:
    hint = "It must hold the PEM certificates of the CA that issues client certificates."
    try:
        found = x509.load_pem_x509_certificates(data)
        for certificate in found:
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
            if not constraints.ca:
                raise ConfigError(f"{config.file} holds a certificate that is no CA's", hint=hint)
    except (*BROKEN, x509.ExtensionNotFound) as error:
        raise ConfigError(f"{config.file} holds no CA certificate: {error}", hint=hint) from error
    return found


def _crls(path: Path, data: bytes, certificates: list[x509.Certificate]) -> tuple[RevocationList, ...]:
    hint = "It must hold whole, signed revocation lists of the CA and its intermediates, PEM or DER."
    try:
        found = tuple(_crl(crl, path, hint) for crl in _split(data))
    except BROKEN as error:
        raise ConfigError(f"{path} holds no revocation list: {error}", hint=hint) from error
    for entry in found:
        named = [ca for ca in certificates if ca.subject == entry.crl.issuer]
        if named and not any(entry.is_by(ca) for ca in named):
            raise ConfigError(f"{path} is not signed by the CA that it names", hint=hint)
    return found


def _split(data: bytes) -> list[x509.CertificateRevocationList]:
    if _PEM_CRL not in data:
        return [x509.load_der_x509_crl(data)]
    parts = data.split(_PEM_CRL)[1:]
    return [
        x509.load_pem_x509_crl(_PEM_CRL + part.partition(_PEM_CRL_END)[0] + _PEM_CRL_END) for part in parts
    ]


def _crl(crl: x509.CertificateRevocationList, path: Path, hint: str) -> RevocationList:
    if any(extension.critical for extension in crl.extensions):
        raise ConfigError(f"{path} holds a delta or a partial revocation list", hint=hint)
    if crl.next_update_utc is None:
        raise ConfigError(f"{path} does not say when its next update is due", hint=hint)
    return RevocationList(
        crl=crl,
        serials=frozenset(entry.serial_number for entry in crl),
        begins=crl.last_update_utc,
        ends=crl.next_update_utc,
    )


def _fingerprint(config: ClientCA, text: str) -> str:
    plain = text.replace(":", "").lower()
    if len(plain) != 64 or not set(plain) <= set(string.hexdigits):
        raise ConfigError(
            f"denied_sha256 of {config.id} holds {text!r}, which is no SHA-256",
            hint="Write the 64 hex digits of the certificate's SHA-256 fingerprint.",
        )
    return plain
