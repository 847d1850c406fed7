"""Whether a request uses only what is its caller's: its session, and the stream that it resumes (law 9)."""

from __future__ import annotations

from dataclasses import dataclass

from callerid.config import Server
from callerid.mcp.methods import MODERN
from callerid.model import Caller, Reason
from callerid.proxy.facts import Facts
from callerid.proxy.handles import Sort, endpoint_handle, handle
from callerid.proxy.rooms import Rooms


@dataclass(frozen=True, slots=True)
class NotYours:
    """What of another's it uses, or of nobody's."""

    reason: Reason
    detail: str


def session_of(facts: Facts, caller: Caller, server: Server, rooms: Rooms, protocol: str | None) -> str:
    """The handle of the session that a request belongs to, "" if it belongs to none.

    A message URL of 2024-11-05 is a session whatever else is said. 2026-07-28 has none: the header means
    nothing there, and does not go on.
    """
    if _is_message_url(facts, server, rooms):
        return endpoint_handle(caller.principal.subject, facts.path)
    stated = None if protocol in MODERN else facts.session()
    return stated or ""


def _is_message_url(facts: Facts, server: Server, rooms: Rooms) -> bool:
    """Whether this POST is to a message URL of 2024-11-05, or to what a server could take for one.

    Routers differ in case, in slashes and in what may follow a path, and find the session in the query. So
    every path that begins like an announced one counts, and the server's own only with a query.
    """
    bare, query = facts.path.partition("?")[::2]
    if facts.http_method != "POST" or not rooms.servers.is_endpoint(server, bare):
        return False
    return bare != server.path or bool(query)


def not_yours(facts: Facts, caller: Caller, server: Server, rooms: Rooms, session: str) -> NotYours | None:
    """What a verified caller's request uses that is not its own; None if there is nothing."""
    subject = caller.principal.subject
    for known_as in (session, session and facts.session()):
        if not known_as:
            continue
        owner = rooms.handles.owner(server.id, known_as)
        if owner is None and known_as == endpoint_handle(subject, facts.path):
            owner = rooms.handles.owner(server.id, handle(Sort.SESSION, facts.path))
            owner = owner if owner is not None and owner.subject != subject else None
        if owner is None:
            return NotYours(Reason.SESSION_UNKNOWN, "nobody is known to own this session")
        if owner.subject != subject:
            return NotYours(Reason.SESSION_NOT_YOURS, "the session belongs to another principal")
    resumed = facts.values("last-event-id")
    if not resumed:
        return None
    if len(resumed) > 1 or not rooms.handles.was_sent(server.id, session, subject, resumed[0]):
        return NotYours(Reason.EVENT_NOT_YOURS, "this event was not sent to this caller in this session")
    return None
