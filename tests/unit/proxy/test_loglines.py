"""Lines of the log without secrets: the message, its arguments and a traceback."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from callerid.credentials.scrub import Scrubber
from callerid.credentials.secret import Secret
from callerid.proxy import loglines

VALUE = "sk-live-4f9c2a7d81e6b350"
SCRUBBER = Scrubber(Secret(VALUE, label="shared@v1").renderings())


def scrub(text: str) -> str:
    return SCRUBBER.scrub_text(text)[0]


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    kept = {other: other.formatter for other in logging.getLogger().handlers}
    yield stream
    for other, formatter in kept.items():
        other.setFormatter(formatter)
    logging.getLogger().removeHandler(handler)


def test_a_message_its_arguments_and_its_traceback_are_searched(out: io.StringIO) -> None:
    loglines.search(scrub)
    try:
        raise ValueError(f"unparsed data: {VALUE}")
    except ValueError:
        logging.getLogger("some.library").exception("it sent %s", f"Bearer {VALUE}")
    assert VALUE not in out.getvalue()
    assert out.getvalue().startswith("ERROR it sent Bearer [callerid:removed]")
    assert "Traceback" in out.getvalue()


def test_honest_lines_are_as_they_were(out: io.StringIO) -> None:
    loglines.search(scrub)
    logging.getLogger("callerid").warning("rules reloaded")
    assert out.getvalue() == "WARNING rules reloaded\n"


def test_a_line_that_cannot_be_searched_is_withheld_and_raises_nothing(out: io.StringIO) -> None:
    def broken(text: str) -> str:
        raise RuntimeError(text)

    loglines.search(broken)
    logging.getLogger("callerid").warning("it sent %s", VALUE)
    assert out.getvalue() == loglines.WITHHELD + "\n"


def test_the_last_scrubber_counts_and_no_line_is_searched_twice(out: io.StringIO) -> None:
    loglines.search(lambda text: text + " first")
    loglines.search(lambda text: text + " second")
    logging.getLogger("callerid").warning("x")
    assert out.getvalue() == "WARNING x second\n"
