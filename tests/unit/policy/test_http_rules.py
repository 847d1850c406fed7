# ruff: noqa: E501  (one rule or case per line reads best)
"""Rules for HTTP APIs: grants, guards, and conditions on query and body."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callerid.model import Ceiling, Decision, Kind, Reason
from tests.unit.policy.house import NOW, SERVERS, World, rules, world

WITH_API = (
    SERVERS + "  - {id: billing, kind: http, url: https://billing.corp.example/, labels: {env: prod}}\n"
)
POLICY = rules("""\
  - {id: reads, effect: allow, who: ["group:support"], servers: [billing], tools: ["http:GET /v1/**"]}
  - {id: refunds, effect: allow, who: ["group:support"], servers: [billing], tools: ["http:POST /v1/refunds"]}
  - {id: tools-only, effect: allow, who: ["group:interns"], servers: [billing], tools: ["*"]}
  - {id: all-of-it, effect: allow, who: ["group:engineering"], servers: [billing]}
  - {id: no-secrets, effect: deny, tools: ["http:* /v1/keys/**"], reason: Keys are not read here.}
  - {id: small-pages, effect: require, servers: [billing], tools: ["http:GET /v1/charges"], args: {/query/limit: {regex: "[0-9]{1,2}", optional: true}}}
  - {id: refund-ceiling, effect: require, servers: [billing], tools: ["http:POST /v1/refunds"], args: {/body/amount: {type: number, gt: 0, le: 100}}}
  - {id: own-account, effect: require, servers: [billing], tools: ["http:GET /v1/accounts"], args: {/headers/stripe-account: {glob: "acct_ours_*"}}}
  - {id: no-root, effect: deny, servers: [billing], tools: ["http:GET /v1/charges"], args: {/headers/as-account: {eq: acct_root, optional: true}}}
  - {id: no-test-mode, effect: deny, servers: [billing], tools: ["http:POST /v1/refunds"], args: {/body/test: {eq: true, optional: true}}}
