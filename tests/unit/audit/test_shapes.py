from __future__ import annotations

import base64

import pytest

from callerid.audit.shapes import hide_shapes, names_a_secret

# Assembled here, so that no scanner takes this file for a leak.
JWT = "eyJ" + "hbGciOiJFZERTQSJ9" + "." + "eyJzdWIiOiJhbGljZSJ9" + "." + "c2lnbmF0dXJl" * 3
PEM = "-----BEGIN " + "PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIcanary\n-----END " + "PRIVATE KEY-----"
BASIC = base64.b64encode(b"alice:canary-password").decode()


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "PASSWORD",
        "Passwd",
        "db_password",
        "userPassword",
        "pass-phrase",
        "secret",
        "client_secret",
        "clientSecret",
        "SecretAccessKey",
        "token",
        "access_token",
        "accessToken",
        "TOKEN",
        "api_key",
        "apikey",
        "API-Key",
        "apiKey",
        "x-api-key",
        "authorization",
        "Proxy-Authorization",
        "cookie",
        "Set-Cookie",
        "private_key",
        "privateKey",
        "access_key",
        "credential",
        "credentials",
        "session",
        "session_id",
        "otp",
        "totp_otp",
        "pin",
        "user_pin",
        "userPin",
        "API_PIN",
        "pwd",
        "dbPwd",
        "jwt",
        "tokens",
        "cvv",
        "ｐassword",
    ],
)
def test_a_member_of_this_name_holds_a_secret(name: str) -> None:
    assert names_a_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "path",
        "query",
        "pinned",
        "mapping",
        "spinner",
        "max_tokens",
        "token_count",
        "author",
        "authority",
        "passenger",
        "key",
        "keyword",
        "table",
        "opinion",
        "compass",
        "sessions_per_day",
        "side",
        "option",
        "é",
        "_",
        "-",
    ],
)
def test_a_member_of_this_name_does_not(name: str) -> None:
    assert not names_a_secret(name)


def test_a_member_without_a_name_holds_none() -> None:
    assert not names_a_secret("")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        pytest.param("cid_" + "abcDEF123_-xyz", "[redacted]", id="a scoped token of ours"),
        pytest.param(f"see {JWT}, ok", "see [redacted], ok", id="a JWT"),
        pytest.param("eyJhbGciOiJFZERTQSJ9.eyJzdWIi", "[redacted]", id="a JWT that was cut short"),
        pytest.param("ghp_" + "a1" * 18, "[redacted]", id="a GitHub token"),
        pytest.param("github_pat_" + "a1_" * 10, "[redacted]", id="a fine-grained GitHub token"),
        pytest.param("glpat-" + "a1-" * 7, "[redacted]", id="a GitLab token"),
        pytest.param("sk-" + "proj-" + "a1" * 12, "[redacted]", id="a model vendor's key"),
        pytest.param("sk_" + "live_" + "a1" * 8, "[redacted]", id="a payment key"),
        pytest.param("xoxb-" + "123456-abcdef", "[redacted]", id="a Slack token"),
        pytest.param("AKIA" + "ABCDEFGHIJKLMNOP", "[redacted]", id="an AWS access key id"),
        pytest.param("hf_" + "aB1" * 8, "[redacted]", id="a Hugging Face token"),
        pytest.param("npm_" + "aB1" * 12, "[redacted]", id="an npm token"),
        pytest.param("AIza" + "aB1_-" * 7, "[redacted]", id="a Google API key"),
        pytest.param(f"x\n{PEM}\ny", "x\n[redacted]\ny", id="a PEM private key"),
        pytest.param(PEM[:60], "[redacted]", id="a PEM private key without its end"),
        pytest.param("Bearer abc.def-123", "Bearer [redacted]", id="a bearer value"),
        pytest.param(f"Basic {BASIC}", "Basic [redacted]", id="a basic value"),
        pytest.param(
            "postgres://app:p:w@db.corp.example/x",
            "postgres://app:[redacted]@db.corp.example/x",
            id="the password in a URL",
        ),
        pytest.param(
            "https://" + "a1" * 12 + "@git.corp.example",
            "https://[redacted]@git.corp.example",
            id="a token as the name in a URL",
        ),
        pytest.param("Authorization: Token abc123", "Authorization: Token [redacted]", id="a header line"),
        pytest.param("PGPASSWORD=hunter2 psql", "PGPASSWORD=[redacted] psql", id="a shell assignment"),
        pytest.param("mysql --password hunter2 -h db", "mysql --password [redacted] -h db", id="an option"),
        pytest.param('{"api_key": "hunter2 x"}', '{"api_key": [redacted]"}', id="JSON inside a string"),
        pytest.param(
            "https://x.example/?access_token=abc&x=1",
            "https://x.example/?access_token=[redacted]&x=1",
            id="a query parameter",
        ),
    ],
)
def test_credentials_leave_and_the_words_around_them_stay(text: str, left: str) -> None:
    assert hide_shapes(text) == (left, 1)


@pytest.mark.parametrize(
    "text",
    [
        "basic research into basic information",
        "task-management-for-everyone",
        "SELECT token_count FROM usage WHERE max_tokens > 5",
        "ssh://git@git.corp.example/repo",
        "spiffe://corp.example/ci/docs",
        "user:alice@corp.example",
        "https://files.corp.example:443/mcp",
        "the secretary keeps the cookies",
        "",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert hide_shapes(text) == (text, 0)


def test_several_credentials_are_counted() -> None:
    assert hide_shapes(f"{JWT} and cid_abcdefghijk") == ("[redacted] and [redacted]", 2)
