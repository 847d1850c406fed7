"""What a secret looks like: names of members that hold one, and shapes of well-known credentials.

The tables are deliberately broad. A redacted page token costs an analyst nothing, a stored password
costs the company a rotation. Regular expressions meet caller data here, so they are RE2: linear time.
"""

from __future__ import annotations

import base64
import binascii
import unicodedata
from functools import lru_cache
from typing import Any

import re2  # type: ignore[import-untyped]

REDACTED = "[redacted]"

_STEMS = (
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "apikey",
    "privatekey",
    "accesskey",
    "signingkey",
    "encryptionkey",
    "authorization",
    "credential",
    "cookie",
)
"""A name that contains one of these, whatever its case and separators, holds a secret."""

_LAST_WORDS = frozenset(
    {
        "token",
        "jwt",
        "session",
        "sid",
        "otp",
        "totp",
        "mfa",
        "pin",
        "pwd",
        "pass",
        "auth",
        "bearer",
        "cvv",
        "cvc",
        "ssn",
        "mnemonic",
    }
)
"""A name whose last word is one of these holds a secret: ``user_pin`` does, ``pinned`` does not."""

_REMEMBERED_NAME = 256
_WHOLE_NAMES = frozenset(
    {"tokens", "sessionid", "sessiontoken", "pincode", "otpcode", "mfacode", "cardnumber"}
)


def names_a_secret(name: str) -> bool:
    """Whether a member of this name holds a secret; case and separators do not matter.

    The name is compared after NFKC and case folding, so full-width letters do not hide it.
    """
    return _known_name(name) if len(name) <= _REMEMBERED_NAME else _judge_name(name)


def _judge_name(name: str) -> bool:
    folded = unicodedata.normalize("NFKC", name)
    squeezed = "".join(char for char in folded.casefold() if char.isalnum())
    if any(stem in squeezed for stem in _STEMS):
        return True
    return squeezed in _WHOLE_NAMES or squeezed in _LAST_WORDS or _last_word(folded) in _LAST_WORDS


_known_name = lru_cache(maxsize=4096)(_judge_name)
"""For short names only: callers choose them, and must not choose how much is remembered."""


def _last_word(name: str) -> str:
    """The last word of ``snake_case``, ``kebab-case``, ``camelCase`` or ``API_PIN``, case folded."""
    end = len(name)
    while end and not name[end - 1].isalnum():
        end -= 1
    start = end
    while start and name[start - 1].isalnum():
        start -= 1
        if name[start].isupper() and start and name[start - 1].islower():
            break
    return name[start:end].casefold()


_SECRET_NAME = (
    r"(?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|secret[_-]?key|"
    r"private[_-]?key|authorization|credentials?|cookie)"
)
_ALTERNATIVES = (
    # PEM (RFC 7468); the end marker may lie beyond what we see
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----"
    r"(?:(?s:.*?)-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----|(?s:.*))",
    # the password of a URL's userinfo (RFC 3986 section 3.2.1), or a long user name alone
    r"(?P<url>[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@:]*:)[^\s/?#]+(?P<at>@)",
    r"(?P<url_token>[A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#@:]{20,}(?P<url_at>@)",
    # our own scoped tokens, and JSON Web Tokens (RFC 7519)
    r"cid_[A-Za-z0-9_-]{8,}",
    r"eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,3}",
    # vendors' prefixes, as their secret scanning programmes publish them
    r"github_pat_[A-Za-z0-9_]{10,}",
    r"gh[a-z]_[A-Za-z0-9]{10,}",
    r"glpat-[A-Za-z0-9_-]{10,}",
    r"\bsk-[A-Za-z0-9_-]{10,}",
    r"\b[srp]k_(?:live|test)_[A-Za-z0-9]{8,}",
    r"xox[a-z]-[A-Za-z0-9-]{8,}",
    r"xapp-[A-Za-z0-9-]{8,}",
    r"\bA(?:KIA|SIA)[A-Z0-9]{12,}",
    r"\bhf_[A-Za-z0-9]{10,}",
    r"\bnpm_[A-Za-z0-9]{10,}",
    r"AIza[A-Za-z0-9_-]{16,}",
    r"ya29\.[A-Za-z0-9_-]{8,}",
    r"pypi-[A-Za-z0-9_-]{16,}",
    # HTTP authentication (RFC 6750, RFC 7617)
    r"(?P<bearer>(?i:\bbearer)\s+)[A-Za-z0-9+/=._~-]{8,}",
    r"(?P<basic>(?i:\bbasic)\s+)(?P<basic_value>[A-Za-z0-9+/=]{6,})",
    # name=value, name: value, "name": "value", --name value
    r"(?P<name>(?i:authorization)\\?[\"']?\s*[:=]\s*\\?[\"']?(?:[A-Za-z]+[ ]+)?)[^\s\"',;&\\]+",
    r"(?P<option>--?(?:[A-Za-z0-9]+[_-])*(?i:" + _SECRET_NAME + r")\s+)[^\s\"',;&-][^\s\"',;&]*",
    r"(?P<assigned>(?i:" + _SECRET_NAME + r")\\?[\"']?\s*[:=]\s*)"
    r"(?:\\?\"(?:[^\"\\]|\\[^\"])*|'[^']*|[^\s\"',;&\\}]+)",
)
_SHAPES = re2.compile("|".join(_ALTERNATIVES))
_QUICK = re2.Options()
_QUICK.never_capture = True
_ANY_SHAPE = re2.compile("|".join(_ALTERNATIVES).encode(), _QUICK)
"""The same language, asked only whether it is there."""
_KEPT_BEFORE = ("url", "url_token", "bearer", "basic", "name", "option", "assigned")


def finds_shape(text: str) -> bool:
    """Whether anything in ``text`` may look like a credential; true in doubt."""
    return _ANY_SHAPE.search(text.encode("utf-8", "surrogatepass")) is not None


def hide_shapes(text: str) -> tuple[str, int]:
    """Replace what looks like a credential; keep the words around it that say what it was.

    Args:
        text: without lone surrogates.

    Returns:
        The text, and how many credentials were replaced in it.
    """
    hits = 0

    def replace(match: Any) -> str:
        nonlocal hits
        groups = match.groupdict()
        if groups["basic"] is not None and not _is_basic(groups["basic_value"]):
            return str(match.group(0))
        hits += 1
        before = next((groups[name] for name in _KEPT_BEFORE if groups[name] is not None), "")
        return before + REDACTED + (groups["at"] or groups["url_at"] or "")

    if _SHAPES.search(text) is None:
        return text, 0
    return str(_SHAPES.sub(replace, text)), hits


def _is_basic(value: str) -> bool:
    """RFC 7617 section 2: Basic credentials decode to a text with a colon; "basic research" does not."""
    whole = value.rstrip("=")
    try:
        return b":" in base64.b64decode(whole[: len(whole) - (len(whole) % 4 == 1)] + "==", validate=False)
    except (binascii.Error, ValueError):
        return True
