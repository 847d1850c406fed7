"""Conditions on arguments, value by value: true, false, or unknown; and never open by accident."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.policy.conditions import (
    Condition,
    clear_path,
    compile_condition,
    json_type,
    kleene_all,
    kleene_any,
    steps,
)
from callerid.policy.rulemodels import ConditionModel

ABSENT: dict[str, Any] = {}
HUGE = 10**400


def condition(key: str = "a", **operators: Any) -> Condition:
    return compile_condition(key, ConditionModel.model_validate(operators))


def holds(value: object, *, guard: bool = False, **operators: Any) -> bool | None:
    arguments = ABSENT if value is ABSENT else {"a": value}
    return condition(**operators).holds(arguments, guard=guard)


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        pytest.param(500, False, id="too much"),
        pytest.param(100, True, id="the ceiling itself"),
        pytest.param(100.0, True, id="the ceiling as a decimal"),
        pytest.param(100.0000001, False, id="a little above"),
        pytest.param(500.5, False, id="a decimal above"),
        pytest.param(-1, True, id="below"),
        pytest.param(1e30, False, id="very much"),
        pytest.param(HUGE, False, id="more than a double holds"),
        pytest.param(-HUGE, True, id="less than a double holds"),
        pytest.param(ABSENT, None, id="absent"),
        pytest.param("50", None, id="a number in quotes"),
        pytest.param("500", None, id="a large one in quotes"),
        pytest.param(True, None, id="true"),
        pytest.param(False, None, id="false"),
        pytest.param(None, None, id="null"),
        pytest.param([50], None, id="a list"),
        pytest.param({"amount": 50}, None, id="an object"),
        pytest.param(math.nan, None, id="NaN"),
        pytest.param(math.inf, None, id="infinity"),
        pytest.param(-math.inf, None, id="minus infinity"),
        pytest.param(b"50", None, id="something that is not JSON"),
    ],
)
def test_a_ceiling_on_a_number(value: object, answer: bool | None) -> None:
    assert holds(value, le=100) is answer
    negated = None if answer is None else not answer
    assert holds(value, le=100, negate=True) is negated


@pytest.mark.parametrize(
    ("operators", "value", "answer"),
    [
        ({"gt": 0}, 0, False),
        ({"gt": 0}, 1, True),
        ({"ge": 0}, 0, True),
        ({"lt": 5}, 5, False),
        ({"lt": 5}, 4, True),
        ({"gt": 0, "le": 100}, 0, False),
        ({"gt": 0, "le": 100}, 100, True),
        ({"le": 2**53 + 1}, 2**53 + 2, False),
        ({"ge": 2**53 + 1}, 2**53, False),
        ({"le": 2**53}, 2**53 + 1, None),
        ({"lt": 2**53 + 1}, 2**53 + 1, None),
        ({"ge": -(2**53)}, -(2**53) - 1, None),
        ({"le": 100}, 2**53 + 1, False),
        ({"gt": 100}, 2**53 + 1, True),
        ({"le": 100}, 10**400, False),
        ({"eq": 7}, -(10**400), False),
        ({"eq": 2**53}, 2**53, True),
        ({"eq": 2**53}, 2**53 + 1, None),
        ({"eq": 2**53, "negate": True}, 2**53 + 1, None),
        ({"eq": 2**53 + 1}, 2**53 + 1, None),
        ({"eq": 2**53 + 2}, 2**53 + 2, True),
        ({"eq": 7}, 2**53 + 1, False),
        ({"eq": "x"}, 2**53 + 1, None),
        ({"in": [7, 2**53]}, 2**53 + 1, None),
        ({"in": [2**53, 2**53 + 1]}, 2**53 + 1, True),
        ({"in": [7, 8]}, -(2**53) - 1, False),
        ({"eq": "EUR"}, "EUR", True),
        ({"eq": "EUR"}, "eur", False),
        ({"eq": "1"}, 1, None),
        ({"eq": 1}, "1", None),
        ({"eq": 1}, True, None),
        ({"eq": True}, 1, None),
        ({"eq": True}, True, True),
        ({"eq": False}, True, False),
        ({"eq": False}, 0, None),
        ({"eq": 1}, 1.0, True),
        ({"eq": 1}, None, None),
        ({"eq": "a"}, ["a"], None),
        ({"in": ["EUR", "CHF"]}, "CHF", True),
        ({"in": ["EUR", "CHF"]}, "USD", False),
        ({"in": ["EUR", "CHF"]}, 5, None),
        ({"in": ["EUR", 5]}, 5, True),
        ({"in": ["EUR", 5]}, 6, False),
        ({"in": ["EUR"]}, ["EUR"], None),
        ({"in": ["EUR"], "negate": True}, ["EUR"], None),
        ({"in": ["EUR"], "negate": True}, "USD", True),
        ({"type": "string"}, "x", True),
        ({"type": "string"}, 5, False),
        ({"type": "string", "negate": True}, 5, True),
        ({"type": "number"}, 5, True),
        ({"type": "number"}, 5.5, True),
        ({"type": "number"}, True, False),
        ({"type": "number"}, math.nan, None),
        ({"type": "integer"}, 5, True),
        ({"type": "integer"}, 5.0, None),
        ({"type": "integer"}, -0.0, None),
        ({"type": "integer"}, 1e300, None),
        ({"type": "integer"}, 5.5, False),
        ({"type": "integer", "negate": True}, 5.0, None),
        ({"type": "integer"}, 2**53 + 1, True),
        ({"type": "number"}, 5.0, True),
        ({"type": "string"}, 5.0, False),
        ({"type": "integer", "le": 9}, 5.0, None),
        ({"type": "boolean"}, False, True),
        ({"type": "array"}, [], True),
        ({"type": "object"}, {}, True),
        ({"type": "null"}, None, True),
        ({"type": "null"}, ABSENT, None),
        ({"type": "number", "gt": 0, "le": 100}, 50, True),
        ({"type": "number", "gt": 0, "le": 100}, "50", None),
        ({"type": "string", "le": 100}, 50, None),
        ({"glob": "docs/*"}, "docs/a/b", True),
        ({"glob": "docs/*"}, "doc", False),
        ({"glob": "*"}, 5, None),
        ({"glob": "*"}, "x" * 1_000_001, None),
        ({"regex": "[a-z]{1,8}"}, "abc", True),
        ({"regex": "[a-z]{1,8}"}, "abc\n", False),
        ({"regex": ".*"}, "\ud800", None),
        ({"regex": "5"}, 5, None),
        ({"max_length": 3}, "abc", True),
        ({"max_length": 3}, "abcd", False),
        ({"max_length": 2}, "😀😀", True),
        ({"max_length": 3}, [1, 2, 3, 4], False),
        ({"max_length": 3}, 5, None),
        ({"max_length": 3}, {}, None),
        ({"glob": "a*", "max_length": 3}, "abcd", False),
        ({"glob": "a*", "le": 5}, "abcd", None),
        ({"glob": "b*", "le": 5}, "abcd", False),
    ],
)
def test_operators(operators: dict[str, Any], value: object, answer: bool | None) -> None:
    assert holds(value, **operators) is answer


@pytest.mark.parametrize(
    ("folder", "value", "answer"),
    [
        ("/srv/team", "/srv/team/a", True),
        ("/srv/team", "/srv/team", True),
        ("/srv/team", "/srv/team/", True),
        ("/srv/team", "/srv/team//a/./b", True),
        ("/srv/team/", "/srv/team/a", True),
        ("/srv/team", "/srv/team-secret", False),
        ("/srv/team", "/srv/teamx/a", False),
        ("/srv/team", "/srv", False),
        ("/srv/team", "/Srv/Team/a", False),
        ("/srv/team", "/etc/passwd", False),
        ("/srv/team", "/srv/team/../../etc/passwd", None),
        ("/srv/team", "/srv/team/../team/a", None),
        ("/srv/team", "/srv/team/..", None),
        ("/srv/team", "/srv/team/...", True),
        ("/srv/team", "//srv/team/a", None),
        ("/srv/team", "srv/team/a", None),
        ("/srv/team", "./srv/team/a", None),
        ("/srv/team", "~/a", None),
        ("/srv/team", "", None),
        ("/srv/team", "/srv/team/%2e%2e/x", None),
        ("/srv/team", "/srv/team/a\\..\\b", None),
        ("/srv/team", "/srv/team/a\0", None),
        ("/srv/team", "/srv/team/a\n", None),
        ("/srv/team", "/srv/team/\uff0e\uff0e/etc", None),
        ("/srv/team", "/srv/team\uff0f..\uff0fetc", None),
        ("/srv/team", "/srv/team/\u2025/etc", None),
        ("/srv/team", "/srv/team/\ud800", None),
        ("/srv/team", "/srv/team/grün", True),
        ("/srv/team", "file:///srv/team/a", None),
        ("/srv/team", ["/srv/team/a"], None),
        ("/srv/team", 5, None),
        ("/", "/anything", True),
        ("/", "relative", None),
    ],
)
def test_under_is_lexical_and_doubts(folder: str, value: object, answer: bool | None) -> None:
    assert holds(value, under=folder) is answer


@pytest.mark.parametrize(
    ("operators", "guard", "answer"),
    [
        pytest.param({"le": 1}, False, None, id="absent is unknown"),
        pytest.param({"le": 1}, True, None, id="on a deny too"),
        pytest.param({"le": 1, "negate": True}, True, None, id="and negated"),
        pytest.param({"le": 1, "optional": True}, False, True, id="optional: met where it must hold"),
        pytest.param({"le": 1, "optional": True}, True, False, id="optional: not met on a deny"),
        pytest.param(
            {"le": 1, "optional": True, "negate": True}, False, True, id="negated makes no difference"
        ),
        pytest.param({"le": 1, "optional": True, "negate": True}, True, False, id="on a deny neither"),
    ],
)
def test_an_absent_argument(operators: dict[str, Any], guard: bool, answer: bool | None) -> None:
    assert holds(ABSENT, guard=guard, **operators) is answer


@pytest.mark.parametrize("value", [None, "", [], {}, 0])
def test_an_optional_argument_that_is_there_must_still_be_right(value: object) -> None:
    assert holds(value, optional=True, glob="a*") is not True


@pytest.mark.parametrize(
    ("key", "arguments", "every", "some"),
    [
        ("/repo/owner", {"repo": {"owner": "corp"}}, True, True),
        ("/repo/owner", {"repo": {"owner": "x"}}, False, False),
        ("/repo/owner", {"repo": {}}, None, None),
        ("/repo/owner", {}, None, None),
        ("/repo/owner", {"repo": "corp"}, None, None),
        ("/repo/owner", {"repo": ["corp"]}, None, None),
        ("repo", {"repo": "corp"}, True, True),
        ("/items/*/sku", {"items": [{"sku": "corp"}, {"sku": "corp"}]}, True, True),
        ("/items/*/sku", {"items": [{"sku": "corp"}, {"sku": "x"}]}, False, True),
        ("/items/*/sku", {"items": [{"sku": "x"}, {}]}, False, None),
        ("/items/*/sku", {"items": [{"sku": "corp"}, {}]}, None, True),
        ("/items/*/sku", {"items": [{"sku": "x"}, {"sku": "x"}]}, False, False),
        ("/items/*/sku", {"items": []}, None, None),
        ("/items/*/sku", {"items": {"*": {"sku": "corp"}}}, None, None),
        ("/items/*/sku", {"items": {"0": {"sku": "corp"}}}, None, None),
        ("/items/*/sku", {"items": "corp"}, None, None),
        ("/items/*/tags/*", {"items": [{"tags": ["corp"]}, {"tags": ["corp", "x"]}]}, False, True),
        ("/items/*/tags/*", {"items": [{"tags": ["corp"]}, {"tags": []}]}, None, True),
        ("/items/0/sku", {"items": [{"sku": "corp"}, {"sku": "x"}]}, True, True),
        ("/items/1/sku", {"items": [{"sku": "corp"}]}, None, None),
        ("/items/-1/sku", {"items": [{"sku": "corp"}]}, None, None),
        ("/items/00/sku", {"items": [{"sku": "corp"}]}, None, None),
        ("/items/-/sku", {"items": [{"sku": "corp"}]}, None, None),
        ("/a~1b/c~0d", {"a/b": {"c~d": "corp"}}, True, True),
        ("/", {"": "corp"}, True, True),
        ("a/b", {"a/b": "corp"}, True, True),
    ],
)
def test_pointers(key: str, arguments: Any, every: bool | None, some: bool | None) -> None:
    """``every`` is what counts for allow and require, ``some`` for a deny."""
    made = condition(key, eq="corp")
    assert made.holds(arguments, guard=False) is every
    assert made.holds(arguments, guard=True) is some


def test_negate_is_asked_of_each_entry() -> None:
    made = condition("/items/*", **{"in": ["a", "b"], "negate": True})
    assert made.holds({"items": ["c", "d"]}, guard=False) is True
    assert made.holds({"items": ["a", "d"]}, guard=False) is False
    assert made.holds({"items": ["a", "d"]}, guard=True) is True
    assert made.holds({"items": ["a", "b"]}, guard=True) is False


@pytest.mark.parametrize("arguments", [None, [], "x", 5, object()])
@pytest.mark.parametrize("guard", [True, False])
def test_arguments_that_are_no_object_are_unknown(arguments: object, guard: bool) -> None:
    assert condition("a", le=1).holds(arguments, guard=guard) is None
    assert condition("a", le=1, optional=True).holds(arguments, guard=guard) is None


@pytest.mark.parametrize(
    ("key", "operators", "message"),
    [
        ("a", {}, "name at least one operator"),
        ("a", {"optional": True}, "name at least one operator"),
        ("a", {"gt": 5, "lt": 5}, "no number is within"),
        ("a", {"ge": 5, "lt": 5}, "no number is within"),
        ("a", {"ge": 6, "le": 5}, "no number is within"),
        ("a", {"regex": "("}, "RE2 does not take it"),
        ("a", {"glob": "[z-a]"}, "wrong way round"),
        ("a", {"under": "/a/../b"}, "absolute"),
        ("a", {"under": "//a"}, "absolute"),
        ("/a~2", {"le": 1}, "JSON pointer"),
        ("/a~", {"le": 1}, "JSON pointer"),
        ("/*/a", {"le": 1}, "are an object"),
    ],
)
def test_a_condition_that_cannot_be_meant(key: str, operators: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        condition(key, **operators)


def test_bounds_that_leave_one_number_are_fine() -> None:
    assert holds(5, ge=5, le=5) is True


@pytest.mark.parametrize(
    ("answers", "every", "some"),
    [
        ([True, True], True, True),
        ([True, False], False, True),
        ([True, None], None, True),
        ([False, None], False, None),
        ([None], None, None),
        ([False, False], False, False),
        ([], True, False),
    ],
)
def test_three_values(answers: list[bool | None], every: bool | None, some: bool | None) -> None:
    assert kleene_all(answers) is every
    assert kleene_any(answers) is some


def test_types_are_named_and_values_are_not() -> None:
    values = [None, True, 1, 1.5, math.nan, "x", [], {}, object()]
    assert [json_type(value) for value in values] == [
        "null", "boolean", "integer", "number", "not finite", "string", "array", "object", "unknown",
    ]  # fmt: skip


def test_the_steps_of_a_pointer() -> None:
    assert steps("path") == ("path",)
    assert steps("/a/*/b~1c") == ("a", "*", "b/c")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab*0"), inner, max_size=3),
    max_leaves=8,
)
OPERATORS: list[dict[str, Any]] = [
    {"le": 5}, {"gt": 1, "type": "number"}, {"eq": "x"}, {"in": [1, "a", True]}, {"under": "/a"},
    {"glob": "?*"},
    {"regex": "(a|b)*"}, {"max_length": 2}, {"type": "array"},
    {"type": "string", "max_length": 1, "optional": True},
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    JSON, st.sampled_from(OPERATORS), st.sampled_from(["a", "/a/b", "/a/*", "/a/0", "/a/*/b"]), st.booleans()
)
def test_any_value_has_an_answer_and_negation_is_its_mirror(
    value: object, operators: dict[str, Any], key: str, guard: bool
) -> None:
    arguments = {"a": value}
    answer = condition(key, **operators).holds(arguments, guard=guard)
    assert answer in (True, False, None)
    if "*" not in key and "optional" not in operators:
        mirrored = condition(key, **operators, negate=True).holds(arguments, guard=guard)
        assert mirrored is (None if answer is None else not answer)


@settings(max_examples=200, deadline=None)
@given(st.text("/.a%\\\uff0e \n", max_size=12))
def test_a_clear_path_stays_where_it_is(text: str) -> None:
    path = clear_path(text)
    if path is not None:
        assert path.startswith("/")
        assert ".." not in path.split("/")
        assert clear_path(path) == path
