"""The few exceptions of callerid. Expected outcomes are values; these are for what must stop the work.

Each carries a ``hint``: one sentence that says what the reader can do about it.
"""

from __future__ import annotations

from dataclasses import dataclass


class CalleridError(Exception):
    """Base of all our exceptions.

    Args:
        message: what is wrong, one sentence, without a secret in it.
        hint: what to do about it, one sentence; empty if there is nothing to do.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One fault in a configuration file, as a person reads it.

    ``line`` and ``column`` are 1-based; 0 means that the place is not known.
    """

    file: str
    line: int
    column: int
    message: str
    source: str = ""
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}:{self.column}: {self.message}"
        if self.source:
            caret = " " * max(self.column - 1, 0) + "^"
            text += f"\n    {self.source}\n    {caret}"
        if self.hint:
            text += f"\n    {self.hint}"
        return text


class ConfigError(CalleridError):
    """A rule file, an option or an argument is wrong. Carries all problems found, not the first."""

    def __init__(self, message: str, *, hint: str = "", problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join([self.message, *map(str, self.problems)])


class StoreError(CalleridError):
    """The audit, the registry or the home directory cannot be used."""
