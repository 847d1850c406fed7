"""The story of the demo, act by act: what is done, in order. How it looks is in ``show``."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from callerid.cli.demo.cast import (
    ACTS,
    AFTER_BLOCK,
    AFTER_REVOCATION,
    ALLOWED,
    AS_THE_MODEL_READS_IT,
    BEFORE_REVOCATION,
    BLOCKED,
    BOB,
    DERIVED,
    REFUSED,
    Act,
)
from callerid.cli.demo.checks import Check, Evidence, judge
from callerid.cli.demo.processes import Child
from callerid.cli.demo.stage import TOLD, Stage, Token

AT_ONCE, MEANWHILE = ("alice", "bob", "ci", "intruder"), ("laptop", "bob-cli")
"""The clients that start before the first call, and those that start while the first ones call."""


class Teller(Protocol):
    """Who tells the story while it happens."""

    def setting(self, stage: Stage) -> None: ...
    def callers(self, stage: Stage) -> None: ...
    def heading(self, text: str) -> None: ...
    def act(self, act: Act, answer: Mapping[str, Any]) -> None: ...
    def tools(self, everything: list[str], shown: list[str]) -> None: ...
    def command(self, text: str) -> None: ...
    def derived(self, command: str, token: Token) -> None: ...
    def blocked(self, command: str, said: Mapping[str, Any]) -> None: ...
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
    scenes = Scenes(stage, teller)
    teller.callers(stage)
    scenes.play()
    rows = stage.rows(len(ACTS))
    seen = stage.seen()
    teller.seen(seen)
    command, reproduced = stage.query()
    teller.audit(rows, command)
    act = AS_THE_MODEL_READS_IT
    how, explained, code = stage.explain(act.server, act.tool, json.dumps(act.arguments))
    teller.explained(how, explained)
    tokens = (stage.token, stage.laptop, stage.bobs, stage.derived)
    checks = judge(
        ACTS,
        Evidence(
            rows=rows,
            seen=seen,
            answers=scenes.answers,
            ci_tools=scenes.ci_tools,
            written=stage.written(),
            personal=(*(token.text for token in tokens), stage.jwt),
            shared=tuple(stage.shared.values()),
            explained=explained,
            explained_code=code,
            reproduced=reproduced,
            told=(TOLD,),
            parent=stage.token.about,
            derived=stage.derived.about,
            held=(stage.bobs.id,),
            blocked=scenes.blocked,
        ),
    )
    seconds = time.monotonic() - began
    teller.checks(checks, seconds)
    return Played(rows, checks, seconds)


class Scenes:
    """The clients, and what they do, in the order of ACTS.

    ``answers`` is what each act brought, ``ci_tools`` the list that the CI job was shown, ``blocked`` what
    ``callerid block`` said.

    Raises:
        DemoFailed: a client does not start.
    """

    def __init__(self, stage: Stage, teller: Teller) -> None:
        self._stage = stage
        self._teller = teller
        self._starting: dict[str, Child] = {}
        self._ready: dict[str, Child] = {}
        self.answers: list[tuple[Act, Mapping[str, Any]]] = []
        self.ci_tools: list[str] = []
        self.blocked: Mapping[str, Any] = {}
        self._start(*AT_ONCE)
        for name in AT_ONCE:
            self._client(name)

    def play(self) -> None:
        """All calls of the cast.

        Raises:
            DemoFailed: as ``story.play``.
        """
        self._rules()
        self._sub_agent()
        self._revocation()
        self._offboarding()
        told = next(answer for act, answer in self.answers if act is AS_THE_MODEL_READS_IT)
        self._teller.refusal(AS_THE_MODEL_READS_IT, told)

    def _start(self, *names: str) -> None:
        self._starting |= {name: self._stage.start_client(name) for name in names}

    def _client(self, name: str) -> Child:
        """A client that was started, once it is ready."""
        if name not in self._ready:
            self._starting[name].hear_line('{"ready"', "its start")
            self._ready[name] = self._starting[name]
        return self._ready[name]

    def _perform(self, *acts: Act) -> None:
        for act in acts:
            step = {"do": "call", "server": act.server, "tool": act.tool, "arguments": act.arguments}
            answer = self._client(act.client).ask(step)
            self.answers.append((act, answer))
            self._teller.act(act, answer)

    def _rules(self) -> None:
        self._teller.heading("What the rules allow")
        self._perform(*ALLOWED)
        self._start(*MEANWHILE)
        listing = {"do": "list", "server": "tickets"}
        everything = self._client("alice").ask(listing).get("tools", [])
        self.ci_tools = self._client("ci").ask(listing).get("tools", [])
        self._teller.tools(everything, self.ci_tools)
        self._teller.heading("What they refuse")
        self._perform(*REFUSED)

    def _sub_agent(self) -> None:
        self._teller.heading("Alice's agent makes its sub-agent a narrower token; no administrator is asked")
        command = self._stage.derive()
        self._teller.derived(command, self._stage.derived)
        self._start("researcher")
        self._perform(*DERIVED)

    def _revocation(self) -> None:
        self._teller.heading("Revocation: Alice's laptop is lost")
        self._perform(BEFORE_REVOCATION)
        self._stage.revoke(self._stage.laptop)
        self._teller.command(f"callerid revoke {self._stage.laptop.id}")
        self._perform(AFTER_REVOCATION)

    def _offboarding(self) -> None:
        self._teller.heading("Offboarding: Bob leaves. Nobody changes a shared key")
        command, self.blocked = self._stage.block(BOB)
        self._teller.blocked(command, self.blocked)
        self._perform(*BLOCKED, AFTER_BLOCK)
