"""HTTP for secrets: direct, verified, bounded, and ended from outside at a fetch's timeout. Needs urllib3.

No proxy of the environment (we might be it), no redirect (a secret would follow it), no second try (the
timetable decides that). A timeout per read is not enough against a peer that sends a byte at a time, so
every connection is shut when its flight's time is up.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from callerid.credentials.sources.base import Flight
from callerid.credentials.sources.quiet import hush
from callerid.trust import trusting

hush()

MAX_ANSWER: Final = 1024 * 1024


def pool(flight: Flight, roots: Path | None, *, context: ssl.SSLContext | None = None) -> urllib3.PoolManager:
    """Connections for one flight. ``context`` replaces the TLS settings that ``roots`` would give."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _bounded(super()._new_conn(), flight)

    class Verified(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _bounded(super()._new_conn(), flight)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class VerifiedPool(HTTPSConnectionPool):
        ConnectionCls = Verified

    manager = urllib3.PoolManager(
        ssl_context=context or trusting(roots), retries=False, timeout=flight.left()
    )
    manager.pool_classes_by_scheme = {"http": PlainPool, "https": VerifiedPool}
    flight.on_timeout(lambda: None, manager.clear)
    return manager


def _bounded(sock: socket.socket, flight: Flight) -> socket.socket:
    """Shut it when the flight's time is up. The twin stays ours when TLS takes the socket over."""
    twin = sock.dup()
    flight.on_timeout(partial(_shut, twin), twin.close)
    return sock


def _shut(twin: socket.socket) -> None:
    with suppress(OSError):
        twin.shutdown(socket.SHUT_RDWR)


def body(answer: Any) -> bytes:
    """The body of an ``urllib3`` answer.

    Raises:
        OSError: it is larger than MAX_ANSWER.
    """
    data = b""
    while part := answer.read(64 * 1024, decode_content=False):
        data += part
        if len(data) > MAX_ANSWER:
            answer.close()
            raise OSError("the answer is too large")
    answer.release_conn()
    return data


def is_safe(url: str) -> bool:
    """Whether a secret may travel to and from this address: https, or this machine itself."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.username is not None or parts.password is not None:
            return False
    except ValueError:
        return False
    if parts.scheme == "http":
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False
    return parts.scheme == "https" and bool(host)
