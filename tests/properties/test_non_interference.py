"""Non-interference: whatever callers send and servers answer, a secret is only in requests to its place.

A real proxy in a process of its own, real TLS servers, and traffic that hypothesis makes up: good calls and
refused ones, garbage, other hosts, raw keys in callers' hands, and answers that give the secret away in the
head, the reason phrase, the body, an event or a broken piece of HTTP, in any rendering, cut anywhere.

After each example every byte that a client got, every request that arrived anywhere, and everything that the
process printed is searched for all renderings; so is the whole home, while it runs and after its end.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from callerid.credentials.scrub import Scrubber
from callerid.credentials.secret import Secret
from callerid.mcp.pipeline import AnswerPipeline
from tests.e2e import harness as h
from tests.e2e.conftest import pki as pki
from tests.e2e.conftest import warm as warm
from tests.e2e.warm import Warm
from tests.unit.mcp.pipeline_bench import Sight

SECRETS = {"things": 'up"s/4f9c+2a7d\\81e6=b350', "api": "api-secret&9d0c'77<ab>12"}
POLICY = """version: 1
mode: enforce
unknown_server: observe
rules:
  - {id: tools, effect: allow, who: ["group:engineering"], servers: [things, plain], tools: ["read_*"]}
  - {id: http, effect: allow, who: ["group:engineering"], servers: [api], tools: ["http:* /api/**"]}
"""


def renderings(secret: str) -> dict[str, bytes]:
    """The forms in which it may not be found. Made here, by other means than the product's."""
    raw = secret.encode()
    forms = {
        "raw": raw,
        "percent": quote(secret, safe="").encode(),
        "percent, lower case": "".join(c if c.isalnum() else f"%{ord(c):02x}" for c in secret).encode(),
        "all percent": "".join(f"%{ord(c):02X}" for c in secret).encode(),
        "JSON": json.dumps(secret)[1:-1].encode(),
        "JSON twice": json.dumps(json.dumps(secret)[1:-1])[1:-1].encode(),
        "hexadecimal": raw.hex().encode(),
        "base64": base64.b64encode(raw).rstrip(b"="),
        "base64url": base64.urlsafe_b64encode(raw).rstrip(b"="),
    }
    for shift in (1, 2):
        coded = base64.b64encode(b"\0" * shift + raw)
        forms[f"base64 after {shift}"] = coded[(0, 2, 3)[shift] : len(coded) - 4]
    return forms


FORMS = {name: renderings(secret) for name, secret in SECRETS.items()}


def spelled(secret: str, how: str) -> bytes:
    """The secret as a careless server or caller writes it."""
    if how.startswith("base64 after"):
        return base64.b64encode(b"k" * int(how[-1]) + secret.encode() + b" and more")
    return renderings(secret)[how]


def searched(data: bytes) -> list[str]:
    return [f"{name}: {how}" for name, forms in FORMS.items() for how, form in forms.items() if form in data]


# -- what is made up -----------------------------------------------------------------------------------

HOWS = tuple(FORMS["things"])
hows = st.sampled_from(HOWS)
cuts = st.lists(st.integers(0, 400), max_size=8).map(lambda cuts: tuple(sorted(set(cuts))))


@dataclass(frozen=True)
class Plan:
    """How a server answers: ``shape`` says where it gives the secret away, ``how`` in which form."""

    shape: str
    how: str
    status: int
    cut: tuple[int, ...]
    around: str


SHAPES = (
    *("honest", "json result", "json error", "member name", "header", "header name", "redirect", "challenge"),
    *("cookie", "reason", "html", "binary", "no type", "events", "event id", "comment", "endpoint"),
    *("chunked json", "chunked text", "bad status line", "bad header", "bad chunk", "short body", "hang up"),
)
plans = st.builds(
    Plan,
    shape=st.sampled_from(SHAPES),
    how=hows,
    status=st.sampled_from([200, 200, 200, 201, 202, 204, 302, 307, 400, 401, 403, 404, 429, 500, 502]),
    cut=cuts,
    around=st.text('ab "\\%/=-', max_size=6),
)


