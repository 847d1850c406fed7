"""The YAML traps, one by one: what a plain loader would make of them, and what ours says."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.policy import strictyaml
from callerid.policy.problems import Document, Report
from callerid.policy.strictyaml import MAX_BYTES, MAX_DEPTH, parse, read_text


def read(text: str, file: str = "policy.yaml") -> tuple[Document | None, list[str]]:
    report = Report()
    doc = parse(file, text, report)
    return doc, [f"{p.line}:{p.column}: {p.message}" for p in report.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("no", "no", id="no is text, as in country codes"),
        pytest.param("yes", "yes", id="yes is text"),
        pytest.param("on", "on", id="on is text"),
        pytest.param("off", "off", id="off is text"),
        pytest.param("y", "y", id="y is text"),
        pytest.param("18:00", "18:00", id="a time is no sexagesimal number"),
        pytest.param("12:34:56", "12:34:56", id="a time with seconds neither"),
        pytest.param("09:00", "09:00", id="nor one with a leading zero"),
        pytest.param("1.2.3", "1.2.3", id="a version is text"),
        pytest.param("10.0.0.0/8", "10.0.0.0/8", id="a network is text"),
        pytest.param("30d", "30d", id="a duration is text"),
        pytest.param("0x", "0x", id="what only begins like a number is text"),
        pytest.param("1e", "1e", id="so is an exponent without digits"),
        pytest.param("_1", "_1", id="and what begins with an underscore"),
        pytest.param("0x10-a", "0x10-a", id="and what goes on otherwise"),
        pytest.param("2026-11-23", "2026-11-23", id="a date is text"),
        pytest.param("2026-11-23T10:00:00Z", "2026-11-23T10:00:00Z", id="a timestamp is text"),
        pytest.param("=", "=", id="the value sign is text"),
        pytest.param("1.10", 1.1, id="a decimal is a number"),
        pytest.param("-3", -3, id="a negative whole number"),
        pytest.param("0", 0, id="zero"),
        pytest.param("-0.5", -0.5, id="a negative decimal"),
        pytest.param("9" * 18, int("9" * 18), id="eighteen digits are a number"),
        pytest.param("true", True, id="true"),
        pytest.param("False", False, id="False"),
        pytest.param('"true"', "true", id="quoted true is text"),
        pytest.param("'5'", "5", id="quoted five is text"),
        pytest.param('""', "", id="a quoted nothing is text"),
        pytest.param("|\n  a\n  b", "a\nb\n", id="a block of text"),
        pytest.param("[a, 1]", ["a", 1], id="a list"),
        pytest.param("{b: {c: 1}}", {"b": {"c": 1}}, id="a mapping"),
        pytest.param("a#b", "a#b", id="a hash without a space is text"),
        pytest.param("grüße 😀", "grüße 😀", id="all of Unicode"),
    ],
)
def test_scalars_are_yaml_1_2(text: str, value: object) -> None:
    doc, problems = read(f"k: {text}\n")
    assert problems == []
    assert doc is not None
    assert doc.data == {"k": value}
    assert type(doc.data["k"]) is type(value)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("0x10", "16"), ("-0X1f", "-31"), ("0o20", "16"), ("0b101", "5"), ("1e3", "1000"), ("1.5E2", "150"),
        ("25e-1", "2.5"), ("+7", "7"), ("+0.5", "0.5"), ("007", "7"), ("0644", "644"), ("-01", "-1"),
        ("01.5", "1.5"), (".5", "0.5"), ("-.5", "-0.5"), ("1.", "1"), ("1_000", "1000"), ("0x1_0", "16"),
    ],
)  # fmt: skip
def test_an_odd_number_is_told_its_plain_spelling(text: str, plain: str) -> None:
    report = Report()
    parse("policy.yaml", f"k: {text}\n", report)
    [problem] = report.problems
    assert (problem.line, problem.column) == (1, 4)
    assert problem.message == f"'{text}' looks like a number, in a spelling that is not read as one"
    assert problem.hint == f'Write {plain}, or quote it: "{text}".'


@pytest.mark.parametrize(
    "text",
    [
        ".inf", "-.Inf", "+.INF", ".nan", ".NaN", "1e400", "-1E-400", "1e99999999999999999999", "0x_",
        "9" * 19, "1." + "0" * 18 + "1", "1e30",
    ],
)  # fmt: skip
def test_a_number_without_a_plain_spelling_has_to_be_quoted(text: str) -> None:
    report = Report()
    parse("policy.yaml", f"k: {text}\n", report)
    assert [problem.hint for problem in report.problems] == [
        f'Write it plainly, with at most 18 digits, or quote it: "{text}".'
    ]
    doc, problems = read(f'k: "{text}"\n')
    assert (doc and doc.data, problems) == ({"k": text}, [])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param("in: [7, 0x10, x]", "1:9", id="in a list, where it was text among numbers"),
        pytest.param("a: {b: 1e3}", "1:8", id="in a mapping"),
        pytest.param("a: 1\n0x10: b", "2:1", id="as a key"),
        pytest.param("a: " + "9" * 5000, "1:4", id="five thousand digits, without an exception"),
        pytest.param("a: 0x" + "f" * 100_000, "1:4", id="a hundred thousand in hexadecimal"),
    ],
)
def test_an_odd_number_is_told_once_and_where_it_stands(text: str, place: str) -> None:
    [problem] = read(text)[1]
    assert problem.startswith(f"{place}: ")
    assert "looks like a number" in problem


def test_an_odd_number_in_the_credentials_is_not_shown() -> None:
    report = Report()
    parse("credentials.yaml", "version: 1\nid: 0x53637265\n", report)
    assert "53637265" not in str(report.problems)
    assert [problem.hint for problem in report.problems] == [
        "Write it plainly, with at most 18 digits, or quote it."
    ]


@pytest.mark.parametrize("key", ["on", "off", "yes", "no", "y", "n"])
def test_a_key_stays_text(key: str) -> None:
    doc, problems = read(f"{key}: 1")
    assert (doc and doc.data, problems) == ({key: 1}, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("tools: *read", "1:8: aliases ('*read') are not allowed", id="an alias"),
        pytest.param("a: &x 1", "1:4: anchors ('&x') are not allowed", id="an anchor"),
        pytest.param("a: [1, &x {b: 1}]", "1:8: anchors ('&x') are not allowed", id="an anchor deep inside"),
        pytest.param("a:\n  <<: {b: 1}", "2:3: merge keys (<<) are not allowed", id="a merge key"),
        pytest.param("a: !!str 1", "1:4: the tag 'tag:yaml.org,2002:str' is not allowed", id="a core tag"),
        pytest.param(
            "a: !!python/object/apply:os.system [x]",
            "1:4: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed",
            id="a Python tag",
        ),
        pytest.param("a: !x 1", "1:4: the tag '!x' is not allowed", id="a local tag"),
        pytest.param("a: ! 1", "1:4: the tag '!' is not allowed", id="the non-specific tag"),
        pytest.param(
            "deny: 1\nb: 2\ndeny: 3", "3:1: duplicate key 'deny' (first at line 1)", id="a key twice"
        ),
        pytest.param('a: 1\n"a": 2', "2:1: duplicate key 'a' (first at line 1)", id="twice, once quoted"),
        pytest.param("1: a", "1:1: the key '1' is not text", id="a number as key"),
        pytest.param("true: a", "1:1: the key 'true' is not text", id="a boolean as key"),
        pytest.param("~: a", "1:1: the key '~' is not text", id="null as key"),
        pytest.param("? [a]\n: 1", "1:3: a key must be plain text", id="a list as key"),
        pytest.param("a: {{b}}", "1:5: a key must be plain text", id="a template"),
        pytest.param("a:", "1:1: 'a' has no value", id="nothing after the colon"),
        pytest.param("a: null", "1:1: 'a' has no value", id="null"),
        pytest.param("a: ~", "1:1: 'a' has no value", id="a tilde"),
        pytest.param("a: {b}", "1:5: 'b' has no value", id="a word alone in braces"),
        pytest.param("a: [1, ]\nb: [~]", "2:5: this entry has no value", id="null in a list"),
        pytest.param("a: [*]", "1:6: a value cannot begin with * unless it is quoted", id="a bare star"),
        pytest.param("a: %x", "1:4: a value cannot begin with %", id="a per cent sign"),
        pytest.param("a: @x", "1:4: a value cannot begin with @", id="an at sign"),
        pytest.param("a: `x`", "1:4: a value cannot begin with `", id="a backtick"),
        pytest.param("a:\n\tb: 1", "2:1: a tab is not allowed here", id="a tab as indentation"),
        pytest.param("a: b: c", "1:5: a colon with a space after it is not allowed here", id="two colons"),
        pytest.param(
            "a: 'x", "1:6: this is not valid YAML: found unexpected end of stream", id="an open quote"
        ),
        pytest.param(
            "a: [1", "2:1: this is not valid YAML: did not find expected ',' or ']'", id="an open bracket"
        ),
        pytest.param("a: 1\n---\nb: 2", "2:1: a second document is not allowed", id="two documents"),
        pytest.param("%YAML 1.1\n---\na: 1", "1:1: YAML directives (%) are not allowed", id="a directive"),
        pytest.param(
            "%TAG ! x:\n---\na: 1", "1:1: YAML directives (%) are not allowed", id="a tag directive"
        ),
        pytest.param("", "1:1: the file is empty", id="nothing"),
        pytest.param("# all gone\n", "1:1: the file is empty", id="only a comment"),
        pytest.param("---\n", "1:1: the file is empty", id="an empty document"),
        pytest.param("- a", "1:1: the file must be a mapping", id="a list at the top"),
        pytest.param("text", "1:1: the file must be a mapping", id="a word at the top"),
        pytest.param("a: \x01", "1:4: control characters are not allowed", id="a control character"),
        pytest.param("a: \x00", "1:4: control characters are not allowed", id="NUL"),
        pytest.param("a: " + "[" * 5000, "1:43: nested deeper than 40 levels", id="five thousand brackets"),
        pytest.param("{a: " * 60, "1:161: nested deeper than 40 levels", id="sixty braces"),
    ],
)
def test_what_is_refused_and_where(text: str, problem: str) -> None:
    assert read(text)[1] == [problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("a: *x", "1:4: aliases ('*x') are not allowed", id="an alias"),
        pytest.param("a: " + "[" * 5000, "1:43: nested deeper than 40 levels", id="five thousand brackets"),
        pytest.param("a: no", None, id="a good file"),
    ],
)
def test_without_libyaml_it_is_as_strict(
    text: str, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strictyaml, "_LOADER", yaml.SafeLoader)
    assert read(text)[1] == ([] if problem is None else [problem])


def test_a_billion_laughs_stop_at_the_first_anchor() -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
    )
    doc, problems = read(bomb)
    assert doc is None
    assert len(problems) == 50
    assert problems[0] == "1:4: anchors ('&a') are not allowed"


def test_a_list_may_be_as_deep_as_the_cap_and_no_deeper() -> None:
    assert read("a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1))[1] == []
    assert read("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH)[1] != []


def test_several_faults_are_told_at_once() -> None:
    assert read("a: *x\nb: &y 1\na: 2\nc: !z 3\nd:\n")[1] == [
        "1:4: aliases ('*x') are not allowed",
        "2:4: anchors ('&y') are not allowed",
        "3:1: duplicate key 'a' (first at line 1)",
        "4:4: the tag '!z' is not allowed",
        "5:1: 'd' has no value",
    ]


def test_positions_are_kept_for_keys_and_values() -> None:
    doc, _ = read("rules:\n  - id: a\n    tools: [x, y]\n")
    assert doc is not None
    assert doc.place(("rules", 0, "tools", 1)) == (3, 16)
    assert doc.place(("rules", 0, "tools"), of_key=True) == (3, 5)
    assert doc.place(("rules", 0, "nowhere", 3)) == (2, 5)


def test_windows_line_ends_are_tolerated() -> None:
    doc, problems = read("a: 1\r\nb:\r\n  - x\r\n")
    assert (doc and doc.data, problems) == ({"a": 1, "b": ["x"]}, [])


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        pytest.param(b"a: \xff", "1:4: this is not UTF-8", id="not UTF-8"),
        pytest.param(b"a: 1\nb: \xc3(", "2:4: this is not UTF-8", id="not UTF-8 on the second line"),
        pytest.param("a: 1".encode("utf-16"), "1:1: this is not UTF-8", id="UTF-16"),
        pytest.param(b"x" * (MAX_BYTES + 1), "1:1: the file is larger than 4 MiB", id="too large"),
        pytest.param("a: \u202ex".encode(), "1:4: the character U+202E", id="a direction override"),
        pytest.param("a: 1\nb: \u200bx".encode(), "2:4: the character U+200B", id="a zero-width space"),
        pytest.param("a: 1\u2028b: 2".encode(), "1:5: the character U+2028", id="a line end only YAML sees"),
        pytest.param("a: x\ufeff".encode(), "1:5: the character U+FEFF", id="a byte order mark inside"),
    ],
)
def test_bytes_that_are_no_rule_file(raw: bytes, problem: str) -> None:
    report = Report()
    assert read_text("policy.yaml", raw, report) is None
    (found,) = report.problems
    assert f"{found.line}:{found.column}: {found.message}".startswith(problem)


def test_a_byte_order_mark_at_the_start_is_tolerated() -> None:
    report = Report()
    assert read_text("policy.yaml", b"\xef\xbb\xbfa: 1", report) == "a: 1"
    assert report.problems == []


@pytest.mark.parametrize(
    "text",
    [
        "a: *hunter2",
        "a: &hunter2 x",
        "a: !hunter2 x",
        "a: {hunter2}",
        "a: {hunter2: 1, hunter2: 2}",
        "a: [hunter2",
    ],
)
def test_nothing_of_credentials_is_quoted(text: str) -> None:
    report = Report()
    parse("credentials.yaml", text, report)
    assert report.problems
    assert "hunter2" not in "\n".join(map(str, report.problems))


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_a_document_or_problems(text: str) -> None:
    report = Report()
    doc = parse("policy.yaml", text, report)
    assert doc is not None or report.problems


JSON = st.recursive(
    st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.text(alphabet=st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz", min_size=1), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1), JSON, min_size=1, max_size=4))
def test_json_reads_as_itself(value: dict[str, Any]) -> None:
    text = json.dumps(value)
    if "\\u" in text:  # YAML has no surrogate pairs
        return
    doc, problems = read(text)
    assert problems == []
    assert doc is not None
    assert doc.data == value
