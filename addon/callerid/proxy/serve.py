"""``callerid run``: options, the lean Master, signals, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import certifi
from cryptography import x509
from mitmproxy import exceptions, options
from mitmproxy.proxy import mode_specs

from callerid.credentials.sources.quiet import hush
from callerid.errors import ConfigError
from callerid.home import Home, private_file
from callerid.proxy import ca, harden
from callerid.proxy.addon import CalleridAddon
from callerid.proxy.master import LeanMaster

logger = logging.getLogger("callerid")

_OURS = {
    "confdir": "it is HOME/ca",
    "mode": "use --mode",
    "listen_host": "use --listen",
    "listen_port": "use --listen",
    "callerid_home": "use --home",
    "callerid_rules": "use --rules",
    "ssl_verify_upstream_trusted_ca": "use --upstream-ca",
}
"""mitmproxy's options that ``callerid run`` sets itself, and what to use instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What ``callerid run`` was asked for. ``sets`` are mitmproxy's ``OPTION=VALUE`` strings."""

    home: Home
    rules: Path
    listen_host: str
    listen_port: int
    modes: tuple[str, ...] = ("regular",)
    sets: tuple[str, ...] = ()
    upstream_ca: Path | None = None


def run(settings: Settings, *, ready: Callable[[Sequence[tuple[str, int]]], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: see there.
        ready: called once with the addresses that are listened on.

    Raises:
        ConfigError: an option, a mode or a rule file is wrong, or an address is in use.
        StoreError: HOME, the CA, the registry or the audit cannot be used.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("mitmproxy").setLevel(logging.WARNING)
    hush()
    _raise_file_limit()
    ca.ensure(settings.home, now=datetime.now(UTC))
    asyncio.run(_serve(settings, ready))


async def _serve(settings: Settings, ready: Callable[[Sequence[tuple[str, int]]], None]) -> None:
    addon = CalleridAddon()
    addon.upstream_ca = settings.upstream_ca
    opts = options.Options()
    _check_listeners(settings)

    def announce() -> None:
        # What is loaded by now stays: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        ready([(address[0], address[1]) for address in master.addons.get("proxyserver").listen_addrs()])

    try:
        master = LeanMaster(addon, opts, announce)
        _apply(settings, opts)
    except exceptions.OptionsError as error:
        cause = error.__cause__
        raise cause if isinstance(cause, ConfigError) else ConfigError(str(error)) from error
    addon.open()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, master.shutdown)

    try:
        await master.run()
    except SystemExit:
        addon.done()
        raise ConfigError(
            "callerid could not start: "
            + "; ".join(r.getMessage() for r in master.errors.logger.has_errored),
            hint="Is another process listening there? Choose another address with --listen HOST:PORT.",
        ) from None


def _apply(settings: Settings, opts: options.Options) -> None:
    unsafe = dict(spec.partition("=")[::2] for spec in settings.sets)
    for name, (value, why) in harden.REQUIRED.items():
        if name in unsafe and unsafe[name].lower() != str(value).lower():
            raise ConfigError(f"--set {name}={unsafe[name]} is refused: {why}", hint="Take it away.")
    ours = sorted(set(unsafe) & set(_OURS))
    if ours:
        raise ConfigError(
            f"--set {ours[0]} is refused: {_OURS[ours[0]]}", hint="Use the option of `callerid run`."
        )
    known = {name.partition("=")[0] for name in settings.sets}
    unknown = sorted(name for name in known if name not in opts and name not in harden.REQUIRED)
    if unknown:
        raise ConfigError(
            f"unknown option{'s' if len(unknown) > 1 else ''}: {', '.join(unknown)}",
            hint="`callerid run --help` names ours; the others are mitmproxy's, spelled with underscores.",
        )
    trusted = _trust(settings)
    opts.update(
        **harden.safe_values(opts),
        confdir=str(settings.home.ca),
        callerid_home=str(settings.home.path),
        callerid_rules=str(settings.rules),
        listen_host=settings.listen_host,
        listen_port=settings.listen_port,
        mode=list(settings.modes),
        ssl_verify_upstream_trusted_ca=trusted,
    )
    if settings.sets:
        opts.set(*settings.sets)


def _trust(settings: Settings) -> str | None:
    """certifi's roots and the extra ones in one file: mitmproxy's option replaces, we add."""
    if settings.upstream_ca is None:
        return None
    try:
        extra = settings.upstream_ca.read_bytes()
        try:
            x509.load_pem_x509_certificates(extra)
        except ValueError as error:
            raise ConfigError(
                f"{settings.upstream_ca} holds no sound PEM certificates",
                hint="--upstream-ca wants the root certificates of your servers in PEM form.",
            ) from error
        bundle = settings.home.ca / "upstream-roots.pem"
        private_file(bundle)
        bundle.write_bytes(Path(certifi.where()).read_bytes() + b"\n" + extra)
    except OSError as error:
        raise ConfigError(
            f"--upstream-ca {settings.upstream_ca} cannot be read: {error.strerror or error}",
            hint="Give the path of a PEM file that this process may read.",
        ) from error
    return str(bundle)


def _check_listeners(settings: Settings) -> None:
    """Say that an address is taken before anything is opened; port 0 is any free one."""
    for text in settings.modes:
        try:
            mode = mode_specs.ProxyMode.parse(text)
        except ValueError as error:
            raise ConfigError(
                f"--mode {text} is not a mode: {error}",
                hint="Use `regular`, or `reverse:https://HOST/` (`@HOST:PORT` at the end to listen there).",
            ) from error
        host = mode.listen_host(settings.listen_host)
        port = mode.listen_port(settings.listen_port)
        if not port:
            continue
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                what = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
                raise ConfigError(
                    f"the address {host}:{port} {what}",
                    hint="Stop the other process or choose another address with --listen HOST:PORT.",
                ) from error


def _raise_file_limit() -> None:
    """Two sockets per open stream: take what the system allows."""
    with contextlib.suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.umask(0o077)
