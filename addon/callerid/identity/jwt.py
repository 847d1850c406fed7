"""JWTs of configured issuers: signature and claims. The one home of PyJWT.

PyJWT checks the signature; the claims are read and judged here, since it reads the clock itself, takes
the last of duplicate claims, and checks a claim only where the token has one (RFC 7519, RFC 8725).
A token chooses nothing: the algorithms come from the issuer's entry, and ``kid`` is a name among that
issuer's own public keys. ``jku``, ``x5u``, ``jwk`` and ``x5c`` are never read.
"""

from __future__ import annotations

import base64
import hashlib
import json
import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeGuard

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from callerid.config import Issuer
from callerid.identity.names import is_name
from callerid.identity.resources import same_resource
from callerid.identity.strictjson import parse_object
from callerid.model import Reason, Rejected

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
"""Asymmetric only: with a symmetric one, whoever can verify can also forge."""
MAX_TOKEN = 16 * 1024
"""Characters. A larger token is refused unread."""
MAX_ACTORS = 5

_TYPES = frozenset({"jwt", "at+jwt"})
_USES = frozenset({"sig", "jwt-svid"})
"""What a key is for (RFC 7517 section 4.2); SPIFFE bundles have a word of their own."""
_BASE64URL = frozenset(string.ascii_letters + string.digits + "-_")
_MIN_RSA_BITS = 2048
# What a public key is made of, per key type (RFC 7518 section 6, RFC 8037). All else is dropped unread,
# the private part first of all.
_PUBLIC = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_ALGORITHM_OF = {
    ("RSA", None): "RS256",
    ("EC", "P-256"): "ES256",
    ("OKP", "Ed25519"): "EdDSA",
}
_JWS = jwt.PyJWS(options={"enforce_minimum_key_length": True})


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One public key of an issuer, good for one algorithm."""

    kid: str | None
    algorithm: str
    public: jwt.PyJWK


@dataclass(frozen=True, slots=True)
class KeySet:
    """The public keys of one issuer."""

    keys: tuple[VerificationKey, ...]

    def select(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """The one key of that name and algorithm. Without a name: the only key of that algorithm."""
        fits = [key for key in self.keys if key.algorithm == algorithm and (kid is None or key.kid == kid)]
        return fits[0] if len(fits) == 1 else None

    def knows(self, kid: str) -> bool:
        """True when a key of that name is here, whatever its algorithm."""
        return any(key.kid == kid for key in self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtClaims:
    """The claims of a verified token. ``actors`` is the RFC 8693 ``act`` chain, the current actor first.

    ``credential_id`` is ``jwt:ISSUER:JTI`` with the issuer's id in identities.yaml, or the first 12 hex
    digits of ``signed_digest`` where it has no usable ``jti``. ``expires_us`` is ``exp`` with the leeway,
    in microseconds, UTC: the moment from which the token is refused.
    """

    issuer: str
    subject: str
    claims: Mapping[str, Any]
    actors: tuple[str, ...]
    credential_id: str
    expires_us: int


def key_from_jwk(jwk: Mapping[str, Any]) -> VerificationKey | None:
    """A member of a JWKS as a key that verifies, or None when it is none that we use.

    None for: symmetric keys, other curves and algorithms, keys for encryption, RSA below 2048 bits,
    and whatever cannot be read (RFC 7517 section 5: members not understood are ignored).
    """
    kty, kid = jwk.get("kty"), jwk.get("kid")
    if not isinstance(kty, str) or kty not in _PUBLIC or not (kid is None or isinstance(kid, str)):
        return None
    curve = jwk.get("crv") if kty != "RSA" else None
    algorithm = _ALGORITHM_OF.get((kty, curve)) if curve is None or isinstance(curve, str) else None
    operations = jwk.get("key_ops", ["verify"])
    if algorithm is None or jwk.get("alg", algorithm) != algorithm or jwk.get("use", "sig") not in _USES:
        return None
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    public = {"kty": kty} | {name: jwk.get(name) for name in _PUBLIC[kty]}
    try:
        key = jwt.PyJWK(public, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    if kty == "RSA" and key.key.key_size < _MIN_RSA_BITS:
        return None
    return VerificationKey(kid, algorithm, key)


def peek_claims(token: str) -> Mapping[str, Any] | None:
    """The unverified claims, or None when there are none to read. Total."""
    if len(token) > MAX_TOKEN:
        return None
    parts = token.split(".")
    return _segment(parts[1]) if len(parts) == 3 else None


def peek_kid(token: str) -> str | None:
    """The name of the key in the unverified header, or None. Total."""
    kid = (_header(token) or {}).get("kid")
    return kid if isinstance(kid, str) else None


def names_audience(claims: Mapping[str, Any], issuer: Issuer, resources: Collection[str] = ()) -> bool:
    """True when ``aud`` has one of our audiences among whatever it holds; wider than ``verify``.

    ``resources`` are the URLs of the listed servers: audiences of ours too, for an issuer of logins.
    """
    audience = claims.get("aud")
    found = audience if isinstance(audience, list) else [audience]
    return any(
        isinstance(item, str)
        and (
            item in issuer.audiences
            or (issuer.login and any(same_resource(item, resource) for resource in resources))
        )
        for item in found
    )


def wants_other_keys(token: str, keys: KeySet) -> bool:
    """True when the header names a key that is not in ``keys``: the issuer may have new ones. Total."""
    header = _header(token)
    kid = header.get("kid") if header is not None else None
    return isinstance(kid, str) and not keys.knows(kid)


def verify(
    token: str, issuer: Issuer, keys: KeySet, now: datetime, *, resource: str | None = None
) -> JwtClaims | Rejected:
    """Verify ``token`` as one of ``issuer``, at ``now``. Total.

    Checked, first failure wins: size, header (``alg``, ``typ``, ``crit``), key, signature, strict JSON,
    ``iss``, ``aud``, ``sub``, ``exp``, ``iat``, ``nbf``, age, ``act``. ``resource`` is the URL of the listed
    server that is called: for an issuer of logins it is an audience too (RFC 8707).
    """
    header = _header(token)
    if header is None:
        return _no("the token is too large or cannot be read")
    fault = _header_fault(header, issuer)
    if fault is not None:
        return _no(fault)
    key = keys.select(header.get("kid"), header["alg"])
    if key is None:
        return _no("no key of the issuer has the token's kid and algorithm")
    payload = _payload(token, key)
    if payload is None:
        return _no("the signature is not the issuer's")
    claims = parse_object(payload)
    if claims is None:
        return _no("the claims are not one JSON object without duplicates")
    return _judge(token, claims, issuer, now, resource)


def verify_by_own_key(token: str, kind: str) -> tuple[Mapping[str, Any], str] | str:
    """A JWT of type ``kind`` that brings its public key along: its claims and the key's thumbprint. Total.

    It proves that its maker holds the private key, and nothing else. The thumbprint is that of RFC 7638, by
    SHA-256. A text says what is wrong.
    """
    header = _header(token)
    if header is None:
        return "it is too large or cannot be read"
    jwk, algorithm, typ = header.get("jwk"), header.get("alg"), header.get("typ")
    if not isinstance(typ, str) or typ.lower().removeprefix("application/") != kind:
        return f"its typ is not {kind}"
    if "crit" in header or "b64" in header:
        return "its header has extensions that must be understood"
    if not isinstance(jwk, dict) or _PRIVATE & set(jwk):
        return "its header has no jwk that is a public key alone"
    key = key_from_jwk({name: value for name, value in jwk.items() if name not in ("kid", "use", "key_ops")})
    if key is None or key.algorithm != algorithm:
        return "its jwk and alg are not ones that are accepted"
    payload = _payload(token, key)
    claims = parse_object(payload) if payload is not None else None
    if claims is None:
        return "its signature is not that of its jwk, or its claims are not one JSON object"
    members = {name: jwk[name] for name in sorted((*_PUBLIC[jwk["kty"]], "kty"))}
    text = json.dumps(members, separators=(",", ":"), ensure_ascii=False)
    return claims, b64url_sha256(text.encode("utf-8", "surrogatepass"))


def signed_digest(token: str) -> str:
    """Hex SHA-256 of what the signature is over.

    The whole text identifies no token: an ES256 signature has a twin that verifies just as well, and whoever
    holds the one can make the other.
    """
    return hashlib.sha256(token.rpartition(".")[0].encode("utf-8", "surrogatepass")).hexdigest()


def b64url_sha256(data: bytes) -> str:
    """SHA-256 as base64url without padding: ``x5t#S256``, ``jkt`` and ``ath``."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode("ascii")


