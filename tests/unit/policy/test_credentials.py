# ruff: noqa: E501  (one entry per line reads best)
"""credentials.yaml: every source and every injection, what they become and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callerid.config import Binding, Credential, OAuth
from tests.unit.policy.house import faults, load

NOBODY = "version: 1\n"
NO_SERVERS = "version: 1\nservers: []\n"
PLACE = Binding(hosts=frozenset({("h.example", 443)}))
BIND = "bind: {hosts: [h.example]}"
ENV, BEARER = "source: {env: A}", "inject: {bearer: {}}"
CLIENT = "token_url: https://login.example/token, client_id: mcp-egress"


def entry(source: str = ENV, inject: str = BEARER, rest: str = "") -> str:
    return f"version: 1\ncredentials:\n  - {{id: c, {source}, {inject}, {BIND}{rest}}}\n"


def one(folder: Path, text: str) -> Credential:
    return load(folder, identities=NOBODY, servers=NO_SERVERS, credentials=text).credentials[0]


def told(folder: Path, text: str) -> list[tuple[str, str]]:
    found = faults(folder, identities=NOBODY, servers=NO_SERVERS, credentials=text)
    return [(f"{fault.line}:{fault.column}: {fault.message}", fault.hint) for fault in found]


@pytest.mark.parametrize(
    ("text", "made"),
    [
        pytest.param("{systemd: files.token}", {"source_kind": "systemd", "source": "files.token"}, id="systemd"),
        pytest.param("{exec: [/usr/bin/op, read, 'op://v/i']}",
                     {"source_kind": "exec", "source": "", "argv": ("/usr/bin/op", "read", "op://v/i")}, id="a command"),
        pytest.param("{vault: {url: 'https://vault.example:8200', mount: kv, path: mcp/files, field: token, auth: token, token_file: /run/vault/token}}",
                     {"source_kind": "vault", "source": "kv/mcp/files",
                      "source_options": {"url": "https://vault.example:8200", "mount": "kv", "path": "mcp/files",
                                         "field": "token", "auth": "token", "token_file": "/run/vault/token"}},
                     id="vault with a token"),
        pytest.param("{vault: {url: 'http://127.0.0.1:8200', mount: kv/, path: a, field: t, auth: approle, role_id: 0b1f-22, secret_id_file: ids/s, namespace: team/a, ca_file: ca.pem}}",
                     {"source_kind": "vault", "source": "kv/a",
                      "source_options": {"url": "http://127.0.0.1:8200", "mount": "kv", "path": "a", "field": "t",
                                         "auth": "approle", "role_id": "0b1f-22", "secret_id_file": "HERE/ids/s",
                                         "namespace": "team/a", "ca_file": "HERE/ca.pem"}}, id="vault with an approle"),
        pytest.param("{vault: {url: 'https://v.example', mount: kv, path: a, field: t, auth: kubernetes, role: callerid}}",
                     {"source_kind": "vault", "source": "kv/a",
                      "source_options": {"url": "https://v.example", "mount": "kv", "path": "a", "field": "t",
                                         "auth": "kubernetes", "role": "callerid"}}, id="vault in a cluster"),
        pytest.param("{vault: {url: 'https://v.example', mount: kv, path: a, field: t, auth: jwt, jwt_file: /run/jwt}}",
                     {"source_kind": "vault", "source": "kv/a",
                      "source_options": {"url": "https://v.example", "mount": "kv", "path": "a", "field": "t",
                                         "auth": "jwt", "jwt_file": "/run/jwt"}}, id="vault with a JWT"),
        pytest.param("{aws: {secret_id: mcp/files}}",
                     {"source_kind": "aws", "source": "mcp/files"}, id="AWS by name"),
        pytest.param("{aws: {secret_id: 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:mcp/files-AbCdEf', region: eu-central-1, field: token, profile: mcp, endpoint: 'https://vpce.example'}}",
                     {"source_kind": "aws", "source": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:mcp/files-AbCdEf",
                      "source_options": {"region": "eu-central-1", "field": "token", "profile": "mcp",
                                         "endpoint": "https://vpce.example"}}, id="AWS by ARN"),
    ],
)  # fmt: skip
def test_what_a_source_becomes(tmp_path: Path, text: str, made: dict[str, Any]) -> None:
    options = {
        word: value.replace("HERE", str(tmp_path)) for word, value in made.pop("source_options", {}).items()
    }
    expected = Credential(id="c", inject="bearer", binding=PLACE, source_options=options, **made)
    assert one(tmp_path, entry(f"source: {text}")) == expected


@pytest.mark.parametrize(
    ("text", "made"),
    [
        pytest.param("{query: {name: key}}", {"inject": "query", "name": "key"}, id="a query parameter"),
        pytest.param("{cookie: {name: session}}", {"inject": "cookie", "name": "session"}, id="a cookie"),
        pytest.param("{replace: {place: 'header:X-Api-Key'}}", {"inject": "replace", "place": "header:X-Api-Key"}, id="in a header"),
        pytest.param("{replace: {place: 'query:key'}}", {"inject": "replace", "place": "query:key"}, id="in the query"),
        pytest.param("{replace: {place: /auth/token}}", {"inject": "replace", "place": "/auth/token"}, id="in an argument"),
        pytest.param(f"{{oauth_client_credentials: {{{CLIENT}, scope: a b, resource: 'https://h.example/mcp', audience: x, client_auth: client_secret_post}}}}",
                     {"inject": "oauth_client_credentials",
                      "oauth": OAuth(token_url="https://login.example/token", client_id="mcp-egress", scope="a b",
                                     resource="https://h.example/mcp", audience="x", client_auth="client_secret_post")},
                     id="client credentials"),
        pytest.param(f"{{oauth_refresh_token: {{{CLIENT}}}}}",
                     {"inject": "oauth_refresh_token",
                      "oauth": OAuth(token_url="https://login.example/token", client_id="mcp-egress")}, id="a refresh token"),
        pytest.param(f"{{token_exchange: {{{CLIENT}, subject_token_type: 'urn:ietf:params:oauth:token-type:jwt', requested_token_type: 'urn:x'}}}}",
                     {"inject": "token_exchange",
                      "oauth": OAuth(token_url="https://login.example/token", client_id="mcp-egress",
                                     subject_token_type="urn:ietf:params:oauth:token-type:jwt",
                                     requested_token_type="urn:x")}, id="token exchange"),
        pytest.param("{aws_sigv4: {region: eu-central-1, service: execute-api}}",
                     {"inject": "aws_sigv4", "region": "eu-central-1", "service": "execute-api"}, id="an AWS signature"),
        pytest.param("{mtls: {}}", {"inject": "mtls"}, id="a client certificate"),
    ],
)  # fmt: skip
def test_what_an_injection_becomes(tmp_path: Path, text: str, made: dict[str, Any]) -> None:
    expected = Credential(id="c", source_kind="env", source="A", binding=PLACE, **made)
    assert one(tmp_path, entry(inject=f"inject: {text}")) == expected


@pytest.mark.parametrize("inject", ["{passthrough: {}}", "{aws_sigv4: {region: r, service: s}}"])
def test_what_needs_no_secret(tmp_path: Path, inject: str) -> None:
    made = one(tmp_path, entry("source: {none: {}}", f"inject: {inject}"))
    assert (made.source_kind, made.source) == ("none", "")


def test_spans_and_the_tripwire(tmp_path: Path) -> None:
    made = one(tmp_path, entry(rest=", refresh: 1h, stale_for: 2m, timeout: 60s, tripwire: replace"))
    assert (made.refresh, made.stale_for, made.timeout, made.tripwire) == (3600, 120, 60, "replace")
    usual = one(tmp_path, entry())
    assert (usual.refresh, usual.stale_for, usual.timeout, usual.tripwire) == (300, 600, 5, "deny")


VAULT = "url: 'https://v.example', mount: kv, path: a, field: t"


@pytest.mark.parametrize(
    ("source", "problem", "hint"),
    [
        pytest.param("{systemd: a/b}", "3:31: systemd: (not shown) should be the name of a systemd credential", "",
                     id="systemd: a path"),
        pytest.param("{exec: []}", "3:28: exec: is empty", "not left out", id="a command of no words"),
        pytest.param("{exec: 'op read x'}", "3:28: exec: should be a list, not text", "brackets", id="a command as one text"),
        pytest.param("{exec: [bin/op]}", "3:29: exec: the command is neither an absolute path nor a name", "/usr/bin/op",
                     id="a command beside something"),
        pytest.param("{vault: {}}", "3:29: 'url' is missing", "", id="vault without anything"),
        pytest.param(f"{{vault: {{{VAULT}}}}}", "3:29: 'auth' is missing", "", id="vault without a login"),
        pytest.param(f"{{vault: {{{VAULT}, auth: userpass}}}}", "3:92: auth: (not shown) is not known here", "token",
                     id="vault with another login"),
        pytest.param(f"{{vault: {{{VAULT}, auth: token}}}}", "3:92: auth: token needs token_file", "token_file: /run/secrets/NAME",
                     id="a login without its words"),
        pytest.param(f"{{vault: {{{VAULT}, auth: token, token_file: f, role: r}}}}", "3:114: role is not for auth: token",
                     "It is for auth: kubernetes or jwt.", id="a login with the words of another"),
        pytest.param(f"{{vault: {{{VAULT.replace('https', 'http')}, auth: jwt, jwt_file: f}}}}",
                     "3:35: url: this must be https and without a fragment", "https://vault.corp.example:8200", id="vault in the clear"),
        pytest.param(f"{{vault: {{{VAULT.replace('v.ex', 'u:p@v.ex')}, auth: jwt, jwt_file: f}}}}",
                     "3:35: url: a URL with a user or a password in it is refused", "", id="vault with a password"),
        pytest.param(f"{{vault: {{{VAULT.replace('path: a', 'path: a/../b')}, auth: jwt, jwt_file: f}}}}",
                     "3:73: path: no empty and no dot segments", "mcp/github", id="vault: dot segments"),
        pytest.param("{vault: {url: 'https://v.example', mount: kv, path: a, field: t, auth: jwt, jwt_fil: a}}", "3:97: unknown key (not shown)",
                     "Did you mean 'jwt_file'?", id="vault: another word"),
        pytest.param("{aws: {}}", "3:27: 'secret_id' is missing", "", id="AWS without a name"),
        pytest.param("{aws: {secret_id: a, endpoint: 'http://sm.example'}}", "3:52: endpoint: this must be https", "", id="AWS in the clear"),
        pytest.param("{none: {}}", "3:21: source none holds no secret, and bearer needs one", "{env: NAME}", id="no secret for a bearer"),
        pytest.param("{keyring: x}", "3:22: 'keyring' is not supported yet", "", id="a source that is not there yet"),
        pytest.param("{file: x, env: Y}", "3:21: source needs exactly one of env, file, systemd, exec, vault, aws and none, not env and file",
                     "{file: /run/secrets/NAME}", id="two sources"),
    ],
)  # fmt: skip
def test_faults_of_sources(tmp_path: Path, source: str, problem: str, hint: str) -> None:
    found = told(tmp_path, entry(f"source: {source}"))
    assert found[0][0].startswith(problem)
    assert hint in found[0][1]


@pytest.mark.parametrize(
    ("inject", "problem", "hint"),
    [
        pytest.param("{query: {}}", "3:47: 'name' is missing", "", id="a query parameter without a name"),
        pytest.param("{query: {name: 'a b'}}", "3:54: name: (not shown) should be a name of letters, digits and dashes", "", id="a query parameter that is none"),
        pytest.param("{cookie: {name: 'a;b'}}", "3:55: name: (not shown) should be a name of letters, digits and dashes", "", id="a cookie that is none"),
        pytest.param("{header: {name: Cookie Jar}}", "3:55: name: (not shown) should be a name of letters, digits and dashes", "", id="a header that is none"),
        pytest.param("{header: {name: X-Callerid-Token}}", "3:55: the header 'X-Callerid-Token' belongs to the transport", "its key from", id="a header of ours"),
        pytest.param("{replace: {place: X-Api-Key}}", "3:57: place: (not shown) should be header:NAME, query:NAME or a JSON pointer", "", id="a place without its kind"),
        pytest.param("{replace: {place: 'header:a:b'}}", "3:57: place: what stands after header: is not the name of a header", "header:X-Api-Key", id="a place with a broken header"),
        pytest.param("{replace: {place: 'header:Host'}}", "3:57: place: the header 'Host' belongs to the transport", "", id="a place of the transport"),
        pytest.param("{replace: {place: 'query:a=b'}}", "3:57: place: what stands after query: is not the name of a query parameter", "", id="a place with a broken parameter"),
        pytest.param("{replace: {place: /a/~2}}", "3:57: place: this is not the JSON pointer of one argument", "/api_key", id="a place with a broken pointer"),
        pytest.param("{replace: {place: '/items/*/key'}}", "3:57: place: this is not the JSON pointer of one argument", "/api_key", id="a place that is many"),
        pytest.param("{oauth_client_credentials: {client_id: a}}", "3:66: 'token_url' is missing", "https://login.corp.example/oauth2/token", id="no token endpoint"),
        pytest.param("{token_exchange: {token_url: 'http://login.example/token', client_id: a}}", "3:68: token_url: this must be https and without a fragment", "token_url: https://login.corp.example/oauth2/token", id="a token endpoint in the clear"),
        pytest.param("{token_exchange: {token_url: 'https://login.example/token#a', client_id: a}}", "3:68: token_url: this must be https and without a fragment", "", id="a token endpoint with a fragment"),
        pytest.param(f"{{oauth_client_credentials: {{{CLIENT}, resource: files}}}}", "3:140: resource: this is not an absolute URI", "https://files.corp.example/mcp", id="a resource that is no URI"),
        pytest.param(f"{{oauth_client_credentials: {{{CLIENT}, resource: 'https://a/#b'}}}}", "3:140: resource: this is not an absolute URI", "", id="a resource with a fragment"),
        pytest.param(f"{{oauth_client_credentials: {{{CLIENT}, scope: 'a  b'}}}}", "3:137: scope: (not shown) should be scopes with one space between two", "", id="scopes with two spaces"),
        pytest.param(f"{{oauth_client_credentials: {{{CLIENT}, client_auth: none}}}}", "3:143: client_auth: (not shown) is not known here", "client_secret_basic, client_secret_post", id="a client that does not authenticate"),
        pytest.param(f"{{oauth_client_credentials: {{{CLIENT}, client_secret: x}}}}", "3:130: unknown key (not shown)", "", id="a client secret that the source holds"),
        pytest.param(f"{{oauth_refresh_token: {{{CLIENT}, client_auth: client_secret_post}}}}", "3:125: client_auth: a client without client_secret does not authenticate", "Remove", id="a public client that authenticates"),
        pytest.param(f"{{oauth_refresh_token: {{{CLIENT}, audience: x}}}}", "3:125: unknown key (not shown)", "", id="an audience for a refresh token"),
        pytest.param("{aws_sigv4: {region: eu-central-1}}", "3:51: 'service' is missing", "", id="a signature without its service"),
        pytest.param("{passthrough: {}}", "3:21: passthrough injects nothing, so it has no secret: its source is none", "source: {none: {}}", id="passthrough of a secret"),
        pytest.param("{}", "3:39: inject needs exactly one of bearer, basic, header, query, cookie, replace,", "inject: {bearer: {}}", id="nothing"),
        pytest.param("{mtls: {}, bearer: {}}", "3:39: inject needs exactly one of bearer, basic, header, query, cookie, replace, oauth_client_credentials, oauth_refresh_token, token_exchange, aws_sigv4, mtls and passthrough, not bearer and mtls", "", id="two"),
        pytest.param("{id_jag: {}}", "3:40: 'id_jag' is not supported yet", "", id="what is not there yet"),
    ],
)  # fmt: skip
def test_faults_of_injections(tmp_path: Path, inject: str, problem: str, hint: str) -> None:
    (found,) = told(tmp_path, entry(inject=f"inject: {inject}"))
    assert found[0].startswith(problem)
    assert hint in found[1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(entry(rest=", timeout: 2m"), "3:90: timeout: 60s is the longest", id="a reading that lasts"),
        pytest.param(entry(rest=", timeout: 0s"), "3:90: timeout: (not shown) should be a duration", id="no time at all"),
        pytest.param(entry(rest=", refresh: 5 minutes"), "3:90: refresh: (not shown) should be a duration", id="a span in words"),
        pytest.param(entry(rest=", tripwire: off"), "3:91: tripwire: (not shown) is not known here", id="another tripwire"),
        pytest.param(entry("source: {none: {}}", "inject: {passthrough: {}}", ", tripwire: deny"),
                     "3:88: tripwire: there is no secret here that it could be about", id="a tripwire without a secret"),
        pytest.param(entry("source: {none: {}}", "inject: {aws_sigv4: {region: r, service: s}}", ", refresh: 1m"),
                     "3:107: refresh: there is no secret here that it could be about", id="a span without a secret"),
    ],
)  # fmt: skip
def test_faults_of_the_rest(tmp_path: Path, text: str, problem: str) -> None:
    (found,) = told(tmp_path, text)
    assert found[0].startswith(problem)


REFRESH = entry(inject=f"inject: {{oauth_refresh_token: {{{CLIENT}, client_secret: WHO}}}}")
OTHER = "  - {id: app, source: {env: B}, inject: {basic: {username: mcp-egress}}, bind: {hosts: [login.example], paths: [/token]}}\n"


def test_a_client_secret_is_another_entry_that_may_go_there(tmp_path: Path) -> None:
    made = one(tmp_path, REFRESH.replace("WHO", "app") + OTHER)
    assert made.oauth is not None
    assert made.oauth.client_secret == "app"


@pytest.mark.parametrize(
    ("who", "other", "problem", "hint"),
    [
        pytest.param("ap", OTHER, "client_secret: no credential of this file has this id", "Did you mean 'app'?", id="a slip"),
        pytest.param("c", OTHER, "client_secret names its own entry, whose source holds the refresh token", "an entry of its own", id="itself"),
        pytest.param("app", OTHER.replace("{basic: {username: mcp-egress}}", "{mtls: {}}"),
                     "client_secret: the credential 'app' does not hold a plain secret", "basic", id="a certificate"),
        pytest.param("app", OTHER.replace("[login.example]", "[h.example]"),
                     "client_secret: the credential 'app' is not bound to this token_url", "POST", id="another host"),
        pytest.param("app", OTHER.replace("[/token]", "[/tokens]"),
                     "client_secret: the credential 'app' is not bound to this token_url", "POST", id="another path"),
        pytest.param("app", OTHER.replace("[/token]", "[/token], methods: [GET]"),
                     "client_secret: the credential 'app' is not bound to this token_url", "POST", id="another method"),
    ],
)  # fmt: skip
def test_faults_of_a_client_secret(tmp_path: Path, who: str, other: str, problem: str, hint: str) -> None:
    (found,) = told(tmp_path, REFRESH.replace("WHO", who) + other)
    assert found[0] == f"3:140: {problem}"
    assert hint in found[1]
