from __future__ import annotations

import json
from typing import Any

import pytest
from mcp_types.jsonrpc import JSONRPCError, JSONRPCResponse, jsonrpc_message_adapter
from mcp_types.methods import parse_server_result
from mcp_types.version import KNOWN_PROTOCOL_VERSIONS

from callerid.mcp.answers import (
    DENIED_CODE,
    FAULT_CODE,
    FAULTS,
    SENTENCES,
    UNKNOWN_SESSION,
    UPSTREAM_CODE,
    Answer,
    ask_refused,
    batch_refusal,
    login,
    refusal,
    stream_error,
    unknown_session,
    unreadable_answer,
    upstream_refused_credential,
    upstream_unusable,
)
from callerid.mcp.asks import AskRefusal
from callerid.mcp.oauthdoor import LOGIN_HELPS
from callerid.mcp.sse import EventParser
from callerid.model import Kind, Malformed, Message, MessageType, Reason, RpcId

DECISION = "0193a0c0-0000-7000-8000-000000000001"
ALLOWED = {Reason.GRANTED, Reason.PROTOCOL, Reason.OBSERVED, Reason.MONITORED, Reason.ANSWERED_HERE}
REFUSALS = [reason for reason in Reason if reason not in ALLOWED]
IDENTITY = [
    reason for reason in REFUSALS if REFUSALS.index(reason) <= REFUSALS.index(Reason.PRINCIPAL_BLOCKED)
]
IDS: list[RpcId] = [0, "0", "", 1, "1", -7, "a\u2028\ud800", 2**53 + 1]
OTHERS = [
    "resources/read",
    "prompts/get",
    "tools/list",
    "completion/complete",
    "tasks/get",
    "vendor/x",
    "ping",
]


def request(method: str = "tools/call", rpc_id: RpcId | None = 1, **more: Any) -> Message:
    kind = {"tools/call": Kind.TOOL, "resources/read": Kind.RESOURCE, "prompts/get": Kind.PROMPT}
    return Message(
        type=MessageType.REQUEST, method=method, kind=kind.get(method, Kind.METHOD), rpc_id=rpc_id, **more
    )


def refuse(message: Message | None, reason: Reason = Reason.RULE_DENIED, **more: Any) -> Answer:
    given = {"event_id": DECISION, "rule": None, "say": None, "hidden": False, **more}
    return refusal(message, reason=reason, **given)


def read(answer: Answer) -> Any:
    """The body, after the checks that hold for every answer that has one."""
    headers = dict(answer.headers)
    assert len(headers) == len(answer.headers)
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Length"] == str(len(answer.body))
    assert not {"WWW-Authenticate", "Proxy-Authenticate", "Mcp-Session-Id", "Set-Cookie"} & set(headers)
    return json.loads(answer.body)


def error_of(answer: Answer) -> dict[str, Any]:
    """The error object, after the official SDK took the body for a JSON-RPC error."""
    assert isinstance(jsonrpc_message_adapter.validate_python(read(answer)), JSONRPCError)
    error = read(answer)["error"]
    assert isinstance(error, dict)
    return error


def test_every_reason_that_refuses_has_a_sentence() -> None:
    assert set(SENTENCES) == set(REFUSALS)
    assert all(text and text[0].islower() and text[-1] != "." for text in SENTENCES.values())


def test_our_codes_are_outside_the_reserved_range() -> None:
    for code in (DENIED_CODE, FAULT_CODE, UPSTREAM_CODE):
        assert not -32768 <= code <= -32000


UNKNOWN_HANDLES = frozenset({Reason.TASK_NOT_YOURS, Reason.STATE_NOT_YOURS})


@pytest.mark.parametrize("reason", sorted(UNKNOWN_HANDLES))
@pytest.mark.parametrize("method", ["tools/call", "tasks/get"])
def test_a_handle_of_another_reads_as_an_unknown_one(method: str, reason: Reason) -> None:
    body = read(refuse(request(method), reason))
    assert (body["error"]["code"], body["error"]["data"]["reason"]) == (-32602, reason.value)