def _payload(token: str, key: VerificationKey) -> bytes | None:
    """What was signed, if ``key`` signed it."""
    try:
        signed = _JWS.decode_complete(token, key.public, algorithms=[key.algorithm])
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    payload: bytes = signed["payload"]
    return payload


def _judge(
    token: str, claims: Mapping[str, Any], issuer: Issuer, now: datetime, resource: str | None
) -> JwtClaims | Rejected:
    if claims.get("iss") != issuer.issuer:
        return _no("iss is not the issuer's")
    if not _is_audience(claims.get("aud"), issuer, resource):
        return _no("aud is not one of ours alone", Reason.JWT_AUDIENCE)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not is_name(subject):
        return _no("sub is missing or is not a name")
    jti = claims.get("jti")
    tail = jti if isinstance(jti, str) and is_name(jti) else signed_digest(token)[:12]
    credential_id = f"jwt:{issuer.id}:{tail}"
    fault = _time_fault(claims, issuer, now)
    if fault is not None:
        reason, detail = fault
        return Rejected(reason=reason, detail=detail, subject=subject, credential_id=credential_id)
    actors = _actors(claims)
    if actors is None:
        return Rejected(
            reason=Reason.JWT_INVALID,
            detail=f"act is not a chain of at most {MAX_ACTORS} named actors",
            subject=subject,
            credential_id=credential_id,
        )
    return JwtClaims(
        issuer=issuer.id,
        subject=subject,
        claims=claims,
        actors=actors,
        credential_id=credential_id,
        expires_us=int((claims["exp"] + issuer.leeway) * 1_000_000),
    )


