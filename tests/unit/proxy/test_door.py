"""The guarded door: whatever a hook does, it ends in a refusal."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from callerid.proxy.addon import CalleridAddon
from callerid.proxy.door import HOOKS, guarded


class Shut:
    def __init__(self) -> None:
        self.errors: list[str] = []

    def note(self, data: Any, error: BaseException) -> None:
        self.errors.append(type(error).__name__)

    @guarded(note)
    def hook(self, data: BaseException | None) -> None:
        if data is not None:
            raise data

    @guarded(note)
    async def slow_hook(self, data: BaseException | None) -> None:
        await asyncio.sleep(0)
        if data is not None:
            raise data

    def broken(self, data: Any, error: BaseException) -> None:
        raise ValueError("shutting failed as well")

    @guarded(broken)
    def worse(self, data: Any) -> None:
        raise KeyError("x")


@pytest.mark.parametrize(
    "error", [ValueError(), RecursionError(), MemoryError(), UnicodeError(), AssertionError()]
)
async def test_what_a_hook_raises_shuts_the_door(error: Exception) -> None:
    shut = Shut()
    shut.hook(error)
    await shut.slow_hook(error)
    assert shut.errors == [type(error).__name__] * 2


async def test_an_exit_shuts_the_door_and_goes_on() -> None:
    shut = Shut()
    with pytest.raises(SystemExit):
        shut.hook(SystemExit(3))
    with pytest.raises(KeyboardInterrupt):
        shut.hook(KeyboardInterrupt())
    assert shut.errors == ["SystemExit", "KeyboardInterrupt"]


async def test_a_cancelled_hook_stays_cancelled() -> None:
    shut = Shut()
    with pytest.raises(asyncio.CancelledError):
        await shut.slow_hook(asyncio.CancelledError())
    assert shut.errors == []


async def test_a_good_hook_leaves_the_door_alone() -> None:
    shut = Shut()
    shut.hook(None)
    await shut.slow_hook(None)
    assert shut.errors == []


async def test_a_failure_of_the_door_itself_does_not_escape_into_mitmproxy() -> None:
    Shut().worse(None)


@pytest.mark.parametrize("name", [name for name in HOOKS if hasattr(CalleridAddon, name)])
def test_every_hook_of_the_addon_goes_through_the_door(name: str) -> None:
    assert getattr(getattr(CalleridAddon, name), "__guarded__", False)


def test_the_addon_has_no_hook_beside_the_listed_ones() -> None:
    from mitmproxy.hooks import all_hooks

    lifecycle = {"load", "configure", "running", "done"}
    found = {name for name in all_hooks if callable(getattr(CalleridAddon, name, None))}
    assert found - lifecycle <= set(HOOKS)
