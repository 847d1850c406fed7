"""``Runtime.record``: durable, refused or too late; never a hang (law 1)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from callerid.errors import StoreError
from callerid.home import Home
from callerid.model import DecisionRecord, Reason, Verdict
from callerid.proxy import recording as module
from callerid.proxy.runtime import Runtime

PATIENCE = 20.0
"""Seconds a test waits for something that must happen; never the measure of anything."""


class Writer:
    """Keeps who waits; the test answers for it."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def decide(self, record: DecisionRecord, done: Any) -> None:
        self.waiting.append(done)


def a_record() -> DecisionRecord:
    return DecisionRecord(
        event_id="1", time_us=1, verdict=Verdict.ALLOW, reason=Reason.GRANTED, method="ping", server="s",
        upstream="s:443",
    )  # fmt: skip


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setattr(module, "RECORD_TIMEOUT", 0.02)
    made = Runtime(Home(tmp_path / "home"), tmp_path)
    made.writer = Writer()  # type: ignore[assignment]
    return made


def waiting(runtime: Runtime) -> list[Any]:
    return runtime.writer.waiting  # type: ignore[attr-defined, no-any-return]


async def test_all_rows_must_be_durable(runtime: Runtime) -> None:
    task = asyncio.ensure_future(runtime.record((a_record(), a_record())))
    await asyncio.sleep(0)
    first, second = waiting(runtime)
    first(None)
    await asyncio.sleep(0)
    assert not task.done()
    second(None)
    await task


async def test_one_row_that_fails_is_enough(runtime: Runtime) -> None:
    task = asyncio.ensure_future(runtime.record((a_record(), a_record())))
    await asyncio.sleep(0)
    waiting(runtime)[1](StoreError("disk full"))
    with pytest.raises(StoreError, match="disk full"):
        await task


async def test_what_is_not_durable_in_time_is_an_error_each_time(runtime: Runtime) -> None:
    for _ in range(3):
        with pytest.raises(StoreError, match="not durable within"):
            await asyncio.wait_for(runtime.record((a_record(),)), PATIENCE)


async def test_those_who_come_while_others_wait_are_bounded_too(runtime: Runtime) -> None:
    early = asyncio.ensure_future(runtime.record((a_record(),)))
    await asyncio.sleep(0)
    waiting(runtime)[0](None)
    late = [asyncio.ensure_future(runtime.record((a_record(),))) for _ in range(3)]
    await early
    ended = await asyncio.wait_for(asyncio.gather(*late, return_exceptions=True), PATIENCE)
    assert [type(one) for one in ended] == [StoreError] * 3


async def test_a_timer_that_failed_is_set_anew(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(loop: asyncio.AbstractEventLoop) -> None:
        raise RuntimeError

    monkeypatch.setattr(runtime._recording, "_expire", broken)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    stuck = asyncio.ensure_future(runtime.record((a_record(),)))
    await asyncio.sleep(0.05)
    monkeypatch.undo()
    monkeypatch.setattr(module, "RECORD_TIMEOUT", 0.02)
    with pytest.raises(StoreError):
        await asyncio.wait_for(runtime.record((a_record(),)), PATIENCE)
    with pytest.raises(StoreError):
        await asyncio.wait_for(stuck, PATIENCE)


async def test_an_answer_after_the_time_changes_nothing(runtime: Runtime) -> None:
    with pytest.raises(StoreError):
        await asyncio.wait_for(runtime.record((a_record(),)), PATIENCE)
    waiting(runtime)[0](None)
