"""The client certificate that a connection to a listed server shows, where its credential is one.

mitmproxy has one set of client certificates for everybody, in files, in contexts that it shares. Here each
version of a credential has a context of its own, the key is never in a file of ours, and only connections to
the bound host and port use it (law 5). What was rotated counts for new connections; what the rules no longer
have shown ends with the connections that show it.
"""

from __future__ import annotations

import logging
from functools import partial
from weakref import WeakKeyDictionary

from mitmproxy import connection, ctx, tls
from mitmproxy.addons import tlsconfig
from mitmproxy.net import tls as net_tls
from OpenSSL import SSL, crypto

from callerid.credentials import clientcert
from callerid.credentials.inject import Injection, spend
from callerid.credentials.secret import PemSecret
from callerid.model import Reason
from callerid.proxy.crediting import certificate_at
from callerid.proxy.rooms import Rooms

logger = logging.getLogger(__name__)

_made: dict[str, tuple[PemSecret, SSL.Context]] = {}
"""By credential: the newest version's context. It is the library's object that holds the key, as it must."""


_shown: WeakKeyDictionary[connection.Server, str] = WeakKeyDictionary()
"""Which credential's certificate a connection shows, or will."""
_meant: WeakKeyDictionary[connection.Server, str | None] = WeakKeyDictionary()
"""Which credential's certificate was for its place when a request asked for the connection; None for none."""


class NoCertificate(Exception):
    """The certificate for this place is not to be had: the connection must not go on without it."""


def expect(conn: connection.Server, rooms: Rooms) -> None:
    """Remember what is right for a connection that is about to be made for a request that was let go."""
    _meant[conn] = certificate_at(rooms, *conn.address[:2]) if conn.address is not None else None


def show_certificate(data: tls.TlsData, rooms: Rooms) -> None:
    """Have the connection show the certificate of the servers at its place, if their credential is one.

    Rules that came since the request was let go do not count for it: nobody judged it by them, and what was
    for nobody's eyes may be for a certificate now.

    Raises:
        NoCertificate: there is one to show, and it cannot be; or it is another than it was to be.
    """
    conn = data.conn
    if not isinstance(conn, connection.Server) or conn.address is None or data.ssl_conn is None:
        return
    host, port = conn.address[:2]
    name = certificate_at(rooms, host, port)
    if name != _meant.get(conn):
        raise NoCertificate(f"the rules about {host}:{port} changed while a connection to it was made")
    if name is None:
        return
    found = rooms.store.at(name, host, port)
    if not isinstance(found, Injection) or not isinstance(found.secret, PemSecret):
        raise NoCertificate(f"the client certificate for {host}:{port} is not to be had")
    # What mitmproxy has set on the connection stays: the name to verify, and the protocols to offer.
    _shown[conn] = name
    data.ssl_conn.set_context(_context(name, found.secret, conn))


def withdraw(rooms: Rooms, client: connection.Client | None = None) -> None:
    """Abort the connections that show a certificate which, by the rules now in force, is not for their place.

    Others would go on over them in its name: requests that nobody judges, or with another credential.

    Args:
        rooms: those in force.
        client: look only at what its requests may go over, before one does; None: at all connections.
    """
    if client is None:
        _forget(rooms)
    if not _shown:
        return
    handlers = ctx.master.addons.get("proxyserver").connections
    looked_at = handlers.values() if client is None else filter(None, (handlers.get(client.id),))
    for handler in tuple(looked_at):
        for conn, transport in tuple(handler.transports.items()):
            name = _shown.get(conn) if isinstance(conn, connection.Server) else None
            if name is not None and transport.writer is not None and not _is_surely_for(conn, name, rooms):
                transport.writer.transport.abort()


def _forget(rooms: Rooms) -> None:
    """Let go of the keys of credentials that are gone: those in force bound how many are held."""
    known = {c.id for c in rooms.rules.credentials if c.inject == "mtls"}
    for name in _made.keys() - known:
        _made.pop(name, None)


def _is_surely_for(conn: connection.Connection, name: str, rooms: Rooms) -> bool:
    """A connection about which that cannot be said goes, and the others are looked at all the same."""
    try:
        return _is_for(conn, name, rooms)
    except Exception:
        logger.exception("callerid: a connection that shows a certificate could not be judged; it is cut")
        return False


def _is_for(conn: connection.Connection, name: str, rooms: Rooms) -> bool:
    if not isinstance(conn, connection.Server) or conn.address is None:
        return False
    host, port = conn.address[:2]
    if certificate_at(rooms, host, port) != name:
        return False
    found = rooms.store.at(name, host, port)
    return isinstance(found, Injection) or found.reason is not Reason.CREDENTIAL_NOT_BOUND


def _context(name: str, secret: PemSecret, conn: connection.Server) -> SSL.Context:
    held = _made.get(name)
    if held is not None and held[0] is secret:
        return held[1]
    options = ctx.options
    ciphers = conn.cipher_list or tlsconfig._default_ciphers(net_tls.Version[options.tls_version_server_min])
    # Without its cache: that one is for contexts that everybody shares.
    context: SSL.Context = net_tls.create_proxy_server_context.__wrapped__(
        method=net_tls.Method.TLS_CLIENT_METHOD,
        min_version=net_tls.Version[options.tls_version_server_min],
        max_version=net_tls.Version[options.tls_version_server_max],
        cipher_list=tuple(ciphers),
        ecdh_curve=net_tls.get_curve(options.tls_ecdh_curve_server),
        verify=net_tls.Verify.VERIFY_PEER,
        ca_path=options.ssl_verify_upstream_trusted_confdir,
        ca_pemfile=options.ssl_verify_upstream_trusted_ca,
        client_cert=None,
        legacy_server_connect=False,
    )
    spend(secret, partial(_load, context, secret.label))
    _made[name] = secret, context
    return context


def _load(context: SSL.Context, label: str, text: str) -> None:
    pair = clientcert.read(label, text)
    context.use_certificate(crypto.X509.from_cryptography(pair.leaf))
    for link in pair.chain:
        context.add_extra_chain_cert(crypto.X509.from_cryptography(link))
    context.use_privatekey(crypto.PKey.from_cryptography_key(pair.key))
    context.check_privatekey()
