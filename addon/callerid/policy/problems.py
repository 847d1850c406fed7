"""Faults in rule files, collected with their places, so that a person sees all of them at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from callerid.errors import Problem
from callerid.policy.secretlike import looks_secret, masked

MAX_PROBLEMS = 50
CREDENTIALS = "credentials.yaml"

type Where = tuple[str | int, ...]
type Place = tuple[int, int]

_LINE_END = re.compile(r"\r\n|\r|\n")
_KEY = (
    "version|credentials|id|source|env|file|inject|bearer|basic|username|header|name|format|bind|hosts|paths"
    "|methods|systemd|exec|vault|aws|none|url|mount|path|field|auth|role|role_id|secret_id_file|token_file"
    "|jwt_file|namespace|ca_file|secret_id|region|profile|endpoint|refresh|stale_for|timeout|tripwire|query"
    "|cookie|replace|place|oauth_client_credentials|oauth_refresh_token|token_exchange|token_url|client_id"
    "|client_auth|client_secret|scope|resource|audience|subject_token_type|requested_token_type|aws_sigv4"
    "|service|mtls|passthrough|scrub"
)
_KEY_OR_MARK = re.compile(rf"(?:\b(?:{_KEY}):(?=\s|$))|[\s{{}}\[\],]+|-\s")
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML file, read strictly: plain data, and where each value and key stands (1-based)."""

    file: str
    lines: tuple[str, ...]
    data: dict[str, object]
    values: dict[Where, Place]
    keys: dict[Where, Place]

    def place(self, where: Where, *, of_key: bool = False) -> Place:
        """The position of ``where``, or of the nearest thing around it that exists."""
        if of_key and where in self.keys:
            return self.keys[where]
        while where and where not in self.values:
            where = where[:-1]
        return self.values.get(where, (1, 1))


@dataclass(slots=True)
class Report:
    """Collects problems. ``bad`` holds the paths already reported, so that one fault is told once."""

    problems: list[Problem] = field(default_factory=list)
    bad: set[tuple[str, Where]] = field(default_factory=set)

    @property
    def full(self) -> bool:
        return len(self.problems) >= MAX_PROBLEMS

    def at(self, file: str, lines: tuple[str, ...], place: Place, message: str, hint: str = "") -> None:
        """Add a problem at a line and column."""
        if not self.full:
            self.problems.append(make_problem(file, lines, place, message, hint))

    def add(self, doc: Document, where: Where, message: str, hint: str = "", *, of_key: bool = False) -> None:
        """Add a problem at a path of ``doc``, unless that path, or one around it, is reported already."""
        if self.is_bad(doc.file, where):
            return
        self.bad.add((doc.file, where))
        self.at(doc.file, doc.lines, doc.place(where, of_key=of_key), message, hint)

    def is_bad(self, file: str, where: Where) -> bool:
        """True if ``where`` or something around it has been reported."""
        return any((file, where[:end]) in self.bad for end in range(len(where) + 1))


def make_problem(file: str, lines: tuple[str, ...], place: Place, message: str, hint: str = "") -> Problem:
    """A Problem with its source line, in which nothing that may be a secret is left readable."""
    line, column = place
    source = lines[line - 1] if 0 < line <= len(lines) else ""
    return Problem(
        file=file, line=line, column=column, message=message, source=_safe_line(file, source), hint=hint
    )


def split_lines(text: str) -> tuple[str, ...]:
    """The lines of ``text`` as YAML counts them (other line ends are refused before)."""
    return tuple(_LINE_END.split(text))


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """A hint with the closest right spelling, or with the list when it is short; else empty."""
    known = sorted(set(options))
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{close[0]}'?"
    if 0 < len(known) <= 12:
        return "Known here: " + ", ".join(known) + "."
    return ""


def show(value: object) -> str:
    """``value`` for an error message: short, printable, and masked if it may be a secret."""
    if isinstance(value, str):
        if looks_secret(value):
            return "(a value that looks like a secret)"
        text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in masked(value))
        return f"'{text}'" if len(text) <= _SHOWN else f"'{text[:_SHOWN]}...'"
    return "true" if value is True else "false" if value is False else str(value)[:_SHOWN]


def show_in(file: str, value: str) -> str:
    """As ``show``; but nothing of credentials.yaml is ever quoted, since it may be a secret put there."""
    return "(not shown)" if file == CREDENTIALS else show(value)


def type_name(value: object) -> str:
    """The JSON type of a value, in the words of our messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a mapping" if isinstance(value, dict) else "a list"


def _safe_line(file: str, source: str) -> str:
    """The line as it is shown. Of credentials.yaml only the keys of its format are shown, all else is stars.

    Tabs become one space, so that the caret below the line stands right.
    """
    text = "".join(c if c.isprintable() else " " for c in source)
    if file != CREDENTIALS:
        return masked(text)
    kept: list[str] = []
    at = 0
    while at < len(text):
        match = _KEY_OR_MARK.match(text, at)
        if match is not None and match.end() > at:
            kept.append(masked(match.group()))
            at = match.end()
        else:
            kept.append("*")
            at += 1
    return "".join(kept)
