# ruff: noqa: E501  (one file or case per line reads best)
"""What a person is told about a file of the wrong shape: the place, the fault, the right spelling."""

from __future__ import annotations

from pathlib import Path

import pytest

from callerid.policy.rulemodels import PolicyFile
from callerid.policy.shape import NOT_YET
from tests.unit.policy.house import faults, rules, told


def rule(text: str) -> str:
    return rules(f"  - id: r\n    {text}\n")


@pytest.mark.parametrize(
    ("policy", "problem", "hint"),
    [
        ("rules: []\n", "1:1: 'version' is missing", "version: 1"),
        ("version: 2\nrules: []\n", "1:10: version: '2' is not known here", ""),
        ('version: "1"\nrules: []\n', "1:10: version: '1' is not known here", ""),
        ("version: 1\n", "1:1: 'rules' is missing", "rules: []"),
        ("version: 1\nrules: {}\n", "2:8: rules: should be a list, not a mapping", ""),
        ("version: 1\nrules: [x]\n", "2:9: rules: should be a mapping, not text", ""),
        ("version: 1\nrulez: []\nrules: []\n", "2:1: unknown key 'rulez'", "Did you mean 'rules'?"),
        ("version: 1\nunknown_tool: deny\nrules: []\n", "2:1: 'unknown_tool' is not supported yet", "guard"),
        ("version: 1\nanonymous: allow\nrules: []\n", "2:12: anonymous: 'allow' is not known here", "deny"),
        ("version: 1\nmode: off\nrules: []\n", "2:7: mode: 'off' is not known here", "enforce, monitor"),
        ("version: 1\nsets: {a: []}\nrules: []\n", "2:11: a: is empty", "not left out"),
        (rule("who: [anyone]"), "3:5: rule 'r': 'effect' is missing", "allow, deny or require"),
        (rule("effect: alow"), "4:13: rule 'r': unknown effect 'alow'", "Did you mean 'allow'?"),
        (rule("effect: approve"), "4:13: rule 'r': effect 'approve' is not supported yet", "guard"),
        (rule("effect: limit"), "4:13: rule 'r': effect 'limit' is not supported yet", "guard"),
        (rule("effect: redact"), "4:13: rule 'r': effect 'redact' is not supported yet", "guard"),
        (rule("effect: true"), "4:13: rule 'r': unknown effect 'True'", ""),
        (rule("effect: allow"), "3:5: rule 'r': 'who' is missing", "anyone"),
        (rule("effect: deny\n    tool: [x]"), "5:5: rule 'r': unknown key 'tool'", "'tools'"),
        (rule("effect: deny\n    session: x"), "5:5: rule 'r': 'session' is not supported yet", "guard"),
        (rule("effect: deny\n    when: x"), "5:5: rule 'r': 'when' is not supported yet", "guard"),
        (rule("effect: deny\n    per: [x]"), "5:5: rule 'r': 'per' is not supported yet", "guard"),
        (rule("effect: deny\n    tools: x"), "5:12: rule 'r': tools: should be a list, not text", "brackets"),
        (rule("effect: deny\n    tools: [5]"), "5:13: rule 'r': tools: should be text, not a number", "Quote"),
        (rule("effect: deny\n    tools: []"), "5:12: rule 'r': tools: is empty", "not left out"),
        (rule("effect: deny\n    servers: []"), "5:14: rule 'r': servers: is empty", "not left out"),
        (rule("effect: deny\n    who: []"), "5:10: rule 'r': who: is empty", "not left out"),
        (rule("effect: deny\n    args: {}"), "5:11: rule 'r': args: is empty", "not left out"),
        (rule("effect: deny\n    who: [alice]"), "5:11: rule 'r': who: 'alice' should be user:NAME", ""),
        (rule('effect: deny\n    who: ["user:"]'), "5:11: rule 'r': who: 'user:' should be user:NAME", ""),
        (rule("effect: deny\n    servers: ['label:a']"), "5:15: rule 'r': servers: 'label:a' should be", ""),
        (rule("effect: deny\n    assurance: strong"), "5:16: rule 'r': assurance: 'strong' is not known", "bearer"),
        (rule("effect: deny\n    agent: x"), "5:12: rule 'r': agent: should be a list, not text", "brackets"),
        (rule('effect: deny\n    reason: ""'), "5:13: rule 'r': reason: is empty", ""),
        (rule("effect: deny\n    args: {a: 5}"), "5:15: rule 'r': a: should be a mapping, not a number", ""),
        (rule('effect: deny\n    args: {a: {le: "5"}}'), "5:20: rule 'r': le: should be a number, not text", "quotes"),
        (rule("effect: deny\n    args: {a: {le: 1e3}}"), "5:20: '1e3' looks like a number", "Write 1000, or quote it"),
        (rule("effect: deny\n    args: {a: {le: true}}"), "5:20: rule 'r': le: should be a number, not true", ""),
        (rule("effect: deny\n    args: {a: {lte: 5}}"), "5:16: rule 'r': unknown key 'lte'", "Did you mean"),
        (rule("effect: deny\n    args: {a: {type: int}}"), "5:22: rule 'r': type: 'int' is not known", "integer"),
        (rule("effect: deny\n    args: {a: {eq: [1]}}"), "5:20: rule 'r': eq: should be text, a number", ""),
        (rule("effect: deny\n    args: {a: {in: 5}}"), "5:20: rule 'r': in: should be a list, not a number", ""),
        (rule("effect: deny\n    args: {a: {in: []}}"), "5:20: rule 'r': in: is empty", ""),
        (rule("effect: deny\n    args: {a: {max_length: 1.5}}"), "5:28: rule 'r': max_length: should be a whole", ""),
        (rule("effect: deny\n    args: {a: {negate: 1}}"), "5:24: rule 'r': negate: should be true or false", ""),
        (rule("effect: deny\n    args: {a: {under: srv}}"), "5:23: rule 'r': under: 'srv' should be an absolute", ""),
        (rule('effect: deny\n    hours: {from: 8:00, to: "18:00"}'), "5:19: rule 'r': from: '8:00' should be a time", ""),
        (rule('effect: deny\n    hours: {from: "08:00"}'), "5:12: rule 'r': 'to' is missing", ""),
        (rule('effect: deny\n    hours: {days: [monday], from: "08:00", to: "18:00"}'),
         "5:20: rule 'r': days: 'monday' is not known here", "mon"),
        (rules("  - effect: deny\n"), "3:5: 'id' is missing", ""),
        (rules("  - {id: a b, effect: deny}\n"), "3:10: rule 'a b': id: 'a b' should be 1 to 64 letters", ""),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_place_and_the_way_out(
    tmp_path: Path, policy: str, problem: str, hint: str
) -> None:
    (found,) = faults(tmp_path, policy=policy)
    assert f"{found.line}:{found.column}: {found.message}".startswith(problem)
    assert hint in found.hint
    assert found.file == "policy.yaml"


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("identities", "version: 1\nissuers: [{id: a, type: saml}]\n", "2:25: unknown type 'saml'"),
        ("servers", "version: 1\nservers: []\nheaders: []\n", "3:1: 'headers' is not supported yet"),
        ("credentials", "version: 1\ncredentials: [{scrub: true}]\n", "2:15: 'id' is missing"),
        ("identities", "version: 1\nissuers: [{id: x, type: opaque}]\n", "2:16: id: 'x' is not known here"),
        (
            "identities",
            "version: 1\nissuers: [{id: local, type: opaque, prefix: x}]\n",
            "2:37: 'prefix' is not",
        ),
        (
            "identities",
            "version: 1\nissuers: [{id: local, type: opaque, max_ttl: 5}]\n",
            "2:46: max_ttl: should be",
        ),
        ("identities", "version: 1\ngroups: {a: {members: [alice]}}\n", "2:24: members: 'alice' should be"),
        ("identities", "version: 1\ngroups: {a: [x]}\n", "2:13: a: should be a mapping, not a list"),
        (
            "identities",
            "version: 1\nagents: {a: {kind: robot, owners: ['group:b']}}\n",
            "2:20: kind: 'robot'",
        ),
        ("identities", "version: 1\nagents: {a: {kind: assistant, owners: []}}\n", "2:39: owners: is empty"),
        ("identities", "version: 1\nblocked: [alice]\n", "2:11: blocked: 'alice' should be user:NAME"),
        (
            "servers",
            "version: 1\nservers: [{id: a, url: https://h.example/, pins: {}}]\n",
            "2:44: 'pins' is not",
        ),
        (
            "servers",
            "version: 1\nservers: [{id: a, url: https://h.example/, expose: []}]\n",
            "2:44: 'expose' is",
        ),
        (
            "servers",
            "version: 1\nservers: [{id: a, labels: {x: true}, url: https://h.example/}]\n",
            "2:31: x: should",
        ),
    ],
)
def test_the_other_files_too(tmp_path: Path, name: str, text: str, problem: str) -> None:
    found = [p for p in faults(tmp_path, **{name: text}) if p.file == f"{name}.yaml"]
    assert f"{found[0].line}:{found[0].column}: {found[0].message}".startswith(problem)


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    policy = rules(
        "  - {id: a, effect: alow}\n  - {id: b, effect: deny, tool: [x]}\n  - {id: c, effect: allow}\n"
    )
    servers = "version: 1\nservers: [{id: a}]\n"
    assert told(faults(tmp_path, policy=policy, servers=servers)) == [
        "servers.yaml:2:11: 'url' is missing",
        "policy.yaml:3:21: rule 'a': unknown effect 'alow'",
        "policy.yaml:4:27: rule 'b': unknown key 'tool'",
        "policy.yaml:5:5: rule 'c': 'who' is missing",
    ]


