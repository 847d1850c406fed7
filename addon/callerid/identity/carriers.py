"""Reading carrier headers: what credential a value holds, if any. Total on hostile text; verifies nothing.

DESIGN section 3: ``Basic base64(NAME:TOKEN)``, ``Bearer TOKEN``, and the bare token in X-Callerid-Token.
A piece that is recognisably meant for us but cannot be used is never passed over as somebody else's.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum

from callerid.config import Issuer
from callerid.identity.jwt import names_audience, peek_claims
from callerid.identity.tokens import PREFIX, contains_token, is_well_formed
from callerid.model import Carrier


class Form(Enum):
    """What a header value is, as far as can be said without verifying it."""

    TOKEN = "token"
    JWT = "jwt"
    MALFORMED = "malformed"
    FOREIGN = "foreign"


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

    In ``Authorization`` a value that is not for us is FOREIGN; in our own two carriers there is nothing
    foreign, and it is MALFORMED.
    """
    text, scheme = _unwrap(value)
    bare, dpop = not scheme, scheme == "dpop"
    issuer = _issuer_of(text, issuers)
    if bare and carrier is not Carrier.X_CALLERID_TOKEN and (issuer is not None or text.startswith(PREFIX)):
        return Credential(Form.MALFORMED, carrier, "a token here needs the word Bearer before it")
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
    if text.startswith(PREFIX) or _holds_token(value):
        return True
    issuer = _issuer_of(text, issuers)
    claims = peek_claims(text)
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

    The name is whatever the caller likes to write, in whatever encoding: a claim, and not read.
    """
    name, colon, password = _basic(text).partition(b":")
    if not colon:
        return ""
    found = (password or name).decode("latin-1")
    return found if password or is_well_formed(found) else ""


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
