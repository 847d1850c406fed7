"""A pair of AWS keys as a source holds it: text in, keys or nothing out. No AWS library is needed for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from callerid.credentials.secret import MIN_LENGTH, Secret


@dataclass(frozen=True, slots=True)
class Keys:
    """An AWS identity. ``session_token`` only goes with temporary keys. Nothing of it is shown."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return "Keys()"


def parse(text: str) -> Keys | None:
    """``AKID:SECRET``, ``AKID:SECRET:TOKEN``, or a JSON object with ``access_key_id``, ``secret_access_key``
    and perhaps ``session_token``; AWS' own spelling ``AccessKeyId`` and so on is understood too. Total."""
    if text.startswith("{"):
        return _from_json(text)
    parts = text.split(":")
    return _sound(*parts) if len(parts) in (2, 3) else None


def as_text(keys: Keys) -> str:
    """One line that ``parse`` reads back."""
    found = {"access_key_id": keys.access_key_id, "secret_access_key": keys.secret_access_key}
    if keys.session_token:
        found["session_token"] = keys.session_token
    return json.dumps(found)


def as_secret(part: str, label: str) -> Secret:
    """A part of the keys, for its renderings."""
    return Secret(part, label=label)


def _from_json(text: str) -> Keys | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    plain = {name.replace("_", "").lower(): value for name, value in found.items()}
    token = plain.get("sessiontoken", plain.get("token"))
    return _sound(plain.get("accesskeyid"), plain.get("secretaccesskey"), token)


def _sound(access: Any, secret: Any, token: Any = None) -> Keys | None:
    for part in (access, secret, *((token,) if token is not None else ())):
        if not isinstance(part, str) or not part.isascii() or not part.isprintable() or " " in part:
            return None
        if len(part) < MIN_LENGTH:
            return None
    return Keys(access, secret, token)
