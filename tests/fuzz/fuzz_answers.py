"""The response side: any bytes are given out without what is hidden, the same however the stream is cut."""

from __future__ import annotations

import json
import random
import zlib
from dataclasses import astuple
from typing import Any

import pydantic_core
from hypothesis import strategies as st

from callerid.credentials.scrub import Scrubber
from callerid.mcp.asks import MALFORMED, Ask, AskRefusal
from callerid.mcp.peek import AnswerReader
from callerid.mcp.pipeline import AnswerPipeline
from callerid.mcp.prefix import completed
from callerid.mcp.recognise import looks_like_mcp_response
from callerid.mcp.sse import BOM, EventParser
from callerid.model import Kind, Message, MessageType, Reason, RpcId
from tests.fuzz.fuzz_sse import ENDS, cuttings
from tests.fuzz.mutations import damaged, misshapen, recoded, spelled
from tests.fuzz.readers import same, sdk_events
from tests.fuzz.strategies import NUMBERS, Raw, values

HIDDEN = "hidden"
SECRET = b"Zq7-secret-of-all"
SCRUBBER = Scrubber([SECRET])
SAMPLING = "sampling/createMessage"
_METHODS: dict[RpcId, str] = {
    1: "tools/list",
    "a": "resources/list",
    2: "tools/call",
    3: "prompts/list",
    4: "resources/templates/list",
    5: "tasks/list",
    0: "resources/read",
}
PENDING = {
    rpc_id: Message(type=MessageType.REQUEST, method=method, kind=Kind.METHOD, rpc_id=rpc_id)
    for rpc_id, method in _METHODS.items()
}
MEMBERS = {
    "tools": "name",
    "prompts": "name",
    "resources": "uri",
    "resourceTemplates": "uriTemplate",
    "tasks": "taskId",
}
_names = st.sampled_from(["seen", HIDDEN, "x:" + HIDDEN, "", "\u2028", "Zq7-secret-of-all"])
_entries = st.fixed_dictionaries(
    {},
    optional={
        "name": _names,
        "uri": _names,
        "uriTemplate": _names,
        "inputSchema": st.just({"type": "object"}),
    },
)
_lists: st.SearchStrategy[Any] = st.lists(
    _entries | st.sampled_from([None, 1, HIDDEN, [], {"name": 1}]), max_size=3
)
_request = st.fixed_dictionaries(
    {
        "method": st.sampled_from(
            [SAMPLING, SAMPLING, "roots/list", "elicitation/create", "sampling/other", 1]
        )
    },
    optional={
        "params": st.sampled_from(
            [{}, {"messages": []}, {"mode": "url", "url": "https://x.example/"}, None, []]
        )
    },
)
_asked = st.dictionaries(st.sampled_from(["a", "b"]), _request, max_size=2) | st.sampled_from(
    [None, [], [{"method": SAMPLING}]]
)
_results = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(MEMBERS, _lists),
        "cacheScope": st.sampled_from(["public", "private", 1]),
        "ttlMs": st.sampled_from([0, 10**9, -1, "x"]) | st.sampled_from(NUMBERS).map(Raw),
        "isError": st.booleans(),
        "content": st.just([{"type": "text", "text": "Zq7-secret-of-all"}]),
        "other": values,
        "resultType": st.sampled_from(["complete", "input_required", "task"]),
        "requestState": st.just("s"),
        "inputRequests": _asked,
        "task": st.fixed_dictionaries({"taskId": _names}, optional={"inputRequests": _asked}),
    },
)
_ids = st.sampled_from([1, "a", 2, 3, 4, 0, "1", None, Raw("1.0"), True, 99])
_messages = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "id": _ids, "result": _results}
) | st.sampled_from(
    [
        {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "x:" + HIDDEN}},
        {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"},
        {"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "no"}},
        *(
            {"jsonrpc": "2.0", "id": rpc_id, "method": SAMPLING, "params": {}}
            for rpc_id in (7, "7", 1, Raw("7.0"), None)
        ),
        {"jsonrpc": "2.0", "id": 7, "method": SAMPLING, "result": {}},
        {
            "jsonrpc": "2.0",
            "id": 2,
            "error": {"code": -32042, "message": "no", "data": {"elicitations": [{"url": "x"}]}},
        },
    ]
)


@st.composite
def cases(draw: st.DrawFn) -> bytes:
    """A JSON answer, or a stream of them."""
    rng = random.Random(draw(st.integers(0, 2**32)))

    def text() -> bytes:
        tree: Any = draw(_messages)
        if rng.random() < 0.1:
            tree = [tree, *draw(st.lists(_messages, max_size=2))]
        if rng.random() < 0.2:
            tree = misshapen(rng, tree)
        raw = spelled(rng, tree, rng.choice([0, 0, 2, 4, 8, 15, 31])).encode("utf-8", "surrogatepass")
        return damaged(rng, raw) if rng.random() < 0.1 else recoded(rng, raw) if rng.random() < 0.1 else raw

    if rng.random() < 0.4:
        return text()
    stream = BOM if rng.random() < 0.05 else b""
    end = rng.choice(ENDS)
    for _ in range(rng.randint(1, 3)):
        stream += rng.choice(
            [b"", b": x" + end, b"id: 5" + end, b"event: message" + end, BOM + b"id: 6" + end]
        )
        lines = text().splitlines() or [b""]
        stream += b"".join(b"data: " + line + end for line in lines)
        stream += rng.choice([end, end, end, end * 2, b"", b"event: endpoint" + end + end])
    return damaged(rng, stream, [*ENDS, b"data: ", BOM, b"id: 9\n"]) if rng.random() < 0.2 else stream


class Seen:
    """What the caller may see: nothing that is called hidden."""

    def visible(self, kind: Kind, name: str) -> bool:
        return HIDDEN not in name

    def owns_task(self, task_id: str) -> bool:
        return HIDDEN not in task_id


class Piped:
    """A pipeline that hides names, scrubs one secret and lets no server sample; and all that it said."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.pipeline = AnswerPipeline(
            pending=PENDING,
            view=Seen(),
            scrub_bytes=SCRUBBER.scrub,
            scrub_json=SCRUBBER.scrub_json,
            on_signal=lambda signal: self.said.append(astuple(signal)),
            judge=self.judge,
            on_endpoint=lambda url: None if HIDDEN in url else url,
            on_event_id=self.said.append,
        )

    def judge(self, asks: tuple[Ask, ...], request: Message | None) -> AskRefusal | None:
        self.said.append([(ask.method, ask.key, ask.place) for ask in asks])
        if all(ask.method not in (SAMPLING, MALFORMED) for ask in asks):
            return None
        return AskRefusal(reason=Reason.RULE_DENIED, event_id="e", rule="no-sampling", say=None, hidden=False)

    def run(self, chunks: list[bytes]) -> bytes:
        out = b"".join(piece for chunk in chunks for piece in self.pipeline.feed(chunk))
        return out + b"".join(self.pipeline.end())

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.pipeline.events, self.pipeline.hits, self.pipeline.dropped


def check(data: bytes) -> None:
    """As a whole body and as a stream."""
    for status in (200, 400):
        looks_like_mcp_response(status, [], data)
    check_peek(data)
    check_body(data)
    check_stream(data)


def check_peek(data: bytes) -> None:
    """The reader that only looks finds the same messages in any cutting and encoding, and never raises."""
    for streams in (False, True):
        found = looked_at([data], "", streams)
        for chunks in cuttings(data):
            assert same(looked_at(chunks, "", streams), found)
        for encoding, window in (("gzip", 31), ("deflate", 15), ("deflate", -15)):
            packer = zlib.compressobj(1, zlib.DEFLATED, window)
            packed = packer.compress(data) + packer.flush()
            for chunks in cuttings(packed)[:3]:
                assert same(looked_at(chunks, encoding, streams), found)
        looked_at(cuttings(data)[-1], "gzip", streams)
    text = data.decode("utf-8", "replace")
    for cut in range(0, min(len(text), 400), 7):
        completed(text[:cut])


def looked_at(chunks: list[bytes], encoding: str, streams: bool) -> list[Any]:
    """All that ``AnswerReader`` says of an answer."""
    reader = AnswerReader(encodings=encoding, event_stream=streams)
    messages = [message for chunk in chunks for message in reader.feed(chunk)] + reader.end()
    return [messages, reader.start.hex(), reader.endpoint, reader.unread]


def check_body(data: bytes) -> None:
    """Nothing hidden is listed, the secret is gone, and what went through once goes through as it is."""
    first = Piped()
    out = first.pipeline.body(data)
    assert SECRET not in out
    check_unlisted(out)
    # Some clients find a stream in a body whose type does not plainly say so.
    check_events(sdk_events(out))
    again = Piped()
    assert again.pipeline.body(out) == out
    assert again.pipeline.hits == 0


def check_stream(data: bytes) -> None:
    """The same events, outcomes and counts for every cutting; nothing hidden in any of them."""
    whole = Piped()
    out = whole.run([data])
    assert SECRET not in out
    events = [event for event in read(out) if event.raw.strip(b"\r\n")]
    told = [(event.event, event.data, event.id) for event in events]
    for chunks in cuttings(data):
        piped = Piped()
        cut = piped.run(chunks)
        assert [(e.event, e.data, e.id) for e in read(cut) if e.raw.strip(b"\r\n")] == told
        assert (piped.said, piped.counts) == (whole.said, whole.counts)
    # A client that skips a byte order mark at the start, as browsers do, and the SDK's, which knows none.
    seen = [(event.event, event.data) for event in events if event.data]
    check_events([*seen, *sdk_events(out)])


def check_events(events: list[tuple[str, str]]) -> None:
    """An endpoint is a URL that was judged; what else is not a message, clients do not act on."""
    for event, said in events:
        if event == "message":
            check_unlisted(said.encode("utf-8", "surrogatepass"))
        assert event != "endpoint" or HIDDEN not in said


def read(stream: bytes) -> list[Any]:
    parser = EventParser()
    events = parser.feed(stream)
    assert parser.rest() == b"", "an event was given out without its end"
    return list(events)


def check_unlisted(raw: bytes) -> None:
    """No reader finds a hidden name where a list stands, or that the server asks to sample."""
    for reader in (pydantic_core.from_json, json.loads, first_wins):
        try:
            value = reader(raw.removeprefix(BOM))
        except (ValueError, RecursionError):
            continue
        for message in value if isinstance(value, list) else [value]:
            if isinstance(message, dict):
                check_message(message, raw)


def first_wins(raw: bytes) -> Any:
    """As a client reads that takes the first of equal members."""
    return json.loads(raw.decode("utf-8", "replace"), object_pairs_hook=lambda pairs: dict(pairs[::-1]))


def check_message(message: dict[str, Any], raw: bytes) -> None:
    assert not (message.get("method") == SAMPLING and type(message.get("id")) in (str, int)), raw
    result = message.get("result")
    if not isinstance(result, dict):
        return
    for holder in (result, result.get("task")):
        wanted = holder.get("inputRequests") if isinstance(holder, dict) else None
        for entry in wanted.values() if isinstance(wanted, dict) else ():
            assert not (isinstance(entry, dict) and entry.get("method") == SAMPLING), raw
    for member, name in MEMBERS.items():
        entries = result.get(member)
        for entry in entries if isinstance(entries, list) else []:
            assert not (isinstance(entry, dict) and HIDDEN in str(entry.get(name))), raw
