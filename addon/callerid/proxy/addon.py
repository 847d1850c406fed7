"""The addon: mitmproxy's events translated for the walk, and its ruling applied. No policy in here.

The same object serves ``callerid run`` and ``mitmdump -s addon/entry.py``.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader
from mitmproxy.connection import ConnectionState

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
from callerid.proxy import (
    beside,
    bodies,
    engine,
    faults,
    harden,
    limits,
    loglines,
    observe,
    open_streams,
    propagate,
    reply,
    shut,
    translate,
    upstream_tls,
)
from callerid.proxy.calls import Call, ClientState, Memory
from callerid.proxy.connections import ConnectionHooks
from callerid.proxy.desk import Desk, is_for_desk
from callerid.proxy.destination import is_desk
from callerid.proxy.door import guarded
from callerid.proxy.elsewhere import reserve
from callerid.proxy.facts import Facts, Ruling
from callerid.proxy.obtaining import settled
from callerid.proxy.runtime import Runtime, new_id, new_token, now_us, require_rules
from callerid.proxy.shown import for_server
from callerid.proxy.sidedoor import settle_here
from callerid.proxy.walk import walk

logger = logging.getLogger(__name__)


class CalleridAddon(ConnectionHooks):
    """Policy Enforcement Point. Construct once; ``runtime`` is opened in ``running``."""

    name = "callerid"

    def __init__(self) -> None:
        self.memory = Memory()
        self.runtime: Runtime
        self.desk: Desk
        self.upstream_ca: Path | None = None
        self._opened = False
        super().__init__()
        engine.install()
        engine.on_unread(self.unread)
        bodies.settings.judge = self

    # -- lifecycle -----------------------------------------------------------------------------

    def load(self, loader: Loader) -> None:
        """Declare our options and put mitmproxy's own where they are safe."""
        loader.add_option("callerid_home", str, "./.callerid", "State of callerid: CA, registry, audit.")
        loader.add_option("callerid_rules", str, "./rules", "The rules of callerid: four YAML files.")
        limits.declare(loader)
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
        fixed = {"callerid_home", "callerid_rules", *(option.name for option in limits.OPTIONS)}
        if updated & fixed:
            raise exceptions.OptionsError(
                "callerid: home, rules and limits cannot change while it runs; restart it"
            )

    def open(self) -> None:
        """Judge the settings, then open the home, the stores and the rules that the options name.

        Until then no client is served.

        Raises:
            ConfigError: a setting is unsafe, a limit cannot be meant, or the rules do not load.
            StoreError: as ``Runtime.open``.
        """
        harden.check(ctx.options)
        bodies.settings.limits = limits.read(ctx.options)
        runtime = Runtime(
            Home(Path(ctx.options.callerid_home).absolute()),
            require_rules(Path(ctx.options.callerid_rules).absolute()),
            upstream_ca=self.upstream_ca,
            limits=bodies.settings.limits,
        )
        runtime.open(asyncio.get_running_loop())
        runtime.swapped = upstream_tls.withdraw
        loglines.search(runtime.scrubbed)
        self.runtime = runtime
        self.desk = Desk(runtime.home.registry, new_id, new_token)
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
        try:
            for flow, call in self.memory.streams.all():
                reply.finish(flow, call, self.runtime, ended=Outcome.CUT, detail="callerid was stopped")
            self.runtime.give_up_waiting(1 << 62)
            self.desk.close()
        finally:
            self.runtime.close()

    # -- the request ---------------------------------------------------------------------------

    @guarded(shut.head)
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Seal first. A sealed request cannot be streamed past the decision either."""
        flow.response = shut.seal()
        flow.request.stream = False

    @guarded(shut.request)
    async def request(self, flow: http.HTTPFlow) -> None:
        """Judge, commit, then answer or let go. In this order, always (law 1)."""
        if bodies.STREAMED in flow.metadata:
            return  # judged when its body began to go on
        flow.request.trailers = None
        state = self.memory.client(flow.client_conn)
        if state.broken or flow.is_replay is not None:
            await self.refuse_fault(flow, Reason.INTERNAL_ERROR, "a hook failed on this connection")
            return
        stamp = open_streams.stamp_of(self.runtime, datetime.now(UTC))
        facts, ruling = await self._judged(flow, state)
        if ruling is None:
            self.let_pass(flow, facts)
            observe.remember(flow, facts)
            return
        call = Call(
            records=ruling.records,
            messages=ruling.messages,
            server=ruling.server,
            caller=ruling.caller,
            presented=facts.presented,
            session=ruling.session,
            conversation=ruling.conversation,
            first_rpc_id=_first_id(ruling.messages),
            judged=stamp,
        )
        self.memory.begin(flow, call)
        if ruling.answer is None and ruling.caller is not None and ruling.server is not None:
            reserve(call)
            self.runtime.in_flight.enter(flow, ruling.caller.principal.subject, ruling.messages)
        try:
            await self.runtime.record(ruling.records)
        except StoreError as error:
            if ruling.undo is not None:
                ruling.undo()
            await self._refuse_unrecorded(flow, call, error)
            return
        if ruling.answer is not None:
            await reply.deliver(flow, call, reply.to_response(ruling.answer))
            settle_here(ruling.records, ruling.answer.status, now_us(), self.runtime.outcome)
            self.tell(ruling, facts)
            return
        upstream_tls.withdraw(self.runtime.rooms, flow.client_conn)
        translate.let_go(flow, call, propagate.speak(ruling, now_us()), self.runtime.rooms.store)
        self.tell(ruling, facts)
        if call.observed:
            beside.ask_plainly(flow.request, self.runtime.rooms)
            observe.remember(flow, facts)

    async def _judged(self, flow: http.HTTPFlow, state: ClientState) -> tuple[Facts, Ruling | None]:
        """The request and the ruling on it, by the rules in force when it goes on."""
        rooms = self.runtime.rooms
        facts = for_server(translate.facts(flow, state), rooms)
        if is_for_desk(facts):
            return facts, await self.desk.rule(facts, rooms)
        ruling = walk(facts, rooms, new_id)
        if ruling is None or ruling.pending is None:
            return facts, ruling
        ruling = await settled(ruling, flow.client_conn, now_us)
        if self.runtime.rooms is rooms or not flow.client_conn.state & ConnectionState.CAN_READ:
            return facts, ruling
        # Rules that came while it waited count; and what it waited for came to the new rooms.
        facts = for_server(translate.facts(flow, state), self.runtime.rooms)
        return facts, walk(facts, self.runtime.rooms, new_id)

    async def refuse_fault(self, flow: http.HTTPFlow, reason: Reason, detail: str) -> None:
        """A fault of ours: refused, with a row if one can be written (law 3)."""
        call = self.memory.call(flow)
        if call is not None:
            reply.take_back(flow, call)
            self._never_sent(flow, call, detail)
        record = faults.row(flow, call, reason, detail, self.runtime.rooms)
        await faults.answer(flow, call, reason, record.event_id)
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
            await faults.answer(flow, call, Reason.AUDIT_UNAVAILABLE, call.records[0].event_id)

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
        if call is None or (call.allowed and call.observed):
            withheld = await beside.withhold_or_scrub(flow, call, self.runtime)
            if withheld is not None:
                observe.withhold(flow, withheld)
                return
        if call is None:
            await observe.begin(flow, self.memory, self.runtime)
            return
        if call.allowed:
            if open_streams.withdrawn(call, self.runtime, datetime.now(UTC)):
                reply.take_back(flow, call)
                reply.abort(flow)
                return
            reply.open_answer(flow, call, self.runtime)
            if call.observed:
                observe.follow(flow, call, self.memory, self.runtime)
            if call.streaming:
                self.memory.streams.add(flow, call)

    @guarded(shut.rows)
    async def callerid_rows(self, flow: http.HTTPFlow) -> None:
        """Events of an open stream wait for the rows of what the server asks in them (law 1)."""
        call = self.memory.call(flow)
        if call is None:
            raise LookupError("a stream without a call")
        await reply.hold(flow, call, self.runtime)

    @guarded(shut.answer)
    async def response(self, flow: http.HTTPFlow) -> None:
        self.runtime.in_flight.leave(flow)
        observe.replace_withheld(flow)
        if flow.response is not None and bodies.SCRUBBED in flow.metadata:
            flow.response.trailers = None  # of HTTP/2; nobody searched them
        call = self.memory.call(flow)
        if call is not None and call.allowed:
            if not call.streaming:
                open_streams.withdrawn(call, self.runtime, datetime.now(UTC))
            await reply.close_answer(flow, call, self.runtime)
        self.memory.end(flow)

    @guarded(shut.quietly)
    async def error(self, flow: http.HTTPFlow) -> None:
        """The flow ended early: an outcome if it was let go, a refusal row if it never got that far."""
        if self._opened:
            self.runtime.in_flight.leave(flow)
        call = self.memory.end(flow)
        nested = shut.is_sealed(flow)  # a CONNECT inside a tunnel comes by requestheaders, the outer one not
        # mitmproxy quotes what it could not read. Scrubbed before it is cut, or a part would stay, and
        # before anybody else prints it.
        if flow.error is not None and self._opened:
            flow.error.msg = self.runtime.rooms.store.scrubber.scrub_text(flow.error.msg)[0]
        text = flow.error.msg if flow.error else ""
        early = self.refused_early(flow) if self._opened else None
        if early is not None:
            await self.refuse_early(flow, call, *early)
        elif call is not None and call.allowed:
            reply.take_back(flow, call)
            ended, why, detail = faults.no_answer(flow, text)
            if bodies.OVERSIZE in flow.metadata:
                call.refusal, call.detail = Outcome.RESPONSE_TOO_LARGE, flow.metadata[bodies.OVERSIZE]
            reply.finish(flow, call, self.runtime, ended=ended, detail=detail)
            engine.leave(flow.client_conn, reply.unanswered(call, ended, why))
        elif call is None and (flow.request.method != "CONNECT" or nested) and self._concerns_us(flow):
            await self.refuse_unread(flow, text)

    def _concerns_us(self, flow: http.HTTPFlow) -> bool:
        """What names no place at all may have been meant for any."""
        host, port = translate.dialled(flow)
        return self._opened and (
            not host or is_desk(host) or self.runtime.rooms.servers.is_listed(host, port)
        )

    async def refuse_unread(self, flow: http.HTTPFlow, text: str) -> None:
        """mitmproxy refused the request before it could be judged: too large, malformed, or given up."""
        reason = Reason.CLIENT_GONE if "isconnect" in text else Reason.MALFORMED_HTTP
        with suppress(StoreError):
            await self.runtime.record((faults.row(flow, None, reason, text[:200], self.runtime.rooms),))

    # -- revocation ----------------------------------------------------------------------------

    async def cut_streams(self) -> None:
        """Cut the open streams of whoever may no longer be served (law 10). Called twice a second."""
        await open_streams.judge_again(self.memory, self.runtime, datetime.now(UTC))


def _first_id(messages: tuple[Message, ...]) -> str | int | None:
    for message in messages:
        if message.type is MessageType.REQUEST and message.rpc_id is not None:
            return message.rpc_id
    return None
