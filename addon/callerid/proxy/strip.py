"""Which headers stay behind: our carriers, and whatever holds evidence that was meant for us (law 5)."""

from __future__ import annotations

from urllib.parse import unquote

from callerid.config import Server
from callerid.credentials.strip import strip_names
from callerid.identity.authority import Authority
from callerid.identity.tokens import LENGTH, PREFIX, contains_token
from callerid.mcp.httpheads import left_behind
from callerid.proxy.facts import Facts

_LAYERS = 3


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
    """True if a well-formed token of ours stands anywhere in ``text``, also percent-encoded, up to thrice."""
    for _ in range(_LAYERS):
        if PREFIX in text and contains_token(text.encode("utf-8", "surrogateescape")):
            return True
        if "%" not in text:
            return False
        text = unquote(text, errors="surrogateescape")
    return PREFIX in text and contains_token(text.encode("utf-8", "surrogateescape"))


def passing_strip(facts: Facts, authority: Authority) -> tuple[str, ...]:
    """Towards a server to which the caller's own ``Authorization`` goes on, unless it is evidence for us.

    With it goes its DPoP proof: a proof is for one token (``ath``, RFC 9449 section 4.2), and so is for us
    only where the token is.
    """
    holding = _holding(facts, authority)
    names = strip_names((name for name, _ in facts.headers), governed=True)
    goes_on = "authorization" in {name.lower() for name, _ in facts.headers if name not in holding}
    return (*(name for name in names if not (goes_on and name.lower() == "dpop")), *holding)


def governed_strip(facts: Facts, authority: Authority) -> tuple[str, ...]:
    """Towards a listed server nothing of the caller's own credentials goes on, ours or not."""
    names = strip_names((name for name, _ in facts.headers), governed=True)
    return (*names, *_holding(facts, authority), "authorization")


def api_strip(facts: Facts, server: Server, *, passing: bool) -> tuple[str, ...]:
    """Towards an HTTP API go the usual headers and those that its entry names, and no others (law 4).

    ``passing``: the caller's own credential goes on, and perhaps its proof: ``passing_strip`` decides that.
    """
    if server.kind != "http":
        return ()
    names = left_behind(facts.headers, server.headers)
    return tuple(name for name in names if not (passing and name.lower() == "dpop"))
