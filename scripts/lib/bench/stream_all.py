"""The addon of bare mitmdump in the measurements of streams: event streams are not held back."""

from __future__ import annotations

from mitmproxy import http


def responseheaders(flow: http.HTTPFlow) -> None:
    """Let every answer pass as it comes."""
    if flow.response is not None:
        flow.response.stream = True
