"""AWS Secrets Manager, through botocore: it finds the keys and signs; the bytes go by our own connections.

Loaded only where a credential asks for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import urllib3
from botocore.awsrequest import AWSResponse  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from botocore.session import Session  # type: ignore[import-untyped]

from callerid.config import Credential
from callerid.credentials.sources.base import Fetched, Flight, Unavailable, sound
from callerid.credentials.sources.net import body, is_safe, pool
from callerid.credentials.sources.quiet import hush

hush()

_HINTS: Final = {
    "AccessDeniedException": "Allow secretsmanager:GetSecretValue on it (and kms:Decrypt on its key).",
    "ResourceNotFoundException": "Check secret_id and region.",
    "DecryptionFailure": "Allow kms:Decrypt on the secret's key.",
    "InvalidRequestException": "Is it marked for deletion?",
    "InvalidSignatureException": "Check the keys and the clock.",
    "UnrecognizedClientException": "Check the keys.",
    "ExpiredTokenException": "The session token of the keys has ended.",
    "ThrottlingException": "It is asked again, ever more slowly.",
}
"""By AWS' own code for the error: the only part of it that is repeated."""


class _Body:
    """What botocore reads an answer from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def stream(self, *sizes: int, **options: Any) -> Any:
        yield self._data


class SecretsManager:
    """A source of kind ``aws``. The session is kept: it renews temporary keys by itself."""

    def __init__(self, credential: Credential, roots: Path | None) -> None:
        self._credential = credential
        self._options = credential.source_options
        self._roots = roots
        self._flight: Flight | None = None
        self._session = Session(profile=self._options.get("profile"))
        self._session.register("before-send", self._send)

    def fetch(self, flight: Flight) -> Fetched | Unavailable:
        """GetSecretValue of the current version."""
        secret_id, endpoint = self._credential.source, self._options.get("endpoint")
        name = f"the secret {secret_id} in AWS"
        if endpoint is not None and not is_safe(endpoint):
            return self._no(f"the endpoint {endpoint} is not an https address", "Write https://.")
        self._flight = flight
        try:
            client = self._session.create_client(
                "secretsmanager",
                region_name=self._options.get("region"),
                endpoint_url=endpoint,
                config=Config(
                    connect_timeout=flight.left(),
                    read_timeout=flight.left(),
                    retries={"total_max_attempts": 1},
                    proxies={},
                ),
            )
            said = client.get_secret_value(SecretId=secret_id)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "")) if error.response else ""
            known = code if code in _HINTS else "an error"
            return self._no(f"{name} was not given: {known}", _HINTS.get(code, "Look at CloudTrail."))
        except BotoCoreError as error:
            return self._no(
                f"{name} was not fetched: {type(error).__name__}",
                "Check region, keys (AWS_PROFILE, the machine's role) and the network.",
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            what = "no answer in time" if flight.late() else type(error).__name__
            return self._no(f"{name} was not fetched: {what}", "Check the network and the endpoint.")
        finally:
            self._flight = None
        return self._read(name, said)

    def _send(self, request: Any, **kwargs: Any) -> AWSResponse | None:
        """botocore asks here before it sends; whoever answers, sends in its place."""
        flight = self._flight
        if flight is None:
            return None
        answer = pool(flight, self._roots).urlopen(
            request.method,
            request.url,
            body=request.body,
            headers=dict(request.headers.items()),
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        return AWSResponse(request.url, answer.status, answer.headers, _Body(body(answer)))

    def _read(self, name: str, said: Any) -> Fetched | Unavailable:
        text, field = said.get("SecretString"), self._options.get("field")
        if not isinstance(text, str):
            return self._no(
                f"{name} has no SecretString", "Store it as text; what answers must be Secrets Manager."
            )
        if field:
            try:
                held = json.loads(text)
            except (ValueError, RecursionError):
                held = None
            text = held.get(field) if isinstance(held, dict) else None
            if not isinstance(text, str):
                return self._no(f"{name} has no text in its field {field}", "Mend `field`, or the secret.")
        value = sound(self._credential, name, text)
        version = str(said.get("VersionId", ""))[:64] or None
        return value if isinstance(value, Unavailable) else Fetched(value, None, version)

    def _no(self, detail: str, hint: str = "") -> Unavailable:
        return Unavailable(self._credential.id, detail, hint)


def open_source(credential: Credential, roots: Path | None) -> SecretsManager:
    """As the other lazily loaded modules have it; nothing is fetched here."""
    return SecretsManager(credential, roots)