@dataclass(frozen=True)
class Step:
    """What a caller sends. ``holds``: the rendering of a raw key that it carries, and where."""

    to: str
    who: str
    what: str
    holds: tuple[str, str, str] | None
    plan: Plan


WHATS = (
    *("read", "read", "read", "denied tool", "list", "initialize", "notification", "batch", "stream"),
    *("garbage", "wrong path", "dots", "wrong host", "delete", "get", "upload", "absolute"),
)
steps = st.builds(
    Step,
    to=st.sampled_from(["things", "things", "api", "api", "plain", "wild"]),
    who=st.sampled_from(["alice", "alice", "alice", "ivy", "nobody", "liar"]),
    what=st.sampled_from(WHATS),
    holds=st.one_of(
        st.none(),
        st.none(),
        st.none(),
        st.tuples(
            st.sampled_from(sorted(SECRETS)),
            hows,
            st.sampled_from(["bearer", "header", "cookie", "query", "argument", "path", "agent"]),
        ),
    ),
    plan=plans,
)


# -- the servers ---------------------------------------------------------------------------------------


@dataclass
class Scene:
    proxy: h.WarmProxy
    upstreams: dict[str, h.Upstream]
    alice: str
    ivy: str
    plan: Plan
    to: str = "things"
    answers: list[bytes] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, seen: h.Seen) -> h.Reply:
        """A server that is sent a secret knows it at all of its paths, one that is not only what it heard."""
        known = SECRETS.get(self.to, SECRETS["things"])
        governed = self.to == "plain" and seen.path.startswith("/mcp")
        knows = self.to in SECRETS or governed
        return answered(self.plan, seen, known if knows else "nothing-to-tell-0123456789")


def answered(plan: Plan, seen: h.Seen, secret: str) -> h.Reply:
    leak = plan.around.encode() + spelled(secret, plan.how) + plan.around.encode()
    text = leak.decode("latin-1")
    try:
        message = json.loads(seen.body)
        rpc_id = message.get("id") if isinstance(message, dict) else None
    except ValueError:
        rpc_id = None
    body: dict[str, Any] = {
        "jsonrpc": "2.0",
        "id": rpc_id,
        "result": {"content": [{"type": "text", "text": "x"}]},
    }
    result = json.dumps({**body, "result": {"content": [{"type": "text", "text": text}]}}).encode()
    typed = [("content-type", "application/json")]
    named: dict[str, list[tuple[str, str]]] = {
        "header": [("x-echo", text.strip())],
        "header name": [(f"x-{''.join(c for c in text if c.isalnum() or c in '-_')}", "1")],
        "redirect": [("location", f"https://localhost/?k={text}")],
        "challenge": [("www-authenticate", f"Bearer error={text}")],
        "cookie": [("set-cookie", f"k={text}")],
    }
    honest = json.dumps(body).encode()
    if plan.shape in named:
        return h.Reply(plan.status, [*typed, *named[plan.shape]], honest)
    wire = {
        "reason": b"HTTP/1.1 200 " + leak + b"\r\ncontent-length: 0\r\n\r\n",
        "bad status line": b"HTTP/1.1 " + leak + b"\r\n\r\n",
        "bad header": b"HTTP/1.1 200 OK\r\nx" + leak + b"\r\n" + leak + b": a\r\ncontent-length: 0\r\n\r\n",
        "bad chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + leak + b"\r\nab\r\n",
        "short body": b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n" + result,
        "hang up": leak[:9],
    }
    if plan.shape in wire:
        return h.Reply(raw=wire[plan.shape])
    error = json.dumps({"jsonrpc": "2.0", "id": rpc_id, "error": {"code": -32000, "message": text}}).encode()
    whole = {
        "honest": (typed, honest),
        "json result": (typed, result),
        "json error": (typed, error),
        "member name": (typed, json.dumps({**body, "result": {text: [text, {text: 1}]}}).encode()),
        "html": ([("content-type", "text/html")], b"<html>" + leak + seen.raw + b"</html>"),
        "binary": ([("content-type", "application/octet-stream")], bytes(range(256)) + leak + b"\xff\xfe"),
        "no type": ([], leak + seen.raw),
    }
    if plan.shape in whole:
        headers, content = whole[plan.shape]
        return h.Reply(plan.status, headers, content)
    events = {
        "events": b"event: message\ndata: " + result + b"\n\n",
        "event id": b"id: " + leak + b"\ndata: " + honest + b"\n\n",
        "comment": b": " + leak + b"\n\ndata: " + honest + b"\n\n",
        "endpoint": b"event: endpoint\ndata: /mcp/messages?k=" + leak + b"\n\n",
        "chunked json": result,
        "chunked text": leak + b" " + leak,
    }
    types = {"chunked json": "application/json", "chunked text": "text/plain"}
    data = events[plan.shape]
    places = [0, *(cut for cut in plan.cut if cut < len(data)), len(data)]
    pieces = [data[a:b] for a, b in pairwise(places) if b > a]
    kind = [("content-type", types.get(plan.shape, "text/event-stream"))]
    return h.Reply(200, kind, chunks=iter(pieces), close=plan.status >= 400)


