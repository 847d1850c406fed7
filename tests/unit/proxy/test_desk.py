"""The parts of the desk that need no proxy: which requests are for it, what is asked, and who writes."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.errors import ConfigError, StoreError
from callerid.identity.registry import Registry
from callerid.model import Reason
from callerid.proxy import clerk as clerks
from callerid.proxy.clerk import Clerk
from callerid.proxy.derive import PER_MINUTE, Ask, Derivation, Refusal, read_ask
from callerid.proxy.desk import is_for_desk
from callerid.proxy.destination import is_desk

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
