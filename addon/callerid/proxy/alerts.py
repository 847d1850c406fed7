"""A TLS connection that ends in an alert has ended: mitmproxy 12.2.3 leaves its exchange hanging.

With TLS 1.3 a server refuses a client certificate after the handshake, by a fatal alert. OpenSSL marks that
as a shutdown, and mitmproxy takes the mark for an orderly end (close_notify) that it has passed on already;
so the end of the connection is passed on to nobody. ``engine.install`` puts this in its place.
"""

from __future__ import annotations

from typing import Any

from mitmproxy.proxy import tunnel
from OpenSSL import SSL


def receive_close(layer: Any) -> Any:
    """Pass on that the connection has ended, unless an orderly end in TLS has been passed on before."""
    try:
        layer.tls.recv(1)
    except SSL.ZeroReturnError:
        return
    except SSL.Error:
        pass  # by an alert, or without any word
    yield from tunnel.TunnelLayer.receive_close(layer)
