"""The lean Master of ``callerid run``: only the addons that a governed proxy needs, dispatched flat.

mitmdump walks some 35 addons for each of the eight or nine events of a request; that walk, not our
work, is most of its cost (measured). The addons and their order are those of mitmproxy, ours first.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

from mitmproxy import addonmanager, exceptions, flow, hooks, master, options
from mitmproxy.addons import core, disable_h2c, errorcheck, next_layer, proxyserver, tlsconfig

logger = logging.getLogger(__name__)


class FlatAddonManager(addonmanager.AddonManager):
    """mitmproxy's addon manager with the listeners of each event looked up once.

    Same order, same meaning of exceptions: ``AddonHalt`` ends the event, ``OptionsError`` is passed
    on, anything else is reported and the next addon runs.
    """

    def __init__(self, owner: master.Master) -> None:
        super().__init__(owner)  # type: ignore[no-untyped-call]
        self._listeners: dict[str, tuple[Callable[..., Any], ...]] = {}

    def register(self, addon: Any) -> Any:
        self._listeners = {}
        return super().register(addon)  # type: ignore[no-untyped-call]

    def remove(self, addon: Any) -> None:
        self._listeners = {}
        super().remove(addon)  # type: ignore[no-untyped-call]

    def clear(self) -> None:
        self._listeners = {}
        super().clear()  # type: ignore[no-untyped-call]

    def _listening(self, name: str) -> tuple[Callable[..., Any], ...]:
        found = self._listeners.get(name)
        if found is None:
            addons = addonmanager.traverse(self.chain)
            calls = (getattr(addon, name, None) for addon in addons)
            found = self._listeners[name] = tuple(call for call in calls if callable(call))
        return found

    async def handle_lifecycle(self, event: hooks.Hook) -> None:
        await self.trigger_event(event)
        if self._listening("update") and isinstance(event.args()[0], flow.Flow):
            await self.trigger_event(hooks.UpdateHook([event.args()[0]]))

    async def trigger_event(self, event: hooks.Hook) -> None:
        listeners = self._listening(event.name)
        if not listeners:
            return
        arguments = event.args()
        for listener in listeners:
            try:
                result = listener(*arguments)
                if result is not None and inspect.isawaitable(result):
                    await result
            except exceptions.AddonHalt:
                return
            except exceptions.OptionsError:
                raise
            except Exception as error:
                logger.exception("Addon error: %s", error)


class LeanMaster(master.Master):
    """A Master with ``addon`` first, then what serves HTTP and TLS.

    Args:
        addon: the callerid addon.
        opts: mitmproxy's options.
        ready: called once the listeners are up and every addon runs.
    """

    def __init__(self, addon: Any, opts: options.Options, ready: Callable[[], None]) -> None:
        super().__init__(opts, event_loop=asyncio.get_running_loop(), with_termlog=False)
        self._ready = ready
        self.addons = FlatAddonManager(self)
        self.errors = errorcheck.ErrorCheck()
        self.addons.add(  # type: ignore[no-untyped-call]
            addon,
            core.Core(),
            disable_h2c.DisableH2C(),
            proxyserver.Proxyserver(),
            next_layer.NextLayer(),
            tlsconfig.TlsConfig(),
            self.errors,
        )

    async def running(self) -> None:
        await super().running()
        self._ready()
