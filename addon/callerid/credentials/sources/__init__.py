"""Where secrets come from: read at once (environment, file, systemd) or fetched (command, Vault, AWS)."""

from __future__ import annotations

from callerid.credentials.sources.base import MAX_BYTES, MAX_LENGTH, Fetched, Flight, Source, Unavailable
from callerid.credentials.sources.files import Fingerprint, fingerprint, is_watched, read_source
from callerid.credentials.sources.lazy import load, source_for

MAX_FILE_BYTES = MAX_BYTES

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_LENGTH",
    "Fetched",
    "Fingerprint",
    "Flight",
    "Source",
    "Unavailable",
    "fingerprint",
    "is_watched",
    "load",
    "read_source",
    "source_for",
]
