# ruff: noqa: E501  (one rule or case per line reads best)
"""Decisions: the whole contract of the rules, case by case, with the reason and the rule that decided."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from callerid.config import Server
from callerid.model import Ceiling, Kind, Reason, Verdict
from tests.unit.policy.house import NOW, World, rules, world

ALLOW, DENY, ERROR = Verdict.ALLOW, Verdict.DENY, Verdict.ERROR
SUNDAY = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)

CORP = """\
version: 1
timezone: Europe/Zurich
sets:
  read_tools: ["get_*", "list_*", "search_*", "read_*"]
  destructive_tools: ["delete_*", "drop_*", "purge_*"]
rules:
  - {id: eng-github, effect: allow, who: ["group:engineering"], servers: [github], tools: ["*"]}
  - {id: interns-read-only, effect: allow, who: ["group:interns"], servers: ["label:env=prod"], tools: ["set:read_tools"]}
  - {id: team-files, effect: allow, who: ["group:engineering", "group:interns"], servers: [files], tools: [read_file, write_file]}
  - {id: support-refunds, effect: allow, who: ["group:support"], servers: [payments], tools: [create_refund, get_charge]}
  - {id: ci-docs-search, effect: allow, who: ["workload:ci-docs"], servers: [github], tools: [search_code]}
  - {id: no-deletes-on-prod, effect: deny, servers: ["label:env=prod"], tools: ["set:destructive_tools"], reason: Ask for a ticket.}
  - {id: interns-write-nothing, effect: deny, who: ["group:interns"], except_tools: ["set:read_tools"]}
  - {id: files-stay-in-team, effect: require, servers: [files], tools: [read_file, write_file], args: {path: {under: /srv/team}}}
  - id: refund-ceiling
    effect: require
    servers: [payments]
    tools: [create_refund]
    args:
      amount: {type: number, gt: 0, le: 100}
      currency: {in: [EUR, CHF]}
  - id: refund-hours
    effect: require
    servers: [payments]
    tools: [create_refund]
    hours: {days: [mon, tue, wed, thu, fri], from: "08:00", to: "18:00"}
  - {id: refund-strong-identity, effect: require, servers: [payments], tools: [create_refund], assurance: idp}
  - {id: trial-long-queries, effect: deny, mode: monitor, tools: ["search_*"], args: {query: {max_length: 20, negate: true}}}
