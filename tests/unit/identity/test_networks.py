"""Client networks: what counts as inside, and that garbage never does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.identity.networks import inside, is_within, parse_network


@pytest.mark.parametrize(
    ("address", "networks", "answer"),
    [
        pytest.param("10.20.1.2", ("10.20.0.0/16",), True, id="inside"),
        pytest.param("10.21.0.1", ("10.20.0.0/16",), False, id="beside"),
        pytest.param("10.21.0.1", ("10.20.0.0/16", "10.21.0.1"), True, id="a single address is a network"),
        pytest.param("::ffff:10.20.1.2", ("10.20.0.0/16",), True, id="mapped counts as IPv4"),
        pytest.param("10.20.1.2", ("::ffff:10.20.0.0/112",), True, id="a mapped network counts as IPv4"),
        pytest.param("10.20.1.2", ("::/0",), False, id="all of IPv6 holds no IPv4"),
        pytest.param("::ffff:10.20.1.2", ("::/0",), False, id="not even a mapped one"),
        pytest.param("2001:db8::7", ("2001:db8::/32",), True, id="IPv6"),
        pytest.param("fe80::1%eth0", ("fe80::/10",), True, id="IPv6 with a zone"),
        pytest.param("127.0.0.1", (), False, id="no network at all"),
        pytest.param(None, ("0.0.0.0/0",), False, id="an address that is not known"),
        pytest.param("", ("0.0.0.0/0",), False, id="no address"),
        pytest.param("10.20.1", ("0.0.0.0/0",), False, id="half an address"),
        pytest.param("010.020.001.002", ("0.0.0.0/0",), False, id="octal"),
    ],
)
def test_an_address_is_inside_or_not(address: str | None, networks: tuple[str, ...], answer: bool) -> None:
    assert is_within(address, networks) is answer


@pytest.mark.parametrize(
    "text", ["", "10.20.0.1/16", "10.20/16", "10.0.0.0/33", "example.com", "10.0.0.0/8 ", "fe80::%eth0/64"]
)
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_network(text)


@pytest.mark.parametrize(
    ("network", "outer", "answer"),
    [
        ("10.20.3.0/24", ("10.20.0.0/16",), True),
        ("10.0.0.0/8", ("10.20.0.0/16",), False),
        ("10.20.0.0/16", ("10.20.0.0/17", "10.20.128.0/17"), False),
        ("::ffff:10.20.3.0/120", ("10.20.0.0/16",), True),
        ("2001:db8::/48", ("10.0.0.0/8", "2001:db8::/32"), True),
        ("0.0.0.0/0", ("::/0",), False),
    ],
)
def test_a_network_is_inside_of_another(network: str, outer: tuple[str, ...], answer: bool) -> None:
    assert inside(network, outer) is answer


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(max_size=40), st.ip_addresses().map(str)))
def test_any_text_has_an_answer(address: str) -> None:
    everywhere = is_within(address, ("0.0.0.0/0", "::/0"))
    assert everywhere or not is_within(address, ("10.0.0.0/8", "2001:db8::/32"))
