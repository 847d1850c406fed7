"""Events that pass: how late, how many, at what cost; a question on a stream; a stream that is cut."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from dataclasses import dataclass

from bench import origin, wire
from bench.calls import call
from bench.report import Bar, share, step, table
from bench.scene import Pair, Scene, Way, close, connect, cpu_seconds, request
from tests.e2e import harness

EVENTS = 20
EVERY = 0.05
ROUNDS = 6
MOST_MS = 10.0
QUESTIONS = 20
BURSTS = 3
FAST = 5000
PARALLEL = 100
EACH = 60

_numbers = itertools.count(1)


# -- delay --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delays:
    """Milliseconds: from write to arrival directly; and how much later through each proxy, event by event."""

    direct: tuple[float, ...]
    bare: tuple[float, ...]
    ours: tuple[float, ...]
    unequal: int

    def columns(self) -> tuple[str, ...]:
        """Median and maximum of each, and of ours what 95 in 100 are below."""
        found = [
            *(share(self.ours, 0.5), share(self.ours, 0.95), max(self.ours)),
            *(value for kept in (self.bare, self.direct) for value in (share(kept, 0.5), max(kept))),
        ]
        return tuple(f"{value:.2f}" for value in found)

    def bar(self, name: str) -> Bar:
        """The worst event. A difference has the noise of both of its sides: the direct one, and a proxy's."""
        noise = sum(max(kept) - statistics.median(kept) for kept in (self.direct, self.bare))
        return Bar(name, max(self.ours), noise, MOST_MS, "ms")

    def equal(self, name: str) -> Bar:
        return Bar(name, self.unequal, 0, 0, "streams")


async def delays(made: Scene, *, rounds: int = ROUNDS, events: int = EVENTS, every: float = EVERY) -> Delays:
    """Play the paced stream on all three ways at once, a third of the pace apart.

    ``events`` a round, ``every`` so many seconds.
    """
    pairs = [await connect(way, made.upstream) for way in made.ways]
    control = await connect(made.direct, made.upstream)
    late: list[list[float]] = [[], [], []]
    unequal = 0
    for _ in range(rounds):
        number = next(_numbers)
        tags = [f"{number} {way.name}" for way in made.ways]

        async def one(place: int, pair: Pair, number: int = number, tags: list[str] = tags) -> wire.Heard:
            await asyncio.sleep(place * every / 3)
            asks = {"do": "pace", "tag": tags[place], "count": events, "every": every}
            return await wire.play(pair, made.upstream, number, **asks)

        heard = await asyncio.gather(*(one(place, pair) for place, pair in enumerate(pairs)))
        sent = await _sent(control, made.upstream)
        taken = [
            [(at - was) / 1e6 for at, was in zip(stream.times, sent[tag], strict=False)]
            for stream, tag in zip(heard, tags, strict=True)
        ]
        late[0] += taken[0]
        for place in (1, 2):
            late[place] += [a - b for a, b in zip(taken[place], taken[0], strict=True)]
        unequal += sum(stream.body != origin.paced(number, events) for stream in heard)
    close([*pairs, control])
    return Delays(tuple(late[0]), tuple(late[1]), tuple(late[2]), unequal)


async def _sent(control: Pair, upstream: int) -> dict[str, list[int]]:
    reader, writer = control
    writer.write(f"GET /sent HTTP/1.1\r\nHost: localhost:{upstream}\r\n\r\n".encode())
    raw = (await reader.readuntil(b"\r\n\r\n")).lower()
    found: dict[str, list[int]] = json.loads(
        await reader.readexactly(int(raw.rpartition(b"content-length:")[2]))
    )
    return found


# -- a question on the stream -------------------------------------------------------------------


async def questions(made: Scene) -> list[Bar]:
    """The server asks on the stream of a call, the answer is posted, and the result comes on the stream."""
    step("elicitation")
    took: list[list[float]] = [[], [], []]
    right = 0
    ends = [(await connect(way, made.upstream), await connect(way, made.upstream)) for way in made.ways]
    session = [await _session(pair, made.upstream) for pair, _ in ends]
    for number, place in itertools.product(range(QUESTIONS), range(3)):
        stream, post = ends[place]
        start = time.perf_counter()
        try:
            async with asyncio.timeout(10):
                tag = f"q-{place}-{number}"
                good = await _question(stream, post, made.upstream, session[place], tag)
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError, wire.Cut) as error:
            step(f"an elicitation through {made.ways[place].name} failed: {error}")
            good = False
            close([stream, post])
            ends[place] = (
                await connect(made.ways[place], made.upstream),
                await connect(made.ways[place], made.upstream),
            )
        right += good and place == 2
        took[place].append((time.perf_counter() - start) * 1000)
    close([pair for both in ends for pair in both])
    rows = [
        (way.name, f"{statistics.median(kept):.2f}", f"{share(kept, 0.9):.2f}")
        for way, kept in zip(made.ways, took, strict=True)
    ]
    table(("elicitation: call, question, answer, result", "p50 ms", "p90 ms"), rows)
    return [Bar("elicitations that did not complete", QUESTIONS - right, 0, 0, f"of {QUESTIONS}")]


async def _session(pair: Pair, upstream: int) -> str:
    reader, writer = pair
    params = {
        "protocolVersion": "2025-06-18",
        "capabilities": {"elicitation": {}},
        "clientInfo": {"name": "bench", "version": "1"},
    }
    writer.write(request(upstream, harness.rpc("initialize", params)))
    raw = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    await reader.readexactly(int(raw.partition("content-length:")[2].split("\r\n")[0]))
    session = raw.partition("mcp-session-id:")[2].split("\r\n")[0].strip()
    writer.write(request(upstream, harness.rpc("notifications/initialized", rpc_id=None), session))
    await _accepted(reader)
    return session


