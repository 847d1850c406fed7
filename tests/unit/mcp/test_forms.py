from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from callerid.mcp.forms import MAX_PAIRS, FormError, named, read_pairs, values_of, write_pairs
from callerid.model import Reason

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        pytest.param("", {}, id="nothing"),
        pytest.param("a=1&b=2", {"a": "1", "b": "2"}, id="two names"),
        pytest.param("a=1&a=2&a=", {"a": ["1", "2", ""]}, id="a name that is repeated is a list, in order"),
        pytest.param("flag&x=", {"flag": "", "x": ""}, id="without a value"),
        pytest.param("&&a=1&", {"a": "1"}, id="empty pieces mean nothing"),
        pytest.param("q=a+b%20c%2Bd", {"q": "a b c+d"}, id="plus is a space, and encoded a plus"),
        pytest.param("a=1;b=2", {"a": "1;b=2"}, id="a semicolon parts nothing"),
        pytest.param("a=b=c", {"a": "b=c"}, id="the first equals sign parts"),
        pytest.param("%61=%e4%b8%ad", {"a": "中"}, id="escapes are UTF-8"),
        pytest.param("ids[]=1&ids[]=2", {"ids[]": ["1", "2"]}, id="brackets belong to the name"),
    ],
)
def test_what_a_query_says(text: str, values: object) -> None:
    assert values_of(read_pairs(text)) == values


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a=%", Reason.MALFORMED_HTTP),
        ("a=%4", Reason.MALFORMED_HTTP),
        ("a=%zz", Reason.MALFORMED_HTTP),
        ("a=%00", Reason.MALFORMED_HTTP),
        ("a%00b=1", Reason.MALFORMED_HTTP),
        ("a=%ff", Reason.NOT_UTF8),
        ("a=%c0%ae", Reason.NOT_UTF8),
        ("a=%ed%a0%80", Reason.NOT_UTF8),
        ("a=1&A=2", Reason.DUPLICATE_KEY),
        ("\u017f=1&s=2", Reason.DUPLICATE_KEY),
        ("a.b=1&a_b=2", Reason.DUPLICATE_KEY),
        ("a%20b=1&a_b=2", Reason.DUPLICATE_KEY),
        ("a=1&a[]=2", Reason.DUPLICATE_KEY),
        ("a[0][x]=1&A=2", Reason.DUPLICATE_KEY),
        ("%20a=1&a=2", Reason.DUPLICATE_KEY),
        ("&" * MAX_PAIRS, Reason.TOO_LARGE),
    ],
)
def test_what_two_servers_could_read_as_two_things_is_refused(text: str, reason: Reason) -> None:
    with pytest.raises(FormError) as caught:
        read_pairs(text)
    assert caught.value.reason is reason


def test_the_canonical_text_has_nothing_that_a_server_could_split_or_decode_otherwise() -> None:
    pairs = read_pairs("q=a+b;c=d&flag&x=&p=/a:b@c,d&e=%c3%a9")
    assert write_pairs(pairs) == "q=a%20b%3Bc%3Dd&flag&x=&p=/a:b@c,d&e=%C3%A9"
    assert write_pairs(read_pairs("a=1 2+3&b=*~"), form=True) == "a=1+2+3&b=*~"


@given(st.lists(st.tuples(TEXT, st.none() | TEXT), max_size=6), st.booleans())
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_by_us_and_by_others_as_what_was_judged(
    pairs: list[tuple[str, str | None]], form: bool
) -> None:
    named_pairs = tuple((name, value) for name, value in pairs if name)
    text = write_pairs(named_pairs, form=form)
    assert text.isascii()
    assert ";" not in text
    assert dict(parse_qsl(text, keep_blank_values=True)) == {n: v or "" for n, v in named_pairs}
    try:
        again = read_pairs(text)
    except FormError:
        assume(False)
        raise
    assert again == named_pairs
    assert write_pairs(again, form=form) == text


@given(st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_text_has_a_reading_that_is_a_fixed_point_or_is_refused(text: str) -> None:
    try:
        pairs = read_pairs(text)
    except (FormError, UnicodeEncodeError):
        return
    assert read_pairs(write_pairs(pairs)) == pairs


@pytest.mark.parametrize("name", ["_method", "_METHOD", ".method", "_method[]", " _method", "_Method[0]"])
def test_a_name_is_found_in_every_spelling_that_a_server_folds_to_it(name: str) -> None:
    assert named([name], frozenset({"_method"}))
    assert not named(["method", "_methods", "my_method"], frozenset({"_method"}))
