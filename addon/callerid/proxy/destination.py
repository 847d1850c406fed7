"""Where a request goes: listed or not, and whether all names for the place agree (DESIGN section 4).

Decided on what would be dialled. ``Host`` and SNI are compared with it, never used instead of it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from callerid.config import Server, Servers
from callerid.credentials.binding import is_canonical
from callerid.model import Reason

DEFAULT_PORTS: Mapping[str, int] = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Governed:
    """The place is a listed server."""

    server: Server


@dataclass(frozen=True, slots=True)
class Unlisted:
    """The place is no listed server. ``name`` stands in the row instead of a server's id."""

    name: str


@dataclass(frozen=True, slots=True)
class Astray:
    """The place is, or pretends to be, a listed server, and something does not agree."""

    server: str
    reason: Reason
    detail: str


DESK = "callerid.internal"
"""Our own address: ``desk`` answers there, and it is never dialled."""
MAX_AUTHORITY = 300
"""No name of a host with its port is longer (RFC 1035 section 2.3.4); longer ones are not remembered."""


def normal_host(host: str) -> str:
    """Lower-case, without brackets and one trailing dot; IP addresses in their canonical form."""
    return _normal_host(host) if len(host) <= MAX_AUTHORITY else host.lower()


def is_desk(host: str) -> bool:
    """True for our own address, however it is spelled."""
    return normal_host(host) == DESK


@lru_cache(maxsize=4096)
def _normal_host(host: str) -> str:
    bare = host.strip().rstrip(".").lower()
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
    try:
        return ipaddress.ip_address(bare).compressed
    except ValueError:
        pass
    if bare.isascii():
        return bare
    try:
        return bare.encode("idna").decode("ascii")
    except UnicodeError:
        return bare


def split_authority(authority: str, scheme: str) -> tuple[str, int] | None:
    """``host[:port]`` as (normal host, port), with the scheme's default port; None if it is neither."""
    return _split_authority(authority, scheme) if len(authority) <= MAX_AUTHORITY else None


@lru_cache(maxsize=4096)
def _split_authority(authority: str, scheme: str) -> tuple[str, int] | None:
    text = authority.strip()
    if not text or "@" in text or any(c.isspace() or c in "/\\?#%," for c in text):
        return None
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
        host, port = host + "]", rest[1:]
    elif text.count(":") == 1:
        host, port = text.split(":")
    if port and not (port.isascii() and port.isdigit() and int(port) < 65536):
        return None
    return normal_host(host), int(port) if port else DEFAULT_PORTS.get(scheme, 0)


def _folded(path: str) -> str:
    """A path as the most lenient router reads it: without case, without slashes at its end."""
    return path.rstrip("/").casefold()


def _under(path: str, base: str) -> bool:
    root = base.rstrip("/")
    return path == root or path.startswith(root + "/") or (not root and path.startswith("/"))


