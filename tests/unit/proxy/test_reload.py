"""A reload takes its time: what changes meanwhile is not lost by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import connection
from mitmproxy.test import tflow

from callerid.credentials.binding import Destination
from callerid.credentials.inject import Injection
from callerid.errors import StoreError
from callerid.home import Home
from callerid.identity.jwks import JwksStore
from callerid.model import Reason, Verdict
from callerid.proxy import addon as module
from callerid.proxy import translate
from callerid.proxy.addon import CalleridAddon
from callerid.proxy.calls import ClientState
from callerid.proxy.facts import Ruling
from callerid.proxy.open_streams import stamp_of
from callerid.proxy.runtime import Runtime
from tests.unit.credentials.helpers import write_secret
from tests.unit.proxy.test_obtaining import Store, pending, record

FIRST, SECOND, THIRD = "first-secret-4711", "second-secret-4712", "third-secret-47123"
PLACE = Destination(
    scheme="https", host="things.corp.example", port=443, path="/mcp", method="POST", tls_verified=True
)


def exchange(path: Path, value: str) -> None:
    path.unlink(missing_ok=True)
    write_secret(path, value)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return write_secret(tmp_path / "secret", FIRST)


@pytest.fixture
async def runtime(tmp_path: Path, secret: Path) -> AsyncIterator[Runtime]:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "identities.yaml").write_text("version: 1\n")
    (rules / "servers.yaml").write_text(
        'version: 1\nservers:\n  - {id: things, url: "https://things.corp.example/mcp", credential: shared}\n'
    )
    (rules / "credentials.yaml").write_text(
        f'version: 1\ncredentials:\n  - id: shared\n    source: {{file: "{secret}"}}\n'
        "    inject: {bearer: {}}\n"
        "    bind: {hosts: [things.corp.example], paths: [/mcp], methods: [POST]}\n"
    )
    (rules / "policy.yaml").write_text("version: 1\nrules: []\n")
    made = Runtime(Home(tmp_path / "home"), rules)
    made.open(asyncio.get_running_loop())
    yield made
    made.close()


def label(runtime: Runtime) -> str:
    found = runtime.rooms.store.prepare("shared", PLACE)
    assert isinstance(found, Injection), found
    return found.label


async def test_a_version_that_served_while_the_rules_were_read_is_scrubbed_and_counted(
    runtime: Runtime, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = runtime.rooms

    def fetching_keys_takes_long(jwks: JwksStore) -> None:
        exchange(secret, SECOND)
        before.store.refresh()  # as the running proxy does, twice a second
        assert label(runtime) == "shared@v2"
        exchange(secret, THIRD)

    monkeypatch.setattr(runtime, "_renew_keys", fetching_keys_takes_long)
    await runtime._reload(runtime._look())
    assert runtime.rooms is not before
    assert label(runtime) == "shared@v3"
    for value in (FIRST, SECOND, THIRD):
        assert runtime.rooms.store.scrubber.holds(value.encode()), value


@pytest.mark.parametrize("reloaded", [True, False])
@pytest.mark.parametrize("left", [True, False])
async def test_a_call_that_waited_over_a_reload_is_judged_by_the_rules_of_now(
    monkeypatch: pytest.MonkeyPatch, reloaded: bool, left: bool
) -> None:
    """The token came to the new rooms only, and the new rules may have it that nobody goes there."""
    flow = tflow.tflow()
    flow.client_conn.state = connection.ConnectionState.OPEN
    old, new = Ruling(records=(record(Reason.GRANTED, Verdict.ALLOW),), answer=None), object()
    addon: Any = CalleridAddon.__new__(CalleridAddon)
    addon.runtime = SimpleNamespace(rooms="old")

    class Reloading(Store):
        async def obtain(self, wanted: Any) -> None:
            addon.runtime.rooms = "new" if reloaded else "old"
            if left:
                flow.client_conn.state &= ~connection.ConnectionState.CAN_READ

    waiting = pending(Reloading(), old, [])
    monkeypatch.setattr(module, "walk", lambda facts, rooms, new_id: waiting if rooms == "old" else new)
    monkeypatch.setattr(module, "for_server", lambda facts, rooms: f"facts by {rooms} rooms")
    monkeypatch.setattr(translate, "facts", lambda flow, state: None)
    monkeypatch.setattr(module, "is_for_desk", lambda facts: False)
    facts, ruling = await addon._judged(flow, ClientState())
    if left:
        assert [found.reason for found in ruling.records] == [Reason.CLIENT_GONE]
    elif reloaded:
        assert (facts, ruling) == ("facts by new rooms", new)
    else:
        assert ruling == replace(old, session="session-1", target="/v1/things")


async def test_whoever_may_not_write_the_audit_fetches_no_secret(runtime: Runtime, tmp_path: Path) -> None:
    """A second proxy with this HOME would use up the refresh tokens of the first one."""
    asked, file = tmp_path / "asked", runtime.rules_dir / "credentials.yaml"
    command = f"echo once >> {asked}; echo {FIRST}"
    file.write_text(
        file.read_text().replace(f'file: "{tmp_path / "secret"}"', f'exec: [/bin/sh, -c, "{command}"]')
    )
    second = Runtime(runtime.home, runtime.rules_dir)
    try:
        with pytest.raises(StoreError):
            second.open(asyncio.get_running_loop())
        assert not asked.exists()
    finally:
        second.close()


async def test_open_streams_are_judged_anew_once_an_issuer_has_other_keys(runtime: Runtime) -> None:
    now = datetime.now(UTC)
    before = stamp_of(runtime, now)
    assert before is not None
    assert stamp_of(runtime, now) == before
    runtime.rooms.jwks.version += 1
    assert stamp_of(runtime, now) != before


@pytest.mark.parametrize("fails", ["streams", "give_up_waiting", "desk"])
def test_whatever_fails_at_the_end_the_stores_are_closed(fails: str) -> None:
    closed: list[str] = []

    def step(name: str) -> Any:
        if name == fails:
            raise RuntimeError(name)
        closed.append(name)
        return []

    addon: Any = CalleridAddon.__new__(CalleridAddon)
    addon._opened = True
    addon.memory = SimpleNamespace(streams=SimpleNamespace(all=lambda: step("streams")))
    addon.desk = SimpleNamespace(close=lambda: step("desk"))
    addon.runtime = SimpleNamespace(
        give_up_waiting=lambda now: step("give_up_waiting"), close=lambda: step("stores")
    )
    with pytest.raises(RuntimeError, match=fails):
        addon.done()
    assert "stores" in closed