@pytest.mark.parametrize("reason", [Reason.SESSION_UNKNOWN, Reason.SESSION_NOT_YOURS])
def test_a_session_of_another_reads_as_an_unknown_one(reason: Reason) -> None:
    assert reason in UNKNOWN_SESSION
    answer = unknown_session(7, DECISION)
    body = read(answer)
    assert (answer.status, body["id"], body["error"]["data"]["reason"]) == (404, 7, "session_unknown")


@pytest.mark.parametrize("version", [None, *KNOWN_PROTOCOL_VERSIONS])
@pytest.mark.parametrize("reason", [reason for reason in REFUSALS if reason not in FAULTS | UNKNOWN_HANDLES])
def test_a_refused_tool_call_is_a_tool_result_that_the_model_reads(
    version: str | None, reason: Reason
) -> None:
    answer = refuse(request(protocol=version), reason, rule="interns-read-only", say="Ask Bob.")
    assert answer.status == 200
    body = read(answer)
    assert isinstance(jsonrpc_message_adapter.validate_python(body), JSONRPCResponse)
    result = body["result"]
    parse_server_result("tools/call", version or "2025-03-26", result)
    assert result["isError"] is True
    assert "structuredContent" not in result
    assert result.get("resultType") == ("complete" if version == "2026-07-28" else None)
    [content] = result["content"]
    assert content["type"] == "text"
    assert DECISION in content["text"]
    assert "Do not retry" in content["text"]
    assert reason.value in content["text"]
    assert result["_meta"]["callerid/decision"] == DECISION
    assert result["_meta"]["callerid/reason"] == reason.value


@pytest.mark.parametrize("version", [None, *KNOWN_PROTOCOL_VERSIONS])
@pytest.mark.parametrize("method", OTHERS)
def test_another_refused_request_is_a_json_rpc_error(version: str | None, method: str) -> None:
    answer = refuse(request(method, protocol=version), rule="interns-read-only")
    assert answer.status == 200
    error = error_of(answer)
    assert error["code"] == DENIED_CODE
    assert error["data"] == {"reason": "rule_denied", "rule": "interns-read-only", "decision": DECISION}


@pytest.mark.parametrize("reason", [Reason.RULE_DENIED, Reason.TOKEN_EXPIRED, Reason.UNKNOWN_SERVER])
@pytest.mark.parametrize("method", ["initialize", "server/discover"])
def test_a_refused_connect_is_a_403_so_that_clients_do_not_fall_back(method: str, reason: Reason) -> None:
    answer = refuse(request(method, rpc_id=0), reason)
    assert answer.status == 403
    assert error_of(answer)["code"] == DENIED_CODE
    assert read(answer)["id"] == 0


@pytest.mark.parametrize("reason", REFUSALS)
@pytest.mark.parametrize("type_", [MessageType.NOTIFICATION, MessageType.RESPONSE])
def test_a_refused_notification_or_response_is_a_202_without_a_body(
    type_: MessageType, reason: Reason
) -> None:
    message = Message(type=type_, method="notifications/initialized", kind=Kind.PROTOCOL, rpc_id=None)
    answer = refuse(message, reason)
    assert (answer.status, answer.body) == (202, b"")
    assert dict(answer.headers) == {"Cache-Control": "no-store", "Content-Length": "0"}


@pytest.mark.parametrize("reason", [Reason.NO_GRANT, *IDENTITY])
@pytest.mark.parametrize("method", ["http/GET", "http/DELETE"])
def test_a_refused_stream_or_session_end_is_a_405(method: str, reason: Reason) -> None:
    answer = refuse(Message(type=MessageType.HTTP, method=method, kind=Kind.PROTOCOL), reason)
    assert answer.status == 405
    assert dict(answer.headers)["Allow"] == "POST"
    assert error_of(answer)["data"]["reason"] == reason.value
    assert read(answer)["id"] is None


@pytest.mark.parametrize("reason", sorted(FAULTS))
@pytest.mark.parametrize("method", ["tools/call", "initialize", *OTHERS])
def test_a_fault_of_ours_is_a_503_with_the_id(method: str, reason: Reason) -> None:
    answer = refuse(request(method, rpc_id="a"), reason, rule="r", say="s", hidden=True)
    assert answer.status == 503
    error = error_of(answer)
    assert read(answer)["id"] == "a"
    assert error["code"] == FAULT_CODE
    assert error["data"] == {"reason": reason.value, "decision": DECISION}
    assert "Try again later" in error["message"]
    assert "Do not retry" not in error["message"]


