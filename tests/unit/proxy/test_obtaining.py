"""A ruling that waits for a person's token: once, and it stays a refusal if there is none."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from mitmproxy import connection
from mitmproxy.test import tflow

from callerid.credentials.minting import Subject, Wanted
from callerid.credentials.secret import Secret
from callerid.mcp.answers import ACCEPTED
from callerid.model import DecisionRecord, Reason, Verdict
from callerid.proxy.facts import Pending, Ruling
from callerid.proxy.obtaining import settled

NOW = 1_800_000_000_000_000
WANTED = Wanted(
    "files", Subject("user:alice@corp.example\ncorp-idp", Secret("eyJ-not-really-a-jwt", label="subject"))
)


def record(reason: Reason, verdict: Verdict = Verdict.ERROR) -> DecisionRecord:
    return DecisionRecord(
        event_id="e-1", time_us=NOW, verdict=verdict, reason=reason, method="tools/call", server="files",
        upstream="files.corp.example:443",
    )  # fmt: skip


class Store:
    """Where the token comes from; only what is asked of it counts here."""

    def __init__(self, client: connection.Client | None = None) -> None:
        self.asked: list[Wanted] = []
        self.leaving = client

    async def obtain(self, wanted: Wanted) -> None:
        self.asked.append(wanted)
        if self.leaving is not None:
            self.leaving.state &= ~connection.ConnectionState.CAN_READ


def pending(store: Any, later: Ruling, times: list[datetime]) -> Ruling:
    def again(now: datetime) -> Ruling:
        times.append(now)
        return later

    return Ruling(
        records=(record(Reason.CREDENTIAL_UNAVAILABLE),),
        answer=ACCEPTED,
        session="session-1",
        target="/v1/things",
        pending=Pending(wanted=WANTED, store=store, again=again),
    )


def client() -> connection.Client:
    made = tflow.tclient_conn()
    made.state = connection.ConnectionState.OPEN
    return made


async def test_the_second_ruling_counts_and_keeps_its_session_and_target() -> None:
    store, times = Store(), []
    later = Ruling(records=(record(Reason.GRANTED, Verdict.ALLOW),), answer=None, body=b"{}")
    found = await settled(pending(store, later, times), client(), lambda: NOW)
    assert store.asked == [WANTED]
    assert times == [datetime.fromtimestamp(NOW / 1e6, UTC)]
    assert (found.records, found.answer, found.body) == (later.records, None, b"{}")
    assert (found.session, found.target) == ("session-1", "/v1/things")


async def test_what_was_judged_the_second_time_is_what_goes_on() -> None:
    """A refusal has no target; without the second one the path would go on as it came (law 4)."""
    later = Ruling(
        records=(record(Reason.GRANTED, Verdict.ALLOW),), answer=None, body=b"", target="/v1/x?q=a%3Bb"
    )
    refused = replace(pending(Store(), later, []), target=None)
    assert (await settled(refused, client(), lambda: NOW)).target == "/v1/x?q=a%3Bb"


async def test_it_is_asked_for_once() -> None:
    store, times = Store(), []
    first = pending(store, Ruling(records=(), answer=None), times)
    found = await settled(pending(store, first, times), client(), lambda: NOW)
    assert len(store.asked) == len(times) == 1
    assert found.answer is ACCEPTED
    assert found.records[0].reason is Reason.CREDENTIAL_UNAVAILABLE


async def test_who_has_left_is_not_called_for() -> None:
    gone, times = client(), []
    later = Ruling(records=(record(Reason.GRANTED, Verdict.ALLOW),), answer=None, body=b"{}")
    found = await settled(pending(Store(gone), later, times), gone, lambda: NOW)
    assert times == []
    assert found.answer is ACCEPTED
    assert [(r.verdict, r.reason) for r in found.records] == [(Verdict.DENY, Reason.CLIENT_GONE)]


async def test_a_ruling_that_lacks_nothing_is_left_alone() -> None:
    ruling = Ruling(records=(), answer=None)
    assert await settled(ruling, client(), lambda: NOW) is ruling


def test_a_ruling_that_is_pending_is_a_refusal_for_whoever_forgets_to_wait() -> None:
    ruling = pending(Store(), Ruling(records=(), answer=None), [])
    assert ruling.answer is not None
    assert all(found.verdict is not Verdict.ALLOW for found in ruling.records)
    assert "eyJ" not in repr(ruling)
