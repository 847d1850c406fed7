# ruff: noqa: E501  (one file or case per line reads best)
"""Lints: what loads but cannot have been meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.policy.house import CREDENTIALS, IDENTITIES, SERVERS, load, rules

GRANT = '  - {id: all, effect: allow, who: ["group:engineering"]}\n'
SPARE = "  - {id: spare, source: {env: X}, inject: {bearer: {}}, bind: {hosts: [h.example]}}\n"
CLEAR = "  - {id: clear, url: 'http://h.corp.example/mcp'}\n"
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
