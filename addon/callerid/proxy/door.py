"""The guarded door: the one way from mitmproxy into our code (law 3).

mitmproxy swallows what a hook raises and forwards the request. So every hook of the addon is wrapped
here, and whatever escapes it is handed to a ``shut`` function that leaves the flow or the connection
refused. ``tests/test_architecture.py`` checks that no hook goes without.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

HOOKS = (
    "client_connected",
    "client_disconnected",
    "http_connect",
    "requestheaders",
    "request",
    "responseheaders",
    "callerid_rows",
    "response",
    "error",
    "server_connect",
    "server_connected",
    "server_connect_error",
    "server_disconnected",
    "tls_clienthello",
    "tls_start_client",
    "tls_start_server",
    "tls_established_client",
    "tls_established_server",
    "tls_failed_server",
    "tcp_start",
    "udp_start",
    "websocket_start",
)
"""Every mitmproxy event in which bytes could move; the addon has no other."""


def guarded(shut: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Wrap a hook so that an exception ends in ``shut(self, data, error)``.

    ``shut`` may be a coroutine function only for hooks that are. If it raises as well, the fault is
    reported and what was sealed stays sealed. Cancellation is passed on: a cancelled hook never
    completes, and mitmproxy forwards nothing.
    """

    def decorate(hook: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(hook):

            @functools.wraps(hook)
            async def async_door(self: Any, data: Any) -> None:
                try:
                    await hook(self, data)
                except asyncio.CancelledError:
                    raise
                except BaseException as error:
                    await _shut_async(shut, self, data, error)
                    if not isinstance(error, Exception):
                        raise

            async_door.__guarded__ = True  # type: ignore[attr-defined]
            return async_door

        @functools.wraps(hook)
        def sync_door(self: Any, data: Any) -> None:
            try:
                hook(self, data)
            except BaseException as error:
                _shut_sync(shut, self, data, error)
                if not isinstance(error, Exception):
                    raise

        sync_door.__guarded__ = True  # type: ignore[attr-defined]
        return sync_door

    return decorate


def _shut_sync(shut: Callable[..., Any], self: Any, data: Any, error: BaseException) -> None:
    logger.error("callerid: a hook failed, the door is shut", exc_info=error)
    try:
        shut(self, data, error)
    except Exception:
        logger.exception("callerid: shutting the door failed as well")


async def _shut_async(shut: Callable[..., Any], self: Any, data: Any, error: BaseException) -> None:
    logger.error("callerid: a hook failed, the door is shut", exc_info=error)
    try:
        done = shut(self, data, error)
        if inspect.isawaitable(done):
            await done
    except Exception:
        logger.exception("callerid: shutting the door failed as well")
