"""Who may be dialled: by what a name leads to, and never ourselves."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from callerid.proxy.addresses import Private
from callerid.proxy.dial import judge
from callerid.proxy.limits import DEFAULTS

LOOPBACK = replace(DEFAULTS, private=Private(networks=(ip_network("127.0.0.0/8"), ip_network("::1/128"))))
HERE = (("127.0.0.1", 8080), ("::1", 8081))
ANYWHERE = (("0.0.0.0", 8080),)


@pytest.mark.parametrize(
    ("sentence", "host", "port", "found", "said"),
    [
        ("a public host", "a.example", 443, ["8.8.8.8"], None),
        ("an allowed network", "lab.corp.example", 80, ["127.0.0.1"], None),
        ("two addresses, one private", "a.example", 443, ["8.8.8.8", "10.0.0.1"], "private address 10.0.0.1"),
        ("the metadata service", "m.corp.example", 80, ["169.254.169.254"], "metadata"),
        ("our own listener", "localhost", 8080, ["127.0.0.1"], "callerid itself"),
        ("our own listener, as IPv6", "x.example", 8080, ["::ffff:127.0.0.1"], "callerid itself"),
        ("our other listener", "localhost", 8081, ["127.0.0.1", "::1"], "callerid itself"),
        ("another port of ours", "localhost", 9090, ["127.0.0.1"], None),
    ],
)
def test_a_host_is_judged_by_all_that_it_leads_to(
    sentence: str, host: str, port: int, found: list[str], said: str | None
) -> None:
    why = judge(host, port, found, local=None, listed=False, limits=LOOPBACK, listeners=HERE)
    assert (why is None) is (said is None), sentence
    assert said is None or said in str(why), sentence


@pytest.mark.parametrize(
    ("sentence", "found", "local", "ours"),
    [
        ("loopback", "127.0.0.1", None, True),
        ("all of loopback", "127.9.9.9", None, True),
        ("both ends are this machine", "8.8.4.4", "8.8.4.4", True),
        ("they are not", "8.8.4.4", "192.0.2.7", False),
    ],
)
def test_a_listener_on_every_address_is_known_by_both_ends(
    sentence: str, found: str, local: str | None, ours: bool
) -> None:
    why = judge("x.example", 8080, [found], local=local, listed=True, limits=LOOPBACK, listeners=ANYWHERE)
    assert (why is not None) is ours, sentence


def test_a_listed_place_may_be_private_but_not_ourselves_nor_metadata() -> None:
    def ask(found: str, port: int = 443) -> str | None:
        return judge("s.example", port, [found], local=None, listed=True, limits=DEFAULTS, listeners=HERE)

    assert ask("10.0.0.1") is None
    assert ask("127.0.0.1", 8080) is not None
    assert ask("169.254.169.254") is not None


def test_a_host_in_a_sentence_is_short_and_printable() -> None:
    why = judge("a\n\x1b" * 300, 80, ["10.0.0.1"], local=None, listed=False, limits=DEFAULTS, listeners=())
    assert why is not None
    assert why.isprintable()
    assert len(why) < 400
