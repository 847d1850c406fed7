"""How the clients of the measurements read event streams: byte by byte, and with the time of each event."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from bench.calls import call
from bench.scene import Pair, request


class Cut(Exception):
    """The body did not come to its end."""


@dataclass(slots=True)
class Heard:
    """The events of one stream, and when each was there (``time.monotonic_ns``)."""

    events: list[bytes] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    tail: bytes = b""

    @property
    def body(self) -> bytes:
        return b"".join(self.events) + self.tail

    def take(self, data: bytes) -> None:
        now = time.monotonic_ns()
        *whole, self.tail = (self.tail + data).split(b"\n\n")
        self.events += [event + b"\n\n" for event in whole]
        self.times += [now] * len(whole)


async def head(reader: asyncio.StreamReader) -> bytes:
    """The head of an answer, in lower case.

    Raises ConnectionError if it is not one of an event stream.
    """
    raw = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not raw.startswith(b"http/1.1 200 ") or b"text/event-stream" not in raw:
        raise ConnectionError(f"no event stream: {raw[:300]!r}")
    return raw


async def chunk(reader: asyncio.StreamReader) -> bytes:
    """One chunk of a body, empty at its end. Raises Cut."""
    try:
        size = int(await reader.readuntil(b"\r\n"), 16)
        return (await reader.readexactly(size + 2))[:-2]
    except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
        raise Cut(f"{type(error).__name__} in the chunked body") from error


async def listen(reader: asyncio.StreamReader, heard: Heard) -> None:
    """Hear a whole stream. Raises Cut, and ``heard`` then holds what came before."""
    raw = await head(reader)
    if b"transfer-encoding: chunked" in raw:
        while data := await chunk(reader):
            heard.take(data)
        return
    try:
        while data := await reader.read(65_536):
            heard.take(data)
    except (ConnectionError, OSError) as error:
        raise Cut(f"{type(error).__name__} in a body without a length") from error


async def play(pair: Pair, upstream: int, rpc_id: int, **arguments: object) -> Heard:
    """Call the tool that plays a stream, and hear it to its end."""
    reader, writer = pair
    heard = Heard()
    writer.write(request(upstream, call(rpc_id, **arguments)))
    await listen(reader, heard)
    return heard


async def count(pair: Pair, upstream: int, rpc_id: int, **arguments: object) -> int:
    """As ``play``, but only the number of events: cheap enough not to be what is measured."""
    reader, writer = pair
    writer.write(request(upstream, call(rpc_id, **arguments)))
    await head(reader)
    events, last = 0, b""
    while not last.endswith(b"0\r\n\r\n"):
        data = await reader.read(65_536)
        if not data:
            raise Cut("the connection ended")
        seam = last[-4:] + data
        events += seam.count(b"\n\n") - last[-4:].count(b"\n\n")
        last = seam[-5:]
    return events
