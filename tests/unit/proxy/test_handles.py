"""Whose session, task, request state or event it is."""

from __future__ import annotations

from callerid.proxy.handles import EVENTS, Handles, Owner, Sort, handle

ALICE, BOB = Owner("user:alice@corp.example"), Owner("user:bob@corp.example")


def session(text: str) -> str:
    return handle(Sort.SESSION, text)


def test_a_handle_belongs_to_whom_the_server_gave_it_last() -> None:
    """A server that counts its tasks from 1 after a restart has forgotten the old ones."""
    handles = Handles()
    assert handles.owner("files", session("s-1")) is None
    handles.claim("files", session("s-1"), ALICE)
    assert handles.owner("files", session("s-1")) == ALICE
    handles.claim("files", session("s-1"), BOB)
    assert handles.owner("files", session("s-1")) == BOB


def test_the_same_id_at_another_server_is_another_handle() -> None:
    handles = Handles()
    handles.claim("files", session("s-1"), ALICE)
    assert handles.owner("tickets", session("s-1")) is None


def test_the_same_text_of_another_sort_is_another_handle() -> None:
    assert len({handle(sort, "1") for sort in Sort}) == len(Sort)


def test_the_one_used_longest_ago_is_forgotten_first() -> None:
    handles = Handles(limit=2)
    handles.claim("files", "a", ALICE)
    handles.claim("files", "b", BOB)
    assert handles.owner("files", "a") == ALICE
    handles.claim("files", "c", BOB)
    assert handles.owner("files", "b") is None
    assert handles.owner("files", "a") == ALICE


def test_what_was_forgotten_is_recalled_once_from_the_audit() -> None:
    asked: list[tuple[str, str]] = []

    def recall(server: str, known_as: str) -> Owner | None:
        asked.append((server, known_as))
        return ALICE if known_as == "a" else None

    handles = Handles(recall)
    assert handles.owner("files", "a") == ALICE
    assert handles.owner("files", "a") == ALICE
    assert handles.owner("files", "b") is None
    assert asked == [("files", "a"), ("files", "b")]


def test_an_event_was_sent_to_one_caller_in_one_session_only() -> None:
    handles = Handles()
    handles.saw_event("files", "s", "alice", "1")
    assert handles.was_sent("files", "s", "alice", "1")
    assert not handles.was_sent("files", "s", "bob", "1")
    assert not handles.was_sent("files", "t", "alice", "1")
    assert not handles.was_sent("wiki", "s", "alice", "1")
    assert not handles.was_sent("files", "s", "alice", "2")


def test_events_are_bounded_for_each_caller_by_itself() -> None:
    handles = Handles()
    handles.saw_event("files", "s", "bob", "1")
    for number in range(EVENTS + 2):
        handles.saw_event("files", "s", "alice", str(number))
    seen = [handles.was_sent("files", "s", "alice", str(n)) for n in (0, 1, 2, EVENTS + 1)]
    assert seen == [False, False, True, True]
    assert handles.was_sent("files", "s", "bob", "1")


def test_a_handle_is_not_the_id_itself() -> None:
    assert "s-secret" not in session("s-secret")
    assert session("\udcff") != session("\udcfe")
