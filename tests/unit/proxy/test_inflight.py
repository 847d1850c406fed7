"""Places of a principal are taken once and given back, whatever happens to the exchange."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.model import Kind, Message, MessageType
from callerid.proxy.inflight import InFlight, Sort, weigh
from callerid.proxy.limits import DEFAULTS

ALICE, BOB = "user:alice@corp.example", "user:bob@corp.example"
FEW = replace(DEFAULTS, in_flight=2, streams=1)


class Exchange:
    """Anything that can be referred to weakly."""


def said(kind: MessageType, method: str = "tools/call") -> Message:
    return Message(type=kind, method=method, kind=Kind.TOOL, rpc_id=1)


CALL = (said(MessageType.REQUEST),)
LISTEN = (said(MessageType.HTTP, "http/GET"),)


@pytest.mark.parametrize(
    ("sentence", "messages", "takes"),
    [
        ("a call", CALL, (Sort.REQUEST, 1)),
        ("a batch", CALL * 3, (Sort.REQUEST, 3)),
        ("a batch with a notification", (*CALL, said(MessageType.NOTIFICATION)), (Sort.REQUEST, 1)),
        ("a GET stream", LISTEN, (Sort.STREAM, 1)),
        ("a subscription", (said(MessageType.REQUEST, "subscriptions/listen"),), (Sort.STREAM, 1)),
        ("a cancellation", (said(MessageType.NOTIFICATION, "notifications/cancelled"),), (Sort.REQUEST, 0)),
        ("an answer to the server", (said(MessageType.RESPONSE, "response"),), (Sort.REQUEST, 0)),
        ("the end of a session", (said(MessageType.HTTP, "http/DELETE"),), (Sort.REQUEST, 0)),
        ("a download from an API", (replace(LISTEN[0], kind=Kind.HTTP),), (Sort.REQUEST, 1)),
        ("a POST to an API", (replace(LISTEN[0], method="http/PUT", kind=Kind.HTTP),), (Sort.REQUEST, 1)),
    ],
)
def test_an_exchange_takes_what_it_asks_for(
    sentence: str, messages: tuple[Message, ...], takes: tuple[Sort, int]
) -> None:
    assert weigh(messages) == takes, sentence


def test_a_full_principal_is_told_and_another_is_not() -> None:
    table, held = InFlight(), [Exchange(), Exchange()]
    for exchange in held:
        assert table.flaw(ALICE, CALL, FEW) is None
        table.enter(exchange, ALICE, CALL)
    assert table.flaw(ALICE, CALL, FEW) == "2 requests are under way, and 2 may be"
    assert table.flaw(ALICE, LISTEN, FEW) is None
    assert table.flaw(ALICE, (said(MessageType.NOTIFICATION),), FEW) is None
    assert table.flaw(BOB, CALL, FEW) is None
    table.leave(held[0])
    assert table.flaw(ALICE, CALL, FEW) is None


def test_streams_are_counted_apart() -> None:
    table, held = InFlight(), Exchange()
    table.enter(held, ALICE, LISTEN)
    assert table.flaw(ALICE, LISTEN, FEW) == "1 listening streams are under way, and 1 may be"
    assert table.flaw(ALICE, CALL, FEW) is None


def test_an_exchange_that_nobody_ended_gives_its_place_back_when_it_is_gone() -> None:
    table, held = InFlight(), Exchange()
    table.enter(held, ALICE, CALL * 2)
    assert table.count(ALICE, Sort.REQUEST) == 2
    del held
    gc.collect()
    assert table.count(ALICE, Sort.REQUEST) == 0
    assert table.idle()


type Open = dict[int, tuple[Exchange, str, tuple[Message, ...]]]


def _take(
    step: str, table: InFlight, open_now: Open, number: int, subject: str, messages: tuple[Message, ...]
) -> None:
    """One step; no name is left that would keep the exchange."""
    if step == "enter":
        exchange = open_now[number][0] if number in open_now else Exchange()
        table.enter(exchange, subject, messages)
        if weigh(messages)[1]:
            open_now.setdefault(number, (exchange, subject, messages))
        return
    gone = open_now.pop(number, None)
    if gone is not None and step == "leave":
        table.leave(gone[0])
        table.leave(gone[0])


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "leave", "forget"]), st.integers(0, 5), st.sampled_from([ALICE, BOB]),
        st.sampled_from([CALL, CALL * 3, LISTEN, (said(MessageType.NOTIFICATION),)]),
    ),
    max_size=60,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_the_count_is_what_is_open_after_any_steps(
    steps: list[tuple[str, int, str, tuple[Message, ...]]],
) -> None:
    table = InFlight()
    open_now: Open = {}
    for step, number, subject, messages in steps:
        _take(step, table, open_now, number, subject, messages)
        for who in (ALICE, BOB):
            for sort in Sort:
                takes = [weigh(m) for _, owner, m in open_now.values() if owner == who]
                assert table.count(who, sort) == sum(weight for found, weight in takes if found is sort)
    assert len(table._held) <= 4
