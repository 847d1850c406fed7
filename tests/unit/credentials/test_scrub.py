from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from callerid.credentials.scrub import MARKER, Scrubber
from callerid.credentials.secret import Secret
from callerid.errors import ConfigError
from tests.unit.credentials.helpers import VALUE

GONE = MARKER.decode()


def scrubber(*values: str, username: str | None = None) -> Scrubber:
    secrets = [Secret(value, label=f"s{n}@v1") for n, value in enumerate(values)]
    return Scrubber(needle for secret in secrets for needle in secret.renderings(username))


def test_a_secret_in_bytes_is_replaced_and_counted() -> None:
    data = f"token={VALUE}; again {VALUE}".encode()
    assert scrubber(VALUE).scrub(data) == (f"token={GONE}; again {GONE}".encode(), 2)


def test_without_a_hit_the_same_object_comes_back() -> None:
    data, text, value = b"nothing here", "nothing here", {"a": ["nothing", 1, None, True, 2.5]}
    subject = scrubber(VALUE)
    assert subject.scrub(data) == (data, 0)
    assert subject.scrub(data)[0] is data
    assert subject.scrub_text(text)[0] is text
    assert subject.scrub_json(value)[0] is value


def test_without_needles_nothing_is_touched() -> None:
    subject, deep = Scrubber(()), json.loads("[" * 300 + "]" * 300)
    data = f"any {VALUE} at all".encode()
    assert subject.scrub(data)[0] is data
    assert subject.scrub_json(deep)[0] is deep
    assert not subject.holds(data)
    stream = subject.stream()
    assert stream.feed(data) == data
    assert stream.end() == b""


def test_the_longest_of_two_needles_at_one_place_goes() -> None:
    short, long = "prefix-of-it", "prefix-of-it-and-more"
    assert scrubber(short, long).scrub(b"<prefix-of-it-and-more>") == (b"<" + MARKER + b">", 1)
    assert scrubber(short, long).scrub(b"<prefix-of-it-and-less>") == (b"<" + MARKER + b"-and-less>", 1)


def test_of_two_that_overlap_no_needle_is_left() -> None:
    subject = scrubber("aaaa-bbbb-cccc", "bbbb-cccc-dddd")
    found, hits = subject.scrub(b"aaaa-bbbb-cccc-dddd")
    assert (found, hits) == (MARKER + b"-dddd", 1)
    assert not subject.holds(found)


def test_metacharacters_are_only_characters() -> None:
    odd = r"a.*b+[c](d)|e{2}^$\Q"
    subject = scrubber(odd)
    assert subject.holds(odd.encode())
    assert not subject.holds(b"aXXXb+[c](d)|e{2}^$\\Q")


def test_case_counts_but_in_hexadecimal_digits() -> None:
    value = "Kiss/Of~Death+9"
    subject = scrubber(value)
    assert not subject.holds(value.upper().encode())
    mixed = "".join(c.upper() if n % 3 else c for n, c in enumerate(value.encode().hex()))
    assert subject.holds(mixed.encode())
    assert subject.holds(b"Kiss%2fOf~Death%2B9")
    assert subject.holds(b"Kiss%2FOf~Death%2b9")
    assert not subject.holds(b"kiss%2fof~death%2b9")


@pytest.mark.parametrize(
    "value",
    [
        MARKER.decode(),
        f"xx{GONE}yy",
        "callerid:removed",
        "]starts-with-its-end",
        "ends-with-its-start[",
        "removed]=and-then",
        "and-then=[caller",
        "[callerid:re" * 2,
    ],
)
def test_a_secret_that_shares_an_edge_with_the_marker_gets_another_marker(value: str) -> None:
    subject = scrubber(value)
    for data in (
        value,
        value + value,
        value[:-1] + value,
        value[0] + value + value[1:],
        f"{GONE}{value}{GONE}",
    ):
        found, hits = subject.scrub(data.encode())
        assert hits
        assert not subject.holds(found)
    assert subject.marker != MARKER
    assert subject.scrub_text(f"<{value}>") == ("<\u2588\u2588\u2588>", 1)


def test_text_keeps_its_letters_and_its_lone_surrogates() -> None:
    assert scrubber(VALUE).scrub_text(f"\u00e9\ud800{VALUE}\U0001f600") == (
        f"\u00e9\ud800{GONE}\U0001f600",
        1,
    )
    text = "\ud800 alone"
    assert scrubber(VALUE).scrub_text(text)[0] is text


@pytest.mark.parametrize(
    "escaped",
    [
        json.dumps(VALUE),
        '"' + "".join(f"\\u{ord(c):04x}" for c in VALUE) + '"',
        json.dumps(VALUE).replace("/", "\\/"),
        json.dumps(VALUE).replace("e", "\\u0065"),
    ],
    ids=["plain", "every character escaped", "slashes escaped", "some letters escaped"],
)
def test_parsed_json_is_scrubbed_whatever_the_escape(escaped: str) -> None:
    value = json.loads('{"content":[{"type":"text","text":%s}],%s:1,"n":null}' % (escaped, escaped))  # noqa: UP031
    found, hits = scrubber(VALUE).scrub_json(value)
    assert hits == 2
    assert found == {"content": [{"type": "text", "text": GONE}], GONE: 1, "n": None}
    assert list(found) == ["content", GONE, "n"]
    assert VALUE in value


