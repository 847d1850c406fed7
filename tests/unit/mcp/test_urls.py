from __future__ import annotations

from typing import Any

import pytest

from callerid.mcp.urls import url_host

PLAIN = [
    ("https://id.corp.example/login?x=1#y", "id.corp.example"),
    ("HTTPS://ID.Corp.Example", "id.corp.example"),
    ("http://id.corp.example:8080/a@b", "id.corp.example"),
    ("https://id.corp.example?next=//evil.example", "id.corp.example"),
    ("https://id.corp.example#@evil.example", "id.corp.example"),
    ("https://id_1.corp.example/é", "id_1.corp.example"),
    ("https://127.0.0.1/", "127.0.0.1"),
    ("https://[2001:DB8:0::1]:443/", "2001:db8::1"),
    ("https://bücher.example/", "xn--bcher-kva.example"),
    ("https://xn--bcher-kva.example/", "xn--bcher-kva.example"),
    ("https://localhost", "localhost"),
]

NOT_PLAIN = [
    pytest.param(None, id="nothing"),
    pytest.param(["https://a.example"], id="no string"),
    pytest.param("", id="an empty string"),
    pytest.param("id.corp.example", id="no scheme"),
    pytest.param("//id.corp.example/", id="no scheme, two slashes"),
    pytest.param("ftp://id.corp.example/", id="another scheme"),
    pytest.param("javascript://id.corp.example/%0aalert(1)", id="a script"),
    pytest.param("data:text/html,x", id="data"),
    pytest.param("https:id.corp.example", id="no slashes, which browsers take"),
    pytest.param("https:/id.corp.example", id="one slash, which browsers take"),
    pytest.param("https:///id.corp.example", id="three slashes, which browsers take"),
    pytest.param("https://id.corp.example@evil.example/", id="userinfo"),
    pytest.param("https://a:b@id.corp.example/", id="a password"),
    pytest.param("https://@id.corp.example/", id="empty userinfo"),
    pytest.param("https://evil.example\\@id.corp.example/", id="a backslash, a slash for browsers"),
    pytest.param("https://id.corp.example\\.evil.example", id="a backslash in the host"),
    pytest.param(" https://id.corp.example", id="a leading space"),
    pytest.param("https://id.corp.example/a b", id="a space"),
    pytest.param("https://evil.example\t.corp.example", id="a tab, which browsers drop"),
    pytest.param("ht\ntps://id.corp.example", id="a line feed, which browsers drop"),
    pytest.param("https://id.corp.example/\u2028", id="a line separator"),
    pytest.param("https://id.corp.example/\u202egpj", id="a right-to-left override"),
    pytest.param("https://id.corp\u00ad.example/", id="a soft hyphen"),
    pytest.param("https://id.corp.example:443:80/", id="two ports"),
    pytest.param("https://id.corp.example:/", id="an empty port"),
    pytest.param("https://id.corp.example:99999/", id="a port too large"),
    pytest.param("https://id.corp.example:+80/", id="a signed port"),
    pytest.param("https://id.corp.example:\u0668\u0660/", id="digits of another script"),
    pytest.param("https://id.corp.example.", id="a final dot"),
    pytest.param("https://id..corp.example", id="an empty label"),
    pytest.param("https://%69d.corp.example", id="an escape in the host"),
    pytest.param("https://id.corp.example%2eevil.example", id="an escaped dot"),
    pytest.param("https://2130706433/", id="an address as one number"),
    pytest.param("https://0x7f.1/", id="an address in hexadecimal"),
    pytest.param("https://127.0.0.0x1/", id="an address that is partly hexadecimal"),
    pytest.param("https://127.1/", id="a short address"),
    pytest.param("https://0177.0.0.1/", id="an address in octal"),
    pytest.param("https://256.1.1.1/", id="an address out of range"),
    pytest.param("https://[::1%25eth0]/", id="a zone"),
    pytest.param("https://[::ffff:127.0.0.1]/", id="IPv4 in IPv6"),
    pytest.param("https://[::1/", id="an open bracket"),
    pytest.param("https://[::1]x/", id="text after the bracket"),
    pytest.param("https://[v1.x]/", id="an address of the future"),
    pytest.param("https://::1/", id="IPv6 without brackets"),
    pytest.param("https://\uff45vil.example/", id="a wide letter"),
    pytest.param("https://evil\u3002example/", id="an ideographic full stop, which is a dot"),
    pytest.param("https://fa\u00df.example/", id="a sharp s, of which the IDNA versions differ"),
    pytest.param("https://\u03b1\u03c2.example/", id="a final sigma"),
    pytest.param("https://a\u200db.example/", id="a zero-width joiner"),
    pytest.param("https://\u2102.example/", id="a letter that compatibility maps"),
    pytest.param("https://a\u1160b.example/", id="a filler, which browsers drop"),
    pytest.param("https://a\U000e0101b.example/", id="a variation selector, which browsers drop"),
    pytest.param("https://\ud800.example/", id="a lone surrogate"),
    pytest.param(f"https://{'a' * 64}.example/", id="a label too long"),
    pytest.param(f"https://{'a.' * 130}example/", id="a name too long"),
    pytest.param("https://a.example/" + "x" * 9000, id="a URL too long"),
    pytest.param("https://a,b.example/", id="a comma"),
    pytest.param("https://*.corp.example/", id="an asterisk"),
]


@pytest.mark.parametrize(("url", "host"), PLAIN)
def test_a_plain_url_has_a_host(url: str, host: str) -> None:
    assert url_host(url) == host


@pytest.mark.parametrize("url", NOT_PLAIN)
def test_a_url_that_readers_take_differently_has_none(url: Any) -> None:
    assert url_host(url) is None
