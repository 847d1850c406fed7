"""The decision on one message: whose handles it uses, and what the rules say of it and of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from callerid.mcp.asks import Ask
from callerid.mcp.asks import Place as Asking
from callerid.model import (
    Assurance,
    Caller,
    DecisionRecord,
    Kind,
    Message,
    MessageType,
    Principal,
    Reason,
    Refs,
    Verdict,
)
from callerid.proxy.conversations import Asked, Conversation, Waiting, mark_of
from callerid.proxy.deciding import Place, decide, still
from callerid.proxy.handles import Handles, Owner, Sort, handle, state_handle
from callerid.proxy.limits import DEFAULTS
from callerid.proxy.rooms import Rooms
from callerid.proxy.rows import Finding
from tests.unit.policy.house import NOW, load, rules

RULES = rules("""\
- {id: reads, effect: allow, who: ["group:engineering"], servers: [files],
   tools: [read_file, list_things, "resource:file:///srv/*"]}
- {id: asks, effect: allow, who: ["group:engineering"], servers: [files],
   tools: ["method:elicitation/create", "method:roots/list"]}
- {id: no-passwords, effect: deny, servers: [files], tools: ["method:elicitation/create"],
   args: {/answer/content/password: {type: string, optional: true}}}
- {id: no-cancel, effect: deny, servers: [files], tools: ["method:tasks/cancel"]}
- {id: small, effect: require, servers: [files], tools: [read_file], args: {path: {under: /srv}}}
""")
ALICE, BOB = "user:alice@corp.example", "user:bob@corp.example"
READ = Message(
    type=MessageType.REQUEST, method="tools/call", kind=Kind.TOOL, rpc_id=1, name="read_file",
    arguments={"path": "/srv/a"}, protocol="2026-07-28",
)  # fmt: skip
DROP = Message(type=MessageType.REQUEST, method="tools/call", kind=Kind.TOOL, rpc_id=2, name="drop")


@pytest.fixture(scope="module")
def rooms_rules(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(tmp_path_factory.mktemp("rules"), policy=RULES)


def place(rule_set: Any, subject: str = ALICE, conversation: Conversation | None = None) -> Place:
    caller = Caller(
        principal=Principal(subject, "local"), agent=None, actors=(), evidence=(),
        assurance=Assurance.BEARER, assurance_name="bearer", credential_id="t",
        groups=frozenset({"engineering"}),
    )  # fmt: skip
    rooms = cast(Rooms, SimpleNamespace(rules=rule_set, handles=Handles(), limits=DEFAULTS))
    server = next(server for server in rule_set.servers.servers if server.id == "files")
    return Place(
        rooms=rooms, caller=caller, server=server, conversation=conversation or Conversation(), now=NOW
    )


def said(findings: list[Finding]) -> list[tuple[Verdict, Reason, str | None]]:
    return [(f.decision.verdict, f.decision.reason, f.decision.rule) for f in findings]


def task(method: str, task_id: str = "t-1") -> Message:
    return Message(
        type=MessageType.REQUEST, method=method, kind=Kind.METHOD, rpc_id=9,
        arguments={"taskId": task_id}, refs=Refs(task_ids=(task_id,)),
    )  # fmt: skip


ALLOW, DENY = Verdict.ALLOW, Verdict.DENY


# -- tasks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["tasks/get", "tasks/result", "tasks/update"])
def test_a_task_is_decided_as_the_tool_that_made_it(rooms_rules: Any, method: str) -> None:
    here = place(rooms_rules)
    here.rooms.handles.claim("files", handle(Sort.TASK, "t-1"), Owner(ALICE, READ))
    found = decide(task(method), here)
    assert said(found) == [(ALLOW, Reason.GRANTED, "reads")]
    assert found[0].tool == "read_file"


def test_a_task_of_a_tool_that_is_no_longer_allowed_is_refused(rooms_rules: Any) -> None:
    here = place(rooms_rules)
    here.rooms.handles.claim("files", handle(Sort.TASK, "t-1"), Owner(ALICE, DROP))
    assert said(decide(task("tasks/get"), here)) == [(DENY, Reason.NO_GRANT, None)]


def test_a_rule_that_names_the_method_forbids_it(rooms_rules: Any) -> None:
    here = place(rooms_rules)
    here.rooms.handles.claim("files", handle(Sort.TASK, "t-1"), Owner(ALICE, READ))
    assert said(decide(task("tasks/cancel"), here)) == [(DENY, Reason.RULE_DENIED, "no-cancel")]


@pytest.mark.parametrize("owner", [Owner(BOB, READ), None], ids=["Bob's", "nobody's"])
def test_a_task_of_another_or_of_nobody_is_not_yours(rooms_rules: Any, owner: Owner | None) -> None:
    here = place(rooms_rules)
    if owner is not None:
        here.rooms.handles.claim("files", handle(Sort.TASK, "t-1"), owner)
    assert said(decide(task("tasks/get"), here)) == [(DENY, Reason.TASK_NOT_YOURS, None)]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("list_things", Reason.GRANTED), ("drop", Reason.NO_GRANT), ("read_file", Reason.REQUIREMENT_FAILED)],
    ids=["granted by its name", "not granted", "a rule asks for an argument that nobody has any more"],
)
def test_a_recalled_task_is_decided_without_its_arguments(
    rooms_rules: Any, name: str, reason: Reason
) -> None:
    here = place(rooms_rules)
    made_by = Message(type=MessageType.REQUEST, method="tools/call", kind=Kind.TOOL, name=name)
    here.rooms.handles.claim("files", handle(Sort.TASK, "t-1"), Owner(ALICE, made_by))
    assert decide(task("tasks/get"), here)[0].decision.reason is reason


def test_a_task_method_of_another_revision_needs_its_own_rule_as_well(rooms_rules: Any) -> None:
    here = place(rooms_rules)
    here.rooms.handles.claim("files", handle(Sort.TASK, "t-1"), Owner(ALICE, READ))
    early = replace(task("tasks/result"), protocol="2025-06-18")
    assert said(decide(early, here)) == [(DENY, Reason.NO_GRANT, None)]


# -- request states --------------------------------------------------------------------------------


def again(**refs: Any) -> Message:
    return Message(
        type=MessageType.REQUEST, method="tools/call", kind=Kind.TOOL, rpc_id=3, name="read_file",
        arguments={"path": "/srv/a"}, protocol="2026-07-28", refs=Refs(**refs),
    )  # fmt: skip


def test_a_state_goes_back_with_the_call_that_it_was_given_for(rooms_rules: Any) -> None:
    here = place(rooms_rules)
    here.rooms.handles.claim("files", state_handle(ALICE, READ, "x"), Owner(ALICE, READ))
    assert said(decide(again(request_state="x"), here)) == [(ALLOW, Reason.GRANTED, "reads")]


@pytest.mark.parametrize(
    ("subject", "call"),
    [(BOB, READ), (ALICE, DROP), (ALICE, None)],
    ids=["Bob's", "another call's", "nobody's"],
)
def test_any_other_state_is_refused(rooms_rules: Any, subject: str, call: Message | None) -> None:
    here = place(rooms_rules)
    if call is not None:
        here.rooms.handles.claim("files", state_handle(subject, call, "x"), Owner(subject, call))
    assert said(decide(again(request_state="x"), here)) == [(DENY, Reason.STATE_NOT_YOURS, None)]


def test_a_state_that_a_server_gives_to_everybody_is_everybodys(rooms_rules: Any) -> None:
    here = place(rooms_rules)
    for subject in (BOB, ALICE):
        here.rooms.handles.claim("files", state_handle(subject, READ, "x"), Owner(subject, READ))
    assert said(decide(again(request_state="x"), here)) == [(ALLOW, Reason.GRANTED, "reads")]


def test_an_answer_in_a_repeated_call_is_decided_as_its_question(rooms_rules: Any) -> None:
    found = decide(
        again(input_responses={"q": {"action": "accept", "content": {"name": "x"}}}), place(rooms_rules)
    )
    assert said(found) == [(ALLOW, Reason.GRANTED, "reads"), (ALLOW, Reason.GRANTED, "asks")]
    assert found[1].message.method == "elicitation/create"


@pytest.mark.parametrize(
    ("value", "reason", "rule"),
    [
        ({"action": "accept", "content": {"password": "x"}}, Reason.RULE_DENIED, "no-passwords"),
        ({"role": "assistant", "content": {"type": "text"}, "model": "m"}, Reason.NO_GRANT, None),
        ({"roots": [], "role": "assistant", "model": "m", "content": {}}, Reason.NO_GRANT, None),
        ({"something": 1}, Reason.RESPONSE_UNEXPECTED, None),
        ("text", Reason.RESPONSE_UNEXPECTED, None),
    ],
    ids=[
        "a forbidden answer",
        "sampling is not granted",
        "all that it could be counts",
        "no answer",
        "no object",
    ],
)
def test_an_answer_that_is_refused_refuses_the_call(
    rooms_rules: Any, value: Any, reason: Reason, rule: str | None
) -> None:
    found = decide(again(input_responses={"q": value}), place(rooms_rules))
    assert said(found) == [(DENY, reason, rule), (DENY, reason, rule)]


# -- responses -------------------------------------------------------------------------------------


def response(answer: Mapping[str, Any] | None, rpc_id: int | str = 7) -> Message:
    return Message(
        type=MessageType.RESPONSE, method="response", kind=Kind.PROTOCOL, rpc_id=rpc_id,
        refs=Refs(answer=answer),
    )  # fmt: skip


def asked(method: str = "elicitation/create", refused: Reason | None = None) -> Conversation:
    record = DecisionRecord(
        event_id="q-row", time_us=0, verdict=ALLOW, reason=Reason.GRANTED, method=method,
        server="files", upstream="files:443",
    )  # fmt: skip
    conversation = Conversation()
    ask = Ask(method=method, arguments={"mode": "form"}, key=7, place=Asking.REQUEST)
    conversation.ask(Asked(ask, mark_of(ask), Waiting(record), refused, 0))
    return conversation


def test_an_answer_is_decided_as_its_question(rooms_rules: Any) -> None:
    found = decide(response({"action": "accept", "content": {}}), place(rooms_rules, conversation=asked()))
    assert said(found) == [(ALLOW, Reason.GRANTED, "asks")]
    assert (found[0].message.method, found[0].caused_by) == ("elicitation/create", "q-row")
    assert found[0].substitute is None


def test_in_the_place_of_a_refused_answer_goes_an_error_of_ours(rooms_rules: Any) -> None:
    here = place(rooms_rules, conversation=asked())
    found = decide(response({"action": "accept", "content": {"password": "hunter2"}}), here)
    assert said(found) == [(DENY, Reason.RULE_DENIED, "no-passwords"), (ALLOW, Reason.PROTOCOL, None)]
    assert found[1].substitute is not None
    assert found[1].substitute["id"] == 7
    assert "hunter2" not in str(found[1])


def test_an_error_answers_any_question_that_is_allowed(rooms_rules: Any) -> None:
    found = decide(response(None), place(rooms_rules, conversation=asked()))
    assert said(found) == [(ALLOW, Reason.GRANTED, "asks")]


def test_the_pong_for_a_refused_question_becomes_an_error_of_ours(rooms_rules: Any) -> None:
    here = place(rooms_rules, conversation=asked(refused=Reason.NO_GRANT))
    found = decide(response({}), here)
    assert said(found) == [(ALLOW, Reason.PROTOCOL, None)]
    assert found[0].substitute is not None


@pytest.mark.parametrize("rpc_id", [8, "7"], ids=["another id", "another type of id"])
def test_an_answer_to_nothing_is_unexpected(rooms_rules: Any, rpc_id: int | str) -> None:
    found = decide(response({}, rpc_id), place(rooms_rules, conversation=asked()))
    assert said(found) == [(DENY, Reason.RESPONSE_UNEXPECTED, None)]


# -- the rest --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("used", "reason"), [(5, Reason.PROTOCOL), ("5", Reason.REQUEST_NOT_YOURS)])
def test_only_a_request_of_ones_own_can_be_cancelled(
    rooms_rules: Any, used: int | str, reason: Reason
) -> None:
    conversation = Conversation()
    conversation.use(used)
    cancel = Message(
        type=MessageType.NOTIFICATION, method="notifications/cancelled", kind=Kind.PROTOCOL,
        refs=Refs(cancels=5),
    )  # fmt: skip
    assert decide(cancel, place(rooms_rules, conversation=conversation))[0].decision.reason is reason


@pytest.mark.parametrize(
    ("uris", "verdict"),
    [(("file:///srv/a",), ALLOW), (("file:///srv/a", "file:///etc/b"), DENY), ((), ALLOW)],
    ids=["one's own", "one that is not", "none"],
)
def test_a_subscription_is_every_resource_in_it(
    rooms_rules: Any, uris: tuple[str, ...], verdict: Verdict
) -> None:
    listen = Message(
        type=MessageType.REQUEST, method="subscriptions/listen", kind=Kind.PROTOCOL, rpc_id=4,
        refs=Refs(resources=uris),
    )  # fmt: skip
    assert decide(listen, place(rooms_rules))[0].decision.verdict is verdict


def test_what_was_let_go_is_judged_again_by_the_rules_alone(rooms_rules: Any) -> None:
    assert still(READ, place(rooms_rules)).decision.verdict is ALLOW
    assert still(DROP, place(rooms_rules)).decision.verdict is DENY
