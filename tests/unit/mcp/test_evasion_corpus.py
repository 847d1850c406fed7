"""The evasion corpus against the pure core, and the corpus and its oracle themselves.

Every case that is one HTTP message is read by ``classify`` and, if it hides a call, by ``recognise``. The
same cases go over the real proxy in ``tests/e2e/test_evasion_corpus.py``.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from callerid.mcp import classify as classifying
from callerid.mcp import methods, strictjson
from callerid.mcp.classify import ANSWERS, classify
from callerid.mcp.recognise import looks_like_mcp_request
from callerid.model import Exchange, Kind, Malformed
from tests.vectors import corpus, oracle
from tests.vectors.connection import requests
from tests.vectors.corpus import Case, CorpusError, Step
from tests.vectors.http1 import fields

NAMES = {
    **dict.fromkeys(("place", "listed", "lab"), "localhost:8443"),
    **dict.fromkeys(("evil", "evil-lab"), "127.0.0.1:9"),
    "listed-port": "8443",
    "secret": "s",
    "way": "w",
    "own": "own",
    "token-tail": "id_x",
    **dict.fromkeys(("token", "alice", "bob", "ivy"), "cid_x"),
}
MESSAGES = [(case, case.message) for case in corpus.load() if case.message is not None]
READ_FIRST = frozenset({"not_mcp", "malformed_http", *(reason.value for reason in ANSWERS)})
"""Reasons of the classification. For any other the message was read, and somebody else refused it."""


def cases(at: str) -> pytest.MarkDecorator:
    """Every case that is one message; strictly expected to fail where it says that it does.

    The core is asked about listed servers, the recogniser about every message.
    """
    given = []
    for case, step in MESSAGES:
        if at == "core" and case.to != "listed":
            continue
        marks = [pytest.mark.xfail(strict=True, reason=case.fails[at])] if at in case.fails else []
        given.append(pytest.param(case, step, marks=marks, id=f"{case.theme}-{case.id}"))
    return pytest.mark.parametrize(("case", "step"), given)


def body_of(step: Step) -> bytes:
    return b"".join(chunk.made(NAMES) for chunk in step.chunks) or step.body.made(NAMES)


def judge(step: Step) -> Exchange | Malformed:
    return classify(step.method, fields(step, NAMES), body_of(step))


def flaw(case: Case, step: Step) -> str | None:
    """How the core's reading differs from what the case states; None if it does not."""
    found = judge(step)
    rows = case.expected_rows(case.taken[0])
    if not rows:
        return None
    reason = rows[0][1]
    if reason not in READ_FIRST:
        return _misread(case, found, rows)
    if isinstance(found, Exchange):
        return f"was read as {[message.method for message in found.messages]}"
    wanted = step.answer
    members = [name for name, _ in found.elements] or [found.method]
    read = [(found.reason.value, name or f"http/{step.method}") for name in members]
    if read != [(reason, method) for _, reason, method, _ in rows]:
        return f"was refused as {read}"
    if wanted is not None and (found.http_status, found.rpc_code, found.rpc_id) != (
        wanted.status, wanted.code, wanted.wanted_id,
    ):  # fmt: skip
        return f"is answered {found.http_status} {found.rpc_code} to {found.rpc_id!r}"
    return None


def _misread(case: Case, found: Exchange | Malformed, rows: list[corpus.Row]) -> str | None:
    if isinstance(found, Malformed):
        return f"was refused as {found.reason.value}"
    read = [(m.method, m.name if m.kind in (Kind.TOOL, Kind.PROMPT) else None) for m in found.messages]
    if read != [(method, tool) for _, _, method, tool in rows]:
        return f"was read as {read}"
    forwarded = [arrival.body.made(NAMES) for arrival in case.upstream]
    return None if forwarded in ([], [found.body]) else f"would go on as {found.body!r}"


@cases("core")
def test_the_core_reads_a_case_as_it_states(case: Case, step: Step) -> None:
    if case.pending:
        pytest.skip(case.pending)
    assert flaw(case, step) is None


@cases("core")
def test_what_goes_on_has_one_reading_for_every_reader(case: Case, step: Step) -> None:
    found = judge(step)
    if not isinstance(found, Exchange) or any(message.kind is Kind.METHOD for message in found.messages):
        return
    read = {(message.method.casefold(), message.name) for message in found.messages if found.body}
    named = {(other.method, other.name) for other in oracle.in_body(found.body)}
    assert {(m, n) for m, n in named if m == "tools/call"} == {(m, n) for m, n in read if m == "tools/call"}
    assert {m for m, _ in named} == {m for m, _ in read if m not in ("response", "http/get", "http/delete")}


@cases("recogniser")
def test_what_any_reader_finds_the_recogniser_sees(case: Case, step: Step) -> None:
    """An unlisted server must not be hidden by what hides a call from a strict reader."""
    body = body_of(step)
    found = [one for one in oracle.in_body(body) if one.method == "tools/call"]
    if not found:
        return
    seen = looks_like_mcp_request(step.method, fields(step, NAMES), body)
    assert seen is (case.unseen is None), found[0].how


