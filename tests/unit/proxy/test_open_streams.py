"""Which open streams are looked at in a turn: none that nothing can have happened to, and all others."""

from __future__ import annotations

import gc
import math
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.test import tflow

from callerid.proxy.calls import Stamp, Streams

NOW = 1_000_000.0
STAMP = (1, 1, 1, 0)


def stream(expires_us: int | None = None, touched: float = 50.0, finished: bool = False) -> Any:
    return SimpleNamespace(
        caller=SimpleNamespace(expires_us=expires_us), touched=touched, finished=finished, judged=STAMP
    )


@pytest.fixture
def opened() -> tuple[Streams, list[Any], list[Any]]:
    """Three streams that were looked at once. The flows are held, as mitmproxy holds them."""
    streams, flows = Streams(), [tflow.tflow() for _ in range(3)]
    calls = [stream(), stream(expires_us=int(NOW) + 100), stream(touched=40.0)]
    for flow, call in zip(flows, calls, strict=True):
        streams.add(flow, call)
    assert len(streams.due(STAMP, NOW, -math.inf)) == 3
    return streams, flows, calls


@pytest.mark.parametrize(
    ("stamp", "now_us", "silent_since", "count"),
    [
        (STAMP, NOW + 99, 39.0, 0),
        (None, NOW, -math.inf, 3),
        ((1, 2, 1, 0), NOW, -math.inf, 3),
        ((2, 1, 1, 0), NOW, -math.inf, 3),
        ((1, 1, 2, 0), NOW, -math.inf, 3),
        ((1, 1, 1, 1), NOW, -math.inf, 3),
        (STAMP, NOW + 100, -math.inf, 3),
        (STAMP, NOW, 41.0, 3),
    ],
    ids=[
        "nothing happened",
        "the registry cannot be read",
        "somebody was revoked",
        "the rules are new",
        "an issuer has new keys",
        "a revocation list is too old",
        "one has expired",
        "one has fallen silent",
    ],
)
def test_all_are_looked_at_when_anything_can_have_happened(
    opened: tuple[Streams, list[Any], list[Any]],
    stamp: Stamp | None,
    now_us: float,
    silent_since: float,
    count: int,
) -> None:
    assert len(opened[0].due(stamp, now_us, silent_since)) == count


def test_a_new_one_is_looked_at_alone_and_once(opened: tuple[Streams, list[Any], list[Any]]) -> None:
    streams, fresh = opened[0], tflow.tflow()
    streams.add(fresh, stream())
    assert [flow for flow, _ in streams.due(STAMP, NOW, -math.inf)] == [fresh]
    assert streams.due(STAMP, NOW, -math.inf) == []


def test_a_new_one_that_expires_first_is_waited_for(opened: tuple[Streams, list[Any], list[Any]]) -> None:
    streams, fresh = opened[0], tflow.tflow()
    streams.add(fresh, stream(expires_us=int(NOW) + 10))
    streams.due(STAMP, NOW, -math.inf)
    assert len(streams.due(STAMP, NOW + 10, -math.inf)) == 4


def test_one_whose_judgement_failed_comes_again(opened: tuple[Streams, list[Any], list[Any]]) -> None:
    streams, flows, calls = opened
    streams.add(flows[1], calls[1])
    assert [flow for flow, _ in streams.due(STAMP, NOW, -math.inf)] == [flows[1]]


def test_a_finished_one_asks_for_no_more_turns(opened: tuple[Streams, list[Any], list[Any]]) -> None:
    streams, _, calls = opened
    calls[1].finished = True
    assert len(streams.due(STAMP, NOW + 200, -math.inf)) == 3
    assert streams.due(STAMP, NOW + 200, -math.inf) == []


def test_one_that_ended_is_no_longer_there(opened: tuple[Streams, list[Any], list[Any]]) -> None:
    streams, flows, _ = opened
    streams.remove(flows[0])
    assert flows[0] not in streams
    assert len(streams.all()) == 2


def test_none_is_kept_alive(opened: tuple[Streams, list[Any], list[Any]]) -> None:
    streams, flows, _ = opened
    del flows[:]
    gc.collect()  # a flow of the test tools holds itself
    assert streams.all() == []


def test_all_are_looked_at_as_long_as_the_registry_cannot_be_read(
    opened: tuple[Streams, list[Any], list[Any]],
) -> None:
    assert [len(opened[0].due(None, NOW, -math.inf)) for _ in range(3)] == [3, 3, 3]
