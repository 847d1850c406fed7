"""A client certificate with its chain and key, in one PEM text."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from callerid.errors import ConfigError

type Key = ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
_KEYS = (ec.EllipticCurvePrivateKey, ed448.Ed448PrivateKey, ed25519.Ed25519PrivateKey, rsa.RSAPrivateKey)
_HINT = "Store the certificate, then its chain, then its private key without a passphrase, in one PEM."


@dataclass(frozen=True, slots=True)
class Pair:
    """What is shown to a server: the leaf, what is between it and the CA, and the key (not in ``repr``)."""

    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: Key = field(repr=False)


def read(label: str, text: str) -> Pair:
    """The parts of ``text``.

    Raises:
        ConfigError: there is no certificate, no key that can be read, or the key is of another certificate.
    """
    fault = ""
    try:
        data = text.encode("ascii")
        certificates = x509.load_pem_x509_certificates(data)
        key = load_pem_private_key(_key_block(data), password=None)
        if not isinstance(key, _KEYS):
            raise TypeError("a kind of key that TLS does not sign with")
        wanted = _spki(key.public_key())
        leaf = next((found for found in certificates if _spki(found.public_key()) == wanted), None)
        if leaf is not None:
            chain = tuple(found for found in certificates if found is not leaf)
            return Pair(leaf, chain, key)
        fault = "its key does not belong to any of its certificates"
    except (ValueError, TypeError, AttributeError):
        fault = "no certificate and key can be read from it"
    finally:
        del text
    raise ConfigError(f"the client certificate {label} cannot be used: {fault}", hint=_HINT)


def check(label: str, text: str) -> None:
    """Raise as ``read`` does."""
    read(label, text)


def _key_block(data: bytes) -> bytes:
    begin = data.index(b"PRIVATE KEY-----")
    start = data.rindex(b"-----BEGIN", 0, begin)
    return data[start:]


def _spki(key: object) -> bytes:
    made: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return made
