from __future__ import annotations

from typing import Any

import pytest
from mcp_types.methods import parse_server_request

from callerid.mcp.asks import MALFORMED, MAX_ASKS, Ask, Place, answered_as, asks_of

FORM = {"message": "Your name?", "requestedSchema": {"type": "object", "properties": {}}}
URL = {"mode": "url", "message": "Log in", "url": "https://id.corp.example/x", "elicitationId": "1"}
SAMPLE = {"messages": [], "maxTokens": 5, "includeContext": "allServers"}
META = {"_meta": {"progressToken": 1}}


def ask(method: str, arguments: Any, key: Any, place: Place) -> Ask:
    return Ask(method=method, arguments=arguments, key=key, place=place)


def request(method: Any, params: Any = None, rpc_id: Any = 7) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": rpc_id, "method": method} | ({} if params is None else {"params": params})


def result(**members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "result": members}


def error(code: Any, data: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "m", "data": data}}


ROOTS = {"method": "roots/list"}
INPUT = Place.INPUT_REQUEST

ASKS = [
    pytest.param(
        request("sampling/createMessage", {**SAMPLE, **META}),
        [ask("sampling/createMessage", SAMPLE, 7, Place.REQUEST)],
        id="sampling as a request",
    ),
    pytest.param(request("roots/list", None, "a"), [ask("roots/list", {}, "a", Place.REQUEST)], id="roots"),
    pytest.param(request("ping", {}, 0), [ask("ping", {}, 0, Place.REQUEST)], id="ping with the id 0"),
    pytest.param(
        request("acme/shell", {"x": 1}),
        [ask("acme/shell", {"x": 1}, 7, Place.REQUEST)],
        id="an unknown method",
    ),
    pytest.param(
        request("notifications/message", {}, 5),
        [ask("notifications/message", {}, 5, Place.REQUEST)],
        id="a notification that wants an answer",
    ),
    pytest.param(
        request("elicitation/create", {**FORM, **META}),
        [ask("elicitation/create", {**FORM, "mode": "form"}, 7, Place.REQUEST)],
        id="a form, by default",
    ),
    pytest.param(
        request("elicitation/create", {**FORM, "mode": None}),
        [ask("elicitation/create", {**FORM, "mode": "form"}, 7, Place.REQUEST)],
        id="a null mode is a form",
    ),
    pytest.param(
        request("elicitation/create"),
        [ask("elicitation/create", {"mode": "form"}, 7, Place.REQUEST)],
        id="an elicitation without params",
    ),
    pytest.param(
        request("elicitation/create", URL),
        [ask("elicitation/create", {**URL, "url_host": "id.corp.example"}, 7, Place.REQUEST)],
        id="a URL",
    ),
    pytest.param(
        request("elicitation/create", {**URL, "url": "https://a@b/", "url_host": "id.corp.example"}),
        [ask("elicitation/create", {**URL, "url": "https://a@b/"}, 7, Place.REQUEST)],
        id="a URL that is not plain, with a host of the server's making",
    ),
    pytest.param(
        request("elicitation/create", {**URL, "url_host": "evil.example"}),
        [ask("elicitation/create", {**URL, "url_host": "id.corp.example"}, 7, Place.REQUEST)],
        id="another host of the server's making",
    ),
    pytest.param(
        request("elicitation/create", {**FORM, "mode": "form", "url_host": "id.corp.example"}),
        [ask("elicitation/create", {**FORM, "mode": "form"}, 7, Place.REQUEST)],
        id="a host in a form",
    ),
    pytest.param(
        result(
            resultType="input_required", inputRequests={"r": ROOTS, "s": {"method": "ping", "params": {}}}
        ),
        [ask("roots/list", {}, "r", INPUT), ask("ping", {}, "s", INPUT)],
        id="input required",
    ),
    pytest.param(
        result(inputRequests={"e": {"method": "elicitation/create", "params": URL}}),
        [ask("elicitation/create", {**URL, "url_host": "id.corp.example"}, "e", INPUT)],
        id="input requests under no type",
    ),
    pytest.param(
        result(taskId="t", status="input_required", inputRequests={"r": ROOTS}),
        [ask("roots/list", {}, "r", INPUT)],
        id="a task that waits",
    ),
    pytest.param(
        result(task={"taskId": "t", "inputRequests": {"r": ROOTS}}),
        [ask("roots/list", {}, "r", INPUT)],
        id="a task in a result",
    ),
    pytest.param(
        result(taskId="t", result={"resultType": "input_required", "inputRequests": {"r": ROOTS}}),
        [ask("roots/list", {}, "r", INPUT)],
        id="a result in a task",
    ),
    pytest.param(
        {"method": "notifications/tasks", "params": {"taskId": "t", "inputRequests": {"r": ROOTS}}},
        [ask("roots/list", {}, "r", INPUT)],
        id="news of a task",
    ),
    pytest.param(
        {"method": "notifications/tasks/status", "params": {"task": {"inputRequests": {"r": ROOTS}}}},
        [ask("roots/list", {}, "r", INPUT)],
        id="news of a task, nested",
    ),
    pytest.param(
        {"method": "notifications/tasks", "params": {"result": {"inputRequests": {"r": ROOTS}}}},
        [ask("roots/list", {}, "r", INPUT)],
        id="news of a task with its result",
    ),
    pytest.param(
        error(
            -32042, {"elicitations": [URL, {"url": "http://a\\b", "message": "m"}, {**FORM, "mode": "form"}]}
        ),
        [
            ask("elicitation/create", {**URL, "url_host": "id.corp.example"}, "0", Place.ERROR),
            ask(
                "elicitation/create", {"url": "http://a\\b", "message": "m", "mode": "url"}, "1", Place.ERROR
            ),
            ask("elicitation/create", {**FORM, "mode": "form"}, "2", Place.ERROR),
        ],
        id="error -32042",
    ),
    pytest.param(
        error(-32042.0, {"elicitations": [URL]}),
        [ask("elicitation/create", {**URL, "url_host": "id.corp.example"}, "0", Place.ERROR)],
        id="error -32042 as a fraction",
    ),
    pytest.param(
        error("-32042", {"elicitations": [URL]}),
        [ask("elicitation/create", {**URL, "url_host": "id.corp.example"}, "0", Place.ERROR)],
        id="error -32042 as text 0",
    ),
    pytest.param(
        error(" -32042", {"elicitations": [URL]}),
        [ask("elicitation/create", {**URL, "url_host": "id.corp.example"}, "0", Place.ERROR)],
        id="error -32042 as text 1",
    ),
    pytest.param(
        error("-32_042", {"elicitations": [URL]}),
        [ask("elicitation/create", {**URL, "url_host": "id.corp.example"}, "0", Place.ERROR)],
        id="error -32042 as text 2",
    ),
    pytest.param(
        error("-32042.0", {"elicitations": [URL]}),
        [ask("elicitation/create", {**URL, "url_host": "id.corp.example"}, "0", Place.ERROR)],
        id="error -32042 as text 3",
    ),
    pytest.param(
        result(taskId="t", error=error(-32042, {"elicitations": [URL]})["error"]),
        [ask("elicitation/create", {**URL, "url_host": "id.corp.example"}, "0", Place.ERROR)],
        id="error -32042 of a task that failed",
    ),
    pytest.param(
        {**request("roots/list"), "result": {"inputRequests": {"p": {"method": "ping"}}}},
        [ask("roots/list", {}, 7, Place.REQUEST), ask("ping", {}, "p", INPUT)],
        id="a request that is a response too",
    ),
]


