"""What is logged is searched for secrets before it is written: the message, and a traceback with it.

An exception of a library can quote what it was given. Scrubbed where handlers make a line of a record, so
that whatever ends up in the line has been looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

WITHHELD: Final = "callerid: a line of the log could not be searched for secrets, and is withheld"


class Searched(logging.Formatter):
    """Another formatter's lines without secrets. Never raises."""

    def __init__(self, inner: logging.Formatter, scrub: Callable[[str], str]) -> None:
        super().__init__()
        self.inner = inner
        self.scrub = scrub

    def format(self, record: logging.LogRecord) -> str:
        try:
            return self.scrub(self.inner.format(record))
        except Exception:
            return WITHHELD


def search(scrub: Callable[[str], str]) -> None:
    """Have every handler of the root logger search its lines, by ``scrub`` from now on."""
    for handler in logging.getLogger().handlers:
        inner = handler.formatter or logging.Formatter()
        if isinstance(inner, Searched):
            inner = inner.inner
        handler.setFormatter(Searched(inner, scrub))
