# ruff: noqa: E501  (one file or case per line reads best)
"""servers.yaml and credentials.yaml: what they become, and whether a credential has a place to go."""

from __future__ import annotations

from pathlib import Path

import pytest

from callerid.config import Binding, Credential, Server
from tests.unit.policy.house import faults, load, told

NOBODY = "version: 1\n"


def alone(folder: Path, servers: str, credentials: str = NOBODY) -> list[str]:
    found = faults(folder, identities=NOBODY, servers=f"version: 1\n{servers}\n", credentials=credentials)
    return told(found)


def credential(rest: str) -> str:
    return f"version: 1\ncredentials:\n  - {{id: c, {rest}}}\n"


BOUND = "source: {file: /run/c}, inject: {bearer: {}}, bind: {hosts: [h.example], paths: ['/mcp/**']}"


def test_a_server_becomes_its_one_spelling(tmp_path: Path) -> None:
    servers = (
        "version: 1\nservers:\n"
        "  - {id: a, url: HTTPS://H.Example.:8443/mcp, labels: {env: prod}, targets: {read: /a/b}}\n"
        "  - {id: b, url: 'http://[::1]:80'}\npassthrough: [Bank.Example., '[::2]']\n"
    )
    made = load(tmp_path, identities=NOBODY, servers=servers, credentials=NOBODY).servers
    assert made.servers == (
        Server(id="a", scheme="https", host="h.example", port=8443, path="/mcp", labels={"env": "prod"},
               targets={"read": "/a/b"}),
        Server(id="b", scheme="http", host="::1", port=80, path="/"),
    )  # fmt: skip
    assert made.passthrough == {"bank.example", "::2"}


@pytest.mark.parametrize(
    ("servers", "problem"),
    [
        pytest.param("servers: [{id: a, url: 'https://u:hunter2@h.example/'}]",
                     "2:24: url: a URL with a user or a password in it is refused", id="a password"),
        pytest.param("servers: [{id: a, url: 'https://h.example/a/../b'}]",
                     "2:24: url: the path is not in its one spelling", id="dot segments"),
        pytest.param("servers: [{id: a, url: 'https://h.example/?a'}]",
                     "2:24: url: a URL with a query or a fragment is refused", id="a query"),
        pytest.param("servers: [{id: a, url: 'https://h.example/'}, {id: a, url: 'https://i.example/'}]",
                     "2:52: duplicate id 'a' (first at line 2)", id="an id twice"),
        pytest.param("servers: [{id: a, url: 'https://h.example/mcp'}, {id: b, url: 'https://H.example:443/mcp/x'}]",
                     "2:63: server 'b' overlaps server 'a': a request could be for both", id="two in one place"),
        pytest.param("servers: [{id: a, url: 'https://h.example:80/mcp'}, {id: b, url: 'http://h.example/mcp'}]",
                     "2:66: server 'b' overlaps server 'a': a request could be for both", id="on one port"),
        pytest.param("servers: [{id: a, url: 'https://h.example/mcp', targets: {t: '/a~2'}}]",
                     "2:62: this is not a JSON pointer", id="a broken pointer"),
        pytest.param("servers: []\npassthrough: ['*.bank.example']",
                     "3:15: '*.bank.example': a host is exact here, wildcards are not supported", id="a wildcard"),
        pytest.param("servers: []\npassthrough: ['bank.example:443']",
                     "3:15: 'bank.example:443': this is not a host name", id="a port"),
        pytest.param("servers: [{id: a, url: 'https://h.example/mcp'}]\npassthrough: [H.example]",
                     "3:15: 'h.example' is the host of server 'a', which needs its TLS opened",
                     id="a governed host that stays closed"),
        pytest.param("servers: [{id: a, url: 'https://h.example/mcp', credential: c}]",
                     "2:61: unknown credential 'c'", id="an unknown credential"),
    ],
)  # fmt: skip
def test_faults_of_servers(tmp_path: Path, servers: str, problem: str) -> None:
    found = faults(tmp_path, identities=NOBODY, servers=f"version: 1\n{servers}\n", credentials=NOBODY)
    assert told(found) == [f"servers.yaml:{problem}"]
    assert "hunter2" not in "\n".join(map(str, found))


