"""Hosts, URLs, paths and durations: one spelling each."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.policy import places
from callerid.policy.places import BadPlace


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://files.corp.example/mcp", "https://files.corp.example/mcp"),
        ("https://files.corp.example", "https://files.corp.example/"),
        ("HTTPS://Files.Corp.Example./mcp/", "https://files.corp.example/mcp/"),
        ("https://files.corp.example:443/mcp", "https://files.corp.example/mcp"),
        ("https://files.corp.example:8443/mcp", "https://files.corp.example:8443/mcp"),
        ("http://localhost:8000/mcp", "http://localhost:8000/mcp"),
        ("http://[::1]:8000/mcp", "http://[::1]:8000/mcp"),
        ("http://[0:0::1]/mcp", "http://[::1]/mcp"),
        ("https://bücher.example/mcp", "https://xn--bcher-kva.example/mcp"),
        ("https://a_b.corp.example/", "https://a_b.corp.example/"),
        ("https://h.example/a%20b", "https://h.example/a%20b"),
    ],
)
def test_a_url_has_one_spelling(text: str, url: str) -> None:
    made = places.server_url(text)
    assert str(made) == url
    assert made.path.startswith("/")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("ftp://h.example/", "not an http or https URL", "https://HOST/PATH"),
        ("h.example/mcp", "not an http or https URL", "https://HOST/PATH"),
        ("https:///mcp", "not an http or https URL", ""),
        ("https://u:p@h.example/", "a user or a password", "credentials.yaml"),
        ("https://@h.example/", "a user or a password", ""),
        ("https://h.example/mcp?x=1", "a query or a fragment", "Write https://h.example/mcp."),
        ("https://h.example/mcp?", "a query or a fragment", "Write https://h.example/mcp."),
        ("https://h.example/mcp#", "a query or a fragment", "Write https://h.example/mcp."),
        ("https://h.example/a/../mcp", "one spelling", "Write https://h.example/mcp."),
        ("https://h.example/./mcp", "one spelling", "Write https://h.example/mcp."),
        ("https://h.example//mcp", "one spelling", "Write https://h.example/mcp."),
        ("https://h.example/%6Dcp", "one spelling", "Write https://h.example/mcp."),
        ("https://h.example/a%2e%2e/%2E%2E/mcp", "one spelling", "Write https://h.example/mcp."),
        ("https://h.example/a%c3%a9", "one spelling", "Write https://h.example/a%C3%A9."),
        ("https://h.example/a%2Fb", "encoded slash", ""),
        ("https://h.example/a%zz", "broken % escape", ""),
        ("https://h.example/a\\b", "servers read differently", ""),
        ("https://h.example/a;b", "servers read differently", ""),
        ("https://h.example/é", "servers read differently", ""),
        ("https://h.example:0/", "port", ""),
        ("https://h.example:/", "port", ""),
        ("https://h.example:99999/", "not a URL", ""),
        ("https://[::1/", "not a URL", ""),
        ("https://*.example/", "wildcards", ""),
        ("https://h..example/", "not a host name", ""),
        ("https://127.1/", "dotted IPv4", "192.0.2.1"),
        ("https://0x7f.1/", "dotted IPv4", ""),
        ("https://2130706433/", "dotted IPv4", ""),
        ("https://stra\u00dfe.example/", "different IDNA versions", "xn--"),
        ("https://-a.example/", "not a host name", ""),
    ],
)
def test_a_url_that_is_refused_says_what_to_write(text: str, message: str, hint: str) -> None:
    with pytest.raises(BadPlace) as caught:
        places.server_url(text)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("h.example", ("h.example", 443)),
        ("H.Example.:8443", ("h.example", 8443)),
        ("[::1]:8443", ("::1", 8443)),
        ("[::1]", ("::1", 443)),
        ("::1", ("::1", 443)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
    ],
)
def test_a_binding_names_host_and_port(text: str, place: tuple[str, int]) -> None:
    assert places.host_and_port(text) == place


@pytest.mark.parametrize(
    "text",
    ["https://h.example", "h.example/mcp", "u@h.example", "h.example:", "h.example:0", "h.example:65536",
     "h.example:+1", "h.example:٣", "[::1]x", "*.example", "", "h example", "h:1:2:3:4:5:6:7:8:9"],
)  # fmt: skip
def test_a_binding_names_nothing_else(text: str) -> None:
    with pytest.raises(BadPlace):
        places.host_and_port(text)


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("10m", 600), ("1h", 3600), ("30d", 2_592_000)])
def test_durations(text: str, seconds: int) -> None:
    assert places.seconds(text) == seconds


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("/", "/mcp", True),
        ("/mcp", "/mcp", True),
        ("/mcp", "/mcp/", True),
        ("/mcp/a", "/mcp", True),
        ("/mcp", "/mcpx", False),
        ("/a/mcp", "/b/mcp", False),
    ],
)
def test_paths_overlap_at_segments(one: str, other: str, overlap: bool) -> None:
    assert places.overlaps(one, other) is overlap
    assert places.overlaps(other, one) is overlap


@pytest.mark.parametrize(
    ("glob", "path", "covered"),
    [
        ("/**", "/", True),
        ("/**", "/mcp", True),
        ("/mcp", "/mcp", True),
        ("/mcp", "/mcp/", False),
        ("/mcp/**", "/mcp", True),
        ("/mcp/**", "/mcp/", True),
        ("/mcp/**", "/mcp/a/b", True),
        ("/mcp/**", "/mcpx", False),
        ("/*/mcp", "/a/mcp", True),
        ("/*/mcp", "/a/b/mcp", False),
        ("/v*/mcp", "/v2/mcp", True),
        ("/m.p", "/mcp", False),
    ],
)
def test_a_binding_covers_paths_by_segment(glob: str, path: str, covered: bool) -> None:
    assert places.path_covered(glob, path) is covered


@pytest.mark.parametrize("glob", ["mcp", "/a/**/b", "/a**", "/a?b", "/a#b", "//a", "/a/../b"])
def test_a_path_glob_that_means_nothing_is_a_fault(glob: str) -> None:
    assert places.path_glob_fault(glob)


@pytest.mark.parametrize("glob", ["/", "/mcp", "/mcp/", "/mcp/**", "/**", "/*/mcp"])
def test_a_path_glob_that_means_something_is_none(glob: str) -> None:
    assert places.path_glob_fault(glob) == ""


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("a.localhost", True), ("127.0.0.2", True), ("::1", True), ("h.example", False)],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert places.is_loopback(host) is loopback


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=30))
def test_a_url_is_taken_in_its_one_spelling_or_refused(text: str) -> None:
    try:
        url = places.server_url(f"https://{text}")
    except BadPlace:
        return
    assert places.server_url(str(url)) == url
