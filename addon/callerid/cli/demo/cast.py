"""Who does what in the demo, and which row each call must leave. The only place that expects anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ALICE = "user:alice@corp.example"
BOB = "user:bob@corp.example"
CI = "workload:ci-docs"
NOBODY = "anonymous"
AGENT = "claude-code"
AGENT_URI = f"spiffe://corp.example/agent/{AGENT}"
SUB_AGENT = "researcher"
DESK = "callerid"
"""What the audit calls callerid itself, where it is asked something."""

SUB_SERVERS, SUB_TOOLS, SUB_TTL = ("tickets",), ("search_*", "read_*"), "5m"
"""What Alice's agent leaves to its sub-agent of what it may do itself, and for how long."""

CI_TOOLS = ("search_tickets", "read_ticket")
"""What the CI job must see of the ticket system's tools."""

COLUMNS = ("principal", "agent", "server", "tool", "verdict", "reason", "rule")
QUERY = f"select {', '.join(COLUMNS)} from calls where tool is not null order by seq"  # noqa: S608 -- constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One tool call of one client, or its question to callerid itself, and the row that it must leave.

    ``actors`` is the chain of agents in the row, the current one first; empty where it is one agent.
    ``claimed`` is whom refused evidence named: such a caller is anonymous.
    """

    client: str
    server: str
    tool: str
    arguments: Mapping[str, Any]
    principal: str
    agent: str | None
    verdict: str
    reason: str
    rule: str | None = None
    actors: tuple[str, ...] = ()
    claimed: str | None = None

    @property
    def allowed(self) -> bool:
        return self.verdict == "allow"

    @property
    def arrives(self) -> bool:
        """True if the server gets to see it."""
        return self.allowed and self.server != DESK

    def chain(self) -> tuple[str, ...]:
        """Who acts for the principal, the current one first."""
        return self.actors or (() if self.agent is None else (self.agent,))

    def row(self) -> tuple[str | None, ...]:
        """The expected values of COLUMNS."""
        return (self.principal, self.agent, self.server, self.tool, self.verdict, self.reason, self.rule)

    def call(self) -> str:
        """The call as one would write it."""
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.server}.{self.tool}({given})"


def _act(
    client: str,
    who: tuple[str, str | None],
    place: str,
    arguments: Mapping[str, Any],
    verdict: str,
    reason: str,
    rule: str | None = None,
    actors: tuple[str, ...] = (),
    claimed: str | None = None,
) -> Act:
    server, _, tool = place.partition(".")
    return Act(
        client=client,
        principal=who[0],
        agent=who[1],
        server=server,
        tool=tool,
        arguments=arguments,
        verdict=verdict,
        reason=reason,
        rule=rule,
        actors=actors,
        claimed=claimed,
    )


def _orders(limit: int) -> dict[str, Any]:
    return {"sql": "select * from orders", "limit": limit}


_ALICE = (ALICE, AGENT)
_RESEARCHER = (ALICE, SUB_AGENT)
_CHAIN = (SUB_AGENT, AGENT)
_BOB = (BOB, AGENT)
_CI = (CI, None)
_NOBODY = (NOBODY, None)
_ENGINEERING = ("allow", "granted", "engineering")
_CI_READS = ("allow", "granted", "ci-reads-tickets")
_CUSTOMERS = ("deny", "rule_denied", "customers-stay-in")
_CEILING = ("deny", "requirement_failed", "query-ceiling")
_DESTRUCTION = ("deny", "rule_denied", "no-destruction")
_ASKED = {"agent": SUB_AGENT, "ttl": SUB_TTL, "servers": list(SUB_SERVERS), "tools": list(SUB_TOOLS)}

ALLOWED = (
    _act("alice", _ALICE, "tickets.search_tickets", {"text": "fire"}, *_ENGINEERING),
    _act("alice", _ALICE, "warehouse.query", _orders(100), *_ENGINEERING),
    _act("bob", _BOB, "warehouse.query", _orders(1000), *_ENGINEERING),
    _act("ci", _CI, "tickets.read_ticket", {"id": "T-2"}, *_CI_READS),
)
REFUSED = (
    _act("alice", _ALICE, "warehouse.export_rows", {"table": "customers_eu"}, *_CUSTOMERS),
    _act("alice", _ALICE, "warehouse.query", _orders(50_000), *_CEILING),
    _act("bob", _BOB, "warehouse.drop_table", {"name": "orders"}, *_DESTRUCTION),
    _act("ci", _CI, "tickets.close_ticket", {"id": "T-2"}, "deny", "no_grant"),
    _act("intruder", _NOBODY, "tickets.read_ticket", {"id": "T-1"}, "deny", "no_evidence"),
)
DERIVATION = _act("alice", _ALICE, f"{DESK}.POST /derive", _ASKED, "allow", "answered_here")
DERIVED = (
    _act("researcher", _RESEARCHER, "tickets.read_ticket", {"id": "T-1"}, *_ENGINEERING, _CHAIN),
    _act(
        "researcher", _RESEARCHER, "tickets.close_ticket", {"id": "T-1"},
        "deny", "outside_scope", None, _CHAIN,
    ),
)  # fmt: skip
"""Both of them Alice herself may do."""
BEFORE_REVOCATION = _act("laptop", _ALICE, "warehouse.query", _orders(10), *_ENGINEERING)
AFTER_REVOCATION = _act(
    "laptop", _NOBODY, "warehouse.query", _orders(10), "deny", "token_revoked", claimed=ALICE
)

BLOCKED = (
    _act("bob", _BOB, "warehouse.query", _orders(10), "deny", "principal_blocked"),
    _act("bob-cli", _BOB, "warehouse.query", _orders(10), "deny", "principal_blocked"),
)
"""With his certificate, and with a token that he was issued."""
AFTER_BLOCK = _act("alice", _ALICE, "warehouse.query", _orders(10), *_ENGINEERING)

AS_THE_MODEL_READS_IT = REFUSED[0]
"""Its refusal is shown in full, and explained."""

ACTS = (
    *ALLOWED, *REFUSED, DERIVATION, *DERIVED, BEFORE_REVOCATION, AFTER_REVOCATION, *BLOCKED, AFTER_BLOCK,
)  # fmt: skip
"""All tool calls of the demo, in the order in which they happen."""
