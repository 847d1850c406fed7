"""Conditions on arguments: three-valued, without coercion. Unknown is not false: it never helps the caller.

Unknown: the argument is absent, has another type than the operator is about, is NaN or infinite, or can
be read in two ways. Booleans are not numbers and "100" is not 100.

Numbers: some servers read whole numbers exactly, others (JavaScript) as doubles, in which 2**53 + 1 is 2**53
(RFC 8259 section 6). Where the two would find different answers, the answer is unknown.
"""

from __future__ import annotations

import math
import posixpath
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from callerid.policy.patterns import Tri, glob, regex
from callerid.policy.rulemodels import ConditionModel

MAX_TEXT = 1_000_000
"""Characters that a glob or a regular expression is tried on; longer text is unknown."""

_EXACT = 2**53
"""Up to here every whole number is a double."""

type Test = Callable[[Any], Tri]


class _Sign:
    """A marker with a name, for what is not a JSON value."""

    def __init__(self, name: str) -> None:
        self.name = name


ABSENT = _Sign("absent")
BROKEN = _Sign("broken")
UNREAD = _Sign("unread")
"""The body of an HTTP call that is no JSON, or is not there: not absent, for we cannot say what is in it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What one argument must be. ``path`` is the argument's name, or the steps of its JSON pointer."""

    key: str
    path: tuple[str, ...]
    tests: tuple[Test, ...]
    optional: bool
    negate: bool

    def holds(self, arguments: object, *, guard: bool) -> Tri:
        """Whether the condition is met.

        ``guard``: it stands on a deny, so any list entry that meets it is enough, and an optional
        argument that is absent does not meet it. Elsewhere all entries must meet it, and an optional
        argument that is absent does.
        """
        answers = [self._one(value, guard) for value in found(arguments, self.path)]
        return kleene_any(answers) if guard else kleene_all(answers)

    def _one(self, value: object, guard: bool) -> Tri:
        if value is ABSENT:
            return (not guard) if self.optional else None
        if isinstance(value, _Sign):
            return None
        answer = kleene_all([test(value) for test in self.tests])
        if answer is None or not self.negate:
            return answer
        return answer is False


def kleene_all(answers: Sequence[Tri]) -> Tri:
    """False if any is false; else unknown if any is unknown; else true."""
    whole: Tri = True
    for answer in answers:
        if answer is False:
            return False
        if answer is None:
            whole = None
    return whole


def kleene_any(answers: Sequence[Tri]) -> Tri:
    """True if any is true; else unknown if any is unknown; else false."""
    whole: Tri = False
    for answer in answers:
        if answer is True:
            return True
        if answer is None:
            whole = None
    return whole


def steps(key: str) -> tuple[str, ...]:
    """The path of an argument key: a name, or the steps of a JSON pointer (RFC 6901).

    Raises:
        ValueError: it is a pointer with a broken escape, or one that begins with ``*``.
    """
    if not key.startswith("/"):
        return (key,)
    made = []
    for step in key[1:].split("/"):
        if "~" in step.replace("~0", "").replace("~1", ""):
            raise ValueError("in a JSON pointer ~ is written ~0 and / is written ~1")
        made.append(step.replace("~1", "/").replace("~0", "~"))
    if made[0] == "*":
        raise ValueError("the arguments are an object: * stands for the entries of a list inside it")
    return tuple(made)


def found(arguments: object, path: tuple[str, ...]) -> list[object]:
    """The values at ``path``: one, or one per list entry for ``*``; ABSENT and BROKEN stand for themselves.

    A list without entries is ABSENT below ``*``: for many a server an empty list means everything.
    """
    values: list[object] = [arguments]
    for step in path:
        after: list[object] = []
        for value in values:
            after.extend(_into(value, step))
        values = after
    return values


def _into(value: object, step: str) -> list[object]:
    if isinstance(value, _Sign):
        return [value]
    if isinstance(value, Mapping):
        return [BROKEN if step == "*" or _named_oddly(step, value) else value.get(step, ABSENT)]
    if isinstance(value, list | tuple):
        if step == "*":
            return list(value) or [ABSENT]
        if step.isascii() and step.isdigit() and (step == "0" or step[0] != "0") and len(step) < 10:
            index = int(step)
            return [value[index] if index < len(value) else ABSENT]
    return [BROKEN]


def _named_oddly(name: str, members: Mapping[str, object]) -> bool:
    """Whether ``name`` is not there, but some server finds it: as ``Name``, ``name[]`` or ``name.x``."""
    return name not in members and any(_base(member) == _base(name) for member in members)


def _base(name: str) -> str:
    """The name as the most lenient readers of JSON and of forms have it."""
    plain = name.strip().partition("[")[0].partition(".")[0]
    return plain.lower() if plain.isascii() else plain.upper().casefold()


