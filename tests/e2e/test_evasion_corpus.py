"""The evasion corpus over the real proxy, by every way in that a case takes.

Nothing of a denied call may reach an upstream in any reading (``tests.vectors.oracle``); each case leaves
exactly the rows that it states; what is allowed arrives in its canonical form.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import harness as h
from tests.e2e.warm import Warm
from tests.vectors import corpus
from tests.vectors.corpus import Answer, Case, Way
from tests.vectors.http1 import Got
from tests.vectors.oracle import texts, unallowed
from tests.vectors.stage import Played, Stage, open_stage, shown

PLAYED = [(case, way) for way in corpus.EVERY for case in corpus.load() if way in case.taken]


TOLD = {"session_not_yours": "session_unknown"}
"""Reason in the row to reason in the answer: a caller learns of no session but its own."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, pki: h.Pki, warm: Warm) -> Iterator[Stage]:
    with open_stage(tmp_path_factory.mktemp("corpus"), pki, warm) as made:
        yield made


def parameters() -> list[Any]:
    """Each case by each way in that it takes; strictly expected to fail where it says that it does."""
    given = []
    for case, way in PLAYED:
        marks = [pytest.mark.xfail(strict=True, reason=case.fails["proxy"])] if "proxy" in case.fails else []
        given.append(pytest.param(case, way, marks=marks, id=f"{way}-{case.theme}-{case.id}"))
    return given


@pytest.mark.parametrize(("case", "way"), parameters())
def test_a_case_leaves_what_it_states(stage: Stage, case: Case, way: Way) -> None:
    played = stage.play(case, way)
    if "proxy" in case.fails:
        stage.excused += played.streams
    nothing_unallowed(stage, case, played)
    if not case.pending:
        arrived(stage, case, way, played)
    for text in case.never:
        for got in played.answers:
            assert not holds(got, corpus.put_in(text, stage.names(case, way))), f"the client got {text}"
    if case.pending:
        return
    assert [shown(row) for row in played.rows] == [text_of(row) for row in case.expected_rows(way)]
    for row in played.rows:
        assert row["verdict"] == "allow" or (row["outcome"], row["injected"]) == ("not_sent", None)
        assert who(case) in (None, row["principal"])
    for step, got in zip(case.steps, played.answers, strict=True):
        wanted = case.expected_answer(way, step)
        if wanted is not None:
            flaw = answered(wanted, got, stage.names(case, way))
            assert flaw is None
            assert names_its_row(got, played.rows)


def who(case: Case) -> str | None:
    """Whose rows they are: whoever showed a token, where a message could be read at all."""
    if case.principal is not None or case.message is None or case.message.who == "nobody":
        return case.principal
    return f"user:{case.message.who}@corp.example"


def names_its_row(got: Got | None, rows: list[dict[str, Any]]) -> bool:
    """A refusal that names a decision names one of these, and its reason as far as the caller may know it."""
    try:
        said = json.loads(got.body) if got is not None else None
    except ValueError:
        return True
    known = {row["event_id"]: TOLD.get(row["reason"], row["reason"]) for row in rows}
    for message in said if isinstance(said, list) else [said]:
        data = (message.get("error") or {}).get("data") if isinstance(message, dict) else None
        if isinstance(data, dict) and "reason" in data and known.get(data["decision"]) != data["reason"]:
            return False
    return True


def text_of(row: corpus.Row) -> str:
    return " ".join(part for part in row if part is not None)


def nothing_unallowed(stage: Stage, case: Case, played: Played) -> None:
    """The law: what arrived has an ALLOW row of its own in every reading, and no secret went astray."""
    raw = [bytes(stream.raw) for stream in played.streams]
    assert unallowed(raw, played.allowed, calls_only=case.to == "unlisted") == []
    for stream in played.streams:
        assert stream in stage.listed.streams or h.SECRET.encode() not in stream.raw
        for people in stage.people.values():
            assert not any(token.removeprefix("cid_").encode() in stream.raw for token in people.values())