"""


@pytest.fixture(scope="module")
def corp(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("corp"), CORP)


REFUND: dict[str, Any] = {"amount": 20, "currency": "EUR"}


@pytest.mark.parametrize(
    ("who", "server", "tool", "arguments", "verdict", "reason", "rule"),
    [
        pytest.param("alice", "github", "create_issue", {"title": "x"}, ALLOW, Reason.GRANTED, "eng-github",
                     id="an engineer opens an issue"),
        pytest.param("alice", "github", "delete_repo", {}, DENY, Reason.RULE_DENIED, "no-deletes-on-prod",
                     id="nobody deletes on prod, whatever was granted"),
        pytest.param("ivy", "github", "search_code", {"query": "x"}, ALLOW, Reason.GRANTED, "interns-read-only",
                     id="an intern searches"),
        pytest.param("ivy", "github", "create_issue", {}, DENY, Reason.RULE_DENIED, "interns-write-nothing",
                     id="an intern does not write"),
        pytest.param("ivy", "files", "write_file", {"path": "/srv/team/a"}, DENY, Reason.RULE_DENIED,
                     "interns-write-nothing", id="although another rule grants it"),
        pytest.param("ivy", "files", "read_file", {"path": "/srv/team/a"}, ALLOW, Reason.GRANTED,
                     "interns-read-only", id="an intern reads a file of the team"),
        pytest.param("alice", "files", "read_file", {"path": "/srv/team/a"}, ALLOW, Reason.GRANTED, "team-files",
                     id="so does an engineer"),
        pytest.param("alice", "files", "read_file", {"path": "/srv/team/../../etc/passwd"}, DENY,
                     Reason.REQUIREMENT_FAILED, "files-stay-in-team", id="but not by climbing out"),
        pytest.param("alice", "files", "read_file", {"path": "/srv/team-secret/a"}, DENY,
                     Reason.REQUIREMENT_FAILED, "files-stay-in-team", id="nor beside the folder"),
        pytest.param("alice", "files", "read_file", {}, DENY, Reason.REQUIREMENT_FAILED, "files-stay-in-team",
                     id="nor without a path"),
        pytest.param("alice", "files", "list_files", {}, DENY, Reason.NO_GRANT, None,
                     id="what is not granted is refused"),
        pytest.param("alice", "payments", "get_charge", {}, DENY, Reason.NO_GRANT, None,
                     id="an engineer has no business with payments"),
        pytest.param("bob", "sandbox", "anything", {}, DENY, Reason.NO_GRANT, None,
                     id="a server without rules is closed"),
        pytest.param("mallory", "github", "get_repo", {}, DENY, Reason.NO_GRANT, None,
                     id="somebody without a group gets nothing"),
        pytest.param("workload:ci-docs", "github", "search_code", {"query": "x"}, ALLOW, Reason.GRANTED,
                     "ci-docs-search", id="the CI job searches"),
        pytest.param("workload:ci-docs", "github", "get_repo", {}, DENY, Reason.NO_GRANT, None,
                     id="and does nothing else"),
        pytest.param("user:ci-docs", "github", "search_code", {"query": "x"}, DENY, Reason.NO_GRANT, None,
                     id="a person of that name is not the CI job"),
    ],
)  # fmt: skip
def test_the_sample_policy(
    corp: World,
    who: str,
    server: str,
    tool: str,
    arguments: Any,
    verdict: Verdict,
    reason: Reason,
    rule: str | None,
) -> None:
    decision = corp.ask(who, server, tool, arguments)
    assert (decision.verdict, decision.reason, decision.rule) == (verdict, reason, rule)
    assert decision.policy == corp.engine.hash


@pytest.mark.parametrize(
    ("arguments", "now", "assurance", "verdict", "rule"),
    [
        pytest.param(REFUND, NOW, "idp", ALLOW, "support-refunds", id="a small refund passes"),
        pytest.param({**REFUND, "amount": 100}, NOW, "idp", ALLOW, "support-refunds", id="up to the ceiling"),
        pytest.param({**REFUND, "amount": 100.01}, NOW, "idp", DENY, "refund-ceiling", id="not above"),
        pytest.param({**REFUND, "amount": 0}, NOW, "idp", DENY, "refund-ceiling", id="not nothing"),
        pytest.param({**REFUND, "amount": -20}, NOW, "idp", DENY, "refund-ceiling", id="not the other way round"),
        pytest.param({"currency": "EUR"}, NOW, "idp", DENY, "refund-ceiling", id="a missing amount fails closed"),
        pytest.param({"amount": 20}, NOW, "idp", DENY, "refund-ceiling", id="a missing currency too"),
        pytest.param({**REFUND, "currency": "USD"}, NOW, "idp", DENY, "refund-ceiling", id="not in dollars"),
        pytest.param({**REFUND, "amount": "20"}, NOW, "idp", DENY, "refund-ceiling", id="not as text"),
        pytest.param(REFUND, SUNDAY, "idp", DENY, "refund-hours", id="not on Sunday"),
        pytest.param(REFUND, NOW, "bearer", DENY, "refund-strong-identity", id="not with a bearer token"),
        pytest.param(REFUND, NOW, "workload", ALLOW, "support-refunds", id="workload ranks as idp"),
        pytest.param(REFUND, NOW, "bound", ALLOW, "support-refunds", id="a certificate is stronger still"),
        pytest.param({**REFUND, "amount": 500}, SUNDAY, "bearer", DENY, "refund-ceiling",
                     id="of several the first in the file is named"),
    ],
)  # fmt: skip
def test_refunds(
    corp: World, arguments: Any, now: datetime, assurance: str, verdict: Verdict, rule: str
) -> None:
    decision = corp.ask("sam", "payments", "create_refund", arguments, now=now, assurance=assurance)
    assert (decision.verdict, decision.rule) == (verdict, rule)
    if verdict is DENY:
        assert decision.reason is Reason.REQUIREMENT_FAILED


# -- the table of rules that fail open elsewhere: allow everything, refuse an amount above 100

OPEN_ELSEWHERE = {
    "500": {"amount": 500},
    "absent": {},
    "text 500": {"amount": "500"},
    "text 5": {"amount": "5"},
    "true": {"amount": True},
    "500.5": {"amount": 500.5},
    "null": {"amount": None},
    "1e30": {"amount": 1e30},
    "1e400": {"amount": math.inf},
    "NaN": {"amount": math.nan},
    "a list": {"amount": [50]},
    "an object": {"amount": {"value": 50}},
    "another case": {"Amount": 50},
    "a very long number": {"amount": 10**400},
    "false": {"amount": False},
    "empty text": {"amount": ""},
}
CEILINGS = {
    "require le": "{id: g, effect: require, tools: [pay], args: {amount: {le: 100}}}",
    "require with a type": "{id: g, effect: require, tools: [pay], args: {amount: {type: number, le: 100}}}",
    "deny gt": "{id: g, effect: deny, tools: [pay], args: {amount: {gt: 100}}}",
    "deny with a type": "{id: g, effect: deny, tools: [pay], args: {amount: {type: number, gt: 100}}}",
    "deny negated le": "{id: g, effect: deny, tools: [pay], args: {amount: {le: 100, negate: true}}}",
    "require negated gt": "{id: g, effect: require, tools: [pay], args: {amount: {gt: 100, negate: true}}}",
    "deny by pointer": '{id: g, effect: deny, tools: [pay], args: {"/amount": {gt: 100}}}',
}


@pytest.mark.parametrize("guard", CEILINGS.values(), ids=CEILINGS.keys())
@pytest.mark.parametrize("arguments", OPEN_ELSEWHERE.values(), ids=OPEN_ELSEWHERE.keys())
def test_no_guard_fails_open(tmp_path: Path, guard: str, arguments: Any) -> None:
    made = world(tmp_path, rules(f"  - {{id: all, effect: allow, who: [anyone]}}\n  - {guard}\n"))
    decision = made.ask("alice", "payments", "pay", arguments)
    assert decision.verdict is DENY
    assert decision.rule == "g"
    assert made.ask("alice", "payments", "pay", {"amount": 50}).verdict is ALLOW


@pytest.mark.parametrize("arguments", OPEN_ELSEWHERE.values(), ids=OPEN_ELSEWHERE.keys())
def test_no_grant_is_given_in_doubt(tmp_path: Path, arguments: Any) -> None:
    made = world(tmp_path, rules("  - {id: a, effect: allow, who: [anyone], args: {amount: {le: 100}}}\n"))
    assert made.ask("alice", "payments", "pay", arguments).reason is Reason.NO_GRANT
    assert made.ask("alice", "payments", "pay", {"amount": 50}).reason is Reason.GRANTED


# -- scope

SCOPE = rules("""\
  - {id: all, effect: allow, who: ["user:alice@corp.example"]}
  - {id: log, effect: allow, who: ["user:alice@corp.example"], tools: ["method:logging/setLevel"]}
  - {id: pub, effect: allow, who: ["user:bob@corp.example"], servers: [files], tools: ["resource:file:///pub/*", "prompt:s*"]}
  - {id: most, effect: allow, who: ["user:ivy@corp.example"], servers: [files], except_tools: ["write_*", "resource:file:///etc/*"]}
  - {id: etc, effect: deny, servers: [github], tools: ["resource:file:///etc/*"]}
  - {id: closed, effect: deny, who: ["user:sam@corp.example"]}
  - {id: sam, effect: allow, who: ["user:sam@corp.example"], servers: [sandbox], tools: ["method:x/y", "*"]}
