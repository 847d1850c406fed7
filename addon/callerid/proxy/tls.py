"""TLS at the edge: which certificate was shown where, and which name the upstream must prove.

mitmproxy asks for a client certificate and accepts any (``net/tls.py``: ``accept_all``); it is only
captured here, and verified by the identity room.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from mitmproxy import connection, ctx, tls
from mitmproxy.net import tls as net_tls
from mitmproxy.proxy import context, layers
from mitmproxy.proxy.layers import modes
from OpenSSL import SSL

from callerid.proxy.destination import normal_host

CONNECT_SECONDS = 20.0
"""For the TCP and TLS handshakes with an upstream together; mitmproxy waits without end."""

_SESSION_CONTEXT = b"callerid"
_prepared: weakref.WeakSet[Any] = weakref.WeakSet()


_awaited: weakref.WeakKeyDictionary[connection.Client, object] = weakref.WeakKeyDictionary()


def await_request(
    client: connection.Client, seconds: float, late: Callable[[connection.Client], None]
) -> None:
    """Have ``late`` called if no byte of a request was heard on this connection in time.

    TLS handshakes fall into that time. A later call for the same connection takes the place of this one.
    """
    mark, known = object(), weakref.ref(client)
    _awaited[client] = mark

    def look() -> None:
        waited_for = known()
        if waited_for is not None and _awaited.get(waited_for) is mark:
            heard(waited_for)
            late(waited_for)

    asyncio.get_running_loop().call_later(seconds, look)


def heard(client: connection.Client) -> None:
    """A byte of a request came, or none needs to come."""
    _awaited.pop(client, None)


def is_outer(where: context.Context) -> bool:
    """True for the TLS connection to the proxy itself, false for an intercepted one."""
    return isinstance(where.layers[0], modes.HttpProxy) and not any(
        isinstance(layer, layers.http.HttpStream) for layer in where.layers
    )


def start_client(data: tls.TlsData, *, ask_certificate: bool) -> None:
    """Provide the client-facing TLS, without session resumption, asking for a certificate if told to.

    Resumption is off because a resumed session shows no intermediates and, with certificate requests
    on and no session id context, breaks the client's second connection (measured, TLS 1.2 and 1.3).
    """
    if is_outer(data.context):
        data.conn.alpn = b"http/1.1"  # CONNECT over HTTP/2 is not spoken
    tlsconfig = ctx.master.addons.get("tlsconfig")
    if data.ssl_conn is None:
        tlsconfig.tls_start_client(data)
    if data.ssl_conn is None:
        return
    if _prepare(data.ssl_conn.get_context()):
        # An SSL object copies the session id context when it is made: make it again.
        data.ssl_conn = None
        tlsconfig.tls_start_client(data)
    if data.ssl_conn is None:
        return
    data.ssl_conn.set_options(SSL.OP_NO_TICKET)
    _release_buffers(data.ssl_conn)
    if ask_certificate:
        data.ssl_conn.set_verify(SSL.VERIFY_PEER, net_tls.accept_all)


def _prepare(shared: Any) -> bool:
    """Turn resumption off on a context that mitmproxy shares between connections; True if it was on."""
    if shared in _prepared:
        return False
    lib = SSL._lib  # type: ignore[attr-defined]
    lib.SSL_CTX_set_session_id_context(shared._context, _SESSION_CONTEXT, len(_SESSION_CONTEXT))
    lib.SSL_CTX_set_session_cache_mode(shared._context, SSL.SESS_CACHE_OFF)
    _prepared.add(shared)
    return True


def certificate_chain(data: tls.TlsData) -> tuple[bytes, ...]:
    """The DER certificates that the client sent, leaf first; empty if it sent none.

    A leaf that mitmproxy could not parse is missing from its list: then one unreadable entry is
    returned, so that it is refused and not taken for "none".
    """
    chain = tuple(cert.to_cryptography().public_bytes(Encoding.DER) for cert in data.conn.certificate_list)
    shown = data.ssl_conn.get_peer_certificate() if data.ssl_conn is not None else None
    if shown is not None and not chain:
        return (b"",)
    return chain


def pin_server_name(data: tls.TlsData) -> None:
    """The upstream must prove the name that is dialled, not the one that the client sent as SNI."""
    if isinstance(data.conn, connection.Server) and data.conn.address is not None:
        data.conn.sni = normal_host(data.conn.address[0])


def start_server(data: tls.TlsData) -> None:
    """Provide the TLS to the upstream as mitmproxy does; its name is pinned before that."""
    if data.ssl_conn is None:
        ctx.master.addons.get("tlsconfig").tls_start_server(data)
    if data.ssl_conn is not None:
        _release_buffers(data.ssl_conn)


def _release_buffers(made: SSL.Connection) -> None:
    """Have OpenSSL give back its record buffers while nothing moves: a quarter of what a silent stream holds.

    Before the handshake: each record layer copies the mode when it is made.
    """
    lib = SSL._lib  # type: ignore[attr-defined]
    lib.SSL_set_mode(made._ssl, SSL.MODE_RELEASE_BUFFERS)


def is_verified(data: tls.TlsData) -> bool:
    """True if OpenSSL was told to verify this upstream, for the name that is dialled, and did."""
    if data.ssl_conn is None or not isinstance(data.conn, connection.Server) or data.conn.address is None:
        return False
    lib = SSL._lib  # type: ignore[attr-defined]
    asked = data.ssl_conn.get_context().get_verify_mode() & SSL.VERIFY_PEER
    good = lib.SSL_get_verify_result(data.ssl_conn._ssl) == lib.X509_V_OK
    return bool(asked) and good and data.conn.sni == normal_host(data.conn.address[0])


def drop(data: tls.TlsData) -> None:
    """Abort the upstream connection before anything is written to it."""
    abort(data.context.client, data.conn)


def abort(client: connection.Client, server: connection.Connection) -> None:
    """The same for a connection on which TLS has not begun: what mitmproxy writes to it is thrown away."""
    handler = ctx.master.addons.get("proxyserver").connections.get(client.id)
    transport = handler.transports.get(server) if handler is not None else None
    if transport is not None and transport.writer is not None:
        transport.writer.transport.abort()


def give_up(client: connection.Client, server: connection.Server) -> None:
    """End an upstream connection whose handshakes did not get done; the client is answered with 502."""
    if server.timestamp_tls_setup if server.tls else server.timestamp_tcp_setup:
        return
    handler = ctx.master.addons.get("proxyserver").connections.get(client.id)
    transport = handler.transports.get(server) if handler is not None else None
    if transport is not None and transport.handler is not None:
        transport.handler.cancel("the upstream did not answer in time")
