"""A case's step over HTTP/2, with a client that writes what it is told."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from tests.vectors.corpus import Step, put_in
from tests.vectors.http1 import Fields, Got, fields

_HOP = frozenset({"host", "connection", "transfer-encoding"})


class Client2:
    """One connection; streams one after the other. Nothing that a header may hold is checked here."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.raw = b""
        self._http = H2Connection(
            H2Configuration(
                client_side=True, header_encoding=None, validate_outbound_headers=False,
                normalize_outbound_headers=False, validate_inbound_headers=False,
            )
        )  # fmt: skip
        self._http.initiate_connection()
        self._flush()

    def ask(self, step: Step, names: Mapping[str, str], *, verbatim: bool) -> Got | None:
        """One exchange. None if the stream or the connection is ended without an answer.

        Names of fields are in lower case, unless they go ``verbatim``.
        """
        stream = self._http.get_next_available_stream_id()
        body = step.body.made(names)
        try:
            self._http.send_headers(stream, _head(step, names, verbatim), end_stream=not body)
            while body:
                size = min(self._http.local_flow_control_window(stream), self._http.max_outbound_frame_size)
                if size <= 0:
                    self._events()
                    continue
                self._http.send_data(stream, body[:size], end_stream=len(body) <= size)
                body = body[size:]
        except ProtocolError as error:
            raise AssertionError(f"the client itself cannot send this: {error!r}") from error
        self._flush()
        return self._answer(stream)

    def close(self) -> None:
        self.sock.close()

    def _answer(self, stream: int) -> Got | None:
        got: Got | None = None
        while True:
            for event in self._events():
                if isinstance(event, ConnectionTerminated):
                    return got
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, ResponseReceived):
                    pairs = [
                        (name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers
                    ]
                    got = Got(int(dict(pairs)[":status"]), pairs)
                elif isinstance(event, DataReceived) and got is not None:
                    got.body += event.data
                    self._http.acknowledge_received_data(event.flow_controlled_length or 0, stream)
                elif isinstance(event, StreamEnded | StreamReset):
                    return got

    def _events(self) -> list[Event]:
        self._flush()
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            raise
        except (OSError, ssl.SSLError):
            data = b""
        self.raw += data
        events = list(self._http.receive_data(data)) if data else [ConnectionTerminated()]
        self._flush()
        return events

    def _flush(self) -> None:
        try:
            self.sock.sendall(self._http.data_to_send())
        except (OSError, ssl.SSLError):
            return


def _head(step: Step, names: Mapping[str, str], verbatim: bool) -> list[tuple[bytes, bytes]]:
    """The pseudo-headers, those that the case has instead, and its fields; ``-`` leaves one out."""
    pseudo = {
        ":method": step.method,
        ":scheme": "https",
        ":authority": put_in(step.host, names),
        ":path": put_in(step.target, names),
    }
    pseudo |= {name: put_in(value, names) for name, value in step.pseudo.items()}
    made: Fields = [(name.rstrip("+"), value) for name, value in pseudo.items() if value != "-"]
    given = {line.partition(":")[0] for line in step.headers}
    for name, value in fields(step, names):
        if name in given:
            made.append((name if verbatim else name.lower(), value))
        elif name.lower() not in _HOP:
            made.append((name.lower(), value))
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in made]