""")


@pytest.fixture(scope="module")
def scope(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("scope"), SCOPE)


@pytest.mark.parametrize(
    ("who", "server", "kind", "name", "verdict", "rule"),
    [
        ("alice", "files", Kind.TOOL, "x", ALLOW, "all"),
        ("alice", "files", Kind.RESOURCE, "file:///etc/passwd", ALLOW, "all"),
        ("alice", "files", Kind.RESOURCE, "file:///a/../b", ALLOW, "all"),
        ("alice", "files", Kind.PROMPT, "x", ALLOW, "all"),
        ("alice", "files", Kind.METHOD, "logging/setLevel", ALLOW, "log"),
        ("alice", "files", Kind.METHOD, "logging/other", DENY, None),
        ("alice", "github", Kind.RESOURCE, "file:///etc/passwd", DENY, "etc"),
        ("alice", "github", Kind.RESOURCE, "file:///%65tc/passwd", DENY, "etc"),
        ("alice", "github", Kind.RESOURCE, "file:///srv/../etc/passwd", DENY, "etc"),
        ("alice", "github", Kind.RESOURCE, "file:///srv/a", ALLOW, "all"),
        ("alice", "github", Kind.TOOL, "file:///etc/passwd", ALLOW, "all"),
        ("bob", "files", Kind.RESOURCE, "file:///pub/a", ALLOW, "pub"),
        ("bob", "files", Kind.RESOURCE, "file:///pub/../etc/passwd", DENY, None),
        ("bob", "files", Kind.RESOURCE, "file:///pub/%2e%2e/etc/passwd", DENY, None),
        ("bob", "files", Kind.PROMPT, "summary", ALLOW, "pub"),
        ("bob", "files", Kind.TOOL, "summary", DENY, None),
        ("bob", "github", Kind.PROMPT, "summary", DENY, None),
        ("ivy", "files", Kind.TOOL, "read_file", ALLOW, "most"),
        ("ivy", "files", Kind.TOOL, "write_file", DENY, None),
        ("ivy", "files", Kind.RESOURCE, "file:///pub/a", ALLOW, "most"),
        ("ivy", "files", Kind.RESOURCE, "file:///etc/a", DENY, None),
        ("ivy", "files", Kind.RESOURCE, "file:///pub/../etc/a", DENY, None),
        ("ivy", "files", Kind.METHOD, "x/y", DENY, None),
        ("sam", "sandbox", Kind.TOOL, "x", DENY, "closed"),
        ("sam", "sandbox", Kind.METHOD, "x/y", DENY, "closed"),
    ],
)
def test_tools_resources_prompts_and_methods(
    scope: World, who: str, server: str, kind: Kind, name: str, verdict: Verdict, rule: str | None
) -> None:
    method = name if kind is Kind.METHOD else "m"
    decision = scope.ask(who, server, None if kind is Kind.METHOD else name, kind=kind, method=method)
    assert (decision.verdict, decision.rule) == (verdict, rule)


def test_an_address_is_the_same_in_any_case(tmp_path: Path) -> None:
    policy = rules(
        '  - {id: a, effect: allow, who: ["user:Alice@Corp.Example"]}\n'
        '  - {id: d, effect: deny, who: ["user:IVY@corp.example"]}\n'
        '  - {id: i, effect: allow, who: ["group:interns"]}\n'
    )
    identities = "version: 1\ngroups: {interns: {members: ['user:Ivy@Corp.Example']}}\n"
    made = world(tmp_path, policy, identities=identities)
    assert made.ask("alice", "files", "x").rule == "a"
    assert made.ask("ivy", "files", "x").rule == "d"


# -- agents and ceilings

AGENTS = rules("""\
  - {id: eng, effect: allow, who: ["group:engineering"]}
  - {id: no-agent-deletes, effect: deny, who: ["agent:claude-code"], tools: ["delete_*"]}
  - {id: only-by-claude, effect: require, servers: [github], tools: [push], agent: [claude-code]}
  - {id: never-by-claude, effect: deny, servers: [github], tools: [merge], agent: [claude-code]}
