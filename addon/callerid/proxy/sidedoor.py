"""Where clients look for a server's login: answered here, in the place of a server whose key is shared.

A standard client that is not known is led to the company's own login, if identities.yaml names one (``login:
true``), and comes back with a token that says who its person is. Nothing of the server's own login can be
reached through callerid, for a personal token would go around the shared credential.

``resource`` must be the URL that the client calls, or clients give up (RFC 9728 section 3.3). That is the
listed one; in reverse mode it is what the client calls the listener, as far as that can be believed
(``Facts.called``). It is given back to that same client only, and no evidence is judged by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from callerid.config import Server
from callerid.mcp.oauthdoor import LOGIN_HELPS, RESOURCE, Door, challenge, door_of, metadata_url
from callerid.model import Carrier, DecisionRecord, Outcome, OutcomeRecord, Reason, Verdict
from callerid.proxy.destination import Governed, Unlisted
from callerid.proxy.facts import Facts
from callerid.proxy.rooms import Rooms


@dataclass(frozen=True, slots=True)
class Opened:
    """A request to the side door. ``resource`` is set where metadata is the answer; else it is 404."""

    server: Server
    resource: str | None


def injects(server: Server, rooms: Rooms) -> bool:
    """Whether callerid puts a credential of its own on calls to this server."""
    return server.credential is not None and not passes(server, rooms)


def passes(server: Server, rooms: Rooms) -> bool:
    """Whether the caller's own credential for the server goes on (``passthrough``)."""
    named = (c for c in rooms.rules.credentials if c.id == server.credential)
    return any(credential.inject == "passthrough" for credential in named)


def logins(rooms: Rooms) -> tuple[str, ...]:
    """The issuers at which people can log in."""
    return tuple(issuer.issuer for issuer in rooms.rules.identities.issuers if issuer.login)


def find(facts: Facts, rooms: Rooms, place: Governed | Unlisted) -> Opened | None:
    """What of the side door this request is for; None if it is for something else."""
    listed = rooms.servers.at(facts.host, facts.port)
    if not listed:
        return None
    door = door_of(facts.path.partition("?")[0])
    if door is None:
        return None
    if door.document is None and isinstance(place, Governed) and place.server.kind == "http":
        return None  # a path of its own: its rules decide, once the request is seen to be no login
    about = _about(door, listed) if door.document == RESOURCE else None
    if about is not None:
        reads = facts.http_method in ("GET", "HEAD")
        if reads and logins(rooms) and not passes(about, rooms):
            return Opened(about, resource_of(facts, about))
        return Opened(about, None) if injects(about, rooms) else None
    shared = next((server for server in listed if injects(server, rooms)), None)
    return Opened(shared, None) if shared is not None else None


def _about(door: Door, listed: tuple[Server, ...]) -> Server | None:
    """The server that a protected resource document speaks of; the root speaks of the only one, if so."""
    if not door.about:
        roots = [server for server in listed if server.path == "/"]
        return listed[0] if len(listed) == 1 else roots[0] if roots else None
    paths = ((server, server.path.rstrip("/")) for server in listed)
    return next((s for s, path in paths if f"{door.about}/".startswith(f"{path}/")), None)


def resource_of(facts: Facts, server: Server) -> str:
    """The server's URL as the client calls it."""
    return _origin(facts, server) + server.path


def challenge_for(facts: Facts, rooms: Rooms, server: Server | None, reason: Reason) -> str | None:
    """The ``WWW-Authenticate`` that leads a caller who is not known to the company's login, if that can help.

    It cannot where evidence came in another place than ``Authorization``: that stays there, and fails again.
    """
    if server is None or reason not in LOGIN_HELPS or passes(server, rooms) or not logins(rooms):
        return None
    presented = facts.presented
    elsewhere = (*presented.at_connect(), *presented.headers())
    if any(values for carrier, values in elsewhere if carrier is not Carrier.AUTHORIZATION):
        return None
    url = metadata_url(_origin(facts, server), server.path)
    return challenge(url, invalid=bool(presented.authorization))


def _origin(facts: Facts, server: Server) -> str:
    return facts.called or server.url.removesuffix(server.path)


def settle_here(
    records: tuple[DecisionRecord, ...], status: int, now_us: int, sink: Callable[[OutcomeRecord], None]
) -> None:
    """The outcome of what callerid answered itself; refusals have none."""
    for record in records:
        if record.verdict is Verdict.ALLOW:
            sink(
                OutcomeRecord(
                    event_id=record.event_id,
                    time_us=now_us,
                    outcome=Outcome.OK,
                    http_status=status,
                    duration_us=now_us - record.time_us,
                )
            )
