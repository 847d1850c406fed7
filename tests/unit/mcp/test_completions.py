from __future__ import annotations

from typing import Any

import pytest

from callerid.mcp.completions import filter_completion, has_completion
from callerid.model import Kind, Message
from tests.unit.mcp.pipeline_bench import asked


def complete(template: str, **arguments: Any) -> Message:
    return asked("completion/complete", kind=Kind.RESOURCE, name=template, arguments=arguments)


PROMPT = asked("completion/complete", kind=Kind.PROMPT, name="review", arguments={"file": ""})


def seen(*visible: str) -> Any:
    def is_visible(kind: Kind, name: str) -> bool:
        assert kind is Kind.RESOURCE
        return name in visible

    return is_visible


CASES = [
    pytest.param(
        complete("docs://{id}", id="p"), ["plan", "pay"], {"docs://plan"}, ["plan"], id="by template"
    ),
    pytest.param(
        complete("docs://{id}", id=""), ["a/b", "a b"], {"docs://a%2Fb"}, ["a/b"], id="a slash is escaped"
    ),
    pytest.param(
        complete("docs://{+id}", id=""), ["a/b", "c/d"], {"docs://a/b"}, ["a/b"], id="reserved expansion"
    ),
    pytest.param(
        complete("docs://x{#id}", id=""), ["a", "b"], {"docs://x#a"}, ["a"], id="fragment expansion"
    ),
    pytest.param(
        complete("git://{owner}/{name}", owner="acme", name="c"),
        ["core", "cash"],
        {"git://acme/core"},
        ["core"],
        id="the last argument is the one being typed",
    ),
    pytest.param(
        complete("git://{owner}/{name}", name="c"), ["core"], set(), ["core"], id="a variable without a value"
    ),
    pytest.param(complete("docs://{/id}", id=""), ["a"], set(), ["a"], id="an expression of level 3"),
    pytest.param(complete("docs://{id", id=""), ["a"], set(), ["a"], id="a template that is none"),
    pytest.param(complete("docs://all", id=""), ["a"], set(), ["a"], id="a template without the variable"),
    pytest.param(complete("docs://{id}"), ["a"], set(), ["a"], id="no argument"),
    pytest.param(
        complete("memo:{id}", id=""), ["memo:x", "y"], {"memo:y"}, ["y"], id="a URI in the template's scheme"
    ),
    pytest.param(
        complete("{+uri}", uri=""),
        ["docs://a", "docs://b"],
        {"docs://a"},
        ["docs://a"],
        id="the value is the URI",
    ),
    pytest.param(PROMPT, ["docs://a", "docs://b"], {"docs://b"}, ["docs://b"], id="URIs in a prompt"),
    pytest.param(
        PROMPT,
        ["alice", "std::map", "12:30", "a b"],
        set(),
        ["alice", "std::map", "12:30", "a b"],
        id="words",
    ),
    pytest.param(None, ["DOCS://a", "b"], set(), ["b"], id="a request that is not known"),
    pytest.param(None, [7, {"name": "x"}, "b"], set(), ["b"], id="values that are no strings"),
]


@pytest.mark.parametrize(("request_", "values", "visible", "kept"), CASES)
def test_values_that_name_hidden_resources_go(
    request_: Message | None, values: list[Any], visible: set[str], kept: list[str]
) -> None:
    made = filter_completion(request_, {"values": values}, seen(*visible))
    assert made == (None if kept == values else {"values": kept})


@pytest.mark.parametrize(
    ("more", "left"),
    [
        pytest.param({}, {}, id="nothing said"),
        pytest.param({"total": 2}, {}, id="a total counts what is hidden"),
        pytest.param({"total": 2, "hasMore": False}, {"hasMore": False}, id="no more is still no more"),
        pytest.param({"total": 90, "hasMore": True}, {"hasMore": True}, id="more is still more"),
        pytest.param({"total": 90}, {"hasMore": True}, id="a total that said there was more"),
        pytest.param({"total": "90"}, {}, id="a total that is no number"),
    ],
)
def test_what_is_said_of_the_rest_stays_honest(more: dict[str, Any], left: dict[str, Any]) -> None:
    completion = {"values": ["docs://a", "b"], **more}
    assert filter_completion(None, completion, seen()) == {"values": ["b"], **left}
    assert filter_completion(None, {"values": ["b"], **more}, seen()) is None


def test_values_that_are_no_list_become_one() -> None:
    assert filter_completion(None, {"values": {"docs://a": 1}}, seen()) == {"values": []}


def test_a_completion_is_known_by_its_method_and_by_its_shape() -> None:
    assert has_completion("completion/complete", {"completion": {}})
    assert has_completion(None, {"completion": {"values": []}})
    assert not has_completion(None, {"completion": {"values": "x"}})
    assert not has_completion("completion/complete", {"completion": []})
    assert not has_completion("completion/complete", {})
