"""Killed, locked out, out of space: a call that arrived has its row, one without a row does not arrive.

``CALLERID_CRASH_ROUNDS`` says how often the proxy is killed under load; 20 by default.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from tests.e2e import harness as h
from tests.e2e.warm import Warm

ROUNDS = int(os.environ.get("CALLERID_CRASH_ROUNDS", "20"))
CLIENTS = 4


@dataclass
class Load:
    """Clients that call until their proxy is gone. Every call carries a mark of its own."""

    proxy: h.Proxy
    authority: str
    token: str
    sent: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)

    def run(self, name: str, over: threading.Event) -> None:
        number = 0
        while not over.is_set():
            with suppress(OSError, ValueError, IndexError, ConnectionError):
                client = self.proxy.tunnel(self.authority, headers={"X-Callerid-Token": self.token})
                with_client(client, self, name, number)
            number += 100

    def turn(self, client: h.RawClient, mark: str) -> bool:
        """One call that is allowed, one that is denied; False when the proxy is gone."""
        self.sent.add(mark)
        client.send(h.post(self.authority, "/mcp", h.tool("read_thing", {"mark": mark})))
        if client.read() is None:
            return False
        self.answered.append(mark)
        client.send(h.post(self.authority, "/mcp", h.tool("drop_thing", {"mark": mark})))
        denied = client.read()
        if denied is None:
            return False
        self.refused.append(denied.json["result"]["_meta"]["callerid/decision"])
        return True


def with_client(client: h.RawClient, load: Load, name: str, number: int) -> None:
    try:
        while load.turn(client, f"{name}-{number}"):
            number += 1
    finally:
        client.close()


def marks(seen: list[h.Seen]) -> set[str]:
    """The marks of the calls that arrived whole; the kill may cut one in two on the wire."""
    whole = [one for one in seen if one.header("content-length") == str(len(one.body))]
    return {one.message["params"]["arguments"]["mark"] for one in whole}


def audit(proxy: h.Proxy, query: str) -> list[tuple[object, ...]]:
    """A look into the file itself, as an analyst opens it."""
    db = sqlite3.connect(proxy.home / "audit.db", timeout=h.DEADLINE)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def test_a_proxy_killed_under_load_never_lets_a_call_through_without_its_row(
    tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm
) -> None:
    """Law 1, by SQLite's own method: pull the plug at a random point, look, go on."""
    upstream = h.Upstream(pki.server_context())
    proxy = h.WarmProxy(
        warm, tmp_path_factory.mktemp("crash"), h.standard_rules(upstream.port), ca=pki.ca,
        environ={"THINGS_SECRET": h.SECRET},
    )  # fmt: skip
    load: Load | None = None
    for number in range(ROUNDS):
        proxy.start()
        if load is None:
            load = Load(proxy, f"localhost:{upstream.port}", h.mint(proxy))
        one_round(proxy, upstream, load, number)
    assert load is not None
    allowed = {
        json.loads(str(arguments))["mark"]
        for (arguments,) in audit(
            proxy, "select arguments from calls where verdict = 'allow' and tool = 'read_thing'"
        )
    }
    arrived = marks(upstream.seen)
    assert len(arrived) >= ROUNDS
    assert arrived <= allowed
    assert set(load.answered) <= allowed
    assert allowed <= load.sent
    told = {event for (event,) in audit(proxy, "select event_id from calls where tool = 'drop_thing'")}
    assert set(load.refused) <= told
    proxy.start()
    final = h.trial(proxy, upstream)
    client = proxy.tunnel(load.authority, headers={"X-Callerid-Token": load.token})
    assert load.turn(client, "final")
    client.close()
    h.wait_for(lambda: final.rows[0]["outcome"] == "ok", "the last call's outcome")
    assert proxy.stop() == 0
    upstream.close()
    kinds = [kind for (kind,) in audit(proxy, "select kind from event")]
    assert kinds.count("started") == ROUNDS + 1
    assert kinds.count("stopped") == 1
    # Calls whose end was lost are told apart from calls that ended, by the start after the crash.
    counted = sum(
        json.loads(str(d))["calls"]
        for (d,) in audit(proxy, "select detail from event where kind = 'recovered'")
    )
    [(unknown,)] = audit(proxy, "select count(*) from calls where outcome = 'unknown'")
    assert counted == unknown


