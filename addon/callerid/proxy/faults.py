"""The row and the answer of a request that a fault of ours refuses, or mitmproxy before us (law 3)."""

from __future__ import annotations

from mitmproxy import http

from callerid.mcp import answers, problems
from callerid.model import DecisionRecord, Outcome, Reason, Verdict
from callerid.proxy import http_answers, reply, translate
from callerid.proxy.calls import Call
from callerid.proxy.rooms import Rooms
from callerid.proxy.rows import FAULTS
from callerid.proxy.runtime import new_id, now_us

UNTRUSTED = "ertificate verify failed"
"""What mitmproxy says of a server whose certificate was not accepted."""
DETAIL = 200
"""Characters of its words that a row keeps."""


def row(flow: http.HTTPFlow, call: Call | None, reason: Reason, detail: str, rooms: Rooms) -> DecisionRecord:
    """A row with what is known by now: that of the call under way, else only where it was bound."""
    known = call.records[0] if call is not None else None
    caller = call.caller if call is not None else None
    peer = flow.client_conn.peername
    host, port = translate.dialled(flow)
    return DecisionRecord(
        event_id=new_id(),
        time_us=now_us(),
        verdict=Verdict.ERROR if reason in FAULTS else Verdict.DENY,
        reason=reason,
        method=known.method if known else f"http/{flow.request.method}",
        server=known.server if known else _server(rooms, host, port, flow.request.path),
        upstream=known.upstream if known else f"{host}:{port}" if host else "-",
        principal=caller.principal.subject if caller else None,
        issuer=caller.principal.issuer if caller else None,
        agent=caller.agent if caller else None,
        credential_id=caller.credential_id if caller else None,
        client_ip=peer[0] if peer else None,
        tool=known.tool if known else None,
        policy=rooms.rules.hash,
        detail=detail,
    )


def _server(rooms: Rooms, host: str, port: int, path: str) -> str:
    """What the row calls the place: ``-`` where the request names none."""
    return rooms.servers.name_at(host, port, path) if host else "-"


async def answer(flow: http.HTTPFlow, call: Call | None, reason: Reason, event_id: str) -> None:
    """Answer the flow with the refusal, under the id of its first message if that was read."""
    message = call.messages[0] if call is not None and call.messages else None
    if call is not None and call.is_api:
        refusal = problems.refusal(reason=reason, event_id=event_id, rule=None, say=None)
    else:
        refusal = answers.refusal(
            message, reason=reason, event_id=event_id, rule=None, say=None, hidden=False
        )
    response = reply.to_response(refusal)
    flow.response = reply.fitting(flow, response)
    if call is not None:
        await reply.deliver(flow, call, response)


def no_answer(flow: http.HTTPFlow, text: str) -> tuple[Outcome, str, str]:
    """How a call that got no answer ended: the outcome, why in our words, and the row's detail.

    ``text`` is what mitmproxy says of it: for the row only, since it quotes servers.
    """
    ended = how_it_ended(text)
    if flow.server_conn.timestamp_start is not None:
        return ended, http_answers.NO_ANSWER, text[:DETAIL]
    if ended is Outcome.CLIENT_GONE:
        return Outcome.NOT_SENT, http_answers.NO_ANSWER, text[:DETAIL]
    why = "its certificate is not trusted" if UNTRUSTED in text else "it could not be reached"
    return Outcome.NOT_SENT, f"{why}; tell the operator of callerid", f"{why}: {text}"[:DETAIL]


def how_it_ended(text: str) -> Outcome:
    """Who left, by the words in which mitmproxy reports it."""
    return Outcome.CLIENT_GONE if "lient disconnected" in text or "killed" in text else Outcome.UPSTREAM_GONE
