"""AWS Signature Version 4, by botocore. Loaded only where a credential asks for it: a heavy extra."""

from __future__ import annotations

import hashlib
from typing import Final

from botocore.auth import S3SigV4Auth, SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]

from callerid.credentials.awskeys import parse
from callerid.credentials.outgoing import InHeader, Outgoing, twin
from callerid.credentials.sources.quiet import hush

hush()

_OURS: Final = ("authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256", "date")
_WRITTEN: Final = ("X-Amz-Date", "X-Amz-Content-SHA256", "X-Amz-Security-Token", "Authorization")


def sign(out: Outgoing, text: str, region: str, service: str) -> None:
    """Sign ``out`` as it stands: host, content type, every ``x-amz-`` header and the body's SHA-256.

    Args:
        out: the request; whatever a caller has signed or dated it with is removed.
        text: the keys, as ``awskeys.parse`` reads them.
        region: ``us-east-1`` and the like.
        service: the service's signing name.

    Raises:
        ValueError: the keys cannot be read.
    """
    keys = parse(text)
    if keys is None:
        raise ValueError("not a pair of AWS keys")
    for name in [name for name in out.headers if twin(name) in _OURS]:
        if name in out.headers:
            del out.headers[name]
    signed = {"Host": out.headers.get("host") or out.headers.get("Host") or out.host}
    for name in list(out.headers):
        if twin(name) == "content-type" or twin(name).startswith("x-amz-"):
            signed[name] = out.headers[name]
            # Repeated fields become the one value that is signed.
            InHeader(name).write(out, signed[name])
    signed["X-Amz-Content-SHA256"] = hashlib.sha256(out.body).hexdigest()
    request = AWSRequest(
        out.method, f"{out.scheme}://{signed['Host']}{out.path}", headers=signed, data=out.body
    )
    credentials = Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token)
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    signer(credentials, service, region).add_auth(request)
    for name in _WRITTEN:
        if name in request.headers:
            out.headers[name] = request.headers[name]
