"""Records and a collecting writer for the tests of the audit."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from callerid.audit.ids import uuid7
from callerid.audit.writer import AuditWriter
from callerid.model import (
    Carrier,
    DecisionRecord,
    Evidence,
    EvidenceKind,
    FindingKind,
    FindingRecord,
    Outcome,
    OutcomeRecord,
    Reason,
    Verdict,
)

T0 = 1_790_000_000_000_000
"""2026-09-21T14:13:20Z in microseconds."""
PATIENCE = 20.0
"""Seconds a test waits for something that must happen; never the measure of anything."""

ALICE = Evidence(
    kind=EvidenceKind.SCOPED_TOKEN, carrier=Carrier.PROXY_AUTHORIZATION, credential_id="tok_alice_1"
)


def event_id(number: int) -> str:
    return uuid7(T0 + number * 1000, number.to_bytes(8, "big"))


def decision(number: int = 0, **changes: Any) -> DecisionRecord:
    """Alice's agent reads a file, and may."""
    fields: dict[str, Any] = {
        "event_id": event_id(number),
        "time_us": T0 + number * 1000,
        "verdict": Verdict.ALLOW,
        "reason": Reason.GRANTED,
        "method": "tools/call",
        "server": "files",
        "upstream": "https://files.corp.example:443/mcp",
        "principal": "user:alice@corp.example",
        "issuer": "local",
        "agent": "claude-code",
        "evidence": (ALICE,),
        "assurance": "bearer",
        "credential_id": "tok_alice_1",
        "client_ip": "192.0.2.7",
        "tool": "read_file",
        "target": "/srv/reports/q3.md",
        "arguments": {"path": "/srv/reports/q3.md"},
        "rule": "readers",
        "policy": "p1",
        "injected": "files-shared@v1",
    }
    return DecisionRecord(**{**fields, **changes})


def refusal(number: int = 0, **changes: Any) -> DecisionRecord:
    """Ivy the intern may not drop a table."""
    fields: dict[str, Any] = {
        "verdict": Verdict.DENY,
        "reason": Reason.NO_GRANT,
        "principal": "user:ivy@corp.example",
        "credential_id": "tok_ivy_1",
        "server": "warehouse",
        "upstream": "https://warehouse.corp.example:443/mcp",
        "tool": "drop_table",
        "target": "payroll",
        "arguments": {"table": "payroll"},
        "rule": None,
        "injected": None,
    }
    return decision(number, **{**fields, **changes})


def outcome(number: int = 0, **changes: Any) -> OutcomeRecord:
    fields: dict[str, Any] = {
        "event_id": event_id(number),
        "time_us": T0 + number * 1000 + 42_000,
        "outcome": Outcome.OK,
        "http_status": 200,
        "duration_us": 42_000,
        "response_bytes": 1234,
    }
    return OutcomeRecord(**{**fields, **changes})


def finding(number: int = 0, **changes: Any) -> FindingRecord:
    """Bob still holds the shared key of the file server."""
    fields: dict[str, Any] = {
        "time_us": T0 + number * 1000,
        "kind": FindingKind.RAW_KEY,
        "event_id": event_id(number),
        "server": "files",
        "principal": "user:bob@corp.example",
        "credential": "files-shared@v1",
        "fingerprint": "5f0c" * 8,
        "detail": "in Authorization",
    }
    return FindingRecord(**{**fields, **changes})


class Waiting:
    """The caller's side: collects what ``done`` was told, and waits for it without sleeping."""

    def __init__(self) -> None:
        self.told: list[tuple[int, BaseException | None]] = []
        self.batches: list[int] = []
        self._changed = threading.Condition()

    def notify(self, results: list[Any]) -> None:
        with self._changed:
            self.batches.append(len(results))
            for done, error in results:
                done(error)
            self._changed.notify_all()

    def done(self, number: int) -> Any:
        return lambda error: self.told.append((number, error))

    def wait(self, count: int) -> dict[int, BaseException | None]:
        """The answers by number, once ``count`` of them are there."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.told) >= count, PATIENCE), (
                "the writer never answered"
            )
            return dict(self.told)


class Gate:
    """A ``scrub`` or ``notify`` that holds the writer's thread until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def hold(self) -> None:
        self.reached.set()
        assert self.opened.wait(PATIENCE)


@contextmanager
def writing(path: Path, waiting: Waiting | None = None, **options: Any) -> Iterator[AuditWriter]:
    waiting = waiting or Waiting()
    writer = AuditWriter(path, notify=waiting.notify, **options)
    writer.start()
    try:
        yield writer
    finally:
        writer.close(PATIENCE)


def rows(path: Path, sql: str, *values: Any) -> list[dict[str, Any]]:
    """What another, read-only connection sees."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql, values)]
    finally:
        connection.close()


def plant(path: Path, *records: DecisionRecord | OutcomeRecord | FindingRecord) -> None:
    """Store the records through the writer, and close it."""
    waiting = Waiting()
    decisions = 0
    with writing(path, waiting) as writer:
        writer.policy("p1", T0, {"policy.yaml": "rules: []\n", "servers.yaml": "servers: {}\n"})
        writer.event("started", T0, {"version": "test"})
        for record in records:
            if isinstance(record, DecisionRecord):
                writer.decide(record, waiting.done(decisions))
                decisions += 1
            elif isinstance(record, FindingRecord):
                writer.finding(record)
            else:
                writer.outcome(record)
        answers = waiting.wait(decisions) if decisions else {}
    assert not any(answers.values()), answers
