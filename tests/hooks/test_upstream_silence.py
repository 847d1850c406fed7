"""An upstream that takes the connection and says nothing: the caller is answered, with a row."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from callerid.proxy import tls
from tests.e2e import harness
from tests.hooks.scene import playing


async def test_a_handshake_that_never_ends_is_a_502_with_the_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        async with playing(tmp_path, harness.standard_rules(port)) as scene:
            recorder, scene.upstream.port = scene.upstream.port, port
            answer = await asyncio.to_thread(scene.ask, harness.tool("read_thing", rpc_id=3))
            scene.upstream.port = recorder
            assert answer is not None
            assert (answer.status, answer.json["id"]) == (502, 3)
            [row] = await asyncio.to_thread(scene.proxy.await_rows, 1, "outcome <> 'unknown'")
            assert (row["verdict"], row["reason"]) == ("allow", "granted")
            assert row["outcome"] in ("upstream_gone", "not_sent")
