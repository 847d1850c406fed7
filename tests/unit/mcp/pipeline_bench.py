"""A pipeline on a bench, and the messages that its tests send through it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from callerid.mcp.asks import Ask, AskRefusal
from callerid.mcp.outcomes import Signal
from callerid.mcp.pipeline import AnswerPipeline
from callerid.mcp.sse import Event, EventParser
from callerid.model import Kind, Message, MessageType, Reason, RpcId

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


def asked(method: str, *, rpc_id: RpcId = 1, protocol: str | None = None, **more: Any) -> Message:
    """A client's request of this method, as classify reads it."""
    kind = more.pop("kind", Kind.TOOL if method == "tools/call" else Kind.PROTOCOL)
    return Message(
        type=MessageType.REQUEST, method=method, kind=kind, rpc_id=rpc_id, protocol=protocol, **more
    )


class Sight:
    """A view: what begins with "hidden" is not visible, what begins with "other" is another's task."""

    def __init__(self) -> None:
        self.seen: list[tuple[Kind | None, str]] = []

    def visible(self, kind: Kind, name: str) -> bool:
        self.seen.append((kind, name))
        return not name.startswith("hidden")

    def owns_task(self, task_id: str) -> bool:
        self.seen.append((None, task_id))
        return not task_id.startswith("other")


REFUSAL = AskRefusal(
    reason=Reason.RULE_DENIED, event_id="01a0-row", rule="no-questions", say="Ask Alice.", hidden=False
)


class Bench:
    """A pipeline and what it told. ``refuse`` is why asks are refused; None allows them."""

    def __init__(
        self,
        pending: Mapping[RpcId, str | Message] | None = None,
        on_endpoint: Callable[[str], str | None] | None = None,
        max_event: int = 4096,
        refuse: AskRefusal | None = None,
    ) -> None:
        self.pending: dict[RpcId, Message] = {}
        for rpc_id, known in ({} if pending is None else pending).items():
            self.pending[rpc_id] = asked(known, rpc_id=rpc_id) if isinstance(known, str) else known
        self.signals: list[Signal] = []
        self.asks: list[tuple[tuple[Ask, ...], Message | None]] = []
        self.ids: list[str] = []
        self.view = Sight()
        self.refuse = refuse
        self.pipeline = AnswerPipeline(
            pending=self.pending,
            view=self.view,
            scrub_bytes=scrub_bytes,
            scrub_json=scrub_json,
            on_signal=self.signals.append,
            judge=self.judge,
            on_endpoint=on_endpoint,
            on_event_id=self.ids.append,
            max_event=max_event,
        )

    def judge(self, asks: tuple[Ask, ...], request: Message | None) -> AskRefusal | None:
        self.asks.append((asks, request))
        return self.refuse

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
