"""The parts of the desk that need no proxy: which requests are for it, what is asked, and who writes."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.errors import ConfigError, StoreError
from callerid.identity.narrowing import Scope
from callerid.identity.registry import Registry
from callerid.identity.rows import TokenRow
from callerid.identity.tokens import digest
from callerid.model import EvidenceKind, Reason
from callerid.proxy import clerk as clerks
from callerid.proxy.clerk import Clerk
from callerid.proxy.derive import KEPT_US, PER_MINUTE, TIDY_US, Ask, Derivation, Refusal, read_ask
from callerid.proxy.desk import is_for_desk
from callerid.proxy.destination import is_desk
from tests.unit.identity.made import ALICE, DAY_US, NOW_US, enter, token

MINUTE_US = 60_000_000


@pytest.mark.parametrize(
    "host", ["callerid.internal", "CALLERID.internal", "callerid.internal.", " callerid.internal"]
)
def test_our_own_name_is_known_however_it_is_spelled(host: str) -> None:
    assert is_desk(host)


@pytest.mark.parametrize(
    "host", ["callerid.internal.example", "xcallerid.internal", "callerid", "", "callerid.internal:80"]
)
def test_other_names_are_not_ours(host: str) -> None:
    assert not is_desk(host)


@pytest.mark.parametrize(
    ("host", "said", "sni", "ours"),
    [
        ("callerid.internal", None, None, True),
        ("callerid.internal", "elsewhere.example", None, True),
        ("elsewhere.example", "callerid.internal", None, True),
        ("elsewhere.example", "CallerID.Internal:8443", None, True),
        ("elsewhere.example", "elsewhere.example", "callerid.internal", True),
        ("elsewhere.example", "elsewhere.example", "elsewhere.example", False),
        ("elsewhere.example", "", None, False),
    ],
)
def test_any_name_of_ours_brings_a_request_to_the_desk(
    host: str, said: str | None, sni: str | None, ours: bool
) -> None:
    facts: Any = SimpleNamespace(host=host, host_header=said, sni=sni, scheme="http")
    assert is_for_desk(facts) is ours


# -- what is asked -----------------------------------------------------------------------------------


def test_an_ask_is_read_as_it_was_written() -> None:
    asked = {"agent": "sub", "ttl": "15m", "servers": ["wiki"], "tools": ["get_*"], "networks": ["::/0"]}
    found = read_ask(asked)
    assert isinstance(found, Ask)
    assert found.seconds == 900
    assert found.plain() == asked
    empty = read_ask({})
    assert isinstance(empty, Ask)
    assert (empty.seconds, empty.plain()) == (None, {})


SECRET = token(7)


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"agent": SECRET}, id="as the agent"),
        pytest.param({"servers": [f"x-{SECRET}"]}, id="in the name of a server"),
        pytest.param({"tools": ["get_x", SECRET]}, id="as a tool"),
        pytest.param({"networks": [SECRET]}, id="as a network"),
        pytest.param({"ttl": SECRET}, id="as the time"),
        pytest.param({SECRET: 1}, id="as a member"),
        pytest.param({"x": {"y": [SECRET]}}, id="deep inside"),
    ],
)
def test_a_token_in_what_is_asked_is_refused_as_such(asked: dict[str, Any]) -> None:
    """It would be stored, and told to servers as the agent's name."""
    found = read_ask(asked)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.TOKEN_IN_REQUEST
    assert SECRET not in found.detail


def test_calls_of_an_api_can_be_asked_for() -> None:
    found = read_ask({"tools": ["http:GET /v1/**"]})
    assert isinstance(found, Ask)
    assert found.scope.tools == ("http:GET /v1/**",)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["agent", "ttl", "servers", "tools", "networks", "x"]), VALUES) | VALUES
)
def test_anything_is_read_or_refused_and_nothing_is_guessed(value: Any) -> None:
    found = read_ask(value)
    if isinstance(found, Refusal):
        assert found.reason is Reason.MALFORMED_MESSAGE
        return
    assert set(value) <= {"agent", "ttl", "servers", "tools", "networks"}
    for name in ("servers", "tools", "networks"):
        assert bool(getattr(found.scope, name)) is (value.get(name) is not None)


