"""Requests to HTTP APIs: attributed, decided and recorded as MCP is, and forwarded as they were judged.

The walk's own part for servers of kind ``http``. The rooms are the same; what differs is how a request is
read (``mcp.httpcall``) and how it is answered (``mcp.problems``). There are no sessions and no handles here:
an API that keeps state for the shared credential keeps it for everybody who may use it.
"""

from __future__ import annotations

from dataclasses import replace

from callerid.config import Server
from callerid.mcp.classify import classify
from callerid.mcp.httpcall import HttpCall, read_call, shown_method
from callerid.mcp.httpheads import left_behind, shown
from callerid.mcp.oauthdoor import is_oauth
from callerid.model import Caller, Exchange, Malformed, Reason, Rejected, Verdict
from callerid.proxy.conversations import Conversation
from callerid.proxy.crediting import credential, stray_token
from callerid.proxy.deciding import Place, decide
from callerid.proxy.facts import Facts, Ruling
from callerid.proxy.rooms import Rooms
from callerid.proxy.rows import Rows, shown_path
from callerid.proxy.sidedoor import injects, passes


def judge(facts: Facts, rows: Rows, caller: Caller | Rejected, server: Server) -> Ruling:
    """The ruling on one request to a listed HTTP API."""
    rows.server_entry = server
    rooms = rows.rooms
    if facts.upgrade:
        return _refuse_upgrade(facts, rows)
    call = _read(facts, rooms, server)
    if isinstance(caller, Rejected):
        found = call if isinstance(call, Malformed) else _exchange(call)
        return rows.refuse(found, caller.reason, caller.detail)
    if isinstance(call, Malformed):
        return rows.refuse(call, call.reason, call.detail)
    read = _exchange(call)
    place = Place(rooms=rooms, caller=caller, server=server, conversation=Conversation(), now=rows.now)
    if stray_token(replace(facts, path=call.target), read, place):
        detail = "a token of ours would have left in the URL or body"
        return rows.refuse(read, Reason.TOKEN_IN_REQUEST, detail)
    if injects(server, rooms) and _is_login(facts, call):
        return rows.refuse(read, Reason.OAUTH_WITHHELD, "a login at the server itself was asked for")
    behind = shown(left_behind(facts.headers, server.headers), passes=_passing(server, rooms))
    findings = [replace(finding, detail=finding.detail or behind) for finding in decide(call.message, place)]
    if any(finding.decision.verdict is not Verdict.ALLOW for finding in findings):
        return rows.deny(findings, False)
    crowded = rooms.in_flight.flaw(caller.principal.subject, read.messages, rooms.limits)
    if crowded is not None:
        return rows.refuse(read, Reason.TOO_MANY_IN_FLIGHT, crowded)
    rows.target = call.target
    return credential(replace(facts, path=call.target), rows, read, findings, place)


def seen(facts: Facts, rows: Rows) -> Exchange | Malformed:
    """What a request says that is refused whatever it says: read as its server reads it, for the row."""
    rooms, server = rows.rooms, rows.entry
    if server is None or server.kind != "http":
        return classify(facts.http_method, facts.headers, facts.body, **rooms.limits.reading)
    call = _read(facts, rooms, server)
    if isinstance(call, Malformed):
        return call
    # The path may have more than one reading, so it stands there as rows show such a path.
    message = replace(call.message, name=f"{facts.http_method} {shown_path(facts.path)}")
    return _exchange(replace(call, message=message))


def _read(facts: Facts, rooms: Rooms, server: Server) -> HttpCall | Malformed:
    return read_call(
        facts.http_method,
        facts.path,
        facts.headers,
        facts.body,
        listed=server.headers,
        max_body=rooms.limits.body,
        max_depth=rooms.limits.depth,
        max_digits=rooms.limits.digits,
    )


def _is_login(facts: Facts, call: HttpCall) -> bool:
    """Whether the call would get its caller a token that the shared credential stands for."""
    path, has_body = facts.path.partition("?")[0], bool(facts.body)
    return is_oauth(facts.http_method, path, call.message.arguments, has_body=has_body)


def _passing(server: Server, rooms: Rooms) -> tuple[str, ...]:
    """What goes on besides, where the caller's own credential does: the proof that goes with it."""
    return ("dpop",) if passes(server, rooms) else ()


def _exchange(call: HttpCall) -> Exchange:
    return Exchange(messages=(call.message,), batch=False, body=call.body, protocol=None)


def _refuse_upgrade(facts: Facts, rows: Rows) -> Ruling:
    reason, method = Reason.UPGRADE_REFUSED, f"http/{shown_method(facts.http_method)}"
    found = Malformed(reason=reason, detail="", http_status=403, rpc_code=0, method=method)
    return rows.refuse(found, reason, "no protocol but HTTP is spoken to this server")
