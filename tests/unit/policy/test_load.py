# ruff: noqa: E501  (one file or case per line reads best)
"""The four files as one set: all or nothing, one hash, and nothing that is lost by accident."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from callerid.errors import ConfigError
from callerid.policy import load as module
from callerid.policy.load import FILES, RuleSet, fingerprint, load_rules
from callerid.policy.problems import MAX_PROBLEMS
from tests.unit.policy.house import POLICY, faults, load, rules, told, write

ROOT = Path(__file__).resolve().parents[3]
TOKEN = "gh" + "p_" + "a1B2" * 9
RANDOM = "q7Zp2Lk9Xv4Bn8Ws1Rt6Yc3Df5Gh0JmUaEoIiPzT"


def test_a_set_knows_its_sources_and_its_hash(tmp_path: Path) -> None:
    made = load(tmp_path)
    assert isinstance(made, RuleSet)
    assert tuple(made.sources) == FILES
    assert made.sources["policy.yaml"] == POLICY
    assert made.hash == made.engine.hash
    assert len(made.hash) == 16
    assert int(made.hash, 16) >= 0
    assert made.unknown_server == "deny"


@pytest.mark.parametrize("name", FILES)
def test_every_file_counts_for_the_hash(tmp_path: Path, name: str) -> None:
    before = load(tmp_path).hash
    path = tmp_path / name
    path.write_text(path.read_text() + "# a comment\n")
    assert load_rules(tmp_path).hash != before


def test_the_same_texts_have_the_same_hash(tmp_path: Path) -> None:
    assert load(tmp_path / "a").hash == load(tmp_path / "b").hash


def test_unknown_server_can_be_observed(tmp_path: Path) -> None:
    assert (
        load(tmp_path, policy="version: 1\nunknown_server: observe\nrules: []\n").unknown_server == "observe"
    )


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_an_error(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ConfigError) as caught:
        load_rules(tmp_path)
    assert told(caught.value.problems) == [f"{name}:0:0: there is no file {name} in the rules directory"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "\ufeff"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str, text: str) -> None:
    found = faults(tmp_path, **{name.removesuffix(".yaml"): text})
    assert [(p.file, p.message) for p in found] == [(name, "the file is empty")]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_rules(tmp_path / "nowhere")
    assert len(caught.value.problems) == 4


def test_a_directory_in_place_of_a_file(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "policy.yaml").unlink()
    (tmp_path / "policy.yaml").mkdir()
    with pytest.raises(ConfigError, match="there is no file policy"):
        load_rules(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "policy.yaml").unlink()
    os.mkfifo(tmp_path / "policy.yaml")
    with pytest.raises(ConfigError, match="there is no file policy"):
        load_rules(tmp_path)


@pytest.mark.parametrize("name", ["policy.d", "egress.yaml"])
def test_rules_in_a_place_that_is_not_read_are_not_ignored(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=f"{name} is not supported yet"):
        load_rules(tmp_path)


def test_links_are_followed_as_secret_stores_and_clusters_make_them(tmp_path: Path) -> None:
    write(tmp_path / "data")
    (tmp_path / "rules").mkdir()
    for name in FILES:
        (tmp_path / "rules" / name).symlink_to(tmp_path / "data" / name)
    assert load_rules(tmp_path / "rules").hash == load_rules(tmp_path / "data").hash


def test_windows_files_load(tmp_path: Path) -> None:
    text = rules("  - {id: a, effect: allow, who: [anyone], tools: [x]}\n").replace("\n", "\r\n")
    made = load(tmp_path, policy="\ufeff" + text)
    assert made.sources["policy.yaml"] == text
    assert len(made.engine.rules) == 1


@pytest.mark.parametrize("secret", [TOKEN, RANDOM], ids=["a known shape", "a random run"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("credentials", "version: 1\ncredentials: [{id: c, source: {env: %s}, inject: {bearer: {}}, bind: {hosts: [h]}}]\n"),
        ("credentials", "version: 1\ncredentials: [{id: c, source: {value: %s}, inject: {bearer: {}}, bind: {hosts: [h]}}]\n"),
        ("credentials", "version: 1\ncredentials: [{id: c, source: {exec: [x, '--token=%s']}, inject: {bearer: {}}, bind: {hosts: [h]}}]\n"),
        ("credentials", "version: 1\ncredentials: [{id: c, source: {exec: [curl, -H, 'X-Key: %s']}, inject: {bearer: {}}, bind: {hosts: [h]}}]\n"),
        ("credentials", "version: 1\ncredentials: [{id: c, source: {env: A}, inject: {header: {name: X, format: 'Key %s {secret}'}}, bind: {hosts: [h]}}]\n"),
        ("credentials", "version: 1\ncredentials: [{id: c, source: {systemd: %s}, inject: {bearer: {}}, bind: {hosts: [h]}}]\n"),
        ("credentials", "version: 1\ncredentials: [{id: c, source: {vault: {url: 'https://v.example', mount: kv, path: %s, field: f, auth: token, token_file: f}}, inject: {bearer: {}}, bind: {hosts: [h]}}]\n"),
        ("credentials", "version: 1\ncredentials: [{id: c, source: {aws: {secret_id: %s}}, inject: {bearer: {}}, bind: {hosts: [h]}}]\n"),
        ("credentials", "version: 1\ncredentials: [{id: c, source: {env: A}, inject: {cookie: {name: %s}}, bind: {hosts: [h]}}]\n"),
        ("credentials", "version: 1\ncredentials: [{id: c, source: {env: A}, inject: {token_exchange: {token_url: 'https://l.example', client_id: c, scope: %s}}, bind: {hosts: [h]}}]\n"),
        ("credentials", "version: 1\ncredentials: [{id: c, source: {env: A}, inject: {token_exchange: {token_url: 'https://l.example', client_id: c, secret: %s}}, bind: {hosts: [h]}}]\n"),
        ("servers", "version: 1\nservers: [{id: a, url: 'https://h.example/mcp', assertion: {audience: %s}}]\n"),
        ("identities", "version: 1\nclient_certificate: %s\n"),
        ("identities", "version: 1\ngroups: {%s: {members: [x]}}\n"),
        ("servers", "version: 1\nservers: [{id: a, url: 'https://h.example/mcp', labels: {key: %s}}]\n"),
        ("servers", "version: 1\nservers: [{id: a, url: 'https://x:%s@h.example/mcp'}]\n"),
        ("policy", "version: 1\nrules: [{id: a, effect: deny, args: {key: {eq: %s}}}]\n"),
        ("policy", "version: 1\nrules: [{id: a, effect: %s}]\n"),
        ("policy", "version: 1\nrules: [{id: a, effect: deny, reason: 'use %s please'}]\n"),
    ],
)  # fmt: skip
def test_a_secret_in_a_rule_file_is_refused_and_never_shown(
    tmp_path: Path, name: str, text: str, secret: str
) -> None:
    if "reason" in text and secret is RANDOM:
        return
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **{name: text % secret})
    assert secret not in str(caught.value)
    assert secret not in repr(caught.value.problems)
    if secret is TOKEN or not ("{members" in text or "https://x:" in text):
        assert "this looks like a real secret" in [problem.message for problem in caught.value.problems]


@pytest.mark.parametrize("name", ["identities", "servers", "credentials", "policy"])
def test_a_secret_in_a_comment_is_refused_too(tmp_path: Path, name: str) -> None:
    text = (write(tmp_path) / f"{name}.yaml").read_text() + f"# old: {TOKEN}\n"
    found = faults(tmp_path, **{name: text})
    assert [(p.file, p.message) for p in found] == [(f"{name}.yaml", "this looks like a real secret")]
    assert TOKEN not in str(found[0])


def test_a_fingerprint_of_a_certificate_is_no_secret(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "ca.pem").write_text("x")
    text = (
        "version: 1\ngroups: {engineering: {}, interns: {}, support: {}}\n"
        f"client_cas: [{{id: a, file: ca.pem, principal_from: san_email, denied_sha256: [{'ab' * 32}]}}]\n"
    )
    assert faults(tmp_path, identities=text) == ()


def test_the_name_that_an_authorization_server_gave_to_a_client_is_no_secret(tmp_path: Path) -> None:
    text = (
        "version: 1\ncredentials: [{id: payments-shared, source: {env: A}, inject: {oauth_client_credentials: "
        f"{{token_url: 'https://l.example', client_id: {RANDOM}}}}}, bind: {{hosts: [payments.corp.example]}}}}]\n"
    )
    assert faults(tmp_path, credentials=text) == ()
    (found,) = faults(tmp_path, credentials=text.replace(RANDOM, TOKEN))
    assert found.message == "this looks like a real secret"


def test_problems_are_in_the_order_of_the_files_and_end_somewhere(tmp_path: Path) -> None:
    many = "".join(f"  - {{id: r{n}, effect: nope}}\n" for n in range(100))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, policy=rules(many), servers="version: 2\nservers: []\n")
    assert len(caught.value.problems) == MAX_PROBLEMS
    assert caught.value.problems[0].file == "servers.yaml"
    assert caught.value.message.startswith("at least 50 problems in the rules in ")


def test_one_problem_is_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^1 problem in the rules in "):
        load(tmp_path, policy="version: 1\nmode: x\nrules: []\n")


def test_a_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    write(tmp_path)
    before = fingerprint(tmp_path)
    assert [name for name, *_ in before] == list(FILES)
    assert fingerprint(tmp_path) == before
    (tmp_path / "new").write_text(POLICY)
    (tmp_path / "new").rename(tmp_path / "policy.yaml")
    after = fingerprint(tmp_path)
    assert after != before
    assert after[:3] == before[:3]
    (tmp_path / "policy.yaml").unlink()
    assert fingerprint(tmp_path)[3] == ("policy.yaml", 0, 0, 0)


def test_a_fingerprint_of_nothing_is_zeros(tmp_path: Path) -> None:
    assert fingerprint(tmp_path / "nowhere") == tuple((name, 0, 0, 0) for name in FILES)
    assert fingerprint(Path("a\0b")) == tuple((name, 0, 0, 0) for name in FILES)


def test_files_that_change_while_they_are_read_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    seen: list[int] = []

    def restless(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
        seen.append(1)
        return (("policy.yaml", len(seen), 0, 0),)

    monkeypatch.setattr(module, "fingerprint", restless)
    with pytest.raises(ConfigError, match="change while they are read"):
        load_rules(tmp_path)
    assert len(seen) == 6


def test_a_change_in_between_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    seen: list[int] = []

    def settles(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
        seen.append(1)
        return (("policy.yaml", min(len(seen), 2), 0, 0),)

    monkeypatch.setattr(module, "fingerprint", settles)
    assert load_rules(tmp_path).engine.rules == ()
    assert len(seen) == 4


EXAMPLE = re.compile(r"^( *)# ((?: *- | +|[a-z_]+:(?= |$)).*)$", re.MULTILINE)


def test_the_examples_behind_signs_load_when_the_signs_are_taken_away(tmp_path: Path) -> None:
    for name in FILES:
        text = (ROOT / "rules" / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(EXAMPLE.sub(r"\1\2", text), encoding="utf-8")
    for needed in ("ca/device-ca.pem", "ca/mesh-ca.pem", "keys/cluster.json"):
        (tmp_path / needed).parent.mkdir(exist_ok=True)
        (tmp_path / needed).write_text("x")
    made = load_rules(tmp_path)
    assert {"corp-idp", "github-actions", "cluster", "spire"} <= {i.id for i in made.identities.issuers}
    assert [hop.subject for hop in made.identities.trusted_hops] == [
        "workload:spiffe://corp.example/envoy/branch"
    ]
    assert {server.id: server.kind for server in made.servers.servers} == {
        "files": "mcp", "wiki": "mcp", "tickets": "mcp", "billing": "http"
    }  # fmt: skip
    assert {credential.inject for credential in made.credentials} >= {"token_exchange", "bearer"}
    assert {"engineering-billing", "small-refunds"} <= {rule.id for rule in made.engine.rules}
    assert made.warnings == ()


def test_the_sample_rules_are_good_and_without_a_warning() -> None:
    made = load_rules(ROOT / "rules")
    assert made.warnings == ()
    assert {server.id for server in made.servers.servers} == {"files", "wiki"}
    assert {server.credential for server in made.servers.servers} == {"files-shared", "wiki-shared"}