class ServerTable:
    """The listed servers by (host, port), and the message paths that their SSE streams announced."""

    def __init__(self, servers: Servers) -> None:
        self.by_id = {server.id: server for server in servers.servers}
        self._places: dict[tuple[str, int], list[Server]] = {}
        for server in servers.servers:
            self._places.setdefault((normal_host(server.host), server.port), []).append(server)
        for listed in self._places.values():
            listed.sort(key=lambda server: len(server.path), reverse=True)
        self._hosts = {host for host, _ in self._places}
        self._plain = frozenset(server.path for server in servers.servers if is_canonical(server.path))
        self.passthrough = frozenset(normal_host(host) for host in servers.passthrough)
        self._endpoints: dict[tuple[str, int, str], Server] = {}
        self._announcing: set[str] = set()

    def is_listed(self, host: str, port: int) -> bool:
        """True if any server is listed at this host and port."""
        return (normal_host(host), port) in self._places

    def at(self, host: str, port: int) -> tuple[Server, ...]:
        """The servers listed at this host and port, the longest path first."""
        return tuple(self._places.get((normal_host(host), port), ()))

    def name_at(self, host: str, port: int, path: str) -> str:
        """What a row calls this place: the id of the server that is listed there, else ``host:port``.

        For requests that could not be read to their end, ``path`` may be empty: then the one server there.
        """
        listed, bare = self.at(host, port), path.partition("?")[0]
        found = next((server.id for server in listed if _under(bare, server.path)), None)
        if found is None and len(listed) == 1 and bare in ("", "*"):
            found = listed[0].id
        return found or f"{host}:{port}"

    def names(self, host: str) -> bool:
        """True if any server is listed at this host, whatever the port."""
        return normal_host(host) in self._hosts

    def learn_endpoint(self, server: Server, path: str) -> None:
        """Remember the message path that a 2024-11-05 event stream of ``server`` announced.

        Bounded: the oldest is forgotten. It is the path without its query that is governed.
        """
        key = (normal_host(server.host), server.port, _folded(path))
        self._announcing.add(server.id)
        self._endpoints.pop(key, None)
        self._endpoints[key] = server
        while len(self._endpoints) > 10_000:
            del self._endpoints[next(iter(self._endpoints))]

    def is_endpoint(self, server: Server, path: str) -> bool:
        """True if ``path`` begins like a message path that a stream of ``server`` announced."""
        if server.id not in self._announcing:
            return False
        host, folded = normal_host(server.host), _folded(path)
        for end in range(len(folded), 0, -1):
            announced = self._endpoints.get((host, server.port, folded[:end]))
            if announced is not None and announced.id == server.id:
                return True
        return False

    def carry(self, older: ServerTable) -> None:
        """Take over the announced paths of servers that are still listed after a reload."""
        for (host, port, path), server in older._endpoints.items():
            still = self.by_id.get(server.id)
            if still is not None and (normal_host(still.host), still.port) == (host, port):
                self._endpoints[host, port, path] = still
                self._announcing.add(still.id)

    def locate(
        self, *, scheme: str, host: str, port: int, path: str, host_header: str | None, sni: str | None
    ) -> Governed | Unlisted | Astray:
        """The ladder: listed? one name? one path? Total on any text."""
        dialled = normal_host(host)
        listed = self._places.get((dialled, port))
        claimed = split_authority(host_header, scheme) if host_header is not None else None
        if listed is None:
            named = self._pretends(dialled, claimed, host_header, sni)
            if named is not None:
                detail = f"the request is for {dialled}:{port} but calls itself {named}"
                return Astray(f"{dialled}:{port}", Reason.DESTINATION_MISMATCH, detail)
            return Unlisted(f"{dialled}:{port}" if port != DEFAULT_PORTS.get(scheme) else dialled)
        bare = path.partition("?")[0]
        server = self._match(listed, dialled, port, bare)
        name = server.id if server is not None else f"{dialled}:{port}"
        if claimed != (dialled, port):
            return Astray(name, Reason.DESTINATION_MISMATCH, "the Host header names another place")
        if sni is not None and normal_host(sni) != dialled:
            return Astray(name, Reason.DESTINATION_MISMATCH, "the TLS server name is another host")
        if bare not in self._plain and not is_canonical(bare):
            return Astray(name, Reason.PATH_NOT_CANONICAL, "the path can be read in more than one way")
        if server is None:
            return self._near_miss(listed, bare, name)
        if server.scheme != scheme:
            detail = f"the server is listed with {server.scheme}, the request came with {scheme}"
            return Astray(name, Reason.DESTINATION_MISMATCH, detail)
        return Governed(server)

    def _pretends(
        self, dialled: str, claimed: tuple[str, int] | None, raw: str | None, sni: str | None
    ) -> str | None:
        """The listed host that a request to somewhere else pretends to be at, if any."""
        if claimed is not None and claimed[0] != dialled and claimed[0] in self._hosts:
            return claimed[0]
        if claimed is None and raw is not None and any(host in raw.lower() for host in self._hosts):
            return "a listed server"
        if sni is not None and normal_host(sni) != dialled and normal_host(sni) in self._hosts:
            return normal_host(sni)
        return None

    def _match(self, listed: list[Server], host: str, port: int, path: str) -> Server | None:
        for server in listed:
            if _under(path, server.path):
                return server
        return self._endpoints.get((host, port, _folded(path)))

    def _near_miss(self, listed: list[Server], path: str, name: str) -> Unlisted | Astray:
        for server in listed:
            if _under(path.lower(), server.path.lower()):
                return Astray(server.id, Reason.PATH_NOT_CANONICAL, "the path differs in case only")
        return Unlisted(name)
