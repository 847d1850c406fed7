"""The beginning of a JSON text, closed: what it holds is what the whole text holds, as far as it goes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.mcp.prefix import LOOK, completed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a":1}', '{"a":1}'),
        ('{"a":1,"b', '{"a":1}'),
        ('{"a":1,"b":', '{"a":1}'),
        ('{"a":', "{}"),
        ('{"a":[1,2', '{"a":[1]}'),
        ('{"a":"x\\"},{"', "{}"),
        ('{"a":"x\\\\","b":1,', '{"a":"x\\\\","b":1}'),
        ('[{"a":{"b":[[', '[{"a":{"b":[[]]}}]'),
        ('{"a":1} and more', '{"a":1}'),
        ("", ""),
        ("[", "[]"),
        ("[1 }", "[1 }"),
        ("}", "}"),
        ('"abc', ""),
    ],
)
def test_it_ends_after_a_whole_value(text: str, expected: str) -> None:
    assert completed(text) == expected


@settings(max_examples=150, deadline=None)
@given(JSON.filter(lambda value: isinstance(value, list | dict)), st.data())
def test_every_beginning_is_json_and_says_nothing_that_the_whole_does_not(value: Any, data: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    at = data.draw(st.integers(1, len(text)))
    begun = json.loads(completed(text[:at]))
    assert part_of(begun, value)


def part_of(part: Any, whole: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(k in whole and part_of(v, whole[k]) for k, v in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and all(part_of(a, b) for a, b in zip(part, whole, strict=False))
    return bool(part == whole)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet='{}[]",:\\ a1', max_size=60))
def test_it_takes_any_text(text: str) -> None:
    assert len(completed(text)) <= 2 * len(text)


def test_it_looks_no_further_than_its_limit() -> None:
    assert len(completed("[" + "1," * LOOK)) <= LOOK + 1
    assert completed('["' + "\\" * (2 * LOOK)) == "[]"
