"""Where a URL leads, if every reader agrees about it.

Browsers read URLs by the WHATWG standard, others by RFC 3986; a rule about a host may only rest on what
both take for the same host. Everything else has no host here, and a rule that asks for one does not grant.
"""

from __future__ import annotations

import unicodedata
from encodings.idna import nameprep
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

MAX_URL = 8192
MAX_HOST = 253

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_DIGITS = frozenset("0123456789")
_IGNORED = frozenset("\u115f\u1160\u17b4\u17b5\u180f") | {chr(code) for code in range(0xE0100, 0xE01F0)}
"""Letters and marks that browsers drop from a name (Default_Ignorable_Code_Point) and IDNA 2003 keeps."""


def url_host(url: Any) -> str | None:
    """The host of a plain absolute http or https URL, in lower-case ASCII (IDNA); None if it is not plain.

    Not plain: userinfo, a backslash, a space, a control character, a port that is no number, an escape in
    the host, a number as host that is no dotted quad, a name whose IDNA form depends on the reader.
    An IPv6 address stands without its brackets.
    """
    if not isinstance(url, str) or len(url) > MAX_URL:
        return None
    if "\\" in url or any(char.isspace() or unicodedata.category(char)[0] in "CZ" for char in url):
        return None
    scheme, colon, rest = url.partition("://")
    if not colon or scheme.lower() not in ("http", "https"):
        return None
    authority = rest
    for end in "/?#":
        authority = authority.partition(end)[0]
    if "@" in authority:
        return None
    if authority.startswith("["):
        host, bracket, port = authority[1:].partition("]")
        if not bracket or not _is_port(port):
            return None
        return _ipv6(host)
    host, colon, port = authority.partition(":")
    return _name(host) if _is_port(colon + port) else None


def _is_port(text: str) -> bool:
    """``:PORT``, or nothing."""
    digits = text[1:]
    return text == "" or (
        text[0] == ":" and 0 < len(digits) <= 5 and _DIGITS.issuperset(digits) and int(digits) < 65536
    )


def _ipv6(text: str) -> str | None:
    try:
        address = IPv6Address(text)
    except AddressValueError:
        return None
    if address.scope_id is not None or address.ipv4_mapped is not None:  # of these, readers write two forms
        return None
    return address.compressed


def _name(host: str) -> str | None:
    labels = [_label(label) for label in host.split(".")]
    if any(label is None for label in labels):
        return None
    name = ".".join(label for label in labels if label is not None)
    last = labels[-1] or ""
    # A last label that is a number makes an address of the whole name, in any of four notations.
    if _DIGITS.issuperset(last) or last.startswith("0x"):
        try:
            return str(IPv4Address(name))
        except AddressValueError:
            return None
    return name if len(name) <= MAX_HOST else None


def _label(label: str) -> str | None:
    """A label in ASCII. One that some IDNA version would change or map has no form that all agree on."""
    if label.isascii():
        lower = label.lower()
        return lower if 0 < len(lower) <= 63 and _PLAIN.issuperset(lower) else None
    if not all(char == "-" or char.isalnum() or unicodedata.category(char)[0] == "M" for char in label):
        return None
    if not _IGNORED.isdisjoint(label) or label[2:4] == "--":
        return None  # RFC 5891 section 4.2.3.1: what looks encoded already is not encoded again by all
    try:
        same = nameprep(label) == label == unicodedata.normalize("NFKC", label).casefold()
        coded = f"xn--{label.encode('punycode').decode('ascii')}"
    except UnicodeError:
        return None
    return coded if same and len(coded) <= 63 and _PLAIN.issuperset(coded) else None
