"""Make ROOT/.venv from requirements/dev.txt. env.sh runs it with the Python that was found; stdlib only.

The stamp is written last: a .venv without the right stamp is half made, old or moved here, and is made anew.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

COMMAND = """#!/bin/sh
exec "$(dirname -- "$(realpath -- "$0")")/python" -P -m callerid "$@"
"""
# --no-deps: the lock is the whole set, and see requirements/overrides.txt. Only wheels: nothing is compiled
# here, and no package runs code of its own while it is installed.
PIP_INSTALL = ["install", "--quiet", "--no-input", "--no-user", "--disable-pip-version-check"]
PIP_INSTALL += ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
OFFLINE = ("No matching distribution", "Connection", "NameResolution", "timed out", "ProxyError", "SSLError")


def say(message: str) -> None:
    print(f"callerid: {message}", file=sys.stderr, flush=True)


def stamp_text(root: Path) -> str:
    """What a finished .venv carries: the place it was made for (a venv cannot move) and what is in it."""
    return f"callerid-env 1 {root}\n" + (root / "requirements" / "dev.txt").read_text(encoding="utf-8")


def is_ready(root: Path) -> bool:
    """Somebody else finished the same work while we waited for the lock."""
    venv = root / ".venv"
    try:
        text = (venv / "callerid-stamp").read_text(encoding="utf-8")
    except OSError:
        return False
    return text == stamp_text(root) and (venv / "bin" / f"python3.{sys.version_info.minor}").exists()


def lock_root(root: Path) -> int:
    """One builder at a time. The lock is on the folder itself, and ends with the process however it ends."""
    lock = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another script is making .venv; waiting for it ...")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def clear(venv: Path) -> None:
    """Leave an empty .venv, and remove nothing that was not one.

    pyvenv.cfg is the sign of a virtual environment: first in and last out, so that what an interruption
    leaves at any moment is known for one.
    """
    sign = venv / "pyvenv.cfg"
    if venv.is_symlink():
        venv.unlink()
    elif venv.exists():
        if not venv.is_dir() or (any(venv.iterdir()) and not sign.exists()):
            raise SystemExit(f"callerid: {venv} is not a virtual environment: move it away, then run again.")
        (venv / "callerid-stamp").unlink(missing_ok=True)
        for inner in venv.iterdir():
            if inner.is_dir() and not inner.is_symlink():
                shutil.rmtree(inner)
            elif inner != sign:
                inner.unlink()
    venv.mkdir(exist_ok=True)
    sign.touch()


def run(command: list[str], lock: int) -> tuple[int, str]:
    """The exit code and all that was printed. The child holds the lock too, in case it outlives us."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PYTHONPATH", "PYTHONHOME"}
    }
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=(lock,),
        check=False,
    )
    return done.returncode, done.stdout


def explain(output: str) -> str:
    """One sentence on why pip gave up."""
    if "DO NOT MATCH THE HASHES" in output:
        return "a package is not the one that was pinned, so it was not used: check the mirror that pip uses."
    if any(sign in output for sign in OFFLINE):
        return (
            "the packages could not be fetched: connect this machine to a Python package index once"
            " (pip's own settings for a proxy or a mirror are used), then run this again."
        )
    return "the packages could not be installed: see pip's words above, then run this again."


def build(root: Path, lock: int) -> int:
    """Make .venv from nothing. Returns the exit code for the shell."""
    venv = root / ".venv"
    version = ".".join(map(str, sys.version_info[:3]))
    say(f"making .venv with Python {version} (once, about a minute) ...")
    clear(venv)
    code, output = run([sys.executable, "-I", "-m", "venv", str(venv)], lock)
    if code == 0:
        pip = [str(venv / "bin" / "python"), "-I", "-m", "pip", *PIP_INSTALL]
        code, output = run([*pip, "--requirement", str(root / "requirements" / "dev.txt")], lock)
    if code != 0:
        lines = [f"  {line}" for line in output.splitlines() if line.strip()]
        print("\n".join(lines[-12:]), file=sys.stderr)
        say(explain(output))
        return 1
    packages = venv / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    (packages / "callerid.pth").write_text("../../../../addon\n", encoding="utf-8")
    command = venv / "bin" / "callerid"
    command.write_text(COMMAND, encoding="utf-8")
    command.chmod(0o755)
    unfinished = venv / "callerid-stamp.new"
    unfinished.write_text(stamp_text(root), encoding="utf-8")
    unfinished.replace(venv / "callerid-stamp")
    say(".venv is ready.")
    return 0


def main() -> int:
    root = Path(sys.argv[1])
    lock = lock_root(root)
    return 0 if is_ready(root) else build(root, lock)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        say("stopped; the next run starts afresh.")
        raise SystemExit(130) from None
