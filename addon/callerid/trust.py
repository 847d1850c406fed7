"""TLS towards servers that secrets and keys are fetched from: whom we trust, in one place."""

from __future__ import annotations

import ssl
from pathlib import Path

import certifi

from callerid.errors import ConfigError


def trusting(roots: Path | None, *, public: bool = True) -> ssl.SSLContext:
    """TLS towards servers that certifi's roots, and those in ``roots`` besides, vouch for.

    ``public=False`` leaves certifi's out.

    Raises:
        ConfigError: the file cannot be used.
    """
    # Not ssl.create_default_context: that one writes session secrets to a file named in the environment.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if public:
        context.load_verify_locations(cafile=certifi.where())
    if roots is not None:
        try:
            context.load_verify_locations(cafile=roots)
        except OSError as error:
            raise ConfigError(
                f"the CA file {roots} cannot be used: {error.strerror or type(error).__name__}",
                hint="It must hold certificates in PEM form.",
            ) from error
    return context
