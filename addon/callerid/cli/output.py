"""How every command speaks: tables for people, JSON for machines, errors with a hint on stderr.

Cells and JSON carry text from the wire; control and direction characters in it are shown as escapes,
so that a tool's name cannot move the cursor or repaint the terminal.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from enum import Enum
from io import StringIO
from pathlib import PurePath
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from callerid.errors import CalleridError

EXIT_DONE = 0
EXIT_NO = 1
EXIT_USAGE = 2

_PIPE_WIDTH = 1_000
_HOSTILE = {
    code: f"\\u{code:04x}"
    for span in (
        range(0x20),
        range(0x7F, 0xA0),
        range(0x200B, 0x2010),
        range(0x2028, 0x202F),
        range(0x2060, 0x2070),
        range(0xD800, 0xE000),
        range(0xFEFF, 0xFF00),
    )
    for code in span
}
_HOSTILE_IN_JSON = {code: escape for code, escape in _HOSTILE.items() if code >= 0x7F}


def handle_errors[**P, R](command: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command so that our exceptions become ``error: ...`` and its hint on stderr, exit 2.

    Put it directly above the function, below click's decorators.
    """

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except CalleridError as error:
            print_error(error)
            sys.exit(EXIT_USAGE)

    return guarded


def print_error(error: CalleridError) -> None:
    """Print one of our exceptions to stderr: all its problems, then what to do."""
    click.echo(f"error: {printable_lines(str(error))}", err=True)
    if error.hint:
        click.echo(f"hint: {printable_lines(error.hint)}", err=True)


def printable(text: object) -> str:
    """``str(text)`` with control, direction and surrogate characters shown as ``\\uXXXX``."""
    return str(text).translate(_HOSTILE)


def printable_lines(text: str) -> str:
    """As ``printable``, but line ends stay line ends."""
    return "\n".join(printable(line) for line in text.split("\n"))


def print_json(obj: Any) -> None:
    """Print ``obj`` as indented JSON on stdout.

    Dataclasses, enums, mappings, sets (sorted), tuples, paths and datetimes (ISO 8601) are understood.

    Raises:
        TypeError: something else is in it; a type that we do not know is never printed by its repr.
    """
    text = json.dumps(_plain(obj), ensure_ascii=False, indent=2, allow_nan=False)
    click.echo(text.translate(_HOSTILE_IN_JSON))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table on stdout. None is an empty cell; markup and escapes in cells are shown, not obeyed.

    Into a pipe, rows are never wrapped or cut.
    """
    made = Table(title=title, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*("" if cell is None else _cell(cell) for cell in row))
    if sys.stdout.isatty():
        Console(file=sys.stdout, highlight=False).print(made)
        return
    page = StringIO()
    Console(file=page, width=_PIPE_WIDTH, highlight=False).print(made)
    click.echo("\n".join(line.rstrip() for line in page.getvalue().splitlines()))


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    if isinstance(value, Enum):
        value = value.value
    return Text(printable(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, str | int | float):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, AbstractSet):
        return sorted((_plain(item) for item in value), key=str)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"print_json does not know {type(value).__name__}")
