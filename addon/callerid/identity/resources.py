"""URLs as names of resources: one spelling each, compared whole and never by their beginning. Total."""

from __future__ import annotations

import string

MAX_URL = 8192
_PORTS = {"http": "80", "https": "443"}
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
_HEX = frozenset(string.hexdigits)
_HOST = frozenset(string.ascii_letters + string.digits + "-._[]:")
_PRINTABLE = frozenset(chr(code) for code in range(0x21, 0x7F)) - frozenset('"<>\\^`{|}')


def canonical_url(text: object) -> str | None:
    """An absolute http or https URL in its one spelling, without query and fragment; None if it is none.

    Scheme and host in lower case, no default port, a path, escapes in upper case and only where needed
    (RFC 3986 sections 6.2.2 and 6.2.3). None for userinfo, for segments of dots, which readers resolve
    differently, and for what cannot stand in a URL.
    """
    if not isinstance(text, str) or len(text) > MAX_URL or not _PRINTABLE.issuperset(text):
        return None
    scheme, mark, rest = text.partition("://")
    scheme = scheme.lower()
    if not mark or scheme not in _PORTS:
        return None
    bare = rest.partition("#")[0].partition("?")[0]
    authority, slash, path = bare.partition("/")
    place = _authority(authority, _PORTS[scheme])
    plain = _plain(slash + path)
    if place is None or plain is None or {".", ".."} & set(plain.split("/")):
        return None
    return f"{scheme}://{place}{plain or '/'}"


def at_origin(url: str | None, other: str) -> str | None:
    """``url`` at the origin of ``other`` instead of its own; None if one of them is no URL."""
    mine, theirs = canonical_url(url), canonical_url(other)
    if mine is None or theirs is None:
        return None
    path = mine.partition("://")[2].partition("/")[2]
    scheme, _, rest = theirs.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/{path}"


def same_resource(audience: object, resource: str | None) -> bool:
    """True when ``audience`` is the identifier of exactly this resource (RFC 8707 section 2).

    One slash at the end makes no difference, since clients write it or not; a query or fragment does.
    """
    if resource is None or not isinstance(audience, str) or "#" in audience or "?" in audience:
        return False
    named, wanted = canonical_url(audience), canonical_url(resource)
    return named is not None and wanted is not None and named.removesuffix("/") == wanted.removesuffix("/")


def _authority(text: str, usual: str) -> str | None:
    if not text or not _HOST.issuperset(text):
        return None
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text.partition("]")
        if not bracket or (port and not port.startswith(":")):
            return None
        host, port = host + bracket, port[1:]
    elif ":" in text:
        host, _, port = text.partition(":")
    if not host or (not host.startswith("[") and set(host) & set("[]:")):
        return None
    if port and not (port.isdigit() and int(port) < 65536):
        return None
    number = port and str(int(port))
    return host.lower() if number in ("", usual) else f"{host.lower()}:{number}"


def _plain(path: str) -> str | None:
    """``path`` with its escapes in one spelling; None where one is broken."""
    head, *parts = path.split("%")
    made = [head]
    for part in parts:
        code = part[:2]
        if len(code) != 2 or not _HEX.issuperset(code):
            return None
        letter = chr(int(code, 16))
        made.append((letter if letter in _UNRESERVED else f"%{code.upper()}") + part[2:])
    return "".join(made)
