from __future__ import annotations

from typing import Any

import pytest

from callerid.config import Binding
from callerid.credentials.binding import is_bound, is_canonical, matches
from tests.unit.credentials.helpers import BINDING, HOST, destination


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="as written"),
        pytest.param({"host": "GitHub.Corp.Example"}, id="a host in another case"),
        pytest.param({"path": "/mcp"}, id="the folder itself"),
        pytest.param({"path": "/mcp/a/b/c"}, id="any depth"),
        pytest.param({"path": "/mcp/a%20b"}, id="an encoded space"),
        pytest.param({"path": "/mcp/caf%C3%A9"}, id="an encoded letter"),
        pytest.param({"path": "/mcp/..."}, id="three dots are a name"),
        pytest.param({"path": "/mcp/.well-known"}, id="a hidden name"),
        pytest.param({"method": "GET"}, id="another listed method"),
    ],
)
def test_a_bound_destination(changes: dict[str, Any]) -> None:
    assert is_bound(BINDING, destination(**changes)) is True


HOSTILE_HOSTS = {
    "another host": "evil.example",
    "a subdomain": f"x.{HOST}",
    "the parent": "corp.example",
    "a longer suffix": f"{HOST}.evil.example",
    "a trailing dot": f"{HOST}.",
    "a NUL": f"{HOST}\x00.evil.example",
    "a space": f"{HOST} ",
    "a line break": f"{HOST}\r\n",
    "userinfo": f"{HOST}@evil.example",
    "with a port": f"{HOST}:443",
    "a Kelvin sign for k": "github.corp.example".replace("github", "githu\u212a"),
    "a dotted capital I": "g\u0130thub.corp.example",
    "fullwidth letters": "\uff47ithub.corp.example",
    "an ideographic full stop": "github\u3002corp.example",
    "a Cyrillic o": "github.c\u043erp.example",
    "a soft hyphen": "git\u00adhub.corp.example",
    "a wildcard": "*.corp.example",
    "an address": "192.0.2.1",
    "brackets": f"[{HOST}]",
    "empty": "",
    "percent-encoded": "github%2Ecorp.example",
    "not text": None,
    "bytes": HOST.encode(),
}


@pytest.mark.parametrize("host", HOSTILE_HOSTS.values(), ids=HOSTILE_HOSTS)
def test_a_hostile_host_is_not_bound(host: Any) -> None:
    assert is_bound(BINDING, destination(host=host)) is False


def test_a_host_that_lower_cases_into_a_bound_one_is_not_it() -> None:
    binding = Binding(hosts=frozenset({("key.corp.example", 443)}))
    assert is_bound(binding, destination(host="KEY.corp.example"))
    assert "\u212aey.corp.example".lower() == "key.corp.example"
    assert not is_bound(binding, destination(host="\u212aey.corp.example"))


HOSTILE_PATHS = {
    "outside": "/",
    "a sibling": "/admin",
    "a longer name": "/mcpx",
    "another case": "/MCP/",
    "no slash before": "mcp/",
    "empty": "",
    "asterisk form": "*",
    "absolute form": f"https://{HOST}/mcp/",
    "network path": f"//{HOST}/mcp/",
    "dot segments": "/mcp/../admin",
    "dot segments at the end": "/mcp/..",
    "dot segments back in": "/admin/../mcp/",
    "a single dot": "/mcp/./x",
    "encoded dots": "/mcp/%2e%2e/admin",
    "encoded dots in upper case": "/mcp/%2E%2E/admin",
    "one encoded dot": "/mcp/.%2e/admin",
    "an encoded slash": "/mcp%2fadmin",
    "an encoded slash below": "/mcp/..%2Fadmin",
    "an encoded backslash": "/mcp/..%5cadmin",
    "a backslash": "/mcp/..\\admin",
    "double encoding": "/mcp/%252e%252e/admin",
    "an empty segment": "/mcp//admin",
    "a path parameter": "/mcp/..;/admin",
    "an encoded path parameter": "/mcp/..%3b/admin",
    "a NUL": "/mcp/\x00",
    "an encoded NUL": "/mcp/%00",
    "an encoded line break": "/mcp/%0d%0aX-Admin:%20yes",
    "a line break": "/mcp/\r\n",
    "a space": "/mcp/a b",
    "a tab": "/mcp/\t",
    "DEL": "/mcp/\x7f",
    "an encoded C1 control": "/mcp/%c2%85",
    "an encoded line separator": "/mcp/%e2%80%a8",
    "an encoded right-to-left override": "/mcp/%e2%80%ae",
    "an encoded letter": "/mcp/%61dmin",
    "an encoded question mark": "/mcp/%3fx",
    "a query": "/mcp/?x=1",
    "a fragment": "/mcp/#x",
    "a broken escape": "/mcp/%",
    "a short escape": "/mcp/%4",
    "an escape that is no number": "/mcp/%zz",
    "an escape with a sign": "/mcp/%+1",
    "an overlong dot": "/mcp/%c0%ae%c0%ae/admin",
    "a fullwidth dot": "/mcp/%ef%bc%8e%ef%bc%8e/admin",
    "a fullwidth slash": "/mcp/..%ef%bc%8fadmin",
    "not UTF-8": "/mcp/%ff",
    "raw letters beyond ASCII": "/mcp/caf\u00e9",
    "a surrogate": "/mcp/\ud800",
    "not text": None,
    "bytes": b"/mcp/",
}


