"""The table of targets, and the findings that still stand in the product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.fuzz import fuzz_answers, fuzz_http_heads, fuzz_json, fuzz_messages, fuzz_rules, fuzz_sse


def _nothing(data: bytes) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Target:
    """What is fuzzed.

    ``check`` raises where a law is broken. ``is_open`` names the finding that a case shows again, if it is
    known and not yet mended: its seed stands for it, and the search goes on for others.
    """

    name: str
    cases: st.SearchStrategy[bytes]
    check: Callable[[bytes], None]
    is_open: Callable[[bytes], str | None] = _nothing


TARGETS = {
    target.name: target
    for target in (
        Target("json", fuzz_json.cases(), fuzz_json.check),
        Target("messages", fuzz_messages.cases(), fuzz_messages.check),
        Target("sse", fuzz_sse.cases(), fuzz_sse.check),
        Target("answers", fuzz_answers.cases(), fuzz_answers.check),
        Target("http_heads", fuzz_http_heads.cases(), fuzz_http_heads.check),
        Target("rules", fuzz_rules.cases(), fuzz_rules.check),
    )
}
