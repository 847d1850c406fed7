"""The scope of a rule: who x servers x tools. Compiled from selector strings; total on what callers send.

A resource URI or a path that servers could read in more than one way (dot segments, encoded letters, doubled
slashes) is in doubt: the answer is then None, which is no match for a grant and a match for a guard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from callerid.model import Kind
from callerid.policy.httpnames import call_matcher
from callerid.policy.identities import canonical_subject
from callerid.policy.patterns import BadPattern, Matcher, Tri, glob, is_glob

MAX_NAME = 8_192
"""Characters in a tool's name or a resource's URI; longer ones match nothing and are refused."""

_KINDS: Mapping[str, Kind] = {
    "tool": Kind.TOOL,
    "resource": Kind.RESOURCE,
    "prompt": Kind.PROMPT,
    "http": Kind.HTTP,
    "method": Kind.METHOD,
}
PREFIXES = (*_KINDS, "set")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class BadSelector(ValueError):
    """A selector that cannot be used. ``hint`` says what to write instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def subject_of(kind: Kind, method: str, name: str | None) -> str | None:
    """What rules match on: the method for Kind.METHOD, else the name (``GET /v1/x`` for Kind.HTTP).

    None for what cannot be matched.
    """
    target = method if kind is Kind.METHOD else name
    if not isinstance(target, str) or not target or len(target) > MAX_NAME:
        return None
    try:
        target.encode()
    except UnicodeEncodeError:
        return None
    return target


@dataclass(frozen=True, slots=True)
class Who:
    """Whom a rule is about. Any one of the parts is enough."""

    subjects: frozenset[str]
    groups: frozenset[str]
    agents: frozenset[str]
    anyone: bool

    def covers(self, subject: str, groups: frozenset[str], agents: tuple[str, ...]) -> bool:
        """True if the caller is among them."""
        return (
            self.anyone
            or subject in self.subjects
            or not self.agents.isdisjoint(agents)
            or not groups.isdisjoint(self.groups)
        )


def compile_who(selectors: Iterable[str]) -> Who:
    """From ``user:X``, ``workload:X``, ``group:X``, ``agent:X`` and ``anyone`` (shape checked before)."""
    parts: dict[str, set[str]] = {"user": set(), "workload": set(), "group": set(), "agent": set()}
    anyone = False
    for selector in selectors:
        kind, _, name = selector.partition(":")
        if kind == "anyone":
            anyone = True
        else:
            parts[kind].add(canonical_subject(selector) if kind in ("user", "workload") else name)
    subjects = frozenset(parts["user"] | parts["workload"])
    return Who(subjects, frozenset(parts["group"]), frozenset(parts["agent"]), anyone)


@dataclass(frozen=True, slots=True)
class Pattern:
    """One tool selector: its kind, and the exact text or glob."""

    kind: Kind
    text: str
    matcher: Matcher

    def covers(self, name: str, clear: bool) -> Tri:
        """``clear`` is about URIs; what is in doubt in a call of an HTTP API, its matcher finds itself."""
        if clear or self.text == "*":
            return self.matcher(name)
        if name == self.text:
            return True
        return None


@dataclass(frozen=True, slots=True)
class Tools:
    """What a rule is about. Exact names are looked up, only globs are tried one by one."""

    exact: frozenset[tuple[Kind, str]]
    patterns: tuple[Pattern, ...]

    def covers(self, kind: Kind, name: str) -> Tri:
        """True, False, or None when ``name`` can be read as more than one thing."""
        clear = kind is not Kind.RESOURCE or is_plain_uri(name)
        if (kind, name) in self.exact:
            return True
        answer: Tri = False
        if not clear and any(exact_kind is kind for exact_kind, _ in self.exact):
            answer = None
        for pattern in self.patterns:
            if pattern.kind is kind:
                found = pattern.covers(name, clear)
                if found is True:
                    return True
                if found is None:
                    answer = None
        return answer


