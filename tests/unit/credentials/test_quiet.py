"""The libraries that speak to secret stores print nothing: what they repeat was in nobody's hand yet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import callerid
from callerid.credentials.sources.quiet import LIBRARIES

ADDON = str(Path(callerid.__file__).parent.parent)
SAID = "at-live-in-header-4f9c2a7d81"
SCRIPT = """
import logging, sys
{first}
logging.basicConfig(stream=sys.stderr, level=logging.DEBUG)
{then}
for name in {names}:
    for logger in (logging.getLogger(name), logging.getLogger(name + ".connection")):
        for level in (logging.DEBUG, logging.WARNING, logging.CRITICAL):
            logger.log(level, "Failed to parse headers: {said}")
logging.getLogger("callerid").warning("ours")
"""
LOADED = "import callerid.credentials.sources.lazy as lazy; lazy.load('callerid.credentials.{}')"


@pytest.mark.parametrize(
    "load",
    [*(LOADED.format(m) for m in ("oauth", "awschain", "sources.vault", "sources.aws", "no_such")),
     "import callerid.credentials.sigv4", "import callerid.credentials.sources.net"],
)  # fmt: skip
@pytest.mark.parametrize("before", [True, False], ids=["loaded first", "logging first"])
def test_nothing_of_a_library_is_printed(load: str, before: bool) -> None:
    script = SCRIPT.format(
        first=load if before else "", then="" if before else load, names=LIBRARIES, said=SAID
    )
    ended = subprocess.run(  # in a process of its own: loggers are global
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": ADDON},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "ours" in ended.stderr
    assert SAID not in ended.stdout + ended.stderr
