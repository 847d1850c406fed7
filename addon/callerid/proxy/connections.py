"""The hooks of connections: what evidence they carry, which TLS is opened, and what may be dialled."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict

from mitmproxy import connection, ctx, http, tcp, tls, udp
from mitmproxy.proxy import server_hooks

from callerid.proxy import dial, faults, shut, upstream_tls
from callerid.proxy import tls as edge
from callerid.proxy.destination import is_desk, normal_host
from callerid.proxy.door import guarded
from callerid.proxy.early import EarlyRefusals
from callerid.proxy.shown import is_reverse

logger = logging.getLogger(__name__)

UPSTREAM_CONNECTIONS = 256
"""Per client connection and address; mitmproxy's 5 starves parallel streams (its issue 8322)."""


class ConnectionHooks(EarlyRefusals):
    """The part of the addon that sees connections; the addon itself sees requests and answers."""

    @guarded(shut.client)
    def client_connected(self, client: connection.Client) -> None:
        if not self._opened:
            client.error = "callerid: not ready"
            return
        handler = ctx.master.addons.get("proxyserver").connections.get(client.id)
        if handler is not None and hasattr(handler, "max_conns"):
            handler.max_conns = defaultdict(lambda: asyncio.Semaphore(UPSTREAM_CONNECTIONS))
        edge.await_request(client, self.runtime.limits.head_seconds, self.too_late)

    @guarded(shut.connect)
    async def http_connect(self, flow: http.HTTPFlow) -> None:
        """Keep the evidence of the CONNECT for the tunnel. Judged with each request inside it.

        What stays closed inside of it is never judged: so a certificate that is required is asked for here.
        """
        state = self.memory.client(flow.client_conn)
        state.tunnel = True
        state.connect_authorization = tuple(flow.request.headers.get_all("proxy-authorization"))
        state.connect_token = tuple(flow.request.headers.get_all("x-callerid-token"))
        edge.await_request(flow.client_conn, self.runtime.limits.head_seconds, self.too_late)
        await self.turn_away(flow)

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
            edge.heard(data.context.client)

    @guarded(shut.tls)
    def tls_start_client(self, data: tls.TlsData) -> None:
        """Ask for a client certificate where one can count: at our own listeners, and for listed servers.

        It counts for who is calling by its CA, and for what it is bound to by itself.
        """
        rooms = self.runtime.rooms
        known = rooms.rules.identities
        door = edge.is_outer(data.context) or (
            known.require_proxy_certificate and is_reverse(data.context.client)
        )
        address = data.context.server.address
        listed = address is not None and (
            rooms.servers.is_listed(address[0], address[1]) or is_desk(address[0])
        )
        counts = bool(known.client_cas) or any(issuer.sender_constrained for issuer in known.issuers)
        edge.start_client(data, ask_certificate=counts and (door or listed))

    @guarded(shut.tls)
    def tls_established_client(self, data: tls.TlsData) -> None:
        """Keep each chain apart: mitmproxy forgets the outer one when the inner handshake begins."""
        state = self.memory.client(data.context.client)
        chain = edge.certificate_chain(data)
        if data.conn.alpn == b"h2":
            edge.heard(data.context.client)  # it pings, and is closed when nobody answers
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
        edge.start_server(data)
        upstream_tls.show_certificate(data, self.runtime.rooms)

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
    async def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Nothing is dialled for a connection on which a hook failed, nothing private, nothing for ever."""
        if self.memory.client(data.client).broken:
            data.server.error = "callerid: internal error"
            return
        upstream_tls.expect(data.server, self.runtime.rooms)
        why = await dial.before(data.client, data.server, self.runtime.rooms, self.runtime.limits)
        if why is not None:
            self._refuse_place(data, why)
            return
        loop = asyncio.get_running_loop()
        loop.call_later(edge.CONNECT_SECONDS, edge.give_up, data.client, data.server)

    @guarded(shut.quietly)
    def server_connect_error(self, data: server_hooks.ServerConnectionHookData) -> None:
        """A listed server that cannot be reached is named: what mitmproxy says of it names nobody."""
        self._tell_unreached(data.server)

    @guarded(shut.quietly)
    def tls_failed_server(self, data: tls.TlsData) -> None:
        """As ``server_connect_error``; most often it is a certificate of a private CA."""
        self._tell_unreached(data.conn)

    def _tell_unreached(self, conn: connection.Connection) -> None:
        address = getattr(conn, "address", None)
        if address is None or not self.runtime.rooms.servers.names(address[0]):
            return
        hint = ""
        if faults.UNTRUSTED in (conn.error or ""):
            hint = ". If its certificate is of a private CA, start callerid with --upstream-ca FILE"
        logger.error("callerid: the server %s:%s could not be reached: %s%s", *address[:2], conn.error, hint)

    @guarded(shut.dialled)
    def server_connected(self, data: server_hooks.ServerConnectionHookData) -> None:
        """The address that was reached is judged before a byte is written to it."""
        why = dial.after(data.client, data.server, self.runtime.rooms, self.runtime.limits)
        if why is not None:
            self._refuse_place(data, why)
            edge.abort(data.client, data.server)

    @guarded(shut.quietly)
    def client_disconnected(self, client: connection.Client) -> None:
        self._close_socket(client, client)

    @guarded(shut.quietly)
    def server_disconnected(self, data: server_hooks.ServerConnectionHookData) -> None:
        self._close_socket(data.client, data.server)

    def _close_socket(self, client: connection.Client, end: connection.Connection) -> None:
        """mitmproxy leaves a socket open for ever if its peer floods it while it is being closed."""
        handler = ctx.master.addons.get("proxyserver").connections.get(client.id)
        io = handler.transports.get(end) if handler is not None else None
        if io is not None and io.writer is not None:
            io.writer.close()

    def _refuse_place(self, data: server_hooks.ServerConnectionHookData, why: str) -> None:
        """Remembered for the exchange that asked for it, which hears of it by its error."""
        data.server.error = f"callerid: {why}"
        if data.server.address is not None:
            host, port = data.server.address[:2]
            self.refused_places.setdefault(data.client, {})[host, port] = why

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
