"""mitmproxy's readers with our bounds, fed with bytes: what they refuse before there is a flow is told."""

from __future__ import annotations

from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from mitmproxy import connection, http, options
from mitmproxy.proxy import commands, context, events
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestHeaders, RequestProtocolError

from callerid.model import Reason
from callerid.proxy import engine
from callerid.proxy.framing import MAX_EMPTY

HEAD = b"GET /mcp HTTP/1.1\r\nHost: things.corp.example\r\n\r\n"
OPTIONS = options.Options()
OPTIONS.add_option("validate_inbound_headers", bool, True, "as the proxy has it")
type Told = list[tuple[Reason, str, bytes]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What ``unread`` is told."""
    heard: Told = []

    def listen(where: context.Context, reason: Reason, flaw: str, start: bytes) -> http.Response | None:
        heard.append((reason, flaw, start))
        return None

    monkeypatch.setattr(engine, "_listeners", [listen])
    return heard


class Wire:
    """A reader, and what it made of the bytes."""

    def __init__(self, reader: Any) -> None:
        self.client = connection.Client(
            peername=("192.0.2.1", 1), sockname=("192.0.2.2", 8080), timestamp_start=0.0
        )
        self.client.state = connection.ConnectionState.OPEN
        self.reader = reader(context.Context(self.client, OPTIONS))
        self.made: list[Any] = []
        self._pass(events.Start())

    def feed(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self._pass(events.DataReceived(self.client, chunk))

    def _pass(self, event: events.Event) -> None:
        self.made += self.reader.handle_event(event)

    def http(self, kind: type) -> list[Any]:
        found = [command.event for command in self.made if isinstance(command, ReceiveHttp)]
        return [event for event in found if isinstance(event, kind)]

    @property
    def closed(self) -> bool:
        return any(isinstance(command, commands.CloseConnection) for command in self.made)


# -- empty lines before a request ------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
@pytest.mark.parametrize("count", [0, 1, MAX_EMPTY])
@pytest.mark.parametrize("apart", [False, True], ids=["in one packet", "byte by byte"])
def test_a_few_empty_lines_before_a_request_are_skipped(
    told: Told, end: bytes, count: int, apart: bool
) -> None:
    wire, raw = Wire(engine._Server), end * count + HEAD
    wire.feed(*[raw[at : at + 1] for at in range(len(raw))] if apart else [raw])
    assert [event.request.path for event in wire.http(RequestHeaders)] == ["/mcp"]
    assert told == []


@pytest.mark.parametrize("end", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
@pytest.mark.parametrize("apart", [False, True], ids=["in one packet", "byte by byte"])
def test_more_of_them_are_refused_and_told_with_the_request_behind_them(
    told: Told, end: bytes, apart: bool
) -> None:
    wire, raw = Wire(engine._Server), end * (MAX_EMPTY + 1) + HEAD
    wire.feed(*[raw[at : at + 1] for at in range(len(raw))] if apart else [raw])
    assert wire.http(RequestHeaders) == []
    [(reason, flaw, start)] = told
    assert (reason, flaw) == (Reason.MALFORMED_HTTP, "too many empty lines before the request")
    assert apart or HEAD in start
    sent = b"".join(command.data for command in wire.made if isinstance(command, commands.SendData))
    assert sent.startswith(b"HTTP/1.1 400 ")


# -- HTTP/2 ----------------------------------------------------------------------------------------

FIELDS = [
    (":method", "POST"), (":scheme", "https"), (":path", "/mcp"), (":authority", "things.corp.example"),
]  # fmt: skip


class Sender:
    """A client of HTTP/2 that checks nothing."""

    def __init__(self) -> None:
        self.http = H2Connection(
            H2Configuration(
                validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding=None
            )
        )
        self.http.initiate_connection()

    def ask(self, *more: tuple[str, str], body: bytes = b"") -> None:
        stream = self.http.get_next_available_stream_id()
        self.http.send_headers(stream, [*FIELDS, *more], end_stream=not body)
        if body:
            self.http.send_data(stream, body, end_stream=True)

    def bytes(self) -> bytes:
        return self.http.data_to_send()


def test_a_request_over_http2_is_passed_on_and_nothing_told(told: Told) -> None:
    wire, sender = Wire(engine._Server2), Sender()
    sender.ask()
    wire.feed(sender.bytes())
    assert [event.request.path for event in wire.http(RequestHeaders)] == ["/mcp"]
    assert (told, wire.closed) == ([], False)


@pytest.mark.parametrize(
    ("more", "body"),
    [
        pytest.param([("host", "evil.corp.example")], b"", id="a Host of another place"),
        pytest.param([("content-length", "5")], b"{}", id="a length that is not the body's"),
        pytest.param([("transfer-encoding", "chunked")], b"", id="chunked"),
        pytest.param([("x-note", "a\r\nb: c")], b"", id="a line end in a value"),
        pytest.param([("Mcp-Method", "ping")], b"", id="capitals in a name"),
        pytest.param([(":method", "GET")], b"", id="two methods"),
        pytest.param([(":path", "/other")], b"", id="two paths"),
        pytest.param([("x" * 70_000, "y" * 70_000)], b"", id="a head that is too long"),
    ],
)
def test_a_request_that_http2_refuses_is_told_and_closed(
    told: Told, more: list[tuple[str, str]], body: bytes
) -> None:
    wire, sender = Wire(engine._Server2), Sender()
    sender.ask(*more, body=body)
    wire.feed(sender.bytes())
    assert [(reason, flaw) for reason, flaw, _ in told] == [
        (Reason.MALFORMED_HTTP, "what came over HTTP/2 cannot be read")
    ]
    assert wire.http(RequestHeaders) == []
    assert wire.closed


@pytest.mark.parametrize(
    "raw",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 50, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"],
    ids=["HTTP/1", "zeros", "half a preface"],
)
def test_what_is_no_http2_is_told_and_closed(told: Told, raw: bytes) -> None:
    wire = Wire(engine._Server2)
    wire.feed(raw)
    assert len(told) == 1
    assert wire.closed


def test_requests_that_are_lost_with_a_refused_one_are_told_as_well(told: Told) -> None:
    """The reader gives up on all that came in one packet: what was good in it never becomes a flow."""
    wire, sender = Wire(engine._Server2), Sender()
    sender.ask()
    sender.ask()
    sender.ask(("Mcp-Method", "ping"))
    wire.feed(sender.bytes())
    assert wire.http(RequestHeaders) == []
    assert len(told) == 3


def test_a_request_with_a_flow_ends_by_its_flow(told: Told) -> None:
    wire, sender = Wire(engine._Server2), Sender()
    sender.ask()
    wire.feed(sender.bytes())
    sender.ask(("Mcp-Method", "ping"))
    wire.feed(sender.bytes())
    assert [event.stream_id for event in wire.http(RequestProtocolError)] == [1]
    assert len(told) == 1


def test_a_reader_that_raises_is_closed_and_told(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    wire, sender = Wire(engine._Server2), Sender()
    sender.ask()
    wire.feed(sender.bytes())

    def fails(event: Any) -> Any:
        raise AssertionError("unreachable")

    monkeypatch.setattr(wire.reader, "handle_h2_event", fails)
    sender.ask()
    wire.feed(sender.bytes(), b"more")
    assert wire.closed
    assert len(told) == 1
    assert [event.stream_id for event in wire.http(RequestProtocolError)] == [1]
