"""Requests to HTTP APIs: attributed, decided and recorded as MCP is, and forwarded as they were judged.

The walk's own part for servers of kind ``http``. The rooms are the same; what differs is how a request is
read (``mcp.httpcall``) and how it is answered (``mcp.problems``). There are no sessions and no handles here:
an API that keeps state for the shared credential keeps it for everybody who may use it.
"""

from __future__ import annotations

from dataclasses import replace

from callerid.config import Server
from callerid.mcp.httpcall import HttpCall, read_call, shown_method
from callerid.mcp.oauthdoor import is_oauth
from callerid.model import Caller, Exchange, Malformed, Reason, Rejected, Verdict
from callerid.proxy.conversations import Conversation
from callerid.proxy.crediting import credential, stray_token
from callerid.proxy.deciding import Place, decide
from callerid.proxy.facts import Facts, Ruling
from callerid.proxy.rows import Rows
from callerid.proxy.sidedoor import injects


def judge(facts: Facts, rows: Rows, caller: Caller | Rejected, server: Server) -> Ruling:
    """The ruling on one request to a listed HTTP API."""
    rows.server_entry = server
    rooms = rows.rooms
    if facts.upgrade:
        return _refuse_upgrade(facts, rows)
    call = read_call(
        facts.http_method,
        facts.path,
        facts.headers,
        facts.body,
        max_body=rooms.limits.body,
        max_depth=rooms.limits.depth,
        max_digits=rooms.limits.digits,
    )
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
    if is_oauth(facts.path.partition("?")[0], call.message.arguments) and injects(server, rooms):
        return rows.refuse(read, Reason.OAUTH_WITHHELD, "a login at the server itself was asked for")
    findings = decide(call.message, place)
    if any(finding.decision.verdict is not Verdict.ALLOW for finding in findings):
        return rows.deny(findings, False)
    crowded = rooms.in_flight.flaw(caller.principal.subject, read.messages, rooms.limits)
    if crowded is not None:
        return rows.refuse(read, Reason.TOO_MANY_IN_FLIGHT, crowded)
    rows.target = call.target
    return credential(replace(facts, path=call.target), rows, read, findings, place)


def _exchange(call: HttpCall) -> Exchange:
    return Exchange(messages=(call.message,), batch=False, body=call.body, protocol=None)


def _refuse_upgrade(facts: Facts, rows: Rows) -> Ruling:
    reason, method = Reason.UPGRADE_REFUSED, f"http/{shown_method(facts.http_method)}"
    found = Malformed(reason=reason, detail="", http_status=403, rpc_code=0, method=method)
    return rows.refuse(found, reason, "no protocol but HTTP is spoken to this server")
