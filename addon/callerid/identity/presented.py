"""Everything that one request shows of who sent it: raw, unverified, and kept out of ``repr``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from callerid.model import Carrier


class RequestMark:
    """Tells one request from every other. Held only weakly by whoever remembers it."""

    __slots__ = ("__weakref__",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """Raw header values as received, every instance of each header, and the TLS chains (DER, leaf first).

    ``connect_proxy_authorization`` and ``connect_callerid_token`` are from the CONNECT that opened the
    tunnel, all other headers from this very request. ``proxy_chain`` is of the TLS connection to the proxy,
    ``inner_chain`` of the intercepted one, or of the one to a listener in reverse mode (``reverse``).
    ``tunnel``: the request came inside of a CONNECT.

    ``method`` and ``url`` are those of the request at its server (a DPoP proof names them); ``resource`` is
    the URL of the listed server that it is for, None if it is for none. ``mark`` is the same for every
    judgement of one request.
    """

    proxy_authorization: tuple[str, ...] = field(default=(), repr=False)
    connect_proxy_authorization: tuple[str, ...] = field(default=(), repr=False)
    authorization: tuple[str, ...] = field(default=(), repr=False)
    callerid_token: tuple[str, ...] = field(default=(), repr=False)
    connect_callerid_token: tuple[str, ...] = field(default=(), repr=False)
    dpop: tuple[str, ...] = field(default=(), repr=False)
    forwarded_client_cert: tuple[str, ...] = field(default=(), repr=False)
    client_cert: tuple[str, ...] = field(default=(), repr=False)
    client_cert_chain: tuple[str, ...] = field(default=(), repr=False)
    proxy_chain: tuple[bytes, ...] = field(default=(), repr=False)
    inner_chain: tuple[bytes, ...] = field(default=(), repr=False)
    client_ip: str | None = None
    tunnel: bool = False
    reverse: bool = False
    method: str = ""
    url: str | None = None
    resource: str | None = None
    mark: RequestMark | None = field(default=None, repr=False, compare=False)

    def at_connect(self) -> tuple[tuple[Carrier, tuple[str, ...]], ...]:
        """The carrier headers of the CONNECT: good for all that comes through its tunnel."""
        return (
            (Carrier.PROXY_AUTHORIZATION, self.connect_proxy_authorization),
            (Carrier.X_CALLERID_TOKEN, self.connect_callerid_token),
        )

    def headers(self) -> tuple[tuple[Carrier, tuple[str, ...]], ...]:
        """The carrier headers of the request itself."""
        return (
            (Carrier.PROXY_AUTHORIZATION, self.proxy_authorization),
            (Carrier.X_CALLERID_TOKEN, self.callerid_token),
            (Carrier.AUTHORIZATION, self.authorization),
        )

    def door_chain(self) -> tuple[bytes, ...]:
        """The certificate on the connection that the listener itself took."""
        return self.inner_chain if self.reverse else self.proxy_chain

    def sender_carrier(self) -> Carrier:
        """On which connection the certificate of whoever wrote this request would be.

        What comes through a tunnel was written at its far end: the certificate that opened it is not the
        certificate of whoever speaks in it.
        """
        return Carrier.INNER_TLS if self.tunnel or self.reverse else Carrier.PROXY_TLS

    def digest(self) -> bytes:
        """SHA-256 over everything presented, unambiguously; what was presented cannot be read from it.

        Without ``method`` and ``url``, which count for a DPoP proof only, and such a request is judged anew.
        """
        shown = (
            self.tunnel,
            self.reverse,
            self.client_ip,  # a token may be good from some networks only
            self.connect_proxy_authorization,
            self.connect_callerid_token,
            self.proxy_authorization,
            self.callerid_token,
            self.authorization,
            self.dpop,
            self.forwarded_client_cert,
            self.client_cert,
            self.client_cert_chain,
            self.resource,
            self.proxy_chain,
            self.inner_chain,
        )
        # Their literals: each of these types has its own, and what is quoted in one cannot end it.
        return hashlib.sha256(repr(shown).encode("utf-8")).digest()
