"""Other readers of the same bytes: the official SDK's of streams, and Node."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx2

_REPORT = """
const bits = new DataView(new ArrayBuffer(8));
function told(value) {
  if (typeof value === "number") {
    bits.setFloat64(0, value);
    return "#" + bits.getBigUint64(0).toString(16);
  }
  if (typeof value === "string") return '"' + value;
  if (Array.isArray(value)) return [0, ...value.map(told)];
  if (value !== null && typeof value === "object") {
    return [1, ...Object.keys(value).map(k => [k, told(value[k])])];
  }
  return value;
}
require("readline").createInterface({input: process.stdin}).on("line", line => {
  let answer;
  try { answer = told(JSON.parse(Buffer.from(line, "base64").toString("utf8"))); } catch (e) { answer = [2]; }
  process.stdout.write(JSON.stringify(answer) + "\\n");
});
"""


def same(one: Any, other: Any) -> bool:
    """Equal as JSON, type by type: 1 is neither 1.0 nor true, and -0.0 is not 0.0. However deep it is."""
    left = [(one, other)]
    while left:
        a, b = left.pop()
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            if a.keys() != b.keys():
                return False
            left += [(a[name], b[name]) for name in a]
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return False
            left += zip(a, b, strict=True)
        elif type(a) is not type(b) or _bits(a) != _bits(b):
            return False
    return True


def _bits(value: Any) -> Any:
    return struct.pack(">d", value) if isinstance(value, float) else value


def sdk_events(stream: bytes) -> list[tuple[str, str]]:
    """Type and data of each event that the SDK's client acts on in a whole stream."""
    headers = {"content-type": "text/event-stream"}
    response = httpx2.Response(
        200, headers=headers, content=stream, request=httpx2.Request("GET", "https://x/")
    )
    return [(event.event, event.data) for event in httpx2.EventSource(response) if event.data]


def as_doubles(value: Any) -> Any:
    """What ``Node.read`` tells of a text that means ``value``; members sorted, for they have no order.

    Raises:
        OverflowError: an integer is no double.
    """
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return "#" + format(struct.unpack(">Q", struct.pack(">d", float(value)))[0], "x")
    if isinstance(value, str):
        return '"' + value
    if isinstance(value, list):
        return [0, *map(as_doubles, value)]
    return [1, *sorted([name, as_doubles(member)] for name, member in value.items())]


def _sorted(told: Any) -> Any:
    if not isinstance(told, list):
        return told
    if told[0] == 1:
        return [1, *sorted([name, _sorted(member)] for name, member in told[1:])]
    return [told[0], *map(_sorted, told[1:])]


class Node:
    """A Node process that tells what ``JSON.parse`` makes of bodies; numbers are told as their doubles."""

    def __init__(self, path: str) -> None:
        self._process = subprocess.Popen([path, "-e", _REPORT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def read(self, bodies: Sequence[bytes]) -> list[Any]:
        """The reading of each body; ``[2]`` if it is no JSON for Node."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        told = []
        for body in bodies:
            self._process.stdin.write(base64.b64encode(body) + b"\n")
            self._process.stdin.flush()
            told.append(_sorted(json.loads(self._process.stdout.readline())))
        return told

    def close(self) -> None:
        self._process.communicate()


@contextlib.contextmanager
def node() -> Iterator[Node | None]:
    """Node, or None if it is not installed."""
    path = shutil.which("node")
    if path is None:
        yield None
        return
    made = Node(path)
    try:
        yield made
    finally:
        made.close()
