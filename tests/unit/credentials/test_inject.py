from __future__ import annotations

import ast
import base64
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.http import Headers

import callerid
from callerid.credentials.inject import Injection, apply, conceal, prepared
from callerid.credentials.secret import Secret
from callerid.errors import ConfigError
from tests.unit.credentials.helpers import VALUE, credential

SECRET = Secret(VALUE, label="github-shared@v3")


def written(**changes: Any) -> dict[str, str]:
    headers: dict[str, str] = {}
    apply(prepared(credential(**changes), SECRET), headers)
    return headers


def test_the_three_kinds() -> None:
    assert written() == {"Authorization": f"Bearer {VALUE}"}
    assert written(inject="header", header="X-Api-Key", template="{secret}") == {"X-Api-Key": VALUE}
    basic = written(inject="basic", username="svc")["Authorization"]
    assert basic == "Basic " + base64.b64encode(f"svc:{VALUE}".encode()).decode()


def test_the_label_names_the_version_and_nothing_prints_the_value() -> None:
    injection = prepared(credential(), SECRET)
    assert injection.label == "github-shared@v3"
    assert VALUE not in repr(injection)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"header": ""}, "header named"),
        ({"header": "X Api Key"}, "header named"),
        ({"header": "X-Key\r\nX-Admin"}, "header named"),
        ({"header": "X-Key:"}, "header named"),
        ({"header": "X-Cl\u00e9"}, "header named"),
        ({"header": "Host"}, "header named"),
        ({"header": "content_length"}, "header named"),
        ({"header": "Transfer-Encoding"}, "header named"),
        ({"header": "Proxy-Authorization"}, "header named"),
        ({"header": "Mcp-Session-Id"}, "header named"),
        ({"template": "Bearer {secret}\r\nX-Admin: yes"}, "template"),
        ({"template": "Bearer"}, "template"),
        ({"inject": "basic", "username": None}, "no username"),
        ({"inject": "basic", "username": "a:b"}, "username"),
        ({"inject": "basic", "username": "a\r\nX-Admin: yes"}, "username"),
    ],
)
def test_what_cannot_make_a_sound_header_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        prepared(credential(**changes), SECRET)
    assert caught.value.hint
    assert VALUE not in str(caught.value)


def test_every_instance_of_the_header_is_replaced() -> None:
    headers = Headers(
        [
            (b"authorization", b"Bearer cid_alice"),
            (b"Accept", b"application/json"),
            (b"AUTHORIZATION", b"Basic eHk6eg=="),
            (b"Authorization", b""),
        ]
    )
    apply(prepared(credential(), SECRET), headers)
    assert headers.get_all("authorization") == [f"Bearer {VALUE}"]
    assert headers["accept"] == "application/json"


def test_twins_go_too_in_a_plain_mapping_and_in_headers() -> None:
    injection = prepared(credential(inject="header", header="X-Api-Key", template="{secret}"), SECRET)
    plain = {"x-api-key": "mine", "X_API_KEY": "mine", "X-Api-Keys": "other"}
    apply(injection, plain)
    assert plain == {"X-Api-Keys": "other", "X-Api-Key": VALUE}
    headers = Headers([(b"x-api-key", b"a"), (b"x_api_key", b"b"), (b"X-API-KEY", b"c")])
    apply(injection, headers)
    assert headers.fields == ((b"X-Api-Key", VALUE.encode()),)


def test_afterwards_it_can_be_concealed() -> None:
    injection = prepared(credential(), SECRET)
    headers = Headers([(b"Host", b"github.corp.example")])
    apply(injection, headers)
    conceal(injection, headers)
    assert headers.get_all("authorization") == ["[callerid:github-shared@v3]"]
    assert VALUE.encode() not in bytes(headers)


def test_the_value_is_revealed_in_one_place() -> None:
    package = Path(callerid.__file__).parent
    places = [
        (path.name, node.lineno)
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "reveal"
    ]
    assert [name for name, _ in places] == ["inject.py"]


def test_an_injection_cannot_be_edited() -> None:
    injection = Injection("a@v1", "Authorization", SECRET)
    with pytest.raises(AttributeError):
        injection.header = "Host"  # type: ignore[misc]