def test_neighbours_do_not_overlap(tmp_path: Path) -> None:
    assert (
        alone(
            tmp_path, "servers: [{id: a, url: 'https://h.example/a'}, {id: b, url: 'https://h.example/ab'}]"
        )
        == []
    )


@pytest.mark.parametrize(
    ("text", "made"),
    [
        (
            "source: {env: FILES_KEY}, inject: {bearer: {}}, bind: {hosts: [H.Example., 'i.example:8443']}",
            Credential(id="c", source_kind="env", source="FILES_KEY", inject="bearer",
                       binding=Binding(hosts=frozenset({("h.example", 443), ("i.example", 8443)}))),
        ),
        (
            "source: {file: /run/c}, inject: {basic: {username: svc}}, bind: {hosts: [h.example], paths: [/mcp], methods: [POST]}",
            Credential(id="c", source_kind="file", source="/run/c", inject="basic", template="Basic {secret}",
                       username="svc", binding=Binding(hosts=frozenset({("h.example", 443)}), paths=("/mcp",),
                                                       methods=frozenset({"POST"}))),
        ),
        (
            "source: {file: /run/c}, inject: {header: {name: X-Api-Key}}, bind: {hosts: [h.example]}",
            Credential(id="c", source_kind="file", source="/run/c", inject="header", header="X-Api-Key",
                       template="{secret}", binding=Binding(hosts=frozenset({("h.example", 443)}))),
        ),
        (
            "source: {file: /run/c}, inject: {header: {name: X-Key, format: 'Key {secret};v=1'}}, bind: {hosts: [h.example]}",
            Credential(id="c", source_kind="file", source="/run/c", inject="header", header="X-Key",
                       template="Key {secret};v=1", binding=Binding(hosts=frozenset({("h.example", 443)}))),
        ),
    ],
    ids=["bearer", "basic", "header", "header with a format"],
)  # fmt: skip
def test_what_a_credential_becomes(tmp_path: Path, text: str, made: Credential) -> None:
    servers = "version: 1\nservers: []\n"
    loaded = load(tmp_path, identities=NOBODY, servers=servers, credentials=credential(text))
    assert loaded.credentials == (made,)


