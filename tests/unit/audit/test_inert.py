from __future__ import annotations

import json
import unicodedata

import pytest

from callerid.audit.inert import encodable, inert, inert_json, inert_paragraph

HOSTILE = [
    pytest.param("\x1b[2Jgone", "\\x1b[2Jgone", id="an escape sequence that clears the screen"),
    pytest.param("\x9b31mred", "\\x9b31mred", id="a one-byte CSI"),
    pytest.param("a\r\nb", "a\\x0d\\x0ab", id="a line break that forges a second line"),
    pytest.param("a\x00b", "a\\x00b", id="a NUL at which the sqlite3 shell would stop"),
    pytest.param("user\u202egpj.exe", "user\\u202egpj.exe", id="a right-to-left override"),
    pytest.param("a\u2066b\u2069", "a\\u2066b\\u2069", id="bidi isolates"),
    pytest.param("ad\u200bmin", "ad\\u200bmin", id="a zero width space"),
    pytest.param("a\U000e0041b", "a\\U000e0041b", id="an invisible tag character"),
    pytest.param("\ud800x", "\\ud800x", id="a lone surrogate"),
]


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_what_acts_on_a_terminal_becomes_visible(text: str, shown: str) -> None:
    assert inert(text) == shown


@pytest.mark.parametrize("text", ["read_file", "größe", "読み取り", "👩‍💻", "a b"])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert inert(text) == text


def test_all_control_and_bidi_characters_of_unicode_are_covered() -> None:
    for code in range(0x110000):
        char = chr(code)
        acts = unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(char) in (
            ["LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"]
        )
        if acts:
            assert char not in inert(char), hex(code)


@pytest.mark.parametrize("text", ["a\x1b\x9b\u202e\U000e0041b\x7f", "plain", 'quo"te\\'])
def test_json_keeps_its_value(text: str) -> None:
    made = inert_json(json.dumps(text, ensure_ascii=False))
    assert json.loads(made) == text
    assert inert(made) == made


def test_a_paragraph_keeps_its_lines() -> None:
    assert inert_paragraph("a:\n\tb\x1b") == "a:\n\tb\\x1b"


def test_encodable_text_is_text_that_utf8_can_carry() -> None:
    assert encodable("é\udcff").encode() == "é\\udcff".encode()