def test_json_within_a_json_string_is_scrubbed() -> None:
    odd = 'quo"te\\and/slash'
    found, hits = scrubber(odd).scrub_json([json.dumps({"env": {"TOKEN": odd}})])
    assert hits == 1
    assert json.loads(found[0]) == {"env": {"TOKEN": GONE}}


def test_a_number_that_is_the_secret_is_scrubbed() -> None:
    found, hits = scrubber("123456789012").scrub_json({"pin": 123456789012, "near": 12345678901, "on": True})
    assert (found, hits) == ({"pin": GONE, "near": 12345678901, "on": True}, 1)
    assert scrubber("123456789012").scrub_json([123456789012.0])[1] == 1


def test_what_is_too_deep_to_look_at_does_not_pass_and_does_not_raise() -> None:
    value: Any = "innocent"
    for _ in range(50_000):
        value = [value]
    found, hits = scrubber(VALUE).scrub_json({"deep": value, "flat": [1]})
    assert hits == 1
    assert found["flat"] == [1]
    inner, depth = found["deep"], 0
    while isinstance(inner, list):
        (inner,) = inner
        depth += 1
    assert inner == GONE
    assert depth < 300


def test_a_secret_after_a_false_start_that_overlaps_it_is_found() -> None:
    value = "aaaaaaaaaaaab"
    subject = scrubber(value)
    for n in range(1, 20):
        assert subject.scrub(b"a" * n + value.encode()) == (b"a" * n + MARKER, 1)
        stream = subject.stream()
        parts = [stream.feed(b"a" * n), stream.feed(value[:9].encode()), stream.feed(value[9:].encode())]
        assert b"".join(parts) == b"a" * n + MARKER


def test_what_is_not_json_does_not_pass() -> None:
    assert scrubber(VALUE).scrub_json([object(), VALUE.encode()]) == ([GONE, GONE], 2)


@pytest.mark.parametrize("needle", [b"", b"short", "caf\u00e9-caf\u00e9-caf\u00e9".encode()])
def test_a_needle_that_is_too_short_or_not_ascii_is_refused(needle: bytes) -> None:
    with pytest.raises(ConfigError, match="ASCII") as caught:
        Scrubber([needle])
    assert caught.value.hint


def test_neither_it_nor_its_stream_prints_or_serialises_a_needle() -> None:
    subject = scrubber(VALUE)
    stream = subject.stream()
    stream.feed(VALUE[:-1].encode())
    for thing in (subject, stream):
        assert VALUE[:-1] not in repr(thing) + str(thing) + f"{thing}"
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy, lambda it: it.__getstate__()):
            with pytest.raises(TypeError, match="cannot be serialised"):
                attempt(thing)


def test_a_stream_without_a_hint_of_a_secret_is_not_held_back() -> None:
    stream = scrubber(VALUE).stream()
    for chunk in (b"hello ", b"world.\n", b"#", b"\x00\xff" * 50):
        assert stream.feed(chunk) == chunk
    assert stream.end() == b""
    assert stream.hits == 0


def test_a_stream_holds_back_what_could_begin_a_secret_and_no_more() -> None:
    stream = scrubber(VALUE).stream()
    data = VALUE.encode()
    assert stream.feed(b"a: " + data[:10]) == b"a: "
    assert stream.feed(b"!") == data[:10] + b"!"
    assert stream.feed(data[:15]) == b""
    assert stream.feed(data[15:] + b".") == MARKER + b"."
    assert stream.feed(data[:3]) == b""
    assert stream.end() == data[:3]
    assert stream.hits == 1


def test_a_stream_waits_for_the_longer_of_two_secrets() -> None:
    short, long = b"prefix-of-it", b"prefix-of-it-and-more"
    stream = Scrubber([short, long]).stream()
    assert stream.feed(short) == b""
    assert stream.feed(long[len(short) :]) == MARKER
    assert stream.feed(short) == b""
    assert stream.end() == MARKER
    assert stream.hits == 2


def test_a_stream_knows_a_secret_that_arrives_byte_by_byte() -> None:
    stream = scrubber(VALUE).stream()
    found = b"".join(stream.feed(bytes([byte])) for byte in f"<{VALUE}{VALUE}>".encode()) + stream.end()
    assert found == b"<" + MARKER + MARKER + b">"


def test_a_secret_that_is_rotated_in_the_middle_of_a_stream_does_not_slip_through() -> None:
    stream, data = scrubber(VALUE).stream(), VALUE.encode()
    given = stream.feed(b"a " + data[:12])
    stream.use(scrubber(VALUE, "the-one-after-it-7d1e"))
    given += stream.feed(data[12:] + b" the-one-") + stream.feed(b"after-it-7d1e.") + stream.end()
    assert given == b"a " + MARKER + b" " + MARKER + b"."
    assert stream.hits == 2


def test_large_secrets_and_many_are_still_found() -> None:
    many = [f"credential-number-{n}/of+many" for n in range(60)] + ["Z" * 4000 + "end", "~" * 8192]
    subject = scrubber(*many)
    for value in many:
        assert subject.scrub(f"({value})".encode())[1] == 1
    assert not subject.holds(b"Z" * 3000 + b"~" * 8190)
