# ruff: noqa: E501  (one file or case per line reads best)
"""servers.yaml and credentials.yaml: what they become, and whether a credential has a place to go."""

from __future__ import annotations

from pathlib import Path

import pytest

from callerid.config import Assertion, Binding, Credential, Server
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
        pytest.param("servers: [{id: a, url: 'https://callerid.internal/'}]",
                     "2:24: callerid.internal is the proxy's own address, which it answers itself", id="our own address"),
        pytest.param("servers: [{id: a, kind: rest, url: 'https://h.example/'}]",
                     "2:25: kind: 'rest' is not known here", id="another kind"),
        pytest.param("servers: [{id: a, url: 'https://h.example/mcp', assertion: {ttl: 2m}}]",
                     "2:66: ttl: 2m is too long: whoever reads it could use it as long", id="an assertion that lasts"),
        pytest.param("servers: [{id: a, url: 'https://h.example/mcp', assertion: {header: Authorization}}]",
                     "2:69: the header 'Authorization' has another meaning on the way", id="an assertion in a credential's place"),
        pytest.param("servers: [{id: a, url: 'https://h.example/mcp', assertion: {header: X_Forwarded_User}}]",
                     "2:69: the header 'X_Forwarded_User' has another meaning on the way", id="an assertion that is removed"),
        pytest.param("servers: [{id: a, url: 'https://h.example/mcp', assertion: {header: 'X Who'}}]",
                     "2:69: header: 'X Who' should be a name of letters, digits and dashes, as headers have", id="no header at all"),
        pytest.param("servers: [{id: a, kind: http, url: 'https://h.example/', assertion: {meta: true}}]",
                     "2:76: meta: an HTTP API has no _meta, which is of MCP messages", id="_meta without MCP"),
        pytest.param("servers: [{id: a, url: 'https://h.example/mcp', headers: [Stripe-Account]}]",
                     "2:58: headers: these are of HTTP APIs, and this server speaks MCP", id="headers for MCP"),
        *(
            pytest.param(f"servers: [{{id: a, kind: http, url: 'https://h.example/', headers: [{name}]}}]",
                         f"2:68: the header '{name}' never goes on as a caller wrote it", id=f"the header {name}")
            for name in ("Host", "Transfer-Encoding", "Authorization", "Cookie", "X_Forwarded_User", "Private-Token",
                         "X-Callerid-Token", "X-Callerid-Assertion", "X-Envoy-Original-Path", "Accept-Encoding",
                         "DPoP", "X-HTTP-Method-Override", "Proxy-Authorization")
        ),
        pytest.param("servers: [{id: a, kind: http, url: 'https://h.example/', headers: [X-Who, x_who]}]",
                     "2:75: the header 'x_who' is there twice: case and underscores do not count", id="a header twice"),
        pytest.param("servers: [{id: a, kind: http, url: 'https://h.example/', headers: ['X Who']}]",
                     "2:68: headers: 'X Who' should be a name of letters, digits and dashes, as headers have",
                     id="no header's name"),
        pytest.param("servers: [{id: a, kind: http, url: 'https://h.example/', headers: [X-Who],"
                     " assertion: {header: x-who}}]",
                     "2:68: the header 'X-Who' is written by callerid: a credential or an assertion",
                     id="the header of an assertion"),
        pytest.param("servers: [{id: a, url: 'https://h.example/mcp', assertion: {aud: x}}]",
                     "2:61: unknown key 'aud'", id="a short word"),
        pytest.param("servers: [{id: a, kind: http, url: 'https://h.example/'}, {id: b, url: 'https://h.example/mcp'}]",
                     "2:72: server 'b' overlaps server 'a': a request could be for both", id="an API around an MCP server"),
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
            "3:21: source needs exactly one of env, file, systemd, exec, vault, aws and none",
        ),
        (
            "source: {env: A, file: b}, inject: {bearer: {}}, bind: {hosts: [h]}",
            "3:21: source needs exactly one of env, file, systemd, exec, vault, aws and none, not env and file",
        ),
        (
            "source: {env: A}, inject: {}, bind: {hosts: [h]}",
            "3:39: inject needs exactly one of bearer, basic",
        ),
        (
            "source: {env: A}, inject: {bearer: {}, basic: {username: x}}, bind: {hosts: [h]}",
            "3:39: inject needs exactly one of bearer, basic, header, query, cookie, replace, oauth_client_creden"
            "tials, oauth_refresh_token, token_exchange, aws_sigv4, mtls and passthrough, not bearer and basic",
        ),
        (
            "source: {env: A}, inject: {bearer: {}}, bind: {hosts: [h]}, scrub: true",
            "3:73: 'scrub' is not",
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
        pytest.param("http://h.example:443/mcp", BOUND.replace("{file: /run/c}", "{none: {}}").replace("bearer", "passthrough"),
                     None, id="what is the caller's own may go in the clear"),
        pytest.param("https://h.example/", BOUND, "is not bound to the path /, so it would never be sent", id="above it"),
    ],
)  # fmt: skip
def test_a_credential_needs_a_place_to_go(tmp_path: Path, url: str, text: str, problem: str | None) -> None:
    found = alone(tmp_path, f"servers: [{{id: a, url: '{url}', credential: c}}]", credential(text))
    if problem is None:
        assert found == []
    else:
        assert [fault.partition(": ")[2] for fault in found] == [f"credential 'c' {problem}"]


