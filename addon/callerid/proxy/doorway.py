"""Where client certificates are required, nobody is served without one: not even what is not governed."""

from __future__ import annotations

from collections.abc import Callable

from callerid.proxy import http_calls
from callerid.proxy.destination import Governed, Unlisted
from callerid.proxy.facts import Facts, Ruling
from callerid.proxy.rooms import Rooms
from callerid.proxy.rows import Rows


def turned_away(facts: Facts, rooms: Rooms, new_id: Callable[[], str]) -> Ruling | None:
    """The refusal of a request on a connection without the certificate that is required; None if it is there.

    Asked for every request, whatever its connection has shown before: certificates are revoked, and the
    rules change, while connections stay open (law 10).
    """
    if not rooms.rules.identities.require_proxy_certificate:
        return None
    rows = Rows(facts, rooms, new_id, facts.upstream)
    missing = rooms.authority.uncertified(facts.presented, now=rows.now)
    if missing is None:
        return None
    place = rooms.servers.locate(
        scheme=facts.scheme, host=facts.host, port=facts.port, path=facts.path,
        host_header=facts.host_header, sni=facts.sni,
    )  # fmt: skip
    if isinstance(place, Unlisted):
        rows.server = place.name
        return rows.refuse_whole(missing.reason, missing.detail)
    if isinstance(place, Governed):
        rows.server, rows.server_entry = place.server.id, place.server
    else:
        rows.server = place.server
    rows.know(rooms.authority.identify(facts.presented, now=rows.now))
    return rows.refuse(http_calls.seen(facts, rows), missing.reason, missing.detail)
