"""Client certificates that a proxy before us saw, in the headers in which it says so. Read, not believed.

Envoy's ``X-Forwarded-Client-Cert``, and ``Client-Cert`` with ``Client-Cert-Chain`` of RFC 9440. What is read
here is verified as any certificate is; a header without the certificate itself cannot be.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from callerid.identity.client_cas import BROKEN
from callerid.identity.names import ascii_lower

MAX_HEADER = 256 * 1024
"""Characters. A longer header is not read."""
MAX_FORWARDED = 10

type Chain = tuple[bytes, ...]
"""DER certificates, leaf first."""


def read_xfcc(value: str) -> Chain | str:
    """The chain in the last element of ``X-Forwarded-Client-Cert``, or what is wrong. Total.

    The last element is the nearest proxy's; those before it were handed to it. ``Hash`` must be there, and
    ``Cert`` or ``Chain`` (PEM, percent-encoded) with a certificate of that hash.
    """
    elements = _elements(value)
    if elements is None:
        return "it is not a list of key=value pairs"
    named: dict[str, str] = {}
    for key, text in elements[-1]:
        key = ascii_lower(key)
        if key in named and key in ("hash", "cert", "chain"):
            return f"it has {key} twice"
        named[key] = text
    if "hash" not in named:
        return "it has no Hash"
    if "cert" not in named and "chain" not in named:
        return "it has neither Cert nor Chain: without the certificate nothing can be verified"
    alone = _pem(named["cert"]) if "cert" in named else None
    chain = _pem(named["chain"]) if "chain" in named else alone
    if not chain or ("cert" in named and (alone is None or len(alone) != 1 or alone[0] != chain[0])):
        return "its Cert or Chain cannot be read, or they differ"
    if hashlib.sha256(chain[0]).hexdigest() != ascii_lower(named["hash"]):
        return "its Hash is not that of the certificate"
    return chain


def read_client_cert(certificates: Sequence[str], chains: Sequence[str]) -> Chain | str:
    """The chain in ``Client-Cert`` and ``Client-Cert-Chain`` (RFC 9440), or what is wrong. Total."""
    if not certificates:
        return "there is a chain without its certificate"
    leaf = _byte_sequence(certificates[0])
    if leaf is None:
        return "Client-Cert is not one byte sequence"
    above: list[bytes] = []
    for part in chains[0].split(",") if chains else ():
        link = _byte_sequence(part)
        if link is None or len(above) == MAX_FORWARDED:
            return "Client-Cert-Chain is not a short list of byte sequences"
        above.append(link)
    return (leaf, *above)


def _byte_sequence(text: str) -> bytes | None:
    """A byte sequence of a structured field (RFC 8941 section 3.3.5), without parameters."""
    bare = text.strip(" \t")
    if len(bare) < 3 or len(bare) > MAX_HEADER or bare[0] != ":" or bare[-1] != ":":
        return None
    try:
        return base64.b64decode(bare[1:-1], validate=True)
    except ValueError:
        return None


def _pem(text: str) -> Chain | None:
    try:
        found = x509.load_pem_x509_certificates(unquote(text, errors="strict").encode("ascii"))
        made = tuple(certificate.public_bytes(Encoding.DER) for certificate in found)
    except (*BROKEN, UnicodeError):
        return None
    return made if 0 < len(made) <= MAX_FORWARDED else None


def _elements(value: str) -> list[list[tuple[str, str]]] | None:
    """Elements with their pairs, in order; None where the whole value is not read without a doubt.

    ``,`` between elements, ``;`` between pairs; a value may stand in quotes, in which ``\\"`` is a quote. A
    quote that was opened by somebody else's element would swallow the ones after it: then nothing is read.
    """
    if not value.strip(" \t") or len(value) > MAX_HEADER:
        return None
    elements: list[list[tuple[str, str]]] = [[]]
    at = 0
    while True:
        while at < len(value) and value[at] in " \t":
            at += 1
        equals = value.find("=", at)
        key = value[at:equals] if equals > at else ""
        if not key.isascii() or not key.isalnum():
            return None
        read = _value(value, equals + 1)
        if read is None:
            return None
        text, at = read
        elements[-1].append((key, text))
        if at == len(value):
            return elements
        if value[at] == ",":
            elements.append([])
        elif value[at] != ";":
            return None
        at += 1


def _value(text: str, at: int) -> tuple[str, int] | None:
    """The value that begins at ``at``, and where it ends; None for quotes that do not fit."""
    if at >= len(text) or text[at] != '"':
        end = at
        while end < len(text) and text[end] not in ',;"':
            end += 1
        return (text[at:end].rstrip(" \t"), end) if text[end : end + 1] != '"' else None
    made: list[str] = []
    at += 1
    while at < len(text) and text[at] != '"':
        if text[at : at + 2] == '\\"':
            at += 1
        made.append(text[at])
        at += 1
    if at >= len(text):
        return None
    at += 1
    while at < len(text) and text[at] in " \t":
        at += 1
    return "".join(made), at
