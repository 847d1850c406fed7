from __future__ import annotations

import os
from pathlib import Path

import pytest

from callerid.audit.columns import CALLS_NAMES, FINDINGS_NAMES
from callerid.audit.read import Filter, findings, follow, show, tail
from callerid.errors import StoreError
from callerid.model import FindingKind

from .samples import T0, Waiting, decision, event_id, finding, outcome, plant, refusal, writing
from .test_schema import make_old


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "audit.db"
    plant(
        made,
        decision(1),
        outcome(1),
        refusal(2),
        decision(3, principal="user:bob@corp.example", tool="list_files"),
        decision(4, arguments={"password": "x"}),
    )
    return made


def seqs(calls: tuple[dict[str, object], ...]) -> list[object]:
    return [call["seq"] for call in calls]


def test_tail_is_the_newest_rows_oldest_first(path: Path) -> None:
    assert seqs(tail(path, 0, 2)) == [3, 4]
    assert seqs(tail(path, 3, 20)) == [4]
    assert tuple(tail(path, 0, 1)[0]) == CALLS_NAMES


def test_follow_leaves_none_out(path: Path) -> None:
    assert seqs(follow(path, 0, 2)) == [1, 2]
    assert seqs(follow(path, 2, 2)) == [3, 4]
    assert follow(path, 4, 2) == ()


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (Filter(principal="user:ivy@corp.example"), [2]),
        (Filter(server="files"), [1, 3, 4]),
        (Filter(tool="list_files"), [3]),
        (Filter(verdict="deny"), [2]),
        (Filter(reason="no_grant"), [2]),
        (Filter(since_us=T0 + 3000), [3, 4]),
        (Filter(server="files", principal="user:alice@corp.example", since_us=T0 + 2000), [4]),
        (Filter(principal="' OR 1=1 --"), []),
    ],
)
def test_filters_all_have_to_hold(path: Path, only: Filter, expected: list[int]) -> None:
    assert seqs(tail(path, 0, 20, only)) == expected


def test_show_tells_all_about_one_call(path: Path) -> None:
    (shown,) = show(path, event_id(4))
    assert shown.call["arguments"] == '{"password":"[redacted]"}'
    assert shown.redactions == 1
    assert shown.outcome_time_us is None
    assert shown.policy_loaded_us == T0
    assert shown.policy_files == ("policy.yaml", "servers.yaml")
    (first,) = show(path, event_id(1)[:-3].upper())
    assert first.outcome_time_us == T0 + 43_000


def test_a_prefix_may_mean_several_or_none(path: Path) -> None:
    assert len(show(path, event_id(1)[:8])) == 4
    for nothing in ("", "ffff", "%", "_", "x' OR '1'='1"):
        assert show(path, nothing) == ()


def test_it_reads_while_the_writer_writes(path: Path) -> None:
    waiting = Waiting()
    with writing(path, waiting) as writer:
        writer.decide(decision(9), waiting.done(9))
        waiting.wait(1)
        assert seqs(tail(path, 4, 20)) == [5]


def test_reading_writes_nothing(path: Path) -> None:
    before = path.read_bytes()
    tail(path, 0, 20)
    show(path, event_id(1))
    assert path.read_bytes() == before


@pytest.mark.parametrize("prepare", [None, Path.touch, Path.mkdir, lambda path: path.write_bytes(b"x" * 200)])
def test_what_is_no_audit_is_an_error_with_a_hint(tmp_path: Path, prepare: object) -> None:
    path = tmp_path / "a?b#c.db"
    if prepare is not None:
        prepare(path)  # type: ignore[operator]
    with pytest.raises(StoreError) as caught:
        tail(path, 0, 1)
    assert caught.value.hint
    assert len(os.listdir(tmp_path)) == (prepare is not None)


def test_odd_characters_in_the_path_are_no_uri(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory#c%41.db"
    plant(path, decision(1))
    assert seqs(tail(path, 0, 5)) == [1]


def test_an_old_audit_that_was_not_opened_by_this_version_yet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    make_old(path)
    before = path.read_bytes()
    calls = tail(path, 0, 20)
    assert seqs(calls) == [1, 2, 3]
    assert tuple(calls[0]) == CALLS_NAMES
    assert (calls[0]["path"], calls[0]["handle"], calls[0]["outcome"]) == (None, None, "ok")
    (shown,) = show(path, event_id(1))
    assert shown.call["direction"] is None
    assert path.read_bytes() == before


def test_findings_are_the_newest_ones_oldest_first_by_kind_and_time(path: Path) -> None:
    plant(path, *(finding(n) for n in range(4)), finding(9, kind=FindingKind.OWN_KEY, detail=None))
    assert [row["time_us"] - T0 for row in findings(path, 2)] == [3000, 9000]
    assert [row["kind"] for row in findings(path, 9, kind="own_key")] == ["own_key"]
    assert len(findings(path, 9, since_us=T0 + 2000)) == 3
    assert tuple(findings(path, 1)[0]) == FINDINGS_NAMES


def test_an_old_audit_has_no_findings(tmp_path: Path) -> None:
    make_old(tmp_path / "audit.db")
    assert findings(tmp_path / "audit.db", 5) == ()
