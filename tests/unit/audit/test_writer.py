from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from callerid.audit import writer as writer_module
from callerid.audit.records import AuditError
from callerid.audit.writer import AuditWriter
from callerid.errors import StoreError
from callerid.model import Verdict

from .samples import (
    PATIENCE,
    T0,
    Gate,
    Waiting,
    decision,
    event_id,
    finding,
    outcome,
    plant,
    refusal,
    rows,
    writing,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.db"


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.01)


def test_done_is_called_only_when_another_reader_sees_the_row(path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def notify(results: list[Any]) -> None:
        for done, error in results:
            assert error is None
            done(error)

    def done_for(number: int) -> Any:
        sql = "SELECT count(*) AS n FROM calls WHERE event_id = ?"
        return lambda error: seen.append((number, rows(path, sql, event_id(number))[0]["n"]))

    writer = AuditWriter(path, notify=notify)
    writer.start()
    for number in range(50):
        writer.decide(decision(number), done_for(number))
    writer.close(PATIENCE)
    assert seen == [(number, 1) for number in range(50)]


def test_what_queues_during_one_commit_is_one_batch_with_one_notify(path: Path) -> None:
    gate, told = Gate(), []

    def notify(results: list[Any]) -> None:
        told.append(len(results))
        if len(told) == 1:
            gate.hold()

    writer = AuditWriter(path, notify=notify)
    writer.start()
    writer.decide(decision(0), lambda error: None)
    assert gate.reached.wait(PATIENCE)
    for number in range(1, 40):
        writer.decide(decision(number), lambda error: None)
    gate.opened.set()
    writer.close(PATIENCE)
    assert told == [1, 39]


def test_an_outcome_in_the_same_batch_finds_its_decision(path: Path, waiting: Waiting) -> None:
    with writing(path, waiting) as writer:
        writer.decide(decision(1), waiting.done(1))
        writer.outcome(outcome(1))
    assert rows(path, "SELECT outcome FROM calls") == [{"outcome": "ok"}]


def test_nothing_is_called_for_a_record_that_cannot_be_serialised(path: Path, waiting: Waiting) -> None:
    def broken(text: str) -> str:
        raise RuntimeError(text)

    with writing(path, waiting) as writer:
        writer.scrub = broken
        with pytest.raises(AuditError):
            writer.decide(decision(1), waiting.done(1))
        writer.outcome(outcome(1, detail="x"))  # fire and forget: never raises
        writer.scrub = str
        writer.decide(decision(2), waiting.done(2))
        assert waiting.wait(1) == {2: None}
    lost = rows(path, "SELECT detail FROM event WHERE kind = 'unrecorded'")
    assert {key for row in lost for key in json.loads(row["detail"])} == {"decision", "outcome", "cause"}


def test_live_secrets_of_the_moment_are_scrubbed(path: Path, waiting: Waiting) -> None:
    with writing(path, waiting) as writer:
        writer.scrub = lambda text: text.replace("canary", "[shared]")
        writer.decide(decision(1, arguments={"q": "a canary"}, target="canary"), waiting.done(1))
    assert rows(path, "SELECT arguments, target FROM calls") == [
        {"arguments": '{"q":"a [shared]"}', "target": "[shared]"}
    ]


def test_a_full_queue_refuses_at_once(path: Path, waiting: Waiting) -> None:
    gate = Gate()
    writer = AuditWriter(path, notify=lambda results: gate.hold(), queue_limit=2)
    writer.start()
    writer.decide(decision(0), waiting.done(0))
    assert gate.reached.wait(PATIENCE)
    for number in (1, 2):
        writer.decide(decision(number), waiting.done(number))
    with pytest.raises(StoreError, match="queue"):
        writer.decide(decision(3), waiting.done(3))
    writer.outcome(outcome(0))  # no room, no exception
    writer.finding(finding(0))
    gate.opened.set()
    writer.close(PATIENCE)
    assert len(rows(path, "SELECT seq FROM decision")) == 3
    (event,) = rows(path, "SELECT detail FROM event WHERE kind = 'unrecorded'")
    assert json.loads(event["detail"]) == {
        "decision": 1,
        "outcome": 1,
        "finding": 1,
        "cause": "the queue was full or closed",
    }


def test_before_start_and_after_close_nothing_is_taken(path: Path, waiting: Waiting) -> None:
    writer = AuditWriter(path, notify=waiting.notify)
    assert not writer.healthy
    with pytest.raises(StoreError):
        writer.decide(decision(1), waiting.done(1))
    writer.start()
    assert writer.healthy
    writer.close(PATIENCE)
    writer.close(PATIENCE)
    assert not writer.healthy
    with pytest.raises(StoreError):
        writer.decide(decision(1), waiting.done(1))
    writer.outcome(outcome(1))
    assert not path.with_name("audit.db-wal").exists()


def test_a_second_writer_is_refused_and_the_first_goes_on(path: Path, waiting: Waiting) -> None:
    with writing(path, waiting) as writer:
        with pytest.raises(StoreError, match="another callerid"):
            AuditWriter(path, notify=waiting.notify).start()
        writer.decide(decision(1), waiting.done(1))
        assert waiting.wait(1) == {1: None}
    with writing(path):
        pass


def test_a_start_that_failed_gives_the_lock_back(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreError):
        AuditWriter(path, notify=Waiting().notify).start()
    path.rmdir()
    with writing(path) as writer:
        assert writer.healthy


def test_a_finding_that_cannot_be_stored_is_counted_and_raises_nothing(path: Path) -> None:
    with writing(path) as writer:
        writer.event("started", T0, {})
        writer.finding(finding(0, detail=7))
    (event,) = rows(path, "SELECT detail FROM event WHERE kind = 'unrecorded'")
    assert json.loads(event["detail"])["finding"] == 1


def test_each_policy_is_kept_once(path: Path) -> None:
    with writing(path) as writer:
        writer.policy("p1", T0, {"policy.yaml": "rules: []"})
        writer.policy("p1", T0 + 9, {"policy.yaml": "other"})
        writer.policy("p2", T0 + 9, {"policy.yaml": "rules: [x]"})
    assert rows(path, "SELECT hash, loaded_us, sources FROM policy_version ORDER BY hash") == [
        {"hash": "p1", "loaded_us": T0, "sources": '{"policy.yaml":"rules: []"}'},
        {"hash": "p2", "loaded_us": T0 + 9, "sources": '{"policy.yaml":"rules: [x]"}'},
    ]


def test_events_say_after_which_row_they_came(path: Path, waiting: Waiting) -> None:
    with writing(path, waiting) as writer:
        writer.event("started", T0, {"version": "1"})
        writer.decide(decision(1), waiting.done(1))
        waiting.wait(1)
        writer.event("reload", T0 + 5, {"token": "canary"})
    assert rows(path, "SELECT kind, time_us, after_seq, detail FROM event") == [
        {"kind": "started", "time_us": T0, "after_seq": 0, "detail": '{"version":"1"}'},
        {"kind": "reload", "time_us": T0 + 5, "after_seq": 1, "detail": '{"token":"[redacted]"}'},
    ]


def test_a_start_after_a_death_reports_the_calls_without_outcome_once(path: Path, waiting: Waiting) -> None:
    plant(path, decision(1), outcome(1), decision(2), refusal(3), decision(4))
    for number in (5, 6):
        with writing(path, waiting) as writer:
            writer.decide(decision(number), waiting.done(number))
            waiting.wait(number - 4)
            writer.event("started", T0 + number * 1000, {})
            writer.outcome(outcome(number))
    found = rows(path, "SELECT time_us, after_seq, detail FROM event WHERE kind = 'recovered'")
    assert [json.loads(row["detail"]) for row in found] == [{"calls": 2, "first_seq": 2, "last_seq": 4}]
    assert found[0]["after_seq"] == 4
    assert found[0]["time_us"] == T0 + 5000
    unknown = rows(path, "SELECT seq FROM calls WHERE outcome = 'unknown' ORDER BY seq")
    assert [row["seq"] for row in unknown] == [2, 4]


def test_a_call_that_came_before_the_started_event_is_not_forgotten(path: Path) -> None:
    """``started`` stands for the beginning of its run, even when rows overtake it."""
    plant(path, decision(1), outcome(1))
    for number in (2, 3):
        waiting = Waiting()
        with writing(path, waiting) as writer:
            writer.decide(decision(number), waiting.done(number))
            waiting.wait(1)
            writer.event("started", T0, {})
    found = rows(path, "SELECT detail FROM event WHERE kind = 'recovered'")
    assert [json.loads(row["detail"]) for row in found] == [{"calls": 1, "first_seq": 2, "last_seq": 2}]
    assert rows(path, "SELECT max(after_seq) AS n FROM event WHERE kind = 'started'") == [{"n": 2}]


def test_many_threads_may_decide_at_once(path: Path, waiting: Waiting) -> None:
    with writing(path, waiting) as writer:
        threads = [
            threading.Thread(
                target=lambda first=first: [
                    writer.decide(decision(first + n), waiting.done(first + n)) for n in range(50)
                ]
            )
            for first in (0, 1000, 2000, 3000)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        answers = waiting.wait(200)
    assert set(answers.values()) == {None}
    numbers = rows(path, "SELECT count(*) AS n, max(seq) AS last FROM decision")
    assert numbers == [{"n": 200, "last": 200}]


def test_every_verdict_is_stored(path: Path, waiting: Waiting) -> None:
    with writing(path, waiting) as writer:
        for number, verdict in enumerate(Verdict):
            writer.decide(decision(number, verdict=verdict), waiting.done(number))
    found = rows(path, "SELECT verdict FROM calls ORDER BY seq")
    assert [row["verdict"] for row in found] == ["deny", "allow", "error"]


def test_no_byte_of_the_files_holds_a_secret(path: Path, waiting: Waiting) -> None:
    canary = b"c4n4ry"
    text = canary.decode()
    with writing(path, waiting) as writer:
        writer.scrub = lambda value: value.replace(f"live-{text}", "[shared]")
        record = decision(
            1,
            arguments={
                "password": text,
                "deep": [{"apiKey": {"x": text}}],
                "cmd": f"curl -u a:b --token {text}",
            },
            target=f"https://alice:{text}@files.corp.example/?access_token={text}",
            user_agent=f"x Bearer {text}-{text}",
            client_name=f"live-{text}",
            detail=f"the token cid_{text}{text} is unknown",
            tool=f"ghp_{text}{text}",
            rpc_id=f"eyJ{text}{text}.{text}.{text}",
        )
        writer.decide(record, waiting.done(1))
        writer.outcome(outcome(1, detail=f"live-{text}"))
        writer.finding(
            finding(1, server=f"live-{text}.example", detail=f"Authorization: Bearer {text}-{text}")
        )
        writer.policy("p1", T0, {"policy.yaml": f"live-{text}"})
        writer.event("reload_failed", T0, {"error": f"password: {text}", "secret": text})
        assert waiting.wait(1) == {1: None}
        for file in path.parent.iterdir():
            assert canary not in file.read_bytes(), file.name
    for file in path.parent.iterdir():
        assert canary not in file.read_bytes(), file.name