def compile_tools(selectors: Iterable[str], sets: Mapping[str, tuple[str, ...]]) -> Tools:
    """Compile tool selectors; ``set:NAME`` is taken from ``sets``.

    Raises:
        BadSelector: one of them is unknown, malformed or not supported yet.
    """
    exact: set[tuple[Kind, str]] = set()
    patterns: list[Pattern] = []
    for selector in chain.from_iterable(_expand(selector, sets) for selector in selectors):
        kind, text = split_selector(selector)
        if kind is Kind.HTTP:
            patterns.append(Pattern(kind, text, _http(selector, text)))
            continue
        if kind is Kind.METHOD or not is_glob(text):
            exact.add((kind, text))
            continue
        try:
            patterns.append(Pattern(kind, text, glob(text)))
        except BadPattern as error:
            raise BadSelector(f"the glob '{text}' cannot be used: {error}") from None
    return Tools(frozenset(exact), tuple(patterns))


def _expand(selector: str, sets: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    prefix, colon, name = selector.partition(":")
    if not colon or prefix != "set":
        return (selector,)
    if name not in sets:
        raise BadSelector(f"unknown set '{name}'")
    return sets[name]


def _http(selector: str, text: str) -> Matcher:
    try:
        return call_matcher(text)
    except BadPattern as fault:
        method, space, path = text.partition(" ")
        path = path if space and path.startswith("/") else "/v1/**"
        method = method.upper() if method.isalpha() and method.isascii() else "GET"
        hint = f'Write it as "http:{method} {path}".'
        if hint == f'Write it as "{selector}".' or "in its one spelling" in str(fault) or "**" in str(fault):
            hint = 'For example "http:GET /v1/charges/*", or "http:* /v1/**" for any method and depth.'
        raise BadSelector(f"the selector '{selector}' cannot be used: {fault}", hint) from None


def split_selector(selector: str) -> tuple[Kind, str]:
    """The kind and the name or glob of one selector that is not a set.

    Raises:
        BadSelector: an unknown prefix, an empty name, or a glob for a method.
    """
    prefix, colon, name = selector.partition(":")
    if not colon:
        kind, name = Kind.TOOL, selector
    elif prefix == "class":
        raise BadSelector(
            "class: selectors are not supported yet",
            "callerid refuses what it does not know yet, so that no guard is ever ignored. Use a set.",
        )
    elif prefix == "set":
        raise BadSelector("a set cannot be used here", "Write out its entries.")
    elif prefix not in _KINDS:
        raise BadSelector(
            f"unknown kind of selector '{prefix}:'",
            "Known: "
            + ", ".join(f"{p}:" for p in PREFIXES)
            + f". For a tool of that name write tool:{selector}.",
        )
    else:
        kind = _KINDS[prefix]
    if not name:
        raise BadSelector(f"nothing is named after '{prefix}:'")
    if kind is Kind.METHOD and is_glob(name):
        raise BadSelector("method: takes an exact method, no glob", "List the methods one by one.")
    return kind, name


def is_plain_uri(uri: str) -> bool:
    """True if ``uri`` has one reading (RFC 3986 section 6.2.2): what a glob says about it can be believed.

    Not plain: upper case in scheme or authority, dot or empty segments, encoded unreserved characters,
    slashes, backslashes or control characters, backslashes, userinfo, and anything but visible ASCII in
    scheme and authority or unprintable anywhere.
    """
    scheme, colon, rest = uri.partition(":")
    if not colon or not scheme or scheme != scheme.lower() or not scheme.isascii():
        return False
    if "\\" in uri or not uri.isprintable() or " " in uri or not _escapes_plain(rest):
        return False
    path = rest.partition("#")[0].partition("?")[0]
    if path.startswith("//"):
        authority, _, path = path[2:].partition("/")
        if authority != authority.lower() or not authority.isascii() or "@" in authority or "%" in authority:
            return False
    else:
        path = path.removeprefix("/")
    segments = path.split("/")
    if any(segment in (".", "..") for segment in segments):
        return False
    return "" not in segments[:-1]


def _escapes_plain(text: str) -> bool:
    for escape in text.split("%")[1:]:
        digits = escape[:2]
        if len(digits) != 2 or any(c not in "0123456789ABCDEFabcdef" for c in digits):
            return False
        char = chr(int(digits, 16))
        if char in _UNRESERVED or char in "/\\" or char < " ":
            return False
    return True
