"""Scoped tokens: whether 100,000 of them cost a call more than ten, and how soon a revocation is felt."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.calls import SMALLEST, call, load, one
from bench.report import Bar, machine, share, step, table
from bench.scene import Way, connect, cpu_seconds, evidence, start_origin
from callerid.identity import tokens
from tests.e2e import harness
from tests.e2e.house import House, carried, open_house
from tests.e2e.stand import Stand
from tests.e2e.warm import Warm

FEW, MANY = 10, 100_000
CONNECTIONS = 4
TIMES = 5
LAW = 2.0
ALICE = "user:alice@corp.example"


@dataclass
class Place:
    """A proxy with so many tokens in its registry; ``texts`` are all of them."""

    way: Way
    texts: list[str]
    each_new: list[float] = field(default_factory=list)


def _fill(proxy: harness.Proxy, count: int) -> list[str]:
    """``count`` tokens of Alice, entered at once."""
    texts = [tokens.mint(os.urandom(tokens.RANDOM_BYTES)) for _ in range(count)]
    digests = [tokens.digest(text) for text in texts]
    now = time.time_ns() // 1000
    rows = [(tokens.token_id(one), one, ALICE, now, "bench", now + 86_400_000_000) for one in digests]
    with harness.registry(proxy) as registry:
        registry._connection.execute("BEGIN IMMEDIATE")
        registry._connection.executemany(
            "INSERT OR IGNORE INTO tokens (id, sha256, principal, created_us, created_by, expires_us)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            rows,
        )
        registry._connection.execute("COMMIT")
        known = {row[0] for row in registry._connection.execute("SELECT sha256 FROM tokens")}
    return [text for text, digest in zip(texts, digests, strict=True) if digest in known]


@contextlib.contextmanager
def _places() -> Iterator[tuple[int, list[Place]]]:
    """The upstream's port, and a proxy with few tokens and one with many."""
    with tempfile.TemporaryDirectory(prefix="callerid-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        pki = harness.Pki(folder / "pki")
        upstream = start_origin(stack, folder, pki)
        made = []
        for count in (FEW, MANY):
            step(f"tokens: a proxy with {count}")
            rules = harness.standard_rules(upstream)
            proxy = harness.Proxy(
                folder / str(count), rules, ca=pki.ca, environ={"THINGS_SECRET": harness.SECRET}
            ).start()
            stack.callback(proxy.stop)
            texts = _fill(proxy, count)
            if proxy.process is None:
                raise RuntimeError("the proxy is gone")
            made.append(Place(Way(f"{count:,} tokens", proxy.process.pid, proxy.port, proxy.ca_cert), texts))
        yield upstream, made


async def _calls(upstream: int, places: list[Place], rounds: int, calls: int) -> None:
    fresh = [itertools.cycle(place.texts) for place in places]
    for number in range(rounds):
        step(f"tokens: round {number + 1} of {rounds}")
        for place in places:
            for text in place.texts[:FEW]:  # the same ten callers, over and over
                way = replace(place.way, authorization=evidence(text))
                await load(way, upstream, calls // FEW, CONNECTIONS)
        for place, texts in zip(places, fresh, strict=True):
            await _each_another(upstream, place, texts, calls // 2)


async def _each_another(upstream: int, place: Place, texts: Iterator[str], calls: int) -> None:
    """Each call with the next token: with many of them nothing is remembered."""
    pair = await connect(place.way, upstream)
    before = 0.0
    for number in range(calls + 1):
        if number == 1:
            before = cpu_seconds(place.way.process)
        headers = {"X-Callerid-Token": next(texts)}
        await one(*pair, harness.post(f"localhost:{upstream}", "/mcp", call(number), headers))
    place.each_new.append((cpu_seconds(place.way.process) - before) / calls)
    pair[1].close()


def _revocations(house: House) -> list[tuple[str, list[float], list[float]]]:
    """Per kind: seconds from the end of the entry to a refused request, and to the cut of a stream."""
    found = []
    for kind in ("token", "principal", "certificate"):
        refused, cut = [], []
        for _ in range(TIMES):
            token, leaf = harness.mint(house.proxy), "alice" if kind == "certificate" else None
            stand = Stand(house, connect=None if leaf else {"X-Callerid-Token": token}, leaf=leaf)
            subject = house.leaves["alice"].credential_id if leaf else ALICE
            with harness.registry(house.proxy) as registry:
                if kind == "token":
                    registry.revoke(harness.token_id(token), now_us=time.time_ns() // 1000, by="bench")
                else:
                    registry.block(subject, now_us=time.time_ns() // 1000, by="bench")
                done = time.monotonic()
                answer = house.ask(**({"context": house.shows(leaf)} if leaf else carried(token, "x-token")))
                if answer.answer is None or answer.answer.json["result"]["isError"] is not True:
                    raise AssertionError("not refused")
                refused.append(time.monotonic() - done)
                cut.append(stand.await_cut() - done)
                registry.unblock(subject)
            stand.close()
        found.append((kind, refused, cut))
    return found


def measure(rounds: int, calls: int) -> list[Bar]:
    """Print the tables of tokens; returns their bars."""
    with _places() as (upstream, places):
        asyncio.run(_calls(upstream, places, rounds, calls))
    with tempfile.TemporaryDirectory(prefix="callerid-bench-") as name:
        warm = Warm()
        try:
            with open_house(Path(name) / "house", harness.Pki(Path(name) / "pki"), warm) as house:
                step("tokens: revocations")
                revocations = _revocations(house)
        finally:
            warm.close()
    print(f"\n{machine()}")
    few, many = places
    table(
        ("registry with", "CPU per call (µs)", "p50 ms", "p99 ms", "each call another token (µs)"),
        [
            (
                place.way.name,
                f"{_per_call(place) * 1e6:.0f}",
                *(f"{share(place.way.latency, part) * 1000:.2f}" for part in (0.5, 0.99)),
                f"{statistics.median(place.each_new) * 1e6:.0f}",
            )
            for place in places
        ],
    )
    table(
        ("seconds after the entry", "next request refused, median", "stream cut, median", "slowest"),
        [
            (kind, f"{statistics.median(refused):.2f}", f"{statistics.median(cut):.2f}", f"{max(cut):.2f}")
            for kind, refused, cut in revocations
        ],
    )
    ratios = [more / less for less, more in zip(few.way.cpu, many.way.cpu, strict=True)]
    noise = max(statistics.stdev(ratios) / len(ratios) ** 0.5, SMALLEST)
    slowest = max(max(cut) for _, _, cut in revocations)
    return [
        Bar(f"CPU of a call, {MANY:,} tokens / {FEW}", _per_call(many) / _per_call(few), noise, 1.0, ""),
        Bar("a revocation, until its stream is cut", slowest, 0, LAW, "s"),
    ]


def _per_call(place: Place) -> float:
    return statistics.median(place.way.cpu)
