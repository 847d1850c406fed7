"""The CA under HOME/ca, in mitmproxy's file names: made once, checked at every start."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from mitmproxy import certs

from callerid.errors import StoreError
from callerid.home import Home

KEY_BITS = 2048


def ensure(home: Home, *, now: datetime) -> x509.Certificate:
    """The CA certificate, after making a CA if there is none.

    Raises:
        StoreError: the CA cannot be made or read, does not match its key, or has expired.
    """
    home.prepare()
    bundle = home.ca / "mitmproxy-ca.pem"
    try:
        if not bundle.exists():
            certs.CertStore.create_store(home.ca, "mitmproxy", KEY_BITS, "callerid", "callerid")
        store = certs.CertStore.from_store(home.ca, "mitmproxy", KEY_BITS)
        certificate = store.default_ca.to_cryptography()
        if certificate.public_key() != store.default_privatekey.public_key():
            raise ValueError("the certificate in mitmproxy-ca.pem is not of the key in it")
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(
            f"the CA in {home.ca} cannot be read: {error}",
            hint="Restore mitmproxy-ca.pem, or move the ca folder away and run `callerid init`.",
        ) from error
    if not home.ca_cert.exists():
        home.ca_cert.write_bytes(certificate.public_bytes(Encoding.PEM))
    _private(home.ca)
    if certificate.not_valid_after_utc <= now:
        raise StoreError(
            f"the CA in {home.ca} expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
            hint="Move the ca folder away, run `callerid init`, and give clients the new CA certificate.",
        )
    if certificate.not_valid_before_utc > now:
        raise StoreError(
            f"the CA in {home.ca} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d}",
            hint="Check the clock of this machine.",
        )
    return certificate


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER certificate as colon-separated upper-case hex, as browsers show it."""
    digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest().upper()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def _private(folder: Path) -> None:
    """Tighten what mitmproxy wrote: only certificates meant for clients stay readable by others."""
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o644 if path.name.startswith("mitmproxy-ca-cert.") else 0o600)
