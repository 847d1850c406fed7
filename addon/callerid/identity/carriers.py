"""Reading carrier headers: what credential a value holds, if any. Total on hostile text; verifies nothing.

DESIGN section 3: ``Basic base64(NAME:TOKEN)``, ``Bearer TOKEN``, and the bare token in X-Callerid-Token.
A piece that is recognisably meant for us but cannot be used is never passed over as somebody else's.
"""

from __future__ import annotations

import base64
import contextlib
import string
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from callerid.config import Issuer
from callerid.identity.jwt import names_audience, peek_claims
from callerid.identity.tokens import LENGTH, PREFIX, contains_token, is_well_formed
from callerid.model import Carrier

_BASE64 = (string.ascii_letters + string.digits + "+/").encode("ascii")
_PLAIN_BASE64 = bytes(
    {ord("-"): ord("+"), ord("_"): ord("/")}.get(byte, byte if byte in _BASE64 else ord(" "))
    for byte in range(256)
)
"""Every byte that is not of base64 becomes a blank; the alphabet for URLs becomes the usual one."""
_TOKEN_BASE64 = LENGTH * 4 // 3


class Form(Enum):
    """What a header value is, as far as can be said without verifying it."""

    TOKEN = "token"
    JWT = "jwt"
    MALFORMED = "malformed"
    AMBIGUOUS = "ambiguous"
    FOREIGN = "foreign"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Credential:
    """A header value, read. ``text`` is the token or JWT and empty otherwise; it is not shown in repr.

    ``dpop``: it came with the scheme ``DPoP`` (RFC 9449 section 7.1).
    """

    form: Form
    carrier: Carrier
    detail: str = ""
    text: str = ""
    issuer: Issuer | None = None
    dpop: bool = False

    def __repr__(self) -> str:
        return f"Credential({self.form.value}, {self.carrier.value})"


def read(value: str, carrier: Carrier, issuers: Mapping[str, Issuer]) -> Credential:
    """What ``value`` holds. ``issuers`` maps the ``iss`` of each configured issuer to its entry.

    In ``Authorization`` a value that is not for us is FOREIGN. In our own two carriers there is nothing
    foreign: a JWT of somebody else is UNKNOWN there, and anything else is MALFORMED.
    """
    text, scheme = _unwrap(value)
    bare, dpop = not scheme, scheme == "dpop"
    issuer = _issuer_of(text, issuers)
    if bare and carrier is not Carrier.X_CALLERID_TOKEN and (issuer is not None or text.startswith(PREFIX)):
        return Credential(Form.MALFORMED, carrier, "a token here needs the word Bearer before it")
    is_credential = text.startswith(PREFIX) or issuer is not None
    if scheme == "basic" and is_credential and _is_another(_name(value), text, issuers):
        return Credential(Form.AMBIGUOUS, carrier, "name and password are two credentials")
    if text.startswith(PREFIX):
        if dpop:
            return Credential(
                Form.MALFORMED, carrier, "a token of ours is bound to no key: send it as Bearer"
            )
        if is_well_formed(text):
            return Credential(Form.TOKEN, carrier, text=text)
        return Credential(Form.MALFORMED, carrier, "the token has a slip in it: its checksum is wrong")
    if issuer is not None:
        return Credential(Form.JWT, carrier, text=text, issuer=issuer, dpop=dpop)
    if carrier is not Carrier.AUTHORIZATION:
        if peek_claims(text) is not None and not _holds_token(value):
            return Credential(Form.UNKNOWN, carrier, "a JWT of an issuer that is not listed")
        return Credential(Form.MALFORMED, carrier, "neither a token nor a JWT of a known issuer")
    if _holds_token(value):
        return Credential(Form.MALFORMED, carrier, "a token in a form that is not accepted")
    return Credential(Form.FOREIGN, carrier, "a credential that nobody here can verify")


def is_ours(value: str, issuers: Mapping[str, Issuer], resources: Collection[str] = ()) -> bool:
    """True when ``value`` must not leave: it carries a token, or a JWT made for us. Total.

    ``resources``: the URLs of the listed servers, for which an issuer of logins makes tokens. Wider than
    ``read``: a damaged token is still most of a secret, and an expired JWT still names us.
    """
    text, _ = _unwrap(value)
    if text.startswith(PREFIX) or _holds_token(value) or _is_for_us(text, issuers, resources):
        return True
    for hidden in _hidden(value):
        parts = hidden.decode("latin-1").split(":", 1)
        if contains_token(hidden) or any(_is_for_us(part, issuers, resources) for part in parts):
            return True
    return False


def _hidden(value: str) -> Iterator[bytes]:
    """What base64 in a value may stand for, to whoever decodes it less strictly than ``read`` does.

    Servers take Basic without its padding, with other letters in between, behind a tab, and in the alphabet
    for URLs; and some clients put the same into a cookie.
    """
    raw = value.encode("latin-1", "replace").translate(_PLAIN_BASE64)
    words = raw.split()
    runs = [word for word in words if len(word) >= _TOKEN_BASE64]
    if words and words[0].lower() == b"basic":
        runs.append(b"".join(words[1:]))
    for run in runs:
        for start in range(4):
            whole = run[start : len(run) - (len(run) - start) % 4]
            tail = run[start + len(whole) :]
            with contextlib.suppress(ValueError):
                yield base64.b64decode(whole + (tail + b"=" * (4 - len(tail)) if len(tail) > 1 else b""))


def _is_for_us(text: str, issuers: Mapping[str, Issuer], resources: Collection[str]) -> bool:
    issuer, claims = _issuer_of(text, issuers), peek_claims(text)
    return issuer is not None and claims is not None and names_audience(claims, issuer, resources)


def _unwrap(value: str) -> tuple[str, str]:
    """The credential in a header value and the scheme before it, in lower case.

    The scheme is empty where it stood bare, the credential where it has no such form.
    """
    scheme, _, rest = value.strip(" \t").partition(" ")
    rest = rest.strip(" \t")
    if not rest:
        return scheme, ""
    kind = scheme.lower()
    if kind in ("bearer", "dpop"):
        return rest, kind
    return (_password(rest) if kind == "basic" else ""), kind


def _basic(text: str) -> bytes:
    """The user-pass of a Basic value (RFC 7617), or nothing."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def _password(text: str) -> str:
    """The token of a Basic value: the password, or the name where the password is empty.

    Any other name is whatever the caller likes to write, in whatever encoding: a claim, and not read.
    """
    name, colon, password = _basic(text).partition(b":")
    if not colon:
        return ""
    found = (password or name).decode("latin-1")
    return found if password or is_well_formed(found) else ""


def _name(value: str) -> str:
    """The name of a Basic value."""
    return _basic(value.strip(" \t").partition(" ")[2].strip(" \t")).partition(b":")[0].decode("latin-1")


def _is_another(name: str, text: str, issuers: Mapping[str, Issuer]) -> bool:
    """Whether the name of a Basic value is a credential for us, and not the one that is read from it."""
    return name != text and (is_well_formed(name) or _issuer_of(name, issuers) is not None)


def _issuer_of(text: str, issuers: Mapping[str, Issuer]) -> Issuer | None:
    claims = peek_claims(text)
    name = claims.get("iss") if claims is not None else None
    return issuers.get(name) if isinstance(name, str) else None


def _holds_token(value: str) -> bool:
    """True for a well-formed token anywhere in the value, or in a Basic value once decoded."""
    if contains_token(value.encode("utf-8", "surrogatepass")):
        return True
    scheme, _, rest = value.strip(" \t").partition(" ")
    return scheme.lower() == "basic" and contains_token(_basic(rest.strip(" \t")))
