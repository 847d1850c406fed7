# ruff: noqa: E501  (one file or case per line reads best)
"""Lints: what loads but cannot have been meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.policy.house import CREDENTIALS, IDENTITIES, SERVERS, load, rules

GRANT = '  - {id: all, effect: allow, who: ["group:engineering"]}\n'
SPARE = "  - {id: spare, source: {env: X}, inject: {bearer: {}}, bind: {hosts: [h.example]}}\n"
CLEAR = "  - {id: clear, url: 'http://h.corp.example/mcp'}\n"
API = "  - {id: api, kind: http, url: 'https://api.corp.example/', labels: {env: prod}}\n"
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
