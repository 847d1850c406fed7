"""Which headers of a call to an HTTP API go on: those that say nothing about what is acted on, or for whom.

A header can name another object, account, path or credential than the call that was judged: ``Destination``
of WebDAV, ``x-amz-copy-source``, ``Stripe-Account``, ``Sudo``, ``X-Envoy-Original-Path``, ``Private-Token``.
Beside a shared credential any of these would be obeyed. Nobody can list them all, so it is the other way
round (DESIGN section 1, law 4): only what stands here goes on, and what a server's entry in servers.yaml
names; and what is named there is an argument, which rules can speak about.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Mapping, Sequence

PASSES = frozenset(
    {
        # what the caller can read, and what he sends (RFC 9110 sections 8 and 12)
        "accept", "accept-charset", "accept-language", "content-type", "content-language", "content-md5",
        "content-digest", "repr-digest", "digest", "want-content-digest", "want-repr-digest", "want-digest",
        # which state of it, and which part (RFC 9110 sections 13 and 14, RFC 9111)
        "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "range",
        "cache-control", "pragma",
        # how it is to be answered, and once only (RFC 7240, draft-ietf-httpapi-idempotency-key-header)
        "prefer", "idempotency-key", "x-idempotency-key", "x-requested-with",
        # what it is traced by
        "user-agent", "x-request-id", "request-id", "x-correlation-id", "x-client-request-id",
        "client-request-id", "traceparent", "tracestate",
    }
)  # fmt: skip
"""Headers that go on to every HTTP API, lower-case."""

_NEVER_SHOWN = frozenset(
    {
        "host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect",
        "content-length", "content-encoding", "accept-encoding", "authorization",
    }
)  # fmt: skip
"""Of one hop, written anew for the next one, or judged elsewhere: nobody looks for them at the server."""
_BETWEEN_US = ("proxy-", "x-callerid-")
_TOKEN = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")
_SHOWN = 8
_LONGEST = 40


def arguments_of(
    headers: Sequence[tuple[str, str]], listed: Collection[str]
) -> Mapping[str, str | list[str]] | str:
    """What the ``listed`` headers (lower-case) say, by name; or the sentence that says why nobody can tell.

    One that comes more than once, or holds a comma, is a list: for servers the two are alike (RFC 9110
    section 5.3). Bytes beyond ASCII are read differently by servers, and have no reading here.
    """
    found: dict[str, list[str]] = {}
    for name, value in headers if listed else ():
        lower = name.lower()
        if lower not in listed:
            continue
        if not value.replace("\t", " ").isascii() or not value.replace("\t", " ").isprintable():
            return f"the header {lower[:_LONGEST]} holds more than visible ASCII"
        found.setdefault(lower, []).extend(part.strip(" \t") for part in value.split(","))
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def left_behind(headers: Sequence[tuple[str, str]], listed: Collection[str]) -> tuple[str, ...]:
    """The names, as written, of the headers that do not go on.

    Not among them: those of one hop, ``Host`` and ``Authorization``, about which is decided elsewhere. A name
    that some server folds to a listed one (``Stripe_Account``) is another name here.
    """
    return tuple(name for name, _ in headers if not _goes(name.lower(), listed))


def shown(names: Sequence[str], *, passes: Collection[str] = ()) -> str | None:
    """``names`` for the row, so that nobody searches in vain; None if there are none. Bounded.

    Args:
        names: what ``left_behind`` says.
        passes: lower-case names that go on all the same.
    """
    said = sorted({name.lower() for name in names} - set(passes))
    said = [name for name in said if not name.startswith(_BETWEEN_US)]
    if not said:
        return None
    more = [f"{len(said) - _SHOWN} more"] if len(said) > _SHOWN else []
    return "headers left behind: " + ", ".join([*map(_plain, said[:_SHOWN]), *more])


def _goes(lower: str, listed: Collection[str]) -> bool:
    return lower in PASSES or lower in listed or lower in _NEVER_SHOWN


def _plain(name: str) -> str:
    """A name as it may stand in a sentence."""
    text = "".join(char if char in _TOKEN else "?" for char in name[: _LONGEST + 1])
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
