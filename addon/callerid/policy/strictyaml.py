"""Strict YAML: the one home of PyYAML. YAML 1.2 core scalars, and nothing that surprises.

Refused: aliases, anchors, tags, merge keys, directives, several documents, duplicate and non-text keys,
empty values, numbers in any but the plain spelling (text to us, a number to their author and to others), more
than 4 MiB, more than 40 levels, and characters that make a line look like another (direction and zero-width
characters). A byte order mark at the start and CRLF line ends are tolerated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

import yaml

from callerid.policy.problems import MAX_PROBLEMS, Document, Place, Report, Where, show_in, split_lines

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 40

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\Z")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}\Z")
_NUMERIC = re.compile(
    r"[-+]?(?:0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|\.(?:inf|Inf|INF|nan|NaN|NAN)"
    r"|(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?)\Z"
)
"""What YAML 1.1 or 1.2 takes for a number; less times like 18:00, which are text in 1.2."""
_WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_MISLEADING = re.compile("[\x85\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


class _Refused(Exception):
    """The rest of the file cannot be read any more; the problem is in the report."""


def read_text(file: str, raw: bytes, report: Report) -> str | None:
    """The text of a rule file, or None with a problem in ``report``: size, encoding, odd characters."""
    if len(raw) > MAX_BYTES:
        report.at(file, (), (1, 1), "the file is larger than 4 MiB", "Split the rules or use globs and sets.")
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        place = (before.count("\n") + 1, len(before) - before.rfind("\n"))
        report.at(file, (), place, "this is not UTF-8", "Save the file as UTF-8.")
        return None
    odd = _MISLEADING.search(text)
    if odd is not None:
        lines = split_lines(text[: odd.start()])
        message = f"the character U+{ord(odd.group()):04X} is not allowed; it can hide what a line says"
        report.at(file, split_lines(text), (len(lines), len(lines[-1]) + 1), message, "Remove it.")
        return None
    return text


def parse(file: str, text: str, report: Report) -> Document | None:
    """Read one file. Problems go to ``report``; None if nothing can be made of it.

    A document may come back although there were problems: what is wrong in it is marked as reported.
    """
    reader = _Reader(file, text, report)
    try:
        return reader.document()
    except _Refused:
        return None
    except yaml.MarkedYAMLError as error:
        reader.broken(error)
    except yaml.reader.ReaderError as error:
        before = split_lines(text[: error.position])
        place = (len(before), len(before[-1]) + 1)
        report.at(file, reader.lines, place, "control characters are not allowed", "Remove the character.")
    return None


class _Reader:
    """Builds plain data straight from the events, so that nothing is built from what is refused."""

    def __init__(self, file: str, text: str, report: Report) -> None:
        self.file = file
        self.lines = split_lines(text)
        self.report = report
        self.doc = Document(file, self.lines, {}, {}, {})
        self.events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)

    def document(self) -> Document | None:
        next(self.events)
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            self._empty()
            return None
        if event.version or event.tags:
            self._refuse(event, "YAML directives (%) are not allowed", "Remove the line.")
            raise _Refused
        event = next(self.events)
        data = self._node(event, (), 0)
        next(self.events)
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            self._refuse(event, "a second document is not allowed", "Remove the line '---' and join the two.")
            raise _Refused
        if data is None and not self.report.is_bad(self.file, ()):
            self._empty()
            return None
        if not isinstance(data, dict):
            self.report.add(self.doc, (), "the file must be a mapping", "Begin with the line 'version: 1'.")
            return None
        self.doc.data.update(data)
        return self.doc

    def _empty(self) -> None:
        hint = "An empty file grants nothing and is refused, so that a lost file is noticed."
        self.report.at(self.file, self.lines, (1, 1), "the file is empty", hint)

    def _node(self, event: Any, where: Where, depth: int) -> Any:
        self.doc.values[where] = _place(event)
        if isinstance(event, yaml.AliasEvent):
            hint = "Quote it if you meant a glob; repeat the value, or use a set, if you meant an alias."
            self._bad(
                event, where, f"aliases ({show_in(self.file, f'*{event.anchor}')}) are not allowed", hint
            )
            return None
        if event.anchor is not None:
            hint = "Quote the value if the sign belongs to it."
            self._bad(
                event, where, f"anchors ({show_in(self.file, f'&{event.anchor}')}) are not allowed", hint
            )
        if event.tag is not None:
            self._bad(
                event,
                where,
                f"the tag {show_in(self.file, event.tag)} is not allowed",
                "Remove it, or quote the value.",
            )
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
            if _is_odd_number(event, value):
                self._bad(event, where, *self._odd_number(event))
            return value
        if depth >= MAX_DEPTH:
            self._refuse(event, f"nested deeper than {MAX_DEPTH} levels", "Flatten it.")
            raise _Refused
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(where, depth)
        return self._mapping(where, depth)

    def _sequence(self, where: Where, depth: int) -> list[Any]:
        items: list[Any] = []
        for event in self.events:
            if isinstance(event, yaml.SequenceEndEvent):
                return items
            at = (*where, len(items))
            items.append(self._node(event, at, depth + 1))
            self._no_null(event, at, items[-1])
        raise _Refused

    def _mapping(self, where: Where, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for event in self.events:
            if isinstance(event, yaml.MappingEndEvent):
                return found
            key = self._key(event, where)
            value_event = next(self.events)
            if key is None or (*where, key) in self.doc.keys:
                if key is not None:
                    first = self.doc.keys[(*where, key)][0]
                    message = f"duplicate key {show_in(self.file, key)} (first at line {first})"
                    self._refuse(event, message, "Keep one of the two.")
                self._skip(value_event)
                continue
            at = (*where, key)
            self.doc.keys[at] = _place(event)
            found[key] = self._node(value_event, at, depth + 1)
            self._no_null(event, at, found[key])
        raise _Refused

    def _key(self, event: Any, where: Where) -> str | None:
        if not isinstance(event, yaml.ScalarEvent):
            self._refuse(event, "a key must be plain text", "If this is a glob or a template, quote it.")
            if not isinstance(event, yaml.AliasEvent):
                self._skip(event)
            return None
        if event.anchor is not None or event.tag is not None:
            self._refuse(event, "anchors and tags are not allowed on a key", "Remove it.")
            return None
        value = _scalar(event)
        if event.value == "<<" and event.implicit[0]:
            self._refuse(event, "merge keys (<<) are not allowed", "Repeat the values.")
            return None
        if _is_odd_number(event, value):
            self._refuse(event, *self._odd_number(event))
            return None
        if not isinstance(value, str):
            self._refuse(event, f"the key {show_in(self.file, event.value)} is not text", "Quote it.")
            return None
        return value

    def _skip(self, event: Any) -> None:
        """Walk over a node that is already refused, without building it."""
        depth = 0
        while True:
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth <= 0:
                return
            event = next(self.events)

    def _no_null(self, event: Any, where: Where, value: Any) -> None:
        """Left empty is not the same as left out: a guard with an empty ``tools:`` must not mean anything."""
        if value is None and not self.report.is_bad(self.file, where):
            what = show_in(self.file, where[-1]) if isinstance(where[-1], str) else "this entry"
            self._bad(event, where, f"{what} has no value", "Give it a value, or remove the line.")

    def _odd_number(self, event: Any) -> tuple[str, str]:
        """Message and hint for a number in another spelling than ours."""
        text: str = event.value
        shown = show_in(self.file, text)
        plain = _plain(text)
        hint = "Write it plainly, with at most 18 digits, or quote it"
        if shown != f"'{text}'":
            hint += "."
        elif plain is None:
            hint += f': "{text}".'
        else:
            hint = f'Write {plain}, or quote it: "{text}".'
        return f"{shown} looks like a number, in a spelling that is not read as one", hint

    def _bad(self, event: Any, where: Where, message: str, hint: str) -> None:
        self._refuse(event, message, hint)
        self.report.bad.add((self.file, where))

    def _refuse(self, event: Any, message: str, hint: str) -> None:
        self.report.at(self.file, self.lines, _place(event), message, hint)
        if len(self.report.problems) >= MAX_PROBLEMS:
            raise _Refused

    def broken(self, error: yaml.MarkedYAMLError) -> None:
        """Report a scanner's or parser's fault, in words that say what to do."""
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        line = self.lines[place[0] - 1] if place[0] <= len(self.lines) else ""
        sign = line[place[1] - 1 : place[1]]
        message, hint = f"this is not valid YAML: {error.problem or error.context}", ""
        if sign == "\t":
            message, hint = "a tab is not allowed here", "Indent with spaces."
        elif sign and sign in "%@`":
            message, hint = f"a value cannot begin with {sign}", "Quote it."
        elif error.context == "while scanning an alias":
            message, hint = "a value cannot begin with * unless it is quoted", 'Quote the glob: "*".'
        elif error.problem == "mapping values are not allowed in this context":
            message, hint = (
                "a colon with a space after it is not allowed here",
                "Quote the text, or indent it.",
            )
        elif error.context_mark is not None and error.context:
            hint = f"It began at line {error.context_mark.line + 1} ({error.context})."
        self.report.at(self.file, self.lines, place, message, hint)


def _scalar(event: Any) -> Any:
    """A plain scalar by YAML 1.2's core schema, less the numbers that ``_is_odd_number`` tells."""
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        return int(text)
    if _DECIMAL.match(text):
        return float(text)
    return text


def _is_odd_number(event: Any, value: object) -> bool:
    """Whether a plain scalar is a number to some reader of YAML, and text to us."""
    return event.implicit[0] and isinstance(value, str) and _NUMERIC.match(value) is not None


def _plain(text: str) -> str | None:
    """The same number as we read it; None if it has no such spelling."""
    if len(text) > 80:
        return None
    bare = text.replace("_", "")
    try:
        number = Decimal(int(bare, 0) if bare.lstrip("+-")[1:2] in tuple("xXoObB") else bare)
    except (InvalidOperation, ValueError):
        return None
    if not number.is_finite() or abs(number.adjusted()) > 18:
        return None
    plain = format(number, "f")
    return plain if _INT.match(plain) or _DECIMAL.match(plain) else None


def _place(event: Any) -> Place:
    return event.start_mark.line + 1, event.start_mark.column + 1
