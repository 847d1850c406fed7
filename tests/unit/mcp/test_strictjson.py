"""Strict JSON: one reading or none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from callerid.mcp.strictjson import JsonError, dumps, fold, loads
from callerid.model import Reason

NESTED = 64

REFUSED: dict[str, tuple[bytes, Reason]] = {
    "no text": (b"", Reason.MALFORMED_JSON),
    "only space": (b" \n", Reason.MALFORMED_JSON),
    "text after the value": (b'{"a":1} {}', Reason.MALFORMED_JSON),
    "garbage after the value": (b'{"a":1}x', Reason.MALFORMED_JSON),
    "a trailing comma in an object": (b'{"a":1,}', Reason.MALFORMED_JSON),
    "a trailing comma in an array": (b"[1,]", Reason.MALFORMED_JSON),
    "a comment": (b'{"a":1/*x*/}', Reason.MALFORMED_JSON),
    "single quotes": (b"{'a':1}", Reason.MALFORMED_JSON),
    "a bare name": (b"{a:1}", Reason.MALFORMED_JSON),
    "a form feed as space": (b'{"a":\x0c1}', Reason.MALFORMED_JSON),
    "a vertical tab as space": (b"\x0b1", Reason.MALFORMED_JSON),
    "a no-break space as space": ("\u00a01".encode(), Reason.MALFORMED_JSON),
    "a raw newline in a string": (b'"a\nb"', Reason.MALFORMED_JSON),
    "an unknown escape": (rb'"\x41"', Reason.MALFORMED_JSON),
    "a short unicode escape": (rb'"\u12"', Reason.MALFORMED_JSON),
    "an open string": (b'"abc', Reason.MALFORMED_JSON),
    "NaN": (b'{"a":NaN}', Reason.MALFORMED_JSON),
    "Infinity": (b'{"a":Infinity}', Reason.MALFORMED_JSON),
    "-Infinity": (b"[-Infinity]", Reason.MALFORMED_JSON),
    "1e400, which is infinite as a double": (b"[1e400]", Reason.MALFORMED_JSON),
    "-1e400": (b"[-1e400]", Reason.MALFORMED_JSON),
    "an integer that is an infinity to readers of doubles": (
        str(2**1024 - 2**970).encode(),
        Reason.MALFORMED_JSON,
    ),
    "the same below nought": (str(2**970 - 2**1024).encode(), Reason.MALFORMED_JSON),
    "the same in a text too long to be read at once": (
        b'["' + b"x" * 5000 + b'",1' + b"0" * 309 + b"]",
        Reason.MALFORMED_JSON,
    ),
    "an integer of 4300 digits": (b"9" * 4300, Reason.MALFORMED_JSON),
    "a leading zero": (b"[01]", Reason.MALFORMED_JSON),
    "a leading plus": (b"[+1]", Reason.MALFORMED_JSON),
    "a bare fraction": (b"[.5]", Reason.MALFORMED_JSON),
    "a bare point": (b"[1.]", Reason.MALFORMED_JSON),
    "a hexadecimal number": (b"[0x10]", Reason.MALFORMED_JSON),
    "digits of another script": ("[\u0661]".encode(), Reason.MALFORMED_JSON),
    "an integer of 4301 digits": (b"[" + b"1" * 4301 + b"]", Reason.MALFORMED_JSON),
    "a negative integer of 4301 digits": (b"[-" + b"1" * 4301 + b"]", Reason.MALFORMED_JSON),
    "a fraction of 5000 digits": (b"[0." + b"1" * 5000 + b"]", Reason.MALFORMED_JSON),
    "a zero character in a member name": (rb'{"name\u0000":1}', Reason.MALFORMED_JSON),
    "a UTF-8 byte order mark": (b'\xef\xbb\xbf{"a":1}', Reason.NOT_UTF8),
    "UTF-16 with a mark": ('{"a":1}'.encode("utf-16"), Reason.NOT_UTF8),
    "UTF-16 LE without a mark": ('{"a":1}'.encode("utf-16-le"), Reason.NOT_UTF8),
    "UTF-16 BE without a mark": ('{"a":1}'.encode("utf-16-be"), Reason.NOT_UTF8),
    "UTF-32 with a mark": ('{"a":1}'.encode("utf-32"), Reason.NOT_UTF8),
    "UTF-32 BE without a mark": ('{"a":1}'.encode("utf-32-be"), Reason.NOT_UTF8),
    "a UTF-16 mark and no zero": (b"\xfe\xff\x7b\x7d", Reason.NOT_UTF8),
    "a zero byte in a string": (b'"a\x00b"', Reason.NOT_UTF8),
    "Latin-1": (b'"caf\xe9"', Reason.NOT_UTF8),
    "an overlong slash": (b'"\xc0\xaf"', Reason.NOT_UTF8),
    "a surrogate in UTF-8 (CESU)": (b'"\xed\xa0\x80"', Reason.NOT_UTF8),
    "a lone high surrogate": (rb'"\ud800"', Reason.NOT_UTF8),
    "a lone low surrogate in capitals": (rb'"\uDC00"', Reason.NOT_UTF8),
    "a lone surrogate in a member name": (rb'{"\ud800":1}', Reason.NOT_UTF8),
    "two low surrogates": (rb'"\udc00\udc00"', Reason.NOT_UTF8),
    "a member twice": (b'{"a":1,"a":1}', Reason.DUPLICATE_KEY),
    "a member twice, once escaped": (rb'{"name":1,"\u006eame":2}', Reason.DUPLICATE_KEY),
    "a member twice, deep": (b'{"a":[{"b":{"c":1,"c":2}}]}', Reason.DUPLICATE_KEY),
    "twins in case": (b'{"name":1,"Name":2}', Reason.DUPLICATE_KEY),
    "twins in case, deep": (b'{"params":{"arguments":{"path":1,"PATH":2}}}', Reason.DUPLICATE_KEY),
    "twins by the long s": ('{"params":1,"param\u017f":2}'.encode(), Reason.DUPLICATE_KEY),
    "twins by the escaped long s": (rb'{"params":1,"param\u017f":2}', Reason.DUPLICATE_KEY),
    "twins by the Kelvin sign": ('{"k":1,"\u212a":2}'.encode(), Reason.DUPLICATE_KEY),
    "twins by the dotless i": ('{"id":1,"\u0131d":2}'.encode(), Reason.DUPLICATE_KEY),
    "twins by the dotted capital I": ('{"id":1,"\u0130d":2}'.encode(), Reason.DUPLICATE_KEY),
    "twins in Greek": ('{"\u03c3":1,"\u03a3":2}'.encode(), Reason.DUPLICATE_KEY),
    "65 arrays": (b"[" * 65 + b"]" * 65, Reason.TOO_DEEP),
    "65 objects": (b'{"a":' * 64 + b"{}" + b"}" * 64, Reason.TOO_DEEP),
    "65 deep after much that is shallow": (
        b"[" + b"[[]]," * 900 + b"[" * 64 + b"]" * 64 + b"]",
        Reason.TOO_DEEP,
    ),
    "65 deep behind brackets in strings": (
        b'["]]]]]]]]]]\\"]]]]]\\\\",' * 65 + b"1" + b"]" * 65,
        Reason.TOO_DEEP,
    ),
    "a million open brackets": (b"[" * 1_000_000, Reason.TOO_DEEP),
    "half a million open objects": (b'{"a":' * 500_000, Reason.TOO_DEEP),
    "a closing bracket too many, then deep": (b"[]]" + b"[" * 100 + b"]" * 100, Reason.MALFORMED_JSON),
    "longer than allowed": (b'"' + b"a" * 4_194_304 + b'"', Reason.TOO_LARGE),
}

READ: dict[str, tuple[bytes, Any]] = {
    "an object": (b'{"a": [1, 2.5, "x", true, false, null]}', {"a": [1, 2.5, "x", True, False, None]}),
    "space of all four sorts": (b' \t\r\n{ "a" : 1 }\n', {"a": 1}),
    "escapes": (rb'{"\u0061":"\/\b\f\n\r\t\"\\"}', {"a": '/\b\f\n\r\t"\\'}),
    "a surrogate pair": (rb'"\ud83d\ude00"', "\U0001f600"),
    "an escaped backslash before ud800": (rb'"\\ud800"', "\\ud800"),
    "text beyond ASCII": ('{"caf\u00e9":"\u2028"}'.encode(), {"caf\u00e9": "\u2028"}),
    "a zero character in a value": (rb'{"a":"\u0000"}', {"a": "\0"}),
    "2**64 + 1": (b"18446744073709551617", 2**64 + 1),
    "the largest integer that is no infinity to readers of doubles": (
        str(2**1024 - 2**970 - 1).encode(),
        2**1024 - 2**970 - 1,
    ),
    "the smallest one": (str(1 - 2**1024 + 2**970).encode(), 1 - 2**1024 + 2**970),
    "the largest double": (b"1.7976931348623157e308", 1.7976931348623157e308),
    "names that share a start": (b'{"a":1,"aa":2,"b":3,"B2":4}', {"a": 1, "aa": 2, "b": 3, "B2": 4}),
    "one name at two levels": (b'{"a":{"a":{"A":1}}}', {"a": {"a": {"A": 1}}}),
    "many brackets that do not nest": (b"[" + b",".join([b"[{}]"] * 500) + b"]", [[{}]] * 500),
    "many brackets in a string": (b'["' + b"[{" * 500 + b'"]', ["[{" * 500]),
}

CANONICAL: dict[str, tuple[bytes, bytes]] = {
    "compact, members in order": (b'{ "b" : 1, "a" : [ 1, 2 ] }', b'{"b":1,"a":[1,2]}'),
    "text stays text": ('"\u00e9\u2028"'.encode(), '"\u00e9\u2028"'.encode()),
    "escapes that are not needed go": (rb'"tools\u002fcall\/x"', b'"tools/call/x"'),
    "control characters stay escaped": (rb'"\u0000\u001f\n"', rb'"\u0000\u001f\n"'),
    "an integer stays exact": (b"123456789012345678901234567890", b"123456789012345678901234567890"),
    "1.10 is the double 1.1": (b"1.10", b"1.1"),
    "1E2 is the double 100.0": (b"1E2", b"100.0"),
    "twenty digits are the double 0.1": (b"0.1000000000000000055511151231257827", b"0.1"),
    "minus nought stays negative as a double": (b"-0.0", b"-0.0"),
    "less than any double is nought": (b"1e-400", b"0.0"),
}


@pytest.mark.parametrize(("raw", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(raw: bytes, reason: Reason) -> None:
    with pytest.raises(JsonError) as caught:
        loads(raw)
    assert caught.value.reason is reason
    assert caught.value.detail


@pytest.mark.parametrize(("raw", "value"), READ.values(), ids=READ)
def test_read(raw: bytes, value: Any) -> None:
    assert loads(raw) == value
    assert loads(dumps(loads(raw))) == value


@pytest.mark.parametrize(("raw", "canonical"), CANONICAL.values(), ids=CANONICAL)
def test_canonical(raw: bytes, canonical: bytes) -> None:
    assert dumps(loads(raw)) == canonical
    assert dumps(loads(canonical)) == canonical


def test_integers_and_fractions_keep_their_types() -> None:
    assert [type(number) for number in loads(b"[1,1.0,1e0,-5]")] == [int, float, float, int]


def test_depth_is_counted_to_the_level() -> None:
    shallow = b"[" * NESTED + b"]" * NESTED
    assert loads(shallow, max_depth=NESTED)
    with pytest.raises(JsonError) as caught:
        loads(b"[" + shallow + b"]", max_depth=NESTED)
    assert caught.value.reason is Reason.TOO_DEEP


@pytest.mark.parametrize("limit", [1, 5, 8, 9, 20])
def test_depth_limits_hold_among_many_siblings(limit: int) -> None:
    siblings = b"[],{}," * 100
    at_limit = b"[" * (limit - 1) + siblings * (limit > 1) + b"[]" + b"]" * (limit - 1)
    assert loads(at_limit, max_depth=limit) is not None
    with pytest.raises(JsonError) as caught:
        loads(b"[" + at_limit + b"]", max_depth=limit)
    assert caught.value.reason is Reason.TOO_DEEP


def test_size_is_counted_to_the_byte() -> None:
    assert loads(b'"abc"', max_bytes=5) == "abc"
    with pytest.raises(JsonError) as caught:
        loads(b'"abc"', max_bytes=4)
    assert caught.value.reason is Reason.TOO_LARGE


def test_dumps_refuses_what_is_not_json() -> None:
    for value in (float("nan"), float("inf"), {"a": "\ud800"}):
        with pytest.raises(JsonError):
            dumps(value)


def test_details_are_short_and_printable() -> None:
    name = "\x1b[31m" + "x" * 10_000
    with pytest.raises(JsonError) as caught:
        loads(json.dumps({name: 1}).encode()[:-1] + b',"' + json.dumps(name)[1:-1].encode() + b'":2}')
    assert len(caught.value.detail) < 200
    assert caught.value.detail.isprintable()


def test_fold_is_stable_and_makes_twins_equal() -> None:
    for one, other in [("Name", "name"), ("\u017f", "S"), ("\u212a", "k"), ("\u0131", "I"), ("\u0130", "i")]:
        assert fold(one) == fold(other) == fold(fold(one))
    assert fold("name") != fold("names")
