"""Predicates other than arguments, and what certainty and doubt do to a rule."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest

from callerid.model import Assurance, Caller, Principal
from callerid.policy.rules import Call, Effect, OnAgent, OnAssurance, OnHours, Rule, Weight

ZURICH = ZoneInfo("Europe/Zurich")
WEEK = frozenset(range(5))
NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


def call(*, agent: str | None = None, assurance: Assurance = Assurance.BEARER, now: datetime = NOW) -> Call:
    caller = Caller(
        principal=Principal("user:alice@corp.example", "local"),
        agent=agent,
        actors=(),
        evidence=(),
        assurance=assurance,
        assurance_name=assurance.name.lower(),
        credential_id="t",
    )
    return Call(caller, {}, now)


def at(text: str, zone: tzinfo = ZURICH) -> Call:
    return call(now=datetime.fromisoformat(text).replace(tzinfo=zone))


@pytest.mark.parametrize(
    ("start", "end", "when", "inside"),
    [
        (8 * 60, 18 * 60, "2026-11-23T08:00", True),
        (8 * 60, 18 * 60, "2026-11-23T07:59", False),
        (8 * 60, 18 * 60, "2026-11-23T17:59:59", True),
        (8 * 60, 18 * 60, "2026-11-23T18:00", False),
        (8 * 60, 18 * 60, "2026-11-22T10:00", False),
        (0, 24 * 60, "2026-11-27T23:59", True),
        (0, 24 * 60, "2026-11-28T00:00", False),
        (22 * 60, 6 * 60, "2026-11-23T23:00", True),
        (22 * 60, 6 * 60, "2026-11-24T05:59", True),
        (22 * 60, 6 * 60, "2026-11-24T06:00", False),
        (22 * 60, 6 * 60, "2026-11-23T05:00", False),
        (22 * 60, 6 * 60, "2026-11-28T05:00", True),
        (22 * 60, 6 * 60, "2026-11-28T23:00", False),
    ],
)
def test_hours_on_weekdays(start: int, end: int, when: str, inside: bool) -> None:
    assert OnHours(WEEK, start, end, ZURICH).holds(at(when), guard=False) is inside


def test_hours_are_read_in_the_zone_of_the_file() -> None:
    office = OnHours(WEEK, 8 * 60, 18 * 60, ZURICH)
    assert office.holds(at("2026-11-23T07:30", UTC), guard=False) is True
    assert office.holds(at("2026-07-20T06:30", UTC), guard=False) is True
    assert office.holds(at("2026-11-23T06:30", UTC), guard=False) is False
    assert office.seen(at("2026-11-23T07:30", UTC)) == "mon 08:30"


def test_a_time_without_a_zone_is_unknown() -> None:
    naive = call(now=datetime(2026, 11, 23, 9, 0))
    assert OnHours(WEEK, 0, 1440, ZURICH).holds(naive, guard=False) is None
    assert OnHours(WEEK, 0, 1440, ZURICH).seen(naive) is None


@pytest.mark.parametrize(
    ("least", "actual", "enough"),
    [
        (Assurance.BEARER, Assurance.CLAIMED, False),
        (Assurance.BEARER, Assurance.BEARER, True),
        (Assurance.IDP, Assurance.BEARER, False),
        (Assurance.IDP, Assurance.WORKLOAD, True),
        (Assurance.WORKLOAD, Assurance.IDP, True),
        (Assurance.BOUND, Assurance.IDP, False),
        (Assurance.IDP, Assurance.BOUND, True),
    ],
)
def test_assurance_is_a_minimum(least: Assurance, actual: Assurance, enough: bool) -> None:
    assert OnAssurance(least).holds(call(assurance=actual), guard=False) is enough


@pytest.mark.parametrize(("agent", "answer"), [("a", True), ("b", False), (None, None)])
def test_which_agent_it_is_can_be_unknown(agent: str | None, answer: bool | None) -> None:
    assert OnAgent(frozenset({"a"})).holds(call(agent=agent), guard=True) is answer


@pytest.mark.parametrize(
    ("effect", "answer", "strikes"),
    [
        (Effect.ALLOW, True, True),
        (Effect.ALLOW, None, False),
        (Effect.ALLOW, False, False),
        (Effect.DENY, True, True),
        (Effect.DENY, None, True),
        (Effect.DENY, False, False),
        (Effect.REQUIRE, True, False),
        (Effect.REQUIRE, None, True),
        (Effect.REQUIRE, False, True),
    ],
)
def test_grants_need_certainty_and_guards_only_doubt(
    effect: Effect, answer: bool | None, strikes: bool
) -> None:
    rule = Rule(
        index=0, id="r", effect=effect, weight=Weight.FIRM, who=None, servers=None, tools=None,
        except_tools=None, predicates=(), say=None, file="policy.yaml", line=1,
    )  # fmt: skip
    assert rule.strikes(answer) is strikes
    assert rule.is_guard is (effect is not Effect.ALLOW)
    assert rule.scope_only