def test_nobody_asks_too_often_and_a_clock_that_goes_back_locks_nobody_out() -> None:
    derivation = Derivation(SimpleNamespace(), str)  # type: ignore[arg-type]
    now = 10 * MINUTE_US
    asked = [derivation._is_too_often("user:a", now + second) for second in range(PER_MINUTE + 5)]
    assert asked == [False] * PER_MINUTE + [True] * 5
    assert not derivation._is_too_often("user:b", now)
    assert not derivation._is_too_often("user:a", now + 2 * MINUTE_US)
    assert not derivation._is_too_often("user:a", now - 5 * MINUTE_US)


# -- who writes --------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "registry.db"
    Registry.open(made).close()
    return made


@pytest.fixture
def clerk(path: Path) -> Iterator[Clerk]:
    made = Clerk(path)
    yield made
    made.close()
    made.close()


def test_work_is_done_in_a_thread_of_its_own(clerk: Clerk) -> None:
    async def ask() -> tuple[int, bool]:
        here = threading.get_ident()
        there = await clerk.do(lambda registry: threading.get_ident())
        fresh = await clerk.do(lambda registry: registry.block("user:x", now_us=1, by="t"))
        return here - there, fresh

    difference, fresh = asyncio.run(ask())
    assert difference != 0
    assert fresh


def test_a_fault_is_told_and_the_next_work_has_a_fresh_registry(clerk: Clerk, path: Path) -> None:
    tool = sqlite3.connect(path, isolation_level=None)

    def block(registry: Registry) -> bool:
        return registry.block("user:x", now_us=1, by="t")

    def refuse(registry: Registry) -> bool:
        raise ConfigError("not for you")

    async def ask() -> bool:
        tool.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError):
            await clerk.do(block)
        tool.execute("ROLLBACK")
        with pytest.raises(ConfigError):
            await clerk.do(refuse)
        return await clerk.do(block)

    assert asyncio.run(ask())
    tool.close()


def test_only_a_few_may_wait_and_none_for_long(clerk: Clerk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clerks, "TIMEOUT", 0.05)
    gate = threading.Event()

    async def ask() -> None:
        waiting = [
            asyncio.ensure_future(clerk.do(lambda registry: gate.wait(10))) for _ in range(clerks.QUEUE)
        ]
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="too many"):
            await clerk.do(lambda registry: True)
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(one, StoreError) for one in found)
        gate.set()

    asyncio.run(ask())


def test_a_registry_that_is_gone_is_a_fault_and_not_made_anew(tmp_path: Path) -> None:
    """A fresh one would have forgotten who is blocked."""
    clerk = Clerk(tmp_path / "registry.db")
    with pytest.raises(StoreError, match="gone"):
        asyncio.run(clerk.do(lambda registry: registry.blocked()))
    clerk.close()
    assert list(tmp_path.iterdir()) == []


# -- what is taken back, and what is forgotten ----------------------------------------------------------


def derivation_of(clerk: Clerk, path: Path) -> tuple[Derivation, str, Callable[[int], Awaitable[Any]]]:
    registry = Registry.open(path)
    parent = enter(registry, 1)
    registry.close()
    seeds = iter(range(2, 99))
    derivation = Derivation(clerk, lambda: token(next(seeds)))
    caller: Any = SimpleNamespace(
        principal=SimpleNamespace(subject=ALICE),
        evidence=(SimpleNamespace(kind=EvidenceKind.SCOPED_TOKEN, credential_id=parent.id),),
        agent=None, actors=(), expires_us=NOW_US + DAY_US,
    )  # fmt: skip
    rooms: Any = SimpleNamespace(
        rules=SimpleNamespace(identities=SimpleNamespace(token_max_ttl=86_400)),
        authority=SimpleNamespace(refuses_agent=lambda *_: None),
    )

    def make(now_us: int) -> Awaitable[Any]:
        facts: Any = SimpleNamespace(time_us=now_us)
        return derivation.make(Ask(scope=Scope(), seconds=60), facts, rooms, caller)

    return derivation, parent.id, make


