"""Which connections that show a certificate of ours are ended, and when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import connection
from mitmproxy.test import tflow

from callerid.proxy import upstream_tls


class Place:
    """Two clients with a connection each, of which it is noted that it was aborted."""

    def __init__(self) -> None:
        self.clients = [tflow.tclient_conn(), tflow.tclient_conn()]
        self.aborted: list[connection.Server] = []
        self.servers = [tflow.tserver_conn(), tflow.tserver_conn()]
        self.handlers = {
            client.id: SimpleNamespace(transports={client: self.io(client), server: self.io(server)})
            for client, server in zip(self.clients, self.servers, strict=True)
        }

    def io(self, conn: Any) -> Any:
        transport = SimpleNamespace(abort=lambda: self.aborted.append(conn))
        return SimpleNamespace(writer=SimpleNamespace(transport=transport))


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place()
    addons = {"proxyserver": SimpleNamespace(connections=made.handlers)}
    monkeypatch.setattr(
        upstream_tls, "ctx", SimpleNamespace(master=SimpleNamespace(addons=addons)), raising=True
    )
    for server in made.servers:
        monkeypatch.setitem(upstream_tls._shown, server, "tls-key")
    return made


def rooms(*listed: str | None, breaks: bool = False) -> Any:
    def at(host: str, port: int) -> list[Any]:
        if breaks:
            raise LookupError(host)
        return [SimpleNamespace(credential=name) for name in listed]

    known = (SimpleNamespace(id="tls-key", inject="mtls"), SimpleNamespace(id="other", inject="mtls"))
    store = SimpleNamespace(at=lambda *asked: upstream_tls.Injection("tls-key@v1", None, None))  # type: ignore[arg-type]
    return SimpleNamespace(
        servers=SimpleNamespace(at=at), rules=SimpleNamespace(credentials=known), store=store
    )


@pytest.mark.parametrize(
    ("listed", "ends"),
    [
        (("tls-key",), False),
        (("tls-key", "tls-key"), False),
        ((), True),
        ((None,), True),
        (("tls-key", None), True),
        (("other",), True),
    ],
)
def test_a_connection_ends_when_its_certificate_is_not_for_its_place(
    place: Place, listed: tuple[str | None, ...], ends: bool
) -> None:
    upstream_tls.withdraw(rooms(*listed))
    assert place.aborted == (place.servers if ends else [])


def test_before_a_request_leaves_its_own_connections_are_looked_at(place: Place) -> None:
    upstream_tls.withdraw(rooms(), place.clients[1])
    assert place.aborted == place.servers[1:]


def test_one_that_cannot_be_judged_ends_and_so_do_the_others(place: Place) -> None:
    upstream_tls.withdraw(rooms(breaks=True))
    assert place.aborted == place.servers


def test_connections_that_show_nothing_stay(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(upstream_tls._shown, place.servers[0])
    upstream_tls.withdraw(rooms())
    assert place.aborted == place.servers[1:]


def shown(conn: connection.Server, rooms: Any) -> list[Any]:
    """The contexts that the connection was given, by the rules that are in force when TLS begins."""
    given: list[Any] = []
    data = SimpleNamespace(conn=conn, ssl_conn=SimpleNamespace(set_context=given.append))
    upstream_tls.show_certificate(data, rooms)  # type: ignore[arg-type]
    return given


NOW_LISTED, BEFORE = ("tls-key",), [(), (None,), ("other",), ("tls-key", None)]


@pytest.mark.parametrize("before", BEFORE)
def test_what_was_asked_for_by_other_rules_shows_no_certificate_of_the_rules_of_now(
    before: tuple[str | None, ...],
) -> None:
    conn = tflow.tserver_conn()
    upstream_tls.expect(conn, rooms(*before))
    with pytest.raises(upstream_tls.NoCertificate, match="rules"):
        shown(conn, rooms(*NOW_LISTED))


def test_what_nobody_asked_for_shows_no_certificate() -> None:
    with pytest.raises(upstream_tls.NoCertificate, match="rules"):
        shown(tflow.tserver_conn(), rooms(*NOW_LISTED))


def test_where_a_certificate_was_meant_none_is_not_enough() -> None:
    conn = tflow.tserver_conn()
    upstream_tls.expect(conn, rooms(*NOW_LISTED))
    with pytest.raises(upstream_tls.NoCertificate, match="rules"):
        shown(conn, rooms())


def test_where_none_was_meant_and_none_is_none_is_shown() -> None:
    conn = tflow.tserver_conn()
    upstream_tls.expect(conn, rooms(None))
    assert shown(conn, rooms()) == []


def test_the_keys_of_credentials_that_are_gone_are_let_go(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_tls, "_made", {"tls-key": (None, None), "gone": (None, None)})
    upstream_tls.withdraw(rooms("tls-key"), place.clients[0])
    assert upstream_tls._made.keys() == {"tls-key", "gone"}
    upstream_tls.withdraw(rooms("tls-key"))
    assert upstream_tls._made.keys() == {"tls-key"}
