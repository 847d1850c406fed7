"""Globs and regular expressions that meet caller data: linear time, whole match, never an exception.

Globs have the semantics of ``fnmatch.fnmatchcase``: ``*`` (crosses every separator), ``?``, ``[seq]``,
``[!seq]``; case matters. Regular expressions are RE2's. Text that RE2 cannot read is neither a match nor
none: the answer is None.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import re2  # type: ignore[import-untyped]

type Tri = bool | None
type Matcher = Callable[[str], Tri]


class BadPattern(ValueError):
    """A pattern that cannot be used; the text says why."""


def regex(pattern: str) -> Matcher:
    """A matcher for the whole text by RE2; ``.`` matches a line end too.

    Raises:
        BadPattern: RE2 does not take it (look-around and backreferences do not exist there).
    """
    compiled = _compile(pattern)

    def matches(text: str) -> Tri:
        try:
            return compiled.fullmatch(text) is not None
        except (UnicodeEncodeError, re2.error):
            return None

    return matches


@lru_cache(maxsize=16_384)
def glob(pattern: str) -> Matcher:
    """A matcher for the whole text by glob.

    Raises:
        BadPattern: a range such as [z-a] is the wrong way round.
    """
    if "?" in pattern or "[" in pattern:
        return regex(_translate(pattern))
    return stars(pattern)


def stars(pattern: str) -> Matcher:
    """A matcher for the whole text in which ``*`` is any run of characters and nothing else is special."""
    if "*" not in pattern:
        return lambda text: text == pattern
    first, *middle, last = pattern.split("*")

    def matches(text: str) -> Tri:
        end = len(text) - len(last)
        at = len(first)
        if end < at or not text.startswith(first) or not text.endswith(last):
            return False
        for part in middle:
            at = text.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True

    return matches


def is_glob(pattern: str) -> bool:
    """True if ``pattern`` can match more than itself."""
    return any(sign in pattern for sign in "*?[")


def _compile(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    options.never_capture = True
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise BadPattern(f"RE2 does not take it: {text}") from None
    except UnicodeEncodeError:
        raise BadPattern("it is not Unicode text") from None


def _translate(pattern: str) -> str:
    """The glob as RE2; brackets are read as fnmatch reads them."""
    made: list[str] = []
    at = 0
    while at < len(pattern):
        sign = pattern[at]
        at += 1
        if sign == "*":
            made.append(".*")
        elif sign == "?":
            made.append(".")
        elif sign == "[":
            end = _closing(pattern, at)
            if end < 0:
                made.append(r"\[")
            else:
                made.append(_set(pattern[at:end]))
                at = end + 1
        else:
            made.append(_quoted(sign))
    return "".join(made)


def _closing(pattern: str, at: int) -> int:
    """Where the set that begins at ``at`` ends: a ] right at its begin is a member of it."""
    if pattern[at : at + 1] == "!":
        at += 1
    if pattern[at : at + 1] == "]":
        at += 1
    return pattern.find("]", at)


def _set(inside: str) -> str:
    negated = inside.startswith("!")
    members = inside[1:] if negated else inside
    made: list[str] = []
    at = 0
    while at < len(members):
        low = members[at]
        if members[at + 1 : at + 2] == "-" and at + 2 < len(members):
            high = members[at + 2]
            if low > high:
                raise BadPattern(f"the range {low}-{high} is the wrong way round")
            made.append(f"{_quoted(low)}-{_quoted(high)}")
            at += 3
        else:
            made.append(_quoted(low))
            at += 1
    return f"[{'^' if negated else ''}{''.join(made)}]"


def _quoted(sign: str) -> str:
    return sign if sign.isalnum() or sign == "_" else f"\\x{{{ord(sign):x}}}"