def test_the_faults_are_those_on_our_side() -> None:
    assert {Reason.AUDIT_UNAVAILABLE, Reason.INTERNAL_ERROR, Reason.CREDENTIAL_UNAVAILABLE} == FAULTS


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.DESTINATION_MISMATCH, 421),
        (Reason.PATH_NOT_CANONICAL, 400),
        (Reason.TOO_LARGE, 413),
        (Reason.ENCODING_REFUSED, 415),
        (Reason.UNKNOWN_SERVER, 403),
        (Reason.NO_EVIDENCE, 403),
        (Reason.UPGRADE_REFUSED, 403),
        (Reason.AUDIT_UNAVAILABLE, 503),
    ],
)
def test_a_request_of_which_nothing_was_read_has_the_status_of_its_reason(
    reason: Reason, status: int
) -> None:
    answer = refuse(None, reason)
    assert answer.status == status
    assert read(answer)["id"] is None
    assert error_of(answer)["data"]["reason"] == reason.value


@pytest.mark.parametrize("reason", REFUSALS)
def test_no_refusal_starts_a_login_or_ends_a_session(reason: Reason) -> None:
    for message in (None, request(), request("ping"), request("initialize"), request(rpc_id=None)):
        answer = refuse(message, reason)
        assert answer.status not in (202, 401, 404, 407)
        assert answer.status == 200 or read(answer)["error"]


@pytest.mark.parametrize("rpc_id", [None, 0, "", 5])
@pytest.mark.parametrize("reason", sorted(LOGIN_HELPS))
def test_the_one_answer_that_starts_a_login_starts_the_companys(rpc_id: RpcId | None, reason: Reason) -> None:
    way = 'Bearer resource_metadata="https://mcp.corp.example/.well-known/oauth-protected-resource/mcp"'
    answer = login(rpc_id, reason, DECISION, way)
    headers = dict(answer.headers)
    assert (answer.status, headers.pop("WWW-Authenticate")) == (401, way)
    plain = Answer(answer.status, tuple(headers.items()), answer.body)
    assert error_of(plain)["data"] == {"reason": reason.value, "decision": DECISION}
    assert read(plain)["id"] == rpc_id


def test_a_login_is_for_those_who_are_not_known_and_for_nobody_else() -> None:
    assert set(IDENTITY) > LOGIN_HELPS
    assert Reason.PRINCIPAL_BLOCKED not in LOGIN_HELPS
    assert Reason.AGENT_NOT_PERMITTED not in LOGIN_HELPS
    assert Reason.WORKLOAD_UNKNOWN not in LOGIN_HELPS


@pytest.mark.parametrize("rpc_id", [None, 0, "", 5])
def test_a_malformed_request_has_the_status_code_and_id_of_what_is_wrong(rpc_id: RpcId | None) -> None:
    malformed = Malformed(
        reason=Reason.HEADER_MISMATCH, detail="secret", http_status=400, rpc_code=-32020, rpc_id=rpc_id
    )
    answer = refuse(None, malformed.reason, malformed=malformed)
    assert answer.status == 400
    error = error_of(answer)
    assert error["code"] == -32020
    assert read(answer)["id"] == rpc_id
    assert error["data"]["reason"] == "header_mismatch"
    assert b"secret" not in answer.body


def test_what_a_malformed_request_may_know_besides_stands_beside_reason_and_decision() -> None:
    told = {"supported": ["2026-07-28"], "requested": "2099-01-01", "reason": "none", "decision": "none"}
    malformed = Malformed(
        reason=Reason.UNSUPPORTED_VERSION, detail="d", http_status=400, rpc_code=-32022, rpc_id=3, data=told
    )
    data = error_of(refuse(None, malformed.reason, malformed=malformed))["data"]
    assert data == {**told, "reason": "unsupported_version", "decision": data["decision"]}
    assert data["decision"] != "none"


