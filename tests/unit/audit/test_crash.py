"""kill -9: whatever was acknowledged is stored, whatever else happens (law 1)."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

from .samples import rows, writing

CHILD = """
import sys
from pathlib import Path
from callerid.audit.writer import AuditWriter
from tests.unit.audit.samples import decision

acknowledged = sys.stdout

def notify(results):
    for done, error in results:
        assert error is None, error
        done(error)
    acknowledged.flush()

writer = AuditWriter(Path(sys.argv[1]), notify=notify, queue_limit=200)
writer.start()
number = int(sys.argv[2])
while True:
    record = decision(number)
    try:
        writer.decide(record, lambda error, name=record.event_id: acknowledged.write(name + "\\n"))
        number += 1
    except Exception:
        pass
"""
ROUNDS = 5


def test_every_acknowledged_row_survives_kill_nine(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    root = str(Path(__file__).resolve().parents[3])
    acknowledged: set[str] = set()
    for number in range(ROUNDS):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), str(number * 1_000_000)],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": ":".join([root, *sys.path])},
            text=True,
        )
        with child:
            assert child.stdout is not None
            for _ in range(20 + 30 * number):
                acknowledged.add(child.stdout.readline().strip())
            child.kill()
            rest = child.stdout.read().split("\n")
        acknowledged.update(rest[:-1])  # after the last line end: a line that was cut by the kill
    assert len(acknowledged) > ROUNDS * 20
    stored = {row["event_id"] for row in rows(path, "SELECT event_id FROM calls")}
    assert acknowledged <= stored
    with writing(path):
        pass
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("SELECT max(seq) - count(*) FROM decision").fetchone() == (0,)
    connection.close()