def json_type(value: object) -> str:
    """The JSON type of a value as explanations name it; ``absent`` and ``broken`` where there is none."""
    if isinstance(value, _Sign):
        return value.name
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number" if math.isfinite(value) else "not finite"
    if isinstance(value, str):
        return "string"
    if isinstance(value, Mapping):
        return "object"
    return "array" if isinstance(value, list | tuple) else "unknown"


def compile_condition(key: str, model: ConditionModel) -> Condition:
    """Compile the condition on one argument.

    Raises:
        ValueError: the key, a pattern or the combination of operators cannot be used; the text says why.
    """
    tests: list[Test] = []
    if model.eq is not None:
        tests.append(_member((model.eq,)))
    if model.in_ is not None:
        tests.append(_member(tuple(model.in_)))
    tests.extend(_bounds(model))
    if model.under is not None:
        tests.append(_under(model.under))
    if model.glob is not None:
        tests.append(_text(glob(model.glob)))
    if model.regex is not None:
        tests.append(_text(regex(model.regex)))
    if model.max_length is not None:
        tests.append(_max_length(model.max_length))
    if model.type is not None:
        tests = [_typed(model.type, tuple(tests))] if tests else [_is_type(model.type)]
    if not tests:
        raise ValueError("nothing is asked of it: name at least one operator, such as type, eq or le")
    return Condition(key, steps(key), tuple(tests), model.optional, model.negate)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and json_type(value) != "not finite"


def _is_type(name: str) -> Test:
    def test(value: object) -> Tri:
        actual = json_type(value)
        if actual in ("unknown", "not finite"):
            return None
        if name == "integer" and isinstance(value, float) and value.is_integer():
            return None  # 5.0: an integer for JSON Schema and for readers of doubles, a fraction for others
        return actual == name or (name == "number" and actual == "integer")

    return test


def _typed(name: str, tests: tuple[Test, ...]) -> Test:
    """With a type, the other operators are unknown for any other type."""
    is_type = _is_type(name)

    def test(value: object) -> Tri:
        return kleene_all([one(value) for one in tests]) if is_type(value) is True else None

    return test


def _same_type(one: object, other: object) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return isinstance(one, bool) and isinstance(other, bool)
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and isinstance(other, str)
    return _is_number(one) and _is_number(other)


def _by_any_reader(test: Test) -> Test:
    """The answer for servers that read numbers exactly and for readers of doubles; unknown if it differs."""

    def both(value: Any) -> Tri:
        answer = test(value)
        if not isinstance(value, int) or -_EXACT <= value <= _EXACT:
            return answer
        try:
            return answer if test(float(value)) is answer else None
        except OverflowError:
            return answer  # they find an infinity, which is to the numbers of a rule what this one is

    return both


def _member(operands: tuple[object, ...]) -> Test:
    def test(value: object) -> Tri:
        alike = [operand for operand in operands if _same_type(operand, value)]
        return None if not alike else any(operand == value for operand in alike)

    return _by_any_reader(test)


def _bounds(model: ConditionModel) -> list[Test]:
    low = [bound for bound in (model.gt, model.ge) if bound is not None]
    high = [bound for bound in (model.lt, model.le) if bound is not None]
    if not low and not high:
        return []
    if low and high:
        strict = (model.gt is not None and model.gt == max(low)) or (
            model.lt is not None and model.lt == min(high)
        )
        if max(low) > min(high) or (strict and max(low) == min(high)):
            raise ValueError("no number is within these bounds")

    def test(value: Any) -> Tri:
        if not _is_number(value):
            return None
        return (
            (model.gt is None or value > model.gt)
            and (model.ge is None or value >= model.ge)
            and (model.lt is None or value < model.lt)
            and (model.le is None or value <= model.le)
        )

    return [_by_any_reader(test)]


def _under(folder: str) -> Test:
    root = clear_path(folder)
    if root is None:
        raise ValueError("the folder must be absolute and without dot segments, %, backslash and //")

    def test(value: object) -> Tri:
        path = clear_path(value) if isinstance(value, str) else None
        if path is None:
            return None
        return path == root or path.startswith(root.rstrip("/") + "/")

    return test


def clear_path(text: str) -> str | None:
    """The absolute path that ``text`` names lexically, or None if there could be two opinions.

    None for: relative paths, ``..``, two leading slashes, ``%``, backslash, control characters, and text
    whose compatibility form (NFKC) has other slashes or dot segments. Links on the server are not seen.
    """
    if not text.startswith("/") or text.startswith("//") or "%" in text or "\\" in text:
        return None
    if not text.isprintable():
        return None
    plain = unicodedata.normalize("NFKC", text)
    if plain.count("/") != text.count("/") or ".." in plain.split("/") or "\\" in plain or "%" in plain:
        return None
    return posixpath.normpath(text)


def _text(matcher: Callable[[str], Tri]) -> Test:
    def test(value: object) -> Tri:
        return matcher(value) if isinstance(value, str) and len(value) <= MAX_TEXT else None

    return test


def _max_length(limit: int) -> Test:
    def test(value: object) -> Tri:
        return len(value) <= limit if isinstance(value, str | list | tuple) else None

    return test
