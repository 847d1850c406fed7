"""A token that nobody was given is good for nobody: its row could not be written (law 1)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from callerid.errors import StoreError
from callerid.identity.registry import Registry
from callerid.identity.rows import TokenRow
from callerid.model import DecisionRecord
from tests.e2e import harness
from tests.hooks.scene import Scene, playing

BODY = b'{"agent": "researcher"}'


def derived(scene: Scene) -> list[TokenRow]:
    registry = Registry.open(scene.proxy.home / "registry.db", create=False)
    try:
        return [row for row in registry.tokens() if row.parent is not None]
    finally:
        registry.close()


def ask(scene: Scene) -> harness.Answer | None:
    head = (
        "POST http://callerid.internal/derive HTTP/1.1\r\nHost: callerid.internal\r\n"
        f"Proxy-Authorization: Bearer {scene.token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n"
    )
    client = scene.proxy.plain()
    try:
        client.send(head.encode() + BODY)
        return client.read()
    finally:
        client.close()


async def test_a_token_whose_row_could_not_be_written_is_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with playing(tmp_path) as scene:

        async def fails(records: tuple[DecisionRecord, ...]) -> None:
            raise StoreError("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(scene.addon.runtime, "record", fails)
            answer = await asyncio.to_thread(ask, scene)
        assert answer is not None
        assert answer.status == 503
        assert b"cid_" not in answer.body

        def is_revoked() -> bool:
            return [row.revoked_by for row in derived(scene)] == ["callerid"]

        await asyncio.to_thread(harness.wait_for, is_revoked, "the revocation")
        answer = await asyncio.to_thread(ask, scene)
        assert answer is not None
        assert answer.status == 201
        assert [row.revoked_us is None for row in derived(scene)] == [False, True]
