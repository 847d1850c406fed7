"""What a flow shows of its sender: headers, chains, and the place as the client wrote it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mitmproxy import connection, http
from mitmproxy.proxy import mode_specs

from callerid.identity.presented import Presented, RequestMark
from callerid.proxy.calls import ClientState
from callerid.proxy.destination import Governed
from callerid.proxy.facts import Facts
from callerid.proxy.rooms import Rooms
from callerid.proxy.sidedoor import passes

MARK = "callerid.mark"
"""In ``flow.metadata``: the mark of the request, the same however often it is judged."""


def present(
    flow: http.HTTPFlow, state: ClientState, values: Callable[[str], tuple[str, ...]], client_ip: str | None
) -> Presented:
    """Everything that this request and its connection show. ``values`` gives all values of a header."""
    return Presented(
        proxy_authorization=values("proxy-authorization"),
        connect_proxy_authorization=state.connect_authorization,
        authorization=values("authorization"),
        callerid_token=values("x-callerid-token"),
        connect_callerid_token=state.connect_token,
        dpop=values("dpop"),
        forwarded_client_cert=values("x-forwarded-client-cert"),
        client_cert=values("client-cert"),
        client_cert_chain=values("client-cert-chain"),
        proxy_chain=state.proxy_chain,
        inner_chain=state.inner_chain,
        client_ip=client_ip,
        tunnel=state.tunnel,
        reverse=is_reverse(flow.client_conn),
        method=flow.request.data.method.decode("utf-8", "surrogateescape"),
        url=url_of(flow.request),
        mark=flow.metadata.setdefault(MARK, RequestMark()),
    )


def is_reverse(client: connection.Client) -> bool:
    """True where the client takes us for the server: its certificate then is on that TLS connection."""
    return isinstance(client.proxy_mode, mode_specs.ReverseMode)


def url_of(request: http.Request) -> str:
    """The URL of a request at the server that it is for: in reverse mode, too."""
    named = f"[{request.host}]" if ":" in request.host else request.host
    return f"{request.scheme}://{named}:{request.port}{request.path}"


def for_server(facts: Facts, rooms: Rooms) -> Facts:
    """The facts with the URL of the listed server, where an issuer makes tokens for one server alone.

    Where the caller's own ``Authorization`` goes on to its server, it is no evidence, unless it is for us.
    """
    login = any(issuer.login for issuer in rooms.rules.identities.issuers)
    if not login and not any(known.inject == "passthrough" for known in rooms.rules.credentials):
        return facts
    place = rooms.servers.locate(
        scheme=facts.scheme, host=facts.host, port=facts.port, path=facts.path,
        host_header=facts.host_header, sni=facts.sni,
    )  # fmt: skip
    if not isinstance(place, Governed):
        return facts
    presented = facts.presented
    if passes(place.server, rooms) and len(presented.authorization) == 1:
        ours = rooms.authority.is_ours(presented.authorization[0])
        presented = presented if ours else replace(presented, authorization=())
    if login:
        presented = replace(presented, resource=place.server.url)
    return replace(facts, presented=presented)
