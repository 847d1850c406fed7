"""Two small relays on loopback, which pass on every byte at once, and so stream what streams.

``Guide`` leads to a port that is only known later: the suite starts a server on another port for each client
scenario, and callerid must know its servers beforehand. ``Bearer`` writes a header into each request: in
reverse mode callerid asks for a token, and the suite has no option to send one. Answers pass as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

MAX_HEAD = 1 << 16


class Relays:
    """An event loop in a thread, with the relays that were opened on it. ``close`` ends them all."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._listeners: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def guide(self, target: Path) -> int:
        """The port of a relay to the port of localhost that the file names when a client connects."""

        async def pipe_all(client: Streams, server: Streams) -> None:
            await copy(client[0], server[1])

        return self._open(lambda: int(target.read_text()), pipe_all)

    def bearer(self, port: int, header: bytes) -> int:
        """The port of a relay to ``port`` that adds the header line, ``Name: value``, to each request."""

        async def add(client: Streams, server: Streams) -> None:
            await copy_requests(client[0], server[1], header)

        return self._open(lambda: port, add)

    def close(self) -> None:
        async def stop() -> None:
            for listener in self._listeners:
                listener.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _open(self, port: Callable[[], int], forward: Callable[[Streams, Streams], Awaitable[None]]) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                server = await asyncio.open_connection("localhost", port(), limit=MAX_HEAD)
                try:
                    await both(forward((reader, writer), server), copy(server[0], writer))
                finally:
                    server[1].close()
            writer.close()

        async def start() -> int:
            listener = await asyncio.start_server(serve, "127.0.0.1", 0, limit=MAX_HEAD)
            self._listeners.append(listener)
            return int(listener.sockets[0].getsockname()[1])

        return asyncio.run_coroutine_threadsafe(start(), self._loop).result(10)


async def both(up: Awaitable[None], down: Awaitable[None]) -> None:
    """Until the server has ended; the client may end its side before."""
    tasks = [asyncio.ensure_future(up), asyncio.ensure_future(down)]
    try:
        await tasks[1]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Each chunk as it comes. The end of one side is the end of the connection: nobody half-closes here."""
    try:
        while chunk := await source.read(MAX_HEAD):
            sink.write(chunk)
            await sink.drain()
    finally:
        sink.close()


async def copy_requests(source: asyncio.StreamReader, sink: asyncio.StreamWriter, header: bytes) -> None:
    """Requests with a Content-Length or no body, each with the header added. Others end the connection."""
    try:
        while True:
            head = await source.readuntil(b"\r\n\r\n")
            line, _, rest = head.partition(b"\r\n")
            fields = [field.partition(b":") for field in rest.rstrip(b"\r\n").split(b"\r\n")]
            values = {name.strip().lower(): value.strip() for name, _, value in fields}
            if b"transfer-encoding" in values:
                return
            sink.write(line + b"\r\n" + header + b"\r\n" + rest)
            length = int(values.get(b"content-length", b"0"))
            sink.write(await source.readexactly(length))
            await sink.drain()
    finally:
        sink.close()