""")


@pytest.mark.parametrize(
    ("agent", "server", "tool", "reason", "rule"),
    [
        ("claude-code", "files", "delete_x", Reason.RULE_DENIED, "no-agent-deletes"),
        (None, "files", "delete_x", Reason.GRANTED, "eng"),
        ("refund-bot", "files", "delete_x", Reason.GRANTED, "eng"),
        ("claude-code", "github", "push", Reason.GRANTED, "eng"),
        ("refund-bot", "github", "push", Reason.REQUIREMENT_FAILED, "only-by-claude"),
        (None, "github", "push", Reason.REQUIREMENT_FAILED, "only-by-claude"),
        ("claude-code", "github", "merge", Reason.RULE_DENIED, "never-by-claude"),
        ("refund-bot", "github", "merge", Reason.GRANTED, "eng"),
        (None, "github", "merge", Reason.RULE_DENIED, "never-by-claude"),
    ],
)
def test_agents(tmp_path: Path, agent: str | None, server: str, tool: str, reason: Reason, rule: str) -> None:
    decision = world(tmp_path, AGENTS).ask("alice", server, tool, agent=agent)
    assert (decision.reason, decision.rule) == (reason, rule)


def test_an_agent_grants_nothing_beyond_its_person(tmp_path: Path) -> None:
    assert world(tmp_path, AGENTS).ask("ivy", "files", "x", agent="claude-code").reason is Reason.NO_GRANT


def ceiling(*, servers: tuple[str, ...] | None = None, tools: tuple[str, ...] | None = None) -> Ceiling:
    return Ceiling(origin="token:t", servers=servers, tools=tools)


@pytest.mark.parametrize(
    ("ceilings", "kind", "name", "inside"),
    [
        ([ceiling()], Kind.TOOL, "x", True),
        ([ceiling(servers=("files",))], Kind.TOOL, "x", True),
        ([ceiling(servers=("github",))], Kind.TOOL, "x", False),
        ([ceiling(servers=())], Kind.TOOL, "x", False),
        ([ceiling(tools=("read_*",))], Kind.TOOL, "read_file", True),
        ([ceiling(tools=("read_*",))], Kind.TOOL, "write_file", False),
        ([ceiling(tools=("read_*",))], Kind.PROMPT, "read_x", False),
        ([ceiling(tools=("*",))], Kind.RESOURCE, "file:///a", False),
        ([ceiling(tools=("resource:file:///pub/*",))], Kind.RESOURCE, "file:///pub/a", True),
        ([ceiling(tools=("resource:file:///pub/*",))], Kind.RESOURCE, "file:///pub/../etc/a", False),
        ([ceiling(tools=("set:reads",))], Kind.TOOL, "get_x", True),
        ([ceiling(tools=("set:gone",))], Kind.TOOL, "get_x", False),
        ([ceiling(tools=("class:read", "get_x"))], Kind.TOOL, "get_x", True),
        ([ceiling(tools=())], Kind.TOOL, "x", False),
        ([ceiling(tools=("*",))], Kind.METHOD, "x/y", False),
        ([ceiling(tools=("read_*",)), ceiling(tools=("*_file",))], Kind.TOOL, "read_file", True),
        ([ceiling(tools=("read_*",)), ceiling(tools=("*_file",))], Kind.TOOL, "read_page", False),
        ([ceiling(tools=("read_*",)), ceiling(servers=("github",))], Kind.TOOL, "read_file", False),
        ([ceiling(servers=("files",), tools=("x",))], Kind.PROTOCOL, None, True),
        ([ceiling(servers=("github",))], Kind.PROTOCOL, None, False),
    ],
)
@pytest.mark.parametrize("mode", ["enforce", "monitor"])
def test_ceilings_narrow_and_monitor_mode_does_not_relax_them(
    tmp_path: Path, ceilings: list[Ceiling], kind: Kind, name: str | None, inside: bool, mode: str
) -> None:
    policy = rules(
        "  - {id: all, effect: allow, who: [anyone]}\n  - {id: m, effect: allow, who: [anyone], tools: ['method:x/y']}\n",
        head=f"mode: {mode}\nsets: {{reads: ['get_*']}}\n",
    )
    made = world(tmp_path, policy)
    method = "x/y" if kind is Kind.METHOD else "m"
    decision = made.ask("alice", "files", name, kind=kind, method=method, ceilings=tuple(ceilings))
    assert decision.verdict is (ALLOW if inside else DENY)
    if not inside:
        assert decision.reason is Reason.OUTSIDE_SCOPE
        assert decision.hidden is (kind is not Kind.PROTOCOL)
        if name is not None:
            assert not made.sees("alice", "files", name, kind=kind, ceilings=tuple(ceilings))


# -- protocol messages

PROTOCOL = rules("""\
  - {id: eng, effect: allow, who: ["group:engineering"], servers: [files], tools: [read_file], args: {path: {under: /srv}}}
  - {id: ivy, effect: allow, who: ["group:interns"], servers: [files], tools: [read_file]}
  - {id: out, effect: deny, who: ["group:interns"], servers: [files], reason: Not before your first day.}
  - {id: sam, effect: allow, who: ["group:support"], servers: [payments]}
  - {id: part, effect: deny, who: ["group:support"], tools: [x]}
  - {id: hours, effect: deny, who: ["group:support"], hours: {from: "00:00", to: "24:00"}}
  - {id: but, effect: deny, who: ["group:support"], except_tools: [y]}
  - {id: trial, effect: allow, mode: monitor, who: ["workload:ci-docs"]}
