"""Properties of law 5: what is scrubbed holds no secret, however it was cut; nothing odd is bound."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.config import Binding
from callerid.credentials.binding import Destination, is_bound, is_canonical, matches
from callerid.credentials.inject import apply, prepared
from callerid.credentials.outgoing import Outgoing
from callerid.credentials.scrub import Scrubber
from callerid.credentials.secret import Secret, is_printable_ascii
from callerid.credentials.sources import Unavailable, read_source
from callerid.credentials.strip import strip_names
from callerid.errors import ConfigError
from tests.unit.credentials.helpers import credential

quick = settings(max_examples=100, deadline=None)

PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
# Few letters, so that secrets overlap with themselves, with one another and with the marker.
NARROW = 'ab[]"\\/%+cd:0'


def sound(alphabet: str) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=12, max_size=24).filter(lambda text: text == text.strip(" "))


secrets = st.one_of(
    sound(PRINTABLE),
    sound(NARROW),
    sound("ab"),
    sound("0123456789abcdefABCDEF"),
    st.sampled_from(["[callerid:removed]", "callerid:removed", "removed][callerid:", "]aaaaaaaaaaa["]),
)


def over(values: list[str]) -> Scrubber:
    return Scrubber(n for v in values for n in Secret(v, label="s@v1").renderings("svc"))


@st.composite
def hostile(draw: st.DrawFn) -> tuple[Scrubber, bytes]:
    """Needles, and data made of whole needles, pieces of them, pieces of the marker, and noise."""
    values = draw(st.lists(secrets, min_size=1, max_size=3))
    needles = [n for v in values for n in Secret(v, label="s@v1").renderings("svc")]
    needle = st.sampled_from(needles)
    cut = st.integers(0, 30)
    piece = st.one_of(
        needle,
        st.builds(lambda n, k: n[:k], needle, cut),
        st.builds(lambda n, k: n[k:], needle, cut),
        st.builds(lambda n, k: b"[callerid:removed]"[k : n + k], cut, cut),
        st.binary(max_size=6),
    )
    return Scrubber(needles), b"".join(draw(st.lists(piece, max_size=10)))


@st.composite
def splits(draw: st.DrawFn, data: bytes) -> list[bytes]:
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@quick
@given(hostile())
def test_no_needle_survives(case: tuple[Scrubber, bytes]) -> None:
    scrubber, data = case
    found, hits = scrubber.scrub(data)
    assert not scrubber.holds(found)
    assert (hits > 0) is scrubber.holds(data)
    assert scrubber.scrub(found) == (found, 0)
    if not hits:
        assert found is data


@quick
@given(hostile(), st.data())
def test_a_stream_comes_out_the_same_however_it_is_split(
    case: tuple[Scrubber, bytes], draw: st.DataObject
) -> None:
    scrubber, data = case
    whole, hits = scrubber.scrub(data)
    for chunks in (draw.draw(splits(data)), [data[n : n + 1] for n in range(len(data))]):
        stream = scrubber.stream()
        fed = out = 0
        parts = []
        for chunk in chunks:
            parts.append(stream.feed(chunk))
            fed, out = fed + len(chunk), out + len(parts[-1])
            assert len(stream._held) < max(scrubber.longest, 1)
        parts.append(stream.end())
        assert b"".join(parts) == whole
        assert stream.hits == hits


@quick
@given(hostile(), st.data())
def test_what_is_held_back_could_still_become_a_needle(
    case: tuple[Scrubber, bytes], draw: st.DataObject
) -> None:
    scrubber, data = case
    stream = scrubber.stream()
    for chunk in draw.draw(splits(data)):
        stream.feed(chunk)
        held = stream._held.lower()
        assert (
            not held
            or any(n.startswith(held) and n != held for one in scrubber._sets for n in one._lowered)
            or any(one._loose.pending(stream._held, 0) for one in scrubber._sets)
        )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def planted(value: Any, secret: str) -> Any:
    """The same shape, with the secret in every string and every member name."""
    if isinstance(value, str):
        return f"{value}{secret}{value[::-1]}"
    if isinstance(value, list):
        return [planted(item, secret) for item in value]
    if isinstance(value, dict):
        return {planted(name, secret): planted(member, secret) for name, member in value.items()}
    return value


@quick
@given(secrets, json_values)
def test_parsed_json_keeps_its_shape_and_loses_the_secret(secret: str, value: Any) -> None:
    scrubber = over([secret])
    found, hits = scrubber.scrub_json([planted(value, secret), secret])
    assert hits
    assert not scrubber.holds(json.dumps(found, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    assert type(found[0]) is type(value) or isinstance(found[0], str)
    again, none = scrubber.scrub_json(found)
    assert again is found
    assert none == 0


@quick
@given(sound(PRINTABLE), json_values, st.booleans())
def test_json_bytes_stay_valid_json(secret: str, value: Any, ascii_only: bool) -> None:
    scrubber = over([secret])
    text = json.dumps([planted(value, secret), secret], ensure_ascii=ascii_only)
    found, hits = scrubber.scrub(text.encode("utf-8", "surrogatepass"))
    assert hits
    json.loads(found.decode("utf-8", "surrogatepass"))


@quick
@given(sound(PRINTABLE), st.binary(max_size=7), st.binary(max_size=7))
def test_base64_of_anything_around_the_secret_is_found(secret: str, before: bytes, after: bytes) -> None:
    scrubber = over([secret])
    whole = before + secret.encode() + after
    assert scrubber.holds(base64.b64encode(whole))
    assert scrubber.holds(base64.urlsafe_b64encode(whole))


@quick
@given(st.text(), st.sampled_from(["bearer", "header", "basic"]), st.text(), st.text())
def test_whatever_is_in_source_and_rules_a_header_is_sound_or_refused(
    value: str, inject: str, template: str, username: str
) -> None:
    subject = credential(inject=inject, template=f"{template}{{secret}}", username=username)
    found = read_source(subject, {"GITHUB_SHARED": value})
    if isinstance(found, Unavailable):
        return
    try:
        injection = prepared(subject, Secret(found, label="s@v1"))
    except ConfigError:
        return
    headers: dict[str, str] = {}
    place = Outgoing(
        method="POST", scheme="https", host="h.corp.example", port=443, path="/", headers=headers
    )
    apply(injection, place)
    assert is_printable_ascii(headers["Authorization"])


@quick
@given(st.text() | st.text("/.%2eEfF5cC\\;?amp-*"))
def test_the_path_check_is_total_and_a_canonical_path_has_no_way_out(path: str) -> None:
    anywhere = Binding(hosts=frozenset({("github.corp.example", 443)}))
    place = Destination(
        scheme="https", host="github.corp.example", port=443, path=path, method="POST", tls_verified=True
    )
    assert is_bound(anywhere, place) is is_canonical(path)
    if is_canonical(path):
        assert path.isascii()
        assert not {".", ".."} & set(path.split("/"))
        assert not any(bad in path.lower() for bad in ("%2e", "%2f", "%5c", "%25", "%00", "\\", "//"))


@quick
@given(st.text("/*ab"), st.text("/ab"))
def test_a_glob_without_stars_is_equality_and_any_glob_is_total(glob: str, path: str) -> None:
    found = matches(glob, path)
    if "*" not in glob:
        assert found is (glob == path and glob.startswith("/"))


@quick
@given(st.text(), st.integers(), st.booleans())
def test_only_the_listed_host_and_port_are_bound(host: str, port: int, verified: bool) -> None:
    binding = Binding(hosts=frozenset({("github.corp.example", 443)}))
    place = Destination(scheme="https", host=host, port=port, path="/", method="GET", tls_verified=verified)
    expected = (host.isascii() and host.lower(), port, verified) == ("github.corp.example", 443, True)
    assert is_bound(binding, place) is expected


@quick
@given(st.lists(st.text()), st.booleans())
def test_strip_names_gives_a_part_of_what_it_got(names: list[str], governed: bool) -> None:
    found = strip_names(names, governed=governed)
    assert len(set(found)) == len(found)
    assert set(found) <= set(names)
