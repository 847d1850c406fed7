from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from callerid.audit.lock import WriterLock
from callerid.errors import StoreError


def test_the_lock_lies_beside_the_database_and_is_private(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "audit.db")
    lock.acquire()
    assert stat.S_IMODE((tmp_path / "audit.lock").stat().st_mode) == 0o600
    lock.release()


def test_a_second_holder_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    first, second = WriterLock(tmp_path / "audit.db"), WriterLock(tmp_path / "audit.db")
    first.acquire()
    with pytest.raises(StoreError, match="another callerid") as caught:
        second.acquire()
    assert "--home" in caught.value.hint
    first.release()
    first.release()
    second.acquire()
    second.release()


def test_the_lock_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from callerid.audit.lock import WriterLock\n"
        "lock = WriterLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "audit.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError):
            WriterLock(tmp_path / "audit.db").acquire()
        holder.kill()
    lock = WriterLock(tmp_path / "audit.db")
    lock.acquire()
    lock.release()