@pytest.mark.parametrize("case", [case for case in corpus.load() if case.hides], ids=lambda case: case.id)
def test_the_oracle_finds_what_a_case_hides(case: Case) -> None:
    """An oracle that finds nothing proves nothing: it must see the hidden call in what is sent."""
    found: set[str | None] = set()
    for step in case.steps:
        if step.raw is not None:
            raw = step.raw.made({**NAMES, "target": "/mcp"})
            found |= {one.name for request in requests(raw) for one in oracle.in_request(request)}
        else:
            found |= {one.name for one in oracle.in_body(body_of(step))}
            head = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in fields(step, NAMES))
            raw = f"{step.method} {corpus.put_in(step.target, NAMES)} HTTP/1.1\r\n".encode() + head + b"\r\n"
            found |= {one.name for request in requests(raw) for one in oracle.in_request(request)}
    assert set(case.hides) <= found


DROP = corpus.SHORT["drop"].encode()
HEAD = b"POST /mcp HTTP/1.1\r\nHost: x\r\n"
CHUNKED, LENGTH = b"Transfer-Encoding: chunked\r\n\r\n", b"Content-Length: 92\r\n\r\n"
NAMED = b"Mcp-Method: tools/call\r\nMcp-Name: =?base64?ZHJvcF90aGluZw==?=\r\n\r\n"
LAST = b"\r\n0\r\n\r\n"
ROW = ("tools/call", "drop_thing", "{}")


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + LENGTH + DROP,
        HEAD + CHUNKED + b"2e\r\n" + DROP[:46] + b"\r\n2e\r\n" + DROP[46:] + LAST,
        HEAD + b"Content-Length: 4\r\n" + CHUNKED + b"5c\r\n" + DROP + LAST,
        HEAD + b"Content-Length: 0\r\n\r\n" + HEAD + LENGTH + DROP,
        HEAD + b"Content-Length: 900\r\n\r\n" + LAST + HEAD + LENGTH + DROP,
        HEAD + b"\r\n" + DROP,
        HEAD + NAMED,
        b"GET /mcp?message=" + DROP.replace(b'"', b"%22") + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /mcp?method=tools/call&name=drop_thing HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=[
        "by its length", "by its chunks", "by chunks against a length", "behind another", "inside another",
        "without any framing", "in headers", "in a query", "in a form in the query",
    ],
)  # fmt: skip
def test_the_oracle_cuts_a_connection_in_every_way(raw: bytes) -> None:
    other = [oracle.Allowed("tools/call", "read_thing", "{}")]
    assert {found.name for found in oracle.unallowed([raw], other)} & {"drop_thing"}


@pytest.mark.parametrize(
    ("raw", "allowed", "stray"),
    [
        (DROP, [ROW], 0),
        (DROP, [("tools/call", "drop_thing", '{"x": 1}')], 1),
        (DROP, [("tools/list", None, "{}")], 1),
        (b"[" + DROP + b"," + DROP.replace(b'"id":1', b'"id":2') + b"]", [ROW], 1),
        (b"[" + DROP + b"," + DROP + b"]", [ROW, ROW], 0),
        (b"{}", [], 0),
        (b"", [], 0),
    ],
)  # fmt: skip
def test_each_call_needs_a_row_of_its_own(
    raw: bytes, allowed: list[tuple[str, str | None, str]], stray: int
) -> None:
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(raw) + raw
    assert (len(oracle.unallowed([request], [oracle.Allowed(*row) for row in allowed])) > 0) == bool(stray)


# -- the corpus itself ---------------------------------------------------------------------------------


def test_there_are_enough_cases() -> None:
    assert len(corpus.load()) >= 150


def test_every_source_has_a_case_and_every_case_a_known_source() -> None:
    """The README's table against what the cases say that they cover."""
    listed = dict(corpus.sources())
    covered = {source for case in corpus.load() for source in case.covers}
    assert sorted(covered - set(listed)) == []
    assert (
        sorted(source for source, elsewhere in listed.items() if source not in covered and not elsewhere)
        == []
    )


