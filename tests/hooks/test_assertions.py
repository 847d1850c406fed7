"""What servers are told is signed after the row is durable, or not at all (law 1)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import jwt
import pytest

from callerid.errors import StoreError
from callerid.identity import assertion
from callerid.model import DecisionRecord
from tests.e2e import harness
from tests.hooks.scene import playing


async def test_nothing_is_signed_about_a_call_that_could_not_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed: list[Any] = []
    really = assertion.jwt.sign
    monkeypatch.setattr(assertion.jwt, "sign", lambda *a, **k: signed.append(a) or really(*a, **k))
    async with playing(tmp_path, assertion=True) as scene:

        async def fails(records: tuple[DecisionRecord, ...]) -> None:
            raise StoreError("the disk is full")

        record = scene.addon.runtime.record
        monkeypatch.setattr(scene.addon.runtime, "record", fails)
        answer = await asyncio.to_thread(scene.ask, harness.tool("read_thing"))
        assert answer is not None
        assert b"audit_unavailable" in answer.body
        assert (signed, scene.upstream.seen) == ([], [])
        monkeypatch.setattr(scene.addon.runtime, "record", record)
        answer = await asyncio.to_thread(scene.ask, harness.tool("drop_thing"))
        assert answer is not None
        assert (signed, scene.upstream.seen) == ([], []), "a refused call was signed"
        answer = await asyncio.to_thread(scene.ask, harness.tool("read_thing"))
        assert answer is not None
        assert answer.text == "ran read_thing"
        assert len(signed) == 1


async def test_it_is_signed_once_the_row_is_there_to_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = assertion.jwt.sign
    async with playing(tmp_path, assertion=True) as scene:
        found: list[bool] = []

        def look(claims: dict[str, Any], *more: Any, **named: Any) -> str:
            found.append(len(scene.proxy.rows("event_id = ?", claims["jti"])) == 1)
            return really(claims, *more, **named)

        monkeypatch.setattr(assertion.jwt, "sign", look)
        answer = await asyncio.to_thread(scene.ask, harness.tool("read_thing"))
        assert answer is not None
        assert found == [True]
        [seen] = scene.upstream.seen
        token = str(seen.header("x-callerid-assertion"))
        assert jwt.decode(token, options={"verify_signature": False})["tctx"]["tool"] == "read_thing"


async def test_a_fault_while_signing_refuses_the_call_with_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any, **__: Any) -> str:
        raise ValueError("no")

    monkeypatch.setattr(assertion.jwt, "sign", breaks)
    async with playing(tmp_path, assertion=True) as scene:
        answer = await asyncio.to_thread(scene.ask, harness.tool("read_thing"))
        assert answer is not None
        assert b"internal_error" in answer.body
        assert scene.upstream.seen == []
        rows = await asyncio.to_thread(scene.proxy.await_rows, 2, "tool = 'read_thing'")
        assert [(row["verdict"], row["reason"], row["outcome"]) for row in rows] == [
            ("allow", "granted", "not_sent"),
            ("error", "internal_error", "not_sent"),
        ]
