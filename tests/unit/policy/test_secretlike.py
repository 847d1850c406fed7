"""What looks like a secret, and what must not: rule files are full of globs, URLs and addresses."""

from __future__ import annotations

import pytest

from callerid.policy.secretlike import looks_secret, masked, spans

# Put together at run time, so that no scanner finds a secret in this file.
SECRETS = {
    "GitHub": "gh" + "p_" + "a1B2" * 9,
    "GitHub fine-grained": "github" + "_pat_" + "a1B2" * 9,
    "GitLab": "glpat" + "-" + "a1B2" * 5,
    "a payment key": "sk" + "_live_" + "a1B2" * 5,
    "a model vendor's key": "sk" + "-" + "a1B2" * 9,
    "Slack": "xox" + "b-" + "1234567890-abcdef",
    "AWS": "AK" + "IA" + "A1B2" * 4,
    "Google": "AI" + "za" + "a1B2" * 9,
    "Hugging Face": "hf" + "_" + "a1B2" * 9,
    "npm": "npm" + "_" + "a1B2" * 9,
    "Vault": "hv" + "s." + "a1B2" * 6,
    "a JWT": "ey" + "J" + "a" * 20 + ".eyJ" + "b" * 20 + "." + "c" * 20,
    "a private key": "-----BEGIN RSA PRIVATE " + "KEY-----",
    "a token of ours": "cid" + "_" + "a1B2" * 11,
    "forty hexadecimal digits": "0123456789abcdef" * 2 + "01234567",
    "forty random characters": "q7Zp2Lk9Xv4Bn8Ws1Rt6Yc3Df5Gh0JmUaEoIiPzT",
    "base64 with padding": "dGhpcyBpcyBhIHNlY3JldCBrZXkgMTIzNDU2Nzg5MA==",
}


@pytest.mark.parametrize("value", SECRETS.values(), ids=SECRETS.keys())
def test_a_secret_is_seen(value: str) -> None:
    assert looks_secret(value)
    assert value not in masked(f"{{env: {value}}}")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "files-shared",
        "/run/secrets/github_token_for_the_platform_team_2026",
        "https://token.actions.githubusercontent.com/.well-known/jwks",
        "repo:corp/docs:ref:refs/heads/main",
        "spiffe://corp.example/agent/claude-code/instance/0001",
        "user:firstname.lastname.with.a.long.name@department.corp.example",
        "Deletions on production go through a change ticket.",
        "Bearer {secret}",
        "resource:file:///srv/team/a/very/long/path/with/many/parts/*",
        "interns_may_not_write_anything_at_all_on_prod",
        "the-quick-brown-fox-jumps-over-the-lazy-dog-again",
        "FILES_CLIENT_SECRET_FOR_PRODUCTION_ENVIRONMENT_1",
        "search_*",
        "sk-*",
        "cid_*",
    ],
)
def test_what_rule_files_hold_is_no_secret(value: str) -> None:
    assert not looks_secret(value)
    assert masked(value) == value


def test_a_mask_keeps_the_length_so_that_carets_stand_right() -> None:
    line = f"  a: {SECRETS['GitHub']} # b"
    assert len(masked(line)) == len(line)
    assert masked(line).endswith(" # b")
    assert spans(line) == ((5, 5 + len(SECRETS["GitHub"])),)


def test_the_user_part_of_a_url_is_masked() -> None:
    assert masked("url: https://u:hunter2@h.example/x") == "url: https://*********@h.example/x"
