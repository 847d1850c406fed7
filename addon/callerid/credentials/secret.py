"""A secret as a type that cannot print itself, and the forms in which an upstream could echo it.

Law 5: a secret goes to one place. ``reveal()`` has one caller, ``inject.spend``; what else must be made
from the value (header values, needles for the scrubber) is made in here, so that the value stays in here.
Python cannot wipe memory, and this does not pretend to: it closes the ways by which values get *printed*.
"""

from __future__ import annotations

import base64
import hmac
import html
import json
from collections.abc import Iterator
from typing import Final, Never, Self, final
from urllib.parse import quote, quote_plus

from callerid.errors import ConfigError

MIN_LENGTH: Final = 12
"""Characters. A shorter needle would also cut honest text, so a shorter secret cannot be scrubbed."""

PLACEHOLDER: Final = "{secret}"

_URI_SAFE = ("", "/", "!'()*", ";,/?:@&=+$#!'()*")
_JSON_PLAIN = {code: json.dumps(chr(code))[1:-1] for code in range(0x20, 0x7F)}
_JSON_EXTRA = tuple(
    {**_JSON_PLAIN, **{ord(c): pattern % ord(c) for c in special}}
    for special, pattern in (("<>&", "\\u%04x"), ("\"&'<>+`", "\\u%04X"))
)


def is_printable_ascii(text: str) -> bool:
    """True if ``text`` may stand in a header value: no control character, no byte above 0x7e.

    RFC 9110 section 5.5. CR, LF and NUL in a value would let a secret file write headers of its own.
    """
    return text.isascii() and text.isprintable()


class _Guarded:
    """What keeps a value from being printed. Immutable; equal by value and type, compared in constant time.

    ``repr``, ``str``, ``format`` give ``<secret github-shared v1>``; ``bytes``, ``json`` and ``pickle``
    refuse; a copy is the same object.
    """

    __slots__ = ("__value", "label")

    __value: str
    label: str

    def _hold(self, value: str, label: str) -> None:
        object.__setattr__(self, "_Guarded__value", value)
        object.__setattr__(self, "label", label)

    def _value(self) -> str:
        return self.__value

    def reveal(self) -> str:
        """The value. To be called in ``inject.spend`` and nowhere else (a test counts the callers)."""
        return self.__value

    def digest(self, key: bytes) -> bytes:
        """HMAC-SHA256 of the value under ``key`` (RFC 2104): to be known again without being kept."""
        return hmac.digest(key, self.__value.encode("utf-8"), "sha256")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self) or not isinstance(other, _Guarded):
            return NotImplemented
        return hmac.compare_digest(self.__value, other.__value)

    def __hash__(self) -> int:
        return hash(("callerid.Secret", self.__value))

    def __repr__(self) -> str:
        return f"<secret {self.label.replace('@', ' ')}>"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __getstate__(self) -> Never:
        raise TypeError("a Secret cannot be serialised")

    def __reduce_ex__(self, protocol: object) -> Never:
        raise TypeError("a Secret cannot be serialised")

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError("a Secret cannot be changed")

    def __delattr__(self, name: str) -> Never:
        raise AttributeError("a Secret cannot be changed")

    def __init_subclass__(cls) -> None:
        if cls.__module__ != __name__:
            raise TypeError("Secret cannot be subclassed")


@final
class Secret(_Guarded):
    """An upstream secret. Immutable; equal by value, compared in constant time; never a ``str``.

    ``repr``, ``str``, ``format`` give ``<secret github-shared v1>``; ``bytes``, ``json`` and ``pickle``
    refuse; a copy is the same object. A Secret that exists fits into a header and can be scrubbed.

    Args:
        value: at least MIN_LENGTH characters of printable ASCII, without spaces at its ends.
        label: its name and version, ``github-shared@v1``; shown in rows and messages.

    Raises:
        ConfigError: the value is too short or cannot stand in a header. The message does not hold it.
    """

    __slots__ = ()

    def __init__(self, value: str, *, label: str) -> None:
        fault = _fault(value)
        # Traceback printers that show locals must not find the value in this frame.
        self._hold("" if fault else value, label)
        del value
        if fault:
            raise ConfigError(f"the secret {label} {fault}", hint="Store another value in its source.")

    def within(self, template: str) -> Secret:
        """The header value that ``template`` makes of it, ``Bearer {secret}`` for one; as secret as it.

        Raises:
            ConfigError: the template does not hold ``{secret}`` once, or holds a character that a header
                cannot.
        """
        if template.count(PLACEHOLDER) != 1 or not is_printable_ascii(template):
            raise ConfigError(
                f"the header template for {self.label} must be printable ASCII and hold {PLACEHOLDER} once",
                hint=f'Write it as "Bearer {PLACEHOLDER}".',
            )
        return Secret(template.strip(" ").replace(PLACEHOLDER, self._value()), label=self.label)

    def as_basic(self, username: str) -> Secret:
        """The header value of HTTP Basic with the secret as the password (RFC 7617 section 2).

        Raises:
            ConfigError: the username holds a colon, or a character that a header cannot.
        """
        if ":" in username or not is_printable_ascii(username):
            raise ConfigError(
                f"the username for {self.label} must be printable ASCII without a colon",
                hint="Mend the username in credentials.yaml.",
            )
        return Secret(f"Basic {_b64(username, self._value())}", label=self.label)

    def renderings(self, username: str | None = None) -> tuple[bytes, ...]:
        """Every form in which the scrubber looks for it: distinct ASCII needles, longest first.

        Raw, hexadecimal and Base64 (RFC 4648 sections 4 and 5, at the three byte offsets, only the
        characters that do not depend on neighbours; the whole credential of Basic if ``username`` is
        given); each as it is, percent-encoded, JSON-escaped as common encoders do it, and HTML-escaped.
        """
        forms = set(_transported(self._value()))
        forms.update("".join(pattern % ord(c) for c in self._value()) for pattern in ("%%%02X", "%%%02x"))
        digits = self._value().encode("ascii").hex()
        forms.update((digits, digits.upper()))
        encoded = set(_base64_cores(self._value()))
        if username is not None:
            encoded.add(_b64(username, self._value()))
        for text in encoded:
            forms.update(_transported(text))
            forms.update(_transported(text.replace("+", "-").replace("/", "_")))
        return tuple(sorted((form.encode("ascii") for form in forms), key=lambda n: (-len(n), n)))


