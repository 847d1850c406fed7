"""Which IP addresses belong to nobody's public server: the table, and what is allowed all the same. Pure.

Judged is what an address means, not how it is written: an IPv4 address inside of an IPv6 one (mapped, 6to4,
NAT64, Teredo, ISATAP) counts as itself. Names and odd spellings (``0x7f.1``, ``2130706433``) are not read
here: the resolver that dials reads them, and what it found is judged.

Sources: the IANA special-purpose address registries (RFC 6890); RFC 4291, 6052, 8215, 3056, 4380, 5214; the
metadata addresses as the clouds document them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network


class Sort(StrEnum):
    """What kind of address it is, in words for a sentence."""

    PUBLIC = "public"
    LOOPBACK = "loopback"
    PRIVATE = "private"
    LINK_LOCAL = "link-local"
    SHARED = "shared (RFC 6598)"
    UNIQUE_LOCAL = "unique-local"
    METADATA = "metadata"
    MULTICAST = "multicast"
    UNSPECIFIED = "unspecified"
    RESERVED = "reserved"
    UNREADABLE = "unreadable"


METADATA = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Azure, Google, Oracle, DigitalOcean, Hetzner
        "169.254.170.2",  # AWS, credentials of ECS tasks
        "169.254.170.23",  # AWS, credentials of EKS pods
        "169.254.42.42",  # Scaleway
        "169.254.0.23",  # Tencent
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's wire server
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS, credentials of EKS pods
        "fd20:ce::254",  # Google
        "fd00:42::42",  # Scaleway
    )
)
"""Whoever may ask these gets the machine's own credentials. Refused whatever is listed or allowed."""


def _networks(sort: Sort, *texts: str) -> tuple[tuple[Network, Sort], ...]:
    return tuple((ip_network(text), sort) for text in texts)


_V4 = (
    *_networks(Sort.UNSPECIFIED, "0.0.0.0/8"),
    *_networks(Sort.LOOPBACK, "127.0.0.0/8"),
    *_networks(Sort.PRIVATE, "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    *_networks(Sort.SHARED, "100.64.0.0/10"),
    *_networks(Sort.LINK_LOCAL, "169.254.0.0/16"),
    *_networks(Sort.MULTICAST, "224.0.0.0/4"),
    *_networks(
        Sort.RESERVED,
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "240.0.0.0/4"),
    ),
)
_V6 = (
    *_networks(Sort.UNSPECIFIED, "::/128"),
    *_networks(Sort.LOOPBACK, "::1/128"),
    *_networks(Sort.LINK_LOCAL, "fe80::/10"),
    *_networks(Sort.UNIQUE_LOCAL, "fc00::/7"),
    *_networks(Sort.PRIVATE, "fec0::/10"),
    *_networks(Sort.MULTICAST, "ff00::/8"),
    *_networks(Sort.RESERVED, "2001:2::/48", "2001:10::/28", "2001:20::/28", "2001:db8::/32", "3fff::/20"),
)
_UNICAST = IPv6Network("2000::/3")
"""All other IPv6 is not in use, apart from the well-known prefix of NAT64."""
_NAT64 = IPv6Network("64:ff9b::/96")
_LOW_32 = tuple(IPv6Network(text) for text in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
"""Prefixes with an IPv4 address in the last 32 bits: compatible, mapped, translated, NAT64."""
_6TO4 = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})


def read(text: str) -> Address | None:
    """The address, without a scope id (``fe80::1%eth0``); None if it is none in its usual spelling."""
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


def sort_of(text: str) -> Sort:
    """What kind of address ``text`` is. Total: what cannot be read is UNREADABLE, never PUBLIC."""
    address = read(text)
    return Sort.UNREADABLE if address is None else _sort(address)


def _sort(address: Address) -> Sort:
    if address in METADATA:
        return Sort.METADATA
    if isinstance(address, IPv4Address):
        return _look_up(address, _V4) or Sort.PUBLIC
    if address.ipv4_mapped is not None:
        return _sort(address.ipv4_mapped)
    own = _look_up(address, _V6)
    inner = _worst(_sort(found) for found in embedded(address))
    if own is not None:
        return inner if inner is Sort.METADATA else own
    if inner is not Sort.PUBLIC:
        return inner
    return Sort.PUBLIC if address in _UNICAST or address in _NAT64 else Sort.RESERVED


def _look_up(address: Address, table: Iterable[tuple[Network, Sort]]) -> Sort | None:
    return next((sort for network, sort in table if address in network), None)


def _worst(sorts: Iterable[Sort]) -> Sort:
    """METADATA before anything else that is not public: no permission reaches it."""
    found = [sort for sort in sorts if sort is not Sort.PUBLIC]
    return Sort.METADATA if Sort.METADATA in found else found[0] if found else Sort.PUBLIC


def embedded(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses to which a packet for this address may be sent on."""
    number = int(address)
    low = number & 0xFFFF_FFFF
    found: list[int] = []
    if any(address in network for network in _LOW_32):
        found.append(low)
    if address in _6TO4:
        found.append((number >> 80) & 0xFFFF_FFFF)
    if address in _TEREDO:
        found += [(number >> 64) & 0xFFFF_FFFF, low ^ 0xFFFF_FFFF]
    if (number >> 32) & 0xFFFF_FFFF in _ISATAP:
        found.append(low)
    return tuple(map(IPv4Address, found))


def plain(text: str) -> str:
    """One spelling per address, to compare: a mapped IPv4 address is that IPv4 address."""
    address = read(text)
    if address is None:
        return text
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).compressed


@dataclass(frozen=True, slots=True)
class Private:
    """What may be dialled although it is not public: host names (normal form), and networks."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    def allows(self, host: str, address: str) -> bool:
        """Whether ``host`` may lead to ``address``, which is not public."""
        if host in self.hosts:
            return True
        found = read(plain(address))
        return found is not None and any(
            found.version == network.version and found in network for network in self.networks
        )


def refused(host: str, addresses: Iterable[str], *, listed: bool, private: Private) -> str | None:
    """Why a host that leads to these addresses may not be dialled; None if it may.

    One address that is refused refuses the host, whichever of them would have been tried first.

    Args:
        host: in normal form.
        addresses: all that it leads to.
        listed: the place is one that servers.yaml lists, so it may be private.
        private: what else may be.
    """
    for address in addresses:
        sort = sort_of(address)
        if sort is Sort.PUBLIC:
            continue
        if sort is Sort.METADATA or not (listed or private.allows(host, address)):
            return f"{host} leads to the {sort.value} address {address}"
    return None
