"""The options of mitmproxy that law 3 to 5 rest on: set by us, and a start refused where they are not.

Each line of ``REQUIRED`` names what would happen otherwise (measured with mitmproxy 12.2.3).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mitmproxy import options
from mitmproxy.proxy import mode_specs

from callerid.errors import ConfigError

REQUIRED: Mapping[str, tuple[Any, str]] = {
    "rawtcp": (False, "bytes that do not look like HTTP would reach the server without a decision"),
    "connection_strategy": ("lazy", "a CONNECT alone would open the upstream connection"),
    "http3": (False, "QUIC is not governed"),
    "websocket": (False, "WebSocket messages are not governed"),
    "validate_inbound_headers": (True, "requests could be smuggled past the decision"),
    "ssl_insecure": (False, "a shared secret could be written to an unverified server"),
    "store_streamed_bodies": (False, "bodies of open streams would be kept in memory"),
    "onboarding": (False, "a web page of mitmproxy would be served"),
    "block_global": (False, "clients with public addresses would be cut off"),
    "keep_host_header": (False, "in reverse mode the server would be named by the client"),
    "proxy_debug": (False, "secrets would be printed"),
}
FORBIDDEN: Mapping[str, str] = {
    "stream_large_bodies": "a large request would leave before it was judged",
    "body_size_limit": "use callerid_max_body, callerid_max_upload and callerid_max_answer",
    "save_stream_file": "flows with secrets in them would be written to a file",
    "hardump": "flows with secrets in them would be written to a file",
    "rfile": "recorded calls would be judged and recorded again",
    "client_certs": "one client key would be offered to every server",
    "client_replay": "a recorded call would be sent again under its old identity",
    "server_replay": "answers would not come from the server",
    "map_remote": "the destination would change after the decision",
    "map_local": "answers would not come from the server",
    "modify_body": "the call would change after the decision",
    "modify_headers": "headers would change after the decision",
    "ignore_hosts": "use `passthrough` in servers.yaml",
    "allow_hosts": "use `passthrough` in servers.yaml",
    "tcp_hosts": "bytes would pass without a decision",
    "udp_hosts": "bytes would pass without a decision",
    "stickyauth": "one caller's credential would be sent for another",
    "stickycookie": "one caller's cookie would be sent for another",
    "proxyauth": "callers are identified by callerid",
    "upstream_auth": "credentials are injected by callerid",
    "ssl_verify_upstream_trusted_confdir": "use --upstream-ca",
}
ENVIRONMENT = ("MITMPROXY_SSLKEYLOGFILE", "SSLKEYLOGFILE")
TCP_TIMEOUT = 86400


def safe_values(opts: options.Options) -> dict[str, Any]:
    """What callerid needs, for each option of ``opts`` that stands at mitmproxy's default.

    Apply it in one update. A value that somebody set on purpose is left for ``check`` to refuse.
    """
    wanted = {name: value for name, (value, _) in REQUIRED.items()}
    wanted |= {"tcp_timeout": TCP_TIMEOUT, "http2": False}
    return {
        name: value
        for name, value in wanted.items()
        if name in opts and opts.default(name) == getattr(opts, name)
    }


def check(opts: options.Options, environ: Mapping[str, str] = os.environ) -> None:
    """Refuse unsafe settings.

    Raises:
        ConfigError: names each option, the value it must have, and why.
    """
    wrong: list[str] = []
    for name, (value, why) in REQUIRED.items():
        if name in opts and getattr(opts, name) != value:
            wrong.append(f"option {name} must be {_text(value)}: otherwise {why}")
    for name, why in FORBIDDEN.items():
        if name in opts and getattr(opts, name):
            wrong.append(f"option {name} must not be set: {why}")
    for name in ENVIRONMENT:
        if environ.get(name):
            wrong.append(f"the environment variable {name} must not be set: TLS keys would be written out")
    wrong += [problem for mode in opts.mode if (problem := _mode_problem(mode)) is not None]
    if "web_port" in opts or "console_layout" in opts:
        wrong.append(
            "mitmweb and the console keep every flow in memory and show it: use callerid run or mitmdump"
        )
    if "flow_detail" in opts and opts.flow_detail > 1:
        wrong.append("option flow_detail must be at most 1: headers with tokens in them would be printed")
    if wrong:
        raise ConfigError(
            "unsafe settings, callerid does not start:\n  " + "\n  ".join(wrong),
            hint="Take these settings away; callerid sets the safe values by itself.",
        )


def _mode_problem(text: str) -> str | None:
    """Why a proxy mode is not served. Only HTTP that names its destination is governed."""
    try:
        mode = mode_specs.ProxyMode.parse(text)
    except ValueError as error:
        return f"mode {text} is not a mode: {error}"
    if isinstance(mode, mode_specs.RegularMode):
        return None
    if isinstance(mode, mode_specs.ReverseMode) and mode.scheme in ("http", "https"):
        return None
    return f"mode {text} is not governed: use regular, or reverse: with an http or https URL"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
