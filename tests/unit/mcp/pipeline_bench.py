"""A pipeline on a bench, and the messages that its tests send through it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from callerid.mcp.outcomes import Signal
from callerid.mcp.pipeline import AnswerPipeline
from callerid.mcp.sse import Event, EventParser
from callerid.model import RpcId

SECRET = "s3cret-Ω/key"


def scrub_bytes(raw: bytes) -> tuple[bytes, int]:
    return raw.replace(SECRET.encode(), b"[redacted]"), raw.count(SECRET.encode())


def scrub_json(value: Any) -> tuple[Any, int]:
    if isinstance(value, str):
        return value.replace(SECRET, "[redacted]"), value.count(SECRET)
    if isinstance(value, list):
        pairs = [scrub_json(entry) for entry in value]
        return [new for new, _ in pairs], sum(hits for _, hits in pairs)
    if isinstance(value, dict):
        made = {name: scrub_json(entry) for name, entry in value.items()}
        return {name: new for name, (new, _) in made.items()}, sum(hits for _, hits in made.values())
    return value, 0


class Bench:
    """A pipeline and what it told."""

    def __init__(
        self,
        pending: dict[RpcId, str] | None = None,
        on_endpoint: Callable[[str], str | None] | None = None,
        max_event: int = 4096,
    ) -> None:
        self.signals: list[Signal] = []
        self.pipeline = AnswerPipeline(
            pending={} if pending is None else pending,
            visible=lambda kind, name: not name.startswith("hidden"),
            scrub_bytes=scrub_bytes,
            scrub_json=scrub_json,
            on_signal=self.signals.append,
            on_endpoint=on_endpoint,
            max_event=max_event,
        )

    def body(self, value: Any) -> bytes:
        return self.pipeline.body(value if isinstance(value, bytes) else dump(value))

    def events(self, stream: bytes) -> list[Event]:
        """The events that a client reads after the pipeline."""
        return EventParser().feed(b"".join(self.pipeline.feed(stream)))


def dump(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def event(value: Any, head: str = "id: 7\n") -> bytes:
    text = value if isinstance(value, str) else json.dumps(value)
    return f": note\n{head}event: message\ndata: {text}\nretry: 3\n\n".encode()


def tools(*names: str, rpc_id: RpcId = 1, **more: Any) -> dict[str, Any]:
    entries = [{"name": name, "inputSchema": {"type": "object"}} for name in names]
    return {"jsonrpc": "2.0", "id": rpc_id, "result": {"tools": entries, **more}}


def names(message: Any) -> list[str]:
    return [entry["name"] for entry in message["result"]["tools"]]


RESULT = {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "é \u2028"}]}}
