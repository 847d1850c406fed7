"""Keys that callers bring themselves: found by their place or by their vendor's prefix, and never kept.

One key in the hands of seven people shows only where all seven pass; so each is told by its fingerprint.
The shapes are those that vendors publish for secret scanning, with their lengths, so that honest text in
a tool's arguments is not taken for a key. Regular expressions meet caller data here: they are RE2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

import re2  # type: ignore[import-untyped]

from callerid.credentials.tripwire import parts

LEAST: Final = 8
"""Characters: what is shorter in ``Authorization`` is no key that a person could share."""
KEYS_TOLD: Final = 8
"""Keys of one request that are told."""

_SHAPES: Final = (
    r"gh[oprsu]_[A-Za-z0-9]{36,255}",
    r"github_pat_[A-Za-z0-9_]{22,255}",
    r"gl(?:pat|dt|rt|soat)-[A-Za-z0-9_-]{20,64}",
    r"sk-[A-Za-z0-9_-]{20,256}",
    r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,256}",
    r"gsk_[A-Za-z0-9]{40,64}",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,256}",
    r"xapp-[A-Za-z0-9-]{20,256}",
    r"A(?:KIA|SIA)[A-Z0-9]{16}",
    r"AIza[A-Za-z0-9_-]{35}",
    r"ya29\.[A-Za-z0-9_-]{20,512}",
    r"hf_[A-Za-z0-9]{30,64}",
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-[A-Za-z0-9_-]{32,512}",
    r"shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}",
    r"dop_v1_[a-f0-9]{64}",
    r"lin_(?:api|oauth)_[A-Za-z0-9]{32,64}",
    r"(?:ntn|secret)_[A-Za-z0-9]{40,64}",
    r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",
    r"dapi[a-f0-9]{32}",
    r"ATATT[A-Za-z0-9_=-]{40,256}",
)
_ANY: Final = re2.compile((r"\b(?:" + "|".join(_SHAPES) + ")").encode("ascii"))
_NAMES: Final = frozenset(
    {"authorization", "x-api-key", "api-key", "apikey", "x-auth-token", "x-access-token", "private-token"}
)
_LONGEST: Final = max(map(len, _NAMES))
_NO_KEYS: Final = frozenset({"digest", "negotiate", "ntlm", "hawk", "signature", "mutual", "scram-sha-256"})
"""Schemes whose value is another one for each request (IANA HTTP authentication schemes)."""

type Ours = Callable[[str], bool]


def own_keys(headers: Sequence[tuple[str, str]], path: str, is_ours: Ours) -> Iterator[tuple[str, str]]:
    """The caller's own keys in the head of a request, and where each stands. Total on any text.

    Args:
        headers: names and values.
        path: the request target.
        is_ours: whether the value of a header carries evidence for callerid.
    """
    others: list[tuple[str, str]] = []
    for name, value in headers:
        if len(name) > _LONGEST or _plain(name) not in _NAMES:
            others.append((name, value))
        elif (key := _key(value, is_ours)) is not None:
            yield key, f"in the header {name}"
    # One look at all of them: nearly always there is nothing to be found.
    if _ANY.search("\n".join(value for _, value in others).encode("utf-8", "surrogatepass")) is not None:
        for name, value in others:
            for found in keys_in(value.encode("utf-8", "surrogatepass")):
                yield found, f"in the header {name[:128]}"
    if "?" in path:
        for found in keys_in(unquote(path.partition("?")[2]).encode("utf-8", "surrogatepass")):
            yield found, "in the query"


def keys_in(data: bytes) -> Iterator[str]:
    """What in ``data`` has the shape of a vendor's key."""
    for number, match in enumerate(_ANY.finditer(data)):
        if number >= KEYS_TOLD:
            return
        yield match.group(0).decode("ascii")


@lru_cache(maxsize=1024)
def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def _key(value: str, is_ours: Ours) -> str | None:
    """The key in the value of a header for keys: of Basic the password, if it has one."""
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() in _NO_KEYS or " " in rest.strip() or "," in rest:
        return None
    found = next(parts(value), None)
    if found is None or len(found) < LEAST or is_ours(value):
        return None
    return found
