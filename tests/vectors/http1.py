"""A case's step as an HTTP/1 request, and the answer read as leniently as clients do."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.vectors.corpus import Step, Way, put_in

type Fields = list[tuple[str, str]]


def fields(step: Step, names: Mapping[str, str]) -> Fields:
    """The header fields of a step as the case has them, and those it leaves to us, without the framing.

    ``-Name`` in a case's headers leaves ours of that name out.
    """
    without = {line[1:].lower() for line in step.headers if line.startswith("-")}
    given = [_field(put_in(line, names)) for line in step.headers if not line.startswith("-")]
    told = {name.strip().lower() for name, _ in given}
    made: Fields = []
    if step.host != "-":
        made.append(("Host", put_in(step.host, names)))
    if step.who != "nobody":
        made.append(("X-Callerid-Token", names[step.who]))
    if step.method == "POST" and not {"content-type"} & (told | without):
        made.append(("Content-Type", "application/json"))
    return [*made, *given]


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.removeprefix(" ")


def target(step: Step, way: Way, names: Mapping[str, str]) -> str:
    """The request target: in absolute form where the way in asks for it."""
    path = put_in(step.target, names)
    return f"http://{names['place']}{path}" if way == "absolute" and path.startswith("/") else path


def request(step: Step, way: Way, names: Mapping[str, str]) -> bytes:
    """The bytes of one step."""
    if step.raw is not None:
        return step.raw.made({**names, "target": target(Step(target="/mcp"), way, names)})
    body = step.body.made(names)
    made = fields(step, names)
    told = {name.strip().lower() for name, _ in made}
    if step.chunks:
        parts = [chunk.made(names) for chunk in step.chunks]
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        made.append(("Transfer-Encoding", "chunked"))
    elif (body or step.method == "POST") and not told & {"content-length", "transfer-encoding"}:
        made.append(("Content-Length", str(len(body))))
    lines = [f"{step.method} {target(step, way, names)} HTTP/1.1"]
    lines += [f"{name}: {value}" if value or name.lower() == "host" else f"{name}:" for name, value in made]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@dataclass(slots=True)
class Got:
    """What a client got: a whole answer, or all there was when the connection ended."""

    status: int
    headers: Fields = field(default_factory=list)
    body: bytes = b""
    raw: bytes = b""

    def value(self, name: str) -> str:
        return next((value for header, value in self.headers if header.lower() == name), "")


class Client:
    """Reads answers off a socket. Everything received stays in ``raw``."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.raw = b""
        self._at = 0

    def send(self, raw: bytes) -> None:
        """Send; a peer that has closed already is not an error: its answer tells."""
        try:
            self.sock.sendall(raw)
        except (OSError, ssl.SSLError):
            return

    def hang_up(self) -> None:
        """Say that nothing more will be sent."""
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        self.sock.close()

    def read(self) -> Got | None:
        """The next answer, or None if the peer closed without one. Raises TimeoutError."""
        while True:
            got = self._one()
            if got is None or got.status != 100:
                return got

    def _one(self) -> Got | None:
        start = self._at
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        line, *rest = head.decode("latin-1").split("\r\n")
        headers = [
            (name.strip(), value.strip()) for name, _, value in (part.partition(":") for part in rest if part)
        ]
        got = Got(int(line.split(" ")[1]), headers)
        if "chunked" in got.value("transfer-encoding").lower():
            got.body = self._chunks()
        elif got.value("content-length"):
            got.body = self._exactly(int(got.value("content-length")))
        elif got.status not in (100, 204, 304):
            got.body = self._rest()
        got.raw = self.raw[start : self._at]
        return got

    def _more(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            raise
        except (OSError, ssl.SSLError):
            data = b""
        self.raw += data
        return bool(data)

    def _until(self, mark: bytes) -> bytes | None:
        while (end := self.raw.find(mark, self._at)) < 0:
            if not self._more():
                return None
        made, self._at = self.raw[self._at : end], end + len(mark)
        return made

    def _exactly(self, size: int) -> bytes:
        while len(self.raw) < self._at + size and self._more():
            pass
        made, self._at = self.raw[self._at : self._at + size], min(self._at + size, len(self.raw))
        return made

    def _rest(self) -> bytes:
        while self._more():
            pass
        return self._exactly(len(self.raw) - self._at)

    def _chunks(self) -> bytes:
        made = b""
        while (line := self._until(b"\r\n")) is not None:
            size = int(line.split(b";")[0], 16)
            made += self._exactly(size)
            self._until(b"\r\n")
            if not size:
                break
        return made
