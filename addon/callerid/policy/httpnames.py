"""``http:METHOD PATH`` selectors: which calls of an HTTP API they are about. Total on what callers send.

The name of such a call is ``METHOD PATH``, the path as it is sent, without its query. Methods are told apart
as HTTP does, by every letter (RFC 9110 section 9.1); ``*`` is any. Paths are matched segment by segment, as
in a credential's binding: ``*`` is any run of characters within one segment, ``/**`` at the end is the folder
itself and everything below. Only an empty segment is no ``*`` here: a grant on ``/charges/*`` is one on
single charges, and ``/charges/`` is the list of them.

Servers do not agree about everything: case, a slash at the end, encoded letters, dots and blanks at the end
of a name (Windows), a format as its ending (Rails: ``/refunds.json``). Where some of them would take the call
for one that the selector names, the answer is None: no match for a grant, a match for a guard.
"""

from __future__ import annotations

import string
import unicodedata
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from callerid.policy.patterns import BadPattern, Matcher, Tri, stars
from callerid.policy.places import path_glob_fault

_METHOD = frozenset(string.ascii_uppercase + string.digits + "-_")
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
_NEVER_ENCODED = _UNRESERVED | frozenset("/\\%?#;")
_EITHER_WAY = frozenset("!$&'()+,:@=")
"""What a segment may hold encoded or not (RFC 3986 section 3.3), without ``*`` and ``;``."""
_CACHED = 512

type Segments = tuple[str, ...]


def call_matcher(text: str) -> Matcher:
    """A matcher for names of calls, from ``METHOD PATH`` of a selector.

    Raises:
        BadPattern: the method or the path cannot be used; the text says why.
    """
    method, space, path = text.partition(" ")
    if not space or not path:
        raise BadPattern("it needs a method and a path with one space between them")
    if method != "*" and (not method or not _METHOD.issuperset(method)):
        raise BadPattern("a method is written in capitals, or * for any")
    wrong = path_glob_fault(path)
    if wrong:
        raise BadPattern(wrong)
    if not is_plain_path(path.replace("*", "x")):
        raise BadPattern("no call has this path: it is plain ASCII, with % only where there is no other way")
    if path == "/**":
        return lambda name: _method(method, _split(name)[0])
    segments = _one_spelling(path).split("/")
    deep = segments[-1] == "**"
    if deep:
        segments.pop()
    tests = tuple(_something if segment == "*" else stars(segment) for segment in segments)
    folded = tuple(_something if segment == "*" else stars(segment.lower()) for segment in segments)

    def matches(name: str) -> Tri:
        actual_method, actual, near = _split(name)
        answer = _method(method, actual_method)
        if answer is False:
            return False
        if not near:
            return None
        if _covers(tests, deep, actual):
            return answer
        return None if any(_covers(folded, deep, other) for other in near) else False

    return matches


def is_plain_path(path: str) -> bool:
    """True if no two servers read ``path`` differently (RFC 3986 section 6.2.2).

    Not plain: no leading slash, empty and dot segments, backslash, query, fragment, path parameters, and
    anything but visible ASCII; percent-encoded unreserved characters, separators, percent signs and control
    characters; encodings that are not UTF-8 or that Unicode normalisation (NFKC) would change.
    """
    if not path.startswith("/") or "//" in path or any(not "!" <= c <= "~" or c in "\\?#;" for c in path):
        return False
    if any(segment in (".", "..") for segment in path.split("/")):
        return False
    for escape in path.split("%")[1:]:
        digits = escape[:2]
        if len(digits) != 2 or any(c not in string.hexdigits for c in digits):
            return False
        if chr(int(digits, 16)) in _NEVER_ENCODED:
            return False
    try:
        text = unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return text.isprintable() and unicodedata.is_normalized("NFKC", text)


def _split(name: str) -> tuple[str, Segments, tuple[Segments, ...]]:
    """Method, segments, and the paths for which some server takes this one; of these none if it is not plain.

    Remembered for names of a usual length only.
    """
    return _parts(name) if len(name) <= _CACHED else _parts.__wrapped__(name)


@lru_cache(maxsize=1024)
def _parts(name: str) -> tuple[str, Segments, tuple[Segments, ...]]:
    method, _, path = name.partition(" ")
    if not is_plain_path(path):
        return method, (path,), ()
    segments = tuple(_one_spelling(path).replace("*", "%2A").split("/"))
    lower = tuple(_loosely(segment) for segment in segments)
    ends = (lower, _other_end(lower))
    return method, segments, (*ends, *map(_without_ending, ends))


def _loosely(segment: str) -> str:
    """In small letters, and without dots and blanks at its end."""
    bare = segment.lower()
    while bare.endswith((".", "%20")):
        bare = bare.removesuffix(".").removesuffix("%20")
    return bare or segment


def _without_ending(actual: Segments) -> Segments:
    stem, dot, _ = actual[-1].rpartition(".")
    return (*actual[:-1], stem) if dot and stem else actual


def _one_spelling(path: str) -> str:
    """A plain path with nothing encoded that need not be, and escapes in capitals: ``/a%40b`` is ``/a@b``."""
    first, *rest = path.split("%")
    made = [first]
    for part in rest:
        char = chr(int(part[:2], 16))
        made.append((char if char in _EITHER_WAY else f"%{part[:2].upper()}") + part[2:])
    return "".join(made)


def _method(wanted: str, actual: str) -> Tri:
    """Any, the same, or in doubt: some servers take ``delete`` for ``DELETE``, and do for HEAD all of GET."""
    if wanted in ("*", actual):
        return True
    upper = actual.upper()
    return None if wanted == upper or (wanted, upper) == ("GET", "HEAD") else False


def _something(segment: str) -> Tri:
    return segment != ""


def _covers(tests: tuple[Matcher, ...], deep: bool, actual: Segments) -> bool:
    if len(actual) < len(tests) or (len(actual) > len(tests) and not deep):
        return False
    return all(test(text) is True for test, text in zip(tests, actual, strict=False))


def _other_end(actual: Segments) -> Segments:
    """The path with a slash at its end, or without the one that it has: one route for many servers."""
    return actual[:-1] if len(actual) > 2 and actual[-1] == "" else (*actual, "")
