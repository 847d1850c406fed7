"""Telling a server who called: opted in by its entry, signed after the row is durable, never by the caller.

What a caller says in these places itself is removed towards every listed server, also where nothing is said:
a server that looks for an assertion must never find one that we did not write (law 6).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from callerid.config import Server, Servers
from callerid.credentials.store import Refused
from callerid.credentials.strip import plain
from callerid.identity.assertion import Asserting
from callerid.identity.signing_keys import SigningKeys, Unusable
from callerid.mcp import strictjson
from callerid.model import DecisionRecord, Reason, Verdict
from callerid.proxy.facts import Ruling

META_PREFIX = "callerid/"
META_NAME = "callerid/assertion"
"""In ``params._meta`` (MCP 2025-06-18 basic, ``_meta``: a prefix of labels, a slash, a name)."""

_USUAL = 128
# No letter of it has a twin outside of ASCII, so that a body without it holds no spelling of the prefix.
_SIGN = b"caller"


def header_names(servers: Servers) -> frozenset[str]:
    """The headers in which servers are told, folded: the caller's own are removed towards all of them."""
    return frozenset(
        _plain(server.assertion.header) for server in servers.servers if server.assertion is not None
    )


def spoofed(headers: Iterable[tuple[str, str]], names: frozenset[str]) -> tuple[str, ...]:
    """Those header names, as written, that some reader would take for one of ``names``."""
    return tuple(name for name, _ in headers if _folded(name) in names) if names else ()


def _folded(name: str) -> str:
    """Remembered for names of a usual length only: callers must not choose how much is remembered."""
    return _plain(name) if len(name) <= _USUAL else _plain.__wrapped__(name)


@lru_cache(maxsize=4096)
def _plain(name: str) -> str:
    """Case and punctuation do not save a name, as in ``credentials.strip``."""
    return plain(name)


def without_claims(body: bytes) -> bytes:
    """A canonical MCP body without what the caller wrote under our prefix in ``_meta``; canonical again."""
    if _SIGN not in body.lower():
        return body
    envelope = json.loads(body)
    found = [_clean(part) for message in _messages(envelope) for part in _carriers(message)]
    return strictjson.dumps(envelope) if any(found) else body


def _messages(envelope: Any) -> list[Any]:
    return envelope if isinstance(envelope, list) else [envelope]


def _carriers(message: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """The objects of a message that may hold ``_meta``: params of what is asked, the result of an answer."""
    return (part for part in (message.get("params"), message.get("result")) if isinstance(part, dict))


def _clean(part: dict[str, Any]) -> bool:
    """Remove what is ours from every ``_meta`` in it, however spelled. True if there was any."""
    found = False
    for name, meta in part.items():
        if strictjson.fold(name) != "_meta" or not isinstance(meta, dict):
            continue
        for member in [member for member in meta if _is_ours(member)]:
            del meta[member]
            found = True
    return found


def _is_ours(member: str) -> bool:
    return strictjson.fold(member).strip().startswith(META_PREFIX)


def to_be_said(server: Server | None, signing: SigningKeys, now: int) -> Asserting | Refused | None:
    """What the server is to be told, None if nothing; refused where that cannot be signed.

    Asked before the row is written: a call that a server wants signed never goes without.
    """
    if server is None or server.assertion is None:
        return None
    signer = signing.signer(now)
    if isinstance(signer, Unusable):
        return Refused(Reason.CREDENTIAL_UNAVAILABLE, f"the caller cannot be asserted: {signer.detail}")
    return Asserting(server.assertion, signer)


def speak(ruling: Ruling, now_us: int) -> Ruling:
    """The ruling with its assertions in it, signed now. Call it once the rows are durable, and not before."""
    asserting, server = ruling.asserting, ruling.server
    if asserting is None or server is None:
        return ruling
    now = now_us // 1_000_000
    records = [record for record in ruling.records if record.verdict is Verdict.ALLOW]
    batch = any(record.batch_index is not None for record in records)
    said = asserting.say_all(records, now) if batch else asserting.say(records[0], now)
    body = ruling.body
    if asserting.assertion.meta and server.kind == "mcp" and body:
        told = _each(records, asserting, now) if batch else {0: said}
        body = _with_meta(body, told)
    header = (asserting.assertion.header.encode("ascii"), said.encode("ascii"))
    return replace(ruling, body=body, headers=(*ruling.headers, header))


def _each(records: Sequence[DecisionRecord], asserting: Asserting, now: int) -> Mapping[int, str]:
    """For each message of a batch by its place: one of several rows about it speaks for it, the first."""
    firsts = {record.batch_index: record for record in reversed(records)}
    return {at: asserting.say(record, now) for at, record in firsts.items() if at is not None}


def _with_meta(body: bytes, told: Mapping[int, str]) -> bytes:
    """The body with what is told in the ``_meta`` of each request and notification; answers have none."""
    envelope = json.loads(body)
    for at, message in enumerate(_messages(envelope)):
        if at in told and "method" in message:
            message.setdefault("params", {}).setdefault("_meta", {})[META_NAME] = told[at]
    return strictjson.dumps(envelope)