""")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("api"), POLICY, servers=WITH_API)


def ask(api: World, who: str, name: str, arguments: dict[str, Any] | None = None, **extra: Any) -> Decision:
    method = f"http/{name.partition(' ')[0]}"
    return api.ask(who, "billing", name, arguments, kind=Kind.HTTP, method=method, **extra)


GOOD: dict[str, Any] = {"query": {}, "body": {"amount": 40, "test": False}}


@pytest.mark.parametrize(
    ("who", "name", "arguments", "reason", "rule"),
    [
        pytest.param("sam", "GET /v1/charges/ch_1", None, Reason.GRANTED, "reads", id="a read"),
        pytest.param("sam", "GET /v1/charges/ch_1/", None, Reason.GRANTED, "reads", id="any depth, with a slash"),
        pytest.param("sam", "HEAD /v1/charges/ch_1", None, Reason.NO_GRANT, None, id="a method that is not granted"),
        pytest.param("sam", "get /v1/charges/ch_1", None, Reason.NO_GRANT, None, id="a method in other letters"),
        pytest.param("sam", "GET /v2/charges", None, Reason.NO_GRANT, None, id="a path that is not granted"),
        pytest.param("sam", "GET /v1/../v2", None, Reason.RULE_DENIED, "no-secrets", id="a path in doubt meets the guards"),
        pytest.param("sam", "GET /v1/keys", None, Reason.RULE_DENIED, "no-secrets", id="a guard on every method"),
        pytest.param("alice", "PATCH /v1/keys/k", None, Reason.RULE_DENIED, "no-secrets", id="whoever has a grant"),
        pytest.param("alice", "DELETE /anything", None, Reason.GRANTED, "all-of-it", id="an allow without tools is about all calls"),
        pytest.param("ivy", "GET /v1/charges/ch_1", None, Reason.NO_GRANT, None, id="a star grants tools and no calls"),
        pytest.param("sam", "POST /v1/refunds", GOOD, Reason.GRANTED, "refunds", id="a body as it should be"),
        pytest.param("sam", "POST /v1/refunds", {"query": {}, "body": {"amount": 140}}, Reason.REQUIREMENT_FAILED, "refund-ceiling", id="an amount that is too high"),
        pytest.param("sam", "POST /v1/refunds", {"query": {}, "body": {"amount": "40"}}, Reason.REQUIREMENT_FAILED, "refund-ceiling", id="an amount that is text"),
        pytest.param("sam", "POST /v1/refunds", {"query": {}, "body": [40]}, Reason.RULE_DENIED, "no-test-mode", id="a body that is a list"),
        pytest.param("sam", "POST /v1/refunds", {"query": {}, "body": {"amount": 40, "test": True}}, Reason.RULE_DENIED, "no-test-mode", id="a flag that is denied"),
        pytest.param("sam", "POST /v1/refunds", {"query": {}}, Reason.RULE_DENIED, "no-test-mode", id="a body that was not read is no missing flag"),
        pytest.param("sam", "POST /v1/refunds/", GOOD, Reason.NO_GRANT, None, id="a slash too many is not granted"),
        pytest.param("sam", "POST /v1/refunds/", {"query": {}, "body": {"amount": 140, "test": False}}, Reason.REQUIREMENT_FAILED, "refund-ceiling", id="and is guarded"),
        pytest.param("sam", "post /v1/refunds", {"query": {}, "body": {"amount": 140, "test": False}}, Reason.REQUIREMENT_FAILED, "refund-ceiling", id="a method in lower case is guarded"),
        pytest.param("sam", "GET /v1/charges", {"query": {"limit": "50"}}, Reason.GRANTED, "reads", id="a query as it should be"),
        pytest.param("sam", "GET /v1/accounts", {"headers": {"stripe-account": "acct_ours_1"}}, Reason.GRANTED, "reads", id="a header as it should be"),
        pytest.param("sam", "GET /v1/accounts", {"headers": {"stripe-account": "acct_2"}}, Reason.REQUIREMENT_FAILED, "own-account", id="a header that is not"),
        pytest.param("sam", "GET /v1/accounts", {"headers": {"stripe-account": ["acct_ours_1", "acct_2"]}}, Reason.REQUIREMENT_FAILED, "own-account", id="a header twice"),
        pytest.param("sam", "GET /v1/accounts", {}, Reason.REQUIREMENT_FAILED, "own-account", id="a header that is not there"),
        pytest.param("sam", "GET /v1/charges", {"headers": {"as-account": ["acct_1", "acct_root"]}}, Reason.RULE_DENIED, "no-root", id="a guard on a header, behind another"),
        pytest.param("sam", "GET /v1/charges", {"headers": {"as-account": "acct_1"}}, Reason.GRANTED, "reads", id="a guard on a header, and another value"),
        pytest.param("sam", "GET /v1/charges", {"query": {}}, Reason.GRANTED, "reads", id="a query that may be left out"),
        pytest.param("sam", "GET /v1/charges", {"query": {"limit": "500"}}, Reason.REQUIREMENT_FAILED, "small-pages", id="a query that is too much"),
        pytest.param("sam", "GET /v1/charges", {"query": {"limit": ["5", "500"]}}, Reason.REQUIREMENT_FAILED, "small-pages", id="a query twice"),
        pytest.param("sam", "GET /v1/charges", {"query": {"LIMIT": "500"}}, Reason.REQUIREMENT_FAILED, "small-pages", id="an optional parameter in other letters is not left out"),
        pytest.param("sam", "GET /v1/charges", {"query": {"limit[]": "500"}}, Reason.REQUIREMENT_FAILED, "small-pages", id="nor with brackets"),
        pytest.param("sam", "GET /v1/charges", {"query": {" limit": "500"}}, Reason.REQUIREMENT_FAILED, "small-pages", id="nor behind a blank"),
        pytest.param("sam", "GET /v1/charges", {"query": {"limit.max": "500"}}, Reason.REQUIREMENT_FAILED, "small-pages", id="nor with a part of it"),
        pytest.param("sam", "GET /v1/charges", {"query": {"limits": "500"}}, Reason.GRANTED, "reads", id="another parameter is another"),
        pytest.param("sam", "GET", None, Reason.RULE_DENIED, "no-secrets", id="no path at all"),
    ],
)  # fmt: skip
def test_calls_of_an_api(
    api: World, who: str, name: str, arguments: dict[str, Any] | None, reason: Reason, rule: str | None
) -> None:
    decision = ask(api, who, name, arguments)
    assert (decision.reason, decision.rule) == (reason, rule)


def test_an_optional_condition_on_a_body_that_was_not_read_never_helps(tmp_path: Path) -> None:
    """Else a form would get past a ceiling that is written for JSON."""
    made = world(
        tmp_path,
        rules("""\
  - {id: pay, effect: allow, who: [anyone], servers: [billing], tools: ["http:POST /pay"]}
  - {id: cap, effect: require, servers: [billing], tools: ["http:POST /pay"], args: {/body/amount: {le: 100, optional: true}}}
