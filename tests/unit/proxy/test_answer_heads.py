"""Which answers cannot be searched for secrets, by what their heads say; the same for MCP and for APIs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.test import tutils

from callerid.proxy.answer_heads import doubts_credential, flaw, hidden_body, is_wide

type Fields = tuple[tuple[bytes, bytes], ...]


def judged(fields: Fields, *, is_api: bool, status: int = 200) -> str | None:
    heads: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        heads.setdefault(name.lower(), []).append(value)
    call: Any = SimpleNamespace(is_api=is_api)
    return flaw(tutils.tresp(status_code=status, headers=fields), heads, call)


@pytest.mark.parametrize("is_api", [False, True], ids=["MCP", "API"])
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (b"Content-Type", b"text/html; charset=utf-16", "charset"),
        (b"Content-Type", b'text/html; charset="u\\tf-16le"', "charset"),
        (b"Content-Type", b"text/html; char\tset=utf-16", "charset"),
        (b"X-Key", b"sk-live-4f9c\r\n 2a7d81e6b350", "second line"),
        (b"Content-Type", b'text/html;charset="UTF-16LE"', "charset"),
        (b"Content-Type", b"text/plain; a=b; Charset = utf-32", "charset"),
        (b"Content-Type", b"text/plain; charset=utf-7", "charset"),
        (b"Content-Type", b"text/plain; charset=ucs-2", "charset"),
        (b"Content-Type", b"text/plain, text/html; charset=utf-16", "charset"),
        (b"Content-Encoding", b"gzip", "compressed"),
        (b"Content-Encoding", b"identity, br", "compressed"),
        (b"Transfer-Encoding", b"gzip, chunked", "compressed"),
        (b"Transfer-Encoding", b"deflate", "compressed"),
        (b"Content-Transfer-Encoding", b"base64", "encoding"),
        (b"Content-Transfer-Encoding", b"Quoted-Printable", "encoding"),
    ],
)
def test_what_hides_a_secret_is_not_given_out(is_api: bool, name: bytes, value: bytes, says: str) -> None:
    found = judged(((b"X-Other", b"x"), (name, value)), is_api=is_api)
    assert found is not None
    assert says in found


@pytest.mark.parametrize("is_api", [False, True], ids=["MCP", "API"])
def test_the_second_of_two_headers_counts_as_well(is_api: bool) -> None:
    two = ((b"Content-Type", b"text/html"), (b"content-type", b"text/html; charset=utf-16"))
    assert judged(two, is_api=is_api) is not None


@pytest.mark.parametrize("is_api", [False, True], ids=["MCP", "API"])
@pytest.mark.parametrize(
    "fields",
    [
        (),
        ((b"Content-Type", b"application/json; charset=utf-8"),),
        ((b"Content-Type", b"text/html; charset=iso-8859-1"),),
        ((b"Content-Type", b"text/html; charset=Shift_JIS"),),
        ((b"Content-Encoding", b"identity"), (b"Transfer-Encoding", b"chunked")),
        ((b"Content-Transfer-Encoding", b"binary"),),
    ],
)
def test_what_can_be_searched_is_given_out(is_api: bool, fields: Fields) -> None:
    assert judged(fields, is_api=is_api) is None


@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream"])
def test_what_is_judged_must_be_in_utf_8(kind: bytes) -> None:
    fields = ((b"Content-Type", kind + b"; charset=iso-8859-1"),)
    assert judged(fields, is_api=False) is not None
    assert judged(fields, is_api=True) is None


@pytest.mark.parametrize("status", [100, 101, 103])
def test_an_interim_status_is_no_answer(status: int) -> None:
    assert judged((), is_api=False, status=status) is not None


def test_a_head_that_says_nothing_hides_nothing() -> None:
    assert hidden_body({}) is None


@pytest.mark.parametrize(
    ("status", "challenge", "doubted"),
    [
        (401, None, True),
        (401, b"Basic", True),
        (403, None, False),
        (403, b'Bearer error="insufficient_scope"', False),
        (403, b'Bearer error="invalid_token"', True),
        (403, b"Bearer error=Invalid_Token", True),
    ],
)
def test_a_refusal_of_what_was_asked_for_says_nothing_of_the_credential(
    status: int, challenge: bytes | None, doubted: bool
) -> None:
    heads = {b"www-authenticate": [b"Negotiate", challenge]} if challenge is not None else {}
    assert doubts_credential(tutils.tresp(status_code=status), heads) is doubted


@pytest.mark.parametrize(
    ("kind", "start", "wide"),
    [
        (b"text/plain", "\ufeffx".encode("utf-16-le"), True),
        (b"application/json", "\ufeffx".encode("utf-16-be"), True),
        (b"image/svg+xml", "\ufeffx".encode("utf-32-be"), True),
        (None, "\ufeffx".encode("utf-32-le"), True),
        (b"text/plain", "\ufeffx".encode(), False),
        (b"text/plain", b"", False),
        (b"audio/mpeg", b"\xff\xfe\x90", False),
    ],
)
def test_a_text_that_says_by_its_first_bytes_that_it_is_wide(
    kind: bytes | None, start: bytes, wide: bool
) -> None:
    fields = ((b"content-type", kind),) if kind is not None else ()
    assert is_wide(tutils.tresp(headers=fields), start) is wide
