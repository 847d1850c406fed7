"""callerid in this process: the real lean Master on real sockets, so that faults can be put inside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from mitmproxy import options

from callerid.home import Home
from callerid.identity import tokens
from callerid.identity.registry import Registry
from callerid.proxy import ca, harden
from callerid.proxy.addon import CalleridAddon
from callerid.proxy.master import LeanMaster
from tests.e2e import harness


@dataclass
class Scene:
    """A running master, its upstream and a raw client's view of both."""

    addon: CalleridAddon
    upstream: harness.Upstream
    proxy: harness.Proxy
    token: str
    told: bool = False

    def ask(self, body: bytes, *, token: str | None = None) -> harness.Answer | None:
        """One call on a connection of its own; None if the connection was closed instead of answered."""
        authority = f"localhost:{self.upstream.port}"
        credential = {"Proxy-Authorization": harness.basic("alice", token or self.token)}
        try:
            client = self.proxy.tunnel(authority, headers=credential)
        except TimeoutError:
            raise AssertionError("the proxy hangs") from None
        except (OSError, IndexError, ValueError):
            return None
        try:
            client.send(harness.post(authority, "/mcp", body))
            return client.read()
        except TimeoutError:
            raise AssertionError("the proxy hangs") from None
        except (OSError, IndexError, ValueError):
            return None
        finally:
            client.close()


def issue(home: Home, principal: str) -> str:
    token = tokens.mint(os.urandom(32))
    now = time.time_ns() // 1000
    registry = Registry.open(home.registry)
    registry.issue(
        token_digest=tokens.digest(token), principal=principal, agent=None, servers=None, tools=None,
        created_us=now, expires_us=now + 3_600_000_000, created_by="test",
    )  # fmt: skip
    registry.close()
    return token


@contextlib.asynccontextmanager
async def playing(
    folder: Path, rules: dict[str, str] | None = None, *, assertion: bool = False
) -> AsyncIterator[Scene]:
    """``assertion``: by the standard rules, but the server is told who calls."""
    from datetime import UTC, datetime

    pki = harness.Pki(folder / "pki")
    upstream = harness.Upstream(pki.server_context())
    standard = harness.standard_rules(upstream.port)
    if assertion:
        told = harness.servers(upstream.port, extra="    assertion: {meta: true}\n")
        standard["servers.yaml"] = told
    proxy = harness.Proxy(folder / "callerid", rules or standard, ca=pki.ca)
    home = Home(proxy.home)
    ca.ensure(home, now=datetime.now(UTC))
    os.environ["THINGS_SECRET"] = harness.SECRET
    addon = CalleridAddon()
    opts = options.Options()
    up = asyncio.Event()
    master = LeanMaster(addon, opts, up.set)
    opts.update(
        **harden.safe_values(opts), confdir=str(home.ca), callerid_home=str(home.path),
        callerid_rules=str(proxy.rules), listen_host="127.0.0.1", listen_port=0,
        callerid_private=["127.0.0.0/8", "::1"],
        ssl_verify_upstream_trusted_ca=str(pki.ca),
    )  # fmt: skip
    addon.open()
    os.environ.pop("THINGS_SECRET", None)
    running = asyncio.create_task(master.run())
    try:
        async with asyncio.timeout(harness.DEADLINE):
            await up.wait()
        proxy.ports = [address[1] for address in master.addons.get("proxyserver").listen_addrs()]
        yield Scene(addon, upstream, proxy, issue(home, "user:alice@corp.example"), assertion)
    finally:
        await _end(master, running)
        upstream.close()


async def _end(master: LeanMaster, running: asyncio.Task[None]) -> None:
    """Stop listening, let every connection end, and only then the master: nothing is left open."""
    proxyserver = master.addons.get("proxyserver")
    async with asyncio.timeout(harness.DEADLINE):
        await proxyserver.servers.update([])
        for handler in list(proxyserver.connections.values()):
            if handler.client in handler.transports:
                handler.close_connection(handler.client)
        while proxyserver.connections:  # noqa: ASYNC110  (mitmproxy offers no event for it)
            await asyncio.sleep(0.01)
        master.shutdown()
        await running
        await asyncio.sleep(0)
