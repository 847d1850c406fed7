"""Client networks of a scoped token: where it is good from. Pure, over ``ipaddress``.

A token with networks is good from an address that is known and lies in one of them; garbage is never
"everywhere". An IPv4 address in its IPv6 spelling (``::ffff:10.20.0.1``, RFC 4291 section 2.5.5.2) counts
as the IPv4 address that it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

type Network = IPv4Network | IPv6Network

_MAPPED = ip_network("::ffff:0:0/96")


def parse_network(text: str) -> Network:
    """A network as ``ADDRESS/LENGTH``, or one address. Host bits must be zero; a mapped one becomes IPv4.

    Raises:
        ValueError: it is none.
    """
    network = ip_network(text, strict=True)
    if isinstance(network, IPv6Network):
        if network.network_address.scope_id is not None:
            raise ValueError(f"{text!r} names a zone, which means something on one machine only")
        if network.subnet_of(_MAPPED):  # type: ignore[arg-type]
            inside = network.network_address.ipv4_mapped
            return ip_network(f"{inside}/{network.prefixlen - 96}")
    return network


def is_within(address: str | None, networks: Iterable[str]) -> bool:
    """True when ``address`` is known and lies in one of ``networks``. Total on any text."""
    if address is None:
        return False
    try:
        here = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(here, "ipv4_mapped", None)
    here = mapped if mapped is not None else here
    return any(here.version == network.version and here in network for network in _parsed(tuple(networks)))


def inside(network: str, outer: Iterable[str]) -> bool:
    """True when all of ``network`` lies in one of ``outer``.

    Raises:
        ValueError: one of them is no network.
    """
    small = parse_network(network)
    return any(
        small.version == wide.version and small.subnet_of(wide)  # type: ignore[arg-type]
        for wide in _parsed(tuple(outer))
    )


@lru_cache(maxsize=1024)
def _parsed(networks: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(map(parse_network, networks))