def pem_fault(text: str) -> str:
    """Why ``text`` is not a certificate chain with its private key in PEM (RFC 7468); empty if it is."""
    lines = text.splitlines()
    if any(not " " <= character <= "~" and character not in "\r\n" for character in text):
        return "holds a character that PEM has not"
    begins = [line for line in lines if line.startswith("-----BEGIN ")]
    keys = [line for line in begins if line.endswith("PRIVATE KEY-----")]
    if "-----BEGIN CERTIFICATE-----" not in begins:
        return "holds no certificate in PEM"
    if len(keys) != 1:
        return "holds no private key in PEM" if not keys else "holds more than one private key"
    if "ENCRYPTED" in keys[0] or any(line.startswith("Proc-Type:") for line in lines):
        return "holds an encrypted private key"
    if sum(map(len, _key_lines(text))) < 2 * MIN_LENGTH:
        return "holds a private key that is cut short"
    return ""


def _key_lines(text: str) -> tuple[str, ...]:
    """The Base64 lines of the private key."""
    found: list[str] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("-----"):
            inside = line.startswith("-----BEGIN ") and line.endswith("PRIVATE KEY-----")
        elif inside and line.strip():
            found.append(line.strip())
    return tuple(found)


@final
class PemSecret(_Guarded):
    """A client certificate with its chain and its private key, in PEM. Never a header: it is no Secret.

    Args:
        text: certificates and one unencrypted private key (RFC 7468).
        label: its name and version.

    Raises:
        ConfigError: it is not that. The message does not hold it.
    """

    __slots__ = ()

    def __init__(self, text: str, *, label: str) -> None:
        fault = pem_fault(text)
        self._hold("" if fault else text, label)
        del text
        if fault:
            raise ConfigError(f"the secret {label} {fault}", hint="Store another value in its source.")

    def renderings(self, username: str | None = None) -> tuple[bytes, ...]:
        """The needles of the private key: each of its Base64 lines, in the forms of ``Secret.renderings``.

        The certificates are public. A line that is too short to be told from honest text is left out.
        """
        forms: set[str] = set()
        for line in _key_lines(self._value()):
            if len(line) >= MIN_LENGTH:
                forms.update(_transported(line))
                for core in _base64_cores(line):
                    forms.update(_transported(core))
        return tuple(sorted((form.encode("ascii") for form in forms), key=lambda n: (-len(n), n)))


def _fault(value: object) -> str:
    if not isinstance(value, str):
        return "is not text"
    if len(value) < MIN_LENGTH:
        return f"is shorter than {MIN_LENGTH} characters"
    if not is_printable_ascii(value):
        return "holds a character that a header cannot carry"
    if value != value.strip(" "):
        return "begins or ends with a space"
    return ""


def _b64(username: str, value: str) -> str:
    return base64.b64encode(f"{username}:{value}".encode("ascii")).decode("ascii")


def _base64_cores(value: str) -> Iterator[str]:
    """For each offset in a longer text: the Base64 characters made of bits of ``value`` alone."""
    data = value.encode("ascii")
    yield base64.b64encode(data).decode("ascii").rstrip("=")
    for offset in range(3):
        text = base64.b64encode(bytes(offset) + data).decode("ascii")
        yield text[-(-offset * 8 // 6) : (offset + len(data)) * 8 // 6]


def _transported(text: str) -> Iterator[str]:
    """``text`` as it may stand in plain text, in a URL or form, in JSON, in JSON within JSON, in HTML."""
    yield text
    for safe in _URI_SAFE:
        for encoded in (quote(text, safe=safe), quote_plus(text, safe=safe)):
            yield encoded
            yield _lower_percent(encoded)
    whole = "".join(c if c.isalnum() else f"%{ord(c):02X}" for c in text)  # also what need not be encoded
    yield whole
    yield _lower_percent(whole)
    escaped = json.dumps(text)[1:-1]
    yield escaped
    yield escaped.replace("/", "\\/")
    yield json.dumps(escaped)[1:-1]
    for table in _JSON_EXTRA:
        yield text.translate(table)
    yield html.escape(text, quote=True)
    yield html.escape(text, quote=False)


def _lower_percent(text: str) -> str:
    first, *rest = text.split("%")
    return "%".join([first, *(part[:2].lower() + part[2:] for part in rest)])
