from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.mcp.httpcall import HttpCall, read_call
from callerid.mcp.multiparts import flaw
from callerid.model import Malformed, Reason

TYPE = "multipart/form-data; boundary=xYz"


def part(head: bytes, content: bytes = b"DELETE") -> bytes:
    return b"--xYz\r\n" + head + b"\r\n\r\n" + content + b"\r\n--xYz--\r\n"


def said(head: bytes, content: bytes = b"DELETE") -> HttpCall | Malformed:
    headers = [("Content-Type", TYPE)]
    return read_call("POST", "/v1/x", headers, part(b"Content-Disposition: " + head, content))


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b'form-data; name=\r\n "_method"', id="a fold before the name"),
        pytest.param(b'form-data; name="_meth\r\n od"', id="a fold in the name"),
        pytest.param(b'form-data;\r\n\tname="a"', id="a fold, whatever the name"),
        pytest.param(b'form-data; name=\r"_method"', id="a bare CR"),
        pytest.param(b'form-data;\n name="_method"', id="a bare LF"),
        pytest.param(b'form-data; name=\x0b"_method"', id="a vertical tab"),
        pytest.param(b'form-data; name="_method\x00"', id="a NUL"),
        pytest.param(b'form-data; name="a\x7f"', id="a DEL"),
        pytest.param(b'form-data; name*0="_met"; name*1="hod"', id="a name in pieces"),
        pytest.param(b"form-data; name*=utf-8''%5Fm%65thod", id="a name of another charset"),
        pytest.param(b"form-data; name *=utf-8''a", id="the same, with a blank"),
        pytest.param(b'form-data; name="%5Fmethod"', id="a percent-encoded name"),
        pytest.param(b'form-data; NAME = "10%"', id="a percent sign in a name"),
        pytest.param(b'form-data; name="a"\r\n \r\nX-Y: 1', id="a line of blanks"),
    ],
)
def test_a_head_that_readers_read_differently_is_refused(head: bytes) -> None:
    found = said(head)
    assert isinstance(found, Malformed)
    assert (found.reason, found.http_status) == (Reason.MALFORMED_HTTP, 400)


@pytest.mark.parametrize(
    "head",
    [
        b'form-data; name="comment"',
        b'form-data; name="file"; filename="100% sure.pdf"\r\nContent-Type: application/pdf',
        b'form-data; name="file"; filename="a"; filename*=utf-8\'\'%e2%82%ac.txt',
        b"form-data; name=a\r\nX-Custom: some\tvalue",
        'form-data; name="größe"'.encode(),
    ],
)
@pytest.mark.parametrize("content", [b"x", b"", b"\x00\r \n\r\n\r\n name*0=_method %", b'name="_method"'])
def test_what_clients_send_is_read_and_goes_on_as_it_is(head: bytes, content: bytes) -> None:
    found = said(head, content)
    assert isinstance(found, HttpCall)
    assert found.body == part(b"Content-Disposition: " + head, content)


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=a; boundary=xYz",
        "multipart/form-data; boundary*=utf-8''xYz",
        "multipart/form-data; boundary*0=x; boundary*1=Yz",
        'multipart/form-data; boundary="x\\Yz"',
        'multipart/form-data; boundary="x;Yz"',
    ],
)
def test_parts_without_one_boundary_are_refused(kind: str) -> None:
    assert "boundary" in flaw(kind, part(b"Content-Disposition: form-data; name=a"))


@pytest.mark.parametrize(
    "kind", [TYPE, 'multipart/related; Boundary="xYz"; type=a', f"{TYPE} ; charset=utf-8"]
)
def test_the_boundary_is_found_however_it_is_written(kind: str) -> None:
    assert not flaw(kind, part(b"Content-Disposition: form-data; name=a"))
    assert flaw(kind, part(b"Content-Disposition: form-data; name*=utf-8''a"))


def test_each_part_is_looked_at() -> None:
    good = b"--xYz\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n"
    assert not flaw(TYPE, good * 3 + b"--xYz--")
    assert flaw(TYPE, good * 3 + part(b"Content-Disposition: form-data; name*=b"))


@pytest.mark.parametrize(
    "kind",
    [
        "application/json5", "application/x-json", "application/json+x", "text/jsonx", "application/jsonl",
        "application/json-seq", "text/x-json; charset=utf-8",
    ],
)  # fmt: skip
def test_whatever_has_json_in_its_name_is_read_as_json(kind: str) -> None:
    def sent(body: bytes) -> HttpCall | Malformed:
        return read_call("POST", "/v1/x", [("Content-Type", kind)], body)

    found = sent(b'{ "a": 1 }')
    assert isinstance(found, HttpCall)
    assert (found.message.arguments, found.body) == ({"body": {"a": 1}}, b'{"a":1}')
    for body, reason in (
        (b'{"_method":"DELETE"}', Reason.MALFORMED_HTTP),
        (b'{"_method":"DELETE",}', Reason.MALFORMED_JSON),
        (b'{"a":1,"a":2}', Reason.DUPLICATE_KEY),
    ):
        refused = sent(body)
        assert isinstance(refused, Malformed)
        assert refused.reason is reason


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30), st.binary(max_size=60))
def test_it_is_total(kind: str, body: bytes) -> None:
    assert isinstance(
        flaw(f"multipart/x; boundary={kind}", b"--" + kind.encode("utf-8", "replace") + body), str
    )
