"""The head of a governed answer: without secrets, and without what the server says to its shared account."""

from __future__ import annotations

from typing import Final

from mitmproxy import http

from callerid.proxy.calls import Call
from callerid.proxy.findings import echoed
from callerid.proxy.runtime import Runtime

_DROP: Final = frozenset((b"alt-svc", b"proxy-authenticate", b"proxy-connection", b"trailer"))
_SHARED: Final = frozenset((b"set-cookie", b"set-cookie2", b"www-authenticate", b"authentication-info"))
"""What a server says to whoever holds the credential: its cookie is not the caller's to keep, and its
challenge not the caller's to answer, for a login there would lead past the shared credential."""


def clean_head(response: http.Response, call: Call, runtime: Runtime, time_us: int) -> None:
    """Take out what is not the caller's to see. A secret in it is told."""
    scrubber = runtime.rooms.store.scrubber
    shared = call.injection is not None and call.injection.shared
    drop = _DROP | _SHARED if shared else _DROP
    fields = [field for field in response.headers.fields if field[0].lower() not in drop]
    if scrubber.holds(b"\n".join(part for field in fields for part in field)):
        cleaned = [(scrubber.scrub(name)[0], scrubber.scrub(value)[0]) for name, value in fields]
        fields = [field for field in cleaned if b" " not in field[0] and b"[" not in field[0]]
        echoed(call, runtime.rooms, runtime.finding, "in a header", time_us)
    if scrubber.holds(response.data.reason):
        response.reason = ""
        echoed(call, runtime.rooms, runtime.finding, "in the reason phrase", time_us)
    response.headers.fields = tuple(fields)
    response.trailers = None
