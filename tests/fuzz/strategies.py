"""Inputs that two readers may take for two things: JSON in every spelling, messages in and out of shape.

A value is drawn first and spelled then, so that the same message comes in many texts; ``Raw`` stands in a
value for JSON text that is written as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st


@dataclass(frozen=True, slots=True)
class Raw:
    """JSON text, or what looks like it."""

    text: str


NUMBERS = [
    "0", "-0", "-0.0", "0.0", "1", "1.0", "1e0", "1E2", "1e+2", "1.10", "100", "-1", "-1.5e-3",
    "9007199254740991", "9007199254740992", "9007199254740993", "-9007199254740993", "9007199254740993.0",
    "1e15", "1e16", "1e21", "1e22", "1e23", "123456789012345678901234567890", "0.1", "0.30000000000000004",
    "5e-324", "2.4e-324", "2.2250738585072011e-308", "1.7976931348623157e308", "1.7976931348623159e308",
    "1e308", "1e309", "-1e400", "1e-400", "0e999", "9" * 300, "1" + "0" * 308, "1" + "0" * 309, "9" * 400,
    "9" * 4299, "9" * 4301, "0." + "1" * 4400, "1" * 800 + ".5", "18446744073709551616", "01", "+1", ".5",
    "1.", "1e", "0x10", "1_0", "NaN", "Infinity", "-Infinity", "-", "--1", "1f", "\u0661",
]  # fmt: skip
STRINGS = [
    "", "a", "A", "read_file", "\u212a", "\u017f", "\u0130", "\u0131", "\u00e9", "e\u0301", "\U0001f600",
    "\u2028", "\u2029", "\x7f", "\x80", "\ufeff", "\ufffe", "\uffff", "\0", "\n", '"', "\\", "/",
    "</script>", "\ud800", "\udc00", "\ud83d\ude00", "a\ud800", "__proto__", "1", "01", "-0", "true",
    "null", "[", "{",
]  # fmt: skip
NAMES = [
    "__proto__", "constructor", "toString", "path", "n", "m", "id", "ID", "Id", "name", "Name", "1", "01",
    "", "method", "arguments", "params", "_meta", "k", "\u212a", "s", "\u017f", "i", "\u0131", "\u0130",
    "a\0", "\0",
]  # fmt: skip
TOOLS = [
    "read_file", "a", "delete_file", "Read_File", "x" * 256, "x" * 257, "\u00e9", "=?base64?YQ==?=", "a b",
    " a",
]  # fmt: skip
URIS = [
    "file:///a", "FILE:///a", "https://docs.corp.example/%61?q#f", "x:2", "urn:a b", "file:///a/../b",
    "x" * 9000,
]  # fmt: skip
V = "io.modelcontextprotocol/protocolVersion"

texts = st.sampled_from(STRINGS) | st.text(max_size=5)
numbers = st.sampled_from(NUMBERS).map(Raw) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
plain_numbers = (
    st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
)
scalars = st.none() | st.booleans() | plain_numbers | st.text(max_size=5)
odd_scalars = st.none() | st.booleans() | numbers | texts


def trees(leaves: st.SearchStrategy[Any], names: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Values of JSON over these leaves and member names."""

    def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)

    return st.recursive(leaves, grown, max_leaves=6)


values = trees(scalars, st.sampled_from(["path", "n", "id", "__proto__", "1", "01", "\u00e9", "x"]))
odd_values = trees(odd_scalars, st.sampled_from(NAMES) | st.text(max_size=3))
members = st.dictionaries(
    st.sampled_from(["path", "n", "id", "__proto__", "1", "01", "x"]), values, max_size=3
)
arguments = members | members | st.dictionaries(st.sampled_from(NAMES), odd_values, max_size=3)
WRONG: list[Any] = [
    None, True, False, 0, 1, 1.0, -1, "", "x", [], {}, [{}], [1], {"name": "x"}, 2**53, 1e308, Raw("NaN"),
]  # fmt: skip
EXTRA = [
    ("name", "delete_file"), ("Name", "delete_file"), ("arguments", {"path": "/etc"}), ("Arguments", {}),
    ("method", "tools/list"), ("METHOD", "tools/call"), ("params", {}), ("param\u017f", {"name": "x"}),
    ("id", 2), ("\u0130d", 3), ("uri", "x:2"), ("URI", "x:2"), ("_meta", {}), ("_Meta", {}), ("result", {}),
    ("error", {"code": 1, "message": "x"}), ("jsonrpc", "2.0"), ("cursor", None), ("n\0", 1), ("task", {}),
    ("taskId", "t"), ("TaskId", "t"), ("requestState", "s"), ("inputResponses", {}),
    ("argument", {"name": "x"}), ("ref", {"type": "ref/prompt", "name": "p"}), ("arguments", None),
    ("meta", {}), ("input_responses", {}),
]  # fmt: skip