def test_a_malformed_verb_is_told_which_one_is_allowed() -> None:
    malformed = Malformed(reason=Reason.NOT_MCP, detail="d", http_status=405, rpc_code=-32600)
    answer = refuse(None, Reason.NOT_MCP, malformed=malformed)
    assert (answer.status, dict(answer.headers)["Allow"]) == (405, "POST")


def test_a_fault_while_refusing_a_malformed_request_is_a_fault() -> None:
    malformed = Malformed(reason=Reason.TOO_DEEP, detail="d", http_status=400, rpc_code=-32700, rpc_id=0)
    answer = refuse(None, Reason.AUDIT_UNAVAILABLE, malformed=malformed)
    assert (answer.status, read(answer)["id"], error_of(answer)["code"]) == (503, 0, FAULT_CODE)


@pytest.mark.parametrize("method", ["tools/call", "initialize", "resources/read"])
@pytest.mark.parametrize("reason", [Reason.RULE_DENIED, Reason.AUDIT_UNAVAILABLE])
@pytest.mark.parametrize("rpc_id", IDS)
def test_the_id_comes_back_with_its_type(rpc_id: RpcId, method: str, reason: Reason) -> None:
    given = read(refuse(request(method, rpc_id), reason))["id"]
    assert given == rpc_id
    assert type(given) is type(rpc_id)


def test_a_request_without_an_id_is_no_200_for_nobody_could_match_it() -> None:
    answer = refuse(request(rpc_id=None))
    assert (answer.status, read(answer)["id"]) == (403, None)


def test_the_rule_and_its_words_are_told() -> None:
    result = read(refuse(request(), rule="no-prod-writes", say=" Ask Bob for a window. "))["result"]
    text = result["content"][0]["text"]
    assert "rule no-prod-writes" in text
    assert "Ask Bob for a window." in text
    assert result["_meta"]["callerid/rule"] == "no-prod-writes"


def test_there_is_no_rule_to_tell_if_none_decided() -> None:
    result = read(refuse(request(), Reason.TOKEN_EXPIRED))["result"]
    assert "callerid/rule" not in result["_meta"]
    assert "rule" not in result["content"][0]["text"].replace("callerid", "")


@pytest.mark.parametrize("method", ["tools/call", "resources/read", "prompts/get"])
def test_hidden_forbidden_and_unknown_names_read_the_same(method: str) -> None:
    """Byte for byte, but for the decision id."""
    unknown = refuse(request(method, name="no-such"), Reason.NO_GRANT)
    others = [
        refuse(request(method, name="there"), Reason.NO_GRANT, rule="default", say="Ask Bob."),
        refuse(request(method, name="there"), Reason.NO_GRANT, hidden=True),
        refuse(request(method, name="hid"), Reason.RULE_DENIED, rule="hide-it", say="Secret.", hidden=True),
        refuse(request(method, name="hid"), Reason.REQUIREMENT_FAILED, rule="r", hidden=True),
        refuse(request(method, name="hid"), Reason.OUTSIDE_SCOPE, hidden=True),
        refuse(request(method, name="hid"), Reason.NO_GRANT, event_id="x" * len(DECISION)),
    ]
    assert b"no_grant" in unknown.body
    for other in others:
        assert other.body.replace(b"x" * len(DECISION), DECISION.encode()) == unknown.body
        assert (other.status, other.headers) == (unknown.status, unknown.headers)


@pytest.mark.parametrize("reason", REFUSALS)
@pytest.mark.parametrize("method", ["tools/call", "resources/read", "initialize", "vendor/s3cret"])
def test_nothing_that_the_caller_sent_is_repeated(method: str, reason: Reason) -> None:
    message = request(
        method, name="s3cret", arguments={"s3cret": "s3cret"}, client_name="s3cret", trace_id="s3cret"
    )
    assert b"s3cret" not in refuse(message, reason, rule="r", say="s").body


@pytest.mark.parametrize("reason", IDENTITY)
def test_a_failed_identity_names_its_reason(reason: Reason) -> None:
    assert reason.value in error_of(refuse(request("initialize"), reason))["message"]


def entry(message: Message, reason: Reason = Reason.RULE_DENIED, event_id: str = DECISION) -> Any:
    return (message, reason, event_id, "r", None, False)