""")


@pytest.mark.parametrize(
    ("who", "server", "verdict", "reason", "rule"),
    [
        pytest.param("alice", "files", ALLOW, Reason.PROTOCOL, None, id="who has a grant here"),
        pytest.param("alice", "github", DENY, Reason.NO_GRANT, None, id="not where there is none"),
        pytest.param("mallory", "files", DENY, Reason.NO_GRANT, None, id="not who has none"),
        pytest.param("ivy", "files", DENY, Reason.NO_GRANT, "out", id="not who is shut out"),
        pytest.param("sam", "payments", ALLOW, Reason.PROTOCOL, None, id="guards about less do not count"),
        pytest.param("workload:ci-docs", "files", DENY, Reason.NO_GRANT, None, id="a grant on trial is none"),
    ],
)
def test_protocol_messages_need_no_rule_of_their_own(
    tmp_path: Path, who: str, server: str, verdict: Verdict, reason: Reason, rule: str | None
) -> None:
    decision = world(tmp_path, PROTOCOL).ask(who, server, None, kind=Kind.PROTOCOL, method="initialize")
    assert (decision.verdict, decision.reason, decision.rule) == (verdict, reason, rule)
    assert decision.hidden is False


# -- monitor mode


@pytest.mark.parametrize(
    ("text", "tool", "reason", "rule", "would"),
    [
        pytest.param("{id: g, effect: deny, tools: [x]}", "x", Reason.MONITORED, "all", "g", id="a deny"),
        pytest.param("{id: g, effect: require, tools: [x], agent: [claude-code]}", "x", Reason.MONITORED, "all",
                     "g", id="a requirement"),
        pytest.param("{id: g, effect: deny, tools: [y]}", "x", Reason.GRANTED, "all", None, id="one that is silent"),
        pytest.param("{id: g, effect: deny, tools: [x], mode: enforce}", "x", Reason.RULE_DENIED, "g", None,
                     id="a rule's own enforce goes first"),
    ],
)  # fmt: skip
def test_a_file_in_monitor_mode_refuses_nothing_by_rule(
    tmp_path: Path, text: str, tool: str, reason: Reason, rule: str, would: str | None
) -> None:
    policy = rules(f"  - {{id: all, effect: allow, who: [anyone]}}\n  - {text}\n", head="mode: monitor\n")
    decision = world(tmp_path, policy).ask("alice", "files", tool)
    assert (decision.reason, decision.rule, decision.would_rule) == (reason, rule, would)
    assert decision.say is None


def test_a_file_in_monitor_mode_says_what_nobody_granted(tmp_path: Path) -> None:
    made = world(tmp_path, "version: 1\nmode: monitor\nrules: []\n")
    decision = made.ask("alice", "files", "x")
    assert (decision.verdict, decision.reason, decision.would_rule) == (ALLOW, Reason.MONITORED, "no_grant")
    protocol = made.ask("alice", "files", None, kind=Kind.PROTOCOL, method="initialize")
    assert (protocol.verdict, protocol.reason, protocol.would_rule) == (ALLOW, Reason.MONITORED, "no_grant")
    assert made.sees("alice", "files", "x")


def test_who_is_shut_out_in_monitor_mode_is_only_recorded(tmp_path: Path) -> None:
    policy = rules(
        '  - {id: a, effect: allow, who: [anyone]}\n  - {id: d, effect: deny, who: ["group:interns"]}\n',
        head="mode: monitor\n",
    )
    decision = world(tmp_path, policy).ask("ivy", "files", None, kind=Kind.PROTOCOL, method="initialize")
    assert (decision.verdict, decision.reason, decision.would_rule) == (ALLOW, Reason.MONITORED, "d")


def test_a_guard_on_trial_is_recorded_and_not_enforced(corp: World) -> None:
    short = corp.ask("alice", "github", "search_code", {"query": "x"})
    assert (short.reason, short.rule, short.would_rule) == (Reason.GRANTED, "eng-github", None)
    long = corp.ask("alice", "github", "search_code", {"query": "x" * 21})
    assert (long.reason, long.rule, long.would_rule) == (Reason.MONITORED, "eng-github", "trial-long-queries")
    absent = corp.ask("alice", "github", "search_code", {})
    assert (absent.verdict, absent.would_rule) == (ALLOW, "trial-long-queries")


def test_a_guard_on_trial_that_shuts_out_is_recorded_for_protocol_messages(tmp_path: Path) -> None:
    policy = rules("  - {id: a, effect: allow, who: [anyone]}\n  - {id: d, effect: deny, mode: monitor}\n")
    decision = world(tmp_path, policy).ask("ivy", "files", None, kind=Kind.PROTOCOL, method="initialize")
    assert (decision.verdict, decision.reason, decision.would_rule) == (ALLOW, Reason.MONITORED, "d")


def test_a_grant_on_trial_grants_nothing_and_says_that_it_would(tmp_path: Path) -> None:
    made = world(tmp_path, rules("  - {id: t, effect: allow, who: [anyone], mode: monitor}\n"))
    decision = made.ask("alice", "files", "x")
    assert (decision.verdict, decision.reason, decision.would_rule) == (DENY, Reason.NO_GRANT, "t")


# -- lists

LISTS = rules("""\
  - {id: eng, effect: allow, who: ["group:engineering"], servers: [files], args: {path: {under: /srv}}}
  - {id: late, effect: deny, servers: [files], tools: [late], hours: {from: "00:00", to: "24:00"}}
  - {id: strong, effect: require, servers: [files], tools: [strong], assurance: bound}
  - {id: small, effect: require, servers: [files], tools: [small], args: {n: {le: 1}}}
  - {id: big, effect: deny, servers: [files], tools: [big], args: {n: {gt: 1}}}
  - {id: both, effect: deny, servers: [files], tools: [both], args: {n: {gt: 1}}, hours: {from: "00:00", to: "24:00"}}
  - {id: mixed, effect: require, servers: [files], tools: [mixed], args: {n: {le: 1}}, assurance: bound}
  - {id: gone, effect: deny, servers: [files], tools: [gone]}