def test_a_relative_file_is_beside_the_rules(tmp_path: Path) -> None:
    text = credential("source: {file: keys/c}, inject: {bearer: {}}, bind: {hosts: [h.example]}")
    loaded = load(tmp_path, identities=NOBODY, servers="version: 1\nservers: []\n", credentials=text)
    assert loaded.credentials[0].source == str(tmp_path / "keys/c")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("source: {file: /run/c}, inject: {bearer: {}}", "3:5: 'bind' is missing"),
        (
            "source: {}, inject: {bearer: {}}, bind: {hosts: [h]}",
            "3:21: source needs exactly one of env and file",
        ),
        (
            "source: {env: A, file: b}, inject: {bearer: {}}, bind: {hosts: [h]}",
            "3:21: source needs exactly one",
        ),
        (
            "source: {env: A}, inject: {}, bind: {hosts: [h]}",
            "3:39: inject needs exactly one of bearer, basic",
        ),
        (
            "source: {env: A}, inject: {bearer: {}, basic: {username: x}}, bind: {hosts: [h]}",
            "3:39: inject needs",
        ),
        (
            "source: {vault: {}}, inject: {bearer: {}}, bind: {hosts: [h]}",
            "3:22: 'vault' is not supported yet",
        ),
        (
            "source: {exec: [x]}, inject: {bearer: {}}, bind: {hosts: [h]}",
            "3:22: 'exec' is not supported yet",
        ),
        ("source: {env: A}, inject: {cookie: {}}, bind: {hosts: [h]}", "3:40: 'cookie' is not supported yet"),
        (
            "source: {env: A}, inject: {oauth_client_credentials: {}}, bind: {hosts: [h]}",
            "3:40: 'oauth_client",
        ),
        (
            "source: {env: A}, inject: {bearer: {}}, bind: {hosts: [h]}, tripwire: deny",
            "3:73: 'tripwire' is not",
        ),
        ("source: {env: A}, inject: {bearer: {}}, bind: {hosts: []}", "3:67: hosts: is empty"),
        (
            "source: {env: A}, inject: {bearer: {}}, bind: {hosts: ['*.h']}",
            "3:68: hosts: a host is exact here",
        ),
        (
            "source: {env: A}, inject: {bearer: {}}, bind: {hosts: [h], paths: [mcp]}",
            "3:80: paths: a path begins",
        ),
        (
            "source: {env: A}, inject: {bearer: {}}, bind: {hosts: [h], paths: ['/**/x']}",
            "3:80: paths: ** is only",
        ),
        (
            "source: {env: A}, inject: {bearer: {}}, bind: {hosts: [h], methods: [post]}",
            "3:82: methods: (not shown)",
        ),
        (
            "source: {env: A}, inject: {header: {name: Host}}, bind: {hosts: [h]}",
            "3:55: the header 'Host' belongs",
        ),
        (
            "source: {env: A}, inject: {header: {name: mcp_session_id}}, bind: {hosts: [h]}",
            "3:55: the header",
        ),
        (
            "source: {env: A}, inject: {header: {name: X, format: x}}, bind: {hosts: [h]}",
            "3:66: format needs {secret}",
        ),
        (
            "source: {env: A}, inject: {header: {name: X, format: '{secret}{secret}'}}, bind: {hosts: [h]}",
            "3:66: format",
        ),
        (
            "source: {env: A}, inject: {header: {name: X, format: '{secret}{x}'}}, bind: {hosts: [h]}",
            "3:66: format",
        ),
        (
            'source: {env: A}, inject: {header: {name: X, format: "{secret}\\r\\n"}}, bind: {hosts: [h]}',
            "3:66: format",
        ),
        (
            "source: {env: A}, inject: {basic: {username: 'a:b'}}, bind: {hosts: [h]}",
            "3:58: username: (not shown)",
        ),
    ],
)
def test_faults_of_credentials(tmp_path: Path, text: str, problem: str) -> None:
    (found,) = alone(tmp_path, "servers: []", credential(text))
    assert found.startswith(f"credentials.yaml:{problem}")


@pytest.mark.parametrize(
    ("url", "text", "problem"),
    [
        pytest.param("http://h.example/mcp", BOUND, "would travel in the clear: the server is not https",
                     id="not https"),
        pytest.param("https://i.example/mcp", BOUND, "is not bound to i.example, so it would never be sent",
                     id="another host"),
        pytest.param("https://h.example:8443/mcp", BOUND, "is not bound to h.example:8443, so it would never be sent",
                     id="another port"),
        pytest.param("https://h.example/other", BOUND, "is not bound to the path /other, so it would never be sent",
                     id="another path"),
        pytest.param("https://h.example/mcpx", BOUND, "is not bound to the path /mcpx, so it would never be sent",
                     id="a longer name"),
        pytest.param("https://h.example/mcp", BOUND.replace("paths: ['/mcp/**']", "methods: [GET]"),
                     "is not bound to the method POST, which every MCP call uses", id="without POST"),
        pytest.param("https://h.example/mcp", BOUND, None, id="the right place"),
        pytest.param("https://h.example/mcp/", BOUND, None, id="with a slash at the end"),
        pytest.param("https://h.example/mcp/v1", BOUND, None, id="below it"),
    ],
)  # fmt: skip
def test_a_credential_needs_a_place_to_go(tmp_path: Path, url: str, text: str, problem: str | None) -> None:
    found = alone(tmp_path, f"servers: [{{id: a, url: '{url}', credential: c}}]", credential(text))
    if problem is None:
        assert found == []
    else:
        assert [fault.partition(": ")[2] for fault in found] == [f"credential 'c' {problem}"]
