"""Warnings are errors, but for those that mitmproxy's own imports raise: let it be imported first."""

from __future__ import annotations

import re
import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mitmproxy.master  # noqa: F401

_MADE_UP = re.compile(r"[0-9A-Fa-f]{16}|MI[IG][A-Za-z0-9+/]{8}|BEGIN [A-Z ]+-----")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Made-up keys and digests are no names for cases: every worker must see the same ones."""
    return argname if isinstance(val, str) and _MADE_UP.search(val) else None
