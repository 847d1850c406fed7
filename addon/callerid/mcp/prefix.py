"""The beginning of a JSON text, read as far as it goes.

A look at the first bytes of a message must not be fooled by where they end: what stands in a string, or
deeper than it should, is not what it looks like in a search for words.
"""

from __future__ import annotations

LOOK = 65_536
"""Characters that are looked at."""


def completed(text: str) -> str:
    """The longest beginning of ``text`` that ends after a whole value, with its open brackets closed.

    A text that is JSON up to where it ends comes back as JSON; what is no JSON comes back as no JSON. Takes
    linear time.
    """
    open_brackets: list[str] = []
    safe = position = 0
    size = min(len(text), LOOK)
    while position < size:
        char = text[position]
        if char == '"':
            position = _end_of_string(text, position + 1, size)
            continue
        if char in "{[":
            open_brackets.append("}" if char == "{" else "]")
            safe = position + 1
        elif char in "}]":
            if not open_brackets or open_brackets.pop() != char:
                return text[:size]
            safe = position + 1
            if not open_brackets:
                break
        elif char == ",":
            safe = position  # since the last bracket nothing was opened or closed: they still stand
        position += 1
    return text[:safe] + "".join(reversed(open_brackets))


def _end_of_string(text: str, begin: int, size: int) -> int:
    """Where the string that begins there is over; ``size`` if it is not."""
    quote = begin
    while True:
        quote = text.find('"', quote, size)
        if quote < 0:
            return size
        before = quote
        while before > begin and text[before - 1] == "\\":
            before -= 1
        if (quote - before) % 2 == 0:
            return quote + 1
        quote += 1
