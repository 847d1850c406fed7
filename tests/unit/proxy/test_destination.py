"""Where a request goes, and whether all names for the place agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callerid.config import Server, Servers
from callerid.credentials.binding import is_canonical
from callerid.model import Reason
from callerid.proxy.destination import (
    Astray,
    Governed,
    ServerTable,
    Unlisted,
    normal_host,
    split_authority,
)

FILES = Server(id="files", scheme="https", host="files.corp.example", port=443, path="/mcp")
ADMIN = Server(id="admin", scheme="https", host="files.corp.example", port=443, path="/mcp/admin")
PLAIN = Server(id="plain", scheme="http", host="lab.corp.example", port=8000, path="/")
TABLE = ServerTable(Servers(servers=(FILES, ADMIN, PLAIN)))


def locate(
    host: str = "files.corp.example",
    *,
    scheme: str = "https",
    port: int = 443,
    path: str = "/mcp",
    header: str | None = "",
    sni: str | None = None,
) -> Governed | Unlisted | Astray:
    said = (host if port in (80, 443) else f"{host}:{port}") if header == "" else header
    return TABLE.locate(scheme=scheme, host=host, port=port, path=path, host_header=said, sni=sni)


@pytest.mark.parametrize(
    ("path", "server"),
    [
        ("/mcp", "files"),
        ("/mcp/", "files"),
        ("/mcp?x=1", "files"),
        ("/mcp/deeper", "files"),
        ("/mcp/admin", "admin"),
        ("/mcp/admin/x", "admin"),
        ("/mcp/administrator", "files"),
    ],
)
def test_the_longest_listed_path_governs(path: str, server: str) -> None:
    place = locate(path=path)
    assert isinstance(place, Governed)
    assert place.server.id == server


@pytest.mark.parametrize("path", ["/", "/mcpx", "/other", "/health"])
def test_another_path_of_a_listed_host_is_unlisted(path: str) -> None:
    assert isinstance(locate(path=path), Unlisted)


@pytest.mark.parametrize(
    "path",
    [
        *("/%6dcp", "/mcp/../mcp", "//mcp", "/mcp//x", "/./mcp", "/mcp;x=1", "/mcp\\x", "/mcp%2fadmin"),
        *("/mcp%2Fadmin", "/mcp%00", "/mcp/%2e%2e/x", "/mcp%5cx", "/mcp%zz", "/mcp%", "/mcp\u017f"),
        *("*", "", "mcp", "/MCP", "/Mcp/Admin"),
    ],
)
def test_a_path_that_can_be_read_twice_is_refused_on_a_listed_host(path: str) -> None:
    place = locate(path=path)
    assert isinstance(place, Astray)
    assert place.reason is Reason.PATH_NOT_CANONICAL


@pytest.mark.parametrize(
    ("sentence", "changes"),
    [
        ("no Host at all", {"header": None}),
        ("an empty Host", {"header": " "}),
        ("another Host", {"header": "evil.example"}),
        ("another port in Host", {"header": "files.corp.example:8443"}),
        ("userinfo in Host", {"header": "files.corp.example@evil.example"}),
        ("a list in Host", {"header": "files.corp.example, evil.example"}),
        ("another SNI", {"sni": "evil.example"}),
        ("plain HTTP to the TLS port", {"scheme": "http", "header": "files.corp.example:443"}),
    ],
)
def test_names_that_disagree_are_refused(sentence: str, changes: dict[str, str]) -> None:
    place = locate(**changes)  # type: ignore[arg-type]
    assert isinstance(place, Astray), sentence
    assert place.reason is Reason.DESTINATION_MISMATCH


@pytest.mark.parametrize(
    ("sentence", "changes"),
    [
        ("Host names a listed server", {"header": "files.corp.example"}),
        ("Host names it in capitals with a dot", {"header": "FILES.corp.example."}),
        ("SNI names a listed server", {"sni": "files.corp.example"}),
        ("a broken Host that contains it", {"header": "x@files.corp.example"}),
    ],
)
def test_somewhere_else_cannot_pretend_to_be_a_listed_server(sentence: str, changes: dict[str, str]) -> None:
    place = locate("evil.example", **changes)  # type: ignore[arg-type]
    assert isinstance(place, Astray), sentence
    assert place.reason is Reason.DESTINATION_MISMATCH


@pytest.mark.parametrize(
    ("sentence", "changes"),
    [
        ("capitals", {"header": "FILES.Corp.Example"}),
        ("a trailing dot", {"header": "files.corp.example."}),
        ("the port spelled out", {"header": "files.corp.example:443"}),
        ("SNI in capitals", {"sni": "Files.corp.example"}),
    ],
)
def test_spellings_of_one_name_agree(sentence: str, changes: dict[str, str]) -> None:
    assert isinstance(locate(**changes), Governed), sentence  # type: ignore[arg-type]


def test_another_port_of_a_listed_host_is_another_place() -> None:
    assert locate(port=8443, path="/mcp") == Unlisted("files.corp.example:8443")


def test_an_unlisted_place_is_named_without_its_default_port() -> None:
    assert locate("other.example") == Unlisted("other.example")
    assert locate("other.example", scheme="http", port=80, path="/x") == Unlisted("other.example")


def test_a_server_at_the_root_governs_every_path() -> None:
    place = locate("lab.corp.example", scheme="http", port=8000, path="/anything/at/all")
    assert isinstance(place, Governed)


def test_an_announced_message_path_is_governed_and_survives_a_reload() -> None:
    table = ServerTable(Servers(servers=(FILES,)))
    table.learn_endpoint(FILES, "/messages/")
    again = ServerTable(Servers(servers=(FILES, PLAIN)))
    again.carry(table)
    for known in (table, again):
        place = known.locate(
            scheme="https", host="files.corp.example", port=443, path="/messages/?session_id=1",
            host_header="files.corp.example", sni=None,
        )  # fmt: skip
        assert place == Governed(FILES)
    gone = ServerTable(Servers(servers=(PLAIN,)))
    gone.carry(table)
    assert not gone.is_listed("files.corp.example", 443)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.example", ("a.example", 443)),
        ("A.Example.:8443", ("a.example", 8443)),
        ("[::1]:8443", ("::1", 8443)),
        ("[0:0::1]", ("::1", 443)),
        ("127.0.0.1", ("127.0.0.1", 443)),
        ("b\u00fccher.example", ("xn--bcher-kva.example", 443)),
        ("a.example:", ("a.example", 443)),
        ("a.example:99999", None),
        ("a.example:-1", None),
        ("a.example:\u0661", None),
        ("[::1", None),
        ("[::1]x", None),
        ("user@a.example", None),
        ("a b.example", None),
        ("", None),
    ],
)
def test_an_authority_is_split_strictly(text: str, found: tuple[str, int] | None) -> None:
    assert split_authority(text, "https") == found


@given(st.text(), st.text(), st.one_of(st.none(), st.text()), st.one_of(st.none(), st.text()))
def test_locate_is_total(host: str, path: str, header: str | None, sni: str | None) -> None:
    TABLE.locate(scheme="https", host=host, port=443, path=path, host_header=header, sni=sni)


@given(st.text(alphabet="/.%2efEF5cC;\\mcp~A", max_size=12))
def test_a_canonical_path_stays_what_it_is_for_every_reader(text: str) -> None:
    from posixpath import normpath
    from urllib.parse import unquote

    path = "/" + text
    if is_canonical(path):
        readings = {path, unquote(path)}
        trimmed = {normpath(reading) for reading in readings}
        assert len(trimmed) <= len(readings)
        assert normpath(path) == (path.rstrip("/") or "/")


def test_hosts_are_normalised_once() -> None:
    assert normal_host("Files.CORP.example.") == "files.corp.example"
    assert normal_host("[::0001]") == "::1"


@pytest.mark.parametrize(
    ("path", "announced"),
    [
        ("/mcp/messages", True),
        ("/mcp/Messages", True),
        ("/mcp/messages/", True),
        ("/mcp/messages/x", True),
        ("/mcp/messages.", True),
        ("/mcp", False),
        ("/mcp/other", False),
        ("/mcp/message", False),
    ],
)
def test_every_spelling_of_an_announced_path_is_known(path: str, announced: bool) -> None:
    one = Server(id="one", scheme="https", host="a.corp.example", port=443, path="/mcp")
    other = Server(id="other", scheme="https", host="a.corp.example", port=443, path="/other")
    table = ServerTable(Servers(servers=(one, other)))
    assert not table.is_endpoint(one, path)
    table.learn_endpoint(one, "/mcp/messages")
    assert table.is_endpoint(one, path) is announced
    assert not table.is_endpoint(other, path)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        pytest.param(("files.corp.example", 443, "/mcp?a=1"), "files", id="by its path"),
        pytest.param(("FILES.corp.example", 443, "/mcp/admin/x"), "admin", id="by the longest path"),
        pytest.param(
            ("lab.corp.example", 8000, ""), "plain", id="the one server, of a path that was not read"
        ),
        pytest.param(("files.corp.example", 443, ""), "files.corp.example:443", id="two, and no path"),
        pytest.param(("files.corp.example", 443, "/x"), "files.corp.example:443", id="a path beside them"),
        pytest.param(("wild.corp.example", 443, "/mcp"), "wild.corp.example:443", id="not listed"),
    ],
)
def test_a_row_names_the_server_where_one_is_listed(place: tuple[str, int, str], name: str) -> None:
    assert TABLE.name_at(*place) == name