""")


@pytest.mark.parametrize(
    ("tool", "shown"),
    [
        pytest.param("plain", True, id="a grant with a condition on arguments could be met"),
        pytest.param("late", False, id="the hour is what it is"),
        pytest.param("strong", False, id="so is the assurance"),
        pytest.param("small", True, id="a required argument could be right"),
        pytest.param("big", True, id="a refused argument could be another"),
        pytest.param("both", True, id="with the hour as well"),
        pytest.param("mixed", False, id="but not without the assurance"),
        pytest.param("gone", False, id="what is refused in any case is not shown"),
    ],
)
def test_a_list_shows_what_some_arguments_would_allow(tmp_path: Path, tool: str, shown: bool) -> None:
    made = world(tmp_path, LISTS)
    assert made.sees("alice", "files", tool) is shown
    refused = made.ask("alice", "files", tool, {})
    assert (refused.verdict, refused.hidden) == (DENY, not shown)


def test_nobody_sees_what_nobody_granted(tmp_path: Path) -> None:
    made = world(tmp_path, LISTS)
    assert not made.sees("ivy", "files", "plain")
    assert not made.sees("alice", "github", "plain")


# -- the edges


def test_no_rules_refuse_everything(tmp_path: Path) -> None:
    made = world(tmp_path, "version: 1\nrules: []\n")
    for kind in (Kind.TOOL, Kind.RESOURCE, Kind.PROMPT, Kind.METHOD, Kind.PROTOCOL):
        assert made.ask("alice", "files", "x", kind=kind, method="x").reason is Reason.NO_GRANT


def test_a_server_that_is_not_in_the_files_is_unknown(corp: World) -> None:
    stranger = Server(id="stranger", scheme="https", host="h", port=443, path="/")
    for kind in (Kind.TOOL, Kind.PROTOCOL):
        decision = corp.engine.decide(
            caller=corp.caller("alice"),
            server=stranger,
            kind=kind,
            method="m",
            name="x",
            arguments={},
            now=NOW,
        )
        assert (decision.verdict, decision.reason) == (DENY, Reason.UNKNOWN_SERVER)


@pytest.mark.parametrize("name", [None, "", 5, "\ud800", "x" * 9000, ["x"]])
@pytest.mark.parametrize("mode", ["enforce", "monitor"])
def test_a_name_that_cannot_be_matched_is_refused(tmp_path: Path, name: Any, mode: str) -> None:
    made = world(tmp_path, rules("  - {id: a, effect: allow, who: [anyone]}\n", head=f"mode: {mode}\n"))
    decision = made.ask("alice", "files", name)
    assert (decision.verdict, decision.reason, decision.hidden) == (DENY, Reason.NO_GRANT, True)


@pytest.mark.parametrize(
    "broken",
    [
        {"caller": None},
        {"server": None},
        {"kind": None},
        {"kind": "nope"},
        {"now": None},
        {"caller": object()},
    ],
)
def test_a_fault_inside_is_a_refusal(corp: World, broken: dict[str, Any]) -> None:
    call: dict[str, Any] = {
        "caller": corp.caller("sam", assurance="idp"),
        "server": corp.servers["payments"],
        "kind": Kind.TOOL,
        "method": "tools/call",
        "name": "create_refund",
        "arguments": REFUND,
        "now": NOW,
    }
    assert corp.engine.decide(**call).verdict is ALLOW
    decision = corp.engine.decide(**(call | broken))
    assert decision.verdict is not ALLOW
    assert decision.verdict is ERROR or decision.reason is Reason.NO_GRANT
    assert decision.policy == corp.engine.hash


def test_an_exception_in_a_predicate_is_an_error_and_hides(corp: World) -> None:
    class Trap(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            raise RuntimeError(key)

    decision = corp.ask("sam", "payments", "create_refund", Trap(x=1), assurance="idp")
    assert (decision.verdict, decision.reason) == (ERROR, Reason.INTERNAL_ERROR)


def test_visible_is_false_on_any_fault(corp: World) -> None:
    broken: Any = None
    assert not corp.engine.visible(
        caller=broken, server=corp.servers["files"], kind=Kind.TOOL, name="read_file", now=NOW
    )


def test_the_reason_of_a_rule_is_told(corp: World) -> None:
    assert corp.ask("alice", "github", "delete_repo").say == "Ask for a ticket."
    assert corp.ask("alice", "github", "get_repo").say is None


def test_the_first_in_file_order_is_named_within_the_strongest_effect(tmp_path: Path) -> None:
    made = world(
        tmp_path,
        rules("""\
  - {id: r1, effect: require, tools: [x], args: {a: {le: 1}}}
  - {id: a1, effect: allow, who: [anyone]}
  - {id: d1, effect: deny, tools: [y]}
  - {id: d2, effect: deny, tools: [x]}
  - {id: d3, effect: deny}
  - {id: a2, effect: allow, who: [anyone]}
