"""The head of a governed answer: without secrets, and without what the server says to its shared account."""

from __future__ import annotations

from typing import Final

from mitmproxy import http

from callerid.credentials.scrub import Scrubber
from callerid.proxy.calls import Call
from callerid.proxy.findings import echoed
from callerid.proxy.runtime import Runtime

_DROP: Final = frozenset((b"alt-svc", b"proxy-authenticate", b"proxy-connection", b"trailer"))
_SHARED: Final = frozenset((b"set-cookie", b"set-cookie2", b"www-authenticate", b"authentication-info"))
"""What a server says to whoever holds the credential: its cookie is not the caller's to keep, and its
challenge not the caller's to answer, for a login there would lead past the shared credential."""


def clean_head(response: http.Response, call: Call, runtime: Runtime, time_us: int) -> None:
    """Take out what is not the caller's to see. A secret in it is told."""
    shared = call.injection is not None and call.injection.shared
    drop = _DROP | _SHARED if shared else _DROP
    response.headers.fields = tuple(f for f in response.headers.fields if f[0].lower() not in drop)
    for where in scrubbed_head(response, runtime.rooms.store.scrubber):
        echoed(call, runtime.rooms, runtime.finding, where, time_us)


def scrubbed_head(response: http.Response, scrubber: Scrubber) -> list[str]:
    """Take secrets out of a head; where they were, in words."""
    found = []
    fields = response.headers.fields
    if scrubber.holds(b"\n".join(part for field in fields for part in field)):
        cleaned = [(scrubber.scrub(name)[0], scrubber.scrub(value)[0]) for name, value in fields]
        response.headers.fields = tuple(f for f in cleaned if b" " not in f[0] and b"[" not in f[0])
        found.append("in a header")
    if scrubber.holds(response.data.reason):
        response.reason = ""
        found.append("in the reason phrase")
    return found
