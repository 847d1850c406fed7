"""The same bounds for libraries that speak through ``requests``. Needs requests."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from callerid.credentials.sources.base import Flight
from callerid.credentials.sources.net import MAX_ANSWER, pool


class Adapter(HTTPAdapter):
    """Mount it for ``https://`` (and ``http://``): as ``net.pool``, with answers of MAX_ANSWER at most.

    Args:
        flight: whose time bounds everything.
        roots: certificates to trust besides the public ones.
        context: replaces the TLS settings that ``roots`` would give.
    """

    def __init__(self, flight: Flight, roots: Path | None, *, context: ssl.SSLContext | None = None) -> None:
        self._flight = flight
        self._roots = roots
        self._context = context
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        self.poolmanager = pool(self._flight, self._roots, context=self._context)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Verification is in the context: requests may not load other roots, nor leave it out."""

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        """Where to, and nothing about trust: that is in the context."""
        host, _ = super().build_connection_pool_key_attributes(request, True, None)
        return host, {}

    def send(self, request: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        """One request; the whole answer, or an exception.

        Raises:
            requests.RequestException: no answer, not in time, or too large a one.
        """
        kwargs |= {"stream": True, "timeout": self._flight.left(), "proxies": {}}
        answer = super().send(request, **kwargs)
        data = b""
        for part in answer.iter_content(64 * 1024):
            data += part
            if len(data) > MAX_ANSWER:
                answer.close()
                raise requests.RequestException("the answer is too large")
        # As requests itself keeps a body that has been read.
        answer._content = data
        answer._content_consumed = True  # type: ignore[attr-defined]
        return answer


def session(flight: Flight, roots: Path | None, *, context: ssl.SSLContext | None = None) -> requests.Session:
    """A session that asks nothing of the environment: no proxies, no .netrc, no CA bundle."""
    made = requests.Session()
    made.trust_env = False
    made.max_redirects = 0
    adapter = Adapter(flight, roots, context=context)
    made.mount("https://", adapter)
    made.mount("http://", adapter)
    return made
