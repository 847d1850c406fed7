"""Which addresses are nobody's public server, however they are written."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.proxy.addresses import METADATA, Private, Sort, embedded, plain, refused, sort_of

NOBODY = Private()

TABLE = {
    Sort.PUBLIC: (
        "8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1", "192.169.0.1",
        "11.0.0.1", "126.255.255.255", "128.0.0.1", "169.253.0.1", "223.255.255.255", "2606:4700:4700::1111",
        "2a00:1450:4001:800::200e", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1",
    ),
    Sort.LOOPBACK: ("127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "2002:7f00:1::", "::7f00:1"),
    Sort.PRIVATE: (
        "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "::ffff:10.1.2.3", "64:ff9b::a00:1",
        "fec0::1", "2002:c0a8:101::1", "2001:0:a00:1::", "2001:0:808:808::f5ff:fffe", "2a00:1::5efe:10.0.0.1",
        "::ffff:0:10.0.0.1",
    ),
    Sort.LINK_LOCAL: ("169.254.1.1", "fe80::1", "febf::1", "fe80::1%eth0", "::ffff:169.254.9.9"),
    Sort.SHARED: ("100.64.0.1", "100.127.255.254", "64:ff9b::6440:1"),
    Sort.UNIQUE_LOCAL: ("fc00::1", "fd12:3456:789a::1"),
    Sort.METADATA: (
        "169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192",
        "169.254.170.2", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "::a9fe:a9fe",
        "fe80::5efe:a9fe:a9fe",
    ),
    Sort.MULTICAST: ("224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1"),
    Sort.UNSPECIFIED: ("0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0"),
    Sort.RESERVED: (
        "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "240.0.0.1", "255.255.255.255",
        "2001:db8::1", "100::1", "4000::1", "64:ff9b:1::8.8.8.8", "5f00::1", "::2:0:0:1",
    ),
    Sort.UNREADABLE: ("", "localhost", "0x7f.1", "2130706433", "0177.0.0.1", "127.1", "[::1]", "1.2.3.4.5"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "sort"), [(text, sort) for sort, texts in TABLE.items() for text in texts])
def test_an_address_is_of_its_sort(text: str, sort: Sort) -> None:
    assert sort_of(text) is sort


@pytest.mark.parametrize("address", sorted(METADATA, key=str), ids=str)
def test_metadata_is_refused_for_whoever_is_listed_or_allowed(address: IPv4Address | IPv6Address) -> None:
    everything = Private(frozenset({"m.corp.example"}), (ip_network("0.0.0.0/0"), ip_network("::/0")))
    for listed in (False, True):
        why = refused("m.corp.example", [str(address)], listed=listed, private=everything)
        assert why is not None
        assert "metadata" in why


def test_a_public_host_is_not_refused() -> None:
    assert refused("a.example", ["8.8.8.8", "2606:4700::1"], listed=False, private=NOBODY) is None


@pytest.mark.parametrize("found", [["8.8.8.8", "10.0.0.1"], ["10.0.0.1", "8.8.8.8"], ["8.8.8.8", "nonsense"]])
def test_one_address_that_is_not_public_refuses_the_host(found: list[str]) -> None:
    assert refused("a.example", found, listed=False, private=NOBODY) is not None


def test_a_listed_host_may_be_private() -> None:
    assert refused("files.corp.example", ["10.0.0.1", "::1"], listed=True, private=NOBODY) is None


@pytest.mark.parametrize(
    ("sentence", "private", "host", "address", "allowed"),
    [
        ("its network is allowed", Private(networks=(ip_network("10.1.0.0/16"),)), "a", "10.1.2.3", True),
        ("another network is", Private(networks=(ip_network("10.1.0.0/16"),)), "a", "10.2.0.1", False),
        ("it is in IPv6", Private(networks=(ip_network("10.0.0.0/8"),)), "a", "::ffff:10.0.0.1", True),
        ("it is 6to4", Private(networks=(ip_network("10.0.0.0/8"),)), "a", "2002:a00:1::", False),
        ("its name is allowed", Private(hosts=frozenset({"a"})), "a", "192.168.0.1", True),
        ("another name is", Private(hosts=frozenset({"a"})), "b", "192.168.0.1", False),
        ("no address at all", Private(networks=(ip_network("0.0.0.0/0"),)), "a", "nonsense", False),
    ],
)
def test_what_is_private_may_be_allowed(
    sentence: str, private: Private, host: str, address: str, allowed: bool
) -> None:
    assert (refused(host, [address], listed=False, private=private) is None) is allowed, sentence


@settings(max_examples=300, deadline=None)
@given(st.integers(0, (1 << 32) - 1).map(IPv4Address))
def test_an_address_that_python_calls_not_global_is_never_public(address: IPv4Address) -> None:
    if sort_of(str(address)) is Sort.PUBLIC:
        assert address.is_global
        assert not address.is_multicast


@settings(max_examples=300, deadline=None)
@given(st.integers(0, (1 << 128) - 1).map(IPv6Address))
def test_the_same_for_ipv6(address: IPv6Address) -> None:
    if sort_of(str(address)) is Sort.PUBLIC:
        assert address.is_global
        assert all(sort_of(str(inner)) is Sort.PUBLIC for inner in embedded(address))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, (1 << 32) - 1).map(IPv4Address), st.integers(0, (1 << 64) - 1))
def test_an_inner_address_is_seen_through_every_wrapping(inner: IPv4Address, host: int) -> None:
    low = int(inner)
    wrapped = [
        IPv6Address((0xFFFF << 32) | low),
        IPv6Address(int(IPv6Address("64:ff9b::")) | low),
        IPv6Address((0x2002 << 112) | (low << 80) | host),
        IPv6Address((0x2001 << 112) | (0x08080808 << 64) | (low ^ 0xFFFFFFFF)),
    ]
    if sort_of(str(inner)) is not Sort.PUBLIC:
        assert all(sort_of(str(address)) is not Sort.PUBLIC for address in wrapped)


@given(st.text(max_size=60))
def test_any_text_has_a_sort(text: str) -> None:
    found = sort_of(text)
    if found is Sort.PUBLIC:
        ip_address(text.partition("%")[0])
    assert plain(text) is not None
