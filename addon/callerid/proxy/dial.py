"""What may be dialled: judged by the addresses that a name leads to, and again by the one that was reached.

A name is resolved before it is dialled, and once more by whoever dials. So the address of the open
connection is judged as well, before a byte is written to it: a name that changes in between gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from typing import Any

from mitmproxy import connection, ctx
from mitmproxy.proxy import mode_specs

from callerid.proxy.addresses import plain, read, refused
from callerid.proxy.destination import is_desk, normal_host
from callerid.proxy.limits import Limits
from callerid.proxy.rooms import Rooms

RESOLVE_SECONDS = 10.0
_ANYWHERE = ("", "0.0.0.0", "::")  # noqa: S104  (compared with, not listened on)


async def before(
    client: connection.Client, server: connection.Server, rooms: Rooms, limits: Limits
) -> str | None:
    """Why this connection may not be opened; None if it may. Resolves the names of places not listed."""
    if server.address is None:
        return None
    host, port = server.address[:2]
    if is_desk(host):
        return f"{_shown(host)} is callerid itself, which is never dialled"
    trusted = _is_trusted(client, server, rooms)
    if trusted and read(host) is None:
        return None  # its address is judged when it is reached, and its name is resolved only once
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await _resolve(host, port)
    except TimeoutError:
        return f"{_shown(host)} was not resolved within {RESOLVE_SECONDS:g} s"
    except UnicodeError:
        return f"{_shown(host)} is no host name"
    except OSError:
        return None  # there is nowhere to go: whoever dials finds that out as well
    return judge(host, port, found, local=None, listed=trusted, limits=limits, listeners=_listeners())


def after(client: connection.Client, server: connection.Server, rooms: Rooms, limits: Limits) -> str | None:
    """Why nothing may be written to this connection, which is open; None if something may."""
    if server.address is None or server.peername is None:
        return "the connection leads to no address"
    host, port = server.address[:2]
    trusted = _is_trusted(client, server, rooms)
    local = server.sockname[0] if server.sockname is not None else None
    found = (server.peername[0],)
    return judge(host, port, found, local=local, listed=trusted, limits=limits, listeners=_listeners())


def judge(
    host: str, port: int, found: Sequence[str], *, local: str | None, listed: bool, limits: Limits,
    listeners: Iterable[Sequence[Any]],
) -> str | None:  # fmt: skip
    """Why ``host``, which leads to the addresses ``found``, may not be dialled; None if it may.

    Args:
        host: as it was asked for.
        port: likewise.
        found: IP addresses.
        local: our own end of the connection, once it is open: both ends alike are this machine.
        listed: it is a place of the operator's choice, which may be private.
        limits: what else may be.
        listeners: where we listen ourselves, as (address, port, ...).
    """
    name = _shown(host)
    if any(_is_ours(address, port, local, listeners) for address in found):
        return f"{name} leads to callerid itself"
    return refused(normal_host(name), found, listed=listed, private=limits.private)


def _is_trusted(client: connection.Client, server: connection.Server, rooms: Rooms) -> bool:
    """Whether the operator named this place: as a server, as passthrough, or as the end of a reverse mode."""
    if server.address is None:
        return False
    host, port = server.address[:2]
    mode = client.proxy_mode
    if isinstance(mode, mode_specs.ReverseMode) and mode.address == (host, port):
        return True
    return rooms.servers.is_listed(host, port) or normal_host(host) in rooms.servers.passthrough


async def _resolve(host: str, port: int) -> tuple[str, ...]:
    """All addresses of a host, as the system's resolver finds them for whoever dials it."""
    if read(host) is not None:
        return (host,)
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(str(address[0]) for *_, address in found)


def _is_ours(address: str, port: int, local: str | None, listeners: Iterable[Sequence[Any]]) -> bool:
    here = read(plain(address))
    if here is None:
        return False
    for where, listening, *_ in listeners:
        if listening != port:
            continue
        both_ends = local is not None and plain(local) == here.compressed
        if plain(where) == here.compressed or (where in _ANYWHERE and (here.is_loopback or both_ends)):
            return True
    return False


def _listeners() -> Sequence[Sequence[Any]]:
    proxyserver = ctx.master.addons.get("proxyserver")
    found: Sequence[Sequence[Any]] = proxyserver.listen_addrs() if proxyserver is not None else ()
    return found


def _shown(host: str) -> str:
    """A host for a sentence: of bounded length, in characters that can be printed."""
    return "".join(letter if letter.isprintable() else "?" for letter in host[:255])
