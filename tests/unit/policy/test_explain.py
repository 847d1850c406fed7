"""explain: everybody's say, the decider and its place; types of values, never the values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callerid.model import Ceiling, Kind, Reason
from callerid.policy.explain import Explanation, PredicateSay
from tests.unit.policy.house import NOW, World, rules, world

POLICY = rules("""\
  - {id: eng, effect: allow, who: ["group:engineering"], servers: [files]}
  - id: team
    effect: require
    servers: [files]
    tools: ["*_file"]
    args: {path: {under: /srv/team}, size: {le: 5}}
  - {id: other, effect: deny, servers: [github]}
  - {id: trial, effect: deny, mode: monitor, tools: [read_file], agent: [claude-code]}
""")


@pytest.fixture
def made(tmp_path: Path) -> World:
    return world(tmp_path, POLICY)


def explain(made: World, name: str | None, arguments: dict[str, Any], **extra: Any) -> Explanation:
    kind = extra.pop("kind", Kind.TOOL)
    return made.engine.explain(
        caller=made.caller("alice", **extra), server=made.servers["files"], kind=kind, method="m", name=name,
        arguments=arguments, now=NOW,
    )  # fmt: skip


def test_every_rule_has_its_say_and_one_decides(made: World) -> None:
    said = explain(made, "read_file", {"path": "/etc/passwd-of-alice", "size": 7.5})
    assert said.decision == made.ask("alice", "files", "read_file", {"path": "/etc/x", "size": 7.5})
    assert [say.rule for say in said.rules] == ["eng", "team", "other", "trial"]
    assert said.decider is not None
    assert (said.decider.rule, said.decider.file, said.decider.line) == ("team", "policy.yaml", 4)
    eng, team, other, trial = said.rules
    assert (eng.in_scope, eng.strikes, eng.decides) == (True, True, False)
    assert (team.in_scope, team.strikes, team.decides) == (True, True, True)
    assert (other.who, other.servers, other.tools, other.strikes) == (True, False, True, False)
    assert (trial.mode, trial.strikes) == ("monitor", True)
    assert team.predicates == (
        PredicateSay(name="args path", answer="false", seen="string"),
        PredicateSay(name="args size", answer="false", seen="number"),
    )
    assert trial.predicates == (PredicateSay(name="agent", answer="unknown", seen="no agent"),)
    assert "passwd" not in repr(said)
    assert "7.5" not in repr(said)


def test_an_absent_argument_is_called_absent(made: World) -> None:
    (path, size) = explain(made, "read_file", {"size": 1}).rules[1].predicates
    assert (path.answer, path.seen) == ("unknown", "absent")
    assert (size.answer, size.seen) == ("true", "integer")


def test_what_only_monitor_mode_let_pass_names_the_rule(made: World) -> None:
    said = explain(made, "read_file", {"path": "/srv/team/a", "size": 1}, agent="claude-code")
    assert said.decision.reason is Reason.MONITORED
    assert said.decision.would_rule == "trial"
    assert said.decider is not None
    assert said.decider.rule == "eng"


def test_a_ceiling_has_its_say(made: World) -> None:
    ceiling = Ceiling(origin="token:t", tools=("write_*",))
    said = explain(made, "read_file", {}, ceilings=(ceiling,))
    assert [(say.origin, say.covers) for say in said.ceilings] == [("token:t", False)]
    assert said.decision.reason is Reason.OUTSIDE_SCOPE
    assert said.decider is None


def test_a_protocol_message(made: World) -> None:
    said = explain(made, None, {}, kind=Kind.PROTOCOL)
    assert said.decision.reason is Reason.PROTOCOL
    assert [say.in_scope for say in said.rules] == [True, False, False, False]


def test_a_name_that_cannot_be_matched_is_in_no_scope(made: World) -> None:
    said = explain(made, "", {})
    assert said.decision.reason is Reason.NO_GRANT
    assert not any(say.in_scope for say in said.rules)