def test_what_comes_later_is_no_key_of_today() -> None:
    today = set(PolicyFile.model_json_schema()["properties"])
    for definition in PolicyFile.model_json_schema()["$defs"].values():
        today |= set(definition.get("properties", {}))
    assert NOT_YET["policy.yaml"].isdisjoint(today)


SECRET = "hunter2-correct-horse"


@pytest.mark.parametrize(
    "text",
    [
        "source: {value: %s}",
        "source: {env: %s}",
        "source: {env: 5, file: [%s]}",
        "source: %s",
        "inject: {%s: {}}",
        "inject: {bearer: {token: %s}}",
        "inject: {header: {name: '%s x', format: y}}",
        "source: {systemd: %s/x}",
        "source: {exec: %s}",
        "source: {exec: [./%s]}",
        "source: {vault: {url: %s, mount: a, path: b, field: c, auth: token}}",
        "source: {vault: {url: 'https://%s@v.example', mount: '%s//', path: b, field: c, auth: jwt, role_id: %s}}",
        "source: {aws: {secret_id: '%s x', endpoint: 'http://%s.example/'}}",
        "inject: {replace: {place: '%s'}}",
        "inject: {replace: {place: 'query:%s=x'}}",
        "inject: {oauth_client_credentials: {token_url: 'http://%s.example', client_id: '%s x', client_secret: %s}}",
        "inject: {oauth_refresh_token: {token_url: 'https://l.example', client_id: c, client_secret: %s}}",
        "inject: {token_exchange: {token_url: 'https://l.example', client_id: c, resource: %s}}",
        "inject: {cookie: {name: '%s; x'}}",
        "bind: {hosts: ['%s x']}",
        "bind: {methods: [%s]}",
        "bind: {paths: [%s]}",
        "%s: x",
        "secret: %s",
    ],
)
def test_what_stands_in_credentials_is_never_shown(tmp_path: Path, text: str) -> None:
    parts = {
        "source": "source: {file: /run/x}", "inject": "inject: {bearer: {}}", "bind": "bind: {hosts: [h.example]}"
    }  # fmt: skip
    parts[text.split(":")[0]] = text.replace("%s", SECRET)
    entry = "\n    ".join(["id: c", *parts.values()])
    found = faults(tmp_path, credentials=f"version: 1\ncredentials:\n  - {entry}\n")
    assert found
    assert SECRET not in "\n".join(map(str, found))
