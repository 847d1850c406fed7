"""Silence for the libraries that speak to secret stores and token endpoints.

At DEBUG they print what they send and get; urllib3 prints heads that it cannot read at WARNING as well, with
what a server repeats in them. None of it has been in hand yet, so no scrubber could find it (law 5).
"""

from __future__ import annotations

import logging
from typing import Final

LIBRARIES: Final = (
    "urllib3",
    "requests",
    "requests_oauthlib",
    "hvac",
    "boto",
    "boto3",
    "botocore",
    "authlib",
    "oauthlib",
)


def hush() -> None:
    """What they log goes nowhere, whatever the level and the handlers of the process. Idempotent."""
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.handlers[:] = [logging.NullHandler()]  # without one, logging would print by itself
