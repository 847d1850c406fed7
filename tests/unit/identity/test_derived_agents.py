"""Whatever is derived, every agent of its parent is in the child's chain, and every ceiling stays on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.config import Agent
from callerid.errors import ConfigError
from callerid.identity.narrowing import MAX_ACTORS, Scope, actors_below
from callerid.identity.rows import TokenRow
from callerid.identity.tokens import digest
from callerid.model import Reason
from tests.unit.identity import made
from tests.unit.identity.made import ALICE, DAY_US, NOW_US, bearer
from tests.unit.identity.test_authority import GOOD, World, good, reason, t

HOUR_US = DAY_US // 24
NAMES = st.sampled_from(["claude-code", "svc", "researcher", "reader", "planner", "x"])


@given(st.none() | NAMES, st.lists(NAMES, max_size=MAX_ACTORS).map(tuple), st.none() | NAMES)
@settings(max_examples=200, deadline=None)
def test_no_agent_is_lost(agent: str | None, actors: tuple[str, ...], asked: str | None) -> None:
    try:
        chain = actors_below(agent, actors, asked)
    except ConfigError:
        assert len({*actors, *([agent] if agent else [])}) >= 1
        assert asked is not None
        assert len(actors) + (agent is not None and agent not in actors) + 1 > MAX_ACTORS
        return
    child = asked if asked is not None else agent
    assert {*actors, *([agent] if agent else [])} <= {*chain, child}
    assert len(chain) <= MAX_ACTORS
    if asked not in (None, agent):
        assert chain[0] == asked
        assert set(chain) >= {*actors, *([agent] if agent else [])}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made_world = World(tmp_path)
    owners = ("group:engineering",)
    made_world.identities = replace(
        made_world.identities,
        agents={
            "claude-code": Agent(name="claude-code", kind="assistant", owners=owners, tools=("read_*",)),
            "svc": Agent(name="svc", kind="assistant", owners=owners, servers=("github",)),
            "researcher": Agent(name="researcher", kind="assistant", owners=owners),
        },
    )
    yield made_world
    made_world.registry.close()


def under(world: World, seed: int, parent: str, agent: str | None, **more: Any) -> TokenRow:
    return world.registry.derive(
        parent, Scope(agent=agent), token_digest=digest(made.token(seed)), created_us=NOW_US,
        expires_us=NOW_US + HOUR_US, created_by=ALICE, **more,
    )  # fmt: skip


def bound(world: World, seed: int, asked: str, agent: str, actors: tuple[str, ...]) -> TokenRow:
    row = TokenRow(
        id="", principal=ALICE, agent=asked, parent=None, servers=None, tools=None, created_us=NOW_US,
        created_by=ALICE, expires_us=NOW_US + HOUR_US, actors=actors_below(agent, actors, asked),
    )  # fmt: skip
    return world.registry.derive_from_evidence(row, token_digest=digest(made.token(seed)))


def origins(world: World, seed: int) -> set[str]:
    return {one.origin for one in good(world(authorization=(bearer(made.token(seed)),))).ceilings}


def test_the_agent_that_a_jwt_names_beside_its_act_stays_on_what_is_derived(world: World) -> None:
    row = bound(world, 61, "researcher", "claude-code", ("svc",))
    assert row.actors == ("researcher", "claude-code", "svc")
    assert origins(world, 61) == {"agent:claude-code", "agent:svc"}
    assert row.id in {one.id for one in world.registry.held("agent:claude-code")}
    world.registry.block("agent:claude-code", now_us=NOW_US, by="ops")
    assert reason(world(authorization=(bearer(made.token(61)),))) is Reason.PRINCIPAL_BLOCKED


def test_a_second_step_keeps_it_where_the_first_added_no_link(world: World) -> None:
    row = TokenRow(
        id="", principal=ALICE, agent="claude-code", parent=None, servers=None, tools=None,
        created_us=NOW_US, created_by=ALICE, expires_us=NOW_US + HOUR_US, actors=("svc",),
    )  # fmt: skip
    first = world.registry.derive_from_evidence(row, token_digest=digest(made.token(62)))
    second = under(world, 63, first.id, "researcher")
    assert second.actors == ("researcher", "claude-code", "svc")
    assert origins(world, 63) == origins(world, 62) == {"agent:claude-code", "agent:svc"}


@pytest.mark.parametrize(
    ("asked", "agent", "actors"),
    [
        pytest.param(None, "claude-code", ("svc",), id="no agent is asked for"),
        pytest.param("researcher", "researcher", ("researcher", "claude-code", "svc"), id="another one is"),
    ],
)
def test_the_child_of_a_token_without_an_agent_has_the_agent_of_the_jwt_beside_it(
    world: World, asked: str | None, agent: str, actors: tuple[str, ...]
) -> None:
    row = under(world, 64, t(GOOD), asked, acting="claude-code", actors=("svc",))
    assert (row.agent, row.actors) == (agent, actors)
    assert origins(world, 64) == {"agent:claude-code", "agent:svc"}


def test_the_agent_counts_in_the_depth_of_the_chain() -> None:
    assert actors_below("a", ("b", "c", "d"), "x") == ("x", "a", "b", "c", "d")
    with pytest.raises(ConfigError):
        actors_below("a", ("b", "c", "d", "e"), "x")
