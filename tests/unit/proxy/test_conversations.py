"""What is open between one caller and one server beyond a single exchange."""

from __future__ import annotations

from callerid.mcp.asks import Ask, Place
from callerid.model import DecisionRecord, Outcome, OutcomeRecord, Reason, Verdict
from callerid.proxy.conversations import (
    AWAIT_US,
    EACH,
    Asked,
    Conversation,
    Conversations,
    Settled,
    Waiting,
    key_of,
    settle,
)


def record(event_id: str = "e", time_us: int = 0) -> DecisionRecord:
    return DecisionRecord(
        event_id=event_id, time_us=time_us, verdict=Verdict.ALLOW, reason=Reason.GRANTED,
        method="tools/call", server="files", upstream="files:443",
    )  # fmt: skip


def ask(key: int) -> Ask:
    return Ask(method="elicitation/create", arguments={}, key=key, place=Place.REQUEST)


def test_conversations_are_apart_by_server_session_and_subject() -> None:
    all_of_them = Conversations()
    first = all_of_them.of("files", "s", "alice")
    assert all_of_them.of("files", "s", "alice") is first
    others = [("wiki", "s", "alice"), ("files", "t", "alice"), ("files", "s", "bob")]
    assert all(all_of_them.of(*other) is not first for other in others)


def test_an_id_is_known_with_its_json_type() -> None:
    conversation = Conversation()
    conversation.use(1)
    assert key_of(1) in conversation.used
    assert key_of("1") not in conversation.used


def test_each_sort_is_bounded() -> None:
    conversation = Conversation()
    for number in range(EACH + 2):
        conversation.use(number)
        conversation.ask(Asked(ask(number), None, None))
        conversation.expect(ask(number), "tools/call", "a")
    assert len(conversation.used) == len(conversation.asked) == len(conversation.inputs) == EACH
    assert key_of(0) not in conversation.used


def test_what_is_awaited_too_long_is_overdue_once() -> None:
    all_of_them = Conversations()
    conversation = all_of_them.of("files", "", "alice")
    conversation.waiting[1] = Waiting(record("old", 0))
    conversation.waiting[2] = Waiting(record("new", 10))
    conversation.ask(Asked(ask(3), Waiting(record("question", 0)), None))
    conversation.ask(Asked(ask(4), Waiting(record("refused", 0)), Reason.NO_GRANT))
    gone = [waiting.record.event_id for waiting in all_of_them.overdue(AWAIT_US + 5)]
    assert gone == ["old", "question"]
    assert [waiting.record.event_id for waiting in all_of_them.overdue(AWAIT_US + 5)] == []
    assert list(conversation.waiting) == [2]


def test_what_a_forgotten_conversation_awaited_is_overdue() -> None:
    all_of_them = Conversations(limit=1)
    all_of_them.of("files", "", "alice").waiting[1] = Waiting(record("lost", 5))
    all_of_them.of("files", "", "bob")
    assert [waiting.record.event_id for waiting in all_of_them.overdue(0)] == ["lost"]


def test_an_outcome_is_written_once() -> None:
    written: list[OutcomeRecord] = []
    waiting = Waiting(record("e", 100), http_status=202)
    settle(waiting, Settled(Outcome.OK, None, "h"), 250, written.append)
    settle(waiting, Settled(Outcome.UPSTREAM_GONE, None), 300, written.append)
    assert [(o.event_id, o.outcome, o.duration_us, o.http_status, o.handle) for o in written] == [
        ("e", Outcome.OK, 150, 202, "h")
    ]
