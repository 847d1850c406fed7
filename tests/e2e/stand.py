"""One open event stream through the proxy, for tests and measurements of how it is cut."""

from __future__ import annotations

import contextlib
import queue
import time
from typing import Any

from tests.e2e import harness as h
from tests.e2e.house import House, post

EVENT = (
    b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}\n\n'
)


class Stand:
    """One open event stream through the proxy, which the server keeps open."""

    def __init__(
        self, house: House, *, connect: dict[str, str] | None = None, leaf: str | None = None
    ) -> None:
        self.house = house
        self.hold: queue.Queue[bytes | None] = queue.Queue()
        before = house.upstream.answer
        house.upstream.answer = lambda _: h.Reply(
            200, [("content-type", "text/event-stream")], chunks=iter(self.hold.get, None)
        )
        self.since = h.newest(house.proxy)
        self.client = house.proxy.tunnel(
            house.authority, headers=connect, context=house.shows(leaf) if leaf else None
        )
        self.client.send(post(house.authority, []))
        self.hold.put(EVENT)
        self.head = self.client.read_head()
        self.chunks = self.client.chunks()
        assert next(self.chunks) == EVENT
        house.upstream.answer = before

    def is_open(self) -> None:
        """Sends an event through: the stream is alive."""
        self.hold.put(EVENT)
        assert next(self.chunks) == EVENT

    def await_cut(self) -> float:
        """When the stream ended, by the monotonic clock."""
        with contextlib.suppress(ConnectionError, OSError, ValueError):
            for _ in self.chunks:
                pass
        return time.monotonic()

    def close(self) -> None:
        self.hold.put(None)
        self.client.close()

    def row(self) -> dict[str, Any]:
        return self.house.proxy.await_rows(1, "seq > ? and outcome = 'cut'", self.since)[0]
