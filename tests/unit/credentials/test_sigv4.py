from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from mitmproxy.http import Headers

from callerid.credentials.awskeys import Keys, as_text, parse
from callerid.credentials.inject import apply, conceal, prepared
from callerid.credentials.outgoing import Outgoing
from callerid.credentials.secret import Secret
from tests.unit.credentials.helpers import credential

KEYS = Keys("AKIDEXAMPLE00000", "wJalrXUtnFEMI-K7MDENG-bPxRfiCY")
TEMPORARY = Keys("ASIAEXAMPLE00000", "wJalrXUtnFEMI-K7MDENG-bPxRfiCY", "session-token-of-some-length==")
REGION, SERVICE = "eu-central-1", "execute-api"


def signed(keys: Keys = KEYS, service: str = SERVICE, **changes: Any) -> Outgoing:
    fields: dict[str, Any] = {
        "method": "POST", "scheme": "https", "host": "api.corp.example", "port": 443, "path": "/mcp?b=2&a=1",
        "headers": Headers(host="api.corp.example", content_type="application/json"), "body": b'{"id":1}',
    }  # fmt: skip
    out = Outgoing(**{**fields, **changes})
    config = credential(id="aws", inject="aws_sigv4", region=REGION, service=service)
    apply(prepared(config, Secret(as_text(keys), label="aws@v1")), out)
    return out


def verifies(out: Outgoing, keys: Keys, service: str = SERVICE) -> bool:
    """As the service does it: the documented algorithm, without the library that signed."""
    algorithm, _, rest = out.headers["authorization"].partition(" ")
    fields = dict(part.strip().split("=", 1) for part in rest.split(","))
    access, day, region, named, ending = fields["Credential"].split("/")
    assert (algorithm, access, region, named, ending) == (
        "AWS4-HMAC-SHA256", keys.access_key_id, REGION, service, "aws4_request",
    )  # fmt: skip
    assert out.headers["x-amz-content-sha256"] == hashlib.sha256(out.body).hexdigest()
    names = fields["SignedHeaders"].split(";")
    assert {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names)
    lines = "".join(f"{name}:{' '.join(out.headers[name].split())}\n" for name in names)
    path, _, query = out.path.partition("?")
    canonical = "\n".join(
        (out.method, path, "&".join(sorted(query.split("&"))), lines, ";".join(names),
         out.headers["x-amz-content-sha256"])
    )  # fmt: skip
    date = out.headers["x-amz-date"]
    assert date[:8] == day
    to_sign = "\n".join(
        (
            algorithm,
            date,
            f"{day}/{region}/{service}/aws4_request",
            hashlib.sha256(canonical.encode()).hexdigest(),
        )
    )
    key = f"AWS4{keys.secret_access_key}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, to_sign.encode(), "sha256").hex() == fields["Signature"]


@pytest.mark.parametrize("keys", [KEYS, TEMPORARY], ids=["lasting keys", "temporary keys"])
@pytest.mark.parametrize("service", [SERVICE, "s3"])
def test_the_service_finds_the_signature_right(keys: Keys, service: str) -> None:
    out = signed(keys, service)
    assert verifies(out, keys, service)
    assert out.headers.get("x-amz-security-token") == keys.session_token
    assert KEYS.secret_access_key not in str(out)


@pytest.mark.parametrize(
    "change",
    [
        lambda out: setattr(out, "body", b'{"id":2}'),
        lambda out: setattr(out, "path", "/mcp?b=2&a=2"),
        lambda out: setattr(out, "method", "GET"),
        lambda out: out.headers.__setitem__("host", "other.corp.example"),
        lambda out: out.headers.__setitem__("content-type", "text/plain"),
    ],
    ids=["the body", "the query", "the method", "the host", "the type"],
)
def test_what_was_signed_cannot_change(change: Any) -> None:
    out = signed()
    change(out)
    try:
        assert not verifies(out, KEYS)
    except AssertionError:
        assert out.headers["x-amz-content-sha256"] != hashlib.sha256(out.body).hexdigest()


def test_what_a_caller_signed_or_dated_is_gone_and_his_other_fields_are_signed() -> None:
    headers = Headers(
        [
            (b"Host", b"api.corp.example"),
            (b"X-Amz-Date", b"19700101T000000Z"),
            (b"x_amz_date", b"19700101T000000Z"),
            (b"X-Amz-Security-Token", b"mine"),
            (b"Authorization", b"AWS4-HMAC-SHA256 mine"),
            (b"Date", b"Thu, 01 Jan 1970 00:00:00 GMT"),
            (b"X-Amz-Target", b"Things.List"),
            (b"X-Amz-Meta", b"a"),
            (b"X-Amz-Meta", b"b  c"),
        ]
    )
    out = signed(headers=headers)
    assert verifies(out, KEYS)
    assert b"1970" not in bytes(headers)
    assert b"mine" not in bytes(headers)
    assert "x-amz-target" in headers["authorization"]
    assert len(headers.get_all("x-amz-meta")) == 1


def test_it_is_concealed_afterwards() -> None:
    config = credential(id="aws", inject="aws_sigv4", region=REGION, service=SERVICE)
    out = signed(TEMPORARY)
    conceal(prepared(config, Secret(as_text(TEMPORARY), label="aws@v1")), out)
    assert out.headers["authorization"] == out.headers["x-amz-security-token"] == "[callerid:aws@v1]"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("AKIDEXAMPLE00000:wJalrXUtnFEMI", Keys("AKIDEXAMPLE00000", "wJalrXUtnFEMI")),
        (
            "AKIDEXAMPLE00000:wJalrXUtnFEMI:session-token",
            Keys("AKIDEXAMPLE00000", "wJalrXUtnFEMI", "session-token"),
        ),
        (as_text(KEYS), KEYS),
        (as_text(TEMPORARY), TEMPORARY),
        (
            json.dumps({"Version": 1, "AccessKeyId": "AKIDEXAMPLE00000", "SecretAccessKey": "wJalrXUtnFEMI"}),
            Keys("AKIDEXAMPLE00000", "wJalrXUtnFEMI"),
        ),
        ("AKIDEXAMPLE00000", None),
        ("AKIDEXAMPLE00000:", None),
        ("a:b:c:d", None),
        ("{", None),
        ("{}", None),
        ("[" * 100_000, None),
        ("{" + '"a":{' * 50_000, None),
        ('{"access_key_id":1,"secret_access_key":"wJalrXUtnFEMI"}', None),
        ('{"access_key_id":"AKIDEXAMPLE00000","secret_access_key":"with a blank in it"}', None),
        ('{"access_key_id":"AKIDEXAMPLE00000","secret_access_key":"line\\nbreak-line"}', None),
    ],
)
def test_a_source_holds_a_pair_of_keys_or_it_does_not(text: str, keys: Keys | None) -> None:
    assert parse(text) == keys


def test_keys_are_not_shown() -> None:
    assert repr(TEMPORARY) == "Keys()"
