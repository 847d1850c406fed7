"""JSON as evidence has one reading."""

from __future__ import annotations

import pytest

from callerid.identity.strictjson import parse_object


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"sub":"alice","sub":"bob"}', id="a name twice"),
        pytest.param(b'{"act":{"sub":"a","sub":"b"}}', id="a name twice further in"),
        pytest.param(b'{"a":1,"\\u0061":2}', id="a name twice in two spellings"),
        pytest.param(b'{"exp":NaN}', id="NaN"),
        pytest.param(b'{"exp":-Infinity}', id="Infinity"),
        pytest.param(b'{"exp":1e999}', id="a number that would become infinite"),
        pytest.param(b'{"exp":' + b"9" * 5000 + b"}", id="a number too long to read"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param(b'{"a":"\xff"}', id="not UTF-8"),
        pytest.param(b"[" * 100_000, id="nested too deep"),
        pytest.param(b"[1]", id="no object"),
        pytest.param(b"{}{}", id="two values"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_can_be_read_in_two_ways_is_not_read(data: bytes) -> None:
    assert parse_object(data) is None


def test_an_object_is_read() -> None:
    assert parse_object(b'{"a":[1,2.5,true,null,"x"]}') == {"a": [1, 2.5, True, None, "x"]}