def test_each_way_in_is_taken_by_most_cases() -> None:
    taken = [way for case in corpus.load() for way in case.taken]
    assert {way for way in corpus.EVERY if taken.count(way) < 100} == set()


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("{id: a, says: b, rows: [], bodi: z}", "bodi"),
        ("{id: a, says: b, rows: [deny nonsense http/POST]}", "nonsense"),
        ("{id: a, says: b, rows: [], steps: [{body: x}], body: y}", "belongs into a step"),
        ("{id: a, says: b, rows: [], body: {text: x, as: [rot13]}}", "rot13"),
        ("{id: a, says: b, rows: [], body: {as: [gzip]}}", "either text or base64"),
        ("{id: a, id: b, says: b, rows: []}", "duplicate key"),
        ("{id: a, says: b, rows: [], answer: {}}", "an answer has a status"),
        ("{id: a, says: b, rows: [], ways: [h2], instead: {reverse: {rows: []}}}", "`instead` names a way"),
        ("{id: A b, says: b, rows: []}", "id"),
    ],
)
def test_a_slip_in_a_case_is_an_error(tmp_path: Path, case: str, says: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(f"theme: t\nabout: y\ncases:\n  - {case}\n")
    with pytest.raises(CorpusError, match=says):
        corpus.read_file(path)


def test_a_file_is_called_by_its_theme(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("theme: x\nabout: y\ncases: []\n")
    with pytest.raises(CorpusError, match="its theme is called x"):
        corpus.read_file(tmp_path / "t.yaml")


def test_a_name_that_stands_for_nothing_is_an_error() -> None:
    with pytest.raises(CorpusError, match="plaice"):
        corpus.put_in("<<plaice>>", NAMES)


# -- breakages -----------------------------------------------------------------------------------------


def red() -> set[str]:
    """The ids of the cases that the core, as it is at this moment, does not read as they state."""
    judged = [(case, step) for case, step in MESSAGES if case.to == "listed" and not case.pending]
    return {case.id for case, step in judged if "core" not in case.fails and flaw(case, step)}


def last_duplicate_wins(patch: pytest.MonkeyPatch) -> None:
    """As ``json.loads`` and nearly every server do."""
    decoder = json.JSONDecoder(parse_float=strictjson._double, parse_constant=strictjson._constant)
    patch.setattr(strictjson, "_SHORT", decoder)


def byte_order_mark_is_skipped(patch: pytest.MonkeyPatch) -> None:
    """As three of four measured servers do."""
    strict = strictjson._decode
    patch.setattr(strictjson, "_decode", lambda raw: strict(raw.removeprefix(codecs.BOM_UTF8)))


def batches_pass(patch: pytest.MonkeyPatch) -> None:
    """As the official TypeScript servers do, on a session of any revision; nothing of a batch is counted."""

    def passed(request: Any, members: list[Any], max_batch: int) -> Any:
        return tuple(classifying._message(request, member) for member in members) or strict(request, [], 0)

    strict = classifying._batch
    patch.setattr(classifying, "_batch", passed)


def other_encodings_are_read(patch: pytest.MonkeyPatch) -> None:
    """As ``json.loads`` does with bytes, and what cannot be read is replaced."""
    patch.setattr(strictjson, "_decode", lambda raw: raw.decode(json.detect_encoding(raw), "replace"))


def headers_are_believed(patch: pytest.MonkeyPatch) -> None:
    """What repeats the body is not compared with it."""
    patch.setattr(classifying.fields, "mirror_flaw", lambda *_, **__: None)


def case_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """Variants of the names that MCP defines are members like all others."""
    patch.setattr(methods, "variant", lambda *_: None)


BREAKAGES: list[tuple[Callable[[pytest.MonkeyPatch], None], set[str]]] = [
    (
        last_duplicate_wins,
        {
            "method-twice-call-last", "method-twice-ping-last", "name-twice-denied-last",
            "name-twice-denied-first", "params-twice", "arguments-twice", "argument-twice",
            "argument-twice-deep-down", "id-twice", "meta-version-twice", "method-twice-one-escaped",
            "name-twice-one-escaped-throughout", "name-and-capital-name", "params-with-a-long-s-beside-it",
            "task-id-with-a-kelvin-sign-beside-it", "name-that-ends-at-a-zero",
            "batch-with-a-duplicate-in-one-message",
        },
    ),
    (
        byte_order_mark_is_skipped,
        {"byte-order-mark", "byte-order-mark-on-a-call-that-may-pass", "batch-behind-a-byte-order-mark"},
    ),
    (
        batches_pass,
        {
            "batch-on-a-session-of-2025-06-18", "batch-on-2026-07-28", "one-id-twice",
            "calls-and-answers-in-one", "initialize-in-a-batch", "more-messages-than-are-judged-at-once",
        },
    ),
    (
        other_encodings_are_read,
        {
            "utf-16-little-endian", "utf-16-big-endian", "utf-16-little-endian-marked",
            "utf-32-little-endian", "utf-32-big-endian", "byte-order-mark",
        },
    ),
    (
        headers_are_believed,
        {
            "method-header-of-another-method", "name-header-of-a-denied-tool",
            "modern-name-header-encoded", "modern-method-header-missing", "modern-name-header-missing",
        },
    ),
    (case_is_ignored, {"variant-in-meta"}),
]  # fmt: skip


def test_nothing_is_red() -> None:
    assert red() == set()


@pytest.mark.parametrize(("broken", "named"), BREAKAGES, ids=lambda item: getattr(item, "__name__", ""))
def test_a_parser_broken_on_purpose_turns_named_cases_red(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None], named: set[str]
) -> None:
    broken(monkeypatch)
    assert sorted(named - red()) == []
