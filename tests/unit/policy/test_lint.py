# ruff: noqa: E501  (one file or case per line reads best)
"""Lints: what loads but cannot have been meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.policy.house import CREDENTIALS, IDENTITIES, SERVERS, load, rules

HOP = """\
client_cas: [{id: mesh, file: ca.pem, principal_from: san_uri}]
trusted_hops: [{id: envoy, peer_cert_san: "spiffe://corp.example/envoy", accept: ACCEPT}]
"""
GRANT = '  - {id: all, effect: allow, who: ["group:engineering"]}\n'
SPARE = "  - {id: spare, source: {env: X}, inject: {bearer: {}}, bind: {hosts: [h.example]}}\n"
SAID = "  - {{id: {}, url: '{}://{}/mcp', assertion: {{{}}}}}\n"
CLEAR = "  - {id: clear, url: 'http://h.corp.example/mcp'}\n"
API = "  - {id: api, kind: http, url: 'https://api.corp.example/', labels: {env: prod}}\n"
APART = SERVERS.replace("payments.corp.example/,", "payments.corp.example/mcp,")
CHARGES = (
    "  - {id: charges, kind: http, url: 'https://payments.corp.example/v1', credential: payments-shared}\n"
)
LENDER = (
    "{oauth_refresh_token: {token_url: 'https://login.corp.example/token', client_id: a, client_secret: app}}"
)
EXCHANGE = "{token_exchange: {token_url: 'https://login.corp.example/token', client_id: a}}"
LENT = "  - {id: app, source: {file: /run/app}, inject: {basic: {username: a}}, bind: {hosts: [login.corp.example]}}\n"
NO_IDP = IDENTITIES.replace(", groups: groups", "").replace('["user:ivy@corp.example"]', "[]")


@pytest.mark.parametrize(
    ("files", "warning"),
    [
        pytest.param({"policy": rules(GRANT)}, None, id="nothing to say"),
        pytest.param({"policy": rules(GRANT, "mode: monitor\n")}, "policy.yaml:2: mode: monitor refuses nothing",
                     id="a file that enforces nothing"),
        pytest.param({"policy": rules(GRANT, "sets: {a: [x]}\n")}, "policy.yaml:2: no rule uses the set 'a'",
                     id="a set without use"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: allow, who: [anyone]}\n")},
                     "policy.yaml:4: rule 'r' allows everything to anyone", id="everything to anyone"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: allow, who: [anyone], tools: [a]}\n")}, None,
                     id="one tool to anyone"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: require, args: {a: {le: 1}}}\n")},
                     "policy.yaml:4: rule 'r' asks for arguments of every tool", id="a guard on every tool"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: require, tools: [t], args: {a: {glob: '/srv/*'}}}\n")},
                     "policy.yaml:4: rule 'r': glob on a path also matches /../ in it", id="a glob on a path"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: require, tools: [t], args: {a: {regex: '^/srv/.*'}}}\n")},
                     "policy.yaml:4: rule 'r': regex on a path also matches /../ in it", id="a regex on a path"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: allow, who: ['user:Bob@corp.example'], tools: [t]}\n"),
                      "identities": IDENTITIES + "blocked: ['user:bob@Corp.example']\n"},
                     "policy.yaml:4: rule 'r': 'user:Bob@corp.example' is blocked in identities.yaml", id="a grant to somebody blocked"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: deny, who: ['user:bob@corp.example'], tools: [t]}\n"),
                      "identities": IDENTITIES + "blocked: ['user:bob@corp.example']\n"}, None, id="a guard for somebody blocked"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: allow, who: ['workload:ci'], tools: [t]}\n")},
                     "policy.yaml:4: rule 'r': no workload 'ci' in identities.yaml", id="an unknown workload"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: allow, who: ['workload:ci-docs'], tools: [t]}\n")},
                     None, id="a known workload"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: allow, who: ['user:bob@corp.example'], tools: [x]}\n"
                                      "  - {id: d, effect: deny, tools: [x, y]}\n")},
                     "policy.yaml:4: rule 'r' is dead: 'd' denies everything that it allows", id="a dead grant"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: allow, who: ['user:bob@corp.example'], tools: [x, 'z*']}\n"
                                      "  - {id: d, effect: deny, tools: [x, y]}\n")}, None, id="a grant half dead"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: allow, who: ['user:bob@corp.example'], tools: [x]}\n"
                                      "  - {id: d, effect: deny, mode: monitor, tools: [x]}\n")}, None,
                     id="a deny on trial kills nothing"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: allow, who: ['user:bob@corp.example'], tools: [x]}\n"
                                      "  - {id: d, effect: deny, who: ['group:interns'], tools: [x]}\n")}, None,
                     id="a deny for others kills nothing"),
        pytest.param({"policy": rules("  - {id: r, effect: allow, who: ['group:engineering'], servers: [files, github, payments]}\n")},
                     "servers.yaml:6: no rule allows anything on server 'sandbox'", id="a server without a grant"),
        pytest.param({"policy": rules(GRANT), "servers": SERVERS + SAID.format("a", "https", "a.example", "audience: x")
                      + SAID.format("b", "https", "b.example", "audience: x")},
                     "servers.yaml:8: server 'b' has the same assertion audience as 'a': each can pose as its callers",
                     id="one audience at two servers"),
        pytest.param({"policy": rules(GRANT), "servers": SERVERS + SAID.format("a", "https", "a.example", "")
                      + SAID.format("b", "https", "b.example", "audience: 'https://a.example/mcp'")},
                     "servers.yaml:8: server 'b' has the same assertion audience as 'a'", id="an audience that is another's URL"),
        pytest.param({"policy": rules(GRANT), "servers": SERVERS + SAID.format("a", "https", "a.example", "")
                      + SAID.format("b", "https", "b.example", "")}, None, id="audiences of their own"),
        pytest.param({"policy": rules(GRANT), "servers": SERVERS + SAID.format("b", "http", "127.0.0.1:1", "")}, None,
                     id="an assertion on this machine"),
        *(pytest.param({"policy": rules(GRANT + f"  - {{id: r, effect: require, tools: ['http:GET /x'], args: {{/headers/{name}: {{eq: a}}}}}}\n"),
                        "servers": SERVERS + API.replace("labels", "headers: [X-Acct], labels")}, said, id=f"a condition on the header {name}")
          for name, said in [("x-acct", None), ("X-Acct", "policy.yaml:4: rule 'r': the header 'X-Acct' is an argument of no server"),
                             ("x-other", "policy.yaml:4: rule 'r': the header 'x-other' is an argument of no server")]),
        *(pytest.param({"policy": rules(GRANT), "servers": SERVERS + SAID.format(name, "https", host, "")}, said, id=f"{name} at {host}")
          for name, host, said in [
              ("api.corp.example", "h.example", "servers.yaml:7: server 'api.corp.example' has the name of a place"),
              ("10.1.2.3", "h.example", "servers.yaml:7: server '10.1.2.3' has the name of a place"),
              ("localhost", "h.example", "servers.yaml:7: server 'localhost' has the name of a place"),
              ("callerid", "h.example", "servers.yaml:7: server 'callerid' has the name of a place"),
              ("h.example", "h.example:8443", "servers.yaml:7: server 'h.example' has the name of a place"),
              ("h.example", "h.example", None),
              ("files.v2", "h.example", None),
          ]),
        pytest.param({"policy": rules(GRANT), "servers": SERVERS + CLEAR},
                     "servers.yaml:7: calls to server 'clear' travel in the clear", id="not https"),
        pytest.param({"policy": rules(GRANT), "credentials": CREDENTIALS + SPARE},
                     "credentials.yaml:7: no server uses credential 'spare'", id="a credential without use"),
        pytest.param({"policy": rules(GRANT), "credentials": CREDENTIALS.replace("{file: /run/secrets/payments}", "{env: PAYMENTS}")},
                     "credentials.yaml:4: credential 'payments-shared' comes from the environment, so server 'payments' needs a restart for a new secret",
                     id="a secret of production that cannot be changed"),
        pytest.param({"policy": rules(GRANT), "servers": SERVERS.replace("labels: {env: prod}, credential", "labels: {env: dev}, credential"),
                      "credentials": CREDENTIALS.replace("{file: /run/secrets/payments}", "{env: PAYMENTS}")}, None,
                     id="a secret of a trial in the environment"),
        pytest.param({"policy": rules(GRANT), "credentials": CREDENTIALS.replace("{bearer: {}}", "{query: {name: key}}")},
                     "credentials.yaml:5: credential 'payments-shared' goes into the URL, which servers write to their access logs",
                     id="a secret in the URL"),
        pytest.param({"policy": rules(GRANT), "credentials": CREDENTIALS.replace("{bearer: {}}", "{replace: {place: 'query:key'}}")},
                     "credentials.yaml:5: credential 'payments-shared' goes into the URL", id="a secret put into the URL"),
        pytest.param({"policy": rules(GRANT), "credentials": CREDENTIALS.replace("{file: /run/secrets/payments}", "{exec: [vault-cli, '--token=abc']}")},
                     "credentials.yaml:4: credential 'payments-shared' has what may be a secret among the words of its command",
                     id="a secret on a command line"),
        pytest.param({"policy": rules(GRANT), "credentials": CREDENTIALS.replace("{file: /run/secrets/payments}", "{exec: [vault-cli, '--token-file=/run/t']}")},
                     None, id="a file on a command line"),
        pytest.param({"policy": rules(GRANT), "credentials": CREDENTIALS.replace("{bearer: {}}", EXCHANGE)}, None,
                     id="an exchange of JWTs"),
        pytest.param({"policy": rules(GRANT), "credentials": CREDENTIALS.replace("{bearer: {}}", EXCHANGE),
                      "identities": "version: 1\ngroups: {engineering: {members: ['user:a@corp.example']}}\n"},
                     "credentials.yaml:5: credential 'payments-shared' exchanges the JWT of the caller, and no issuer of JWTs",
                     id="an exchange of JWTs that nobody has"),
        pytest.param({"policy": rules(GRANT), "credentials": CREDENTIALS.replace("{bearer: {}}", LENDER) + LENT}, None,
                     id="a client secret that another entry uses"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: allow, who: ['group:interns'], servers: [api], tools: ['http:GET /**']}\n"),
                      "servers": SERVERS + API}, None, id="calls of an API"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: allow, who: ['group:interns'], servers: [api], tools: ['get_*']}\n"),
                      "servers": SERVERS + API},
                     "policy.yaml:4: rule 'r': 'get_*' is about MCP, and its servers are HTTP APIs", id="tools of an API"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: allow, who: ['group:interns'], servers: [api], tools: ['set:reads']}\n", "sets: {reads: ['get_*']}\n"),
                      "servers": SERVERS + API},
                     "policy.yaml:5: rule 'r': 'set:reads' is about MCP, and its servers are HTTP APIs", id="a set of tools for an API"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: deny, servers: [files], tools: ['http:GET /**']}\n"),
                      "servers": SERVERS + API},
                     "policy.yaml:4: rule 'r': 'http:GET /**' is about HTTP APIs, and its servers speak MCP", id="calls of an MCP server"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: deny, tools: ['http:GET /**']}\n")},
                     "policy.yaml:4: rule 'r': 'http:GET /**' is about HTTP APIs, and the servers speak MCP", id="calls without any API"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: deny, servers: [files, api], tools: [purge]}\n"),
                      "servers": SERVERS + API},
                     "policy.yaml:4: rule 'r' says nothing about server 'api', which is an HTTP API", id="an API among MCP servers"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: deny, servers: [files, api], tools: ['http:DELETE /**']}\n"),
                      "servers": SERVERS + API},
                     "policy.yaml:4: rule 'r' says nothing about server 'files', which speaks MCP", id="an MCP server among APIs"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: deny, servers: ['label:env=prod'], tools: [purge]}\n"),
                      "servers": SERVERS + API}, None, id="an API that has the label"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: deny, servers: [files, api], tools: ['set:both']}\n", "sets: {both: [purge, 'http:DELETE /**']}\n"),
                      "servers": SERVERS + API}, None, id="a set for both"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: allow, who: ['user:bob@corp.example'], servers: [api], tools: ['http:GET /a']}\n"
                                      "  - {id: d, effect: deny, tools: ['http:GET /a', 'http:GET /b']}\n"), "servers": SERVERS + API},
                     "policy.yaml:4: rule 'r' is dead: 'd' denies everything that it allows", id="a dead grant of calls"),
        *(pytest.param({"policy": rules(GRANT + "  - {id: r, effect: allow, who: ['group:interns'], servers: [charges], tools: ['" + call + "']}\n"),
                        "servers": APART + CHARGES}, said and f"policy.yaml:4: rule 'r' grants {said}", id=call)
          for call, said in (("http:PATCH /v1/x", "PATCH on 'charges', whose credential is not bound to that method"),
                             ("http:GET /v2/**", "'/v2/**', which is outside of 'https://payments.corp.example/v1'"),
                             ("http:GET /charges", "'/charges', which is outside of"),
                             ("http:GET /v1/x", None), ("http:* /**", None), ("http:DELETE /*/x", None))),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: allow, who: ['group:interns'], tools: ['http:PATCH /v2/x']}\n"),
                      "servers": APART + CHARGES + API}, None, id="calls of some API"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: deny, servers: [charges], tools: ['http:PATCH /v2/**']}\n"),
                      "servers": APART + CHARGES}, None, id="a guard on calls that never go out"),
        pytest.param({"policy": rules(GRANT + "  - {id: r, effect: allow, who: ['group:interns'], tools: [t]}\n"),
                      "identities": NO_IDP},
                     "policy.yaml:4: rule 'r': nobody is in 'group:interns'", id="a rule for nobody"),
    ],
)  # fmt: skip
def test_lints(tmp_path: Path, files: dict[str, str], warning: str | None) -> None:
    found = [f"{p.file}:{p.line}: {p.message}" for p in load(tmp_path, **files).warnings]
    if warning is None:
        assert found == []
    else:
        assert len(found) == 1
        assert found[0].startswith(warning)


@pytest.mark.parametrize(("accept", "count"), [("[client-cert, xfcc]", 1), ("[xfcc]", 0)])
def test_a_hop_of_which_both_headers_are_read_is_told(tmp_path: Path, accept: str, count: int) -> None:
    (tmp_path / "ca.pem").write_text("x")
    identities = IDENTITIES + HOP.replace("ACCEPT", accept)
    found = load(tmp_path, policy=rules(GRANT), identities=identities).warnings
    assert len(found) == count
    assert all("trusted hop 'envoy' must write both headers itself" in p.message for p in found)


def test_an_assertion_in_the_clear_is_told_besides_the_calls(tmp_path: Path) -> None:
    servers = SERVERS + SAID.format("b", "http", "b.example", "")
    found = [
        f"{p.file}:{p.line}: {p.message}"
        for p in load(tmp_path, policy=rules(GRANT), servers=servers).warnings
    ]
    assert found == [
        "servers.yaml:7: calls to server 'b' travel in the clear",
        "servers.yaml:7: server 'b' is told who calls in the clear: whoever listens can repeat it",
    ]
