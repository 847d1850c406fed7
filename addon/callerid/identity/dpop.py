"""DPoP proofs (RFC 9449): that whoever sends a token holds the key that the token is bound to.

A proof is for one request: its method, its URL, its token, its minute. That it is used once is remembered
here, in a bounded memory. Whoever fills it is refused, and nobody else: the room is shared out by holder, so
that many keys of one person are one share. One process remembers; a restart forgets.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeGuard
from weakref import WeakKeyDictionary

from callerid.identity.jwt import b64url_sha256, verify_by_own_key
from callerid.identity.presented import RequestMark
from callerid.identity.resources import canonical_url

MAX_PROOF = 8192
"""Characters. A larger proof is refused unread."""
MAX_JTI = 256
SHOWN = 200
"""Characters of a URL that are said where it was not met."""
PROOF_AGE_US = 60_000_000
"""How old a proof may be; the client's clock may be ahead or behind by ``SKEW_US`` besides."""
SKEW_US = 30_000_000
PROOFS_PER_HOLDER = 10_000
PROOFS = 100_000
"""Proofs that are remembered: of one holder, and of all before each holder has an equal share only."""

_REMEMBER_US = PROOF_AGE_US + 2 * SKEW_US


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A proof that is good for its request, but for its time. ``key`` is the thumbprint (RFC 7638)."""

    key: str
    jti: bytes
    made_us: int


def read_proof(text: str, *, token: str, method: str, urls: Iterable[str | None]) -> Proof | str:
    """Check everything about a proof but whether it is fresh and new (RFC 9449 section 4.3). Total.

    Args:
        text: the value of the ``DPoP`` header.
        token: the access token that came with it.
        method: of the request, as its client wrote it.
        urls: what the request's URL may be called; the proof must name one of them.

    Returns:
        The proof, or what is wrong with it.
    """
    if len(text) > MAX_PROOF:
        return "it is too large"
    found = verify_by_own_key(text, "dpop+jwt")
    if isinstance(found, str):
        return found
    claims, key = found
    jti, made = claims.get("jti"), claims.get("iat")
    if not isinstance(jti, str) or not 0 < len(jti) <= MAX_JTI:
        return "its jti is missing, or not a text of usual length"
    if not _is_seconds(made):
        return "its iat is missing or no date"
    if claims.get("htm") != method:
        return "its htm is not the method of the request"
    place, expected = canonical_url(claims.get("htu")), [url for url in map(canonical_url, urls) if url]
    if place is None or place not in expected:
        said = f", which is {expected[0][:SHOWN]}" if expected else ""
        return f"its htu is not the URL of the request{said}"
    if claims.get("ath") != b64url_sha256(token.encode("utf-8", "surrogatepass")):
        return "its ath is not the hash of the token"
    return Proof(key=key, jti=_short(jti), made_us=int(made * 1_000_000))


def _is_seconds(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 253402300800


def _short(jti: str) -> bytes:
    return hashlib.sha256(jti.encode("utf-8", "surrogatepass")).digest()[:16]


class Proofs:
    """The proofs that were used. For one thread. It outlives a reload, or that would let proofs in twice."""

    def __init__(self) -> None:
        self._used: dict[str, set[bytes]] = {}
        self._order: deque[tuple[int, Proof, str]] = deque()
        self._held: Counter[str] = Counter()
        self._admitted: WeakKeyDictionary[RequestMark, Proof] = WeakKeyDictionary()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._order)

    def admit(self, proof: Proof, mark: RequestMark | None, now_us: int, holder: str) -> str | None:
        """Use up a proof for the request ``mark``, or say why it is not good for it.

        A request is judged more than once, as an open stream is whenever rights may have shrunk: to the
        request that it was used for, a proof stays good. ``holder`` is whose token it was made for, however
        many keys that one has: the share of the memory is his.
        """
        if mark is not None and self._admitted.get(mark) == proof:
            return None
        if not now_us - PROOF_AGE_US - SKEW_US <= proof.made_us <= now_us + SKEW_US:
            return "it was not made just now"
        self._forget(now_us)
        used = self._used.get(proof.key, set())
        if proof.jti in used:
            return "it was used before"
        if self._held[holder] >= self._share(holder):
            return "too many of them were used in the last minutes"
        self._used.setdefault(proof.key, set()).add(proof.jti)
        self._held[holder] += 1
        self._order.append((now_us + _REMEMBER_US, proof, holder))
        if mark is not None:
            self._admitted[mark] = proof
        return None

    def _share(self, holder: str) -> int:
        """How many this holder may have here. In a full memory all who are in it are equal, so that what it
        grows to beyond PROOFS is bounded by their number, and whoever has few is let in."""
        if len(self._order) < PROOFS:
            return PROOFS_PER_HOLDER
        holders = len(self._held) + (holder not in self._held)
        return min(PROOFS_PER_HOLDER, max(1, PROOFS // holders))

    def _forget(self, now_us: int) -> None:
        """Let go of what is too old to be shown again."""
        while self._order and self._order[0][0] < now_us:
            _, proof, holder = self._order.popleft()
            self._held[holder] -= 1
            if not self._held[holder]:
                del self._held[holder]
            self._used[proof.key].discard(proof.jti)
            if not self._used[proof.key]:
                del self._used[proof.key]
