"""The story of the demo, act by act: what is done, in order. How it looks is in ``show``."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from callerid.cli.demo.cast import (
    ACTS,
    AFTER_REVOCATION,
    ALLOWED,
    AS_THE_MODEL_READS_IT,
    BEFORE_REVOCATION,
    REFUSED,
    Act,
)
from callerid.cli.demo.checks import Check, Evidence, judge
from callerid.cli.demo.processes import Child
from callerid.cli.demo.stage import Stage


class Teller(Protocol):
    """Who tells the story while it happens."""

    def setting(self, stage: Stage) -> None: ...
    def callers(self, stage: Stage) -> None: ...
    def heading(self, text: str) -> None: ...
    def act(self, act: Act, answer: Mapping[str, Any]) -> None: ...
    def tools(self, everything: list[str], shown: list[str]) -> None: ...
    def command(self, text: str) -> None: ...
    def refusal(self, act: Act, answer: Mapping[str, Any]) -> None: ...
    def seen(self, seen: Mapping[str, list[dict[str, Any]]]) -> None: ...
    def audit(self, rows: list[dict[str, Any]], command: str) -> None: ...
    def explained(self, command: str, output: str) -> None: ...
    def checks(self, checks: tuple[Check, ...], seconds: float) -> None: ...


@dataclass(slots=True)
class Played:
    """What came out: rows of the audit, the checks, and how long it took."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(check.ok for check in self.checks)


def play(stage: Stage, teller: Teller) -> Played:
    """Play the whole story on a stage that is not open yet; the caller closes it.

    Raises:
        DemoFailed: a process did not start, ended early, or did not answer in time.
    """
    began = time.monotonic()
    stage.open()
    teller.setting(stage)
    clients = {name: stage.start_client(name) for name in ("alice", "bob", "ci", "intruder", "laptop")}
    for client in clients.values():
        client.hear_line('{"ready"', "its start")
    teller.callers(stage)
    answers, ci_tools = _calls(stage, teller, clients)
    rows = stage.rows(len(ACTS))
    seen = stage.seen()
    teller.seen(seen)
    command, reproduced = stage.query()
    teller.audit(rows, command)
    act = AS_THE_MODEL_READS_IT
    how, explained, code = stage.explain(act.server, act.tool, json.dumps(act.arguments))
    teller.explained(how, explained)
    checks = judge(
        ACTS,
        Evidence(
            rows=rows,
            seen=seen,
            answers=answers,
            ci_tools=ci_tools,
            written=stage.written(),
            personal=(stage.token.text, stage.laptop.text, stage.jwt),
            shared=tuple(stage.shared.values()),
            explained=explained,
            explained_code=code,
            reproduced=reproduced,
        ),
    )
    seconds = time.monotonic() - began
    teller.checks(checks, seconds)
    return Played(rows, checks, seconds)


def _calls(
    stage: Stage, teller: Teller, clients: Mapping[str, Child]
) -> tuple[list[tuple[Act, Mapping[str, Any]]], list[str]]:
    """All calls of the cast, in the order of ACTS."""
    answers: list[tuple[Act, Mapping[str, Any]]] = []

    def perform(act: Act) -> Mapping[str, Any]:
        step = {"do": "call", "server": act.server, "tool": act.tool, "arguments": act.arguments}
        answer = clients[act.client].ask(step)
        answers.append((act, answer))
        return answer

    teller.heading("What the rules allow")
    for act in ALLOWED:
        teller.act(act, perform(act))
    listing = {"do": "list", "server": "tickets"}
    everything = clients["alice"].ask(listing).get("tools", [])
    ci_tools = clients["ci"].ask(listing).get("tools", [])
    teller.tools(everything, ci_tools)

    teller.heading("What they refuse")
    for act in REFUSED:
        teller.act(act, perform(act))
    teller.heading("Revocation: Alice's laptop is lost")
    teller.act(BEFORE_REVOCATION, perform(BEFORE_REVOCATION))
    stage.revoke(stage.laptop)
    teller.command(f"callerid revoke {stage.laptop.id}")
    teller.act(AFTER_REVOCATION, perform(AFTER_REVOCATION))
    told = next(answer for act, answer in answers if act is AS_THE_MODEL_READS_IT)
    teller.refusal(AS_THE_MODEL_READS_IT, told)
    return answers, ci_tools
