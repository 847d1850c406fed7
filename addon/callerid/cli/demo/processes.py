"""The demo's processes: one group, every wait with a deadline, and all of them ended by id.

A process of ours is awaited until it is gone before its group is forgotten, so that no signal can reach
a stranger that was given the same id.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

START_SECONDS = 60.0
STEP_SECONDS = 20.0
STOP_SECONDS = 6.0

_NOT_INHERITED = frozenset(
    {
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "ssl_cert_file",
        "ssl_cert_dir",
        "sslkeylogfile",
        "mitmproxy_sslkeylogfile",
        "callerid_home",
        "callerid_rules",
        "pythonpath",
    }
)


class DemoFailed(Exception):
    """The demo cannot go on. The text is one sentence for a person."""


def environment(package_root: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """What each process starts from: ours, without proxies, trust and callerid settings of the outside.

    ``package_root`` is the folder that holds the package ``callerid``.
    """
    kept = {name: value for name, value in inherited.items() if name.lower() not in _NOT_INHERITED}
    return {**kept, "PYTHONPATH": str(package_root)}


class Child:
    """A process with its output in a log file, and its lines at hand one by one."""

    def __init__(self, name: str, process: subprocess.Popen[str], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._pump = threading.Thread(target=self._copy, args=(process.stdout,), daemon=True)
        self._pump.start()

    def _copy(self, stream: IO[str]) -> None:
        with self.log.open("a", encoding="utf-8") as log, contextlib.suppress(ValueError, OSError):
            for line in stream:
                log.write(line)
                log.flush()
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def hear(self, what: str, seconds: float = STEP_SECONDS) -> str:
        """The next line of its output.

        Raises:
            DemoFailed: it ended, or said nothing in time. ``what`` says what was waited for.
        """
        return self._next(what, seconds, time.monotonic() + seconds)

    def hear_line(self, start: str, what: str, seconds: float = START_SECONDS) -> str:
        """The rest of the first line that begins with ``start``; lines before it are only logged.

        Raises:
            DemoFailed: as ``hear``.
        """
        end = time.monotonic() + seconds
        while True:
            line = self._next(what, seconds, end)
            if line.startswith(start):
                return line.removeprefix(start)

    def _next(self, what: str, seconds: float, end: float) -> str:
        try:
            line = self._lines.get(timeout=max(end - time.monotonic(), 0.0))
        except queue.Empty:
            raise DemoFailed(f"{self.name}: waited {seconds:g} s in vain for {what}") from None
        if line is None:
            raise DemoFailed(f"{self.name} ended before {what}{self.last_words()}")
        return line

    def ask(self, step: Mapping[str, Any]) -> dict[str, Any]:
        """Send one line of JSON and wait for the answer, a line of JSON.

        Raises:
            DemoFailed: as ``hear``, or the answer is not JSON.
        """
        what = f"the answer to {step.get('tool', step['do'])}"
        stdin = self.process.stdin
        try:
            if stdin is None:
                raise BrokenPipeError
            stdin.write(json.dumps(step) + "\n")
            stdin.flush()
        except OSError:
            raise DemoFailed(f"{self.name} ended before {what}{self.last_words()}") from None
        line = self.hear(what)
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise DemoFailed(f"{self.name} answered with something that is not JSON: {line[:200]}") from None
        return answer

    def wait(self, seconds: float) -> int | None:
        """The exit code, once its output is copied too; None when it still runs after ``seconds``."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._pump.join(1.0)
        return code

    def close(self) -> None:
        """Close its output, unless somebody still writes to it: closing would then wait for them."""
        if self.process.stdout is not None and not self._pump.is_alive():
            self.process.stdout.close()

    def last_words(self) -> str:
        """Its last line on standard error, or else on standard output, as the end of a sentence."""
        self.wait(1.0)
        for path in (self.log.with_suffix(".err"), self.log):
            with contextlib.suppress(OSError):
                lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                if lines:
                    return f"; its last words: {lines[-1][:300]}"
        return ""


class Troupe:
    """All processes of one demo, in one process group. Leave it with ``stop``."""

    def __init__(
        self,
        logs: Path,
        environ: Mapping[str, str],
        cwd: Path,
        held: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._held = held
        self._logs = logs
        self._environ = environ
        self._cwd = cwd
        self._group = 0
        self._children: list[Child] = []

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        pass_fds: Iterable[int] = (),
        both: bool = False,
    ) -> Child:
        """Start a process.

        Args:
            name: for messages and the log's name.
            command: program and arguments.
            environ: added to the common environment.
            pass_fds: descriptors that it inherits.
            both: its standard error is read as its output; otherwise it goes to a log of its own.

        An interrupt waits until the new process is known, or it would be left behind.
        """
        with self._held():
            child = self._start(name, command, environ or {}, tuple(pass_fds), both)
            self._children.append(child)
        return child

    def _start(
        self, name: str, command: Sequence[str], environ: Mapping[str, str], fds: tuple[int, ...], both: bool
    ) -> Child:
        with (self._logs / f"{name}.err").open("ab") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if both else errors,
                env={**self._environ, **environ},
                cwd=self._cwd,
                text=True,
                encoding="utf-8",
                errors="replace",
                pass_fds=fds,
                process_group=self._living_group(),
            )
        if not self._group:
            self._group = process.pid
        return Child(name, process, self._logs / f"{name}.log")

    def _living_group(self) -> int:
        """The group to join; 0 makes a new one, also when all of the old one are gone."""
        if self._group and not any(child.process.poll() is None for child in self._children):
            self._group = 0
        return self._group

    def run(self, name: str, command: Sequence[str], *, may_fail: bool = False) -> str:
        """Run a process to its end and return its standard output.

        Raises:
            DemoFailed: it did not end in time, or ended with another code than 0.
        """
        return self.finish(self.start(name, command), may_fail=may_fail)

    def finish(self, child: Child, *, may_fail: bool = False) -> str:
        """Wait for a process that ends by itself and return its standard output.

        Raises:
            DemoFailed: as ``run``.
        """
        code = child.wait(START_SECONDS)
        if code is None:
            raise DemoFailed(f"{child.name} did not end within {START_SECONDS:g} s")
        if code != 0 and not may_fail:
            raise DemoFailed(f"{child.name} ended with code {code}{child.last_words()}")
        return child.log.read_text(encoding="utf-8")

    def stop(self) -> None:
        """End all that still runs: asked first, then made to. Safe to call twice."""
        for child in self._children:
            with contextlib.suppress(OSError):
                if child.process.stdin is not None:
                    child.process.stdin.close()
        for how in (signal.SIGTERM, signal.SIGKILL):
            if self._await_all(0.0):
                break
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, how)
            self._await_all(STOP_SECONDS)
        for child in self._children:
            child.wait(0.1)
            child.close()

    def _await_all(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        gone = [child.wait(max(end - time.monotonic(), 0.0)) is not None for child in self._children]
        return all(gone)
