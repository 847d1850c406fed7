"""Where MCP was found that nobody listed, and which tools it offers. Outlives a reload of the rules.

A place is a host, a port and a path, whatever the query. Once it was seen to speak MCP, everything there is
governed by ``unknown_server``, also what does not look like MCP by itself: a stream, a body that nobody can
read, an upgrade. Other paths of that host go on by their own looks.

Who says so matters. The server's own answer is proof, for everybody. A request alone is not: whoever sends
a ``tools/call`` to some page could have it closed for the whole company. So that binds its sender only, by
name and by address.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from callerid.proxy.destination import normal_host

LIMIT = 10_000
"""Places of each sort at once; the one that was used longest ago is forgotten first, and then found anew."""
SENDERS = 200
"""Senders that are remembered of one place."""
MAX_PATH = 1_024
MAX_TOOLS = 200
MAX_NAME = 128


@dataclass(frozen=True, slots=True)
class Spot:
    """A place by its normal names, so that no other spelling of them leads around it."""

    host: str
    port: int
    path: str


def spot(host: str, port: int, target: str) -> Spot:
    """The place of a request target. Two that some server takes for one are one here. Total."""
    path = target.partition("?")[0].partition("#")[0][:MAX_PATH]
    for _ in range(2):
        path = unquote(path)
    path = path.partition("?")[0].partition("#")[0].replace("\\", "/").casefold()
    kept: list[str] = []
    for part in path.split("/"):
        name = part.partition(";")[0].strip()
        if name == "..":
            del kept[-1:]
        elif name not in ("", "."):
            kept.append(name)
    return Spot(normal_host(host), port, "/" + "/".join(kept))


class Discovered:
    """See the module. Nothing in here waits or fails."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._proved: OrderedDict[Spot, None] = OrderedDict()
        self._claimed: OrderedDict[Spot, OrderedDict[str, None]] = OrderedDict()
        self._tools: OrderedDict[tuple[str, str, str], set[str]] = OrderedDict()

    def prove(self, place: Spot) -> None:
        """The server there speaks MCP: it said so."""
        _use(self._proved, place, self._limit)

    def claim(self, place: Spot, senders: Iterable[str]) -> None:
        """Somebody spoke MCP to it."""
        known = self._claimed.setdefault(place, OrderedDict())
        self._claimed.move_to_end(place)
        while len(self._claimed) > self._limit:
            self._claimed.popitem(last=False)
        for sender in senders:
            _use(known, sender, SENDERS)

    def is_proved(self, place: Spot) -> bool:
        """Whether the server itself said so."""
        if place not in self._proved:
            return False
        self._proved.move_to_end(place)
        return True

    def is_claimed(self, place: Spot, senders: Iterable[str] | None = None) -> bool:
        """Whether one of these senders spoke MCP there; without them, whether anybody did."""
        known = self._claimed.get(place)
        if known is None:
            return False
        return senders is None or any(sender in known for sender in senders)

    def new_tools(self, server: str, upstream: str, path: str, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the names that were not offered there before, sorted. Beyond MAX_TOOLS none are new."""
        key = (server, upstream, path)
        known = self._tools.setdefault(key, set())
        self._tools.move_to_end(key)
        while len(self._tools) > self._limit:
            self._tools.popitem(last=False)
        fresh = {name[:MAX_NAME] for name in names} - known
        found = tuple(sorted(fresh)[: MAX_TOOLS - len(known)])
        known.update(found)
        return found


def _use[K](table: OrderedDict[K, None], key: K, limit: int) -> None:
    table[key] = None
    table.move_to_end(key)
    while len(table) > limit:
        table.popitem(last=False)
