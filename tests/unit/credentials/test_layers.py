from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.credentials.layers import FEW, Layers
from callerid.credentials.needles import Needles
from callerid.credentials.scrub import MARKER, Scrubber
from callerid.credentials.secret import Secret
from callerid.credentials.series import Kept
from callerid.errors import ConfigError
from tests.unit.credentials.helpers import VALUE

SHARED = Secret(VALUE, label="shared@v1").renderings()


def token(number: int, value: str | None = None) -> Kept:
    secret = Secret(value or f"token-of-person-{number:05}", label=f"people@v{number}")
    return Kept(secret, secret.renderings())


def holding(layers: Layers, held: list[Kept], mark: int = 1) -> Layers:
    return layers.holding((mark,), lambda: SHARED, held)


def finds(layers: Layers, kept: Kept) -> bool:
    return layers.scrubber.holds(b"<" + min(kept.needles) + b">")


def test_a_token_that_comes_is_found_at_once_and_the_large_set_stays() -> None:
    before = holding(Layers(), [])
    for held in ([token(1)], [token(n) for n in range(FEW)]):
        after = holding(before, held)
        assert after.large is before.large
        assert all(finds(after, kept) for kept in held)
        assert after.scrubber.holds(VALUE.encode())


def test_nothing_new_is_the_same_object() -> None:
    held = [token(1), token(2)]
    layers = holding(Layers(), held)
    assert holding(layers, list(held)) is layers
    assert holding(layers, held[::-1]) is layers


