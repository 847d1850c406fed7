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

CI_TOOLS = ("search_tickets", "read_ticket")
"""What the CI job must see of the ticket system's tools."""

COLUMNS = ("principal", "agent", "server", "tool", "verdict", "reason", "rule")
QUERY = f"select {', '.join(COLUMNS)} from calls where method = 'tools/call' order by seq"  # noqa: S608 -- constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One tool call of one client, and the row that it must leave."""

    client: str
    server: str
    tool: str
    arguments: Mapping[str, Any]
    principal: str
    agent: str | None
    verdict: str
    reason: str
    rule: str | None = None

    @property
    def allowed(self) -> bool:
        return self.verdict == "allow"

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
    )


def _orders(limit: int) -> dict[str, Any]:
    return {"sql": "select * from orders", "limit": limit}


_ALICE = (ALICE, AGENT)
_BOB = (BOB, AGENT)
_CI = (CI, None)
_NOBODY = (NOBODY, None)
_ENGINEERING = ("allow", "granted", "engineering")
_CI_READS = ("allow", "granted", "ci-reads-tickets")
_CUSTOMERS = ("deny", "rule_denied", "customers-stay-in")
_CEILING = ("deny", "requirement_failed", "query-ceiling")
_DESTRUCTION = ("deny", "rule_denied", "no-destruction")

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
BEFORE_REVOCATION = _act("laptop", _ALICE, "warehouse.query", _orders(10), *_ENGINEERING)
AFTER_REVOCATION = _act("laptop", _NOBODY, "warehouse.query", _orders(10), "deny", "token_revoked")

AS_THE_MODEL_READS_IT = REFUSED[0]
"""Its refusal is shown in full, and explained."""

ACTS = (*ALLOWED, *REFUSED, BEFORE_REVOCATION, AFTER_REVOCATION)
"""All tool calls of the demo, in the order in which they happen."""
