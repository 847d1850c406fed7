"""Strict JSON: any bytes are one value for every reader, or a refusal; canonical bytes are a fixed point."""

from __future__ import annotations

import json
import random
from typing import Any

import pydantic_core
from hypothesis import strategies as st

from callerid.mcp import strictjson
from callerid.model import Reason
from tests.fuzz.mutations import damaged, recoded, spelled
from tests.fuzz.readers import same
from tests.fuzz.strategies import odd_values, values

REASONS = {Reason.MALFORMED_JSON, Reason.DUPLICATE_KEY, Reason.NOT_UTF8, Reason.TOO_DEEP, Reason.TOO_LARGE}


@st.composite
def cases(draw: st.DrawFn) -> bytes:
    """A JSON text, whole or broken."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    raw = spelled(rng, draw(odd_values | values), draw(st.integers(0, 31))).encode("utf-8", "surrogatepass")
    return [raw, raw, damaged(rng, raw), recoded(rng, raw)][draw(st.integers(0, 3))]


def check(data: bytes) -> None:
    """Every other reader finds the value that we found, in what was sent and in what we send."""
    value = read(data)
    if isinstance(value, strictjson.JsonError):
        assert value.reason in REASONS
        assert value.detail.isprintable()
        assert len(value.detail) < 300
        return
    canonical = strictjson.dumps(value)
    for raw in (data, canonical):
        assert same(json.loads(raw.decode("utf-8", "strict")), value)
        assert same(json.loads(raw, object_pairs_hook=_first_wins), value)
    assert same(pydantic_core.from_json(canonical), value)
    assert same(strictjson.loads(canonical), value)
    assert strictjson.dumps(strictjson.loads(canonical)) == canonical
    assert not set(canonical) & set(b"\r\n\t\0")
    _well_formed(value, strictjson.MAX_DEPTH)


def read(data: bytes) -> Any:
    """The value, or the refusal."""
    try:
        return strictjson.loads(data)
    except strictjson.JsonError as refusal:
        return refusal


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(pairs[::-1])


def _well_formed(value: Any, depth: int) -> None:
    if isinstance(value, dict):
        assert depth > 0
        # For readers that ignore case, and compare by the folded, the lower or the upper form.
        for fold in (str.casefold, str.lower, str.upper):
            assert len({fold(name) for name in value}) == len(value)
        assert not any("\0" in name for name in value)
        for member in value.values():
            _well_formed(member, depth - 1)
    elif isinstance(value, list):
        assert depth > 0
        for member in value:
            _well_formed(member, depth - 1)
    elif isinstance(value, str):
        value.encode()
    elif isinstance(value, int | float):
        assert abs(value) < 2**1024 - 2**970, "a reader of doubles finds Infinity here"