@pytest.mark.parametrize(("message", "asks"), ASKS)
def test_what_a_server_asks(message: dict[str, Any], asks: list[Ask]) -> None:
    assert asks_of(message) == tuple(asks)


MALFORMED_ASKS = [
    pytest.param(request(7), 7, Place.REQUEST, id="a method that is no string"),
    pytest.param(request("roots/list", [1]), 7, Place.REQUEST, id="params that are no object"),
    pytest.param(request("elicitation/create", "x"), 7, Place.REQUEST, id="no params of an elicitation"),
    pytest.param(request("elicitation/create", {**URL, "mode": 7}), 7, Place.REQUEST, id="a mode of no kind"),
    pytest.param(
        request("elicitation/create", {**FORM, "url": "https://evil.example/"}),
        7,
        Place.REQUEST,
        id="a URL without a mode, a form for some and a link for others",
    ),
    pytest.param(
        request("elicitation/create", {**FORM, "URL": "https://evil.example/", "mode": "url"}),
        7,
        Place.REQUEST,
        id="a URL in another case",
    ),
    pytest.param(request("roots/list", None, 5.0), 5, Place.REQUEST, id="an id that JavaScript takes for 5"),
    pytest.param(request("roots/list", None, 5.5), "", Place.REQUEST, id="a fraction as id"),
    pytest.param(request("roots/list", None, True), "", Place.REQUEST, id="true as id"),
    pytest.param({"id": None, "method": "roots/list"}, "", Place.REQUEST, id="a request with the id null"),
    pytest.param({"id": 7, "Method": "roots/list"}, 7, Place.REQUEST, id="a method in another case"),
    pytest.param({**request("roots/list"), "Params": {}}, 7, Place.REQUEST, id="params in another case"),
    pytest.param(result(inputRequests=[ROOTS]), "", INPUT, id="a list of input requests"),
    pytest.param(result(inputRequests="x"), "", INPUT, id="a string of input requests"),
    pytest.param(result(InputRequests={"r": ROOTS}), "", INPUT, id="input requests in another case"),
    pytest.param(result(inputRequests={"r": "roots/list"}), "r", INPUT, id="an entry that is no object"),
    pytest.param(result(inputRequests={"r": {"params": {}}}), "r", INPUT, id="an entry without a method"),
    pytest.param(
        result(inputRequests={"r": {"method": "ping", "Method": "roots/list"}}), "r", INPUT, id="two methods"
    ),
    pytest.param(error(-32042, None), "", Place.ERROR, id="-32042 without data"),
    pytest.param(error(-32042, {"elicitations": {}}), "", Place.ERROR, id="-32042 without a list"),
    pytest.param(error(-32042, {"elicitations": ["x"]}), "0", Place.ERROR, id="-32042 with a string"),
    pytest.param(
        error(-32042, {"elicitations": [], "Elicitations": [URL]}),
        "",
        Place.ERROR,
        id="-32042 in another case",
    ),
    pytest.param(
        result(inputRequests={str(n): ROOTS for n in range(MAX_ASKS + 1)}),
        "",
        INPUT,
        id="more than one may ask",
    ),
]


