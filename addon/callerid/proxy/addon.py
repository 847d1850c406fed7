"""The addon: mitmproxy's events translated for the walk, and its ruling applied. No policy in here.

The same object serves ``callerid run`` and ``mitmdump -s addon/entry.py``.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from mitmproxy import connection, ctx, exceptions, http, tcp, tls, udp
from mitmproxy.addonmanager import Loader
from mitmproxy.proxy import context, server_hooks

from callerid.audit.records import AuditError
from callerid.errors import CalleridError, StoreError
from callerid.home import Home
from callerid.model import (
    Message,
    MessageType,
    Outcome,
    Reason,
    Verdict,
)
from callerid.proxy import engine, faults, harden, reply, shut, translate
from callerid.proxy import tls as edge
from callerid.proxy.calls import Call, Memory
from callerid.proxy.destination import normal_host
from callerid.proxy.door import guarded
from callerid.proxy.runtime import Runtime, new_id, require_rules
from callerid.proxy.standing import expired, standing
from callerid.proxy.walk import foreign_strip, walk

logger = logging.getLogger(__name__)

UPSTREAM_CONNECTIONS = 256
"""Per client connection and address; mitmproxy's 5 starves parallel streams (its issue 8322)."""


class CalleridAddon:
    """Policy Enforcement Point. Construct once; ``runtime`` is opened in ``running``."""

    name = "callerid"

    def __init__(self) -> None:
        self.memory = Memory()
        self.runtime: Runtime
        self.upstream_ca: Path | None = None
        self._opened = False
        engine.install()
        engine.on_unread(self.unread)

    # -- lifecycle -----------------------------------------------------------------------------

    def load(self, loader: Loader) -> None:
        """Declare our options and put mitmproxy's own where they are safe."""
        loader.add_option("callerid_home", str, "./.callerid", "State of callerid: CA, registry, audit.")
        loader.add_option("callerid_rules", str, "./rules", "The rules of callerid: four YAML files.")
        ctx.options.update(**harden.safe_values(ctx.options))
        # At INFO the engine prints heads that it could not read, tokens and secrets included.
        logging.getLogger("mitmproxy.proxy").setLevel(logging.WARNING)

    def configure(self, updated: set[str]) -> None:
        """Roll back a change that would make the settings unsafe; ``open`` judges them at the start."""
        if not self._opened:
            return
        try:
            harden.check(ctx.options)
        except CalleridError as error:
            raise exceptions.OptionsError(f"callerid: {error} {error.hint}") from error
        if updated & {"callerid_home", "callerid_rules"}:
            raise exceptions.OptionsError("callerid: home and rules cannot change while it runs; restart it")

    def open(self) -> None:
        """Judge the settings, then open the home, the stores and the rules that the options name.

        Until then no client is served.

        Raises:
            ConfigError: a setting is unsafe, or the rules do not load.
            StoreError: as ``Runtime.open``.
        """
        harden.check(ctx.options)
        runtime = Runtime(
            Home(Path(ctx.options.callerid_home).absolute()),
            require_rules(Path(ctx.options.callerid_rules).absolute()),
            upstream_ca=self.upstream_ca,
        )
        runtime.open(asyncio.get_running_loop())
        self.runtime = runtime
        self._opened = True

    async def running(self) -> None:
        """Open if that is still to do, and start the background work.

        What is reported here as an error ends the start; until then no client is served. Options that
        nobody took up are spelling mistakes.
        """
        deferred = sorted(ctx.options.deferred)
        if deferred:
            logger.error("callerid: unknown options: %s", ", ".join(deferred))
            return
        try:
            if not self._opened:
                self.open()
        except CalleridError as error:
            logger.error("callerid: %s %s", error, error.hint)
            return
        self.runtime.start(self.cut_streams)
        with suppress(NotImplementedError, ValueError, RuntimeError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.runtime.ask_reload)

    def done(self) -> None:
        """Say of the streams that are still open that we cut them, then drain and close."""
        if not self._opened:
            return
        for flow, call in list(self.memory.streams.items()):
            reply.finish(flow, call, self.runtime, ended=Outcome.CUT, detail="callerid was stopped")
        self.runtime.close()

    # -- connections ---------------------------------------------------------------------------

    @guarded(shut.client)
    def client_connected(self, client: connection.Client) -> None:
        if not self._opened:
            client.error = "callerid: not ready"
            return
        handler = ctx.master.addons.get("proxyserver").connections.get(client.id)
        if handler is not None and hasattr(handler, "max_conns"):
            handler.max_conns = defaultdict(lambda: asyncio.Semaphore(UPSTREAM_CONNECTIONS))

    @guarded(shut.connect)
    def http_connect(self, flow: http.HTTPFlow) -> None:
        """Keep the evidence of the CONNECT for the tunnel. Judged with each request inside it."""
        state = self.memory.client(flow.client_conn)
        state.tunnel = True
        state.connect_authorization = tuple(flow.request.headers.get_all("proxy-authorization"))
        state.connect_token = tuple(flow.request.headers.get_all("x-callerid-token"))

    @guarded(shut.tls)
    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        """Leave TLS closed only for a passthrough host that every name agrees on."""
        if edge.is_outer(data.context):
            return
        address = data.context.server.address
        hosts = self.runtime.rooms.servers.passthrough
        sni = data.client_hello.sni
        if address is None or not hosts or not self.memory.client(data.context.client).tunnel:
            return
        host = normal_host(address[0])
        if host in hosts and (sni is None or normal_host(sni) == host):
            data.ignore_connection = True

    @guarded(shut.tls)
    def tls_start_client(self, data: tls.TlsData) -> None:
        """Ask for a client certificate where one can count: at the proxy, and for listed servers."""
        rooms = self.runtime.rooms
        outer = edge.is_outer(data.context)
        address = data.context.server.address
        listed = address is not None and rooms.servers.is_listed(address[0], address[1])
        asks = bool(rooms.rules.identities.client_cas) and (outer or listed)
        edge.start_client(data, ask_certificate=asks)

    @guarded(shut.tls)
    def tls_established_client(self, data: tls.TlsData) -> None:
        """Keep each chain apart: mitmproxy forgets the outer one when the inner handshake begins."""
        state = self.memory.client(data.context.client)
        chain = edge.certificate_chain(data)
        if edge.is_outer(data.context):
            state.proxy_chain = chain
        else:
            state.inner_chain, state.inner_tls = chain, True

    @guarded(shut.upstream)
    def tls_start_server(self, data: tls.TlsData) -> None:
        """Verify the upstream against the name that is dialled."""
        address = getattr(data.conn, "address", None)
        if address is not None and self.runtime.rooms.servers.names(address[0]):
            edge.pin_server_name(data)

    @guarded(shut.upstream)
    def tls_established_server(self, data: tls.TlsData) -> None:
        """A listed server whose certificate was not verified for the dialled name gets nothing."""
        address = getattr(data.conn, "address", None)
        if address is None or not self.runtime.rooms.servers.names(address[0]):
            return
        if not edge.is_verified(data):
            logger.error("callerid: the certificate of %s was not verified; connection dropped", address[0])
            edge.drop(data)

    @guarded(shut.dial)
    def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Nothing is dialled for a connection on which a hook failed, and nothing is dialled for ever."""
        if self.memory.client(data.client).broken:
            data.server.error = "callerid: internal error"
            return
        loop = asyncio.get_running_loop()
        loop.call_later(edge.CONNECT_SECONDS, edge.give_up, data.client, data.server)

    @guarded(shut.quietly)
    def tcp_start(self, flow: tcp.TCPFlow) -> None:
        """Raw bytes are never governed. ``passthrough`` connections do not come by here."""
        self._close_client(flow.client_conn)

    @guarded(shut.quietly)
    def udp_start(self, flow: udp.UDPFlow) -> None:
        self._close_client(flow.client_conn)

    @guarded(shut.quietly)
    def websocket_start(self, flow: http.HTTPFlow) -> None:
        self._close_client(flow.client_conn)

    def _close_client(self, client: connection.Client) -> None:
        """``flow.kill()`` does not stop raw flows in mitmproxy 12.2.3; closing the transports does."""
        handler = ctx.master.addons.get("proxyserver").connections.get(client.id)
        for transport in list(handler.transports) if handler is not None else ():
            handler.close_connection(transport)

    # -- the request ---------------------------------------------------------------------------

    @guarded(shut.head)
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Seal first. A sealed request cannot be streamed past the decision either."""
        flow.response = shut.seal()
        flow.request.stream = False

    @guarded(shut.request)
    async def request(self, flow: http.HTTPFlow) -> None:
        """Judge, commit, then answer or let go. In this order, always (law 1)."""
        state = self.memory.client(flow.client_conn)
        if state.broken or flow.is_replay is not None:
            await self.refuse_fault(flow, Reason.INTERNAL_ERROR, "a hook failed on this connection")
            return
        facts = translate.facts(flow, state)
        ruling = walk(facts, self.runtime.rooms, new_id)
        if ruling is None:
            translate.let_pass(flow, foreign_strip(facts, self.runtime.rooms.authority))
            return
        call = Call(
            records=ruling.records,
            messages=ruling.messages,
            server=ruling.server,
            caller=ruling.caller,
            presented=facts.presented,
            handles=facts.handles(),
            first_rpc_id=_first_id(ruling.messages),
        )
        self.memory.begin(flow, call)
        try:
            await self.runtime.record(ruling.records)
        except StoreError as error:
            await self._refuse_unrecorded(flow, call, error)
            return
        if ruling.answer is not None:
            flow.response = reply.fitting(flow, reply.to_response(ruling.answer))
            return
        translate.let_go(flow, call, ruling)

    async def refuse_fault(self, flow: http.HTTPFlow, reason: Reason, detail: str) -> None:
        """A fault of ours: refused, with a row if one can be written (law 3)."""
        call = self.memory.call(flow)
        if call is not None:
            reply.take_back(flow, call)
            self._never_sent(flow, call, detail)
        record = faults.row(flow, call, reason, detail, self.runtime.rooms.rules.hash)
        faults.answer(flow, call.messages if call else (), reason, record.event_id)
        try:
            await self.runtime.record((record,))
        except StoreError as error:
            logger.error("callerid: refused without a row: %s", error)

    async def _refuse_unrecorded(self, flow: http.HTTPFlow, call: Call, error: StoreError) -> None:
        """No row, no call (law 1). A row that cannot be made gets a plain one without its arguments."""
        logger.error("callerid: refused without its row: %s", error)
        self._never_sent(flow, call, "audit_unavailable")
        if isinstance(error, AuditError):
            await self.refuse_fault(flow, Reason.AUDIT_UNAVAILABLE, "the row could not be made")
        else:
            faults.answer(flow, call.messages, Reason.AUDIT_UNAVAILABLE, call.records[0].event_id)

    def _never_sent(self, flow: http.HTTPFlow, call: Call, detail: str) -> None:
        """An ALLOW row that may be stored, of a call that will not leave, says so."""
        call.allowed = any(record.verdict is Verdict.ALLOW for record in call.records)
        reply.finish(flow, call, self.runtime, ended=Outcome.NOT_SENT, detail=detail)
        call.allowed = False

    # -- the answer ----------------------------------------------------------------------------

    @guarded(shut.answer)
    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        if shut.is_sealed(flow):
            # Nobody decided, and nobody wrote why: the last place where that can become a row (law 2).
            await self.refuse_fault(flow, Reason.INTERNAL_ERROR, "the request was never decided")
            return
        call = self.memory.call(flow)
        if call is None:
            if flow.response is not None and flow.server_conn.timestamp_start is not None:
                flow.response.stream = True  # not governed: nothing is held back
            return
        if call.allowed:
            reply.open_answer(flow, call, self.runtime)
            if call.streaming:
                self.memory.streams[flow] = call

    @guarded(shut.answer)
    def response(self, flow: http.HTTPFlow) -> None:
        call = self.memory.call(flow)
        if call is not None and call.allowed:
            reply.close_answer(flow, call, self.runtime)
        self.memory.end(flow)

    @guarded(shut.quietly)
    async def error(self, flow: http.HTTPFlow) -> None:
        """The flow ended early: an outcome if it was let go, a refusal row if it never got that far."""
        call = self.memory.end(flow)
        nested = shut.is_sealed(flow)  # a CONNECT inside a tunnel comes by requestheaders, the outer one not
        # mitmproxy quotes what it could not read. Scrubbed before it is cut, or a part would stay, and
        # before anybody else prints it.
        if flow.error is not None and self._opened:
            flow.error.msg = self.runtime.rooms.store.scrubber.scrub_text(flow.error.msg)[0]
        text = flow.error.msg if flow.error else ""
        if call is not None and call.allowed:
            reply.take_back(flow, call)
            dialled = flow.server_conn.timestamp_start is not None
            ended = faults.how_it_ended(text) if dialled else Outcome.NOT_SENT
            reply.finish(flow, call, self.runtime, ended=ended, detail=text[:200])
            engine.leave(flow.client_conn, reply.unanswered(call))
        elif call is None and (flow.request.method != "CONNECT" or nested) and self._concerns_us(flow):
            await self.refuse_unread(flow, text)

    def _concerns_us(self, flow: http.HTTPFlow) -> bool:
        return self._opened and self.runtime.rooms.servers.is_listed(*translate.dialled(flow))

    def unread(self, where: context.Context, flaw: str) -> None:
        """A request head was refused before there was a flow: a row, for which nobody waits (law 2)."""
        if self._opened:
            record = faults.unread_row(where, flaw, self.runtime.rooms.rules.hash)
            self.runtime.writer.decide(record, lambda error: None)

    async def refuse_unread(self, flow: http.HTTPFlow, text: str) -> None:
        """mitmproxy refused the request before it could be judged: too large, malformed, or given up."""
        if "body_size_limit" in text:
            reason = Reason.TOO_LARGE
        elif "isconnect" in text:
            reason = Reason.CLIENT_GONE
        else:
            reason = Reason.MALFORMED_HTTP
        with suppress(StoreError):
            await self.runtime.record(
                (faults.row(flow, None, reason, text[:200], self.runtime.rooms.rules.hash),)
            )

    # -- revocation ----------------------------------------------------------------------------

    def cut_streams(self) -> None:
        """Cut the open streams of whoever may no longer be served (law 10). Called twice a second.

        Everything is judged again, but only when something changed: the rules, a CA, a revocation or a
        block. Otherwise a stream can only have expired.
        """
        now, rooms = datetime.now(UTC), self.runtime.rooms
        try:
            stamp: tuple[int, int] | None = (id(rooms), self.runtime.registry.generation())
        except StoreError:
            stamp = None
        for flow, call in list(self.memory.streams.items()):
            try:
                self._judge_again(flow, call, stamp, now)
            except Exception:
                logger.exception("callerid: an open stream could not be cut; tried again at the next turn")
                call.judged = None

    def _judge_again(
        self, flow: http.HTTPFlow, call: Call, stamp: tuple[int, int] | None, now: datetime
    ) -> None:
        """The stamp is kept per call: one that was let go while the rules changed is judged as well."""
        if call.caller is None or call.finished:
            return
        if stamp is None or call.judged != stamp:
            reason = standing(call, self.runtime.rooms, now)
            call.judged = stamp
        else:
            reason = expired(call, now)
        if reason is not None:
            logger.warning("callerid: an open stream is cut: %s", reason.value)
            reply.cut(flow)
            reply.finish(flow, call, self.runtime, ended=Outcome.CUT, detail=reason.value)


def _first_id(messages: tuple[Message, ...]) -> str | int | None:
    for message in messages:
        if message.type is MessageType.REQUEST and message.rpc_id is not None:
            return message.rpc_id
    return None
