"""``callerid demo`` for real: its exit code, its rows, and that nothing is left of it, however it ends."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callerid.cli.demo import cast

ADDON = Path(__file__).resolve().parents[2] / "addon"
PROC = Path("/proc")
DEADLINE = 100.0


class Demo:
    """One run of the demo, with a temporary folder of its own to leave nothing in."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        environ: dict[str, str] | None = None,
        program: tuple[str, ...] = ("-m", "callerid"),
    ) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(ADDON),
            "TMPDIR": str(self.temporary),
            # A shell like that of somebody whose machine is behind another proxy: none of it may count.
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "localhost",
            "SSL_CERT_FILE": "/nonexistent",
            **(environ or {}),
        }
        self.process = subprocess.Popen(
            [sys.executable, *program, "demo", *arguments],
            env=self.environ,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def finish(self) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err

    def relatives(self) -> dict[int, str]:
        """Living processes that have this run's temporary folder in their command line or environment."""
        mark = os.fsencode(str(self.temporary))
        found = {}
        for entry in PROC.iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            if mark in command or mark in environ:
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found

    def await_relatives(self, *names: str) -> None:
        """Until a process with each of ``names`` in its command line runs."""
        end = time.monotonic() + DEADLINE
        while not all(any(name in line for line in self.relatives().values()) for name in names):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, f"waited in vain for {names}"
            select.select([], [], [], 0.05)

    def left(self) -> list[str]:
        """What is in the temporary folder."""
        return sorted(path.name for path in self.temporary.iterdir())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[type[Demo]]:
    """The class, whose runs are killed when a test fails before they end."""
    runs: list[Demo] = []

    class Known(Demo):
        def __init__(self, *arguments: str, **more: Any) -> None:
            super().__init__(tmp_path, *arguments, **more)
            runs.append(self)

    yield Known
    for run in runs:
        for pid in run.relatives():
            os.kill(pid, signal.SIGKILL)
        run.process.communicate(timeout=10)


pytestmark = pytest.mark.skipif(not PROC.is_dir(), reason="looks for survivors in /proc")


def test_the_demo_holds_and_leaves_nothing_behind_also_without_a_sqlite3_shell(
    start: type[Demo], tmp_path: Path
) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    run = start("--json", environ={"PATH": str(empty)})
    code, out, err = run.finish()
    assert (code, err) == (0, ""), out + err
    report = json.loads(out)
    assert report["ok"] is True
    assert [tuple(row[name] for name in cast.COLUMNS) for row in report["rows"]] == [
        act.row() for act in cast.ACTS
    ]
    assert [check["name"] for check in report["checks"] if not check["ok"]] == []
    assert (report["failure"], report["kept"]) == (None, None)
    assert run.relatives() == {}
    assert run.left() == []


def test_the_story_is_told_and_kept_where_asked(start: type[Demo], tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    run = start("--keep", str(kept))
    code, out, err = run.finish()
    assert code == 0, out + err
    assert "checks hold" in out
    assert "Customer tables leave the warehouse only through the data" in out
    assert "read_ticket for user:alice@corp.example, by researcher for claude-code" in out
    assert re.search(
        r"held: t_[0-9a-f]{12} of claude-code; agents: claude-code, researcher; groups: eng", out
    )
    assert err == f"rules, audit and logs are in {kept}\n"
    assert run.relatives() == {}
    assert run.left() == []
    assert kept.stat().st_mode & 0o777 == 0o700
    told = out + (kept / "logs" / "proxy.log").read_text()
    assert re.search(r"cid_[0-9A-Za-z]{49}", told) is None
    for name in ("tickets", "warehouse"):
        assert (kept / "keys" / f"{name}.key").read_text().strip() not in told
    # The line that the story prints is one that works for whoever copies it.
    line = next(line for line in out.splitlines() if line.strip().startswith(("$ sqlite3", "$ sqlite-utils")))
    printed = reproduce(line.strip().removeprefix("$ "))
    for act in cast.ACTS:
        assert re.search(rf"{act.principal}\W.*\b{act.tool}\b.*\b{act.reason}\b", printed)
    # And the README shows what this run left, but for ids and times.
    if shutil.which("sqlite3"):
        for query, shown in readme_queries():
            assert masked(reproduce(query.replace("DIR/", f"{kept}/"))) == masked(shown)


def reproduce(line: str) -> str:
    if line.startswith("sqlite-utils "):
        line = f"{sys.executable} -m {line.replace('sqlite-utils', 'sqlite_utils', 1)}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


def readme_queries() -> list[tuple[str, str]]:
    """(command, output) of the README's blocks that ask the audit."""
    text = (ADDON.parent / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"```console\n\$ (sqlite3 .*)\n((?:.+\n)+)```", text)
    assert len(found) == 2
    return found


VARYING = {
    "TIME": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",
    "EVENT": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "TOKEN": r"\bt_[0-9a-f]{12}\b",
    "POLICY": r"\b[0-9a-f]{16}\b",
    "SPENT": r"\b\d+\.\d{1,3}$",
}


def masked(output: str) -> list[list[str]]:
    """The words of each line: without ids, times, and the lines that sqlite3 draws."""
    for name, shape in VARYING.items():
        output = re.sub(shape, name, output, flags=re.MULTILINE)
    lines = [re.sub(r"[─-╿]", " ", line).split() for line in output.splitlines()]
    return [words for words in lines if words]


def test_the_readme_shows_the_rows_that_the_demo_must_leave() -> None:
    query, shown = readme_queries()[0]
    assert query == f'sqlite3 -readonly -box DIR/home/audit.db "{cast.QUERY}"'
    rows = [" ".join(cell for cell in act.row() if cell).split() for act in cast.ACTS]
    assert masked(shown) == [list(cast.COLUMNS), *rows]


SABOTAGE = r"""
from callerid.cli.demo import rules, stage
from callerid.cli.main import main

rules._SERVERS = rules._SERVERS.replace("    assertion: {{}}\n", "")
stage.NARROWER = ("--ttl", "5m")
said = {"new": True, "tokens": [], "agents": [], "groups": []}
stage.Stage.block = lambda self, who: ("true", {**said, "subject": who})
main()
"""


def test_without_what_it_shows_the_demo_fails(start: type[Demo]) -> None:
    """The server is told nothing, the sub-agent's token is no narrower, and Bob is not blocked."""
    run = start("--json", program=("-c", SABOTAGE))
    code, out, _ = run.finish()
    assert code == 1, out
    report = json.loads(out)
    assert report["failure"] is None
    failed = [check["name"] for check in report["checks"] if not check["ok"]]
    rows = {f"{act.client} {act.tool}": n for n, act in enumerate(cast.ACTS, 1)}
    assert failed == [
        f"row {rows['researcher close_ticket']}: researcher tickets.close_ticket deny outside_scope",
        f"row {rows['bob-cli query'] - 1}: bob warehouse.query deny principal_blocked",
        f"row {rows['bob-cli query']}: bob-cli warehouse.query deny principal_blocked",
        "every client got its result or a refusal that it can read",
        "the servers got the allowed calls and no other",
        "the server that asked knows who called, and by which decision",
        "the sub-agent's token is narrower and ends sooner than the one it is derived from",
        "block says what Bob still holds",
        "the shared keys are the same after the block as before",
    ]


@pytest.mark.parametrize(
    ("names", "how"),
    [
        pytest.param(["cli.demo.server"], signal.SIGTERM, id="by SIGTERM while it starts"),
        pytest.param(["callerid run", "cli.demo.client"], signal.SIGINT, id="by Ctrl-C in the middle"),
    ],
)
def test_stopped_it_leaves_nothing_behind(names: list[str], how: signal.Signals, start: type[Demo]) -> None:
    run = start()
    run.await_relatives(*names)
    run.process.send_signal(how)
    code, _, err = run.finish()
    assert (code, err) == (130, "callerid: stopped; nothing is left running\n")
    assert run.relatives() == {}
    assert run.left() == []


def test_a_proxy_that_dies_is_a_failure_that_keeps_its_logs(start: type[Demo]) -> None:
    run = start("--json")
    run.await_relatives("callerid run", "cli.demo.client")
    for pid, line in run.relatives().items():
        if "callerid run" in line:
            os.kill(pid, signal.SIGKILL)
    code, out, _ = run.finish()
    assert code == 1
    report = json.loads(out)
    assert report["ok"] is False
    assert [check for check in report["checks"] if not check["ok"]] or report["failure"]
    assert run.relatives() == {}
    kept = Path(report["kept"])
    assert kept.parent == run.temporary
    assert (kept / "logs" / "proxy.log").exists()
    shutil.rmtree(kept)
    assert run.left() == []
