"""What a client of a reverse listener calls it: its own words, where they agree about the name."""

from __future__ import annotations

import ipaddress

from mitmproxy import connection, http
from mitmproxy.proxy.mode_specs import ReverseMode

from callerid.proxy.destination import DEFAULT_PORTS, normal_host, split_authority

HOST = "callerid.host"
"""In ``flow.metadata``: ``Host`` as the client sent it; mitmproxy overwrites it in reverse mode."""


def origin_called(flow: http.HTTPFlow) -> str | None:
    """The origin of the listener as this client calls it; None where it is none, or not to be believed.

    Over TLS the host is the name that the client asked the certificate for; ``Host`` may only add the port,
    for a port in front of the listener can be another one. In the clear only the listener's own address is
    believed. It is told to this client alone, and decides nothing.
    """
    client = flow.client_conn
    if not isinstance(client.proxy_mode, ReverseMode) or not client.sockname:
        return None
    scheme = "https" if client.tls else "http"
    said = split_authority(str(flow.metadata.get(HOST) or ""), scheme)
    own = _own_names(client)
    if said is None or said[0] not in own:
        return None
    if not client.tls and said[1] != client.sockname[1]:
        return None
    host, port = said
    named = f"[{host}]" if ":" in host else host
    return f"{scheme}://{named}" + ("" if port == DEFAULT_PORTS[scheme] else f":{port}")


def _own_names(client: connection.Client) -> tuple[str, ...]:
    if client.tls and client.sni:
        return (normal_host(client.sni),)
    address = normal_host(client.sockname[0])
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        loopback = False
    return (address, "localhost") if loopback else (address,)
