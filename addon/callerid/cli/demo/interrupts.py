"""SIGINT and SIGTERM as one exception, raised once, and never where it would leave a process behind."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal came: everything is to be ended and cleared away."""


class Interrupts:
    """While it is entered, the first signal raises ``Interrupted``; the ones after it do nothing."""

    def __init__(self) -> None:
        self._before: dict[int, Callable[..., Any] | int | None] = {}
        self._holds = 0
        self._pending = False

    def __enter__(self) -> Interrupts:
        self._before = {number: signal.signal(number, self._interrupt) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._holds:
            self._pending = True
            return
        self.ignore()
        raise Interrupted

    def ignore(self) -> None:
        """From now on signals do nothing: the ending is under way, and it is bounded."""
        self._pending = False
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """A signal in here is raised when the block is done."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        if self._pending and not self._holds:
            self.ignore()
            raise Interrupted
