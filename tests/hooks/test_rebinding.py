"""A name that leads elsewhere when it is dialled than when it was judged: nothing is written there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from callerid.proxy import dial
from callerid.proxy.addresses import Private
from tests.e2e import harness
from tests.hooks.scene import Scene, playing


def resolving(answers: dict[str, tuple[str, ...]]) -> Callable[[str, int], object]:
    """A resolver that lies about some names."""
    truthful = dial._resolve

    async def resolve(host: str, port: int) -> tuple[str, ...]:
        return answers.get(host) or await truthful(host, port)

    return resolve


def get(scene: Scene, authority: str, *, tls: bool) -> harness.Answer | None:
    credential = {"Proxy-Authorization": harness.basic("alice", scene.token)}
    raw = f"GET /x HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
    client = scene.proxy.tunnel(authority, headers=credential, tls=tls)
    client.send(raw)
    try:
        return client.read()
    finally:
        client.close()


@pytest.fixture
def plain() -> harness.Upstream:
    return harness.Upstream(None)


def walled(scene: Scene) -> None:
    """Nothing private may be dialled from here on."""
    scene.addon.runtime.limits = replace(scene.addon.runtime.limits, private=Private())


@pytest.mark.parametrize("tls", [False, True], ids=["in the clear", "over TLS"])
async def test_a_name_that_moves_to_a_private_address_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: harness.Upstream, tls: bool
) -> None:
    monkeypatch.setattr(dial, "_resolve", resolving({"localhost": ("8.8.8.8",)}))
    async with playing(tmp_path) as scene:
        walled(scene)
        answer = await asyncio.to_thread(get, scene, f"localhost:{plain.port}", tls=tls)
        assert answer is not None
        assert answer.status == 403
        [row] = await asyncio.to_thread(scene.proxy.await_rows, 1)
        assert (row["reason"], row["principal"]) == ("address_refused", "user:alice@corp.example")
        assert "loopback address" in row["detail"]
    assert plain.connections == 1, "the address that was reached was judged"
    assert plain.seen == []
    plain.close()


@pytest.mark.parametrize(
    "found", [("8.8.8.8", "127.0.0.1"), ("127.0.0.1", "8.8.8.8"), ("8.8.8.8", "fe80::1")]
)
async def test_a_name_of_which_one_address_is_private_is_not_dialled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: harness.Upstream, found: tuple[str, ...]
) -> None:
    monkeypatch.setattr(dial, "_resolve", resolving({"localhost": found}))
    async with playing(tmp_path) as scene:
        walled(scene)
        answer = await asyncio.to_thread(get, scene, f"localhost:{plain.port}", tls=False)
        assert answer is not None
        assert answer.status == 403
        [row] = await asyncio.to_thread(scene.proxy.await_rows, 1)
        assert row["reason"] == "address_refused"
    assert plain.connections == 0
    plain.close()


async def test_a_listed_server_that_moves_to_a_metadata_service_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that was reached is taken for one: there is no metadata service to move to."""
    monkeypatch.setattr(dial, "refused", lambda host, found, **_: f"{host} leads to metadata {found[0]}")
    async with playing(tmp_path) as scene:
        answer = await asyncio.to_thread(scene.ask, harness.tool("read_thing", rpc_id=5))
        assert answer is not None
        assert answer.json["id"] == 5
        assert "address_refused" in answer.text
        rows = await asyncio.to_thread(scene.proxy.await_rows, 2, "outcome = 'not_sent'")
        assert [row["reason"] for row in rows] == ["granted", "address_refused"]
        assert scene.upstream.connections == 1
        assert scene.upstream.seen == []


async def test_a_resolver_that_does_not_answer_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: harness.Upstream
) -> None:
    async def never(host: str, port: int) -> tuple[str, ...]:
        await asyncio.Event().wait()
        return ()

    monkeypatch.setattr(dial, "_resolve", never)
    monkeypatch.setattr(dial, "RESOLVE_SECONDS", 0.1)
    async with playing(tmp_path) as scene:
        answer = await asyncio.to_thread(get, scene, f"localhost:{plain.port}", tls=False)
        assert answer is not None
        assert answer.status == 403
        [row] = await asyncio.to_thread(scene.proxy.await_rows, 1)
        assert "not resolved" in row["detail"]
    assert plain.connections == 0
    plain.close()
