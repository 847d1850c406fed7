"""What a message says of its sender: for the row only. Claims, never identity (DESIGN section 1, law 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callerid.mcp import methods

MAX_CLAIM = 128
_HEX = frozenset("0123456789abcdef")


def client_name(method: str, params: Mapping[str, Any], meta: Mapping[str, Any]) -> str | None:
    """``name/version`` of clientInfo: a claim for the row, made printable.

    Cut far beyond what a row keeps: the audit redacts before it cuts, and half a secret has no shape.
    """
    info = params.get("clientInfo") if method == "initialize" else meta.get(methods.META_CLIENT_INFO)
    if type(info) is not dict or not isinstance(info.get("name"), str):
        return None
    version = info.get("version")
    claim = f"{info['name']}/{version}" if isinstance(version, str) else info["name"]
    return "".join(char for char in claim[: 8 * MAX_CLAIM] if char.isprintable()) or None


def trace_id(traceparent: object) -> str | None:
    """The trace-id of a W3C traceparent (Trace Context level 1, section 3.2), or None."""
    if not isinstance(traceparent, str) or len(traceparent) > MAX_CLAIM:
        return None
    version, *rest = traceparent.split("-")
    if len(version) != 2 or version == "ff" or not _HEX.issuperset(version):
        return None
    if len(rest) != 3 and (version == "00" or len(rest) < 3):
        return None
    trace, parent, flags = rest[:3]
    if (len(trace), len(parent), len(flags)) != (32, 16, 2) or not _HEX.issuperset(trace + parent + flags):
        return None
    return trace if trace.strip("0") and parent.strip("0") else None


def offered(method: str, params: Mapping[str, Any]) -> str | None:
    """The revision that ``initialize`` offers: the client's wish, not yet in force."""
    offer = params.get("protocolVersion") if method == "initialize" else None
    return offer if isinstance(offer, str) and 0 < len(offer) <= 32 and offer.isprintable() else None