@pytest.mark.parametrize(
    ("url", "text", "problem"),
    [
        pytest.param("https://h.example/", BOUND, None, id="a path below the API's"),
        pytest.param("https://h.example/mcp/v1", BOUND, None, id="a path above the API's"),
        pytest.param("https://h.example/", BOUND.replace("/mcp/**", "/v1/*/keys"), None, id="a path with a star"),
        pytest.param("https://h.example/v1", BOUND.replace("/mcp/**", "/*/keys"), None, id="a star for the API's path"),
        pytest.param("https://h.example/", BOUND.replace("paths: ['/mcp/**']", "methods: [GET]"), None, id="reads only"),
        pytest.param("https://h.example/v2", BOUND, "is not bound to a path below /v2, so it would never be sent", id="another path"),
        pytest.param("https://h.example/mcp/a", BOUND.replace("/mcp/**", "/mcp"),
                     "is not bound to a path below /mcp/a, so it would never be sent", id="a path that is too short"),
        pytest.param("http://h.example/mcp", BOUND, "would travel in the clear: the server is not https", id="not https"),
        pytest.param("https://i.example/mcp", BOUND, "is not bound to i.example, so it would never be sent", id="another host"),
        pytest.param("https://h.example/", BOUND.replace("bearer: {}", "replace: {place: /api_key}"),
                     "replaces an argument, and those of an HTTP API stand below /body", id="an argument of a tool"),
        pytest.param("https://h.example/", BOUND.replace("bearer: {}", "replace: {place: /body/api_key}"), None, id="a member of the body"),
    ],
)  # fmt: skip
def test_the_place_of_an_apis_credential(tmp_path: Path, url: str, text: str, problem: str | None) -> None:
    found = alone(
        tmp_path, f"servers: [{{id: a, kind: http, url: '{url}', credential: c}}]", credential(text)
    )
    assert [fault.partition(": ")[2] for fault in found] == (
        [] if problem is None else [f"credential 'c' {problem}"]
    )


def test_what_an_assertion_becomes(tmp_path: Path) -> None:
    servers = (
        "version: 1\nservers:\n"
        "  - {id: a, url: 'https://H.example:443/mcp', assertion: {}}\n"
        "  - {id: b, kind: http, url: 'https://i.example:8443/v1',\n"
        "     assertion: {audience: billing, header: X-Caller, ttl: 30s}}\n"
        "  - {id: c, url: 'https://j.example/mcp', assertion: {meta: true, header: X_Callerid_Assertion}}\n"
    )
    made = load(tmp_path, identities=NOBODY, servers=servers, credentials=NOBODY).servers.servers
    assert [server.kind for server in made] == ["mcp", "http", "mcp"]
    assert [server.assertion for server in made] == [
        Assertion(audience="https://h.example/mcp"),
        Assertion(audience="billing", header="X-Caller", ttl=30),
        Assertion(audience="https://j.example/mcp", header="X_Callerid_Assertion", meta=True),
    ]


@pytest.mark.parametrize(
    ("inject", "clash"),
    [
        ("header: {name: X_Caller}", True),
        ("replace: {place: 'header:x-caller'}", True),
        ("bearer: {}", False),
        ("replace: {place: 'query:x-caller'}", False),
    ],
)
def test_a_secret_and_an_assertion_need_a_header_each(tmp_path: Path, inject: str, clash: bool) -> None:
    servers = "servers: [{id: a, url: 'https://h.example/mcp', credential: c, assertion: {header: X-Caller}}]"
    found = alone(tmp_path, servers, credential(BOUND.replace("bearer: {}", inject)))
    assert len(found) == (1 if clash else 0)
    if clash:
        assert "and so is the assertion" in found[0]


def test_headers_of_an_api_become_lower_case(tmp_path: Path) -> None:
    servers = "servers: [{id: a, kind: http, url: 'https://h.example/', headers: [Stripe-Account, Accept]}]"
    [made] = load(tmp_path, identities=NOBODY, servers=f"version: 1\n{servers}\n").servers.servers
    assert made.headers == ("stripe-account", "accept")


@pytest.mark.parametrize(
    "inject", ["header: {name: X-Key}", 'replace: {place: "header:X_Key"}'], ids=["written", "replaced"]
)
def test_a_header_that_holds_the_secret_is_not_the_callers(tmp_path: Path, inject: str) -> None:
    servers = "servers: [{id: a, kind: http, url: 'https://h.example/', credential: c, headers: [X-Key]}]"
    said = alone(
        tmp_path,
        servers,
        credential(f"source: {{env: K}}, inject: {{{inject}}}, bind: {{hosts: [h.example]}}"),
    )
    assert said == [
        "servers.yaml:2:83: the header 'X-Key' is written by callerid: a credential or an assertion"
    ]
