"""A request about to leave, and the ways in which a secret can be written into it.

Each way writes a text: the secret, or afterwards the placeholder in its place. So what is concealed is what
was written, whatever the kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Protocol

from callerid.credentials.query import with_parameter


@dataclass(slots=True, kw_only=True)
class Outgoing:
    """The judged request, changed in place by what writes the secret; nothing else may change it after that.

    ``path`` is the request target with its query. ``headers`` maps names to values; one that ignores case and
    keeps repeated fields, as mitmproxy's does, must drop all of them on deletion.
    """

    method: str
    scheme: str
    host: str
    port: int
    path: str
    headers: MutableMapping[str, str]
    body: bytes = b""


class Way(Protocol):
    """How a secret gets into a request."""

    def write(self, out: Outgoing, text: str) -> None:
        """Put ``text``, the secret's value, into its one place."""

    def hide(self, out: Outgoing, text: str) -> None:
        """Put ``text``, a placeholder, where the secret was written."""


@dataclass(frozen=True, slots=True)
class InHeader:
    """A header's whole value. Every field of that name goes, also those that differ in case, or in underscore
    against hyphen: some servers read them as one."""

    name: str

    def write(self, out: Outgoing, text: str) -> None:
        wanted = twin(self.name)
        for name in [name for name in out.headers if twin(name) == wanted]:
            if name in out.headers:
                del out.headers[name]
        out.headers[self.name] = text

    hide = write


@dataclass(frozen=True, slots=True)
class InQuery:
    """A parameter of the query, in the forwarded copy only."""

    name: str

    def write(self, out: Outgoing, text: str) -> None:
        out.path = with_parameter(out.path, self.name, text)

    hide = write


@dataclass(slots=True, eq=False)
class InBody:
    """The one string of the judged JSON body that is ``token``, for one request."""

    token: str = field(repr=False)
    _around: tuple[bytes, bytes] | None = field(default=None, repr=False)

    def write(self, out: Outgoing, text: str) -> None:
        if self._around is None:
            before, found, after = out.body.partition(json.dumps(self.token).encode("ascii"))
            if not found:
                raise LookupError("the place of this secret is not in the body any more")
            self._around = before, after
        out.body = json.dumps(text).encode("ascii").join(self._around)

    hide = write


@dataclass(frozen=True, slots=True)
class InPlace:
    """Where the caller's own token stands: known for each request by ``phantom.fit`` only.

    ``kind`` is ``header``, ``query`` or ``pointer``.
    """

    kind: str
    name: str

    def write(self, out: Outgoing, text: str) -> None:
        raise LookupError("the place of this secret was not looked up in the request")

    hide = write


@dataclass(frozen=True, slots=True)
class Signed:
    """AWS Signature Version 4 over the final headers and body: the secret itself stays here."""

    region: str
    service: str
    sign: Callable[[Outgoing, str, str, str], None]

    def write(self, out: Outgoing, text: str) -> None:
        self.sign(out, text, self.region, self.service)

    def hide(self, out: Outgoing, text: str) -> None:
        for name in ("Authorization", "X-Amz-Security-Token"):
            if name in out.headers:
                InHeader(name).write(out, text)


@dataclass(frozen=True, slots=True)
class InTls:
    """A client certificate: shown on the connection (``proxy.upstream_tls``), never in a request."""

    def write(self, out: Outgoing, text: str) -> None:
        raise LookupError("a client certificate is not written into a request")

    def hide(self, out: Outgoing, text: str) -> None:
        """Nothing of it is in the request."""


@dataclass(frozen=True, slots=True)
class AsItCame:
    """Nothing of ours: the caller's own ``Authorization`` goes on."""

    def write(self, out: Outgoing, text: str) -> None:
        raise LookupError("there is no secret of ours to write")

    def hide(self, out: Outgoing, text: str) -> None:
        """It is the caller's own, and stays where he put it."""


def twin(name: str) -> str:
    """A header's name as the most lenient server reads it."""
    return name.lower().replace("_", "-")
