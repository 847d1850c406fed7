"""The request headers that say something about the message, held against the body.

The body decides (DESIGN section 1, law 4): a header is read once, or refused, and where it repeats the body
it must say the same (2026-07-28 basic/transports/streamable-http, server validation).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence

SINGLE = frozenset(
    {
        "host",
        "content-type",
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "mcp-protocol-version",
        "mcp-session-id",
        "mcp-method",
        "mcp-name",
    }
)
"""Headers that may come once. Readers differ on whether the first or the last copy counts."""

VERSION = "mcp-protocol-version"
METHOD = "mcp-method"
NAME = "mcp-name"
PARAM_PREFIX = "mcp-param-"

_OWS = " \t"
_ENCODED = "=?base64?"
_UTF8 = frozenset({"utf-8", "utf8"})


def read_once(headers: Sequence[tuple[str, str]]) -> dict[str, str] | str:
    """The values of the SINGLE headers by lower-case name, optional whitespace cut off (RFC 9110 5.5).

    Returns the sentence that says what is wrong: a value in which some server would find another header
    (RFC 9112 section 5.2: folded lines), or one of them that comes twice, or under a name that some
    server folds to it (``Mcp_Method`` in a WSGI environment).
    """
    values: dict[str, str] = {}
    for name, value in headers:
        if "\n" in value or "\r" in value or "\0" in value:
            return "a header value holds a line break or a zero byte"
        lower = name.lower()
        if lower not in SINGLE:
            if ("_" in lower or lower != lower.strip()) and lower.strip().replace("_", "-") in SINGLE:
                return f"the header {name[:64]!r} is a variant in spelling of one that must come once"
            continue
        if lower in values:
            return f"the header {lower} comes more than once"
        values[lower] = value.strip(_OWS)
    return values


def repeated_param(headers: Sequence[tuple[str, str]]) -> str | None:
    """The first ``Mcp-Param-*`` header that comes twice, or None. What they say is the server's to check."""
    seen: set[str] = set()
    for name, _ in headers:
        if name[: len(PARAM_PREFIX)].lower() == PARAM_PREFIX:
            lower = name.lower()
            if lower in seen:
                return lower[:64]
            seen.add(lower)
    return None


def has_mirrors(headers: Sequence[tuple[str, str]]) -> bool:
    """Whether a header repeats a part of one message: ``Mcp-Method``, ``Mcp-Name`` or an ``Mcp-Param-*``."""
    names = [name.lower() for name, _ in headers]
    return METHOD in names or NAME in names or any(name.startswith(PARAM_PREFIX) for name in names)


def decode_value(value: str) -> str | None:
    """The text of a header value, with ``=?base64?...?=`` (base64 of UTF-8) undone.

    None if it is not printable ASCII, or if it is encoded in a way that no strict encoder writes: such a
    value must equal no name by accident.
    """
    if not value.isascii() or not value.isprintable():
        return None
    if not (value.startswith(_ENCODED) and value.endswith("?=") and len(value) >= len(_ENCODED) + 2):
        return value
    payload = value[len(_ENCODED) : -2]
    try:
        raw = base64.b64decode(payload, validate=True)
        text = raw.decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    # base64 with stray trailing bits decodes too; two spellings of one name are one too many.
    return text if base64.b64encode(raw).decode("ascii") == payload else None


def mirror_flaw(
    values: Mapping[str, str],
    method: str | None,
    names: Sequence[str],
    *,
    needs_method: bool,
    needs_name: bool,
) -> str | None:
    """What is wrong with ``Mcp-Method`` and ``Mcp-Name``, or None.

    Args:
        values: the answer of ``read_once``.
        method: the body's method; None if the body has none (a response, or no body).
        names: what ``Mcp-Name`` may repeat; empty if the body names nothing.
        needs_method: whether ``Mcp-Method`` must be there. A header that is there is compared always.
        needs_name: the same for ``Mcp-Name``.
    """
    stated = values.get(METHOD)
    if stated is None:
        if needs_method:
            return "the header Mcp-Method is missing; it must repeat the method"
    elif stated != method:
        return "the header Mcp-Method does not say what the body says"
    named = values.get(NAME)
    if named is None:
        return "the header Mcp-Name is missing; it must repeat the name in params" if needs_name else None
    if decode_value(named) not in names:
        return "the header Mcp-Name does not say what the body says"
    return None


def content_type_flaw(value: str | None) -> str | None:
    """What is wrong with a Content-Type: it must be application/json, and UTF-8 if it says a charset."""
    if value == "application/json":
        return None
    if value is None:
        return "the Content-Type is missing; send application/json"
    media, *parameters = value.split(";")
    if media.strip(_OWS).lower() != "application/json":
        return "the Content-Type is not application/json"
    charsets = 0
    for parameter in parameters:
        name, _, text = parameter.strip(_OWS).partition("=")
        if not name:
            continue
        charsets += 1
        if name.lower() != "charset" or text.strip('"').lower() not in _UTF8 or charsets > 1:
            return "the Content-Type has a parameter other than charset=utf-8"
    return None


def content_encoding_flaw(value: str | None) -> str | None:
    """What is wrong with a Content-Encoding: none but ``identity`` is read in a request."""
    if value is None or value.lower() == "identity":
        return None
    return "the request body has a Content-Encoding; send it plain"
