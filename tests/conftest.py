"""Warnings are errors, but for those that mitmproxy's own imports raise: let it be imported first."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mitmproxy.master  # noqa: F401