@pytest.mark.parametrize(("message", "key", "place"), MALFORMED_ASKS)
def test_what_is_malformed_is_an_ask_that_no_rule_allows(
    message: dict[str, Any], key: Any, place: Place
) -> None:
    [found] = asks_of(message)
    assert found == ask(MALFORMED, {}, key, place)
    assert type(found.key) is type(key)


NOTHING = [
    pytest.param({}, id="nothing"),
    pytest.param(
        {"method": "notifications/message", "params": {"inputRequests": {"r": ROOTS}}}, id="a message"
    ),
    pytest.param({"method": "notifications/message", "id": None}, id="a notification with a null id"),
    pytest.param({"method": "sampling/createMessage", "params": SAMPLE}, id="a method without an id"),
    pytest.param(result(), id="an empty result"),
    pytest.param(result(resultType="input_required", requestState="s"), id="a state only"),
    pytest.param(result(inputRequests=None), id="null input requests"),
    pytest.param(result(inputRequests={}), id="no input requests"),
    pytest.param(result(structuredContent={"inputRequests": {"r": ROOTS}}), id="content of a tool"),
    pytest.param({"id": 1, "result": [{"inputRequests": {"r": ROOTS}}]}, id="a result that is a list"),
    pytest.param(error(-32601, {"elicitations": [URL]}), id="another error"),
    pytest.param(error(True, {"elicitations": [URL]}), id="a code that is none"),
    pytest.param({"id": 1, "error": "x"}, id="an error that is a string"),
    pytest.param(error(-32042, {"elicitations": []}), id="-32042 with nothing"),
]


@pytest.mark.parametrize("message", NOTHING)
def test_what_asks_nothing(message: dict[str, Any]) -> None:
    assert asks_of(message) == ()


def test_the_most_that_may_be_asked_is_asked() -> None:
    assert len(asks_of(result(inputRequests={str(n): ROOTS for n in range(MAX_ASKS)}))) == MAX_ASKS


def test_a_url_without_a_mode_is_a_link_for_the_official_sdk() -> None:
    """Why it is malformed here: taken for a form, a rule for forms would let the link through."""
    params = {**FORM, "url": "https://evil.example/"}
    read = parse_server_request("elicitation/create", "2025-11-25", params)
    assert read.params is not None
    assert read.params.model_dump()["mode"] == "url"
    assert [found.method for found in asks_of(request("elicitation/create", params))] == [MALFORMED]


@pytest.mark.parametrize(
    ("value", "methods"),
    [
        pytest.param({"action": "accept", "content": {"a": 1}}, ("elicitation/create",), id="an elicitation"),
        pytest.param({"action": "decline"}, ("elicitation/create",), id="a refusal"),
        pytest.param({"roots": []}, ("roots/list",), id="roots"),
        pytest.param(
            {"role": "assistant", "content": {}, "model": "m"}, ("sampling/createMessage",), id="a sample"
        ),
        pytest.param({"content": []}, ("sampling/createMessage",), id="content alone"),
        pytest.param(
            {"action": "accept", "roots": [], "model": "m"},
            ("elicitation/create", "roots/list", "sampling/createMessage"),
            id="all of them",
        ),
        pytest.param({}, (), id="an empty answer"),
        pytest.param([{"action": "accept"}], (), id="a list"),
        pytest.param("accept", (), id="a string"),
        pytest.param(None, (), id="null"),
    ],
)
def test_what_an_answer_could_be_meant_for(value: Any, methods: tuple[str, ...]) -> None:
    assert answered_as(value) == methods
