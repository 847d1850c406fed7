"""The state machine of refreshing, with a clock that the test turns."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from callerid.credentials.timetable import DOUBT_EVERY, LAST_RETRY, SOONEST, Pace, Timetable

PACE = Pace(refresh=300.0, stale_for=600.0)
NEW = Timetable(due=0.0)
CHANCE = st.floats(0.0, 0.999)


def test_a_new_secret_is_fetched_at_once_and_is_not_usable_before() -> None:
    assert NEW.wants(0.0)
    assert not NEW.usable(0.0, PACE)


def test_one_flight_at_a_time() -> None:
    flying = NEW.begun()
    assert not flying.wants(1e9)
    hung = flying.failed(5.0, 0.5, hangs=True)
    assert not hung.wants(1e9)
    assert hung.landed().wants(hung.due)


@pytest.mark.parametrize(
    ("life", "by_life", "least", "most"),
    [
        pytest.param(None, False, 270.0, 300.0, id="without an end, at the refresh interval"),
        pytest.param(None, True, 270.0, 300.0, id="a token without an end, too"),
        pytest.param(100.0, False, 72.0, 80.0, id="at 80 percent of a short life"),
        pytest.param(100000.0, False, 270.0, 300.0, id="a long life does not make it later"),
        pytest.param(3600.0, True, 2592.0, 2880.0, id="a token goes by its life alone"),
        pytest.param(0.001, False, SOONEST, SOONEST, id="an absurd life makes no storm"),
    ],
)
@settings(max_examples=30)
@given(chance=CHANCE)
def test_when_a_good_value_is_renewed(
    life: float | None, by_life: bool, least: float, most: float, chance: float
) -> None:
    after = NEW.begun().succeeded(1000.0, life, replace(PACE, by_life=by_life), chance)
    assert least - 1e-6 <= after.due - 1000.0 <= most + 1e-6
    assert not after.flying


@given(chances=st.lists(CHANCE, min_size=12, max_size=12))
def test_failures_are_tried_again_ever_more_slowly_up_to_a_minute(chances: list[float]) -> None:
    table, now = NEW, 0.0
    for n, chance in enumerate(chances):
        table = table.begun().failed(now, chance)
        pause = table.due - now
        whole = min(LAST_RETRY, 2.0**n)
        assert whole / 2 - 1e-6 <= pause <= whole + 1e-6
        now = table.due
    assert pause >= LAST_RETRY / 2 - 1e-6


def test_the_last_good_value_outlives_a_failing_source_for_a_while() -> None:
    table = NEW.begun().succeeded(0.0, None, PACE, 0.5)
    assert table.usable(299.0, PACE)
    ill = table.begun().failed(300.0, 0.5)
    assert ill.usable(300.0, PACE)
    again = ill.begun().failed(600.0, 0.5)
    assert again.usable(899.9, PACE)
    assert not again.usable(900.0, PACE)
    assert again.begun().succeeded(1000.0, None, PACE, 0.5).usable(1000.0, PACE)


def test_nothing_outlives_its_own_end() -> None:
    table = NEW.begun().succeeded(0.0, 50.0, PACE, 0.5)
    assert table.usable(49.9, PACE)
    assert not table.usable(50.0, PACE)
    assert not table.begun().failed(45.0, 0.5).usable(50.0, PACE)


def test_a_doubt_brings_one_early_fetch_and_the_next_only_later() -> None:
    table = NEW.begun().succeeded(0.0, None, PACE, 0.0)
    doubted = table.doubted(10.0)
    assert doubted.wants(10.0)
    fetched = doubted.begun().succeeded(10.0, None, PACE, 0.0)
    assert fetched.doubted(11.0) is fetched
    assert fetched.doubted(10.0 + DOUBT_EVERY).wants(10.0 + DOUBT_EVERY)


def test_a_doubt_does_not_hurry_a_source_that_fails() -> None:
    ill = NEW.begun().failed(0.0, 0.5)
    assert ill.doubted(0.0) is ill


class Refreshing(RuleBasedStateMachine):
    """Any interleaving of time, fetches that succeed, fail or hang, and doubts: the bounds hold."""

    def __init__(self) -> None:
        super().__init__()
        self.table = NEW
        self.now = 0.0
        self.starts: list[float] = []
        self.good_until = -1.0
        self.failing_since: float | None = None

    @rule(seconds=st.floats(0.01, 400.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.table.wants(self.now))
    @rule()
    def begin(self) -> None:
        self.table = self.table.begun()
        self.starts.append(self.now)

    @precondition(lambda self: self.table.flying)
    @rule(life=st.none() | st.floats(0.5, 5000.0), chance=CHANCE)
    def arrive(self, life: float | None, chance: float) -> None:
        self.table = self.table.succeeded(self.now, life, PACE, chance)
        self.good_until = float("inf") if life is None else self.now + life
        self.failing_since = None

    @precondition(lambda self: self.table.flying)
    @rule(chance=CHANCE, hangs=st.booleans())
    def fail(self, chance: float, hangs: bool) -> None:
        self.table = self.table.failed(self.now, chance, hangs=hangs)
        if self.failing_since is None:
            self.failing_since = self.now
        assert self.table.flying is hangs

    @precondition(lambda self: self.table.flying)
    @rule()
    def a_hung_one_ends(self) -> None:
        self.table = self.table.landed()

    @rule()
    def doubt(self) -> None:
        self.table = self.table.doubted(self.now)

    @invariant()
    def it_is_usable_exactly_as_long_as_the_last_good_value_may_be(self) -> None:
        stale = self.failing_since is not None and self.now - self.failing_since >= PACE.stale_for
        assert self.table.usable(self.now, PACE) is (self.now < self.good_until and not stale)

    @invariant()
    def it_is_never_put_off_for_longer_than_it_may_be(self) -> None:
        assert self.table.due - self.now <= max(PACE.refresh, LAST_RETRY) + 1e-6


class TestRefreshing(Refreshing.TestCase):  # type: ignore[misc, name-defined]
    settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
