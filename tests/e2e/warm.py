"""A warm process that forks callerid: importing mitmproxy takes longer than all the rest of a start.

What it forks is a process of its own, with its own pid, signals, environment, output and exit code, and
it runs the ``callerid`` command (or ``mitmdump``) from its first line. Only the imports are shared.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from mitmproxy.tools import dump
from mitmproxy.tools import main as mitmproxy_main

from callerid.cli import audit, main, rules, run, tokens

PROGRAMS: Mapping[str, Callable[[], object]] = {"callerid": main.main, "mitmdump": mitmproxy_main.mitmdump}
WARMED = (audit, rules, run, tokens, dump)
"""What these import when they are asked to is imported before the fork."""

ROOT = Path(__file__).resolve().parents[2]
_MAX_REQUEST = 1 << 20


class Warm:
    """The warm process, as the tests see it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environ = {**os.environ, "PYTHONPATH": f"{ROOT / 'addon'}{os.pathsep}{ROOT}"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.warm", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], env=environ, cwd=ROOT,
            )  # fmt: skip
        self._socket = ours
        self._socket.settimeout(60)

    def spawn(self, arguments: Sequence[str], *, environ: Mapping[str, str], cwd: Path) -> Forked:
        """``callerid ARGUMENTS``, running. Its stdout and stderr are one pipe."""
        reader, writer = os.pipe()
        try:
            pid = self._fork(arguments, environ, cwd, writer, writer)
        finally:
            os.close(writer)
        return Forked(self, pid, os.fdopen(reader, "rb"))

    def run(
        self, arguments: Sequence[str], *, environ: Mapping[str, str], cwd: Path, timeout: float = 30,
        program: str = "callerid",
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """``PROGRAM ARGUMENTS`` to its end."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            files = (out.fileno(), err.fileno())
            process = Forked(self, self._fork(arguments, environ, cwd, *files, program=program))
            try:
                code = process.wait(timeout)
            finally:
                process.kill()
            texts = [os.pread(file.fileno(), 1 << 24, 0).decode(errors="replace") for file in (out, err)]
        return subprocess.CompletedProcess([*arguments], code, *texts)

    def _fork(
        self, arguments: Sequence[str], environ: Mapping[str, str], cwd: Path, out: int, err: int,
        program: str = "callerid",
    ) -> int:  # fmt: skip
        request = {"argv": [program, *arguments], "environ": dict(environ), "cwd": str(cwd)}
        pid: int = self._ask(request, out, err)
        return pid

    def ended(self, pid: int) -> int | None:
        """The exit code of a process that was forked here (negative: the signal), or None."""
        code: int | None = self._ask({"ended": pid})
        return code

    def close(self) -> None:
        """End the warm process; it ends what it has forked."""
        self._socket.close()
        self._process.wait(30)

    def _ask(self, request: Mapping[str, Any], *descriptors: int) -> Any:
        socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
        return json.loads(self._socket.recv(_MAX_REQUEST))


class Forked:
    """One forked process, with the methods of ``subprocess.Popen`` that the harness uses."""

    def __init__(self, warm: Warm, pid: int, stdout: IO[bytes] | None = None) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._warm = warm

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._warm.ended(self.pid)
        return self.returncode

    def wait(self, timeout: float) -> int:
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("callerid", timeout)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _serve(channel: socket.socket) -> None:
    """Fork what is asked for, until the other side is gone."""
    running: set[int] = set()
    codes: dict[int, int] = {}
    while True:
        raw, descriptors, _, _ = socket.recv_fds(channel, _MAX_REQUEST, 2)
        if not raw:
            break
        request = json.loads(raw)
        if "ended" in request:
            pid = request["ended"]
            if pid in running:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    running.discard(pid)
                    codes[pid] = os.waitstatus_to_exitcode(status)
            channel.send(json.dumps(codes.get(pid)).encode())
            continue
        pid = os.fork()
        if not pid:
            channel.close()
            _become(request, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        running.add(pid)
        channel.send(json.dumps(pid).encode())
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _become(request: Mapping[str, Any], out: int, err: int) -> None:
    """Be the ``callerid`` command, as a fresh interpreter would be."""
    code = 70
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.closerange(3, max(out, err) + 1)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environ"])
        sys.argv = request["argv"]
        PROGRAMS[sys.argv[0]]()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