def rows_of(path: Path) -> list[TokenRow]:
    registry = Registry.open(path)
    try:
        return [row for row in registry.tokens() if row.parent is not None]
    finally:
        registry.close()


def test_a_token_that_was_entered_too_late_is_revoked(
    clerk: Clerk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, make = derivation_of(clerk, path)
    gate = threading.Event()

    async def ask() -> None:
        slow = asyncio.ensure_future(clerk.do(lambda registry: gate.wait(10)))
        await asyncio.sleep(0)
        monkeypatch.setattr(clerks, "TIMEOUT", 0.05)
        with pytest.raises(StoreError, match="within"):
            await make(NOW_US)
        gate.set()
        await slow
        monkeypatch.setattr(clerks, "TIMEOUT", 5.0)
        await clerk.do(lambda registry: None)  # after what was sent

    asyncio.run(ask())
    [row] = rows_of(path)
    assert (row.revoked_us, row.revoked_by) == (NOW_US, "callerid")


def test_where_nothing_was_begun_nothing_is_taken_back(clerk: Clerk, path: Path) -> None:
    _, _, make = derivation_of(clerk, path)
    gate = threading.Event()

    async def ask() -> None:
        waiting = [
            asyncio.ensure_future(clerk.do(lambda registry: gate.wait(10))) for _ in range(clerks.QUEUE)
        ]
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="too many"):
            await make(NOW_US)
        assert clerk._waiting == clerks.QUEUE
        gate.set()
        await asyncio.gather(*waiting)

    asyncio.run(ask())


def test_dead_tokens_are_forgotten_when_one_is_derived_and_once_an_hour(clerk: Clerk, path: Path) -> None:
    _, parent, make = derivation_of(clerk, path)
    registry = Registry.open(path)
    ended = NOW_US - KEPT_US - 1

    def enter_dead(seed: int) -> None:
        made = registry.derive(
            parent, Scope(), token_digest=digest(token(seed)), created_us=NOW_US, expires_us=NOW_US + 1,
            created_by="test",
        )  # fmt: skip
        with sqlite3.connect(path) as tool:
            tool.execute("UPDATE tokens SET expires_us = ? WHERE id = ?", (ended, made.id))
        tool.close()

    async def derive(now_us: int) -> int:
        await make(now_us)
        await clerk.do(lambda registry: None)
        return sum(row.expires_us == ended for row in rows_of(path))

    enter_dead(90)
    assert asyncio.run(derive(NOW_US)) == 0
    enter_dead(91)
    assert asyncio.run(derive(NOW_US + TIDY_US - 1)) == 1
    assert asyncio.run(derive(NOW_US + TIDY_US)) == 0
    registry.close()


def test_closing_does_not_wait_for_ever(
    clerk: Clerk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()

    async def ask() -> None:
        clerk.send(lambda registry: gate.wait(60))
        await asyncio.sleep(0)

    asyncio.run(ask())
    monkeypatch.setattr(clerks, "TIMEOUT", 0.05)
    try:
        clerk.close()
        assert "left at that" in caplog.text
        assert not gate.is_set()
    finally:
        gate.set()
        clerk._pool.shutdown(wait=True)


def test_what_cannot_be_taken_back_is_told_and_raises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clerk = Clerk(tmp_path / "registry.db")

    async def send() -> None:
        Derivation(clerk, str).take_back("t_0123456789ab", NOW_US)
        with pytest.raises(StoreError):
            await clerk.do(lambda registry: None)
        await asyncio.sleep(0)

    asyncio.run(send())
    assert "left undone" in caplog.text
    clerk.close()

    async def late() -> None:
        clerk.send(lambda registry: None)

    asyncio.run(late())