"""),
    )
    assert made.ask("alice", "files", "x").rule == "d2"
    assert made.ask("alice", "files", "y").rule == "d1"
    assert made.ask("alice", "files", "z").rule == "d3"


def test_ten_thousand_rules_about_others_are_not_looked_at(tmp_path: Path) -> None:
    shuffled = [f'  - {{id: r{n}, effect: deny, who: ["user:p{n}@corp.example"]}}\n' for n in range(1_000)]
    shuffled.append('  - {id: a, effect: allow, who: ["user:alice@corp.example"]}\n')
    random.Random(7).shuffle(shuffled)
    made = world(tmp_path, rules("".join(shuffled)))
    found = made.engine.candidates(made.caller("alice"), made.servers["files"], Kind.TOOL, "x")
    assert [rule.id for rule in (*found.denies, *found.requires, *found.allows)] == ["a"]


def test_caches_are_bounded_and_do_not_mix_callers(tmp_path: Path) -> None:
    made = world(tmp_path, rules('  - {id: a, effect: allow, who: ["group:engineering"]}\n'))
    for _ in range(2):
        assert made.ask("alice", "files", "x").verdict is ALLOW
        assert made.ask("ivy", "files", "x").verdict is DENY
        assert made.ask(made.caller("ivy", groups=frozenset({"engineering"})), "files", "x").verdict is ALLOW
        assert made.ask(made.caller("alice", groups=frozenset()), "files", "x").verdict is DENY