def arrived(stage: Stage, case: Case, way: Way, played: Played) -> None:
    """Exactly the requests that the case names, framed in one way."""
    names = stage.names(case, way)
    requests = [request for stream in played.streams for request in stream.requests]
    assert [r.body for r in requests] == [wanted.body.made(names) for wanted in case.upstream]
    for request, wanted in zip(requests, case.upstream, strict=True):
        assert request.method == wanted.method
        if wanted.target is not None:
            assert request.target == corpus.put_in(wanted.target, names)
        if case.to == "listed":
            assert request.values("transfer-encoding") == []
        assert len(request.values("host")) == 1
        assert request.values("content-length") in ([], [str(len(request.body))])
        assert [name for name, _ in request.headers if name in wanted.lacks] == []
    if not case.upstream:
        assert all(not stream.raw for stream in played.streams), "bytes reached an upstream"


def answered(wanted: Answer, got: Got | None, names: dict[str, str]) -> str | None:
    """What is wrong with an answer, or None."""
    if wanted.closed:
        return None if got is None else f"answered with {got.status} instead of closed"
    if got is None:
        return "closed without an answer"
    if got.status != wanted.status:
        return f"status {got.status}: {got.body[:300]!r}"
    if wanted.body is not None and got.body != corpus.put_in(wanted.body, names).encode():
        return f"another body: {got.body[:300]!r}"
    if wanted.code is None and not wanted.denied and wanted.ran is None:
        return None
    return message_flaw(wanted, json.loads(got.body))


def message_flaw(wanted: Answer, said: Any) -> str | None:
    """What is wrong with the JSON-RPC in an answer, or None."""
    messages = said if isinstance(said, list) else [said]
    ids = wanted.wanted_id if isinstance(wanted.wanted_id, tuple) else (wanted.wanted_id,)
    if [(type(m["id"]), m["id"]) for m in messages] != [(type(one), one) for one in ids]:
        return f"other ids: {said}"
    for message in messages:
        result = message.get("result", {})
        texts_of = "".join(part.get("text", "") for part in result.get("content", ()))
        if wanted.code is not None and message.get("error", {}).get("code") != wanted.code:
            return f"another code: {message}"
        if wanted.denied and result.get("isError") is not True:
            return f"not denied: {message}"
        if wanted.ran is not None and texts_of != f"ran {wanted.ran}":
            return f"did not run: {message}"
    return None


def holds(got: Got | None, text: str) -> bool:
    """Whether a client may find ``text`` in an answer, in some reading of it."""
    if got is None:
        return False
    head = "\n".join(f"{name}: {value}" for name, value in got.headers)
    return any(text in unescaped(plain) for _, plain in texts(got.body)) or text in head


def unescaped(plain: str) -> str:
    """A text with its JSON escapes undone as well."""
    head, *rest = plain.split("\\u")
    parts = [chr(int(part[:4], 16)) + part[4:] if is_hex(part[:4]) else part for part in rest]
    return plain + "\0" + "".join([head, *parts]).replace("\\", "")


def is_hex(text: str) -> bool:
    return len(text) == 4 and all(char in "0123456789abcdefABCDEF" for char in text)


# -- over all of them ------------------------------------------------------------------------------


def test_nothing_came_late_and_nothing_is_unaccounted_for(stage: Stage) -> None:
    """After all cases: no row that no case has seen, and no call without its row in all that arrived."""
    for proxy, seq in stage.seq.items():
        assert proxy.rows("seq > ?", seq) == []
    allowed = sum(len(proxy.rows("verdict = 'allow' and method = 'tools/call'")) for proxy in stage.seq)
    listed = [stream for recorder in (stage.listed, stage.lab) for stream in recorder.streams]
    messages = [json.loads(request.body or b"[]") for stream in listed for request in stream.requests]
    flat = [one for message in messages for one in (message if isinstance(message, list) else [message])]
    assert sum(message.get("method") == "tools/call" for message in flat) == allowed
    every = [stream for recorder in stage.recorders for stream in recorder.streams]
    assert [s for s in every if b"drop_thing" in s.raw and s not in stage.excused] == []
