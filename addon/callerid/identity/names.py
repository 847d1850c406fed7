"""Subjects and agent names: one grammar, one spelling, one glob. Pure, total on any text.

Two spellings of one e-mail address must not be two subjects, or a refusal of one would not bind the
other; and two addresses must never become one. So only ASCII letters are folded: ``str.lower`` would
turn the Kelvin sign into a k.
"""

from __future__ import annotations

import string

from callerid.identity.tokens import contains_token

SUBJECT_KINDS = ("user", "workload")
BLOCKABLE_KINDS = ("user", "workload", "agent", "cert", "jwt")
MAX_NAME = 512
"""Characters in the NAME of a subject; a SPIFFE ID may have 2048 bytes, those in use are far shorter."""

_FOLD = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def ascii_lower(text: str) -> str:
    """``text`` with A-Z folded to a-z and nothing else changed."""
    return text.translate(_FOLD)


def is_name(text: object) -> bool:
    """True for a text that can stand in a name: 1 to 512 printable characters, no space, no token of ours.

    Surrogates and control characters are not printable, so a name can always be stored and shown; and what
    is stored and shown is never a token (law 5).
    """
    return (
        isinstance(text, str)
        and 0 < len(text) <= MAX_NAME
        and text.isprintable()
        and " " not in text
        and not contains_token(text.encode("utf-8"))
    )


def is_selector(text: object) -> bool:
    """True for a selector of tools: a name, or ``http:METHOD PATH``, the one shape with a space in it."""
    if is_name(text):
        return True
    if not isinstance(text, str) or len(text) > MAX_NAME or not text.startswith("http:"):
        return False
    method, _, path = text.removeprefix("http:").partition(" ")
    return is_name(method) and is_name(path) and path.startswith(("/", "*"))


def canonical(subject: str) -> str:
    """``subject`` (``KIND:NAME``) as it is compared: a ``user:`` with an e-mail address in lower case."""
    if subject.startswith("user:") and "@" in subject:
        return ascii_lower(subject)
    return subject


def make_subject(kind: str, name: object) -> str | None:
    """The canonical ``KIND:NAME``, or None when ``name`` is not a name."""
    if not isinstance(name, str) or not is_name(name):
        return None
    return canonical(f"{kind}:{name}")


def parse_subject(text: str, kinds: tuple[str, ...] = SUBJECT_KINDS) -> str | None:
    """``text`` as a canonical subject of one of ``kinds``, or None when it is none."""
    kind, colon, name = text.partition(":")
    if not colon or kind not in kinds:
        return None
    return make_subject(kind, name)


def glob_match(pattern: str, text: str) -> bool:
    """True when the whole of ``text`` matches ``pattern``: ``*`` is any run of characters, ``?`` is one.

    Case matters, and ``*`` crosses every separator. Worst case is len(pattern) * len(text) steps, never
    more, whatever the caller sends: one restart point is enough, since the last star can absorb all.
    """
    p = t = 0
    star, resume = -1, 0
    while t < len(text):
        if p < len(pattern) and pattern[p] == "*":
            star, resume = p, t
            p += 1
        elif p < len(pattern) and pattern[p] in (text[t], "?"):
            p += 1
            t += 1
        elif star >= 0:
            resume += 1
            p, t = star + 1, resume
        else:
            return False
    return all(character == "*" for character in pattern[p:])
