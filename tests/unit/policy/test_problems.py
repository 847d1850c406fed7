"""Problems: their place, the line and the caret, and what is never shown."""

from __future__ import annotations

import pytest

from callerid.policy.problems import (
    MAX_PROBLEMS,
    Document,
    Report,
    did_you_mean,
    make_problem,
    show,
    show_in,
    split_lines,
    type_name,
)


def test_a_problem_reads_as_a_compiler_would_say_it() -> None:
    problem = make_problem(
        "policy.yaml", ("a: 1", "  toool: x"), (2, 3), "unknown key", "Did you mean 'tools'?"
    )
    assert str(problem) == (
        "policy.yaml:2:3: unknown key\n      toool: x\n      ^\n    Did you mean 'tools'?"
    )


def test_a_tab_in_the_line_does_not_move_the_caret() -> None:
    assert make_problem("policy.yaml", ("a:\tb",), (1, 4), "m").source == "a: b"


def test_of_credentials_only_the_keys_of_the_format_are_shown() -> None:
    line = '  - {id: files, source: {value: hunter2, env: "pass word"}, hunter3: x}'
    shown = make_problem("credentials.yaml", (line,), (1, 3), "m").source
    assert len(shown) == len(line)
    assert "source: {" in shown
    for word in ("files", "hunter2", "pass", "word", "hunter3"):
        assert word not in shown


def test_one_fault_is_told_once() -> None:
    doc = Document("policy.yaml", ("a: {b: 1}",), {}, {(): (1, 1), ("a",): (1, 4)}, {})
    report = Report()
    report.add(doc, ("a",), "first")
    report.add(doc, ("a",), "again")
    report.add(doc, ("a", "b"), "inside")
    assert [p.message for p in report.problems] == ["first"]


def test_a_report_ends_somewhere() -> None:
    report = Report()
    for _ in range(MAX_PROBLEMS + 10):
        report.at("policy.yaml", (), (1, 1), "m")
    assert len(report.problems) == MAX_PROBLEMS
    assert report.full


@pytest.mark.parametrize(
    ("word", "options", "hint"),
    [
        ("toools", ["tools", "who"], "Did you mean 'tools'?"),
        ("zzz", ["tools", "who"], "Known here: tools, who."),
        ("zzz", [f"option{n}" for n in range(20)], ""),
        ("zzz", [], ""),
    ],
)
def test_the_right_spelling_is_offered(word: str, options: list[str], hint: str) -> None:
    assert did_you_mean(word, options) == hint


def test_values_are_shown_short_printable_and_masked() -> None:
    assert show("a\x1b[2Jb") == "'a\\u001b[2Jb'"
    assert show("x" * 100) == "'" + "x" * 80 + "...'"
    assert "gh" + "p_" not in show("gh" + "p_" + "a1B2" * 9)
    assert show(True) == "true"
    assert show_in("credentials.yaml", "hunter2") == "(not shown)"
    assert show_in("policy.yaml", "tool") == "'tool'"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "null"),
        (True, "true or false"),
        (1, "a number"),
        (1.5, "a number"),
        ("x", "text"),
        ({}, "a mapping"),
    ],
)
def test_types_have_the_names_that_people_use(value: object, name: str) -> None:
    assert type_name(value) == name


def test_lines_are_counted_as_yaml_counts_them() -> None:
    assert split_lines("a\r\nb\rc\nd") == ("a", "b", "c", "d")