metas = st.fixed_dictionaries(
    {},
    optional={
        "progressToken": st.sampled_from([1, "t", 0]),
        "traceparent": st.sampled_from(["00-" + "a" * 32 + "-" + "b" * 16 + "-01", "x", 7]),
        "io.modelcontextprotocol/clientInfo": st.just({"name": "a", "version": "1"}),
        "x.example/y": values,
    },
)
_more: dict[str, st.SearchStrategy[Any]] = {
    "_meta": metas,
    "task": st.sampled_from([{}, {"ttl": 60}]),
    "requestState": st.sampled_from(["s", ""]),
    "inputResponses": st.sampled_from([{}, {"a": {"action": "accept", "content": {"b": 1}}}]),
    "other": values,
}
_completion = st.fixed_dictionaries(
    {
        "ref": st.sampled_from(
            [
                *({"type": "ref/prompt", "name": "p"}, {"type": "ref/resource", "uri": "x:{a}"}),
                *(
                    {"type": "ref/prompt", "name": "p", "uri": "x:2"},
                    {"type": "ref/resource", "uri": "x:1", "name": "n"},
                ),
                *(
                    {"type": "ref/Prompt", "name": "p"},
                    {"type": "ref/prompt", "uri": "x:2"},
                    {"type": ["ref/prompt"]},
                ),
            ]
        ),
    },
    optional={
        "argument": st.sampled_from(
            [
                {"name": "a", "value": "b"},
                {"name": "a", "value": 1},
                {"name": 1, "value": "b"},
                {"value": "b"},
                {"name": "a"},
            ]
        ),
        "context": st.sampled_from(
            [
                {},
                {"arguments": {"c": "d"}},
                {"arguments": {"a": "b"}},
                {"arguments": {"a": "z"}},
                {"arguments": {"a": True}},
            ]
        ),
        "_meta": metas,
    },
)
_named = st.fixed_dictionaries(
    {"name": st.sampled_from(TOOLS) | texts}, optional={"arguments": arguments, **_more}
)
_uri = st.fixed_dictionaries({"uri": st.sampled_from(URIS) | texts}, optional=_more)
_task = st.fixed_dictionaries({"taskId": st.sampled_from(["t", ""])}, optional=_more)
_free = st.fixed_dictionaries(
    {}, optional={"cursor": st.sampled_from(["c", ""]), "level": st.just("info"), **_more}
)
_listen = st.fixed_dictionaries(
    {
        "notifications": st.fixed_dictionaries(
            {},
            optional={
                "toolsListChanged": st.just(True),
                "resourceSubscriptions": st.sampled_from([[], ["x:1"], None]),
                "taskIds": st.just(["t"]),
            },
        )
    },
    optional=_more,
)
_start = st.fixed_dictionaries(
    {
        "protocolVersion": st.just("2025-06-18"),
        "capabilities": st.just({}),
        "clientInfo": st.just({"name": "a"}),
    },
    optional=_more,
)
_cancel = st.fixed_dictionaries(
    {"requestId": st.sampled_from([1, "1", 0])}, optional={"reason": texts, "_meta": metas}
)
PARAMS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(["tools/call", "prompts/get"], _named),
    **dict.fromkeys(["resources/read", "resources/subscribe", "resources/unsubscribe"], _uri),
    "completion/complete": _completion,
    **dict.fromkeys(["tasks/get", "tasks/cancel", "tasks/result", "tasks/update", "tasks/list"], _task),
    **dict.fromkeys(
        ["tools/list", "prompts/list", "resources/list", "resources/templates/list", "ping"], _free
    ),
    **dict.fromkeys(
        ["server/discover", "logging/setLevel", "corp.example/own", "Tools/Call", "tools/call "], _free
    ),
    "subscriptions/listen": _listen,
    "initialize": _start,
    **dict.fromkeys(["notifications/cancelled", "notifications/progress"], _cancel),
    **dict.fromkeys(["notifications/initialized", "notifications/own", "notifications/tasks/status"], _free),
}
METHODS = [
    *["tools/call"] * 6, *["prompts/get", "resources/read", "completion/complete"] * 2, *PARAMS,
]  # fmt: skip
_GOOD = [1, 0, -1, "1", "a", "", 2**53 - 1]
ids = st.sampled_from(
    [
        *_GOOD * 9,
        2**53,
        -(2**53),
        Raw("1.0"),
        Raw("-0"),
        Raw("1e2"),
        True,
        None,
        "\ud800",
        "x" * 257,
        [1],
        {},
        10**30,
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """A request or a notification, mostly in shape."""
    method = draw(st.sampled_from(METHODS))
    message: dict[str, Any] = {"jsonrpc": "2.0"}
    if method.startswith("notifications/") is (draw(st.sampled_from([*[False] * 20, True]))):
        message["id"] = draw(ids)
    message["method"] = method
    if method in ("tools/call", "prompts/get", "resources/read") or draw(st.booleans()):
        message["params"] = draw(PARAMS[method])
    return message


_results: st.SearchStrategy[Any] = st.just({}) | st.dictionaries(st.sampled_from(NAMES), values, max_size=2)
_errors = st.sampled_from(
    [
        *({"code": -1, "message": "no"}, {"code": -32042, "message": "no", "data": {"a": [1]}}, {"code": 1}),
        *(
            {"code": Raw("1.0"), "message": "no"},
            {"code": 10**30, "message": ""},
            {"code": True, "message": "x"},
        ),
    ]
)
_envelope: dict[str, st.SearchStrategy[Any]] = {"jsonrpc": st.just("2.0"), "id": ids}
responses = st.fixed_dictionaries({**_envelope, "result": _results}) | st.fixed_dictionaries(
    {**_envelope, "error": _errors}
)
