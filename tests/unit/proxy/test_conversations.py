"""What is open between one caller and one server beyond a single exchange."""

from __future__ import annotations

from dataclasses import replace

import pytest

from callerid.mcp.asks import Ask, Place
from callerid.model import (
    DecisionRecord,
    Kind,
    Message,
    MessageType,
    Outcome,
    OutcomeRecord,
    Reason,
    Verdict,
)
from callerid.proxy.conversations import (
    AWAIT_US,
    EACH,
    QUESTIONS,
    SMALL,
    Asked,
    Conversation,
    Conversations,
    Posed,
    Settled,
    Waiting,
    kept,
    key_of,
    mark_of,
    settle,
    slim_ask,
)


def record(event_id: str = "e", time_us: int = 0) -> DecisionRecord:
    return DecisionRecord(
        event_id=event_id, time_us=time_us, verdict=Verdict.ALLOW, reason=Reason.GRANTED,
        method="tools/call", server="files", upstream="files:443",
    )  # fmt: skip


def ask(key: int) -> Ask:
    return Ask(method="elicitation/create", arguments={}, key=key, place=Place.REQUEST)


def asked(key: int, waiting: Waiting | None = None) -> Asked:
    return Asked(ask(key), mark_of(ask(key)), waiting, None, 0)


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
        conversation.expect(Posed(ask(number), None), "tools/call", "a")
    assert len(conversation.used) == len(conversation.inputs) == EACH
    assert key_of(0) not in conversation.used


def test_a_server_that_asks_too_much_is_not_remembered_it_is_refused() -> None:
    conversation = Conversation()
    for number in range(QUESTIONS):
        conversation.ask(asked(number))
    conversation.ask(asked(0))
    with pytest.raises(ValueError, match="too much"):
        conversation.ask(asked(QUESTIONS))


def test_what_was_not_shown_was_not_asked() -> None:
    conversation = Conversation()
    conversation.ask(asked(1, Waiting(record("a"))))
    conversation.ask(asked(2, Waiting(record("b"))))
    conversation.expect(Posed(ask(3), "a"), "tools/call", "x")
    conversation.unask(frozenset({"a"}))
    assert (list(conversation.asked), list(conversation.inputs)) == ([key_of(2)], [])


def test_large_arguments_are_not_kept() -> None:
    message = Message(
        type=MessageType.REQUEST, method="tools/call", kind=Kind.TOOL, name="x", arguments={"a": "b"}
    )
    assert kept(message, 100) is message
    assert kept(message, SMALL + 1).arguments == {}
    large = Ask(method="m", arguments={"a": "x" * (SMALL + 1), "b": 1}, key=1, place=Place.REQUEST)
    assert slim_ask(large).arguments == {"b": 1}
    assert mark_of(large) != mark_of(slim_ask(large))


def test_one_caller_does_not_push_out_another() -> None:
    all_of_them = Conversations(each_subject=2)
    hers = all_of_them.of("files", "s", "alice")
    for number in range(5):
        all_of_them.of("files", str(number), "bob")
    assert all_of_them.of("files", "s", "alice") is hers


def test_what_is_awaited_too_long_is_overdue_once() -> None:
    all_of_them = Conversations()
    conversation = all_of_them.of("files", "", "alice")
    conversation.waiting[1] = Waiting(record("old", 0))
    conversation.waiting[2] = Waiting(record("new", 10))
    conversation.ask(asked(3, Waiting(record("question", 0))))
    conversation.ask(replace(asked(4, Waiting(record("refused", 0))), refused=Reason.NO_GRANT))
    conversation.ask(replace(asked(5), since_us=10))
    gone = [waiting.record.event_id for waiting in all_of_them.overdue(AWAIT_US + 5)]
    assert gone == ["old", "question"]
    assert [waiting.record.event_id for waiting in all_of_them.overdue(AWAIT_US + 5)] == []
    assert list(conversation.waiting) == [2]
    assert list(conversation.asked) == [key_of(5)]  # a ping that is not late


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