@pytest.mark.parametrize("path", HOSTILE_PATHS.values(), ids=HOSTILE_PATHS)
def test_a_hostile_path_is_not_bound(path: Any) -> None:
    assert is_bound(BINDING, destination(path=path)) is False


@pytest.mark.parametrize(
    "path",
    [
        p
        for name, p in HOSTILE_PATHS.items()
        if name not in ("outside", "a sibling", "a longer name", "another case")
    ],
)
def test_a_hostile_path_is_not_canonical_so_that_no_binding_covers_it(path: Any) -> None:
    assert is_canonical(path) is False
    anywhere = Binding(hosts=BINDING.hosts)
    assert is_bound(anywhere, destination(path=path)) is False


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"scheme": "http"}, id="no TLS"),
        pytest.param({"scheme": "HTTPS"}, id="an odd scheme"),
        pytest.param({"scheme": "wss"}, id="another scheme"),
        pytest.param({"scheme": ""}, id="no scheme"),
        pytest.param({"tls_verified": False}, id="an unverified certificate"),
        pytest.param({"tls_verified": None}, id="nobody verified"),
        pytest.param({"tls_verified": 1}, id="truthy is not True"),
        pytest.param({"tls_verified": "yes"}, id="text is not True"),
        pytest.param({"port": 8443}, id="another port"),
        pytest.param({"port": "443"}, id="a port in text"),
        pytest.param({"port": 443.0}, id="a port in floating point"),
        pytest.param({"port": None}, id="no port"),
        pytest.param({"method": "DELETE"}, id="a method that is not listed"),
        pytest.param({"method": "post"}, id="a method in another case"),
        pytest.param({"method": "TRACE"}, id="TRACE"),
        pytest.param({"method": ""}, id="no method"),
    ],
)
def test_anything_else_that_is_odd_is_not_bound(changes: dict[str, Any]) -> None:
    assert is_bound(BINDING, destination(**changes)) is False


@pytest.mark.parametrize(
    "binding",
    [
        Binding(hosts=frozenset()),
        Binding(hosts=BINDING.hosts, paths=()),
        Binding(hosts=BINDING.hosts, methods=frozenset()),
        Binding(hosts=frozenset({("", 443)})),
        Binding(hosts=frozenset({("*", 443)})),
        Binding(hosts=frozenset({("*.corp.example", 443)})),
        Binding(hosts=BINDING.hosts, paths=("**",)),
        Binding(hosts=BINDING.hosts, paths=("",)),
        Binding(hosts=BINDING.hosts, paths=("mcp/**",)),
    ],
)
def test_an_empty_or_odd_binding_is_nowhere(binding: Binding) -> None:
    for host in (HOST, "", "*", "*.corp.example", None):
        assert is_bound(binding, destination(host=host)) is False


def test_each_host_has_its_own_port() -> None:
    binding = Binding(hosts=frozenset({(HOST, 443), ("files.corp.example", 8443)}))
    assert is_bound(binding, destination(host="files.corp.example", port=8443))
    assert not is_bound(binding, destination(host="files.corp.example", port=443))
    assert not is_bound(binding, destination(port=8443))


def test_a_host_configured_in_capitals_still_binds() -> None:
    assert is_bound(Binding(hosts=frozenset({("GitHub.Corp.Example", 443)})), destination())


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("/**", "/", True),
        ("/**", "/a/b", True),
        ("/mcp", "/mcp", True),
        ("/mcp", "/mcp/", False),
        ("/mcp/", "/mcp/", True),
        ("/mcp/", "/mcp", False),
        ("/mcp/*", "/mcp/a", True),
        ("/mcp/*", "/mcp/", True),
        ("/mcp/*", "/mcp/a/b", False),
        ("/mcp/*/tools", "/mcp/a/tools", True),
        ("/mcp/*/tools", "/mcp/a/b/tools", False),
        ("/mcp/v*-x*", "/mcp/v1-x", True),
        ("/mcp/v*-x*", "/mcp/v1-y", False),
        ("/mcp/a*a", "/mcp/a", False),
        ("/mcp/a*b*b", "/mcp/ab", False),
        ("/mcp/a*b*b", "/mcp/abb", True),
        ("/teams/*/**", "/teams/blue/x/y", True),
        ("/teams/*/**", "/team/blue", False),
        ("/mcp/**/x", "/mcp/a/x", False),
        ("/mcp**", "/mcpx", False),
        ("/mcp/**", "/mc", False),
        ("/m?p", "/mcp", False),
        ("/[m]cp", "/mcp", False),
        ("/m.p", "/mcp", False),
        ("**", "/mcp", False),
        ("", "/", False),
    ],
)
def test_the_globs_of_a_binding(glob: str, path: str, expected: bool) -> None:
    assert matches(glob, path) is expected
