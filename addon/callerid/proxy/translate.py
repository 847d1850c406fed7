"""Between mitmproxy's flow and plain values: the request as facts, the ruling as header edits."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mitmproxy import ctx, http

from callerid.credentials.inject import Injection, apply, conceal
from callerid.credentials.outgoing import InHeader, Outgoing
from callerid.credentials.store import CredentialStore
from callerid.proxy.bodies import FOREIGN, PASSES
from callerid.proxy.called import origin_called
from callerid.proxy.calls import Call, ClientState
from callerid.proxy.destination import normal_host, split_authority
from callerid.proxy.facts import Facts, Ruling
from callerid.proxy.runtime import now_us
from callerid.proxy.shown import present

_REWRITTEN = frozenset(
    (b"transfer-encoding", b"content-encoding", b"content-length", b"expect", b"te", b"trailer", b"upgrade",
     b"accept-encoding", b"connection", b"keep-alive")
)  # fmt: skip
"""Headers of a judged request that we write anew, or that would undo what was judged.

``Connection`` could ask the next hop to drop the header with the secret: only ``close`` is kept of it.
"""


def facts(flow: http.HTTPFlow, state: ClientState) -> Facts:
    """The request as plain values, with the evidence seen on its connection."""
    request = flow.request
    headers = []
    by_name: dict[str, list[str]] = {}
    for raw_name, raw_value in request.headers.fields:
        name = raw_name.decode("utf-8", "surrogateescape")
        value = raw_value.decode("utf-8", "surrogateescape")
        headers.append((name, value))
        by_name.setdefault(name.lower(), []).append(value)

    def values(wanted: str) -> tuple[str, ...]:
        return tuple(by_name.get(wanted, ()))

    peer = flow.client_conn.peername
    client_ip = peer[0] if peer else None
    return Facts(
        time_us=now_us(),
        http_method=request.data.method.decode("utf-8", "surrogateescape"),
        scheme=request.scheme,
        host=request.host,
        port=request.port,
        path=request.path,
        host_header=_said(request, values("host")),
        sni=flow.client_conn.sni if state.tunnel and state.inner_tls else None,
        headers=headers,
        body=request.raw_content or b"",
        upgrade="upgrade" in by_name,
        called=origin_called(flow),
        tls_verified=request.scheme == "https" and not ctx.options.ssl_insecure,
        client_ip=client_ip,
        presented=present(flow, state, values, client_ip),
    )


def _said(request: http.Request, hosts: tuple[str, ...]) -> str | None:
    """What the client calls the place: ``Host``, or the authority of an absolute request target.

    An origin goes by the target's authority rather than by ``Host`` (RFC 9112 section 3.2.2): of names
    that differ, the one that is not what is dialled is given back, so that it is judged. None: no name.
    """
    names = (*hosts, *((request.authority,) if request.authority else ()))
    if len(hosts) > 1:
        return ""
    place = (normal_host(request.host), request.port)
    astray = (name for name in names if split_authority(name, request.scheme) != place)
    return next(astray, names[0] if names else None)


def dialled(flow: http.HTTPFlow) -> tuple[str, int]:
    """Host and port that the flow is for, also when mitmproxy gave up before it read them (port 0: none).

    For a CONNECT inside a tunnel that is where the tunnel leads.
    """
    if flow.request.host and not (flow.request.method == "CONNECT" and flow.server_conn.address):
        return flow.request.host, flow.request.port
    return flow.server_conn.address[:2] if flow.server_conn.address else ("", 0)


def strip(request: http.Request, names: Iterable[str]) -> None:
    """Delete every instance of these headers, whatever their case."""
    drop = {name.encode("utf-8", "surrogateescape").lower() for name in names}  # as bytes: ``İ`` is no ``i``
    fields = request.headers.fields
    request.headers.fields = tuple(field for field in fields if field[0].lower() not in drop)


def let_pass(flow: http.HTTPFlow, names: Iterable[str]) -> None:
    """Traffic with a server that nobody lists goes on, without what is ours in it."""
    strip(flow.request, names)
    _origin_form(flow.request)
    _framed(flow.request)
    flow.metadata[FOREIGN] = True
    flow.response = None


def _framed(request: http.Request) -> None:
    """Say how long the body is where HTTP/2 did not: on HTTP/1 it would be read as the next request."""
    if request.is_http2 and request.raw_content and "content-length" not in request.headers:
        request.headers["content-length"] = str(len(request.raw_content))


def _origin_form(request: http.Request) -> None:
    """No authority in the request line: mitmproxy clears it in regular mode only, not inside tunnels."""
    if not (request.is_http2 or request.is_http3):
        request.authority = ""


def _inject(
    request: http.Request, injection: Injection, write: Callable[[Injection, Outgoing], None]
) -> None:
    """Have the secret, or the placeholder for it, written, and take over what that changed."""
    body = request.raw_content or b""
    out = Outgoing(
        method=request.method,
        scheme=request.scheme,
        host=request.host,
        port=request.port,
        path=request.path,
        headers=request.headers,
        body=body,
    )
    write(injection, out)
    if out.path != request.path:
        request.path = out.path
    if out.body is not body:
        request.raw_content = out.body
        request.headers["content-length"] = str(len(out.body))


def take_back(flow: http.HTTPFlow, injection: Injection) -> None:
    """Put the placeholder in the place of the secret, once the request is on the wire or never will be."""
    if isinstance(injection.how, InHeader):  # nearly always, and by far the cheaper way
        name = injection.how.name.lower().encode("ascii")
        placeholder = (name, f"[callerid:{injection.label}]".encode())
        fields = flow.request.headers.fields
        flow.request.headers.fields = (*(f for f in fields if f[0].lower() != name), placeholder)
    else:
        _inject(flow.request, injection, conceal)


def let_go(flow: http.HTTPFlow, call: Call, ruling: Ruling, store: CredentialStore) -> None:
    """Write the judged bytes and, last of all, the secret; then break the seal."""
    request = flow.request
    request.trailers = None
    _origin_form(request)
    strip(request, ruling.strip)
    if ruling.body is None:
        _framed(request)
        call.observed = True
        flow.metadata[FOREIGN] = True
    else:
        fields = [field for field in request.headers.fields if field[0].lower() not in _REWRITTEN]
        fields.append((b"accept-encoding", b"identity"))
        if any(
            name.lower() == b"connection" and b"close" in value.lower()
            for name, value in request.headers.fields
        ):
            fields.append((b"connection", b"close"))
        if ruling.body or request.method in ("POST", "PUT", "PATCH"):
            fields.append((b"content-length", b"%d" % len(ruling.body)))
        fields += ruling.headers
        request.headers.fields = tuple(fields)
        request.raw_content = ruling.body
        if ruling.target is not None:
            request.path = ruling.target
        if call.is_api:
            flow.metadata[PASSES] = True
    if ruling.injection is not None:
        call.injection = ruling.injection
        if ruling.injection.secret is not None:
            store.sent(flow, ruling.injection.secret.label)
        _inject(request, ruling.injection, apply)
    call.allowed = True
    flow.response = None
