"""The parts of scripts/conformance: what counts as a difference, and relays that change nothing else."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import compare
from tests.conformance.relay import Relays
from tests.conformance.suite import Verdicts, verdicts

MARKS = {"+": "SUCCESS", "-": "FAILURE", "~": "SKIPPED"}


def said(**scenarios: str) -> Verdicts:
    """Verdicts from words like ``a+``: the check and its status."""
    return {
        name: Counter((word[:-1], word[:-1].title(), MARKS[word[-1]]) for word in words.split())
        for name, words in scenarios.items()
    }


DIRECT = said(one="a+ b+ b+", two="c~")
DIFFERENT = {
    "a status": (said(one="a- b+ b+", two="c~"), "a"),
    "a check less": (said(one="b+ b+", two="c~"), "a"),
    "a check given less often": (said(one="a+ b+", two="c~"), "b"),
    "a check more": (said(one="a+ b+ b+", two="c~ d+"), "d"),
    "a check that was skipped": (said(one="a+ b+ b+", two="c+"), "c"),
    "a scenario less": (said(one="a+ b+ b+"), "c"),
}


def test_the_same_verdicts_do_not_differ() -> None:
    assert (
        compare.differences("server", "2025-11-25", "forward", DIRECT, dict(reversed(DIRECT.items()))) == []
    )


@pytest.mark.parametrize(("through", "check"), DIFFERENT.values(), ids=DIFFERENT)
def test_a_verdict_that_differs_is_found(through: Verdicts, check: str) -> None:
    (found,) = compare.differences("server", "2025-11-25", "forward", DIRECT, through)
    assert found.check == check
    assert found.direct != found.through


PAGE = """
| side | revision | way | check | why |
| --- | --- | --- | --- | --- |
| server | 2025-11-25 | forward | `a` | because |
| client | * | * | `b` | because |
| server | * | reverse | `c` |  |
"""


def test_only_what_a_row_names_and_explains_is_explained(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    known = compare.documented(tmp_path / "page.md")
    assert known == {("server", "2025-11-25", "forward", "a"), ("client", "*", "*", "b")}

    def explained(side: str, spec: str, way: str, check: str) -> bool:
        item = compare.Difference(side, spec, way, "one", check, "A", "SUCCESS", "FAILURE")
        return any(compare.explains(key, item) for key in known)

    assert explained("server", "2025-11-25", "forward", "a")
    assert explained("client", "2026-07-28", "reverse", "b")
    assert not explained("server", "2026-07-28", "forward", "a")
    assert not explained("server", "2025-11-25", "reverse", "a")
    assert not explained("client", "2025-11-25", "forward", "a")
    assert not explained("server", "2025-11-25", "reverse", "c")


def test_the_latest_verdict_of_a_scenario_counts_and_notes_do_not(tmp_path: Path) -> None:
    for time, status in (("2026-01-02T00-00-00-000Z", "SUCCESS"), ("2026-01-01T00-00-00-000Z", "FAILURE")):
        for name in ("server-server-initialize", "auth/basic"):
            folder = tmp_path / f"{name}-{time}"
            folder.mkdir(parents=True)
            checks = [{"id": "a", "name": "A", "status": status}, {"id": "n", "name": "N", "status": "INFO"}]
            (folder / "checks.json").write_text(json.dumps(checks))
    assert verdicts(tmp_path, prefix="server-") == {
        "server-initialize": {("a", "A", "SUCCESS"): 1},
        "auth/basic": {("a", "A", "SUCCESS"): 1},
    }


# --- relays ---


class Echo:
    """Takes one connection, answers each chunk with itself, and keeps all that came."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.came = b""
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        sock, _ = self.listener.accept()
        with sock:
            while chunk := sock.recv(1 << 16):
                self.came += chunk
                sock.sendall(chunk)


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    with made.listener:
        yield made


@pytest.fixture
def relays() -> Iterator[Relays]:
    made = Relays()
    yield made
    made.close()


def talk(port: int, *chunks: bytes, answer: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.settimeout(10)
        for chunk in chunks:
            sock.sendall(chunk)
        got = b""
        while len(got) < answer and (more := sock.recv(1 << 16)):
            got += more
        return got


def test_a_guide_leads_to_the_port_of_the_moment(echo: Echo, relays: Relays, tmp_path: Path) -> None:
    port = relays.guide(tmp_path / "port")
    (tmp_path / "port").write_text(str(echo.port))
    raw = b"\0any bytes\r\n\r\n\xff"
    assert talk(port, raw, answer=len(raw)) == raw


def test_a_bearer_adds_its_header_to_each_request_and_nothing_else(echo: Echo, relays: Relays) -> None:
    port = relays.bearer(echo.port, b"X-Callerid-Token: t")
    first = b"POST /mcp HTTP/1.1\r\nHost: a\r\nCONTENT-LENGTH: 8\r\n\r\n\r\n\r\nGET "
    second = b"GET /mcp HTTP/1.1\r\nHost: a\r\n\r\n"
    wanted = first.replace(b"1.1\r\n", b"1.1\r\nX-Callerid-Token: t\r\n", 1)
    wanted += second.replace(b"1.1\r\n", b"1.1\r\nX-Callerid-Token: t\r\n", 1)
    assert talk(port, first[:30], first[30:-3], first[-3:] + second, answer=len(wanted)) == wanted


def test_a_bearer_ends_at_a_request_that_it_cannot_measure(echo: Echo, relays: Relays) -> None:
    port = relays.bearer(echo.port, b"X-Callerid-Token: t")
    assert talk(port, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", answer=1) == b""
    echo.thread.join(10)
    assert echo.came == b""
