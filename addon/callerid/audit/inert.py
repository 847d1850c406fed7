"""Text that does nothing but be read, in a terminal, in ``sqlite3`` or in a browser.

Callers choose tool names, resource URIs and headers. An escape sequence or a bidi override among them
could repaint an analyst's screen or swap the halves of a line (CVE-2021-42574, "Trojan Source"), so the
characters that act instead of showing are written as visible escapes before they reach the database.
"""

from __future__ import annotations

_RANGES = (
    (0x00, 0x1F),  # C0 controls, ESC among them
    (0x7F, 0x9F),  # DEL and the C1 controls: 0x9B is a one-byte CSI
    (0xAD, 0xAD),  # soft hyphen
    (0x061C, 0x061C),  # Arabic letter mark
    (0x180E, 0x180E),  # Mongolian vowel separator
    (0x200B, 0x200B),  # zero width space
    (0x200E, 0x200F),  # left-to-right and right-to-left mark
    (0x2028, 0x202E),  # line and paragraph separators, bidi embeddings and overrides
    (0x2060, 0x206F),  # invisible operators, bidi isolates
    (0xFEFF, 0xFEFF),  # byte order mark
    (0xFFF9, 0xFFFB),  # interlinear annotation
    (0xD800, 0xDFFF),  # lone surrogates: SQLite stores UTF-8, which has none
    (0xE0000, 0xE007F),  # tags
)
_UNSAFE = tuple(code for first, last in _RANGES for code in range(first, last + 1))


def _visible(code: int) -> str:
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _json_escape(code: int) -> str:
    """RFC 8259 section 7: beyond the BMP a character is escaped as a surrogate pair."""
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


_TEXT_TABLE = {code: _visible(code) for code in _UNSAFE}
_JSON_TABLE = {code: _json_escape(code) for code in _UNSAFE}
_PARAGRAPH_TABLE = {code: text for code, text in _TEXT_TABLE.items() if code not in (0x09, 0x0A)}


def inert(text: str) -> str:
    """One line of visible text: what acts on a terminal becomes ``\\x1b`` or ``\\u202e``."""
    if text.isascii() and text.isprintable():
        return text
    return text.translate(_TEXT_TABLE)


def inert_paragraph(text: str) -> str:
    """As ``inert``, but tabs and line feeds stay: for text of several lines, such as a rule file."""
    return text.translate(_PARAGRAPH_TABLE)


def inert_json(text: str) -> str:
    """JSON text with the same characters escaped the JSON way, so its value does not change."""
    if text.isascii() and text.isprintable():
        return text
    return text.translate(_JSON_TABLE)


def encodable(text: str) -> str:
    """Text that UTF-8 can carry: a lone surrogate becomes a visible escape, the rest stays."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
