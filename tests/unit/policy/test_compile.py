"""policy.yaml against the other files: every name in it exists, and nothing in it is ignored."""

from __future__ import annotations

from pathlib import Path

import pytest

from callerid.policy.rules import Effect, OnAgent, OnArgument, OnAssurance, OnHours, Weight
from tests.unit.policy.house import faults, load, rules, told


def rule(text: str, head: str = "") -> str:
    return rules(f"  - {{id: r, {text}}}\n", head)


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ("effect: deny, who: ['group:enginering']", "rule 'r': unknown group 'enginering'", "'engineering'"),
        ("effect: deny, who: ['agent:clade-code']", "rule 'r': unknown agent 'clade-code'", "'claude-code'"),
        ("effect: deny, agent: [clade-code]", "rule 'r': unknown agent 'clade-code'", "'claude-code'"),
        ("effect: deny, servers: [fils]", "rule 'r': unknown server 'fils'", "'files'"),
        (
            "effect: deny, servers: ['label:env=prd']",
            "rule 'r': no server has the 'label:env=prd'",
            "env=prod",
        ),
        ("effect: deny, servers: ['label:team=x']", "rule 'r': no server has the 'label:team=x'", ""),
        ("effect: deny, tools: ['set:x']", "rule 'r': unknown set 'x'", "under sets"),
        ("effect: deny, except_tools: ['set:x']", "rule 'r': unknown set 'x'", "under sets"),
        ("effect: deny, tools: ['class:write']", "rule 'r': class: selectors are not supported yet", "guard"),
        (
            "effect: deny, except_tools: ['class:write']",
            "rule 'r': class: selectors are not supported",
            "guard",
        ),
        ("effect: deny, tools: ['promt:x']", "rule 'r': unknown kind of selector 'promt:'", "prompt:"),
        ("effect: deny, tools: ['method:a/*']", "rule 'r': method: takes an exact method", "one by one"),
        (
            "effect: allow, who: ['agent:claude-code']",
            "rule 'r': an allow cannot be given to an agent",
            "narrow",
        ),
        ("effect: allow, who: [anyone, 'agent:claude-code']", "rule 'r': an allow cannot be given", "narrow"),
        ("effect: deny, assurance: idp", "rule 'r': on a deny, assurance would refuse", "effect: require"),
        (
            "effect: deny, hours: {from: '08:00', to: '08:00'}",
            "rule 'r': hours from and to span nothing",
            "24:00",
        ),
        ("effect: deny, hours: {from: '24:00', to: '08:00'}", "rule 'r': hours from and to span nothing", ""),
        ("effect: deny, args: {a: {}}", "rule 'r': args 'a': nothing is asked of it", ""),
        ("effect: deny, args: {a: {regex: '('}}", "rule 'r': args 'a': RE2 does not take it", ""),
        ("effect: deny, args: {'/a~': {le: 1}}", "rule 'r': args '/a~': in a JSON pointer", ""),
    ],
)
def test_a_name_that_does_not_exist_is_an_error(tmp_path: Path, text: str, problem: str, hint: str) -> None:
    (found,) = faults(tmp_path, policy=rule(text))
    assert found.message.startswith(problem)
    assert hint in found.hint
    assert found.line == 3


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ("version: 1\ntimezone: Mars/X\nrules: []\n", "policy.yaml:2:11: unknown timezone 'Mars/X'"),
        ("version: 1\ntimezone: ../x\nrules: []\n", "policy.yaml:2:11: unknown timezone '../x'"),
        ("version: 1\nsets: {a: ['set:b']}\nrules: []\n", "policy.yaml:2:12: a set cannot be used here"),
        ("version: 1\nsets: {a: ['class:b']}\nrules: []\n",
         "policy.yaml:2:12: class: selectors are not supported yet"),
        (rules("  - {id: a, effect: deny}\n  - {id: a, effect: deny}\n"),
         "policy.yaml:4:10: duplicate id 'a' (first at line 3)"),
        (rules("  - {id: no_grant, effect: deny}\n"),
         "policy.yaml:3:10: rule 'no_grant': the id 'no_grant' is reserved"),
    ],
)  # fmt: skip
def test_faults_of_the_file(tmp_path: Path, policy: str, problem: str) -> None:
    assert told(faults(tmp_path, policy=policy)) == [problem]


def test_what_rules_become(tmp_path: Path) -> None:
    policy = rules(
        """\
  - id: full
    effect: require
    who: ["group:engineering", "agent:claude-code"]
    servers: [sandbox, "label:team=eng"]
    tools: ["read_*", "set:s"]
    except_tools: [read_secret]
    assurance: idp
    agent: [claude-code]
    hours: {from: "08:00", to: "18:00"}
    args: {a: {le: 1}, /b/c: {eq: x}}
    reason: Because.
  - {id: soft, effect: deny}
  - {id: trial, effect: deny, mode: monitor}
  - {id: firm, effect: deny, mode: enforce}
""",
        head="mode: monitor\nsets: {s: [x]}\n",
    )
    full, soft, trial, firm = load(tmp_path, policy=policy).engine.rules
    assert (full.effect, full.say, full.line) == (Effect.REQUIRE, "Because.", 5)
    assert full.servers == {"sandbox", "github"}
    assert [type(predicate) for predicate in full.predicates] == [
        OnAssurance, OnAgent, OnHours, OnArgument, OnArgument
    ]  # fmt: skip
    assert [rule.weight for rule in (full, soft, trial, firm)] == [
        Weight.SOFT, Weight.SOFT, Weight.TRIAL, Weight.FIRM
    ]  # fmt: skip
    assert not full.scope_only
    assert soft.scope_only