def test_there_are_two_passes_over_an_answer_however_many_come() -> None:
    layers, held = holding(Layers(), []), list[Kept]()
    for number in range(4 * FEW):
        held.append(token(number))
        layers = holding(layers, held)
        assert len(layers.scrubber._sets) <= 2
        assert len(layers.recent) <= max(FEW, len(layers.settled) // 8)
    assert all(finds(layers, kept) for kept in held)


def test_a_token_that_is_dropped_is_found_no_more_recent_or_not() -> None:
    held = [token(n) for n in range(FEW + 1)]
    layers = holding(Layers(), held)
    recent = token(900)
    layers = holding(layers, [*held, recent])
    assert recent not in layers.settled.values()
    less = holding(layers, held[1:])
    assert not finds(less, held[0])
    assert not finds(less, recent)
    assert all(finds(less, kept) for kept in held[1:])
    assert finds(layers, held[0])  # immutable: an answer that goes on with the old one still finds it


def test_what_is_dropped_does_not_pile_up() -> None:
    layers, held = Layers(), [token(n) for n in range(3 * FEW)]
    for number in range(len(held)):
        layers = holding(layers, held[number:])
        live = len(held) - number
        assert layers.large is not None
        assert len(layers.large._lowered) <= len(SHARED) + (live + FEW) * 40
        assert layers.gone <= max(FEW, live // 8)


@pytest.mark.parametrize("value", [VALUE, "token-of-person-00001"], ids=["shared", "another person's"])
def test_a_value_that_another_still_has_is_found_when_the_one_goes(value: str) -> None:
    others = [token(n) for n in range(FEW)]
    one = token(700, value)
    layers = holding(holding(holding(Layers(), [*others, one], mark=0), [*others, one]), others)
    assert layers.gone == 1
    assert layers.scrubber.holds(value.encode())


def test_other_shared_secrets_make_all_anew() -> None:
    layers = holding(Layers(), [token(1)])
    other = Secret("another-shared-secret", label="shared@v2").renderings()
    after = layers.holding((2,), lambda: other, [token(1)])
    assert not after.scrubber.holds(VALUE.encode())
    assert after.scrubber.holds(b"another-shared-secret")
    assert len(after.scrubber._sets) == 1


def test_the_marker_is_that_of_all_of_them() -> None:
    edged = token(1, "]begins-with-its-end")
    layers = holding(holding(Layers(), []), [edged])
    assert layers.scrubber.marker != MARKER
    assert holding(layers, []).scrubber.marker == MARKER
    settled = holding(Layers(), [edged])
    assert settled.large is not None
    assert settled.large.edged
    assert holding(settled, []).scrubber.marker == MARKER


def test_a_needle_that_cannot_be_searched_for_is_refused() -> None:
    bad = Kept(Secret(VALUE, label="people@v1"), (b"short",))
    with pytest.raises(ConfigError):
        holding(Layers(), [bad])


VALUES = (
    "aaaa-bbbb-cccc",
    "bbbb-cccc-dddd",
    "aaaa-bbbb-cccc-dddd",
    "]ends-with-its-start[",
    "eyJhbGciOiJSUzI1NiJ9.one",
    "eyJhbGciOiJSUzI1NiJ9.one.two",
    "123456789012",
    "Kiss/Of~Death+9",
    "deadbeefcafe",
    "DEADbeefcafe99",
    VALUE,
)
steps = st.lists(st.frozensets(st.integers(0, len(VALUES) - 1)), min_size=1, max_size=6)
texts = st.lists(
    st.sampled_from([form for value in VALUES for form in Secret(value, label="x@v1").renderings()])
    | st.sampled_from([value.encode()[:n] for value in VALUES for n in (1, 8, 11)])
    | st.sampled_from([MARKER, b" ", b"%2", b"DEADBEEFCAFE", b"-dddd"]),
    max_size=8,
)


@settings(max_examples=100, deadline=None)
@given(steps, texts, st.integers(0, 3), st.integers(1, 40))
def test_it_finds_exactly_what_one_made_whole_would(
    came: list[frozenset[int]], text: list[bytes], settle: int, cut: int
) -> None:
    tokens = [token(number, value) for number, value in enumerate(VALUES)]
    layers, data = Layers(), b"".join(text)
    for number, step in enumerate(came):
        held = [tokens[place] for place in sorted(step)]
        layers = holding(layers, held, mark=min(number, settle))
        whole = Scrubber({*SHARED, *(needle for kept in held for needle in kept.needles)})
        found, hits = whole.scrub(data)
        assert layers.scrubber.scrub(data) == (found, hits)
        assert layers.scrubber.holds(data) == whole.holds(data) == bool(hits)
        stream = layers.scrubber.stream()
        parts = [stream.feed(data[at : at + cut]) for at in range(0, len(data), cut)]
        assert b"".join((*parts, stream.end())) == found
        assert stream.hits == hits


@settings(max_examples=100, deadline=None)
@given(st.sets(st.binary(min_size=12, max_size=30).map(bytes.hex).map(str.encode), max_size=12), st.data())
def test_sets_side_by_side_find_what_one_set_would(needles: set[bytes], draw: st.DataObject) -> None:
    ordered = sorted(needles | {needle[:-2] for needle in needles} | {b"common-start", b"common-start-more"})
    side = [draw.draw(st.integers(0, 2)) for _ in ordered]
    sets = [[one for one, place in zip(ordered, side, strict=True) if place == which] for which in range(3)]
    data = b" ".join(draw.draw(st.lists(st.sampled_from([*ordered, b"common-st", b"aaaa"]), max_size=12)))
    assert Scrubber.over(Needles(one) for one in sets if one).scrub(data) == Scrubber(ordered).scrub(data)


def test_a_set_without_some_is_as_if_they_had_never_been() -> None:
    both = Needles([b"prefix-of-it-all", b"prefix-of-it-all-and-more"])
    less = both.without([b"prefix-of-it-all-and-more"])
    assert less.find(b"<prefix-of-it-all-and-more>", 0) == (1, 17)
    assert both.find(b"<prefix-of-it-all-and-more>", 0) == (1, 26)
    assert both.without([b"prefix-of-it-all"]).find(b"prefix-of-it-all-and", 0) is None


def test_hits_of_one_set_do_not_have_another_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    many, rare = Needles([b"many-of-these"]), Needles([b"only-one-here"])
    find = Needles.find

    def counted(self: Needles, data: bytes, start: int) -> tuple[int, int] | None:
        if self is rare:
            looks.append(start)
        return find(self, data, start)

    monkeypatch.setattr(Needles, "find", counted)
    found, hits = Scrubber.over((many, rare)).scrub(b"many-of-these " * 200 + b"only-one-here")
    assert (hits, found.count(MARKER), len(looks)) == (201, 201, 2)