async def _accepted(reader: asyncio.StreamReader) -> None:
    raw = await reader.readuntil(b"\r\n\r\n")
    if b" 202 " not in raw.split(b"\r\n", 1)[0]:
        raise ConnectionError(raw.decode())


async def _question(stream: Pair, post: Pair, upstream: int, session: str, tag: str) -> bool:
    """True if the answer came to the server and its result to us."""
    reader, writer = stream
    number = next(_numbers)
    writer.write(request(upstream, call(number, do="ask", tag=tag), session))
    await wire.head(reader)
    asked = json.loads((await wire.chunk(reader)).partition(b"data: ")[2])
    if (asked.get("method"), asked.get("id")) != ("elicitation/create", tag):
        raise ConnectionError(f"not the question: {asked}")
    said = {"action": "accept", "content": {"size": tag}}
    body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": said}).encode()
    post[1].write(request(upstream, body, session))
    await _accepted(post[0])
    heard = wire.Heard()
    while data := await wire.chunk(reader):
        heard.take(data)
    result = json.loads(heard.body.partition(b"data: ")[2])
    got = json.loads(result["result"]["content"][0]["text"])
    return bool(result["id"] == number and got == said)


# -- a stream that the upstream cuts ------------------------------------------------------------

CUTS = ("closed", "inside a chunk", "reset")
NO_LENGTH = "no length"


async def cuts(made: Scene) -> list[Bar]:
    """The upstream ends the connection in the middle of an event."""
    step("streams that the upstream cuts")
    rows, bad = [], []
    for how in (*CUTS, NO_LENGTH):
        direct, bare, ours = [await _cut(way, made.upstream, how) for way in made.ways]
        outcome = await _outcome(made)
        rows.append((how, direct, bare, ours, outcome))
        if how in CUTS and (not ours.startswith("1 event, then cut") or outcome != "upstream_gone"):
            bad.append(how)
    table(("cut in mid-event", "direct client sees", "through mitmdump", "through callerid", "row"), rows)
    return [Bar("cut streams without an honest row and a clean error", len(bad), 0, 0, f"of {len(CUTS)}")]


async def _cut(way: Way, upstream: int, how: str) -> str:
    """What the client saw."""
    pair = await connect(way, upstream)
    heard = wire.Heard()
    number = next(_numbers)
    pair[1].write(request(upstream, call(number, do="cut", how=how)))
    try:
        await asyncio.wait_for(wire.listen(pair[0], heard), 10)
        end = "a well-formed end"
    except wire.Cut:
        end = "cut"
    except TimeoutError:
        end = "nothing more for 10 s"
    close([pair])
    tail = f" and {len(heard.tail)} bytes" if heard.tail else ""
    return f"{len(heard.events)} event{tail}, then {end}"


async def _outcome(made: Scene) -> str:
    """Of the last row, once it has one."""
    for _ in range(100):
        [row] = made.proxy.rows("seq = (select max(seq) from calls)")
        if row["outcome"] != "unknown":
            break
        await asyncio.sleep(0.05)
    return str(row["outcome"])


# -- throughput ---------------------------------------------------------------------------------


async def bursts(made: Scene) -> list[Bar]:
    """One stream, and many at once, as fast as they are taken: events per second, CPU per event."""
    rows = []
    for name, streams, events in (("1 stream", 1, FAST), (f"{PARALLEL} streams", PARALLEL, EACH)):
        rate: list[list[float]] = [[], [], []]
        cpu: list[list[float]] = [[], [], []]
        opened = [[await connect(way, made.upstream) for _ in range(streams)] for way in made.ways]
        for turn in range(BURSTS + 1):
            step(f"throughput: {name}, round {turn} of {BURSTS}")
            for place, way in enumerate(made.ways):
                found = await _burst(opened[place], way, made.upstream, events if turn else 5)
                if turn:  # the first is to be warm
                    rate[place].append(found[0])
                    cpu[place].append(found[1])
        for pairs in opened:
            close(pairs)
        for place, way in enumerate(made.ways):
            ratios = [a / b for a, b in zip(cpu[place], cpu[1], strict=True)] if place else []
            spent = f"{statistics.median(cpu[place]):.0f}" if place else "-"
            each = " ".join(f"{one:.0f}" for one in cpu[place]) if place else "-"
            ratio = f"{statistics.median(ratios):.2f}" if place else "-"
            rows.append((f"{name}, {way.name}", f"{statistics.median(rate[place]):.0f}", spent, each, ratio))
    table(("as fast as they go", "events per second", "CPU per event (µs)", "of each round", "ratio"), rows)
    return []


async def _burst(pairs: list[Pair], way: Way, upstream: int, events: int) -> tuple[float, float]:
    """Events per second, and µs of the proxy's CPU per event."""
    before, start = cpu_seconds(way.process), time.perf_counter()
    plays = (wire.count(pair, upstream, next(_numbers), do="burst", count=events) for pair in pairs)
    heard = await asyncio.gather(*plays)
    seconds, used = time.perf_counter() - start, cpu_seconds(way.process) - before
    if set(heard) != {events + 1}:
        raise AssertionError(f"not {events + 1} events in each stream: {sorted(set(heard))}")
    total = sum(heard)
    return total / seconds, used / total * 1e6
