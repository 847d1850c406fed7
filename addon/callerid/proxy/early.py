"""Requests that are refused before they could be judged: too large, too slow, or not to be dialled.

They never reach the walk, and yet each is a row with its caller as far as known, its server and its reason
(law 2), and the client is told what became of it.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from urllib.parse import urlsplit

from mitmproxy import connection, ctx, http
from mitmproxy.proxy import context

from callerid.errors import StoreError
from callerid.identity.presented import Presented
from callerid.mcp.recognise import may_be_message
from callerid.model import Malformed, Reason, Rejected
from callerid.proxy import beside, bodies, desk, engine, faults, reply, shut, translate, upstream_tls
from callerid.proxy.calls import Call, ClientState, Memory
from callerid.proxy.destination import DEFAULT_PORTS, Governed, Unlisted, split_authority
from callerid.proxy.facts import Facts, Ruling
from callerid.proxy.findings import found_in, found_passing
from callerid.proxy.rows import Rows
from callerid.proxy.runtime import Runtime, new_id, now_us
from callerid.proxy.shown import for_server, is_reverse
from callerid.proxy.strip import foreign_strip
from callerid.proxy.walk import walk

logger = logging.getLogger(__name__)

STATUS: Mapping[Reason, int] = MappingProxyType(
    {
        Reason.TOO_LARGE: 413,
        Reason.TOO_SLOW: 408,
        Reason.HEADERS_TOO_LARGE: 431,
        Reason.MALFORMED_HTTP: 400,
        Reason.INTERNAL_ERROR: 503,
    }
)
"""HTTP status by reason; 403 for all others, who are not known, or not allowed to go there."""

_INVALID_REQUEST = -32600


class EarlyRefusals:
    """The part of the addon that refuses before ``request``. It is the ``Judge`` of bodies."""

    memory: Memory
    runtime: Runtime
    _opened: bool

    def __init__(self) -> None:
        self.refused_places: weakref.WeakKeyDictionary[connection.Client, dict[tuple[str, int], str]] = (
            weakref.WeakKeyDictionary()
        )
        self.shown: weakref.WeakKeyDictionary[http.HTTPFlow, Presented] = weakref.WeakKeyDictionary()

    # -- how much may be held ------------------------------------------------------------------

    def allowance(self, flow: http.HTTPFlow) -> bodies.Allowance:
        """As ``bodies.Judge``. Who has not shown who it is may not fill our memory."""
        limits = self.runtime.limits
        facts = self._facts(flow)
        if desk.is_for_desk(facts):
            return bodies.Allowance(desk.MAX_BODY, Reason.TOO_LARGE, f"longer than {desk.MAX_BODY} bytes")
        if isinstance(self._place(facts), Unlisted):
            return bodies.Allowance(limits.body, Reason.TOO_LARGE, "", foreign=True)
        caller = self._caller(facts)
        if isinstance(caller, Rejected):
            detail = f"{caller.detail}; not more than {limits.anonymous} bytes are read from who is not known"
            return bodies.Allowance(limits.anonymous, caller.reason, detail)
        return bodies.Allowance(limits.body, Reason.TOO_LARGE, f"the body is longer than {limits.body} bytes")

    def upload(self, flow: http.HTTPFlow, start: bytes) -> bodies.Way | tuple[Reason, str]:
        """As ``bodies.Judge``. What may be MCP is held until it is whole; what cannot be goes on (law 1)."""
        state = self.memory.client(flow.client_conn)
        if state.broken or flow.is_replay is not None:
            return (Reason.INTERNAL_ERROR, "a hook failed on this connection")
        facts = replace(self._facts(flow), body=start)
        if may_be_message(facts.headers, start):
            return bodies.Way.HOLD
        ruling = walk(facts, self.runtime.rooms, new_id)
        if ruling is None:
            self.let_pass(flow, facts)
            return bodies.Way.STREAM
        if ruling.answer is None:
            return bodies.Way.HOLD
        record = ruling.records[0]
        rooms = self.runtime.rooms
        found = (replace(finding, event_id=None) for finding in found_in(ruling, facts, rooms))
        rooms.hygiene.tell(found, self.runtime.finding)  # its row is another one, made by ``refuse_early``
        return (record.reason, record.detail or "refused by the start of its body")

    def let_pass(self, flow: http.HTTPFlow, facts: Facts) -> None:
        """Not MCP, and not for a listed server: it goes on without what is ours in it.

        What it showed is kept, for its row should it lead to where nobody may dial.
        """
        self.shown[flow] = facts.presented
        rooms = self.runtime.rooms
        seen = rooms.hygiene.looked(facts, rooms.store)
        ours = foreign_strip(facts, rooms.authority)
        upstream_tls.withdraw(rooms, flow.client_conn)
        translate.let_pass(flow, (*ours, *seen.noticed.strip))
        if seen.noticed.path is not None:
            flow.request.path = seen.noticed.path
        beside.ask_plainly(flow.request, rooms)
        rooms.hygiene.tell(found_passing(facts, seen, ours, rooms), self.runtime.finding)

    def tell(self, ruling: Ruling, facts: Facts) -> None:
        """Keys and tokens where they should not be, in a request that has its rows."""
        rooms = self.runtime.rooms
        rooms.hygiene.tell(found_in(ruling, facts, rooms), self.runtime.finding)

    def _facts(self, flow: http.HTTPFlow) -> Facts:
        facts = for_server(translate.facts(flow, self.memory.client(flow.client_conn)), self.runtime.rooms)
        shown = self.shown.get(flow)
        return facts if shown is None else replace(facts, presented=shown)

    def _place(self, facts: Facts) -> object:
        return self.runtime.rooms.servers.locate(
            scheme=facts.scheme, host=facts.host, port=facts.port, path=facts.path,
            host_header=facts.host_header, sni=facts.sni,
        )  # fmt: skip

    def _caller(self, facts: Facts) -> object:
        rows = Rows(facts, self.runtime.rooms, new_id, "-")
        return self.runtime.rooms.authority.identify(facts.presented, now=rows.now)

    # -- exchanges -----------------------------------------------------------------------------

    def refused_early(self, flow: http.HTTPFlow) -> tuple[Reason, str] | None:
        """Why this exchange ends, if it was we who ended it before its time."""
        found: tuple[Reason, str] | None = flow.metadata.get(bodies.REFUSED)
        if found is None and flow.error is not None and "isconnect" not in flow.error.msg:
            detail = self.refused_places.get(flow.client_conn, {}).get(translate.dialled(flow))
            found = (Reason.ADDRESS_REFUSED, detail) if detail is not None else None
        return found

    async def refuse_early(self, flow: http.HTTPFlow, call: Call | None, reason: Reason, detail: str) -> None:
        """The row and the answer. A call that was allowed by then keeps its row, and was not sent."""
        if call is not None and call.allowed:
            reply.take_back(flow, call)
            self._never_sent(flow, call, detail)
            record = faults.row(flow, call, reason, detail, self.runtime.rooms)
            await faults.answer(flow, call, reason, record.event_id)
            response = flow.response
        else:
            facts = self._facts(flow)
            ruling = self._ruling(facts, reason, detail)
            record = ruling.records[0]
            answer = ruling.answer
            if desk.is_for_desk(facts):
                answer = desk.refusal(reason, detail, record.event_id)
            response = reply.to_response(answer) if answer is not None else None
        if response is not None:
            engine.leave(flow.client_conn, reply.fitting(flow, response))
        try:
            await self.runtime.record((record,))
        except StoreError as error:
            logger.error("callerid: refused without a row: %s", error)

    def _never_sent(self, flow: http.HTTPFlow, call: Call, detail: str) -> None:
        raise NotImplementedError

    def _ruling(self, facts: Facts, reason: Reason, detail: str) -> Ruling:
        """The refusal of a request of which no message was read."""
        rooms = self.runtime.rooms
        place = self._place(facts)
        if desk.is_for_desk(facts):
            name = desk.SERVER
        elif isinstance(place, Governed):
            name = place.server.id
        else:
            name = place.name if isinstance(place, Unlisted) else getattr(place, "server", facts.upstream)
        rows = Rows(facts, rooms, new_id, name)
        try:
            rows.know(rooms.authority.identify(facts.presented, now=rows.now))
        except StoreError:
            logger.exception("callerid: a refused caller could not be identified")
        status = STATUS.get(reason, 403)
        found = Malformed(reason=reason, detail=detail, http_status=status, rpc_code=_INVALID_REQUEST)
        return rows.refuse(found, reason, detail)

    async def turn_away(self, flow: http.HTTPFlow) -> None:
        """No tunnel is opened where a client certificate is required and not shown: to nowhere.

        What its CONNECT carried is forgotten, since its connection may go on to other requests.

        Raises:
            StoreError: the row is not durable.
        """
        facts = self._facts(flow)
        rows = Rows(facts, self.runtime.rooms, new_id, "-")
        missing = self.runtime.rooms.authority.uncertified(facts.presented, now=rows.now)
        if missing is None:
            return
        ruling = self._ruling(facts, missing.reason, missing.detail)
        state = self.memory.client(flow.client_conn)
        state.tunnel, state.connect_authorization, state.connect_token = False, (), ()
        flow.response = shut.seal()
        await self.runtime.record(ruling.records)
        if ruling.answer is not None:
            flow.response = reply.to_response(ruling.answer)

    # -- before there is an exchange -----------------------------------------------------------

    def unread(
        self, where: context.Context, reason: Reason, detail: str, start: bytes
    ) -> http.Response | None:
        """A request head was refused before there was a flow: a row, for which nobody waits (law 2)."""
        if not self._opened:
            return None
        facts = _facts_of(where, self.memory.client(where.client), start)
        ruling = self._ruling(facts, reason, detail)
        record = ruling.records[0]
        if not facts.host:
            record = replace(record, server="-", upstream="-")
        self.runtime.writer.decide(record, lambda error: None)
        return reply.to_response(ruling.answer) if ruling.answer is not None else None

    def too_late(self, client: connection.Client) -> None:
        """No request came on a connection in time. Whoever began a TLS handshake gets a row; silence none."""
        handler = ctx.master.addons.get("proxyserver").connections.get(client.id)
        if handler is None:
            return
        if client.tls and client.timestamp_tls_setup is None:
            self.unread(handler.layer.context, Reason.TOO_SLOW, "the TLS handshake did not end in time", b"")
        if client in handler.transports:
            handler.close_connection(client)


def _facts_of(where: context.Context, state: ClientState, start: bytes) -> Facts:
    """What is known of a request by the first line of its head, if it has one, and by its connection."""
    method, target = _request_line(start)
    host, port = (where.server.address or ("", 0))[:2]
    scheme = "https" if where.server.tls else "http"
    path = target if target.startswith("/") else "/"
    if not host and "://" in target:
        scheme, host, port, path = _absolute(target)
    peer = where.client.peername
    named = f"[{host}]" if ":" in host else host
    return Facts(
        time_us=now_us(), http_method=method, scheme=scheme, host=host, port=port, path=path,
        host_header=f"{named}:{port}", sni=None, headers=(), body=b"", client_ip=peer[0] if peer else None,
        presented=Presented(
            connect_proxy_authorization=state.connect_authorization,
            connect_callerid_token=state.connect_token,
            proxy_chain=state.proxy_chain, inner_chain=state.inner_chain,
            client_ip=peer[0] if peer else None, tunnel=state.tunnel, reverse=is_reverse(where.client),
        ),
    )  # fmt: skip


def _request_line(start: bytes) -> tuple[str, str]:
    """Method and target of the first line; ``?`` and nothing where there is none to be trusted."""
    parts = start.lstrip(b"\r\n").partition(b"\n")[0].split(b" ")
    if len(parts) < 2 or not parts[0].isalpha() or len(parts[0]) > 16:
        return "?", ""
    return parts[0].decode("ascii"), parts[1].decode("utf-8", "surrogateescape").strip()


def _absolute(target: str) -> tuple[str, str, int, str]:
    try:
        parts = urlsplit(target)
        place = split_authority(parts.netloc, parts.scheme)
    except ValueError:
        return "http", "", 0, "/"
    if place is None or parts.scheme not in DEFAULT_PORTS:
        return "http", "", 0, "/"
    return parts.scheme, place[0], place[1], parts.path or "/"
