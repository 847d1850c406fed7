"""Which headers stay behind: our carriers, and whatever holds evidence that was meant for us (law 5)."""

from __future__ import annotations

from urllib.parse import unquote

from callerid.credentials.strip import strip_names
from callerid.identity.authority import Authority
from callerid.identity.tokens import LENGTH, PREFIX, contains_token
from callerid.proxy.facts import Facts


def foreign_strip(facts: Facts, authority: Authority) -> tuple[str, ...]:
    """Header names to delete from traffic to any host: our carriers, and whatever holds our evidence."""
    names = strip_names((name for name, _ in facts.headers), governed=False)
    return (*names, *_holding(facts, authority))


def _holding(facts: Facts, authority: Authority) -> tuple[str, ...]:
    """Names of headers in which a token of ours, or a JWT for us, stands: in the value or in the name."""
    return tuple(
        name
        for name, value in facts.headers
        if (len(value) >= LENGTH and (holds(value) or authority.is_ours(value)))
        or (len(name) >= LENGTH and holds(name))
    )


def holds(text: str) -> bool:
    """True if a well-formed token of ours stands anywhere in ``text``, also percent-encoded."""
    if "%" in text:
        text = f"{text} {unquote(text, errors='surrogateescape')}"
    return PREFIX in text and contains_token(text.encode("utf-8", "surrogateescape"))


def passing_strip(facts: Facts, authority: Authority) -> tuple[str, ...]:
    """Towards a server to which the caller's own ``Authorization`` goes on, unless it is evidence for us."""
    names = strip_names((name for name, _ in facts.headers), governed=True)
    return (*names, *_holding(facts, authority))


def governed_strip(facts: Facts, authority: Authority) -> tuple[str, ...]:
    """Towards a listed server nothing of the caller's own credentials goes on, ours or not."""
    return (*passing_strip(facts, authority), "authorization")
