"""Does a text look like a real secret? Rule files name places where secrets are; they never hold one.

Prefixes of well-known vendors, PEM private keys, JWTs, our own tokens, and long runs of high entropy.
A match is only ever reported by place, never by value.
"""

from __future__ import annotations

import math
import re
from collections import Counter

_KNOWN = re.compile(
    r"""(?<![A-Za-z0-9_-])(?:
        gh[pousr]_[A-Za-z0-9]{16,}            # GitHub
      | github_pat_[A-Za-z0-9_]{16,}
      | glpat-[A-Za-z0-9_-]{16,}              # GitLab
      | (?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{8,}
      | sk-[A-Za-z0-9_-]{16,}
      | xox[abeoprs]-[A-Za-z0-9-]{8,}         # Slack
      | (?:AKIA|ASIA)[A-Z0-9]{16}             # AWS
      | AIza[A-Za-z0-9_-]{30,}                # Google
      | ya29\.[A-Za-z0-9_-]{16,}
      | hf_[A-Za-z0-9]{16,}
      | npm_[A-Za-z0-9]{16,}
      | pypi-[A-Za-z0-9_-]{16,}
      | dop_v1_[a-f0-9]{16,}
      | SG\.[A-Za-z0-9_-]{16,}
      | hvs\.[A-Za-z0-9_-]{16,}               # Vault
      | cid_[A-Za-z0-9]+_?[A-Za-z0-9]{20,}    # our own scoped tokens
      | eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}   # a JWT
    )
    | -----BEGIN[ A-Z0-9]*PRIVATE[ ]KEY-----
    """,
    re.VERBOSE,
)
_RUN = re.compile(r"[A-Za-z0-9+/_=-]{32,}\Z")
_HEX = re.compile(r"[0-9a-fA-F]{32,}\Z")
_USERINFO = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_BITS_PER_CHARACTER = 4.2


def spans(text: str) -> tuple[tuple[int, int], ...]:
    """Where in ``text`` something with the shape of a known secret stands: (start, end) pairs."""
    return tuple(match.span() for match in _KNOWN.finditer(text))


def looks_secret(value: str) -> bool:
    """True for a value that has a known secret in it, or that is itself one long random run."""
    if _KNOWN.search(value):
        return True
    if _HEX.match(value):
        return True
    if not _RUN.match(value) or value.startswith("/"):
        return False
    kinds = (
        any(c.isdigit() for c in value),
        any(c.islower() for c in value),
        any(c.isupper() for c in value),
    )
    return all(kinds) and _entropy(value) >= _BITS_PER_CHARACTER


def masked(text: str) -> str:
    """``text`` with known secrets, the user part of URLs and random words replaced by as many stars."""
    text = _USERINFO.sub(lambda m: "*" * len(m.group()), text)
    for start, end in spans(text):
        text = text[:start] + "*" * (end - start) + text[end:]
    return re.sub(r"[^\s\"',:{}\[\]]{32,}", lambda m: _stars(m.group()), text)


def _stars(word: str) -> str:
    return "*" * len(word) if looks_secret(word) else word


def _entropy(text: str) -> float:
    total = len(text)
    return -sum(n / total * math.log2(n / total) for n in Counter(text).values())