def one_round(proxy: h.Proxy, upstream: h.Upstream, load: Load, number: int) -> None:
    """Load, kill -9 while the n-th call of this round is at the upstream, and a look at the file."""
    assert proxy.process is not None
    after = random.Random(number).randint(1, 30)
    seen = 0
    gate = threading.Lock()
    killed = threading.Event()

    def answer(request: h.Seen) -> h.Reply:
        nonlocal seen
        with gate:
            seen += 1
            if seen == after:
                os.kill(proxy.process.pid, signal.SIGKILL)  # type: ignore[union-attr]
                killed.set()
        return h.call_tool(request)

    upstream.answer = answer
    threads = [
        threading.Thread(target=load.run, args=(f"r{number}c{client}", killed), daemon=True)
        for client in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    assert killed.wait(h.DEADLINE)
    for thread in threads:
        thread.join(h.DEADLINE)
        assert not thread.is_alive()
    assert proxy.process.wait(h.DEADLINE) == -signal.SIGKILL
    proxy.process = None
    assert audit(proxy, "pragma integrity_check") == [("ok",)]


# -- the audit cannot be written -----------------------------------------------------------------


@dataclass
class Site:
    """A running proxy whose audit the tests take away and give back."""

    proxy: h.WarmProxy
    upstream: h.Upstream
    token: str

    def call(self, tool: str = "read_thing") -> h.Answer:
        authority = f"localhost:{self.upstream.port}"
        client = self.proxy.tunnel(authority, headers={"X-Callerid-Token": self.token})
        client.sock.settimeout(8)  # RECORD_TIMEOUT is 2 s: law 1 asks for a bounded time
        client.send(h.post(authority, "/mcp", h.tool(tool, rpc_id=0)))
        answer = client.read()
        client.close()
        assert answer is not None
        return answer

    def works(self) -> bool:
        return self.call().status == 200


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Site]:
    upstream = h.Upstream(pki.server_context())
    proxy = h.WarmProxy(
        warm, tmp_path_factory.mktemp("audit"), h.standard_rules(upstream.port), ca=pki.ca,
        environ={"THINGS_SECRET": h.SECRET},
    )  # fmt: skip
    with h.running(proxy):
        yield Site(proxy, upstream, h.mint(proxy))
    upstream.close()


@contextmanager
def locked(site: Site) -> Iterator[None]:
    """Another process holds the database for itself."""
    script = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "db.execute('BEGIN EXCLUSIVE'); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(site.proxy.home / "audit.db")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            holder.stdin.close()
            holder.wait(h.DEADLINE)


@contextmanager
def moved_away(site: Site) -> Iterator[None]:
    path, aside = site.proxy.home / "audit.db", site.proxy.home / "audit.aside"
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


@contextmanager
def full(site: Site) -> Iterator[None]:
    """No file of the proxy can grow any more, as on a full disk."""
    assert site.proxy.process is not None
    pid = site.proxy.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


FAILURES: dict[str, Callable[[Site], object]] = {"locked": locked, "moved away": moved_away, "full": full}


@pytest.mark.parametrize("failure", FAILURES)
def test_without_an_audit_calls_are_refused_in_time_and_served_again_after(site: Site, failure: str) -> None:
    assert site.works()
    before = len(site.upstream.seen)
    with FAILURES[failure](site):  # type: ignore[attr-defined]
        for tool in ("read_thing", "drop_thing"):
            answer = site.call(tool)
            assert answer.status == 503
            assert answer.json["id"] == 0
            assert answer.json["error"]["data"]["reason"] == "audit_unavailable"
            assert h.SECRET.encode() not in answer.body
    assert len(site.upstream.seen) == before
    h.wait_for(site.works, "calls served again")
    # The refusal that was one anyway is written late; the allowance that was refused is no allowance.
    h.wait_for(lambda: site.proxy.rows("tool = 'drop_thing'"), "the row of the denied call")
    h.wait_for(lambda: not site.proxy.rows("outcome = 'unknown'"), "the outcomes")
    for row in site.proxy.rows("verdict = 'allow'"):
        assert row["outcome"] == "ok" or (row["outcome"] == "not_sent" and "audit" in row["detail"]), row
    arrived = len(site.upstream.seen)
    allowed = site.proxy.rows("verdict = 'allow' and outcome <> 'not_sent'")
    assert len(allowed) == arrived
    assert audit(site.proxy, "pragma integrity_check") == [("ok",)]


def test_what_could_not_be_recorded_is_counted(site: Site) -> None:
    """Law 2 where it cannot hold: the file says that rows are missing, how many, and since when."""
    with full(site):
        for _ in range(3):
            assert site.call().status == 503
    h.wait_for(site.works, "calls served again")

    def told() -> bool:
        details = audit(site.proxy, "select detail from event where kind = 'unrecorded'")
        return any(json.loads(str(detail)).get("decision", 0) >= 1 for (detail,) in details)

    h.wait_for(told, "an event that counts the lost rows")


def test_many_calls_at_once_without_an_audit_are_all_answered(site: Site) -> None:
    before = len(site.upstream.seen)
    answers: list[h.Answer] = []
    with locked(site):
        threads = [
            threading.Thread(target=lambda: answers.append(site.call()), daemon=True) for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(h.DEADLINE)
    assert [answer.status for answer in answers] == [503] * 12
    assert len(site.upstream.seen) == before
    h.wait_for(site.works, "calls served again")
