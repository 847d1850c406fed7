"""Laws of the decision that hold for every policy, caller and call."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.config import Server
from callerid.model import Assurance, Caller, Ceiling, Decision, Kind, Principal, Reason, Verdict
from callerid.policy.engine import Engine
from callerid.policy.load import load_rules

IDENTITIES = """\
version: 1
groups: {red: {members: ["user:alice"]}, blue: {members: ["user:bob"]}}
agents: {helper: {kind: assistant, owners: ["group:red"]}}
"""
SERVERS = """\
version: 1
servers:
  - {id: one, url: https://one.corp.example/, labels: {env: prod}}
  - {id: two, url: https://two.corp.example/, labels: {env: dev}}
"""
PLACES = {
    "one": Server(id="one", scheme="https", host="one.corp.example", port=443, path="/"),
    "two": Server(id="two", scheme="https", host="two.corp.example", port=443, path="/"),
}
MONDAY = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)

CONDITIONS = st.sampled_from(
    [
        {"le": 5}, {"gt": 1}, {"eq": "x"}, {"in": ["x", 3]}, {"under": "/srv"}, {"glob": "a*"},
        {"type": "array"}, {"max_length": 1}, {"regex": "[a-c]+"}, {"type": "number", "ge": 2},
    ]
)  # fmt: skip
FLAGS = st.sampled_from([{}, {"optional": True}, {"negate": True}, {"optional": True, "negate": True}])
KEYS = st.sampled_from(["a", "b", "/a/b", "/a/*", "/a/*/b"])
TOOLS = st.lists(
    st.sampled_from(["*", "read_*", "read_x", "set:s", "resource:file:///a/*", "prompt:*", "method:m/x"]),
    min_size=1,
    max_size=2,
)
NAMES = ["read_x", "write_x", "file:///a/b", "file:///a/../c", "m/x", "p"]


@st.composite
def bodies(draw: st.DrawFn, effect: str) -> dict[str, Any]:
    who = ["group:red", "group:blue", "user:alice", "anyone"] + (
        ["agent:helper"] if effect != "allow" else []
    )
    rule: dict[str, Any] = {"effect": effect}
    if effect == "allow" or draw(st.booleans()):
        rule["who"] = draw(st.lists(st.sampled_from(who), min_size=1, max_size=2))
    if draw(st.booleans()):
        rule["servers"] = draw(
            st.lists(st.sampled_from(["one", "two", "label:env=prod"]), min_size=1, max_size=2)
        )
    if draw(st.booleans()):
        rule["tools"] = draw(TOOLS)
    if draw(st.integers(0, 3)) == 0:
        rule["except_tools"] = draw(TOOLS)
    if draw(st.booleans()):
        condition = st.builds(lambda one, flags: {**one, **flags}, CONDITIONS, FLAGS)
        rule["args"] = draw(st.dictionaries(KEYS, condition, min_size=1, max_size=2))
    if draw(st.integers(0, 4)) == 0:
        rule["hours"] = {"from": "08:00", "to": "18:00", "days": ["mon", "tue"]}
    if effect != "deny" and draw(st.integers(0, 4)) == 0:
        rule["assurance"] = draw(st.sampled_from(["bearer", "idp", "bound"]))
    if draw(st.integers(0, 4)) == 0:
        rule["agent"] = ["helper"]
    return rule


ALLOWS = bodies("allow")
GUARDS = bodies("deny") | bodies("require")
RULES = st.lists(ALLOWS, max_size=3).flatmap(
    lambda allows: st.lists(GUARDS, max_size=3).map(lambda guards: allows + guards)
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats()
    | st.sampled_from(["x", "a", "/srv/a", "/srv/../b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab*"), inner, max_size=2),
    max_leaves=5,
)
ARGUMENTS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)
CEILINGS = st.lists(
    st.builds(
        Ceiling,
        origin=st.just("token:t"),
        servers=st.none() | st.just(("one",)),
        tools=st.none() | st.sampled_from([("read_*",), ("*", "resource:*")]),
    ),
    max_size=1,
).map(tuple)
CALLERS = st.builds(
    lambda name, group, agent, level, ceilings: Caller(
        principal=Principal(name, "local"), agent=agent, actors=(), evidence=(), assurance=level,
        assurance_name="t", credential_id="t", groups=frozenset(group), ceilings=ceilings,
    ),
    st.sampled_from(["user:alice", "user:bob", "workload:w"]),
    st.sets(st.sampled_from(["red", "blue"])),
    st.sampled_from([None, "helper", "other"]),
    st.sampled_from(list(Assurance)),
    CEILINGS,
)  # fmt: skip
CALLS = st.fixed_dictionaries(
    {
        "caller": CALLERS,
        "server": st.sampled_from(list(PLACES.values())),
        "kind": st.sampled_from(list(Kind)),
        "method": st.sampled_from(["m/x", "tools/call"]),
        "name": st.sampled_from(NAMES),
        "arguments": ARGUMENTS,
        "now": st.integers(0, 14 * 24).map(lambda hours: MONDAY + timedelta(hours=hours)),
    }
)


def engine(rules: list[dict[str, Any]], mode: str = "enforce") -> Engine:
    named = [{"id": f"r{at}", **rule} for at, rule in enumerate(rules)]
    return named_engine(named, mode)


def named_engine(named: list[dict[str, Any]], mode: str = "enforce") -> Engine:
    """The rules go through the files: JSON is YAML."""
    policy = {"version": 1, "mode": mode, "sets": {"s": ["write_*", "resource:file:///a/b"]}, "rules": named}
    with TemporaryDirectory() as folder:
        for name, text in {
            "identities": IDENTITIES,
            "servers": SERVERS,
            "credentials": "version: 1\n",
            "policy": json.dumps(policy),
        }.items():
            (Path(folder) / f"{name}.yaml").write_text(text)
        return load_rules(Path(folder)).engine


def decide(made: Engine, call: Mapping[str, Any]) -> Decision:
    return made.decide(**call)


def allowed(made: Engine, call: Mapping[str, Any]) -> bool:
    return decide(made, call).verdict is Verdict.ALLOW


@settings(max_examples=150, deadline=None)
@given(RULES, GUARDS, st.integers(0, 6), st.lists(CALLS, min_size=1, max_size=6))
def test_adding_a_guard_never_widens(
    rules: list[dict[str, Any]], guard: dict[str, Any], at: int, calls: list[dict[str, Any]]
) -> None:
    before = engine(rules)
    after = engine([*rules[:at], guard, *rules[at:]])
    for call in calls:
        if allowed(after, call):
            assert allowed(before, call)


@settings(max_examples=150, deadline=None)
@given(RULES, st.randoms(use_true_random=False), st.lists(CALLS, min_size=1, max_size=6))
def test_the_order_of_rules_means_nothing(
    rules: list[dict[str, Any]], chance: random.Random, calls: list[dict[str, Any]]
) -> None:
    named = [{"id": f"r{at}", **rule} for at, rule in enumerate(rules)]
    shuffled = list(named)
    chance.shuffle(shuffled)
    one, other = named_engine(named), named_engine(shuffled)
    for call in calls:
        a, b = decide(one, call), decide(other, call)
        assert (a.verdict, a.reason, a.hidden) == (b.verdict, b.reason, b.hidden)


@settings(max_examples=60, deadline=None)
@given(st.lists(GUARDS, max_size=3), st.lists(CALLS, min_size=1, max_size=6))
def test_without_an_allow_nothing_is_allowed(
    guards: list[dict[str, Any]], calls: list[dict[str, Any]]
) -> None:
    made, empty = engine(guards), engine([])
    for call in calls:
        assert not allowed(made, call)
        assert decide(empty, call).reason in (Reason.NO_GRANT, Reason.OUTSIDE_SCOPE)


@settings(max_examples=150, deadline=None)
@given(RULES, st.lists(CALLS, min_size=1, max_size=6))
def test_what_a_list_does_not_show_cannot_be_called(
    rules: list[dict[str, Any]], calls: list[dict[str, Any]]
) -> None:
    made = engine(rules)
    for call in calls:
        if call["kind"] in (Kind.PROTOCOL, Kind.METHOD):
            continue
        shown = made.visible(
            caller=call["caller"],
            server=call["server"],
            kind=call["kind"],
            name=call["name"],
            now=call["now"],
        )
        decision = decide(made, call)
        if not shown:
            assert decision.verdict is not Verdict.ALLOW
        if decision.verdict is not Verdict.ALLOW:
            assert decision.hidden is not shown


@settings(max_examples=100, deadline=None)
@given(RULES, CALLS, CEILINGS)
def test_a_ceiling_never_widens(
    rules: list[dict[str, Any]], call: dict[str, Any], more: tuple[Ceiling, ...]
) -> None:
    made = engine(rules)
    caller: Caller = call["caller"]
    narrowed = Caller(
        principal=caller.principal, agent=caller.agent, actors=(), evidence=(), assurance=caller.assurance,
        assurance_name="t", credential_id="t", groups=caller.groups, ceilings=caller.ceilings + more,
    )  # fmt: skip
    if allowed(made, call | {"caller": narrowed}):
        assert allowed(made, call)


@settings(max_examples=100, deadline=None)
@given(RULES, st.lists(CALLS, min_size=1, max_size=4))
def test_monitor_mode_refuses_only_what_no_rule_decides(
    rules: list[dict[str, Any]], calls: list[dict[str, Any]]
) -> None:
    enforced, monitored = engine(rules), engine(rules, "monitor")
    for call in calls:
        firm, soft = decide(enforced, call), decide(monitored, call)
        if firm.verdict is Verdict.ALLOW:
            assert (soft.verdict, soft.reason, soft.rule) == (firm.verdict, firm.reason, firm.rule)
        elif firm.reason is Reason.OUTSIDE_SCOPE:
            assert soft.reason is Reason.OUTSIDE_SCOPE
        else:
            assert (soft.verdict, soft.reason) == (Verdict.ALLOW, Reason.MONITORED)
            assert soft.would_rule == (firm.rule or "no_grant")


@settings(max_examples=100, deadline=None)
@given(RULES, st.lists(CALLS, min_size=1, max_size=4))
def test_explain_and_decide_agree(rules: list[dict[str, Any]], calls: list[dict[str, Any]]) -> None:
    made = engine(rules)
    for call in calls:
        said = made.explain(**call)
        assert said.decision == decide(made, call)
        deciders = [say.rule for say in said.rules if say.decides]
        assert deciders == ([] if said.decision.rule is None else [said.decision.rule])
        assert all(say.strikes for say in said.rules if say.decides)


GARBAGE = (
    st.none() | st.integers() | st.binary() | st.text() | st.lists(st.text(), max_size=2) | st.just(object())
)


@settings(max_examples=150, deadline=None)
@given(
    RULES, CALLS, st.sampled_from(["caller", "server", "kind", "method", "name", "arguments", "now"]), GARBAGE
)
def test_garbage_is_refused_and_raises_nothing(
    rules: list[dict[str, Any]], call: dict[str, Any], part: str, garbage: object
) -> None:
    made = engine(rules)
    decision = decide(made, call | {part: garbage})
    assert isinstance(decision, Decision)
    nameless = part == "name" and call["kind"] in (Kind.TOOL, Kind.RESOURCE, Kind.PROMPT)
    if part in ("caller", "server", "kind") or (nameless and not isinstance(garbage, str)):
        assert decision.verdict is not Verdict.ALLOW
    if part == "arguments" and decision.rule is not None and decision.verdict is Verdict.ALLOW:
        grant = next(rule for rule in made.rules if rule.id == decision.rule)
        assert not any(predicate.of_arguments for predicate in grant.predicates)
