"""Law 5, against real escapers: what a server could show of a secret, however escaped, wrapped or cut."""

from __future__ import annotations

import base64
import html
import json
import re
import string
import urllib.parse
from collections.abc import Callable

import markupsafe
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.credentials.scrub import Scrubber
from callerid.credentials.secret import Secret

PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
SURE = string.ascii_letters + string.digits + "/+=_-.~:@!#$*()[]{};,<>'\"?|^`"
secrets = st.builds(lambda a, b: a + b, st.text(SURE, min_size=16, max_size=16), st.text(SURE, max_size=30))


def marks(pattern: str) -> Callable[[str], str]:
    return lambda s: "".join(c if c.isalnum() else pattern % ord(c) for c in s)


def every(pattern: str) -> Callable[[str], str]:
    return lambda s: "".join(pattern % ord(c) for c in s)


def lines(width: int, by: str) -> Callable[[str], str]:
    return lambda s: by.join(s[n : n + width] for n in range(0, len(s), width))


def twice(function: Callable[[str], str]) -> Callable[[str], str]:
    return lambda s: function(function(s))


def mime(s: str) -> str:
    return base64.encodebytes(b"DB_USER=app\nREGION=eu\nKEY=" + s.encode() + b"\nMODE=prod\n" * 9).decode()


ESCAPERS: dict[str, Callable[[str], str]] = {
    "html.escape": html.escape,
    "html.escape twice": twice(html.escape),
    "markupsafe": lambda s: str(markupsafe.escape(s)),
    "markupsafe twice": lambda s: str(markupsafe.escape(str(markupsafe.escape(s)))),
    "Go html/template": lambda s: str(markupsafe.escape(s)).replace("+", "&#43;"),
    "Handlebars": lambda s: html.escape(s).replace("=", "&#x3D;").replace("`", "&#x60;"),
    "Mustache": lambda s: html.escape(s).replace("/", "&#x2F;").replace("=", "&#x3D;"),
    "OWASP": marks("&#x%x;"),
    "OWASP, capitals": marks("&#X%02X;"),
    "numbers": every("&#%d;"),
    "names": lambda s: s.replace("+", "&plus;").replace("=", "&equals;").replace("_", "&lowbar;"),
    "json.dumps": json.dumps,
    "json.dumps twice": lambda s: json.dumps(json.dumps(s)),
    "JSON four deep": lambda s: json.dumps(json.dumps(json.dumps(json.dumps(s)))),
    "JSON, slashes": lambda s: json.dumps(s).replace("/", "\\/"),
    "JSON, all": every("\\u%04X"),
    "JSON, all, in JSON": every("\\\\u%04x"),
    "script \\u": marks("\\u%04x"),
    "script \\x": marks("\\x%02x"),
    "script \\X": marks("\\x%02X"),
    "script, braces": marks("\\u{%x}"),
    "backslashes": lambda s: re.sub(r"(\W)", r"\\\1", s),
    "quote": lambda s: urllib.parse.quote(s, safe=""),
    "quote twice": twice(lambda s: urllib.parse.quote(s, safe="")),
    "quote three times": lambda s: twice(urllib.parse.quote)(urllib.parse.quote(s, safe="")),
    "percent, all, twice": lambda s: urllib.parse.quote(every("%%%02x")(s)),
    "quote_plus": urllib.parse.quote_plus,
    "hex": lambda s: s.encode().hex(),
    "hex by bytes": lambda s: s.encode().hex(" "),
    "hex by pairs": lambda s: lines(39, "\r\n")(s.encode().hex(" ", 2).upper()),
    "base64": mime,
    "base64 in JSON": lambda s: json.dumps(mime(s)),
    "base64, CRLF": lambda s: mime(s).replace("\n", "\r\n"),
    "base64, indented": lambda s: mime(s).replace("\n", "\n        "),
    "base64, quoted": lambda s: urllib.parse.quote(base64.b64encode(s.encode())),
    "text in lines": lines(10, "\n"),
    "text in lines, in JSON": lambda s: json.dumps(lines(11, "\r\n")(s)),
}
WIDE = ("utf-16-le", "utf-16-be", "utf-16", "utf-32-le")


def shown(name: str, secret: str) -> bytes:
    """As the server would write it, in the middle of a page."""
    return f"<p> {ESCAPERS[name](secret)} <".encode()


def over(secret: str) -> Scrubber:
    return Scrubber(Secret(secret, label="s@v1").renderings("svc"))


def in_pieces(scrubber: Scrubber, data: bytes, size: int) -> bytes:
    stream = scrubber.stream()
    return b"".join(stream.feed(data[n : n + size]) for n in range(0, len(data), size)) + stream.end()


def assert_gone(scrubber: Scrubber, secret: str, data: bytes, name: str, size: int) -> None:
    found, hits = scrubber.scrub(data)
    assert hits, name
    assert not scrubber.holds(found), name
    assert in_pieces(scrubber, data, size) == found, name
    if secret.isalnum() and not name.startswith(("hex", "base64")):
        assert secret[6:].encode() not in found


@settings(max_examples=15, deadline=None)
@given(secrets, st.integers(1, 40))
def test_no_escaper_brings_a_secret_past_the_scrubber(secret: str, size: int) -> None:
    scrubber = over(secret)
    for name in ESCAPERS:
        assert_gone(scrubber, secret, shown(name, secret), name, size)
    for encoding in WIDE:
        assert_gone(scrubber, secret, f"<p>{secret}</p>".encode(encoding), encoding, size)


@settings(max_examples=100, deadline=None)
@given(st.text(PRINTABLE, min_size=12, max_size=24), st.sampled_from(sorted(ESCAPERS)), st.integers(1, 9))
def test_a_secret_of_any_marks_comes_out_the_same_in_any_pieces(secret: str, name: str, size: int) -> None:
    scrubber = over(secret)
    for data in (shown(name, secret) * 2, shown(name, secret)[:-9] + shown(name, secret)):
        found, _ = scrubber.scrub(data)
        assert not scrubber.holds(found)
        assert in_pieces(scrubber, data, size) == found


@settings(max_examples=15, deadline=None)
@given(secrets)
def test_json_that_is_scrubbed_as_bytes_stays_json(secret: str) -> None:
    scrubber = over(secret)
    for name in ("json.dumps", "JSON, slashes", "JSON, all", "json.dumps twice", "JSON four deep"):
        text = ESCAPERS[name](secret)
        found, hits = scrubber.scrub(
            (f'{{"k": "{text}"}}' if "all" in name else f'{{"k": [{text}]}}').encode()
        )
        assert hits
        json.loads(found)
