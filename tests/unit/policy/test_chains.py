"""Rights along a chain of agents are the intersection: a sub-agent sheds no guard and gains no grant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from callerid.model import Reason
from tests.unit.policy.house import World, rules, world

POLICY = rules(
    """\
  - {id: all, effect: allow, who: ["group:engineering"], servers: [github], tools: [get_page]}
  - {id: trusted, effect: allow, who: ["group:engineering"], servers: [github], tools: [merge], agent: [refund-bot]}
  - {id: both, effect: allow, who: ["group:engineering"], servers: [github], tools: [comment], agent: [refund-bot, claude-code]}
  - {id: not-claude, effect: deny, who: ["agent:claude-code"], servers: [files]}
  - {id: files, effect: allow, who: ["group:engineering"], servers: [files], tools: [read_file]}
  - {id: no-bot-lists, effect: deny, servers: [github], tools: [list], agent: [claude-code]}
  - {id: lists, effect: allow, who: ["group:engineering"], servers: [github], tools: [list]}
  - {id: bots-search, effect: require, servers: [github], tools: [search], agent: [refund-bot]}
  - {id: search, effect: allow, who: ["group:engineering"], servers: [github], tools: [search]}
"""  # noqa: E501  (one rule per line reads best)
)
CLAUDE, BOT = ("claude-code",), ("refund-bot",)
BOT_OF_CLAUDE, CLAUDE_OF_BOT = ("refund-bot", "claude-code"), ("claude-code", "refund-bot")


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("chains"), POLICY)


@pytest.mark.parametrize(
    ("server", "tool", "chain", "reason"),
    [
        ("github", "get_page", BOT_OF_CLAUDE, Reason.GRANTED),
        ("github", "merge", BOT, Reason.GRANTED),
        ("github", "merge", CLAUDE, Reason.NO_GRANT),
        ("github", "merge", BOT_OF_CLAUDE, Reason.NO_GRANT),
        ("github", "merge", CLAUDE_OF_BOT, Reason.NO_GRANT),
        ("github", "comment", BOT_OF_CLAUDE, Reason.GRANTED),
        ("github", "comment", (*BOT_OF_CLAUDE, "somebody"), Reason.NO_GRANT),
        ("files", "read_file", BOT, Reason.GRANTED),
        ("files", "read_file", CLAUDE, Reason.RULE_DENIED),
        ("files", "read_file", BOT_OF_CLAUDE, Reason.RULE_DENIED),
        ("github", "list", BOT, Reason.GRANTED),
        ("github", "list", BOT_OF_CLAUDE, Reason.RULE_DENIED),
        ("github", "search", BOT, Reason.GRANTED),
        ("github", "search", BOT_OF_CLAUDE, Reason.REQUIREMENT_FAILED),
    ],
)
def test_every_agent_of_a_chain_counts(
    chains: World, server: str, tool: str, chain: tuple[str, ...], reason: Reason
) -> None:
    caller = replace(chains.caller("alice", agent=chain[0]), actors=chain)
    assert chains.ask(caller, server, tool).reason is reason


def test_the_explanation_says_the_same(chains: World, tmp_path: Path) -> None:
    caller = replace(chains.caller("alice", agent="refund-bot"), actors=BOT_OF_CLAUDE)
    assert chains.ask(caller, "files", "read_file").rule == "not-claude"
