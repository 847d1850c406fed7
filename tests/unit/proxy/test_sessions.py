"""Whose session it is."""

from __future__ import annotations

from callerid.proxy.sessions import Sessions, handle

ALICE, BOB = "user:alice@corp.example", "user:bob@corp.example"


def test_a_session_belongs_to_whom_it_was_given_first() -> None:
    sessions = Sessions()
    assert sessions.owner("files", handle("s-1")) is None
    sessions.claim("files", handle("s-1"), ALICE)
    sessions.claim("files", handle("s-1"), BOB)
    assert sessions.owner("files", handle("s-1")) == ALICE


def test_the_same_id_at_another_server_is_another_session() -> None:
    sessions = Sessions()
    sessions.claim("files", handle("s-1"), ALICE)
    assert sessions.owner("tickets", handle("s-1")) is None


def test_the_one_used_longest_ago_is_forgotten_first() -> None:
    sessions = Sessions(limit=2)
    sessions.claim("files", "a", ALICE)
    sessions.claim("files", "b", BOB)
    assert sessions.owner("files", "a") == ALICE
    sessions.claim("files", "c", BOB)
    assert sessions.owner("files", "b") is None
    assert sessions.owner("files", "a") == ALICE


def test_a_handle_is_not_the_session_id() -> None:
    assert "s-secret" not in handle("s-secret")
    assert handle("\udcff") != handle("\udcfe")