"""),
        servers=WITH_API,
    )
    assert ask(made, "sam", "POST /pay", {"query": {}, "body": {}}).reason is Reason.GRANTED
    assert ask(made, "sam", "POST /pay", {"query": {}}).reason is Reason.REQUIREMENT_FAILED


def test_explain_says_that_the_body_was_not_read(api: World) -> None:
    said = api.engine.explain(
        caller=api.caller("sam"), server=api.servers["billing"], kind=Kind.HTTP, method="http/POST",
        name="POST /v1/refunds", arguments={"query": {}}, now=NOW,
    )  # fmt: skip
    ceiling = next(say for say in said.rules if say.rule == "refund-ceiling")
    assert [(p.name, p.answer, p.seen) for p in ceiling.predicates] == [
        ("args /body/amount", "unknown", "unread")
    ]
    assert said.decider is not None
    assert said.decider.rule == "no-test-mode"


@pytest.mark.parametrize(
    ("tools", "reason"),
    [
        pytest.param(("*",), Reason.OUTSIDE_SCOPE, id="a ceiling of tools leaves no calls inside"),
        pytest.param(("http:GET /v1/charges/*",), Reason.GRANTED, id="a ceiling that names the call"),
        pytest.param(("http:GET /v1/refunds/*",), Reason.OUTSIDE_SCOPE, id="a ceiling that names another"),
        pytest.param(("http:get /v1/charges/*",), Reason.OUTSIDE_SCOPE, id="a ceiling that is no selector"),
        pytest.param(None, Reason.GRANTED, id="no ceiling"),
    ],
)
def test_tokens_and_agents_narrow_calls(api: World, tools: tuple[str, ...] | None, reason: Reason) -> None:
    decision = ask(api, "sam", "GET /v1/charges/ch_1", ceilings=(Ceiling(origin="token:t", tools=tools),))
    assert decision.reason is reason


def test_a_call_is_hidden_when_no_arguments_could_make_it_good(api: World) -> None:
    assert ask(api, "sam", "DELETE /v1/charges/ch_1").hidden
    assert not ask(api, "sam", "POST /v1/refunds", {"query": {}, "body": {"amount": 140}}).hidden
    assert api.sees("sam", "billing", "GET /v1/charges", kind=Kind.HTTP)
    assert not api.sees("sam", "billing", "GET /v1/keys/k", kind=Kind.HTTP)
    assert not api.sees("ivy", "billing", "GET /v1/charges", kind=Kind.HTTP)


def test_a_selector_of_calls_says_nothing_about_tools(api: World) -> None:
    assert api.ask("sam", "billing", "GET /v1/x", kind=Kind.TOOL).reason is Reason.NO_GRANT
    assert (
        api.ask("sam", "billing", "GET /v1/x", kind=Kind.RESOURCE, method="resources/read").reason
        is Reason.NO_GRANT
    )