def _no(detail: str, reason: Reason = Reason.JWT_INVALID) -> Rejected:
    return Rejected(reason=reason, detail=detail)


def _header(token: str) -> dict[str, Any] | None:
    if len(token) > MAX_TOKEN or token.count(".") != 2 or not token.isascii():
        return None
    return _segment(token[: token.index(".")])


def _segment(text: str) -> dict[str, Any] | None:
    """A base64url segment (RFC 7515 section 2: no padding) as a strict JSON object."""
    if not _BASE64URL.issuperset(text):  # the library's decoder skips what it does not know
        return None
    try:
        return parse_object(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        return None


def _header_fault(header: Mapping[str, Any], issuer: Issuer) -> str | None:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS or algorithm not in issuer.algorithms:
        return "alg is not one of the issuer's algorithms"
    if "crit" in header or "b64" in header:
        return "the header has extensions that must be understood"  # RFC 7515 section 4.1.11
    if not isinstance(header.get("kid"), str | None):
        return "kid is not a text"
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        return "typ is not JWT or at+jwt"  # RFC 8725 section 3.11
    return None


def _is_audience(audience: object, issuer: Issuer, resource: str | None) -> bool:
    """One of ours and nobody else's: a token that is good at two places can be carried from one to the other.

    A list of one is the same as its element (Kubernetes writes ``aud`` so).
    """
    if isinstance(audience, list) and len(audience) == 1:
        audience = audience[0]
    if not isinstance(audience, str):
        return False
    return audience in issuer.audiences or (issuer.login and same_resource(audience, resource))


def _time_fault(claims: Mapping[str, Any], issuer: Issuer, now: datetime) -> tuple[Reason, str] | None:
    """What is wrong with ``exp``, ``iat``, ``nbf`` (NumericDate, seconds) at ``now``, within the leeway."""
    at = now.timestamp()
    exp, iat, nbf = claims.get("exp"), claims.get("iat"), claims.get("nbf", 0)
    if not (_is_date(exp) and _is_date(iat) and _is_date(nbf)):
        return Reason.JWT_INVALID, "exp or iat is missing, or a date is not a number"
    if exp - iat > issuer.max_token_age or exp <= iat:
        return Reason.JWT_INVALID, f"the token is made for more than {issuer.max_token_age} s, or for none"
    if exp + issuer.leeway <= at:
        return Reason.JWT_EXPIRED, "the token has expired"
    if max(iat, nbf) - issuer.leeway > at:
        return Reason.JWT_INVALID, "the token is not valid yet"
    return None


def _is_date(value: object) -> TypeGuard[int | float]:
    """True for a number of seconds before the year 10000; true and false are no numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 253402300800


def _actors(claims: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The ``act`` chain (RFC 8693 section 4.1), current actor first; None when it is not one."""
    found: list[str] = []
    link: object = claims
    while isinstance(link, Mapping) and "act" in link:
        link = link["act"]
        name = link.get("sub") if isinstance(link, Mapping) else None
        if not isinstance(name, str) or not is_name(name) or len(found) == MAX_ACTORS:
            return None
        found.append(name)
    return tuple(found)


def sign(claims: Mapping[str, Any], private: Ed25519PrivateKey, *, kid: str, kind: str) -> str:
    """A JWS of ours over ``claims``, by EdDSA; ``kind`` is its ``typ`` (RFC 8725 section 3.11)."""
    return jwt.encode(dict(claims), private, algorithm="EdDSA", headers={"kid": kid, "typ": kind})