# -- the callers ---------------------------------------------------------------------------------------


def request(scene: Scene, step: Step) -> tuple[bytes, bool]:
    """The bytes of one request, and whether it goes to the proxy without a tunnel."""
    port = scene.upstreams[step.to].port
    authority, base = f"localhost:{port}", "/api/charges" if step.to == "api" else "/mcp"
    carried = step.holds and spelled(SECRETS[step.holds[0]], step.holds[1]).decode()
    where = step.holds[2] if step.holds else ""
    arguments = {"note": carried} if where == "argument" else {"x": 1}
    bodies = {
        "denied tool": h.tool("drop_thing", arguments, 1),
        "list": h.rpc("tools/list", None, 1),
        "initialize": h.rpc("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}}, 1),
        "notification": h.rpc("notifications/initialized", rpc_id=None),
        "batch": b"[" + h.tool("read_thing", arguments, 1) + b"," + h.tool("drop_thing", arguments, 2) + b"]",
        "garbage": b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "id": 2' + (carried or "").encode(),
        "upload": bytes(range(256)) * 20,
    }
    bodiless = {"stream": "GET", "delete": "DELETE", "get": "GET"}
    verb = bodiless.get(step.what, "POST")
    body = b"" if step.what in bodiless else bodies.get(step.what, h.tool("read_thing", arguments, 1))
    path = {"wrong path": "/elsewhere", "dots": f"{base}/../x"}.get(step.what, base)
    path += {"query": f"?a=1&k={carried}", "path": f"/{quote(carried or '', safe='%')}"}.get(where, "")
    path = path.replace(" ", "%20")
    lines = [
        f"Host: {'elsewhere.corp.example' if step.what == 'wrong host' else authority}",
        "Connection: close",
    ]
    lines += {
        "bearer": [f"Authorization: Bearer {carried}"],
        "header": [f"X-Whatever: {carried}"],
        "cookie": [f"Cookie: a=b; c={carried}"],
        "agent": [f"User-Agent: agent {carried}"],
    }.get(where, [])
    kind = "application/octet-stream" if step.what == "upload" else "application/json"
    accept = "text/event-stream" if step.what == "stream" else "application/json, text/event-stream"
    lines += [f"Accept: {accept}"]
    if verb == "POST":
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    plain = step.what == "absolute"
    if plain:
        lines += [f"Proxy-Authorization: {line}" for line in [credentials_of(scene, step)] if line]
        path = f"http://{authority}{path}"
    head = "\r\n".join([f"{verb} {path} HTTP/1.1", *lines])
    return head.encode("latin-1", "replace") + b"\r\n\r\n" + body, plain


def credentials_of(scene: Scene, step: Step) -> str | None:
    token = {"alice": scene.alice, "ivy": scene.ivy, "liar": "cid_" + "a" * 49}.get(step.who)
    return None if token is None else h.basic(step.who, token)


def played(scene: Scene, step: Step) -> bytes:
    """Everything that comes back to the client, byte for byte, and once more without its chunks."""
    scene.plan, scene.to = step.plan, step.to
    raw, plain = request(scene, step)
    said = credentials_of(scene, step)
    got = b""
    with suppress(OSError):
        if plain:
            client = scene.proxy.plain()
        else:
            connect = {"Proxy-Authorization": said} if said else None
            client = scene.proxy.tunnel(f"localhost:{scene.upstreams[step.to].port}", headers=connect)
        client.send(raw)
        # A stream that the server leaves open has its first events at once; more does not come.
        client.sock.settimeout(5)
        while data := client.sock.recv(65536):
            got += data
        client.close()
    return got + b"\n\n" + dechunked(got)


def dechunked(raw: bytes) -> bytes:
    """The bodies in ``raw`` as a client joins them, where they are chunked."""
    joined, rest = b"", raw.partition(b"\r\n\r\n")[2]
    while rest:
        size, end, rest = rest.partition(b"\r\n")
        try:
            length = int(size.split(b";")[0], 16)
        except ValueError:
            return joined
        if not end or not length:
            return joined
        joined, rest = joined + rest[:length], rest[length + 2 :]
    return joined


# -- the property --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Scene]:
    made: list[Scene] = []
    upstreams = {
        name: h.Upstream(pki.server_context(), lambda seen: made[0].answer(seen))
        for name in ("things", "api", "plain", "wild")
    }
    ports = {name: upstream.port for name, upstream in upstreams.items()}
    proxy = h.WarmProxy(
        warm,
        tmp_path_factory.mktemp("non-interference"),
        rules(ports),
        ca=pki.ca,
        environ={"THINGS_SECRET": SECRETS["things"], "API_SECRET": SECRETS["api"]},
    )
    proxy.start()
    first = Plan("honest", "raw", 200, (), "")
    made.append(Scene(proxy, upstreams, h.mint(proxy), h.mint(proxy, "user:ivy@corp.example"), first))
    try:
        yield made[0]
    finally:
        proxy.stop()
    assert at_home(proxy.home) == []
    assert searched("\n".join(proxy.output).encode()) == []
    for upstream in upstreams.values():
        upstream.close()


def rules(ports: dict[str, int]) -> dict[str, str]:
    return {
        "identities.yaml": h.identities(),
        "servers.yaml": f"""version: 1
servers:
  - {{id: things, url: "https://localhost:{ports["things"]}/mcp", credential: things-key}}
  - {{id: plain, url: "https://localhost:{ports["plain"]}/mcp"}}
  - {{id: api, kind: http, url: "https://localhost:{ports["api"]}/api", credential: api-key}}
""",
        "credentials.yaml": f"""version: 1
credentials:
  - {{id: things-key, source: {{env: THINGS_SECRET}}, inject: {{bearer: {{}}}},
     bind: {{hosts: ["localhost:{ports["things"]}"]}}}}
  - {{id: api-key, source: {{env: API_SECRET}},
     inject: {{header: {{name: X-Api-Key, format: "key={{secret}}"}}}},
     bind: {{hosts: ["localhost:{ports["api"]}"]}}}}
""",
        "policy.yaml": POLICY,
    }


def at_home(home: Path) -> list[str]:
    """Which secret stands in which file of the home."""
    files = [file for file in sorted(home.rglob("*")) if file.is_file()]
    return [f"{file.name}: {what}" for file in files for what in searched(file.read_bytes())]


def astray(scene: Scene, before: dict[str, int]) -> list[str]:
    """Secrets in requests where they do not belong: at another server, twice, or in another place."""
    wrong = []
    for name, upstream in scene.upstreams.items():
        for seen in upstream.seen[before[name] :]:
            own = {"things": ("authorization", "Bearer {}"), "api": ("x-api-key", "key={}")}.get(name)
            raw = seen.raw
            if own is not None and seen.header(own[0]) == own[1].format(SECRETS[name]):
                raw = raw.replace(SECRETS[name].encode(), b"", 1)
            wrong += [f"to {name}, {what}" for what in searched(raw)]
    return wrong


@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a process with a memory is no place to shrink in
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(traffic=st.lists(steps, min_size=4, max_size=12))
def test_a_secret_is_nowhere_but_in_the_requests_to_its_place(scene: Scene, traffic: list[Step]) -> None:
    before = {name: len(upstream.seen) for name, upstream in scene.upstreams.items()}
    for step in traffic:
        assert searched(played(scene, step)) == [], step
    assert astray(scene, before) == []
    assert searched("\n".join(scene.proxy.output).encode()) == []
    assert at_home(scene.proxy.home) == []


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("to", "what"), [("things", "read"), ("api", "read"), ("things", "wrong path")])
def test_no_shape_of_answer_gives_it_away(scene: Scene, to: str, what: str, shape: str) -> None:
    """Each shape once for certain, in every rendering: what is made up may leave one out."""
    for number, how in enumerate(HOWS):
        plan = Plan(shape, how, 200 if number % 2 else 500, tuple(range(1, 400, 7)), "")
        answer = played(scene, Step(to, "alice", what, None, plan))
        assert searched(answer) == [], how
    assert at_home(scene.proxy.home) == []


