"""Rights along a chain of agents are the intersection: naming one more never gives more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callerid.config import Agent, Identities
from callerid.identity.authority import Authority
from callerid.identity.jwks import JwksStore
from callerid.identity.jwt import MAX_ACTORS
from callerid.identity.names import glob_match
from callerid.identity.presented import Presented
from callerid.identity.registry import Registry
from callerid.model import Caller, Reason, Rejected
from tests.unit.identity import made

NAMES = ("orchestrator", "researcher", "writer", "checker", "shadow")
SERVERS = ("github", "things", "payroll")
TOOLS = ("get_issue", "drop_table", "read_page")
EXAMPLES = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

ceilings = st.none() | st.lists(st.sampled_from(SERVERS), max_size=2).map(tuple)
scopes = st.none() | st.lists(st.sampled_from([*TOOLS, "get_*", "*", "read_*"]), max_size=2).map(tuple)
owners = st.sampled_from([made.ALICE, made.BOB])


@st.composite
def registered(draw: st.DrawFn) -> dict[str, Agent]:
    """Some of the names as agents, with ceilings of their own."""
    found = draw(st.lists(st.sampled_from(NAMES[:4]), unique=True, max_size=4))
    return {
        name: Agent(
            name=name, kind="assistant", owners=(draw(owners),), servers=draw(ceilings), tools=draw(scopes)
        )
        for name in found
    }


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[tuple[Registry, Path]]:
    registry = Registry.open(tmp_path / "registry.db")
    (tmp_path / "jwks.json").write_bytes(made.jwks())
    yield registry, tmp_path / "jwks.json"
    registry.close()


def act(chain: tuple[str, ...]) -> dict[str, object]:
    """RFC 8693 section 4.1: the current actor outermost."""
    nested: dict[str, object] = {}
    for name in reversed(chain):
        nested = {"act": {"sub": name, **nested}}
    return nested


def reaches(answer: Caller | Rejected) -> set[tuple[str, str]]:
    """All that the ceilings leave, if the rules gave everything."""
    if isinstance(answer, Rejected):
        return set()
    return {
        (server, tool)
        for server in SERVERS
        for tool in TOOLS
        if all(
            (ceiling.servers is None or server in ceiling.servers)
            and (ceiling.tools is None or any(glob_match(pattern, tool) for pattern in ceiling.tools))
            for ceiling in answer.ceilings
        )
    }


@given(
    agents=registered(),
    chain=st.lists(st.sampled_from(NAMES), max_size=MAX_ACTORS + 2).map(tuple),
    added=st.sampled_from(NAMES),
    at=st.integers(0, MAX_ACTORS),
)
@EXAMPLES
def test_one_more_actor_never_widens(
    parts: tuple[Registry, Path], agents: dict[str, Agent], chain: tuple[str, ...], added: str, at: int
) -> None:
    registry, keys = parts
    issuer = made.issuer(jwks_file=keys, claims={"principal": "email"})
    store = JwksStore((issuer,))
    store.refresh(made.NOW)
    authority = Authority(Identities(issuers=(issuer,), agents=agents), registry, store, ())

    def ask(actors: tuple[str, ...]) -> Caller | Rejected:
        token = made.sign(made.claims(**act(actors)))
        return authority.identify(Presented(authorization=(made.bearer(token),)), now=made.NOW)

    longer = (*chain[:at], added, *chain[at:])
    before, after = ask(chain), ask(longer)
    if len(longer) > MAX_ACTORS:
        assert isinstance(after, Rejected)
        assert after.reason is Reason.JWT_INVALID
    if at > 0 or isinstance(after, Rejected):
        assert reaches(after) <= reaches(before), "an earlier actor only narrows"
    alone = reaches(ask((added,)) if added in agents else ask(()))
    assert reaches(after) <= reaches(ask(()))
    if added in agents:
        assert reaches(after) <= alone, "nobody in the chain exceeds the one that was added"
    if isinstance(after, Caller):
        assert after.actors == longer
        for name in set(longer) & set(agents):
            assert reaches(after) <= reaches(ask((name,)))
