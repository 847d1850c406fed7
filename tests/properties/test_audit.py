"""The audit over inputs that nobody thought of."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.audit.ids import uuid7
from callerid.audit.inert import inert
from callerid.audit.redact import JSON_LIMIT, redact, redact_text
from callerid.audit.shapes import hide_shapes, names_a_secret
from callerid.model import DecisionRecord, Outcome, OutcomeRecord, Reason, Verdict
from tests.unit.audit.samples import Waiting, event_id, rows, writing

few = settings(max_examples=100, deadline=None)
CANARY = "CaNaRy731"

anything = st.text(st.characters(exclude_categories=()), max_size=40)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | anything,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(anything, inner, max_size=4),
    max_leaves=20,
)


def unchanged(text: str) -> str:
    return text


@st.composite
def secret_names(draw: st.DrawFn) -> str:
    words = draw(
        st.sampled_from(
            [
                ("password",),
                ("client", "secret"),
                ("access", "token"),
                ("api", "key"),
                ("private", "key"),
                ("authorization",),
                ("session",),
                ("user", "pin"),
                ("set", "cookie"),
            ]
        )
    )
    style = draw(st.sampled_from(["snake", "kebab", "camel", "dotted", "shout", "spaced"]))
    if style == "camel":
        return words[0] + "".join(word.title() for word in words[1:])
    joined = {"snake": "_", "kebab": "-", "dotted": ".", "shout": "_", "spaced": " "}[style].join(words)
    return joined.upper() if style == "shout" else joined


@st.composite
def around(draw: st.DrawFn, inner: Any) -> Any:
    """``inner`` at some depth between other values."""
    value = inner
    for _ in range(draw(st.integers(0, 6))):
        if draw(st.booleans()):
            value = [*draw(st.lists(json_values, max_size=2)), value]
        else:
            value = {**draw(st.dictionaries(anything, json_values, max_size=2)), "in": value}
    return value


@few
@given(st.data(), secret_names(), json_values)
def test_nothing_under_a_secret_name_is_ever_stored(data: st.DataObject, name: str, value: Any) -> None:
    secret = data.draw(around([CANARY, {CANARY: value}, CANARY]))
    arguments = data.draw(around({name: secret}))
    text, hits = redact({"arguments": arguments}, scrub=unchanged)
    assert CANARY not in text
    assert hits >= 1


@few
@given(st.dictionaries(anything, json_values, max_size=6))
def test_redacted_arguments_are_always_small_inert_storable_json(arguments: dict[str, Any]) -> None:
    text, _ = redact(arguments, scrub=unchanged)
    assert len(text.encode("utf-8")) <= JSON_LIMIT
    assert inert(text) == text
    assert len(json.loads(text)) == len(arguments)


plain_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abxyz", max_size=6), inner, max_size=4)
    ),
    max_leaves=20,
)


@few
@given(st.dictionaries(st.text("abxyz", max_size=6), plain_values))
def test_arguments_without_secrets_are_stored_as_they_are(arguments: dict[str, Any]) -> None:
    text, hits = redact(arguments, scrub=unchanged)
    assert json.loads(text) == arguments
    assert hits == 0


@few
@given(st.text(max_size=60), st.integers(1, 50))
def test_column_text_is_inert_and_bounded_and_never_fails(text: str, limit: int) -> None:
    made = redact_text(text, scrub=unchanged, limit=limit)
    assert inert(made) == made
    assert len(made) <= limit + 60
    made.encode()


@few
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_hiding_twice_is_hiding_once(text: str) -> None:
    hidden, _ = hide_shapes(text)
    assert hide_shapes(hidden)[0] == hidden


@few
@given(anything)
def test_names_are_judged_without_failing(name: str) -> None:
    assert names_a_secret(name) in (True, False)
    assert names_a_secret("db_" + name + "_password")


@few
@given(
    st.lists(st.integers(0, 2**48 * 1000 - 1), min_size=2, max_size=20),
    st.randoms(use_true_random=False),
)
def test_ids_sort_as_their_times_do(times: list[int], source: random.Random) -> None:
    made = [uuid7(time_us, source.randbytes(8)) for time_us in sorted(set(times))]
    assert made == sorted(made)


facts = st.none() | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Zl", "Zp", "Cs"]))
records = st.builds(
    DecisionRecord,
    event_id=st.just(event_id(0)),
    time_us=st.integers(0, 2**60),
    verdict=st.sampled_from(Verdict),
    reason=st.sampled_from(Reason),
    method=st.sampled_from(["tools/call", "http/GET"]),
    server=st.sampled_from(["files", "warehouse"]),
    upstream=st.just("https://files.corp.example:443/mcp"),
    principal=facts,
    issuer=facts,
    agent=facts,
    actors=st.lists(facts.map(lambda text: text or ""), max_size=3).map(tuple),
    assurance=facts,
    credential_id=facts,
    client_ip=facts,
    rule=facts,
    would_rule=facts,
    policy=facts,
    injected=facts,
    request_bytes=st.none() | st.integers(0, 2**63 - 1),
    batch_index=st.none() | st.integers(0, 100),
    arguments=st.none() | st.dictionaries(st.text("abxyz", max_size=6), plain_values, max_size=4),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(records, min_size=1, max_size=8))
def test_records_come_back_as_they_were(batch: list[DecisionRecord]) -> None:
    waiting = Waiting()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.db"
        with writing(path, waiting) as writer:
            numbered = [_with_id(record, number) for number, record in enumerate(batch)]
            for number, record in enumerate(numbered):
                writer.decide(record, waiting.done(number))
                writer.outcome(
                    OutcomeRecord(event_id=record.event_id, time_us=record.time_us, outcome=Outcome.OK)
                )
            assert not any(waiting.wait(len(batch)).values())
        found = rows(path, "SELECT d.*, c.outcome FROM decision d JOIN calls c USING (seq) ORDER BY seq")
    for record, row in zip(numbered, found, strict=True):
        for name in ("event_id", "time_us", "issuer", "agent", "assurance", "rule", "policy", "injected"):
            assert row[name] == getattr(record, name)
        assert row["principal"] == ("anonymous" if record.principal is None else record.principal)
        assert row["verdict"] == record.verdict
        assert row["reason"] == record.reason
        assert (row["request_bytes"], row["batch_index"]) == (record.request_bytes, record.batch_index)
        assert tuple(json.loads(row["actors"])) == record.actors
        assert (row["arguments"] and json.loads(row["arguments"])) == record.arguments
        assert row["outcome"] == ("ok" if record.verdict is Verdict.ALLOW else "not_sent")


def _with_id(record: DecisionRecord, number: int) -> DecisionRecord:
    fields = {name: getattr(record, name) for name in DecisionRecord.__slots__}
    return DecisionRecord(**{**fields, "event_id": event_id(number)})


@pytest.mark.parametrize("secret", ["ghp_" + "Zq" * 18, "cid_" + "Zq" * 20, "sk-" + "Zq" * 20])
@few
@given(st.integers(0, 9000), st.text("ab c.", max_size=20))
def test_a_known_shape_leaves_wherever_it_stands(secret: str, before: int, after: str) -> None:
    stored = redact({"x": "a" * before + " " + secret + " " + after}, scrub=unchanged)[0]
    assert "Zq" not in stored
