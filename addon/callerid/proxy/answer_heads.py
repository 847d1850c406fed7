"""What the head of an answer says about its body: whether it can be judged, and searched for secrets."""

from __future__ import annotations

from collections.abc import Mapping

from mitmproxy import http

from callerid.proxy.calls import Call

_ODD_CHARSETS = (
    b"utf-16",
    b"utf16",
    b"utf-32",
    b"utf32",
    b"utf-7",
    b"utf7",
    b"ucs",
    b"iso-10646",
    b"unicode",
)
"""Beginnings of charsets in which the bytes of a secret are not those of ASCII: it would pass unseen."""
WIDE = "the server's answer is in a charset in which no secret could be found"
_WIDE = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
"""Byte order marks of charsets as above."""
_TEXTS = ("text/", "json", "xml", "html", "javascript", "yaml", "csv")
"""In media types of texts. Other files may begin with such bytes by chance."""
_PLAIN_FORMS = (b"", b"7bit", b"8bit", b"binary")
"""Values of ``Content-Transfer-Encoding`` that change nothing. Not of HTTP, but some decode it."""


def flaw(response: http.Response, heads: Mapping[bytes, list[bytes]], call: Call) -> str | None:
    """Why the answer cannot be given out, as a clause; None if it can be.

    Args:
        response: the answer, of which only the head is looked at.
        heads: its headers by lower-case name.
        call: what it answers.
    """
    if 100 <= response.status_code < 200:
        return f"the server answered with the interim status {response.status_code}"
    hidden = folded(heads) or hidden_body(heads)
    if hidden is not None or call.is_api:
        return hidden
    types = heads.get(b"content-type", ())
    is_read = any(is_stream(value) or b"json" in value.lower() for value in types)
    # Clients decode by this parameter: in another charset they would read what nobody judged.
    if is_read and any(_charset(value) not in (b"", b"utf-8", b"utf8", b"us-ascii") for value in types):
        return "the server's answer is not in UTF-8"
    return None


def folded(heads: Mapping[bytes, list[bytes]]) -> str | None:
    """Why no secret could be found in the head, as a clause: a value that goes on in another line.

    Clients put the lines together again; a proxy may refuse such an answer (RFC 9112 section 5.2).
    """
    if any(b"\r" in value or b"\n" in value for values in heads.values() for value in values):
        return "the server's answer has a header that goes on in a second line"
    return None


def hidden_body(heads: Mapping[bytes, list[bytes]]) -> str | None:
    """Why no secret could be found in the body, as a clause; None if the head does not say so.

    What the head does not say is not known: the charset and the encoding of a part of a multipart body, or
    of a document that names its own in its first line.
    """
    if any(coding.strip().lower() not in (b"", b"identity") for coding in heads.get(b"content-encoding", ())):
        return "the server compressed its answer although it was asked not to"
    codings = b",".join(heads.get(b"transfer-encoding", ())).split(b",")
    if any(coding.strip().lower() not in (b"", b"identity", b"chunked") for coding in codings):
        return "the server compressed its answer on the way"
    forms = heads.get(b"content-transfer-encoding", ())
    if any(form.strip().lower() not in _PLAIN_FORMS for form in forms):
        return "the server's answer is in an encoding in which no secret could be found"
    if any(_charset(value).startswith(_ODD_CHARSETS) for value in heads.get(b"content-type", ())):
        return WIDE
    return None


def is_wide(response: http.Response, start: bytes) -> bool:
    """Whether a text is in UTF-16 or UTF-32 by its first bytes, which clients believe before its head."""
    kind = response.headers.get("content-type", "text/").lower()
    return start.startswith(_WIDE) and any(part in kind for part in _TEXTS)


def doubts_credential(response: http.Response, heads: Mapping[bytes, list[bytes]]) -> bool:
    """Whether a refusal is of the credential itself (RFC 6750 section 3.1).

    A 403 is nearly always of what was asked for; a caller who can have that at will must not bring us to
    make new tokens at will.
    """
    return response.status_code == 401 or any(
        b"invalid_token" in challenge.lower() for challenge in heads.get(b"www-authenticate", ())
    )


def is_stream(content_type: bytes) -> bool:
    """Whether some client takes an answer of this type for an event stream: they look at its beginning."""
    return content_type.strip().lower().startswith(b"text/event-stream")


def _charset(content_type: bytes) -> bytes:
    # Spaces and backslashes: of a quoted text, in which a backslash says nothing (RFC 9110 section 5.6.4).
    content_type = bytes(byte for byte in content_type if byte > 0x20 and byte != 0x5C)
    parameters = content_type.lower().replace(b",", b";").split(b";")[1:]
    named = [p.partition(b"=")[2] for p in parameters if p.partition(b"=")[0].strip() == b"charset"]
    return b" ".join(value.strip(b" \t\"'") for value in named)
