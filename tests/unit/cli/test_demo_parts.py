"""The parts of ``callerid demo`` that decide something: its checks, its rules, its keys and its processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509

from callerid.cli.demo import cast, checks, command, pki, processes, rules
from callerid.cli.demo.checks import Evidence
from callerid.cli.demo.interrupts import Interrupted, Interrupts
from callerid.cli.demo.story import Played
from callerid.config import ClientCA
from callerid.identity.certificates import CertificateIdentity, verify_chain
from callerid.identity.client_cas import load_cas
from callerid.identity.jwt import JwtClaims, KeySet, key_from_jwk, verify
from callerid.model import Reason, Rejected
from callerid.policy.load import RuleSet, load_rules

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
SHARED = ("tickets-shared-secret", "warehouse-shared-secret")
PERSONAL = ("cid_alices", "cid_laptops", "eyJ.a.jwt")
PARENT = {
    "id": "t_of_alices_agent",
    "servers": None,
    "tools": None,
    "expires": "2026-11-23T11:00:00+00:00",
}
DERIVED = {
    "id": "t_of_the_researcher",
    "principal": cast.ALICE,
    "agent": "researcher",
    "actors": ["researcher", "claude-code"],
    "parent": PARENT["id"],
    "servers": ["tickets"],
    "tools": ["search_*", "read_*"],
    "networks": None,
    "expires": "2026-11-23T10:05:00+00:00",
}
BLOCK = {"subject": cast.BOB, "new": True, "tokens": [{"id": "t_of_bob"}], "agents": [], "groups": []}


# -- the checks ---------------------------------------------------------------------------------


def row(act: cast.Act) -> dict[str, Any]:
    return {
        **dict(zip(cast.COLUMNS, act.row(), strict=True)),
        "actors": json.dumps(act.actors, separators=(",", ":")),
        "claimed_subject": act.claimed,
        "event_id": event_id(act),
        "outcome": "ok" if act.allowed else "not_sent",
        "injected": f"{act.server}-shared@v1" if act.arrives else None,
    }


def event_id(act: cast.Act) -> str:
    return f"event-{cast.ACTS.index(act)}"


def answer(act: cast.Act) -> dict[str, Any]:
    text = "3 rows" if act.allowed else "This tool call was refused by callerid: a rule denies it."
    return {"text": text, "is_error": not act.allowed}


def record(act: cast.Act, *headers: list[str], **changes: Any) -> dict[str, Any]:
    seen = {
        "http": "POST /mcp",
        "method": "tools/call",
        "tool": act.tool,
        "shared_key": True,
        "caller": known_caller(act) if act.server == "tickets" else None,
        "headers": [["host", "localhost"], KEY[act.server], *headers],
        "query": "",
        "body": "{}",
    }
    return {**seen, **changes}


KEY = {"tickets": ["authorization", f"Bearer {SHARED[0]}"], "warehouse": ["x-api-key", SHARED[1]]}


def known_caller(act: cast.Act) -> dict[str, Any]:
    chain = list(act.actors) or ([act.agent] if act.agent else [])
    return {"principal": act.principal, "actors": chain, "decision": event_id(act)}


def good() -> Evidence:
    rows = [row(act) for act in cast.ACTS]
    seen: dict[str, list[dict[str, Any]]] = {"tickets": [], "warehouse": []}
    for act in cast.ACTS:
        if act.arrives:
            seen[act.server].append(record(act))
    act = cast.AS_THE_MODEL_READS_IT
    return Evidence(
        rows=rows,
        seen=seen,
        answers=[(act, answer(act)) for act in cast.ACTS if act is not cast.DERIVATION],
        ci_tools=cast.CI_TOOLS,
        written={"audit.db": b"rows", "proxy.log": b"callerid: listening on 127.0.0.1:1"},
        personal=PERSONAL,
        shared=SHARED,
        explained=f"> {act.rule}\ndeny: {act.reason}, by {act.rule} (policy.yaml:20)",
        explained_code=1,
        reproduced="\n".join(
            "│ " + " │ ".join(str(cell or "") for cell in act.row()) + " │" for act in cast.ACTS
        ),
        told=("tickets",),
        parent=PARENT,
        derived=DERIVED,
        held=("t_of_bob",),
        blocked=BLOCK,
    )


def failed(evidence: Evidence) -> list[str]:
    return [check.name for check in checks.judge(cast.ACTS, evidence) if not check.ok]


def change_row(number: int, **changes: Any) -> Callable[[Evidence], Evidence]:
    def changed(evidence: Evidence) -> Evidence:
        rows = [dict(row) for row in evidence.rows]
        rows[number].update(changes)
        return replace(evidence, rows=rows)

    return changed


def add_seen(server: str, entry: dict[str, Any]) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, seen={**evidence.seen, server: [*evidence.seen[server], entry]})


def change_answer(number: int, found: dict[str, Any]) -> Callable[[Evidence], Evidence]:
    def changed(evidence: Evidence) -> Evidence:
        answers = list(evidence.answers)
        answers[number] = (answers[number][0], found)
        return replace(evidence, answers=answers)

    return changed


def change_seen(server: str, number: int, **changes: Any) -> Callable[[Evidence], Evidence]:
    def changed(evidence: Evidence) -> Evidence:
        records = [dict(record) for record in evidence.seen[server]]
        records[number].update(changes)
        return replace(evidence, seen={**evidence.seen, server: records})

    return changed


def derived(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, derived={**evidence.derived, **changes})


def blocked(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, blocked={**evidence.blocked, **changes})


FIRST = "row 1: alice tickets.search_tickets allow granted"
LISTED = "the CI job's list shows only what it may call"
ARRIVED = "the servers got the allowed calls and no other"
ONLY_SHARED = "the servers saw one shared key each and no personal credential"
NO_SECRET = "no secret is in an answer, the audit or a log"
ANSWERED = "every client got its result or a refusal that it can read"
ENDED = "allowed calls name the shared credential and how they ended"
REPRODUCED = "the query that is shown gives this table"
EXPLAINED = "explain names the rule that refused"
TOLD = "the server that asked knows who called, and by which decision"
UNTOLD = "a server that did not ask is not told who calls"
NARROWER = "the sub-agent's token is narrower and ends sooner than the one it is derived from"
BLOCKED = "block says what Bob still holds"
UNCHANGED = "the shared keys are the same after the block as before"
NUMBER = {act.client + " " + act.tool: n for n, act in enumerate(cast.ACTS)}
READ, CLOSED = NUMBER["researcher read_ticket"], NUMBER["researcher close_ticket"]
LISTING = record(cast.ACTS[0], method="tools/list", tool=None)
ANOTHER = record(cast.ACTS[1], method="tools/list", tool=None)


def test_all_checks_hold_when_all_is_as_expected() -> None:
    assert failed(good()) == []


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        pytest.param(change_row(0, principal="anonymous"), [FIRST, REPRODUCED], id="another principal"),
        pytest.param(change_row(0, agent=None), [FIRST, REPRODUCED], id="the agent is missing"),
        pytest.param(change_row(0, rule="other"), [FIRST, REPRODUCED], id="another rule decided"),
        pytest.param(
            lambda e: replace(e, rows=[*e.rows, e.rows[-1]]),
            ["no other tool call is in the audit", REPRODUCED],
            id="a call nobody expected",
        ),
        pytest.param(
            lambda e: replace(e, rows=e.rows[:-1]),
            ["row 17: alice warehouse.query allow granted", UNCHANGED, REPRODUCED],
            id="the last row is missing",
        ),
        pytest.param(
            change_row(READ, actors='["researcher"]'),
            [f"row {READ + 1}: researcher tickets.read_ticket allow granted"],
            id="the chain of agents is broken",
        ),
        pytest.param(
            change_row(CLOSED, verdict="allow", reason="granted", rule="engineering"),
            [f"row {CLOSED + 1}: researcher tickets.close_ticket deny outside_scope", ENDED, REPRODUCED],
            id="the sub-agent may do what its parent may",
        ),
        pytest.param(
            change_row(-2, principal="anonymous"),
            ["row 16: bob-cli warehouse.query deny principal_blocked", REPRODUCED],
            id="the row does not say who was blocked",
        ),
        pytest.param(
            change_row(NUMBER["alice POST /derive"], injected="tickets-shared@v1"),
            [ENDED],
            id="callerid itself got a credential",
        ),
        pytest.param(change_row(0, outcome="unknown"), [ENDED], id="a call without an outcome"),
        pytest.param(change_row(0, injected=None), [ENDED], id="a call without a credential"),
        pytest.param(
            change_row(-2, injected="warehouse-shared@v1"), [ENDED], id="a refused call with a credential"
        ),
        pytest.param(
            change_row(-1, injected="warehouse-shared-2@v1"),
            [UNCHANGED, ENDED],
            id="a credential whose name begins like the right one",
        ),
        pytest.param(change_answer(0, {"error": "McpError"}), [ANSWERED], id="a broken client"),
        pytest.param(
            change_answer(0, {"text": "no such tool", "is_error": True}),
            [ANSWERED],
            id="an allowed call fails",
        ),
        pytest.param(
            change_answer(-2, {"text": "Printer", "is_error": False}),
            [ANSWERED],
            id="a refused call succeeds",
        ),
        pytest.param(
            change_answer(-2, {"text": "boom", "is_error": True}),
            [ANSWERED],
            id="a refusal that is the server's",
        ),
        pytest.param(
            change_answer(0, {"text": f"key {SHARED[0]}", "is_error": False}),
            [NO_SECRET],
            id="a client was told a shared key",
        ),
        pytest.param(
            lambda e: replace(e, ci_tools=(*cast.CI_TOOLS, "delete_ticket")),
            [LISTED],
            id="the list is not filtered",
        ),
        pytest.param(lambda e: replace(e, ci_tools=()), [LISTED], id="the list is empty"),
        pytest.param(
            add_seen("warehouse", record(cast.AFTER_REVOCATION)), [ARRIVED], id="a refused call arrived"
        ),
        pytest.param(
            add_seen("tickets", {**LISTING, "shared_key": False}),
            [ONLY_SHARED],
            id="a request without the shared key",
        ),
        pytest.param(
            add_seen("tickets", {**LISTING, "headers": [["Proxy-Authorization", "Basic x"]]}),
            [ONLY_SHARED],
            id="the proxy's header arrived",
        ),
        pytest.param(
            add_seen("tickets", {**LISTING, "headers": [["x-other", "Bearer cid_whatever"]]}),
            [ONLY_SHARED],
            id="a token arrived in a header",
        ),
        pytest.param(
            add_seen("warehouse", {**ANOTHER, "body": f"say {PERSONAL[2]}"}),
            [ONLY_SHARED],
            id="a JWT arrived in a body",
        ),
        pytest.param(
            add_seen("warehouse", {**ANOTHER, "query": "t=cid_x"}),
            [ONLY_SHARED],
            id="a token arrived in a URL",
        ),
        pytest.param(
            lambda e: replace(e, seen={"tickets": [], "warehouse": []}),
            [ARRIVED, ONLY_SHARED, TOLD, UNCHANGED],
            id="the servers saw nothing",
        ),
        pytest.param(
            change_seen("tickets", 0, caller={"fault": "0 assertions"}), [TOLD], id="no assertion came"
        ),
        pytest.param(change_seen("tickets", 0, caller=None), [TOLD], id="the server did not look"),
        pytest.param(
            change_seen("tickets", 0, caller={**known_caller(cast.ACTS[0]), "principal": cast.BOB}),
            [TOLD],
            id="the server was told somebody else",
        ),
        pytest.param(
            change_seen("tickets", 0, caller={**known_caller(cast.ACTS[0]), "decision": "event-1"}),
            [TOLD],
            id="the server was told another decision",
        ),
        pytest.param(
            change_seen("tickets", -1, caller={**known_caller(cast.ACTS[READ]), "actors": ["claude-code"]}),
            [TOLD],
            id="the server was told the agent and not the sub-agent",
        ),
        pytest.param(
            add_seen("tickets", {**LISTING, "caller": {"fault": "it is not of now"}}),
            [TOLD],
            id="another request came without a good assertion",
        ),
        pytest.param(lambda e: replace(e, told=()), [TOLD], id="no server asked"),
        pytest.param(
            add_seen("warehouse", {**ANOTHER, "headers": [["X-Callerid-Assertion", "a.b.c"]]}),
            [UNTOLD],
            id="a server was told that did not ask",
        ),
        pytest.param(lambda e: replace(e, derived={}), [NARROWER], id="nothing was derived"),
        pytest.param(derived(servers=None), [NARROWER], id="the sub-agent has every server"),
        pytest.param(derived(tools=["*"]), [NARROWER], id="the sub-agent has every tool"),
        pytest.param(derived(expires=PARENT["expires"]), [NARROWER], id="it lives as long as its parent"),
        pytest.param(derived(parent=None), [NARROWER], id="it has no parent, and outlives a revocation"),
        pytest.param(derived(principal="agent:researcher"), [NARROWER], id="it is not Alice's"),
        pytest.param(derived(actors=["researcher"]), [NARROWER], id="it does not say whose sub-agent"),
        pytest.param(lambda e: replace(e, parent={}), [NARROWER], id="nothing is known of the parent"),
        pytest.param(lambda e: replace(e, blocked={}), [BLOCKED], id="block said nothing"),
        pytest.param(blocked(subject=cast.ALICE), [BLOCKED], id="somebody else was blocked"),
        pytest.param(blocked(new=False), [BLOCKED], id="the block was there before"),
        pytest.param(blocked(tokens=[]), [BLOCKED], id="block does not list his token"),
        pytest.param(
            lambda e: replace(e, held=(), blocked={**BLOCK, "tokens": []}), [BLOCKED], id="he held nothing"
        ),
        pytest.param(
            change_row(-1, injected="warehouse-shared@v2"),
            [UNCHANGED],
            id="the key was changed for the block",
        ),
        pytest.param(
            change_seen("warehouse", -1, headers=[["x-api-key", "another"]]),
            [UNCHANGED],
            id="the server got another key",
        ),
        pytest.param(
            lambda e: replace(e, written={"audit.db": SHARED[1].encode()}),
            [NO_SECRET],
            id="a shared key in the audit",
        ),
        pytest.param(
            lambda e: replace(e, written={"proxy.log": PERSONAL[0].encode()}),
            [NO_SECRET],
            id="a token in a log",
        ),
        pytest.param(lambda e: replace(e, reproduced=""), [REPRODUCED], id="the query printed nothing"),
        pytest.param(lambda e: replace(e, explained_code=0), [EXPLAINED], id="explain says yes"),
        pytest.param(
            lambda e: replace(e, explained=e.explained.replace(", by ", ", not by ")),
            [EXPLAINED],
            id="explain names no decider",
        ),
    ],
)
def test_a_check_fails_when(spoil: Callable[[Evidence], Evidence], expected: list[str]) -> None:
    assert failed(spoil(good())) == expected


def test_every_reason_that_the_cast_expects_is_a_reason() -> None:
    assert {act.reason for act in cast.ACTS} <= set(Reason)


# -- the rules and the keys ---------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> tuple[RuleSet, pki.Authority, pki.TokenIssuer]:
    people, issuer = pki.make_authority("devices", now=NOW), pki.TokenIssuer()
    key = pki.write_private(tmp_path / "warehouse.key", b"warehouse-shared-secret\n")
    folder = tmp_path / "rules"
    folder.mkdir()
    rules.write_rules(
        folder,
        ports={"tickets": 8441, "warehouse": 8442},
        warehouse_key=key,
        device_ca=people.pem(),
        jwks=issuer.jwks(),
    )
    return load_rules(folder), people, issuer


def test_the_rules_load_and_hold_what_the_cast_needs(
    written: tuple[RuleSet, pki.Authority, pki.TokenIssuer],
) -> None:
    loaded = written[0]
    assert [(server.id, server.port, server.credential) for server in loaded.servers.servers] == [
        ("tickets", 8441, "tickets-shared"),
        ("warehouse", 8442, "warehouse-shared"),
    ]
    asked = {server.id: server.assertion.audience for server in loaded.servers.servers if server.assertion}
    assert asked == {"tickets": "https://localhost:8441/mcp"}
    agents = {name for act in cast.ACTS for name in act.chain()}
    assert agents == set(loaded.identities.agents)
    named = {act.rule for act in cast.ACTS if act.rule}
    assert named <= {rule.id for rule in loaded.engine.rules}


def test_bobs_certificate_names_him_and_his_agent(
    written: tuple[RuleSet, pki.Authority, pki.TokenIssuer], tmp_path: Path
) -> None:
    _, people, _ = written
    config = ClientCA(
        id="device-ca",
        file=tmp_path / "rules" / "device-ca.pem",
        principal_from="san_email",
        agent_from="san_uri",
    )
    pem = pki.issue_client(people, "bob@corp.example", cast.AGENT_URI, now=NOW)
    der = x509.load_pem_x509_certificates(pem)[0].public_bytes(pki.Encoding.DER)
    found = verify_chain([der], load_cas((config,)), NOW)
    assert isinstance(found, CertificateIdentity)
    assert (found.subject, found.agent) == (cast.BOB, cast.AGENT)
    late = verify_chain([der], load_cas((config,)), NOW + 2 * pki.LIFETIME)
    assert isinstance(late, Rejected)
    assert late.reason is Reason.CERTIFICATE_EXPIRED


def test_a_servers_certificate_is_no_persons(
    written: tuple[RuleSet, pki.Authority, pki.TokenIssuer], tmp_path: Path
) -> None:
    _, people, _ = written
    config = ClientCA(id="ca", file=tmp_path / "rules" / "device-ca.pem", principal_from="san_dns")
    pem = pki.issue_server(people, "localhost", now=NOW)
    der = x509.load_pem_x509_certificates(pem)[0].public_bytes(pki.Encoding.DER)
    found = verify_chain([der], load_cas((config,)), NOW)
    assert isinstance(found, Rejected)
    assert found.reason is Reason.CERTIFICATE_UNTRUSTED


def test_the_ci_jobs_jwt_verifies_until_it_expires(
    written: tuple[RuleSet, pki.Authority, pki.TokenIssuer],
) -> None:
    loaded, _, issuer = written
    entry = loaded.identities.issuers[0]
    key = key_from_jwk(json.loads(issuer.jwks())["keys"][0])
    assert key is not None
    at = int(NOW.timestamp())
    claims = {"iss": rules.ISSUER, "aud": rules.AUDIENCE, "sub": rules.CI_SUBJECT, "iat": at, "exp": at + 600}
    token = issuer.sign(claims)
    assert isinstance(verify(token, entry, KeySet((key,)), NOW), JwtClaims)
    late = verify(token, entry, KeySet((key,)), NOW + timedelta(minutes=11))
    assert isinstance(late, Rejected)
    assert late.reason is Reason.JWT_EXPIRED
    forged = verify(pki.TokenIssuer().sign(claims), entry, KeySet((key,)), NOW)
    assert isinstance(forged, Rejected)
    assert forged.reason is Reason.JWT_INVALID


def test_a_private_file_is_never_open_to_others_nor_overwritten(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = pki.write_private(tmp_path / "key", b"x")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        pki.write_private(path, b"y")


# -- the processes ------------------------------------------------------------------------------


@pytest.fixture
def troupe(tmp_path: Path) -> Iterator[processes.Troupe]:
    made = processes.Troupe(tmp_path, processes.environment(tmp_path, os.environ), tmp_path)
    yield made
    made.stop()


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-c", code]


FOREVER = "import signal\nprint('up', flush=True)\nwhile True: signal.pause()"
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FOREVER


def test_all_processes_are_in_one_group_that_is_not_ours(troupe: processes.Troupe) -> None:
    first, second = troupe.start("a", python(FOREVER)), troupe.start("b", python(FOREVER))
    groups = {os.getpgid(child.process.pid) for child in (first, second)}
    assert groups == {first.process.pid}
    assert groups != {os.getpgrp()}


def test_a_process_can_start_when_all_others_are_gone(troupe: processes.Troupe) -> None:
    troupe.run("short", python("pass"))
    assert troupe.run("next", python("print('x')")) == "x\n"


@pytest.mark.parametrize("code", [FOREVER, DEAF], ids=["it obeys SIGTERM", "it ignores SIGTERM"])
def test_stop_ends_a_process_when(
    code: str, troupe: processes.Troupe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.5)
    child = troupe.start("stubborn", python(code))
    child.hear_line("up", "its start")
    troupe.stop()
    assert child.process.returncode in (-signal.SIGTERM, -signal.SIGKILL)
    troupe.stop()


def test_waiting_for_a_silent_process_has_an_end(troupe: processes.Troupe) -> None:
    child = troupe.start("silent", python("input()"))
    with pytest.raises(processes.DemoFailed, match=r"silent: waited 0\.1 s in vain for its start"):
        child.hear_line("up", "its start", 0.1)


def test_a_process_that_ends_early_is_quoted(troupe: processes.Troupe) -> None:
    child = troupe.start("early", python("raise SystemExit('no disk')"))
    with pytest.raises(processes.DemoFailed, match="early ended before its start; its last words: no disk"):
        child.hear_line("up", "its start")


def test_a_process_that_cannot_be_asked_is_quoted(troupe: processes.Troupe) -> None:
    child = troupe.start("gone", python("raise SystemExit('no disk')"))
    child.wait(10)
    with pytest.raises(processes.DemoFailed, match="gone ended before the answer to read_ticket"):
        child.ask({"do": "call", "tool": "read_ticket"})


def test_an_answer_that_is_not_json_is_a_failure(troupe: processes.Troupe) -> None:
    child = troupe.start("odd", python("input(); print('hello')"))
    with pytest.raises(processes.DemoFailed, match="odd answered with something that is not JSON: hello"):
        child.ask({"do": "list"})


def test_a_failed_command_is_a_failure_unless_it_may_fail(troupe: processes.Troupe) -> None:
    with pytest.raises(processes.DemoFailed, match="no ended with code 3"):
        troupe.run("no", python("raise SystemExit(3)"))
    assert troupe.run("no", python("print('n'); raise SystemExit(3)"), may_fail=True).endswith("n\n")


def test_the_environment_loses_what_would_lead_elsewhere() -> None:
    outside = {
        "PATH": "/bin",
        "https_proxy": "http://x",
        "HTTPS_PROXY": "http://x",
        "NO_PROXY": "*",
        "SSL_CERT_FILE": "/x",
        "CALLERID_HOME": "/x",
        "SSLKEYLOGFILE": "/x",
    }
    assert processes.environment(Path("/a"), outside) == {"PATH": "/bin", "PYTHONPATH": "/a"}


# -- interrupts ---------------------------------------------------------------------------------


def send(number: int) -> None:
    """Send a signal to this process; Python runs its handler before this returns."""
    os.kill(os.getpid(), number)


def test_a_signal_raises_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts(), pytest.raises(Interrupted):
        send(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_a_second_signal_does_nothing() -> None:
    with Interrupts():
        with pytest.raises(Interrupted):
            send(signal.SIGTERM)
        send(signal.SIGINT)


def test_a_held_signal_is_raised_when_the_outermost_block_is_done() -> None:
    reached = []

    def work(interrupts: Interrupts) -> None:
        with interrupts.held():
            with interrupts.held():
                send(signal.SIGINT)
            reached.append("the end")

    with Interrupts() as interrupts:
        with pytest.raises(Interrupted):
            work(interrupts)
        assert reached == ["the end"]


def test_a_held_signal_does_not_hide_an_error() -> None:
    def work(interrupts: Interrupts) -> None:
        with interrupts.held():
            send(signal.SIGINT)
            raise ValueError("boom")

    with Interrupts() as interrupts, pytest.raises(ValueError, match="boom"):
        work(interrupts)


# -- the command --------------------------------------------------------------------------------


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command.demo, list(arguments))
    return result.exit_code, result.output


def test_without_the_sdk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    code, output = invoke()
    assert code == 2
    assert "the demo needs the official MCP SDK" in output
    assert "pip install 'callerid[demo]'" in output


def test_with_an_old_sdk_it_says_which_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "1.32.0")
    assert invoke()[1].startswith("error: the demo needs the official MCP SDK 2.3 or newer, here is 1.32.0")


def test_a_folder_with_something_in_it_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    code, output = invoke("--keep", str(tmp_path))
    assert code == 2
    assert "is not empty" in output
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_command_is_loaded_without_the_sdk_and_without_mitmproxy() -> None:
    code = (
        "import sys, callerid.cli.demo.command\n"
        "print([name for name in ('mcp', 'uvicorn', 'httpx2', 'mitmproxy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(command.__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_failure_keeps_the_folder_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any) -> None:
        raise processes.DemoFailed("the proxy did not start")

    monkeypatch.setattr(command, "play", fail)
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(tmp_path / "stage"))
    (tmp_path / "stage").mkdir()
    code, output = invoke()
    assert code == 1
    assert (
        f"the demo failed: the proxy did not start\nrules, audit and logs are in {tmp_path / 'stage'}"
        in output
    )
    assert (tmp_path / "stage" / "logs").is_dir()


def test_no_checks_at_all_is_not_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "play", lambda *_: Played())
    code, output = invoke("--keep", str(tmp_path / "new"), "--json")
    assert code == 1
    assert json.loads(output[: output.rindex("}") + 1])["ok"] is False