FORM = st.sampled_from([spelled(secret, how) for secret in SECRETS.values() for how in HOWS])
LINE = st.sampled_from([b"data: ", b"data:", b"id: ", b": ", b"event: ", b"retry: ", b"", b"nonsense "])
END = st.sampled_from([b"\n", b"\r\n", b"\r", b"\n\n", b"\r\n\r\n", b"\n\r"])
PIECE = st.builds(
    lambda *parts: b"".join(parts), LINE, st.binary(max_size=5), FORM, st.binary(max_size=5), END
)


@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(PIECE, min_size=1, max_size=5), cuts=st.lists(st.integers(0, 600), max_size=10))
def test_an_event_stream_comes_out_the_same_and_clean_however_it_is_cut(
    pieces: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(pieces) + b"\n\n"
    needles = [n for s in SECRETS.values() for n in Secret(s, label="s@v1").renderings()]
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    splits = ([stream], [stream[a:b] for a, b in pairwise(places)], [bytes([byte]) for byte in stream])
    found = []
    for chunks in splits:
        scrubber = Scrubber(needles)
        pipeline = AnswerPipeline(
            pending={},
            view=Sight(),
            scrub_bytes=scrubber.scrub,
            scrub_json=scrubber.scrub_json,
            on_signal=lambda signal: None,
            judge=lambda asks, request: None,
        )
        given = [out for chunk in chunks for out in pipeline.feed(chunk)]
        found.append(b"".join([*given, *pipeline.end()]))
    assert searched(found[0]) == []
    assert found[0] == found[1] == found[2]


def test_the_secret_does_get_to_its_place(scene: Scene) -> None:
    """Else all of the above would hold of a proxy that is switched off."""
    for to in ("things", "api"):
        before = len(scene.upstreams[to].seen)
        played(scene, Step(to, "alice", "read", None, Plan("json result", "raw", 200, (), "")))
        (seen,) = scene.upstreams[to].seen[before:]
        assert SECRETS[to].encode() in seen.raw