def test_a_refused_batch_is_an_array_with_one_answer_for_each_request() -> None:
    answer = batch_refusal(
        [
            entry(request(rpc_id=0), event_id="d0"),
            entry(Message(type=MessageType.NOTIFICATION, method="notifications/x", kind=Kind.METHOD)),
            entry(request("ping", rpc_id="0"), Reason.BATCH_PARTNER_DENIED, "d1"),
            entry(request(rpc_id=1), Reason.AUDIT_UNAVAILABLE, "d2"),
        ]
    )
    assert answer.status == 200
    call, ping, fault = read(answer)
    assert (call["id"], call["result"]["isError"], call["result"]["_meta"]["callerid/decision"]) == (
        0,
        True,
        "d0",
    )
    assert (ping["id"], ping["error"]["code"]) == ("0", DENIED_CODE)
    assert ping["error"]["data"] == {"reason": "batch_partner_denied", "rule": "r", "decision": "d1"}
    assert (fault["id"], fault["error"]["code"]) == (1, FAULT_CODE)
    for message in (call, ping, fault):
        jsonrpc_message_adapter.validate_python(message)


def test_a_refused_batch_of_notifications_is_a_202() -> None:
    answer = batch_refusal([entry(Message(type=MessageType.RESPONSE, method="", kind=Kind.METHOD, rpc_id=1))])
    assert (answer.status, answer.body) == (202, b"")


@pytest.mark.parametrize("rpc_id", [None, 0, "", "0", -1])
def test_a_refused_credential_is_a_502_that_starts_no_login(rpc_id: RpcId | None) -> None:
    answer = upstream_refused_credential(rpc_id, DECISION)
    assert answer.status == 502
    error = error_of(answer)
    assert read(answer)["id"] == rpc_id
    assert error["code"] == UPSTREAM_CODE
    assert error["data"] == {"outcome": "upstream_refused_credential", "decision": DECISION}


@pytest.mark.parametrize("rpc_id", [None, 0, "", "0", -1])
def test_an_unusable_answer_is_a_502_that_says_what_is_wrong(rpc_id: RpcId | None) -> None:
    answer = upstream_unusable(rpc_id, DECISION, "it is compressed in an unknown way")
    assert answer.status == 502
    error = error_of(answer)
    assert read(answer)["id"] == rpc_id
    assert "it is compressed in an unknown way" in error["message"]
    assert error["data"] == {"outcome": "response_refused", "decision": DECISION}


@pytest.mark.parametrize("rpc_id", [None, 0, "", "0", -1])
def test_a_stream_that_is_cut_ends_with_one_error_event(rpc_id: RpcId | None) -> None:
    parser = EventParser()
    [event] = parser.feed(stream_error(rpc_id, DECISION, "an event\nis too large"))
    assert parser.rest() == b""
    assert (event.event, event.id) == ("message", None)
    message = json.loads(event.data or "")
    assert isinstance(jsonrpc_message_adapter.validate_python(message), JSONRPCError)
    assert message["id"] == rpc_id
    assert DECISION in message["error"]["message"]


def test_an_unreadable_answer_is_an_error_with_the_id() -> None:
    message = unreadable_answer(0)
    assert isinstance(jsonrpc_message_adapter.validate_python(message), JSONRPCError)
    assert (message["id"], message["error"]["code"]) == (0, UPSTREAM_CODE)


@pytest.mark.parametrize("reason", REFUSALS)
@pytest.mark.parametrize("method", [None, "tools/call", "prompts/get"])
def test_an_ask_that_is_refused_says_that_the_server_asked(method: str | None, reason: Reason) -> None:
    refusal = AskRefusal(reason=reason, event_id=DECISION, rule="no-links", say="Ask Bob.", hidden=False)
    message = ask_refused(None if method is None else request(method), "x", refusal)
    assert message["id"] == "x"
    said = json.dumps(message)
    assert "the server did not answer this, but asked you for something" in said.lower()
    assert DECISION in said
    assert reason.value in said
    told = reason not in FAULTS and reason is not Reason.NO_GRANT
    assert ("Ask Bob." in said, "no-links" in said) == (told, told)
    assert ("result" in message) is (method == "tools/call" and "error" not in message)
    assert isinstance(jsonrpc_message_adapter.validate_python(message), JSONRPCResponse | JSONRPCError)
